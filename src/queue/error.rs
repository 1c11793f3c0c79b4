//! What a queue does not do, and why.

use crate::error::{ReadError, Rejection};
use crate::state::TaskState;
use std::fmt;

/// Why something was not put into a queue. It comes back.
#[non_exhaustive]
pub enum EnqueueError<O> {
    /// The queue was stopped.
    Stopped(O),
    /// There is no room now.
    Full(O),
    /// The queue performs futures alone.
    FuturesOnly(O),
    /// The id is in a state in which it cannot be put into the queue: queued, running or being revoked.
    Refused {
        /// In this one.
        state: TaskState,
        /// The operation.
        operation: O,
    },
    /// Serialized, it is larger than what is kept.
    TooLarge {
        /// Its size, in bytes.
        size: u64,
        /// What is kept at most.
        cap: usize,
        /// The operation.
        operation: O,
    },
    /// It does not serialize.
    NotSerializable {
        /// Why.
        why: String,
        /// The operation.
        operation: O,
    },
    /// The ledger does not take it. If it is poisoned, it may be in the queue after the next open.
    Rejected {
        /// Why.
        reason: Rejection,
        /// The operation.
        operation: O,
    },
}

impl<O> EnqueueError<O> {
    /// What was to be enqueued.
    pub fn into_inner(self) -> O {
        match self {
            Self::Stopped(operation)
            | Self::Full(operation)
            | Self::FuturesOnly(operation)
            | Self::Refused { operation, .. }
            | Self::TooLarge { operation, .. }
            | Self::NotSerializable { operation, .. }
            | Self::Rejected { operation, .. } => operation,
        }
    }
}

impl<O> fmt::Display for EnqueueError<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped(_) => f.write_str("the queue was stopped, and takes nothing more"),
            Self::Full(_) => f.write_str("the queue is full; wait for room with `enqueue`"),
            Self::FuturesOnly(_) => f.write_str(
                "the queue performs futures alone; make one with `Ledger::queue` for operations",
            ),
            Self::Refused { state, .. } => write!(f, "refused: the id is {state}"),
            Self::TooLarge { size, cap, .. } => write!(
                f,
                "the operation has {size} bytes, at most {cap} are kept; keep the rest elsewhere, and enqueue where"
            ),
            Self::NotSerializable { why, .. } => {
                write!(f, "the operation does not serialize: {why}")
            }
            Self::Rejected { reason, .. } => write!(f, "{reason}"),
        }
    }
}

impl<O> fmt::Debug for EnqueueError<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnqueueError({self})")
    }
}

impl<O> std::error::Error for EnqueueError<O> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Rejected { reason, .. } => reason.source(),
            Self::Stopped(_)
            | Self::Full(_)
            | Self::FuturesOnly(_)
            | Self::Refused { .. }
            | Self::TooLarge { .. }
            | Self::NotSerializable { .. } => None,
        }
    }
}

/// Why a queue cannot do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The ledger has a queue already.
    #[error("the ledger has a queue already; clone its handle, or drop all of them first")]
    InUse,
    /// The scope that it is to be [within](crate::QueueBuilder::within) is one of another ledger.
    #[error(
        "the scope is one of another ledger; what runs within it cannot be recorded in this one"
    )]
    OtherLedger,
    /// The queue was stopped.
    #[error("the queue was stopped")]
    Stopped,
    /// There is no tokio runtime here to run on.
    #[error("there is no tokio runtime to run on; call this from within one")]
    NoRuntime,
    /// The id has not failed, or there is no payload of it.
    #[error("refused: the id is {state}, and no failed operation that could be performed again")]
    Refused {
        /// Its state.
        state: TaskState,
    },
    /// The ledger does not take it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// What is known of the id cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}
