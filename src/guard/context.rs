//! What an execution knows of itself.

use crate::attempt::{Began, Control};
use crate::details::TaskDetails;
use crate::error::{ChangeError, ReadError, Rejection};
use crate::id::{EncodedId, Lookup, TaskId};
use crate::ledger::{Ledger, TaskOutput};
use crate::seal::Seal;
use crate::shared::Shared;
use crate::state::{Attempt, Epoch, SeqNo};
use crate::submission::{Answer, AttemptKey, Request};
use crate::sync::Arc;
use std::fmt;
use tokio_util::sync::CancellationToken;

/// A note is cut at this many bytes.
pub(super) const MAX_NOTE_BYTES: usize = 1024;

/// Names one effect to the world outside: the same for every attempt of an id until that is revoked or
/// forgotten, and then another one. 32 hexadecimal digits when printed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EffectKey([u8; 16]);

impl EffectKey {
    /// Of the attempts of an id whose life began there; `None` if that has come to its success.
    pub(crate) fn of(seal: &Seal, id: &EncodedId, since: SeqNo) -> Option<Self> {
        (since != SeqNo::ZERO).then(|| Self(seal.effect_key(id.as_bytes(), since)))
    }

    /// Its bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EffectKey({self})")
    }
}

/// What an execution of [`run`](Ledger::run) knows of itself. Cloning is cheap.
pub struct Context<K> {
    inner: Arc<Inner<K>>,
}

struct Inner<K> {
    shared: Arc<Shared>,
    id: Arc<K>,
    encoded: EncodedId,
    attempt: Attempt,
    epoch: Epoch,
    effect_key: EffectKey,
    /// `None` for a probe, which is no attempt.
    runs: Option<(AttemptKey, Arc<Control>)>,
    never: CancellationToken,
}

impl<K: TaskId> Context<K> {
    pub(crate) fn new<V: TaskOutput>(
        ledger: &Ledger<K, V>,
        id: Arc<K>,
        encoded: EncodedId,
        began: Began,
    ) -> Self {
        let shared = Arc::clone(ledger.shared());
        let key = shared.index.seal().effect_key(encoded.as_bytes(), began.since);
        let inner = Inner {
            id,
            encoded,
            attempt: began.cell.attempt,
            epoch: shared.recovery.epoch(),
            effect_key: EffectKey(key),
            runs: Some((began.key, began.control)),
            never: CancellationToken::new(),
            shared,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Of the attempt that crashed.
    pub(super) fn after_crash<V: TaskOutput>(
        ledger: &Ledger<K, V>,
        id: Arc<K>,
        encoded: EncodedId,
        details: &TaskDetails,
    ) -> Self {
        let shared = Arc::clone(ledger.shared());
        let key = shared.index.seal().effect_key(encoded.as_bytes(), details.since);
        let inner = Inner {
            id,
            encoded,
            attempt: details.attempt(),
            epoch: details.epoch.unwrap_or_default(),
            effect_key: EffectKey(key),
            runs: None,
            never: CancellationToken::new(),
            shared,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &K {
        &self.inner.id
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        self.inner.attempt
    }

    /// In which open of the ledger it runs.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.inner.epoch
    }

    /// What to give an outside service as its idempotency key: the same for every attempt of this id,
    /// across restarts and crashes, until the id is revoked or forgotten. It tells nothing of the id.
    #[must_use]
    pub fn effect_key(&self) -> EffectKey {
        self.inner.effect_key
    }

    /// Cancelled when the attempt is asked to stop: by [`cancel`](Ledger::cancel) or
    /// [`time_out`](Ledger::time_out), by [`close_within`](Ledger::close_within) after its grace, and by its
    /// caller's drop if it is to [end with that](crate::Task::cancel_with_caller). An attempt that goes on
    /// nevertheless is dropped after the [grace period](crate::Task::cancel_grace). Also cancelled when it is
    /// dropped at once, without a grace or at its timeout or deadline: for what it has spawned. A
    /// [`close`](Ledger::close) waits for it, and does not cancel this.
    #[must_use]
    pub fn cancellation(&self) -> &CancellationToken {
        self.inner.runs.as_ref().map_or(&self.inner.never, |(_, control)| control.token())
    }

    /// Records how far it has got, for [`record`](Ledger::record) and the dump tool: the last eight
    /// notes of an attempt are kept, each cut at 1 KiB. While the ledger [closes](Ledger::close), what still
    /// runs goes on noting.
    ///
    /// Each note is a record, with a sync of its own unless others come at the same time; and until the next
    /// checkpoint whoever asks for the details or the output of the id reads all notes of its last attempt,
    /// which keeps the writer that long. So tell every few seconds how far it is, not with every step.
    ///
    /// # Durability
    ///
    /// When it returns `Ok`, the note is on disk.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, the note may be recorded or not.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; refused when the attempt is over.
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Context, Ledger, MemoryJournal};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// let work = |cx: Context<u64>| async move {
    ///     cx.note("uploaded 3 of 9 parts").await.map_err(|error| error.to_string())
    /// };
    /// ledger.run(7, work).await?;
    /// let details = ledger.record(&7).await?.ok_or("not found")?;
    /// assert_eq!(details.notes[0].text, "uploaded 3 of 9 parts");
    /// # Ok(()) }
    /// ```
    pub async fn note(&self, text: impl Into<String>) -> Result<(), ChangeError> {
        let Inner { shared, encoded, runs, .. } = &*self.inner;
        let refused = || ChangeError::Refused { state: shared.index.state(encoded.as_bytes()) };
        let Some((key, _)) = runs else { return Err(refused()) };
        let note = crate::attempt::cut_at(text.into(), MAX_NOTE_BYTES);
        shared.permit_to_note().await?;
        let request = Request::Note { id: encoded.clone(), key: *key, note };
        match shared.submissions.submit(request)?.await {
            Ok(Answer::Done(_)) => Ok(()),
            Ok(Answer::Unreadable) => Err(Rejection::Unreadable.into()),
            Ok(
                Answer::Refused(_)
                | Answer::Superseded
                | Answer::NoRoom
                | Answer::ScopeEnded
                | Answer::Deferred,
            ) => Err(refused()),
            Err(poison) => Err(ChangeError::InDoubt(poison)),
        }
    }
}

impl<K> Clone for Context<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K> fmt::Debug for Context<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("attempt", &self.inner.attempt)
            .field("epoch", &self.inner.epoch)
            .field("effect_key", &self.inner.effect_key)
            .finish_non_exhaustive()
    }
}

impl<K: TaskId, V: TaskOutput> Ledger<K, V> {
    /// The [effect key](Context::effect_key) of the attempts of an id, also of the next one: for whoever has to
    /// ask the other side what came of one that crashed or failed. `None` if the id is not found, and of a
    /// success, which has no further attempt.
    ///
    /// # Durability
    ///
    /// As [`record`](Self::record).
    ///
    /// # Cancel safety
    ///
    /// Dropping it has no effect.
    ///
    /// # Errors
    ///
    /// As [`record`](Self::record).
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Context, Ledger, MemoryJournal};
    /// # let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    /// let work = |cx: Context<u64>| async move { Err::<(), _>(cx.effect_key().to_string()) };
    /// let failed = ledger.run(7, work).await.unwrap_err();
    /// let key = ledger.effect_key(&7).await?.ok_or("it has none")?;
    /// assert!(failed.to_string().contains(&key.to_string()));
    /// # Ok(()) }
    /// ```
    pub async fn effect_key<Q: Lookup<K> + ?Sized>(
        &self,
        id: &Q,
    ) -> Result<Option<EffectKey>, ReadError> {
        let id = EncodedId::encode::<K, Q>(id)?;
        let since = self.details(id.clone()).await?.map(|details| details.since);
        Ok(EffectKey::of(self.shared().index.seal(), &id, since.unwrap_or_default()))
    }
}
