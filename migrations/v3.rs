//! Format version 3: all that version 2 has, and more.
//!
//! What is new, each described where it belongs:
//!
//! ```text
//! log-<N>/        events 15 to 17: what is queued has a payload,       src/journal/wire.rs
//!                 an attempt a parent, or a crash before it
//! checkpoint-<N>  bits 4 to 6 of the second byte of what is present    src/journal/checkpoint/entry.rs
//! ```
//!
//! Every file of version 2 is one of version 3 that uses none of this, so nothing is written anew: the
//! step makes the manifest say 3. From that moment on a release that knows only version 2 refuses the
//! ledger as newer, instead of finding damage in the first record that it does not know.

use super::{Step, v2};

/// The version that this file describes.
pub(crate) const FORMAT_VERSION: u16 = 3;

/// From version 2, whose manifest has the same body.
pub(crate) const STEP: Step = Step { from: v2::FORMAT_VERSION, shape: v2::shape, run: v2::run };
