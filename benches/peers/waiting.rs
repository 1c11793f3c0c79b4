//! Who waits for which job, where the peer has no way to wait for one.

use std::sync::{Mutex, PoisonError};
use tokio::sync::oneshot;

/// A caller has one job at a time, so that its number tells the job.
#[derive(Debug)]
pub(crate) struct Waiting(Vec<Mutex<Option<oneshot::Sender<()>>>>);

impl Waiting {
    pub(crate) fn of(callers: usize) -> Self {
        Self((0..callers).map(|_| Mutex::default()).collect())
    }

    /// Before the job is enqueued.
    pub(crate) fn expect(&self, caller: usize) -> oneshot::Receiver<()> {
        let (told, wait) = oneshot::channel();
        *self.0[caller].lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        wait
    }

    /// After its completion has been acknowledged.
    pub(crate) fn done(&self, caller: usize) {
        let told = self.0[caller].lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(told) = told {
            let _ = told.send(());
        }
    }
}
