//! The journal that outlives the power.
//!
//! ```text
//! append:  the directory is still ours? -> frames -> sled insert, flush, our fdatasync
//!          -> the witness notes the position (not synced)
//! ```
//!
//! If we die before the fdatasync, any prefix of the batch may be found, and
//! nobody was told. After it, all of it is. The witness may be one batch behind,
//! which the next open takes for what it is.

use super::chain::LedgerId;
use super::checkpoint::Checkpoint;
use super::frame::{self, FrameError};
use super::fresh::{Fresh, Origin};
use super::judge::Position;
use super::lock::DirLock;
use super::manifest::Manifest;
use super::roll::Roller;
use super::scan::Scan;
use super::sled::Log;
use super::witness::Witness;
use super::{Base, Copier, Journal, Reader, Record, Replayed, Upkeep, Visit, VisitDetails};
use crate::details::TaskDetails;
use crate::error::JournalError;
use crate::id::EncodedId;
use crate::state::{Cell, SeqNo};
use crate::sync::Arc;
use std::path::Path;
use std::sync::Arc as StdArc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Entries of the checkpoint, or records, that are handed over at once.
const CHUNK: usize = 4096;

/// A ledger's directory, opened.
#[derive(Debug)]
pub(crate) struct SledJournal {
    pub(crate) manifest: Manifest,
    pub(crate) witness: Witness,
    pub(crate) checkpoint: Option<Arc<Checkpoint>>,
    /// What is appended to.
    pub(crate) log: Log,
    /// Where that begins.
    pub(crate) log_base: Position,
    pub(crate) end: Position,
    /// The log before, while it is folded into a checkpoint.
    pub(crate) frozen: Option<Frozen>,
    /// What the open found in the log, until it is replayed.
    pub(crate) to_replay: Option<(Scan, Vec<usize>)>,
    pub(crate) roller: Roller,
    /// The frame that was read last: reads of one id come from few frames.
    pub(crate) last_read: Vec<Record>,
    /// The last field: freed after everything else is.
    pub(crate) lock: Arc<DirLock>,
}

/// A log that nothing is appended to any more.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) end: Position,
    pub(crate) reader: FrozenReader,
}

/// How a frozen log is read.
#[derive(Debug)]
pub(crate) enum FrozenReader {
    /// Through the store that wrote it.
    Store(Log),
    /// Through a scan: it was frozen when the ledger was opened.
    Scan(Scan, Vec<usize>),
}

impl SledJournal {
    pub(crate) const fn ledger(&self) -> LedgerId {
        self.manifest.ledger
    }

    /// The end of what is folded into the checkpoint.
    pub(crate) fn base(&self) -> Position {
        position_of(self.checkpoint.as_deref())
    }

    fn record(&mut self, seq: SeqNo) -> Result<Record, JournalError> {
        let among = |records: &[Record]| {
            let first = records.first()?.seq.get();
            records.get(usize::try_from(seq.get().checked_sub(first)?).ok()?).cloned()
        };
        if let Some(record) = among(&self.last_read) {
            return Ok(record);
        }
        self.last_read = self.records_around(seq)?;
        among(&self.last_read)
            .ok_or_else(|| JournalError::damaged("log", format!("record {seq} is not there")))
    }

    /// The records of the frame that has this one.
    fn records_around(&mut self, seq: SeqNo) -> Result<Vec<Record>, JournalError> {
        let ledger = self.ledger();
        let bytes = if seq > self.log_base.seq {
            self.log.frame_with(seq)?
        } else {
            match &mut self.frozen {
                Some(Frozen { reader: FrozenReader::Store(log), .. }) => log.frame_with(seq)?,
                Some(Frozen { reader: FrozenReader::Scan(scan, run), .. }) => {
                    let at = run.partition_point(|at| {
                        scan.frames().get(*at).is_some_and(|frame| frame.last() < seq.get())
                    });
                    let frame = run.get(at).and_then(|at| scan.frames().get(*at));
                    return frame
                        .map_or_else(|| Ok(Vec::new()), |frame| scan.reader().records(frame));
                }
                None => None,
            }
        };
        let Some(bytes) = bytes else { return Ok(Vec::new()) };
        let wrong = |error: FrameError| JournalError::damaged("log", error.to_string());
        let (head, body) = frame::parse(ledger, &bytes).map_err(wrong)?;
        frame::decode_records(&head, body).map_err(wrong)
    }
}

/// Where a checkpoint stands.
pub(crate) fn position_of(checkpoint: Option<&Checkpoint>) -> Position {
    checkpoint.map_or(Position::START, |checkpoint| Position {
        seq: checkpoint.summary().last_seq,
        chain: checkpoint.summary().chain,
    })
}

impl Journal for SledJournal {
    fn replay(&mut self, visit: &mut Visit<'_>) -> Result<Base, JournalError> {
        let mut base = Base { ledger: self.manifest.ledger.0, ..Base::default() };
        if let Some(checkpoint) = &self.checkpoint {
            visit(Replayed::Expected(checkpoint.lengths()))?;
            let mut cells = checkpoint.cells();
            loop {
                let chunk = cells.next(CHUNK)?;
                if chunk.is_empty() {
                    break;
                }
                visit(Replayed::Base(chunk))?;
            }
            base.newest = cells.newest;
            let summary = checkpoint.summary();
            base.last_seq = summary.last_seq;
            base.epoch = summary.epoch;
            base.metadata = summary.metadata.clone();
            let mut tombstones = checkpoint.tombstones();
            loop {
                let next = std::iter::from_fn(|| tombstones.next().transpose()).take(CHUNK);
                let chunk = next.collect::<Result<Vec<_>, _>>()?;
                if chunk.is_empty() {
                    break;
                }
                visit(Replayed::Tombstones(chunk))?;
            }
        }
        let mut gathered = Vec::new();
        let mut records = |mut records: Vec<Record>| {
            // Whoever runs alone has written a frame for each of its records.
            if gathered.is_empty() {
                gathered = records;
            } else {
                gathered.append(&mut records);
            }
            if gathered.len() < CHUNK {
                return Ok(());
            }
            visit(Replayed::Records(std::mem::take(&mut gathered)))
        };
        let mut read = Ok(());
        if let Some(Frozen { reader: FrozenReader::Scan(scan, run), .. }) = &self.frozen {
            read = scan.visit_frames(run, &mut records);
        }
        if let Some((scan, run)) = self.to_replay.take() {
            read = read.and_then(|()| scan.visit_frames(&run, &mut records));
        }
        // What is wrong with one of these comes before what could not be read.
        visit(Replayed::Records(gathered))?;
        read?;
        Ok(base)
    }

    fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let Some(last) = records.last() else { return Ok(()) };
        self.lock.still_ours()?;
        let (frames, chain) = frame::encode_records(self.ledger(), self.end.chain, records)
            .map_err(|error| match &error {
                FrameError::Position { .. } => JournalError::UsedUp,
                FrameError::NotAFrame
                | FrameError::Version(_)
                | FrameError::Kind(_)
                | FrameError::OtherLedger(_)
                | FrameError::TooLong(_)
                | FrameError::Count(_)
                | FrameError::Truncated { .. }
                | FrameError::Checksum
                | FrameError::Body(_) => JournalError::Store(error.to_string()),
            })?;
        self.log.append(frames)?;
        self.end = Position { seq: last.seq, chain };
        self.witness.note(last.seq, chain, Instant::now())
    }

    fn read(&mut self, id: &EncodedId, cell: Cell) -> Result<TaskDetails, JournalError> {
        let checkpoint = self.checkpoint.clone();
        let base = self.base().seq;
        TaskDetails::trace(
            cell,
            base,
            |seq| self.record(seq),
            || checkpoint.map_or(Ok(None), |checkpoint| checkpoint.get(id)),
        )
    }

    fn upkeep(&mut self, wanted: Option<SeqNo>) -> Result<Upkeep, JournalError> {
        let now = Instant::now();
        if self.witness.due(now) == Some(Duration::ZERO) {
            self.witness.sync()?;
            self.log.check_no_blobs()?;
        }
        let rolled = self.roll(wanted, now)?;
        let again = [self.witness.due(now), rolled.again_after].into_iter().flatten().min();
        Ok(Upkeep { again_after: again, ..rolled })
    }

    fn copier(&mut self) -> Option<Copier> {
        let checkpoint = Arc::clone(self.checkpoint.as_ref()?);
        let origin = Origin::of(&self.manifest, self.base());
        let dir = self.lock.dir().clone();
        Some(StdArc::new(move |to: &Path, stop: &AtomicBool| {
            // The checkpoint stays readable when its name is gone; with this also its path, for
            // messages, leads where it did.
            let _held = &dir;
            let fresh = Fresh::begin(to)?;
            let copied = fresh.copy_checkpoint(&checkpoint, stop);
            copied.and_then(|()| fresh.finish(&origin, &[]))?;
            Ok(())
        }))
    }

    fn reader(&mut self) -> Option<(SeqNo, Reader)> {
        let checkpoint = Arc::clone(self.checkpoint.as_ref()?);
        let last = checkpoint.summary().last_seq;
        // As for a copy.
        let dir = self.lock.dir().clone();
        let read = move |visit: &mut VisitDetails<'_>| {
            let _held = &dir;
            checkpoint.visit(visit)
        };
        Some((last, StdArc::new(read)))
    }

    fn close(&mut self) -> Result<(), JournalError> {
        self.roller.stop();
        self.witness.sync()?;
        self.log.check_no_blobs()?;
        self.lock.end_well();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::OpenError;
    use crate::journal::conformance;
    use crate::journal::open::{self, StoreOptions};

    #[test]
    fn conforms() {
        conformance::run(&|| {
            let dir = tempfile::tempdir().unwrap();
            Box::new(move || {
                let options =
                    StoreOptions { checkpoint_after: 64 << 20, ..StoreOptions::plain(dir.path()) };
                match open::open(&options) {
                    Ok((journal, _)) => Ok(Box::new(journal) as Box<dyn Journal>),
                    Err(OpenError::Journal(error)) => Err(error),
                    Err(error) => Err(JournalError::Store(error.to_string())),
                }
            })
        });
    }
}
