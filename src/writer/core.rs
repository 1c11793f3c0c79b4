//! The rule without its surroundings: requests and a journal in, publications and answers out; no
//! thread, no clock, no channel, no map but its own.
//!
//! ```text
//!  each request, in order -> what is known of its id: the group's own earlier events, else published
//!                         -> the event that it becomes, if the state machine has such an arrow
//!  all that are legal     -> one append
//! ```

use crate::error::JournalError;
use crate::id::EncodedId;
use crate::index::Change;
use crate::journal::{Entry, Journal, LedgerEvent, Record};
use crate::sabotage::{self, Sabotage};
use crate::shared::{MAX_METADATA, RESERVED};
use crate::state::{
    Cell, Epoch, Event, Grave, IllegalTransition, SeqNo, SuccessBy, TaskState, Timestamp,
    Tombstone, WhyIllegal,
};
use crate::submission::{Answer, AttemptKey, Request};
use std::collections::{BTreeMap, HashMap};

/// What a request becomes, if it is legal.
struct Judged {
    prev: SeqNo,
    event: Event,
    cell: Cell,
    since: SeqNo,
    key: Option<AttemptKey>,
}

/// What a group of requests became.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// In log order.
    pub(crate) changes: Vec<Change>,
    /// One for each request, in their order.
    pub(crate) answers: Vec<Answer>,
    /// What was appended.
    pub(crate) records: Vec<Record>,
    /// Changes of the metadata.
    pub(crate) metadata: Vec<(String, Option<Vec<u8>>)>,
}

/// What is known of an id when a request comes to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) cell: Cell,
    /// Where the life of a failed id began; zero if nobody has asked yet.
    pub(crate) since: SeqNo,
    /// Of a failed id, whose attempt that was.
    pub(crate) key: Option<AttemptKey>,
    /// All that is left of a success.
    pub(crate) tombstone: Option<Tombstone>,
}

impl Found {
    /// An id of which nothing is known.
    #[cfg(test)]
    pub(crate) const NOTHING: Self =
        Self { cell: Cell::ABSENT, since: SeqNo::ZERO, key: None, tombstone: None };

    /// As callers see it.
    const fn state(&self) -> TaskState {
        if self.tombstone.is_some() { TaskState::Succeeded } else { self.cell.state }
    }
}

/// What the writer knows of an attempt or a revoke that runs in this process.
#[derive(Clone, Copy, Debug)]
struct Token {
    /// Its last record, which its next one has to follow: the fencing token.
    seq: SeqNo,
    /// Where the life of its id began.
    since: SeqNo,
}

/// The writer's rule.
#[derive(Debug)]
pub(crate) struct Core {
    next: SeqNo,
    epoch: Epoch,
    tokens: HashMap<AttemptKey, Token>,
    /// The bytes of every name in the metadata with its value, but for our own.
    metadata: HashMap<String, usize>,
    /// Empty but for a sabotage.
    held_back: Vec<Record>,
}

impl Core {
    /// Goes on after the record at `last`.
    pub(crate) fn new(last: SeqNo, epoch: Epoch, metadata: &BTreeMap<String, Vec<u8>>) -> Self {
        let metadata = metadata.iter().filter(|(name, _)| !name.starts_with(RESERVED));
        let metadata = metadata.map(|(name, value)| (name.clone(), name.len() + value.len()));
        Self {
            next: last.next(),
            epoch,
            tokens: HashMap::new(),
            metadata: metadata.collect(),
            held_back: Vec::new(),
        }
    }

    /// The last record that was appended.
    pub(crate) const fn last(&self) -> SeqNo {
        SeqNo::new(self.next.get() - 1)
    }

    /// Judges the requests in their order, each over what is published and the ones before it, and
    /// appends what is legal as one batch. `at_work` tells of which id a run is under way.
    ///
    /// # Errors
    ///
    /// The journal's. Nothing may be published or appended after one.
    pub(crate) fn step(
        &mut self,
        requests: &[Request],
        at: Timestamp,
        published: impl Fn(&EncodedId) -> Found,
        at_work: impl Fn(&EncodedId) -> bool,
        journal: &mut dyn Journal,
    ) -> Result<Step, JournalError> {
        let mut step = Step::default();
        let mut records = Vec::with_capacity(requests.len());
        let mut ahead: HashMap<&EncodedId, Found> = HashMap::new();
        for request in requests {
            let answer = match request.id() {
                None => self.judge_metadata(request).map(|event| {
                    records.push(self.record(at, Entry::Ledger(event)));
                    if let Request::SetMetadata { name, value } = request {
                        step.metadata.push((name.clone(), value.clone()));
                    }
                    Cell::ABSENT
                }),
                Some(id) => {
                    let own = ahead.get(id).copied();
                    let own = own.filter(|_| !sabotage::is(Sabotage::ForgetBatch));
                    let mut found = own.unwrap_or_else(|| published(id));
                    let mut taken = |core: &mut Self, judged: Judged, found: &mut Found| {
                        let Judged { prev, event, cell, since, key } = judged;
                        let moved = event.grave();
                        found.tombstone = match moved {
                            Some(Grave::Dug(tombstone)) => Some(tombstone),
                            Some(Grave::Opened(_)) | None => None,
                        };
                        // A life that has ended, or has come to its success, begins no other.
                        let lives = matches!(cell.state, TaskState::Running | TaskState::Failed);
                        let since = if lives { since } else { SeqNo::ZERO };
                        (found.cell, found.since, found.key) = (cell, since, key);
                        records.push(core.record(at, Entry::Task { id: id.clone(), prev, event }));
                        let change = Change { id: id.clone(), cell, key, since, moved };
                        step.changes.push(change);
                        cell
                    };
                    let before = match Self::before(request, &found) {
                        Some((prev, event)) => self
                            .legal(&found, prev, event, None, found.since)
                            .map(|judged| _ = taken(self, judged, &mut found)),
                        None => Ok(()),
                    };
                    let judged = before.and_then(|()| {
                        if matches!(request, Request::Prune { .. }) && at_work(id) {
                            // Between two attempts it does not look like it.
                            return Err(Answer::Refused(TaskState::Running));
                        }
                        self.judge(request, id, &found, || published(id).cell, journal)
                    });
                    let answer = judged.map(|judged| taken(self, judged, &mut found));
                    ahead.insert(id, found);
                    answer
                }
            };
            step.answers.push(answer.map_or_else(|answer| answer, Answer::Done));
        }
        if sabotage::is(Sabotage::HoldBack) {
            std::mem::swap(&mut records, &mut self.held_back);
        }
        if !records.is_empty() {
            match journal.append(&records) {
                Err(_) if sabotage::is(Sabotage::SwallowFailure) => {}
                appended => appended?,
            }
        }
        step.records = records;
        Ok(step)
    }

    fn record(&mut self, at: Timestamp, entry: Entry) -> Record {
        let seq = self.next;
        self.next = seq.next();
        Record { seq, at, entry }
    }

    /// What has to happen before the request can: after which record, and what.
    fn before(request: &Request, found: &Found) -> Option<(SeqNo, Event)> {
        let last = found.cell.seq;
        match (request, found.tombstone) {
            (_, Some(tombstone)) if request.opens_a_grave() => {
                Some((last, Event::Exhumed { tombstone }))
            }
            // Only where the success can follow it.
            (Request::Resolve { note: Some(note), after, .. }, None)
                if found.cell.state == TaskState::Failed =>
            {
                Some((after.unwrap_or(last), Event::Noted { note: note.clone() }))
            }
            _ => None,
        }
    }

    /// What the request becomes for `id`, of which this is known; or why not.
    fn judge(
        &mut self,
        request: &Request,
        id: &EncodedId,
        found: &Found,
        before: impl FnOnce() -> Cell,
        journal: &mut dyn Journal,
    ) -> Result<Judged, Answer> {
        let last = found.cell.seq;
        match request {
            Request::Start { key, fingerprint, after, .. } => {
                // Whoever asks has judged another record.
                let overtaken = after.is_some_and(|after| after != last);
                // The queue's own runner is the only one to start what is queued.
                let queued = found.cell.state == TaskState::Queued;
                if found.tombstone.is_some() || queued || overtaken {
                    return Err(Answer::Refused(found.state()));
                }
                let failed = found.cell.state == TaskState::Failed;
                let since = if failed && found.since == SeqNo::ZERO {
                    let read = journal.read(id, before());
                    read.map_err(|_| Answer::Unreadable)?.since
                } else {
                    found.since
                };
                let (attempt, epoch) = (found.cell.attempt.next(), self.epoch);
                let fingerprint = *fingerprint;
                let event = Event::Started { attempt, epoch, since, fingerprint };
                let since = if since == SeqNo::ZERO { self.next } else { since };
                let judged = self.legal(found, last, event, Some(*key), since)?;
                self.tokens.insert(*key, Token { seq: judged.cell.seq, since });
                Ok(judged)
            }
            Request::StartRevoke { key, .. } => {
                let judged =
                    self.legal(found, last, Event::RevokeStarted, Some(*key), SeqNo::ZERO)?;
                let token = Token { seq: judged.cell.seq, since: SeqNo::ZERO };
                self.tokens.insert(*key, token);
                Ok(judged)
            }
            Request::Change { event, after, .. } => {
                // What runs changes only by its own attempt: a record of somebody else's would fence off
                // its end.
                let runs = matches!(found.cell.state, TaskState::Running | TaskState::Revoking);
                if found.tombstone.is_some() || runs {
                    return Err(Answer::Refused(found.state()));
                }
                // What says nothing of the failure leaves it whose it was.
                let told = matches!(event, Event::Noted { .. } | Event::Pinned | Event::Unpinned);
                let key = found.key.filter(|_| told);
                self.legal(found, after.unwrap_or(last), event.clone(), key, found.since)
            }
            Request::Resolve { note, output, after, .. } => {
                if found.tombstone.is_some() {
                    return Err(Answer::Refused(found.state()));
                }
                // The note before it has followed that record.
                let prev = after.filter(|_| note.is_none()).unwrap_or(last);
                let event = Event::Succeeded { by: SuccessBy::Resolve, output: output.clone() };
                self.legal(found, prev, event, None, found.since)
            }
            Request::Prune { event, after, .. } => {
                if found.tombstone.is_some() {
                    return Err(Answer::Refused(found.state()));
                }
                self.legal(found, *after, event.clone(), None, found.since)
            }
            Request::Note { key, note, .. } => {
                let token = self.tokens.get(key).copied().ok_or(Answer::Superseded)?;
                let event = Event::Noted { note: note.clone() };
                let judged = self.legal(found, token.seq, event, Some(*key), token.since);
                let judged = judged.map_err(|_| Answer::Superseded)?;
                self.tokens.insert(*key, Token { seq: judged.cell.seq, ..token });
                Ok(judged)
            }
            Request::End { key, event, .. } => {
                let token = match self.tokens.remove(key) {
                    None if sabotage::is(Sabotage::SkipFencing) => {
                        Token { seq: last, since: found.since }
                    }
                    token => token.ok_or(Answer::Superseded)?,
                };
                let fenced = !sabotage::is(Sabotage::SkipFencing);
                let prev = if fenced { token.seq } else { last };
                // The end of an attempt that is not the current one: fenced off.
                self.legal(found, prev, event.clone(), Some(*key), token.since)
                    .map_err(|_| Answer::Superseded)
            }
            Request::SetMetadata { .. } => Err(Answer::Superseded),
        }
    }

    /// The event, if it can follow.
    fn legal(
        &self,
        found: &Found,
        prev: SeqNo,
        event: Event,
        key: Option<AttemptKey>,
        since: SeqNo,
    ) -> Result<Judged, Answer> {
        match found.cell.apply(self.next, prev, &event) {
            Ok(cell) => Ok(Judged { prev, event, cell, since, key }),
            Err(IllegalTransition { why: WhyIllegal::State, .. }) => {
                Err(Answer::Refused(found.state()))
            }
            Err(_) => Err(Answer::Superseded),
        }
    }

    fn judge_metadata(&mut self, request: &Request) -> Result<LedgerEvent, Answer> {
        let Request::SetMetadata { name, value } = request else {
            return Err(Answer::Superseded);
        };
        self.make_room(name, value.as_deref())?;
        Ok(LedgerEvent::MetadataSet { name: name.clone(), value: value.clone() })
    }

    /// Sees to it that the metadata as a whole stays small: who asks knows only what is published.
    fn make_room(&mut self, name: &str, value: Option<&[u8]>) -> Result<(), Answer> {
        let Some(value) = value else {
            self.metadata.remove(name);
            return Ok(());
        };
        if name.starts_with(RESERVED) {
            return Ok(());
        }
        let size = name.len() + value.len();
        let others = self.metadata.iter().filter(|(other, _)| *other != name);
        if others.map(|(_, size)| size).sum::<usize>() + size > MAX_METADATA {
            return Err(Answer::NoRoom);
        }
        self.metadata.insert(name.to_owned(), size);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
