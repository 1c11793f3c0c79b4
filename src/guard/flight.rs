//! Who of this process is at an id, and who waits for that.
//!
//! There is one flight at a time for an id, from [`Flights::join_or_begin`] until its task ends, in
//! whatever way: with a [`Landing`], or gone, which tells the company to look again.

use super::Answer;
use crate::attempt::{self, Control};
use crate::error::{Poison, Rejection, RunError};
use crate::id::EncodedId;
use crate::ledger::TaskOutput;
use crate::sabotage::{self, Sabotage};
use crate::state::{Failure, Fingerprint};
use crate::sync::{Arc, Mutex, lock};
use crate::wake;
use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;
use tokio::time::Instant;

/// All flights of a ledger in this process.
#[derive(Debug, Default)]
pub(crate) struct Flights(Arc<Mutex<HashMap<EncodedId, Arc<Flight>>>>);

/// What a flight came to, as its company is told.
#[derive(Clone, Debug)]
pub(super) enum Landing {
    /// It has succeeded; the value, serialized, if that could be.
    Succeeded(Option<Arc<[u8]>>),
    Failed(Failure),
    /// It may have happened, and nobody has said.
    Held,
    InDoubt(Poison),
    /// Nothing is known: look again.
    Gone,
}

/// Somebody at an id.
#[derive(Debug)]
pub(crate) struct Flight {
    fingerprint: Option<Fingerprint>,
    landing: OnceLock<Landing>,
    landed: Notify,
    /// The caller that began it is gone, and wants it to end with that.
    left: AtomicBool,
    leaving: Notify,
    /// How to stop the attempt that runs.
    control: Mutex<Option<Arc<Control>>>,
}

pub(super) enum Joined {
    Own(Begun),
    Other(Arc<Flight>),
}

impl Flights {
    /// Joins the flight of an id, or begins it.
    pub(super) fn join_or_begin(&self, id: &EncodedId, fingerprint: Option<Fingerprint>) -> Joined {
        let mut flights = lock(&self.0);
        if let Some(flight) = flights.get(id) {
            return Joined::Other(Arc::clone(flight));
        }
        let flight = Arc::new(Flight {
            fingerprint,
            landing: OnceLock::new(),
            landed: Notify::new(),
            left: AtomicBool::new(false),
            leaving: Notify::new(),
            control: Mutex::new(None),
        });
        flights.insert(id.clone(), Arc::clone(&flight));
        Joined::Own(Begun { flights: Arc::clone(&self.0), id: id.clone(), flight })
    }
}

impl Flight {
    pub(super) const fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// Waits for what it comes to.
    pub(super) async fn landed(&self) -> Landing {
        loop {
            let mut notified = pin!(self.landed.notified());
            notified.as_mut().enable();
            if let Some(landing) = self.landing.get() {
                return landing.clone();
            }
            wake::guarded(notified).await;
        }
    }

    /// This attempt runs.
    pub(super) fn runs(&self, control: &Arc<Control>) {
        *lock(&self.control) = Some(Arc::clone(control));
        // Both may have come at once.
        if self.left.load(Ordering::SeqCst) {
            control.cancel(LEFT.to_owned());
        }
    }

    fn leave(&self) {
        self.left.store(true, Ordering::SeqCst);
        self.leaving.notify_waiters();
        if let Some(control) = &*lock(&self.control) {
            control.cancel(LEFT.to_owned());
        }
    }
}

const LEFT: &str = "its caller was dropped";

/// Ends the flight when its caller is dropped before the answer.
pub(super) struct Leaves(Arc<Flight>);

impl Leaves {
    pub(super) const fn new(flight: Arc<Flight>) -> Self {
        Self(flight)
    }
}

impl Drop for Leaves {
    fn drop(&mut self) {
        if self.0.landing.get().is_none() && !sabotage::is(Sabotage::KeepLead) {
            self.0.leave();
        }
    }
}

/// A flight under way. Dropped without a landing, it is gone.
pub(crate) struct Begun {
    flights: Arc<Mutex<HashMap<EncodedId, Arc<Flight>>>>,
    id: EncodedId,
    flight: Arc<Flight>,
}

impl Begun {
    pub(super) fn flight(&self) -> Arc<Flight> {
        Arc::clone(&self.flight)
    }

    /// Whether it is to end because its caller is gone.
    pub(super) fn is_left(&self) -> bool {
        self.flight.left.load(Ordering::SeqCst)
    }

    /// Until then, or until the caller is gone who wants it to end with that.
    pub(super) async fn left_or(&self, until: Instant) {
        let mut left = pin!(self.flight.leaving.notified());
        left.as_mut().enable();
        if self.is_left() {
            return;
        }
        drop(tokio::time::timeout_at(until, wake::guarded(left)).await);
    }

    /// Tells the company.
    pub(super) fn land<V: TaskOutput, E: fmt::Debug>(&self, answer: &Answer<V, E>) {
        let alone = Arc::strong_count(&self.flight) <= 2;
        let landing = match answer {
            _ if self.is_left() => Landing::Gone,
            // Not worth serializing it once more for nobody: who comes from now on finds it recorded.
            Ok(_) if alone => Landing::Gone,
            Ok(claim) => {
                let bytes = claim.value.as_ref().and_then(|value| {
                    let bytes = std::panic::AssertUnwindSafe(|| rmp_serde::to_vec_named(value));
                    std::panic::catch_unwind(bytes).ok()?.ok()
                });
                Landing::Succeeded(bytes.map(Arc::from))
            }
            Err(RunError::Held) => Landing::Held,
            Err(
                RunError::InDoubt { poison, .. } | RunError::Rejected(Rejection::Poisoned(poison)),
            ) => Landing::InDoubt(poison.clone()),
            Err(error) => failure_of(error).map_or(Landing::Gone, Landing::Failed),
        };
        self.end(landing);
    }

    fn end(&self, landing: Landing) {
        lock(&self.flights).remove(&self.id);
        let forgotten = matches!(landing, Landing::Gone) && sabotage::is(Sabotage::LeaveCompany);
        if self.flight.landing.set(landing).is_ok() && !forgotten {
            self.flight.landed.notify_waiters();
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.flight.landing.get().is_none() {
            self.end(Landing::Gone);
        }
    }
}

/// Of a failure that is told to others, its text.
fn failure_of<V, E: fmt::Debug>(error: &RunError<V, E>) -> Option<Failure> {
    Some(match error {
        RunError::Failed(error) => Failure::Error(attempt::debug_text(error)),
        RunError::Panicked(text) => Failure::Panicked(text.clone()),
        RunError::Cancelled(text) => Failure::Cancelled(text.clone()),
        RunError::TimedOut => Failure::TimedOut,
        RunError::Told { failure, .. } => failure.clone(),
        RunError::GaveUp { attempts } => {
            Failure::GaveUp { attempts: *attempts, last: String::new() }
        }
        RunError::Held
        | RunError::OtherRequest { .. }
        | RunError::Refused { .. }
        | RunError::Rejected(_)
        | RunError::InDoubt { .. }
        | RunError::Superseded { .. }
        | RunError::Read(_)
        | RunError::Change(_)
        | RunError::Lost => return None,
    })
}
