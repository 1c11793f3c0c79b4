//! Wakers are foreign code: they may panic when they wake, and when they are dropped.
//!
//! A panic of somebody's waker is that one's loss alone. What wakes a single waiter is called
//! through [`caught`]. Where many wait for one thing, they are woken one after the other by a list
//! that is not ours, and a panic would leave the rest asleep: such a wait goes through [`guarded`],
//! so that the list holds only wakers that do not panic.

use crate::error::panic_text;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

/// Wakes or drops somebody else's waker. Never called under a lock.
pub(crate) fn caught(wake: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(wake)) {
        // Outside of the event, which nobody may want: the payload is foreign as well.
        let panic = panic_text(panic);
        tracing::warn!(panic, "a waker panicked");
    }
}

/// Waits for `future` with a waker that does not panic.
pub(crate) async fn guarded<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut last: Option<(Waker, Waker)> = None;
    poll_fn(|context| {
        let (_, waker) = match last.take().filter(|(theirs, _)| theirs.will_wake(context.waker())) {
            Some(same) => last.insert(same),
            None => {
                let theirs = context.waker().clone();
                let guarded = Guarded { theirs: Some(theirs.clone()) };
                last.insert((theirs, Waker::from(Arc::new(guarded))))
            }
        };
        future.as_mut().poll(&mut Context::from_waker(waker))
    })
    .await
}

/// What comes of `future`, unless the other is there first.
pub(crate) async fn unless<T>(future: impl Future<Output = T>, other: impl Future) -> Option<T> {
    let (mut future, mut other) = (pin!(future), pin!(other));
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => other.as_mut().poll(context).map(|_| None),
    })
    .await
}

/// A waker of somebody's.
struct Guarded {
    /// `None` only while it is dropped.
    theirs: Option<Waker>,
}

impl Wake for Guarded {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        caught(|| self.theirs.iter().for_each(Waker::wake_by_ref));
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let theirs = self.theirs.take();
        caught(|| drop(theirs));
    }
}
