//! The total answer: one execution, everybody's answer, whatever happens to its callers.

use crate::support::{
    Gate, Hand, Hooked, Tasks, Then, crashed, fresh, name, never, ok, open, until,
};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use taskledger::{
    ChangeError, Claim, ClaimKind, Context, EffectKey, Failure, Landed, Ledger, MemoryJournal,
    NotKept, OnCrash, OnFailure, Output, Rejection, Retry, RunError, SuccessBy, TaskState, Verdict,
};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Counts its calls, and returns which one it was.
#[derive(Clone, Default)]
struct Counted(Arc<AtomicU32>);

impl Counted {
    fn calls(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    fn work(&self) -> impl FnMut(Context<String>) -> Answering + Send + use<> {
        let calls = Arc::clone(&self.0);
        move |_| std::future::ready(Ok(calls.fetch_add(1, Ordering::SeqCst) + 1))
    }
}

type Answering = std::future::Ready<Result<u32, String>>;

fn attempts(count: u32) -> NonZero<u32> {
    NonZero::new(count).unwrap()
}

/// So many attempts, with next to no waits in between.
fn soon<E>(count: u32) -> Retry<E> {
    Retry::attempts(attempts(count)).min_delay(Duration::from_millis(1))
}

#[tokio::test]
async fn the_first_executes_and_repeats_are_replayed_across_restarts() {
    let (ledger, journal) = fresh().await;
    let counted = Counted::default();
    let first = ledger.run(name("a"), counted.work()).await.unwrap();
    assert_eq!((first.kind, first.value), (ClaimKind::Executed, Some(1)));
    for _ in 0..3 {
        let again = ledger.run(name("a"), counted.work()).await.unwrap();
        assert_eq!((again.kind, again.value), (ClaimKind::Replayed, Some(1)));
    }
    ledger.close().await.unwrap();
    let ledger = open(journal).await;
    let again = ledger.run(name("a"), counted.work()).await.unwrap();
    assert_eq!((again.kind, again.value), (ClaimKind::Replayed, Some(1)));
    assert_eq!(counted.calls(), 1);
}

/// A repeat that finds a success, and then nothing, since it was forgotten in between, looks again: it
/// executes. It was told that its runtime had gone down, which the crash lab's `kept` found.
#[tokio::test]
async fn what_is_forgotten_while_it_is_replayed_runs() {
    let gate = Gate::default();
    // The open, the start and its success come before.
    let hooked = Hooked::at_append(&MemoryJournal::new(), 3, Then::Wait(gate.clone()));
    let ledger = Tasks::builder().open_journal(hooked).await.unwrap();
    ledger.launch_block(name("a"), ok(1)).await.unwrap();
    let mut forgetting = Hand::new(ledger.forget("a"));
    assert!(forgetting.poll().is_pending());
    gate.somebody_waits().await;
    let mut asking = Hand::new(ledger.run(name("a"), |_| ok(2)));
    assert!(asking.poll().is_pending(), "it has found a success, and asks for its output");
    gate.open();
    let claim = asking.finish().await.unwrap();
    assert_eq!((claim.kind, claim.value), (ClaimKind::Executed, Some(2)));
    forgetting.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_who_come_while_it_runs_get_the_same_value() {
    let (ledger, _) = fresh().await;
    let calls = Arc::new(AtomicU32::new(0));
    let go = Arc::new(Notify::new());
    let mut callers = JoinSet::new();
    for _ in 0..64 {
        let (ledger, calls, go) = (ledger.clone(), Arc::clone(&calls), Arc::clone(&go));
        callers.spawn(async move {
            let work = move |_: Context<String>| {
                let (calls, go) = (Arc::clone(&calls), Arc::clone(&go));
                async move {
                    let call = calls.fetch_add(1, Ordering::SeqCst);
                    go.notified().await;
                    Ok::<_, String>(call)
                }
            };
            ledger.run(name("a"), work).await.unwrap()
        });
    }
    until(|| calls.load(Ordering::SeqCst) == 1).await;
    go.notify_one();
    let claims: Vec<Claim<u32>> = callers.join_all().await;
    let executed = claims.iter().filter(|claim| claim.kind == ClaimKind::Executed).count();
    assert_eq!(executed, 1);
    assert!(claims.iter().all(|claim| claim.value == Some(0)), "{claims:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// Also an attempt that somebody launched is joined, and its failure is told.
#[tokio::test]
async fn a_launched_attempt_is_joined() {
    let (ledger, _) = fresh().await;
    for fails in [false, true] {
        let id = format!("{fails}");
        let go = Arc::new(Notify::new());
        let gate = Arc::clone(&go);
        let work = async move {
            gate.notified().await;
            if fails { Err("no".to_owned()) } else { Ok(7) }
        };
        ledger.launch(id.clone(), work).await.unwrap();
        let mut joiner = Hand::new(ledger.run(id.clone(), |_| ok(1)));
        assert!(joiner.poll().is_pending());
        go.notify_one();
        match joiner.finish().await {
            Ok(claim) => {
                assert_eq!((claim.kind, claim.value, fails), (ClaimKind::Joined, Some(7), false))
            }
            Err(RunError::Told { failure, kind: ClaimKind::Joined }) => {
                assert_eq!((failure, fails), (Failure::Error("\"no\"".into()), true));
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// A joiner is dropped at each of its polls; the one who executes is dropped; neither changes anything.
#[tokio::test]
async fn dropped_callers_change_nothing() {
    let (ledger, _) = fresh().await;
    let go = Arc::new(Notify::new());
    let gate = Arc::clone(&go);
    let work = move |_: Context<String>| {
        let gate = Arc::clone(&gate);
        async move {
            gate.notified().await;
            Ok::<_, String>(7)
        }
    };
    let mut leader = Hand::new(ledger.run(name("a"), work));
    assert!(leader.poll().is_pending());
    until(|| ledger.query_task_state_quick("a") == TaskState::Running).await;
    let mut stays = Hand::new(ledger.run(name("a"), |_| ok(1)));
    assert!(stays.poll().is_pending());
    for polls in 0..4 {
        let mut joiner = Hand::new(ledger.run(name("a"), |_| ok(1)));
        for _ in 0..polls {
            assert!(joiner.poll().is_pending());
        }
    }
    drop(leader);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::Running, "it goes on");
    go.notify_one();
    let joined = stays.finish().await.unwrap();
    assert_eq!((joined.kind, joined.value), (ClaimKind::Joined, Some(7)));
}

/// By option the caller's drop cancels it, and exactly one of those who have joined takes over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_caller_hands_over_to_exactly_one() {
    let (ledger, _) = fresh().await;
    let leader = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.task(name("a")).cancel_with_caller().run(|_| never()).await }
    });
    until(|| ledger.query_task_state_quick("a") == TaskState::Running).await;
    let counted = Counted::default();
    let mut joiners = JoinSet::new();
    for _ in 0..16 {
        let (ledger, counted) = (ledger.clone(), counted.clone());
        joiners.spawn(async move {
            ledger.task(name("a")).cancel_with_caller().run(counted.work()).await.unwrap()
        });
    }
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(counted.calls(), 0, "they wait");
    leader.abort();
    let claims = joiners.join_all().await;
    assert_eq!(claims.iter().filter(|claim| claim.kind == ClaimKind::Executed).count(), 1);
    assert!(claims.iter().all(|claim| claim.value == Some(1)), "{claims:?}");
    assert_eq!(counted.calls(), 1);
    let details = ledger.record("a").await.unwrap().unwrap();
    assert_eq!(details.attempt().get(), 2);
}

#[tokio::test]
async fn after_a_failure_the_policy_decides() {
    let (ledger, _) = fresh().await;
    let failed = ledger.run(name("a"), |_| async { Err::<u32, _>("no route") }).await;
    assert!(matches!(failed, Err(RunError::Failed("no route"))));
    let task = |policy| ledger.task(name("a")).on_failure(policy);
    let told = task(OnFailure::Replay).run(|_| ok(1)).await;
    let failure = Failure::Error("\"no route\"".into());
    assert!(
        matches!(&told, Err(RunError::Told { failure: told, kind: ClaimKind::Replayed }) if *told == failure)
    );
    let refused = task(OnFailure::Refuse).run(|_| ok(1)).await;
    assert!(matches!(refused, Err(RunError::Refused { state: TaskState::Failed })));
    assert_eq!(ledger.record("a").await.unwrap().unwrap().attempt().get(), 1);
    // By default it runs again.
    assert_eq!(ledger.run(name("a"), |_| ok(2)).await.unwrap().kind, ClaimKind::Executed);
}

#[tokio::test]
async fn after_a_crash_it_runs_holds_or_asks() {
    let (ledger, _) = crashed("a").await;
    assert_eq!(ledger.run(name("a"), |_| ok(1)).await.unwrap().kind, ClaimKind::Executed);

    let (ledger, _) = crashed("a").await;
    let careful = || ledger.task(name("a")).on_crash(OnCrash::Hold);
    assert!(matches!(careful().run(|_| ok(1)).await, Err(RunError::Held)));
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::Failed);
    ledger.resolve("a", Verdict::Retry, "nothing was charged").await.unwrap();
    assert_eq!(careful().run(|_| ok(1)).await.unwrap().kind, ClaimKind::Executed);

    // The probe is asked once, and told what the attempt was told.
    let (ledger, _) = crashed("a").await;
    let probed = ledger.task(name("a")).probe(|cx: Context<String>| async move {
        assert_eq!((cx.id().as_str(), cx.attempt().get()), ("a", 1));
        Landed::Yes(Some(40))
    });
    let claim = probed.run(|_| ok(1)).await.unwrap();
    assert_eq!((claim.kind, claim.value), (ClaimKind::Replayed, Some(40)));
    let details = ledger.record("a").await.unwrap().unwrap();
    assert_eq!(details.succeeded_by, Some(SuccessBy::Resolve));
    // It is told apart from a person's verdict.
    let note = details.notes.back().map(|note| note.text.clone());
    assert_eq!(note.as_deref(), Some("its probe has found that it had happened"));

    let (ledger, _) = crashed("a").await;
    let unknown = ledger.task(name("a")).probe(|_| async { Landed::Unknown });
    assert!(matches!(unknown.run(|_| ok(1)).await, Err(RunError::Held)));
    let not = ledger.task(name("a")).probe(|_| async { Landed::No });
    assert_eq!(not.run(|_| ok(1)).await.unwrap().kind, ClaimKind::Executed);
}

#[tokio::test]
async fn what_was_resolved_is_on_record_as_that() {
    for (verdict, state) in [
        (Verdict::Succeeded, TaskState::Succeeded),
        (Verdict::Failed, TaskState::Failed),
        (Verdict::Retry, TaskState::Failed),
    ] {
        let (ledger, journal) = crashed("a").await;
        ledger.resolve("a", verdict, "seen").await.unwrap();
        ledger.close().await.unwrap();
        let ledger = open(journal).await;
        let details = ledger.record("a").await.unwrap().unwrap();
        assert_eq!(details.state(), state);
        match verdict {
            Verdict::Succeeded => assert_eq!(details.succeeded_by, Some(SuccessBy::Resolve)),
            Verdict::Failed => assert_eq!(details.failure, Some(Failure::Resolved("seen".into()))),
            _ => assert_eq!(details.failure, Some(Failure::Released("seen".into()))),
        }
        let held = ledger.task(name("a")).on_crash(OnCrash::Hold).run(|_| ok(1)).await;
        assert!(held.is_ok(), "it is no longer held: {held:?}");
    }
    let (ledger, _) = fresh().await;
    let refused = ledger.resolve("a", Verdict::Retry, "").await;
    assert!(refused.is_err(), "nothing is known of it");
}

#[tokio::test]
async fn another_request_under_the_same_id_is_refused() {
    let (ledger, journal) = fresh().await;
    let task = |request: &str| ledger.task(name("a")).fingerprint(request);
    task("pay 10").run(|_| ok(1)).await.unwrap();
    assert_eq!(task("pay 10").run(|_| ok(2)).await.unwrap().value, Some(1));
    let started = ledger.record("a").await.unwrap().unwrap().started_at;
    let other = task("pay 11").run(|_| ok(2)).await;
    assert!(matches!(other, Err(RunError::OtherRequest { at }) if at == started && at.is_some()));
    let text = format!("{} {:?}", other.as_ref().unwrap_err(), other.as_ref().unwrap_err());
    assert!(!text.contains("10") || !text.contains("pay"), "{text}");
    // Without a fingerprint nothing is compared; and it is the same after a restart.
    assert_eq!(ledger.run(name("a"), |_| ok(2)).await.unwrap().value, Some(1));
    ledger.close().await.unwrap();
    let ledger = open(journal).await;
    let other = ledger.task(name("a")).fingerprint("pay 11").run(|_| ok(2)).await;
    assert!(matches!(other, Err(RunError::OtherRequest { .. })));
    // While it runs, and after it failed.
    let go = Arc::new(Notify::new());
    let gate = Arc::clone(&go);
    let work = move |_: Context<String>| {
        let gate = Arc::clone(&gate);
        async move {
            gate.notified().await;
            Err::<u32, _>("no")
        }
    };
    let mut leader = Hand::new(ledger.task(name("b")).fingerprint("one").run(work));
    assert!(leader.poll().is_pending());
    until(|| ledger.query_task_state_quick("b") == TaskState::Running).await;
    // At once, not when it ends.
    let other = ledger.task(name("b")).fingerprint("two").run(|_| ok(2)).await;
    assert!(matches!(other, Err(RunError::OtherRequest { at: Some(_) })));
    go.notify_one();
    assert!(matches!(leader.finish().await, Err(RunError::Failed("no"))));
    let other = ledger.task(name("b")).fingerprint("two").run(|_| ok(2)).await;
    assert!(matches!(other, Err(RunError::OtherRequest { at: Some(_) })));
    ledger.task(name("b")).fingerprint("one").run(|_| ok(2)).await.unwrap();
}

/// The same for every attempt of an id, across crashes and restarts; another one after it is revoked or
/// forgotten, for another id, and in another ledger.
#[tokio::test]
async fn effect_keys_live_as_long_as_an_id() {
    async fn key(ledger: &Tasks, id: &str) -> EffectKey {
        let seen = Arc::new(std::sync::Mutex::new(None));
        let told = Arc::clone(&seen);
        let work = move |cx: Context<String>| {
            *told.lock().unwrap() = Some(cx.effect_key());
            async { Err::<u32, _>("not yet") }
        };
        ledger.run(name(id), work).await.unwrap_err();
        let key = seen.lock().unwrap().take();
        key.unwrap()
    }
    let (ledger, journal) = fresh().await;
    let first = key(&ledger, "a").await;
    assert_eq!(first.to_string().len(), 32);
    assert_eq!(key(&ledger, "a").await, first, "the second attempt");
    assert_ne!(key(&ledger, "b").await, first, "another id");
    ledger.launch(name("a"), never()).await.unwrap();
    let ledger = open(journal.fork()).await;
    assert_eq!(key(&ledger, "a").await, first, "after a crash");
    ledger.checkpoint().await.unwrap();
    ledger.close().await.unwrap();
    let probed = Arc::new(std::sync::Mutex::new(None));
    let ledger = open(journal.fork()).await;
    let told = Arc::clone(&probed);
    let task = ledger.task(name("a")).probe(move |cx: Context<String>| {
        *told.lock().unwrap() = Some(cx.effect_key());
        async { Landed::Unknown }
    });
    assert!(matches!(task.run(|_| ok(1)).await, Err(RunError::Held)));
    assert_eq!(*probed.lock().unwrap(), Some(first), "the probe's");
    ledger.checkpoint().await.unwrap();
    assert_eq!(key(&ledger, "a").await, first, "after a checkpoint");
    ledger.forget("a").await.unwrap();
    let second = key(&ledger, "a").await;
    assert_ne!(second, first, "after it was forgotten");
    ledger.mark_succeeded(name("a")).await.unwrap();
    ledger.revoke_task_block(name("a"), async { Ok::<_, ()>(()) }).await.unwrap();
    assert!(![first, second].contains(&key(&ledger, "a").await), "after it was revoked");
    assert_ne!(key(&fresh().await.0, "a").await, first, "another ledger");
}

#[tokio::test]
async fn retries_are_attempts_and_end_with_the_last() {
    let (ledger, _) = fresh().await;
    let flaky = |until: u32| {
        move |cx: Context<String>| async move {
            let attempt = cx.attempt().get();
            if attempt < until { Err(format!("attempt {attempt}")) } else { Ok(attempt) }
        }
    };
    let claim = ledger.task(name("a")).retry(soon(5)).run(flaky(4)).await;
    assert_eq!(claim.unwrap().value, Some(4));
    let failed = ledger.task(name("b")).retry(soon(3)).run(flaky(9)).await;
    assert!(matches!(failed, Err(RunError::Failed(error)) if error == "attempt 3"));
    assert_eq!(ledger.record("b").await.unwrap().unwrap().attempt().get(), 3);
    // Only errors that are said to pass.
    let retry = soon(5).when(|error: &String| error == "attempt 1");
    let failed = ledger.task(name("c")).retry(retry).run(flaky(9)).await;
    assert!(matches!(failed, Err(RunError::Failed(error)) if error == "attempt 2"));
    // Panics and timeouts.
    let panicking = |cx: Context<String>| async move {
        assert!(cx.attempt().get() > 1, "on purpose");
        Ok::<_, String>(7)
    };
    let claim = ledger.task(name("d")).retry(soon(2)).run(panicking).await;
    assert_eq!(claim.unwrap().value, Some(7));
    let slow = |cx: Context<String>| async move {
        if cx.attempt().get() == 1 { never().await } else { ok(8).await }
    };
    let task = ledger.task(name("e")).timeout(Duration::from_millis(20));
    let claim = task.retry(soon(2)).run(slow).await;
    assert_eq!(claim.unwrap().value, Some(8));
}

/// A joiner waits through the retries; the deadline ends them, and the attempt that runs.
#[tokio::test]
async fn retries_are_waited_for_and_end_at_the_deadline() {
    let (ledger, _) = fresh().await;
    let soon = Duration::from_millis(20);
    let failing = |_: Context<String>| async { Err::<u32, _>("no") };
    let retry = Retry::attempts(attempts(4)).min_delay(soon);
    let mut leader = Hand::new(ledger.task(name("a")).retry(retry).run(failing));
    assert!(leader.poll().is_pending());
    until(|| ledger.query_task_state_quick("a") == TaskState::Failed).await;
    let mut joiner = Hand::new(ledger.run(name("a"), |_| ok(1)));
    assert!(joiner.poll().is_pending(), "somebody is at it");
    assert!(matches!(leader.finish().await, Err(RunError::Failed("no"))));
    assert!(matches!(joiner.finish().await, Err(RunError::Told { kind: ClaimKind::Joined, .. })));
    assert_eq!(ledger.record("a").await.unwrap().unwrap().attempt().get(), 4);

    // Far more attempts than there is time for.
    let later = Duration::from_secs(1);
    let task = ledger.task(name("b")).deadline(tokio::time::Instant::now() + later);
    let retry = Retry::attempts(attempts(u32::MAX)).min_delay(later / 40).factor(1.0);
    assert!(matches!(task.retry(retry).run(failing).await, Err(RunError::Failed("no"))));
    let task = ledger.task(name("c")).deadline(tokio::time::Instant::now() + later);
    assert!(matches!(task.run(|_| never()).await, Err(RunError::TimedOut)));
    assert_eq!(ledger.record("c").await.unwrap().unwrap().failure, Some(Failure::TimedOut));
}

/// What kills its process at each attempt is left alone after some of them.
#[tokio::test]
async fn attempts_that_crash_count() {
    let (ledger, mut journal) = fresh().await;
    ledger.close().await.unwrap();
    for _ in 0..3 {
        let ledger = open(journal.clone()).await;
        let runs = ledger.clone();
        let killed = tokio::spawn(async move {
            runs.task(name("a")).max_attempts(attempts(3)).run(|_| never()).await
        });
        until(|| ledger.query_task_state_quick("a") == TaskState::Running).await;
        journal = journal.fork();
        killed.abort();
    }
    let ledger = open(journal.clone()).await;
    let task = || ledger.task(name("a")).max_attempts(attempts(3));
    for _ in 0..2 {
        assert!(matches!(task().run(|_| ok(1)).await, Err(RunError::GaveUp { attempts: 3 })));
    }
    let details = ledger.record("a").await.unwrap().unwrap();
    let gave_up = Failure::GaveUp { attempts: 3, last: "crashed".into() };
    assert_eq!((details.attempt().get(), details.failure), (3, Some(gave_up)));
    ledger.resolve("a", Verdict::Retry, "mended").await.unwrap();
    assert_eq!(task().run(|_| ok(1)).await.unwrap().kind, ClaimKind::Executed);
    // One that fails for the last time is given up at once.
    let failed =
        ledger.task(name("b")).max_attempts(attempts(1)).run(|_| async { Err::<u32, _>(0) });
    assert!(matches!(failed.await, Err(RunError::Failed(0))));
    let failure = ledger.record("b").await.unwrap().unwrap().failure;
    assert_eq!(failure, Some(Failure::GaveUp { attempts: 1, last: "error: 0".into() }));
}

#[tokio::test]
async fn a_cancelled_attempt_may_end_by_itself_and_is_dropped_if_it_does_not() {
    let (ledger, _) = fresh().await;
    let began = Arc::new(Notify::new());
    // It listens, and has something to return, or not.
    let listening = |returned: Result<u32, &'static str>| {
        let began = Arc::clone(&began);
        move |cx: Context<String>| {
            let began = Arc::clone(&began);
            async move {
                began.notify_one();
                cx.cancellation().cancelled().await;
                returned
            }
        }
    };
    let cancelled = |id: &'static str| {
        let (ledger, began) = (ledger.clone(), Arc::clone(&began));
        async move {
            began.notified().await;
            ledger.cancel(id, "not needed").unwrap();
        }
    };
    let (claim, ()) = tokio::join!(ledger.run(name("a"), listening(Ok(9))), cancelled("a"));
    assert_eq!(claim.unwrap().value, Some(9));
    let run = ledger.run(name("b"), listening(Err("stopped")));
    let (failed, ()) = tokio::join!(run, cancelled("b"));
    assert!(matches!(failed, Err(RunError::Cancelled(reason)) if reason == "not needed"));
    // It does not listen, and has no time to.
    for (id, grace) in [("c", Duration::from_millis(20)), ("d", Duration::ZERO)] {
        let told = Arc::clone(&began);
        let deaf = move |_: Context<String>| {
            told.notify_one();
            never()
        };
        let run = ledger.task(name(id)).cancel_grace(grace).run(deaf);
        let (failed, ()) = tokio::join!(run, cancelled(id));
        assert!(matches!(failed, Err(RunError::Cancelled(_))));
        let failure = ledger.record(id).await.unwrap().unwrap().failure;
        assert_eq!(failure, Some(Failure::Cancelled("not needed".into())));
    }
}

#[tokio::test]
async fn an_output_that_is_not_kept_costs_no_success() {
    let journal = MemoryJournal::new();
    let builder = || Ledger::<String, String>::builder().output_cap(16);
    let ledger = builder().open_journal(journal.clone()).await.unwrap();
    let long = |_: Context<String>| async { Ok::<_, String>("long".repeat(100)) };
    let first = ledger.run(name("a"), long).await.unwrap();
    assert_eq!(first.value.map(|value| value.len()), Some(400));
    let again = ledger.run(name("a"), long).await.unwrap();
    assert_eq!((again.kind, again.value), (ClaimKind::Replayed, None));
    let output = ledger.record("a").await.unwrap().unwrap().output;
    assert!(matches!(output, Output::NotKept(NotKept::TooLarge { .. })));
    let declared = ledger.task(name("b")).output_at_most(17).run(long).await;
    assert!(matches!(declared, Err(RunError::Rejected(Rejection::Output { cap: 16 }))));
    assert_eq!(ledger.query_task_state_quick("b"), TaskState::NotFound);
}

#[tokio::test]
async fn notes_are_kept_and_belong_to_a_running_attempt() {
    let (ledger, _) = fresh().await;
    let late = Arc::new(std::sync::Mutex::new(None));
    let keep = Arc::clone(&late);
    let work = move |cx: Context<String>| {
        *keep.lock().unwrap() = Some(cx.clone());
        async move {
            for number in 0..10 {
                cx.note(format!("part {number}")).await.unwrap();
            }
            cx.note("x".repeat(5_000)).await.unwrap();
            ok(1).await
        }
    };
    ledger.run(name("a"), work).await.unwrap();
    let notes = ledger.record("a").await.unwrap().unwrap().notes;
    let texts: Vec<&str> = notes.iter().map(|note| note.text.as_str()).collect();
    assert_eq!(texts.len(), 8);
    assert_eq!((texts[0], texts[6], texts[7].len()), ("part 3", "part 9", 1024));
    let late = late.lock().unwrap().take().unwrap();
    assert!(late.note("too late").await.is_err());
    assert_eq!(ledger.superseded(), 1);
}

/// A run that waits for a store that fails is told, and so are those that have joined.
#[tokio::test]
async fn a_poisoned_ledger_tells_everybody() {
    use crate::support::{Hooked, Then};
    let gate = Gate::default();
    gate.open();
    let journal = MemoryJournal::new();
    let hooked = Hooked::at_append(&journal, 2, Then::Fail);
    let ledger = open(hooked).await;
    let mut leader = Hand::new(ledger.run(name("a"), |_| ok(1)));
    assert!(leader.poll().is_pending());
    let mut joiner = Hand::new(ledger.run(name("a"), |_| ok(2)));
    let joined = joiner.poll();
    assert!(matches!(leader.finish().await, Err(RunError::InDoubt { .. })));
    if joined.is_pending() {
        let told = joiner.finish().await;
        // The other one's attempt may have come to its end, and that may be on the disk.
        assert!(matches!(told, Err(RunError::InDoubt { outcome: None, .. })), "{told:?}");
    }
}

/// A probe that panics has found out nothing: the id is held, and nobody runs it.
#[tokio::test]
async fn a_probe_that_panics_has_found_out_nothing() {
    let (ledger, _) = crashed("a").await;
    let probed = ledger.task(name("a")).probe(|_| async { panic!("on purpose") });
    let answer = probed.run(|_| ok(1)).await;
    assert!(matches!(answer, Err(RunError::Held)), "{answer:?}");
    let failure = ledger.record("a").await.unwrap().unwrap().failure;
    assert_eq!(failure, Some(Failure::Crashed));
}

/// What was found out is kept with a success as well, over a checkpoint.
#[tokio::test]
async fn a_resolved_success_keeps_why() {
    let (ledger, journal) = crashed("a").await;
    ledger.resolve("a", Verdict::Succeeded, "seen in the list").await.unwrap();
    ledger.checkpoint().await.unwrap();
    ledger.close().await.unwrap();
    let ledger = open(journal).await;
    let details = ledger.record("a").await.unwrap().unwrap();
    assert_eq!(details.succeeded_by, Some(SuccessBy::Resolve));
    assert_eq!(details.notes.back().map(|note| note.text.as_str()), Some("seen in the list"));
}

/// Waits between attempts and grace periods need a timer: without one it is said at once.
#[test]
fn a_runtime_without_a_timer_is_told() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (ledger, _) = fresh().await;
        let task = ledger.task(name("a")).cancel_grace(Duration::ZERO).retry(soon(3));
        let answer = task.run(|_| async { Err::<u32, _>("no") }).await;
        assert!(matches!(answer, Err(RunError::Rejected(Rejection::NoTimer))), "{answer:?}");
        assert_eq!(ledger.query_task_state_quick("a"), TaskState::NotFound);
        // What has succeeded needs none; but a deadline does, which panicked.
        ledger.mark_succeeded(name("a")).await.unwrap();
        assert_eq!(ledger.run(name("a"), |_| ok(1)).await.unwrap().kind, ClaimKind::Replayed);
        let task = ledger.task(name("a")).deadline(tokio::time::Instant::now());
        let answer = task.run(|_| ok(1)).await;
        assert!(matches!(answer, Err(RunError::Rejected(Rejection::NoTimer))), "{answer:?}");
    });
}

/// As whatever else is asked of it.
#[tokio::test]
async fn a_ledger_that_is_closed_rejects_a_run_of_any_id() {
    let (ledger, _) = fresh().await;
    ledger.mark_succeeded(name("done")).await.unwrap();
    ledger.close().await.unwrap();
    for id in ["done", "new"] {
        let answer = ledger.run(name(id), |_| ok(1)).await;
        assert!(matches!(answer, Err(RunError::Rejected(Rejection::Closed))), "{id}: {answer:?}");
    }
}

/// The note of a verdict was taken for a running id as well. It moved the id's last record, so the end of
/// the attempt counted as stale: a success that nobody had on record, and an id that ran for ever. Found
/// by `dropped`, when it came to call everything.
#[tokio::test]
async fn a_verdict_on_what_runs_changes_nothing_of_it() {
    let ledger = Ledger::<String, u32>::builder().open_journal(MemoryJournal::new()).await.unwrap();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let work = async { ended.await.map(|()| 7).map_err(|_| "gone") };
    ledger.launch("a".to_owned(), work).await.unwrap();
    for verdict in [Verdict::Succeeded, Verdict::Failed, Verdict::Retry] {
        let refused = ledger.resolve("a", verdict, "seen").await;
        let Err(ChangeError::Refused { state: TaskState::Running, .. }) = refused else {
            panic!("{refused:?}")
        };
    }
    end.send(()).unwrap();
    assert_eq!(ledger.wait("a").await.unwrap(), TaskState::Succeeded);
    assert_eq!(ledger.output("a").await.unwrap(), Some(7));
    assert!(ledger.record("a").await.unwrap().unwrap().notes.is_empty());
    assert_eq!(ledger.superseded(), 0);
}
