//! Views: the ids in one state, or all.

use crate::error::IdError;
use crate::id::{EncodedId, Lookup, TaskId};
use crate::ledger::{Ledger, TaskOutput};
use crate::shared::Shared;
use crate::state::TaskState;
use crate::sync::Arc;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;

impl<K: TaskId, V: TaskOutput> Ledger<K, V> {
    /// The succeeded ids.
    #[must_use]
    pub fn succeeded_tasks(&self) -> View<K> {
        View::new(self.shared(), Some(TaskState::Succeeded))
    }

    /// The failed ids.
    #[must_use]
    pub fn failed_tasks(&self) -> View<K> {
        View::new(self.shared(), Some(TaskState::Failed))
    }

    /// The running ids.
    #[must_use]
    pub fn running_tasks(&self) -> View<K> {
        View::new(self.shared(), Some(TaskState::Running))
    }

    /// The ids that are being revoked.
    #[must_use]
    pub fn revoking_tasks(&self) -> View<K> {
        View::new(self.shared(), Some(TaskState::Revoking))
    }

    /// The queued ids.
    #[must_use]
    pub fn queued_tasks(&self) -> View<K> {
        View::new(self.shared(), Some(TaskState::Queued))
    }

    /// All ids.
    #[must_use]
    pub fn all_tasks(&self) -> View<K> {
        View::new(self.shared(), None)
    }
}

/// The ids in one state, or all ids, as they are now.
///
/// A view is a window, not a copy: each call looks anew. It reads memory only and never waits for
/// the disk.
///
/// # Examples
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use taskledger::{Ledger, MemoryJournal};
/// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
/// let failed = ledger.failed_tasks();
/// assert!(failed.is_empty());
/// ledger.launch(7, async { Err::<(), _>("no route") }).await?;
/// ledger.wait(&7).await?;
/// assert_eq!(failed.len(), 1); // the same view
/// assert!(failed.contains(&7));
/// # Ok(()) }
/// ```
pub struct View<K> {
    shared: Arc<Shared>,
    state: Option<TaskState>,
    ids: PhantomData<fn() -> K>,
}

impl<K: TaskId> View<K> {
    pub(crate) fn new(shared: &Arc<Shared>, state: Option<TaskState>) -> Self {
        Self { shared: Arc::clone(shared), state, ids: PhantomData }
    }

    /// How many there are: exact, in constant time, linearizable with all that the ledger records. Pruned
    /// successes, of which only a tombstone is left, are not counted (nor listed, their ids are gone),
    /// though they are succeeded and [`contains`](Self::contains) finds them:
    /// [`Ledger::tombstones`](crate::Ledger::tombstones) counts those.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.state {
            Some(state) => self.shared.index.count(state),
            None => self.shared.index.count_all(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this id is in the state, or known at all. A pruned success is: so this may be true of an id
    /// that [`iter`](Self::iter) does not list, and of a view whose [`len`](Self::len) is 0. An id that
    /// cannot be one is not.
    pub fn contains<Q: Lookup<K> + ?Sized>(&self, id: &Q) -> bool {
        let state = EncodedId::probe::<K, Q, _>(id, |id| self.shared.index.state_of(id));
        let Ok(state) = state else { return false };
        match self.state {
            Some(wanted) => state == wanted,
            None => state != TaskState::NotFound,
        }
    }

    /// The ids, in no particular order.
    ///
    /// Queued, running, revoking and failed ids are listed exactly as they were at one moment, when
    /// this is called. Succeeded ids and all ids are read part by part while you iterate, with no
    /// lock held in between: an id that is in the state throughout is listed at least once (twice
    /// only while the ledger grows); one that enters or leaves meanwhile may or may not be.
    ///
    /// An item is an error when the stored bytes do not read as `K`.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, MemoryJournal};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger.mark_succeeded(7).await?;
    /// ledger.mark_succeeded(8).await?;
    /// let mut ids: Vec<u64> = ledger.succeeded_tasks().iter().collect::<Result<_, _>>()?;
    /// ids.sort_unstable(); // they come in no particular order
    /// assert_eq!(ids, [7, 8]);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn iter(&self) -> ViewIter<K> {
        let exact = self.state.and_then(|state| self.shared.index.exact(state));
        let next_part = if exact.is_some() { None } else { Some(0) };
        ViewIter {
            shared: Arc::clone(&self.shared),
            state: self.state,
            ready: exact.unwrap_or_default().into(),
            next_part,
            ids: PhantomData,
        }
    }
}

impl<K: TaskId> IntoIterator for &View<K> {
    type Item = Result<K, IdError>;
    type IntoIter = ViewIter<K>;

    fn into_iter(self) -> ViewIter<K> {
        self.iter()
    }
}

impl<K> Clone for View<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), state: self.state, ids: PhantomData }
    }
}

impl<K> fmt::Debug for View<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("state", &self.state).finish_non_exhaustive()
    }
}

/// The ids of a [`View`].
pub struct ViewIter<K> {
    shared: Arc<Shared>,
    state: Option<TaskState>,
    ready: VecDeque<EncodedId>,
    /// The part of the index to read next; `None` for an exact list.
    next_part: Option<usize>,
    ids: PhantomData<fn() -> K>,
}

impl<K: TaskId> Iterator for ViewIter<K> {
    type Item = Result<K, IdError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(id) = self.ready.pop_front() {
                return Some(id.decode());
            }
            let part = self.next_part?;
            self.ready = self.shared.index.ids_in_part(part, self.state)?.into();
            self.next_part = Some(part + 1);
        }
    }
}

impl<K> fmt::Debug for ViewIter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ViewIter").field("state", &self.state).finish_non_exhaustive()
    }
}
