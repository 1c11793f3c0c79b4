//! Work that may never come back.

use crate::error::{JournalError, panic_text};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// Does the work on a thread of its own; `None` if it is not done by the deadline, and then the
/// thread is left alone.
pub(crate) fn within<T: Send + 'static>(
    deadline: Duration,
    work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Option<Result<T, JournalError>> {
    let (answer, answered) = channel();
    let worker = thread::Builder::new().name("taskledger-opener".into()).spawn(move || {
        let done = catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|panic| Err(JournalError::Panicked(panic_text(panic))));
        // Nobody may be waiting any more.
        drop(answer.send(done));
    });
    let worker = match worker {
        Ok(worker) => worker,
        Err(source) => {
            let path = "taskledger-opener".into();
            return Some(Err(JournalError::Io { action: "start the thread", path, source }));
        }
    };
    let done = answered.recv_timeout(deadline).ok()?;
    // Whatever the work has borrowed from us is given back when its thread is gone.
    drop(worker.join());
    Some(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A damaged store has been seen to loop for ever in its open and in its reads.
    #[test]
    fn a_store_that_never_comes_back_is_left_alone() {
        let (open_gate, gate) = channel::<()>();
        let stuck = within(Duration::from_millis(1), move || Ok(gate.recv().is_ok()));
        assert!(stuck.is_none());
        drop(open_gate);
        assert!(matches!(within(Duration::MAX, || Ok(7)), Some(Ok(7))));
        let panicked: Option<Result<(), _>> = within(Duration::MAX, || panic!("as sled does"));
        assert!(
            matches!(panicked, Some(Err(JournalError::Panicked(text))) if text == "as sled does")
        );
    }
}
