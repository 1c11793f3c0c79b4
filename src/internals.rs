//! What the benches and the crash lab need of the inside. No part of the interface: it may change
//! in any release.

mod simulation;

pub use crate::sabotage::{Sabotage, sabotage};
pub use simulation::simulate;

use crate::journal::Record;
use crate::journal::chain::{Chain, LedgerId};
use crate::journal::frame;

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
