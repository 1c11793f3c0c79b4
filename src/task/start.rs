//! What every start has in common, of a launch, a run or a revoke.

use crate::attempt::{self, Began, Kind, Limits, Live, Place, Plan, Seat, Waiter};
use crate::error::{AttemptError, LaunchError, Rejection};
use crate::id::{EncodedId, TaskId};
use crate::ledger::{Ledger, TaskOutput};
use crate::scope::{Name, Node};
use crate::shared::Shared;
use crate::state::{Event, TaskState};
use crate::submission::Begin;
use crate::sync::Arc;
use std::fmt;
use std::future::Future;
use std::panic::catch_unwind;
use std::time::Duration;

impl<K: TaskId, V: TaskOutput> Ledger<K, V> {
    /// Submits the start and gives the future to a task of its own, in one step without an await
    /// between: whoever is dropped has either done both or nothing.
    pub(crate) async fn start<F, R, E>(
        &self,
        start: Start<'_, K, R>,
        future: F,
        waiter: Waiter<F, R, E>,
    ) -> Result<(), NotStarted<F>>
    where
        F: Future<Output = Result<R, E>> + Send + 'static,
        R: Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        match self.make_room(&start).await {
            Ok(id) => self.start_with_room(id, start, future, waiter),
            Err(turned) => Err(turned.away(future)),
        }
    }

    /// All that a start may have to wait for, which is little as long as it need not: with the id comes
    /// a permit, which [`start_with_room`](Self::start_with_room) has to be given in the same poll.
    pub(crate) async fn make_room<R>(&self, start: &Start<'_, K, R>) -> Result<EncodedId, Turned> {
        let id = self.admit(start).await?;
        self.shared().permit().await?;
        Ok(id)
    }

    /// Submits the start and gives the future to a task of its own.
    pub(crate) fn start_with_room<F, R, E>(
        &self,
        id: EncodedId,
        start: Start<'_, K, R>,
        future: F,
        waiter: Waiter<F, R, E>,
    ) -> Result<(), NotStarted<F>>
    where
        F: Future<Output = Result<R, E>> + Send + 'static,
        R: Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            self.shared().permits.add_permits(1);
            return Err(NotStarted::Rejected(Rejection::NoRuntime, future));
        };
        let Start { kind, seat, limits, success, begin, after, began, within, scope, .. } = start;
        let seat = seat.unwrap_or_else(|| Seat::take(self.shared()));
        let mut place = Place { scope, membership: None };
        let mut begin = begin;
        if let Some(parent) = within {
            let name = Name::Id(Arc::clone(self.shared()), id.clone());
            place.membership = parent.join(name, seat.control());
            if place.membership.is_none() {
                self.shared().permits.add_permits(1);
                return Err(NotStarted::Rejected(Rejection::ScopeEnded, future));
            }
            begin.within.clone_from(&parent.within);
        }
        match Live::submit(seat, id, kind, begin) {
            Ok((live, ticket)) => {
                let parent = match &after {
                    None => tracing::Span::current(),
                    Some(_) => tracing::Span::none(),
                };
                let plan = Plan {
                    ticket,
                    limits,
                    began,
                    parent,
                    after,
                    success,
                    future,
                    waiter,
                    place,
                    live,
                };
                drop(runtime.spawn(attempt::run(plan)));
                Ok(())
            }
            Err(reason) => Err(NotStarted::Rejected(reason, future)),
        }
    }

    /// Answers what memory is sure of.
    pub(crate) async fn admit<R>(&self, start: &Start<'_, K, R>) -> Result<EncodedId, Turned> {
        let index = &self.shared().index;
        let mut state = TaskState::NotFound;
        let id = EncodedId::probe::<K, K, _>(start.id, |id| {
            state = index.state_of(id);
            let repeats = start.kind == Kind::Launch && state == TaskState::Succeeded;
            // A repeat is answered without anything that would have to be kept.
            let sure = || !index.doubts() || !id.with_bytes(|id| index.in_doubt(id));
            if repeats && sure() { None } else { Some(id.with_bytes(EncodedId::from_bytes)) }
        });
        let Some(id) = id.map_err(Rejection::Id)? else {
            return Err(Turned::Refused(state));
        };
        if let Some(rejection) = self.shared().submissions.rejection() {
            return Err(rejection.into());
        }
        let startable = match start.kind {
            Kind::Launch if start.begin.queued.is_some() => state == TaskState::Queued,
            Kind::Launch => matches!(state, TaskState::NotFound | TaskState::Failed),
            Kind::Revoke => state == TaskState::Succeeded,
        };
        if !startable {
            return Err(Turned::Refused(state));
        }
        if state == TaskState::NotFound {
            self.check_unknown(start.id, &id).await?;
        }
        needs_runtime()?;
        if start.limits.any() {
            needs_timer()?;
        }
        Ok(id)
    }
}

/// Whether the runtime can tell when a timeout is over. It says so only by a panic.
pub(crate) fn has_timer() -> bool {
    catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).is_ok()
}

fn needs_runtime() -> Result<(), Rejection> {
    tokio::runtime::Handle::try_current().map(drop).map_err(|_| Rejection::NoRuntime)
}

/// For whatever waits for a time.
pub(crate) fn needs_timer() -> Result<(), Rejection> {
    needs_runtime()?;
    if has_timer() { Ok(()) } else { Err(Rejection::NoTimer) }
}

/// What is to be started.
pub(crate) struct Start<'a, K, R> {
    pub(crate) id: &'a K,
    pub(crate) kind: Kind,
    pub(crate) success: fn(&R, &Shared) -> Event,
    pub(crate) limits: Limits,
    /// Where it is reached, if somebody has to know that before it is submitted.
    pub(crate) seat: Option<Seat>,
    pub(crate) begin: Begin,
    /// The scope that it runs within.
    pub(crate) within: Option<Arc<Node>>,
    /// The scope that it is.
    pub(crate) scope: Option<Arc<Node>>,
    /// See [`Plan`].
    pub(crate) after: Option<tracing::Span>,
    /// See [`Plan`].
    pub(crate) began: Option<Box<dyn FnOnce(Began) + Send + Sync>>,
}

impl<'a, K, R> Start<'a, K, R> {
    pub(crate) const fn new(id: &'a K, kind: Kind, success: fn(&R, &Shared) -> Event) -> Self {
        Self {
            id,
            kind,
            success,
            limits: Limits { timeout: None, deadline: None, grace: None },
            seat: None,
            begin: Begin {
                fingerprint: None,
                after: None,
                within: None,
                queued: None,
                settled: false,
            },
            within: None,
            scope: None,
            after: None,
            began: None,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Turned {
    Refused(TaskState),
    Rejected(Rejection),
}

impl Turned {
    pub(crate) fn away<F>(self, future: F) -> NotStarted<F> {
        match self {
            Self::Refused(state) => NotStarted::Refused(state, future),
            Self::Rejected(reason) => NotStarted::Rejected(reason, future),
        }
    }
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
