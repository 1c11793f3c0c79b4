//! Launches with a handle, and those of scopes.

use super::{Start, Task};
use crate::attempt::{Limits, Seat, Waiter};
use crate::error::{AttemptError, LaunchError, Rejection};
use crate::id::{EncodedId, TaskId};
use crate::ledger::{Ledger, TaskOutput};
use crate::scope::{Launched, Name, Node, Scope};
use crate::submission::Within;
use crate::sync::Arc;
use std::fmt;
use std::future::Future;
use tokio::sync::oneshot;

impl<'a, K, V> Task<'a, K, V> {
    pub(crate) fn within(ledger: &'a Ledger<K, V>, id: K, scope: &Arc<Node>) -> Self {
        let mut task = Self::new(ledger, id);
        task.options.scope = Some(Arc::clone(scope));
        task
    }
}

impl<K: TaskId, V: TaskOutput> Task<'_, K, V> {
    /// As [`Ledger::launch`], with a handle: which waits for its end, and asks it to stop when it is
    /// dropped.
    ///
    /// # Durability
    ///
    /// As [`Ledger::launch`].
    ///
    /// # Cancel safety
    ///
    /// As [`Ledger::launch`], until there is a handle; then see [`Launched`].
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
    /// # use taskledger::{AttemptError, Failure, Ledger, MemoryJournal};
    /// # let ledger = Ledger::<u64, u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// let launched = ledger.task(7).spawn(std::future::pending::<Result<u64, String>>()).await?;
    /// launched.cancel("not needed");
    /// assert!(matches!(launched.await, Err(AttemptError::Cancelled(why)) if why == "not needed"));
    /// # Ok(()) }
    /// ```
    pub async fn spawn<F, E>(self, future: F) -> Result<Launched<V, E>, LaunchError<F>>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        let Self { ledger, id, options } = self;
        let plan = match options.launch(&id) {
            Ok(plan) => plan,
            Err(reason) => return Err(LaunchError::Rejected { reason, future }),
        };
        ledger.spawn(plan, future).await
    }

    /// Runs a scope that is recorded under this id: as [`spawn_scope`](Self::spawn_scope), and waits for
    /// its end.
    ///
    /// # Durability
    ///
    /// When this returns, its end is recorded, after those of all that ran within it.
    ///
    /// # Cancel safety
    ///
    /// **Dropped, it asks the scope to stop**, and all that runs within it, as dropping the handle does.
    ///
    /// # Errors
    ///
    /// [`AttemptError`], as [`Ledger::launch_block`]; the body does not come back.
    ///
    /// # Panics
    ///
    /// None: a panic of the body is a recorded failure.
    ///
    /// # Examples
    ///
    /// See [`Scope::task`].
    pub async fn scope<B, F, E>(self, body: B) -> Result<V, AttemptError<(), V, E>>
    where
        B: FnOnce(Scope<K, V>) -> F + Send + 'static,
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        match self.spawn_scope(body).await {
            Ok(launched) => launched.await,
            Err(LaunchError::Refused { state, .. }) => {
                Err(AttemptError::Refused { state, future: () })
            }
            Err(LaunchError::Rejected { reason, .. }) => {
                Err(AttemptError::Rejected { reason, future: () })
            }
            Err(LaunchError::Lost) => Err(AttemptError::Lost),
        }
    }

    /// Launches a scope that is recorded under this id. Its body is given the [`Scope`]; what it launches
    /// through that is recorded with this id as its parent. When the body has ended, or is cancelled, or
    /// has passed its [`timeout`](Self::timeout), all that still runs within is asked to stop; the end of
    /// the scope is recorded after theirs. With a [`cancel_grace`](Self::cancel_grace) the body, and what
    /// is spawned within, may go on so long once it is asked to stop; the default is none. Asked before it
    /// was polled for the first time, it is dropped at once all the same.
    ///
    /// # Durability
    ///
    /// As [`Ledger::launch`].
    ///
    /// # Cancel safety
    ///
    /// As [`Ledger::launch`], until there is a handle; then see [`Launched`].
    ///
    /// # Errors
    ///
    /// As [`Ledger::launch`]; the body does not come back.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::future::pending;
    /// # use taskledger::{Failure, Ledger, MemoryJournal, Scope};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// let body = |scope: Scope<u64>| async move {
    ///     scope.task(8).launch(pending::<Result<(), String>>()).await.map_err(|e| e.to_string())?;
    ///     Ok::<_, String>(())
    /// };
    /// ledger.task(7).spawn_scope(body).await?.await?;
    /// // It did not wait for its child, which does not outlive it.
    /// let child = ledger.record(&8).await?.ok_or("not found")?;
    /// assert_eq!(child.failure, Some(Failure::Cancelled("its scope has ended".into())));
    /// # Ok(()) }
    /// ```
    pub async fn spawn_scope<B, F, E>(self, body: B) -> Result<Launched<V, E>, LaunchError<()>>
    where
        B: FnOnce(Scope<K, V>) -> F + Send + 'static,
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        let Self { ledger, id, mut options } = self;
        let grace = options.grace.take().filter(|grace| !grace.is_zero());
        let encoded = EncodedId::encode::<K, K>(&id).map_err(Rejection::Id);
        let plan = encoded.and_then(|encoded| Ok((options.launch(&id)?, encoded)));
        let (plan, encoded) = match plan {
            Ok(plan) => plan,
            Err(reason) => return Err(LaunchError::Rejected { reason, future: () }),
        };
        let seat = Seat::take(ledger.shared());
        let name = Name::Id(Arc::clone(ledger.shared()), encoded.clone());
        let within = Within { key: seat.key(), id: encoded };
        let node = Node::new(name, Arc::clone(seat.control()), Some(within));
        let scope = Scope::new(ledger.clone(), Arc::clone(&node), grace.unwrap_or_default());
        let start = Start {
            limits: Limits { grace, ..plan.limits },
            seat: Some(seat),
            scope: Some(node),
            ..plan
        };
        let launched = ledger.spawn(start, async move { body(scope).await }).await;
        launched.map_err(LaunchError::without_future)
    }
}

impl<K: TaskId, V: TaskOutput> Ledger<K, V> {
    async fn spawn<F, E>(
        &self,
        mut start: Start<'_, K, V>,
        future: F,
    ) -> Result<Launched<V, E>, LaunchError<F>>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        let seat = start.seat.take().unwrap_or_else(|| Seat::take(self.shared()));
        let control = Arc::clone(seat.control());
        let (reply, end) = oneshot::channel();
        let launched = Launched::new(control, end);
        let (started, began) = oneshot::channel();
        let waiter = Waiter::Both { start: started, end: reply };
        match self.start(Start { seat: Some(seat), ..start }, future, waiter).await {
            Ok(()) => match began.await.unwrap_or(Err(LaunchError::Lost)) {
                Ok(()) => Ok(launched),
                Err(error) => {
                    launched.forget();
                    Err(error)
                }
            },
            Err(not) => Err(not.into_launch_error()),
        }
    }
}
