//! Stores that fail, panic or do not come back, at every call.

use crate::support::{Call, Gate, Hand, Hooked, Tasks, Then, name, ok, open, until};
use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use taskledger::{
    AttemptError, CancelError, ChangeError, CheckpointError, CloseError, Failure, Health,
    JournalError, LaunchError, MemoryJournal, OpenError, Outcome, Poison, ReadError, Rejection,
    TaskState, WaitError,
};
use tokio::sync::oneshot;

#[derive(Clone, Copy, Debug)]
enum Op {
    Succeed(&'static str),
    Fail(&'static str),
    Mark(&'static str),
    Revoke(&'static str),
    Forget(&'static str),
}

const WORKLOAD: [Op; 12] = [
    Op::Succeed("a"),
    Op::Fail("b"),
    Op::Mark("c"),
    Op::Succeed("b"),
    Op::Revoke("a"),
    Op::Succeed("a"),
    Op::Fail("d"),
    Op::Forget("d"),
    Op::Mark("d"),
    Op::Forget("c"),
    Op::Fail("c"),
    Op::Succeed("c"),
];

/// What each id may be at the next open, given what was acknowledged and what was not.
#[derive(Default)]
struct Promised {
    states: BTreeMap<&'static str, Vec<TaskState>>,
    poisoned: bool,
}

impl Promised {
    fn of(&self, id: &str) -> Vec<TaskState> {
        self.states.get(id).cloned().unwrap_or_else(|| vec![TaskState::NotFound])
    }

    fn acknowledged(&mut self, id: &'static str, state: TaskState) {
        assert!(!self.poisoned, "{id} was acknowledged after the poison");
        self.states.insert(id, vec![state]);
    }

    /// The write failed: the states it might have left come on top.
    fn in_doubt(&mut self, id: &'static str, might: &[TaskState]) {
        assert!(!self.poisoned, "{id} was taken up after the poison");
        self.poisoned = true;
        let mut states = self.of(id);
        states.extend(might);
        self.states.insert(id, states);
    }

    /// Sure that it ran: it is not as it was before.
    fn ran(&mut self, id: &'static str, might: &[TaskState]) {
        assert!(!self.poisoned, "{id} was taken up after the poison");
        self.poisoned = true;
        self.states.insert(id, might.to_vec());
    }

    fn rejected(&mut self, id: &'static str, might: &[TaskState]) {
        // The first one may have been in flight, and on its way to the disk, when the write failed.
        if !self.poisoned {
            self.in_doubt(id, might);
        }
    }
}

async fn perform(ledger: &Tasks, op: Op, promised: &mut Promised) {
    use TaskState::{Failed, NotFound, Succeeded};
    match op {
        Op::Succeed(id) | Op::Fail(id) => {
            let fails = matches!(op, Op::Fail(_));
            let after = if fails { Failed } else { Succeeded };
            let ran = Arc::new(AtomicBool::new(false));
            let runs = Arc::clone(&ran);
            let end = ledger.launch_block(name(id), async move {
                runs.store(true, Ordering::SeqCst);
                if fails { Err("no") } else { Ok(7) }
            });
            match end.await {
                Ok(7) | Err(AttemptError::Failed("no")) => promised.acknowledged(id, after),
                Err(AttemptError::Rejected { reason: Rejection::Poisoned(_), .. }) => {
                    assert!(!ran.load(Ordering::SeqCst), "it ran, and is said not to have");
                    promised.rejected(id, &[Failed]);
                }
                Err(AttemptError::InDoubt { outcome, .. }) => {
                    let expected =
                        if fails { Outcome::Failed("no") } else { Outcome::Succeeded(7) };
                    assert_eq!(outcome, expected, "the value comes with the doubt");
                    promised.ran(id, &[Failed, after]);
                }
                Err(AttemptError::Refused { state: Succeeded, .. }) => {
                    assert!(promised.poisoned && promised.of(id) == [Succeeded], "{id}");
                }
                other => panic!("{op:?}: {other:?}"),
            }
        }
        Op::Mark(id) => changed(ledger.mark_succeeded(name(id)).await, id, Succeeded, promised),
        Op::Forget(id) => changed(ledger.forget(id).await, id, NotFound, promised),
        Op::Revoke(id) => match ledger.revoke_task_block(name(id), ok(1)).await {
            Ok(1) => promised.acknowledged(id, NotFound),
            Err(AttemptError::Rejected { reason: Rejection::Poisoned(_), .. }) => {
                promised.rejected(id, &[]);
            }
            Err(AttemptError::InDoubt { outcome: Outcome::Succeeded(1), .. }) => {
                promised.in_doubt(id, &[NotFound]);
            }
            other => panic!("{op:?}: {other:?}"),
        },
    }
}

fn changed(
    result: Result<(), ChangeError>,
    id: &'static str,
    after: TaskState,
    promised: &mut Promised,
) {
    match result {
        Ok(()) => promised.acknowledged(id, after),
        Err(ChangeError::InDoubt(_)) => promised.in_doubt(id, &[after]),
        Err(ChangeError::Rejected(Rejection::Poisoned(_))) => promised.rejected(id, &[after]),
        other => panic!("{id}: {other:?}"),
    }
}

/// The n-th append fails, for every n and in every way: what was acknowledged is there at the next
/// open, what was not is one of the things it might be, and nothing in between was ever shown.
#[tokio::test]
async fn every_append_fails_once() {
    for fault in [Then::Fail, Then::FailAfterwards, Then::Panic, Then::PanicAfterwards] {
        for at in 1.. {
            assert!(at < 100, "the workload never ends");
            let journal = MemoryJournal::new();
            let ledger = open(Hooked::at_append(&journal, at, fault.clone())).await;
            let mut promised = Promised::default();
            for op in WORKLOAD {
                perform(&ledger, op, &mut promised).await;
            }
            let after_a_crash = open(journal.fork()).await;
            for (id, states) in &promised.states {
                let state = after_a_crash.query_task_state_quick(*id);
                assert!(
                    states.contains(&state),
                    "{id} is {state}, not {states:?} ({fault:?} {at})"
                );
            }
            if !promised.poisoned {
                ledger.close().await.unwrap();
                break;
            }
            poison_holds(&ledger, &journal, &fault).await;
        }
    }
}

async fn poison_holds(ledger: &Tasks, journal: &MemoryJournal, fault: &Then) {
    let Health::Poisoned(poison) = ledger.health() else { panic!("healthy") };
    let panicked = matches!(fault, Then::Panic | Then::PanicAfterwards);
    assert_eq!(matches!(poison, Poison::Panicked(_)), panicked, "{poison}");
    let records = journal.records();
    everything_is_poisoned(ledger, &poison).await;
    for _ in 0..2 {
        match ledger.close().await {
            Err(CloseError::Poisoned(why)) => assert_eq!(why, poison),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(journal.records(), records, "something was appended after the failure");
    assert!(matches!(ledger.health(), Health::Poisoned(_)), "closing does not hide it");
    // A store that panicked is leaked, with its lock; one that failed is let go.
    let again = Tasks::builder().open_journal(journal.clone()).await;
    assert_eq!(again.is_err(), panicked);
}

pub(crate) async fn everything_is_poisoned(ledger: &Tasks, poison: &Poison) {
    let rejected = Rejection::Poisoned(poison.clone());
    match ledger.launch(name("new"), ok(3)).await {
        Err(LaunchError::Rejected { reason, future }) => {
            assert_eq!((reason, future.await), (rejected.clone(), Ok(3)));
        }
        other => panic!("{other:?}"),
    }
    let changes = [
        ledger.mark_succeeded(name("new")).await,
        ledger.forget("new").await,
        ledger.set_metadata("m", Some(vec![])).await,
    ];
    assert!(changes.iter().all(|change| *change == Err(ChangeError::Rejected(rejected.clone()))));
    let revoke = ledger.revoke_task(name("new"), ok(3)).await;
    assert!(matches!(revoke, Err(LaunchError::Rejected { reason, .. }) if reason == rejected));
    assert!(
        matches!(ledger.checkpoint().await, Err(CheckpointError::Poisoned(why)) if why == *poison)
    );
    assert!(matches!(ledger.cancel("new", ""), Err(CancelError::NotRunning { .. })));
    assert_eq!(ledger.query_task_state("new").await, TaskState::NotFound);
    assert_eq!(ledger.wait("new").await, Ok(TaskState::NotFound));
    assert_eq!(ledger.record("new").await.unwrap(), None);
}

/// The end of a success fails: the value comes back in doubt, the id goes on being shown as what
/// it last surely was, and who asks is told of the doubt.
#[tokio::test]
async fn an_end_in_doubt_says_so_everywhere() {
    let journal = MemoryJournal::new();
    // 1 marks, 2 starts, 3 ends.
    let ledger = open(Hooked::at_append(&journal, 3, Then::FailAfterwards)).await;
    ledger.mark_succeeded(name("sure")).await.unwrap();
    let mut waiter = Hand::new(ledger.wait("a"));
    let (go, wait) = oneshot::channel::<()>();
    let future = async { wait.await.map(|()| 7).map_err(|error| error.to_string()) };
    let mut block = Hand::new(ledger.launch_block(name("a"), future));
    assert!(block.poll().is_pending());
    until(|| ledger.query_task_state_quick("a") == TaskState::Running).await;
    let mut late_waiter = Hand::new(ledger.wait("a"));
    assert!(late_waiter.poll().is_pending());
    assert!(waiter.poll().is_pending());
    go.send(()).unwrap();
    let error = block.finish().await.unwrap_err();
    assert!(error.source().unwrap().to_string().contains("Append(3) fails"), "{error:?}");
    assert!(matches!(error, AttemptError::InDoubt { outcome: Outcome::Succeeded(7), .. }));
    for waiter in [waiter, late_waiter, Hand::new(ledger.wait("a"))] {
        assert!(matches!(waiter.finish().await, Err(WaitError::InDoubt(Poison::Failed(_)))));
    }
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::Running, "what was last published");
    // The store can still be read, and what is read is marked.
    let record = ledger.record("a").await.unwrap().unwrap();
    assert!(record.in_doubt && record.state() == TaskState::Running);
    let record = ledger.record("sure").await.unwrap().unwrap();
    assert!(!record.in_doubt && record.state() == TaskState::Succeeded);
    assert_eq!(ledger.output("a").await.unwrap(), None);
    let again = ledger.launch(name("sure"), ok(1)).await;
    assert!(matches!(again, Err(LaunchError::Refused { state: TaskState::Succeeded, .. })));
    let again = ledger.launch(name("a"), ok(1)).await;
    assert!(matches!(again, Err(LaunchError::Rejected { reason: Rejection::Poisoned(_), .. })));
    ledger.close().await.unwrap_err();
    assert!(matches!(ledger.record("a").await, Err(ReadError::Poisoned(_))), "nobody reads now");
    // The record had made it.
    let ledger = open(journal).await;
    assert_eq!(ledger.output("a").await.unwrap(), Some(7));
}

/// A success that is being forgotten, or marked, when the write fails, is no certain success.
#[tokio::test]
async fn a_success_in_doubt_is_not_refused_as_certain() {
    let journal = MemoryJournal::new();
    let ledger = open(Hooked::at_append(&journal, 2, Then::Fail)).await;
    ledger.mark_succeeded(name("a")).await.unwrap();
    assert!(matches!(ledger.forget("a").await, Err(ChangeError::InDoubt(_))));
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::Succeeded);
    let launch = ledger.launch(name("a"), ok(1)).await;
    assert!(matches!(launch, Err(LaunchError::Rejected { reason: Rejection::Poisoned(_), .. })));
    assert!(matches!(ledger.wait("a").await, Err(WaitError::InDoubt(_))));
}

/// What still runs when the ledger is poisoned is left to end, with its value, and the lock stays
/// until it has.
#[tokio::test]
async fn what_runs_when_the_poison_comes_ends_in_doubt() {
    let journal = MemoryJournal::new();
    let ledger = open(Hooked::at_append(&journal, 2, Then::Fail)).await;
    let (go, wait) = oneshot::channel::<()>();
    let future = async { wait.await.map(|()| 7).map_err(|error| error.to_string()) };
    let mut block = Hand::new(ledger.launch_block(name("a"), future));
    assert!(block.poll().is_pending());
    until(|| ledger.query_task_state_quick("a") == TaskState::Running).await;
    ledger.mark_succeeded(name("b")).await.unwrap_err();
    assert!(block.poll().is_pending(), "it is left to end");
    let mut close = Hand::new(ledger.close());
    assert!(close.poll().is_pending());
    tokio::task::yield_now().await;
    assert!(Tasks::builder().open_journal(journal.clone()).await.is_err(), "it still runs");
    go.send(()).unwrap();
    let end = block.finish().await;
    assert!(matches!(end, Err(AttemptError::InDoubt { outcome: Outcome::Succeeded(7), .. })));
    assert!(matches!(close.finish().await, Err(CloseError::Poisoned(Poison::Failed(_)))));
    let ledger = open(journal).await;
    let record = ledger.record("a").await.unwrap().unwrap();
    assert_eq!(record.failure, Some(Failure::Crashed));
}

#[tokio::test]
async fn a_failing_open() {
    for at in [Call::Replay, Call::Append(0)] {
        for then in [Then::Fail, Then::FailAfterwards] {
            let journal = MemoryJournal::new();
            let hooked = Hooked::new(
                &journal,
                move |call| if call == at { then.clone() } else { Then::GoOn },
            );
            let opened = Tasks::builder().open_journal(hooked).await;
            assert!(matches!(opened, Err(OpenError::Journal(JournalError::Store(_)))));
            open(journal).await.close().await.unwrap();
        }
    }
}

/// A store that panics is in a state nobody knows: it is leaked. Dropping it here would panic
/// within a panic, and abort the process.
#[tokio::test]
async fn a_panicking_open_leaks_its_store() {
    for at in [Call::Replay, Call::Append(0)] {
        let hooked = Hooked::new(&MemoryJournal::new(), move |call| {
            if call == at || call == Call::Drop { Then::Panic } else { Then::GoOn }
        });
        let opened = Tasks::builder().open_journal(hooked).await;
        assert!(matches!(opened, Err(OpenError::Journal(JournalError::Panicked(_)))));
    }
}

#[tokio::test]
async fn a_failing_read_is_its_callers_alone() {
    let journal = MemoryJournal::new();
    let ledger =
        open(Hooked::new(
            &journal,
            |call| {
                if call == Call::Read { Then::Fail } else { Then::GoOn }
            },
        ))
        .await;
    assert_eq!(ledger.launch_block(name("a"), ok(1)).await.unwrap(), 1);
    assert!(matches!(ledger.record("a").await, Err(ReadError::Journal(JournalError::Store(_)))));
    assert_eq!(ledger.launch_block(name("b"), ok(1)).await.unwrap(), 1);
    ledger.close().await.unwrap();
}

/// After a panic nothing more is asked of a store, whatever the call was.
#[tokio::test]
async fn a_panicking_read_or_upkeep_poisons() {
    for at in [Call::Read, Call::Upkeep] {
        let journal = MemoryJournal::new();
        let armed = Arc::new(AtomicBool::new(false));
        let is_armed = Arc::clone(&armed);
        let ledger = open(Hooked::new(&journal, move |call| {
            if call == at && is_armed.load(Ordering::SeqCst) { Then::Panic } else { Then::GoOn }
        }))
        .await;
        ledger.mark_succeeded(name("a")).await.unwrap();
        armed.store(true, Ordering::SeqCst);
        if at == Call::Read {
            let read = ledger.record("a").await;
            assert!(matches!(read, Err(ReadError::Poisoned(Poison::Panicked(_)))), "{read:?}");
        } else {
            let checkpoint = ledger.checkpoint().await;
            assert!(matches!(checkpoint, Err(CheckpointError::Poisoned(Poison::Panicked(_)))));
        }
        poison_holds(&ledger, &journal, &Then::Panic).await;
    }
}

#[tokio::test]
async fn a_failing_upkeep_poisons_and_a_failing_checkpoint_does_not() {
    let journal = MemoryJournal::new();
    let hooked = Hooked::new(&journal, |_| Then::GoOn);
    let fails = Arc::clone(&hooked.checkpoints_fail);
    let ledger = open(hooked).await;
    fails.store(true, Ordering::SeqCst);
    let (first, second) = (ledger.checkpoint().await, ledger.checkpoint().await);
    assert!(matches!(first, Err(CheckpointError::Failed(_))), "{first:?}");
    assert!(matches!(second, Err(CheckpointError::Failed(_))));
    assert_eq!(ledger.health(), Health::Serving);
    fails.store(false, Ordering::SeqCst);
    ledger.mark_succeeded(name("a")).await.unwrap();
    ledger.checkpoint().await.unwrap();
    ledger.close().await.unwrap();

    let marked = AtomicBool::new(false);
    let ledger = open(Hooked::new(&journal, move |call| {
        // The first upkeep comes before any request.
        let failing = call == Call::Upkeep && marked.load(Ordering::SeqCst);
        marked.fetch_or(call == Call::Append(1), Ordering::SeqCst);
        if failing { Then::Fail } else { Then::GoOn }
    }))
    .await;
    // The batch itself was durable.
    ledger.mark_succeeded(name("b")).await.unwrap();
    until(|| matches!(ledger.health(), Health::Poisoned(Poison::Failed(_)))).await;
    ledger.close().await.unwrap_err();
    assert_eq!(open(journal).await.query_task_state_quick("b"), TaskState::Succeeded);
}

#[tokio::test]
async fn a_failing_or_panicking_close_is_told_to_everybody() {
    for then in [Then::Fail, Then::Panic] {
        let journal = MemoryJournal::new();
        let ledger = open(Hooked::new(&journal, move |call| {
            if call == Call::Close { then.clone() } else { Then::GoOn }
        }))
        .await;
        ledger.mark_succeeded(name("a")).await.unwrap();
        for _ in 0..2 {
            assert!(matches!(ledger.close().await, Err(CloseError::Journal(_))));
        }
        assert_eq!(open(journal.fork()).await.query_task_state_quick("a"), TaskState::Succeeded);
    }
}

/// A journal that panics when it is dropped takes nobody with it.
#[tokio::test]
async fn a_journal_that_panics_when_dropped() {
    let journal = MemoryJournal::new();
    let ledger =
        open(Hooked::new(
            &journal,
            |call| {
                if call == Call::Drop { Then::Panic } else { Then::GoOn }
            },
        ))
        .await;
    ledger.close().await.unwrap();
}

/// A poll of a caller's future after the poison never blocks, whatever it waited for.
#[tokio::test]
async fn whoever_waits_for_room_when_the_poison_comes_is_answered() {
    let journal = MemoryJournal::new();
    let gate = Gate::default();
    let wait = gate.clone();
    let ledger = Tasks::builder()
        .max_pending(1)
        .open_journal(Hooked::new(&journal, move |call| match call {
            Call::Append(1) => {
                wait.pass();
                Then::Fail
            }
            _ => Then::GoOn,
        }))
        .await
        .unwrap();
    let mut first = Hand::new(ledger.mark_succeeded(name("first")));
    assert!(first.poll().is_pending());
    gate.somebody_waits().await;
    let mut waiting: Vec<_> =
        (0..10).map(|n| Hand::new(ledger.mark_succeeded(format!("{n}")))).collect();
    assert!(waiting.iter_mut().all(|hand| matches!(hand.poll(), Poll::Pending)));
    gate.open();
    assert!(matches!(first.finish().await, Err(ChangeError::InDoubt(_))));
    for hand in waiting {
        let poisoned = hand.finish().await;
        assert!(matches!(poisoned, Err(ChangeError::Rejected(Rejection::Poisoned(_)))));
    }
    assert!(!journal.records().is_empty());
}

/// Ends that form while a batch fails go down with it, and are in doubt like it.
#[tokio::test]
async fn an_end_behind_the_failing_batch_is_in_doubt_too() {
    let journal = MemoryJournal::new();
    let gate = Gate::default();
    let wait = gate.clone();
    let ledger = open(Hooked::new(&journal, move |call| match call {
        Call::Append(2) => {
            wait.pass();
            Then::Fail
        }
        _ => Then::GoOn,
    }))
    .await;
    let (go, wait) = oneshot::channel::<()>();
    let future = async { wait.await.map(|()| 7).map_err(|error| error.to_string()) };
    let mut block = Hand::new(ledger.launch_block(name("a"), future));
    assert!(block.poll().is_pending());
    until(|| ledger.query_task_state_quick("a") == TaskState::Running).await;
    let mut mark = Hand::new(ledger.mark_succeeded(name("b")));
    assert!(mark.poll().is_pending());
    gate.somebody_waits().await;
    go.send(()).unwrap();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    gate.open();
    let end = block.finish().await;
    assert!(matches!(end, Err(AttemptError::InDoubt { outcome: Outcome::Succeeded(7), .. })));
    assert!(ledger.record("a").await.unwrap().unwrap().in_doubt);
}
