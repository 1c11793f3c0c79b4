//! What a queue is made of: who waits for what.

use super::{BoxFuture, Left, Options, Perform, QueueError};
use crate::error::{Poison, Rejection};
use crate::foreign::Contained;
use crate::id::{EncodedId, TaskId};
use crate::ledger::{Ledger, TaskOutput};
use crate::sabotage::{self, Sabotage};
use crate::scope::{Node, Root, Scope};
use crate::shared::Shared;
use crate::state::{Event, SeqNo, TaskState};
use crate::submission::{Answer, Request, Ticket};
use crate::sync::{Arc, Mutex, lock};
use crate::wake;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Wake, Waker, ready};

pub(super) struct Inner<K, V> {
    pub(super) shared: Arc<Shared>,
    pub(super) ledger: Ledger<K, V>,
    /// `None` if it performs futures alone, and leaves what is queued in the ledger alone.
    pub(super) perform: Option<Contained<Perform<K, V>>>,
    pub(super) options: Options,
    /// Within which the runners run.
    pub(super) runners: Scope<K, V>,
    /// Of which that is the scope, if it is of nobody else.
    pub(super) _root: Option<Root<K, V>>,
    /// Within which the operations run, if that was asked for.
    pub(super) within: Option<Arc<Node>>,
    pub(super) feed: Arc<Mutex<Feed>>,
    /// Held by whoever waits for room next: so they come in the order in which they called.
    pub(super) turnstile: tokio::sync::Mutex<()>,
    /// Given back when it has stopped.
    pub(super) claim: Mutex<Option<Arc<Claimed>>>,
}

/// Nobody performs anything more. Whoever has a place may still have the feed, and be the writer, which drops nothing
/// of the user's.
impl<K, V> Drop for Inner<K, V> {
    fn drop(&mut self) {
        let futures = std::mem::take(&mut lock(&self.feed).futures);
        drop(futures);
    }
}

#[derive(Debug, Default)]
pub(super) struct Feed {
    /// What is queued up to here was taken.
    pub(super) taken: SeqNo,
    /// But for these, whose runners were gone before they had begun them.
    pub(super) returned: BTreeMap<SeqNo, EncodedId>,
    /// Futures, each behind what had been queued when it came.
    pub(super) futures: VecDeque<(SeqNo, Contained<BoxFuture<()>>)>,
    /// Operations that are about to be queued.
    pub(super) coming: usize,
    /// Operations and futures that are being performed.
    pub(super) performing: usize,
    pub(super) runners: usize,
    pub(super) phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
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

    /// Whether there is anything that a runner would take.
    fn has_next(&self, feed: &Feed) -> bool {
        !feed.futures.is_empty() || self.first(feed).is_some()
    }

    /// The operation that is first to be taken.
    pub(super) fn first(&self, feed: &Feed) -> Option<(SeqNo, EncodedId)> {
        self.perform.as_ref()?;
        let returned = feed.returned.first_key_value().map(|(seq, id)| (*seq, id.clone()));
        returned.or_else(|| self.shared.index.queued_after(feed.taken))
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
        tell_backlog(&self.shared);
    }

    /// Waits until the runners are gone, and what they performed and what was being enqueued with them.
    pub(super) async fn gone(&self) -> Left {
        loop {
            let mut changed = pin!(self.shared.index.backlog_changed());
            changed.as_mut().enable();
            let gone = {
                let feed = lock(&self.feed);
                feed.runners + feed.coming + feed.performing == 0
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
                let waiting = self.waiting(&feed);
                if waiting + feed.coming + feed.performing == 0 {
                    return true;
                }
                let is_left = feed.coming + feed.performing == 0 && !self.has_next(&feed);
                // What a runner could not read is passed over, and stays.
                if feed.runners == 0 || is_left {
                    return false;
                }
            }
            wake::guarded(changed).await;
        }
    }

    /// Takes a place in the queue, if there is one now.
    pub(super) fn room_now(&self) -> Result<Coming, NoRoom> {
        // What ends within the scope would stay queued.
        let ends = self.within.as_ref().is_some_and(|scope| scope.is_ending());
        let mut feed = lock(&self.feed);
        if ends || feed.phase != Phase::Open {
            return Err(NoRoom::Stopped);
        }
        // Then nothing is performed any more, futures neither.
        if let Some(reason) = self.shared.submissions.rejection() {
            return Err(NoRoom::Rejected(reason));
        }
        let taken = self.waiting(&feed) + feed.coming;
        if taken >= self.options.capacity && !sabotage::is(Sabotage::NeverFull) {
            return Err(NoRoom::Full);
        }
        Ok(Coming::new(self, &mut feed))
    }

    /// Waits for a place in the queue.
    pub(super) async fn room(&self, waits: bool) -> Result<Coming, NoRoom> {
        if !waits {
            return self.room_now();
        }
        let _turn = wake::guarded(self.turnstile.lock()).await;
        loop {
            let mut changed = pin!(self.shared.index.backlog_changed());
            changed.as_mut().enable();
            match self.room_now() {
                Err(NoRoom::Full) => {}
                room => return room,
            }
            match &self.within {
                // Without runners nobody else would say so.
                Some(scope) => drop(wake::unless(wake::guarded(changed), scope.ends()).await),
                None => wake::guarded(changed).await,
            }
        }
    }
}

pub(super) enum NoRoom {
    Stopped,
    Full,
    /// Nothing is recorded any more.
    Rejected(Rejection),
}

/// A place in the queue for something that is about to come.
pub(super) struct Coming {
    shared: Arc<Shared>,
    feed: Arc<Mutex<Feed>>,
    /// No other queue is to begin before this has come.
    claim: Option<Arc<Claimed>>,
}

impl Coming {
    fn new<K, V>(queue: &Inner<K, V>, feed: &mut Feed) -> Self {
        feed.coming += 1;
        let claim = lock(&queue.claim).clone();
        Self { shared: Arc::clone(&queue.shared), feed: Arc::clone(&queue.feed), claim }
    }

    pub(super) fn becomes(self, future: BoxFuture<()>) {
        let mut feed = lock(&self.feed);
        let behind = self.shared.index.last_queued();
        feed.futures.push_back((behind, Contained::new(future)));
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        // Whoever waits for the last of them is to find it given back.
        drop(self.claim.take());
        lock(&self.feed).coming -= 1;
        tell_backlog(&self.shared);
    }
}

fn tell_backlog(shared: &Shared) {
    wake::caught(|| shared.index.tell_backlog());
}

/// A place that outlives the call that has taken it: that was dropped when its request had been submitted,
/// and somebody may be waiting for what comes of that.
struct Outlived {
    _place: Coming,
}

impl Wake for Outlived {
    /// It is answered: nobody has this any more.
    fn wake(self: Arc<Self>) {}
}

/// A request that has been submitted for whoever has a place.
struct Submitted<'a> {
    /// `None` once it is answered.
    ticket: Option<Ticket>,
    place: &'a mut Option<Coming>,
}

impl Future for Submitted<'_> {
    type Output = Result<Answer, Poison>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(ticket) = &mut self.ticket else { return Poll::Ready(Ok(Answer::Superseded)) };
        let answer = ready!(Pin::new(ticket).poll(context));
        self.ticket = None;
        Poll::Ready(answer)
    }
}

impl Drop for Submitted<'_> {
    fn drop(&mut self) {
        if let (Some(mut ticket), Some(place)) = (self.ticket.take(), self.place.take()) {
            let waker = Waker::from(Arc::new(Outlived { _place: place }));
            // From now on the group of the request has it, until it is answered.
            let _ = Pin::new(&mut ticket).poll(&mut Context::from_waker(&waker));
        }
    }
}

impl<K: TaskId, V: TaskOutput> Inner<K, V> {
    /// Puts it into the queue, if its id may be.
    pub(super) async fn queued(
        &self,
        id: &EncodedId,
        payload: Vec<u8>,
        place: &mut Option<Coming>,
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
            let answer = self.change(id, event, cell.seq, place).await?;
            // Else something has happened to it meanwhile.
            if answer != Answer::Superseded {
                return Ok(answer);
            }
        }
    }

    /// Puts a failed operation into the queue once more, whatever room there is.
    pub(super) async fn requeue(&self, id: &EncodedId) -> Result<(), QueueError> {
        let shared = self.ledger.shared();
        let mut place = Some(Coming::new(self, &mut lock(&self.feed)));
        let details = self.ledger.details(id.clone()).await?;
        let refused = || QueueError::Refused { state: shared.index.state(id.as_bytes()) };
        let details = details.filter(|details| details.state() == TaskState::Failed);
        let details = details.ok_or_else(refused)?;
        let Some(payload) = details.payload else { return Err(refused()) };
        let event = Event::Queued { payload: Some(payload), since: details.since };
        let answer = self.change(id, event, details.cell.seq, &mut place).await?;
        if matches!(answer, Answer::Done(_)) { Ok(()) } else { Err(refused()) }
    }

    pub(super) async fn change(
        &self,
        id: &EncodedId,
        event: Event,
        after: SeqNo,
        place: &mut Option<Coming>,
    ) -> Result<Answer, Rejection> {
        let shared = self.ledger.shared();
        shared.permit().await?;
        let change = Request::Change { id: id.clone(), event, after: Some(after) };
        let ticket = Some(shared.submissions.submit(change)?);
        Ok(Submitted { ticket, place }.await?)
    }
}
