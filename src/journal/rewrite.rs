//! Writing again what a failed sync may have left in the page cache alone.
//!
//! When a write to the disk fails, Linux keeps the pages and takes them for clean: they are read
//! as if they were on the disk, and no later sync writes them. So what the next open finds in the log
//! may be gone with the power, though that open syncs the file again. All of it is written once more,
//! byte for byte in its place, which makes its pages dirty; the sync that ends every open then means
//! what it says.
//!
//! **All of it**, not only what is behind the witness: the store moves what was durable long before, and
//! writes over the place where it stood. A moved copy that a failed sync has left in the page cache alone
//! is the only one soon.
//!
//! It is done unless the last holder has ended well ([`DirLock::found_well`]): that is, after a kill, a
//! failure, or a restart of the machine, where it changes nothing. It costs what writing the log once
//! costs: about a quarter of a second for 64 MiB on a disk that takes 250 MB/s.
//!
//! If we die on the way, every byte is as it was.
//!
//! [`DirLock::found_well`]: super::lock::DirLock::found_well

use crate::error::JournalError;
use crate::sabotage::{self, Sabotage};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes read and written at once.
const CHUNK: u64 = 1024 * 1024;

/// Writes the file again with what it holds. Nothing is synced.
///
/// # Errors
///
/// [`JournalError::Io`].
pub(crate) fn rewrite(path: &Path) -> Result<(), JournalError> {
    if sabotage::is(Sabotage::TrustCache) {
        return Ok(());
    }
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(JournalError::io("open", path))?;
    let length = file.metadata().map_err(JournalError::io("look at", path))?.len();
    let mut buffer = Vec::new();
    for at in (0..length).step_by(usize::try_from(CHUNK).unwrap_or(usize::MAX)) {
        buffer.resize(usize::try_from(CHUNK.min(length - at)).unwrap_or_default(), 0);
        file.read_exact_at(&mut buffer, at).map_err(JournalError::io("read", path))?;
        file.write_all_at(&buffer, at).map_err(JournalError::io("write", path))?;
    }
    tracing::debug!(path = ?path, length, "the log is written again, which a kill or a failure has left");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ledger;
    use crate::journal::sled::data_file;

    async fn open(dir: &Path) -> Ledger<u32> {
        Ledger::builder().ballast_bytes(0).open(dir).await.unwrap()
    }

    /// What was behind the witness was written again, and nothing else. A store that fills more than a
    /// segment moves what is far before the witness; when the sync of the moved copies failed, the next
    /// process took them for durable, wrote over the place where they had stood, and a power cut took what
    /// had been acknowledged long before the failure. So all of it is written, unless the last holder has
    /// ended well. (That it matters is shown by the crash lab, `power-cut` and `crowd`.)
    #[tokio::test]
    async fn the_log_keeps_every_byte_and_who_closes_it_has_ended_well() {
        let dir = tempfile::tempdir().unwrap();
        let path = data_file(&dir.path().join("log-1"));
        let ledger = open(dir.path()).await;
        for id in 0..50 {
            ledger.launch_block(id, async { Ok::<_, ()>(()) }).await.unwrap();
        }
        ledger.close().await.unwrap();
        let before = std::fs::read(&path).unwrap();
        rewrite(&path).unwrap();
        assert!(std::fs::read(&path).unwrap() == before, "byte for byte");

        let lock = dir.path().join("lock");
        assert_eq!(std::fs::read_to_string(&lock).unwrap(), "ended well\n");
        // As a killed process leaves it.
        std::fs::write(&lock, "pid 1\n").unwrap();
        let ledger = open(dir.path()).await;
        assert!(!std::fs::read_to_string(&lock).unwrap().contains("well"), "while it is held");
        ledger.close().await.unwrap();
        assert_eq!(std::fs::read_to_string(&lock).unwrap(), "ended well\n");
    }

    #[test]
    fn a_long_file_is_written_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let length = usize::try_from(2 * CHUNK + 4321).unwrap();
        let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        rewrite(&path).unwrap();
        assert!(std::fs::read(&path).unwrap() == bytes);
        std::fs::write(&path, "").unwrap();
        rewrite(&path).unwrap();
    }
}
