//! What is recorded, as it is recorded: for whoever watches.

use crate::error::IdError;
use crate::id::{EncodedId, TaskId};
use crate::journal::{Entry, Record};
use crate::ledger::{Ledger, TaskOutput};
use crate::state::{Event, SeqNo, Timestamp};
use crate::sync::{Arc, Mutex, lock};
use crate::wake;
use std::fmt;
use std::marker::PhantomData;
use thiserror::Error;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Records kept for those who watch. Who is further behind has missed some.
const BUFFER: usize = 4096;

/// Those who watch a ledger.
/// `None` when nothing more will be recorded.
#[derive(Debug)]
pub(crate) struct Watchers(Mutex<Option<broadcast::Sender<Arc<Record>>>>);

impl Watchers {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Some(broadcast::Sender::new(BUFFER))))
    }

    /// Tells what was recorded and published. Costs nothing while nobody watches.
    pub(crate) fn tell(&self, records: Vec<Record>) {
        let all = lock(&self.0).clone();
        let Some(all) = all.filter(|all| all.receiver_count() > 0) else { return };
        for record in records {
            // Nobody listening any more is fine; a waker that panics is its owner's loss.
            wake::caught(|| drop(all.send(Arc::new(record))));
        }
    }

    /// Nothing more will be told. Who watches hears of that behind all that was.
    pub(crate) fn end(&self) {
        let all = lock(&self.0).take();
        wake::caught(|| drop(all));
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<Record>> {
        let all = lock(&self.0).clone();
        all.unwrap_or_else(|| broadcast::Sender::new(1)).subscribe()
    }
}

/// A change of one id.
#[non_exhaustive]
pub struct Transition<K> {
    /// Its position in the log.
    pub seq: SeqNo,
    /// When it was recorded.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
    /// The encoded id.
    pub encoded: EncodedId,
    ids: PhantomData<fn() -> K>,
}

impl<K: TaskId> Transition<K> {
    /// The id.
    ///
    /// # Errors
    ///
    /// When the stored bytes do not read as `K`.
    pub fn id(&self) -> Result<K, IdError> {
        self.encoded.decode()
    }
}

impl<K> fmt::Debug for Transition<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transition")
            .field("seq", &self.seq)
            .field("at", &self.at)
            .field("encoded", &self.encoded)
            .field("event", &self.event)
            .finish_non_exhaustive()
    }
}

/// Who watches was too slow: so many records were not seen, those that are of no id (of an open, of the
/// metadata) among them. The next call goes on with the oldest that
/// is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{missed} records were missed: they came faster than they were taken")]
#[non_exhaustive]
pub struct Lagged {
    /// How many.
    pub missed: u64,
}

/// The transitions of all ids, in log order, from now on. Made by [`Ledger::watch`].
#[derive(Debug)]
pub struct Transitions<K> {
    records: broadcast::Receiver<Arc<Record>>,
    ids: PhantomData<fn() -> K>,
}

impl<K: TaskId, V: TaskOutput> Ledger<K, V> {
    /// Watches what is recorded from now on: every transition of every id, in the order of the log, each
    /// when it is durable and visible. The last 4,096 are kept for who is slow; beyond that it is told
    /// how many were missed. The writer never waits for who watches. All who watch share what is kept, which
    /// may be as large as 4,096 records are: a megabyte for small ones, 192 MB if each has an output of the
    /// largest size there is.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, MemoryJournal};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// let mut transitions = ledger.watch();
    /// ledger.launch_block(7, async { Ok::<_, String>(()) }).await?;
    /// ledger.close().await?;
    /// let mut names = Vec::new();
    /// while let Some(transition) = transitions.next().await {
    ///     let transition = transition?;
    ///     names.push((transition.id()?, transition.event.name()));
    /// }
    /// assert_eq!(names, [(7, "started"), (7, "succeeded")]);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn watch(&self) -> Transitions<K> {
        Transitions { records: self.shared().watchers.subscribe(), ids: PhantomData }
    }
}

impl<K: TaskId> Transitions<K> {
    /// The next transition; `None` when the ledger is closed, or has stopped recording, and everything before
    /// that was told.
    ///
    /// # Durability
    ///
    /// What it returns is on disk.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing.
    ///
    /// # Errors
    ///
    /// [`Lagged`] when records were missed.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// See [`Ledger::watch`].
    pub async fn next(&mut self) -> Option<Result<Transition<K>, Lagged>> {
        loop {
            let record = match wake::guarded(self.records.recv()).await {
                Ok(record) => record,
                Err(RecvError::Lagged(missed)) => return Some(Err(Lagged { missed })),
                Err(RecvError::Closed) => return None,
            };
            if let Entry::Task { id, event, .. } = &record.entry {
                let Record { seq, at, .. } = *record;
                let (event, encoded) = (event.clone(), id.clone());
                return Some(Ok(Transition { seq, at, event, encoded, ids: PhantomData }));
            }
        }
    }
}
