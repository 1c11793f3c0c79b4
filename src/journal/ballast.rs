//! The ballast: space kept back for a full disk.
//!
//! Opening a ledger writes, so on a full disk it could not even be opened to be shortened. The
//! ballast is a file that holds nothing but its space; it is given up when an open finds the disk
//! full, and made again when there is room for it twice.
//!
//! It is whole if and only if it has the wanted length and as many bytes are allocated for it. If
//! we die while it is made, it is not whole, and the next refill makes it again. Nothing that
//! happens here stops an open: it is told, never an error.

use super::files;
use super::lock::DirLock;
use super::sled::SEGMENT_SIZE;
use crate::error::{JournalError, OpenError};
use crate::sabotage::{self, Sabotage};
use crate::sync::Arc;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The name of the file.
pub(crate) const NAME: &str = "ballast";

/// Bytes that an open writes before it can give the ballast back, at least, and roughly.
const OPEN_NEEDS: u64 = 2 * SEGMENT_SIZE;

/// What became of the ballast.
#[derive(Debug)]
pub(crate) enum Ballast {
    /// None is wanted, and none is there.
    Unwanted,
    /// It is whole, as before.
    Kept,
    /// It was made.
    Made,
    /// There is no room to make it.
    NoRoom {
        /// Bytes that have to be free.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },
    /// It was given up: so many bytes more are free.
    Released(u64),
    /// There is none that could be given up.
    Absent,
    /// This failed; there is no ballast, or a useless one.
    Failed(JournalError),
}

impl Ballast {
    /// Tells the log of the process, where somebody may want to know.
    pub(crate) fn log(&self) {
        match self {
            Self::Unwanted | Self::Kept | Self::Absent => {}
            Self::Made => tracing::debug!("the ballast was made"),
            Self::NoRoom { needed, available } => {
                tracing::warn!(needed, available, "no room for the ballast");
            }
            Self::Released(bytes) => tracing::warn!(bytes, "the ballast was given up"),
            Self::Failed(error) => {
                tracing::warn!(error = %crate::error::chain(error), "the ballast failed");
            }
        }
    }
}

/// Sees to it that there is a ballast of `size` bytes, if twice that is free. A `size` of 0 means
/// that none is wanted.
pub(crate) fn refill_if_room(dir: &Path, size: u64) -> Ballast {
    try_refill(dir, size).unwrap_or_else(Ballast::Failed)
}

/// Gives up the ballast.
pub(crate) fn release(dir: &Path) -> Ballast {
    let path = dir.join(NAME);
    let held = match path.symlink_metadata() {
        Ok(found) => allocated(&found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ballast::Absent,
        Err(error) => return Ballast::Failed(JournalError::io("look at", &path)(error)),
    };
    // Some file systems free the space only with the change of the directory on disk.
    match files::remove(&path).and_then(|()| files::sync_dir(dir)) {
        Ok(()) => Ballast::Released(held),
        Err(error) => Ballast::Failed(error),
    }
}

/// Opens the ledger at the path by `attempt`, which hands out the lock that it takes. On a full disk
/// gives up the ballast, under that lock, and tries once more.
pub(crate) fn with_ballast<T>(
    path: &Path,
    mut attempt: impl FnMut(&mut Option<Arc<DirLock>>) -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    if sabotage::is(Sabotage::JudgeBallast) {
        judge_contents(path)?;
    }
    let mut lock = None;
    let full = match attempt(&mut lock) {
        Err(error) if is_full(&error) => error,
        attempted => return attempted,
    };
    tracing::warn!(error = %crate::error::chain(&full), "the disk is full");
    let released = lock.as_ref().map_or(Ballast::Absent, |lock| release(lock.dir()));
    drop(lock);
    released.log();
    if !matches!(released, Ballast::Released(1..)) {
        return Err(out_of_space(path, full));
    }
    match attempt(&mut None) {
        Err(error) if is_full(&error) => Err(out_of_space(path, error)),
        // A store of the first attempt has not come back, and keeps the lock: what counts is why that
        // attempt failed.
        Err(OpenError::Locked { holder, .. }) if holder.this_process => {
            Err(out_of_space(path, full))
        }
        attempted => attempted,
    }
}

/// As if they mattered.
fn judge_contents(dir: &Path) -> Result<(), JournalError> {
    let found = files::read(&dir.join(NAME), u64::MAX)?;
    if found.iter().flatten().any(|byte| *byte != 0) {
        return Err(JournalError::damaged(NAME, "it holds something"));
    }
    Ok(())
}

fn is_full(error: &OpenError) -> bool {
    if let OpenError::Journal(error) = error {
        return error.is_full();
    }
    matches!(error, OpenError::Io { source, .. } if crate::error::no_space(source))
}

fn out_of_space(path: &Path, error: OpenError) -> OpenError {
    let full = |available| OpenError::Full { needed: OPEN_NEEDS, available };
    available(path).map_or(error, full)
}

/// Bytes that are free for us on the file system of `dir`.
pub(crate) fn available(dir: &Path) -> Result<u64, JournalError> {
    let found = rustix::fs::statvfs(dir).map_err(JournalError::io("look at the space of", dir))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

fn try_refill(dir: &Path, size: u64) -> Result<Ballast, JournalError> {
    let path = dir.join(NAME);
    if size == 0 || sabotage::is(Sabotage::SkipBallast) {
        files::remove(&path)?;
        return Ok(Ballast::Unwanted);
    }
    match path.symlink_metadata() {
        Ok(found) if found.len() == size && allocated(&found) >= size => return Ok(Ballast::Kept),
        Ok(_) => files::remove(&path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(JournalError::io("look at", &path)(error)),
    }
    let (needed, available) = (size.saturating_mul(2), available(dir)?);
    if available < needed {
        return Ok(Ballast::NoRoom { needed, available });
    }
    let made = make(&path, size);
    if made.is_err() {
        // Half a ballast takes space and helps nobody.
        files::remove(&path)?;
    }
    made.map(|()| Ballast::Made)
}

fn make(path: &Path, size: u64) -> Result<(), JournalError> {
    let mut file = files::create(path)?;
    match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size) {
        Ok(()) => {}
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            write_zeros(&mut file, size).map_err(JournalError::io("write", path))?;
        }
        Err(error) => return Err(JournalError::io("allocate", path)(error)),
    }
    file.sync_all().map_err(JournalError::io("sync", path))
}

fn write_zeros(file: &mut File, size: u64) -> io::Result<()> {
    let zeros = [0; 64 * 1024];
    let mut left = size;
    while left > 0 {
        let part = usize::try_from(left).map_or(zeros.len(), |left| left.min(zeros.len()));
        let part = zeros.get(..part).unwrap_or(&zeros);
        file.write_all(part)?;
        left = left.saturating_sub(part.len().try_into().unwrap_or(left));
    }
    Ok(())
}

fn allocated(found: &std::fs::Metadata) -> u64 {
    found.blocks().saturating_mul(512)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 200_000;

    fn length(dir: &Path) -> Option<u64> {
        dir.join(NAME).metadata().ok().map(|found| found.len())
    }

    #[test]
    fn it_is_made_kept_released_and_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert!(matches!(release(dir), Ballast::Absent));
        assert!(matches!(refill_if_room(dir, SIZE), Ballast::Made));
        assert!(allocated(&dir.join(NAME).metadata().unwrap()) >= SIZE);
        assert!(matches!(refill_if_room(dir, SIZE), Ballast::Kept));
        assert!(matches!(release(dir), Ballast::Released(freed) if freed >= SIZE));
        assert_eq!(length(dir), None);
        assert!(matches!(refill_if_room(dir, SIZE), Ballast::Made));
    }

    #[test]
    fn none_is_kept_when_none_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        refill_if_room(dir.path(), SIZE);
        assert!(matches!(refill_if_room(dir.path(), 0), Ballast::Unwanted));
        assert_eq!(length(dir.path()), None);
    }

    #[test]
    fn one_that_is_not_whole_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        std::fs::write(&path, b"too short").unwrap();
        assert!(matches!(refill_if_room(dir.path(), SIZE), Ballast::Made));
        std::fs::remove_file(&path).unwrap();
        File::create(&path).unwrap().set_len(SIZE).unwrap();
        assert!(matches!(refill_if_room(dir.path(), SIZE), Ballast::Made));
        assert!(allocated(&path.metadata().unwrap()) >= SIZE);
    }

    #[test]
    fn it_is_not_made_without_room_for_it_twice() {
        let dir = tempfile::tempdir().unwrap();
        let size = available(dir.path()).unwrap();
        let refused = refill_if_room(dir.path(), size);
        assert!(
            matches!(refused, Ballast::NoRoom { needed, available } if needed > available),
            "{refused:?}"
        );
        assert_eq!(length(dir.path()), None);
    }

    #[test]
    fn zeros_are_written_where_space_cannot_be_reserved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        write_zeros(&mut files::create(&path).unwrap(), SIZE).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), vec![0; 200_000]);
    }

    #[test]
    fn a_failure_is_told_and_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let none = dir.path().join("none");
        assert!(matches!(refill_if_room(&none, SIZE), Ballast::Failed(_)));
        assert!(matches!(release(&none), Ballast::Absent));
    }
}
