//! Start-up: replay, then reset.
//!
//! Replay runs every record through the same [`apply`](crate::state::apply) as
//! live, and writes nothing. Reset then tells the truth about what the last
//! process left: what was running is `Failed(Crashed)`, an interrupted revoke is
//! a success again. Resets are ordinary records: a process that dies among them
//! leaves a legal log, and the next open resets the rest.

mod replay;

use crate::error::{IdError, JournalError, OpenError};
use crate::id::{EncodedId, TaskId};
use crate::index::Index;
use crate::journal::{Base, Entry, Journal, LedgerEvent, OpenReport, Record};
use crate::sabotage::{self, Sabotage};
use crate::seal::Seal;
use crate::state::{Cell, Epoch, Event, Failure, Parent, SeqNo, TaskState, Timestamp};
use crate::writer::Core;
use replay::{Parents, Replay, gap};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant, SystemTime};

/// Resets that are appended at once.
const RESET_BATCH: usize = 4096;

/// What an open found, and what it did about it.
#[derive(Debug)]
pub struct Recovery {
    epoch: Epoch,
    counts: [usize; TaskState::ALL.len()],
    crashed: Vec<Running>,
    interrupted_revokes: Vec<Running>,
    records_replayed: u64,
    from_checkpoint: u64,
    report: OpenReport,
    took: Duration,
}

impl Recovery {
    /// The number of this open; 1 for a new ledger.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many ids were in `state` when the open had finished.
    #[must_use]
    pub fn count(&self, state: TaskState) -> usize {
        TaskState::ALL
            .iter()
            .zip(self.counts)
            .find_map(|(each, count)| (*each == state).then_some(count))
            .unwrap_or_default()
    }

    /// The ids that were running when the last process ended, now `Failed(Crashed)`. Their effects
    /// may or may not have happened.
    pub fn crashed<K: TaskId>(&self) -> impl ExactSizeIterator<Item = Result<K, IdError>> {
        self.crashed.iter().map(|running| running.id.decode())
    }

    /// The same as trees: what crashed within a scope that crashed as well stands below that one.
    pub fn crashed_trees<K: TaskId>(&self) -> Vec<Crashed<K>> {
        let mut within: HashMap<&[u8], Vec<&Running>> = HashMap::new();
        let ids: HashSet<&[u8]> = self.crashed.iter().map(|one| one.id.as_bytes()).collect();
        let mut roots = Vec::new();
        for one in &self.crashed {
            match one.parent.as_ref().map(Parent::as_bytes).filter(|parent| ids.contains(parent)) {
                Some(parent) => within.entry(parent).or_default().push(one),
                None => roots.push(one),
            }
        }
        // What leads round in a circle is no tree, and cannot have been recorded.
        fn grown<K: TaskId>(
            one: &Running,
            within: &mut HashMap<&[u8], Vec<&Running>>,
        ) -> Crashed<K> {
            let children = within.remove(one.id.as_bytes()).unwrap_or_default();
            let children = children.into_iter().map(|child| grown(child, within)).collect();
            Crashed { id: one.id.decode(), children }
        }
        roots.into_iter().map(|root| grown(root, &mut within)).collect()
    }

    /// The ids that were being revoked when the last process ended, now succeeded again. The
    /// revoke's effects may or may not have happened; it can be repeated.
    pub fn interrupted_revokes<K: TaskId>(
        &self,
    ) -> impl ExactSizeIterator<Item = Result<K, IdError>> {
        self.interrupted_revokes.iter().map(|running| running.id.decode())
    }

    /// How many records of the log were replayed.
    #[must_use]
    pub const fn records_replayed(&self) -> u64 {
        self.records_replayed
    }

    /// How many ids were read from the checkpoint.
    #[must_use]
    pub const fn from_checkpoint(&self) -> u64 {
        self.from_checkpoint
    }

    /// The format versions from and to which the ledger was migrated, if it was.
    #[must_use]
    pub const fn migrated(&self) -> Option<(u16, u16)> {
        self.report.migrated
    }

    /// What was damaged without loss and has been repaired, a line each.
    #[must_use]
    pub fn repaired(&self) -> &[String] {
        &self.report.repaired
    }

    /// What was lost and accepted as lost, if anything.
    #[must_use]
    pub fn loss_accepted(&self) -> Option<&str> {
        self.report.loss_accepted.as_deref()
    }

    /// How long the open took.
    #[must_use]
    pub const fn took(&self) -> Duration {
        self.took
    }
}

/// A task that had crashed, and what crashed within it if it is a scope.
#[derive(Debug)]
#[non_exhaustive]
pub struct Crashed<K> {
    /// Its id.
    pub id: Result<K, IdError>,
    /// In the order in which they began.
    pub children: Vec<Self>,
}

/// What was found running.
#[derive(Clone, Debug)]
struct Running {
    id: EncodedId,
    /// The scope that it ran within.
    parent: Option<Parent>,
}

/// A ledger that is ready to serve.
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) core: Core,
    pub(crate) base: Base,
    pub(crate) recovery: Recovery,
    /// The newest time that is recorded.
    pub(crate) newest: Timestamp,
}

/// What the attempts of one open have found running so far. One that fails, because the disk is full,
/// may have reset part of it, and the next one finds only the rest.
#[derive(Debug, Default)]
pub(crate) struct FoundRunning {
    crashed: Option<Vec<Running>>,
    interrupted_revokes: Option<Vec<Running>>,
}

/// Replays the journal and resets what the last process left running.
pub(crate) fn recover(
    journal: &mut dyn Journal,
    report: OpenReport,
    found: &mut FoundRunning,
    began: Instant,
) -> Result<Recovered, OpenError> {
    let index = Index::new();
    let mut replay = Replay::of(&index);
    let mut base = replay.run(journal)?;
    index.set_seal(Seal::new(base.ledger));
    index.recount();
    let Replay { span, told, ids, records, newest, parents, .. } = replay;
    told.iter().for_each(|event| base.told(event));
    let (first, last) = span.unwrap_or_else(|| (base.last_seq.next(), base.last_seq));
    if first != base.last_seq.next() {
        return Err(gap(base.last_seq.next(), first).into());
    }
    tracing::info!(records, ids, %last, "replayed");

    let at = SystemTime::now().into();
    let mut reset = Reset { journal, parents, at, next: last.next(), batch: Vec::new() };
    let newest = newest.max(base.newest).max(reset.at);
    let epoch = base.epoch.next();
    reset.push(Entry::Ledger(LedgerEvent::EpochOpened { epoch }))?;
    let FoundRunning { crashed, interrupted_revokes } = found;
    reset.all(&index, TaskState::Running, crashed, |failure| Event::Failed { failure })?;
    reset.all(&index, TaskState::Revoking, interrupted_revokes, |failure| Event::RevokeFailed {
        failure,
    })?;
    let last = reset.finish()?;
    let crashed = crashed.take().unwrap_or_default();
    let interrupted_revokes = interrupted_revokes.take().unwrap_or_default();
    if !crashed.is_empty() || !interrupted_revokes.is_empty() {
        tracing::warn!(
            crashed = crashed.len(),
            interrupted_revokes = interrupted_revokes.len(),
            "reset what the last process left running"
        );
    }

    let recovery = Recovery {
        epoch,
        counts: index.counts(),
        crashed,
        interrupted_revokes,
        records_replayed: records,
        from_checkpoint: ids,
        report,
        took: began.elapsed(),
    };
    let core = Core::new(last, epoch, &base.metadata);
    Ok(Recovered { core, index, base, recovery, newest })
}

/// How far each is from the root of its tree, but for those that are none.
fn depths(found: &[(Cell, Running)]) -> HashMap<EncodedId, usize> {
    let mut depths = HashMap::new();
    if found.iter().all(|(_, one)| one.parent.is_none()) {
        return depths;
    }
    let parents: HashMap<&[u8], Option<&[u8]>> = found
        .iter()
        .map(|(_, one)| (one.id.as_bytes(), one.parent.as_ref().map(Parent::as_bytes)))
        .collect();
    for (_, one) in found {
        let up = |id: &&[u8]| parents.get(*id).copied().flatten();
        let from = std::iter::successors(Some(one.id.as_bytes()), up);
        // No way up is longer than all that there is, unless it leads round in a circle.
        let depth = from.skip(1).take(found.len()).filter(|id| parents.contains_key(id)).count();
        depths.insert(one.id.clone(), depth);
    }
    depths
}

struct Reset<'a> {
    journal: &'a mut dyn Journal,
    parents: Parents,
    at: Timestamp,
    next: SeqNo,
    batch: Vec<Record>,
}

impl Reset<'_> {
    fn all(
        &mut self,
        index: &Index,
        state: TaskState,
        all: &mut Option<Vec<Running>>,
        event: impl Fn(Failure) -> Event,
    ) -> Result<(), OpenError> {
        if sabotage::is(Sabotage::SkipReset) {
            return Ok(());
        }
        let ids = index.exact(state).unwrap_or_default();
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            let cell = index.cell(id.as_bytes());
            let parent = self.parent(&id, cell)?;
            found.push((cell, Running { id, parent }));
        }
        // In the order in which they began.
        found.sort_by_key(|(cell, _)| cell.seq);
        // Before the first of them is reset.
        all.get_or_insert_with(|| found.iter().map(|(_, running)| running.clone()).collect());
        // What runs within a scope ends before it.
        let depths = depths(&found);
        if !sabotage::is(Sabotage::EndFirst) {
            found.sort_by_key(|(_, one)| Reverse(depths.get(&one.id).copied().unwrap_or_default()));
        }
        for (cell, Running { id, .. }) in &found {
            let event = event(Failure::Crashed);
            let seq = self.next;
            let reset = cell
                .apply(seq, cell.seq, &event)
                .map_err(|source| JournalError::Illegal { seq, source })?;
            self.push(Entry::Task { id: id.clone(), prev: cell.seq, event })?;
            index.restore(vec![(id.clone(), reset)]);
        }
        Ok(())
    }

    /// The scope that it runs within.
    fn parent(&mut self, id: &EncodedId, cell: Cell) -> Result<Option<Parent>, OpenError> {
        if cell.state == TaskState::Running && self.parents.in_checkpoint.contains(id) {
            return Ok(self.journal.read(id, cell)?.parent);
        }
        Ok(self.parents.known.get(id).cloned())
    }

    fn push(&mut self, entry: Entry) -> Result<(), OpenError> {
        self.batch.push(Record { seq: self.next, at: self.at, entry });
        self.next = self.next.next();
        if self.batch.len() >= RESET_BATCH { self.append() } else { Ok(()) }
    }

    fn append(&mut self) -> Result<(), OpenError> {
        if !self.batch.is_empty() {
            self.journal.append(&self.batch)?;
            self.batch.clear();
        }
        Ok(())
    }

    fn finish(mut self) -> Result<SeqNo, OpenError> {
        self.append()?;
        Ok(SeqNo::new(self.next.get() - 1))
    }
}
