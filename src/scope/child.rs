//! What runs within a scope, and how it is reached.

use super::{Cause, Membership, Name, Node, Scope};
use crate::attempt::{self, Control, Limits, Stop, send, supervise};
use crate::error::{AttemptError, Outcome, panic_text};
use crate::foreign::Contained;
use crate::id::{EncodedId, TaskId};
use crate::ledger::TaskOutput;
use crate::shared::Shared;
use crate::sync::Arc;
use crate::task::has_timer;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

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

    fn of(outcome: Outcome<T, Infallible>, control: &Control) -> Self {
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
    fn new(control: &Arc<Control>) -> (Self, oneshot::Sender<Ended<T>>) {
        let (reply, ended) = oneshot::channel();
        (Self { control: Arc::clone(control), ended, forgotten: false }, reply)
    }

    /// Asks it to stop, for this reason. Of several reasons the first one counts.
    pub fn cancel(&self, reason: impl Into<String>) {
        self.control.stop(Stop::Scope(Cause::Asked(reason.into())));
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
    ended: Pin<Box<dyn Future<Output = Result<V, AttemptError<(), V, E>>> + Send>>,
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
        self.control.stop(Stop::Scope(Cause::Asked(reason.into())));
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
    control: Arc<Control>,
}

impl StopFlag {
    /// Whether it is to stop.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.control.stopped().is_some()
    }
}

/// Something to be spawned within a scope, with options; made by [`Scope::child`].
#[must_use = "does nothing until it is spawned"]
pub struct ChildBuilder<'a, K, V> {
    scope: &'a Scope<K, V>,
    done: Option<Box<dyn FnOnce() + Send>>,
}

impl<'a, K, V> ChildBuilder<'a, K, V> {
    pub(super) const fn new(scope: &'a Scope<K, V>) -> Self {
        Self { scope, done: None }
    }

    /// Is called when it is gone, with all that it held and all that ran within it, however it ended:
    /// after theirs, before its handle hears of it, and before its parent's. It is called wherever the
    /// last of them ended, so it should not take long. A panic of it is told by an error of `tracing`.
    pub fn done(mut self, done: impl FnOnce() + Send + 'static) -> Self {
        self.done = Some(Box::new(done));
        self
    }
}

impl<K: TaskId, V: TaskOutput> ChildBuilder<'_, K, V> {
    /// As [`Scope::spawn`].
    ///
    /// # Cancel safety
    ///
    /// As [`Scope::spawn`].
    ///
    /// # Errors
    ///
    /// As [`Scope::spawn`].
    ///
    /// # Panics
    ///
    /// None.
    #[track_caller]
    pub fn spawn<F>(self, future: F) -> Result<Child<F::Output>, SpawnError<F>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let Some(seated) = self.seat(Location::caller()) else {
            return Err(SpawnError::ScopeEnded(future));
        };
        seated.spawn(future, |_, future| future)
    }

    /// As [`Scope::nest`].
    ///
    /// # Cancel safety
    ///
    /// As [`Scope::nest`].
    ///
    /// # Errors
    ///
    /// As [`Scope::nest`].
    ///
    /// # Panics
    ///
    /// None.
    #[track_caller]
    pub fn nest<B, F>(self, body: B) -> Result<Child<F::Output>, SpawnError<B>>
    where
        B: FnOnce(Scope<K, V>) -> F + Send + 'static,
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let Some(seated) = self.seat(Location::caller()) else {
            return Err(SpawnError::ScopeEnded(body));
        };
        seated.spawn(body, |scope, body| async move { body(scope).await })
    }

    /// As [`Scope::spawn_blocking`].
    ///
    /// # Cancel safety
    ///
    /// As [`Scope::spawn_blocking`].
    ///
    /// # Errors
    ///
    /// As [`Scope::spawn_blocking`].
    ///
    /// # Panics
    ///
    /// None.
    #[track_caller]
    pub fn spawn_blocking<F, T>(self, work: F) -> Result<Child<T>, SpawnError<F>>
    where
        F: FnOnce(StopFlag) -> T + Send + 'static,
        T: Send + 'static,
    {
        let Some(seated) = self.seat(Location::caller()) else {
            return Err(SpawnError::ScopeEnded(work));
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return Err(SpawnError::NoRuntime(work));
        };
        let control = Arc::clone(&seated.scope.node.control);
        let (child, reply) = Child::new(&control);
        let ending = seated.ending(reply);
        let work = Contained::new(work);
        drop(runtime.spawn_blocking(move || {
            let mut ending = ending;
            let flag = StopFlag { control: Arc::clone(&control) };
            let outcome = match control.stopped().is_none().then(|| work.into_inner()).flatten() {
                None => Outcome::Cancelled(String::new()),
                Some(work) => match catch_unwind(AssertUnwindSafe(|| work(flag))) {
                    Ok(value) => Outcome::Succeeded(value),
                    Err(panic) => Outcome::Panicked(panic_text(panic)),
                },
            };
            ending.end(Ended::of(outcome, &control));
        }));
        Ok(child)
    }

    /// Takes its place in the scope, if that takes any.
    fn seat(self, place: &'static Location<'static>) -> Option<Seated<K, V>> {
        let Self { scope, done } = self;
        let (name, control) = (Name::Place(place), Arc::<Control>::default());
        let membership = scope.node.join(name.clone(), &control)?;
        let node = Node::new(name, control, scope.node.within.clone());
        let own = Scope::new(scope.ledger.clone(), node, scope.grace);
        Some(Seated { scope: own, membership, done })
    }
}

impl<K, V> fmt::Debug for ChildBuilder<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildBuilder").field("scope", self.scope).finish_non_exhaustive()
    }
}

/// A child that is not spawned yet.
struct Seated<K, V> {
    scope: Scope<K, V>,
    membership: Membership,
    done: Option<Box<dyn FnOnce() + Send>>,
}

impl<K: TaskId, V: TaskOutput> Seated<K, V> {
    fn spawn<W, F>(
        self,
        work: W,
        make: impl FnOnce(Scope<K, V>, W) -> F,
    ) -> Result<Child<F::Output>, SpawnError<W>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return Err(SpawnError::NoRuntime(work));
        };
        let scope = self.scope.clone();
        let (child, reply) = Child::new(&scope.node.control);
        let ending = self.ending(reply);
        let within = scope.node.within.as_ref().map(|within| within.id.clone());
        let within = within.map(|id| (Arc::clone(scope.ledger.shared()), id));
        let grace = Some(scope.grace).filter(|grace| !grace.is_zero() && has_timer());
        let plan = Plan { future: make(scope, work), ending, within };
        drop(runtime.spawn(run(plan, Limits { grace, ..Limits::default() })));
        Ok(child)
    }

    fn ending<T: Send + 'static>(self, reply: oneshot::Sender<Ended<T>>) -> Ending<T> {
        let Self { scope, membership, done } = self;
        Ending { node: Arc::clone(&scope.node), left: Some(Left { done, reply, membership }) }
    }
}

/// All that a child needs. `ending` comes after the future: it is dropped after it.
struct Plan<F, T: Send + 'static> {
    future: F,
    ending: Ending<T>,
    /// The attempt that it is a part of.
    within: Option<(Arc<Shared>, EncodedId)>,
}

/// The task of a child.
async fn run<F>(plan: Plan<F, F::Output>, limits: Limits)
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    // Bindings are dropped in reverse.
    let Plan { mut ending, within, future } = plan;
    let node = Arc::clone(&ending.node);
    let future = async move { Ok::<_, Infallible>(future.await) };
    let supervised = supervise(future, &node.control, limits);
    let outcome = match &within {
        Some((shared, id)) => attempt::within(shared, id, supervised).await,
        None => supervised.await,
    };
    ending.end(Ended::of(outcome, &node.control));
    // It ends without this task; which says, now and then, what that waits for.
    node.ended().await;
}

/// What is to be done at the end of a child.
struct Left<T> {
    done: Option<Box<dyn FnOnce() + Send>>,
    reply: oneshot::Sender<Ended<T>>,
    membership: Membership,
}

/// Brings the scope of a child to its end, when it is told to or dropped.
struct Ending<T: Send + 'static> {
    node: Arc<Node>,
    /// `None` once it has.
    left: Option<Left<T>>,
}

impl<T: Send + 'static> Ending<T> {
    fn end(&mut self, ended: Ended<T>) {
        let Some(Left { done, reply, membership }) = self.left.take() else { return };
        // What it returned is the user's, and may never be taken.
        let ended = Contained::new(ended);
        self.node.end(move || {
            // One that panics costs neither the handle nor the parent anything.
            let (membership, ended) = (membership, ended);
            if let Some(done) = done {
                let called = catch_unwind(AssertUnwindSafe(done));
                if let Err(panic) = called {
                    let panic = panic_text(panic);
                    tracing::error!(panic, "the `done` of a child panicked");
                }
            }
            if let Some(ended) = ended.into_inner() {
                send(reply, ended);
            }
            drop(membership);
        });
    }
}

impl<T: Send + 'static> Drop for Ending<T> {
    fn drop(&mut self) {
        let cause = match self.node.control.stopped() {
            Some(Stop::Scope(cause)) => cause.clone(),
            Some(Stop::Cancelled(_) | Stop::TimedOut) | None => Cause::TaskDropped,
        };
        self.end(Ended::Cancelled(cause));
    }
}

/// See [`Scope::wrap`].
#[track_caller]
pub(super) fn wrap<K, V, F: Future>(
    scope: &Scope<K, V>,
    future: F,
) -> Result<impl Future<Output = Ended<F::Output>> + use<F, K, V>, SpawnError<F>> {
    let control = Arc::<Control>::default();
    let name = Name::Place(Location::caller());
    let Some(membership) = scope.node.join(name, &control) else {
        return Err(SpawnError::ScopeEnded(future));
    };
    let wrapped = Wrapped { future, membership };
    Ok(async move {
        let Wrapped { membership, future } = wrapped;
        let future = async move { Ok::<_, Infallible>(future.await) };
        let outcome = supervise(future, &control, Limits::default()).await;
        drop(membership);
        Ended::of(outcome, &control)
    })
}

/// A future that is dropped before it leaves its scope.
struct Wrapped<F> {
    future: F,
    membership: Membership,
}
