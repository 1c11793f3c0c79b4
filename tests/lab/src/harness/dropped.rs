//! Futures are dropped and runtimes die: calls after any of their polls, attempts that never end,
//! panic, or panic when they are dropped, with work queued.
//!
//! Each call in turn is dropped after each number of polls in turn, in the middle of a mix of others that
//! are dropped at random; a hundred mixes of each are the full size.
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
    ci: CALLS.len() as u64 * POLLS * 10,
    full: CALLS.len() as u64 * POLLS * 100,
    run,
    controls: &[broken(Sabotage::DropEnd, 200, &["for ever"])],
};

/// Far more than anything takes: only to tell slow from never.
const NEVER: Duration = Duration::from_secs(20);

/// Everything that can be awaited.
const CALLS: [&str; 17] = [
    "launch",
    "launch_block",
    "launch_block with a timeout",
    "launch with a timeout",
    "mark_succeeded",
    "forget",
    "revoke_task",
    "revoke_task_block",
    "wait",
    "record",
    "output",
    "query_task_state",
    "checkpoint",
    "set_metadata",
    "open",
    "close",
    "close_within",
];

/// The last two end the ledger: none but the one that is to be dropped.
const NOT_LAST: u64 = CALLS.len() as u64 - 2;

/// A call is dropped after fewer polls than this.
const POLLS: u64 = 8;

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
    // Another part of the whole each time.
    let from = session.rng.below(CALLS.len() as u64 * POLLS);
    for number in from.. {
        if !session.goes_on() {
            break;
        }
        let seed = session.rng.next();
        let target = Target {
            what: number % CALLS.len() as u64,
            polls: number / CALLS.len() as u64 % POLLS,
        };
        let name = CALLS[usize::try_from(target.what).unwrap()];
        let mixed = catch_unwind(|| mix(&mut Rng::new(seed), target));
        let mixed = mixed.unwrap_or_else(|panic| Err(crate::session::text_of(&*panic)));
        if let Ok(mixed) = &mixed {
            session.count("calls", mixed.calls);
            session.count("runtimes that died", mixed.deaths);
            session.count(&format!("mixes of {name}"), 1);
            if mixed.ended_before {
                session.count("ended before they were to be dropped", 1);
            } else {
                session.count(&format!("drops of {name}"), 1);
                session.count(&format!("dropped after {} polls", target.polls), 1);
            }
        }
        let polls = target.polls;
        session.tried(
            mixed.map(drop).map_err(|wrong| {
                format!("mix {seed}, {name} dropped after {polls} polls: {wrong}")
            }),
        );
    }
    std::panic::set_hook(hook);
}

/// What is to be dropped, and when.
#[derive(Clone, Copy, Debug)]
struct Target {
    what: u64,
    polls: u64,
}

/// What a mix came to, if nothing is wrong.
struct Mixed {
    calls: u64,
    deaths: u64,
    /// The target had ended before it was to be dropped.
    ended_before: bool,
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

fn mix(rng: &mut Rng, target: Target) -> Result<Mixed, String> {
    let journal = MemoryJournal::new();
    let mut now = runtime(rng);
    let open = Tasks::builder().max_pending(1 + usize::try_from(rng.below(4)).unwrap());
    let ledger = now.block_on(open.open_journal(journal.clone())).map_err(|e| e.to_string())?;
    let (mut deaths, mut ended_before) = (0, false);
    let calls = 10 + rng.below(40);
    let ends_it = target.what >= NOT_LAST;
    let turn = rng.below(calls);
    for number in 0..calls {
        if rng.below(12) == 0 {
            end(std::mem::replace(&mut now, runtime(rng)), rng);
            deaths += 1;
        }
        if number == turn && !ends_it {
            let ended = poll_and_drop(&now, call(&ledger, target.what, rng), target.polls, rng);
            ended_before = ended;
        } else {
            let (what, polls) = (rng.below(NOT_LAST), rng.below(POLLS));
            poll_and_drop(&now, call(&ledger, what, rng), polls, rng);
        }
    }
    if ends_it {
        // Something is still under way when the ledger is told to close.
        for _ in 0..rng.below(4) {
            let what = rng.below(2);
            poll_and_drop(&now, call(&ledger, what, rng), 3, rng);
        }
        ended_before = poll_and_drop(&now, call(&ledger, target.what, rng), target.polls, rng);
    }
    // What never ends does so with its runtime.
    end(std::mem::replace(&mut now, runtime(rng)), rng);
    if !ends_it {
        // Behind everything that was submitted: what has been begun by then can be seen.
        let barrier = ledger.mark_succeeded("behind".to_owned());
        let barrier = now.block_on(async { tokio::time::timeout(NEVER, barrier).await });
        barrier.map_err(|_| "a mark hangs".to_owned())?.map_err(|error| error.to_string())?;
        settles(&ledger)?;
        later_calls_work(&now, &ledger)?;
    }
    // A close that was dropped goes on, or never began: either way another one ends.
    let closed = now.block_on(async { tokio::time::timeout(NEVER, ledger.close()).await });
    closed.map_err(|_| "the close hangs".to_owned())?.map_err(|error| error.to_string())?;
    settles(&ledger)?;
    let states = IDS.map(|id| ledger.query_task_state_quick(id));
    // The log is legal, and says the same.
    let again = now.block_on(Tasks::builder().open_journal(journal)).map_err(|e| e.to_string())?;
    let found = IDS.map(|id| again.query_task_state_quick(id));
    now.block_on(again.close()).map_err(|error| error.to_string())?;
    if found != states {
        return Err(format!("{states:?}, then {found:?}"));
    }
    Ok(Mixed { calls, deaths, ended_before })
}

/// Polls it now and then, with a waker that nobody hears, and drops it. Whether it had ended by then.
fn poll_and_drop(now: &Runtime, mut calling: Calling, polls: u64, rng: &mut Rng) -> bool {
    // Without any, it is still under way at the later polls.
    let patience = if rng.coin() { 0 } else { rng.below(30) };
    let _within = now.enter();
    for _ in 0..polls {
        let mut context = Context::from_waker(Waker::noop());
        let polled = catch_unwind(AssertUnwindSafe(|| calling.as_mut().poll(&mut context)));
        if !matches!(polled, Ok(Poll::Pending)) {
            return true;
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
    false
}

/// The call of this number, with an id and an attempt at random.
fn call(ledger: &Tasks, what: u64, rng: &mut Rng) -> Calling {
    let (id, deed, yields) = ((*rng.pick(&IDS)).to_owned(), *rng.pick(&DEEDS), rng.below(8));
    let ledger = ledger.clone();
    let work = attempt(deed, yields);
    if rng.below(8) == 0 {
        drop(ledger.cancel(&id, "enough"));
    }
    match CALLS[usize::try_from(what).unwrap()] {
        "launch" => Box::pin(async move { drop(ledger.launch(id, work).await) }),
        "launch_block" => Box::pin(async move { drop(ledger.launch_block(id, work).await) }),
        "launch_block with a timeout" => Box::pin(async move {
            let task = ledger.task(id).timeout(Duration::from_millis(1));
            drop(task.launch_block(work).await);
        }),
        "launch with a timeout" => Box::pin(async move {
            let task = ledger.task(id).timeout(Duration::from_millis(1));
            drop(task.launch(work).await);
        }),
        "mark_succeeded" => Box::pin(async move { drop(ledger.mark_succeeded(id).await) }),
        "forget" => Box::pin(async move { drop(ledger.forget(&id).await) }),
        "revoke_task" => Box::pin(async move { drop(ledger.revoke_task(id, work).await) }),
        "revoke_task_block" => {
            Box::pin(async move { drop(ledger.revoke_task_block(id, work).await) })
        }
        "wait" => Box::pin(async move { drop(ledger.wait(&id).await) }),
        "record" => Box::pin(async move { drop(ledger.record(&id).await) }),
        "output" => Box::pin(async move { drop(ledger.output(&id).await) }),
        "query_task_state" => Box::pin(async move {
            ledger.query_task_state(&id).await;
        }),
        "checkpoint" => Box::pin(async move { drop(ledger.checkpoint().await) }),
        "set_metadata" => Box::pin(async move {
            drop(ledger.set_metadata(&id, Some(vec![7])).await);
        }),
        // Of another one: nobody takes it, so it closes itself.
        "open" => Box::pin(async move {
            drop(Tasks::builder().open_journal(MemoryJournal::new()).await);
        }),
        "close" => Box::pin(async move { drop(ledger.close().await) }),
        _ => Box::pin(async move { drop(ledger.close_within(Duration::from_millis(1)).await) }),
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
