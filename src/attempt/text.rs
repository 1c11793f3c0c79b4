//! Texts of the user's, no longer than is kept.

use super::MAX_FAILURE_BYTES;
use crate::error::panic_text;
use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The `Debug` of a user's error, no longer than is kept.
pub(crate) fn debug_text<E: fmt::Debug>(error: &E) -> String {
    #[derive(Default)]
    struct Bounded {
        text: String,
        full: bool,
    }
    impl fmt::Write for Bounded {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            if !self.full {
                let fits = border(text, MAX_FAILURE_BYTES - self.text.len());
                self.text.push_str(text.get(..fits).unwrap_or_default());
                self.full = fits < text.len();
            }
            // Stops a `Debug` that would print gigabytes; one that does not listen costs no memory.
            if self.full { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut text = Bounded::default();
    match catch_unwind(AssertUnwindSafe(|| write!(text, "{error:?}"))) {
        Ok(_) => text.text,
        Err(panic) => cut(format!("(its Debug panicked: {})", panic_text(panic))),
    }
}

pub(super) fn cut(text: String) -> String {
    cut_at(text, MAX_FAILURE_BYTES)
}

/// The text, no longer than so many bytes.
pub(crate) fn cut_at(mut text: String, bytes: usize) -> String {
    text.truncate(border(&text, bytes));
    text
}

/// The last border of a character within the first `max` bytes.
fn border(text: &str, max: usize) -> usize {
    // `str::floor_char_boundary` is newer than the oldest Rust we build with.
    let end = (0..=max.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    end.unwrap_or_default()
}
