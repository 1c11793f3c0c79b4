//! Starting something for an id: what may start, and what comes back if it may not.

use crate::attempt::{self, Kind, Live, Plan, Waiter};
use crate::error::{AttemptError, LaunchError, Rejection};
use crate::id::{EncodedId, TaskId};
use crate::ledger::{Ledger, TaskOutput};
use crate::shared::Shared;
use crate::state::{Event, TaskState};
use std::fmt;
use std::future::Future;
use std::panic::catch_unwind;
use std::time::Duration;
use tokio::sync::oneshot;

/// A launch with options, made by [`Ledger::task`].
#[must_use = "does nothing until it is launched"]
pub struct Task<'a, K, V> {
    ledger: &'a Ledger<K, V>,
    id: K,
    timeout: Option<Duration>,
}

impl<'a, K, V> Task<'a, K, V> {
    pub(crate) const fn new(ledger: &'a Ledger<K, V>, id: K) -> Self {
        Self { ledger, id, timeout: None }
    }
}

impl<K: TaskId, V: TaskOutput> Task<'_, K, V> {
    /// Drops the future after this time, counted from when it starts, and records
    /// [`TimedOut`](crate::Failure::TimedOut). Needs a runtime with its time
    /// driver enabled; without one the launch is rejected.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
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
        let (reply, began) = oneshot::channel();
        let Self { ledger, id, timeout } = self;
        let plan = Start { id, kind: Kind::Launch, timeout, success: attempt::launch_succeeded };
        match ledger.start(plan, future, Waiter::Start(reply)).await {
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
        let (reply, end) = oneshot::channel();
        let Self { ledger, id, timeout } = self;
        let plan = Start { id, kind: Kind::Launch, timeout, success: attempt::launch_succeeded };
        match ledger.start(plan, future, Waiter::End(reply)).await {
            Ok(()) => end.await.unwrap_or_else(|_| Err(AttemptError::Lost)),
            Err(not) => Err(not.into_attempt_error()),
        }
    }
}

impl<K: fmt::Debug, V> fmt::Debug for Task<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl<K: TaskId, V: TaskOutput> Ledger<K, V> {
    /// Submits the start and gives the future to a task of its own, in one step without an await
    /// between: whoever is dropped has either done both or nothing.
    pub(crate) async fn start<F, R, E>(
        &self,
        start: Start<K, R>,
        future: F,
        waiter: Waiter<F, R, E>,
    ) -> Result<(), NotStarted<F>>
    where
        F: Future<Output = Result<R, E>> + Send + 'static,
        R: Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        let id = match self.admit(&start).await {
            Ok(id) => id,
            Err(Turned::Refused(state)) => return Err(NotStarted::Refused(state, future)),
            Err(Turned::Rejected(reason)) => return Err(NotStarted::Rejected(reason, future)),
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            self.shared().permits.add_permits(1);
            return Err(NotStarted::Rejected(Rejection::NoRuntime, future));
        };
        let Start { kind, timeout, success, .. } = start;
        match Live::submit(self.shared(), id, kind) {
            Ok((live, ticket, control)) => {
                let plan = Plan { ticket, control, timeout, success, future, waiter, live };
                drop(runtime.spawn(attempt::run(plan)));
                Ok(())
            }
            Err(reason) => Err(NotStarted::Rejected(reason, future)),
        }
    }

    /// Answers what memory is sure of, and takes a permit for the rest.
    async fn admit<R>(&self, start: &Start<K, R>) -> Result<EncodedId, Turned> {
        let id = EncodedId::encode::<K, K>(&start.id).map_err(Rejection::Id)?;
        let cell = self.cell(&id);
        let sure = !self.shared().index.in_doubt(id.as_bytes());
        if start.kind == Kind::Launch && cell.state == TaskState::Succeeded && sure {
            return Err(Turned::Refused(cell.state));
        }
        if let Some(rejection) = self.shared().submissions.rejection() {
            return Err(rejection.into());
        }
        let startable = match start.kind {
            Kind::Launch => matches!(cell.state, TaskState::NotFound | TaskState::Failed),
            Kind::Revoke => cell.state == TaskState::Succeeded,
        };
        if !startable {
            return Err(Turned::Refused(cell.state));
        }
        self.check_new(&start.id, &id).await?;
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Rejection::NoRuntime.into());
        }
        if start.timeout.is_some() && !has_timer() {
            return Err(Rejection::NoTimer.into());
        }
        self.shared().permit().await?;
        Ok(id)
    }
}

/// Whether the runtime can tell when a timeout is over. It says so only by a panic.
fn has_timer() -> bool {
    catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).is_ok()
}

/// What is to be started.
pub(crate) struct Start<K, R> {
    pub(crate) id: K,
    pub(crate) kind: Kind,
    pub(crate) timeout: Option<Duration>,
    pub(crate) success: fn(&R, &Shared) -> Event,
}

enum Turned {
    Refused(TaskState),
    Rejected(Rejection),
}

impl From<Rejection> for Turned {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

pub(crate) enum NotStarted<F> {
    Refused(TaskState, F),
    Rejected(Rejection, F),
}

impl<F> NotStarted<F> {
    pub(crate) fn into_launch_error(self) -> LaunchError<F> {
        match self {
            Self::Refused(state, future) => LaunchError::Refused { state, future },
            Self::Rejected(reason, future) => LaunchError::Rejected { reason, future },
        }
    }

    pub(crate) fn into_attempt_error<R, E>(self) -> AttemptError<F, R, E> {
        match self {
            Self::Refused(state, future) => AttemptError::Refused { state, future },
            Self::Rejected(reason, future) => AttemptError::Rejected { reason, future },
        }
    }
}
