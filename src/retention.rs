//! How long finished tasks are kept, and what becomes of one that is older.

use crate::details::TaskDetails;
use crate::error::PruneError;
use crate::sabotage::{self, Sabotage};
use crate::state::{Failure, TaskState, Timestamp};
use std::time::{Duration, SystemTime};

/// How long finished tasks are kept, by state, counted from when they finished, or from the last verdict on
/// a failure. What is not named is kept for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    succeeded: Option<Duration>,
    failed: Option<Duration>,
    as_of: Option<SystemTime>,
}

impl Retention {
    /// Everything is kept.
    #[must_use]
    pub const fn new() -> Self {
        Self { succeeded: None, failed: None, as_of: None }
    }

    /// Successes are kept so long; after that only that they are successes.
    #[must_use]
    pub const fn succeeded(mut self, age: Duration) -> Self {
        self.succeeded = Some(age);
        self
    }

    /// Failures are kept so long; after that they are forgotten. One that crashed or was given up is
    /// kept until it is [resolved](crate::Ledger::resolve), since its effect may have happened, also if it
    /// crashed in an earlier attempt and the last one has failed; and one that was released to be tried
    /// again until it is: it goes on with the effect key that it had.
    #[must_use]
    pub const fn failed(mut self, age: Duration) -> Self {
        self.failed = Some(age);
        self
    }

    /// Ages count back from this time, and nobody asks the clock: where a record bears a time that has not
    /// come, since the clock was ahead once, this is how to go on pruning. What ended after it is kept.
    #[must_use]
    pub const fn as_of(mut self, time: SystemTime) -> Self {
        self.as_of = Some(time);
        self
    }

    /// What is old now.
    ///
    /// # Errors
    ///
    /// [`PruneError::Clock`] when the clock stands before `newest`, the newest time that is known.
    pub(crate) fn limits(&self, newest: Timestamp) -> Result<Limits, PruneError> {
        let now = Timestamp::from(self.as_of.unwrap_or_else(SystemTime::now));
        if now < newest && self.as_of.is_none() {
            return Err(PruneError::Clock { now, newest });
        }
        let limit = |age: Option<Duration>| {
            let age = u64::try_from(age?.as_micros()).unwrap_or(u64::MAX);
            now.as_micros().checked_sub(age).map(Timestamp::from_micros)
        };
        Ok(Limits { now, succeeded: limit(self.succeeded), failed: limit(self.failed) })
    }
}

/// Up to when what has ended is old; nothing is where there is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) now: Timestamp,
    pub(crate) succeeded: Option<Timestamp>,
    pub(crate) failed: Option<Timestamp>,
}

/// What becomes of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is not old enough, or has not ended.
    Stays,
    Pinned,
    /// Its effect may have happened.
    Held,
    /// A tombstone.
    Buried,
    Forgotten,
}

impl Limits {
    pub(crate) fn fate(&self, details: &TaskDetails) -> Fate {
        let (limit, fate) = match details.state() {
            TaskState::Succeeded => (self.succeeded, Fate::Buried),
            TaskState::Failed => {
                let is_open = match &details.failure {
                    Some(Failure::Crashed | Failure::GaveUp { .. } | Failure::Released(_))
                    | None => true,
                    Some(
                        Failure::Error(_)
                        | Failure::Panicked(_)
                        | Failure::Cancelled(_)
                        | Failure::TimedOut
                        | Failure::Resolved(_),
                    ) => false,
                };
                let held =
                    (is_open || details.crashed_before) && !sabotage::is(Sabotage::PruneHeld);
                (self.failed, if held { Fate::Held } else { Fate::Forgotten })
            }
            TaskState::NotFound | TaskState::Queued | TaskState::Running | TaskState::Revoking => {
                (None, Fate::Stays)
            }
        };
        match limit {
            Some(until) if details.ended_at.is_none_or(|ended| ended <= until) => {
                if details.pinned { Fate::Pinned } else { fate }
            }
            Some(_) | None => Fate::Stays,
        }
    }
}

/// What was pruned, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// Successes of which only a tombstone is left.
    pub succeeded: u64,
    /// Failures that are forgotten.
    pub failed: u64,
    /// What is old enough, and kept because it is pinned.
    pub pinned: u64,
    /// What is old enough, and kept because it crashed, was given up, or was released to be tried again;
    /// or because a [run](crate::Ledger::run) is at it, which may be waiting for its next attempt.
    pub held: u64,
}

impl Pruned {
    pub(crate) const fn count(&mut self, fate: Fate) {
        match fate {
            Fate::Stays => {}
            Fate::Pinned => self.pinned += 1,
            Fate::Held => self.held += 1,
            Fate::Buried => self.succeeded += 1,
            Fate::Forgotten => self.failed += 1,
        }
    }
}
