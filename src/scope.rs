//! Structured concurrency: what runs within a scope does not outlive it.
//!
//! A [`Scope`] is the parent of what is spawned through it, and scopes nest to a tree. When one ends,
//! for whatever reason, all that runs within it is asked to stop, and only when the last of it is gone,
//! with all that it held, the scope has ended: then its `done` is called, its handle hears of it, its
//! own end is recorded if it has an id, and its parent may end.
//!
//! ```text
//!  body returns, fails, panics, times out,    no more children        the last one is gone
//!  is cancelled, dropped, aborted         --> all are asked to stop --> done --> handle, record, parent
//! ```
//!
//! This is no one's task to do: whoever leaves a scope last does it (`node.rs`). So a panic, an abort or
//! the end of a runtime leaves no orphans.

mod child;
mod handle;
mod node;
mod root;

pub use child::ChildBuilder;
pub use handle::{Child, Ended, Launched, SpawnError, StopFlag};
pub(crate) use node::{Membership, Name, Node};
pub use root::Root;

use crate::attempt::Stop;
use crate::id::TaskId;
use crate::ledger::{Ledger, TaskOutput};
use crate::sync::Arc;
use crate::task::Task;
use std::fmt;
use std::future::Future;
use std::time::Duration;

/// Why something that runs within a scope was asked to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// Somebody asked for it, for this reason.
    Asked(String),
    /// Its handle was dropped.
    HandleDropped,
    /// The scope that it runs within has ended.
    ScopeEnded,
    /// Its runtime shut down, or its task was dropped.
    TaskDropped,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked(reason) => f.write_str(reason),
            Self::HandleDropped => f.write_str(crate::attempt::HANDLE_DROPPED),
            Self::ScopeEnded => f.write_str(crate::attempt::SCOPE_ENDED),
            Self::TaskDropped => f.write_str(crate::attempt::GONE),
        }
    }
}

/// A parent of what runs within it. Clones are handles to the same scope, for any thread: holding one
/// does not keep the scope from ending, and one whose scope has ended spawns nothing more
/// ([`SpawnError::ScopeEnded`], in debug and release builds alike).
///
/// Made by [`Ledger::scope`], and handed to the bodies of [`nest`](Self::nest) and [`Task::scope`].
pub struct Scope<K, V = ()> {
    ledger: Ledger<K, V>,
    node: Arc<Node>,
    grace: Duration,
}

impl<K, V> Scope<K, V> {
    pub(crate) const fn new(ledger: Ledger<K, V>, node: Arc<Node>, grace: Duration) -> Self {
        Self { ledger, node, grace }
    }

    pub(crate) const fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The ledger that records what runs within it and has an id.
    #[must_use]
    pub const fn ledger(&self) -> &Ledger<K, V> {
        &self.ledger
    }

    /// The same scope: what is spawned through this handle may go on so long once it is asked to stop,
    /// before its future is dropped. It hears of it by [`stopping`](Self::stopping), if it is
    /// [nested](Self::nest). What is spawned within that has the same grace. Default: none, a future is
    /// dropped the next time that it waits for something. Without a timer in the runtime there is none, nor
    /// for what is asked to stop before it was polled for the first time.
    #[must_use]
    pub fn with_grace(&self, grace: Duration) -> Self {
        Self { grace, ..self.clone() }
    }

    /// Whether it takes nothing more, since it has ended or is about to.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.node.is_ending()
    }

    /// Waits until the body of this scope is asked to stop. Only a body with a
    /// [grace](Self::with_grace) lives to see it.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any time.
    pub async fn stopping(&self) {
        crate::wake::guarded(self.node.control.token().cancelled()).await;
    }

    /// Asks the body of this scope to stop. All that runs within it is asked when that has ended: at once, unless
    /// it has a [grace](Self::with_grace), which a body that waits for its children would use up.
    pub fn cancel(&self, reason: impl Into<String>) {
        let cause = Cause::Asked(crate::attempt::asked(reason.into()));
        self.node.control.stop(Stop::Scope(cause));
        if self.node.is_root() {
            self.node.end(|| ());
            self.node.is_watched();
        }
    }

    /// What runs within it now: ids, or for what has none the places in the source where it was spawned.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        self.node.names()
    }
}

impl<K: TaskId, V: TaskOutput> Scope<K, V> {
    /// Something to be spawned within it, with options.
    pub const fn child(&self) -> ChildBuilder<'_, K, V> {
        ChildBuilder::new(self)
    }

    /// Runs a future within it, in a task of its own, that is not recorded.
    ///
    /// # Cancel safety
    ///
    /// It is spawned when this returns. Dropping the handle asks it to stop; see [`Child`].
    ///
    /// # Errors
    ///
    /// [`SpawnError`], with the future: the scope has ended, or there is no tokio runtime here.
    ///
    /// # Panics
    ///
    /// None; a panic of the future is [`Ended::Panicked`].
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ended, Ledger, MemoryJournal};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// let root = ledger.scope();
    /// let child = root.spawn(async { 6 * 7 })?;
    /// assert_eq!(child.await, Ended::Finished(42));
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> Result<Child<F::Output>, SpawnError<F>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.child().spawn(future)
    }

    /// Runs a scope within it, in a task of its own, that is not recorded: what its body spawns through the
    /// scope that it is given is gone before the handle hears of its end.
    ///
    /// # Cancel safety
    ///
    /// As [`spawn`](Self::spawn).
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn), with the body.
    ///
    /// # Panics
    ///
    /// None, as [`spawn`](Self::spawn).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ended, Ledger, MemoryJournal};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// let root = ledger.scope();
    /// let sum = root.nest(|scope| async move {
    ///     let half = scope.spawn(async { 21 }).map_err(|error| error.to_string())?;
    ///     let half = half.await.finished().ok_or("no half")?;
    ///     // Whatever else runs within the scope is asked to stop now.
    ///     Ok::<_, String>(2 * half)
    /// })?;
    /// assert_eq!(sum.await, Ended::Finished(Ok(42)));
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn nest<B, F>(&self, body: B) -> Result<Child<F::Output>, SpawnError<B>>
    where
        B: FnOnce(Self) -> F + Send + 'static,
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.child().nest(body)
    }

    /// Runs something that blocks within it, on a thread for such things. It cannot be stopped from
    /// outside once it has begun: it has to look at its flag now and then. Until it has ended, so has not the scope, which
    /// says what it waits for every five seconds (a warning of `tracing`).
    ///
    /// # Cancel safety
    ///
    /// As [`spawn`](Self::spawn).
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn), with the work.
    ///
    /// # Panics
    ///
    /// None, as [`spawn`](Self::spawn).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ended, Ledger, MemoryJournal};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// let root = ledger.scope();
    /// let (begins, begun) = tokio::sync::oneshot::channel();
    /// let child = root.spawn_blocking(|stop| {
    ///     begins.send(()).expect("somebody waits");
    ///     while !stop.is_set() {
    ///         std::thread::yield_now();
    ///     }
    /// })?;
    /// begun.await?;
    /// child.cancel("enough");
    /// assert_eq!(child.await, Ended::Finished(()));
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn spawn_blocking<F, T>(&self, work: F) -> Result<Child<T>, SpawnError<F>>
    where
        F: FnOnce(StopFlag) -> T + Send + 'static,
        T: Send + 'static,
    {
        self.child().spawn_blocking(work)
    }

    /// The low-level form: makes a future part of the scope without spawning it, for other executors and
    /// for a `LocalSet`. It runs within the scope from now on, until what this returns has ended or is
    /// dropped; left unpolled, it keeps the scope from ending. Asked to stop, the future is dropped at
    /// once, whatever the grace.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    ///
    /// # Panics
    ///
    /// None, as [`spawn`](Self::spawn).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::rc::Rc;
    /// # use taskledger::{Ended, Ledger, MemoryJournal};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// let root = ledger.scope();
    /// let here = Rc::new(42);
    /// let local = tokio::task::LocalSet::new();
    /// let wrapped = root.wrap(async move { *here })?;
    /// assert_eq!(local.run_until(wrapped).await, Ended::Finished(42));
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn wrap<F: Future>(
        &self,
        future: F,
    ) -> Result<impl Future<Output = Ended<F::Output>> + use<F, K, V>, SpawnError<F>> {
        child::wrap(self, future)
    }

    /// As [`Ledger::task`], within this scope: what is launched is one of its children, recorded as such.
    /// A [`run`](Task::run) ends with its caller, as with
    /// [`cancel_with_caller`](Task::cancel_with_caller), since that is a part of the scope. It
    /// runs within the scope from when it asks its probe, or is to have an attempt, until all that it holds is gone;
    /// then it answers. While it only waits for others it does not, and is
    /// [rejected](crate::Rejection::ScopeEnded) when the scope ends.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, MemoryJournal, TaskState};
    /// # let ledger = Ledger::<String>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger
    ///     .task("nightly".to_owned())
    ///     .scope(|scope| async move {
    ///         for part in ["mail", "bills"] {
    ///             let name = format!("nightly/{part}");
    ///             scope.task(name).run(|_| async { Ok::<_, String>(()) }).await.map_err(|e| e.to_string())?;
    ///         }
    ///         Ok::<_, String>(())
    ///     })
    ///     .await?;
    /// // Run again after a crash, it would run those parts alone that have not succeeded.
    /// let details = ledger.record("nightly/mail").await?.ok_or("not found")?;
    /// let parent = details.parent.ok_or("no parent")?;
    /// assert_eq!(parent.decode::<String>()?, "nightly");
    /// # Ok(()) }
    /// ```
    pub fn task(&self, id: K) -> Task<'_, K, V> {
        Task::within(&self.ledger, id, &self.node)
    }
}

impl<K, V> Clone for Scope<K, V> {
    fn clone(&self) -> Self {
        let Self { ledger, node, grace } = self;
        Self { ledger: ledger.clone(), node: Arc::clone(node), grace: *grace }
    }
}

impl<K, V> fmt::Debug for Scope<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("node", &self.node).field("grace", &self.grace).finish()
    }
}

impl<K: TaskId, V: TaskOutput> Ledger<K, V> {
    /// A scope that nothing else is the parent of, and that is not recorded itself. Dropping it asks all
    /// that runs within to stop.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, MemoryJournal, TaskState};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// let root = ledger.scope();
    /// root.task(7).launch(async { Ok::<_, String>(()) }).await?;
    /// root.spawn(std::future::pending::<()>())?.forget();
    /// root.end().await;
    /// // Whatever it came to, it has come to its end.
    /// assert_ne!(ledger.query_task_state_quick(&7), TaskState::Running);
    /// # Ok(()) }
    /// ```
    #[track_caller]
    #[must_use = "dropping it ends it"]
    pub fn scope(&self) -> Root<K, V> {
        let name = Name::Place(std::panic::Location::caller());
        Root::new(Scope::new(self.clone(), Node::root(name), Duration::ZERO))
    }
}
