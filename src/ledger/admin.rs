//! Metadata, checkpoints, health and the close.

use super::{Ledger, TaskOutput};
use crate::attempt;
use crate::error::{ChangeError, CheckpointError, CloseError, IdError, Poison, Rejection};
use crate::id::{EncodedId, Lookup, TaskId};
use crate::line::Line;
use crate::shared::RESERVED;
use crate::submission::{Checkpointed, Errand, Phase, Request};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::oneshot;

/// A name and its value, in bytes.
pub(crate) const MAX_METADATA_ENTRY: usize = 4 * 1024;

/// How a ledger is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// It records.
    Serving,
    /// It has stopped recording after a failure. Queries go on showing what was last published.
    Poisoned(Poison),
    /// It is closed, or closing.
    Closed,
}

impl<K: TaskId, V: TaskOutput> Ledger<K, V> {
    /// The [line](crate::line) of a key: where one handles a problem while the others wait. All who ask
    /// for one key at a time get one line; it is made on demand, and goes with its last user (a handle, a
    /// token, or somebody who waits). A key looks like an id, and has nothing to do with the task of that
    /// id.
    ///
    /// # Durability
    ///
    /// Nothing is on disk; each process has lines of its own.
    ///
    /// # Errors
    ///
    /// [`IdError`], as for an id.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, MemoryJournal, line::{AcquireOutcome, LineStatus}};
    /// # let ledger = Ledger::<String>::builder().open_journal(MemoryJournal::new()).await?;
    /// let line = ledger.line("login of north")?;
    /// let AcquireOutcome::Success(token) = line.try_acquire_token() else { panic!("it is free") };
    /// assert!(matches!(ledger.line("login of north")?.status(), LineStatus::Busy(_)));
    /// assert!(matches!(ledger.line("login of south")?.status(), LineStatus::Free));
    /// token.solve();
    /// # Ok(()) }
    /// ```
    pub fn line<Q: Lookup<K> + ?Sized>(&self, key: &Q) -> Result<Line, IdError> {
        let key = EncodedId::encode::<K, Q>(key)?;
        Ok(self.shared().lines.of(key.as_bytes()))
    }

    /// The owner's own names and values, kept with the ledger: a few small ones, all in memory.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, MemoryJournal};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// assert!(ledger.metadata().is_empty());
    /// ledger.set_metadata("tenant", Some(b"north".to_vec())).await?;
    /// assert_eq!(ledger.metadata().get("tenant"), Some(&b"north".to_vec()));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn metadata(&self) -> BTreeMap<String, Vec<u8>> {
        let mut metadata = self.shared().metadata();
        metadata.retain(|name, _| !name.starts_with(RESERVED));
        metadata
    }

    /// Sets a name of the metadata, or removes it with `None`.
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
    /// [`ChangeError`]; [`Rejection::Metadata`] when name and value together are over 4 KiB, the
    /// whole metadata would be over 64 KiB, or the name begins with `taskledger.`.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{ChangeError, Ledger, MemoryJournal, Rejection};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger.set_metadata("tenant", Some(b"north".to_vec())).await?;
    /// ledger.set_metadata("tenant", None).await?;
    /// ledger.set_metadata("tenant", None).await?; // removing what is not there is fine
    /// assert!(ledger.metadata().is_empty());
    /// let reserved = ledger.set_metadata("taskledger.tenant", None).await;
    /// assert!(matches!(reserved, Err(ChangeError::Rejected(Rejection::Metadata(_)))));
    /// # Ok(()) }
    /// ```
    pub async fn set_metadata(
        &self,
        name: impl Into<String>,
        value: Option<Vec<u8>>,
    ) -> Result<(), ChangeError> {
        let name = name.into();
        if name.starts_with(RESERVED) {
            return Err(Rejection::Metadata("names beginning with taskledger. are reserved").into());
        }
        if name.len() + value.as_ref().map_or(0, Vec::len) > MAX_METADATA_ENTRY {
            return Err(Rejection::Metadata("a name with its value is at most 4 KiB").into());
        }
        self.change(Request::SetMetadata { name, value }).await
    }

    /// Folds everything recorded so far into a checkpoint and drops the log before it. Happens by
    /// itself when the log has grown; appends never wait for it.
    ///
    /// # Durability
    ///
    /// When it returns `Ok`, the checkpoint is on disk.
    ///
    /// # Cancel safety
    ///
    /// Dropping it does not stop the checkpoint.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]. A failed checkpoint loses nothing.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::Ledger;
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("ledger");
    /// let ledger = Ledger::<u64>::open(&path).await?;
    /// ledger.mark_succeeded(7).await?;
    /// ledger.checkpoint().await?;
    /// ledger.close().await?;
    /// let ledger = Ledger::<u64>::open(&path).await?;
    /// assert_eq!(ledger.recovery().from_checkpoint(), 1); // one id
    /// assert_eq!(ledger.recovery().records_replayed(), 0);
    /// # ledger.close().await?;
    /// # Ok(()) }
    /// ```
    pub async fn checkpoint(&self) -> Result<(), CheckpointError> {
        self.checkpointed(false).await.map(drop)
    }

    /// As [`checkpoint`](Self::checkpoint), and takes hold of it to `copy` it.
    pub(super) async fn checkpointed(&self, copy: bool) -> Checkpointed {
        let (reply, done) = oneshot::channel();
        let gone = |phase| match phase {
            Phase::Poisoned(poison) => CheckpointError::Poisoned(poison),
            Phase::Open | Phase::Closing | Phase::Ended => CheckpointError::Closed,
        };
        self.shared().submissions.send(Errand::Checkpoint { copy, reply }).map_err(gone)?;
        let done = self.shared().reply(done).await;
        done.unwrap_or_else(|| Err(gone(self.shared().submissions.phase())))
    }

    /// How the ledger is.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Health, Ledger, MemoryJournal};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// assert_eq!(ledger.health(), Health::Serving);
    /// ledger.close().await?;
    /// assert_eq!(ledger.health(), Health::Closed);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn health(&self) -> Health {
        match self.shared().submissions.phase() {
            Phase::Open => Health::Serving,
            Phase::Poisoned(poison) => Health::Poisoned(poison),
            Phase::Closing | Phase::Ended => Health::Closed,
        }
    }

    /// How many requests were about something that was not current any more, and so changed nothing.
    ///
    /// An end that came after another attempt had taken its place is one, which does not happen unless something
    /// is wrong. The others are harmless: a note of an attempt that has ended; a prune, or a verdict of a run,
    /// that something else has come before; and a launch or a revoke that is refused while its runtime goes
    /// down, before it has heard of the refusal: it submits an end for what never started.
    #[must_use]
    pub fn superseded(&self) -> u64 {
        self.shared().superseded()
    }

    /// Closes the ledger for all clones: takes no new work, lets running attempts end, syncs, and
    /// frees the lock. A second call gets the first one's result.
    ///
    /// Dropping the last handle does the same without waiting for it.
    ///
    /// # Durability
    ///
    /// When it returns, everything that was acknowledged is on disk and another process can open
    /// the ledger.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the ledger closes whether the caller waits or not.
    ///
    /// # Errors
    ///
    /// [`CloseError::FromWithinAttempt`] when an attempt of this ledger calls it: it would wait for
    /// itself. The others say why the close was not a clean one; what was acknowledged is safe.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{LaunchError, Ledger, MemoryJournal, Rejection};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger.close().await?;
    /// ledger.close().await?; // the result of the first
    /// let late = ledger.launch(7, async { Ok::<_, String>(()) }).await;
    /// assert!(matches!(late, Err(LaunchError::Rejected { reason: Rejection::Closed, .. })));
    /// # Ok(()) }
    /// ```
    pub async fn close(&self) -> Result<(), CloseError> {
        if attempt::is_within(self.shared()) {
            return Err(CloseError::FromWithinAttempt);
        }
        self.shared().close();
        self.shared().wait_closed().await
    }

    /// As [`close`](Self::close), and [cancels](Self::cancel) what still runs after `grace`. Attempts of
    /// runs have their own grace period then.
    ///
    /// # Durability
    ///
    /// As [`close`](Self::close); the cancelled attempts are recorded as cancelled.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the ledger closes; dropped before the grace period is over, **nothing is
    /// cancelled**.
    ///
    /// # Errors
    ///
    /// As [`close`](Self::close).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with its time driver enabled.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # use taskledger::{Ledger, MemoryJournal, TaskState};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger.launch(7, std::future::pending::<Result<(), String>>()).await?;
    /// ledger.close_within(Duration::from_millis(10)).await?;
    /// assert_eq!(ledger.query_task_state(&7).await, TaskState::Failed); // cancelled, on record
    /// # Ok(()) }
    /// ```
    pub async fn close_within(&self, grace: Duration) -> Result<(), CloseError> {
        match tokio::time::timeout(grace, self.close()).await {
            Ok(closed) => closed,
            Err(_) => {
                self.shared().cancel_all("the ledger is closing");
                self.close().await
            }
        }
    }
}
