//! What the submission queue, the poison and the close are built of.
//!
//! `std` normally. Built with `--cfg shuttle`, the primitives are those of a
//! model checker that tries the orders in which threads can take their steps;
//! its tests say what must hold in each of them.

#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard};
#[cfg(shuttle)]
pub(crate) use shuttle::thread_local;
#[cfg(not(shuttle))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
#[cfg(not(shuttle))]
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};
#[cfg(not(shuttle))]
pub(crate) use std::thread_local;

use std::sync::PoisonError;

/// Locks, whatever became of other holders: none of our critical sections runs foreign code, and
/// each leaves its data whole at every step at which it could panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(shuttle)]
#[cfg(test)]
mod tests;
