//! What somebody has found out about a failed id.

use super::context::MAX_NOTE_BYTES;
use crate::attempt::{MAX_FAILURE_BYTES, cut_at};
use crate::error::{ChangeError, Rejection};
use crate::id::{EncodedId, Lookup, TaskId};
use crate::ledger::{Ledger, TaskOutput};
use crate::state::{Event, Failure, Output};
use crate::submission::Request;

/// What became of a failed, most often a crashed, attempt after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It had its effect: the id has succeeded.
    Succeeded,
    /// It had none: it counts as failed, no longer as crashed.
    Failed,
    /// It may be tried again, whatever the policies say, and though it was given up.
    Retry,
}

impl<K: TaskId, V: TaskOutput> Ledger<K, V> {
    /// Records what somebody has found out about a failed id, as what it is: a success says that it is
    /// by [`Resolve`](crate::SuccessBy::Resolve), and `note`, cut at 1 KiB, is the last of its notes; a
    /// failure is [`Resolved`](crate::Failure::Resolved) or [`Released`](crate::Failure::Released), with
    /// `note`, cut at 4 KiB.
    ///
    /// # Durability
    ///
    /// When it returns `Ok`, it is on disk, with its note.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, **it may be recorded or not**; ask for the state.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; refused, without leaving its note, when the id is not failed.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, MemoryJournal, OnCrash, RunError, SuccessBy, Verdict};
    /// # let journal = MemoryJournal::new();
    /// # let ledger = Ledger::<u64>::builder().open_journal(journal.clone()).await?;
    /// # ledger.launch(7, std::future::pending::<Result<(), String>>()).await?;
    /// // The process dies while 7 runs; the next one finds it crashed.
    /// # let ledger = Ledger::<u64>::builder().open_journal(journal.fork()).await?;
    /// let careful = || ledger.task(7).on_crash(OnCrash::Hold);
    /// let held = careful().run(|_| async { Ok::<_, String>(()) }).await;
    /// assert!(matches!(held, Err(RunError::Held)));
    /// // Somebody looks at the other side: the money was taken.
    /// ledger.resolve(&7, Verdict::Succeeded, "seen in the bank's list").await?;
    /// careful().run(|_| async { Ok::<_, String>(()) }).await?; // replayed
    /// let details = ledger.record(&7).await?.ok_or("not found")?;
    /// assert_eq!(details.succeeded_by, Some(SuccessBy::Resolve));
    /// # Ok(()) }
    /// ```
    pub async fn resolve<Q: Lookup<K> + ?Sized>(
        &self,
        id: &Q,
        verdict: Verdict,
        note: impl Into<String>,
    ) -> Result<(), ChangeError> {
        let id = EncodedId::encode::<K, Q>(id).map_err(Rejection::Id)?;
        let note = cut_at(note.into(), MAX_FAILURE_BYTES);
        let resolved = |failure| Event::Resolved { failure };
        let event = match verdict {
            Verdict::Succeeded => {
                let note = Some(cut_at(note, MAX_NOTE_BYTES)).filter(|note| !note.is_empty());
                let output = Output::Absent;
                return self.change(Request::Resolve { id, note, output, after: None }).await;
            }
            Verdict::Failed => resolved(Failure::Resolved(note)),
            Verdict::Retry => resolved(Failure::Released(note)),
        };
        self.change(Request::Change { id, event, after: None }).await
    }

    /// Records what is found out about a failed id later, without a verdict: the last of its notes, cut at
    /// 1 KiB. A running attempt of a [`run`](Self::run) notes what it has to say
    /// [itself](crate::Context::note).
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
    /// [`ChangeError`]; refused when the id is not failed.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, MemoryJournal};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// ledger.task(7).launch_block(async { Err::<(), _>("no route") }).await.unwrap_err();
    /// ledger.note(&7, "the cable was cut").await?;
    /// let details = ledger.record(&7).await?.ok_or("not found")?;
    /// assert_eq!(details.notes[0].text, "the cable was cut");
    /// # Ok(()) }
    /// ```
    pub async fn note<Q: Lookup<K> + ?Sized>(
        &self,
        id: &Q,
        note: impl Into<String>,
    ) -> Result<(), ChangeError> {
        let id = EncodedId::encode::<K, Q>(id).map_err(Rejection::Id)?;
        let event = Event::Noted { note: cut_at(note.into(), MAX_NOTE_BYTES) };
        self.change(Request::Change { id, event, after: None }).await
    }
}
