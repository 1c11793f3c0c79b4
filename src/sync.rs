//! What the submission queue, the poison and the close are built of.
//!
//! `std` normally; one place to swap it for a model checker that tries the
//! interleavings.

pub(crate) use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use std::sync::PoisonError;

/// Locks, whatever became of other holders: none of our critical sections runs foreign code, and
/// each leaves its data whole at every step at which it could panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
