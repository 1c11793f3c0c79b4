//! Who joins whom: no answer of a run is older than its call, and nobody waits for ever.

use crate::support::{
    Call, Gate, Hand, Hooked, Tasks, Then, fresh, name, never, ok, open, soon, until,
};
use std::future::{Future as _, poll_fn};
use std::num::NonZero;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;
use taskledger::{
    ClaimKind, Context, Failure, MemoryJournal, OnFailure, Rejection, RunError, TaskState, Verdict,
};
use tokio::task::JoinSet;

type Answer = Result<(ClaimKind, Option<u32>), RunError<u32, String>>;

/// Somebody who runs "a" on a runtime of their own, which is busy from the end of the attempt on until
/// the gate opens: that end is on record, and the run has not heard of it.
fn behind(
    ledger: &Tasks,
    returns: Result<u32, String>,
    request: Option<&'static str>,
) -> (Gate, JoinHandle<Answer>) {
    let (ledger, gate) = (ledger.clone(), Gate::default());
    let busy = gate.clone();
    let work = move |_: Context<String>| {
        let (busy, returns) = (busy.clone(), returns.clone());
        async move {
            tokio::spawn(async move { busy.pass() });
            returns
        }
    };
    let runs = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // In a task: what blocks a thread would otherwise wait for its own answer.
        let run = runtime.spawn(async move {
            let task = ledger.task(name("a"));
            let task = match request {
                Some(request) => task.fingerprint(request),
                None => task,
            };
            task.run(work).await.map(|claim| (claim.kind, claim.value))
        });
        runtime.block_on(run).unwrap()
    });
    (gate, runs)
}

/// A run was told "done, 1" of an id that had been revoked before it was called, and of which nothing was
/// known afterwards: it had joined a flight that had not yet heard of its own end.
#[tokio::test]
async fn what_was_revoked_before_the_call_is_run_again() {
    let (ledger, _) = fresh().await;
    let (gate, first) = behind(&ledger, Ok(1), None);
    until(|| ledger.query_task_state_quick("a") == TaskState::Succeeded).await;
    ledger.revoke_task_block(name("a"), async { Ok::<_, ()>(()) }).await.unwrap();
    // Nor does it wait for the other one.
    let claim = soon(ledger.run(name("a"), |_| ok(2))).await.unwrap();
    assert_eq!((claim.kind, claim.value), (ClaimKind::Executed, Some(2)));
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::Succeeded);
    gate.open();
    assert_eq!(first.join().unwrap().unwrap(), (ClaimKind::Executed, Some(1)));
    assert_eq!(ledger.output("a").await.unwrap(), Some(2));
}

/// The same of a failure, and of a fingerprint: the id was fresh, and refused as used for another request.
#[tokio::test]
async fn what_was_forgotten_before_the_call_hinders_nobody() {
    for request in [None, Some("old")] {
        let (ledger, _) = fresh().await;
        let (gate, first) = behind(&ledger, Err(name("no")), request);
        until(|| ledger.query_task_state_quick("a") == TaskState::Failed).await;
        ledger.forget("a").await.unwrap();
        let task = ledger.task(name("a")).fingerprint("new");
        let claim = soon(task.run(|_| ok(2))).await.unwrap();
        assert_eq!((claim.kind, claim.value), (ClaimKind::Executed, Some(2)));
        gate.open();
        let first = first.join().unwrap();
        assert!(matches!(&first, Err(RunError::Failed(error)) if error == "no"), "{first:?}");
    }
}

/// A run that waited for somebody else's attempt was told that it had failed as "released", when it had been
/// resolved to be tried again by the time the run heard of it.
#[tokio::test]
async fn what_was_released_meanwhile_is_run() {
    let (journal, gate, reads) =
        (MemoryJournal::new(), Gate::default(), Arc::new(AtomicU32::new(0)));
    let (busy, read) = (gate.clone(), Arc::clone(&reads));
    let hooked = Hooked::new(&journal, move |call| match call {
        // The open's, the start's, the mark's.
        Call::Append(2) => Then::Wait(busy.clone()),
        Call::Read => {
            read.fetch_add(1, Ordering::SeqCst);
            Then::GoOn
        }
        _ => Then::GoOn,
    });
    let ledger = open(hooked).await;
    let (fail, fails) = tokio::sync::oneshot::channel::<()>();
    ledger.launch(name("a"), async move { Err::<u32, _>(fails.await) }).await.unwrap();
    let mut run = Hand::new(ledger.run(name("a"), |_| ok(2)));
    assert!(run.poll().is_pending());
    until(|| reads.load(Ordering::SeqCst) > 0).await;
    let mut mark = Hand::new(ledger.mark_succeeded(name("b")));
    assert!(mark.poll().is_pending());
    gate.somebody_waits().await;
    // Both are published together.
    fail.send(()).unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let mut resolve = Hand::new(ledger.resolve("a", Verdict::Retry, "mended"));
    assert!(resolve.poll().is_pending());
    gate.open();
    soon(resolve.finish()).await.unwrap();
    let claim = soon(run.finish()).await.unwrap();
    assert_eq!((claim.kind, claim.value), (ClaimKind::Executed, Some(2)));
}

/// A failure that is on record when a run is called is for its policy to judge: it was told of as one that
/// it had waited for.
#[tokio::test]
async fn a_failure_before_the_call_is_not_joined() {
    let (ledger, _) = fresh().await;
    let (gate, first) = behind(&ledger, Err(name("no")), None);
    until(|| ledger.query_task_state_quick("a") == TaskState::Failed).await;
    let mut later = Hand::new(ledger.run(name("a"), |_| ok(2)));
    assert!(later.poll().is_pending(), "the first may try it again");
    gate.open();
    let claim = soon(later.finish()).await.unwrap();
    assert_eq!((claim.kind, claim.value), (ClaimKind::Executed, Some(2)));
    assert!(first.join().unwrap().is_err());
}

/// A replay whose id was forgotten while it was read was told that its runtime had gone down.
#[tokio::test]
async fn a_replay_that_comes_too_late_runs() {
    let (journal, gate) = (MemoryJournal::new(), Gate::default());
    // 1 and 2 are those of the first run.
    let ledger = open(Hooked::at_append(&journal, 3, Then::Wait(gate.clone()))).await;
    ledger.run(name("a"), |_| ok(1)).await.unwrap();
    let mut forgets = Hand::new(ledger.forget("a"));
    assert!(forgets.poll().is_pending());
    gate.somebody_waits().await;
    let mut replay = Hand::new(ledger.run(name("a"), |_| ok(2)));
    assert!(replay.poll().is_pending(), "it reads behind what is being recorded");
    gate.open();
    let claim = soon(replay.finish()).await.unwrap();
    assert_eq!((claim.kind, claim.value), (ClaimKind::Executed, Some(2)));
    forgets.finish().await.unwrap();
}

/// Those who wait for a caller that leaves were told of its cancelled attempt as a failure, if their
/// policy was to be told of failures, and had given up, if their cap was reached.
#[tokio::test]
async fn a_caller_that_leaves_hands_over_whatever_the_policies() {
    type Ask = fn(&Tasks) -> taskledger::Task<'_, String, u32>;
    let asks: [Ask; 4] = [
        |ledger| ledger.task(name("a")),
        |ledger| ledger.task(name("a")).on_failure(OnFailure::Replay),
        |ledger| ledger.task(name("a")).on_failure(OnFailure::Refuse),
        |ledger| ledger.task(name("a")).max_attempts(NonZero::<u32>::MIN),
    ];
    for ask in asks {
        let (ledger, _) = fresh().await;
        let leader = tokio::spawn({
            let ledger = ledger.clone();
            async move {
                let task = ledger.task(name("a")).cancel_grace(Duration::ZERO);
                task.cancel_with_caller().run(|_| never()).await
            }
        });
        until(|| ledger.query_task_state_quick("a") == TaskState::Running).await;
        let calls = Arc::new(AtomicU32::new(0));
        let mut joiners = JoinSet::new();
        for _ in 0..3 {
            let (ledger, calls) = (ledger.clone(), Arc::clone(&calls));
            joiners.spawn(async move {
                let work = move |_| {
                    calls.fetch_add(1, Ordering::SeqCst);
                    ok(2)
                };
                ask(&ledger).run(work).await.map(|claim| claim.value)
            });
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        leader.abort();
        for told in soon(joiners.join_all()).await {
            assert_eq!(told.unwrap(), Some(2));
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1, "exactly one takes over");
    }
}

/// What a leader that leaves has achieved in its grace is its company's, also what is not kept on disk.
#[tokio::test]
async fn what_succeeds_in_its_grace_is_shared() {
    let ledger = Tasks::builder().output_cap(0).open_journal(MemoryJournal::new()).await.unwrap();
    let begun = Arc::new(AtomicU32::new(0));
    let leader = tokio::spawn({
        let (ledger, begun) = (ledger.clone(), Arc::clone(&begun));
        let listens = move |cx: Context<String>| {
            let begun = Arc::clone(&begun);
            async move {
                begun.store(1, Ordering::SeqCst);
                cx.cancellation().cancelled().await;
                ok(7).await
            }
        };
        async move { ledger.task(name("a")).cancel_with_caller().run(listens).await }
    });
    until(|| begun.load(Ordering::SeqCst) == 1).await;
    let mut joiner = Hand::new(ledger.run(name("a"), |_| ok(1)));
    assert!(joiner.poll().is_pending());
    leader.abort();
    let claim = soon(joiner.finish()).await.unwrap();
    assert_eq!((claim.kind, claim.value), (ClaimKind::Joined, Some(7)));
}

/// When the runtime of the one who executes goes down, one of those that wait takes over. They were told
/// that it had been cancelled as often as not: it depended on what they saw first.
#[test]
fn when_a_runtime_goes_down_one_of_the_company_takes_over() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    };
    for round in 0..20 {
        let (one, other) = (runtime(), runtime());
        let ledger = one.block_on(async { fresh().await.0 });
        let leads = ledger.clone();
        one.spawn(async move { leads.run(name("a"), |_| never()).await });
        let (calls, waiting) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let claims = other.block_on(async {
            until(|| ledger.query_task_state_quick("a") == TaskState::Running).await;
            let mut joiners = JoinSet::new();
            for policy in [OnFailure::Run, OnFailure::Replay, OnFailure::Refuse] {
                let (ledger, calls) = (ledger.clone(), Arc::clone(&calls));
                let waits = Arc::clone(&waiting);
                joiners.spawn(async move {
                    let work = move |_| {
                        calls.fetch_add(1, Ordering::SeqCst);
                        ok(2)
                    };
                    let mut run = pin!(ledger.task(name("a")).on_failure(policy).run(work));
                    poll_fn(|context| {
                        assert!(run.as_mut().poll(context).is_pending());
                        Poll::Ready(())
                    })
                    .await;
                    waits.fetch_add(1, Ordering::SeqCst);
                    run.await
                });
            }
            until(|| waiting.load(Ordering::SeqCst) == 3).await;
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            one.shutdown_background();
            soon(joiners.join_all()).await
        });
        for claim in claims {
            assert_eq!(claim.unwrap().value, Some(2), "round {round}");
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1, "round {round}");
    }
}

/// A run of an id within an attempt of it waited for itself, for ever.
#[tokio::test]
async fn a_run_within_its_own_attempt_is_rejected() {
    let (ledger, _) = fresh().await;
    let inner = ledger.clone();
    let work = move |_: Context<String>| {
        let ledger = inner.clone();
        async move {
            let again = ledger.run(name("a"), |_| ok(1)).await;
            assert!(
                matches!(again, Err(RunError::Rejected(Rejection::FromWithinAttempt))),
                "{again:?}"
            );
            // Another id is another matter.
            ledger.run(name("b"), |_| ok(2)).await.map(|claim| claim.value.unwrap())
        }
    };
    assert_eq!(soon(ledger.run(name("a"), work)).await.unwrap().value, Some(2));
    // Also within one that was launched.
    let inner = ledger.clone();
    let again = async move { inner.run(name("c"), |_| ok(1)).await.map(|_| 0) };
    assert!(soon(ledger.launch_block(name("c"), again)).await.is_err());
    let failure = ledger.record("c").await.unwrap().unwrap().failure;
    assert!(matches!(failure, Some(Failure::Error(_))));
}
