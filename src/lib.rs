//! A persistent, crash-recoverable task ledger.

mod details;
mod error;
mod id;
mod journal;
mod state;

pub use details::TaskDetails;
pub use error::*;
pub use id::{ByteId, EncodedId, IdShape, Lookup, MAX_ID_BYTES, ParseByteIdError, TaskId};
pub use journal::{
    Base, Entry, Journal, LedgerEvent, MemoryJournal, Record, Replayed, Upkeep, Visit,
};
pub use state::*;
