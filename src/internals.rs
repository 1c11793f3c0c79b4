//! What the benches and the crash lab need of the inside. No part of the interface: it may change
//! in any release.

mod simulation;

pub use crate::sabotage::{Sabotage, sabotage};
pub use simulation::simulate;

use crate::id::{IdShape, TaskId};
use crate::index::Index;
use crate::journal::Record;
use crate::journal::chain::{Chain, LedgerId};
use crate::journal::frame;
use crate::state::Cell;

/// The bytes that the durable journal would give to its store for this batch, and the chain value
/// after it.
///
/// # Errors
///
/// A record that is longer than one may be.
pub fn encode_frames(
    ledger: [u8; 16],
    chain: u64,
    records: &[Record],
) -> Result<(Vec<Vec<u8>>, u64), String> {
    let (frames, chain) = frame::encode_records(LedgerId(ledger), Chain(chain), records)
        .map_err(|error| error.to_string())?;
    Ok((frames.into_iter().map(|frame| frame.bytes).collect(), chain.0))
}

/// Decodes the frame of records with which `bytes` begin. How many records it has.
///
/// # Errors
///
/// Why it is none.
pub fn try_frame(ledger: [u8; 16], bytes: &[u8]) -> Result<usize, String> {
    let wrong = |error: frame::FrameError| error.to_string();
    let (head, body) = frame::parse(LedgerId(ledger), bytes).map_err(wrong)?;
    frame::decode_records(&head, body).map(|records| records.len()).map_err(wrong)
}

/// Reads a description of an id type, prints an id by it and reads the text back.
///
/// # Errors
///
/// That it is no description, or that the text is not read back as the id.
pub fn try_shape(shape: &[u8], id: &[u8]) -> Result<(), String> {
    let shape = IdShape::from_bytes(shape)?;
    let text = shape.render(id);
    match shape.parse(&text) {
        Ok(again) if again.as_bytes() == id => Ok(()),
        other => Err(format!("lost in print: {text:?} is read as {other:?}")),
    }
}

/// Makes the closed ledger at `path` one of format version 0, a synthetic one that the next open
/// migrates.
///
/// # Errors
///
/// Why it cannot be done; the ledger may be of no version then.
pub fn age(path: &std::path::Path) -> Result<(), String> {
    crate::journal::migrate::synthetic::age(path).map_err(|error| error.to_string())
}

/// The stored description of an id type.
#[must_use]
pub fn shape_of<K: TaskId>() -> Vec<u8> {
    IdShape::of_type::<K>().to_bytes()
}

/// What memory keeps of ids, without a ledger around it.
#[derive(Debug)]
pub struct Cells<'a>(&'a Index);

/// Makes room for so many ids of these lengths, and hands it over.
pub fn with_cells<R>(expected: &[(usize, usize)], then: impl FnOnce(&Cells<'_>) -> R) -> R {
    let index = Index::new();
    let _room = index.reserve(expected);
    then(&Cells(&index))
}

impl Cells<'_> {
    /// Sets the cell of an id, as a ledger does.
    pub fn set(&self, id: &[u8], cell: Cell) {
        self.0.set(id, cell);
    }
}
