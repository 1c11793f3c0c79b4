//! Attempts that are asked to stop, and end in some other way within their grace.

use crate::support::{Bomb, Tasks, fresh, name, never, ok, soon, until};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use taskledger::{ClaimKind, Context, Failure, OnFailure, Retry, RunError, Task, TaskState};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Within the grace of the attempts here, which is the default of 5 s.
const SOON: Duration = Duration::from_millis(100);

type Asked<'a> = Task<'a, String, u32>;
type Limit = fn(Asked<'_>) -> Asked<'_>;

/// What ends an attempt within its grace, and whether it panics when it is told.
const ENDS: [(&str, Limit, bool); 3] = [
    ("its timeout", |task| task.timeout(SOON), false),
    ("its deadline", |task| task.deadline(Instant::now() + SOON), false),
    ("a panic", |task| task, true),
];

/// Work that does not end by itself, though it may panic when it is asked to stop.
fn deaf(
    begun: &Arc<Notify>,
    panics: bool,
) -> impl FnMut(Context<String>) -> Deaf + Send + 'static + use<> {
    let begun = Arc::clone(begun);
    move |cx| {
        let begun = Arc::clone(&begun);
        Box::pin(async move {
            begun.notify_one();
            if panics {
                cx.cancellation().cancelled().await;
                panic!("asked to stop");
            }
            never().await
        })
    }
}

type Deaf = std::pin::Pin<Box<dyn Future<Output = Result<u32, String>> + Send>>;

fn again<E>() -> Retry<E> {
    Retry::attempts(NonZero::new(3).unwrap()).min_delay(Duration::from_millis(1))
}

async fn failure(ledger: &Tasks, id: &str) -> Option<Failure> {
    ledger.record(id).await.unwrap().and_then(|details| details.failure)
}

/// A caller left, its attempt met its timeout, its deadline or a panic within its grace, and everybody who
/// waited was told of that as a failure: nobody took over. With a retry somebody did, but counted the
/// attempt as one of its own.
#[tokio::test]
async fn who_waited_takes_over_however_the_attempt_of_the_one_who_left_ends() {
    let one = NonZero::<u32>::MIN;
    for (what, limited, panics) in ENDS {
        for retries in [false, true] {
            let (ledger, _) = fresh().await;
            let begun = Arc::new(Notify::new());
            let leader = tokio::spawn({
                let (ledger, work) = (ledger.clone(), deaf(&begun, panics));
                async move {
                    let task = limited(ledger.task(name("a")).cancel_with_caller());
                    match retries {
                        true => task.retry(again()).run(work).await,
                        false => task.run(work).await,
                    }
                }
            });
            begun.notified().await;
            let calls = Arc::new(AtomicU32::new(0));
            let mut joiners = JoinSet::new();
            for policy in [OnFailure::Run, OnFailure::Replay, OnFailure::Refuse] {
                let (ledger, calls) = (ledger.clone(), Arc::clone(&calls));
                let work = move |_: Context<String>| {
                    calls.fetch_add(1, Ordering::SeqCst);
                    ok(2)
                };
                joiners.spawn(async move {
                    let task = ledger.task(name("a")).on_failure(policy).max_attempts(one);
                    task.run(work).await
                });
            }
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            leader.abort();
            for told in soon(joiners.join_all()).await {
                assert_eq!(told.unwrap().value, Some(2), "{what}, retries: {retries}");
            }
            assert_eq!(calls.load(Ordering::SeqCst), 1, "{what}: exactly one takes over");
        }
    }
}

/// It was recorded as timed out, or as panicked, and the reason of the cancel was nowhere; with a retry the
/// record and the answer told different things.
#[tokio::test]
async fn the_reason_of_a_cancel_is_recorded_however_the_attempt_ends() {
    let why = Failure::Cancelled("not needed".into());
    for (what, limited, panics) in ENDS {
        for retries in [false, true] {
            let (ledger, _) = fresh().await;
            let begun = Arc::new(Notify::new());
            let work = deaf(&begun, panics);
            let run = async {
                let task = limited(ledger.task(name("a")));
                match retries {
                    true => task.retry(again()).run(work).await,
                    false => task.run(work).await,
                }
            };
            let cancel = async {
                begun.notified().await;
                ledger.cancel("a", "not needed").unwrap();
            };
            let (answer, ()) = soon(async { tokio::join!(run, cancel) }).await;
            assert!(
                matches!(&answer, Err(RunError::Cancelled(reason)) if reason == "not needed"),
                "{what}: {answer:?}"
            );
            assert_eq!(failure(&ledger, "a").await, Some(why.clone()), "{what}");
            assert_eq!(ledger.record("a").await.unwrap().unwrap().attempt().get(), 1, "{what}");
        }
    }
}

/// A value that it returns within its grace is one, as it always was.
#[tokio::test]
async fn a_success_within_the_grace_is_a_success() {
    let (ledger, _) = fresh().await;
    let begun = Arc::new(Notify::new());
    let begins = Arc::clone(&begun);
    let work = move |cx: Context<String>| {
        let begins = Arc::clone(&begins);
        async move {
            begins.notify_one();
            cx.cancellation().cancelled().await;
            ok(7).await
        }
    };
    let cancel = async {
        begun.notified().await;
        ledger.cancel("a", "not needed").unwrap();
    };
    let (claim, ()) = soon(async { tokio::join!(ledger.run(name("a"), work), cancel) }).await;
    let claim = claim.unwrap();
    assert_eq!((claim.kind, claim.value), (ClaimKind::Executed, Some(7)));
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::Succeeded);
}

/// Its error is nobody's then, and may panic when it is dropped: the attempt was recorded as dropped by its
/// runtime.
#[tokio::test]
async fn an_error_within_the_grace_that_panics_when_dropped_costs_no_reason() {
    let (ledger, _) = fresh().await;
    let begun = Arc::new(Notify::new());
    let begins = Arc::clone(&begun);
    let work = move |cx: Context<String>| {
        let begins = Arc::clone(&begins);
        async move {
            begins.notify_one();
            cx.cancellation().cancelled().await;
            Err::<u32, _>(Bomb)
        }
    };
    let cancel = async {
        begun.notified().await;
        ledger.cancel("a", "not needed").unwrap();
    };
    let (answer, ()) = soon(async { tokio::join!(ledger.run(name("a"), work), cancel) }).await;
    assert!(matches!(answer, Err(RunError::Cancelled(why)) if why == "not needed"));
    let why = Failure::Cancelled("not needed".into());
    assert_eq!(failure(&ledger, "a").await, Some(why));
}

/// What an attempt has spawned and given its token heard nothing of a timeout, and nothing of a cancel
/// without a grace.
#[tokio::test]
async fn the_token_tells_helpers_of_every_stop() {
    for (what, cancels) in [("a timeout", false), ("a cancel without a grace", true)] {
        let (ledger, _) = fresh().await;
        let (begun, told) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let (begins, tells) = (Arc::clone(&begun), Arc::clone(&told));
        let work = move |cx: Context<String>| {
            let (begins, tells) = (Arc::clone(&begins), Arc::clone(&tells));
            async move {
                let token = cx.cancellation().clone();
                tokio::spawn(async move {
                    token.cancelled().await;
                    tells.store(true, Ordering::SeqCst);
                });
                begins.notify_one();
                never().await
            }
        };
        let task = ledger.task(name("a")).cancel_grace(Duration::ZERO);
        let task = if cancels { task } else { task.timeout(SOON) };
        let cancel = async {
            begun.notified().await;
            if cancels {
                ledger.cancel("a", "enough").unwrap();
            }
        };
        let (answer, ()) = soon(async { tokio::join!(task.run(work), cancel) }).await;
        assert!(answer.is_err(), "{what}");
        soon(until(|| told.load(Ordering::SeqCst))).await;
    }
}

/// A run within a scope ended with that, and who waited for it from elsewhere was told of a failure that was
/// none of its request.
#[tokio::test]
async fn who_waits_takes_over_from_a_run_whose_scope_has_ended_or_whose_handle_was_dropped() {
    for scoped in [true, false] {
        let (ledger, _) = fresh().await;
        let root = ledger.scope();
        let begun = Arc::new(Notify::new());
        let handle = if scoped {
            let (scope, work) = (root.clone(), deaf(&begun, false));
            tokio::spawn(async move { drop(scope.task(name("x")).run(work).await) });
            None
        } else {
            let begun = Arc::clone(&begun);
            let work = async move {
                begun.notify_one();
                never().await
            };
            Some(ledger.task(name("x")).spawn(work).await.unwrap())
        };
        begun.notified().await;
        let waiting = {
            let ledger = ledger.clone();
            tokio::spawn(async move { ledger.run(name("x"), |_| ok(7)).await })
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(handle);
        root.end().await;
        let claim = soon(waiting).await.unwrap().unwrap();
        assert_eq!((claim.kind, claim.value), (ClaimKind::Executed, Some(7)), "{scoped}");
    }
}

/// The same words, said by somebody who cancels, made a cancel look like a caller that left.
#[tokio::test]
async fn a_cancel_is_one_whatever_its_reason_says() {
    let (ledger, _) = fresh().await;
    let begun = Arc::new(Notify::new());
    let run = |ledger: Tasks, begun: &Arc<Notify>| {
        let work = deaf(begun, false);
        tokio::spawn(async move { ledger.task(name("x")).cancel_grace(SOON).run(work).await })
    };
    let leader = run(ledger.clone(), &begun);
    begun.notified().await;
    let other = run(ledger.clone(), &begun);
    tokio::time::sleep(Duration::from_millis(20)).await;
    ledger.cancel("x", "its caller was dropped").unwrap();
    let told = soon(other).await.unwrap();
    assert!(matches!(told, Err(RunError::Told { .. } | RunError::Cancelled(_))), "{told:?}");
    assert!(matches!(soon(leader).await.unwrap(), Err(RunError::Cancelled(_))));
    let expected = Failure::Cancelled("cancelled: its caller was dropped".to_owned());
    assert_eq!(failure(&ledger, "x").await, Some(expected));
}
