//! A persistent, crash-recoverable task ledger.

mod attempt;
mod builder;
mod details;
pub mod dump;
mod error;
mod id;
mod index;
mod journal;
mod ledger;
mod recovery;
mod shared;
mod state;
mod submission;
mod sync;
mod task;
mod views;
mod watch;
mod writer;

pub use builder::{AcceptLoss, Builder};
pub use ledger::{Health, Ledger, TaskOutput};
pub use recovery::Recovery;
pub use task::Task;
pub use views::{View, ViewIter};

pub use details::TaskDetails;
pub use error::*;
pub use id::{ByteId, EncodedId, IdShape, Lookup, MAX_ID_BYTES, ParseByteIdError, TaskId};
pub use journal::{
    Base, Entry, Journal, LedgerEvent, MemoryJournal, Record, Replayed, Upkeep, Visit,
};
pub use state::*;
