//! Requests that come to an id of another one: nobody is given the other's answer, or its effect key.

use crate::support::{Hand, Tasks, fresh, name, never, ok, open, soon, until};
use std::num::NonZero;
use std::sync::Arc;
use taskledger::{Context, EffectKey, Landed, RunError, Task, TaskState, Verdict};
use tokio::sync::Notify;

fn paying<'a>(ledger: &'a Tasks, request: &str) -> Task<'a, String, u32> {
    ledger.task(name("a")).fingerprint(request)
}

fn is_other<T>(answer: &Result<T, RunError<u32, String>>) -> bool {
    matches!(answer, Err(RunError::OtherRequest { at: Some(_) }))
}

/// What the next process finds when this one dies in a request to pay 10; and the effect key of that.
async fn crashed() -> (Tasks, EffectKey) {
    let (ledger, journal) = fresh().await;
    let key = Arc::new(std::sync::Mutex::new(None));
    let told = Arc::clone(&key);
    let dies = tokio::spawn(async move {
        let work = move |cx: Context<String>| {
            *told.lock().unwrap() = Some(cx.effect_key());
            never()
        };
        paying(&ledger, "pay 10").run(work).await
    });
    until(|| key.lock().unwrap().is_some()).await;
    let next = open(journal.fork()).await;
    dies.abort();
    let key = key.lock().unwrap().take().unwrap();
    (next, key)
}

/// A released id took any request, which ran with the effect key of the one that was released; and that
/// one was refused from then on.
#[tokio::test]
async fn what_was_released_is_still_of_its_request() {
    let (ledger, key) = crashed().await;
    ledger.resolve("a", Verdict::Retry, "nothing was charged").await.unwrap();
    let other = paying(&ledger, "pay 11").run(|_| ok(11)).await;
    assert!(is_other(&other), "{other:?}");
    let own = paying(&ledger, "pay 10").run(move |cx: Context<String>| async move {
        if cx.effect_key() == key { Ok(10) } else { Err(name("another key")) }
    });
    assert_eq!(own.await.unwrap().value, Some(10));
}

#[tokio::test]
async fn what_was_given_up_and_released_is_still_of_its_request() {
    let (ledger, _) = fresh().await;
    let once = paying(&ledger, "pay 10").max_attempts(NonZero::<u32>::MIN);
    once.run(|_| async { Err::<u32, _>("no") }).await.unwrap_err();
    ledger.resolve("a", Verdict::Retry, "").await.unwrap();
    let other = paying(&ledger, "pay 11").run(|_| ok(11)).await;
    assert!(is_other(&other), "{other:?}");
    assert_eq!(paying(&ledger, "pay 10").run(|_| ok(10)).await.unwrap().value, Some(10));
}

/// Who joined a run without a fingerprint was compared with that alone, and was told what the request came
/// to that the run itself was waiting for. It is refused at once.
#[tokio::test]
async fn who_joins_somebody_who_waits_is_not_told_of_another_request() {
    let (ledger, _) = fresh().await;
    let (go, begun) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (gate, begins) = (Arc::clone(&go), Arc::clone(&begun));
    let work = move |_: Context<String>| {
        let (gate, begins) = (Arc::clone(&gate), Arc::clone(&begins));
        async move {
            begins.notify_one();
            gate.notified().await;
            ok(10).await
        }
    };
    let leader = tokio::spawn({
        let ledger = ledger.clone();
        async move { paying(&ledger, "pay 10").cancel_with_caller().run(work).await }
    });
    begun.notified().await;
    // It goes on in its grace, and whoever comes is at it now.
    leader.abort();
    drop(leader.await);
    let mut waits = Hand::new(ledger.run(name("a"), |_| ok(99)));
    assert!(waits.poll().is_pending());
    let other = soon(paying(&ledger, "pay 11").run(|_| ok(11))).await;
    assert!(is_other(&other), "{other:?}");
    // The same request may join.
    let mut same = Hand::new(paying(&ledger, "pay 10").run(|_| ok(98)));
    assert!(same.poll().is_pending());
    go.notify_one();
    assert_eq!(waits.finish().await.unwrap().value, Some(10));
    assert_eq!(soon(same.finish()).await.unwrap().value, Some(10));
}

/// Nor if that came only after it had joined.
#[tokio::test]
async fn who_has_joined_is_not_told_of_a_request_that_came_later() {
    let (ledger, _) = fresh().await;
    ledger.mark_succeeded(name("a")).await.unwrap();
    let (go, gate) = tokio::sync::oneshot::channel::<()>();
    // On a runtime of its own: the run here hears of nothing until all of it is over.
    let elsewhere = std::thread::spawn({
        let ledger = ledger.clone();
        move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let gate = async { gate.await.map(|()| 0).map_err(|error| error.to_string()) };
                ledger.revoke_task_block(name("a"), gate).await.unwrap();
                paying(&ledger, "pay 10").run(|_| ok(10)).await.map(|claim| claim.value)
            })
        }
    });
    until(|| ledger.query_task_state_quick("a") == TaskState::Revoking).await;
    let mut first = Hand::new(ledger.run(name("a"), |_| ok(99)));
    assert!(first.poll().is_pending());
    let mut joins = Hand::new(paying(&ledger, "pay 11").run(|_| ok(11)));
    assert!(joins.poll().is_pending());
    let mut other = Hand::new(ledger.run(name("a"), |_| ok(98)));
    assert!(other.poll().is_pending());
    go.send(()).unwrap();
    assert_eq!(elsewhere.join().unwrap().unwrap(), Some(10));
    assert_eq!(soon(first.finish()).await.unwrap().value, Some(10));
    assert_eq!(soon(other.finish()).await.unwrap().value, Some(10));
    let joins = soon(joins.finish()).await;
    assert!(is_other(&joins), "{joins:?}");
}

/// The same of a probe: who joined it was told that the other request had happened, or was held, or given
/// up for it. It is refused at once.
#[tokio::test]
async fn who_joins_a_probe_is_not_told_of_another_request() {
    type Ask = fn(Task<'_, String, u32>) -> Task<'_, String, u32>;
    let asks: [(Landed<u32>, Ask); 3] = [
        (Landed::Yes(Some(10)), |task| task),
        (Landed::No, |task| task.max_attempts(NonZero::<u32>::MIN)),
        (Landed::Unknown, |task| task),
    ];
    for (found, ask) in asks {
        let (ledger, _) = crashed().await;
        let (go, asked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (gate, tells, finds) = (Arc::clone(&go), Arc::clone(&asked), found.clone());
        let first = tokio::spawn({
            let ledger = ledger.clone();
            async move {
                let task = ask(ledger.task(name("a"))).probe(move |_| async move {
                    tells.notify_one();
                    gate.notified().await;
                    finds
                });
                task.run(|_| ok(99)).await
            }
        });
        asked.notified().await;
        let joins = paying(&ledger, "pay 11").probe(|_| async { Landed::Unknown });
        let joins = soon(joins.run(|_| ok(11))).await;
        assert!(is_other(&joins), "{found:?}: {joins:?}");
        go.notify_one();
        drop(soon(first).await.unwrap());
    }
}

/// A call without a fingerprint erased the stored one, and then another request ran with the same effect key.
#[tokio::test]
async fn who_asks_without_a_fingerprint_changes_nothing_of_whose_it_is() {
    let (ledger, journal) = fresh().await;
    let fails = || async { Err::<u32, _>(name("no")) };
    paying(&ledger, "pay 10").run(move |_| fails()).await.unwrap_err();
    let other = |ledger: Tasks| async move {
        let other = paying(&ledger, "pay 11").run(|_| ok(11)).await;
        assert!(is_other(&other), "{other:?}");
    };
    ledger.run(name("a"), move |_| fails()).await.unwrap_err();
    other(ledger.clone()).await;
    ledger.launch_block(name("a"), fails()).await.unwrap_err();
    other(ledger.clone()).await;
    // By what was replayed, by a checkpoint, and by both.
    let ledger = open(journal.fork()).await;
    other(ledger.clone()).await;
    ledger.launch_block(name("a"), fails()).await.unwrap_err();
    other(ledger.clone()).await;
    ledger.checkpoint().await.unwrap();
    other(ledger.clone()).await;
    ledger.launch_block(name("a"), fails()).await.unwrap_err();
    other(ledger.clone()).await;
    // Also who comes while one runs that has none.
    let (end, ends) = tokio::sync::oneshot::channel::<()>();
    let mut ends = Some(ends);
    let work = move |_| {
        let ends = ends.take();
        async move { if ends.unwrap().await.is_ok() { ok(10).await } else { never().await } }
    };
    let mut runs = Hand::new(ledger.run(name("a"), work));
    assert!(runs.poll().is_pending());
    other(ledger.clone()).await;
    until(|| ledger.query_task_state_quick("a") == TaskState::Running).await;
    other(ledger.clone()).await;
    end.send(()).unwrap();
    assert_eq!(soon(runs.finish()).await.unwrap().value, Some(10));
    other(ledger.clone()).await;
    // As long as the effect key.
    ledger.revoke_task_block(name("a"), async { Ok::<_, ()>(()) }).await.unwrap();
    assert_eq!(paying(&ledger, "pay 11").run(|_| ok(11)).await.unwrap().value, Some(11));
}
