//! The task of a flight: looks at the id, acts, and looks again, until there is an answer.

use super::failed::Found;
use super::flight::{Begun, Stop, Stored, Tells, Whom};
use super::{Answer, Claim, ClaimKind, Context, Retry, Run};
use crate::attempt::{self, Began, Kind, LEFT, Seat, Waiter};
use crate::details::TaskDetails;
use crate::error::{AttemptError, Rejection, RunError};
use crate::foreign::Contained;
use crate::id::TaskId;
use crate::index::Seen;
use crate::ledger::TaskOutput;
use crate::scope::Membership;
use crate::state::{Attempt, Cell, Failure, SeqNo, TaskState};
use crate::submission::Begin;
use crate::sync::{Arc, lock};
use crate::task::Start;
use crate::wake;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Longer than anybody waits, and little enough to be added to any moment.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// What comes of a look at an id that has failed.
pub(super) enum Look {
    /// It is tried, when its pause is over.
    Go,
    /// It is tried at once.
    Now,
    /// Something has happened since.
    Again,
}

/// An attempt on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) attempt: Attempt,
    pub(super) since: SeqNo,
}

/// A run under way.
pub(super) struct Drive<'a, K, V, W, E> {
    pub(super) run: Run<K, V, W>,
    pub(super) begun: &'a Begun,
    retry: Retry<E>,
    pub(super) own: Option<Own>,
    /// What the probe has found out, and in which life of the id.
    pub(super) found: Option<(SeqNo, Found)>,
    /// What that ended in, if there may be another one.
    last: Option<Contained<RunError<V, E>>>,
    /// The first attempt of this run.
    first: Arc<OnceLock<tracing::Span>>,
    pub(super) tells: Tells,
    /// Within its scope it asks its probe, begins its attempts, and does what comes of that, but for waiting for
    /// others. The last to be dropped.
    member: Option<Arc<Membership>>,
}

impl<'a, K, V, W, F, E> Drive<'a, K, V, W, E>
where
    K: TaskId,
    V: TaskOutput,
    W: FnMut(Context<K>) -> F + Send + 'static,
    F: Future<Output = Result<V, E>> + Send + 'static,
    E: fmt::Debug + Send + 'static,
{
    pub(super) fn new(run: Run<K, V, W>, begun: &'a Begun, retry: Retry<E>) -> Self {
        let (first, tells) = (Arc::default(), Tells::default());
        Self { run, begun, retry, own: None, found: None, last: None, first, tells, member: None }
    }

    /// Until there is an answer.
    pub(super) async fn drive(&mut self) -> Answer<V, E> {
        match self.go().await {
            // Nothing more can be done, but what was done before is known.
            Err(
                error @ (RunError::Read(_)
                | RunError::Rejected(_)
                | RunError::Change(_)
                | RunError::OtherRequest { .. }),
            ) => {
                let Some(last) = self.take_last() else { return Err(error) };
                if let RunError::OtherRequest { .. } = error {
                    self.tells.request = None;
                }
                // It is an answer to those who came before it.
                Err(last)
            }
            answer => answer,
        }
    }

    async fn go(&mut self) -> Answer<V, E> {
        let mut pauses = self.retry.pauses();
        // Until when the next attempt has to wait.
        let mut pausing = None;
        loop {
            let seen = self.look();
            // A success is an answer also to who is to end.
            if seen.cell.state != TaskState::Succeeded {
                self.goes_on()?;
            }
            match seen.cell.state {
                TaskState::Succeeded => match self.replayed(ClaimKind::Replayed).await? {
                    Some(claim) => return Ok(claim),
                    None => continue,
                },
                // Forgotten, or left to a queue, while this run was between two attempts: that is to have no other.
                state @ (TaskState::NotFound | TaskState::Queued) => {
                    self.tells.request = None;
                    if let Some(last) = self.take_last() {
                        return Err(last);
                    }
                    if state == TaskState::Queued {
                        return Err(RunError::Refused { state });
                    }
                }
                TaskState::Running | TaskState::Revoking => {
                    match self.wait_for_other(&seen).await? {
                        Some(claim) => return Ok(claim),
                        None => continue,
                    }
                }
                TaskState::Failed => match self.after_failure(&seen).await? {
                    Look::Go => {}
                    Look::Now => pausing = None,
                    Look::Again => continue,
                },
            }
            if let Some(until) = pausing.filter(|until| Instant::now() < *until) {
                self.pause(until, seen.cell).await;
                continue;
            }
            if self.run.options.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(self.too_late());
            }
            let ended = self.attempt(seen.cell).await;
            let (error, again) = match ended {
                Ok(value) => return Ok(Claim { kind: ClaimKind::Executed, value: Some(value) }),
                Err(AttemptError::Refused { .. }) => continue,
                Err(AttemptError::Failed(error)) => {
                    let again = self.retry.wants(&error);
                    (RunError::Failed(error), again)
                }
                Err(AttemptError::Panicked(text)) => (RunError::Panicked(text), true),
                Err(AttemptError::TimedOut) => (RunError::TimedOut, true),
                Err(AttemptError::Rejected { reason, .. }) => return Err(self.rejected(reason)),
                Err(AttemptError::InDoubt { outcome, poison }) => {
                    return Err(RunError::InDoubt { outcome: Some(outcome), poison });
                }
                Err(AttemptError::Superseded { outcome }) => {
                    return Err(RunError::Superseded { outcome });
                }
                Err(AttemptError::Lost) => {
                    self.leaves();
                    return Err(RunError::Lost);
                }
                Err(AttemptError::Cancelled(reason)) => {
                    let left = matches!(self.begun.stopped(), Some(Stop::Left));
                    if left || attempt::ended_with_its_caller(&reason) {
                        self.leaves();
                    }
                    return Err(RunError::Cancelled(reason));
                }
            };
            let worn = self.own.is_some_and(|own| self.run.is_worn(own, seen.left));
            let pause = if again && !worn { pauses.next() } else { None };
            let until = pause.map(|pause| {
                let now = Instant::now();
                now.checked_add(pause).unwrap_or_else(|| now + FOR_EVER)
            });
            let deadline = self.run.options.deadline;
            let until = until.filter(|until| deadline.is_none_or(|end| *until < end));
            let Some(until) = until else {
                self.give_up_if_worn(seen.left).await;
                return Err(error);
            };
            self.last = Some(Contained::new(error));
            pausing = Some(until);
        }
    }

    fn look(&self) -> Seen {
        self.begun.look(&self.run.ledger.shared().index)
    }

    /// Whether nobody has stopped it, and it was not closed or poisoned between two attempts.
    fn goes_on(&mut self) -> Result<(), RunError<V, E>> {
        match self.begun.stopped() {
            Some(Stop::Left) => {
                self.leaves();
                Err(RunError::Cancelled(LEFT.to_owned()))
            }
            Some(Stop::Cancelled(reason)) => {
                self.tells.whom = Whom::All;
                Err(RunError::Cancelled(reason.clone()))
            }
            Some(Stop::ScopeEnded) => Err(self.rejected(Rejection::ScopeEnded)),
            None if self.run.options.scope.as_ref().is_some_and(|scope| scope.is_ending()) => {
                Err(self.rejected(Rejection::ScopeEnded))
            }
            None if self.last.is_none() => Ok(()),
            None => match self.run.ledger.shared().submissions.rejection() {
                Some(reason) => Err(reason.into()),
                None => Ok(()),
            },
        }
    }

    fn rejected(&mut self, reason: Rejection) -> RunError<V, E> {
        // The scope is this run's own: who is not within it goes on.
        if let Rejection::ScopeEnded = reason {
            self.leaves();
        }
        reason.into()
    }

    /// Somebody of the company is to take over.
    fn leaves(&mut self) {
        self.tells.left = self.begun.latest();
    }

    /// What it does from now on is done within its scope, if it has one, and that takes it still.
    pub(super) fn enters_scope(&mut self) -> Result<Option<Arc<Membership>>, Rejection> {
        if let (None, Some(scope)) = (&self.member, &self.run.options.scope) {
            let member = scope.join(self.run.name(), &Arc::default());
            self.member = Some(Arc::new(member.ok_or(Rejection::ScopeEnded)?));
        }
        Ok(self.member.clone())
    }

    pub(super) fn take_last(&mut self) -> Option<RunError<V, E>> {
        self.last.take().and_then(Contained::into_inner)
    }

    /// Its deadline has passed. It is nobody else's.
    fn too_late(&mut self) -> RunError<V, E> {
        self.take_last().unwrap_or_else(|| {
            self.tells.whom = Whom::Nobody;
            RunError::TimedOut
        })
    }

    /// Until then, or until something happens: to the id, which was left like this, to the run, or to the
    /// ledger.
    async fn pause(&mut self, until: Instant, was: Cell) {
        let (shared, id) = (self.run.ledger.shared(), &self.run.encoded);
        let registered = shared.index.register(id);
        let changes = async {
            loop {
                let mut changed = pin!(registered.notified());
                changed.as_mut().enable();
                let now = shared.index.seen(id.as_bytes()).cell;
                if now != was || shared.submissions.rejection().is_some() {
                    return;
                }
                wake::guarded(changed).await;
            }
        };
        self.begun.unless_stopped(Some(until), changes).await;
    }

    /// Waits for an attempt or a revoke that is not one of this run; its answer, if it was an attempt.
    async fn wait_for_other(&mut self, seen: &Seen) -> Result<Option<Claim<V>>, RunError<V, E>> {
        // What it waits for need not be within its scope.
        self.member = None;
        let runs = seen.cell.state == TaskState::Running;
        if runs {
            if let Some(details) = self.details().await? {
                self.run.same_request(Stored::of(&details))?;
            }
        }
        let settled = self.run.ledger.settled(&self.run.encoded);
        let Some(state) = self.begun.unless_stopped(self.run.options.deadline, settled).await
        else {
            self.goes_on()?;
            return Err(self.too_late());
        };
        let state = state.map_err(|poison| match runs {
            true => RunError::InDoubt { outcome: None, poison },
            false => RunError::Rejected(Rejection::Poisoned(poison)),
        })?;
        match state {
            TaskState::Succeeded if runs => self.replayed(ClaimKind::Joined).await,
            TaskState::Failed if runs => {
                let Some(details) = self.details().await? else { return Ok(None) };
                let Some(failure) = details.failure else { return Ok(None) };
                // It may be tried again by now, and so it is.
                let released = matches!(failure, Failure::Released(_));
                if released || ended_with_its_caller(&failure) {
                    return Ok(None);
                }
                self.tells.whom = Whom::Before(details.cell, seen.key);
                Err(RunError::Told { failure, kind: ClaimKind::Joined })
            }
            TaskState::NotFound
            | TaskState::Queued
            | TaskState::Running
            | TaskState::Succeeded
            | TaskState::Failed
            | TaskState::Revoking => Ok(None),
        }
    }

    /// What is known of the id. Whatever its company is told next is of that request.
    pub(super) async fn details(&mut self) -> Result<Option<TaskDetails>, RunError<V, E>> {
        // Too late for another attempt, it has an answer; without one, what is known may be one.
        let until = self.last.as_ref().and(self.run.options.deadline);
        let Some(details) = self.begun.unless_stopped(until, self.run.details()).await else {
            self.goes_on()?;
            return Err(self.too_late());
        };
        let details = details?;
        self.tells.request = details.as_ref().and_then(Stored::of);
        Ok(details)
    }

    async fn replayed(&mut self, kind: ClaimKind) -> Result<Option<Claim<V>>, RunError<V, E>> {
        // Whoever stops it does not cut that off. Too late for it, there is no other answer.
        let details = match self.run.in_time(self.run.details()).await {
            Ok(details) => details?,
            Err(too_late) => {
                self.tells.whom = Whom::Nobody;
                return Err(too_late);
            }
        };
        self.tells.request = details.as_ref().and_then(Stored::of);
        self.run.replay(kind, details)
    }

    /// One attempt, to its end, if the id is still as it was, and it is not stopped before it is submitted:
    /// refused otherwise.
    async fn attempt(&mut self, was: Cell) -> Result<V, AttemptError<(), V, E>> {
        if let Err(reason) = self.enters_scope() {
            return Err(AttemptError::Rejected { reason, future: () });
        }
        let run = &self.run;
        let run_has_fingerprint = run.options.fingerprint.is_some();
        let seat = Seat::take(run.ledger.shared());
        let control = Arc::clone(seat.control());
        self.begun.starts(&seat);
        let key = seat.key();
        let (slot, own) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
        let (work, told) = (Arc::clone(&run.work), Arc::clone(&slot));
        let future = async move {
            // Set before this is polled.
            let context = told.get().cloned();
            let future =
                context.and_then(|context| lock(&work).inner_mut().map(|work| work(context)));
            match future {
                Some(future) => future.await,
                None => std::future::pending().await,
            }
        };
        let (ledger, id) = (run.ledger.clone(), Arc::clone(&run.id));
        let (encoded, flight) = (run.encoded.clone(), self.begun.flight());
        let (of_all, begins) = (Arc::clone(&self.first), Arc::clone(&own));
        let began = Box::new(move |began: Began| {
            flight.began(began.key, began.cell);
            let Began { cell, since, .. } = began;
            let _ = begins.set(Own { attempt: cell.attempt, since });
            let _ = of_all.set(began.span.clone());
            let _ = slot.set(Context::new(&ledger, id, encoded, began));
        });
        let start = Start {
            limits: run.options.limits(),
            seat: Some(seat),
            begin: Begin {
                fingerprint: run.options.fingerprint,
                after: Some(was.seq),
                settled: matches!(self.found, Some((_, Found::Nothing))),
                ..Begin::default()
            },
            within: run.options.scope.clone(),
            after: self.first.get().cloned(),
            began: Some(began),
            ..Start::new(&*run.id, Kind::Launch, attempt::launch_succeeded)
        };
        let (reply, end) = oneshot::channel();
        let starts = run.ledger.start(start, future, Waiter::End(reply));
        // Nothing is submitted while it waits for room.
        let ended = match self.begun.unless_stopped(run.options.deadline, starts).await {
            Some(Ok(())) => {
                let ended = end.await.unwrap_or(Err(AttemptError::Lost));
                ended.map_err(AttemptError::without_future)
            }
            Some(Err(not)) => Err(not.into_attempt_error().without_future()),
            None => Err(AttemptError::Refused { state: was.state, future: () }),
        };
        if let Some(own) = own.get() {
            self.own = Some(*own);
            // Without one of its own it serves the request that is on record.
            if run_has_fingerprint {
                self.tells.request = None;
            }
        }
        if let Some(end) = control.end() {
            self.tells.whom = Whom::Before(end, Some(key));
        }
        ended
    }
}

/// Whether that is no failure of a request that was waiting for it.
pub(super) fn ended_with_its_caller(failure: &Failure) -> bool {
    matches!(failure, Failure::Cancelled(why) if attempt::ended_with_its_caller(why))
}
