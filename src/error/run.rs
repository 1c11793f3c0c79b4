//! Why a run has no answer.

use super::{ChangeError, Outcome, Poison, ReadError, Rejection};
use crate::attempt::debug_text;
use crate::guard::ClaimKind;
use crate::state::{Failure, TaskState, Timestamp};
use std::error::Error;
use std::fmt;

/// Why [`run`](crate::Ledger::run) has no value to return. `E` is the work's own error.
#[non_exhaustive]
pub enum RunError<V, E> {
    /// This call ran it, it ended in this error, and that is recorded.
    Failed(E),
    /// This call ran it, it panicked with this message, and that is recorded.
    Panicked(String),
    /// It was cancelled for this reason. If an attempt ran, that is recorded; before the first one nothing
    /// is, and between two of them what is recorded stays how the last one ended. Whether one of this call ran
    /// is known to its work, which is called for each.
    Cancelled(String),
    /// It passed its timeout or its deadline. If this call ran an attempt, that is recorded; otherwise its
    /// deadline had come before it began, or while it waited for what others did, and it changed nothing.
    /// Which of the two is known to its work, which is called for each attempt.
    TimedOut,
    /// It failed: somebody else ran it meanwhile (joined), or it had failed before, whoever ran it then, and
    /// the policy is to say so (replayed).
    Told {
        /// As it is recorded.
        failure: Failure,
        /// Which of the two.
        kind: ClaimKind,
    },
    /// A process died while it ran, so its effect may have happened, and nobody has said since: find out, and
    /// [say so](crate::Ledger::resolve). Nothing ran.
    Held,
    /// It was tried as often as it may be. [`resolve`](crate::Ledger::resolve) lets it be tried again.
    GaveUp {
        /// How often.
        attempts: u32,
    },
    /// The id was used for another request: the fingerprints differ.
    OtherRequest {
        /// When the last attempt for that one was begun, if it is known.
        at: Option<Timestamp>,
    },
    /// The id is in a state in which this does not start: queued, or failed with the policy to refuse.
    Refused {
        /// The state.
        state: TaskState,
    },
    /// The request was not taken up. Nothing ran.
    ///
    /// A run that has had an attempt when the ledger is closed or poisoned ends in what that ended in.
    Rejected(Rejection),
    /// It ran, but its end could not be recorded: the ledger is poisoned, and the next open tells.
    InDoubt {
        /// What it ended in; `None` if somebody else ran it.
        outcome: Option<Outcome<V, E>>,
        /// Why it could not be recorded.
        poison: Poison,
    },
    /// It ran, but another attempt of the id has taken its place: its end changed nothing.
    Superseded {
        /// What it ended in.
        outcome: Outcome<V, E>,
    },
    /// What is recorded cannot be read.
    Read(ReadError),
    /// What a probe had found out could not be recorded.
    Change(ChangeError),
    /// Its runtime went down before anything could be told. The ledger knows what became of it.
    Lost,
}

impl<V, E> From<Rejection> for RunError<V, E> {
    fn from(reason: Rejection) -> Self {
        Self::Rejected(reason)
    }
}

impl<V, E> From<ReadError> for RunError<V, E> {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed => Self::Rejected(Rejection::Closed),
            ReadError::Poisoned(poison) => Self::Rejected(Rejection::Poisoned(poison)),
            error @ (ReadError::Id(_) | ReadError::Journal(_) | ReadError::Output(_)) => {
                Self::Read(error)
            }
        }
    }
}

impl<V, E> From<ChangeError> for RunError<V, E> {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Rejected(reason) => Self::Rejected(reason),
            error @ (ChangeError::Refused { .. } | ChangeError::InDoubt(_)) => Self::Change(error),
        }
    }
}

impl<V, E: fmt::Debug> fmt::Display for RunError<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "it failed: {}", debug_text(error)),
            Self::Panicked(text) => write!(f, "it panicked: {text}"),
            Self::Cancelled(text) => write!(f, "it was cancelled: {text}"),
            Self::TimedOut => f.write_str("it passed its timeout"),
            Self::Told { failure, kind: ClaimKind::Joined } => {
                write!(f, "it failed, as others ran it: {failure}")
            }
            Self::Told { failure, .. } => write!(f, "it failed before: {failure}"),
            Self::Held => f.write_str(
                "held: a process died while it ran, so it may have happened; find out and resolve it",
            ),
            Self::GaveUp { attempts } => {
                write!(f, "given up after {attempts} attempts; resolve it to have it tried again")
            }
            Self::OtherRequest { at: Some(at) } => {
                write!(f, "the id was used for another request, at {at}")
            }
            Self::OtherRequest { at: None } => f.write_str("the id was used for another request"),
            Self::Refused { state } => write!(f, "refused: the id is {state}"),
            Self::Rejected(reason) => write!(f, "{reason}"),
            Self::InDoubt { .. } => f.write_str("in doubt: it ended, its end could not be recorded"),
            Self::Superseded { .. } => {
                f.write_str("superseded: another attempt has taken the place of this one")
            }
            Self::Read(_) => f.write_str("what is recorded of it cannot be read"),
            Self::Change(_) => f.write_str("what was found out about it could not be recorded"),
            Self::Lost => f.write_str("the runtime went down before the end could be told"),
        }
    }
}

impl<V, E: fmt::Debug> fmt::Debug for RunError<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => {
                f.debug_tuple("Failed").field(&format_args!("{}", debug_text(error))).finish()
            }
            Self::Panicked(text) => f.debug_tuple("Panicked").field(text).finish(),
            Self::Cancelled(text) => f.debug_tuple("Cancelled").field(text).finish(),
            Self::TimedOut => f.write_str("TimedOut"),
            Self::Told { failure, kind } => {
                f.debug_struct("Told").field("failure", failure).field("kind", kind).finish()
            }
            Self::Held => f.write_str("Held"),
            Self::GaveUp { attempts } => {
                f.debug_struct("GaveUp").field("attempts", attempts).finish()
            }
            Self::OtherRequest { at } => f.debug_struct("OtherRequest").field("at", at).finish(),
            Self::Refused { state } => f.debug_struct("Refused").field("state", state).finish(),
            Self::Rejected(reason) => f.debug_tuple("Rejected").field(reason).finish(),
            Self::InDoubt { poison, .. } => {
                f.debug_struct("InDoubt").field("poison", poison).finish_non_exhaustive()
            }
            Self::Superseded { .. } => f.debug_struct("Superseded").finish_non_exhaustive(),
            Self::Read(error) => f.debug_tuple("Read").field(error).finish(),
            Self::Change(error) => f.debug_tuple("Change").field(error).finish(),
            Self::Lost => f.write_str("Lost"),
        }
    }
}

impl<V, E: fmt::Debug> Error for RunError<V, E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Rejected(reason) => reason.source(),
            Self::InDoubt { poison, .. } => Some(poison),
            Self::Read(error) => Some(error),
            Self::Change(error) => Some(error),
            Self::Failed(_)
            | Self::Panicked(_)
            | Self::Cancelled(_)
            | Self::TimedOut
            | Self::Told { .. }
            | Self::Held
            | Self::GaveUp { .. }
            | Self::OtherRequest { .. }
            | Self::Refused { .. }
            | Self::Superseded { .. }
            | Self::Lost => None,
        }
    }
}
