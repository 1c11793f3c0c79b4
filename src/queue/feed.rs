//! What a queue is made of: who waits for what.

use super::{BoxFuture, Left, Options, Perform, QueueError};
use crate::error::Rejection;
use crate::foreign::Contained;
use crate::id::{EncodedId, TaskId};
use crate::ledger::{Ledger, TaskOutput};
use crate::sabotage::{self, Sabotage};
use crate::scope::{Node, Root, Scope};
use crate::shared::Shared;
use crate::state::{Event, SeqNo, TaskState};
use crate::submission::{Answer, Request};
use crate::sync::{Arc, Mutex, lock};
use crate::wake;
use std::collections::VecDeque;
use std::pin::pin;

pub(super) struct Inner<K, V> {
    pub(super) shared: Arc<Shared>,
    pub(super) ledger: Ledger<K, V>,
    /// `None` if it performs futures alone, and leaves what is queued in the ledger alone.
    pub(super) perform: Option<Perform<K, V>>,
    pub(super) options: Options,
    /// Within which the runners run.
    pub(super) runners: Scope<K, V>,
    /// Of which that is the scope, if it is of nobody else.
    pub(super) _root: Option<Root<K, V>>,
    /// Within which the operations run, if that was asked for.
    pub(super) within: Option<Arc<Node>>,
    pub(super) feed: Mutex<Feed>,
    /// Held by whoever waits for room next: so they come in the order in which they called.
    pub(super) turnstile: tokio::sync::Mutex<()>,
    /// Given back when it has stopped.
    pub(super) claim: Mutex<Option<Claimed>>,
}

#[derive(Debug)]
pub(super) struct Feed {
    /// What is queued up to here was taken.
    pub(super) taken: SeqNo,
    /// Futures, each behind what had been queued when it came.
    pub(super) futures: VecDeque<(SeqNo, Contained<BoxFuture<()>>)>,
    /// Operations that are about to be queued.
    pub(super) coming: usize,
    /// Operations and futures that are being performed.
    pub(super) performing: usize,
    pub(super) runners: usize,
    pub(super) phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// Takes nothing more, and performs what there is.
    Draining,
    /// Performs nothing more.
    Stopped,
}

/// That a ledger has a queue. Gone, it may have another one.
#[derive(Debug)]
pub(super) struct Claimed(Arc<Shared>);

impl Claimed {
    pub(super) fn new(shared: &Arc<Shared>) -> Option<Self> {
        shared.claim_queue().then(|| Self(Arc::clone(shared)))
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.0.release_queue();
    }
}

impl<K, V> Inner<K, V> {
    /// Operations and futures that are queued, or are about to be.
    pub(super) fn waiting(&self, feed: &Feed) -> usize {
        let operations =
            self.perform.as_ref().map_or(0, |_| self.shared.index.count(TaskState::Queued));
        operations + feed.futures.len()
    }

    /// Takes nothing more; without a runner, nothing is performed either.
    pub(super) fn drain(&self) {
        let mut feed = lock(&self.feed);
        if feed.phase == Phase::Open {
            feed.phase = Phase::Draining;
        }
        drop(feed);
        self.changed();
    }

    pub(super) fn halt(&self) {
        lock(&self.feed).phase = Phase::Stopped;
        self.changed();
    }

    pub(super) fn changed(&self) {
        wake::caught(|| self.shared.index.tell_backlog());
    }

    /// Waits until the runners are gone.
    pub(super) async fn gone(&self) -> Left {
        loop {
            let mut changed = pin!(self.shared.index.backlog_changed());
            changed.as_mut().enable();
            let gone = {
                let feed = lock(&self.feed);
                feed.runners == 0 && feed.coming == 0
            };
            if gone {
                break;
            }
            wake::guarded(changed).await;
        }
        let mut feed = lock(&self.feed);
        feed.phase = Phase::Stopped;
        let futures = std::mem::take(&mut feed.futures);
        let left = Left { operations: self.waiting(&feed), futures: futures.len() };
        drop(feed);
        // Another queue may perform what is left.
        drop(lock(&self.claim).take());
        // Of the user's.
        drop(futures);
        left
    }

    /// Waits until there is nothing to do; `false` if there is, and nobody does it.
    pub(super) async fn idles(&self) -> bool {
        loop {
            let mut changed = pin!(self.shared.index.backlog_changed());
            changed.as_mut().enable();
            {
                let feed = lock(&self.feed);
                if self.waiting(&feed) + feed.coming + feed.performing == 0 {
                    return true;
                }
                if feed.runners == 0 {
                    return false;
                }
            }
            wake::guarded(changed).await;
        }
    }

    /// Takes a place in the queue, if there is one now.
    pub(super) fn room_now(self: &Arc<Self>) -> Result<Coming<K, V>, NoRoom> {
        // What ends within the scope would stay queued.
        let ends = self.within.as_ref().is_some_and(|scope| scope.is_ending());
        let mut feed = lock(&self.feed);
        if ends || feed.phase != Phase::Open {
            return Err(NoRoom::Stopped);
        }
        let taken = self.waiting(&feed) + feed.coming;
        if taken >= self.options.capacity && !sabotage::is(Sabotage::NeverFull) {
            return Err(NoRoom::Full);
        }
        feed.coming += 1;
        Ok(Coming { queue: Arc::clone(self) })
    }

    /// Waits for a place in the queue.
    pub(super) async fn room(self: &Arc<Self>, waits: bool) -> Result<Coming<K, V>, NoRoom> {
        if !waits {
            return self.room_now();
        }
        let _turn = wake::guarded(self.turnstile.lock()).await;
        loop {
            let mut changed = pin!(self.shared.index.backlog_changed());
            changed.as_mut().enable();
            match self.room_now() {
                Err(NoRoom::Full) if self.shared.submissions.rejection().is_none() => {}
                room => return room,
            }
            wake::guarded(changed).await;
        }
    }
}

pub(super) enum NoRoom {
    Stopped,
    Full,
}

/// A place in the queue for something that is about to come.
pub(super) struct Coming<K, V> {
    queue: Arc<Inner<K, V>>,
}

impl<K, V> Coming<K, V> {
    pub(super) fn becomes(self, future: BoxFuture<()>) {
        let mut feed = lock(&self.queue.feed);
        let behind = self.queue.shared.index.last_queued();
        feed.futures.push_back((behind, Contained::new(future)));
    }
}

impl<K, V> Drop for Coming<K, V> {
    fn drop(&mut self) {
        lock(&self.queue.feed).coming -= 1;
        self.queue.changed();
    }
}

impl<K: TaskId, V: TaskOutput> Inner<K, V> {
    /// Puts it into the queue, if its id may be.
    pub(super) async fn queued(
        &self,
        id: &EncodedId,
        payload: Vec<u8>,
    ) -> Result<Answer, Rejection> {
        let shared = self.ledger.shared();
        loop {
            let cell = shared.index.cell(id.as_bytes());
            let since = match cell.state {
                TaskState::NotFound => SeqNo::ZERO,
                TaskState::Failed => {
                    let details = self.ledger.details(id.clone()).await;
                    let details = details.map_err(|_| Rejection::Unreadable)?;
                    match details.filter(|details| details.cell == cell) {
                        Some(details) => details.since,
                        None => continue,
                    }
                }
                state @ (TaskState::Queued
                | TaskState::Running
                | TaskState::Succeeded
                | TaskState::Revoking) => return Ok(Answer::Refused(state)),
            };
            let event = Event::Queued { payload: Some(payload.clone()), since };
            let answer = self.change(id, event, cell.seq).await?;
            // Else something has happened to it meanwhile.
            if answer != Answer::Superseded {
                return Ok(answer);
            }
        }
    }

    /// Puts a failed operation into the queue once more.
    pub(super) async fn requeue(&self, id: &EncodedId) -> Result<(), QueueError> {
        let shared = self.ledger.shared();
        let details = self.ledger.details(id.clone()).await?;
        let refused = || QueueError::Refused { state: shared.index.state(id.as_bytes()) };
        let details = details.filter(|details| details.state() == TaskState::Failed);
        let details = details.ok_or_else(refused)?;
        let Some(payload) = details.payload else { return Err(refused()) };
        let event = Event::Queued { payload: Some(payload), since: details.since };
        let answer = self.change(id, event, details.cell.seq).await?;
        if matches!(answer, Answer::Done(_)) { Ok(()) } else { Err(refused()) }
    }

    pub(super) async fn change(
        &self,
        id: &EncodedId,
        event: Event,
        after: SeqNo,
    ) -> Result<Answer, Rejection> {
        let shared = self.ledger.shared();
        shared.permit().await?;
        let change = Request::Change { id: id.clone(), event, after: Some(after) };
        Ok(shared.submissions.submit(change)?.await?)
    }
}
