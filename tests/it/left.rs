//! Callers that leave one after the other, and take their attempts with them: those do not count for whoever has
//! waited for them. They did, when it was not the same one who had heard of each: two callers that were
//! dropped used up the `max_attempts` of everybody else, who were told that the id was given up, and so it was
//! recorded.

use crate::support::{Hand, Tasks, fresh, name, never, ok, soon, until};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use taskledger::{Claim, ClaimKind, Failure, OnFailure, RunError, Task};

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
