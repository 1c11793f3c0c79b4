//! What is the user's may panic when it is dropped. That costs nobody an answer.

use crate::error::panic_text;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls it, and tells of its panic. The payload of that is the user's as well, and is gone.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(panic_text)
}

/// Drops it, whatever it does then.
pub(crate) fn drop_caught<T>(value: T) {
    if let Err(panic) = caught(|| drop(value)) {
        tracing::warn!(panic, "something of the user's panicked when dropped");
    }
}

/// Something of the user's, which is dropped with care wherever that happens.
pub(crate) struct Contained<T>(Option<T>);

impl<T> Contained<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// `None` only while it is dropped.
    pub(crate) const fn inner(&self) -> Option<&T> {
        self.0.as_ref()
    }

    /// As [`inner`](Self::inner).
    pub(crate) const fn inner_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()
    }

    /// As [`inner`](Self::inner).
    pub(crate) fn into_inner(mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T> Drop for Contained<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            drop_caught(value);
        }
    }
}

impl<T> fmt::Debug for Contained<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contained").finish_non_exhaustive()
    }
}
