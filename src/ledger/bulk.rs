//! Many ids at once: their records go to the disk together.

use super::{Ledger, TaskOutput};
use crate::attempt::{self, Kind, Waiter};
use crate::error::{ChangeError, LaunchError, Rejection};
use crate::id::{EncodedId, Lookup, TaskId};
use crate::state::TaskState;
use crate::submission::Request;
use crate::task::Start;
use std::fmt;
use std::future::Future;
use tokio::sync::oneshot;

impl<K: TaskId, V: TaskOutput> Ledger<K, V> {
    /// The states of many ids, in their order, each as of this call. See
    /// [`query_task_state_quick`](Self::query_task_state_quick).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, MemoryJournal, TaskState};
    /// # let ledger = Ledger::<String>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger.mark_succeeded("a".to_owned()).await?;
    /// assert_eq!(ledger.states(["a", "b"]), [TaskState::Succeeded, TaskState::NotFound]);
    /// # Ok(()) }
    /// ```
    pub fn states<'a, Q: Lookup<K> + ?Sized + 'a>(
        &self,
        ids: impl IntoIterator<Item = &'a Q>,
    ) -> Vec<TaskState> {
        ids.into_iter().map(|id| self.query_task_state_quick(id)).collect()
    }

    /// [`mark_succeeded`](Self::mark_succeeded) for many ids; the answers are in their order.
    ///
    /// # Durability
    ///
    /// When it returns, what is `Ok` is on disk: hundreds of ids at a time in one group commit.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, **some may be recorded**; ask for the states.
    ///
    /// # Errors
    ///
    /// Of each id, as [`mark_succeeded`](Self::mark_succeeded).
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
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// let marked = ledger.mark_succeeded_all(0..5_000).await;
    /// assert!(marked.iter().all(Result::is_ok));
    /// assert_eq!(ledger.succeeded_tasks().len(), 5_000);
    /// # Ok(()) }
    /// ```
    pub async fn mark_succeeded_all(
        &self,
        ids: impl IntoIterator<Item = K>,
    ) -> Vec<Result<(), ChangeError>> {
        let mut requests = Vec::new();
        for id in ids {
            requests.push(self.new_id(&id).await.map(Request::mark));
        }
        self.change_all(requests).await
    }

    /// [`forget`](Self::forget) for many ids; the answers are in their order.
    ///
    /// # Durability
    ///
    /// When it returns, what is `Ok` is on disk: hundreds of ids at a time in one group commit.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, **some may be recorded**; ask for the states.
    ///
    /// # Errors
    ///
    /// Of each id, as [`forget`](Self::forget).
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
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger.mark_succeeded_all([7, 8]).await;
    /// let forgotten = ledger.forget_all([&7, &8, &9]).await;
    /// assert!(forgotten[0].is_ok() && forgotten[1].is_ok());
    /// assert!(forgotten[2].is_err()); // there was nothing to forget
    /// # Ok(()) }
    /// ```
    pub async fn forget_all<'a, Q: Lookup<K> + ?Sized + 'a>(
        &self,
        ids: impl IntoIterator<Item = &'a Q>,
    ) -> Vec<Result<(), ChangeError>> {
        let encoded = |id| EncodedId::encode::<K, Q>(id).map(Request::forget);
        let requests = ids.into_iter().map(|id| encoded(id).map_err(Rejection::Id));
        self.change_all(requests.collect()).await
    }

    /// [`launch`](Self::launch) for many ids; the answers are in their order. All of them are submitted
    /// before the first is waited for.
    ///
    /// # Durability
    ///
    /// When it returns, it is on disk of what is `Ok` that it runs: hundreds of ids at a time in one
    /// group commit.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, what was submitted **goes on**.
    ///
    /// # Errors
    ///
    /// Of each id, as [`launch`](Self::launch).
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
    /// # let ledger = Ledger::<u64, u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// let squares = (0..100).map(|n| (n, async move { Ok::<_, ()>(n * n) }));
    /// assert!(ledger.launch_all(squares).await.iter().all(Result::is_ok));
    /// assert_eq!(ledger.wait(&7).await?, TaskState::Succeeded);
    /// assert_eq!(ledger.output(&7).await?, Some(49));
    /// # Ok(()) }
    /// ```
    pub async fn launch_all<F, E>(
        &self,
        tasks: impl IntoIterator<Item = (K, F)>,
    ) -> Vec<Result<(), LaunchError<F>>>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        let mut submitted = Vec::new();
        for (id, future) in tasks {
            let (reply, began) = oneshot::channel();
            let start = Start::new(&id, Kind::Launch, attempt::launch_succeeded);
            let started = self.start(start, future, Waiter::Start(reply)).await;
            submitted.push(started.map(|()| began));
        }
        let mut answers = Vec::with_capacity(submitted.len());
        for began in submitted {
            answers.push(match began {
                Ok(began) => began.await.unwrap_or(Err(LaunchError::Lost)),
                Err(not) => Err(not.into_launch_error()),
            });
        }
        answers
    }

    async fn new_id(&self, id: &K) -> Result<EncodedId, Rejection> {
        let encoded = EncodedId::encode::<K, K>(id).map_err(Rejection::Id)?;
        self.check_new(id, &encoded).await?;
        Ok(encoded)
    }

    /// What can be asked for is submitted together; the rest has its answer already.
    async fn change_all(
        &self,
        requests: Vec<Result<Request, Rejection>>,
    ) -> Vec<Result<(), ChangeError>> {
        let most = self.shared().together();
        let mut answers = Vec::with_capacity(requests.len());
        let mut rest = requests.into_iter().peekable();
        while rest.peek().is_some() {
            let chunk: Vec<_> = rest.by_ref().take(most).collect();
            let asked: Vec<Request> = chunk.iter().flatten().cloned().collect();
            let mut tickets = match self.shared().submit_all(&asked).await {
                Ok(tickets) => Ok(tickets.into_iter()),
                Err(rejection) => Err(rejection),
            };
            for request in chunk {
                answers.push(match (request, &mut tickets) {
                    (Err(rejection), _) => Err(rejection.into()),
                    (Ok(_), Err(rejection)) => Err(rejection.clone().into()),
                    (Ok(_), Ok(tickets)) => match tickets.next() {
                        Some(ticket) => Self::answered(ticket.await),
                        None => Err(Rejection::Closed.into()),
                    },
                });
            }
        }
        answers
    }
}
