//! How an attempt is reached from outside, and how its code is known from inside.

use crate::id::EncodedId;
use crate::scope::Cause;
use crate::shared::Shared;
use crate::state::Cell;
use crate::submission::AttemptKey;
use crate::sync::Arc;
use std::future::Future;
use std::sync::OnceLock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

tokio::task_local! {
    /// The attempt that this task is.
    static WITHIN: Within;
}

#[derive(Debug)]
struct Within {
    ledger: usize,
    id: EncodedId,
}

/// Whether the caller runs within an attempt of this ledger.
pub(crate) fn is_within(shared: &Arc<Shared>) -> bool {
    WITHIN.try_with(|within| within.ledger == Arc::as_ptr(shared).addr()).unwrap_or(false)
}

/// Whether the caller runs within an attempt of this very id.
pub(crate) fn is_within_id(shared: &Arc<Shared>, id: &EncodedId) -> bool {
    is_within(shared) && WITHIN.try_with(|within| within.id == *id).unwrap_or(false)
}

/// Runs the code of an attempt.
pub(crate) fn within<F: Future>(
    shared: &Arc<Shared>,
    id: &EncodedId,
    code: F,
) -> impl Future<Output = F::Output> + use<F> {
    let within = Within { ledger: Arc::as_ptr(shared).addr(), id: id.clone() };
    WITHIN.scope(within, code)
}

/// The way to ask an attempt to stop.
#[derive(Debug, Default)]
pub(crate) struct Control {
    pub(super) stop: OnceLock<Stop>,
    pub(super) notify: Notify,
    /// For the future itself, if it listens.
    pub(super) token: CancellationToken,
    end: OnceLock<Cell>,
}

/// Why an attempt is to stop.
#[derive(Clone, Debug)]
pub(crate) enum Stop {
    Cancelled(String),
    /// As part of a scope.
    Scope(Cause),
    TimedOut,
}

impl Control {
    pub(crate) fn cancel(&self, reason: String) {
        self.stop(Stop::Cancelled(reason));
    }

    /// The first reason stays.
    pub(crate) fn stop(&self, stop: Stop) {
        if self.stop.set(stop).is_ok() {
            // Keeps a permit for an attempt that does not listen yet.
            self.notify.notify_one();
        }
    }

    /// Why it is to stop, if it is.
    pub(crate) fn stopped(&self) -> Option<&Stop> {
        self.stop.get()
    }

    /// Cancelled when the attempt is asked to stop.
    pub(crate) const fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Its end is on record, and this is what that has left.
    pub(super) fn ended(&self, cell: Cell) {
        // It ends once.
        let _ = self.end.set(cell);
    }

    /// What its recorded end has left, before its waiter is told.
    pub(crate) fn end(&self) -> Option<Cell> {
        self.end.get().copied()
    }
}

/// An attempt that can be reached. It is taken before the attempt is submitted.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(super) shared: Arc<Shared>,
    key: AttemptKey,
    control: Arc<Control>,
    left: bool,
}

impl Seat {
    pub(crate) fn take(shared: &Arc<Shared>) -> Self {
        let (key, control) = shared.register();
        Self { shared: Arc::clone(shared), key, control, left: false }
    }

    pub(crate) const fn key(&self) -> AttemptKey {
        self.key
    }

    pub(crate) const fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// It cannot be reached from now on.
    pub(super) fn leave(&mut self) {
        if !std::mem::replace(&mut self.left, true) {
            self.shared.unregister(self.key);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}
