//! What is kept, and for how long.

use super::read::gone;
use super::{Ledger, TaskOutput};
use crate::details::TaskDetails;
use crate::error::{ChangeError, JournalError, PruneError, ReadError, Rejection, panic_text};
use crate::id::{EncodedId, Lookup, TaskId};
use crate::journal::Reader;
use crate::retention::{Fate, Limits, Pruned, Retention};
use crate::sabotage::{self, Sabotage};
use crate::shared::Shared;
use crate::state::{Event, SeqNo, TaskState};
use crate::submission::{Answer, Errand, Request};
use crate::sync::Arc;
use crate::wake;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use tokio::sync::{mpsc, oneshot};

/// So many failures take less of the writer's time than a large checkpoint takes to be read.
const FEW: usize = 1_000;

/// Ids whose details are read at once: the writer does it between two groups.
const READ_AT_ONCE: usize = 64;

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
        let limits = retention.limits(self.shared().newest())?;
        let mut sweep = Sweep { prune, old: Vec::new(), pruned: Pruned::default() };
        if limits.failed.is_none() && limits.succeeded.is_none() {
            return Ok(sweep.pruned);
        }
        // Failures are listed in memory: a few are asked for one by one, however large the checkpoint.
        let are_few = limits.succeeded.is_none() && self.failed_tasks().len() <= FEW;
        let checkpoint = if are_few { None } else { self.ask_reader().await? };
        let last = checkpoint.as_ref().map_or(SeqNo::ZERO, |(last, _)| *last);
        if let Some((_, reader)) = checkpoint {
            let mut found = read_beside(reader, limits, Arc::clone(self.shared()))?;
            while let Some(chunk) = wake::guarded(found.recv()).await {
                for old in chunk.map_err(ReadError::Journal)? {
                    self.is_old(old, &mut sweep).await?;
                }
            }
        }
        // The checkpoint knows them as they were before, or not at all.
        for (state, limit) in
            [(TaskState::Failed, limits.failed), (TaskState::Succeeded, limits.succeeded)]
        {
            if limit.is_none() {
                continue;
            }
            for chunk in self.shared().index.changed_since(state, last).chunks(READ_AT_ONCE) {
                let reads: Vec<_> = chunk.iter().map(|id| self.ask_details(id)).collect();
                for (id, read) in chunk.iter().zip(reads) {
                    let Some(details) = self.told_details(id, read?).await? else { continue };
                    let (fate, seq) = (limits.fate(&details), details.cell.seq);
                    self.is_old(Old { id: id.clone(), seq, fate }, &mut sweep).await?;
                }
            }
        }
        self.prune_old(&mut sweep).await?;
        Ok(sweep.pruned)
    }

    /// What reads the checkpoint, and where that ends; `None` if everything is to be read by the writer.
    async fn ask_reader(&self) -> Result<Option<(SeqNo, Reader)>, PruneError> {
        let (reply, reader) = oneshot::channel();
        self.shared().submissions.send(Errand::Reader { reply }).map_err(gone)?;
        let reader = self.shared().reply(reader).await;
        Ok(reader.ok_or_else(|| gone(self.shared().submissions.phase()))?.0)
    }

    /// Takes in what was found old enough, and prunes when that is many.
    async fn is_old(&self, old: Old, sweep: &mut Sweep) -> Result<(), PruneError> {
        match old.fate {
            Fate::Stays | Fate::Pinned | Fate::Held => sweep.pruned.count(old.fate),
            Fate::Buried | Fate::Forgotten if sweep.prune => sweep.old.push(old),
            Fate::Buried | Fate::Forgotten => {
                let at_work = self.shared().flights.has(&old.id);
                sweep.pruned.count(if at_work { Fate::Held } else { old.fate });
            }
        }
        if sweep.old.len() >= PRUNED_AT_ONCE { self.prune_old(sweep).await } else { Ok(()) }
    }

    /// One group commit. The writer judges each once more: whether it is as it was found.
    async fn prune_old(&self, sweep: &mut Sweep) -> Result<(), PruneError> {
        let old = std::mem::take(&mut sweep.old);
        if old.is_empty() {
            return Ok(());
        }
        let request = |Old { id, seq, fate }: &Old| {
            let event = if *fate == Fate::Buried && !sabotage::is(Sabotage::DigNoGrave) {
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
                Ok(Answer::Done(_)) => sweep.pruned.count(old.fate),
                Ok(Answer::Refused(TaskState::Running)) => sweep.pruned.count(Fate::Held),
                // Something has happened to it since.
                Ok(_) => {}
                Err(poison) => return Err(ChangeError::InDoubt(poison).into()),
            }
        }
        Ok(())
    }
}

/// What was swept so far.
struct Sweep {
    /// Or only to say what it would come to.
    prune: bool,
    /// To be pruned next.
    old: Vec<Old>,
    pruned: Pruned,
}

/// A task that is old enough, as it was found.
#[derive(Debug)]
struct Old {
    id: EncodedId,
    seq: SeqNo,
    fate: Fate,
}

type Found = mpsc::Receiver<Result<Vec<Old>, JournalError>>;

/// Reads a checkpoint on a thread of its own, until nobody takes any more what it finds.
fn read_beside(reader: Reader, limits: Limits, shared: Arc<Shared>) -> Result<Found, PruneError> {
    let (found, taken) = mpsc::channel(2);
    let work = move || {
        let mut chunk = Vec::new();
        let mut visit = |id: &EncodedId, details: &TaskDetails| {
            let fate = limits.fate(details);
            let seq = details.cell.seq;
            // What has changed since is read as it is now.
            if fate != Fate::Stays && shared.index.cell(id.as_bytes()).seq == seq {
                chunk.push(Old { id: id.clone(), seq, fate });
            }
            if chunk.len() < PRUNED_AT_ONCE {
                return Ok(());
            }
            let full = std::mem::take(&mut chunk);
            let gone = |_| JournalError::Store("nobody prunes any more".into());
            found.blocking_send(Ok(full)).map_err(gone)
        };
        let read = catch_unwind(AssertUnwindSafe(|| reader(&mut visit)));
        let read = read.unwrap_or_else(|panic| Err(JournalError::Panicked(panic_text(panic))));
        // Nobody waiting any more is fine.
        drop(found.blocking_send(read.map(|()| chunk)));
    };
    let thread = thread::Builder::new().name("taskledger-prune".into()).spawn(work);
    thread.map_err(|source| {
        let path = "taskledger-prune".into();
        ReadError::Journal(JournalError::Io { action: "start a thread for", path, source })
    })?;
    Ok(taken)
}
