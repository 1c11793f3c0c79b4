//! What is kept, and for how long.

use super::sweep::Swept;
use super::{Ledger, TaskOutput};
use crate::details::TaskDetails;
use crate::error::{ChangeError, PruneError, Rejection};
use crate::id::{EncodedId, Lookup, TaskId};
use crate::retention::{Fate, Pruned, Retention};
use crate::sabotage::{self, Sabotage};
use crate::state::{Event, TaskState};
use crate::submission::{Answer, Request};

/// Ids that are pruned by one group commit, for which everybody else waits.
const PRUNED_AT_ONCE: usize = 1024;

impl<K: TaskId, V: TaskOutput> Ledger<K, V> {
    /// Drops what is older than it is to be kept. Of a success a *tombstone* stays: the id still counts
    /// as succeeded for ever, unless it is revoked or forgotten, but its output, its details and the id
    /// itself are gone, so that views do not list it. Of a failure nothing stays: it may run again.
    ///
    /// A tombstone is a hash of 16 bytes under a key of the ledger: 16 bytes on disk. In memory it stands in
    /// a hash table that doubles when it is full: 30 to 55 bytes each, measured for one to three million.
    ///
    /// An id at which a [run](Self::run) is, is left alone, also in the pause between two attempts: its
    /// next attempt has the same effect key, and the attempts are counted on.
    ///
    /// What the last [checkpoint](Self::checkpoint) tells is read beside everything else; only what has
    /// changed since is read by the writer, between two groups. What is old goes in batches of about a
    /// thousand ids, each of its own group commit.
    ///
    /// # Durability
    ///
    /// When it returns `Ok`, all of it is on disk. Each batch is legal by itself.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it ends after the batch that is under way.
    ///
    /// # Errors
    ///
    /// [`PruneError`]; what was pruned before stays so.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # use taskledger::{Ledger, MemoryJournal, Retention, TaskState};
    /// # let ledger = Ledger::<u64, String>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger.launch_block(7, async { Ok::<_, ()>("done".to_owned()) }).await?;
    /// let pruned = ledger.prune(&Retention::new().succeeded(Duration::ZERO)).await?;
    /// assert_eq!((pruned.succeeded, ledger.tombstones()), (1, 1));
    /// assert_eq!(ledger.query_task_state_quick(&7), TaskState::Succeeded); // it never runs again
    /// assert_eq!(ledger.output(&7).await?, None);
    /// # Ok(()) }
    /// ```
    pub async fn prune(&self, retention: &Retention) -> Result<Pruned, PruneError> {
        self.prune_or_tell(retention, true).await
    }

    /// What [`prune`](Self::prune) would do now. Changes nothing.
    ///
    /// # Durability
    ///
    /// Nothing is written.
    ///
    /// # Cancel safety
    ///
    /// Dropping it has no effect.
    ///
    /// # Errors
    ///
    /// [`PruneError`].
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # use taskledger::{Ledger, MemoryJournal, Retention};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger.mark_succeeded(7).await?;
    /// let all = Retention::new().succeeded(Duration::ZERO);
    /// assert_eq!(ledger.prunable(&all).await?.succeeded, 1);
    /// assert_eq!(ledger.tombstones(), 0);
    /// # Ok(()) }
    /// ```
    pub async fn prunable(&self, retention: &Retention) -> Result<Pruned, PruneError> {
        self.prune_or_tell(retention, false).await
    }

    /// How many successes are left as tombstones. They count in no view, since their ids are gone.
    #[must_use]
    pub fn tombstones(&self) -> usize {
        self.shared().index.tombstones()
    }

    /// Keeps a succeeded or failed id from being pruned by age, until it is unpinned, launched again,
    /// revoked or forgotten.
    ///
    /// # Durability
    ///
    /// When it returns `Ok`, it is on disk.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, **it may be recorded or not**.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; refused when the id is in another state, and when only a tombstone is left.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # use taskledger::{Ledger, MemoryJournal, Retention};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger.mark_succeeded(7).await?;
    /// ledger.pin(&7).await?;
    /// let pruned = ledger.prune(&Retention::new().succeeded(Duration::ZERO)).await?;
    /// assert_eq!((pruned.succeeded, pruned.pinned), (0, 1));
    /// ledger.unpin(&7).await?;
    /// # Ok(()) }
    /// ```
    pub async fn pin<Q: Lookup<K> + ?Sized>(&self, id: &Q) -> Result<(), ChangeError> {
        self.tell(id, Event::Pinned).await
    }

    /// Takes a [`pin`](Self::pin) back.
    ///
    /// # Durability
    ///
    /// As [`pin`](Self::pin).
    ///
    /// # Cancel safety
    ///
    /// As [`pin`](Self::pin).
    ///
    /// # Errors
    ///
    /// As [`pin`](Self::pin).
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// See [`pin`](Self::pin).
    pub async fn unpin<Q: Lookup<K> + ?Sized>(&self, id: &Q) -> Result<(), ChangeError> {
        self.tell(id, Event::Unpinned).await
    }

    async fn tell<Q: Lookup<K> + ?Sized>(&self, id: &Q, event: Event) -> Result<(), ChangeError> {
        let id = EncodedId::encode::<K, Q>(id).map_err(Rejection::Id)?;
        self.change(Request::Change { id, event, after: None }).await
    }

    async fn prune_or_tell(
        &self,
        retention: &Retention,
        prune: bool,
    ) -> Result<Pruned, PruneError> {
        let limits = retention.limits(self.shared().newest())?;
        let mut pruning = Pruning { prune, old: Vec::new(), pruned: Pruned::default() };
        let states: &[TaskState] = match (limits.failed, limits.succeeded) {
            (None, None) => return Ok(pruning.pruned),
            (Some(_), None) => &[TaskState::Failed],
            (None, Some(_)) => &[TaskState::Succeeded],
            (Some(_), Some(_)) => &[TaskState::Failed, TaskState::Succeeded],
        };
        let judge = move |details: &TaskDetails| {
            let fate = limits.fate(details);
            (fate != Fate::Stays).then_some(fate)
        };
        let mut sweep = self.sweep(states, judge).await?;
        while let Some(found) = sweep.next().await? {
            for old in found {
                self.is_old(old, &mut pruning).await?;
            }
        }
        self.prune_old(&mut pruning).await?;
        Ok(pruning.pruned)
    }

    /// Takes in what was found old enough, and prunes when that is many.
    async fn is_old(&self, old: Old, pruning: &mut Pruning) -> Result<(), PruneError> {
        match old.what {
            Fate::Stays | Fate::Pinned | Fate::Held => pruning.pruned.count(old.what),
            Fate::Buried | Fate::Forgotten if pruning.prune => pruning.old.push(old),
            Fate::Buried | Fate::Forgotten => {
                let at_work = self.shared().flights.has(&old.id);
                pruning.pruned.count(if at_work { Fate::Held } else { old.what });
            }
        }
        if pruning.old.len() >= PRUNED_AT_ONCE { self.prune_old(pruning).await } else { Ok(()) }
    }

    /// One group commit. The writer judges each once more: whether it is as it was found.
    async fn prune_old(&self, pruning: &mut Pruning) -> Result<(), PruneError> {
        let old = std::mem::take(&mut pruning.old);
        if old.is_empty() {
            return Ok(());
        }
        let request = |Old { id, seq, what }: &Old| {
            let event = if *what == Fate::Buried && !sabotage::is(Sabotage::DigNoGrave) {
                Event::Buried { tombstone: self.shared().index.seal().tombstone(id.as_bytes()) }
            } else {
                Event::Forgotten
            };
            Request::Prune { id: id.clone(), event, after: *seq }
        };
        let requests = old.iter().map(request).collect();
        let tickets = self.shared().submit_all(requests).await.map_err(ChangeError::from)?;
        for (old, ticket) in old.iter().zip(tickets) {
            match ticket.await {
                Ok(Answer::Done(_)) => pruning.pruned.count(old.what),
                Ok(Answer::Refused(TaskState::Running)) => pruning.pruned.count(Fate::Held),
                // Something has happened to it since.
                Ok(_) => {}
                Err(poison) => return Err(ChangeError::InDoubt(poison).into()),
            }
        }
        Ok(())
    }
}

/// What was pruned so far.
struct Pruning {
    /// Or only to say what it would come to.
    prune: bool,
    /// To be pruned next.
    old: Vec<Old>,
    pruned: Pruned,
}

/// A task that is old enough, as it was found.
type Old = Swept<Fate>;
