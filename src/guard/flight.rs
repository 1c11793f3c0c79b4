//! Who of this process is at an id, and who waits for that.
//!
//! There is one flight at a time for an id that others join, from [`Flights::join_or_begin`] until its
//! task ends, in whatever way: with a [`Landing`], or gone, which tells the company to look again.
//!
//! A flight is behind what is published: its task hears of a change only when it is scheduled. So who
//! comes looks at the id first, and joins only what is still at the id as it is then:
//!
//! ```text
//!  the id is as the flight has found it                      join: it does nothing but what comes later
//!  its attempt runs                                          join
//!  its attempt has failed, and nothing has happened since    join: it may try again
//!  anything else, and forgotten after an attempt of it       another flight takes its place
//! ```
//!
//! And what is told to the company is told with its position in the log: to whoever came after that was
//! on record, it is no answer. So no answer is older than its call.

use super::{Answer, failure_of};
use crate::attempt::{Control, LEFT, Seat};
use crate::details::TaskDetails;
use crate::error::{Poison, RunError};
use crate::foreign::caught;
use crate::id::EncodedId;
use crate::index::{Index, Seen};
use crate::ledger::TaskOutput;
use crate::sabotage::{self, Sabotage};
use crate::scope::Node;
use crate::state::{Cell, Failure, Fingerprint, TaskState, Timestamp};
use crate::submission::AttemptKey;
use crate::sync::{Arc, Mutex, lock};
use crate::wake;
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::OnceLock;
use std::task::Poll;
use tokio::sync::Notify;
use tokio::time::Instant;

/// All flights of a ledger in this process that can be joined.
#[derive(Debug, Default)]
pub(crate) struct Flights(Arc<Mutex<HashMap<EncodedId, Arc<Flight>>>>);

/// What a flight came to, as its company is told.
#[derive(Clone, Debug)]
pub(super) enum Landing {
    /// It has succeeded; the value, serialized, if that could be.
    Succeeded(Option<Arc<[u8]>>),
    /// It has failed.
    Failed {
        failure: Failure,
        whom: Whom,
    },
    /// It may have happened, and nobody has said; nor could a probe, if one has answered.
    Held {
        probed: bool,
    },
    InDoubt(Poison),
    /// Its caller or its runtime is gone, and with it this attempt: it goes to one of the company.
    Left(Latest),
    /// Nothing is known: look again.
    Gone,
}

/// The last attempt of a flight: one that was to be submitted may not have begun, and the one before is the last then.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Latest {
    begun: Option<AttemptKey>,
    submitted: Option<AttemptKey>,
}

impl Latest {
    pub(super) fn keys(self) -> impl Iterator<Item = AttemptKey> {
        [self.begun, self.submitted].into_iter().flatten()
    }
}

/// Whom of the company a failure is an answer to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Whom {
    /// It is of its caller alone: the others look again.
    #[default]
    Nobody,
    /// Those who came before the id was like this. Its last record may be of something that was noted of the
    /// failure: so not those who have found the same failure, which is that of this key.
    Before(Cell, Option<AttemptKey>),
    All,
}

impl Whom {
    /// Whether it is an answer to whoever found the id like this.
    pub(super) fn has(self, seen: &Seen) -> bool {
        match self {
            Self::Nobody => false,
            Self::Before(Cell { attempt, seq, .. }, key) => {
                let failed = seen.cell.state == TaskState::Failed;
                let found = failed && seen.cell.attempt == attempt && seen.key == key;
                (seen.cell.seq < seq && !found) || sabotage::is(Sabotage::TellOldNews)
            }
            Self::All => true,
        }
    }
}

/// Of which request an answer is that was on record already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    pub(super) fingerprint: Fingerprint,
    /// When it was begun.
    pub(super) at: Option<Timestamp>,
}

impl Stored {
    pub(super) fn of(details: &TaskDetails) -> Option<Self> {
        let at = details.started_at;
        details.fingerprint.map(|fingerprint| Self { fingerprint, at })
    }
}

/// What an answer says to others than its caller.
#[derive(Debug, Default)]
pub(super) struct Tells {
    /// If it is a failure.
    pub(super) whom: Whom,
    /// What is on record, if that is not the answer itself.
    pub(super) failure: Option<Failure>,
    /// Of which request it is, if it is not the caller's own that has one, or has none.
    pub(super) request: Option<Stored>,
    /// The attempt that has ended with its caller, or its runtime.
    pub(super) left: Option<Latest>,
    /// Whether a probe said that it could not tell: not if there was none, or it was given no time to, or
    /// panicked, which is nothing that others have asked theirs for.
    pub(super) has_answered: bool,
}

/// Why a flight is to end.
#[derive(Clone, Debug)]
pub(super) enum Stop {
    /// The caller that began it is gone, and wants it to end with that.
    Left,
    /// Somebody has cancelled it.
    Cancelled(String),
    /// So has the scope that it runs within, which has told its attempt, and takes no other.
    ScopeEnded,
}

/// Somebody at an id.
#[derive(Debug)]
pub(crate) struct Flight {
    fingerprint: Option<Fingerprint>,
    /// What it came to, and of which request that is, if it is none of its own.
    landing: OnceLock<(Landing, Option<Stored>)>,
    /// It has landed, or its first attempt is on record.
    news: Notify,
    stop: OnceLock<Stop>,
    stopping: Notify,
    /// Held for a look.
    at: Mutex<At>,
}

#[derive(Debug)]
struct At {
    /// The id as it was found, or as the start of the attempt has left it; and the attempt that is
    /// waited for, or that is about to start.
    seen: Seen,
    /// How to stop the attempt.
    control: Option<Arc<Control>>,
    latest: Latest,
    /// Whether one of them is on record.
    begun: bool,
}

pub(super) enum Joined {
    Own(Begun),
    /// Somebody is at it; and the id as this caller has found it.
    Other(Arc<Flight>, Seen),
    /// Somebody is at it for another request.
    Stranger(Arc<Flight>),
}

impl Flights {
    /// Joins the flight of an id, if it is at the id as that is now; or begins one.
    pub(super) fn join_or_begin(
        &self,
        index: &Index,
        id: &EncodedId,
        fingerprint: Option<Fingerprint>,
    ) -> Joined {
        let mut flights = lock(&self.0);
        let now = index.seen(id.as_bytes());
        if let Some(flight) = flights.get(id).filter(|flight| flight.is_at(&now)) {
            let flight = Arc::clone(flight);
            return match (fingerprint, flight.fingerprint) {
                (Some(own), Some(other)) if own != other => Joined::Stranger(flight),
                _ => Joined::Other(flight, now),
            };
        }
        let flight = Arc::new(Flight {
            fingerprint,
            landing: OnceLock::new(),
            news: Notify::new(),
            stop: OnceLock::new(),
            stopping: Notify::new(),
            at: Mutex::new(At {
                seen: now,
                control: None,
                latest: Latest::default(),
                begun: false,
            }),
        });
        // What stood there goes on with its own company.
        flights.insert(id.clone(), Arc::clone(&flight));
        Joined::Own(Begun { flights: Arc::clone(&self.0), id: id.clone(), flight })
    }

    /// Cancels the flight that is at an id as that is now; false if there is none.
    pub(crate) fn cancel(&self, index: &Index, id: &EncodedId, reason: &str) -> bool {
        let flight = {
            let flights = lock(&self.0);
            let now = index.seen(id.as_bytes());
            flights.get(id).filter(|flight| flight.is_at(&now)).cloned()
        };
        flight.is_some_and(|flight| {
            flight.stop(Stop::Cancelled(reason.to_owned()));
            true
        })
    }
}

impl Flights {
    /// Whether somebody is at the id, a pause between two attempts included.
    pub(crate) fn has(&self, id: &EncodedId) -> bool {
        lock(&self.0).contains_key(id)
    }
}

impl Flight {
    /// Whether whoever finds the id like this comes while it is at it.
    fn is_at(&self, now: &Seen) -> bool {
        let At { seen, begun, .. } = *lock(&self.at);
        // Forgotten between two attempts: it has no other, and all that it can tell is older.
        let forgotten = begun && seen.cell == Cell::ABSENT;
        let ends = forgotten || self.stop.get().is_some() || self.landing.get().is_some();
        !ends && (seen.cell == now.cell || (now.key.is_some() && seen.key == now.key))
    }

    /// Whether it is for a request that can be told from others.
    pub(super) const fn has_fingerprint(&self) -> bool {
        self.fingerprint.is_some()
    }

    /// Waits for what it comes to.
    pub(super) async fn landed(&self) -> (Landing, Option<Stored>) {
        self.wait(|| self.landing.get().cloned()).await
    }

    /// Waits until it has begun an attempt; false if it has landed before.
    pub(super) async fn begins(&self) -> bool {
        let begun = || lock(&self.at).begun.then_some(true);
        self.wait(|| begun().or_else(|| self.landing.get().map(|_| false))).await
    }

    async fn wait<T>(&self, come: impl Fn() -> Option<T>) -> T {
        loop {
            let mut notified = pin!(self.news.notified());
            notified.as_mut().enable();
            if let Some(news) = come() {
                return news;
            }
            wake::guarded(notified).await;
        }
    }

    /// This attempt of it is on record as started, and has left this.
    pub(super) fn began(&self, key: AttemptKey, cell: Cell) {
        let mut at = lock(&self.at);
        at.seen.cell = cell;
        at.latest.begun = Some(key);
        at.begun = true;
        drop(at);
        self.news.notify_waiters();
    }

    /// The first reason stays.
    fn stop(&self, why: Stop) {
        let reason = match &why {
            Stop::Left => Some(LEFT.to_owned()),
            Stop::Cancelled(reason) => Some(reason.clone()),
            Stop::ScopeEnded => None,
        };
        if self.stop.set(why).is_ok() {
            self.stopping.notify_waiters();
            let control = lock(&self.at).control.clone();
            if let Some((control, reason)) = control.zip(reason) {
                control.cancel(reason);
            }
        }
    }
}

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
            self.0.stop(Stop::Left);
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

    /// Looks at the id.
    pub(super) fn look(&self, index: &Index) -> Seen {
        let mut at = lock(&self.flight.at);
        at.seen = index.seen(self.id.as_bytes());
        at.control = None;
        at.seen
    }

    /// This attempt is about to be submitted.
    pub(super) fn starts(&self, seat: &Seat) {
        let mut at = lock(&self.flight.at);
        at.seen.key = Some(seat.key());
        at.latest.submitted = Some(seat.key());
        at.control = Some(Arc::clone(seat.control()));
        drop(at);
        // Whoever stops it now finds the control; whoever did before is found here.
        match self.stopped() {
            Some(Stop::Left) => seat.control().cancel(LEFT.to_owned()),
            Some(Stop::Cancelled(reason)) => seat.control().cancel(reason.clone()),
            // It is not taken any more.
            Some(Stop::ScopeEnded) | None => {}
        }
    }

    /// What comes of the run, which hears of the end of its scope whatever it waits for.
    pub(super) async fn within<T>(
        &self,
        scope: Option<Arc<Node>>,
        run: impl Future<Output = T>,
    ) -> T {
        let mut run = pin!(run);
        if let Some(scope) = scope {
            if let Some(output) = wake::unless(run.as_mut(), scope.ends()).await {
                return output;
            }
            self.flight.stop(Stop::ScopeEnded);
        }
        run.await
    }

    /// The last attempt of its own, if there was any.
    pub(super) fn latest(&self) -> Option<Latest> {
        let latest = lock(&self.flight.at).latest;
        latest.submitted.map(|_| latest)
    }

    /// Why it is to end, if it is.
    pub(super) fn stopped(&self) -> Option<&Stop> {
        self.flight.stop.get()
    }

    /// What comes of `future`; `None` if the flight is to end first, or it is too late.
    pub(super) async fn unless_stopped<T>(
        &self,
        until: Option<Instant>,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let mut future = pin!(future);
        let mut stopping = pin!(wake::guarded(self.flight.stopping.notified()));
        let both = poll_fn(|context| {
            // Registers before it is asked: whoever stops it after that wakes it.
            let woken = stopping.as_mut().poll(context).is_ready();
            if woken || self.stopped().is_some() {
                return Poll::Ready(None);
            }
            future.as_mut().poll(context).map(Some)
        });
        match until {
            Some(until) => tokio::time::timeout_at(until, both).await.ok().flatten(),
            None => both.await,
        }
    }

    /// Tells the company.
    pub(super) fn land<V: TaskOutput, E: fmt::Debug>(&self, answer: &Answer<V, E>, tells: Tells) {
        let alone = {
            let flights = lock(&self.flights);
            Arc::strong_count(&self.flight) <= 1 + usize::from(self.stands_in(&flights))
        };
        let request = tells.request;
        let landing = match (answer, tells.left) {
            // Not worth serializing it once more for nobody: who comes from now on finds it recorded.
            (Ok(_), _) if alone => Landing::Gone,
            (Ok(claim), _) => {
                let bytes = claim
                    .value
                    .as_ref()
                    .and_then(|value| caught(|| rmp_serde::to_vec_named(value)).ok()?.ok());
                Landing::Succeeded(bytes.map(Arc::from))
            }
            (Err(_), Some(left)) => Landing::Left(left),
            (Err(RunError::Held), None) => Landing::Held { probed: tells.has_answered },
            (Err(RunError::InDoubt { poison, .. }), None) => Landing::InDoubt(poison.clone()),
            (Err(error), None) => match tells.failure.or_else(|| failure_of(error)) {
                Some(failure) => Landing::Failed { failure, whom: tells.whom },
                None => Landing::Gone,
            },
        };
        self.end(landing, request);
    }

    /// Whether it can still be joined: another one may have taken its place.
    fn stands_in(&self, flights: &HashMap<EncodedId, Arc<Flight>>) -> bool {
        flights.get(&self.id).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight))
    }

    fn end(&self, landing: Landing, request: Option<Stored>) {
        {
            let mut flights = lock(&self.flights);
            if self.stands_in(&flights) {
                flights.remove(&self.id);
            }
        }
        let nothing = matches!(landing, Landing::Gone | Landing::Left(_));
        let forgotten = nothing && sabotage::is(Sabotage::LeaveCompany);
        if self.flight.landing.set((landing, request)).is_ok() && !forgotten {
            self.flight.news.notify_waiters();
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.flight.landing.get().is_none() {
            // Its runtime is gone, and so is its attempt, or will be.
            self.end(self.latest().map_or(Landing::Gone, Landing::Left), None);
        }
    }
}

#[cfg(test)]
mod tests;
