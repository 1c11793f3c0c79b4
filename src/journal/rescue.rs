//! A copy of a log's frames, while its store opens.
//!
//! sled takes what lies behind damage in its own structure for a torn end, and
//! wipes it while it opens. The scan has the frames by then, but only in memory:
//! a process killed before the log is rebuilt would leave nothing. So the frames
//! stand in `log-N/rescue` for as long as that takes.
//!
//! ```text
//!                                     if we die on this line, the next open
//! rescue.tmp written, synced          scans the log
//! renamed, directory synced           scans the log and the rescue
//! sled opens its log                  scans both
//! compared, the same: rescue removed, scans the log, or both
//!   directory synced
//! else: rebuilt, old log removed      the rescue goes with it
//! ```
//!
//! It holds what had been found to be the log, and nothing is appended while it
//! is there: not even a loss of power may bring it back later. What it holds is
//! added to what the log shows, and never takes its place.
//!
//! It is on the disk before sled opens. A power cut can leave a log whose frames are all there and
//! whose structure is not; what sled then wipes may reach the disk, and the power may go again before
//! the log is rebuilt. It is not insisted on: a full disk must not keep a sound ledger from opening.

use super::chain::LedgerId;
use super::files;
use super::scan::{Scan, scan_file};
use super::sled::data_file;
use crate::error::{JournalError, chain};
use crate::state::SeqNo;
use std::io::{BufWriter, Write};
use std::path::Path;

/// The name of the file in the directory of a log.
const NAME: &str = "rescue";

/// Scans the log in `dir`: its store's file, and the rescue of an open that died.
///
/// # Errors
///
/// As [`scan_file`].
pub(crate) fn scan_log(dir: &Path, ledger: LedgerId, base: SeqNo) -> Result<Scan, JournalError> {
    let mut scan = scan_file(&data_file(dir), ledger, base)?;
    let rescue = dir.join(NAME);
    if files::found(&rescue)?.is_some() {
        scan.absorb(scan_file(&rescue, ledger, base)?)?;
    }
    Ok(scan)
}

/// Keeps the frames that are the log in `dir`, of its scan. They are all that is kept: what a loss of
/// power has left of a batch that nobody was told of may go.
pub(crate) fn keep(dir: &Path, scan: &Scan, run: &[usize]) {
    if let Err(error) = try_keep(dir, scan, run) {
        tracing::warn!(error = %chain(&error), "the log is opened without a copy of its frames");
        drop(files::remove(&files::unfinished(dir, NAME)));
    }
}

/// Replaces a rescue that is there as a whole: its frames are in the scan.
fn try_keep(dir: &Path, scan: &Scan, run: &[usize]) -> Result<(), JournalError> {
    let unfinished = files::unfinished(dir, NAME);
    let mut out = BufWriter::new(files::create(&unfinished)?);
    let mut reader = scan.reader();
    for frame in run.iter().filter_map(|at| scan.frames().get(*at)) {
        out.write_all(reader.read(frame)?).map_err(JournalError::io("write", &unfinished))?;
    }
    let file = out.into_inner().map_err(|error| error.into_error());
    let synced = file.and_then(|file| file.sync_all());
    synced.map_err(JournalError::io("write", &unfinished))?;
    files::publish(dir, NAME)
}

/// The store has shown that it holds all of it, and may be appended to when this has returned.
///
/// # Errors
///
/// [`JournalError::Io`].
pub(crate) fn discard(dir: &Path) -> Result<(), JournalError> {
    files::remove(&dir.join(NAME))?;
    files::sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::chain::Chain;
    use crate::journal::manifest::{Judged, Manifest};
    use crate::journal::{Entry, LedgerEvent, Record, frame};
    use crate::state::Timestamp;
    use crate::{Ledger, TaskState};

    /// What sled does behind damage in its own structure, and then the process is killed.
    fn wipe_second_half(db: &Path) {
        let mut bytes = std::fs::read(db).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[used / 2..].fill(0);
        std::fs::write(db, bytes).unwrap();
    }

    /// A ledger of so many succeeded ids, closed; its id.
    async fn ledger_of(path: &Path, ids: std::ops::Range<u32>) -> LedgerId {
        let ledger = Ledger::<u32>::builder().ballast_bytes(0).open(path).await.unwrap();
        for id in ids {
            ledger.launch_block(id, async { Ok::<_, ()>(()) }).await.unwrap();
        }
        ledger.close().await.unwrap();
        let Ok(Judged::Current(manifest)) = Manifest::read(path) else { panic!("no manifest") };
        manifest.ledger
    }

    fn run_of(scan: &Scan) -> Vec<usize> {
        scan.run(SeqNo::ZERO, Chain::START).frames
    }

    #[tokio::test]
    async fn what_an_open_wiped_that_was_killed_is_still_there_for_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let owner = ledger_of(&path, 0..30).await;
        let log = path.join("log-1");
        let whole = scan_file(&data_file(&log), owner, SeqNo::ZERO).unwrap();
        keep(&log, &whole, &run_of(&whole));
        wipe_second_half(&data_file(&log));
        let wiped = scan_file(&data_file(&log), owner, SeqNo::ZERO).unwrap();
        assert!(wiped.frames().len() < whole.frames().len(), "nothing was wiped");
        for _ in 0..2 {
            let found = scan_log(&log, owner, SeqNo::ZERO).unwrap();
            assert_eq!(run_of(&found).len(), run_of(&whole).len());
            // As the next open does, which may die as well.
            keep(&log, &found, &run_of(&found));
        }

        let ledger = Ledger::<u32>::builder().ballast_bytes(0).open(&path).await.unwrap();
        assert_eq!(ledger.recovery().repaired().len(), 1, "{:?}", ledger.recovery());
        assert!((0..30).all(|id| ledger.query_task_state_quick(&id) == TaskState::Succeeded));
        ledger.close().await.unwrap();
        assert!(!log.exists());
    }

    /// Which of the two had more frames once decided which one was believed. A copy with the frames
    /// of a torn batch, back after a loss of power that had undone its removal, won against a log
    /// that had gone on since, and what had been acknowledged since was gone.
    #[tokio::test]
    async fn a_copy_that_comes_back_takes_nothing_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let owner = ledger_of(&path, 0..5).await;
        let log = path.join("log-1");
        let early = scan_file(&data_file(&log), owner, SeqNo::ZERO).unwrap();
        keep(&log, &early, &run_of(&early));
        // Parts of a batch whose beginning the power took.
        let end = early.run(SeqNo::ZERO, Chain::START);
        let records: Vec<Record> = (1..40)
            .map(|n| Record {
                seq: SeqNo::new(end.end.get() + n),
                at: Timestamp::from_micros(1),
                entry: Entry::Ledger(LedgerEvent::LossAccepted { what: "x".repeat(4000) }),
            })
            .collect();
        let (torn, _) = frame::encode_records(owner, end.chain, &records).unwrap();
        let mut copy = std::fs::read(log.join(NAME)).unwrap();
        copy.extend(torn.iter().skip(1).flat_map(|frame| frame.bytes.clone()));
        ledger_of(&path, 5..7).await;
        std::fs::write(log.join(NAME), copy).unwrap();

        let ledger = Ledger::<u32>::builder().ballast_bytes(0).open(&path).await.unwrap();
        assert!((0..7).all(|id| ledger.query_task_state_quick(&id) == TaskState::Succeeded));
        assert!(ledger.recovery().repaired().is_empty(), "{:?}", ledger.recovery());
        ledger.close().await.unwrap();
        assert!(!log.join(NAME).exists());
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
