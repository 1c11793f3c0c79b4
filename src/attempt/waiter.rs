//! Who waits for an attempt.

use crate::error::{AttemptError, LaunchError, Rejection};
use crate::foreign::drop_caught;
use crate::state::TaskState;
use crate::wake;
use tokio::sync::oneshot;

/// Who waits for an attempt, and for what.
pub(crate) enum Waiter<F, V, E> {
    /// For its start.
    Start(oneshot::Sender<Result<(), LaunchError<F>>>),
    /// For its end.
    End(oneshot::Sender<Result<V, AttemptError<F, V, E>>>),
    /// For the one, and then for the other.
    Both {
        start: oneshot::Sender<Result<(), LaunchError<F>>>,
        end: oneshot::Sender<Result<V, AttemptError<F, V, E>>>,
    },
}

impl<F, V, E> Waiter<F, V, E> {
    pub(super) fn refuse(self, state: TaskState, future: F) {
        match self {
            Self::Start(reply) | Self::Both { start: reply, .. } => {
                send(reply, Err(LaunchError::Refused { state, future }));
            }
            Self::End(reply) => send(reply, Err(AttemptError::Refused { state, future })),
        }
    }

    pub(super) fn reject(self, reason: Rejection, future: F) {
        match self {
            Self::Start(reply) | Self::Both { start: reply, .. } => {
                send(reply, Err(LaunchError::Rejected { reason, future }));
            }
            Self::End(reply) => send(reply, Err(AttemptError::Rejected { reason, future })),
        }
    }
}

/// Nobody waiting any more is fine; what comes back is the user's and may panic when dropped.
pub(crate) fn send<T>(reply: oneshot::Sender<T>, message: T) {
    wake::caught(|| {
        if let Err(message) = reply.send(message) {
            drop_caught(message);
        }
    });
}
