//! The leader of a run is dropped, at any of its awaits, while others wait for the same answer.
//!
//! If it is to end with its caller, its attempt never ends by itself: exactly one of the others has to
//! take over. If not, it goes on without its caller. Either way all the others get the one answer, no
//! two executions overlap, and each has its own start in the log.

use super::{Calling, Target, Tasks, never, poll_and_drop, runtime};
use crate::Rng;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use taskledger::{ClaimKind, MemoryJournal, TaskState};

const ID: &str = "x";

/// What the executions of the id have done.
#[derive(Default)]
struct Seen {
    inside: AtomicU32,
    overlapped: AtomicBool,
    begun: AtomicU32,
    succeeded: AtomicU32,
}

/// Within an execution.
struct Inside(Arc<Seen>);

impl Inside {
    fn begin(seen: &Arc<Seen>) -> Self {
        seen.begun.fetch_add(1, Ordering::SeqCst);
        if seen.inside.fetch_add(1, Ordering::SeqCst) > 0 {
            seen.overlapped.store(true, Ordering::SeqCst);
        }
        Self(Arc::clone(seen))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn work(seen: Arc<Seen>, yields: u64, ends: bool) -> Result<u32, String> {
    let _inside = Inside::begin(&seen);
    for _ in 0..yields {
        tokio::task::yield_now().await;
    }
    if !ends {
        pending::<()>().await;
    }
    seen.succeeded.fetch_add(1, Ordering::SeqCst);
    Ok(7)
}

pub(super) fn flight(rng: &mut Rng, target: Target) -> Result<(), String> {
    let journal = MemoryJournal::new();
    let now = runtime(rng);
    let open = Tasks::builder().open_journal(journal.clone());
    let ledger = now.block_on(open).map_err(|error| error.to_string())?;
    let seen = Arc::new(Seen::default());
    let (with_caller, yields, company) = (rng.coin(), rng.below(8), 1 + rng.below(4));
    let leader: Calling = {
        let (ledger, seen) = (ledger.clone(), Arc::clone(&seen));
        let run = move |_| work(Arc::clone(&seen), yields, !with_caller);
        Box::pin(async move {
            let task = ledger.task(ID.to_owned()).cancel_grace(Duration::ZERO);
            let task = if with_caller { task.cancel_with_caller() } else { task };
            drop(task.run(run).await);
        })
    };
    let join = || {
        let (ledger, seen) = (ledger.clone(), Arc::clone(&seen));
        let run = move |_| work(Arc::clone(&seen), yields, true);
        now.spawn(async move { ledger.run(ID.to_owned(), run).await })
    };
    // Some come before it is polled at all, and may lead it then; the others after it is dropped.
    let early = rng.below(company + 1);
    let mut others: Vec<_> = (0..early).map(|_| join()).collect();
    poll_and_drop(&now, leader, target.polls, target.again)?;
    others.extend((early..company).map(|_| join()));
    let mut executed = 0;
    for other in others {
        let answer = now.block_on(async { tokio::time::timeout(never(), other).await });
        let answer = answer.map_err(|_| "who waits for the run hangs".to_owned())?;
        let claim = answer.map_err(|error| error.to_string())?;
        let claim = claim.map_err(|error| format!("who waits for the run: {error:?}"))?;
        if claim.value != Some(7) {
            return Err(format!("who waits for the run is told {:?}", claim.value));
        }
        executed += u32::from(claim.kind == ClaimKind::Executed);
    }
    let details = now.block_on(ledger.record(ID)).map_err(|error| error.to_string())?;
    let closed = now.block_on(async { tokio::time::timeout(never(), ledger.close()).await });
    closed.map_err(|_| "the close hangs".to_owned())?.map_err(|error| error.to_string())?;
    if seen.overlapped.load(Ordering::SeqCst) {
        return Err("two executions of one id overlap".to_owned());
    }
    let (begun, succeeded) =
        (seen.begun.load(Ordering::SeqCst), seen.succeeded.load(Ordering::SeqCst));
    let Some(details) = details.filter(|details| details.state() == TaskState::Succeeded) else {
        return Err("the run has its answer, and no success on record".to_owned());
    };
    // An attempt that was cancelled between its start on record and its first poll does not begin.
    let attempts = details.attempt().get();
    if succeeded != 1 || executed > 1 || begun > attempts {
        return Err(format!(
            "{succeeded} executions succeed, {begun} begin, {attempts} are on record, {executed} are told so"
        ));
    }
    Ok(())
}
