//! Metadata, checkpoints, health and the close.

use super::{Ledger, TaskOutput};
use crate::attempt;
use crate::error::{ChangeError, CheckpointError, CloseError, Poison, Rejection};
use crate::id::TaskId;
use crate::shared::RESERVED;
use crate::submission::{Errand, Phase, Request};
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
    /// The owner's own names and values, kept with the ledger: a few small ones, all in memory.
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
    pub async fn checkpoint(&self) -> Result<(), CheckpointError> {
        let (reply, done) = oneshot::channel();
        let gone = |phase| match phase {
            Phase::Poisoned(poison) => CheckpointError::Poisoned(poison),
            Phase::Open | Phase::Closing | Phase::Ended => CheckpointError::Closed,
        };
        self.shared().submissions.send(Errand::Checkpoint { reply }).map_err(gone)?;
        let done = self.shared().reply(done).await;
        done.unwrap_or_else(|| Err(gone(self.shared().submissions.phase())))
    }

    /// How the ledger is.
    #[must_use]
    pub fn health(&self) -> Health {
        match self.shared().submissions.phase() {
            Phase::Open => Health::Serving,
            Phase::Poisoned(poison) => Health::Poisoned(poison),
            Phase::Closing | Phase::Ended => Health::Closed,
        }
    }

    /// How many ends of attempts came too late to change anything. 0 unless something is wrong.
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
    pub async fn close(&self) -> Result<(), CloseError> {
        if attempt::is_within(self.shared()) {
            return Err(CloseError::FromWithinAttempt);
        }
        self.shared().close();
        self.shared().wait_closed().await
    }

    /// As [`close`](Self::close), and cancels what still runs after `grace`.
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
