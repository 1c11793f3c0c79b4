//! What all clones of a handle, the attempts and the writer share.

use crate::attempt::Control;
use crate::error::{CloseError, Poison, Rejection, panic_text};
use crate::guard::Flights;
use crate::id::{EncodedId, IdShape};
use crate::index::Index;
use crate::line::Lines;
use crate::recovery::Recovery;
use crate::state::Timestamp;
use crate::submission::{AttemptKey, ByKey, Group, Phase, Request, Submissions, Ticket};
use crate::sync::{Arc, AtomicU8, AtomicU64, Mutex, Ordering, lock};
use crate::transitions::Watchers;
use crate::wake;
use std::collections::{BTreeMap, HashMap};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::OnceLock;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, TryAcquireError, oneshot};

/// Names of the metadata that are the ledger's own begin with this.
pub(crate) const RESERVED: &str = "taskledger.";

/// All names of the metadata and their values, in bytes, but for the ledger's own.
pub(crate) const MAX_METADATA: usize = 64 * 1024;

/// The name in the metadata of the description of an id type that only a value told.
pub(crate) const ID_SHAPE: &str = "taskledger.id_shape";

/// The options that matter after the open.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) output_cap: usize,
    pub(crate) sync_deadline: Duration,
    pub(crate) max_pending: usize,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) index: Index,
    pub(crate) submissions: Submissions,
    /// Back-pressure: one permit for each request that is submitted and not answered.
    pub(crate) permits: Semaphore,
    /// The same for the notes of what runs, which are taken while the ledger closes.
    notes: Semaphore,
    pub(crate) recovery: Recovery,
    /// What ids look like, once that is known.
    pub(crate) shape: OnceLock<IdShape>,
    /// How to reach what runs. Held for a look-up.
    controls: Mutex<HashMap<AttemptKey, Arc<Control>, ByKey>>,
    metadata: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Who watches what is recorded.
    pub(crate) watchers: Watchers,
    /// Who handles what is handled by one while the others wait.
    pub(crate) lines: Lines,
    /// Whether somebody has the operation queue.
    queue: AtomicU8,
    /// Who is at which id with a run.
    pub(crate) flights: Flights,
    next_key: AtomicU64,
    superseded: AtomicU64,
    /// The newest time that is recorded, in microseconds.
    newest: AtomicU64,
    closed: OnceLock<Result<(), CloseError>>,
    closing: Notify,
}

impl Shared {
    pub(crate) fn new(
        options: Options,
        index: Index,
        recovery: Recovery,
        metadata: BTreeMap<String, Vec<u8>>,
        shape: IdShape,
    ) -> Self {
        let sampled = || IdShape::from_bytes(metadata.get(ID_SHAPE)?).ok();
        let shape = if shape.is_opaque() { sampled() } else { Some(shape) };
        Self {
            permits: Semaphore::new(options.max_pending.min(Semaphore::MAX_PERMITS)),
            notes: Semaphore::new(options.max_pending.min(Semaphore::MAX_PERMITS)),
            options,
            index,
            submissions: Submissions::new(),
            recovery,
            shape: shape.map_or_else(OnceLock::new, OnceLock::from),
            controls: Mutex::default(),
            metadata: Mutex::new(metadata),
            watchers: Watchers::new(),
            lines: Lines::default(),
            queue: AtomicU8::new(0),
            flights: Flights::default(),
            next_key: AtomicU64::new(0),
            superseded: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            closed: OnceLock::new(),
            closing: Notify::new(),
        }
    }

    /// Makes an attempt reachable before it is submitted.
    pub(crate) fn register(&self) -> (AttemptKey, Arc<Control>) {
        let key = AttemptKey(self.next_key.fetch_add(1, Ordering::Relaxed));
        let control = Arc::new(Control::default());
        lock(&self.controls).insert(key, Arc::clone(&control));
        (key, control)
    }

    /// Takes the operation queue, unless somebody has it.
    pub(crate) fn claim_queue(&self) -> bool {
        self.queue.swap(1, Ordering::SeqCst) == 0
    }

    pub(crate) fn release_queue(&self) {
        self.queue.store(0, Ordering::SeqCst);
    }

    pub(crate) fn unregister(&self, key: AttemptKey) {
        lock(&self.controls).remove(&key);
    }

    pub(crate) fn control(&self, key: AttemptKey) -> Option<Arc<Control>> {
        lock(&self.controls).get(&key).cloned()
    }

    /// Asks everything that runs to stop.
    pub(crate) fn cancel_all(&self, reason: &str) {
        lock(&self.controls).values().for_each(|control| control.cancel(reason.to_owned()));
    }

    /// Stops recording for good: answers who waits, marks what is in doubt, wakes the rest. Whoever
    /// calls this with a group has settled it as given up.
    pub(crate) fn poison(&self, poison: &Poison, in_flight: Option<(&Arc<Group>, &[Request])>) {
        let requests = in_flight.map_or(&[][..], |(_, requests)| requests);
        self.index.doubt(requests.iter().filter_map(Request::id).cloned());
        self.index.doubt(self.submissions.poison(poison));
        self.close_permits();
        self.notes.close();
        if let Some((group, _)) = in_flight {
            group.answer(Err(poison.clone()));
        }
        self.index.wake_all();
        self.watchers.end();
        if matches!(poison, Poison::Stuck { .. }) {
            // The writer may never come back to say so.
            self.end_with(Err(CloseError::Poisoned(poison.clone())));
        }
        // Last, and caught: whoever listens is foreign code.
        let told = std::panic::AssertUnwindSafe(|| tracing::error!(%poison, "poisoned"));
        drop(std::panic::catch_unwind(told).map_err(panic_text));
    }

    /// Why the ledger stopped recording, if it has.
    pub(crate) fn poisoned(&self) -> Option<Poison> {
        match self.submissions.phase() {
            Phase::Poisoned(poison) => Some(poison),
            Phase::Open | Phase::Closing | Phase::Ended => None,
        }
    }

    pub(crate) fn metadata_changed(&self, changes: Vec<(String, Option<Vec<u8>>)>) {
        if changes.is_empty() {
            return;
        }
        let mut metadata = lock(&self.metadata);
        for (name, value) in changes {
            match value {
                Some(value) => _ = metadata.insert(name, value),
                None => _ = metadata.remove(&name),
            }
        }
    }

    pub(crate) fn metadata(&self) -> BTreeMap<String, Vec<u8>> {
        lock(&self.metadata).clone()
    }

    pub(crate) fn count_superseded(&self, count: usize) {
        if count > 0 {
            self.superseded.fetch_add(count as u64, Ordering::Relaxed);
            tracing::warn!(count, "ends of attempts that are no longer current changed nothing");
        }
    }

    pub(crate) fn superseded(&self) -> u64 {
        self.superseded.load(Ordering::Relaxed)
    }

    /// The id as a person reads it, escaped.
    pub(crate) fn id_text(&self, id: &EncodedId) -> String {
        self.shape
            .get()
            .map_or_else(|| id.as_bytes().escape_ascii().to_string(), |s| s.render(id.as_bytes()))
    }

    /// The writer is gone.
    pub(crate) fn ended(&self, result: Result<(), CloseError>) {
        self.close_permits();
        self.notes.close();
        self.watchers.end();
        self.end_with(result);
    }

    fn end_with(&self, result: Result<(), CloseError>) {
        // The first result stays: a second close gets the first one's.
        if self.closed.set(result).is_ok() {
            self.closing.notify_waiters();
        }
    }

    /// Waits for room. The permit goes with a request to the writer, which gives it back with the
    /// answer.
    pub(crate) async fn permit(&self) -> Result<(), Rejection> {
        self.permit_of(&self.permits).await
    }

    /// As [`permit`](Self::permit), for a note of an attempt: there is room until the last of them is gone.
    pub(crate) async fn permit_to_note(&self) -> Result<(), Rejection> {
        self.permit_of(&self.notes).await
    }

    async fn permit_of(&self, permits: &Semaphore) -> Result<(), Rejection> {
        let permit = match permits.try_acquire() {
            // In a box, which who need not wait carries nothing of.
            Err(TryAcquireError::NoPermits) => {
                Box::pin(wake::guarded(permits.acquire())).await.ok()
            }
            tried => tried.ok(),
        };
        match permit {
            Some(permit) => {
                permit.forget();
                Ok(())
            }
            None => Err(self.submissions.rejection().unwrap_or(Rejection::Closed)),
        }
    }

    /// Submits requests together: they are recorded by one group commit, however many there are.
    pub(crate) async fn submit_all(
        &self,
        requests: Vec<Request>,
    ) -> Result<Vec<Ticket>, Rejection> {
        let permits = self.permits_for(requests.len()).await?;
        self.submissions.submit_all(requests, permits)
    }

    /// Waits for room for requests that are submitted together. They take half of all permits at most, so
    /// that there is room for others. Returns how many these are.
    pub(crate) async fn permits_for(&self, requests: usize) -> Result<usize, Rejection> {
        let room = (self.options.max_pending.min(Semaphore::MAX_PERMITS) / 2).max(1);
        let count = u32::try_from(requests.min(room)).unwrap_or(u32::MAX);
        match wake::guarded(self.permits.acquire_many(count)).await {
            Ok(permits) => permits.forget(),
            Err(_) => return Err(self.submissions.rejection().unwrap_or(Rejection::Closed)),
        }
        Ok(count as usize)
    }

    /// A record was made at this time.
    pub(crate) fn dated(&self, at: Timestamp) {
        self.newest.fetch_max(at.as_micros(), Ordering::Relaxed);
    }

    /// When the newest record was made.
    pub(crate) fn newest(&self) -> Timestamp {
        // Whoever compares it with the clock looks there afterwards.
        Timestamp::from_micros(self.newest.load(Ordering::Acquire))
    }

    /// So many requests are answered, and so many notes: there is room again.
    pub(crate) fn answered(&self, requests: usize, notes: usize) {
        self.permits.add_permits(requests);
        self.notes.add_permits(notes);
    }

    fn close_permits(&self) {
        self.permits.close();
    }

    /// Takes no new work from now on.
    pub(crate) fn close(&self) {
        self.submissions.close();
        // Who waits for room would be rejected when it comes, and may be an attempt that the close
        // waits for.
        self.close_permits();
        // A run that waits for its next attempt has none now.
        self.index.wake_all();
    }

    /// What the writer replies, or `None` when it never will.
    pub(crate) async fn reply<T>(&self, mut reply: oneshot::Receiver<T>) -> Option<T> {
        // A stuck writer keeps the reply's other end for ever, but then the end is known already.
        let mut ended = pin!(self.wait_closed());
        poll_fn(|context| {
            if let Poll::Ready(reply) = Pin::new(&mut reply).poll(context) {
                return Poll::Ready(reply.ok());
            }
            match ended.as_mut().poll(context) {
                Poll::Ready(_) => Poll::Ready(reply.try_recv().ok()),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Waits for the end of the writer.
    pub(crate) async fn wait_closed(&self) -> Result<(), CloseError> {
        loop {
            let notified = self.closing.notified();
            let mut notified = std::pin::pin!(notified);
            notified.as_mut().enable();
            if let Some(result) = self.closed.get() {
                return result.clone();
            }
            wake::guarded(notified).await;
        }
    }
}
