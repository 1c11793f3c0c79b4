//! A runner takes the first of what is queued, performs it, and takes the next.

use super::BoxFuture;
use super::feed::{Inner, Phase};
use crate::attempt::{self, Began, Control, Kind, Limits, Waiter, supervise};
use crate::details::Life;
use crate::error::Outcome;
use crate::foreign::Contained;
use crate::guard::Context;
use crate::id::{EncodedId, TaskId};
use crate::ledger::TaskOutput;
use crate::sabotage::{self, Sabotage};
use crate::state::{SeqNo, TaskState};
use crate::submission::Begin;
use crate::sync::{Arc, lock};
use crate::task::{NotStarted, Start};
use crate::wake;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::OnceLock;
use tokio::sync::oneshot;

/// The place of a runner, given back when it is gone.
pub(super) struct Running<K, V> {
    queue: Arc<Inner<K, V>>,
}

impl<K, V> Drop for Running<K, V> {
    fn drop(&mut self) {
        if sabotage::is(Sabotage::KeepPlace) {
            return;
        }
        lock(&self.queue.feed).runners -= 1;
        self.queue.changed();
    }
}

/// An operation that was taken, and goes back unless a runner has done what there was to be done with it.
struct Taken<'a, K, V> {
    queue: &'a Inner<K, V>,
    operation: Option<(SeqNo, EncodedId)>,
}

impl<K, V> Drop for Taken<'_, K, V> {
    fn drop(&mut self) {
        if let Some((seq, id)) = self.operation.take() {
            lock(&self.queue.feed).returned.insert(seq, id);
            self.queue.changed();
        }
    }
}

/// Something that is being performed, also when its runner is gone.
struct Performing<K, V> {
    queue: Arc<Inner<K, V>>,
}

impl<K, V> Drop for Performing<K, V> {
    fn drop(&mut self) {
        lock(&self.queue.feed).performing -= 1;
        self.queue.changed();
    }
}

enum Work {
    Operation(SeqNo, EncodedId),
    Future(Contained<BoxFuture<()>>),
}

/// An error that is recorded as the text that it is.
struct Verbatim(String);

impl fmt::Debug for Verbatim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<K, V> Running<K, V> {
    /// One more, unless the queue takes nothing any more.
    pub(super) fn new(queue: &Arc<Inner<K, V>>) -> Option<Self> {
        let mut feed = lock(&queue.feed);
        if feed.phase != Phase::Open {
            return None;
        }
        feed.runners += 1;
        Some(Self { queue: Arc::clone(queue) })
    }
}

impl<K: TaskId, V: TaskOutput> Running<K, V> {
    /// Until there is nothing more to do.
    pub(super) async fn run(self) {
        let queue = &self.queue;
        loop {
            // Work that never waits would leave nobody else a turn.
            tokio::task::consume_budget().await;
            let Some(work) = queue.next().await else { return };
            let performing = Arc::new(Performing { queue: Arc::clone(queue) });
            match work {
                Work::Operation(seq, id) => queue.perform(seq, id, &performing).await,
                Work::Future(future) => perform_future(future).await,
            }
            drop(performing);
        }
    }
}

enum Next {
    Work(Work),
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    End,
}

impl<K: TaskId, V: TaskOutput> Inner<K, V> {
    /// Takes what is first, or waits for it.
    async fn next(&self) -> Option<Work> {
        loop {
            let mut changed = pin!(self.ledger.shared().index.backlog_changed());
            changed.as_mut().enable();
            match self.take() {
                Next::Work(work) => {
                    // There is room for another one.
                    self.changed();
                    return Some(work);
                }
                Next::End => return None,
                Next::Nothing => wake::guarded(changed).await,
            }
        }
    }

    fn take(&self) -> Next {
        let shared = self.ledger.shared();
        let mut feed = lock(&self.feed);
        // What it would begin now would be turned away.
        let ends = self.within.as_ref().is_some_and(|scope| scope.is_ending());
        if ends || feed.phase == Phase::Stopped || shared.submissions.rejection().is_some() {
            return Next::End;
        }
        let operation = self.first(&feed);
        let before = |behind: SeqNo| operation.as_ref().is_none_or(|(seq, _)| behind < *seq);
        if feed.futures.front().is_some_and(|(behind, _)| before(*behind)) {
            if let Some((_, future)) = feed.futures.pop_front() {
                feed.performing += 1;
                return Next::Work(Work::Future(future));
            }
        }
        match operation {
            Some((seq, id)) => {
                if feed.returned.remove(&seq).is_none() {
                    feed.taken = seq;
                }
                feed.performing += 1;
                Next::Work(Work::Operation(seq, id))
            }
            // What others have taken may come back.
            None if feed.phase == Phase::Draining && feed.coming + feed.performing == 0 => {
                Next::End
            }
            None => Next::Nothing,
        }
    }

    /// Performs what the record at `seq` has queued, to its recorded end.
    async fn perform(
        self: &Arc<Self>,
        seq: SeqNo,
        encoded: EncodedId,
        performing: &Arc<Performing<K, V>>,
    ) {
        // The runtime of a runner may go down while it waits for the ledger.
        let mut taken = Taken { queue: self, operation: Some((seq, encoded.clone())) };
        let begun = self.begin(seq, encoded, performing).await;
        taken.operation = None;
        if let Some(end) = begun {
            end.await;
        }
    }

    /// Begins it, unless it is not to be performed; waits for its end then.
    async fn begin(
        self: &Arc<Self>,
        seq: SeqNo,
        encoded: EncodedId,
        performing: &Arc<Performing<K, V>>,
    ) -> Option<impl Future<Output = ()>> {
        let shared = self.ledger.shared();
        let unread = |why: &dyn fmt::Display| {
            let id = shared.id_text(&encoded);
            tracing::error!(id, %why, "an operation cannot be read, and stays in the queue");
        };
        let details = match self.ledger.details(encoded.clone()).await {
            Ok(details) => details,
            Err(why) => {
                unread(&why);
                return None;
            }
        };
        // Somebody may have taken it out of the queue meanwhile.
        let queued = details.filter(|now| now.state() == TaskState::Queued && now.cell.seq == seq);
        let details = queued?;
        let id: K = match encoded.decode() {
            Ok(id) => id,
            Err(why) => {
                unread(&why);
                return None;
            }
        };
        let slot = Arc::new(OnceLock::new());
        let (queue, told) = (Arc::clone(self), Arc::clone(&slot));
        let life = Life::of(&details);
        let payload = details.payload.unwrap_or_default();
        // A runner may be dropped, with its scope or its runtime, before what it performs.
        let performing = Arc::clone(performing);
        let future = async move {
            let _performing = performing;
            // Set before this is polled.
            match (told.get(), queue.perform.as_ref().and_then(Contained::inner)) {
                (Some(context), Some(perform)) => {
                    let context: &Context<K> = context;
                    perform(payload, context.clone()).await.map_err(Verbatim)
                }
                _ => std::future::pending().await,
            }
        };
        let id = Arc::new(id);
        let (ledger, of) = (self.ledger.clone(), Arc::clone(&id));
        let began = Box::new(move |began: Began| {
            // Called once.
            let _ = slot.set(Context::new(&ledger, of, encoded, began));
        });
        let start = Start {
            limits: Limits { timeout: self.options.timeout, ..Limits::default() },
            begin: Begin { after: Some(seq), queued: Some(life), ..Begin::default() },
            within: self.within.clone(),
            began: Some(began),
            ..Start::new(&*id, Kind::Launch, attempt::launch_succeeded)
        };
        let (reply, end) = oneshot::channel();
        match self.ledger.start(start, future, Waiter::End(reply)).await {
            // It is on record then, or nothing is recorded any more.
            Ok(()) => Some(async move { drop(end.await) }),
            Err(NotStarted::Refused(..)) => None,
            Err(NotStarted::Rejected(reason, _)) => {
                tracing::warn!(%reason, "an operation was not performed, and stays in the queue");
                None
            }
        }
    }
}

async fn perform_future(future: Contained<BoxFuture<()>>) {
    let Some(future) = future.into_inner() else { return };
    let future = async move {
        future.await;
        Ok::<_, Infallible>(())
    };
    if let Outcome::Panicked(panic) =
        supervise(future, &Control::default(), Limits::default()).await
    {
        tracing::warn!(panic, "a future of a queue panicked");
    }
}
