//! Callers that leave one after the other, and take their attempts with them: those do not count for whoever has
//! waited for them. They did, when it was not the same one who had heard of each: two callers that were
//! dropped used up the `max_attempts` of everybody else, who were told that the id was given up, and so it was
//! recorded.

use crate::support::{Hand, Tasks, crashed, fresh, name, never, ok, soon, until};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use taskledger::{
    Claim, ClaimKind, Failure, Landed, OnFailure, Rejection, Retry, RunError, Task, TaskState,
};

/// One attempt is all that there may be.
fn once(ledger: &Tasks, on_failure: OnFailure) -> Task<'_, String, u32> {
    let task = ledger.task(name("a")).max_attempts(NonZero::<u32>::MIN).on_failure(on_failure);
    task.cancel_grace(Duration::ZERO).cancel_with_caller()
}

type Told = Result<Claim<u32>, RunError<u32, String>>;

/// Who has executed so far, and how many that were.
#[derive(Default)]
struct Executing {
    who: AtomicUsize,
    calls: AtomicUsize,
}

/// Two never come to an end.
async fn asks(ledger: Tasks, policy: OnFailure, me: usize, of: Arc<Executing>) -> Told {
    let work = move |_| {
        of.who.store(me, Ordering::SeqCst);
        let call = of.calls.fetch_add(1, Ordering::SeqCst);
        async move { if call < 2 { never().await } else { ok(7).await } }
    };
    once(&ledger, policy).run(work).await
}

#[tokio::test]
async fn those_who_leave_one_after_the_other_use_up_nobodys_attempts() {
    for policy in [OnFailure::Run, OnFailure::Replay, OnFailure::Refuse] {
        let (ledger, _) = fresh().await;
        let of = Arc::new(Executing::default());
        let mut callers = Vec::new();
        for me in 0..4 {
            let (ledger, of) = (ledger.clone(), Arc::clone(&of));
            callers.push(Some(tokio::spawn(asks(ledger, policy, me, of))));
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
        }
        for left in 1..=2 {
            until(|| of.calls.load(Ordering::SeqCst) == left).await;
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            let leads = callers[of.who.load(Ordering::SeqCst)].take().unwrap();
            leads.abort();
        }
        let mut kinds = Vec::new();
        for caller in callers.into_iter().flatten() {
            kinds.push(soon(caller).await.unwrap().unwrap().kind);
        }
        kinds.sort_by_key(|kind| *kind == ClaimKind::Joined);
        assert_eq!(kinds, [ClaimKind::Executed, ClaimKind::Joined], "{policy:?}");
    }
}

/// The same of runtimes that go down under their callers.
#[test]
fn runtimes_that_go_down_use_up_nobodys_attempts() {
    let own = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().unwrap()
    };
    let main = own();
    let (ledger, _) = main.block_on(fresh());
    let of = Arc::new(Executing::default());
    let mut callers = Vec::new();
    for me in 0..4 {
        let runtime = own();
        let (ledger, of) = (ledger.clone(), Arc::clone(&of));
        let asks = runtime.spawn(asks(ledger, OnFailure::Refuse, me, of));
        std::thread::sleep(Duration::from_millis(50));
        callers.push(Some((runtime, asks)));
    }
    for left in 1..=2 {
        main.block_on(until(|| of.calls.load(Ordering::SeqCst) == left));
        std::thread::sleep(Duration::from_millis(50));
        let (runtime, _) = callers[of.who.load(Ordering::SeqCst)].take().unwrap();
        runtime.shutdown_background();
    }
    for (runtime, asks) in callers.into_iter().flatten() {
        assert_eq!(main.block_on(soon(asks)).unwrap().unwrap().value, Some(7));
        runtime.shutdown_background();
    }
}

/// One who is not scheduled while another one comes, executes and leaves hears of the first alone.
#[tokio::test]
async fn who_has_missed_somebody_who_left_is_not_told_of_that_as_a_failure() {
    for policy in [OnFailure::Run, OnFailure::Replay, OnFailure::Refuse] {
        let (ledger, _) = fresh().await;
        let lead = || {
            tokio::spawn({
                let ledger = ledger.clone();
                async move {
                    once(&ledger, OnFailure::Run)
                        .max_attempts(NonZero::<u32>::MAX)
                        .run(|_| never())
                        .await
                }
            })
        };
        let mut waits = None;
        for attempt in 1..=2 {
            let leads = lead();
            let runs = || ledger.running_tasks().len() == 1;
            until(runs).await;
            if waits.is_none() {
                let mut hand = Hand::new(once(&ledger, policy).run(|_| ok(7)));
                assert!(hand.poll().is_pending());
                waits = Some(hand);
            }
            leads.abort();
            until(|| !runs()).await;
            let details = ledger.record("a").await.unwrap().unwrap();
            assert_eq!(details.attempt().get(), attempt);
            assert!(matches!(details.failure, Some(Failure::Cancelled(_))));
        }
        let claim = soon(waits.unwrap().finish()).await.unwrap();
        assert_eq!((claim.kind, claim.value), (ClaimKind::Executed, Some(7)));
        // They count for who comes after them.
        ledger.revoke_task_block(name("a"), async { Ok::<_, ()>(()) }).await.unwrap();
        let leads = lead();
        until(|| ledger.running_tasks().len() == 1).await;
        leads.abort();
        until(|| ledger.running_tasks().is_empty()).await;
        let task = ledger.task(name("a")).max_attempts(NonZero::<u32>::MIN);
        let told = task.run(|_| ok(8)).await;
        assert!(matches!(told, Err(RunError::GaveUp { attempts: 1 })), "{told:?}");
    }
}

/// Only those who were waiting are to take over: who comes when it is on record finds a failure like any other.
#[tokio::test]
async fn who_comes_after_somebody_has_left_heeds_its_policy() {
    let (ledger, _) = fresh().await;
    let leads = tokio::spawn({
        let ledger = ledger.clone();
        async move { once(&ledger, OnFailure::Run).run(|_| never()).await }
    });
    until(|| ledger.running_tasks().len() == 1).await;
    leads.abort();
    until(|| ledger.running_tasks().is_empty()).await;
    let late = ledger.task(name("a")).on_failure(OnFailure::Refuse).run(|_| ok(8)).await;
    assert!(matches!(late, Err(RunError::Refused { state: TaskState::Failed })), "{late:?}");
    let late = ledger.task(name("a")).on_failure(OnFailure::Replay).run(|_| ok(8)).await;
    let told = matches!(&late, Err(RunError::Told { failure: Failure::Cancelled(_), .. }));
    assert!(told, "{late:?}");
}

/// Who was left behind is spared that attempt, not what somebody else has failed with since.
#[tokio::test]
async fn who_was_left_behind_heeds_its_policy_when_another_one_has_failed() {
    let (ledger, _) = fresh().await;
    let leads = tokio::spawn({
        let ledger = ledger.clone();
        async move { once(&ledger, OnFailure::Run).run(|_| never()).await }
    });
    until(|| ledger.running_tasks().len() == 1).await;
    let task = ledger.task(name("a")).on_failure(OnFailure::Refuse);
    let mut waits = Hand::new(task.run(|_| ok(7)));
    assert!(waits.poll().is_pending());
    leads.abort();
    until(|| ledger.running_tasks().is_empty()).await;
    let other = ledger.run(name("a"), |_| async { Err::<u32, _>("no") }).await;
    assert!(matches!(other, Err(RunError::Failed("no"))), "{other:?}");
    let told = soon(waits.finish()).await;
    assert!(matches!(told, Err(RunError::Refused { state: TaskState::Failed })), "{told:?}");
}

/// A run slept out its pause when its scope had ended, and told whoever had joined meanwhile of a failure from
/// before its call.
#[tokio::test]
async fn a_scope_that_ends_in_a_pause_hands_over_at_once() {
    let (ledger, _) = fresh().await;
    let root = ledger.scope();
    let scope = root.clone();
    let leads = tokio::spawn(async move {
        let hours = Duration::from_secs(10_000);
        let retry = Retry::attempts(NonZero::new(3).unwrap()).min_delay(hours).max_delay(hours);
        scope.task(name("a")).retry(retry).run(|_| async { Err::<u32, _>("no") }).await
    });
    until(|| ledger.query_task_state_quick("a") == TaskState::Failed).await;
    let mut joins = Hand::new(ledger.run(name("a"), |_| ok(9)));
    assert!(joins.poll().is_pending(), "somebody is at it");
    soon(root.end()).await;
    let led = soon(leads).await.unwrap();
    assert!(matches!(led, Err(RunError::Failed("no"))), "{led:?}");
    let claim = soon(joins.finish()).await.unwrap();
    assert_eq!((claim.kind, claim.value), (ClaimKind::Executed, Some(9)));
}

/// A probe went on when the scope of its run had ended, and what it found was recorded.
#[tokio::test]
async fn a_scope_that_ends_while_a_probe_is_asked_ends_that() {
    let (ledger, _) = crashed("a").await;
    let root = ledger.scope();
    let scope = root.clone();
    let (asked, is_asked) = tokio::sync::oneshot::channel();
    let leads = tokio::spawn(async move {
        let probe = move |_| {
            asked.send(()).unwrap();
            std::future::pending::<Landed<u32>>()
        };
        scope.task(name("a")).probe(probe).run(|_| ok(1)).await
    });
    soon(is_asked).await.unwrap();
    soon(root.end()).await;
    let led = soon(leads).await.unwrap();
    assert!(matches!(led, Err(RunError::Rejected(Rejection::ScopeEnded))), "{led:?}");
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::Failed);
}

/// What a run has executed is its answer, though the id is another request's by now.
#[tokio::test]
async fn another_request_hides_no_failure_of_ones_own() {
    let (ledger, _) = fresh().await;
    let retry = || {
        let pause = Duration::from_millis(50);
        Retry::attempts(NonZero::new(3).unwrap()).min_delay(pause).max_delay(pause)
    };
    let task = ledger.task(name("a")).fingerprint("one").retry(retry());
    let mut leads = Hand::new(task.run(|_| async { Err::<u32, _>("mine") }));
    assert!(leads.poll().is_pending());
    until(|| ledger.query_task_state_quick("a") == TaskState::Failed).await;
    ledger.forget("a").await.unwrap();
    let other = ledger.task(name("a")).fingerprint("two").run(|_| ok(2)).await.unwrap();
    assert_eq!(other.value, Some(2));
    let led = soon(leads.finish()).await;
    assert!(matches!(led, Err(RunError::Failed("mine"))), "{led:?}");
}
