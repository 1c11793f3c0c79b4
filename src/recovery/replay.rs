//! Replay, on several threads.
//!
//! ```text
//!  the journal reads and decodes -> what concerns all of the ledger is judged in its order: that no
//!                                   record is missing, the tombstones, the times, who runs within whom
//!      |            |
//!    lane 0       lane 1   ...      each chunk goes to all; a lane applies what stands in its parts of
//!                                   the index, and passes over the rest
//! ```
//!
//! All records of an id come to the same lane in their order, and only they make its cell. What was found
//! first, in the order of the log, is what is told: whoever stops leaves the others to go through
//! all that they have been given, which is all that came before.

use crate::error::panic_text;
use crate::error::{Damage, JournalError};
use crate::id::EncodedId;
use crate::index::{Index, Lane};
use crate::journal::{Base, Entry, Journal, LedgerEvent, Record, Replayed};
use crate::sabotage::{self, Sabotage};
use crate::state::{Cell, Event, Grave, Parent, SeqNo, TaskState, Timestamp};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Chunks that are read ahead of the one that is applied.
const CHUNKS_AHEAD: usize = 16;

/// More lanes than this would wait for the one thread that reads.
const MOST_LANES: usize = 4;

pub(super) struct Replay<'a> {
    index: &'a Index,
    /// The first and the last record so far.
    pub(super) span: Option<(SeqNo, SeqNo)>,
    /// What the records say of the ledger as a whole.
    pub(super) told: Vec<LedgerEvent>,
    pub(super) ids: u64,
    pub(super) records: u64,
    /// When the last record was written. Nothing rests on it.
    at: Timestamp,
    /// When the newest record was written: clocks may have been set back.
    pub(super) newest: Timestamp,
    pub(super) parents: Parents,
    /// What is wrong with this record, beyond what a lane would find.
    wrong: Option<Wrong>,
}

/// What is wrong with a record.
struct Wrong {
    /// Where it stands in the log, whatever it says of that itself.
    seq: SeqNo,
    error: JournalError,
}

/// What the lanes share.
enum Chunk {
    Base(Vec<(EncodedId, Cell)>),
    Records(Vec<Record>),
}

/// Within what that runs which runs.
#[derive(Debug, Default)]
pub(super) struct Parents {
    /// As the log says.
    pub(super) known: HashMap<EncodedId, Parent>,
    /// What ran when the checkpoint was made: that says it.
    pub(super) in_checkpoint: HashSet<EncodedId>,
}

impl Parents {
    fn hear(&mut self, id: &EncodedId, event: &Event) {
        let Event::Started { parent, .. } = event else { return };
        if !self.in_checkpoint.is_empty() {
            self.in_checkpoint.remove(id);
        }
        match parent {
            Some(parent) => _ = self.known.insert(id.clone(), parent.clone()),
            None if self.known.is_empty() => {}
            None => _ = self.known.remove(id),
        }
    }
}

impl<'a> Replay<'a> {
    pub(super) fn of(index: &'a Index) -> Self {
        Self {
            index,
            span: None,
            told: Vec::new(),
            ids: 0,
            records: 0,
            at: Timestamp::default(),
            newest: Timestamp::default(),
            parents: Parents::default(),
            wrong: None,
        }
    }

    pub(super) fn run(&mut self, journal: &mut dyn Journal) -> Result<Base, JournalError> {
        let lanes = thread::available_parallelism().map_or(1, usize::from).min(MOST_LANES);
        self.run_in(lanes, journal)
    }

    fn run_in(&mut self, lanes: usize, journal: &mut dyn Journal) -> Result<Base, JournalError> {
        let index = self.index;
        thread::scope(|scope| {
            let lane = |number| {
                let (chunks, to_apply) = sync_channel::<Arc<Chunk>>(CHUNKS_AHEAD);
                let mut lane = index.lane(number, lanes);
                (chunks, scope.spawn(move || go_through(&mut lane, &to_apply)))
            };
            let (chunks, lanes): (Vec<_>, Vec<_>) = (0..lanes).map(lane).unzip();
            // Until all is there: what is not used is given back then.
            let mut room = Vec::new();
            let replayed = journal.replay(&mut |replayed| {
                if let Replayed::Expected(ids) = &replayed {
                    room = index.reserve(ids);
                }
                self.take(replayed, &chunks)
            });
            drop(chunks);
            let mut first = self.wrong.take();
            // All of them, before any of it is told: a scope does not end before its threads.
            let joined: Vec<_> = lanes.into_iter().map(|lane| lane.join()).collect();
            for applied in joined {
                let applied = applied.map_err(|panic| JournalError::Panicked(panic_text(panic)))?;
                // Of one record, what makes it illegal weighs more.
                let wrong = applied
                    .err()
                    .filter(|wrong| first.as_ref().is_none_or(|first| wrong.seq <= first.seq));
                first = wrong.or(first);
            }
            // That is why the journal was stopped.
            first.map_or(replayed, |wrong| Err(wrong.error))
        })
    }

    fn take(
        &mut self,
        replayed: Replayed,
        lanes: &[SyncSender<Arc<Chunk>>],
    ) -> Result<(), JournalError> {
        let stopped = || JournalError::Store("the replay was stopped".into());
        if self.wrong.is_some() {
            return Err(stopped());
        }
        let chunk = match replayed {
            Replayed::Expected(_) => return Ok(()),
            Replayed::Base(cells) => {
                self.ids += cells.len() as u64;
                let runs = cells.iter().filter(|(_, cell)| cell.state == TaskState::Running);
                self.parents.in_checkpoint.extend(runs.map(|(id, _)| id.clone()));
                Chunk::Base(cells)
            }
            Replayed::Tombstones(tombstones) => {
                tombstones
                    .into_iter()
                    .map(Grave::Dug)
                    .for_each(|grave| self.index.put_grave(grave));
                return Ok(());
            }
            Replayed::Records(records) => Chunk::Records(self.judge(records)),
        };
        let chunk = Arc::new(chunk);
        // To all of them, also when one has stopped: another may find what comes before that.
        let gone = lanes.iter().filter(|lane| lane.send(Arc::clone(&chunk)).is_err()).count();
        if gone > 0 || self.wrong.is_some() { Err(stopped()) } else { Ok(()) }
    }

    /// Those that are to be applied: all, up to one with which something is wrong.
    fn judge(&mut self, mut records: Vec<Record>) -> Vec<Record> {
        let mut sound = 0;
        while let Some(record) = records.get_mut(sound) {
            let seq = record.seq;
            let (first, last) = self.span.unwrap_or((seq, seq));
            if self.records > 0 && seq != last.next() {
                self.wrong = Some(Wrong { seq: last.next(), error: gap(last.next(), seq) });
                records.truncate(sound);
                break;
            }
            self.span = Some((first, seq));
            self.records += 1;
            self.newest = self.newest.max(record.at);
            let earlier = record.at < std::mem::replace(&mut self.at, record.at);
            if earlier && sabotage::is(Sabotage::TrustClock) {
                records.remove(sound);
                continue;
            }
            sound += 1;
            if let Err(error) = self.hear(record) {
                self.wrong = Some(Wrong { seq, error });
                records.truncate(sound);
            }
        }
        records
    }

    /// What it says beside the cell of its id.
    fn hear(&mut self, record: &mut Record) -> Result<(), JournalError> {
        match &record.entry {
            Entry::Task { id, event, .. } => {
                self.parents.hear(id, event);
                match event.grave() {
                    Some(Grave::Opened(tombstone)) if !self.index.has(&tombstone) => {
                        return Err(JournalError::Damaged(Damage {
                            place: "log".into(),
                            what: format!(
                                "record {} opens a tombstone that is not there",
                                record.seq
                            ),
                            lost: None,
                        }));
                    }
                    Some(grave) => self.index.put_grave(grave),
                    None => {}
                }
            }
            Entry::Ledger(event) => self.told.push(event.clone()),
        }
        Ok(())
    }
}

/// Applies all that comes and stands in the lane.
fn go_through(lane: &mut Lane<'_>, chunks: &Receiver<Arc<Chunk>>) -> Result<(), Wrong> {
    while let Ok(chunk) = chunks.recv() {
        match &*chunk {
            Chunk::Base(cells) => {
                for (id, cell) in cells {
                    lane.set(id.as_bytes(), *cell);
                }
            }
            Chunk::Records(records) => records.iter().try_for_each(|record| apply(lane, record))?,
        }
    }
    lane.settle();
    Ok(())
}

fn apply(lane: &mut Lane<'_>, record: &Record) -> Result<(), Wrong> {
    let seq = record.seq;
    let Entry::Task { id, prev, event } = &record.entry else { return Ok(()) };
    let applied = lane.change(id.as_bytes(), |cell| {
        let next = cell.apply(seq, *prev, event);
        let trusted = sabotage::is(Sabotage::TrustRecord);
        assert!(next.is_ok() || !trusted, "record {seq} was believed");
        next
    });
    applied.map_err(|source| Wrong { seq, error: JournalError::Illegal { seq, source } })
}

pub(super) fn gap(expected: SeqNo, found: SeqNo) -> JournalError {
    JournalError::Damaged(Damage {
        place: "log".into(),
        what: format!("record {found} follows where {expected} should"),
        lost: None,
    })
}

#[cfg(test)]
mod tests;
