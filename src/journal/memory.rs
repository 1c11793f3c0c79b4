//! A journal without a disk: the contract in its shortest form.

use super::{
    Base, Entry, Journal, LedgerEvent, Reader, Record, Replayed, Upkeep, Visit, VisitDetails,
};
use crate::details::TaskDetails;
use crate::error::JournalError;
use crate::id::EncodedId;
use crate::state::{Cell, Grave, SeqNo, TaskState, Tombstone};
use crate::sync::{Arc, Mutex, lock};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc as StdArc;

/// Records kept beside the checkpoint before it is made anew, at least.
const RECORDS_AT_LEAST: usize = 100_000;

/// A journal that keeps its records in memory: for tests, and for ledgers that need not outlive
/// their process.
///
/// Clones share the records, so a ledger can be closed and opened again on a clone.
/// [`fork`](Self::fork) is what a crash would leave: the records that are durable at that instant,
/// on their own.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    disk: Arc<Mutex<Disk>>,
    holds: bool,
}

#[derive(Clone, Debug, Default)]
struct Disk {
    held: bool,
    base: Base,
    /// Shared with who reads it.
    checkpoint: StdArc<BTreeMap<EncodedId, TaskDetails>>,
    tombstones: BTreeSet<Tombstone>,
    /// Dense, the first one follows `base.last_seq`.
    records: Vec<Record>,
}

impl MemoryJournal {
    /// An empty journal.
    #[must_use]
    pub fn new() -> Self {
        let journal = Self::default();
        // Without random numbers it is the identity of no ledger, like all zeros.
        let _ = getrandom::fill(&mut lock(&journal.disk).base.ledger);
        journal
    }

    /// An independent copy of what is recorded at this instant, held by nobody: what the next
    /// process would find if this one died now.
    #[must_use]
    pub fn fork(&self) -> Self {
        let disk = Disk { held: false, ..lock(&self.disk).clone() };
        Self { disk: Arc::new(Mutex::new(disk)), holds: false }
    }

    /// As [`fork`](Self::fork), of a disk that has only the first so many records since the last
    /// checkpoint.
    #[cfg(feature = "internals")]
    pub(crate) fn fork_at(&self, records: usize) -> Self {
        let fork = self.fork();
        lock(&fork.disk).records.truncate(records);
        fork
    }

    /// The records since the last checkpoint.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        lock(&self.disk).records.clone()
    }

    fn release(&mut self) {
        if self.holds {
            lock(&self.disk).held = false;
            self.holds = false;
        }
    }
}

impl Clone for MemoryJournal {
    fn clone(&self) -> Self {
        Self { disk: Arc::clone(&self.disk), holds: false }
    }
}

impl Drop for MemoryJournal {
    fn drop(&mut self) {
        self.release();
    }
}

impl Journal for MemoryJournal {
    fn replay(&mut self, visit: &mut Visit<'_>) -> Result<Base, JournalError> {
        let mut disk = lock(&self.disk);
        if disk.held {
            return Err(JournalError::Store("another ledger has this journal open".into()));
        }
        let base = disk.checkpoint.iter().map(|(id, details)| (id.clone(), details.cell));
        visit(Replayed::Base(base.collect()))?;
        visit(Replayed::Tombstones(disk.tombstones.iter().copied().collect()))?;
        visit(Replayed::Records(disk.records.clone()))?;
        disk.held = true;
        self.holds = true;
        let newest = disk.checkpoint.values().map(TaskDetails::newest).max();
        Ok(Base { newest: newest.unwrap_or_default(), ..disk.base.clone() })
    }

    fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        lock(&self.disk).records.extend_from_slice(records);
        Ok(())
    }

    fn read(&mut self, id: &EncodedId, cell: Cell) -> Result<TaskDetails, JournalError> {
        let disk = lock(&self.disk);
        TaskDetails::trace(
            cell,
            disk.base.last_seq,
            |seq| disk.record(seq).cloned(),
            || Ok(disk.checkpoint.get(id).cloned()),
        )
    }

    fn upkeep(&mut self, wanted: Option<SeqNo>) -> Result<Upkeep, JournalError> {
        let mut disk = lock(&self.disk);
        let due = disk.records.len() > RECORDS_AT_LEAST.max(2 * disk.checkpoint.len());
        if due || wanted.is_some_and(|seq| seq > disk.base.last_seq) {
            disk.fold()?;
        }
        Ok(Upkeep { checkpointed: disk.base.last_seq, ..Upkeep::default() })
    }

    fn reader(&mut self) -> Option<(SeqNo, Reader)> {
        let disk = lock(&self.disk);
        let checkpoint = StdArc::clone(&disk.checkpoint);
        let read = move |visit: &mut VisitDetails<'_>| {
            checkpoint.iter().try_for_each(|(id, details)| visit(id, details))
        };
        Some((disk.base.last_seq, StdArc::new(read)))
    }

    fn close(&mut self) -> Result<(), JournalError> {
        self.release();
        Ok(())
    }
}

impl Disk {
    fn record(&self, seq: SeqNo) -> Result<&Record, JournalError> {
        let at = seq.get().checked_sub(self.base.last_seq.get() + 1);
        at.and_then(|at| self.records.get(usize::try_from(at).ok()?))
            .ok_or_else(|| JournalError::Store(format!("there is no record {seq}")))
    }

    fn fold(&mut self) -> Result<(), JournalError> {
        let checkpoint = StdArc::make_mut(&mut self.checkpoint);
        for record in std::mem::take(&mut self.records) {
            match &record.entry {
                Entry::Task { id, event, .. } => {
                    match event.grave() {
                        Some(Grave::Dug(tombstone)) => _ = self.tombstones.insert(tombstone),
                        Some(Grave::Opened(tombstone)) => _ = self.tombstones.remove(&tombstone),
                        None => {}
                    }
                    let before = checkpoint.remove(id).unwrap_or(TaskDetails::ABSENT);
                    let details = before
                        .after(&record)
                        .map_err(|source| JournalError::Illegal { seq: record.seq, source })?;
                    if details.state() != TaskState::NotFound {
                        checkpoint.insert(id.clone(), details);
                    }
                }
                Entry::Ledger(event) => self.base.told(event),
            }
            self.base.last_seq = record.seq;
        }
        Ok(())
    }
}

impl Base {
    /// Takes in what happened to the ledger as a whole.
    pub(crate) fn told(&mut self, event: &LedgerEvent) {
        match event {
            LedgerEvent::EpochOpened { epoch } => self.epoch = *epoch,
            LedgerEvent::LossAccepted { .. } => {}
            LedgerEvent::MetadataSet { name, value: Some(value) } => {
                self.metadata.insert(name.clone(), value.clone());
            }
            LedgerEvent::MetadataSet { name, value: None } => {
                self.metadata.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::conformance;

    #[test]
    fn conforms() {
        conformance::run(&|| {
            let shared = MemoryJournal::new();
            Box::new(move || Ok(Box::new(shared.clone()) as Box<dyn Journal>))
        });
    }
}
