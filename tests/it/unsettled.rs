//! Crashes that were run again without anybody having said what came of them. That was forgotten with the next
//! failure: who wanted crashes to be held was let through, and the id was pruned, so that its next attempt had
//! another effect key than the one that may have had its effect.

use crate::support::{Tasks, crashed, fresh, name, ok, open};
use std::num::NonZero;
use std::time::Duration;
use taskledger::{
    ClaimKind, Context, EffectKey, Failure, Landed, MemoryJournal, OnCrash, Retention, RunError,
    TaskState, Verdict,
};

/// Crashed, and run again by somebody who does not mind, which has failed.
async fn again() -> (Tasks, MemoryJournal) {
    let (ledger, journal) = crashed("a").await;
    ledger.run(name("a"), |_| async { Err::<u32, _>("no") }).await.unwrap_err();
    let details = ledger.record("a").await.unwrap().unwrap();
    assert!(details.crashed_before && matches!(details.failure, Some(Failure::Error(_))));
    (ledger, journal)
}

async fn hold(ledger: &Tasks) -> Result<ClaimKind, RunError<u32, String>> {
    let held = ledger.task(name("a")).on_crash(OnCrash::Hold);
    held.run(|_| ok(1)).await.map(|claim| claim.kind)
}

async fn is_held(ledger: &Tasks) -> bool {
    matches!(hold(ledger).await, Err(RunError::Held))
}

async fn key(ledger: &Tasks, fails: bool) -> EffectKey {
    let key = std::sync::Arc::new(std::sync::OnceLock::new());
    let told = key.clone();
    let work = move |cx: Context<String>| {
        told.set(cx.effect_key()).unwrap();
        async move { if fails { Err("no") } else { Ok(1) } }
    };
    assert_eq!(ledger.run(name("a"), work).await.is_err(), fails);
    *key.get().unwrap()
}

#[tokio::test]
async fn a_crash_is_held_whatever_has_failed_since() {
    let (ledger, journal) = again().await;
    assert!(is_held(&ledger).await);
    // However it is launched again, and over restarts and checkpoints.
    ledger.launch_block(name("a"), async { Err::<u32, _>("no") }).await.unwrap_err();
    assert!(is_held(&ledger).await);
    let ledger = open(journal.fork()).await;
    assert!(is_held(&ledger).await);
    ledger.checkpoint().await.unwrap();
    ledger.launch_block(name("a"), async { Err::<u32, _>("no") }).await.unwrap_err();
    assert!(is_held(&ledger).await);
    // And if it is given up.
    let capped = ledger.task(name("a")).max_attempts(NonZero::<u32>::MIN);
    assert!(matches!(capped.run(|_| ok(1)).await, Err(RunError::GaveUp { .. })));
    ledger.launch_block(name("a"), async { Err::<u32, _>("no") }).await.unwrap_err();
    assert!(is_held(&ledger).await);
}

#[tokio::test]
async fn who_has_found_out_what_came_of_it_ends_that() {
    for verdict in [Verdict::Failed, Verdict::Retry] {
        let (ledger, journal) = again().await;
        ledger.resolve("a", verdict, "nothing was charged").await.unwrap();
        // Also of what is run again after that.
        ledger.launch_block(name("a"), async { Err::<u32, _>("no") }).await.unwrap_err();
        let ledger = open(journal.fork()).await;
        assert_eq!(hold(&ledger).await.unwrap(), ClaimKind::Executed);
    }
    let (ledger, _) = again().await;
    ledger.forget("a").await.unwrap();
    assert_eq!(hold(&ledger).await.unwrap(), ClaimKind::Executed);
    // A verdict that the writer hears of before it has read what was before.
    let (_, journal) = again().await;
    let ledger = open(journal.fork()).await;
    ledger.resolve("a", Verdict::Retry, "").await.unwrap();
    ledger.launch_block(name("a"), async { Err::<u32, _>("no") }).await.unwrap_err();
    assert_eq!(hold(&ledger).await.unwrap(), ClaimKind::Executed);
}

#[tokio::test]
async fn a_probe_is_asked_until_it_knows() {
    let (ledger, _) = again().await;
    let ask = |landed| ledger.task(name("a")).probe(move |_| async move { landed });
    let held = ask(Landed::Unknown).run(|_| ok(1)).await;
    assert!(matches!(held, Err(RunError::Held)), "{held:?}");
    let fails = ask(Landed::No).run(|_| async { Err::<u32, _>("no") }).await;
    assert!(matches!(fails, Err(RunError::Failed("no"))), "{fails:?}");
    assert_eq!(hold(&ledger).await.unwrap(), ClaimKind::Executed, "it had not happened");

    let (ledger, _) = again().await;
    let ask = ledger.task(name("a")).probe(|_| async { Landed::Yes(Some(40)) });
    assert_eq!(ask.run(|_| ok(1)).await.unwrap().value, Some(40));
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::Succeeded);
}

#[tokio::test]
async fn what_may_have_happened_is_not_pruned_with_a_later_failure() {
    let (ledger, _) = crashed("a").await;
    let first = key(&ledger, true).await;
    let pruned = ledger.prune(&Retention::new().failed(Duration::ZERO)).await.unwrap();
    assert_eq!((pruned.failed, pruned.held), (0, 1));
    assert_eq!(key(&ledger, false).await, first);
}

/// A verdict could be pruned the moment it was given: its age was that of the failure.
#[tokio::test]
async fn the_age_of_a_verdict_counts_from_when_it_was_given() {
    let (ledger, journal) = fresh().await;
    ledger.launch_block(name("a"), async { Err::<u32, _>("no") }).await.unwrap_err();
    let failed = ledger.record("a").await.unwrap().unwrap().ended_at.unwrap();
    tokio::time::sleep(Duration::from_millis(2)).await;
    ledger.resolve("a", Verdict::Failed, "seen").await.unwrap();
    let resolved = ledger.record("a").await.unwrap().unwrap().ended_at.unwrap();
    assert!(resolved > failed);
    let ledger = open(journal.fork()).await;
    assert_eq!(ledger.record("a").await.unwrap().unwrap().ended_at, Some(resolved));
}

/// What a person had found out was overwritten by a run that had no attempt left.
#[tokio::test]
async fn a_verdict_outlives_who_gives_up() {
    let (ledger, _) = fresh().await;
    ledger.launch_block(name("a"), async { Err::<u32, _>("no") }).await.unwrap_err();
    ledger.resolve("a", Verdict::Failed, "the account is closed").await.unwrap();
    let capped = ledger.task(name("a")).max_attempts(NonZero::<u32>::MIN);
    assert!(matches!(capped.run(|_| ok(1)).await, Err(RunError::GaveUp { attempts: 1 })));
    let failure = ledger.record("a").await.unwrap().unwrap().failure;
    assert_eq!(failure, Some(Failure::Resolved("the account is closed".into())));
}

/// The key could be had within an attempt alone: whoever had to ask the other side had none.
#[tokio::test]
async fn the_effect_key_is_told_of_what_has_crashed() {
    let (ledger, _) = crashed("a").await;
    let told = ledger.effect_key("a").await.unwrap();
    assert_eq!(told, Some(key(&ledger, true).await));
    assert_eq!(told, ledger.effect_key("a").await.unwrap());
    assert_eq!(told, Some(key(&ledger, false).await));
    assert_eq!(ledger.effect_key("a").await.unwrap(), None, "it has succeeded");
    assert_eq!(ledger.effect_key("nobody").await.unwrap(), None);
}
