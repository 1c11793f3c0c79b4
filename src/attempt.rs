//! The life of one attempt, or of one revoke, from top to bottom.
//!
//! ```text
//!  submitted --refused--> future back to the caller
//!      |
//!   Started durable --> user code --> future dropped --> end submitted --> durable --> waiter told
//!      |                                                     ^
//!      +--- dropped anywhere: runtime gone, task aborted ----+
//! ```
//!
//! [`Live`] is what makes the last arrow hold: whoever drops it without an end
//! submits one. It is declared so that it is dropped after the future, because
//! the end of an attempt says that its future and all it held are gone.

mod control;
mod place;
mod reason;
mod text;
mod waiter;

pub(crate) use control::{Control, Seat, Stop, is_within, is_within_id, within};
pub(crate) use place::Place;
pub(crate) use reason::{GONE, HANDLE_DROPPED, LEFT, SCOPE_ENDED, asked, ended_with_its_caller};
pub(crate) use text::{cut_at, debug_text};
pub(crate) use waiter::{Waiter, send};

use crate::error::{AttemptError, Outcome, Poison, Rejection, panic_text};
use crate::foreign::{caught, drop_caught};
use crate::id::EncodedId;
use crate::sabotage::{self, Sabotage};
use crate::shared::Shared;
use crate::state::{Cell, Event, Failure, NotKept, Output, SeqNo, SuccessBy};
use crate::submission::{Answer, AttemptKey, Begin, Request, Ticket};
use crate::sync::Arc;
use place::Later;
use serde::Serialize;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use text::cut;
use tokio::task::unconstrained;
use tokio::time::Instant;
use tracing::Instrument as _;

/// Failure texts are cut at this many bytes.
pub(crate) const MAX_FAILURE_BYTES: usize = 4 * 1024;

impl Stop {
    fn into_outcome<V, E>(self) -> Outcome<V, E> {
        match self {
            Self::Cancelled(reason) => Outcome::Cancelled(reason),
            Self::Scope(cause) => Outcome::Cancelled(cause.to_string()),
            Self::TimedOut => Outcome::TimedOut,
        }
    }
}

/// Which of the two ways an id can be occupied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Launch,
    Revoke,
}

/// Stands for an attempt from its submission until its future is gone and its end is submitted.
#[derive(Debug)]
pub(crate) struct Live {
    seat: Seat,
    id: EncodedId,
    kind: Kind,
    ended: bool,
}

impl Live {
    /// Submits the start. From here on the attempt goes its way whatever becomes of the caller.
    pub(crate) fn submit(
        seat: Seat,
        id: EncodedId,
        kind: Kind,
        begin: Begin,
    ) -> Result<(Self, Ticket), Rejection> {
        let key = seat.key();
        let request = match kind {
            Kind::Launch => Request::Start { id: id.clone(), key, begin },
            Kind::Revoke => Request::StartRevoke { id: id.clone(), key },
        };
        let ticket = seat.shared.submissions.submit(request)?;
        Ok((Self { seat, id, kind, ended: false }, ticket))
    }

    const fn shared(&self) -> &Arc<Shared> {
        &self.seat.shared
    }

    /// As [`submit`](Self::submit), of many launches, in one group.
    pub(crate) async fn submit_all(
        shared: &Arc<Shared>,
        ids: Vec<EncodedId>,
    ) -> Result<Vec<(Self, Ticket)>, Rejection> {
        let permits = shared.permits_for(ids.len()).await?;
        // From here on nothing is waited for: who is dropped has done all of it, or nothing.
        let seated: Vec<_> = ids.into_iter().map(|id| (id, Seat::take(shared))).collect();
        let start = |(id, seat): &(EncodedId, Seat)| Request::Start {
            id: id.clone(),
            key: seat.key(),
            begin: Begin::default(),
        };
        let requests = seated.iter().map(start).collect();
        let tickets = shared.submissions.submit_all(requests, permits)?;
        let live =
            |((id, seat), ticket)| (Self { seat, id, kind: Kind::Launch, ended: false }, ticket);
        Ok(seated.into_iter().zip(tickets).map(live).collect())
    }

    fn end(&mut self, event: Event) -> Result<Ticket, Poison> {
        self.ended = true;
        let end = Request::End { id: self.id.clone(), key: self.seat.key(), event };
        self.shared().submissions.submit_end(end).inspect_err(|_| {
            self.shared().index.doubt([self.id.clone()]);
            self.shared().index.wake_all();
        })
    }

    fn failed(&self, failure: Failure) -> Event {
        match self.kind {
            Kind::Launch => Event::Failed { failure },
            Kind::Revoke => Event::RevokeFailed { failure },
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if !self.ended && !sabotage::is(Sabotage::DropEnd) {
            // Dropped by its runtime. If it was never accepted, the end finds no attempt.
            drop(self.end(self.failed(Failure::Cancelled(GONE.into()))));
        }
        // It cannot be reached any more when the writer is told that it is gone.
        self.seat.leave();
        self.shared().submissions.leave();
    }
}

/// Everything an attempt needs. `live` is the last field: it is dropped after the future.
pub(crate) struct Plan<F, V, E> {
    pub(crate) ticket: Ticket,
    pub(crate) limits: Limits,
    /// Called when its start is durable, before its future is polled.
    pub(crate) began: Option<Box<dyn FnOnce(Began) + Send + Sync>>,
    /// Within which it was launched.
    pub(crate) parent: tracing::Span,
    /// The first attempt of a run, of which this one is a retry.
    pub(crate) after: Option<tracing::Span>,
    /// What a success is recorded as.
    pub(crate) success: fn(&V, &Shared) -> Event,
    pub(crate) future: F,
    pub(crate) waiter: Waiter<F, V, E>,
    pub(crate) place: Place,
    pub(crate) live: Live,
}

/// How long an attempt may take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// From its start.
    pub(crate) timeout: Option<Duration>,
    /// At a moment. After it the future is not polled at all.
    pub(crate) deadline: Option<Instant>,
    /// When it is asked to stop; `None` if it does not listen.
    pub(crate) grace: Option<Duration>,
}

impl Limits {
    /// Whether a timer is needed.
    pub(crate) const fn any(&self) -> bool {
        self.timeout.is_some() || self.deadline.is_some() || self.grace.is_some()
    }
}

/// What an attempt is told of itself.
#[derive(Debug)]
pub(crate) struct Began {
    pub(crate) cell: Cell,
    /// Where the life of its id began.
    pub(crate) since: SeqNo,
    pub(crate) key: AttemptKey,
    pub(crate) control: Arc<Control>,
    pub(crate) span: tracing::Span,
}

/// The task of an attempt.
pub(crate) async fn run<F, V, E>(plan: Plan<F, V, E>)
where
    F: Future<Output = Result<V, E>> + Send + 'static,
    V: Send + 'static,
    E: fmt::Debug + Send + 'static,
{
    // `live` is bound first: bindings are dropped in reverse.
    let Plan { mut live, mut place, .. } = plan;
    let Plan { ticket, limits, began, parent, after, success, future, waiter, .. } = plan;
    let control = Arc::clone(live.seat.control());
    let cell = match ticket.await {
        Ok(Answer::Done(cell)) => cell,
        Ok(Answer::Refused(state)) => {
            live.ended = true;
            return waiter.refuse(state, future);
        }
        Ok(Answer::Superseded | Answer::NoRoom | Answer::Deferred) => {
            live.ended = true;
            let state = live.shared().index.state(live.id.as_bytes());
            return waiter.refuse(state, future);
        }
        Ok(Answer::Unreadable) => {
            live.ended = true;
            return waiter.reject(Rejection::Unreadable, future);
        }
        Ok(Answer::ScopeEnded) => {
            live.ended = true;
            return waiter.reject(Rejection::ScopeEnded, future);
        }
        Err(poison) => {
            live.ended = true;
            return waiter.reject(Rejection::Poisoned(poison), future);
        }
    };
    let span = span(&live, cell, &parent);
    if let Some(first) = after {
        span.follows_from(&first);
    }
    if let Some(began) = began {
        let since = live.shared().index.since(live.id.as_bytes());
        began(Began {
            cell,
            since,
            key: live.seat.key(),
            control: Arc::clone(&control),
            span: span.clone(),
        });
    }
    let waiter = match waiter {
        Waiter::Start(reply) => {
            send(reply, Ok(()));
            None
        }
        Waiter::End(reply) => Some(reply),
        Waiter::Both { start, end } => {
            send(start, Ok(()));
            Some(end)
        }
    };
    let supervised = supervise(future, &control, limits);
    let outcome = within(live.shared(), &live.id, supervised).instrument(span).await;
    let event = event_of(&live, &outcome, success);
    if let Some(scope) = place.scope.clone() {
        scope.end(|| ());
        scope.ended().await;
        place.scope = None;
    }
    let later = Later::of(&live);
    let ended = live.end(event);
    drop(live);
    let waiter = match waiter {
        Some(reply) => Some((reply, outcome)),
        None => {
            drop_caught(outcome);
            None
        }
    };
    if waiter.is_none() && place.membership.is_none() {
        return;
    }
    let ended = match ended {
        Ok(ticket) => match ticket.await {
            Ok(Answer::Deferred) => later.ended().await,
            answer => answer,
        },
        Err(poison) => Err(poison),
    };
    // Who waits for the scope that it ran within finds its end on record.
    drop(place);
    if let Some((reply, outcome)) = waiter {
        if let Ok(Answer::Done(cell)) = ended {
            control.ended(cell);
        }
        send(reply, told(outcome, ended));
    }
}

fn span(live: &Live, cell: Cell, parent: &tracing::Span) -> tracing::Span {
    let id = || live.shared().id_text(&live.id);
    let epoch = live.shared().recovery.epoch().get();
    let attempt = cell.attempt.get();
    match live.kind {
        Kind::Launch => tracing::info_span!(parent: parent, "attempt", id = id(), attempt, epoch),
        Kind::Revoke => tracing::info_span!(parent: parent, "revoke", id = id(), attempt, epoch),
    }
}

/// What the waiter hears, once the end is on record or can't be.
fn told<F, V, E>(
    outcome: Outcome<V, E>,
    ended: Result<Answer, Poison>,
) -> Result<V, AttemptError<F, V, E>> {
    match ended {
        Ok(Answer::Done(_)) => match outcome {
            Outcome::Succeeded(value) => Ok(value),
            Outcome::Failed(error) => Err(AttemptError::Failed(error)),
            Outcome::Panicked(text) => Err(AttemptError::Panicked(text)),
            Outcome::Cancelled(text) => Err(AttemptError::Cancelled(text)),
            Outcome::TimedOut => Err(AttemptError::TimedOut),
        },
        Ok(
            Answer::Superseded
            | Answer::Refused(_)
            | Answer::NoRoom
            | Answer::Unreadable
            | Answer::ScopeEnded
            | Answer::Deferred,
        ) => Err(AttemptError::Superseded { outcome }),
        Err(poison) => Err(AttemptError::InDoubt { outcome, poison }),
    }
}

/// Polls the future to its end, a panic, its cancellation or its timeout, and drops it.
pub(crate) async fn supervise<F, V, E>(
    future: F,
    control: &Control,
    limits: Limits,
) -> Outcome<V, E>
where
    F: Future<Output = Result<V, E>>,
{
    if let Some(stop) = control.stop.get() {
        drop_caught(future);
        return stop.clone().into_outcome();
    }
    // The clock is asked only by whoever has a limit.
    let now = limits.any().then(Instant::now);
    if limits.deadline.zip(now).is_some_and(|(deadline, now)| deadline <= now) {
        drop_caught(future);
        return Outcome::TimedOut;
    }
    let mut cancelled = pin!(control.notify.notified());
    // One that is too far away to be told is none.
    let timeout = limits.timeout.zip(now).and_then(|(timeout, now)| now.checked_add(timeout));
    let until = [timeout, limits.deadline].into_iter().flatten().min();
    // Outside the budget: a future that uses it up in each poll would never be late. In boxes, since
    // most attempts have no limit, and every one is moved into its task.
    let mut late = until.map(|until| Box::pin(unconstrained(tokio::time::sleep_until(until))));
    let mut slot = pin!(Some(future));
    // Once it is asked to stop: until when it may go on.
    let mut leaving = None;
    let stopped = || {
        let nameless = || Stop::Cancelled(String::new());
        control.stop.get().cloned().unwrap_or_else(nameless).into_outcome()
    };
    let outcome = poll_fn(|context| {
        if let Some(future) = slot.as_mut().as_pin_mut() {
            if let Poll::Ready(outcome) = poll_caught(future, context) {
                // Once it was asked to stop, whatever else it ends in may come of that.
                if leaving.is_none() || matches!(outcome, Outcome::Succeeded(_)) {
                    return Poll::Ready(outcome);
                }
                if let Outcome::Panicked(text) = &outcome {
                    tracing::warn!(panic = text, "an attempt panicked when it was to stop");
                }
                drop_caught(outcome);
                return Poll::Ready(stopped());
            }
        }
        if leaving.is_none() && cancelled.as_mut().poll(context).is_ready() {
            control.token.cancel();
            let Some(grace) = limits.grace else { return Poll::Ready(stopped()) };
            leaving = Some(Box::pin(unconstrained(tokio::time::sleep(grace))));
            // It hears of it in this poll, or is woken by it.
            context.waker().wake_by_ref();
        }
        if leaving.as_mut().is_some_and(|over| over.as_mut().poll(context).is_ready()) {
            return Poll::Ready(stopped());
        }
        if late.as_mut().is_some_and(|late| late.as_mut().poll(context).is_ready()) {
            // What it has spawned hears of it.
            control.token.cancel();
            return Poll::Ready(if leaving.is_some() { stopped() } else { Outcome::TimedOut });
        }
        Poll::Pending
    })
    .await;
    if let Err(panic) = caught(|| slot.set(None)) {
        tracing::warn!(panic, "the future of an attempt panicked when dropped");
    }
    outcome
}

fn poll_caught<F, V, E>(future: Pin<&mut F>, context: &mut Context<'_>) -> Poll<Outcome<V, E>>
where
    F: Future<Output = Result<V, E>>,
{
    match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(Ok(value))) => Poll::Ready(Outcome::Succeeded(value)),
        Ok(Poll::Ready(Err(error))) => Poll::Ready(Outcome::Failed(error)),
        Err(panic) => Poll::Ready(Outcome::Panicked(cut(panic_text(panic)))),
    }
}

fn event_of<V, E: fmt::Debug>(
    live: &Live,
    outcome: &Outcome<V, E>,
    success: fn(&V, &Shared) -> Event,
) -> Event {
    let failure = match outcome {
        Outcome::Succeeded(value) => return success(value, live.shared()),
        Outcome::Failed(error) => Failure::Error(debug_text(error)),
        Outcome::Panicked(text) => Failure::Panicked(text.clone()),
        Outcome::Cancelled(text) => Failure::Cancelled(cut(text.clone())),
        Outcome::TimedOut => Failure::TimedOut,
    };
    live.failed(failure)
}

/// What the success of a launch is recorded as.
pub(crate) fn launch_succeeded<V: Serialize>(value: &V, shared: &Shared) -> Event {
    Event::Succeeded { by: SuccessBy::Attempt, output: output_of(value, shared) }
}

/// What is kept of a value.
pub(crate) fn output_of<V: Serialize>(value: &V, shared: &Shared) -> Output {
    let cap = shared.options.output_cap;
    match catch_unwind(AssertUnwindSafe(|| rmp_serde::to_vec_named(value))) {
        Ok(Ok(bytes)) if bytes.len() <= cap => Output::Kept(bytes),
        Ok(Ok(bytes)) => Output::NotKept(NotKept::TooLarge { size: bytes.len() as u64 }),
        Ok(Err(error)) => Output::NotKept(NotKept::NotSerializable(cut(error.to_string()))),
        Err(panic) => {
            let text = format!("its Serialize panicked: {}", panic_text(panic));
            Output::NotKept(NotKept::NotSerializable(cut(text)))
        }
    }
}

/// What the success of a revoke is recorded as: its value is the caller's alone.
pub(crate) const fn revoke_succeeded<V>(_value: &V, _shared: &Shared) -> Event {
    Event::Revoked
}

#[cfg(test)]
mod tests;
