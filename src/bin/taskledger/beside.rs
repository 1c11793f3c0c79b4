//! What may take long, beside what hears signals.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// What comes of `work` in a thread of its own, or here if there can be none; `None` if it panics. Not by
/// tokio, which panics where there can be no thread.
pub(crate) async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (tell, told) = oneshot::channel();
    let work: Box<dyn FnOnce() + Send> = Box::new(move || drop(tell.send(work())));
    let here = Arc::new(Mutex::new(Some(work)));
    let there = Arc::clone(&here);
    let begin = |work: &Mutex<Option<Box<dyn FnOnce() + Send>>>| {
        let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(work) = work {
            work();
        }
    };
    if std::thread::Builder::new().spawn(move || begin(&there)).is_err() {
        begin(&here);
    }
    told.await.ok()
}
