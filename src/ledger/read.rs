//! What is kept of an id on disk: details and outputs.

use super::{Ledger, TaskOutput};
use crate::details::TaskDetails;
use crate::error::{JournalError, ReadError, panic_text};
use crate::id::{EncodedId, Lookup, TaskId};
use crate::state::{Output, TaskState};
use crate::submission::{Errand, Phase};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::sync::oneshot;

impl<K: TaskId, V: TaskOutput> Ledger<K, V> {
    /// All that is known of an id; `None` if it is not found.
    ///
    /// # Durability
    ///
    /// What it returns is on disk, and is at least as new as the state at the time of the call.
    ///
    /// # Cancel safety
    ///
    /// Dropping it has no effect.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: details are read from disk by the writer, so a closed ledger has none, nor has
    /// one whose store panicked or is stuck. After a failed write they are still there, marked where
    /// a later change is [in doubt](TaskDetails::in_doubt). An id that is not found needs no disk:
    /// it is `None` even then.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Failure, Ledger, MemoryJournal};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// assert_eq!(ledger.record(&7).await?, None);
    /// ledger.launch(7, async { Err::<(), _>("no route") }).await?;
    /// ledger.wait(&7).await?;
    /// let details = ledger.record(&7).await?.ok_or("not found")?;
    /// assert_eq!(details.attempt().get(), 1);
    /// // The `Debug` of the error.
    /// assert_eq!(details.failure, Some(Failure::Error("\"no route\"".to_owned())));
    /// # Ok(()) }
    /// ```
    pub async fn record<Q: Lookup<K> + ?Sized>(
        &self,
        id: &Q,
    ) -> Result<Option<TaskDetails>, ReadError> {
        let id = EncodedId::encode::<K, Q>(id)?;
        self.details(id).await
    }

    /// The stored output of a succeeded id; `None` if it has none: not succeeded, marked from
    /// outside, or not kept ([`record`](Self::record) tells why).
    ///
    /// # Durability
    ///
    /// What it returns is on disk.
    ///
    /// # Cancel safety
    ///
    /// Dropping it has no effect.
    ///
    /// # Errors
    ///
    /// As [`record`](Self::record), and [`ReadError::Output`] when it does not read as `V`.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, MemoryJournal, NotKept, Output};
    /// # let builder = Ledger::<u64, String>::builder().output_cap(16);
    /// # let ledger = builder.open_journal(MemoryJournal::new()).await?;
    /// // The cap of this ledger is 16 bytes.
    /// ledger.launch_block(7, async { Ok::<_, String>("short".to_owned()) }).await?;
    /// assert_eq!(ledger.output(&7).await?.as_deref(), Some("short"));
    /// ledger.launch_block(8, async { Ok::<_, String>("long".repeat(100)) }).await?;
    /// assert_eq!(ledger.output(&8).await?, None); // succeeded all the same
    /// let output = ledger.record(&8).await?.map(|details| details.output);
    /// assert!(matches!(output, Some(Output::NotKept(NotKept::TooLarge { .. }))));
    /// # Ok(()) }
    /// ```
    pub async fn output<Q: Lookup<K> + ?Sized>(&self, id: &Q) -> Result<Option<V>, ReadError> {
        let id = EncodedId::encode::<K, Q>(id)?;
        match self.details(id).await?.map(|details| details.output) {
            Some(Output::Kept(bytes)) => decoded(&bytes).map(Some),
            Some(Output::Absent | Output::NotKept(_)) | None => Ok(None),
        }
    }

    pub(crate) async fn details(&self, id: EncodedId) -> Result<Option<TaskDetails>, ReadError> {
        let read = self.ask_details(&id)?;
        self.told_details(&id, read).await
    }

    /// Asks for the details of an id; `None` if nothing is known of it.
    pub(crate) fn ask_details(&self, id: &EncodedId) -> Result<Option<Read>, ReadError> {
        if self.state(id) == TaskState::NotFound {
            return Ok(None);
        }
        let (reply, read) = oneshot::channel();
        let errand = Errand::Read { id: id.clone(), reply };
        self.shared().submissions.send(errand).map_err(gone)?;
        Ok(Some(read))
    }

    /// The details that were asked for.
    pub(crate) async fn told_details(
        &self,
        id: &EncodedId,
        read: Option<Read>,
    ) -> Result<Option<TaskDetails>, ReadError> {
        let Some(read) = read else { return Ok(None) };
        let details = self.shared().reply(read).await;
        let details = details.ok_or_else(|| gone(self.shared().submissions.phase()))??;
        let in_doubt = self.shared().index.in_doubt(id.as_bytes());
        Ok(details.map(|details| TaskDetails { in_doubt, ..details }))
    }
}

/// A stored output. Its `Deserialize` is the user's, and may panic.
pub(crate) fn decoded<V: TaskOutput>(bytes: &[u8]) -> Result<V, ReadError> {
    match catch_unwind(AssertUnwindSafe(|| rmp_serde::from_slice(bytes))) {
        Ok(read) => read.map_err(|error| ReadError::Output(error.to_string())),
        Err(panic) => {
            let text = format!("its Deserialize panicked: {}", panic_text(panic));
            Err(ReadError::Output(text))
        }
    }
}

/// Details on their way.
type Read = oneshot::Receiver<Result<Option<TaskDetails>, JournalError>>;

pub(super) fn gone(phase: Phase) -> ReadError {
    match phase {
        Phase::Poisoned(poison) => ReadError::Poisoned(poison),
        Phase::Open | Phase::Closing | Phase::Ended => ReadError::Closed,
    }
}
