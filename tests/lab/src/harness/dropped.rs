//! Futures are dropped and runtimes die: calls after any of their polls, attempts that never end,
//! panic, or panic when they are dropped, with work queued.
//!
//! Each call in turn is dropped after each number of polls in turn, polled when it is woken or without
//! that, in the middle of a mix of others that are dropped at random; a hundred mixes of each are the
//! full size.
//!
//! Whatever is dropped when: every id settles once its runtime is gone, the log is legal and says
//! what memory says, later calls work, and the close ends. Whoever waits for a run whose leader is
//! dropped gets the answer all the same. A ledger whose open is dropped closes itself, and can be opened
//! again. No thread of the library is left behind.

mod calls;
mod copied;
mod flight;
mod left;
mod queued;

use super::{Harness, broken};
use crate::{Rng, Session};
use calls::{CALLS, NOT_LAST, call};
use queued::Slot;
use std::collections::BTreeSet;
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use taskledger::internals::Sabotage;
use taskledger::{AttemptError, Ledger, MemoryJournal, TaskState};
use tokio::runtime::Runtime;

pub(super) const HARNESS: Harness = Harness {
    name: "dropped",
    unit: "mixes",
    ci: CALLS.len() as u64 * POLLS * 10,
    full: CALLS.len() as u64 * POLLS * 100,
    run,
    controls: &[
        broken(Sabotage::DropEnd, 200, &["for ever"]),
        broken(Sabotage::StayOpen, 200, &["that nobody has taken stays open"]),
        broken(Sabotage::StayBehind, 5, &["threads are left behind"]),
        broken(Sabotage::LeaveCompany, 600, &["who waits for the run hangs"]).only(&["run"]),
        broken(
            Sabotage::KeepLead,
            600,
            &["who waits for the run hangs", "who waits for the run: Told"],
        )
        .only(&["run", "run that ends with its caller"]),
        broken(Sabotage::KeepPlace, 100, &["the queue never stops"]).only(&["enqueue", "stop"]),
    ],
};

/// Far more than anything takes: only to tell slow from never. A control, which is to see just that, waits
/// less.
fn never() -> Duration {
    Duration::from_secs(if crate::is_sabotaged() { 5 } else { 20 })
}

/// A call is dropped after fewer polls than this. Polled when it is woken, as by a runtime, none needs
/// half as many, if it ever ends: what is counted tells.
const POLLS: u64 = 8;

/// So long a call that is polled when it is woken is waited for.
const WOKEN_WITHIN: Duration = Duration::from_millis(10);

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
    // Whose threads are left behind can be told only where there are no others.
    if !session.alone {
        return session.apart(&HARNESS);
    }
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
            again: match session.rng.below(4) {
                0 => Again::Woken,
                _ => some_turns(&mut session.rng),
            },
        };
        let name = CALLS[usize::try_from(target.what).unwrap()];
        if !session.takes(name) {
            continue;
        }
        // Those of a mix in which something was wrong.
        let before = threads();
        let mixed = catch_unwind(|| mix(&mut Rng::new(seed), target));
        let mixed = mixed.unwrap_or_else(|panic| Err(crate::session::text_of(&*panic)));
        let mixed = mixed.and_then(|mixed| {
            if name.starts_with("run") {
                let flown = catch_unwind(|| flight::flight(&mut Rng::new(seed), target));
                flown.unwrap_or_else(|panic| Err(crate::session::text_of(&*panic)))?;
                session.count("flights whose leader was dropped", 1);
            }
            if name == "backup" {
                let copied = catch_unwind(|| copied::backup(&mut Rng::new(seed), target));
                copied.unwrap_or_else(|panic| Err(crate::session::text_of(&*panic)))?;
            }
            Ok(mixed)
        });
        let mixed = mixed.and_then(|mixed| are_gone(&before).map(|()| mixed));
        if let Ok(mixed) = &mixed {
            session.count("calls", mixed.calls);
            session.count("runtimes that died", mixed.deaths);
            session.count("queues made", mixed.queues);
            session.count(&format!("mixes of {name}"), 1);
            match &mixed.dropped {
                None => session.count("ended before they were to be dropped", 1),
                Some(Dropped { polls, again }) => {
                    session.count(&format!("drops of {name}"), 1);
                    let woken =
                        if matches!(again, Again::Woken) { ", each when woken" } else { "" };
                    session.count(&format!("dropped after {polls} polls{woken}"), 1);
                }
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

/// What the library's threads are called, and what the lab's is: the first is a part of the second.
const LIBRARY: &str = "taskledger-";
const LAB: &str = "taskledger-lab";

/// The threads of the library in this process.
fn threads() -> BTreeSet<PathBuf> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let is_library = |thread: &PathBuf| {
        // One that has just ended has no name any more.
        let name = std::fs::read_to_string(thread.join("comm")).unwrap_or_default();
        name.starts_with(LIBRARY) && name.trim_end() != LAB
    };
    threads.map(|thread| thread.path()).filter(is_library).collect()
}

/// But for those that were there before, the threads of the library end.
fn are_gone(before: &BTreeSet<PathBuf>) -> Result<(), String> {
    let since = Instant::now();
    loop {
        let left = threads().difference(before).count();
        if left == 0 {
            return Ok(());
        }
        if since.elapsed() > never() {
            return Err(format!("{left} threads are left behind"));
        }
        std::thread::yield_now();
    }
}

/// What is to be dropped, and when.
#[derive(Clone, Copy)]
struct Target {
    what: u64,
    polls: u64,
    again: Again,
}

/// What a mix came to, if nothing is wrong.
struct Mixed {
    calls: u64,
    deaths: u64,
    queues: u64,
    /// How the target was, unless it had ended before.
    dropped: Option<Dropped>,
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
    let (mut deaths, mut dropped) = (0, None);
    let (mut left, slot) = (Vec::new(), Slot::default());
    let calls = 10 + rng.below(40);
    let ends_it = target.what >= NOT_LAST;
    let turn = rng.below(calls);
    for number in 0..calls {
        if rng.below(12) == 0 {
            end(std::mem::replace(&mut now, runtime(rng)), rng);
            deaths += 1;
        }
        if number == turn && !ends_it {
            let calling = call(&ledger, target.what, (&mut left, &slot), rng);
            dropped = poll_and_drop(&now, calling, target.polls, target.again)?;
        } else {
            let (what, polls) = (rng.below(NOT_LAST), rng.below(POLLS));
            let calling = call(&ledger, what, (&mut left, &slot), rng);
            poll_and_drop(&now, calling, polls, some_turns(rng))?;
        }
    }
    if ends_it {
        // Something is still under way when the ledger is told to close.
        for _ in 0..rng.below(4) {
            let what = rng.below(2);
            let calling = call(&ledger, what, (&mut left, &slot), rng);
            poll_and_drop(&now, calling, 3, some_turns(rng))?;
        }
        let calling = call(&ledger, target.what, (&mut left, &slot), rng);
        dropped = poll_and_drop(&now, calling, target.polls, target.again)?;
    }
    // What never ends does so with its runtime.
    end(std::mem::replace(&mut now, runtime(rng)), rng);
    if !ends_it {
        // Behind everything that was submitted: what has been begun by then can be seen.
        let barrier = ledger.mark_succeeded("behind".to_owned());
        let barrier = now.block_on(async { tokio::time::timeout(never(), barrier).await });
        barrier.map_err(|_| "a mark hangs".to_owned())?.map_err(|error| error.to_string())?;
        settles(&ledger)?;
        slot.goes_on(&now, &ledger)?;
        later_calls_work(&now, &ledger)?;
    }
    left.iter().try_for_each(|left| left.is_free(&now))?;
    // A close that was dropped goes on, or never began: either way another one ends.
    let closed = now.block_on(async { tokio::time::timeout(never(), ledger.close()).await });
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
    Ok(Mixed { calls, deaths, queues: slot.made(), dropped })
}

/// When a call is polled again.
#[derive(Clone, Copy)]
enum Again {
    /// After so many turns of everybody else, woken or not. After none it is still under way at the
    /// later polls.
    After(u64),
    /// When it is woken.
    Woken,
}

/// How a call was dropped.
struct Dropped {
    polls: u64,
    again: Again,
}

/// Polls it so often and drops it. `None` if it had ended by then.
fn poll_and_drop(
    now: &Runtime,
    mut calling: Calling,
    polls: u64,
    again: Again,
) -> Result<Option<Dropped>, String> {
    let woken = Arc::new(Woken::default());
    let waker = match again {
        // Nobody hears it.
        Again::After(_) => Waker::noop().clone(),
        Again::Woken => Waker::from(Arc::clone(&woken)),
    };
    let _within = now.enter();
    for polled in 0..polls {
        let goes_on = match again {
            Again::After(turns) => {
                give_way(now, if polled == 0 { 0 } else { turns });
                true
            }
            Again::Woken => polled == 0 || woken.comes(now),
        };
        if !goes_on {
            return Ok(Some(Dropped { polls: polled, again }));
        }
        let mut context = Context::from_waker(&waker);
        match catch_unwind(AssertUnwindSafe(|| calling.as_mut().poll(&mut context))) {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(())) => return Ok(None),
            Err(panic) => {
                return Err(format!("a call panics: {}", crate::session::text_of(&*panic)));
            }
        }
    }
    Ok(Some(Dropped { polls, again }))
}

fn some_turns(rng: &mut Rng) -> Again {
    Again::After(if rng.coin() { 0 } else { rng.below(30) })
}

fn give_way(now: &Runtime, turns: u64) {
    for _ in 0..turns {
        std::thread::yield_now();
    }
    now.block_on(async {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    });
}

/// Whether a call has been woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Woken {
    /// Waits for it. What waits for an attempt that never ends is not.
    fn comes(&self, now: &Runtime) -> bool {
        let since = Instant::now();
        while !self.0.swap(false, Ordering::SeqCst) {
            if since.elapsed() > WOKEN_WITHIN {
                return false;
            }
            give_way(now, 1);
        }
        true
    }
}

fn settles(ledger: &Tasks) -> Result<(), String> {
    let since = Instant::now();
    loop {
        let states = IDS.map(|id| ledger.query_task_state_quick(id));
        if states.iter().all(|state| state.is_settled()) {
            return Ok(());
        }
        if since.elapsed() > never() {
            return Err(format!("without a runtime they are {states:?} for ever"));
        }
        std::thread::yield_now();
    }
}

fn later_calls_work(runtime: &Runtime, ledger: &Tasks) -> Result<(), String> {
    for id in IDS {
        let since = Instant::now();
        loop {
            let launched = ledger.launch_block(id.to_owned(), attempt(Deed::Succeeds, 0));
            let launched =
                runtime.block_on(async { tokio::time::timeout(never(), launched).await });
            match launched.map_err(|_| format!("a later launch of {id} hangs"))? {
                Ok(7) | Err(AttemptError::Refused { state: TaskState::Succeeded, .. }) => break,
                // A runtime that ends in the background does not wait for a worker in the middle of a poll,
                // and that may start something yet. It does not go on.
                Err(AttemptError::Refused { state: TaskState::Running, .. })
                    if since.elapsed() < never() =>
                {
                    settles(ledger)?;
                }
                other => return Err(format!("a later launch of {id}: {other:?}")),
            }
        }
        let state = ledger.query_task_state_quick(id);
        if state != TaskState::Succeeded {
            return Err(format!("{id} is {state} after its success"));
        }
    }
    Ok(())
}
