//! Errors: one variant per decision a caller can take.
//!
//! Messages are lower-case fragments; causes are reached through `source()`.
//! Those that give a future or a value back print it as nothing, so that they
//! are `Debug` and `Error` without asking that of the future.

mod copy;
mod open;
mod poison;
mod run;

pub use copy::{BackupError, CreateError};
#[cfg(feature = "json")]
pub use copy::{ExportError, ImportError};
pub(crate) use open::no_space;
pub use open::{Damage, Holder, JournalError, OpenError};
pub use poison::Poison;
pub use run::RunError;

use crate::state::{TaskState, Timestamp};
use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use thiserror::Error;

/// An id that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IdError {
    /// It is longer than an id may be. Use a hash of it.
    #[error("the id has {len} bytes when encoded, at most {max} are allowed")]
    TooLong {
        /// Its length, encoded.
        len: usize,
        /// The longest that is allowed.
        max: usize,
    },
    /// Its `Serialize` failed; a path that is not UTF-8, for one (use [`ByteId`](crate::ByteId)).
    #[error("the id cannot be serialized: {0}")]
    NotSerializable(String),
    /// It cannot be read back as what was written.
    #[error("the id does not survive serialization: {0}")]
    NoRoundTrip(String),
}

/// Why a request was not taken up. Nothing ran. Nothing was recorded either, unless the ledger was
/// poisoned in that very moment: then the next open may find a start of it, as crashed. (With a new
/// id, a description of what ids look like may be recorded first: see
/// [`launch`](crate::Ledger::launch).)
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The id cannot be one.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The ledger is closed, or closing.
    #[error("the ledger is closed")]
    Closed,
    /// The ledger has stopped recording.
    #[error(transparent)]
    Poisoned(#[from] Poison),
    /// There is no tokio runtime here to run the future on.
    #[error("there is no tokio runtime to run the future on; call this from within one")]
    NoRuntime,
    /// A timeout was asked for, and the tokio runtime here has no timer.
    #[error("the tokio runtime has no timer for the timeout; enable its time driver")]
    NoTimer,
    /// The metadata is only for a few small values.
    #[error("the metadata does not take this: {0}")]
    Metadata(&'static str),
    /// The output was said to be larger than what is kept of one.
    #[error(
        "an output of this size would not be kept, at most {cap} bytes are; keep it elsewhere and return where"
    )]
    Output {
        /// The cap.
        cap: usize,
    },
    /// The option is one of a [`run`](crate::Task::run): a launch would not heed it.
    #[error("`{option}` is an option of a run, and this is a launch")]
    OnlyForRun {
        /// Its name.
        option: &'static str,
    },
    /// A run of an id was called from within an attempt of that id, which it would wait for.
    #[error(
        "the run was called from within an attempt of the same id, which it would have to wait for"
    )]
    FromWithinAttempt,
    /// What the ledger has to know of the id before it goes on with it cannot be read from disk.
    #[error("what is known of the id cannot be read from disk; `taskledger verify` says why")]
    Unreadable,
    /// The scope that it should run within has ended, or is about to.
    #[error("its scope has ended, and takes nothing more")]
    ScopeEnded,
}

/// Why [`launch`](crate::Ledger::launch) or [`revoke_task`](crate::Ledger::revoke_task) did not
/// start the future. It comes back unpolled, unless it is `Lost`.
#[non_exhaustive]
pub enum LaunchError<F> {
    /// The id is in a state in which this cannot start.
    Refused {
        /// The state.
        state: TaskState,
        /// The future, unpolled.
        future: F,
    },
    /// The request was not taken up.
    Rejected {
        /// Why.
        reason: Rejection,
        /// The future, unpolled.
        future: F,
    },
    /// It was submitted, but its runtime went down before anything could be told. The ledger knows
    /// what became of it: [`wait`](crate::Ledger::wait), then [`record`](crate::Ledger::record).
    Lost,
}

impl<F> LaunchError<F> {
    /// The future, if it came back.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{LaunchError, Ledger, MemoryJournal};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger.mark_succeeded(7).await?;
    /// let refused = ledger.launch(7, async { Ok::<_, String>(()) }).await;
    /// // The future comes back unpolled, to be run elsewhere or under another id.
    /// let future = refused.err().and_then(LaunchError::into_future).ok_or("not refused")?;
    /// ledger.launch(8, future).await?;
    /// # Ok(()) }
    /// ```
    pub fn into_future(self) -> Option<F> {
        match self {
            Self::Refused { future, .. } | Self::Rejected { future, .. } => Some(future),
            Self::Lost => None,
        }
    }

    pub(crate) fn without_future(self) -> LaunchError<()> {
        match self {
            Self::Refused { state, .. } => LaunchError::Refused { state, future: () },
            Self::Rejected { reason, .. } => LaunchError::Rejected { reason, future: () },
            Self::Lost => LaunchError::Lost,
        }
    }
}

impl<F> fmt::Display for LaunchError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { state, .. } => write!(f, "refused: the id is {state}"),
            Self::Rejected { reason, .. } => write!(f, "{reason}"),
            Self::Lost => f.write_str("the runtime went down before the start could be told"),
        }
    }
}

impl<F> fmt::Debug for LaunchError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { state, .. } => {
                f.debug_struct("Refused").field("state", state).finish_non_exhaustive()
            }
            Self::Rejected { reason, .. } => {
                f.debug_struct("Rejected").field("reason", reason).finish_non_exhaustive()
            }
            Self::Lost => f.write_str("Lost"),
        }
    }
}

impl<F> Error for LaunchError<F> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Rejected { reason, .. } => reason.source(),
            Self::Refused { .. } | Self::Lost => None,
        }
    }
}

/// Why [`launch_block`](crate::Ledger::launch_block) or
/// [`revoke_task_block`](crate::Ledger::revoke_task_block) has no value to return.
///
/// `F` is the future, `V` its value, `E` its own error.
#[non_exhaustive]
pub enum AttemptError<F, V, E> {
    /// The id is in a state in which this cannot start. Nothing ran.
    Refused {
        /// The state.
        state: TaskState,
        /// The future, unpolled.
        future: F,
    },
    /// The request was not taken up. Nothing ran.
    Rejected {
        /// Why.
        reason: Rejection,
        /// The future, unpolled.
        future: F,
    },
    /// The future ended in this error, and that is recorded.
    Failed(E),
    /// The future panicked with this message, and that is recorded.
    Panicked(String),
    /// The attempt was cancelled for this reason, and that is recorded.
    Cancelled(String),
    /// The attempt passed its timeout, and that is recorded.
    TimedOut,
    /// The future ended, but its end could not be recorded: the ledger is poisoned. The next open
    /// shows it as succeeded or failed if the record made it to the disk, else as crashed.
    InDoubt {
        /// What the future itself ended in.
        outcome: Outcome<V, E>,
        /// Why it could not be recorded.
        poison: Poison,
    },
    /// The future ended, but another attempt of the id has taken its place: its end changed nothing.
    Superseded {
        /// What the future itself ended in.
        outcome: Outcome<V, E>,
    },
    /// It was submitted, but its runtime went down before anything could be told. The ledger knows
    /// what became of it: [`wait`](crate::Ledger::wait), then [`record`](crate::Ledger::record).
    Lost,
}

/// What the future of an attempt, or of a revoke, ended in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome<V, E> {
    /// It returned this value.
    Succeeded(V),
    /// It returned this error.
    Failed(E),
    /// It panicked with this message.
    Panicked(String),
    /// It was cancelled for this reason.
    Cancelled(String),
    /// It passed its timeout.
    TimedOut,
}

impl<F, V, E> AttemptError<F, V, E> {
    /// The same without the future that came back.
    pub(crate) fn without_future(self) -> AttemptError<(), V, E> {
        match self {
            Self::Refused { state, .. } => AttemptError::Refused { state, future: () },
            Self::Rejected { reason, .. } => AttemptError::Rejected { reason, future: () },
            Self::Failed(error) => AttemptError::Failed(error),
            Self::Panicked(text) => AttemptError::Panicked(text),
            Self::Cancelled(text) => AttemptError::Cancelled(text),
            Self::TimedOut => AttemptError::TimedOut,
            Self::InDoubt { outcome, poison } => AttemptError::InDoubt { outcome, poison },
            Self::Superseded { outcome } => AttemptError::Superseded { outcome },
            Self::Lost => AttemptError::Lost,
        }
    }
}

impl<F, V, E> fmt::Display for AttemptError<F, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { state, .. } => write!(f, "refused: the id is {state}"),
            Self::Rejected { reason, .. } => write!(f, "{reason}"),
            Self::Failed(_) => f.write_str("the attempt failed"),
            Self::Panicked(text) => write!(f, "the attempt panicked: {text}"),
            Self::Cancelled(text) => write!(f, "the attempt was cancelled: {text}"),
            Self::TimedOut => f.write_str("the attempt passed its timeout"),
            Self::InDoubt { .. } => {
                f.write_str("in doubt: the attempt ended, its end could not be recorded")
            }
            Self::Superseded { .. } => {
                f.write_str("superseded: another attempt has taken the place of this one")
            }
            Self::Lost => f.write_str("the runtime went down before the end could be told"),
        }
    }
}

impl<F, V, E> fmt::Debug for AttemptError<F, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { state, .. } => {
                f.debug_struct("Refused").field("state", state).finish_non_exhaustive()
            }
            Self::Rejected { reason, .. } => {
                f.debug_struct("Rejected").field("reason", reason).finish_non_exhaustive()
            }
            Self::Failed(_) => f.debug_struct("Failed").finish_non_exhaustive(),
            Self::Panicked(text) => f.debug_tuple("Panicked").field(text).finish(),
            Self::Cancelled(text) => f.debug_tuple("Cancelled").field(text).finish(),
            Self::TimedOut => f.write_str("TimedOut"),
            Self::InDoubt { poison, .. } => {
                f.debug_struct("InDoubt").field("poison", poison).finish_non_exhaustive()
            }
            Self::Superseded { .. } => f.debug_struct("Superseded").finish_non_exhaustive(),
            Self::Lost => f.write_str("Lost"),
        }
    }
}

impl<F, V, E> Error for AttemptError<F, V, E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Rejected { reason, .. } => reason.source(),
            Self::InDoubt { poison, .. } => Some(poison),
            Self::Refused { .. }
            | Self::Failed(_)
            | Self::Panicked(_)
            | Self::Cancelled(_)
            | Self::TimedOut
            | Self::Superseded { .. }
            | Self::Lost => None,
        }
    }
}

/// Why [`mark_succeeded`](crate::Ledger::mark_succeeded), [`forget`](crate::Ledger::forget) or a
/// change of the metadata did not happen.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The id is in a state in which this is not done. Nothing changed.
    #[error("refused: the id is {state}")]
    Refused {
        /// The state.
        state: TaskState,
    },
    /// The request was not taken up. Nothing changed.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The ledger failed while it was recording this. The next open shows whether it made it.
    #[error("in doubt: the ledger failed while recording this")]
    InDoubt(#[source] Poison),
}

/// Why [`cancel`](crate::Ledger::cancel) cancelled nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CancelError {
    /// No attempt of the id is running here.
    #[error("nothing to cancel: the id is {state}")]
    NotRunning {
        /// The state.
        state: TaskState,
    },
    /// The id cannot be one.
    #[error(transparent)]
    Id(#[from] IdError),
}

/// Why [`wait`](crate::Ledger::wait) cannot say what became of an id.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The ledger failed with a change of this id under way. The next open shows what became of it.
    #[error("in doubt: the ledger failed before the end of this id was recorded")]
    InDoubt(#[source] Poison),
    /// The id cannot be one.
    #[error(transparent)]
    Id(#[from] IdError),
}

/// Why nothing more was [pruned](crate::Ledger::prune).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PruneError {
    /// The clock stands before the newest time that is recorded, so nobody knows how old anything is. Nothing
    /// was pruned. Set the clock; or, where it is right and was ahead once, say which time it is
    /// ([`as_of`](crate::Retention::as_of)). Records that are folded into a checkpoint, of ids that are gone,
    /// tell no time any more.
    #[error(
        "the clock says {now}, but the newest record is of {newest}; set the clock, or, if it is right, say as \
         of which time to prune"
    )]
    Clock {
        /// What the clock says.
        now: Timestamp,
        /// The newest time that is recorded.
        newest: Timestamp,
    },
    /// What is known of a task cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It could not be recorded.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// Why details or an output could not be read. The state itself is not in question.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The id cannot be one.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The ledger is closed; open it again, or use the dump tool.
    #[error("the ledger is closed")]
    Closed,
    /// The store does not answer any more: the ledger is poisoned.
    #[error(transparent)]
    Poisoned(#[from] Poison),
    /// The log or the checkpoint cannot be read.
    #[error("the details cannot be read from disk")]
    Journal(#[from] JournalError),
    /// The stored output does not read as this type.
    #[error("the stored output does not read as the output type: {0}")]
    Output(String),
}

/// Why [`checkpoint`](crate::Ledger::checkpoint) did not finish. Nothing is lost: the log goes on.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The ledger is closed.
    #[error("the ledger is closed")]
    Closed,
    /// The ledger is poisoned.
    #[error(transparent)]
    Poisoned(#[from] Poison),
    /// Making it failed; it will be tried again.
    #[error("the checkpoint failed; the log goes on, and it is tried again later")]
    Failed(#[source] Arc<JournalError>),
}

/// Why [`close`](crate::Ledger::close) was not a clean one.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum CloseError {
    /// Called from within an attempt of the same ledger, which it would wait for. Nothing happened.
    #[error("close was called from within an attempt, which it would have to wait for")]
    FromWithinAttempt,
    /// The ledger was poisoned before. What it acknowledged is safe.
    #[error("the ledger had stopped recording before it was closed")]
    Poisoned(#[source] Poison),
    /// The last write or sync failed. What was acknowledged is safe.
    #[error("the journal did not close cleanly")]
    Journal(#[source] Arc<JournalError>),
}

/// An error and all its causes on one line, for where a chain cannot be kept.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// The message of a panic.
pub(crate) fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(a panic without a message)".to_owned());
    // A payload may panic when it is dropped, and so may that panic's own payload.
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
    text
}
