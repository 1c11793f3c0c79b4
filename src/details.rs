//! All that is known of one id, folded from its records.
//!
//! Memory keeps only the [`Cell`]; this is what the checkpoint stores, what
//! [`record`](crate::Ledger::record) returns, and what the dump tool prints.
//! One fold makes it, wherever the records come from.

mod life;

pub(crate) use life::Life;

use crate::error::JournalError;
use crate::journal::{Entry, Record};
use crate::state::{
    Attempt, Cell, Epoch, Event, Failure, Fingerprint, IllegalTransition, Output, Parent, SeqNo,
    SuccessBy, TaskState, Timestamp,
};
use std::collections::VecDeque;

/// Notes of an attempt that are kept; older ones go.
pub(crate) const MAX_NOTES: usize = 8;

/// What an attempt has told of its progress.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    /// When.
    pub at: Timestamp,
    /// What.
    pub text: String,
}

/// All that is known of one id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskDetails {
    /// State, attempt and position of the last record.
    pub cell: Cell,
    /// The open in which the last attempt ran; `None` if there was none.
    pub epoch: Option<Epoch>,
    /// When it was put into the queue, if it waited there for the last attempt.
    pub queued_at: Option<Timestamp>,
    /// When the last attempt started.
    pub started_at: Option<Timestamp>,
    /// When the last attempt ended, the id was marked as succeeded, or a verdict was given on its failure.
    pub ended_at: Option<Timestamp>,
    /// When the last revoke started.
    pub revoke_started_at: Option<Timestamp>,
    /// Why the last attempt failed, while the id is failed.
    pub failure: Option<Failure>,
    /// Why the last revoke failed, while the success stands.
    pub revoke_failure: Option<Failure>,
    /// Who says that it succeeded, while it is succeeded or revoking.
    pub succeeded_by: Option<SuccessBy>,
    /// The value of the success.
    pub output: Output,
    /// The position of the first record since the id was last not found, unless it is succeeded or
    /// revoking: what distinguishes one life of an id from the next.
    pub since: SeqNo,
    /// Of the request that the id serves, if a caller has given one since it was last not found.
    pub fingerprint: Option<Fingerprint>,
    /// Whether an attempt before the last one crashed, since the id was last not found, and nobody has said
    /// what came of that: its effect may have happened, whatever came after it.
    pub crashed_before: bool,
    /// The scope within which the last attempt ran, if that is recorded itself.
    pub parent: Option<Parent>,
    /// What is to be done, serialized, while it waits in the queue, runs from there, or has failed to.
    pub payload: Option<Vec<u8>>,
    /// What the last attempt has told, and why it was resolved, oldest first: the last eight notes.
    pub notes: VecDeque<Note>,
    /// Whether it is not pruned by age.
    pub pinned: bool,
    /// Whether a later change of this id could not be recorded: the ledger is poisoned, and only
    /// the next open knows what is on disk. Never stored.
    pub in_doubt: bool,
}

impl TaskDetails {
    /// Of an id of which nothing is known.
    pub const ABSENT: Self = Self {
        cell: Cell::ABSENT,
        epoch: None,
        queued_at: None,
        started_at: None,
        ended_at: None,
        revoke_started_at: None,
        failure: None,
        revoke_failure: None,
        succeeded_by: None,
        output: Output::Absent,
        since: SeqNo::ZERO,
        fingerprint: None,
        crashed_before: false,
        parent: None,
        payload: None,
        notes: VecDeque::new(),
        pinned: false,
        in_doubt: false,
    };

    /// Of a success that was pruned: nothing but that it was one.
    pub(crate) fn buried() -> Self {
        let cell = Cell { state: TaskState::Succeeded, attempt: Attempt::NONE, seq: SeqNo::ZERO };
        Self { cell, ..Self::ABSENT }
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> TaskState {
        self.cell.state
    }

    /// The number of the last attempt; [`Attempt::NONE`] if the id was only marked or queued.
    #[must_use]
    pub const fn attempt(&self) -> Attempt {
        self.cell.attempt
    }

    /// Whether an attempt of this life has crashed, the last one included, and nobody has said what came of
    /// that.
    pub(crate) fn has_crashed(&self) -> bool {
        self.crashed_before || self.failure == Some(Failure::Crashed)
    }

    /// What follows from these details and the id's next record. A record of the ledger itself
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// [`IllegalTransition`] when the record cannot follow.
    pub fn after(self, record: &Record) -> Result<Self, IllegalTransition> {
        match &record.entry {
            Entry::Task { prev, event, .. } => {
                let cell = self.cell.apply(record.seq, *prev, event)?;
                Ok(self.told(cell, record.at, event))
            }
            Entry::Ledger(_) => Ok(self),
        }
    }

    /// As [`after`](Self::after), believing the record whatever came before it: the repair of a
    /// log with a gap.
    #[must_use]
    pub fn forced(self, record: &Record) -> Self {
        match &record.entry {
            Entry::Task { event, .. } => {
                let cell = self.cell.forced(record.seq, event);
                self.told(cell, record.at, event).fitted()
            }
            Entry::Ledger(_) => self,
        }
    }

    /// Without what does not belong to its state: over a gap, an event leaves behind what the one that
    /// is missing would have taken away.
    pub(crate) fn fitted(mut self) -> Self {
        let state = self.cell.state;
        if state != TaskState::Failed {
            self.failure = None;
        }
        if matches!(state, TaskState::Succeeded | TaskState::Revoking) {
            (self.since, self.payload, self.crashed_before) = (SeqNo::ZERO, None, false);
        } else {
            (self.revoke_started_at, self.revoke_failure) = (None, None);
            (self.succeeded_by, self.output) = (None, Output::Absent);
        }
        if state == TaskState::Running {
            (self.ended_at, self.pinned) = (None, false);
        }
        self
    }

    /// The newest time that is known of it.
    pub(crate) fn newest(&self) -> Timestamp {
        let Self { queued_at, started_at, ended_at, revoke_started_at, .. } = self;
        let times = [queued_at, started_at, ended_at, revoke_started_at].into_iter().flatten();
        times.chain(self.notes.iter().map(|note| &note.at)).max().copied().unwrap_or_default()
    }

    /// What is known of the id whose cell is `cell`, from as few records as tell it: walks from the
    /// last record back to the start of the last attempt (of what waits in the queue: of the one before
    /// that), or down to the checkpoint.
    ///
    /// `fetch` reads the record at a position after `base_seq`; `base` reads what the checkpoint
    /// knows of the id, and is asked at most once.
    pub(crate) fn trace(
        cell: Cell,
        base_seq: SeqNo,
        mut fetch: impl FnMut(SeqNo) -> Result<Record, JournalError>,
        base: impl FnOnce() -> Result<Option<Self>, JournalError>,
    ) -> Result<Self, JournalError> {
        let mut newest_first = Vec::new();
        let mut at = cell.seq;
        let mut attempt_seen = false;
        let mut from_base = false;
        while at != SeqNo::ZERO {
            if at <= base_seq {
                from_base = true;
                break;
            }
            let record = fetch(at)?;
            let Entry::Task { prev, event, .. } = &record.entry else {
                break;
            };
            // Before its start only the wait in the queue still matters to an attempt.
            if attempt_seen && !matches!(event, Event::Queued { .. }) {
                break;
            }
            attempt_seen |= matches!(event, Event::Started { .. });
            at = *prev;
            let queued = matches!(event, Event::Queued { .. });
            newest_first.push(record);
            if queued && attempt_seen {
                break;
            }
        }
        let start = if from_base { base()?.unwrap_or(Self::ABSENT) } else { Self::ABSENT };
        let told = newest_first.iter().rev().fold(start, Self::forced);
        Ok(Self { cell, ..told })
    }

    fn told(self, cell: Cell, at: Timestamp, event: &Event) -> Self {
        match event {
            Event::Queued { payload, since } => {
                let since = began(*since, cell.seq);
                let same_life = since == self.since;
                Self {
                    cell,
                    queued_at: Some(at),
                    since,
                    fingerprint: self.fingerprint.filter(|_| same_life),
                    crashed_before: same_life && self.has_crashed(),
                    payload: payload.clone(),
                    ..Self::ABSENT
                }
            }
            Event::Started { epoch, since, fingerprint, parent, crashed_before, .. } => Self {
                cell,
                epoch: Some(*epoch),
                queued_at: self.queued_at.filter(|_| self.cell.state == TaskState::Queued),
                payload: self.payload.filter(|_| self.cell.state == TaskState::Queued),
                parent: parent.clone(),
                started_at: Some(at),
                since: began(*since, cell.seq),
                fingerprint: *fingerprint,
                crashed_before: *crashed_before,
                ..Self::ABSENT
            },
            Event::Succeeded { by, output } => Self {
                cell,
                ended_at: Some(at),
                failure: None,
                succeeded_by: Some(*by),
                output: output.clone(),
                since: SeqNo::ZERO,
                crashed_before: false,
                payload: None,
                ..self
            },
            Event::Failed { failure } => {
                Self { cell, ended_at: Some(at), failure: Some(failure.clone()), ..self }
            }
            Event::Resolved { failure } => {
                // Who gives up has found out nothing.
                let gave_up = matches!(failure, Failure::GaveUp { .. });
                let crashed_before = gave_up && self.has_crashed();
                let (ended_at, failure) = (Some(at), Some(failure.clone()));
                Self { cell, ended_at, failure, crashed_before, ..self }
            }
            Event::RevokeStarted => {
                Self { cell, revoke_started_at: Some(at), revoke_failure: None, ..self }
            }
            Event::RevokeFailed { failure } => {
                Self { cell, revoke_failure: Some(failure.clone()), ..self }
            }
            Event::Noted { note } => {
                let mut notes = self.notes;
                notes.push_back(Note { at, text: note.clone() });
                if notes.len() > MAX_NOTES {
                    notes.pop_front();
                }
                Self { cell, notes, ..self }
            }
            Event::Pinned => Self { cell, pinned: true, ..self },
            Event::Unpinned => Self { cell, pinned: false, ..self },
            Event::Exhumed { .. } => Self { cell, ..Self::ABSENT },
            Event::Revoked | Event::Forgotten | Event::Buried { .. } => Self::ABSENT,
        }
    }
}

/// Where a life began, as a record at `seq` says.
fn began(since: SeqNo, seq: SeqNo) -> SeqNo {
    // What lies ahead of it is no beginning.
    if (1..seq.get()).contains(&since.get()) { since } else { seq }
}

#[cfg(test)]
mod tests;
