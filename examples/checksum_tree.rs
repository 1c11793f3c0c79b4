//! Hashes every file under a directory, each once, however often it is killed in between.
//!
//! ```sh
//! cargo run --release --example checksum_tree                        # this checkout
//! cargo run --release --example checksum_tree -- --kill-half-way DIR # dies like `kill -9`
//! cargo run --release --example checksum_tree -- DIR                 # goes on where it died
//! ```
//!
//! Each file is a task: its path relative to the directory is the id (a [`ByteId`], since a path
//! need not be UTF-8), its digest the stored output. On stdout come the lines of `sha256sum`, in
//! the order of the paths, so that `cd DIR && sha256sum --check` accepts them; on stderr what the
//! ledger recovered, which files failed, and how many digests were computed now and how many came
//! from the ledger. Exit status: 0 all digests are there, 1 some files failed, 2 it could not work.
//!
//! **The path alone is the id.** A file that has changed since its digest was recorded is not
//! hashed again: for the ledger that task is done, and its digest is the one of then. How many such
//! files there are is told on stderr. Where it matters, make what has to be the same
//! part of the id (the size and the time of change, say), or take the old success back by a revoke.
//!
//! Only regular files count; links are not followed. `.git`, the `target` at the top, and the ledger
//! itself are passed over.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::error::Error;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::future::pending;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;
use taskledger::{AttemptError, ByteId, Ledger, Rejection, TaskState};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const USAGE: &str = "usage: checksum_tree [--ledger DIR] [--jobs N] [--kill-half-way] [DIR]

  DIR               the directory to hash (default: this checkout, else the current directory)
  --ledger DIR      where the ledger is (default: one for each DIR, under target/checksum_tree)
  --jobs N          files hashed at a time (default: 4 for each core)
  --kill-half-way   die by SIGKILL when half of what is to be done has been recorded";

/// A line for people. Nobody reading it (`2>&1 | head`) is no reason to panic, as `eprintln!` would.
macro_rules! tell {
    ($($arg:tt)*) => {
        drop(writeln!(io::stderr(), $($arg)*))
    };
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            drop(writeln!(io::stdout(), "{USAGE}"));
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            tell!("checksum_tree: {wrong}; see --help");
            return ExitCode::from(2);
        }
    };
    match run(options).await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            tell!("checksum_tree: {}", chain(&*error));
            ExitCode::from(2)
        }
    }
}

/// Any error; it crosses threads.
type AnyError = Box<dyn Error + Send + Sync>;

/// What is kept of a file that was hashed. Stored with its field names: it may gain fields, and the
/// dump tool prints it as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Digest {
    sha256: String,
    bytes: u64,
    /// When the file was last changed before it was hashed.
    modified: SystemTime,
}

impl Digest {
    /// Whether the file is not, by its looks, the one that was hashed.
    fn is_stale(&self, file: &Path) -> bool {
        let same = |found: Metadata| {
            Ok::<_, io::Error>(found.len() == self.bytes && found.modified()? == self.modified)
        };
        !file.metadata().and_then(same).unwrap_or(false)
    }
}

/// Where the digest of a file comes from, or why there is none.
enum Outcome {
    DoneNow(Digest),
    FromLedger(Digest),
    Failed(String),
}

/// Hashes the tree; returns how many files failed.
async fn run(options: Options) -> Result<usize, AnyError> {
    let ledger: Ledger<ByteId, Digest> = Ledger::open(&options.ledger).await?;
    report_recovery(&ledger, &options);
    let done = hash_tree(&ledger, &options).await;
    // Also after an error: what was recorded is synced, and the lock is freed.
    let closed = ledger.close().await;
    let failed = done?;
    closed?;
    Ok(failed)
}

fn report_recovery(ledger: &Ledger<ByteId, Digest>, options: &Options) {
    let found = ledger.recovery();
    tell!(
        "ledger {}: {} succeeded, {} failed ({} of them found crashed just now); open number {}, in {:?}",
        options.ledger.display(),
        found.count(TaskState::Succeeded),
        found.count(TaskState::Failed),
        found.crashed::<ByteId>().len(),
        found.epoch(),
        found.took(),
    );
    // These were being hashed when the last process died. They are neither lost nor silently done
    // again: here it is harmless to do them again, so that is what happens below.
    for crashed in found.crashed::<ByteId>().take(10).flatten() {
        tell!("  crashed: {crashed}");
    }
    for repaired in found.repaired() {
        tell!("  repaired: {repaired}");
    }
}

async fn hash_tree(ledger: &Ledger<ByteId, Digest>, options: &Options) -> Result<usize, AnyError> {
    remember_root(ledger, &options.root).await?;
    let (files, mut failed) = walk(&options.root, &options.ledger)?;
    for (path, error) in &failed {
        tell!("failed: {}: {error}", ByteId::from(path.as_path()));
    }
    let is_done =
        |path: &Path| ledger.succeeded_tasks().contains(path.as_os_str().as_encoded_bytes());
    let to_do = files.iter().filter(|path| !is_done(path)).count();
    let plug = Arc::new(Plug::new(options.kill_half_way.then_some(to_do / 2)));

    let mut out = io::stdout().lock();
    let mut summary = Summary::default();
    let mut under_way: VecDeque<(PathBuf, JoinHandle<_>)> = VecDeque::new();
    let mut files = files.into_iter();
    let mut number = 0;
    // As many at a time as allowed; waited for in their order, so that the lines are in order.
    loop {
        while under_way.len() < options.jobs {
            let Some(path) = files.next() else { break };
            // What the ledger knows already counts for nothing in "half way".
            let place = number;
            number += usize::from(!is_done(&path));
            let guarded = hash_once(
                ledger.clone(),
                options.root.clone(),
                path.clone(),
                Arc::clone(&plug),
                place,
            );
            under_way.push_back((path, tokio::spawn(guarded)));
        }
        let Some((path, outcome)) = under_way.pop_front() else { break };
        match outcome.await?? {
            Outcome::Failed(why) => {
                tell!("failed: {}: {why}", ByteId::from(path.as_path()));
                failed.push((path, io::Error::other(why)));
            }
            Outcome::DoneNow(digest) => {
                summary.done_now += 1;
                summary.print(&mut out, &digest, &path)?;
            }
            Outcome::FromLedger(digest) => {
                summary.from_ledger += 1;
                summary.stale += usize::from(digest.is_stale(&options.root.join(&path)));
                summary.print(&mut out, &digest, &path)?;
            }
        }
        if summary.nobody_reads {
            // As in `checksum_tree | head`. What is under way ends and is recorded by the close.
            return Ok(failed.len());
        }
    }
    if summary.stale > 0 {
        tell!("changed since they were hashed: {} files; their digests are of then", summary.stale);
    }
    tell!(
        "{} done now, {} from the ledger, {} failed",
        summary.done_now,
        summary.from_ledger,
        failed.len()
    );
    Ok(failed.len())
}

/// The whole guard: launching is the question whether it has been done, and the claim to do it.
async fn hash_once(
    ledger: Ledger<ByteId, Digest>,
    root: PathBuf,
    path: PathBuf,
    plug: Arc<Plug>,
    place: usize,
) -> Result<Outcome, AnyError> {
    let id = ByteId::from(path.as_path());
    let work = {
        let (file, plug) = (root.join(&path), Arc::clone(&plug));
        async move {
            plug.maybe_pull(place).await;
            // Reading and hashing block, so they have no place on the runtime's own threads.
            tokio::task::spawn_blocking(move || hash_file(&file))
                .await
                .unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
        }
    };
    let outcome = match ledger.launch_block(id.clone(), work).await {
        Ok(digest) => Outcome::DoneNow(digest),
        Err(AttemptError::Refused { state: TaskState::Succeeded, .. }) => {
            match ledger.output(&id).await? {
                Some(digest) => return Ok(Outcome::FromLedger(digest)),
                None => return Ok(Outcome::Failed("recorded without its digest".to_owned())),
            }
        }
        // Recorded as failed, with this text, and tried again by the next run.
        Err(AttemptError::Failed(error)) => Outcome::Failed(error.to_string()),
        Err(AttemptError::Panicked(why) | AttemptError::Cancelled(why)) => Outcome::Failed(why),
        // A path longer than an id may be is this file's problem alone.
        Err(AttemptError::Rejected { reason: Rejection::Id(wrong), .. }) => {
            Outcome::Failed(wrong.to_string())
        }
        // The ledger no longer records: nothing further can be promised.
        Err(AttemptError::InDoubt { poison, .. }) => return Err(poison.into()),
        Err(AttemptError::Rejected { reason, .. }) => return Err(reason.into()),
        Err(other) => return Err(other.to_string().into()),
    };
    plug.recorded();
    Ok(outcome)
}

fn hash_file(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let modified = file.metadata()?.modified()?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    let mut bytes = 0;
    loop {
        let read = match file.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        hasher.update(part);
        bytes += part.len() as u64;
    }
    Ok(Digest { sha256: hex(&hasher.finalize()), bytes, modified })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The ids are relative paths, so a ledger is about one tree. That is remembered in its metadata.
async fn remember_root(ledger: &Ledger<ByteId, Digest>, root: &Path) -> Result<(), AnyError> {
    let root = root.as_os_str().as_encoded_bytes();
    match ledger.metadata().get("root") {
        Some(known) if known == root => Ok(()),
        Some(other) => {
            let other = ByteId::from(other.as_slice());
            Err(format!("this ledger is about {other}; give another one with --ledger").into())
        }
        None => Ok(ledger.set_metadata("root", Some(root.to_vec())).await?),
    }
}

/// A file or directory, and what is wrong with it.
type Unreadable = (PathBuf, io::Error);

/// The regular files below `root`, relative to it and in order, and what cannot be looked into.
fn walk(root: &Path, ledger: &Path) -> io::Result<(Vec<PathBuf>, Vec<Unreadable>)> {
    let ledger = ledger.canonicalize()?;
    // Without its top there is no tree.
    std::fs::read_dir(root)?;
    let (mut files, mut failed) = (Vec::new(), Vec::new());
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let entries = match std::fs::read_dir(root.join(&directory)) {
            Ok(entries) => entries,
            Err(error) => {
                failed.push((directory, error));
                continue;
            }
        };
        for entry in entries {
            let found = entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?)));
            let (name, kind) = match found {
                Ok(found) => found,
                Err(error) => {
                    failed.push((directory.clone(), error));
                    continue;
                }
            };
            let is_top = directory.as_os_str().is_empty();
            if name == ".git" || (is_top && name == "target" && kind.is_dir()) {
                continue;
            }
            let path = directory.join(name);
            if kind.is_file() {
                files.push(path);
            } else if kind.is_dir() && root.join(&path) != ledger {
                directories.push(path);
            }
        }
    }
    files.sort();
    Ok((files, failed))
}

#[derive(Default)]
struct Summary {
    done_now: usize,
    from_ledger: usize,
    stale: usize,
    nobody_reads: bool,
}

impl Summary {
    /// A line as `sha256sum` writes it: a name with a backslash, a newline or a carriage return is
    /// escaped, and a backslash in front of the line says so. Other bytes are written as they are.
    fn print(&mut self, out: &mut impl Write, digest: &Digest, path: &Path) -> io::Result<()> {
        let (mut name, mut escaped) = (Vec::new(), "");
        for &byte in path.as_os_str().as_encoded_bytes() {
            let replaced: &[u8] = match byte {
                b'\\' => b"\\\\",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                _ => {
                    name.push(byte);
                    continue;
                }
            };
            name.extend_from_slice(replaced);
            escaped = "\\";
        }
        let written = write!(out, "{escaped}{}  ", digest.sha256)
            .and_then(|()| out.write_all(&name))
            .and_then(|()| out.write_all(b"\n"));
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.nobody_reads = true;
                Ok(())
            }
            written => written,
        }
    }
}

/// Kills the process in the middle of an attempt, when exactly as many as wanted are recorded.
struct Plug {
    pull_after: Option<usize>,
    recorded: watch::Sender<usize>,
}

impl Plug {
    fn new(pull_after: Option<usize>) -> Self {
        Self { pull_after, recorded: watch::Sender::new(0) }
    }

    fn recorded(&self) {
        self.recorded.send_modify(|recorded| *recorded += 1);
    }

    /// Called by the attempt that is the `place`-th of this run. Those that come after the half
    /// wait for it, and then die with the process: they are found as crashed.
    async fn maybe_pull(&self, place: usize) {
        let Some(half) = self.pull_after.filter(|half| place >= *half) else { return };
        // The sender is ours, so this cannot fail; if it did, the plug would be pulled early.
        drop(self.recorded.subscribe().wait_for(|recorded| *recorded >= half).await);
        tell!("killing this process with {half} files recorded");
        // No unwinding, no drop, no flush: what a power cut leaves of a process, but for the disk.
        if let Err(error) =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        {
            tell!("it does not die: {error}");
        }
        pending().await
    }
}

struct Options {
    root: PathBuf,
    ledger: PathBuf,
    jobs: usize,
    kill_half_way: bool,
}

impl Options {
    /// `None` when help is wanted.
    fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Option<Self>, String> {
        let (mut root, mut ledger, mut jobs, mut kill_half_way) = (None, None, None, false);
        while let Some(arg) = args.next() {
            match arg.to_str() {
                Some("-h" | "--help") => return Ok(None),
                Some("--kill-half-way") => kill_half_way = true,
                Some("--ledger") => {
                    ledger = Some(args.next().map(PathBuf::from).ok_or("--ledger needs a DIR")?);
                }
                Some("--jobs") => {
                    let number = args.next().and_then(|number| number.to_str()?.parse().ok());
                    let number = number.filter(|number: &usize| *number > 0);
                    jobs = Some(number.ok_or("--jobs needs a number from 1")?);
                }
                Some(option) if option.starts_with('-') => {
                    return Err(format!("unknown option {option}"));
                }
                _ if root.is_some() => return Err("more than one DIR".to_owned()),
                _ => root = Some(PathBuf::from(arg)),
            }
        }
        // Set by `cargo run`, whatever the current directory is.
        let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| ".".into(), PathBuf::from);
        let root = root.unwrap_or_else(|| here.clone());
        let root = root.canonicalize().map_err(|error| format!("{}: {error}", root.display()))?;
        let ledger = ledger.unwrap_or_else(|| default_ledger(&here, &root));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Some(Self { root, ledger, jobs: jobs.unwrap_or(4 * cores), kill_half_way }))
    }
}

/// One for each tree, where `cargo clean` removes it.
fn default_ledger(here: &Path, root: &Path) -> PathBuf {
    let mut name = hex(&Sha256::digest(root.as_os_str().as_encoded_bytes()));
    name.truncate(16);
    here.join("target").join("checksum_tree").join(name)
}

/// An error with its causes, on one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
