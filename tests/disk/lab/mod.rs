//! What the tests share: random numbers, directories, child processes, and the tracer.

pub(crate) mod disk;
pub(crate) mod ops;
pub(crate) mod tracer;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};
use taskledger::{Builder, Ledger, OpenError};

pub(crate) type TestLedger = Ledger<String, String>;

/// Far more than anything here takes: only to tell slow from never.
pub(crate) const NEVER: Duration = Duration::from_secs(120);

/// A ledger without a ballast, which opens within the deadline or says that it is stuck.
pub(crate) fn builder() -> Builder<String, String> {
    TestLedger::builder()
        .ballast_bytes(0)
        .open_deadline(Duration::from_secs(60))
        .lock_wait(Duration::from_secs(5))
}

/// Opens the ledger; more than a refusal, never coming back is a failure of the test.
pub(crate) async fn open(
    builder: Builder<String, String>,
    path: &Path,
) -> Result<TestLedger, OpenError> {
    tokio::time::timeout(NEVER, builder.open(path)).await.expect("the open hangs")
}

pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// A small generator: the same numbers from the same seed, for ever.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// Begins where the environment says, or somewhere; says where.
    pub(crate) fn of(test: &str) -> Self {
        let seed = std::env::var("TASKLEDGER_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            now.as_micros() as u64 % 1_000_000
        });
        println!("{test}: TASKLEDGER_SEED={seed}");
        Self::new(seed)
    }

    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `end`, without `end`.
    pub(crate) const fn below(&mut self, end: u64) -> u64 {
        self.next() % if end == 0 { 1 } else { end }
    }

    pub(crate) const fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

/// How many rounds: as many as fit into a minute, or what the environment says.
pub(crate) fn rounds(usual: u64) -> u64 {
    let Ok(wanted) = std::env::var("TASKLEDGER_ROUNDS") else { return usual };
    match wanted.strip_prefix('x') {
        Some(factor) => usual * factor.parse::<u64>().expect("TASKLEDGER_ROUNDS=x<factor>"),
        None => wanted.parse().expect("TASKLEDGER_ROUNDS=<number>"),
    }
}

/// A directory of this test, in memory where there is such a place: what a disk forgets is
/// simulated here, never waited for.
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory } else { Path::new(env!("CARGO_TARGET_TMPDIR")) };
    tempfile::Builder::new().prefix("taskledger-").tempdir_in(place).unwrap()
}

/// A directory of this test on a real disk.
pub(crate) fn on_disk() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// This test binary as another process, which plays `role` (see `child.rs`) in the ledger at
/// `path`. Its stderr is for acknowledgements.
pub(crate) fn child(role: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["child::plays_its_role", "--exact", "--nocapture", "--test-threads=1"])
        .env("TASKLEDGER_CHILD", role)
        .env("TASKLEDGER_CHILD_PATH", path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// All files below a directory with their bytes, all directories with `None`.
pub(crate) type Image = BTreeMap<PathBuf, Option<Vec<u8>>>;

pub(crate) fn image(dir: &Path) -> Image {
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
pub(crate) fn lay_out(image: &Image, dir: &Path) {
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
pub(crate) fn used(bytes: &[u8]) -> u64 {
    let mut pages = bytes.chunks(4096).enumerate().rev();
    let last = pages.find(|(_, page)| **page != ZEROS[..page.len()]);
    last.map_or(0, |(number, page)| number as u64 * 4096 + page.len() as u64)
}

/// Whole pages are compared at once: these tests are not optimized.
static ZEROS: [u8; 4096] = [0; 4096];

pub(crate) fn write_sparse(path: &Path, bytes: &[u8]) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (number, page) in bytes.chunks(4096).enumerate() {
        if *page != ZEROS[..page.len()] {
            file.write_all_at(page, number as u64 * 4096).unwrap();
        }
    }
}

/// What differs between two images, apart from the lock, whose text is only for people; `None` if
/// nothing does.
pub(crate) fn difference(before: &Image, after: &Image) -> Option<String> {
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
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0)
}

/// Says that a test cannot be made here, so that nobody takes it for passed.
pub(crate) fn skipped(test: &str, why: &str) {
    eprintln!("\n==== SKIPPED {test}: {why} ====\n");
}
