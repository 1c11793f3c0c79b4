//! Format version 1: the first.
//!
//! ```text
//! lock            text: who holds it                          src/journal/lock.rs
//! manifest        what belongs to the ledger                  src/journal/manifest.rs
//! witness         last durable position, two slots            src/journal/witness.rs
//! ballast         space kept back for a full disk             src/journal/ballast.rs
//! log-<N>/        a sled 0.34 directory, one tree (the default one):
//!                 first seq, u64 big-endian -> one frame      src/journal/frame.rs
//!                 and, while it is opened, a copy of them: rescue  src/journal/rescue.rs
//! checkpoint-<N>  frames of entries, sorted by id             src/journal/checkpoint.rs
//! damaged/        what an accepted loss put aside; never read
//! ```
//!
//! The files named above hold the diagrams and the validity rules. What is particular to this
//! version: the manifest's body is bincode 2 `standard()` of, in this order,
//!
//! ```text
//! ledger             [u8; 16]
//! created_at_micros  u64
//! shape              Vec<u8>
//! segment_size       u64
//! checkpoint         Option<(number u64, last_seq u64, chain u64)>
//! logs               Vec<u64>
//! next_number        u64
//! ```
//!
//! There is no older version, so nothing leads here.

/// The version that this file describes.
pub(crate) const FORMAT_VERSION: u16 = 1;
