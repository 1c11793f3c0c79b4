//! A queue is made.

use super::feed::{Claimed, Inner};
use super::{Handle, Operation, Options, Perform, Queue, QueueError};
use crate::attempt::debug_text;
use crate::details::TaskDetails;
use crate::foreign::Contained;
use crate::guard::{Context, OnCrash};
use crate::id::TaskId;
use crate::ledger::{Ledger, Swept, TaskOutput};
use crate::scope::Scope;
use crate::state::{Event, Failure, TaskState};
use crate::sync::{Arc, Mutex};
use crate::task::needs_timer;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::num::NonZero;
use std::time::Duration;

/// Operations that a queue holds, unless something else is asked for.
const CAPACITY: usize = 1024;

/// A queue with options, made by [`Ledger::queue_builder`].
#[must_use = "does nothing until it is opened"]
pub struct QueueBuilder<'a, K, V> {
    ledger: &'a Ledger<K, V>,
    options: Options,
    on_crash: OnCrash,
    within: Option<Scope<K, V>>,
}

impl<K: TaskId, V: TaskOutput> Ledger<K, V> {
    /// The queue of this ledger, with what its last one has left; `perform` performs an operation. There is
    /// one at a time. Nothing is performed before it is [started](Queue::start).
    ///
    /// What was being performed when a process died is put into the queue again, behind what was waiting;
    /// see [`QueueBuilder::on_crash`]. So all failures that there are are looked at.
    ///
    /// # Durability
    ///
    /// When this returns, what has crashed is in the queue again, durably.
    ///
    /// # Cancel safety
    ///
    /// Dropped, some of what has crashed may be in the queue again; the next call goes on.
    ///
    /// # Errors
    ///
    /// [`QueueError::InUse`]; what was read or recorded meanwhile may fail.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// See [`Queue::enqueue`].
    pub async fn queue<O, P, F, E>(&self, perform: P) -> Result<Queue<K, V, O>, QueueError>
    where
        O: Operation,
        P: Fn(O, Context<K>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        self.queue_builder().open(perform).await
    }

    /// As [`queue`](Self::queue), with options.
    pub const fn queue_builder(&self) -> QueueBuilder<'_, K, V> {
        let options = Options { capacity: CAPACITY, timeout: None, max_attempts: None };
        QueueBuilder { ledger: self, options, on_crash: OnCrash::Run, within: None }
    }

    /// A queue of futures alone: nothing of it is recorded, and what is queued in the ledger is left alone.
    /// There may be any number of them.
    ///
    /// # Examples
    ///
    /// See [`Queue::enqueue_future`].
    #[must_use = "dropping the last handle stops it"]
    pub fn queue_of_futures(&self) -> Queue<K, V, ()> {
        self.queue_builder().of_futures()
    }
}

impl<K: TaskId, V: TaskOutput> QueueBuilder<'_, K, V> {
    /// How many operations and futures may wait before [`enqueue`](Queue::enqueue) waits. What has
    /// crashed, and what an earlier queue has left, may be more. Default 1,024.
    pub const fn capacity(mut self, capacity: NonZero<usize>) -> Self {
        self.options.capacity = capacity.get();
        self
    }

    /// What becomes of operations that were being performed when their process died, so that their effects
    /// may have happened. [`OnCrash::Run`], the default, puts them into the queue again;
    /// [`OnCrash::Hold`] and [`OnCrash::Ask`] leave them failed, to be looked at, and perhaps
    /// [put into the queue again](Queue::requeue).
    pub const fn on_crash(mut self, policy: OnCrash) -> Self {
        self.on_crash = policy;
        self
    }

    /// An operation that has been tried so often, crashes included, is not put into the queue again after
    /// a crash: it is given up, so that what kills its process does not kill every next one. Default: no
    /// bound.
    pub const fn max_attempts(mut self, attempts: NonZero<u32>) -> Self {
        self.options.max_attempts = Some(attempts);
        self
    }

    /// How long an operation may take; recorded as [`TimedOut`](crate::Failure::TimedOut). Needs a
    /// runtime with its time driver enabled. Default: no bound.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// The operations are children of this scope, recorded as such, and its runners run within it. When it
    /// ends, what is being performed is cancelled, and the runners go; what was not begun stays queued, and
    /// nothing more is taken. A [`stop_now`](Queue::stop_now) before that lets them finish. Default: they are
    /// nobody's children.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Context, Ledger, MemoryJournal, Scope};
    /// # let ledger = Ledger::<String>::builder().open_journal(MemoryJournal::new()).await?;
    /// let nightly = |scope: Scope<String>| async move {
    ///     let perform = |(), _| async { Ok::<_, String>(()) };
    ///     let queue = scope.ledger().queue_builder().within(&scope).open(perform).await;
    ///     let queue = queue.map_err(|e| e.to_string())?;
    ///     queue.enqueue("mail".to_owned(), ()).await.map_err(|e| e.to_string())?;
    ///     queue.start(1).map_err(|e| e.to_string())?;
    ///     queue.stop().await;
    ///     Ok::<_, String>(())
    /// };
    /// ledger.task("nightly".to_owned()).scope(nightly).await?;
    /// let mail = ledger.record("mail").await?.ok_or("not found")?;
    /// assert_eq!(mail.parent.ok_or("no parent")?.decode::<String>()?, "nightly");
    /// # Ok(()) }
    /// ```
    pub fn within(mut self, scope: &Scope<K, V>) -> Self {
        self.within = Some(scope.with_grace(Duration::ZERO));
        self
    }

    /// As [`Ledger::queue_of_futures`], with the [capacity](Self::capacity).
    #[must_use = "dropping the last handle stops it"]
    pub fn of_futures(self) -> Queue<K, V, ()> {
        self.made(None, None)
    }

    /// As [`Ledger::queue`].
    ///
    /// # Durability
    ///
    /// As [`Ledger::queue`].
    ///
    /// # Cancel safety
    ///
    /// As [`Ledger::queue`].
    ///
    /// # Errors
    ///
    /// As [`Ledger::queue`].
    ///
    /// # Panics
    ///
    /// None.
    pub async fn open<O, P, F, E>(self, perform: P) -> Result<Queue<K, V, O>, QueueError>
    where
        O: Operation,
        P: Fn(O, Context<K>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        if self.options.timeout.is_some() {
            needs_timer()?;
        }
        let own = self.ledger.shared();
        if self.within.as_ref().is_some_and(|scope| !Arc::ptr_eq(scope.ledger().shared(), own)) {
            return Err(QueueError::OtherLedger);
        }
        let claim = Claimed::new(self.ledger.shared()).ok_or(QueueError::InUse)?;
        let on_crash = self.on_crash;
        let perform: Perform<K, V> = Box::new(move |payload, context| {
            let operation = match rmp_serde::from_slice(&payload) {
                Ok(operation) => operation,
                Err(why) => {
                    let why = format!("its operation cannot be read: {why}");
                    return Box::pin(std::future::ready(Err(why)));
                }
            };
            let performed = perform(operation, context);
            Box::pin(async move { performed.await.map_err(|error| debug_text(&error)) })
        });
        let queue = self.made(Some(perform), Some(claim));
        if on_crash == OnCrash::Run {
            queue.handle.inner.recover().await?;
        }
        Ok(queue)
    }

    fn made<O>(self, perform: Option<Perform<K, V>>, claim: Option<Claimed>) -> Queue<K, V, O> {
        let (runners, root, within) = match self.within {
            Some(scope) => (scope.clone(), None, Some(Arc::clone(scope.node()))),
            None => {
                let root = self.ledger.scope();
                (Scope::clone(&root), Some(root), None)
            }
        };
        let inner = Inner {
            shared: Arc::clone(self.ledger.shared()),
            ledger: self.ledger.clone(),
            perform: perform.map(Contained::new),
            options: self.options,
            runners,
            _root: root,
            within,
            feed: Arc::default(),
            turnstile: tokio::sync::Mutex::new(()),
            claim: Mutex::new(claim.map(Arc::new)),
        };
        let handle = Arc::new(Handle { inner: Arc::new(inner) });
        Queue { handle, operations: PhantomData }
    }
}

impl<K: TaskId, V: TaskOutput> Inner<K, V> {
    /// Puts what has crashed into the queue again.
    async fn recover(&self) -> Result<(), QueueError> {
        let crashed = |details: &TaskDetails| {
            let is_one = details.failure == Some(Failure::Crashed) && details.payload.is_some();
            is_one.then(|| details.attempt().get())
        };
        // Not only those of this open: the last process may have died before it had a queue.
        let mut sweep = self.ledger.sweep(&[TaskState::Failed], crashed).await?;
        let mut all = Vec::new();
        while let Some(found) = sweep.next().await? {
            all.extend(found);
        }
        // As they were found crashed.
        all.sort_unstable_by_key(|crashed| crashed.seq);
        for Swept { id, seq, what: attempts } in &all {
            let attempts = *attempts;
            if self.options.max_attempts.is_some_and(|most| attempts >= most.get()) {
                let last = Failure::Crashed.to_string();
                let event = Event::Resolved { failure: Failure::GaveUp { attempts, last } };
                self.change(id, event, *seq, &mut None).await?;
                continue;
            }
            match self.requeue(id).await {
                // Somebody else has been at it.
                Ok(()) | Err(QueueError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<K, V> fmt::Debug for QueueBuilder<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueBuilder")
            .field("options", &self.options)
            .field("on_crash", &self.on_crash)
            .finish_non_exhaustive()
    }
}
