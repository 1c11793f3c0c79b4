//! Many ids at once: their records go to the disk together.

use super::{Ledger, TaskOutput};
use crate::attempt::{self, Kind, Limits, Live, Place, Plan, Waiter};
use crate::error::{ChangeError, LaunchError, Rejection};
use crate::id::{EncodedId, Lookup, TaskId};
use crate::state::TaskState;
use crate::submission::Request;
use crate::task::{NotStarted, Start, Turned};
use std::fmt;
use std::future::Future;
use tokio::sync::oneshot;

/// What the ids of one call may take of a group commit, and what each counts beside its bytes.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
const REQUEST_BYTES: usize = 64;

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
    /// When it returns, what is `Ok` is on disk: all of it in one group commit. Only
    /// where the ids take more than 4 MiB, 64 bytes more counted for each, it takes several: so much is
    /// about sixty thousand short ids.
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
    /// When it returns, what is `Ok` is on disk: all of it in one group commit. Only
    /// where the ids take more than 4 MiB, 64 bytes more counted for each, it takes several: so much is
    /// about sixty thousand short ids.
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
    /// When it returns, it is on disk of what is `Ok` that it runs: all of it in one group commit, with
    /// the bound of [`mark_succeeded_all`](Self::mark_succeeded_all).
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
        let mut tasks = tasks.into_iter().peekable();
        let mut submitted = Vec::new();
        while tasks.peek().is_some() {
            let (mut room, mut admitted) = (Room::new(), Vec::new());
            let mut full = false;
            while let Some((id, future)) = tasks.next_if(|_| !full) {
                let start: Start<'_, K, V> =
                    Start::new(&id, Kind::Launch, attempt::launch_succeeded);
                let admitted_id = self.admit(&start).await;
                // The next one may be as large.
                full = admitted_id.as_ref().is_ok_and(|id| !room.takes(Some(id)));
                admitted.push((admitted_id, future));
            }
            submitted.extend(self.start_all(admitted).await);
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

    /// Starts what was admitted, in one group. As a single start, without an await between.
    async fn start_all<F, E>(
        &self,
        admitted: Vec<(Result<EncodedId, Turned>, F)>,
    ) -> Vec<Result<oneshot::Receiver<Result<(), LaunchError<F>>>, NotStarted<F>>>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        let ids: Vec<_> = admitted.iter().filter_map(|(id, _)| id.as_ref().ok().cloned()).collect();
        let submitted = Live::submit_all(self.shared(), ids).await;
        let rejection = submitted.as_ref().err().cloned().unwrap_or(Rejection::Closed);
        let mut submitted = submitted.unwrap_or_default().into_iter();
        let begin = |(id, future): (Result<EncodedId, Turned>, F)| {
            if let Err(turned) = id {
                return Err(turned.away(future));
            }
            let (Some((live, ticket)), Ok(runtime)) =
                (submitted.next(), tokio::runtime::Handle::try_current())
            else {
                return Err(NotStarted::Rejected(rejection.clone(), future));
            };
            let (reply, began) = oneshot::channel();
            let plan = Plan {
                ticket,
                limits: Limits::default(),
                began: None,
                parent: tracing::Span::current(),
                after: None,
                success: attempt::launch_succeeded,
                future,
                waiter: Waiter::Start(reply),
                place: Place::default(),
                live,
            };
            drop(runtime.spawn(attempt::run(plan)));
            Ok(began)
        };
        admitted.into_iter().map(begin).collect()
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
        let mut answers = Vec::with_capacity(requests.len());
        let mut rest = requests.into_iter().peekable();
        while rest.peek().is_some() {
            let (mut asked, mut rejections, mut room) = (Vec::new(), Vec::new(), Room::new());
            while let Some(next) = rest.next_if(|next| match next {
                Ok(request) => room.takes(request.id()),
                Err(_) => true,
            }) {
                match next {
                    Ok(request) => {
                        asked.push(request);
                        rejections.push(None);
                    }
                    Err(rejection) => rejections.push(Some(rejection)),
                }
            }
            let mut tickets = self.shared().submit_all(asked).await.map(Vec::into_iter);
            for rejection in rejections {
                answers.push(match (rejection, &mut tickets) {
                    (Some(rejection), _) => Err(rejection.into()),
                    (None, Err(rejection)) => Err(rejection.clone().into()),
                    (None, Ok(tickets)) => match tickets.next() {
                        Some(ticket) => Self::answered(ticket.await),
                        None => Err(Rejection::Closed.into()),
                    },
                });
            }
        }
        answers
    }
}

/// What one group commit may have of one call: everybody else waits for it.
#[derive(Debug)]
struct Room(usize);

impl Room {
    const fn new() -> Self {
        Self(GROUP_BYTES)
    }

    /// Whether there is room for this id as well. There always is for the first.
    fn takes(&mut self, id: Option<&EncodedId>) -> bool {
        let first = self.0 == GROUP_BYTES;
        let bytes = REQUEST_BYTES + id.map_or(0, |id| id.as_bytes().len());
        match self.0.checked_sub(bytes) {
            Some(left) => self.0 = left,
            None if first => self.0 = 0,
            None => return false,
        }
        true
    }
}
