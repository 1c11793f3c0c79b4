//! A copy of a log's frames, while its store opens.
//!
//! sled takes what lies behind damage in its own structure for a torn end, and
//! wipes it while it opens. The scan has the frames by then, but only in memory:
//! a process killed before the log is rebuilt would leave nothing. So the frames
//! stand in `log-N/rescue` for as long as that takes.
//!
//! ```text
//!                                     if we die on this line, the next open
//! rescue.tmp written, renamed         scans the log, or the rescue
//! sled opens its log                  scans whichever of the two has more
//! compared, the same: rescue removed  scans the log
//! else: rebuilt, old log removed      the rescue goes with it
//! ```
//!
//! It is not synced: it guards against a killed process, whose pages the kernel
//! keeps. After a power cut the log is as sled left it, or better. And it is not
//! insisted on: a full disk must not keep a sound ledger from opening.

use super::chain::LedgerId;
use super::files;
use super::scan::{FrameAt, Scan, scan_file};
use super::sled::data_file;
use crate::error::{JournalError, chain};
use crate::state::SeqNo;
use std::io::{BufWriter, Write};
use std::path::Path;

/// The name of the file in the directory of a log.
const NAME: &str = "rescue";

/// Scans the log in `dir`: its store's file, or the rescue of an open that died if that has more.
///
/// # Errors
///
/// As [`scan_file`].
pub(crate) fn scan_log(dir: &Path, ledger: LedgerId, base: SeqNo) -> Result<Scan, JournalError> {
    let scan = scan_file(&data_file(dir), ledger, base)?;
    let rescue = dir.join(NAME);
    if !rescue.exists() {
        return Ok(scan);
    }
    let rescued = scan_file(&rescue, ledger, base)?;
    Ok(if records(&rescued) > records(&scan) { rescued } else { scan })
}

/// Keeps the frames of a scan of the log in `dir`. A rescue that has as many stays as it is.
pub(crate) fn keep(dir: &Path, scan: &Scan, ledger: LedgerId, base: SeqNo) {
    if let Err(error) = try_keep(dir, scan, ledger, base) {
        tracing::warn!(error = %chain(&error), "the log is opened without a copy of its frames");
        drop(files::remove(&files::unfinished(dir, NAME)));
    }
}

fn try_keep(dir: &Path, scan: &Scan, ledger: LedgerId, base: SeqNo) -> Result<(), JournalError> {
    let path = dir.join(NAME);
    if path.exists() && records(&scan_file(&path, ledger, base)?) >= records(scan) {
        return Ok(());
    }
    let unfinished = files::unfinished(dir, NAME);
    let mut out = BufWriter::new(files::create(&unfinished)?);
    let mut reader = scan.reader();
    for frame in scan.frames() {
        out.write_all(reader.read(frame)?).map_err(JournalError::io("write", &unfinished))?;
    }
    out.flush().map_err(JournalError::io("write", &unfinished))?;
    std::fs::rename(&unfinished, &path).map_err(JournalError::io("rename", &unfinished))
}

/// The store has shown that it holds all of it.
///
/// # Errors
///
/// [`JournalError::Io`].
pub(crate) fn discard(dir: &Path) -> Result<(), JournalError> {
    files::remove(&dir.join(NAME))
}

fn records(scan: &Scan) -> u64 {
    scan.frames().iter().map(|frame: &FrameAt| u64::from(frame.count)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::manifest::{Judged, Manifest};
    use crate::{Ledger, TaskState};

    /// What sled does behind damage in its own structure, and then the process is killed.
    fn wipe_second_half(db: &Path) {
        let mut bytes = std::fs::read(db).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[used / 2..].fill(0);
        std::fs::write(db, bytes).unwrap();
    }

    #[tokio::test]
    async fn what_an_open_wiped_that_was_killed_is_still_there_for_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let ledger = Ledger::<u32>::builder().ballast_bytes(0).open(&path).await.unwrap();
        for id in 0..30 {
            ledger.launch_block(id, async { Ok::<_, ()>(()) }).await.unwrap();
        }
        ledger.close().await.unwrap();
        let Ok(Judged::Current(manifest)) = Manifest::read(&path) else { panic!("no manifest") };
        let log = path.join("log-1");
        let whole = scan_file(&data_file(&log), manifest.ledger, SeqNo::ZERO).unwrap();
        keep(&log, &whole, manifest.ledger, SeqNo::ZERO);
        wipe_second_half(&data_file(&log));
        let wiped = scan_file(&data_file(&log), manifest.ledger, SeqNo::ZERO).unwrap();
        assert!(records(&wiped) < records(&whole), "nothing was wiped");
        // A poorer copy never takes the place of a richer one.
        keep(&log, &wiped, manifest.ledger, SeqNo::ZERO);
        let found = scan_log(&log, manifest.ledger, SeqNo::ZERO).unwrap();
        assert_eq!(records(&found), records(&whole));

        let ledger = Ledger::<u32>::builder().ballast_bytes(0).open(&path).await.unwrap();
        assert_eq!(ledger.recovery().repaired().len(), 1, "{:?}", ledger.recovery());
        assert!((0..30).all(|id| ledger.query_task_state_quick(&id) == TaskState::Succeeded));
        ledger.close().await.unwrap();
        assert!(!log.exists());
    }

    #[tokio::test]
    async fn an_open_that_finds_all_well_leaves_no_copy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        for _ in 0..2 {
            let ledger = Ledger::<u32>::builder().ballast_bytes(0).open(&path).await.unwrap();
            assert!(ledger.recovery().repaired().is_empty());
            ledger.close().await.unwrap();
        }
        assert!(!path.join("log-1").join(NAME).exists());
        assert!(!path.join("log-1").join("rescue.tmp").exists());
    }
}
