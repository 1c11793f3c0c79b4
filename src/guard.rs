//! The total answer: do this once, and give everybody the same answer.
//!
//! ```text
//!  run --somebody of this process is at it--> join: wait for the flight, take its result
//!   |
//!   +--nobody--> a flight, and a task that drives it:
//!        succeeded          the stored output                             replayed
//!        running, revoking  wait for that, then look again
//!        failed             the policies say: run it again, or not
//!        not found, or so   an attempt; if that fails: wait, and another   executed
//!        refused            somebody was faster: look again
//! ```
//!
//! A flight is of this process alone and only saves work: that at most one attempt runs, and that one
//! success is recorded, is the writer's doing. So whatever becomes of a flight, nothing is lost but
//! its company: who has joined it looks again.

mod claim;
mod context;
mod flight;
mod options;
mod resolve;

pub use claim::{Claim, ClaimKind};
pub use context::{Context, EffectKey};
pub(crate) use flight::Flights;
pub(crate) use options::Options;
pub use options::{Landed, OnCrash, OnFailure, Retry};
pub use resolve::Verdict;

use crate::attempt::{self, Kind, Waiter};
use crate::details::TaskDetails;
use crate::error::{AttemptError, ChangeError, ReadError, Rejection, RunError};
use crate::id::{EncodedId, TaskId};
use crate::ledger::{Ledger, TaskOutput};
use crate::sabotage::{self, Sabotage};
use crate::state::{Event, Failure, Output, SuccessBy, TaskState};
use crate::submission::Request;
use crate::sync::{Arc, Mutex, lock};
use crate::task::{Start, has_timer};
use flight::{Flight, Joined, Landing};
use std::fmt;
use std::future::Future;
use std::sync::OnceLock;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Everything that a run is about, but for its result.
pub(crate) struct Run<K, V, W> {
    pub(crate) ledger: Ledger<K, V>,
    pub(crate) id: Arc<K>,
    pub(crate) encoded: EncodedId,
    pub(crate) options: Options<K, V>,
    pub(crate) work: Arc<Mutex<W>>,
}

/// What comes of a look at an id that is not to be run.
enum Look {
    Go,
    Again,
}

type Answer<V, E> = Result<Claim<V>, RunError<V, E>>;

impl<K: TaskId, V: TaskOutput> Ledger<K, V> {
    /// Runs `work` for an id unless it has succeeded before, and gives everybody who asks the same
    /// answer. `work` is called once for each attempt, with what that should know of itself.
    ///
    /// * The first caller executes. Who comes while it runs *joins* it and gets the same value.
    /// * A repeat after a success gets the stored output, without executing anything, across restarts.
    /// * After a failure or a crash it runs again; [`task`](Self::task) has other policies, retries,
    ///   deadlines and fingerprints.
    ///
    /// # Durability
    ///
    /// `work` is called only when *running* is on disk. When this returns `Ok`, the success is on disk.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it has begun, nothing has happened. After that **the attempt goes on** without
    /// its caller, and so do its retries, which keep the ledger open until they end or it is
    /// [closed](Self::close), unless
    /// [`cancel_with_caller`](crate::Task::cancel_with_caller) says otherwise. A caller that has
    /// joined can always be dropped.
    ///
    /// # Errors
    ///
    /// [`RunError`]: one variant for each thing a caller can do about it. A runtime without its time
    /// driver is rejected: waits and grace periods need it.
    ///
    /// # Panics
    ///
    /// None: a panic of `work` is a recorded failure.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{ClaimKind, Ledger, MemoryJournal};
    /// # let ledger = Ledger::<u64, String>::builder().open_journal(MemoryJournal::new()).await?;
    /// let charge = |cx: taskledger::Context<u64>| async move {
    ///     // The service outside does it once for this key, however often it is asked.
    ///     Ok::<_, std::io::Error>(format!("charged, with key {}", cx.effect_key()))
    /// };
    /// let first = ledger.run(7, charge).await?;
    /// assert_eq!(first.kind, ClaimKind::Executed);
    /// let again = ledger.run(7, charge).await?;
    /// assert_eq!(again.kind, ClaimKind::Replayed);
    /// assert_eq!(again.value, first.value);
    /// # Ok(()) }
    /// ```
    pub async fn run<W, F, E>(&self, id: K, work: W) -> Result<Claim<V>, RunError<V, E>>
    where
        W: FnMut(Context<K>) -> F + Send + 'static,
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        self.task(id).run(work).await
    }

    /// As [`run`](Self::run), with all that was asked for.
    pub(crate) async fn run_with<W, F, E>(
        &self,
        id: K,
        options: Options<K, V>,
        retry: Retry<E>,
        work: W,
    ) -> Answer<V, E>
    where
        W: FnMut(Context<K>) -> F + Send + 'static,
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        let encoded = EncodedId::encode::<K, K>(&id).map_err(Rejection::Id)?;
        let cap = self.shared().options.output_cap;
        if options.output_bytes.is_some_and(|bytes| bytes > cap) {
            return Err(Rejection::Output { cap }.into());
        }
        let run = Run {
            ledger: self.clone(),
            id: Arc::new(id),
            encoded,
            options,
            work: Arc::new(Mutex::new(work)),
        };
        let mut run = Some(run);
        loop {
            let Some(this) = &run else { return Err(RunError::Lost) };
            // What is certain needs neither a task nor a flight.
            if self.state(&this.encoded) == TaskState::Succeeded {
                if sabotage::is(Sabotage::RunAgain) {
                    drop(self.forget(&*this.id).await);
                    continue;
                }
                if let Some(answer) = this.replayed(ClaimKind::Replayed).await? {
                    return answer;
                }
                continue;
            }
            if !has_timer() {
                let none = tokio::runtime::Handle::try_current().is_err();
                return Err(if none { Rejection::NoRuntime } else { Rejection::NoTimer }.into());
            }
            let flights = &self.shared().flights;
            match flights.join_or_begin(&this.encoded, this.options.fingerprint) {
                Joined::Other(flight) => match flight.landed().await {
                    Landing::Gone => {}
                    landing @ (Landing::Succeeded(_)
                    | Landing::Failed(_)
                    | Landing::Held
                    | Landing::InDoubt(_)) => return this.of(landing, &flight).await,
                },
                Joined::Own(begun) => {
                    let Some(this) = run.take() else { return Err(RunError::Lost) };
                    let leaves = this.options.cancel_with_caller.then(|| begun.flight());
                    let (reply, answer) = oneshot::channel();
                    let span = tracing::Span::current();
                    let drive = async move {
                        let answer = this.drive(&begun, retry).await;
                        begun.land(&answer);
                        // Nobody waiting any more is fine.
                        let _ = reply.send(answer);
                    };
                    drop(tokio::spawn(tracing::Instrument::instrument(drive, span)));
                    let _leaves = leaves.map(flight::Leaves::new);
                    return answer.await.unwrap_or(Err(RunError::Lost));
                }
            }
        }
    }
}

impl<K: TaskId, V: TaskOutput, W> Run<K, V, W> {
    /// What somebody else's flight came to, for this caller.
    async fn of<E>(&self, landing: Landing, flight: &Flight) -> Answer<V, E> {
        let fingerprints = (self.options.fingerprint, flight.fingerprint());
        if let (Some(own), Some(other)) = fingerprints {
            if own != other {
                let at = self.details().await?.and_then(|details| details.started_at);
                return Err(RunError::OtherRequest { at });
            }
        }
        match landing {
            Landing::Succeeded(bytes) => {
                let value = bytes.map(|bytes| decoded(&bytes)).transpose()?;
                Ok(Claim { kind: ClaimKind::Joined, value })
            }
            Landing::Failed(failure) => Err(RunError::Told { failure, kind: ClaimKind::Joined }),
            Landing::Held => Err(RunError::Held),
            Landing::InDoubt(poison) => Err(Rejection::Poisoned(poison).into()),
            Landing::Gone => Err(RunError::Lost),
        }
    }

    /// The details of the id, of which there are some.
    async fn details<E>(&self) -> Result<Option<TaskDetails>, RunError<V, E>> {
        Ok(self.ledger.details(self.encoded.clone()).await?)
    }

    /// The stored output of the id, which had succeeded; `None` if it is no success any more, so that
    /// whoever asks has to look again.
    async fn replayed<E>(&self, kind: ClaimKind) -> Result<Option<Answer<V, E>>, RunError<V, E>> {
        let details = self.details().await?;
        let Some(details) = details.filter(|found| found.state() == TaskState::Succeeded) else {
            return Ok(None);
        };
        self.same_request(&details)?;
        let value = match &details.output {
            Output::Kept(bytes) => Some(decoded(bytes)?),
            Output::Absent | Output::NotKept(_) => None,
        };
        Ok(Some(Ok(Claim { kind, value })))
    }

    fn same_request<E>(&self, details: &TaskDetails) -> Result<(), RunError<V, E>> {
        match (self.options.fingerprint, details.fingerprint) {
            (Some(own), Some(stored)) if own != stored => {
                Err(RunError::OtherRequest { at: details.started_at })
            }
            _ => Ok(()),
        }
    }
}

fn decoded<V: TaskOutput>(bytes: &[u8]) -> Result<V, ReadError> {
    rmp_serde::from_slice(bytes).map_err(|error| ReadError::Output(error.to_string()))
}

impl<K, V, W, F, E> Run<K, V, W>
where
    K: TaskId,
    V: TaskOutput,
    W: FnMut(Context<K>) -> F + Send + 'static,
    F: Future<Output = Result<V, E>> + Send + 'static,
    E: fmt::Debug + Send + 'static,
{
    /// Until there is an answer.
    async fn drive(mut self, begun: &flight::Begun, retry: Retry<E>) -> Answer<V, E> {
        let mut pauses = retry.pauses();
        // Whether it is this very run that has failed, and its first attempt.
        let mut own = false;
        let first = Arc::new(OnceLock::new());
        loop {
            if begun.is_left() {
                return Err(RunError::Cancelled("its caller was dropped".to_owned()));
            }
            match self.ledger.state(&self.encoded) {
                TaskState::Succeeded => match self.replayed(ClaimKind::Replayed).await? {
                    Some(answer) => return answer,
                    None => continue,
                },
                TaskState::Queued => return Err(RunError::Refused { state: TaskState::Queued }),
                TaskState::Running | TaskState::Revoking => {
                    if let Some(answer) = self.wait_for_other().await? {
                        return answer;
                    }
                    continue;
                }
                TaskState::Failed => {
                    if let Look::Again = self.after_failure(own).await? {
                        continue;
                    }
                }
                TaskState::NotFound => {}
            }
            let error = match self.attempt(begun, &first).await {
                Err(AttemptError::Failed(error)) if !retry.wants(&error) => {
                    self.give_up_if_worn().await;
                    return Err(RunError::Failed(error));
                }
                Err(AttemptError::Failed(error)) => RunError::Failed(error),
                Ok(value) => return Ok(Claim { kind: ClaimKind::Executed, value: Some(value) }),
                Err(AttemptError::Refused { .. }) => continue,
                Err(AttemptError::Rejected { reason, .. }) => return Err(reason.into()),
                Err(AttemptError::InDoubt { outcome, poison }) => {
                    return Err(RunError::InDoubt { outcome, poison });
                }
                Err(AttemptError::Superseded { outcome }) => {
                    return Err(RunError::Superseded { outcome });
                }
                Err(AttemptError::Lost) => return Err(RunError::Lost),
                Err(AttemptError::Cancelled(reason)) => return Err(RunError::Cancelled(reason)),
                Err(AttemptError::Panicked(text)) => RunError::Panicked(text),
                Err(AttemptError::TimedOut) => RunError::TimedOut,
            };
            own = true;
            let until = pauses.next().map(|pause| Instant::now() + pause);
            let until = until.filter(|until| self.options.deadline.is_none_or(|end| *until < end));
            let Some(until) = until else {
                self.give_up_if_worn().await;
                return Err(error);
            };
            begun.left_or(until).await;
        }
    }

    /// Waits for an attempt or a revoke that is not one of a run; its answer, if it was an attempt.
    async fn wait_for_other(&self) -> Result<Option<Answer<V, E>>, RunError<V, E>> {
        let was = self.ledger.state(&self.encoded);
        if was == TaskState::Running {
            if let Some(details) = self.details().await? {
                self.same_request(&details)?;
            }
        }
        let state = self.ledger.settled(&self.encoded).await;
        let state = state.map_err(|poison| RunError::Rejected(Rejection::Poisoned(poison)))?;
        Ok(match (was, state) {
            (TaskState::Running, TaskState::Succeeded) => self.replayed(ClaimKind::Joined).await?,
            (TaskState::Running, TaskState::Failed) => {
                let failure = self.details().await?.and_then(|details| details.failure);
                failure.map(|failure| Err(RunError::Told { failure, kind: ClaimKind::Joined }))
            }
            _ => None,
        })
    }

    /// What the policies say of an id that has failed, in this very run or before.
    async fn after_failure(&mut self, own: bool) -> Result<Look, RunError<V, E>> {
        let Some(details) = self.details().await? else { return Ok(Look::Again) };
        let Some(failure) = &details.failure else { return Ok(Look::Again) };
        self.same_request(&details)?;
        if let Failure::GaveUp { attempts, .. } = failure {
            return Err(RunError::GaveUp { attempts: *attempts });
        }
        if let Some(attempts) = self.worn(&details) {
            return match self.give_up(&details, attempts).await {
                Ok(()) => Err(RunError::GaveUp { attempts }),
                // Something has happened since.
                Err(ChangeError::Refused { .. }) => Ok(Look::Again),
                Err(error) => Err(error.into()),
            };
        }
        match failure {
            Failure::Released(_) => Ok(Look::Go),
            Failure::Crashed => self.after_crash(&details).await,
            _ if own => Ok(Look::Go),
            Failure::Error(_)
            | Failure::Panicked(_)
            | Failure::Cancelled(_)
            | Failure::TimedOut
            | Failure::GaveUp { .. }
            | Failure::Resolved(_) => match self.options.on_failure {
                OnFailure::Run => Ok(Look::Go),
                OnFailure::Replay => {
                    let failure = failure.clone();
                    Err(RunError::Told { failure, kind: ClaimKind::Replayed })
                }
                OnFailure::Refuse => Err(RunError::Refused { state: TaskState::Failed }),
            },
        }
    }

    /// How many attempts there were, if there may be no more.
    fn worn(&self, details: &TaskDetails) -> Option<u32> {
        let attempts = details.attempt().get();
        let most = self.options.max_attempts?;
        let again = matches!(details.failure, Some(Failure::Released(_) | Failure::GaveUp { .. }));
        (attempts >= most.get() && !again).then_some(attempts)
    }

    /// After the last attempt: a next run is not to begin with finding that out.
    async fn give_up_if_worn(&self) {
        if self.options.max_attempts.is_none() {
            return;
        }
        let details: Result<_, RunError<V, E>> = self.details().await;
        let Ok(Some(details)) = details else { return };
        if let Some(attempts) = self.worn(&details) {
            // If not now, the next run does.
            drop(self.give_up(&details, attempts).await);
        }
    }

    async fn give_up(&self, details: &TaskDetails, attempts: u32) -> Result<(), ChangeError> {
        let last = details.failure.as_ref().map(Failure::to_string).unwrap_or_default();
        let last = attempt::cut_at(last, attempt::MAX_FAILURE_BYTES);
        let event = Event::Resolved { failure: Failure::GaveUp { attempts, last } };
        let (id, after) = (self.encoded.clone(), Some(details.cell.seq));
        self.ledger.change(Request::Change { id, event, after }).await
    }

    /// It may have happened.
    async fn after_crash(&mut self, details: &TaskDetails) -> Result<Look, RunError<V, E>> {
        match self.options.on_crash {
            OnCrash::Run => return Ok(Look::Go),
            OnCrash::Hold => return Err(RunError::Held),
            OnCrash::Ask => {}
        }
        let probe = lock(&self.options.probe).take();
        let Some(probe) = probe else { return Err(RunError::Held) };
        let context = self.context_of(details);
        // In a task of its own: one that panics has found out nothing.
        let asked = tokio::spawn(async move { probe(context).await }).await;
        match asked.unwrap_or(Landed::Unknown) {
            Landed::No => Ok(Look::Go),
            Landed::Unknown => Err(RunError::Held),
            Landed::Yes(value) => {
                let shared = self.ledger.shared();
                let output =
                    value.map_or(Output::Absent, |value| attempt::output_of(&value, shared));
                let event = Event::Succeeded { by: SuccessBy::Resolve, output };
                let after = Some(details.cell.seq);
                let change = Request::Change { id: self.encoded.clone(), event, after };
                match self.ledger.change(change).await {
                    Ok(()) | Err(ChangeError::Refused { .. }) => Ok(Look::Again),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// One attempt, to its end.
    async fn attempt(
        &self,
        begun: &flight::Begun,
        first: &Arc<OnceLock<tracing::Span>>,
    ) -> Result<V, AttemptError<(), V, E>> {
        let slot = Arc::new(OnceLock::new());
        let (work, told) = (Arc::clone(&self.work), Arc::clone(&slot));
        let future = async move {
            // Set before this is polled.
            let context = told.get().cloned();
            let future = context.map(|context| (lock(&work))(context));
            match future {
                Some(future) => future.await,
                None => std::future::pending().await,
            }
        };
        let left = self.options.deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = [self.options.timeout, left].into_iter().flatten().min();
        let (ledger, id) = (self.ledger.clone(), Arc::clone(&self.id));
        let (encoded, flight) = (self.encoded.clone(), begun.flight());
        let (after, of_all) = (first.get().cloned(), Arc::clone(first));
        let began = Box::new(move |began: attempt::Began| {
            flight.runs(&began.control);
            let _ = of_all.set(began.span.clone());
            let context = Context::new(&ledger, id, encoded, began);
            let _ = slot.set(context);
        });
        let start = Start {
            timeout,
            grace: Some(self.options.grace).filter(|grace| !grace.is_zero()),
            fingerprint: self.options.fingerprint,
            after,
            began: Some(began),
            ..Start::new(&*self.id, Kind::Launch, attempt::launch_succeeded)
        };
        let (reply, end) = oneshot::channel();
        let ended = match self.ledger.start(start, future, Waiter::End(reply)).await {
            Ok(()) => end.await.unwrap_or(Err(AttemptError::Lost)),
            Err(not) => Err(not.into_attempt_error()),
        };
        ended.map_err(AttemptError::without_future)
    }

    fn context_of(&self, details: &TaskDetails) -> Context<K> {
        Context::after_crash(&self.ledger, Arc::clone(&self.id), self.encoded.clone(), details)
    }
}
