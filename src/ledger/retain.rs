//! What is kept, and for how long.

use super::{Ledger, TaskOutput};
use crate::details::TaskDetails;
use crate::error::{ChangeError, PruneError, Rejection};
use crate::id::{EncodedId, Lookup, TaskId};
use crate::sabotage::{self, Sabotage};
use crate::state::{Event, Failure, TaskState, Timestamp};
use crate::submission::{Answer, Request};
use std::time::{Duration, SystemTime};

/// Ids whose details are read at once: the writer does it between two groups.
const READ_AT_ONCE: usize = 64;

/// How long finished tasks are kept, by state, counted from when they finished. What is not named is
/// kept for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    succeeded: Option<Duration>,
    failed: Option<Duration>,
}

impl Retention {
    /// Everything is kept.
    #[must_use]
    pub const fn new() -> Self {
        Self { succeeded: None, failed: None }
    }

    /// Successes are kept so long; after that only that they are successes.
    #[must_use]
    pub const fn succeeded(mut self, age: Duration) -> Self {
        self.succeeded = Some(age);
        self
    }

    /// Failures are kept so long; after that they are forgotten. One that crashed or was given up is
    /// kept until it is [resolved](Ledger::resolve): its effect may have happened.
    #[must_use]
    pub const fn failed(mut self, age: Duration) -> Self {
        self.failed = Some(age);
        self
    }
}

/// What was pruned, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// Successes of which only a tombstone is left.
    pub succeeded: u64,
    /// Failures that are forgotten.
    pub failed: u64,
    /// What is old enough, and kept because it is pinned.
    pub pinned: u64,
    /// What is old enough, and kept because it crashed, or was given up.
    pub held: u64,
}

impl<K: TaskId, V: TaskOutput> Ledger<K, V> {
    /// Drops what is older than it is to be kept. Of a success a *tombstone* stays: the id still counts
    /// as succeeded for ever, unless it is revoked or forgotten, but its output, its details and the id
    /// itself are gone, so that views do not list it. Of a failure nothing stays: it may run again.
    ///
    /// A tombstone is a hash of 16 bytes under a key of the ledger: 16 bytes on disk, and about twice
    /// that in memory.
    ///
    /// Works in batches, each of its own group commit, beside everything else.
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
        self.sweep(retention, true).await
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
        self.sweep(retention, false).await
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

    async fn sweep(&self, retention: &Retention, prune: bool) -> Result<Pruned, PruneError> {
        // In this order: a record that is made in between is no clock that was set back.
        let newest = self.shared().newest();
        let now = Timestamp::from(SystemTime::now());
        if now < newest {
            return Err(PruneError::Clock { now, newest });
        }
        let mut pruned = Pruned::default();
        let index = &self.shared().index;
        for (state, age) in
            [(TaskState::Failed, retention.failed), (TaskState::Succeeded, retention.succeeded)]
        {
            let Some(age) = age else { continue };
            let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
            let Some(until) = now.as_micros().checked_sub(age) else { continue };
            let until = Timestamp::from_micros(until);
            if let Some(ids) = index.exact(state) {
                self.sweep_ids(ids, state, until, prune, &mut pruned).await?;
                continue;
            }
            let mut part = 0;
            while let Some(ids) = index.ids_in_part(part, Some(state)) {
                self.sweep_ids(ids, state, until, prune, &mut pruned).await?;
                part += 1;
            }
        }
        Ok(pruned)
    }

    async fn sweep_ids(
        &self,
        ids: Vec<EncodedId>,
        state: TaskState,
        until: Timestamp,
        prune: bool,
        pruned: &mut Pruned,
    ) -> Result<(), PruneError> {
        for chunk in ids.chunks(READ_AT_ONCE.min(self.shared().together())) {
            let reads: Vec<_> = chunk.iter().map(|id| self.ask_details(id)).collect();
            let mut requests = Vec::new();
            for (id, read) in chunk.iter().zip(reads) {
                let Some(details) = self.told_details(id, read?).await? else { continue };
                // What is in another state since it was listed is kept as long as that is to be.
                let is_old = details.ended_at.is_none_or(|ended| ended <= until);
                if details.state() == state && is_old {
                    requests.extend(self.pruning(id, &details, pruned));
                }
            }
            if !prune {
                count(requests.iter(), pruned);
                continue;
            }
            let tickets = self.shared().submit_all(&requests).await.map_err(ChangeError::from)?;
            let mut done = Vec::new();
            for (request, ticket) in requests.iter().zip(tickets) {
                match ticket.await {
                    Ok(Answer::Done(_)) => done.push(request),
                    // Something has happened to it since.
                    Ok(_) => {}
                    Err(poison) => return Err(ChangeError::InDoubt(poison).into()),
                }
            }
            count(done.into_iter(), pruned);
        }
        Ok(())
    }

    /// What becomes of a task that is old enough.
    fn pruning(
        &self,
        id: &EncodedId,
        details: &TaskDetails,
        pruned: &mut Pruned,
    ) -> Option<Request> {
        if details.pinned {
            pruned.pinned += 1;
            return None;
        }
        let event = match details.state() {
            TaskState::Succeeded if sabotage::is(Sabotage::DigNoGrave) => Event::Forgotten,
            TaskState::Succeeded => {
                Event::Buried { tombstone: self.shared().index.seal().tombstone(id.as_bytes()) }
            }
            TaskState::Failed => match &details.failure {
                Some(Failure::Crashed | Failure::GaveUp { .. })
                    if !sabotage::is(Sabotage::PruneHeld) =>
                {
                    pruned.held += 1;
                    return None;
                }
                _ => Event::Forgotten,
            },
            TaskState::NotFound | TaskState::Queued | TaskState::Running | TaskState::Revoking => {
                return None;
            }
        };
        Some(Request::Change { id: id.clone(), event, after: Some(details.cell.seq) })
    }
}

fn count<'a>(requests: impl Iterator<Item = &'a Request>, pruned: &mut Pruned) {
    for request in requests {
        if let Request::Change { event: Event::Buried { .. }, .. } = request {
            pruned.succeeded += 1;
        } else {
            pruned.failed += 1;
        }
    }
}
