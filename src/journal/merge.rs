//! The records of a log, gathered by id and merged into what was known before.
//!
//! ```text
//! known before   a: succeeded @3    c: failed @9            e: queued @8     sorted by id
//! changes                           c: 10 started, 12 ended               f: 11 queued
//! merged         a: succeeded @3    c: succeeded @12        e: queued @8  f: queued @11
//! ```
//!
//! What was known is a sorted stream and never in memory; the changes are, still encoded. Whoever
//! has more changes than memory gathers a window of ids at a time: [`Merge::load`] takes the next
//! window when [`Merge::next_before`] has come to the end of the one before.
//!
//! Each id is folded by one rule, here alone: its records in their order, each judged by
//! [`Cell::apply`](crate::state::Cell::apply). One that cannot follow is believed all the same and
//! told of; whether that is an error is for the caller to say.

use crate::details::TaskDetails;
use crate::error::JournalError;
use crate::id::EncodedId;
use crate::journal::checkpoint::{Entries, SalvagedEntries};
use crate::journal::codec;
use crate::journal::frame::ITEM_LIMIT;
use crate::journal::wire::EventWire;
use crate::journal::{Entry, Record};
use crate::sabotage::{self, Sabotage};
use crate::state::{Event, IllegalTransition, SeqNo, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;

/// What an id with records costs beside their bytes.
const PER_ID: usize = 128;

/// Records of ids, by id, still encoded.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    by_id: BTreeMap<EncodedId, Vec<u8>>,
    bytes: usize,
}

impl Changes {
    /// Takes in a record of `id`; each id's records come in order.
    pub(crate) fn take(
        &mut self,
        seq: SeqNo,
        at: Timestamp,
        id: EncodedId,
        prev: SeqNo,
        event: &Event,
    ) {
        let event = EventWire::from(event);
        let change = ChangeWire { seq: seq.get(), at: at.as_micros(), prev: prev.get(), event };
        let changes = self.by_id.entry(id).or_insert_with(|| {
            self.bytes += PER_ID;
            Vec::new()
        });
        let before = changes.len();
        codec::encode_into(changes, &change);
        self.bytes += changes.len() - before;
    }

    /// About how much memory they take.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets the last id, unless it is the only one, and tells which it was.
    pub(crate) fn drop_last(&mut self) -> Option<EncodedId> {
        if self.by_id.len() < 2 {
            return None;
        }
        let (id, changes) = self.by_id.pop_last()?;
        self.bytes -= PER_ID + changes.len();
        Some(id)
    }
}

/// What was known before, sorted by id.
pub(crate) enum Known<'a> {
    /// Nothing.
    Nothing,
    /// What a sound checkpoint says.
    Checkpoint(Box<Entries<'a>>),
    /// What can be read of a damaged one.
    Salvaged(SalvagedEntries<'a>),
}

impl Known<'_> {
    fn next(&mut self) -> Result<Option<(EncodedId, TaskDetails)>, JournalError> {
        match self {
            Self::Nothing => Ok(None),
            Self::Checkpoint(entries) => entries.next(),
            Self::Salvaged(entries) => entries.next(),
        }
    }
}

/// What is known of one id after its changes.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) id: EncodedId,
    /// Absent when the last change made it so.
    pub(crate) details: TaskDetails,
    /// The first record that could not follow, and why.
    pub(crate) illegal: Option<(SeqNo, IllegalTransition)>,
}

/// Merges changes into what was known before, ascending by id.
pub(crate) struct Merge<'a> {
    known: Known<'a>,
    /// The next of what was known.
    ahead: Option<(EncodedId, TaskDetails)>,
    ended: bool,
    changes: Peekable<btree_map::IntoIter<EncodedId, Vec<u8>>>,
}

impl<'a> Merge<'a> {
    pub(crate) fn new(known: Known<'a>, changes: Changes) -> Self {
        let changes = changes.by_id.into_iter().peekable();
        Self { known, ahead: None, ended: false, changes }
    }

    /// Goes on with these changes, of ids after all that came before.
    pub(crate) fn load(&mut self, changes: Changes) {
        debug_assert!(self.changes.peek().is_none(), "the window before has ended");
        self.changes = changes.by_id.into_iter().peekable();
    }

    /// The next id, as long as it is before `end`, which no change has reached.
    ///
    /// # Errors
    ///
    /// Those of reading what was known. The next call goes on after it.
    pub(crate) fn next_before(
        &mut self,
        end: Option<&EncodedId>,
    ) -> Result<Option<Told>, JournalError> {
        if self.ahead.is_none() && !self.ended {
            let next = self.known.next();
            self.ended = match (&next, &self.known) {
                (Ok(next), _) => next.is_none(),
                // What follows the damage would be believed of a checkpoint that is not sound.
                (Err(_), Known::Nothing | Known::Checkpoint(_)) => true,
                (Err(_), Known::Salvaged(_)) => false,
            };
            self.ahead = next?;
        }
        let known = self.ahead.take_if(|(id, _)| {
            end.is_none_or(|end| *id < *end)
                && self.changes.peek().is_none_or(|(changed, _)| *id <= *changed)
        });
        let Some((id, details)) = known else {
            let changed = self.changes.next();
            return changed
                .map(|(id, changes)| told(id, TaskDetails::ABSENT, &changes))
                .transpose();
        };
        let changes = self.changes.next_if(|(changed, _)| *changed == id);
        told(id, details, &changes.map(|(_, changes)| changes).unwrap_or_default()).map(Some)
    }
}

fn told(id: EncodedId, mut details: TaskDetails, mut changes: &[u8]) -> Result<Told, JournalError> {
    let mut illegal = None;
    while !changes.is_empty() {
        let change = codec::decode_front::<ChangeWire<'_>, ITEM_LIMIT>(&mut changes)
            .map_err(|what| JournalError::Store(format!("a change in memory: {what}")))?;
        let seq = SeqNo::new(change.seq);
        let (prev, event) = (SeqNo::new(change.prev), change.event.into());
        if let Err(why) = details.cell.apply(seq, prev, &event) {
            illegal.get_or_insert((seq, why));
        }
        let entry = Entry::Task { id: id.clone(), prev, event };
        // What is legal is the same, forced or not.
        let at = if sabotage::is(Sabotage::LoseDates) { 0 } else { change.at };
        details = details.forced(&Record { seq, at: Timestamp::from_micros(at), entry });
    }
    Ok(Told { id, details, illegal })
}

/// A record of an id, waiting in memory.
#[derive(Serialize, Deserialize)]
struct ChangeWire<'a> {
    seq: u64,
    at: u64,
    prev: u64,
    #[serde(borrow)]
    event: EventWire<'a>,
}
