//! The leader of a run is dropped, at any of its awaits, while others wait for the same answer.
//!
//! If it is to end with its caller, its attempt never ends by itself: exactly one of the others has to
//! take over, whether the attempt is dropped at once, or has a grace in which it returns an error, panics,
//! or meets its timeout. If not, it goes on without its caller. Either way all the others get the one
//! answer, no two executions overlap, and each has its own start in the log.

use super::{Calling, Target, Tasks, never, poll_and_drop, runtime};
use crate::Rng;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use taskledger::{ClaimKind, Context, Failure, MemoryJournal, RunError, TaskState};

const ID: &str = "x";

/// Of a leader whose attempt meets it in its grace.
const TIMEOUT: Duration = Duration::from_millis(20);

/// How an attempt ends whose caller is dropped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaves {
    AtOnce,
    WithAnError,
    WithAPanic,
    AtItsTimeout,
}

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

async fn work(seen: Arc<Seen>, yields: u64) -> Result<u32, String> {
    let _inside = Inside::begin(&seen);
    for _ in 0..yields {
        tokio::task::yield_now().await;
    }
    seen.succeeded.fetch_add(1, Ordering::SeqCst);
    Ok(7)
}

/// What ends only because its caller is dropped.
async fn held(
    seen: Arc<Seen>,
    yields: u64,
    cx: Context<String>,
    leaves: Leaves,
) -> Result<u32, String> {
    let _inside = Inside::begin(&seen);
    for _ in 0..yields {
        tokio::task::yield_now().await;
    }
    match leaves {
        Leaves::AtOnce | Leaves::AtItsTimeout => pending().await,
        Leaves::WithAnError => {
            cx.cancellation().cancelled().await;
            Err("asked to stop".to_owned())
        }
        Leaves::WithAPanic => {
            cx.cancellation().cancelled().await;
            panic!("asked to stop")
        }
    }
}

pub(super) fn flight(rng: &mut Rng, target: Target) -> Result<(), String> {
    let journal = MemoryJournal::new();
    let now = runtime(rng);
    let open = Tasks::builder().open_journal(journal.clone());
    let ledger = now.block_on(open).map_err(|error| error.to_string())?;
    let seen = Arc::new(Seen::default());
    let (with_caller, yields, company) = (rng.coin(), rng.below(8), 1 + rng.below(4));
    let leaves = match rng.below(12) {
        0..=2 => Leaves::WithAnError,
        3..=5 => Leaves::WithAPanic,
        6 => Leaves::AtItsTimeout,
        _ => Leaves::AtOnce,
    };
    let leader: Calling = {
        let (ledger, seen) = (ledger.clone(), Arc::clone(&seen));
        Box::pin(async move {
            let task = ledger.task(ID.to_owned());
            if !with_caller {
                drop(task.run(move |_| work(Arc::clone(&seen), yields)).await);
                return;
            }
            let task = match leaves {
                Leaves::AtOnce => task.cancel_grace(Duration::ZERO),
                Leaves::AtItsTimeout => task.timeout(TIMEOUT),
                Leaves::WithAnError | Leaves::WithAPanic => task,
            };
            let run = move |cx| held(Arc::clone(&seen), yields, cx, leaves);
            drop(task.cancel_with_caller().run(run).await);
        })
    };
    let join = || {
        let (ledger, seen) = (ledger.clone(), Arc::clone(&seen));
        let run = move |_| work(Arc::clone(&seen), yields);
        now.spawn(async move { ledger.run(ID.to_owned(), run).await })
    };
    // Some come before it is polled at all, and may lead it then; the others after it is dropped.
    let early = rng.below(company + 1);
    let mut others: Vec<_> = (0..early).map(|_| join()).collect();
    let began = Instant::now();
    poll_and_drop(&now, leader, target.polls, target.again)?;
    // Then its attempt may have met it before it was asked to stop, which is a failure like any other.
    let late = with_caller && leaves == Leaves::AtItsTimeout && began.elapsed() >= TIMEOUT;
    others.extend((early..company).map(|_| join()));
    let mut executed = 0;
    for other in others {
        let answer = now.block_on(async { tokio::time::timeout(never(), other).await });
        let answer = answer.map_err(|_| "who waits for the run hangs".to_owned())?;
        let claim = answer.map_err(|error| error.to_string())?;
        let timed_out = |told: &RunError<u32, String>| {
            matches!(told, RunError::Told { failure: Failure::TimedOut, .. })
        };
        if late && claim.as_ref().is_err_and(timed_out) {
            continue;
        }
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
    if late && succeeded == 0 {
        return Ok(());
    }
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
