//! No command of a dead run beside its successor.
//!
//! A run that is killed leaves its commands behind, and nobody can tell what they are still doing.
//! So every command inherits a shared lock on one file of the ledger, which lasts as long as any
//! process of it has the descriptor open. A run first takes the file for itself alone, that is: waits
//! until all of them have ended.
//!
//! What a command leaves running that has succeeded holds up nobody: at its end a run gives up the lock
//! of all who have inherited it, unless there is something left of a command that has not succeeded.

use crate::terminal::{Failure, clean, complain};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The name of the file in the directory of the ledger.
const NAME: &str = "commands.lock";

/// How often a wait says that it goes on.
const TOLD: Duration = Duration::from_secs(10);

/// The lock that all commands of this process inherit.
#[derive(Debug)]
pub(crate) struct Beside(File);

impl Beside {
    /// Waits for up to `wait` until no command of an earlier run is left. The ledger is open: so no
    /// other run begins commands meanwhile.
    pub(crate) async fn begin(
        ledger: &Path,
        wait: Duration,
    ) -> Result<Result<Self, String>, Failure> {
        let path = ledger.join(NAME);
        let failed = |error: &dyn std::fmt::Display| {
            Failure::Look(format!("cannot lock {}: {error}", path.display()))
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| failed(&error))?;
        let since = Instant::now();
        let mut told = None;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(error) => return Err(failed(&error)),
            }
            if since.elapsed() >= wait {
                let whose = processes(&path);
                return Ok(Err(format!(
                    "commands of an earlier run are still running: {whose}; wait for them, or end them"
                )));
            }
            if told.is_none_or(|told: Instant| told.elapsed() >= TOLD) {
                told = Some(Instant::now());
                let told = format!(
                    "waiting for commands of an earlier run, {} s so far: {}; if they are not to go on, \
                     end them",
                    since.elapsed().as_secs(),
                    processes(&path)
                );
                // Signals are to be heard, whether or not anybody reads.
                drop(tokio::task::spawn_blocking(move || complain(&told)));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        flock(&file, FlockOperation::LockShared).map_err(|error| failed(&error))?;
        // From now on every process that is started has it.
        fcntl_setfd(&file, FdFlags::empty()).map_err(|error| failed(&error))?;
        Ok(Ok(Self(file)))
    }
}

impl Beside {
    /// Whatever still has it holds nobody up from now on. The lock belongs to the open file that all
    /// have inherited, so that one of them can give it up for all.
    pub(crate) fn free(self) {
        // Then it ends with those who have it.
        let _held = flock(&self.0, FlockOperation::Unlock);
    }
}

/// The processes that have the file open, but for this one.
fn processes(path: &Path) -> String {
    let path = path.canonicalize();
    path.map_or_else(|_| "of which nothing can be told".to_owned(), |path| holders(&path))
}

/// The processes, but for this one, that have something open which has this name among what they have
/// open.
pub(crate) fn holders(path: &Path) -> String {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name().to_string_lossy().into_owned();
        if name == own || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let open = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        if open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|link| link == path) {
            let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            found.push(format!("{name} ({})", clean(words.trim_end())));
        }
    }
    if found.is_empty() { "of other users, or already gone".to_owned() } else { found.join(", ") }
}
