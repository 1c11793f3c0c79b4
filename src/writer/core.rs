//! The rule without its surroundings: requests and a journal in, publications and answers out; no
//! thread, no clock, no channel, no map but its own.
//!
//! ```text
//!  each request, in order -> what is known of its id: the group's own earlier events, else published
//!                         -> the event that it becomes, if the state machine has such an arrow
//!  all that are legal     -> one append
//! ```

use super::found::{Found, life_after};
use crate::details::Life;
use crate::error::JournalError;
use crate::id::EncodedId;
use crate::index::Change;
use crate::journal::{Entry, Journal, LedgerEvent, Record};
use crate::sabotage::{self, Sabotage};
use crate::shared::{MAX_METADATA, RESERVED};
use crate::state::{
    Cell, Epoch, Event, Grave, IllegalTransition, Parent, SeqNo, SuccessBy, TaskState, Timestamp,
    WhyIllegal,
};
use crate::submission::{Answer, AttemptKey, ByKey, Request, Within};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// What a request becomes, if it is legal.
struct Judged {
    prev: SeqNo,
    event: Event,
    cell: Cell,
    life: Life,
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

/// What the writer knows of an attempt or a revoke that runs in this process.
#[derive(Debug)]
struct Token {
    /// Its last record, which its next one has to follow: the fencing token.
    seq: SeqNo,
    /// The life of its id.
    life: Life,
    /// The attempt within which it runs.
    within: Option<AttemptKey>,
    /// If others run, or have run, within it.
    scope: Option<Box<ScopeOf>>,
}

/// What the writer knows of an attempt within which others run.
#[derive(Debug)]
struct ScopeOf {
    id: EncodedId,
    /// How many of them have no end on record.
    running: usize,
    /// How it has ended, if that waits for theirs.
    ended: Option<Event>,
}

/// The writer's rule.
#[derive(Debug)]
pub(crate) struct Core {
    next: SeqNo,
    epoch: Epoch,
    tokens: HashMap<AttemptKey, Token, ByKey>,
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
            tokens: HashMap::default(),
            metadata: metadata.collect(),
            held_back: Vec::new(),
        }
    }

    /// The last record that was appended.
    pub(crate) const fn last(&self) -> SeqNo {
        SeqNo::new(self.next.get() - 1)
    }

    /// Judges the requests in their order, each over what is published and the ones before it, and
    /// appends what is legal as one batch, by `append`. `at_work` tells of which id a run is under way.
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
        append: impl FnOnce(&mut dyn Journal, &[Record]) -> Result<(), JournalError>,
    ) -> Result<Step, JournalError> {
        let mut batch = Batch {
            core: self,
            at,
            ahead: HashMap::with_capacity(requests.len()),
            records: Vec::with_capacity(requests.len()),
            step: Step {
                changes: Vec::with_capacity(requests.len()),
                answers: Vec::with_capacity(requests.len()),
                ..Step::default()
            },
        };
        for request in requests {
            let answer = match request.id() {
                None => batch.core.judge_metadata(request).map(|event| {
                    let record = batch.core.record(at, Entry::Ledger(event));
                    batch.records.push(record);
                    if let Request::SetMetadata { name, value } = request {
                        batch.step.metadata.push((name.clone(), value.clone()));
                    }
                    Cell::ABSENT
                }),
                Some(id) => batch.judge(request, id, &published, &at_work, journal),
            };
            batch.step.answers.push(answer.map_or_else(|answer| answer, Answer::Done));
        }
        let Batch { mut records, mut step, .. } = batch;
        if sabotage::is(Sabotage::HoldBack) {
            std::mem::swap(&mut records, &mut self.held_back);
        }
        if !records.is_empty() {
            match append(journal, &records) {
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
            Request::Start { key, begin, .. } => {
                // Whoever asks has judged another record.
                let overtaken = begin.after.is_some_and(|after| after != last)
                    && !sabotage::is(Sabotage::StartBlindly);
                // The queue's own runner is the only one to start what is queued.
                let queued = found.cell.state == TaskState::Queued;
                let is_meant = queued == begin.queued.is_some();
                if found.tombstone.is_some() || !is_meant || overtaken {
                    return Err(Answer::Refused(found.state()));
                }
                if begin.within.as_ref().is_some_and(|within| !self.takes_more(within)) {
                    return Err(Answer::ScopeEnded);
                }
                let failed = found.cell.state == TaskState::Failed;
                let life = if let Some(life) = begin.queued {
                    life
                } else if failed && found.life.since == SeqNo::ZERO {
                    let read = journal.read(id, before()).map_err(|_| Answer::Unreadable)?;
                    found.life.or(&read)
                } else {
                    found.life
                };
                let (attempt, epoch, since) = (found.cell.attempt.next(), self.epoch, life.since);
                let parent =
                    begin.within.as_ref().map(|within| Parent::from_bytes(within.id.as_bytes()));
                // What outlasts an attempt, so that no more than its last one has to be read.
                let fingerprint = begin.fingerprint.or(life.fingerprint);
                let crashed_before = life.crashed == Some(true) && !begin.settled;
                let event =
                    Event::Started { attempt, epoch, since, fingerprint, parent, crashed_before };
                let since = if since == SeqNo::ZERO { self.next } else { since };
                let life = Life { since, fingerprint, crashed: Some(crashed_before), ..life };
                let judged = self.legal(found, last, event, Some(*key), life)?;
                let within = begin.within.as_ref().map(|within| self.enter(within));
                let seq = judged.cell.seq;
                self.tokens.insert(*key, Token { seq, life, within, scope: None });
                Ok(judged)
            }
            Request::StartRevoke { key, .. } => {
                let life = Life::default();
                let judged = self.legal(found, last, Event::RevokeStarted, Some(*key), life)?;
                let seq = judged.cell.seq;
                self.tokens.insert(*key, Token { seq, life, within: None, scope: None });
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
                self.legal(found, after.unwrap_or(last), event.clone(), key, found.life)
            }
            Request::Resolve { note, output, after, .. } => {
                if found.tombstone.is_some() {
                    return Err(Answer::Refused(found.state()));
                }
                // The note before it has followed that record.
                let prev = after.filter(|_| note.is_none()).unwrap_or(last);
                let event = Event::Succeeded { by: SuccessBy::Resolve, output: output.clone() };
                self.legal(found, prev, event, None, found.life)
            }
            Request::Prune { event, after, .. } => {
                if found.tombstone.is_some() {
                    return Err(Answer::Refused(found.state()));
                }
                self.legal(found, *after, event.clone(), None, found.life)
            }
            Request::Note { key, note, .. } => {
                let token = self.tokens.get(key).ok_or(Answer::Superseded)?;
                let event = Event::Noted { note: note.clone() };
                let judged = self.legal(found, token.seq, event, Some(*key), token.life);
                let judged = judged.map_err(|_| Answer::Superseded)?;
                if let Some(token) = self.tokens.get_mut(key) {
                    token.seq = judged.cell.seq;
                }
                Ok(judged)
            }
            Request::End { key, event, .. } => self.end(found, *key, event),
            Request::SetMetadata { .. } => Err(Answer::Superseded),
        }
    }

    /// The end of an attempt or a revoke.
    fn end(&mut self, found: &Found, key: AttemptKey, event: &Event) -> Result<Judged, Answer> {
        let token = self.tokens.get_mut(&key);
        if let Some(scope) = token.and_then(|token| token.scope.as_mut()) {
            if scope.running > 0 && !sabotage::is(Sabotage::EndFirst) {
                scope.ended = Some(event.clone());
                return Err(Answer::Deferred);
            }
        }
        let token = self.tokens.remove(&key);
        let (prev, life) = match &token {
            // The end of an attempt that is not the current one: fenced off.
            Some(token) if !sabotage::is(Sabotage::SkipFencing) => (token.seq, token.life),
            Some(token) => (found.cell.seq, token.life),
            None if sabotage::is(Sabotage::SkipFencing) => (found.cell.seq, found.life),
            None => return Err(Answer::Superseded),
        };
        let judged = self.legal(found, prev, event.clone(), Some(key), life);
        judged.map_err(|_| Answer::Superseded)
    }

    /// Whether something may begin within this attempt.
    fn takes_more(&self, within: &Within) -> bool {
        let token = self.tokens.get(&within.key);
        token.is_some_and(|token| token.scope.as_ref().is_none_or(|scope| scope.ended.is_none()))
    }

    /// Something begins within it.
    fn enter(&mut self, within: &Within) -> AttemptKey {
        if let Some(token) = self.tokens.get_mut(&within.key) {
            let new = || Box::new(ScopeOf { id: within.id.clone(), running: 0, ended: None });
            token.scope.get_or_insert_with(new).running += 1;
        }
        within.key
    }

    /// Something that ran within it has ended. If it was the last one, and the end of the scope has waited for
    /// that: whose it is, and how it ended.
    fn leave(&mut self, within: AttemptKey) -> Option<(EncodedId, Event)> {
        let scope = self.tokens.get_mut(&within)?.scope.as_mut()?;
        scope.running = scope.running.saturating_sub(1);
        if scope.running > 0 {
            return None;
        }
        Some((scope.id.clone(), scope.ended.take()?))
    }

    /// Within which attempt this one runs.
    fn within(&self, key: AttemptKey) -> Option<AttemptKey> {
        self.tokens.get(&key)?.within
    }

    /// The event, if it can follow.
    fn legal(
        &self,
        found: &Found,
        prev: SeqNo,
        event: Event,
        key: Option<AttemptKey>,
        life: Life,
    ) -> Result<Judged, Answer> {
        match found.cell.apply(self.next, prev, &event) {
            Ok(cell) => Ok(Judged { prev, event, cell, life, key }),
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

/// What becomes of a group, while it is judged.
struct Batch<'c, 'r> {
    core: &'c mut Core,
    at: Timestamp,
    /// What the group's own earlier events have made of an id.
    ahead: HashMap<Cow<'r, EncodedId>, Found>,
    records: Vec<Record>,
    step: Step,
}

impl<'r> Batch<'_, 'r> {
    fn judge(
        &mut self,
        request: &'r Request,
        id: &'r EncodedId,
        published: &impl Fn(&EncodedId) -> Found,
        at_work: &impl Fn(&EncodedId) -> bool,
        journal: &mut dyn Journal,
    ) -> Result<Cell, Answer> {
        let ends = if let Request::End { key, .. } = request { Some(*key) } else { None };
        let within = ends.and_then(|key| self.core.within(key));
        let mut found = self.found(id, published);
        let answer = self.judge_found(request, id, &mut found, published, at_work, journal);
        self.ahead.insert(Cow::Borrowed(id), found);
        if answer != Err(Answer::Deferred) {
            self.left(within, published);
        }
        answer
    }

    /// What ran within this attempt has ended, and with it perhaps the last thing that its own end has
    /// waited for, and so on.
    fn left(&mut self, within: Option<AttemptKey>, published: &impl Fn(&EncodedId) -> Found) {
        let mut next = within;
        while let Some(key) = next {
            let Some((id, event)) = self.core.leave(key) else { return };
            next = self.core.within(key);
            let mut found = self.found(&id, published);
            // One that is not the current one any more is fenced off like any other.
            if let Ok(judged) = self.core.end(&found, key, &event) {
                self.taken(&id, judged, &mut found);
            }
            self.ahead.insert(Cow::Owned(id), found);
        }
    }

    fn judge_found(
        &mut self,
        request: &Request,
        id: &EncodedId,
        found: &mut Found,
        published: &impl Fn(&EncodedId) -> Found,
        at_work: &impl Fn(&EncodedId) -> bool,
        journal: &mut dyn Journal,
    ) -> Result<Cell, Answer> {
        if let Some((prev, event)) = Core::before(request, found) {
            let judged = self.core.legal(found, prev, event, None, found.life)?;
            self.taken(id, judged, found);
        }
        if matches!(request, Request::Prune { .. }) && at_work(id) {
            // Between two attempts it does not look like it.
            return Err(Answer::Refused(TaskState::Running));
        }
        let judged = self.core.judge(request, id, found, || published(id).cell, journal)?;
        Ok(self.taken(id, judged, found))
    }

    /// What is known of it by now.
    fn found(&self, id: &EncodedId, published: &impl Fn(&EncodedId) -> Found) -> Found {
        let own = self.ahead.get(id).copied();
        let own = own.filter(|_| !sabotage::is(Sabotage::ForgetBatch));
        own.unwrap_or_else(|| published(id))
    }

    fn taken(&mut self, id: &EncodedId, judged: Judged, found: &mut Found) -> Cell {
        let Judged { prev, event, cell, life, key } = judged;
        let moved = event.grave();
        found.tombstone = match moved {
            Some(Grave::Dug(tombstone)) => Some(tombstone),
            Some(Grave::Opened(_)) | None => None,
        };
        let life = life_after(life, cell, &event);
        (found.cell, found.life, found.key) = (cell, life, key);
        let entry = Entry::Task { id: id.clone(), prev, event };
        let record = self.core.record(self.at, entry);
        self.records.push(record);
        self.step.changes.push(Change { id: id.clone(), cell, key, life, moved });
        cell
    }
}

#[cfg(test)]
pub(super) mod tests;
