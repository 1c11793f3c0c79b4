//! Futures that are dropped: the callers' at every poll, the attempts' with their runtimes.

use crate::support::{Call, Gate, Hand, Hooked, Tasks, Then, fresh, name, never, ok, open, until};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use taskledger::{
    AttemptError, Failure, Health, LaunchError, MemoryJournal, OpenError, Rejection, TaskState,
};
use tokio::runtime::{Builder, Runtime};

type Calling<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;
type Named = (&'static str, fn(&Tasks) -> Calling<'_>);

/// One call of every kind, on ids of which "failed" failed, "done" succeeded and "runs" runs.
const CALLS: [Named; 15] = [
    ("launch", |l| Box::pin(async { drop(l.launch(name("new"), ok(1)).await) })),
    ("launch_block", |l| Box::pin(async { drop(l.launch_block(name("new"), ok(1)).await) })),
    ("launch again", |l| Box::pin(async { drop(l.launch(name("failed"), ok(1)).await) })),
    ("task", |l| {
        let hour = Duration::from_secs(3600);
        Box::pin(async move { drop(l.task(name("new")).timeout(hour).launch_block(ok(1)).await) })
    }),
    ("revoke_task", |l| Box::pin(async { drop(l.revoke_task(name("done"), ok(1)).await) })),
    ("revoke_task_block", |l| {
        Box::pin(async { drop(l.revoke_task_block(name("done"), ok(1)).await) })
    }),
    ("mark_succeeded", |l| Box::pin(async { drop(l.mark_succeeded(name("new")).await) })),
    ("forget", |l| Box::pin(async { drop(l.forget("done").await) })),
    ("set_metadata", |l| Box::pin(async { drop(l.set_metadata("m", Some(vec![1])).await) })),
    ("wait", |l| Box::pin(async { drop(l.wait("runs").await) })),
    ("record", |l| Box::pin(async { drop(l.record("done").await) })),
    ("output", |l| Box::pin(async { drop(l.output("done").await) })),
    ("checkpoint", |l| Box::pin(async { drop(l.checkpoint().await) })),
    ("close", |l| Box::pin(async { drop(l.close().await) })),
    ("close_within", |l| Box::pin(async { drop(l.close_within(Duration::from_secs(3600)).await) })),
];

/// A waker that panics, and panics again when it is dropped.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker");
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a waker is dropped");
    }
}

/// Polls once with a waker that panics.
fn poll_badly<T>(calling: &mut Pin<Box<impl Future<Output = T> + ?Sized>>) -> Poll<T> {
    let waker = Waker::from(Arc::new(Panics));
    let polled = calling.as_mut().poll(&mut Context::from_waker(&waker));
    drop_badly(waker);
    polled
}

/// Drops what may hold the last clone of a waker that panics.
fn drop_badly<T>(holds: T) {
    drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(holds))));
}

/// Those who wait for one thing are woken one after the other. The first of them panics; the others
/// wait neither for an id, nor for room, nor for the close, for ever.
#[tokio::test]
async fn a_waker_that_panics_leaves_nobody_behind_it_asleep() {
    const OTHERS: usize = 70;
    let gate = Gate::default();
    let hooked = Hooked::at_append(&MemoryJournal::new(), 2, Then::Wait(gate.clone()));
    let ledger = Tasks::builder().max_pending(1).open_journal(hooked).await.unwrap();
    ledger.launch(name("runs"), never()).await.unwrap();

    // The only permit is with the request at the gate.
    let mut first = Hand::new(ledger.mark_succeeded(name("first")));
    assert!(first.poll().is_pending());
    gate.somebody_waits().await;
    let mut bad = Box::pin(ledger.mark_succeeded(name("bad")));
    assert!(poll_badly(&mut bad).is_pending());
    let others = (0..OTHERS).map(|other| name(&format!("other {other}")));
    let mut others: Vec<_> = others.map(|other| Hand::new(ledger.mark_succeeded(other))).collect();
    assert!(others.iter_mut().all(|other| other.poll().is_pending()));
    gate.open();
    first.finish().await.unwrap();
    until(|| ledger.query_task_state_quick("first").is_settled()).await;
    // It has been given the permit, and lets go of it.
    drop_badly(bad);
    for other in others {
        other.finish().await.unwrap();
    }

    let mut bad = Box::pin(ledger.wait("runs"));
    assert!(poll_badly(&mut bad).is_pending());
    let mut others: Vec<_> = (0..OTHERS).map(|_| Hand::new(ledger.wait("runs"))).collect();
    assert!(others.iter_mut().all(|other| other.poll().is_pending()));
    ledger.cancel("runs", "enough").unwrap();
    for other in others {
        assert_eq!(other.finish().await.unwrap(), TaskState::Failed);
    }
    drop_badly(bad);

    let (go, held) = tokio::sync::oneshot::channel::<()>();
    let last = async { held.await.map(|()| 3).map_err(|error| error.to_string()) };
    ledger.launch(name("last"), last).await.unwrap();
    let mut bad = Box::pin(ledger.close());
    assert!(poll_badly(&mut bad).is_pending());
    let mut others: Vec<_> = (0..OTHERS).map(|_| Hand::new(ledger.close())).collect();
    assert!(others.iter_mut().all(|other| other.poll().is_pending()));
    go.send(()).unwrap();
    for other in others {
        other.finish().await.unwrap();
    }
    drop_badly(bad);
}

/// A waker is its caller's code. When it panics, that is the caller's loss alone: the writer goes on,
/// and everybody else is answered.
#[tokio::test]
async fn a_waker_that_panics_harms_nobody_else() {
    for (what, call) in CALLS {
        let (ledger, _) = fresh().await;
        ledger.launch_block(name("failed"), async { Err::<u32, _>(()) }).await.unwrap_err();
        ledger.mark_succeeded(name("done")).await.unwrap();
        let (go, held) = tokio::sync::oneshot::channel::<()>();
        let runs = async { held.await.map(|()| 3).map_err(|error| error.to_string()) };
        ledger.launch(name("runs"), runs).await.unwrap();
        let mut calling = call(&ledger);
        let polled = poll_badly(&mut calling);
        go.send(()).unwrap();
        let next = ledger.launch_block(name("next"), ok(1)).await;
        assert!(next.is_ok() || what.starts_with("close"), "{what}");
        until(|| ledger.query_task_state_quick("runs").is_settled()).await;
        assert!(ledger.record("runs").await.is_ok() || what.starts_with("close"), "{what}");
        ledger.close().await.unwrap_or_else(|error| panic!("{what}, {polled:?}: {error}"));
        drop_badly(calling);
    }
}

/// Dropped after its n-th poll, for every n: what follows is as if the caller had not been there,
/// or had stayed; the ledger serves, closes, and opens again as it was.
#[tokio::test]
async fn every_call_dropped_after_every_poll() {
    for (what, call) in CALLS {
        for polls in 0.. {
            assert!(polls < 20, "{what} is polled for ever");
            let (ledger, journal) = fresh().await;
            ledger.launch_block(name("failed"), async { Err::<u32, _>(()) }).await.unwrap_err();
            ledger.launch_block(name("done"), ok(7)).await.unwrap();
            let (go, wait) = tokio::sync::oneshot::channel::<()>();
            let runs = async { wait.await.map(|()| 3).map_err(|error| error.to_string()) };
            ledger.launch(name("runs"), runs).await.unwrap();

            let mut hand = Hand::new(call(&ledger));
            let mut finished = false;
            let mut go = Some(go);
            while hand.polls < polls && !finished {
                finished = hand.poll().is_ready();
                if !finished && hand.polls < polls {
                    // What waits for the running one would wait for ever.
                    if matches!(what, "wait" | "close" | "close_within") {
                        go.take().into_iter().for_each(|go| go.send(()).unwrap());
                    }
                    until(|| hand.is_woken()).await;
                }
            }
            drop(hand);
            go.take().into_iter().for_each(|go| go.send(()).unwrap());
            after_a_dropped_call(what, &ledger, &journal).await;
            if finished {
                break;
            }
        }
    }
}

async fn after_a_dropped_call(what: &str, ledger: &Tasks, journal: &MemoryJournal) {
    let ids = ["new", "failed", "done", "runs"];
    for id in ids {
        until(|| ledger.query_task_state_quick(id).is_settled()).await;
    }
    assert_eq!(ledger.query_task_state_quick("runs"), TaskState::Succeeded, "{what}");
    if ledger.health() == Health::Serving {
        assert_eq!(ledger.launch_block(name("later"), ok(4)).await.unwrap(), 4, "{what}");
        ledger.record("later").await.unwrap().unwrap();
    }
    let states = async |ledger: &Tasks| ids.map(|id| ledger.query_task_state_quick(id));
    ledger.close().await.unwrap();
    // Only now has everything that was still on its way arrived.
    let before = states(ledger).await;
    let reopened = open(journal.clone()).await;
    assert_eq!(states(&reopened).await, before, "{what}");
    assert_eq!(reopened.recovery().crashed::<String>().len(), 0, "{what}");
    assert_eq!(reopened.metadata(), ledger.metadata(), "{what}");
    assert_eq!(ledger.superseded(), 0, "{what}");
    reopened.close().await.unwrap();
}

/// While it waits for room nothing has been submitted: dropped there, nothing happens at all.
#[tokio::test]
async fn a_caller_dropped_while_it_waits_for_room_has_done_nothing() {
    let journal = MemoryJournal::new();
    let gate = Gate::default();
    let hooked = Hooked::at_append(&journal, 2, Then::Wait(gate.clone()));
    let ledger = Tasks::builder().max_pending(1).open_journal(hooked).await.unwrap();
    ledger.mark_succeeded(name("done")).await.unwrap();
    let mut in_flight = Hand::new(ledger.mark_succeeded(name("in flight")));
    assert!(in_flight.poll().is_pending());
    gate.somebody_waits().await;
    let submitting = ["launch", "launch_block", "revoke_task", "mark_succeeded", "forget"];
    for (_, call) in CALLS.iter().filter(|(what, _)| submitting.contains(what)) {
        let mut hand = Hand::new(call(&ledger));
        assert!(hand.poll().is_pending() && hand.poll().is_pending());
    }
    gate.open();
    in_flight.finish().await.unwrap();
    // Room is for one at a time still: none was lost with the dropped callers.
    assert_eq!(ledger.launch_block(name("later"), ok(1)).await.unwrap(), 1);
    assert_eq!(ledger.query_task_state_quick("new"), TaskState::NotFound);
    assert_eq!(ledger.query_task_state_quick("done"), TaskState::Succeeded);
    ledger.close().await.unwrap();
    assert_eq!(journal.records().len(), 1 + 2 + 2);
}

/// An attempt that waits for room on a closing ledger: the close waits for the attempt, so the
/// attempt must not wait for room that never comes.
#[tokio::test]
async fn nobody_waits_for_room_on_a_closing_ledger() {
    let journal = MemoryJournal::new();
    let gate = Gate::default();
    let hooked = Hooked::at_append(&journal, 2, Then::Wait(gate.clone()));
    let ledger = Tasks::builder().max_pending(1).open_journal(hooked).await.unwrap();
    let inner = ledger.clone();
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let mut outer = Hand::new(ledger.launch_block(name("outer"), async move {
        wait.await.map_err(|error| error.to_string())?;
        match inner.launch_block(name("inner"), ok(1)).await {
            Err(AttemptError::Rejected { reason: Rejection::Closed, .. }) => Ok(7),
            other => Err(format!("{other:?}")),
        }
    }));
    assert!(outer.poll().is_pending());
    until(|| ledger.query_task_state_quick("outer") == TaskState::Running).await;
    // Takes the only room, and stays in flight; two more wait for it.
    let mut first = Hand::new(ledger.mark_succeeded(name("first")));
    assert!(first.poll().is_pending());
    gate.somebody_waits().await;
    let mut second = Hand::new(ledger.mark_succeeded(name("second")));
    assert!(second.poll().is_pending());
    go.send(()).unwrap();
    tokio::task::yield_now().await;
    let mut close = Hand::new(ledger.close());
    assert!(close.poll().is_pending());
    gate.open();
    first.finish().await.unwrap();
    second.finish().await.unwrap_err();
    assert_eq!(outer.finish().await.unwrap(), 7);
    close.finish().await.unwrap();
}

/// A close waits for each attempt, however it was begun, and though others have ended: the end of one that it
/// did not wait for would be lost.
#[tokio::test]
async fn a_close_waits_for_each_that_runs() {
    let (ledger, journal) = fresh().await;
    let gates: [_; 4] = std::array::from_fn(|_| tokio::sync::oneshot::channel::<()>());
    let (mut go, wait): (Vec<_>, Vec<_>) = gates.into_iter().unzip();
    let mut tasks: Vec<_> = ["a", "b", "c", "d"]
        .map(name)
        .into_iter()
        .zip(wait)
        .map(|(id, wait)| {
            (id, async move { wait.await.map(|()| 1).map_err(|error| error.to_string()) })
        })
        .collect();
    let (id, alone) = tasks.pop().unwrap();
    ledger.launch(id, alone).await.unwrap();
    assert!(ledger.launch_all(tasks).await.iter().all(Result::is_ok));
    for at in [3, 0] {
        go.remove(at).send(()).unwrap();
    }
    for ended in ["a", "d"] {
        assert_eq!(ledger.wait(ended).await.unwrap(), TaskState::Succeeded);
    }
    let mut close = Box::pin(ledger.close());
    let early = tokio::time::timeout(Duration::from_millis(50), &mut close).await;
    assert!(early.is_err(), "it does not wait for b and c");
    go.into_iter().for_each(|go| go.send(()).unwrap());
    close.await.unwrap();
    let ledger = open(journal).await;
    for id in ["a", "b", "c", "d"] {
        assert_eq!(ledger.query_task_state_quick(id), TaskState::Succeeded, "{id}");
    }
}

/// Dropping the future of an open: the open finishes, and the ledger is closed again.
#[tokio::test]
async fn an_open_dropped_half_way_closes_again() {
    let journal = MemoryJournal::new();
    let gate = Gate::default();
    let hooked = Hooked::at_append(&journal, 0, Then::Wait(gate.clone()));
    let mut opening = Hand::new(Tasks::builder().open_journal(hooked));
    assert!(opening.poll().is_pending());
    gate.somebody_waits().await;
    drop(opening);
    gate.open();
    until_open(&journal).await;
}

/// Opens as soon as nobody holds the journal any more.
async fn until_open(journal: &MemoryJournal) -> Tasks {
    for _ in 0..100_000 {
        match Tasks::builder().open_journal(journal.clone()).await {
            Ok(ledger) => return ledger,
            Err(OpenError::Journal(_)) => tokio::task::yield_now().await,
            Err(other) => panic!("{other:?}"),
        }
    }
    panic!("somebody holds it for ever");
}

/// Aborting the task that waits for an attempt is no abort of the attempt.
#[tokio::test]
async fn an_aborted_caller_cancels_nothing() {
    let (ledger, _) = fresh().await;
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let caller = tokio::spawn({
        let ledger = ledger.clone();
        let future = async { wait.await.map(|()| 3).map_err(|error| error.to_string()) };
        async move { ledger.launch_block(name("a"), future).await }
    });
    until(|| ledger.query_task_state_quick("a") == TaskState::Running).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::Running);
    go.send(()).unwrap();
    assert_eq!(ledger.wait("a").await.unwrap(), TaskState::Succeeded);
}

/// Dropping the last handle: what runs ends by itself, is recorded, and the lock falls.
#[tokio::test]
async fn a_dropped_handle_lets_attempts_end() {
    let (ledger, journal) = fresh().await;
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let runs = async { wait.await.map(|()| 3).map_err(|error| error.to_string()) };
    ledger.launch(name("a"), runs).await.unwrap();
    drop(ledger);
    let held = Tasks::builder().open_journal(journal.clone()).await;
    assert!(matches!(held, Err(OpenError::Journal(_))), "two ledgers at once");
    go.send(()).unwrap();
    let ledger = until_open(&journal).await;
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::Succeeded);
    assert_eq!(ledger.output("a").await.unwrap(), Some(3));
}

/// The lock falls only when the last future is dropped: a reopen before that could run one id
/// twice at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lock_outlives_the_last_future() {
    struct SlowDrop(Gate);
    impl Drop for SlowDrop {
        fn drop(&mut self) {
            self.0.pass();
        }
    }
    let (ledger, journal) = fresh().await;
    let gate = Gate::default();
    let held = SlowDrop(gate.clone());
    let future = async move {
        let _held = held;
        never().await
    };
    ledger.launch(name("a"), future).await.unwrap();
    ledger.cancel("a", "stop").unwrap();
    gate.somebody_waits().await;
    let mut close = Hand::new(ledger.close());
    assert!(close.poll().is_pending());
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::Running, "its future is not gone");
    let held = Tasks::builder().open_journal(journal.clone()).await;
    assert!(matches!(held, Err(OpenError::Journal(_))));
    gate.open();
    close.finish().await.unwrap();
    let ledger = open(journal).await;
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::Failed);
}

/// Attempts that are parked, never polled, or busy when their runtime ends in one of three ways.
fn a_runtime_ends(end: impl FnOnce(Runtime) + Send + 'static) {
    let first = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let second = Builder::new_current_thread().build().unwrap();
    let journal = MemoryJournal::new();
    let gate = Gate::default();
    // 1 marks, 2 starts what parks, 3 what is busy, 4 the revoke, 5 what is never polled.
    let hooked = Hooked::at_append(&journal, 5, Then::Wait(gate.clone()));
    let busy_until = Arc::new(AtomicBool::new(false));
    let ledger = first.block_on(async {
        let ledger = open(hooked).await;
        ledger.mark_succeeded(name("revoked")).await.unwrap();
        ledger.launch(name("parked"), never()).await.unwrap();
        let busy = {
            let until = Arc::clone(&busy_until);
            async move {
                while !until.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                ok(7).await
            }
        };
        ledger.launch(name("busy"), busy).await.unwrap();
        ledger.revoke_task(name("revoked"), never()).await.unwrap();
        let mut unpolled = Hand::new(ledger.launch(name("unpolled"), async {
            panic!("polled, and not recorded as started");
            #[expect(unreachable_code, reason = "gives the block its type")]
            ok(0).await
        }));
        assert!(unpolled.poll().is_pending());
        gate.somebody_waits().await;
        drop(unpolled);
        ledger
    });
    let ending = std::thread::spawn(move || end(first));
    second.block_on(async {
        until(|| {
            // The end of a runtime waits for what is busy, so release it when nothing else is left.
            busy_until.store(true, Ordering::SeqCst);
            ending.is_finished()
        })
        .await;
        gate.open();
        for id in ["parked", "busy", "revoked"] {
            until(|| ledger.query_task_state_quick(id).is_settled()).await;
        }
        ledger.close().await.unwrap();
        let ledger = open(journal.clone()).await;
        assert_eq!(ledger.recovery().crashed::<String>().len(), 0, "an end was not recorded");
        for id in ["parked", "unpolled"] {
            let record = ledger.record(id).await.unwrap().unwrap();
            assert!(matches!(record.failure, Some(Failure::Cancelled(_))), "{id}: {record:?}");
        }
        match ledger.record("busy").await.unwrap().unwrap().failure {
            None => assert_eq!(ledger.output("busy").await.unwrap(), Some(7)),
            Some(failure) => assert!(matches!(failure, Failure::Cancelled(_)), "{failure}"),
        }
        let revoked = ledger.record("revoked").await.unwrap().unwrap();
        assert_eq!(revoked.state(), TaskState::Succeeded);
        assert!(matches!(revoked.revoke_failure, Some(Failure::Cancelled(_))));
        assert_eq!(ledger.running_tasks().len() + ledger.revoking_tasks().len(), 0);
        for id in ["parked", "unpolled"] {
            assert_eq!(ledger.launch_block(name(id), ok(1)).await.unwrap(), 1);
        }
        ledger.close().await.unwrap();
    });
}

#[test]
fn a_runtime_that_is_dropped() {
    a_runtime_ends(drop);
}

#[test]
fn a_runtime_shut_down_with_a_timeout() {
    a_runtime_ends(|runtime| runtime.shutdown_timeout(Duration::from_secs(60)));
}

#[test]
fn a_runtime_shut_down_in_the_background() {
    a_runtime_ends(Runtime::shutdown_background);
}

/// A caller that outlives the runtime of its attempt is told so, not that it was cancelled: what
/// is on record may be a success.
#[test]
fn a_caller_that_outlives_the_runtime_is_told_that_it_is_lost() {
    let first = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let second = Builder::new_current_thread().build().unwrap();
    let journal = MemoryJournal::new();
    let gate = Gate::default();
    // The end of the success is in flight when the runtime goes.
    let ledger = second.block_on(open(Hooked::at_append(&journal, 2, Then::Wait(gate.clone()))));
    let mut block = Hand::new(ledger.launch_block(name("a"), ok(7)));
    let mut start = Hand::new(ledger.launch(name("b"), ok(7)));
    {
        let _within = first.enter();
        assert!(block.poll().is_pending());
    }
    second.block_on(gate.somebody_waits());
    {
        let _within = first.enter();
        assert!(start.poll().is_pending());
    }
    drop(first);
    gate.open();
    second.block_on(async {
        assert!(matches!(block.finish().await, Err(AttemptError::Lost)));
        assert!(matches!(start.finish().await, Err(LaunchError::Lost)));
        assert_eq!(ledger.wait("a").await.unwrap(), TaskState::Succeeded);
        assert_eq!(ledger.output("a").await.unwrap(), Some(7));
        ledger.close().await.unwrap();
        assert_eq!(ledger.query_task_state_quick("b"), TaskState::Failed);
    });
}

/// A read or a checkpoint that comes while the writer closes the journal would never be answered.
#[tokio::test]
async fn a_read_while_the_journal_closes_is_answered() {
    let journal = MemoryJournal::new();
    let gate = Gate::default();
    let at_close = gate.clone();
    let ledger = open(Hooked::new(&journal, move |call| match call {
        Call::Close => Then::Wait(at_close.clone()),
        _ => Then::GoOn,
    }))
    .await;
    ledger.mark_succeeded(name("a")).await.unwrap();
    let mut close = Hand::new(ledger.close());
    assert!(close.poll().is_pending());
    gate.somebody_waits().await;
    let mut read = Hand::new(ledger.record("a"));
    let mut checkpoint = Hand::new(ledger.checkpoint());
    let (read_now, checkpoint_now) = (read.poll(), checkpoint.poll());
    gate.open();
    close.finish().await.unwrap();
    assert!(matches!(read_now, Poll::Ready(Err(_))), "nobody will read it");
    assert!(matches!(checkpoint_now, Poll::Ready(Err(_))));
}
