//! Futures are dropped and runtimes die: calls after any of their polls, attempts that never end,
//! panic, or panic when they are dropped, with work queued.
//!
//! Whatever is dropped when: every id settles once its runtime is gone, the log is legal and says
//! what memory says, later calls work, and the close ends.

use super::{Harness, broken};
use crate::{Rng, Session};
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use taskledger::internals::Sabotage;
use taskledger::{AttemptError, Ledger, MemoryJournal, TaskState};
use tokio::runtime::Runtime;

pub(super) const HARNESS: Harness = Harness {
    row: 11,
    name: "dropped",
    unit: "mixes",
    ci: 1_500,
    full: 15_000,
    run,
    controls: &[broken(Sabotage::DropEnd, 200, &["for ever"])],
};

/// Far more than anything takes: only to tell slow from never.
const NEVER: Duration = Duration::from_secs(20);

const IDS: [&str; 4] = ["a", "b", "c", "d"];

type Tasks = Ledger<String, u32>;
type Calling = Pin<Box<dyn Future<Output = ()>>>;

/// What an attempt does.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Succeeds,
    Fails,
    Panics,
    Never,
    /// Never ends, and panics when it is dropped.
    Bomb,
}

const DEEDS: [Deed; 5] = [Deed::Succeeds, Deed::Fails, Deed::Panics, Deed::Never, Deed::Bomb];

struct Explodes;

impl Drop for Explodes {
    fn drop(&mut self) {
        // One that is dropped by another panic would end the process.
        assert!(std::thread::panicking(), "a future that panics when it is dropped");
    }
}

async fn attempt(deed: Deed, yields: u64) -> Result<u32, String> {
    let bomb = matches!(deed, Deed::Bomb).then(|| Explodes);
    for _ in 0..yields {
        tokio::task::yield_now().await;
    }
    match deed {
        Deed::Succeeds => Ok(7),
        Deed::Fails => Err("no".to_owned()),
        Deed::Panics => panic!("an attempt that panics"),
        Deed::Never | Deed::Bomb => {
            pending::<()>().await;
            drop(bomb);
            Ok(0)
        }
    }
}

fn run(session: &mut Session) {
    // Hundreds of panics are part of the game; what is found is told all the same.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    while session.goes_on() {
        let seed = session.rng.next();
        let mixed = catch_unwind(|| mix(&mut Rng::new(seed)));
        let mixed = mixed.unwrap_or_else(|panic| Err(crate::session::text_of(&*panic)));
        if let Ok((calls, deaths)) = mixed {
            session.count("calls", calls);
            session.count("runtimes that died", deaths);
        }
        session.tried(mixed.map(drop).map_err(|wrong| format!("mix {seed}: {wrong}")));
    }
    std::panic::set_hook(hook);
}

fn runtime(rng: &mut Rng) -> Runtime {
    let mut builder = if rng.coin() {
        tokio::runtime::Builder::new_current_thread()
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2);
        builder
    };
    builder.enable_all().build().unwrap()
}

fn end(runtime: Runtime, rng: &mut Rng) {
    match rng.below(3) {
        0 => runtime.shutdown_background(),
        1 => runtime.shutdown_timeout(Duration::ZERO),
        _ => drop(runtime),
    }
}

fn mix(rng: &mut Rng) -> Result<(u64, u64), String> {
    let journal = MemoryJournal::new();
    let mut now = runtime(rng);
    let open = Tasks::builder().max_pending(1 + usize::try_from(rng.below(4)).unwrap());
    let ledger = now.block_on(open.open_journal(journal.clone())).map_err(|e| e.to_string())?;
    let (mut calls, mut deaths) = (0, 0);
    for _ in 0..10 + rng.below(40) {
        if rng.below(12) == 0 {
            end(std::mem::replace(&mut now, runtime(rng)), rng);
            deaths += 1;
        }
        calls += 1;
        let mut calling = call(&ledger, rng);
        let polls = rng.below(6);
        let patience = rng.below(30);
        // Polled now and then, with a waker that nobody hears, and dropped.
        let _within = now.enter();
        for _ in 0..polls {
            let mut context = Context::from_waker(Waker::noop());
            let polled = catch_unwind(AssertUnwindSafe(|| calling.as_mut().poll(&mut context)));
            if !matches!(polled, Ok(Poll::Pending)) {
                break;
            }
            for _ in 0..patience {
                std::thread::yield_now();
            }
            now.block_on(async {
                for _ in 0..patience {
                    tokio::task::yield_now().await;
                }
            });
        }
        drop(calling);
    }
    // What never ends does so with its runtime.
    end(std::mem::replace(&mut now, runtime(rng)), rng);
    // Behind everything that was submitted: what has been begun by then can be seen.
    let barrier = ledger.mark_succeeded("behind".to_owned());
    let barrier = now.block_on(async { tokio::time::timeout(NEVER, barrier).await });
    barrier.map_err(|_| "a mark hangs".to_owned())?.map_err(|error| error.to_string())?;
    settles(&ledger)?;
    later_calls_work(&now, &ledger)?;
    let states = IDS.map(|id| ledger.query_task_state_quick(id));
    let closed = now.block_on(async { tokio::time::timeout(NEVER, ledger.close()).await });
    closed.map_err(|_| "the close hangs".to_owned())?.map_err(|error| error.to_string())?;
    // The log is legal, and says the same.
    let again = now.block_on(Tasks::builder().open_journal(journal)).map_err(|e| e.to_string())?;
    let found = IDS.map(|id| again.query_task_state_quick(id));
    now.block_on(again.close()).map_err(|error| error.to_string())?;
    if found == states { Ok((calls, deaths)) } else { Err(format!("{states:?}, then {found:?}")) }
}

fn call(ledger: &Tasks, rng: &mut Rng) -> Calling {
    let (id, deed, yields) = ((*rng.pick(&IDS)).to_owned(), *rng.pick(&DEEDS), rng.below(8));
    let ledger = ledger.clone();
    match rng.below(12) {
        0..3 => Box::pin(async move { drop(ledger.launch(id, attempt(deed, yields)).await) }),
        3..6 => Box::pin(async move { drop(ledger.launch_block(id, attempt(deed, yields)).await) }),
        6 => {
            let task = async move {
                let task = ledger.task(id).timeout(Duration::from_millis(1));
                drop(task.launch_block(attempt(deed, yields)).await);
            };
            Box::pin(task)
        }
        7 => Box::pin(async move { drop(ledger.mark_succeeded(id).await) }),
        8 => Box::pin(async move { drop(ledger.forget(&id).await) }),
        9 => Box::pin(async move { drop(ledger.revoke_task(id, attempt(deed, yields)).await) }),
        10 => Box::pin(async move {
            drop(ledger.revoke_task_block(id, attempt(deed, yields)).await);
        }),
        _ => Box::pin(async move {
            drop(ledger.cancel(&id, "enough"));
            drop(ledger.record(&id).await);
            drop(ledger.wait(&id).await);
            drop(ledger.checkpoint().await);
        }),
    }
}

fn settles(ledger: &Tasks) -> Result<(), String> {
    let since = Instant::now();
    loop {
        let states = IDS.map(|id| ledger.query_task_state_quick(id));
        if states.iter().all(|state| state.is_settled()) {
            return Ok(());
        }
        if since.elapsed() > NEVER {
            return Err(format!("without a runtime they are {states:?} for ever"));
        }
        std::thread::yield_now();
    }
}

fn later_calls_work(runtime: &Runtime, ledger: &Tasks) -> Result<(), String> {
    for id in IDS {
        let launched = ledger.launch_block(id.to_owned(), attempt(Deed::Succeeds, 0));
        let launched = runtime.block_on(async { tokio::time::timeout(NEVER, launched).await });
        match launched.map_err(|_| format!("a later launch of {id} hangs"))? {
            Ok(7) | Err(AttemptError::Refused { state: TaskState::Succeeded, .. }) => {}
            other => return Err(format!("a later launch of {id}: {other:?}")),
        }
        let state = ledger.query_task_state_quick(id);
        if state != TaskState::Succeeded {
            return Err(format!("{id} is {state} after its success"));
        }
    }
    Ok(())
}
