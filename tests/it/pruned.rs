//! What is pruned by age, and what a tombstone goes on saying.

use crate::support::{Call, Gate, Hand, Hooked, Tasks, Then, fresh, name, never, ok, open};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use taskledger::{
    AttemptError, ChangeError, ClaimKind, Context, Entry, Event, Failure, Journal as _, Ledger,
    MemoryJournal, PruneError, Pruned, Record, Retention, Retry, RunError, SeqNo, TaskState,
    Timestamp, Verdict,
};

/// Everything is old enough.
fn all() -> Retention {
    Retention::new().succeeded(Duration::ZERO).failed(Duration::ZERO)
}

async fn succeeded(ledger: &Tasks, id: &str) {
    ledger.launch_block(name(id), ok(7)).await.unwrap();
}

async fn failed(ledger: &Tasks, id: &str) {
    ledger.launch_block(name(id), async { Err::<u32, _>("no") }).await.unwrap_err();
}

/// For ever: over restarts, checkpoints, and whatever is asked for.
#[tokio::test]
async fn a_pruned_success_is_one_for_ever() {
    let (mut ledger, journal) = fresh().await;
    succeeded(&ledger, "a").await;
    succeeded(&ledger, "b").await;
    let pruned = ledger.prune(&all()).await.unwrap();
    assert_eq!((pruned.succeeded, pruned.failed), (2, 0));
    succeeded(&ledger, "c").await;
    for round in 0..3 {
        assert_eq!(ledger.tombstones(), 2);
        assert_eq!(ledger.query_task_state_quick("a"), TaskState::Succeeded);
        assert_eq!(ledger.query_task_state("b").await, TaskState::Succeeded);
        assert_eq!(ledger.query_task_state_quick("d"), TaskState::NotFound);
        let refused = ledger.launch_block(name("a"), ok(8)).await;
        assert!(matches!(refused, Err(AttemptError::Refused { state: TaskState::Succeeded, .. })));
        let refused = ledger.mark_succeeded(name("a")).await;
        assert_eq!(refused, Err(ChangeError::Refused { state: TaskState::Succeeded }));
        assert_eq!(ledger.wait("a").await.unwrap(), TaskState::Succeeded);
        let replayed = ledger.run(name("a"), |_| ok(8)).await.unwrap();
        assert_eq!((replayed.kind, replayed.value), (ClaimKind::Replayed, None));
        // Its details are gone, and so is its id: no view lists or counts it, but it is in there.
        let details = ledger.record("a").await.unwrap().unwrap();
        assert_eq!((details.state(), details.attempt().get()), (TaskState::Succeeded, 0));
        assert_eq!(
            (details.started_at, details.ended_at, details.cell.seq),
            (None, None, SeqNo::ZERO)
        );
        assert_eq!(ledger.output("a").await.unwrap(), None);
        assert_eq!((ledger.succeeded_tasks().len(), ledger.all_tasks().len()), (1, 1));
        let ids: Vec<String> = ledger.all_tasks().iter().map(Result::unwrap).collect();
        assert_eq!(ids, ["c"]);
        assert!(ledger.succeeded_tasks().contains("a") && ledger.all_tasks().contains("a"));
        if round == 1 {
            ledger.checkpoint().await.unwrap();
        }
        ledger.close().await.unwrap();
        ledger = open(journal.clone()).await;
    }
}

#[tokio::test]
async fn a_tombstone_is_forgotten_and_revoked_like_any_success() {
    let (ledger, journal) = fresh().await;
    for id in ["a", "b", "c", "d"] {
        succeeded(&ledger, id).await;
    }
    assert_eq!(ledger.prune(&all()).await.unwrap().succeeded, 4);
    ledger.forget("a").await.unwrap();
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::NotFound);
    succeeded(&ledger, "a").await;
    ledger.revoke_task_block(name("b"), async { Ok::<_, ()>(()) }).await.unwrap();
    assert_eq!(ledger.query_task_state_quick("b"), TaskState::NotFound);
    // A revoke that fails leaves a success whose id is known again.
    ledger.revoke_task_block(name("c"), async { Err::<(), _>("no") }).await.unwrap_err();
    assert_eq!(ledger.query_task_state_quick("c"), TaskState::Succeeded);
    let told = ledger.record("c").await.unwrap().unwrap();
    assert_eq!(told.revoke_failure, Some(Failure::Error("\"no\"".into())));
    assert_eq!((ledger.tombstones(), ledger.all_tasks().len()), (1, 2));
    ledger.checkpoint().await.unwrap();
    ledger.close().await.unwrap();
    let ledger = open(journal).await;
    assert_eq!((ledger.tombstones(), ledger.all_tasks().len()), (1, 2));
    let states = ledger.states(["a", "b", "c", "d"]);
    let success = TaskState::Succeeded;
    assert_eq!(states, [success, TaskState::NotFound, success, success]);
    // What was exhumed is old enough again.
    assert_eq!(ledger.prune(&all()).await.unwrap().succeeded, 2);
    assert_eq!(ledger.tombstones(), 3);
}

#[tokio::test]
async fn what_may_have_happened_and_what_is_pinned_is_kept() {
    let (ledger, journal) = fresh().await;
    ledger.launch(name("crashed"), never()).await.unwrap();
    ledger.launch(name("resolved"), never()).await.unwrap();
    let journal = journal.fork();
    let ledger = open(journal).await;
    ledger.resolve("resolved", Verdict::Failed, "").await.unwrap();
    failed(&ledger, "failed").await;
    failed(&ledger, "pinned failure").await;
    succeeded(&ledger, "pinned success").await;
    succeeded(&ledger, "success").await;
    let three = NonZero::new(1).unwrap();
    let gave_up = ledger.task(name("gave up")).max_attempts(three);
    assert!(matches!(gave_up.run(|_| async { Err::<u32, _>(0) }).await, Err(RunError::Failed(0))));
    for id in ["pinned failure", "pinned success"] {
        ledger.pin(id).await.unwrap();
    }
    assert!(ledger.pin("nobody").await.is_err());
    let would = ledger.prunable(&all()).await.unwrap();
    assert_eq!((would.succeeded, would.failed, would.pinned, would.held), (1, 2, 2, 2));
    assert_eq!((ledger.tombstones(), ledger.all_tasks().len()), (0, 7), "nothing is changed");
    assert_eq!(ledger.prune(&all()).await.unwrap(), would);
    let mut left: Vec<String> = ledger.all_tasks().iter().map(Result::unwrap).collect();
    left.sort();
    assert_eq!(left, ["crashed", "gave up", "pinned failure", "pinned success"]);
    assert_eq!(ledger.query_task_state_quick("failed"), TaskState::NotFound);
    ledger.unpin("pinned success").await.unwrap();
    // A launch takes the pin away.
    failed(&ledger, "pinned failure").await;
    let pruned = ledger.prune(&all()).await.unwrap();
    assert_eq!((pruned.succeeded, pruned.failed, pruned.pinned, pruned.held), (1, 1, 0, 2));
}

/// Everything between the first attempt and the last is one life of the id, with one effect key. Pruned
/// in a pause between two, it began anew: as attempt 1, with another key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_not_pruned_between_its_attempts() {
    let (ledger, _) = fresh().await;
    let (three, four) = (NonZero::new(3).unwrap(), NonZero::new(4).unwrap());
    let pause = Duration::from_millis(200);
    let retry = Retry::attempts(four).min_delay(pause).max_delay(pause);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let run = tokio::spawn({
        let (ledger, seen) = (ledger.clone(), Arc::clone(&seen));
        async move {
            let task = ledger.task(name("a")).max_attempts(three).retry(retry);
            let work = move |cx: Context<String>| {
                seen.lock().unwrap().push((cx.attempt().get(), cx.effect_key().to_string()));
                async { Err::<u32, _>("busy") }
            };
            task.run(work).await
        }
    });
    let mut held = 0;
    while !run.is_finished() {
        held += ledger.prune(&all()).await.unwrap().held;
    }
    assert!(held > 0, "it was tried in a pause");
    let answer = run.await.unwrap();
    assert!(matches!(answer, Err(RunError::Failed("busy"))), "{answer:?}");
    let failure = ledger.record("a").await.unwrap().unwrap().failure;
    assert!(matches!(failure, Some(Failure::GaveUp { attempts: 3, .. })), "{failure:?}");
    let seen = seen.lock().unwrap();
    let attempts: Vec<u32> = seen.iter().map(|(attempt, _)| *attempt).collect();
    assert_eq!(attempts, [1, 2, 3]);
    assert!(seen.iter().all(|(_, key)| *key == seen[0].1), "{seen:?}");
}

/// Somebody has found out that it may be tried again, and the effect may have happened all the same.
#[tokio::test]
async fn what_was_released_keeps_its_effect_key() {
    let (ledger, journal) = fresh().await;
    let (tell, told) = tokio::sync::oneshot::channel();
    let mut tell = Some(tell);
    let first = ledger.run(name("a"), move |cx| {
        tell.take().unwrap().send(cx.effect_key()).unwrap();
        never()
    });
    let key = tokio::select! { _ = first => unreachable!(), key = told => key.unwrap() };
    let ledger = open(journal.fork()).await;
    ledger.resolve("a", Verdict::Retry, "nothing seen").await.unwrap();
    let pruned = ledger.prune(&all()).await.unwrap();
    assert_eq!((pruned.failed, pruned.held), (0, 1));
    let again = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&again);
    let work = move |cx: Context<String>| {
        *seen.lock().unwrap() = Some((cx.attempt().get(), cx.effect_key()));
        ok(1)
    };
    ledger.run(name("a"), work).await.unwrap();
    assert_eq!(*again.lock().unwrap(), Some((2, key)));
}

/// Age counts from the end, to the microsecond; what is not named is kept for ever.
#[tokio::test]
async fn age_counts_from_the_end() {
    let journal = MemoryJournal::new();
    let now = Timestamp::from(SystemTime::now()).as_micros();
    let hour = 3_600_000_000;
    let event = |seq: u64| match seq {
        1..=3 => {
            Event::Succeeded { by: taskledger::SuccessBy::Mark, output: taskledger::Output::Absent }
        }
        _ => Event::Queued { payload: None, since: SeqNo::ZERO },
    };
    let records: Vec<Record> = [(1, 3 * hour), (2, 2 * hour), (3, hour)]
        .map(|(seq, age)| Record {
            seq: SeqNo::new(seq),
            at: Timestamp::from_micros(now - age),
            entry: Entry::Task {
                id: taskledger::EncodedId::from_bytes(&seq.to_be_bytes()),
                prev: SeqNo::ZERO,
                event: event(seq),
            },
        })
        .into();
    journal.clone().append(&records).unwrap();
    let ledger = Ledger::<[u8; 8]>::builder().open_journal(journal).await.unwrap();
    let nothing = ledger.prune(&Retention::new().failed(Duration::ZERO)).await.unwrap();
    assert_eq!(nothing, Pruned::default());
    let after = |hours: f64| Retention::new().succeeded(Duration::from_secs_f64(hours * 3_600.0));
    assert_eq!(ledger.prunable(&after(3.5)).await.unwrap().succeeded, 0);
    assert_eq!(ledger.prunable(&after(2.5)).await.unwrap().succeeded, 1);
    assert_eq!(ledger.prune(&after(1.5)).await.unwrap().succeeded, 2);
    assert_eq!(ledger.all_tasks().len(), 1);
    let ages = Retention::new().succeeded(Duration::MAX).failed(Duration::MAX);
    assert_eq!(ledger.prune(&ages).await.unwrap(), Pruned::default());
}

/// Nobody knows how old anything is while the clock stands before the newest record.
#[tokio::test]
async fn a_clock_that_was_set_back_prunes_nothing() {
    let journal = MemoryJournal::new();
    let ahead = Timestamp::from(SystemTime::now() + Duration::from_secs(3_600));
    let id = taskledger::EncodedId::from_bytes(&7_u64.to_be_bytes());
    let event =
        Event::Succeeded { by: taskledger::SuccessBy::Mark, output: taskledger::Output::Absent };
    let entry = Entry::Task { id, prev: SeqNo::ZERO, event };
    journal.clone().append(&[Record { seq: SeqNo::new(1), at: ahead, entry }]).unwrap();
    let ledger = Ledger::<[u8; 8]>::builder().open_journal(journal).await.unwrap();
    let refused = ledger.prune(&all()).await;
    assert!(
        matches!(refused, Err(PruneError::Clock { newest, .. }) if newest == ahead),
        "{refused:?}"
    );
    assert_eq!((ledger.tombstones(), ledger.all_tasks().len()), (0, 1));
    // But it may be the record that is wrong: who says which time it is goes on.
    ledger.mark_succeeded([8; 8]).await.unwrap();
    let as_of = |ahead: u64| all().as_of(SystemTime::now() + Duration::from_secs(ahead));
    assert_eq!(ledger.prunable(&as_of(60)).await.unwrap().succeeded, 1);
    assert_eq!(ledger.prune(&as_of(60)).await.unwrap().succeeded, 1);
    assert_eq!((ledger.tombstones(), ledger.all_tasks().len()), (1, 1));
    assert_eq!(ledger.prune(&as_of(7_200)).await.unwrap().succeeded, 1);
}

/// A checkpoint tells when its ids ended: of what was recorded before the last one it is all there is.
#[tokio::test]
async fn a_clock_that_was_set_back_prunes_nothing_over_a_checkpoint() {
    let journal = MemoryJournal::new();
    let now = SystemTime::now();
    let day = Duration::from_secs(86_400);
    let mark =
        || Event::Succeeded { by: taskledger::SuccessBy::Mark, output: taskledger::Output::Absent };
    let ahead = Timestamp::from(now + 3_650 * day);
    let records: Vec<Record> = [(1, Timestamp::from(now - 40 * day)), (2, ahead)]
        .map(|(seq, at)| Record {
            seq: SeqNo::new(seq),
            at,
            entry: Entry::Task {
                id: taskledger::EncodedId::from_bytes(&seq.to_be_bytes()),
                prev: SeqNo::ZERO,
                event: mark(),
            },
        })
        .into();
    journal.clone().append(&records).unwrap();
    journal.clone().upkeep(Some(SeqNo::new(2))).unwrap();
    assert_eq!(journal.records(), [], "all of it is folded");
    let ledger = Ledger::<[u8; 8]>::builder().open_journal(journal).await.unwrap();
    let refused = ledger.prune(&Retention::new().succeeded(30 * day)).await;
    assert!(
        matches!(refused, Err(PruneError::Clock { newest, .. }) if newest == ahead),
        "{refused:?}"
    );
    assert_eq!((ledger.tombstones(), ledger.all_tasks().len()), (0, 2));
}

/// A ledger whose journal counts what it is asked for.
async fn counting() -> (Ledger<u64>, [Arc<AtomicUsize>; 2]) {
    let counts = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let [appends, reads] = counts.clone();
    let journal = Hooked::new(&MemoryJournal::new(), move |call| {
        match call {
            Call::Append(_) => _ = appends.fetch_add(1, Ordering::SeqCst),
            Call::Read => _ = reads.fetch_add(1, Ordering::SeqCst),
            _ => {}
        }
        Then::GoOn
    });
    (Ledger::builder().open_journal(journal).await.unwrap(), counts)
}

/// Thousands at once are one group commit, whatever is asked for.
#[tokio::test]
async fn many_ids_are_one_append() {
    let (ledger, [appends, _]) = counting().await;
    let since = |before: usize| appends.load(Ordering::SeqCst) - before;
    let ids: Vec<u64> = (0..20_000).collect();
    let before = since(0);
    let marked = ledger.mark_succeeded_all(ids.clone()).await;
    assert!(marked.iter().all(Result::is_ok));
    assert_eq!(since(before), 1, "marked");
    let before = since(0);
    assert!(ledger.forget_all(&ids).await.iter().all(Result::is_ok));
    assert_eq!(since(before), 1, "forgotten");
    let before = since(0);
    let never = || std::future::pending::<Result<(), String>>();
    let launched = ledger.launch_all(ids.iter().map(|id| (*id, never()))).await;
    assert!(launched.iter().all(Result::is_ok));
    assert_eq!(since(before), 1, "launched");
    // Ids of a kilobyte: 4 MiB of them at a time.
    let journal = MemoryJournal::new();
    let appends = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&appends);
    let journal = Hooked::new(&journal, move |call| {
        counted.fetch_add(usize::from(matches!(call, Call::Append(_))), Ordering::SeqCst);
        Then::GoOn
    });
    let ledger = Ledger::<String>::builder().open_journal(journal).await.unwrap();
    let before = appends.load(Ordering::SeqCst);
    let long = |number: u32| format!("{number:01000}");
    assert!(ledger.mark_succeeded_all((0..5_000).map(long)).await.iter().all(Result::is_ok));
    assert_eq!(appends.load(Ordering::SeqCst) - before, 2);
}

/// Only what has changed since the last checkpoint takes the writer's time, and only what is old is
/// written.
#[tokio::test]
async fn a_sweep_asks_the_writer_for_what_is_newer_than_the_checkpoint() {
    let (ledger, [appends, reads]) = counting().await;
    let counts = || [appends.load(Ordering::SeqCst), reads.load(Ordering::SeqCst)];
    ledger.mark_succeeded_all(0..5_000).await;
    ledger.launch(5_000, async { Err::<(), _>("no") }).await.unwrap();
    ledger.wait(&5_000).await.unwrap();
    ledger.checkpoint().await.unwrap();
    ledger.mark_succeeded_all(6_000..6_010).await;
    // In the checkpoint it is a failure, and now it has succeeded.
    ledger.mark_succeeded(5_000).await.unwrap();
    let day = Duration::from_secs(86_400);
    let before = counts();
    let nothing = ledger.prune(&Retention::new().succeeded(day).failed(day)).await.unwrap();
    assert_eq!(nothing, Pruned::default());
    assert_eq!(counts(), [before[0], before[1] + 11]);
    assert_eq!(ledger.prunable(&all()).await.unwrap().succeeded, 5_011);
    let before = counts();
    let pruned = ledger.prune(&all()).await.unwrap();
    assert_eq!((pruned.succeeded, pruned.failed), (5_011, 0));
    assert_eq!(counts(), [before[0] + 5, before[1] + 11]);
    assert_eq!((ledger.tombstones(), ledger.all_tasks().len()), (5_011, 0));
}

/// A prune compares the clock with the newest record. It once read the clock first, so a record made between
/// the two looks was newer than it, and the prune of a busy ledger was refused now and then for a clock that
/// was set back. It looks at the record first now.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_record_made_meanwhile_is_no_clock_that_was_set_back() {
    let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await.unwrap();
    let pruning = tokio::spawn({
        let ledger = ledger.clone();
        async move {
            for _ in 0..2_000 {
                ledger.prune(&Retention::new().failed(Duration::ZERO)).await.unwrap();
            }
        }
    });
    let mut id = 0;
    while !pruning.is_finished() {
        ledger.mark_succeeded(id).await.unwrap();
        id += 1;
    }
    pruning.await.unwrap();
}

/// A failure that becomes a success while it is looked at is pruned as neither. Its id was listed as failed,
/// its details were read as those of a success, and that was buried, with its output, by a prune that was to
/// take failures alone: the crash lab's `kept` found it.
#[tokio::test]
async fn what_succeeds_meanwhile_is_not_pruned_as_a_failure() {
    let gate = Gate::default();
    // The open, the start and its failure come before.
    let hooked = Hooked::at_append(&MemoryJournal::new(), 3, Then::Wait(gate.clone()));
    let ledger = Tasks::builder().open_journal(hooked).await.unwrap();
    failed(&ledger, "a").await;
    let mut marking = Hand::new(ledger.mark_succeeded(name("a")));
    assert!(marking.poll().is_pending());
    gate.somebody_waits().await;
    let failures = Retention::new().failed(Duration::ZERO);
    let mut pruning = Hand::new(ledger.prune(&failures));
    assert!(pruning.poll().is_pending(), "it has found a failure, and asks for its details");
    gate.open();
    assert_eq!(pruning.finish().await.unwrap(), Pruned::default());
    marking.finish().await.unwrap();
    assert_eq!((ledger.tombstones(), ledger.succeeded_tasks().len()), (0, 1));
}

/// What is in a file of the checkpoint, what is newer, and what has changed since.
#[tokio::test]
async fn a_ledger_on_disk_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let open = || Ledger::<u64>::builder().ballast_bytes(0).open(&path);
    let ledger = open().await.unwrap();
    ledger.mark_succeeded_all(0..3_000).await;
    for id in 3_000..3_003 {
        ledger.launch_block(id, async { Err::<(), _>("no") }).await.unwrap_err();
    }
    ledger.checkpoint().await.unwrap();
    ledger.mark_succeeded_all(4_000..4_100).await;
    ledger.pin(&5).await.unwrap();
    ledger.forget(&6).await.unwrap();
    ledger.mark_succeeded(3_000).await.unwrap();
    ledger.launch(3_001, std::future::pending::<Result<(), String>>()).await.unwrap();
    let would = ledger.prunable(&all()).await.unwrap();
    assert_eq!((would.succeeded, would.failed, would.pinned, would.held), (3_099, 1, 1, 0));
    assert_eq!(ledger.prune(&all()).await.unwrap(), would);
    ledger.close_within(Duration::ZERO).await.unwrap();
    let ledger = open().await.unwrap();
    assert_eq!((ledger.tombstones(), ledger.all_tasks().len()), (3_099, 2));
    assert_eq!(ledger.query_task_state_quick(&6), TaskState::NotFound);
    assert_eq!(ledger.query_task_state_quick(&3_000), TaskState::Succeeded);
    assert_eq!(ledger.query_task_state_quick(&3_002), TaskState::NotFound);
    ledger.close().await.unwrap();
}

/// Thousands, in batches, while others work on the same ids.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pruning_beside_work() {
    let journal = MemoryJournal::new();
    let ledger = Ledger::<u64>::builder().open_journal(journal.clone()).await.unwrap();
    let marked = ledger.mark_succeeded_all(0..20_000).await;
    assert!(marked.iter().all(Result::is_ok));
    let pruning = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.prune(&Retention::new().succeeded(Duration::ZERO)).await.unwrap() }
    });
    let asking = std::thread::spawn({
        let ledger = ledger.clone();
        move || {
            for round in 0..20 {
                for id in 0..20_000 {
                    let state = ledger.query_task_state_quick(&(id as u64));
                    // At every moment it is a success, wherever that stands.
                    assert_eq!(state, TaskState::Succeeded, "{id} in round {round}");
                }
            }
        }
    });
    let pruned = pruning.await.unwrap();
    asking.join().unwrap();
    assert_eq!(
        (pruned.succeeded, ledger.tombstones(), ledger.all_tasks().len()),
        (20_000, 20_000, 0)
    );
    let forgotten = ledger.forget_all((0..10_000).collect::<Vec<u64>>().iter()).await;
    assert!(forgotten.iter().all(Result::is_ok));
    ledger.checkpoint().await.unwrap();
    ledger.close().await.unwrap();
    let ledger = Ledger::<u64>::builder().open_journal(journal).await.unwrap();
    assert_eq!(ledger.tombstones(), 10_000);
    assert_eq!(ledger.states([&9_999, &10_000]), [TaskState::NotFound, TaskState::Succeeded]);
}

/// However little room there is for requests, many are asked for in parts that fit.
#[tokio::test]
async fn many_ids_and_next_to_no_room() {
    for room in [1, 2, 7] {
        let builder = Ledger::<u64>::builder().max_pending(room);
        let ledger = builder.open_journal(MemoryJournal::new()).await.unwrap();
        let work = async {
            assert!(ledger.mark_succeeded_all(0..200).await.iter().all(Result::is_ok));
            let pruned = ledger.prune(&Retention::new().succeeded(Duration::ZERO)).await.unwrap();
            assert_eq!(pruned.succeeded, 200);
            let ids: Vec<u64> = (0..200).collect();
            assert!(ledger.forget_all(&ids).await.iter().all(Result::is_ok));
        };
        tokio::time::timeout(Duration::from_secs(30), work).await.expect("it waits for room");
    }
}

/// For whoever looks in from outside: what an open would find.
#[tokio::test]
async fn an_inspection_knows_the_graves_and_the_type() {
    use taskledger::dump::Inspection;
    use taskledger::{ByteId, EncodedId, IdError, OpenError};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let ledger = Ledger::<ByteId, ()>::builder().ballast_bytes(0).open(&path).await.unwrap();
    let [pruned, kept, never] = ["pruned", "kept", "never"].map(ByteId::from);
    ledger.mark_succeeded(pruned.clone()).await.unwrap();
    assert_eq!(ledger.prune(&all()).await.unwrap().succeeded, 1);
    ledger.mark_succeeded(kept.clone()).await.unwrap();
    ledger.close().await.unwrap();

    let inspection = Inspection::open(&path).unwrap();
    let graveyard = inspection.graveyard().unwrap();
    let has = |id| graveyard.has(&EncodedId::of(id).unwrap());
    assert_eq!([has(&pruned), has(&kept), has(&never)], [true, false, false]);
    let listed = inspection.tasks().next().unwrap().unwrap().0;
    assert_eq!(listed, EncodedId::of(&kept).unwrap());
    assert!(matches!(inspection.check_id_type::<ByteId>(), Ok(())));
    let other = inspection.check_id_type::<(u32, bool)>();
    assert!(matches!(other, Err(OpenError::OtherIdType(_))), "{other:?}");
    let long = ByteId::from(vec![b'x'; 1022]);
    assert!(matches!(EncodedId::of(&long), Err(IdError::TooLong { len: 1025, .. })));
}
