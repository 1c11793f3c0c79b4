//! A copy of a ledger while it works.

use super::{Ledger, TaskOutput};
use crate::error::{BackupError, CreateError, JournalError, panic_text};
use crate::id::TaskId;
use crate::journal::{Copier, fresh};
use crate::wake;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use tokio::sync::oneshot;

impl<K: TaskId, V: TaskOutput> Ledger<K, V> {
    /// Makes a copy of the ledger, which goes on working meanwhile, in the directory `path`: a new or an
    /// empty one. Everything that was acknowledged before the call is in it, and nothing that was not
    /// recorded by the time its checkpoint is made.
    ///
    /// The copy is a ledger of its own, made of a [checkpoint](Self::checkpoint) of this one. Opened, it
    /// shows what the next open of this one would show if this process died now: what was running is
    /// `Failed(Crashed)`, an interrupted revoke is a success again, what was queued is queued. It keeps
    /// the identity, so tombstones, fingerprints and effect keys are the same. That is what a backup is for,
    /// and why **only one of the two may go on being used**: if both run tasks, both hand out the same
    /// effect keys, and neither knows what the other has done. What an
    /// [accepted loss](crate::Builder::accept_loss) has put aside is not copied.
    ///
    /// Appends wait for it no more than for any checkpoint. It may be pruned, and checkpoints may be made,
    /// while it is copied. Going back to a backup means that everything since then was never recorded: see
    /// the guarantees on what no ledger can tell.
    ///
    /// # Durability
    ///
    /// When it returns `Ok`, the copy is on disk. Until then there is no ledger at `path`: if the process
    /// dies in it, opening what is left is refused as [`Unfinished`](crate::OpenError::Unfinished), and the
    /// next backup with the same path begins anew.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it has finished, the copy is given up, and what is there of it is removed by the
    /// thread that makes it; unless it is just being finished: then there is a whole one.
    ///
    /// # Errors
    ///
    /// [`BackupError`]; in [`CreateError::Exists`] nothing was touched. A failed backup removes what it has
    /// made.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, TaskState};
    /// # let dir = tempfile::tempdir()?;
    /// # let (path, copy) = (dir.path().join("ledger"), dir.path().join("monday"));
    /// let ledger = Ledger::<u64>::open(&path).await?;
    /// ledger.mark_succeeded(7).await?;
    /// ledger.backup(&copy).await?; // while others go on using it
    /// # ledger.close().await?;
    ///
    /// // Another day, with the original gone for good:
    /// let ledger = Ledger::<u64>::open(&copy).await?;
    /// assert_eq!(ledger.query_task_state(&7).await, TaskState::Succeeded);
    /// # ledger.close().await?;
    /// # Ok(()) }
    /// ```
    pub async fn backup(&self, path: impl AsRef<Path>) -> Result<(), BackupError> {
        // The process may change its current directory while the checkpoint is made.
        let path = std::path::absolute(&path)
            .map_err(JournalError::io("find", path.as_ref()))
            .map_err(CreateError::from)?;
        // Before anything is done for what cannot be.
        fresh::judge(&path)?;
        let copier = self.checkpointed(true).await?.0.ok_or(BackupError::Unsupported)?;
        copy(copier, path).await
    }
}

/// Copies on a thread of its own: neither the writer nor a runtime has to wait for the disk.
async fn copy(copier: Copier, path: PathBuf) -> Result<(), BackupError> {
    let stop = StopOnDrop::default();
    let (reply, done) = oneshot::channel();
    let stopped = Arc::clone(&stop.0);
    let work = move || {
        let copied = catch_unwind(AssertUnwindSafe(|| copier(&path, &stopped)));
        let panicked = |panic| Err(JournalError::Panicked(panic_text(panic)).into());
        let copied = copied.unwrap_or_else(panicked);
        // Nobody waiting any more is fine.
        wake::caught(|| drop(reply.send(copied)));
    };
    let spawned = thread::Builder::new().name("taskledger-backup".into()).spawn(work);
    spawned.map_err(|source| CreateError::Io {
        action: "start a thread for",
        path: "taskledger-backup".into(),
        source,
    })?;
    let gone = |_| Err(CreateError::Journal(JournalError::Store("its thread is gone".into())));
    Ok(wake::guarded(done).await.unwrap_or_else(gone)?)
}

/// Asks the copying to stop when nobody waits for it any more.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
