//! All of a ledger as JSON Lines: see `lines.rs`.

use super::lines::{
    Base64, EndLine, FORMAT, Hex, LedgerInfo, LedgerLine, Line, MAX_LINE, MetadataLine, TaskInfo,
    TaskLine, VERSION,
};
use super::{Inspection, json_line, last_change, output_json};
use crate::AcceptLoss;
use crate::details::TaskDetails;
use crate::error::{ExportError, JournalError, chain};
use crate::id::EncodedId;
use crate::state::Output;
use std::io::Write;
use xxhash_rust::xxh3::Xxh3;

/// Lines about what is missing that are written; of more, only how many.
const MOST_MISSING: usize = 100;

/// The longest of them.
const LONGEST_MISSING: usize = 1000;

/// The longest line with something for people in it: an output may be much longer as JSON than it is.
const LONGEST_SHOWN: usize = MAX_LINE / 2;

/// What was [exported](Inspection::export).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exported {
    /// Tasks.
    pub tasks: u64,
    /// Successes of which only a tombstone is left.
    pub tombstones: u64,
    /// What could not be read of a damaged ledger, as the closing line has it. Of a sound one, nothing.
    pub missing: Vec<String>,
}

impl Inspection {
    /// Writes all that the ledger holds, a JSON object a line: what it is, every task ascending by the bytes
    /// of its id with all its details, every tombstone, and a closing line with the numbers of both and a
    /// checksum. [`import`](super::import) makes the same ledger of it. For a ledger that is open,
    /// [`Ledger::backup`](crate::Ledger::backup) makes a copy to export.
    ///
    /// Of a pruned success there is only the hash, as everywhere: it counts as succeeded, its id is gone.
    /// What is no part of the state of the ledger is not there: its log, what an accepted loss put aside.
    ///
    /// **Treat it as what it tells of.** It holds the identity of the ledger beside the fingerprints of
    /// requests and the hashes of pruned ids, which are keyed with that: whoever has the export can try out
    /// requests and ids, and find those that have few possible values, such as amounts. (So can whoever has
    /// the ledger.)
    ///
    /// Takes no more memory for a longer ledger, but for its log: see [`tasks`](Self::tasks).
    ///
    /// # Durability
    ///
    /// That of `out`: it is flushed, and that is all. An export without its closing line is not whole.
    ///
    /// # Errors
    ///
    /// [`ExportError`]. By then part of it may be written, which has no closing line.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::dump::{Inspection, import};
    /// # use taskledger::{AcceptLoss, Ledger, TaskState};
    /// # let dir = tempfile::tempdir()?;
    /// # let (path, other) = (dir.path().join("ledger"), dir.path().join("other"));
    /// # let ledger = Ledger::<u64>::open(&path).await?;
    /// # ledger.mark_succeeded(7).await?;
    /// # ledger.close().await?;
    /// let mut export = Vec::new();
    /// let exported = Inspection::open(&path)?.export(&mut export)?;
    /// assert_eq!((exported.tasks, exported.tombstones), (1, 0));
    ///
    /// import(&*export, &other, AcceptLoss::No)?;
    /// let ledger = Ledger::<u64>::open(&other).await?;
    /// assert_eq!(ledger.query_task_state(&7).await, TaskState::Succeeded);
    /// # ledger.close().await?;
    /// # Ok(()) }
    /// ```
    pub fn export(&self, out: impl Write) -> Result<Exported, ExportError> {
        self.export_with(out, AcceptLoss::No, || ())
    }

    /// As [`export`](Self::export), also of a damaged ledger if its loss is accepted: what can be read is
    /// written, and the closing line says what is missing. Tells of every task as it is written.
    ///
    /// # Errors
    ///
    /// As [`export`](Self::export).
    pub fn export_with(
        &self,
        out: impl Write,
        damaged: AcceptLoss,
        mut step: impl FnMut(),
    ) -> Result<Exported, ExportError> {
        let mut export = Export {
            inspection: self,
            out,
            checksum: Xxh3::new(),
            damaged,
            exported: Exported::default(),
            more_missing: 0,
        };
        export.run(&mut step)?;
        Ok(export.exported)
    }
}

type Written = Line<LedgerInfo, TaskInfo>;

struct Export<'a, W> {
    inspection: &'a Inspection,
    out: W,
    checksum: Xxh3,
    damaged: AcceptLoss,
    exported: Exported,
    /// Lines about what is missing beyond those that are kept.
    more_missing: u64,
}

impl<W: Write> Export<'_, W> {
    fn run(&mut self, step: &mut dyn FnMut()) -> Result<(), ExportError> {
        let inspection = self.inspection;
        for damage in &inspection.damage {
            self.missing(damage.to_string(), || ExportError::Damaged(damage.clone()))?;
        }
        let (base, errors) = inspection.whole();
        for error in errors {
            self.unread(error)?;
        }
        let origin = inspection.origin();
        let metadata = base.metadata.into_iter();
        self.write(&Line::Ledger(Box::new(LedgerLine {
            format: FORMAT.to_owned(),
            version: VERSION,
            ledger: Hex(origin.ledger.0.to_vec()),
            created_at: origin.created_at.as_micros(),
            id_type: Base64(origin.shape),
            last_seq: origin.end.seq.get(),
            chain: Hex::of_number(origin.end.chain.0),
            epoch: base.epoch.get(),
            metadata: metadata
                .map(|(name, value)| MetadataLine { name, value: Base64(value) })
                .collect(),
            info: Some(LedgerInfo {
                id_type: inspection.shape.to_string(),
                created_at: origin.created_at.to_string(),
            }),
        })))?;
        for task in inspection.tasks() {
            match task {
                Ok((id, details)) => {
                    self.task(&id, &details)?;
                    self.exported.tasks += 1;
                    step();
                }
                Err(error) => self.unread(error)?,
            }
        }
        let mut graves = inspection.graves();
        loop {
            match graves.next() {
                Ok(Some(tombstone)) => {
                    self.write(&Line::Tombstone(Hex(tombstone.to_bytes().to_vec())))?;
                    self.exported.tombstones += 1;
                }
                Ok(None) => break,
                // Where they cannot be read, nobody knows which one is the next.
                Err(error) => {
                    self.unread(error)?;
                    break;
                }
            }
        }
        if self.more_missing > 0 {
            self.exported.missing.push(format!("and {} more", self.more_missing));
        }
        let Exported { tasks, tombstones, .. } = self.exported;
        let missing = self.exported.missing.clone();
        let checksum = Hex::of_number(self.checksum.digest());
        self.write(&Line::End(EndLine { tasks, tombstones, missing, checksum }))?;
        self.out.flush().map_err(ExportError::Write)
    }

    fn task(&mut self, id: &EncodedId, details: &TaskDetails) -> Result<(), ExportError> {
        let line = |info| Written::Task(Box::new(TaskLine::of(id, details, info)));
        let shown = text(&line(Some(self.info(id, details))))?;
        if shown.len() <= LONGEST_SHOWN {
            return self.write_text(&shown);
        }
        self.write(&line(None))
    }

    fn info(&self, id: &EncodedId, details: &TaskDetails) -> TaskInfo {
        TaskInfo {
            id: self.inspection.id_text(id),
            output: match &details.output {
                Output::Kept(bytes) => output_json(bytes).ok(),
                Output::Absent | Output::NotKept(_) => None,
            },
            last_change: last_change(details).map(|at| at.to_string()),
        }
    }

    fn write(&mut self, line: &Written) -> Result<(), ExportError> {
        self.write_text(&text(line)?)
    }

    fn write_text(&mut self, line: &str) -> Result<(), ExportError> {
        for bytes in [line.as_bytes(), b"\n"] {
            self.checksum.update(bytes);
            self.out.write_all(bytes).map_err(ExportError::Write)?;
        }
        Ok(())
    }

    /// What cannot be read is missing. That something cannot be asked for says nothing about it.
    fn unread(&mut self, error: JournalError) -> Result<(), ExportError> {
        let text = chain(&error);
        match ExportError::from(error) {
            ExportError::Damaged(damage) => self.missing(text, || ExportError::Damaged(damage)),
            other @ (ExportError::Read(_) | ExportError::Write(_)) => Err(other),
        }
    }

    fn missing(
        &mut self,
        what: String,
        refused: impl FnOnce() -> ExportError,
    ) -> Result<(), ExportError> {
        let missing = &mut self.exported.missing;
        match self.damaged {
            AcceptLoss::No => return Err(refused()),
            AcceptLoss::Yes if missing.contains(&what) => {}
            AcceptLoss::Yes if missing.len() >= MOST_MISSING => self.more_missing += 1,
            AcceptLoss::Yes => missing.push(what.chars().take(LONGEST_MISSING).collect()),
        }
        Ok(())
    }
}

fn text(line: &Written) -> Result<String, ExportError> {
    json_line(line).map_err(|error| ExportError::Write(error.into()))
}
