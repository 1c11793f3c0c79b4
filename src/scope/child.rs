//! What runs within a scope, and how it is reached.

use super::{Cause, Child, Ended, Membership, Name, Node, Scope, SpawnError, StopFlag};
use crate::attempt::{self, Control, Limits, Stop, send, supervise};
use crate::error::{Outcome, panic_text};
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
use tokio::sync::oneshot;

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
