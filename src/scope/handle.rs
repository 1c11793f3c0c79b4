//! How what runs within a scope is reached, and what it comes to.

use super::Cause;
use crate::attempt::{Control, Stop};
use crate::error::{AttemptError, Outcome};
use crate::sync::Arc;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What became of something that ran within a scope and is not recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended<T> {
    /// It returned this, whether or not it was asked to stop before.
    Finished(T),
    /// It panicked with this message.
    Panicked(String),
    /// It was asked to stop, for this cause, and is gone.
    Cancelled(Cause),
}

impl<T> Ended<T> {
    /// What it returned, if it did.
    pub fn finished(self) -> Option<T> {
        match self {
            Self::Finished(value) => Some(value),
            Self::Panicked(_) | Self::Cancelled(_) => None,
        }
    }

    pub(super) fn of(outcome: Outcome<T, Infallible>, control: &Control) -> Self {
        match outcome {
            Outcome::Succeeded(value) => Self::Finished(value),
            Outcome::Panicked(text) => Self::Panicked(text),
            Outcome::Cancelled(reason) => Self::Cancelled(match control.stopped() {
                Some(Stop::Scope(cause)) => cause.clone(),
                Some(Stop::Cancelled(_) | Stop::TimedOut) | None => Cause::Asked(reason),
            }),
            // It has no limits, and no errors.
            Outcome::TimedOut => Self::Cancelled(Cause::TaskDropped),
            Outcome::Failed(never) => match never {},
        }
    }
}

/// Why something was not spawned. It comes back.
#[non_exhaustive]
pub enum SpawnError<F> {
    /// The scope has ended, or is about to: it takes nothing more.
    ScopeEnded(F),
    /// There is no tokio runtime here to run it on.
    NoRuntime(F),
}

impl<F> SpawnError<F> {
    /// What was to be spawned.
    pub fn into_inner(self) -> F {
        match self {
            Self::ScopeEnded(inner) | Self::NoRuntime(inner) => inner,
        }
    }
}

impl<F> fmt::Display for SpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ScopeEnded(_) => "the scope has ended, and takes nothing more",
            Self::NoRuntime(_) => {
                "there is no tokio runtime to run it on; call this from within one"
            }
        })
    }
}

impl<F> fmt::Debug for SpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ScopeEnded(_) => "ScopeEnded",
            Self::NoRuntime(_) => "NoRuntime",
        })
    }
}

impl<F> std::error::Error for SpawnError<F> {}

/// A handle to something that runs within a scope and is not recorded: a future of what becomes of it,
/// ready once it is gone with all that ran within it.
///
/// **Dropped, it asks its child to stop**, unless that has ended; [`forget`](Self::forget) leaves it to
/// its scope. Waiting by `&mut` can be given up without dropping it.
#[must_use = "dropping the handle asks the child to stop; `forget` leaves it to its scope"]
pub struct Child<T> {
    control: Arc<Control>,
    ended: oneshot::Receiver<Ended<T>>,
    forgotten: bool,
}

impl<T> Child<T> {
    pub(super) fn new(control: &Arc<Control>) -> (Self, oneshot::Sender<Ended<T>>) {
        let (reply, ended) = oneshot::channel();
        (Self { control: Arc::clone(control), ended, forgotten: false }, reply)
    }

    /// Asks it to stop, for this reason. Of several reasons the first one counts.
    pub fn cancel(&self, reason: impl Into<String>) {
        self.control.stop(Stop::Scope(Cause::Asked(crate::attempt::asked(reason.into()))));
    }

    /// Leaves it to its scope, which it does not outlive.
    pub fn forget(mut self) {
        self.forgotten = true;
    }

    /// Whether it is gone.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended.is_terminated() || !self.ended.is_empty()
    }
}

impl<T> Future for Child<T> {
    type Output = Ended<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended<T>> {
        if self.ended.is_terminated() {
            // Polled once more than a future is.
            return Poll::Pending;
        }
        let ended = Pin::new(&mut self.ended).poll(context);
        ended.map(|ended| ended.unwrap_or(Ended::Cancelled(Cause::TaskDropped)))
    }
}

impl<T> Drop for Child<T> {
    fn drop(&mut self) {
        if !self.forgotten {
            self.control.stop(Stop::Scope(Cause::HandleDropped));
        }
    }
}

impl<T> fmt::Debug for Child<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("ended", &self.is_ended()).finish_non_exhaustive()
    }
}

/// A handle to a recorded attempt, made by [`Task::spawn`](crate::Task::spawn) and
/// [`Task::spawn_scope`](crate::Task::spawn_scope): a future of its end, ready once that is recorded.
///
/// **Dropped, it asks the attempt to stop** (recorded as `Cancelled`), unless that has ended;
/// [`forget`](Self::forget) lets it go on. Waiting by `&mut` can be given up without dropping it.
#[must_use = "dropping the handle asks the attempt to stop; `forget` lets it go on"]
pub struct Launched<V, E> {
    control: Arc<Control>,
    ended: BoxFuture<Result<V, AttemptError<(), V, E>>>,
    forgotten: bool,
}

impl<V, E> Launched<V, E> {
    pub(crate) fn new<F>(
        control: Arc<Control>,
        ended: oneshot::Receiver<Result<V, AttemptError<F, V, E>>>,
    ) -> Self
    where
        F: Send + 'static,
        V: Send + 'static,
        E: Send + 'static,
    {
        let ended = Box::pin(async move {
            let ended = ended.await.unwrap_or(Err(AttemptError::Lost));
            ended.map_err(AttemptError::without_future)
        });
        Self { control, ended, forgotten: false }
    }

    /// Asks it to stop, for this reason. Of several reasons the first one counts.
    pub fn cancel(&self, reason: impl Into<String>) {
        self.control.stop(Stop::Scope(Cause::Asked(crate::attempt::asked(reason.into()))));
    }

    /// Lets it go on; it does not outlive its scope, if it has one.
    pub fn forget(mut self) {
        self.forgotten = true;
    }
}

impl<V, E> Future for Launched<V, E> {
    type Output = Result<V, AttemptError<(), V, E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.ended.as_mut().poll(context)
    }
}

impl<V, E> Drop for Launched<V, E> {
    fn drop(&mut self) {
        if !self.forgotten {
            self.control.stop(Stop::Scope(Cause::HandleDropped));
        }
    }
}

impl<V, E> fmt::Debug for Launched<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launched").finish_non_exhaustive()
    }
}

/// Tells work that blocks whether it is to stop.
#[derive(Clone, Debug)]
pub struct StopFlag {
    pub(super) control: Arc<Control>,
}

impl StopFlag {
    /// Whether it is to stop.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.control.stopped().is_some()
    }
}
