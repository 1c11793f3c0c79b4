//! What happens between two attempts of a run. The pauses here last an hour: nothing but what a test does
//! ends them.

use crate::support::{Gate, Hand, Hooked, Tasks, Then, fresh, name, ok, open, soon, until};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use taskledger::{
    ChangeError, Claim, ClaimKind, Context, Failure, MemoryJournal, OnFailure, Retry, RunError,
    TaskState, Verdict,
};
use tokio::task::JoinHandle;

const HOUR: Duration = Duration::from_secs(3600);

fn patient<E>() -> Retry<E> {
    Retry::attempts(NonZero::new(4).unwrap()).min_delay(HOUR).max_delay(HOUR)
}

type Answer = Result<Claim<u32>, RunError<u32, String>>;

/// A run of "a" that fails at its first attempt only, and how often it was called.
fn failing_once(ledger: &Tasks) -> (JoinHandle<Answer>, Arc<AtomicU32>) {
    let (ledger, calls) = (ledger.clone(), Arc::new(AtomicU32::new(0)));
    let counts = Arc::clone(&calls);
    let work = move |_: Context<String>| {
        let call = counts.fetch_add(1, Ordering::SeqCst);
        async move { if call == 0 { Err(name("busy")) } else { Ok(call) } }
    };
    let run = async move { ledger.task(name("a")).retry(patient()).run(work).await };
    (tokio::spawn(run), calls)
}

async fn paused() -> (Tasks, JoinHandle<Answer>, Arc<AtomicU32>) {
    let (ledger, _) = fresh().await;
    let (run, calls) = failing_once(&ledger);
    until(|| ledger.query_task_state_quick("a") == TaskState::Failed).await;
    (ledger, run, calls)
}

fn is_busy(answer: &Answer) -> bool {
    matches!(answer, Err(RunError::Failed(error)) if error == "busy")
}

/// A cancel found nothing to cancel, and all attempts ran.
#[tokio::test]
async fn a_cancel_ends_the_run() {
    let (ledger, run, calls) = paused().await;
    let mut joiner = Hand::new(ledger.run(name("a"), |_| ok(9)));
    assert!(joiner.poll().is_pending(), "somebody is at it");
    ledger.cancel("a", "not needed").unwrap();
    let answer = soon(run).await.unwrap();
    assert!(matches!(&answer, Err(RunError::Cancelled(why)) if why == "not needed"), "{answer:?}");
    let told = soon(joiner.finish()).await;
    let why = Failure::Cancelled("not needed".into());
    assert!(matches!(&told, Err(RunError::Told { failure, .. }) if *failure == why), "{told:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    // How the attempt ended stays on record, and nothing is at the id any more.
    let failure = ledger.record("a").await.unwrap().unwrap().failure;
    assert_eq!(failure, Some(Failure::Error("\"busy\"".into())));
    assert!(ledger.cancel("a", "again").is_err());
    assert_eq!(ledger.run(name("a"), |_| ok(9)).await.unwrap().kind, ClaimKind::Executed);
}

/// A cancel while the failure was being recorded was taken, and did nothing.
#[tokio::test]
async fn a_cancel_that_comes_with_the_failure_ends_the_run() {
    let (journal, gate) = (MemoryJournal::new(), Gate::default());
    // The open's, the start's, the end's.
    let ledger = open(Hooked::at_append(&journal, 2, Then::Wait(gate.clone()))).await;
    let (run, calls) = failing_once(&ledger);
    gate.somebody_waits().await;
    ledger.cancel("a", "not needed").unwrap();
    gate.open();
    let answer = soon(run).await.unwrap();
    assert!(matches!(&answer, Err(RunError::Cancelled(why)) if why == "not needed"), "{answer:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// The verdict that it had failed was recorded, and the next attempt ran all the same.
#[tokio::test]
async fn a_verdict_is_respected() {
    let (ledger, run, calls) = paused().await;
    ledger.resolve("a", Verdict::Failed, "leave it").await.unwrap();
    let answer = soon(run).await.unwrap();
    assert!(is_busy(&answer), "{answer:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let failure = ledger.record("a").await.unwrap().unwrap().failure;
    assert_eq!(failure, Some(Failure::Resolved("leave it".into())));

    let (ledger, run, calls) = paused().await;
    ledger.resolve("a", Verdict::Succeeded, "seen").await.unwrap();
    let claim = soon(run).await.unwrap().unwrap();
    assert_eq!((claim.kind, claim.value), (ClaimKind::Replayed, None));
    assert_eq!(calls.load(Ordering::SeqCst), 1);

    // It need not wait any longer.
    let (ledger, run, calls) = paused().await;
    ledger.resolve("a", Verdict::Retry, "mended").await.unwrap();
    let claim = soon(run).await.unwrap().unwrap();
    assert_eq!((claim.kind, claim.value), (ClaimKind::Executed, Some(1)));
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

/// An id that was forgotten came to life again, with another effect key, when the pause was over.
#[tokio::test]
async fn what_others_do_is_respected() {
    let (ledger, run, calls) = paused().await;
    ledger.forget("a").await.unwrap();
    let answer = soon(run).await.unwrap();
    assert!(is_busy(&answer), "{answer:?}");
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::NotFound);
    assert_eq!(calls.load(Ordering::SeqCst), 1);

    let (ledger, run, calls) = paused().await;
    assert!(ledger.launch_block(name("a"), async { Err(name("other")) }).await.is_err());
    let answer = soon(run).await.unwrap();
    // It finds that attempt at work, and is told what came of it; or it finds that it has failed.
    let is_told = matches!(&answer, Err(RunError::Told { failure: Failure::Error(text), kind: ClaimKind::Joined }) if text == "\"other\"");
    assert!(is_told || is_busy(&answer), "{answer:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 1);

    // A pin says nothing of the failure: the pause goes on, and so does the run.
    let (ledger, run, calls) = paused().await;
    ledger.pin("a").await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!run.is_finished());
    ledger.resolve("a", Verdict::Retry, "mended").await.unwrap();
    assert_eq!(soon(run).await.unwrap().unwrap().value, Some(1));
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

/// A run in a pause outlived the close by all of it, and had forgotten its own error then.
#[tokio::test]
async fn a_close_ends_the_pause_and_hides_nothing() {
    let (ledger, run, calls) = paused().await;
    soon(ledger.close()).await.unwrap();
    let answer = soon(run).await.unwrap();
    assert!(is_busy(&answer), "{answer:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// A poisoned ledger said "nothing ran" of a run whose attempt had failed.
#[tokio::test]
async fn a_poison_ends_the_pause_and_hides_nothing() {
    let journal = MemoryJournal::new();
    let ledger = open(Hooked::at_append(&journal, 3, Then::Fail)).await;
    let (run, calls) = failing_once(&ledger);
    until(|| ledger.query_task_state_quick("a") == TaskState::Failed).await;
    let marked = ledger.mark_succeeded(name("b")).await;
    assert!(matches!(marked, Err(ChangeError::InDoubt(_))));
    let answer = soon(run).await.unwrap();
    assert!(is_busy(&answer), "{answer:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// A pause that is too long to be added to a clock ended the run as lost.
#[tokio::test]
async fn a_pause_may_be_as_long_as_there_are_numbers() {
    let (ledger, _) = fresh().await;
    let retry = Retry::attempts(NonZero::<u32>::MAX).min_delay(Duration::MAX);
    let retry = retry.max_delay(Duration::MAX);
    let task = ledger.task(name("a")).timeout(Duration::MAX).cancel_grace(Duration::MAX);
    let mut run = Hand::new(task.retry(retry).run(|_| async { Err::<u32, _>("busy") }));
    assert!(run.poll().is_pending());
    until(|| ledger.query_task_state_quick("a") == TaskState::Failed).await;
    ledger.cancel("a", "enough").unwrap();
    assert!(matches!(soon(run.finish()).await, Err(RunError::Cancelled(_))));
}

/// Also who leaves in a pause hands over to one of those that wait, and so does one whose runtime ends.
#[test]
fn who_goes_in_a_pause_hands_over() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    };
    for leaves in [true, false] {
        let (one, other) = (runtime(), runtime());
        let ledger = other.block_on(async { fresh().await.0 });
        let leads = ledger.clone();
        let mut one = Some(one);
        let leader = one.as_ref().unwrap().spawn(async move {
            let task = leads.task(name("a")).cancel_with_caller().retry(patient());
            task.run(|_| async { Err::<u32, _>("busy") }).await
        });
        other.block_on(async {
            until(|| ledger.query_task_state_quick("a") == TaskState::Failed).await;
            let task = ledger.task(name("a")).on_failure(OnFailure::Replay);
            let mut joiner = Hand::new(task.run(|_| ok(2)));
            assert!(joiner.poll().is_pending(), "somebody is at it");
            if leaves {
                leader.abort();
            } else {
                one.take().unwrap().shutdown_background();
            }
            let claim = soon(joiner.finish()).await.unwrap();
            assert_eq!((claim.kind, claim.value), (ClaimKind::Executed, Some(2)));
        });
    }
}
