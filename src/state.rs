//! The state machine of one id: read this first.
//!
//! ```text
//!  NotFound --Started--> Running --Succeeded--> Succeeded --RevokeStarted--> Revoking --Revoked--> NotFound
//!  NotFound --Queued---> Queued --Started--> Running   |                       |
//!  Failed   --Started--> Running                       +<----RevokeFailed------+
//!  Failed   --Queued---> Queued        Running --Failed(cause)--> Failed
//!  Succeeded | Failed | Queued --Forgotten--> NotFound
//!  NotFound | Failed --Succeeded (marked from outside, no attempt)--> Succeeded
//!  Failed --Resolved(failure)--> Failed       Failed --Succeeded (resolved)--> Succeeded
//!  Running | Failed --Noted--> the same       Succeeded | Failed --Pinned, Unpinned--> the same
//!  Succeeded --Buried--> NotFound, and a tombstone        NotFound, of a tombstone --Exhumed--> Succeeded
//! ```
//!
//! A *tombstone* is what a pruned success leaves: a keyed hash of its id, which goes on counting as
//! succeeded. The records carry it, so neither the log nor a checkpoint needs the key.
//!
//! [`apply`] is the only place that knows these arrows. It is pure: no clock,
//! no I/O, no async, nothing but `std`. It judges live requests and replays the
//! log: live, an illegal event is a refusal; in replay it is corruption.
//!
//! [`Cell`] adds the two numbers that fence and count attempts, with the same
//! function deciding live and in replay.

mod digest;
mod number;
mod outcome;
mod parent;

pub use digest::{Fingerprint, Grave, Tombstone};
pub use number::{Attempt, Epoch, SeqNo, Timestamp};
pub use outcome::{Failure, NotKept, Output, SuccessBy};
pub use parent::Parent;

use std::fmt;

/// What is known of an id right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TaskState {
    /// The ledger knows nothing of the id: never launched, or revoked or forgotten since.
    NotFound,
    /// Waiting in the operation queue; only its runner may start it.
    Queued,
    /// An attempt is recorded as started and has no recorded end yet.
    Running,
    /// An attempt succeeded, or the id was marked as succeeded. Final until revoked or forgotten.
    Succeeded,
    /// The last attempt failed. It may be launched again.
    Failed,
    /// A success is being taken back.
    Revoking,
}

impl TaskState {
    /// Every state, in the order they are listed in reports.
    pub const ALL: [Self; 6] = [
        Self::NotFound,
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Revoking,
    ];

    /// The lower-case name used by the dump tool and in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not found",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Revoking => "revoking",
        }
    }

    /// Whether nothing is on its way: not queued, running or revoking.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        match self {
            Self::NotFound | Self::Succeeded | Self::Failed => true,
            Self::Queued | Self::Running | Self::Revoking => false,
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What happened to one id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// It was put into the operation queue.
    Queued {
        /// What is to be done, serialized, if its operation has to outlive the process.
        payload: Option<Vec<u8>>,
        /// As that of [`Started`](Self::Started).
        since: SeqNo,
    },
    /// An attempt began.
    Started {
        /// Its number.
        attempt: Attempt,
        /// The open in which it ran.
        epoch: Epoch,
        /// The position of the first record since the id was last not found; [`SeqNo::ZERO`] says
        /// that it is this one.
        since: SeqNo,
        /// Of the request that it serves, if its caller gave one, or that of an attempt before it.
        fingerprint: Option<Fingerprint>,
        /// The scope within which it runs, if that is recorded itself.
        parent: Option<Parent>,
        /// Whether an attempt before it crashed, and nobody has said what came of that.
        crashed_before: bool,
    },
    /// The attempt has told how far it has got, or somebody why a failed one is resolved.
    Noted {
        /// In these words.
        note: String,
    },
    /// It succeeded.
    Succeeded {
        /// Who says so.
        by: SuccessBy,
        /// Its value.
        output: Output,
    },
    /// The attempt failed.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// Taking the success back began.
    RevokeStarted,
    /// Taking it back failed; the success stands.
    RevokeFailed {
        /// Why.
        failure: Failure,
    },
    /// The success was taken back.
    Revoked,
    /// All that was known of the id was dropped on request.
    Forgotten,
    /// Somebody, or the rule about attempts, has decided what the failure counts as from now on.
    Resolved {
        /// As that.
        failure: Failure,
    },
    /// It is not pruned by age, until it is launched again.
    Pinned,
    /// It is pruned by age again.
    Unpinned,
    /// It was pruned: all that is left of the success is a tombstone.
    Buried {
        /// Which one.
        tombstone: Tombstone,
    },
    /// A tombstone became a success again whose id is known, to be revoked or forgotten.
    Exhumed {
        /// Which one.
        tombstone: Tombstone,
    },
}

impl Event {
    /// The lower-case name used by the dump tool and in messages.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Started { .. } => "started",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::RevokeStarted => "revoke started",
            Self::RevokeFailed { .. } => "revoke failed",
            Self::Revoked => "revoked",
            Self::Forgotten => "forgotten",
            Self::Noted { .. } => "noted",
            Self::Resolved { .. } => "resolved",
            Self::Pinned => "pinned",
            Self::Unpinned => "unpinned",
            Self::Buried { .. } => "buried",
            Self::Exhumed { .. } => "exhumed",
        }
    }

    /// What becomes of a tombstone by it, if anything.
    #[must_use]
    pub const fn grave(&self) -> Option<Grave> {
        match self {
            Self::Buried { tombstone } => Some(Grave::Dug(*tombstone)),
            Self::Exhumed { tombstone } => Some(Grave::Opened(*tombstone)),
            Self::Queued { .. }
            | Self::Started { .. }
            | Self::Succeeded { .. }
            | Self::Failed { .. }
            | Self::RevokeStarted
            | Self::RevokeFailed { .. }
            | Self::Revoked
            | Self::Forgotten
            | Self::Noted { .. }
            | Self::Resolved { .. }
            | Self::Pinned
            | Self::Unpinned => None,
        }
    }

    /// The state that this event leaves behind in `state`, wherever it is legal. Only the repair of a
    /// damaged log, which has to go on over a gap, uses it without [`apply`].
    #[must_use]
    pub const fn target(&self, state: TaskState) -> TaskState {
        match self {
            Self::Queued { .. } => TaskState::Queued,
            Self::Started { .. } => TaskState::Running,
            Self::Succeeded { .. } | Self::RevokeFailed { .. } | Self::Exhumed { .. } => {
                TaskState::Succeeded
            }
            Self::Failed { .. } | Self::Resolved { .. } => TaskState::Failed,
            Self::RevokeStarted => TaskState::Revoking,
            Self::Revoked | Self::Forgotten | Self::Buried { .. } => TaskState::NotFound,
            // What is said of a failure, or of what runs.
            Self::Noted { .. } => match state {
                TaskState::Failed => TaskState::Failed,
                TaskState::NotFound
                | TaskState::Queued
                | TaskState::Running
                | TaskState::Succeeded
                | TaskState::Revoking => TaskState::Running,
            },
            // Whoever was pinned over a gap is at rest, and only a success is sure to be kept.
            Self::Pinned | Self::Unpinned => match state {
                TaskState::Failed => TaskState::Failed,
                TaskState::NotFound
                | TaskState::Queued
                | TaskState::Running
                | TaskState::Succeeded
                | TaskState::Revoking => TaskState::Succeeded,
            },
        }
    }
}

/// The state after `event` happened in `state`.
///
/// # Errors
///
/// [`IllegalTransition`] when the state machine has no such arrow.
pub const fn apply(state: TaskState, event: &Event) -> Result<TaskState, IllegalTransition> {
    use TaskState::{Failed, NotFound, Queued, Revoking, Running, Succeeded};
    let legal = match event {
        Event::Queued { .. } => matches!(state, NotFound | Failed),
        Event::Started { .. } => matches!(state, NotFound | Queued | Failed),
        Event::Succeeded { by: SuccessBy::Attempt, .. } => matches!(state, Running),
        Event::Succeeded { by: SuccessBy::Mark, .. } => matches!(state, NotFound | Failed),
        Event::Failed { .. } => matches!(state, Running),
        Event::RevokeStarted => matches!(state, Succeeded),
        Event::RevokeFailed { .. } | Event::Revoked => matches!(state, Revoking),
        Event::Forgotten => matches!(state, Succeeded | Failed | Queued),
        Event::Noted { .. } => matches!(state, Running | Failed),
        Event::Succeeded { by: SuccessBy::Resolve, .. } | Event::Resolved { .. } => {
            matches!(state, Failed)
        }
        Event::Pinned | Event::Unpinned => matches!(state, Succeeded | Failed),
        Event::Buried { .. } => matches!(state, Succeeded),
        // Whether there is such a tombstone is not for one id to know.
        Event::Exhumed { .. } => matches!(state, NotFound),
    };
    if legal {
        Ok(event.target(state))
    } else {
        Err(IllegalTransition { state, event: event.name(), why: WhyIllegal::State })
    }
}

/// All that memory keeps of an id: its state, the number of its last attempt, and the position of
/// its last record, where the details are found.
///
/// The position is also the fencing token: every record names the one before it of the same id,
/// and an end that does not follow *its own* `Started` (or `RevokeStarted`) is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "a journal must be able to make one")]
pub struct Cell {
    /// The state.
    pub state: TaskState,
    /// The last attempt.
    pub attempt: Attempt,
    /// The position of the last record of this id.
    pub seq: SeqNo,
}

impl Cell {
    /// An id of which nothing is known.
    pub const ABSENT: Self =
        Self { state: TaskState::NotFound, attempt: Attempt::NONE, seq: SeqNo::ZERO };

    /// The cell after the record at `seq`, which says that it follows the record at `prev`.
    ///
    /// # Errors
    ///
    /// [`IllegalTransition`] when [`apply`] refuses the event, when `prev` is not the position of
    /// this id's last record (a stale end, fenced off), or when a `Started` counts wrongly.
    pub const fn apply(
        self,
        seq: SeqNo,
        prev: SeqNo,
        event: &Event,
    ) -> Result<Self, IllegalTransition> {
        let state = match apply(self.state, event) {
            Ok(state) => state,
            Err(illegal) => return Err(illegal),
        };
        let why = if prev.get() != self.seq.get() {
            WhyIllegal::Token { expected: self.seq, found: prev }
        } else {
            match event {
                Event::Started { attempt, .. } if attempt.get() != self.attempt.next().get() => {
                    WhyIllegal::Attempt { expected: self.attempt.next(), found: *attempt }
                }
                Event::Queued { .. }
                | Event::Started { .. }
                | Event::Succeeded { .. }
                | Event::Failed { .. }
                | Event::RevokeStarted
                | Event::RevokeFailed { .. }
                | Event::Revoked
                | Event::Forgotten
                | Event::Noted { .. }
                | Event::Resolved { .. }
                | Event::Pinned
                | Event::Unpinned
                | Event::Buried { .. }
                | Event::Exhumed { .. } => return Ok(self.moved(seq, state, event)),
            }
        };
        Err(IllegalTransition { state: self.state, event: event.name(), why })
    }

    /// The cell after an event that is believed without asking what came before: the repair of a
    /// log with a gap.
    #[must_use]
    pub const fn forced(self, seq: SeqNo, event: &Event) -> Self {
        self.moved(seq, event.target(self.state), event)
    }

    const fn moved(self, seq: SeqNo, state: TaskState, event: &Event) -> Self {
        let attempt = match event {
            Event::Started { attempt, .. } => *attempt,
            Event::Revoked | Event::Forgotten | Event::Buried { .. } => return Self::ABSENT,
            Event::Queued { .. }
            | Event::Succeeded { .. }
            | Event::Failed { .. }
            | Event::RevokeStarted
            | Event::RevokeFailed { .. }
            | Event::Noted { .. }
            | Event::Resolved { .. }
            | Event::Pinned
            | Event::Unpinned
            | Event::Exhumed { .. } => self.attempt,
        };
        Self { state, attempt, seq }
    }
}

/// An event that cannot follow: refused live, corruption in replay.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IllegalTransition {
    /// The state in which it came.
    pub state: TaskState,
    /// The event's name.
    pub event: &'static str,
    /// What is wrong with it.
    pub why: WhyIllegal,
}

/// What makes a transition illegal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhyIllegal {
    /// The state machine has no such arrow.
    State,
    /// It follows another record than the id's last one: it is stale.
    Token {
        /// The position of the id's last record.
        expected: SeqNo,
        /// The position that it says it follows.
        found: SeqNo,
    },
    /// The attempt is not the next one.
    Attempt {
        /// The next attempt.
        expected: Attempt,
        /// The attempt that it names.
        found: Attempt,
    },
}

impl fmt::Display for IllegalTransition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" cannot follow \"{}\"", self.event, self.state)?;
        match self.why {
            WhyIllegal::State => Ok(()),
            WhyIllegal::Token { expected, found } => {
                write!(f, ": it follows record {found}, the last one is {expected}")
            }
            WhyIllegal::Attempt { expected, found } => {
                write!(f, ": it is attempt {found}, the next one is {expected}")
            }
        }
    }
}

impl std::error::Error for IllegalTransition {}

#[cfg(test)]
mod tests;
