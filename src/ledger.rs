//! The handle.

mod admin;
mod backup;
mod bulk;
mod read;
mod retain;
mod sweep;

pub use admin::Health;
pub(crate) use admin::MAX_METADATA_ENTRY;
pub(crate) use read::decoded;
pub(crate) use sweep::Swept;

use crate::attempt::{self, Kind, Stop, Waiter};
use crate::builder::Builder;
use crate::error::{
    AttemptError, CancelError, ChangeError, IdError, LaunchError, OpenError, Poison, Rejection,
    WaitError,
};
use crate::id::{EncodedId, IdShape, Lookup, Probe, TaskId};
use crate::recovery::Recovery;
use crate::sabotage::{self, Sabotage};
use crate::shared::{ID_SHAPE, Shared};
use crate::state::TaskState;
use crate::submission::{Answer, Request};
use crate::sync::Arc;
use crate::task::{Start, Task};
use crate::wake;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::path::Path;
use std::pin::pin;
use tokio::sync::oneshot;

/// What a success can return and the ledger keep.
///
/// Implemented for every type that fits. It is stored self-describing, with field names: it may
/// gain fields with `#[serde(default)]`, and the dump tool prints it as JSON.
pub trait TaskOutput: Serialize + DeserializeOwned + Send + 'static {}

impl<V: Serialize + DeserializeOwned + Send + 'static> TaskOutput for V {}

/// A durable ledger of tasks: give it an id and a future, and it remembers what became of it.
///
/// Cloning is cheap and shares the ledger. `K` is the type of the ids, `V` what a success returns.
pub struct Ledger<K, V = ()> {
    handle: Arc<Handle>,
    types: PhantomData<fn(K) -> V>,
}

/// Dropped with the last clone.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Never waits: running attempts finish and are recorded, then the writer frees the lock.
        if !sabotage::is(Sabotage::StayOpen) {
            self.shared.close();
        }
    }
}

impl<K: TaskId, V: TaskOutput> Ledger<K, V> {
    /// Opens the ledger in the directory `path`, or creates it there, with the default options.
    ///
    /// What the last process left running is `Failed(Crashed)` when this returns;
    /// [`recovery`](Self::recovery) tells.
    ///
    /// # Durability
    ///
    /// The ledger itself, this open (its epoch) and all resets are on disk when it returns.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the open: it finishes in its own thread, and the ledger is
    /// then closed again.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: each variant says what to do. Unless it says otherwise nothing was changed.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("ledger");
    /// let ledger = taskledger::Ledger::<String>::open(&path).await?;
    /// ledger.launch_block("order 7".to_owned(), async { Ok::<_, String>(()) }).await?;
    /// ledger.close().await?;
    /// # Ok(()) }
    /// ```
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder().open(path).await
    }

    /// The options of an open.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # use taskledger::Ledger;
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("ledger");
    /// let builder = Ledger::<u64, String>::builder().output_cap(1024).lock_wait(Duration::ZERO);
    /// let ledger = builder.open(&path).await?;
    /// assert_eq!(ledger.recovery().epoch().get(), 1); // it is new
    /// # ledger.close().await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn builder() -> Builder<K, V> {
        Builder::new()
    }

    pub(crate) fn from_shared(shared: Arc<Shared>) -> Self {
        Self { handle: Arc::new(Handle { shared }), types: PhantomData }
    }

    /// What the open found, and what it did about it.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, MemoryJournal, TaskState};
    /// # let journal = MemoryJournal::new();
    /// # let ledger = Ledger::<u64>::builder().open_journal(journal.clone()).await?;
    /// ledger.launch(7, std::future::pending::<Result<(), String>>()).await?;
    /// // What the next process finds if this one dies now.
    /// let next = Ledger::<u64>::builder().open_journal(journal.fork()).await?;
    /// let crashed: Vec<u64> = next.recovery().crashed().collect::<Result<_, _>>()?;
    /// assert_eq!(crashed, [7]);
    /// assert_eq!(next.query_task_state(&7).await, TaskState::Failed);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.shared().recovery
    }

    /// Runs `future` as an attempt of `id` in the background; returns when *running* is durable.
    ///
    /// Of any number of concurrent launches of one id exactly one is accepted. A succeeded id is
    /// never run again. When the future ends - in `Ok`, `Err`, a panic, by being dropped - that is
    /// recorded in turn; [`wait`](Self::wait) waits for it.
    ///
    /// # Durability
    ///
    /// When it returns `Ok`, it is on disk that the attempt is running: a crash from now on is
    /// found by the next open. The future is polled only after that.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its first turn to submit, nothing has happened to the id. Dropped later,
    /// **the attempt goes on**: it is recorded and runs as if the caller had stayed.
    ///
    /// # Errors
    ///
    /// * [`LaunchError::Refused`] when the id is running, succeeded, queued or revoking. The future
    ///   comes back unpolled, and no id is changed. A success that is certain is refused like this
    ///   even by a ledger that is closed or poisoned.
    /// * [`LaunchError::Rejected`] when the request was not taken up. The future comes back
    ///   unpolled, and no id is changed, unless the ledger was poisoned in that very moment: then
    ///   the next open may find this start, as crashed.
    /// * [`LaunchError::Lost`] when the runtime went down before the start could be told. The
    ///   future is gone; the ledger knows what became of it.
    ///
    /// One record may stay behind whatever the answer, and also if the call is dropped while it
    /// waits. Where the id type cannot be described without a value of it, the first new id makes
    /// the ledger record what ids look like, for people who look into it. That is submitted before
    /// the start. It changes no id, and [`metadata`](Self::metadata) does not show it.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, LaunchError, MemoryJournal, TaskState};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger.launch(7, async { Ok::<_, String>(()) }).await?;
    /// assert_eq!(ledger.wait(&7).await?, TaskState::Succeeded);
    /// let again = ledger.launch(7, async { Ok::<_, String>(()) }).await;
    /// assert!(matches!(again, Err(LaunchError::Refused { state: TaskState::Succeeded, .. })));
    /// # Ok(()) }
    /// ```
    pub async fn launch<F, E>(&self, id: K, future: F) -> Result<(), LaunchError<F>>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        self.task(id).launch(future).await
    }

    /// [`launch`](Self::launch)es and waits for the end; returns the future's own value.
    ///
    /// # Durability
    ///
    /// When it returns `Ok`, the success is on disk, and its value with it (unless it is over the
    /// cap or fails to serialize). `Failed`, `Panicked`, `Cancelled` and `TimedOut` are on disk too.
    ///
    /// # Cancel safety
    ///
    /// As [`launch`](Self::launch): the future runs in a task of its own, so dropping the caller
    /// cancels nothing. **The value is then lost to the caller**; [`output`](Self::output) has it.
    ///
    /// # Errors
    ///
    /// [`AttemptError`] tells apart whether nothing ran (future back), it failed, or its end is in
    /// doubt (value or error inside). What a refusal or a rejection may leave behind is told at
    /// [`launch`](Self::launch).
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, MemoryJournal};
    /// # let ledger = Ledger::<u64, String>::builder().open_journal(MemoryJournal::new()).await?;
    /// let receipt = ledger.launch_block(7, async { Ok::<_, String>("paid".to_owned()) }).await?;
    /// assert_eq!(receipt, "paid");
    /// assert_eq!(ledger.output(&7).await?.as_deref(), Some("paid"));
    /// # Ok(()) }
    /// ```
    pub async fn launch_block<F, E>(&self, id: K, future: F) -> Result<V, AttemptError<F, V, E>>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        self.task(id).launch_block(future).await
    }

    /// A launch with options.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{AttemptError, Ledger, MemoryJournal};
    /// # use std::time::Duration;
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// let never = std::future::pending::<Result<(), String>>();
    /// let end = ledger.task(7).timeout(Duration::from_millis(5)).launch_block(never).await;
    /// assert!(matches!(end, Err(AttemptError::TimedOut)));
    /// # Ok(()) }
    /// ```
    #[must_use = "does nothing until it is launched"]
    pub fn task(&self, id: K) -> Task<'_, K, V> {
        Task::new(self, id)
    }

    /// The state of an id.
    ///
    /// The same as [`query_task_state_quick`](Self::query_task_state_quick), for users of the
    /// recorder crates: both read one published cell, both are linearizable, neither ever waits
    /// for the disk or the writer. An id that cannot be one is not found.
    ///
    /// # Durability
    ///
    /// Never shows what a crash could take back.
    ///
    /// # Cancel safety
    ///
    /// It never waits.
    ///
    /// # Errors
    ///
    /// None.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, MemoryJournal, TaskState};
    /// # let ledger = Ledger::<String>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger.launch("a".to_owned(), std::future::pending::<Result<(), String>>()).await?;
    /// assert_eq!(ledger.query_task_state("a").await, TaskState::Running); // durable, so visible
    /// assert_eq!(ledger.query_task_state("b").await, TaskState::NotFound);
    /// # Ok(()) }
    /// ```
    #[expect(
        clippy::unused_async,
        reason = "the recorder crates' signature, which users port from"
    )]
    pub async fn query_task_state<Q: Lookup<K> + ?Sized>(&self, id: &Q) -> TaskState {
        self.query_task_state_quick(id)
    }

    /// The state of an id, without `async`. See [`query_task_state`](Self::query_task_state).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, MemoryJournal, TaskState};
    /// # let ledger = Ledger::<String>::builder().open_journal(MemoryJournal::new()).await?;
    /// let too_long = "x".repeat(taskledger::MAX_ID_BYTES + 1);
    /// assert_eq!(ledger.query_task_state_quick(&too_long), TaskState::NotFound);
    /// ledger.mark_succeeded("a".to_owned()).await?;
    /// ledger.close().await?;
    /// assert_eq!(ledger.query_task_state_quick("a"), TaskState::Succeeded); // from memory
    /// # Ok(()) }
    /// ```
    pub fn query_task_state_quick<Q: Lookup<K> + ?Sized>(&self, id: &Q) -> TaskState {
        let state = |id: &Probe<'_>| self.shared().index.state_of(id);
        EncodedId::probe::<K, Q, _>(id, state).unwrap_or(TaskState::NotFound)
    }

    /// Takes a success back: runs `future`, which undoes it, and then forgets the id. Returns the
    /// future's own value.
    ///
    /// While it runs the id is [`TaskState::Revoking`]. If the future fails, panics or is
    /// cancelled, the id is succeeded again and can be revoked again.
    ///
    /// # Durability
    ///
    /// The future is polled only when *revoking* is on disk. When this returns `Ok`, the id is
    /// durably not found.
    ///
    /// # Cancel safety
    ///
    /// As [`launch`](Self::launch): once submitted **the revoke goes on** without its caller.
    ///
    /// # Errors
    ///
    /// [`AttemptError`]; refused when the id is not succeeded, with the future back and nothing
    /// changed. Rejected by a ledger that was poisoned in that very moment, the next open may find
    /// the revoke begun: it is interrupted, and the success stands.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, MemoryJournal, TaskState};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger.mark_succeeded(7).await?;
    /// let freed = ledger.revoke_task_block(7, async { Ok::<_, String>(4096) }).await?;
    /// assert_eq!(freed, 4096);
    /// assert_eq!(ledger.query_task_state(&7).await, TaskState::NotFound);
    /// # Ok(()) }
    /// ```
    pub async fn revoke_task_block<F, R, E>(
        &self,
        id: K,
        future: F,
    ) -> Result<R, AttemptError<F, R, E>>
    where
        F: Future<Output = Result<R, E>> + Send + 'static,
        R: Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        let (reply, end) = oneshot::channel();
        let plan = Start::new(&id, Kind::Revoke, attempt::revoke_succeeded);
        match self.start(plan, future, Waiter::End(reply)).await {
            Ok(()) => end.await.unwrap_or_else(|_| Err(AttemptError::Lost)),
            Err(not) => Err(not.into_attempt_error()),
        }
    }

    /// [`revoke_task_block`](Self::revoke_task_block) in the background; returns when *revoking* is
    /// durable.
    ///
    /// # Durability
    ///
    /// When it returns `Ok`, it is on disk that the id is being revoked.
    ///
    /// # Cancel safety
    ///
    /// As [`launch`](Self::launch): once submitted **the revoke goes on** without its caller.
    ///
    /// # Errors
    ///
    /// [`LaunchError`]; as [`revoke_task_block`](Self::revoke_task_block).
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{LaunchError, Ledger, MemoryJournal, TaskState};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger.mark_succeeded(7).await?;
    /// ledger.revoke_task(7, async { Err::<(), _>("still in use") }).await?;
    /// assert_eq!(ledger.wait(&7).await?, TaskState::Succeeded); // it failed: the success stands
    /// let unknown = ledger.revoke_task(8, async { Ok::<_, String>(()) }).await;
    /// assert!(matches!(unknown, Err(LaunchError::Refused { state: TaskState::NotFound, .. })));
    /// # Ok(()) }
    /// ```
    pub async fn revoke_task<F, R, E>(&self, id: K, future: F) -> Result<(), LaunchError<F>>
    where
        F: Future<Output = Result<R, E>> + Send + 'static,
        R: Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        let (reply, began) = oneshot::channel();
        let plan = Start::new(&id, Kind::Revoke, attempt::revoke_succeeded);
        match self.start(plan, future, Waiter::Start(reply)).await {
            Ok(()) => began.await.unwrap_or(Err(LaunchError::Lost)),
            Err(not) => Err(not.into_launch_error()),
        }
    }

    /// Records that an id succeeded, without running anything. Only an id that is not found or
    /// failed can be marked.
    ///
    /// # Durability
    ///
    /// When it returns `Ok`, the success is on disk.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, **it may be recorded or not**; ask for the state.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]. As with [`launch`](Self::launch), a new id may have made the ledger record
    /// what ids look like, whatever the answer.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{ChangeError, Ledger, MemoryJournal, TaskState};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger.mark_succeeded(7).await?;
    /// let again = ledger.mark_succeeded(7).await;
    /// assert_eq!(again, Err(ChangeError::Refused { state: TaskState::Succeeded }));
    /// assert_eq!(ledger.output(&7).await?, None); // nothing ran, so there is none
    /// # Ok(()) }
    /// ```
    pub async fn mark_succeeded(&self, id: K) -> Result<(), ChangeError> {
        let encoded = EncodedId::encode::<K, K>(&id).map_err(Rejection::Id)?;
        self.check_new(&id, &encoded).await?;
        self.change(Request::mark(encoded)).await
    }

    /// Drops all that is known of an id: it is not found afterwards, and may run again. Only a
    /// succeeded, failed or queued id can be forgotten.
    ///
    /// # Durability
    ///
    /// When it returns `Ok`, it is on disk that the id is forgotten.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, **it may be recorded or not**; ask for the state.
    ///
    /// # Errors
    ///
    /// [`ChangeError`].
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{ChangeError, Ledger, MemoryJournal, TaskState};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger.mark_succeeded(7).await?;
    /// ledger.forget(&7).await?;
    /// let again = ledger.forget(&7).await;
    /// assert_eq!(again, Err(ChangeError::Refused { state: TaskState::NotFound }));
    /// ledger.launch_block(7, async { Ok::<_, String>(()) }).await?; // it may run again
    /// # Ok(()) }
    /// ```
    pub async fn forget<Q: Lookup<K> + ?Sized>(&self, id: &Q) -> Result<(), ChangeError> {
        let id = EncodedId::encode::<K, Q>(id).map_err(Rejection::Id)?;
        self.change(Request::forget(id)).await
    }

    /// Asks the running attempt, or the running revoke, of an id to stop: its future is dropped
    /// at its next await and `Cancelled(reason)` is recorded. [`wait`](Self::wait) waits for that.
    ///
    /// An attempt of a [`run`](Self::run) is told first, by its
    /// [token](crate::Context::cancellation), and dropped only after its
    /// [grace period](crate::Task::cancel_grace). A value that it returns until then is a success; however
    /// else it ends, by an error, a panic, its timeout or its deadline, `Cancelled(reason)` is recorded. A
    /// run has no further attempt then. One
    /// that waits for its next attempt ends at once, with
    /// [`RunError::Cancelled`](crate::RunError::Cancelled); on record stays how its last attempt ended, and nothing
    /// of one that has not begun any.
    ///
    /// A future that returns in the very same poll has ended by itself, and that is recorded. Of
    /// several reasons the first one is recorded. An attempt that is ending already because its caller, or its
    /// scope, is gone has its reason: runs that wait for it take over all the same.
    ///
    /// # Durability
    ///
    /// Nothing is on disk when it returns.
    ///
    /// # Errors
    ///
    /// [`CancelError::NotRunning`] when nothing runs and no run of this process is at the id;
    /// [`CancelError::Id`].
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{CancelError, Failure, Ledger, MemoryJournal, TaskState};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger.launch(7, std::future::pending::<Result<(), String>>()).await?;
    /// ledger.cancel(&7, "not needed any more")?;
    /// assert_eq!(ledger.wait(&7).await?, TaskState::Failed);
    /// let failure = ledger.record(&7).await?.and_then(|details| details.failure);
    /// assert_eq!(failure, Some(Failure::Cancelled("not needed any more".to_owned())));
    /// let again = ledger.cancel(&7, "nothing runs");
    /// assert_eq!(again, Err(CancelError::NotRunning { state: TaskState::Failed }));
    /// # Ok(()) }
    /// ```
    pub fn cancel<Q: Lookup<K> + ?Sized>(
        &self,
        id: &Q,
        reason: impl Into<String>,
    ) -> Result<(), CancelError> {
        self.stop(id, Stop::Cancelled(attempt::asked(reason.into())))
    }

    /// As [`cancel`](Self::cancel), but `TimedOut` is recorded: for whoever measures the time himself,
    /// because not all that an attempt does is to count, as it would for a
    /// [timeout](crate::Task::timeout).
    ///
    /// # Durability
    ///
    /// Nothing is on disk when it returns.
    ///
    /// # Errors
    ///
    /// [`CancelError::NotRunning`] when nothing runs; [`CancelError::Id`].
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Failure, Ledger, MemoryJournal};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger.launch(7, std::future::pending::<Result<(), String>>()).await?;
    /// ledger.time_out(&7)?;
    /// ledger.wait(&7).await?;
    /// let failure = ledger.record(&7).await?.and_then(|details| details.failure);
    /// assert_eq!(failure, Some(Failure::TimedOut));
    /// # Ok(()) }
    /// ```
    pub fn time_out<Q: Lookup<K> + ?Sized>(&self, id: &Q) -> Result<(), CancelError> {
        self.stop(id, Stop::TimedOut)
    }

    fn stop<Q: Lookup<K> + ?Sized>(&self, id: &Q, stop: Stop) -> Result<(), CancelError> {
        let id = EncodedId::encode::<K, Q>(id)?;
        let shared = self.shared();
        // Before the attempt itself: its run must not go on with the next one. After a timeout it may.
        let flies = match &stop {
            Stop::Cancelled(reason) => shared.flights.cancel(&shared.index, &id, reason),
            Stop::TimedOut | Stop::Scope(_) => false,
        };
        match shared.index.runs(id.as_bytes()) {
            Some(key) => {
                // Without a control it is ending by itself at this moment.
                if let Some(control) = shared.control(key) {
                    control.stop(stop);
                }
                Ok(())
            }
            None if flies => Ok(()),
            None => Err(CancelError::NotRunning { state: self.state(&id) }),
        }
    }

    /// Waits until an id is neither queued, running nor revoking, and returns its state. Any number
    /// may wait. An id of which nothing is known has settled.
    ///
    /// # Durability
    ///
    /// The state it returns is on disk.
    ///
    /// # Cancel safety
    ///
    /// Dropping it has no effect.
    ///
    /// # Errors
    ///
    /// [`WaitError::InDoubt`] when the ledger failed before the end was recorded;
    /// [`WaitError::Id`].
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, MemoryJournal, TaskState};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// assert_eq!(ledger.wait(&7).await?, TaskState::NotFound); // never launched: settled
    /// ledger.launch(7, async { Err::<(), _>("no route") }).await?;
    /// let (one, other) = tokio::join!(ledger.wait(&7), ledger.wait(&7));
    /// assert_eq!((one?, other?), (TaskState::Failed, TaskState::Failed));
    /// # Ok(()) }
    /// ```
    pub async fn wait<Q: Lookup<K> + ?Sized>(&self, id: &Q) -> Result<TaskState, WaitError> {
        let id = EncodedId::encode::<K, Q>(id)?;
        self.settled(&id).await.map_err(WaitError::InDoubt)
    }

    /// As [`wait`](Self::wait).
    pub(crate) async fn settled(&self, id: &EncodedId) -> Result<TaskState, Poison> {
        let settled = |shared: &Shared| {
            let state = shared.index.state(id.as_bytes());
            match shared.poisoned() {
                Some(poison) if !state.is_settled() || shared.index.in_doubt(id.as_bytes()) => {
                    Some(Err(poison))
                }
                _ => state.is_settled().then_some(Ok(state)),
            }
        };
        if let Some(settled) = settled(self.shared()) {
            return settled;
        }
        let registered = self.shared().index.register(id);
        loop {
            let mut notified = pin!(registered.notified());
            notified.as_mut().enable();
            if let Some(settled) = settled(self.shared()) {
                return settled;
            }
            wake::guarded(notified).await;
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    pub(crate) fn state(&self, id: &EncodedId) -> TaskState {
        self.shared().index.state(id.as_bytes())
    }

    /// An id that is about to become known must come back as itself. The first one tells what ids
    /// look like where the type could not.
    pub(crate) async fn check_new(&self, id: &K, encoded: &EncodedId) -> Result<(), Rejection> {
        if self.state(encoded) != TaskState::NotFound {
            return Ok(());
        }
        self.check_unknown(id, encoded).await
    }

    /// As [`check_new`](Self::check_new), by whoever has just found that nothing is known of it.
    pub(crate) async fn check_unknown(&self, id: &K, encoded: &EncodedId) -> Result<(), Rejection> {
        encoded.check_round_trip::<K>()?;
        if self.shared().shape.get().is_none() {
            self.shared().permit().await?;
            let shape = IdShape::of_value(id);
            let value = Some(shape.to_bytes()).filter(|bytes| bytes.len() <= MAX_METADATA_ENTRY);
            if self.shared().shape.set(shape).is_ok() {
                let name = ID_SHAPE.to_owned();
                // Nobody waits for it: it is there for people who look into the ledger.
                drop(self.shared().submissions.submit(Request::SetMetadata { name, value })?);
            } else {
                self.shared().permits.add_permits(1);
            }
        }
        Ok(())
    }

    pub(crate) async fn change(&self, request: Request) -> Result<(), ChangeError> {
        self.shared().permit().await?;
        self.change_with_permit(request).await
    }

    /// As [`change`](Self::change), by whoever has waited for room.
    pub(crate) async fn change_with_permit(&self, request: Request) -> Result<(), ChangeError> {
        let ticket = self.shared().submissions.submit(request)?;
        Self::answered(ticket.await)
    }

    /// What the answer to a change says.
    pub(crate) fn answered(answer: Result<Answer, Poison>) -> Result<(), ChangeError> {
        match answer {
            Ok(Answer::Done(_)) => Ok(()),
            Ok(Answer::Refused(state)) => Err(ChangeError::Refused { state }),
            Ok(Answer::NoRoom) => {
                Err(Rejection::Metadata("all names and values are at most 64 KiB").into())
            }
            Ok(Answer::Unreadable) => Err(Rejection::Unreadable.into()),
            Ok(Answer::Superseded | Answer::Deferred) => {
                Err(ChangeError::Refused { state: TaskState::Running })
            }
            Ok(Answer::ScopeEnded) => Err(Rejection::ScopeEnded.into()),
            Err(poison) => Err(ChangeError::InDoubt(poison)),
        }
    }
}

impl<K, V> Clone for Ledger<K, V> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle), types: PhantomData }
    }
}

impl<K, V> fmt::Debug for Ledger<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = &self.handle.shared;
        f.debug_struct("Ledger")
            .field("tasks", &shared.index.count_all())
            .field("phase", &shared.submissions.phase())
            .finish_non_exhaustive()
    }
}

impl From<IdError> for ChangeError {
    fn from(error: IdError) -> Self {
        Self::Rejected(Rejection::Id(error))
    }
}
