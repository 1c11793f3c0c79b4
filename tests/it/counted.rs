//! What is counted and shown while much happens at once, and in which order.

use crate::support::{Call, Gate, Hand, Hooked, Then, fresh, name, ok, open, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use taskledger::{Attempt, AttemptError, LaunchError, MemoryJournal, TaskState};

/// Counts stand between what was certainly done before they were asked for and what was certainly
/// begun before they answered, and never go back.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn counts_are_linearizable() {
    const WORKERS: usize = 8;
    const EACH: usize = 300;
    let (ledger, _) = fresh().await;
    let [begun, succeeded, failed] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..WORKERS {
        let (ledger, begun) = (ledger.clone(), Arc::clone(&begun));
        let (succeeded, failed) = (Arc::clone(&succeeded), Arc::clone(&failed));
        workers.spawn(async move {
            for number in 0..EACH {
                begun.fetch_add(1, Ordering::SeqCst);
                let fails = number % 3 == 0;
                let future = async move { if fails { Err("no") } else { Ok(7) } };
                match ledger.launch_block(format!("{worker} {number}"), future).await {
                    Ok(7) => succeeded.fetch_add(1, Ordering::SeqCst),
                    Err(AttemptError::Failed("no")) => failed.fetch_add(1, Ordering::SeqCst),
                    other => panic!("{other:?}"),
                };
            }
        });
    }
    let watch = tokio::spawn({
        let (ledger, begun) = (ledger.clone(), Arc::clone(&begun));
        let (succeeded, failed) = (Arc::clone(&succeeded), Arc::clone(&failed));
        async move {
            let views = [ledger.succeeded_tasks(), ledger.failed_tasks(), ledger.all_tasks()];
            let mut last = [0; 3];
            while last[2] < WORKERS * EACH || !ledger.running_tasks().is_empty() {
                let done =
                    [succeeded.load(Ordering::SeqCst), failed.load(Ordering::SeqCst), last[2]];
                let counts = [views[0].len(), views[1].len(), views[2].len()];
                let begun = begun.load(Ordering::SeqCst);
                for ((count, done), last) in counts.iter().zip(done).zip(last) {
                    assert!((done.max(last)..=begun).contains(count), "{counts:?} {done} {begun}");
                }
                last = counts;
                tokio::task::yield_now().await;
            }
        }
    });
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
    watch.await.unwrap();
    assert_eq!(ledger.succeeded_tasks().len(), WORKERS * EACH * 2 / 3);
    assert_eq!(ledger.succeeded_tasks().iter().count(), WORKERS * EACH * 2 / 3);
    assert_eq!(ledger.failed_tasks().iter().count(), WORKERS * EACH / 3);
    ledger.close().await.unwrap();
}

/// Of any number of launches of one id exactly one is accepted, and runs once.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn of_two_hundred_launches_of_one_id_one_runs() {
    let (ledger, journal) = fresh().await;
    for round in 0..20 {
        let runs = Arc::new(AtomicUsize::new(0));
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let (ledger, runs) = (ledger.clone(), Arc::clone(&runs));
            callers.spawn(async move {
                let future = async move {
                    runs.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    ok(7).await
                };
                match ledger.launch(format!("{round}"), future).await {
                    Ok(()) => true,
                    Err(LaunchError::Refused {
                        state: TaskState::Running | TaskState::Succeeded,
                        ..
                    }) => false,
                    other => panic!("{other:?}"),
                }
            });
        }
        let accepted = callers.join_all().await.into_iter().filter(|accepted| *accepted).count();
        assert_eq!(ledger.wait(&*format!("{round}")).await.unwrap(), TaskState::Succeeded);
        assert_eq!((accepted, runs.load(Ordering::SeqCst)), (1, 1));
    }
    assert_eq!(journal.records().len(), 1 + 2 * 20, "refusals are not recorded");
}

/// Durable, then visible, then run; and at the end durable, then visible, then told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_the_disk_then_memory_then_the_caller() {
    let journal = MemoryJournal::new();
    let gates = [(); 2].map(|()| Gate::default());
    let at = gates.clone();
    let ledger = open(Hooked::new(&journal, move |call| match call {
        Call::Append(1) => Then::Wait(at[0].clone()),
        Call::Append(2) => Then::Wait(at[1].clone()),
        _ => Then::GoOn,
    }))
    .await;
    let ran = Arc::new(AtomicBool::new(false));
    let runs = Arc::clone(&ran);
    let on_disk = journal.clone();
    let mut block = Hand::new(ledger.launch_block(name("a"), async move {
        assert_eq!(on_disk.records().len(), 2, "it runs, and that is not on record");
        runs.store(true, Ordering::SeqCst);
        ok(7).await
    }));
    let nothing_shown = || {
        assert_eq!(ledger.query_task_state_quick("a"), TaskState::NotFound);
        assert_eq!((ledger.all_tasks().len(), ledger.running_tasks().len()), (0, 0));
        assert!(!ran.load(Ordering::SeqCst), "it runs before it is durable");
    };
    assert!(block.poll().is_pending());
    gates[0].somebody_waits().await;
    for _ in 0..50 {
        tokio::task::yield_now().await;
        nothing_shown();
    }
    assert!(!block.is_woken());
    gates[0].open();
    gates[1].somebody_waits().await;
    assert!(ran.load(Ordering::SeqCst));
    for _ in 0..50 {
        tokio::task::yield_now().await;
        assert_eq!(ledger.query_task_state_quick("a"), TaskState::Running);
        assert_eq!((ledger.running_tasks().len(), ledger.succeeded_tasks().len()), (1, 0));
        assert!(block.poll().is_pending(), "told before it is durable");
    }
    gates[1].open();
    assert_eq!(block.finish().await.unwrap(), 7);
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::Succeeded);
    assert_eq!(ledger.succeeded_tasks().len(), 1);
}

/// Who comes while a group is on its way to the disk goes with the next one, all together.
#[tokio::test]
async fn what_comes_during_a_sync_goes_with_the_next() {
    let journal = MemoryJournal::new();
    let gate = Gate::default();
    let appends = Arc::new(AtomicUsize::new(0));
    let (at, counts) = (gate.clone(), Arc::clone(&appends));
    let ledger = open(Hooked::new(&journal, move |call| match call {
        Call::Append(number) => {
            counts.store(number, Ordering::SeqCst);
            if number == 1 { Then::Wait(at.clone()) } else { Then::GoOn }
        }
        _ => Then::GoOn,
    }))
    .await;
    let mut first = Hand::new(ledger.mark_succeeded(name("first")));
    assert!(first.poll().is_pending());
    gate.somebody_waits().await;
    let mut others = Vec::new();
    for number in 0..500 {
        let mut hand = Hand::new(ledger.mark_succeeded(format!("{number}")));
        assert!(hand.poll().is_pending());
        others.push(hand);
        // A task that submits without end is made to pause by tokio.
        tokio::task::yield_now().await;
    }
    gate.open();
    first.finish().await.unwrap();
    for hand in others {
        hand.finish().await.unwrap();
    }
    assert_eq!(appends.load(Ordering::SeqCst), 2, "one sync for all of them");
    until(|| ledger.succeeded_tasks().len() == 501).await;
}

/// A reader's cell may be older than the checkpoint it is read from; the details must still be of
/// one moment.
#[tokio::test]
async fn a_read_that_crosses_a_checkpoint_tells_of_one_moment() {
    let journal = MemoryJournal::new();
    let gates = [Gate::default(), Gate::default()];
    let at = gates.clone();
    // 1 starts, 2 fails, 3 is something else, 4 starts again.
    let ledger = open(Hooked::new(&journal, move |call| match call {
        Call::Append(3) => Then::Wait(at[0].clone()),
        Call::Append(4) => Then::Wait(at[1].clone()),
        _ => Then::GoOn,
    }))
    .await;
    ledger.launch_block(name("a"), async { Err::<u32, _>("no") }).await.unwrap_err();
    let mut other = Hand::new(ledger.mark_succeeded(name("other")));
    assert!(other.poll().is_pending());
    gates[0].somebody_waits().await;
    let mut launch = Hand::new(ledger.launch(name("a"), crate::support::never()));
    let mut checkpoint = Hand::new(ledger.checkpoint());
    assert!(launch.poll().is_pending() && checkpoint.poll().is_pending());
    gates[0].open();
    gates[1].somebody_waits().await;
    let mut read = Hand::new(ledger.record("a"));
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::Failed);
    assert!(read.poll().is_pending());
    gates[1].open();
    checkpoint.finish().await.unwrap();
    let record = read.finish().await.unwrap().unwrap();
    assert_eq!((record.state(), record.attempt()), (TaskState::Running, Attempt::new(2)));
    assert_eq!(record.failure, None);
    launch.finish().await.unwrap();
}

/// On disk: what came from the checkpoint, what from the log, and what was lost.
#[tokio::test]
async fn an_open_tells_what_it_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let builder = || taskledger::Ledger::<u32>::builder().ballast_bytes(0);
    let ledger = builder().open(&path).await.unwrap();
    assert_eq!((ledger.recovery().from_checkpoint(), ledger.recovery().records_replayed()), (0, 0));
    for id in 0..3 {
        ledger.mark_succeeded(id).await.unwrap();
    }
    ledger.checkpoint().await.unwrap();
    for id in 3..5 {
        ledger.mark_succeeded(id).await.unwrap();
    }
    ledger.close().await.unwrap();

    let ledger = builder().open(&path).await.unwrap();
    assert_eq!((ledger.recovery().from_checkpoint(), ledger.recovery().records_replayed()), (3, 2));
    assert_eq!((ledger.recovery().migrated(), ledger.recovery().loss_accepted()), (None, None));
    ledger.close().await.unwrap();

    std::fs::write(path.join("witness"), "no witness").unwrap();
    builder().open(&path).await.unwrap_err();
    let accepting = builder().accept_loss(taskledger::AcceptLoss::Yes);
    let ledger = accepting.open(&path).await.unwrap();
    let told = ledger.recovery().loss_accepted().unwrap();
    assert!(told.contains("witness"), "{told}");
    assert_eq!(ledger.recovery().from_checkpoint(), 5);
    ledger.close().await.unwrap();
}
