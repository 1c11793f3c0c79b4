//! The operation queue: first in, first performed, by as many runners as are started, one operation at a
//! time each.
//!
//! ```text
//!  enqueue --Queued, durable--> backlog --a runner takes the first--> Started --> performed --> its end
//!  enqueue_future ------------> backlog --a runner takes the first--> performed
//! ```
//!
//! The backlog of the operations *is* what the ledger knows to be queued, in the order of its records: so
//! nobody has to put it in order again after a restart, and whoever is dropped while enqueuing has either
//! enqueued it or not.

mod builder;
mod error;
mod feed;
mod runner;

pub use builder::QueueBuilder;
pub use error::{EnqueueError, QueueError};

use feed::{Inner, NoRoom};

use crate::error::Rejection;
use crate::guard::Context;
use crate::id::{EncodedId, TaskId};
use crate::ledger::TaskOutput;
use crate::state::{NotKept, Output, TaskState};
use crate::submission::Answer;
use crate::sync::{Arc, lock};
use crate::task::needs_timer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::num::NonZero;
use std::pin::Pin;
use std::time::Duration;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What can be enqueued so that it outlives the process: it is kept serialized (MessagePack, with the
/// names of fields, so that a later version of the type may have more of them). It is performed as it reads
/// back: what MessagePack cannot tell apart, as `Some(None)` and `None`, or `Some(())` and `None`, comes as the
/// latter.
///
/// Implemented for every type that fits; there is nothing to implement.
pub trait Operation: Serialize + DeserializeOwned + Send + 'static {}

impl<O: Serialize + DeserializeOwned + Send + 'static> Operation for O {}

/// How an operation is performed, read from its payload, with an error as its text.
type Perform<K, V> = Box<dyn Fn(Vec<u8>, Context<K>) -> BoxFuture<Result<V, String>> + Send + Sync>;

/// A queue of operations, performed in their order. Clones are handles to the same queue, for any thread.
///
/// Made by [`Ledger::queue`](crate::Ledger::queue). With one runner the order is strict: each operation has ended before the
/// next one begins; with more, they are taken in order, and those that are taken at a time begin in any. What is enqueued before [`start`](Self::start) waits.
/// An operation that fails or panics is recorded so, and costs no runner.
///
/// **Dropping the last handle** is as [`stop`](Self::stop) that nobody waits for.
pub struct Queue<K, V, O> {
    handle: Arc<Handle<K, V>>,
    operations: PhantomData<fn(O)>,
}

/// The last one that is dropped stops the queue.
struct Handle<K, V> {
    inner: Arc<Inner<K, V>>,
}

#[derive(Clone, Copy, Debug)]
struct Options {
    capacity: usize,
    timeout: Option<Duration>,
    max_attempts: Option<NonZero<u32>>,
}

/// What became of an operation that was to be enqueued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Enqueued {
    /// It is in the queue, durably.
    Queued,
    /// The id has succeeded before: there is nothing to be done.
    AlreadySucceeded,
}

/// What a queue has left when it was stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Left {
    /// Operations that are still queued in the ledger: another queue, or the next process, performs them.
    pub operations: usize,
    /// Futures that were dropped unpolled.
    pub futures: usize,
}

impl<K: TaskId, V: TaskOutput, O: Operation> Queue<K, V, O> {
    /// Puts an operation into the queue under an id, and waits for room if there is none: first come, first
    /// served, but for a [`try_enqueue`](Self::try_enqueue), which takes whatever place is free. A call that waits
    /// has to be polled, or dropped: one that is left alone holds up those behind it, and whoever waits for the
    /// queue to end or to be idle. An operation that enqueues others waits for room like everybody else, and keeps
    /// its runner meanwhile: if all of them do, they wait for ever. Use [`try_enqueue`](Self::try_enqueue) there, or a
    /// capacity that is never reached.
    ///
    /// # Durability
    ///
    /// When this returns [`Enqueued::Queued`], it is on disk: after a crash it is in its place.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has been enqueued or it has not; never half.
    ///
    /// # Errors
    ///
    /// [`EnqueueError`], with the operation: the queue was stopped, the id is running, queued or being
    /// revoked, the operation is larger than what is kept, ...
    ///
    /// # Panics
    ///
    /// None; a panic of `Serialize` is an error.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Enqueued, Ledger, MemoryJournal, TaskState};
    /// # let ledger = Ledger::<u64, usize>::builder().open_journal(MemoryJournal::new()).await?;
    /// let queue = ledger.queue(|text: String, _| async move { Ok::<_, String>(text.len()) }).await?;
    /// queue.enqueue(7, "hello".to_owned()).await?;
    /// assert_eq!(ledger.query_task_state_quick(&7), TaskState::Queued);
    /// queue.start(1)?;
    /// assert_eq!(ledger.wait(&7).await?, TaskState::Succeeded);
    /// assert_eq!(ledger.output(&7).await?, Some(5));
    /// assert_eq!(queue.enqueue(7, "again".to_owned()).await?, Enqueued::AlreadySucceeded);
    /// # Ok(()) }
    /// ```
    pub async fn enqueue(&self, id: K, operation: O) -> Result<Enqueued, EnqueueError<O>> {
        self.put(id, operation, true).await
    }

    /// As [`enqueue`](Self::enqueue), but if there is no room, the operation comes back at once
    /// ([`EnqueueError::Full`]). What others are enqueuing at the time has its place already.
    ///
    /// # Durability
    ///
    /// As [`enqueue`](Self::enqueue).
    ///
    /// # Cancel safety
    ///
    /// As [`enqueue`](Self::enqueue).
    ///
    /// # Errors
    ///
    /// As [`enqueue`](Self::enqueue).
    ///
    /// # Panics
    ///
    /// None.
    pub async fn try_enqueue(&self, id: K, operation: O) -> Result<Enqueued, EnqueueError<O>> {
        self.put(id, operation, false).await
    }

    async fn put(&self, id: K, operation: O, waits: bool) -> Result<Enqueued, EnqueueError<O>> {
        let inner = &self.handle.inner;
        let shared = inner.ledger.shared();
        if inner.perform.is_none() {
            return Err(EnqueueError::FuturesOnly(operation));
        }
        let payload = match crate::attempt::output_of(&operation, shared) {
            Output::Kept(bytes) => bytes,
            Output::NotKept(NotKept::TooLarge { size }) => {
                let cap = shared.options.output_cap;
                return Err(EnqueueError::TooLarge { size, cap, operation });
            }
            Output::NotKept(NotKept::NotSerializable(why)) => {
                return Err(EnqueueError::NotSerializable { why, operation });
            }
            Output::Absent => Vec::new(),
        };
        let encoded = match EncodedId::encode::<K, K>(&id).map_err(Rejection::Id) {
            Ok(encoded) => encoded,
            Err(reason) => return Err(EnqueueError::Rejected { reason, operation }),
        };
        match inner.ledger.state(&encoded) {
            TaskState::Succeeded => return Ok(Enqueued::AlreadySucceeded),
            // There is no room to wait for.
            state @ (TaskState::Queued | TaskState::Running | TaskState::Revoking) => {
                return Err(EnqueueError::Refused { state, operation });
            }
            TaskState::NotFound | TaskState::Failed => {}
        }
        let coming = match inner.room(waits).await {
            Ok(coming) => coming,
            Err(NoRoom::Stopped) => return Err(EnqueueError::Stopped(operation)),
            Err(NoRoom::Full) => return Err(EnqueueError::Full(operation)),
            Err(NoRoom::Rejected(reason)) => {
                return Err(EnqueueError::Rejected { reason, operation });
            }
        };
        if let Err(reason) = inner.ledger.check_new(&id, &encoded).await {
            return Err(EnqueueError::Rejected { reason, operation });
        }
        let mut coming = Some(coming);
        let put = inner.queued(&encoded, payload, &mut coming).await;
        drop(coming);
        match put {
            Ok(Answer::Done(_)) => Ok(Enqueued::Queued),
            Ok(Answer::Refused(TaskState::Succeeded)) => Ok(Enqueued::AlreadySucceeded),
            Ok(Answer::Refused(state)) => Err(EnqueueError::Refused { state, operation }),
            Ok(_) => {
                let state = inner.ledger.state(&encoded);
                Err(EnqueueError::Refused { state, operation })
            }
            Err(reason) => Err(EnqueueError::Rejected { reason, operation }),
        }
    }

    /// Puts a failed operation into the queue again, as it was, whatever room there is, also when the queue was
    /// stopped: whatever has failed since it was taken from there has its payload still.
    ///
    /// # Durability
    ///
    /// As [`enqueue`](Self::enqueue).
    ///
    /// # Cancel safety
    ///
    /// As [`enqueue`](Self::enqueue).
    ///
    /// # Errors
    ///
    /// [`QueueError::Refused`] if the id has not failed, or has no payload.
    ///
    /// # Panics
    ///
    /// None.
    pub async fn requeue(&self, id: &K) -> Result<(), QueueError> {
        let inner = &self.handle.inner;
        let encoded = EncodedId::encode::<K, K>(id).map_err(Rejection::Id)?;
        inner.requeue(&encoded).await
    }
}

impl<K: TaskId, V: TaskOutput, O> Queue<K, V, O> {
    /// Puts a future into the queue that is not recorded, and is gone with the process; it waits for room
    /// as [`enqueue`](Self::enqueue) does, and for its turn among the operations.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has been enqueued or it has not.
    ///
    /// # Errors
    ///
    /// [`EnqueueError::Stopped`], with the future; [`EnqueueError::Rejected`] if the ledger is closed or
    /// poisoned, so that there will be no room.
    ///
    /// # Panics
    ///
    /// None. A panic of the future is told by a warning of `tracing`, and costs no runner.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, MemoryJournal};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// let queue = ledger.queue_of_futures();
    /// let (reply, answer) = tokio::sync::oneshot::channel();
    /// queue.enqueue_future(async { drop(reply.send(42)) }).await?;
    /// queue.start(1)?;
    /// assert_eq!(answer.await?, 42);
    /// # Ok(()) }
    /// ```
    pub async fn enqueue_future<F>(&self, future: F) -> Result<(), EnqueueError<F>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match self.handle.inner.room(true).await {
            Ok(coming) => {
                coming.becomes(Box::pin(future));
                Ok(())
            }
            Err(NoRoom::Stopped) => Err(EnqueueError::Stopped(future)),
            Err(NoRoom::Full) => Err(EnqueueError::Full(future)),
            Err(NoRoom::Rejected(reason)) => {
                Err(EnqueueError::Rejected { reason, operation: future })
            }
        }
    }

    /// As [`enqueue_future`](Self::enqueue_future), but if there is no room, the future comes back at once.
    ///
    /// # Errors
    ///
    /// [`EnqueueError::Full`] and [`EnqueueError::Stopped`], with the future.
    ///
    /// # Panics
    ///
    /// None.
    pub fn try_enqueue_future<F>(&self, future: F) -> Result<(), EnqueueError<F>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match self.handle.inner.room_now() {
            Ok(coming) => {
                coming.becomes(Box::pin(future));
                Ok(())
            }
            Err(NoRoom::Stopped) => Err(EnqueueError::Stopped(future)),
            Err(NoRoom::Full) => Err(EnqueueError::Full(future)),
            Err(NoRoom::Rejected(reason)) => {
                Err(EnqueueError::Rejected { reason, operation: future })
            }
        }
    }

    /// Adds so many runners, to the runtime that this is called in. When that goes down, they are gone: what they
    /// have not begun is left to others, and what they are performing is cut off as soon as it waits for something:
    /// futures are gone, and operations are recorded as [`Cancelled`](crate::Failure::Cancelled), and stay failed
    /// unless they are [put back](Self::requeue). A runner that is started before that does not wait for it.
    ///
    /// # Errors
    ///
    /// [`QueueError::Stopped`], also if the scope that it is [within](QueueBuilder::within) has ended: those
    /// that were added before, if it was at that very time, end by that. [`QueueError::NoRuntime`] outside of a
    /// tokio runtime, and rejected in one without its time driver if operations have a timeout, and when the
    /// ledger is closed or poisoned: none was added.
    ///
    /// # Panics
    ///
    /// None.
    pub fn start(&self, runners: usize) -> Result<(), QueueError> {
        let inner = &self.handle.inner;
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(QueueError::NoRuntime);
        }
        if let Some(reason) = inner.shared.submissions.rejection() {
            return Err(reason.into());
        }
        if inner.options.timeout.is_some() {
            needs_timer()?;
        }
        for _ in 0..runners {
            let running = runner::Running::new(inner).ok_or(QueueError::Stopped)?;
            match inner.runners.spawn(running.run()) {
                Ok(child) => child.forget(),
                // Its place is given back when it is dropped.
                Err(_) => return Err(QueueError::Stopped),
            }
        }
        Ok(())
    }

    /// Takes nothing more, and waits until all that is queued is performed and the runners are gone. What cannot be
    /// read is passed over, and left to the next queue. Without a runner nothing would ever be: then it returns at
    /// once, and says what is left, as it does when the ledger is closed or poisoned meanwhile. Then the ledger may
    /// have another queue. An operation of this queue that waits for that waits for itself, and an `enqueue` that
    /// has begun is waited for: it has to be polled, or dropped.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the queue goes on to its end all the same; the ledger may have another one when a `stop` has
    /// returned, or the last handle is gone, with its runners and what they perform.
    ///
    /// # Panics
    ///
    /// None.
    pub async fn stop(&self) -> Left {
        self.handle.inner.drain();
        self.handle.inner.gone().await
    }

    /// Takes nothing more, waits until what is being performed has ended and the runners are gone, and says
    /// what is left. Operations stay queued in the ledger; futures are dropped.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the queue goes on to its end all the same; the ledger may have another one when a `stop` has
    /// returned, or the last handle is gone, with its runners and what they perform.
    ///
    /// # Panics
    ///
    /// None.
    pub async fn stop_now(&self) -> Left {
        self.handle.inner.halt();
        self.handle.inner.gone().await
    }

    /// Waits until nothing waits and nothing is being performed, and returns whether that is so: without a
    /// runner, or when the ledger is closed or poisoned, what waits would wait for ever, and it is not.
    ///
    /// Where operations enqueue others before they end, that is when all of it is done; a
    /// [`stop`](Self::stop) would take those no more.
    ///
    /// # Cancel safety
    ///
    /// Can be dropped at any time.
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
    /// let queue = ledger.queue(|(), _| async { Ok::<_, String>(()) }).await?;
    /// queue.enqueue(7, ()).await?;
    /// assert!(!queue.wait_idle().await); // nobody performs it
    /// queue.start(1)?;
    /// assert!(queue.wait_idle().await);
    /// queue.enqueue(8, ()).await?; // and on
    /// # Ok(()) }
    /// ```
    pub async fn wait_idle(&self) -> bool {
        self.handle.inner.idles().await
    }

    /// How many operations and futures wait to be performed. What is being enqueued counts when it is on
    /// record, and what a runner has taken until its start is.
    #[must_use]
    pub fn len(&self) -> usize {
        let feed = lock(&self.handle.inner.feed);
        self.handle.inner.waiting(&feed)
    }

    /// Whether none waits to be performed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many operations and futures are being performed.
    #[must_use]
    pub fn performing(&self) -> usize {
        lock(&self.handle.inner.feed).performing
    }

    /// How many runners there are.
    #[must_use]
    pub fn runners(&self) -> usize {
        lock(&self.handle.inner.feed).runners
    }

    /// Whether there are runners: while there is none, nothing is performed.
    #[must_use]
    pub fn running(&self) -> bool {
        self.runners() > 0
    }

    /// Whether nothing waits and nothing is being performed, with or without runners.
    #[must_use]
    pub fn idle(&self) -> bool {
        let feed = lock(&self.handle.inner.feed);
        self.handle.inner.waiting(&feed) == 0 && feed.performing == 0
    }
}

impl<K, V, O> Clone for Queue<K, V, O> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle), operations: PhantomData }
    }
}

impl<K, V> Drop for Handle<K, V> {
    fn drop(&mut self) {
        self.inner.drain();
    }
}

impl<K, V, O> fmt::Debug for Queue<K, V, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("feed", &*lock(&self.handle.inner.feed))
            .finish_non_exhaustive()
    }
}
