//! Runs and verdicts that are overtaken: the id is no longer as it was when they looked at it.

use crate::support::{
    Call, Gate, Hand, Hooked, Tasks, Then, crashed, fresh, name, ok, open, soon, until,
};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use taskledger::{
    ChangeError, ClaimKind, Context, Failure, Landed, MemoryJournal, OnCrash, OnFailure, Retry,
    RunError, SuccessBy, TaskState, Verdict,
};

/// Fails, by somebody else.
async fn other(ledger: &Tasks) {
    let other = async { Err::<u32, _>(name("other")) };
    ledger.launch_block(name("a"), other).await.unwrap_err();
}

/// An attempt that failed while the probe was asked counted for nothing: one more ran than may be.
#[tokio::test]
async fn what_fails_while_a_probe_is_asked_counts() {
    let (ledger, _) = crashed("a").await;
    let asked = ledger.clone();
    let probed = ledger.task(name("a")).max_attempts(NonZero::new(2).unwrap());
    let probed = probed.probe(move |_| async move {
        other(&asked).await;
        Landed::No
    });
    let answer = probed.run(|_| ok(1)).await;
    assert!(matches!(answer, Err(RunError::GaveUp { attempts: 2 })), "{answer:?}");
}

/// Nor were the policies asked of what had become of the id meanwhile.
#[tokio::test]
async fn what_was_decided_while_a_probe_is_asked_is_respected() {
    let (ledger, _) = crashed("a").await;
    let asked = ledger.clone();
    let probed = ledger.task(name("a")).on_failure(OnFailure::Refuse);
    let probed = probed.probe(move |_| async move {
        asked.resolve("a", Verdict::Failed, "it did not").await.unwrap();
        Landed::No
    });
    let answer = probed.run(|_| ok(1)).await;
    assert!(matches!(answer, Err(RunError::Refused { state: TaskState::Failed })), "{answer:?}");
    let failure = ledger.record("a").await.unwrap().unwrap().failure;
    assert_eq!(failure, Some(Failure::Resolved("it did not".into())));
}

/// What says nothing of the crash leaves standing what the probe has found out, which was forgotten: the id
/// was held.
#[tokio::test]
async fn what_a_probe_has_found_out_outlives_a_note_and_a_pin() {
    for pins in [true, false] {
        for found in [Landed::Yes(Some(40)), Landed::No] {
            let (ledger, _) = crashed("a").await;
            let (asked, finds) = (ledger.clone(), found.clone());
            let probed = ledger.task(name("a")).probe(move |_| async move {
                match pins {
                    true => asked.pin("a").await.unwrap(),
                    false => asked.note("a", "somebody looks into it").await.unwrap(),
                }
                finds
            });
            let claim = probed.run(|_| ok(1)).await.unwrap();
            let expected = match found {
                Landed::No => (ClaimKind::Executed, Some(1)),
                _ => (ClaimKind::Replayed, Some(40)),
            };
            assert_eq!((claim.kind, claim.value), expected, "pins: {pins}");
        }
    }
}

/// A verdict that came between the look at an id and the start of the attempt was not asked about: the start
/// was taken all the same.
#[tokio::test]
async fn a_start_that_is_overtaken_looks_again() {
    let (_, journal) = crashed("a").await;
    let (gate, mut reads) = (Gate::default(), 0);
    let waits = gate.clone();
    let ledger = open(Hooked::new(&journal.fork(), move |call| {
        reads += usize::from(call == Call::Read);
        if call == Call::Read && reads == 1 { Then::Wait(waits.clone()) } else { Then::GoOn }
    }))
    .await;
    let task = ledger.task(name("a")).on_crash(OnCrash::Run).on_failure(OnFailure::Refuse);
    let mut run = Hand::new(task.run(|_| ok(1)));
    assert!(run.poll().is_pending());
    gate.somebody_waits().await;
    let mut verdict = Hand::new(ledger.resolve("a", Verdict::Failed, "leave it"));
    assert!(verdict.poll().is_pending());
    gate.open();
    verdict.finish().await.unwrap();
    let answer = soon(run.finish()).await;
    assert!(matches!(answer, Err(RunError::Refused { state: TaskState::Failed })), "{answer:?}");
    assert_eq!(ledger.record("a").await.unwrap().unwrap().attempt().get(), 1);
}

/// A verdict of success and its note were recorded one after the other: a refused one left its note, and
/// one that was taken might have lost it.
#[tokio::test]
async fn a_verdict_and_its_note_are_recorded_together_or_not_at_all() {
    for first in [true, false] {
        let (journal, gate) = (MemoryJournal::new(), Gate::default());
        // The open's, the failure's two, then whoever is in between.
        let ledger = open(Hooked::at_append(&journal, 3, Then::Wait(gate.clone()))).await;
        other(&ledger).await;
        let mut between = Hand::new(ledger.mark_succeeded(name("b")));
        assert!(between.poll().is_pending());
        gate.somebody_waits().await;
        let resolve = || Hand::new(ledger.resolve("a", Verdict::Succeeded, "it was charged"));
        let mark = || Hand::new(ledger.mark_succeeded(name("a")));
        let (mut one, mut two) = if first { (resolve(), mark()) } else { (mark(), resolve()) };
        assert!(one.poll().is_pending() && two.poll().is_pending());
        gate.open();
        between.finish().await.unwrap();
        one.finish().await.unwrap();
        let refused = two.finish().await;
        assert_eq!(refused, Err(ChangeError::Refused { state: TaskState::Succeeded }));
        let details = ledger.record("a").await.unwrap().unwrap();
        let notes: Vec<_> = details.notes.iter().map(|note| note.text.as_str()).collect();
        if first {
            assert_eq!(details.succeeded_by, Some(SuccessBy::Resolve));
            assert_eq!(notes, ["it was charged"]);
        } else {
            assert_eq!(details.succeeded_by, Some(SuccessBy::Mark));
            assert!(notes.is_empty(), "{notes:?}");
        }
    }
}

/// A note on an id whose run was in a pause sent whoever came next away from it: they executed at once.
#[tokio::test]
async fn a_note_in_a_pause_sends_nobody_away() {
    let hour = Duration::from_secs(3600);
    for pins in [true, false] {
        let (ledger, _) = fresh().await;
        let calls = Arc::new(AtomicU32::new(0));
        let counts = Arc::clone(&calls);
        let work = move |_: Context<String>| {
            let call = counts.fetch_add(1, Ordering::SeqCst);
            async move { if call == 0 { Err(name("busy")) } else { Ok(call) } }
        };
        let retry = Retry::attempts(NonZero::new(3).unwrap()).min_delay(hour).max_delay(hour);
        let mut run = Hand::new(ledger.task(name("a")).retry(retry).run(work));
        assert!(run.poll().is_pending());
        until(|| ledger.query_task_state_quick("a") == TaskState::Failed).await;
        // Nobody is scheduled between the end of this and the next call.
        let told = ledger.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                match pins {
                    true => told.pin("a").await.unwrap(),
                    false => told.note("a", "the cable was cut").await.unwrap(),
                }
            });
        })
        .join()
        .unwrap();
        let mut joins = Hand::new(ledger.run(name("a"), |_| ok(9)));
        assert!(joins.poll().is_pending());
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        ledger.resolve("a", Verdict::Retry, "mended").await.unwrap();
        assert_eq!(soon(run.finish()).await.unwrap().value, Some(1), "pins: {pins}");
        let claim = soon(joins.finish()).await.unwrap();
        assert_eq!((claim.kind, claim.value), (ClaimKind::Joined, Some(1)), "pins: {pins}");
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }
}

/// A verdict that was given while a probe was asked was passed over, if the probe then said that it could not
/// tell: the id was held, though it had succeeded or was released.
#[tokio::test]
async fn what_was_decided_while_a_probe_finds_out_nothing_comes_first() {
    #[derive(Clone, Copy, Debug)]
    enum Ends {
        Unknown,
        Panics,
        TimesOut,
    }
    for ends in [Ends::Unknown, Ends::Panics, Ends::TimesOut] {
        for verdict in [None, Some(Verdict::Succeeded), Some(Verdict::Retry), Some(Verdict::Failed)]
        {
            let (ledger, _) = crashed("a").await;
            let asked = ledger.clone();
            let begun = Arc::new(tokio::sync::Notify::new());
            let go = Arc::clone(&begun);
            let probed = ledger.task(name("a")).timeout(Duration::from_millis(500));
            let probed = probed.probe(move |_| async move {
                go.notified().await;
                if let Some(verdict) = verdict {
                    asked.resolve("a", verdict, "").await.unwrap();
                }
                match ends {
                    Ends::Unknown => Landed::Unknown,
                    Ends::Panics => panic!("on purpose"),
                    Ends::TimesOut => std::future::pending().await,
                }
            });
            let mut leads = Hand::new(probed.run(|_| ok(7)));
            assert!(leads.poll().is_pending());
            let mut joins =
                Hand::new(ledger.task(name("a")).on_crash(OnCrash::Hold).run(|_| ok(8)));
            assert!(joins.poll().is_pending());
            begun.notify_one();
            let (leads, joins) = (soon(leads.finish()).await, soon(joins.finish()).await);
            let told = (leads.map(|claim| claim.value), joins.map(|claim| claim.value));
            let right = matches!(
                (verdict, &told),
                (None, (Err(RunError::Held), Err(RunError::Held)))
                    | (Some(Verdict::Succeeded), (Ok(None), Ok(None)))
                    | (Some(Verdict::Retry | Verdict::Failed), (Ok(Some(7)), Ok(Some(7))))
            );
            assert!(right, "{ends:?} {verdict:?} {told:?}");
        }
    }
}

/// A probe that was not there, panicked, or was given no time by who asked it counted for everybody: who had
/// joined with one of its own was held, though that could tell.
#[tokio::test]
async fn only_a_probe_that_has_answered_answers_for_others() {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Ends {
        NotThere,
        Panics,
        TimesOut,
        TooLate,
        Unknown,
    }
    for ends in [Ends::NotThere, Ends::Panics, Ends::TimesOut, Ends::TooLate, Ends::Unknown] {
        let (ledger, _) = crashed("a").await;
        let soon_over = Duration::from_millis(20);
        let task = ledger.task(name("a"));
        let task = match ends {
            Ends::TimesOut => task.timeout(soon_over),
            Ends::TooLate => task.deadline(tokio::time::Instant::now() + soon_over),
            Ends::NotThere | Ends::Panics | Ends::Unknown => task,
        };
        let task = match ends {
            Ends::NotThere => task.on_crash(OnCrash::Ask),
            _ => task.probe(move |_| async move {
                match ends {
                    Ends::Panics => panic!("on purpose"),
                    Ends::Unknown => Landed::Unknown,
                    _ => std::future::pending().await,
                }
            }),
        };
        let mut leads = Hand::new(task.run(|_| ok(7)));
        assert!(leads.poll().is_pending());
        let tells = ledger.task(name("a")).probe(|_| async { Landed::Yes(Some(42)) });
        let mut joins = Hand::new(tells.run(|_| ok(8)));
        assert!(joins.poll().is_pending());
        let leads = soon(leads.finish()).await;
        assert!(matches!(leads, Err(RunError::Held)), "{ends:?}: {leads:?}");
        let joins = soon(joins.finish()).await;
        match ends {
            Ends::Unknown => assert!(matches!(joins, Err(RunError::Held)), "{joins:?}"),
            _ => assert_eq!(joins.unwrap().value, Some(42), "{ends:?}"),
        }
    }
}
