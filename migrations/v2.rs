//! Format version 2: all that version 1 has, and more.
//!
//! What is new, each described where it belongs:
//!
//! ```text
//! log-<N>/        events 8 to 14, failures 5 to 7, successes by 2      src/journal/wire.rs
//! checkpoint-<N>  the second byte of what is present in an entry       src/journal/checkpoint/entry.rs
//!                 frames of kind 6, tombstones, behind the summary     src/journal/checkpoint.rs
//! ```
//!
//! Every file of version 1 is one of version 2 that uses none of this, so nothing is written anew: the
//! step makes the manifest say 2. From that moment on a release that knows only version 1 refuses the
//! ledger as newer, instead of finding damage in the first record that it does not know.

use super::{Step, StepInput};
use crate::error::JournalError;
use crate::journal::manifest::{self, Manifest};

/// The version that this file describes.
pub(crate) const FORMAT_VERSION: u16 = 2;

/// From version 1, whose manifest has the same body.
pub(crate) const STEP: Step = Step { from: super::v1::FORMAT_VERSION, shape, run };

pub(super) fn shape(body: &[u8]) -> Option<Vec<u8>> {
    Manifest::from_body(body).ok().map(|manifest| manifest.shape)
}

pub(super) fn run(input: &StepInput<'_>) -> Result<Vec<u8>, JournalError> {
    // What is no manifest does not become a newer one.
    Manifest::from_body(input.body).map_err(|what| JournalError::damaged(manifest::NAME, what))?;
    Ok(input.body.to_vec())
}
