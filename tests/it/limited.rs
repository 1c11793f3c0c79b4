//! What bounds a run, and what its options do not do in silence.

use crate::support::{
    Bomb, Gate, Hand, Hooked, Tasks, Then, crashed, fresh, name, never, ok, open, soon, until,
};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use taskledger::{
    AttemptError, ClaimKind, Context, Failure, Landed, LaunchError, Ledger, MemoryJournal, OnCrash,
    OnFailure, ReadError, Rejection, Retry, RunError, Task, TaskState,
};
use tokio::time::Instant;

const SOON: Duration = Duration::from_millis(50);

fn attempts(count: u32) -> NonZero<u32> {
    NonZero::new(count).unwrap()
}

/// What a future does that says whether it was polled.
fn telling(polled: &Arc<AtomicBool>) -> impl Future<Output = Result<u32, String>> + use<> {
    let polled = Arc::clone(polled);
    async move {
        polled.store(true, Ordering::SeqCst);
        ok(1).await
    }
}

/// A deadline that had passed let the first poll of the work through, which may be all of it.
#[tokio::test]
async fn nothing_begins_after_its_deadline() {
    let (ledger, _) = fresh().await;
    let now = Instant::now();
    for (id, deadline) in [("a", now - Duration::from_secs(3)), ("b", now)] {
        let polled = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&polled);
        let late = ledger.task(name(id)).deadline(deadline).run(move |_| telling(&tell)).await;
        assert!(matches!(late, Err(RunError::TimedOut)), "{late:?}");
        assert!(!polled.load(Ordering::SeqCst));
        assert_eq!(ledger.query_task_state_quick(id), TaskState::NotFound);
        // A launch is on record before it can be late.
        let late = ledger.task(name(id)).deadline(deadline).launch_block(telling(&polled)).await;
        assert!(matches!(late, Err(AttemptError::TimedOut)));
        assert!(!polled.load(Ordering::SeqCst));
        let failure = ledger.record(id).await.unwrap().unwrap().failure;
        assert_eq!(failure, Some(Failure::TimedOut));
    }
}

/// A replay reads behind what is being recorded, and waited for that however late it was.
#[tokio::test]
async fn a_replay_waits_until_its_deadline() {
    let (journal, gate) = (MemoryJournal::new(), Gate::default());
    // 1 and 2 are those of the run.
    let ledger = open(Hooked::at_append(&journal, 3, Then::Wait(gate.clone()))).await;
    ledger.run(name("a"), |_| ok(7)).await.unwrap();
    let mut mark = Hand::new(ledger.mark_succeeded(name("b")));
    assert!(mark.poll().is_pending());
    gate.somebody_waits().await;
    let late = ledger.task(name("a")).deadline(Instant::now() + SOON).run(|_| ok(8));
    assert!(matches!(soon(late).await, Err(RunError::TimedOut)));
    gate.open();
    mark.finish().await.unwrap();
    let later = Instant::now() + Duration::from_secs(60);
    let replay = ledger.task(name("a")).deadline(later).run(|_| ok(8)).await.unwrap();
    assert_eq!((replay.kind, replay.value), (ClaimKind::Replayed, Some(7)));
}

/// It passes while the start is being recorded: that is on record then, and the work is not polled.
#[tokio::test]
async fn a_deadline_that_passes_before_the_first_poll() {
    let (journal, gate) = (MemoryJournal::new(), Gate::default());
    let ledger = open(Hooked::at_append(&journal, 1, Then::Wait(gate.clone()))).await;
    let polled = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&polled);
    let deadline = Instant::now() + SOON;
    let mut run = Hand::new(ledger.task(name("a")).deadline(deadline).run(move |_| telling(&tell)));
    assert!(run.poll().is_pending());
    gate.somebody_waits().await;
    tokio::time::sleep_until(deadline).await;
    gate.open();
    assert!(matches!(run.finish().await, Err(RunError::TimedOut)));
    assert!(!polled.load(Ordering::SeqCst));
    assert_eq!(ledger.record("a").await.unwrap().unwrap().failure, Some(Failure::TimedOut));
}

/// A joiner waited far beyond its own deadline.
#[tokio::test]
async fn a_joiner_waits_until_its_deadline() {
    let (ledger, _) = fresh().await;
    ledger.launch(name("a"), never()).await.unwrap();
    let mut leader = Hand::new(ledger.run(name("b"), |_| never()));
    assert!(leader.poll().is_pending());
    until(|| ledger.query_task_state_quick("b") == TaskState::Running).await;
    for id in ["a", "b"] {
        let joiner = ledger.task(name(id)).deadline(Instant::now() + SOON).run(|_| ok(1));
        let late = soon(joiner).await;
        assert!(matches!(late, Err(RunError::TimedOut)), "{late:?}");
        assert_eq!(ledger.query_task_state_quick(id), TaskState::Running);
    }
}

/// Options of a run were forgotten by a launch.
#[tokio::test]
async fn a_launch_does_not_take_what_it_would_not_heed() {
    type Ask = for<'a> fn(Task<'a, String, u32>) -> Task<'a, String, u32>;
    let asks: [(&str, Ask); 8] = [
        ("fingerprint", |task| task.fingerprint("a")),
        ("cancel_grace", |task| task.cancel_grace(Duration::ZERO)),
        ("on_failure", |task| task.on_failure(OnFailure::Refuse)),
        ("on_crash", |task| task.on_crash(OnCrash::Hold)),
        ("probe", |task| task.probe(|_| async { Landed::No })),
        ("max_attempts", |task| task.max_attempts(NonZero::<u32>::MIN)),
        ("output_at_most", |task| task.output_at_most(1)),
        ("cancel_with_caller", |task| task.cancel_with_caller()),
    ];
    let (ledger, _) = fresh().await;
    for (name_of, ask) in asks {
        let launched = ask(ledger.task(name("a"))).launch(ok(1)).await;
        let Err(LaunchError::Rejected { reason: Rejection::OnlyForRun { option }, future }) =
            launched
        else {
            panic!("{name_of}: {launched:?}")
        };
        assert_eq!((option, future.await), (name_of, Ok(1)));
        let launched = ask(ledger.task(name("a"))).launch_block(ok(1)).await;
        let Err(AttemptError::Rejected { reason: Rejection::OnlyForRun { option }, .. }) = launched
        else {
            panic!("{name_of}: {launched:?}")
        };
        assert_eq!(option, name_of);
    }
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::NotFound);
}

/// A caller that only wanted to be told of the failure gave the id up, for everybody.
#[tokio::test]
async fn who_only_asks_writes_nothing() {
    let (ledger, journal) = fresh().await;
    for _ in 0..4 {
        ledger.run(name("a"), |_| async { Err::<u32, _>("no") }).await.unwrap_err();
    }
    let before = journal.records().len();
    let task = || ledger.task(name("a")).max_attempts(attempts(2));
    let told = task().on_failure(OnFailure::Replay).run(|_| ok(1)).await;
    assert!(matches!(told, Err(RunError::Told { kind: ClaimKind::Replayed, .. })), "{told:?}");
    let refused = task().on_failure(OnFailure::Refuse).run(|_| ok(1)).await;
    assert!(matches!(refused, Err(RunError::Refused { .. })), "{refused:?}");
    assert_eq!(journal.records().len(), before);
    // Without a cap it runs.
    assert_eq!(ledger.run(name("a"), |_| ok(1)).await.unwrap().kind, ClaimKind::Executed);
}

/// The last attempt that was allowed crashed after its effect: nobody asked whether it had landed.
#[tokio::test]
async fn a_crash_of_the_last_attempt_is_asked_about() {
    let (ledger, _) = crashed("a").await;
    let task = || ledger.task(name("a")).max_attempts(attempts(1));
    let held = task().on_crash(OnCrash::Hold).run(|_| ok(1)).await;
    assert!(matches!(held, Err(RunError::Held)), "{held:?}");
    let claim = task().probe(|_| async { Landed::Yes(Some(40)) }).run(|_| ok(1)).await.unwrap();
    assert_eq!((claim.kind, claim.value), (ClaimKind::Replayed, Some(40)));
    // It has not: then there may be no other.
    let (ledger, _) = crashed("a").await;
    let task = ledger.task(name("a")).max_attempts(attempts(1));
    let gave_up = task.probe(|_| async { Landed::No }).run(|_| ok(1)).await;
    assert!(matches!(gave_up, Err(RunError::GaveUp { attempts: 1 })), "{gave_up:?}");
}

/// A probe that hangs outlived all limits, the cancel, its caller and the close.
#[tokio::test]
async fn a_probe_has_limits() {
    let hangs = |_: Context<String>| std::future::pending::<Landed<u32>>();
    let (ledger, _) = crashed("a").await;
    let timely = ledger.task(name("a")).timeout(SOON).probe(hangs).run(|_| ok(1));
    assert!(matches!(soon(timely).await, Err(RunError::Held)));
    let timely = ledger.task(name("a")).deadline(Instant::now() + SOON).probe(hangs);
    assert!(matches!(soon(timely.run(|_| ok(1))).await, Err(RunError::Held)));

    let mut run = Hand::new(ledger.task(name("a")).probe(hangs).run(|_| ok(1)));
    assert!(run.poll().is_pending());
    ledger.cancel("a", "enough").unwrap();
    let cancelled = soon(run.finish()).await;
    assert!(matches!(&cancelled, Err(RunError::Cancelled(why)) if why == "enough"));

    let leader = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.task(name("a")).cancel_with_caller().probe(hangs).run(|_| ok(1)).await }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let mut joiner = Hand::new(ledger.run(name("a"), |_| ok(2)));
    assert!(joiner.poll().is_pending(), "the other one asks");
    leader.abort();
    let claim = soon(joiner.finish()).await.unwrap();
    assert_eq!((claim.kind, claim.value), (ClaimKind::Executed, Some(2)));

    let (ledger, _) = crashed("a").await;
    let mut run = Hand::new(ledger.task(name("a")).probe(hangs).run(|_| ok(1)));
    assert!(run.poll().is_pending());
    soon(ledger.close()).await.unwrap();
    let closed = soon(run.finish()).await;
    assert!(closed.is_err(), "{closed:?}");
}

/// A success was told as lost when something that the work had held panicked as it was dropped.
#[tokio::test]
async fn what_panics_when_dropped_costs_no_answer() {
    let (ledger, _) = fresh().await;
    let bomb = Bomb;
    let work = move |_: Context<String>| {
        let _held = &bomb;
        ok(1)
    };
    assert_eq!(ledger.run(name("a"), work).await.unwrap().value, Some(1));
    // Not even if it is never called.
    let bomb = Bomb;
    let work = move |_: Context<String>| {
        let _held = &bomb;
        ok(1)
    };
    assert_eq!(ledger.run(name("a"), work).await.unwrap().kind, ClaimKind::Replayed);

    let (bomb, asks) = (Bomb, Bomb);
    let retry = Retry::attempts(attempts(2)).min_delay(Duration::from_millis(1));
    let retry = retry.when(move |_: &Bomb| {
        let _held = &bomb;
        true
    });
    let task = ledger.task(name("b")).probe(move |_| {
        let _held = &asks;
        async { Landed::No }
    });
    // And so does the error of its first attempt.
    let work = |cx: Context<String>| async move {
        if cx.attempt().get() == 1 { Err(Bomb) } else { Ok(2) }
    };
    let claim = task.retry(retry).run(work).await.map_err(std::mem::forget).unwrap();
    assert_eq!((claim.kind, claim.value), (ClaimKind::Executed, Some(2)));
}

#[derive(Debug, serde::Serialize)]
struct Unreadable(u8);

impl<'de> serde::Deserialize<'de> for Unreadable {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("on purpose")
    }
}

/// The panic of an output's `Deserialize` was the caller's.
#[tokio::test]
async fn an_output_whose_deserialize_panics_is_a_typed_error() {
    let ledger =
        Ledger::<u64, Unreadable>::builder().open_journal(MemoryJournal::new()).await.unwrap();
    let work = |_: Context<u64>| async { Ok::<_, String>(Unreadable(1)) };
    ledger.run(7, work).await.unwrap();
    let replay = ledger.run(7, work).await;
    assert!(matches!(replay, Err(RunError::Read(ReadError::Output(_)))), "{replay:?}");
    let output = ledger.output(&7).await;
    assert!(matches!(output, Err(ReadError::Output(_))), "{output:?}");
}

/// The work's own error was nowhere in the text of a failed run.
#[tokio::test]
async fn a_failed_run_says_why() {
    let (ledger, _) = fresh().await;
    let failed = ledger.run(name("a"), |_| async { Err::<u32, _>("no route") }).await.unwrap_err();
    assert_eq!(failed.to_string(), "it failed: \"no route\"");
    assert!(format!("{failed:?}").contains("no route"));
}

/// A declared size is about what would run: a replay was refused for it.
#[tokio::test]
async fn a_declared_size_does_not_hinder_a_replay() {
    let ledger = Tasks::builder().output_cap(16).open_journal(MemoryJournal::new()).await.unwrap();
    ledger.run(name("a"), |_| ok(1)).await.unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let counts = Arc::clone(&calls);
    let work = move |_| {
        counts.fetch_add(1, Ordering::SeqCst);
        ok(2)
    };
    let claim = ledger.task(name("a")).output_at_most(17).run(work).await.unwrap();
    assert_eq!((claim.kind, claim.value), (ClaimKind::Replayed, Some(1)));
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

/// An id whose drop panics, from when it is told to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
struct Mine(String);

static ARMED: AtomicBool = AtomicBool::new(false);

impl Drop for Mine {
    fn drop(&mut self) {
        if ARMED.load(Ordering::SeqCst) && !std::thread::panicking() {
            panic!("an id was dropped")
        }
    }
}

/// A recorded success was told as lost when the id panicked as it was dropped.
#[tokio::test]
async fn an_id_that_panics_when_dropped_costs_no_answer() {
    let ledger = Ledger::<Mine, u32>::builder().open_journal(MemoryJournal::new()).await.unwrap();
    for kind in [ClaimKind::Executed, ClaimKind::Replayed] {
        let (id, work) = (Mine(name("a")), |_| async {
            ARMED.store(true, Ordering::SeqCst);
            ok(7).await
        });
        ARMED.store(kind == ClaimKind::Replayed, Ordering::SeqCst);
        let answer = ledger.run(id, work).await;
        ARMED.store(false, Ordering::SeqCst);
        let claim = answer.unwrap();
        assert_eq!((claim.kind, claim.value), (kind, Some(7)));
    }
}

/// What a panic carries was dropped where nobody had caught it, if it panicked as well: the answer was lost.
#[tokio::test]
async fn what_a_panic_carries_costs_no_answer() {
    struct Payload;
    impl Drop for Payload {
        fn drop(&mut self) {
            panic!("a payload was dropped")
        }
    }
    /// Panics with that when it is dropped.
    struct Worse;
    impl Drop for Worse {
        fn drop(&mut self) {
            std::panic::panic_any(Payload)
        }
    }
    let (ledger, _) = fresh().await;
    let worse = Worse;
    let work = move |_: Context<String>| {
        let _held = &worse;
        ok(1)
    };
    assert_eq!(soon(ledger.run(name("a"), work)).await.unwrap().value, Some(1));

    let retry = Retry::attempts(attempts(2)).min_delay(Duration::from_millis(1));
    let retry = retry.when(|_: &String| std::panic::panic_any(Payload));
    let work = |_: Context<String>| async { Err::<u32, _>(name("no")) };
    let failed = soon(ledger.task(name("b")).retry(retry).run(work)).await;
    assert!(matches!(&failed, Err(RunError::Failed(error)) if error == "no"), "{failed:?}");

    let held = async |ledger: &Tasks| {
        let asks = |_: Context<String>| async { std::panic::panic_any(Payload) };
        soon(ledger.task(name("a")).probe(asks).run(|_| ok(1))).await
    };
    let (ledger, _) = crashed("a").await;
    let held = held(&ledger).await;
    assert!(matches!(held, Err(RunError::Held)), "{held:?}");
}
