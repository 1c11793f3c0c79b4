//! What the harnesses share: ledgers, directories, their images, and child processes.

use crate::Rng;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;
use taskledger::{Builder, Ledger, OpenError};

pub type TestLedger = Ledger<String, String>;

/// Far more than anything here takes: only to tell slow from never.
pub const NEVER: Duration = Duration::from_secs(120);

/// A ledger without a ballast, which opens within the deadline or says that it is stuck.
pub fn builder() -> Builder<String, String> {
    TestLedger::builder()
        .ballast_bytes(0)
        .open_deadline(Duration::from_secs(60))
        .lock_wait(Duration::from_secs(5))
}

/// The variable that tells a child how large a ballast it has to keep.
pub const BALLAST: &str = "TASKLEDGER_CHILD_BALLAST";

/// The variable that tells a child to accept a loss.
pub const ACCEPTS: &str = "TASKLEDGER_CHILD_ACCEPTS";

/// The size of a ballast: of none, or of a small one.
pub fn some_ballast(rng: &mut Rng) -> u64 {
    if rng.coin() { 8 << 10 } else { 0 }
}

/// Opens the ledger; more than a refusal, never coming back is a failure of the test.
pub async fn open(builder: Builder<String, String>, path: &Path) -> Result<TestLedger, OpenError> {
    tokio::time::timeout(NEVER, builder.open(path)).await.expect("the open hangs")
}

pub fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// A directory of this test, in memory where there is such a place: what a disk forgets is
/// simulated here, never waited for.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if !memory.is_dir() {
        return on_disk();
    }
    tempfile::Builder::new().prefix("taskledger-").tempdir_in(memory).unwrap()
}

/// Beside the program: on a disk that has room for what is built.
pub fn beside() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.parent().unwrap().to_owned()
}

/// A directory of this test on a real disk.
pub fn on_disk() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("taskledger-").tempdir_in(beside()).unwrap()
}

/// The lab's program as another process, which plays `role` (see `child.rs`) in the ledger at
/// `path`. Its stderr is for acknowledgements.
#[must_use]
pub fn child(role: &str, path: &Path) -> Command {
    let mut command = crate::program();
    command
        .args(["child", role])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Whether a child that may have been killed was: else it has done all that it was to do. No other end
/// was asked for.
pub fn was_killed(status: ExitStatus) -> Result<bool, String> {
    match (status.success(), status.signal()) {
        (true, _) => Ok(false),
        (false, Some(signal)) if signal == rustix::process::Signal::KILL.as_raw() => Ok(true),
        (false, _) => Err(format!("the child ended with {status}")),
    }
}

/// Says that somebody owns the ledger at a path, by a file beside it that only one can create: two
/// owners at once are seen, whatever they do to the ledger. Dropped before the ledger is closed.
#[derive(Debug)]
pub struct Owns(PathBuf);

/// What is said of two owners.
pub const AT_ONCE: &str = "two own it at once";

/// What is said of one that the ledger's lock did not keep out.
pub const PAST_OURS: &str = "nothing but the store's own lock keeps it out";

/// Why an open is refused.
#[must_use]
pub fn refused(error: &OpenError) -> String {
    match error {
        OpenError::Io { action: "lock the log", source, .. }
            if source.kind() == std::io::ErrorKind::WouldBlock =>
        {
            format!("{PAST_OURS}: {error}")
        }
        other => format!("{other}: {other:?}"),
    }
}

impl Owns {
    pub fn begin(path: &Path) -> Result<Self, String> {
        let file = path.with_extension("owner");
        match std::fs::File::create_new(&file) {
            Ok(_) => Ok(Self(file)),
            Err(error) => Err(format!("{AT_ONCE}: {error}")),
        }
    }
}

impl Drop for Owns {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// All files below a directory with their bytes, all directories with `None`.
pub type Image = BTreeMap<PathBuf, Option<Vec<u8>>>;

pub fn image(dir: &Path) -> Image {
    fn into(dir: &Path, top: &Path, image: &mut Image) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(top).unwrap().to_owned();
            if path.symlink_metadata().unwrap().is_dir() {
                image.insert(name, None);
                into(&path, top, image);
            } else {
                image.insert(name, Some(std::fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = Image::new();
    into(dir, dir, &mut found);
    found
}

/// Writes the image into a new directory; pages of zeros stay holes.
pub fn lay_out(image: &Image, dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    for (name, content) in image {
        let path = dir.join(name);
        match content {
            None => std::fs::create_dir_all(&path).unwrap(),
            Some(bytes) => write_sparse(&path, bytes),
        }
    }
}

/// Where the last page ends that has something in it.
pub fn used(bytes: &[u8]) -> u64 {
    let mut pages = bytes.chunks(4096).enumerate().rev();
    let last = pages.find(|(_, page)| **page != ZEROS[..page.len()]);
    last.map_or(0, |(number, page)| number as u64 * 4096 + page.len() as u64)
}

/// Whole pages are compared at once: these tests are not optimized.
static ZEROS: [u8; 4096] = [0; 4096];

/// Writes a file whose pages of zeros stay holes; but for a ballast, which is nothing but its space.
pub fn write_sparse(path: &Path, bytes: &[u8]) {
    if path.ends_with("ballast") {
        return std::fs::write(path, bytes).unwrap();
    }
    let file = std::fs::File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (number, page) in bytes.chunks(4096).enumerate() {
        if *page != ZEROS[..page.len()] {
            file.write_all_at(page, number as u64 * 4096).unwrap();
        }
    }
}

/// Makes directories where the next checkpoints would go, so that no log can be folded until they are
/// removed.
pub fn block_the_next_checkpoint(path: &Path) -> Vec<PathBuf> {
    let blocked: Vec<_> = (1..20)
        .map(|number| path.join(format!("checkpoint-{number}")))
        .filter(|path| !path.exists())
        .collect();
    blocked.iter().for_each(|path| std::fs::create_dir(path).unwrap());
    blocked
}

/// What differs between two images, apart from the lock, in which whoever takes it writes who that is,
/// also when the open is refused; `None` if nothing does.
pub fn difference(before: &Image, after: &Image) -> Option<String> {
    let mut text = String::new();
    let lock = Path::new("lock");
    for name in before.keys().chain(after.keys().filter(|name| !before.contains_key(*name))) {
        let (old, new) = (before.get(name), after.get(name));
        if old != new && name != lock {
            let length =
                |found: Option<&Option<Vec<u8>>>| found.map(|bytes| bytes.as_ref().map(Vec::len));
            writeln!(text, "{}: {:?} -> {:?}", name.display(), length(old), length(new)).unwrap();
        }
    }
    (!text.is_empty()).then_some(text)
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0)
}

/// Says that a test cannot be made here, so that nobody takes it for passed: past what the test runner
/// captures of a test that passes.
pub fn skipped(test: &str, why: &str) {
    let told = format!("\n==== SKIPPED {test}: {why} ====\n\n");
    drop(std::io::stderr().write_all(told.as_bytes()));
}
