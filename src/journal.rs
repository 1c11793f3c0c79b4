//! The durable log: records in, no bytes.
//!
//! [`Journal`] is the contract the writer relies on. [`MemoryJournal`] is its
//! shortest honest implementation, [`SledJournal`] the one that outlives the
//! power. Both pass the same `conformance` suite.

pub(crate) mod ahead;
pub(crate) mod aside;
pub(crate) mod ballast;
pub(crate) mod chain;
pub(crate) mod checkpoint;
pub(crate) mod codec;
pub(crate) mod compare;
pub(crate) mod directory;
pub(crate) mod durable;
pub(crate) mod fault;
pub(crate) mod files;
pub(crate) mod fold;
pub(crate) mod frame;
pub(crate) mod fresh;
pub(crate) mod judge;
pub(crate) mod lock;
pub(crate) mod manifest;
pub(crate) mod memory;
pub(crate) mod merge;
pub(crate) mod migrate;
pub(crate) mod open;
pub(crate) mod rescue;
mod rewrite;
pub(crate) mod roll;
pub(crate) mod salvage;
pub(crate) mod scan;
pub(crate) mod sled;
pub(crate) mod wire;
pub(crate) mod within;
pub(crate) mod witness;

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
pub(crate) mod conformance;

pub use memory::MemoryJournal;

use crate::details::TaskDetails;
use crate::error::{CreateError, JournalError};
use crate::id::EncodedId;
use crate::state::{Cell, Epoch, Event, SeqNo, Timestamp, Tombstone};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a journal must be able to take a record apart")]
pub struct Record {
    /// Its position. Dense over the whole life of the ledger.
    pub seq: SeqNo,
    /// When the writer took it up. Information only.
    pub at: Timestamp,
    /// What it says.
    pub entry: Entry,
}

/// What a record says: something of one id, or something of the whole ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entry {
    /// Something happened to one id.
    Task {
        /// The id.
        id: EncodedId,
        /// The position of the id's record before this one; [`SeqNo::ZERO`] if it was not found.
        /// For the end of an attempt or of a revoke this is its fencing token.
        prev: SeqNo,
        /// What happened.
        event: Event,
    },
    /// Something happened to the ledger.
    Ledger(LedgerEvent),
}

/// What happened to the ledger as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LedgerEvent {
    /// It was opened.
    EpochOpened {
        /// The number of this open.
        epoch: Epoch,
    },
    /// Its owner accepted that damaged records are gone.
    LossAccepted {
        /// What was lost, in words.
        what: String,
    },
    /// A name of the owner's own [metadata](crate::Ledger::metadata) was set, or removed.
    MetadataSet {
        /// The name.
        name: String,
        /// The value; `None` removes the name.
        value: Option<Vec<u8>>,
    },
}

/// What [`Journal::replay`] hands over, in this order: `Expected` or not, any number of `Base` and of `Tombstones`, then
/// any number of `Records`. They come in chunks of at most a few thousand, so that one thread can read while
/// another applies.
#[derive(Debug)]
#[non_exhaustive]
pub enum Replayed {
    /// About how many ids of which length, in encoded bytes, the last checkpoint knows: whoever keeps them
    /// can make room. Comes before all else, if at all. Nothing rests on it.
    Expected(Vec<(usize, usize)>),
    /// What the last checkpoint says of some ids, each id once in the whole replay.
    Base(Vec<(EncodedId, Cell)>),
    /// What the last checkpoint keeps of pruned successes. Comes before the records.
    Tombstones(Vec<Tombstone>),
    /// Records after the last checkpoint, dense and in order over all chunks.
    Records(Vec<Record>),
}

/// What the journal knows about the whole, beside the ids and the records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Base {
    /// The random identity of the ledger: the same at every open, and of no other ledger.
    pub ledger: [u8; 16],
    /// The last record that is folded into the checkpoint; [`SeqNo::ZERO`] without one.
    pub last_seq: SeqNo,
    /// The last epoch folded into the checkpoint.
    pub epoch: Epoch,
    /// The metadata folded into the checkpoint.
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// The newest time that the checkpoint tells of any id.
    pub newest: Timestamp,
}

/// Takes what a replay finds; an error ends the replay and is returned by it.
pub type Visit<'a> = dyn FnMut(Replayed) -> Result<(), JournalError> + 'a;

/// Makes a new ledger at the path, which must be missing or empty, of what a journal held at one
/// moment; gives up soon after the flag is set. Only when it returns `Ok` there is a ledger.
pub type Copier = Arc<dyn Fn(&Path, &AtomicBool) -> Result<(), CreateError> + Send + Sync>;

/// Hands over each id of a checkpoint once, with all that is known of it there, until it is told to stop by
/// an error, which it returns.
pub type Reader = Arc<dyn Fn(&mut VisitDetails<'_>) -> Result<(), JournalError> + Send + Sync>;

/// Takes what a [`Reader`] reads.
pub type VisitDetails<'a> = dyn FnMut(&EncodedId, &TaskDetails) -> Result<(), JournalError> + 'a;

/// A durable, ordered log of [`Record`]s.
///
/// What the ledger relies on:
///
/// * When [`append`](Self::append) returns `Ok`, all records of the batch survive the loss of
///   power, in order, and so do all that were appended before.
/// * When it returns `Err`, or the process dies within it, any prefix of the batch may be there
///   after the next open, never a part without what comes before it.
/// * After an `Err` from `append` nothing more is appended: the ledger is poisoned.
/// * [`replay`](Self::replay) hands over exactly what is durable, or fails; it writes nothing that
///   changes what the next replay hands over.
/// * All calls come from one thread. They may block, and may panic: a panic counts as an error and
///   the journal is then leaked, not dropped.
///
/// Nothing here knows of ids' types, waiters, or states other than as data.
pub trait Journal: Send + 'static {
    /// Hands over what the last checkpoint says of each id, then every record after it, in order.
    /// Called once, before anything is appended.
    ///
    /// # Errors
    ///
    /// What `visit` returned, or that the log cannot be read.
    fn replay(&mut self, visit: &mut Visit<'_>) -> Result<Base, JournalError>;

    /// Makes the records durable, in order. They are dense and follow the last one.
    ///
    /// # Errors
    ///
    /// Any failure to make all of them durable. Not retried.
    fn append(&mut self, records: &[Record]) -> Result<(), JournalError>;

    /// All that is known of `id`, of which memory knows `cell` (never an absent one).
    ///
    /// # Errors
    ///
    /// That the log or the checkpoint cannot be read.
    fn read(&mut self, id: &EncodedId, cell: Cell) -> Result<TaskDetails, JournalError>;

    /// Does what the journal has to do beside appending: starts a checkpoint that `wanted` asks
    /// for or that is due, takes over one that has finished, writes what may be written late.
    /// Called after each batch and when [`Upkeep::again_after`] has passed; must not wait for long
    /// work.
    ///
    /// # Errors
    ///
    /// [`JournalError`] when the journal can no longer be appended to. A checkpoint that failed is
    /// no error but an [`Upkeep::failed`].
    fn upkeep(&mut self, wanted: Option<SeqNo>) -> Result<Upkeep, JournalError> {
        Ok(Upkeep { checkpointed: wanted.unwrap_or_default(), ..Upkeep::default() })
    }

    /// What copies everything up to the last finished checkpoint, of which [`upkeep`](Self::upkeep) has
    /// just told, into a new ledger: for [`Ledger::backup`](crate::Ledger::backup), which runs it on another
    /// thread while this one goes on. Must not wait. `None` if this journal cannot be copied.
    fn copier(&mut self) -> Option<Copier> {
        None
    }

    /// What reads everything that the last finished checkpoint says of ids, on another thread while this
    /// one goes on, and the last record that is folded into it: for
    /// [`Ledger::prune`](crate::Ledger::prune), which reads the rest one by one. Must not wait. `None` if
    /// there is no checkpoint, or if it cannot be read beside the journal.
    fn reader(&mut self) -> Option<(SeqNo, Reader)> {
        None
    }

    /// Makes durable what is not yet, and frees whatever keeps another open out.
    ///
    /// # Errors
    ///
    /// That not everything could be made durable or freed.
    fn close(&mut self) -> Result<(), JournalError> {
        Ok(())
    }
}

/// What [`Journal::upkeep`] did, and when it wants to be called again.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Upkeep {
    /// The last record that is folded into a finished checkpoint (or needs none).
    pub checkpointed: SeqNo,
    /// A checkpoint that failed since the last call. The log goes on as it was, and the
    /// checkpoint is tried again.
    pub failed: Option<JournalError>,
    /// Call again after this time even if nothing is appended.
    pub again_after: Option<std::time::Duration>,
}

/// What opening a journal did before its replay.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenReport {
    /// The format versions from and to which it was migrated.
    pub(crate) migrated: Option<(u16, u16)>,
    /// What was damaged without loss and has been repaired, a line each.
    pub(crate) repaired: Vec<String>,
    /// What was lost and accepted as lost; it is recorded.
    pub(crate) loss_accepted: Option<String>,
}

impl fmt::Debug for dyn Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dyn Journal")
    }
}
