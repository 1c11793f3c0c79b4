//! The lock: one opener at a time.
//!
//! An exclusive `flock` on the file `lock`, held as long as the ledger is open. It lies outside
//! the log, since it is taken before anything else is read or written. The kernel frees it when the
//! process dies, however it dies.
//!
//! ```text
//! pid 4242
//! host build-7
//! boot 5c8a3c0e-6f4e-4e5c-9d0a-0f3f1e8b8a11
//! since 1732254737000123 2024-11-22T05:52:17.000123Z
//! ```
//!
//! The text is information for people and messages, written after the lock is taken. It may be stale
//! (after a kill), torn or empty; every line that reads counts, the others are as if they were not there.
//!
//! One thing is decided by it: whether the last holder has **ended well**, with all that it wrote on the
//! disk. Then that is all there is in the file:
//!
//! ```text
//! ended well
//! ```
//!
//! It is taken away before anything else is done below the lock, and comes back when the journal has been
//! closed without a failure. Nobody syncs it, since it speaks of the page cache, and goes the way of that:
//! after a restart of the machine what is read is what the disk holds.
//!
//! A lock is held if and only if the `flock` is, on the inode that the path leads to. It follows
//! the inode: whoever holds it on a file that has been replaced, or in a directory that has been
//! renamed, has lost the path, and whoever comes there locks something else. That is checked after
//! locking, and by [`DirLock::still_ours`] before anything is acknowledged. What is under way by then
//! stays in the directory that is locked ([`DirLock::dir`]).

use crate::error::{Holder, JournalError, OpenError};
use crate::held::{HeldPath, shown};
use crate::sabotage::{self, Sabotage};
use crate::state::Timestamp;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// The name of the file.
pub(crate) const NAME: &str = "lock";

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
const MAX_TEXT: u64 = 4096;

/// All of the text when nobody holds the lock and the last one has ended well.
const ENDED_WELL: &str = "ended well\n";

/// The exclusive lock of a ledger. Dropping it frees it.
#[derive(Debug)]
pub(crate) struct DirLock {
    file: File,
    /// Where the directory was found, with the name of the file.
    path: PathBuf,
    inode: Inode,
    dir: HeldPath,
    /// Whether the last holder has ended well.
    found_well: bool,
    /// Whether this one has.
    ends_well: AtomicBool,
}

/// What keeps openers away from a ledger while it is only read.
#[derive(Debug)]
pub(crate) enum SharedLock {
    /// The lock is held together with other readers. Dropping this frees it.
    Held(#[expect(dead_code, reason = "held, not used")] HeldShared),
    /// There is no lock file, so there is nothing to hold: a copy that leaves it out, which no
    /// opener has ever seen. An opener that comes now is not kept away.
    NoLockFile,
}

/// A shared lock.
#[derive(Debug)]
pub(crate) struct HeldShared {
    file: File,
}

impl DirLock {
    /// Takes the exclusive lock of the ledger in `dir`, which exists. Creates the file. Blocks for
    /// up to `wait` while somebody else holds it.
    ///
    /// # Errors
    ///
    /// `Locked` when somebody still holds it after `wait`, and who; `Io`.
    pub(crate) fn acquire(dir: &Path, wait: Duration) -> Result<Self, OpenError> {
        // The process may change its current directory while this is held.
        let dir = std::path::absolute(dir).map_err(JournalError::io("find", dir))?;
        let path = dir.join(NAME);
        let deadline = Instant::now().checked_add(wait);
        let mut pause = FIRST_PAUSE;
        loop {
            let held = HeldPath::open(&dir).map_err(JournalError::io("open", &dir))?;
            let file = open_to_write(&held.join(NAME))?;
            let locked_it = try_lock(&file, &path, FlockOperation::NonBlockingLockExclusive)?;
            if locked_it || sabotage::is(Sabotage::SkipLock) {
                // If somebody replaced the file between open and lock: start over.
                if let Some(inode) = Inode::of_both(&file, &path)? {
                    let found_well = text_of(&file) == ENDED_WELL;
                    // Before anything is written that this would vouch for.
                    file.set_len(0).map_err(JournalError::io("write", &path))?;
                    let ends_well = AtomicBool::new(false);
                    let lock = Self { file, path, inode, dir: held, found_well, ends_well };
                    lock.write_holder();
                    return Ok(lock);
                }
            }
            let left = deadline.map_or(wait, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(locked(&dir, &file));
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Takes the lock of the ledger in `dir` together with other readers. Writes and creates
    /// nothing, and does not wait, so it works in a directory that cannot be written to.
    ///
    /// # Errors
    ///
    /// `Locked` when somebody has the ledger open, and who; `Io`.
    pub(crate) fn acquire_shared(dir: &HeldPath) -> Result<SharedLock, OpenError> {
        let path = dir.join(NAME);
        loop {
            let file = match File::open(&*path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok(SharedLock::NoLockFile);
                }
                Err(error) => return Err(JournalError::io("open", &path)(error).into()),
            };
            if !try_lock(&file, &path, FlockOperation::NonBlockingLockShared)? {
                return Err(locked(&shown(dir), &file));
            }
            if Inode::of_both(&file, &path)?.is_some() {
                return Ok(SharedLock::Held(HeldShared { file }));
            }
        }
    }

    /// The directory that is locked, by a path that leads to it as long as it is held. All that is
    /// done below the lock goes by this.
    pub(crate) const fn dir(&self) -> &HeldPath {
        &self.dir
    }

    /// Whether all that the last holder wrote is known to be on the disk, or lost with its machine. What
    /// nobody has said so of may be in the page cache alone, and taken for clean there.
    pub(crate) const fn found_well(&self) -> bool {
        self.found_well
    }

    /// All that was written under this lock is on the disk, and nothing more will be written.
    pub(crate) fn end_well(&self) {
        self.ends_well.store(true, Ordering::Relaxed);
    }

    /// Whether the path still leads to the file that is locked. If not, another process may have
    /// taken the path for its own, and nothing may be acknowledged any more.
    ///
    /// # Errors
    ///
    /// `Moved` when it leads elsewhere or nowhere; `Io`.
    pub(crate) fn still_ours(&self) -> Result<(), JournalError> {
        let leads_here = Inode::of_path(&self.path)? == Some(self.inode);
        if leads_here || sabotage::is(Sabotage::LosePath) {
            return Ok(());
        }
        let dir = self.path.parent().unwrap_or(&self.path);
        Err(JournalError::Moved { path: dir.to_owned() })
    }

    /// Says who holds the lock. The disk may be full: then nobody is told, and that is all.
    fn write_holder(&self) {
        let text = holder_text(&Identity::own(), SystemTime::now().into());
        let written = self.file.write_all_at(text.as_bytes(), 0);
        if let Err(error) = written {
            tracing::debug!(%error, path = %self.path.display(), "the holder is not on record");
        }
    }
}

impl Drop for DirLock {
    /// The name is taken away first: a reader must not be told of a holder that has gone. The
    /// explicit unlocking is for copies of the descriptor in a process that is just being forked.
    fn drop(&mut self) {
        let gone = self.file.set_len(0);
        let said = gone.and_then(|()| match self.ends_well.load(Ordering::Relaxed) {
            true => self.file.write_all_at(ENDED_WELL.as_bytes(), 0),
            false => Ok(()),
        });
        if let Err(error) = said {
            tracing::debug!(%error, path = %self.path.display(), "how it ended is not on record");
        }
        unlock(&self.file);
    }
}

impl Drop for HeldShared {
    fn drop(&mut self) {
        unlock(&self.file);
    }
}

fn unlock(file: &File) {
    if let Err(error) = rustix::fs::flock(file, FlockOperation::Unlock) {
        tracing::debug!(%error, "the lock falls only with its descriptor");
    }
}

fn open_to_write(path: &Path) -> Result<File, JournalError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(JournalError::io("open", path))
}

/// `false` when somebody else holds it.
fn try_lock(file: &File, path: &Path, operation: FlockOperation) -> Result<bool, JournalError> {
    loop {
        return match rustix::fs::flock(file, operation) {
            Ok(()) => Ok(true),
            Err(Errno::INTR) => continue,
            Err(error) if error == Errno::WOULDBLOCK => Ok(false),
            Err(error) => Err(JournalError::io("lock", path)(error)),
        };
    }
}

/// What to say when the lock is not to be had: who has it, as far as the file tells.
fn locked(dir: &Path, file: &File) -> OpenError {
    // Readers do not sign. If it can be shared, only they hold it, and the text is an older one.
    let holder = match rustix::fs::flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            unlock(file);
            Holder::default()
        }
        Err(_) => read_holder(file),
    };
    OpenError::Locked { path: dir.to_owned(), holder }
}

/// Which process on which machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Identity {
    pid: Option<u32>,
    host: Option<String>,
    boot: Option<String>,
}

impl Identity {
    fn own() -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        // Absent elsewhere than on Linux; then pid and host have to do.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let boot = boot.map(|boot| boot.trim().to_owned());
        Self { pid: Some(std::process::id()), host: Some(host), boot }
    }
}

fn holder_text(identity: &Identity, since: Timestamp) -> String {
    let mut text = String::new();
    if let Some(pid) = identity.pid {
        text += &format!("pid {pid}\n");
    }
    for (name, value) in [("host", &identity.host), ("boot", &identity.boot)] {
        if let Some(value) = value {
            text += &format!("{name} {value}\n");
        }
    }
    text + &format!("since {} {since}\n", since.as_micros())
}

fn read_holder(file: &File) -> Holder {
    parse_holder(&text_of(file), &Identity::own())
}

/// As far as it can be read.
fn text_of(file: &File) -> String {
    let mut buffer = vec![0; usize::try_from(MAX_TEXT).unwrap_or_default()];
    let length = file.read_at(&mut buffer, 0).unwrap_or_default();
    buffer.truncate(length);
    String::from_utf8_lossy(&buffer).into_owned()
}

fn parse_holder(text: &str, own: &Identity) -> Holder {
    let (mut found, mut since) = (Identity::default(), None);
    // A line without its end is a torn one: half a number is a wrong number.
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        match line.split_once(' ') {
            Some(("pid", value)) => found.pid = value.parse().ok(),
            Some(("host", value)) => found.host = Some(value.to_owned()),
            Some(("boot", value)) => found.boot = Some(value.to_owned()),
            Some(("since", value)) => {
                let micros = value.split(' ').next().and_then(|micros| micros.parse().ok());
                since = micros.map(Timestamp::from_micros);
            }
            Some(_) | None => {}
        }
    }
    let this_process = found.pid.is_some() && found == *own;
    Holder { pid: found.pid, host: found.host, since, this_process }
}

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    /// `None` when the path does not lead to the open file.
    fn of_both(file: &File, path: &Path) -> Result<Option<Self>, JournalError> {
        let found = file.metadata().map_err(JournalError::io("look at", path))?;
        Ok(Self::of_path(path)?.filter(|inode| *inode == Self::of(&found)))
    }

    /// `None` when the path leads nowhere.
    fn of_path(path: &Path) -> Result<Option<Self>, JournalError> {
        match std::fs::metadata(path) {
            Ok(found) => Ok(Some(Self::of(&found))),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(JournalError::io("look at", path)(error)),
        }
    }

    fn of(found: &Metadata) -> Self {
        Self { device: found.dev(), number: found.ino() }
    }
}

#[cfg(test)]
mod tests;
