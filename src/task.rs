//! Starting something for an id: what may start, and what comes back if it may not.

mod scoped;
mod start;

pub(crate) use start::{NotStarted, Start, Turned, has_timer, needs_timer};

use crate::attempt::Waiter;
use crate::error::{AttemptError, LaunchError, RunError};
use crate::guard::{Claim, Context, Landed, OnCrash, OnFailure, Options, Retry};
use crate::id::TaskId;
use crate::ledger::{Ledger, TaskOutput};
use crate::measure;
use std::fmt;
use std::future::Future;
use std::num::NonZero;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A launch, or a run, with options, made by [`Ledger::task`].
///
/// A launch takes [`timeout`](Self::timeout) and [`deadline`](Self::deadline). All others are options of
/// a run; a launch with one of them is rejected
/// ([`OnlyForRun`](crate::Rejection::OnlyForRun)), since it would do something else than was asked for.
#[must_use = "does nothing until it is launched or run"]
pub struct Task<'a, K, V> {
    ledger: &'a Ledger<K, V>,
    id: K,
    options: Options<K, V>,
}

/// A run that is tried again when it fails, made by [`Task::retry`].
#[must_use = "does nothing until it is run"]
pub struct Retrying<'a, K, V, E> {
    task: Task<'a, K, V>,
    retry: Retry<E>,
}

impl<'a, K, V> Task<'a, K, V> {
    pub(crate) fn new(ledger: &'a Ledger<K, V>, id: K) -> Self {
        Self { ledger, id, options: Options::new() }
    }
}

impl<'a, K: TaskId, V: TaskOutput> Task<'a, K, V> {
    /// Drops the future after this time, counted from when it starts, and records
    /// [`TimedOut`](crate::Failure::TimedOut). Of a run, each attempt that this call makes has this time,
    /// and so has the [probe](Self::probe). How long it waits for what others do is bounded by its
    /// [`deadline`](Self::deadline) alone. Needs a runtime with its time driver enabled; without one the
    /// launch is rejected.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// No attempt goes on after this moment, and none begins: what was recorded as started when it came
    /// is recorded as [`TimedOut`](crate::Failure::TimedOut), without its future being polled. A run that
    /// waits for what others do waits until then at most, and so does one that reads a stored output: a replay
    /// is one read by the writer, behind what that is recording. A run that finds a failure, also one of
    /// somebody else's attempt that it has waited for, reads what is known of it whatever the time is, and what it records (the end of an
    /// attempt, what a probe has found out, that it gives up) is on disk before it answers: a disk that does not come back holds it up
    /// until the [deadline of a sync](crate::Builder::sync_deadline). Default: none.
    pub const fn deadline(mut self, deadline: Instant) -> Self {
        self.options.deadline = Some(deadline);
        self
    }

    /// Of a run: how long an attempt may go on when it is [cancelled](Ledger::cancel), before its future
    /// is dropped; no longer than to its timeout and its deadline. Its
    /// [token](crate::Context::cancellation) tells it. Default 5 s; zero drops it at once. (The future of a launch is told nothing, and is dropped at once.)
    pub const fn cancel_grace(mut self, grace: Duration) -> Self {
        self.options.grace = Some(grace);
        self
    }

    /// Of a run: what the request is about. The same id with another fingerprint is refused with
    /// [`OtherRequest`](crate::RunError::OtherRequest). Only a keyed hash of it is kept, as
    /// long as the [effect key](crate::Context::effect_key) stays the same: an attempt without one changes
    /// nothing of it. An id that was never given one takes any, and so does one of which
    /// [pruning](Ledger::prune) has left no more than that it has succeeded. A verdict changes nothing of it:
    /// what is [released](crate::Verdict::Retry) is released to the same request.
    pub fn fingerprint(mut self, request: impl AsRef<[u8]>) -> Self {
        let seal = self.ledger.shared().index.seal();
        self.options.fingerprint = Some(seal.fingerprint(request.as_ref()));
        self
    }

    /// Of a run: what to do if the last attempt failed. Default: run it again.
    pub const fn on_failure(mut self, policy: OnFailure) -> Self {
        self.options.on_failure = policy;
        self
    }

    /// Of a run: what to do if an attempt crashed, so that its effect may have happened, and nobody has said
    /// since what came of it. An attempt that was run in spite of that says nothing, if it fails: the question
    /// goes on until the id succeeds, gets a [verdict](Ledger::resolve), or is forgotten, or until a
    /// [probe](Self::probe) finds that it has not happened. Default: run it again.
    pub const fn on_crash(mut self, policy: OnCrash) -> Self {
        self.options.on_crash = policy;
        self
    }

    /// Of a run: if an attempt crashed, and nobody has said since what came of it, asks this whether it has
    /// happened after all: it is [`OnCrash::Ask`] from now on. (Another policy after that wins, and then nobody
    /// is asked.) Its context has the effect key that the attempt had. It is dropped at the [`timeout`](Self::timeout) and the
    /// [`deadline`](Self::deadline), when the id is [cancelled](Ledger::cancel), when its caller is dropped
    /// and wanted to [cancel with that](Self::cancel_with_caller), when its scope ends, and when the ledger is
    /// closed: then it has found out nothing. What happens to the id while it is asked comes first: a verdict, an attempt of
    /// somebody else. It must not [run](Ledger::run) its own id: it would wait for itself, for ever.
    pub fn probe<P, F>(mut self, probe: P) -> Self
    where
        P: FnOnce(Context<K>) -> F + Send + 'static,
        F: Future<Output = Landed<V>> + Send + 'static,
    {
        self.options.ask(probe);
        self
    }

    /// Of a run: gives the id up after so many attempts, those that crashed included, so that what kills
    /// its process does not kill every next one: it is failed, and no run tries it again until it is
    /// [resolved](Ledger::resolve). (A [launch](Ledger::launch) starts it all the same, and
    /// [`mark_succeeded`](Ledger::mark_succeeded) makes it a success: they heed no policy.) Counted is since
    /// the id was last not found; an attempt that ended with whoever had begun it counts for everybody but
    /// those who waited for it. A crash is held, or asked about, first. What somebody has found out to have
    /// [failed](crate::Verdict::Failed) stays recorded as that. Default: no bound.
    pub const fn max_attempts(mut self, attempts: NonZero<u32>) -> Self {
        self.options.max_attempts = Some(attempts);
        self
    }

    /// Of a run: says how large its output will be at most, serialized; if that is more than is kept, it
    /// is rejected before anything runs; what has succeeded before is replayed all the same. Default: an
    /// output that is too large is not kept.
    pub const fn output_at_most(mut self, bytes: usize) -> Self {
        self.options.output_bytes = Some(bytes);
        self
    }

    /// Of a run: if the caller that executes it is dropped, it is cancelled, and goes to exactly one of
    /// those that have joined, whatever their policies say of failures: an attempt that ended with its
    /// caller is none of theirs, and does not count for their [`max_attempts`](Self::max_attempts).
    /// Default: it goes on.
    pub const fn cancel_with_caller(mut self) -> Self {
        self.options.cancel_with_caller = true;
        self
    }

    /// Of a run: tries it again when it fails. Every attempt is recorded. What happens to the id between
    /// two attempts counts, and the run has no further attempt then:
    ///
    /// * a [cancel](Ledger::cancel): it answers [`Cancelled`](crate::RunError::Cancelled);
    /// * a success, by a mark, a verdict or somebody else's attempt: it answers with that, replayed or joined;
    /// * somebody else's attempt that fails: it is told of that if it has waited for it; otherwise,
    /// * and after any other verdict, when the id is forgotten or [pruned](Ledger::prune), and at the close
    ///   of the ledger: it answers with what its own last attempt ended in.
    ///
    /// Only [`Verdict::Retry`](crate::Verdict::Retry) lets it go on, and at once. Notes and pins change
    /// nothing.
    pub const fn retry<E>(self, retry: Retry<E>) -> Retrying<'a, K, V, E> {
        Retrying { task: self, retry }
    }

    /// As [`Ledger::run`], with what was asked for.
    ///
    /// # Durability
    ///
    /// As [`Ledger::run`].
    ///
    /// # Cancel safety
    ///
    /// As [`Ledger::run`].
    ///
    /// # Errors
    ///
    /// As [`Ledger::run`].
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, MemoryJournal, RunError};
    /// # let ledger = Ledger::<u64, u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// let pay = |amount: u64| {
    ///     let task = ledger.task(7).fingerprint(amount.to_be_bytes());
    ///     task.run(move |_| async move { Ok::<_, String>(amount) })
    /// };
    /// assert_eq!(pay(100).await?.value, Some(100));
    /// assert_eq!(pay(100).await?.value, Some(100)); // replayed
    /// assert!(matches!(pay(200).await, Err(RunError::OtherRequest { .. })));
    /// # Ok(()) }
    /// ```
    pub async fn run<W, F, E>(self, work: W) -> Result<Claim<V>, RunError<V, E>>
    where
        W: FnMut(Context<K>) -> F + Send + 'static,
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        self.retry(Retry::never()).run(work).await
    }

    /// As [`Ledger::launch`].
    ///
    /// # Durability
    ///
    /// As [`Ledger::launch`].
    ///
    /// # Cancel safety
    ///
    /// As [`Ledger::launch`].
    ///
    /// # Errors
    ///
    /// As [`Ledger::launch`].
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # use taskledger::{Failure, Ledger, MemoryJournal, TaskState};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// let never = std::future::pending::<Result<(), String>>();
    /// ledger.task(7).timeout(Duration::from_millis(5)).launch(never).await?;
    /// assert_eq!(ledger.wait(&7).await?, TaskState::Failed);
    /// let failure = ledger.record(&7).await?.and_then(|details| details.failure);
    /// assert_eq!(failure, Some(Failure::TimedOut));
    /// # Ok(()) }
    /// ```
    pub async fn launch<F, E>(self, future: F) -> Result<(), LaunchError<F>>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        let Self { ledger, id, options } = self;
        let plan = match options.launch(&id) {
            Ok(plan) => plan,
            Err(reason) => return Err(LaunchError::Rejected { reason, future }),
        };
        let id = match ledger.make_room(&plan).await {
            Ok(id) => id,
            Err(turned) => return Err(turned.away(future).into_launch_error()),
        };
        // Not before: what is refused, which is what repeats are, allocates nothing.
        let (reply, began) = oneshot::channel();
        match ledger.start_with_room(id, plan, future, Waiter::Start(reply)) {
            Ok(()) => began.await.unwrap_or(Err(LaunchError::Lost)),
            Err(not) => Err(not.into_launch_error()),
        }
    }

    /// As [`Ledger::launch_block`].
    ///
    /// # Durability
    ///
    /// As [`Ledger::launch_block`].
    ///
    /// # Cancel safety
    ///
    /// As [`Ledger::launch_block`].
    ///
    /// # Errors
    ///
    /// As [`Ledger::launch_block`].
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # use taskledger::{AttemptError, Ledger, MemoryJournal, TaskState};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// let minute = Duration::from_secs(60);
    /// ledger.task(7).timeout(minute).launch_block(async { Ok::<_, String>(()) }).await?;
    /// let again = ledger.task(7).timeout(minute).launch_block(async { Ok::<_, String>(()) }).await;
    /// assert!(matches!(again, Err(AttemptError::Refused { state: TaskState::Succeeded, .. })));
    /// # Ok(()) }
    /// ```
    pub async fn launch_block<F, E>(self, future: F) -> Result<V, AttemptError<F, V, E>>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        let Self { ledger, id, options } = self;
        let plan = match options.launch(&id) {
            Ok(plan) => plan,
            Err(reason) => return Err(AttemptError::Rejected { reason, future }),
        };
        let id = match ledger.make_room(&plan).await {
            Ok(id) => id,
            Err(turned) => return Err(turned.away(future).into_attempt_error()),
        };
        // Not before: what is refused, which is what repeats are, allocates nothing.
        let (reply, end) = oneshot::channel();
        match ledger.start_with_room(id, plan, future, Waiter::End(reply)) {
            Ok(()) => end.await.unwrap_or_else(|_| Err(AttemptError::Lost)),
            Err(not) => Err(not.into_attempt_error()),
        }
    }
}

impl<K: fmt::Debug, V> fmt::Debug for Task<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("timeout", &self.options.timeout)
            .finish_non_exhaustive()
    }
}

impl<K: TaskId, V: TaskOutput, E: fmt::Debug + Send + 'static> Retrying<'_, K, V, E> {
    /// As [`Ledger::run`], with what was asked for.
    ///
    /// # Durability
    ///
    /// As [`Ledger::run`].
    ///
    /// # Cancel safety
    ///
    /// As [`Ledger::run`].
    ///
    /// # Errors
    ///
    /// As [`Ledger::run`]; the error of the last attempt.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::num::NonZero;
    /// # use std::time::Duration;
    /// # use taskledger::{Context, Ledger, MemoryJournal, Retry};
    /// # let ledger = Ledger::<u64, u32>::builder().open_journal(MemoryJournal::new()).await?;
    /// let three = NonZero::new(3).ok_or("zero")?;
    /// let retry = Retry::attempts(three)
    ///     .min_delay(Duration::from_millis(1))
    ///     .when(|error: &&str| *error == "busy");
    /// let work = |cx: Context<u64>| async move {
    ///     if cx.attempt().get() < 3 { Err("busy") } else { Ok(cx.attempt().get()) }
    /// };
    /// let claim = ledger.task(7).retry(retry).run(work).await?;
    /// assert_eq!(claim.value, Some(3));
    /// # Ok(()) }
    /// ```
    pub async fn run<W, F>(self, work: W) -> Result<Claim<V>, RunError<V, E>>
    where
        W: FnMut(Context<K>) -> F + Send + 'static,
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        let Self { task: Task { ledger, id, options }, retry } = self;
        let mut claiming = measure::Claiming::begin();
        let answer = ledger.run_with(id, options, retry, work, &mut claiming).await;
        claiming.answered(&answer);
        answer
    }
}

impl<K: fmt::Debug, V, E> fmt::Debug for Retrying<'_, K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrying")
            .field("task", &self.task)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}
