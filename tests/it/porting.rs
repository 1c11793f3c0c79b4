//! Every fault that was reproduced in the crates this one replaces, told again with this ledger.
//!
//! `a..` are those of async_tasks_recorder 2.0.2, which kept one task's state in five sets; `b..`
//! those of async_tasks_state_map 1.0.1, which had one cell per id and neither guards nor tokens.

use crate::support::{Gate, Hand, Hooked, Tasks, Then, fresh, name, never, ok, open, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use taskledger::{
    Attempt, AttemptError, ChangeError, Failure, LaunchError, MemoryJournal, Rejection, SuccessBy,
    TaskState,
};
use tokio::sync::oneshot;

async fn failure(ledger: &Tasks, id: &str) -> Failure {
    ledger.record(id).await.unwrap().unwrap().failure.unwrap()
}

/// A launch of a succeeded id was refused with the id left in the working set: from then on it
/// was working for ever, could not be launched, and was dead even after a revoke.
#[tokio::test]
async fn a1_a_refused_launch_of_a_success_changes_nothing() {
    let (ledger, journal) = fresh().await;
    assert_eq!(ledger.launch_block(name("a"), ok(1)).await.unwrap(), 1);
    let records = journal.records();
    for _ in 0..3 {
        let refused = ledger.launch(name("a"), ok(2)).await;
        assert!(matches!(refused, Err(LaunchError::Refused { state: TaskState::Succeeded, .. })));
        let refused = ledger.launch_block(name("a"), ok(2)).await;
        assert!(matches!(refused, Err(AttemptError::Refused { state: TaskState::Succeeded, .. })));
        assert_eq!(ledger.query_task_state("a").await, TaskState::Succeeded);
        assert_eq!(ledger.query_task_state_quick("a"), TaskState::Succeeded);
    }
    assert_eq!(journal.records(), records, "a refusal is not recorded");
    ledger.revoke_task_block(name("a"), ok(0)).await.unwrap();
    assert_eq!(ledger.query_task_state("a").await, TaskState::NotFound);
    assert_eq!(ledger.launch_block(name("a"), ok(3)).await.unwrap(), 3);
}

/// A revoke of an unknown id left it in the revoking set, so that it could never be revoked.
#[tokio::test]
async fn a2_a_refused_revoke_changes_nothing() {
    let (ledger, _) = fresh().await;
    let refused = ledger.revoke_task_block(name("a"), ok(0)).await;
    assert!(matches!(refused, Err(AttemptError::Refused { state: TaskState::NotFound, .. })));
    for round in 0..2 {
        assert_eq!(ledger.launch_block(name("a"), ok(round)).await.unwrap(), round);
        assert_eq!(ledger.revoke_task_block(name("a"), ok(9)).await.unwrap(), 9);
        let late = ledger.revoke_task_block(name("a"), ok(9)).await;
        assert!(matches!(late, Err(AttemptError::Refused { state: TaskState::NotFound, .. })));
    }
}

async fn panics() -> Result<u32, String> {
    panic!("boom")
}

/// A panic in the future left the id working for ever; a panic in a revoke made it unrevokable.
/// B1 and B2 are the same in the other crate.
#[tokio::test]
async fn a3_b1_b2_a_panic_is_an_end_like_any_other() {
    let (ledger, _) = fresh().await;
    ledger.launch(name("a"), panics()).await.unwrap();
    assert_eq!(ledger.wait("a").await.unwrap(), TaskState::Failed);
    assert_eq!(failure(&ledger, "a").await, Failure::Panicked("boom".into()));
    let end = ledger.launch_block(name("a"), panics()).await;
    assert!(matches!(end, Err(AttemptError::Panicked(text)) if text == "boom"));
    assert_eq!(ledger.launch_block(name("a"), ok(1)).await.unwrap(), 1);

    ledger.revoke_task(name("a"), panics()).await.unwrap();
    assert_eq!(ledger.wait("a").await.unwrap(), TaskState::Succeeded);
    let end = ledger.revoke_task_block(name("a"), panics()).await;
    assert!(matches!(end, Err(AttemptError::Panicked(text)) if text == "boom"));
    let record = ledger.record("a").await.unwrap().unwrap();
    assert_eq!(record.revoke_failure, Some(Failure::Panicked("boom".into())));
    assert_eq!(ledger.output("a").await.unwrap(), Some(1), "the success stands as it was");
    ledger.revoke_task_block(name("a"), ok(0)).await.unwrap();
}

/// The future ran inside the caller, so a timeout or a client that went away left the id working
/// or revoking for ever. B3 is the same in the other crate.
#[tokio::test]
async fn a4_b3_a_caller_that_goes_away_stops_nothing() {
    let (ledger, _) = fresh().await;
    let (go, wait) = oneshot::channel::<()>();
    let mut caller = Hand::new(ledger.launch_block(name("a"), async {
        wait.await.map(|()| 7).map_err(|error| error.to_string())
    }));
    assert!(caller.poll().is_pending());
    until(|| ledger.query_task_state_quick("a") == TaskState::Running).await;
    drop(caller);
    go.send(()).unwrap();
    assert_eq!(ledger.wait("a").await.unwrap(), TaskState::Succeeded);
    assert_eq!(ledger.output("a").await.unwrap(), Some(7));

    let (go, wait) = oneshot::channel::<()>();
    let mut caller = Hand::new(
        ledger
            .revoke_task_block(name("a"), async { wait.await.map_err(|error| error.to_string()) }),
    );
    assert!(caller.poll().is_pending());
    until(|| ledger.query_task_state_quick("a") == TaskState::Revoking).await;
    drop(caller);
    go.send(()).unwrap();
    assert_eq!(ledger.wait("a").await.unwrap(), TaskState::NotFound);
}

/// A launch dropped at its second await had already put the id into the working set, and never
/// spawned the future.
#[tokio::test]
async fn a5_a_launch_dropped_while_it_waits_goes_on() {
    let journal = MemoryJournal::new();
    let gate = Gate::default();
    let ledger = open(Hooked::at_append(&journal, 1, Then::Wait(gate.clone()))).await;
    let mut launch = Hand::new(ledger.launch(name("a"), ok(5)));
    assert!(launch.poll().is_pending());
    gate.somebody_waits().await;
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::NotFound, "not durable yet");
    drop(launch);
    gate.open();
    until(|| ledger.query_task_state_quick("a") == TaskState::Succeeded).await;
    assert_eq!(ledger.output("a").await.unwrap(), Some(5));
}

/// A recorder kept past the end of its runtime answered working for ever. B4 is the same.
#[test]
fn a6_b4_a_runtime_that_ends_ends_its_attempts() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let ledger = first.block_on(async {
        let (ledger, _) = fresh().await;
        ledger.mark_succeeded(name("revoked")).await.unwrap();
        ledger.launch(name("a"), never()).await.unwrap();
        ledger.revoke_task(name("revoked"), never()).await.unwrap();
        ledger
    });
    first.shutdown_background();
    second.block_on(async {
        assert_eq!(ledger.wait("a").await.unwrap(), TaskState::Failed);
        assert!(matches!(failure(&ledger, "a").await, Failure::Cancelled(_)));
        assert_eq!(ledger.wait("revoked").await.unwrap(), TaskState::Succeeded);
        assert_eq!(ledger.launch_block(name("a"), ok(2)).await.unwrap(), 2);
        ledger.revoke_task_block(name("revoked"), ok(0)).await.unwrap();
        ledger.close().await.unwrap();
    });
}

/// A launch outside a runtime panicked after it had changed the sets. B4 is the same.
#[test]
fn a7_b4_a_launch_without_a_runtime_is_rejected_and_changes_nothing() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (ledger, journal) = runtime.block_on(fresh());
    let records = journal.records();
    let std::task::Poll::Ready(Err(error)) = Hand::new(ledger.launch(name("a"), ok(3))).poll()
    else {
        panic!("launched on nothing");
    };
    assert!(matches!(error, LaunchError::Rejected { reason: Rejection::NoRuntime, .. }));
    assert_eq!(journal.records(), records);
    let future = error.into_future().unwrap();
    assert_eq!(runtime.block_on(ledger.launch_block(name("a"), future)).unwrap(), 3);
}

/// A launch between two steps of a revoke returned Ok and its success was lost: not found, and
/// dead afterwards. Here launch and revoke are judged one after the other, in either order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a8_a_launch_racing_a_revoke_is_refused_or_kept() {
    let (ledger, _) = fresh().await;
    for round in 0..300_u32 {
        let id = format!("{round}");
        ledger.mark_succeeded(id.clone()).await.unwrap();
        let revoke = tokio::spawn({
            let (ledger, id) = (ledger.clone(), id.clone());
            async move { ledger.revoke_task_block(id, ok(0)).await.is_ok() }
        });
        let launched = loop {
            match ledger.launch(id.clone(), ok(round)).await {
                Ok(()) => break ledger.query_task_state_quick(&id),
                Err(LaunchError::Refused { .. }) => tokio::task::yield_now().await,
                Err(other) => panic!("{other:?}"),
            }
        };
        assert!(revoke.await.unwrap());
        assert!(matches!(launched, TaskState::Running | TaskState::Succeeded), "{launched}");
        assert_eq!(ledger.wait(&id).await.unwrap(), TaskState::Succeeded);
        assert_eq!(ledger.output(&id).await.unwrap(), Some(round));
    }
}

/// Between two steps of a revoke the query said not found, and the launch was refused as
/// succeeded. Here both read the one cell, which changes when the end is durable.
#[tokio::test]
async fn a9_query_and_launch_agree_throughout_a_revoke() {
    let journal = MemoryJournal::new();
    let gate = Gate::default();
    // 1 marks, 2 begins the revoke, 3 ends it.
    let ledger = open(Hooked::at_append(&journal, 3, Then::Wait(gate.clone()))).await;
    ledger.mark_succeeded(name("a")).await.unwrap();
    ledger.revoke_task(name("a"), ok(0)).await.unwrap();
    gate.somebody_waits().await;
    assert_eq!(ledger.query_task_state("a").await, TaskState::Revoking);
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::Revoking);
    let refused = ledger.launch(name("a"), ok(1)).await;
    assert!(matches!(refused, Err(LaunchError::Refused { state: TaskState::Revoking, .. })));
    gate.open();
    until(|| ledger.query_task_state_quick("a") == TaskState::NotFound).await;
    assert_eq!(ledger.launch_block(name("a"), ok(1)).await.unwrap(), 1);
}

/// The quick query said success before the full one did: who mixed them saw time go backwards,
/// and an id in two sets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a10_both_queries_and_the_views_tell_one_story() {
    let (ledger, _) = fresh().await;
    for round in 0..200_u32 {
        let id = format!("{round}");
        let launched = tokio::spawn({
            let (ledger, id) = (ledger.clone(), id.clone());
            async move { ledger.launch_block(id, ok(round)).await }
        });
        let order = |state| match state {
            TaskState::NotFound => 0,
            TaskState::Running => 1,
            TaskState::Succeeded => 2,
            other => panic!("{other}"),
        };
        let mut last = 0;
        for turn in 0.. {
            assert!(turn < 3_000_000, "it never ends");
            let quick = order(ledger.query_task_state_quick(&id));
            let full = order(ledger.query_task_state(&id).await);
            let succeeded = ledger.succeeded_tasks().contains(&id);
            let running = ledger.running_tasks().contains(&id);
            assert!(last <= quick && quick <= full, "{last}, {quick}, {full}");
            assert!(full < 2 || succeeded);
            assert!(!(succeeded && running), "in two sets at once");
            last = full;
            if last == 2 {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(launched.await.unwrap().unwrap(), round);
    }
}

/// The quick query called every unknown id working.
#[tokio::test]
async fn a11_an_unknown_id_is_not_found_by_either_query() {
    let (ledger, _) = fresh().await;
    assert_eq!(ledger.query_task_state_quick("never seen"), TaskState::NotFound);
    assert_eq!(ledger.query_task_state("never seen").await, TaskState::NotFound);
    assert_eq!(ledger.wait("never seen").await.unwrap(), TaskState::NotFound);
    assert_eq!(ledger.record("never seen").await.unwrap(), None);
    assert_eq!(ledger.output("never seen").await.unwrap(), None);
}

/// Neither crate kept a result, an error's text, a time or a count, nor let anybody wait.
#[tokio::test]
async fn what_neither_could_tell() {
    let (ledger, _) = fresh().await;
    let failed = ledger.launch_block(name("a"), async { Err::<u32, _>("no paper") }).await;
    assert!(matches!(failed, Err(AttemptError::Failed("no paper"))));
    let record = ledger.record("a").await.unwrap().unwrap();
    assert_eq!(record.failure, Some(Failure::Error("\"no paper\"".into())));
    let (go, wait) = oneshot::channel::<()>();
    let waiting = wait.await_ok();
    ledger.launch(name("a"), waiting).await.unwrap();
    let mut waiters: Vec<_> = (0..50).map(|_| Hand::new(ledger.wait("a"))).collect();
    assert!(waiters.iter_mut().all(|waiter| waiter.poll().is_pending()));
    go.send(()).unwrap();
    for waiter in waiters {
        assert_eq!(waiter.finish().await.unwrap(), TaskState::Succeeded);
    }
    let record = ledger.record("a").await.unwrap().unwrap();
    assert_eq!((record.attempt(), record.failure), (Attempt::new(2), None));
    assert_eq!(record.succeeded_by, Some(SuccessBy::Attempt));
    assert!(record.started_at.unwrap() <= record.ended_at.unwrap());
    assert_eq!(record.epoch, Some(ledger.recovery().epoch()));
}

trait AwaitOk {
    fn await_ok(self) -> impl Future<Output = Result<u32, String>> + Send + 'static;
}

impl AwaitOk for oneshot::Receiver<()> {
    async fn await_ok(self) -> Result<u32, String> {
        self.await.map(|()| 7).map_err(|error| error.to_string())
    }
}

/// Forcing an id to not found while it ran made the library panic when the run ended, and its
/// outcome was lost. Nothing here takes an id away from who runs.
#[tokio::test]
async fn b5_what_runs_cannot_be_taken_away() {
    let (ledger, _) = fresh().await;
    let (go, wait) = oneshot::channel::<()>();
    ledger.launch(name("a"), wait.await_ok()).await.unwrap();
    let refused = ChangeError::Refused { state: TaskState::Running };
    assert_eq!(ledger.forget("a").await, Err(refused.clone()));
    assert_eq!(ledger.mark_succeeded(name("a")).await, Err(refused));
    let revoke = ledger.revoke_task(name("a"), ok(0)).await;
    assert!(matches!(revoke, Err(LaunchError::Refused { state: TaskState::Running, .. })));
    go.send(()).unwrap();
    assert_eq!(ledger.wait("a").await.unwrap(), TaskState::Succeeded);
    assert_eq!(ledger.superseded(), 0);
}

/// A first run that was declared dead ended later, and overwrote the state of the second, which
/// ran beside it. Here an id is free only when the first one's future is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b6_no_two_runs_of_an_id_and_no_stale_end() {
    struct Inside(Arc<AtomicUsize>);
    impl Drop for Inside {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let (ledger, journal) = fresh().await;
    let inside = Arc::new(AtomicUsize::new(0));
    for round in 0..50_u32 {
        let attempt = {
            let inside = Arc::clone(&inside);
            async move {
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                let _inside = Inside(inside);
                never().await
            }
        };
        ledger.launch(name("a"), attempt).await.unwrap();
        ledger.cancel("a", format!("round {round}")).unwrap();
        // The next round's launch is accepted as soon as this one's end is durable.
        let state = ledger.wait("a").await.unwrap();
        assert_eq!(state, TaskState::Failed);
        let record = ledger.record("a").await.unwrap().unwrap();
        assert_eq!(record.failure, Some(Failure::Cancelled(format!("round {round}"))));
        assert_eq!(record.attempt(), Attempt::new(round + 1));
    }
    assert_eq!(ledger.launch_block(name("a"), ok(1)).await.unwrap(), 1);
    assert_eq!(journal.records().len(), 1 + 2 * 51);
}

/// An id could be forced to working with nobody at work on it. The only such ids here are those
/// of a process that died, and the next open says so.
#[tokio::test]
async fn b7_nothing_runs_without_anybody_running_it() {
    let (ledger, journal) = fresh().await;
    ledger.launch(name("a"), never()).await.unwrap();
    let left_by_a_crash = journal.fork();
    let reopened = open(left_by_a_crash).await;
    assert_eq!(reopened.query_task_state_quick("a"), TaskState::Failed);
    assert_eq!(failure(&reopened, "a").await, Failure::Crashed);
    assert_eq!(reopened.running_tasks().len(), 0);
    assert_eq!(reopened.launch_block(name("a"), ok(1)).await.unwrap(), 1);
}
