//! Stores that do not come back, and what happens when they do after all.

use crate::faults::everything_is_poisoned;
use crate::support::{Call, Gate, Hand, Hooked, Tasks, Then, fresh, name, ok, open, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use taskledger::{
    AttemptError, ChangeError, CheckpointError, CloseError, Health, LaunchError, MemoryJournal,
    OpenError, Poison, ReadError, Rejection, TaskState,
};

/// The deadline of the watchdog is the only clock here: the stuck call is the first one watched.
const SOON: Duration = Duration::from_millis(20);

/// An append does not come back: everybody is answered, nothing of it is shown, and when it does
/// come back after all, that changes nothing.
#[tokio::test]
async fn a_stuck_append() {
    let (ledger, journal) = fresh().await;
    ledger.mark_succeeded(name("sure")).await.unwrap();
    ledger.close().await.unwrap();
    let gate = Gate::default();
    let hooked = Hooked::at_append(&journal, 1, Then::Wait(gate.clone()));
    let ledger = Tasks::builder().sync_deadline(SOON).open_journal(hooked).await.unwrap();
    let mut launch = Hand::new(ledger.launch(name("a"), ok(1)));
    let mut block = Hand::new(ledger.launch_block(name("b"), ok(1)));
    let mut mark = Hand::new(ledger.mark_succeeded(name("c")));
    let mut read = Hand::new(ledger.record("sure"));
    let mut checkpoint = Hand::new(ledger.checkpoint());
    assert!(launch.poll().is_pending());
    assert!(block.poll().is_pending());
    assert!(mark.poll().is_pending());
    assert!(read.poll().is_pending());
    assert!(checkpoint.poll().is_pending());
    gate.somebody_waits().await;
    let stuck = Poison::Stuck { after: SOON };
    assert!(matches!(launch.finish().await,
        Err(LaunchError::Rejected { reason: Rejection::Poisoned(why), .. }) if why == stuck));
    assert!(matches!(block.finish().await,
        Err(AttemptError::Rejected { reason: Rejection::Poisoned(why), .. }) if why == stuck));
    assert!(matches!(mark.finish().await,
        Err(ChangeError::InDoubt(why) | ChangeError::Rejected(Rejection::Poisoned(why))) if why == stuck));
    assert!(matches!(read.finish().await, Err(ReadError::Poisoned(why)) if why == stuck));
    assert!(
        matches!(checkpoint.finish().await, Err(CheckpointError::Poisoned(why)) if why == stuck)
    );
    assert_eq!(ledger.health(), Health::Poisoned(stuck.clone()));
    everything_is_poisoned(&ledger, &stuck).await;
    assert!(matches!(ledger.close().await, Err(CloseError::Poisoned(why)) if why == stuck));
    let shown = |ledger: &Tasks| {
        assert_eq!(ledger.all_tasks().len(), 1, "nothing of it was published");
        assert_eq!(ledger.query_task_state_quick("sure"), TaskState::Succeeded);
        assert!(!ledger.running_tasks().contains("a"));
    };
    shown(&ledger);
    let late = journal.records().len();
    gate.open();
    until(|| journal.records().len() > late).await;
    shown(&ledger);
    assert_eq!(ledger.health(), Health::Poisoned(stuck.clone()));
    assert!(matches!(ledger.close().await, Err(CloseError::Poisoned(why)) if why == stuck));
    assert!(Tasks::builder().open_journal(journal).await.is_err(), "its locks stay");
}

/// Reads, upkeep and the close itself are calls into the store like any other.
#[tokio::test]
async fn a_stuck_read_upkeep_or_close() {
    for stuck_at in [Call::Read, Call::Upkeep, Call::Close] {
        let (ledger, journal) = fresh().await;
        ledger.mark_succeeded(name("sure")).await.unwrap();
        ledger.close().await.unwrap();
        let gate = Gate::default();
        let at = gate.clone();
        let hooked = Hooked::new(&journal, move |call| {
            if call == stuck_at { Then::Wait(at.clone()) } else { Then::GoOn }
        });
        let ledger = Tasks::builder().sync_deadline(SOON).open_journal(hooked).await.unwrap();
        match stuck_at {
            Call::Read => {
                let read = ledger.record("sure").await;
                assert!(matches!(read, Err(ReadError::Poisoned(Poison::Stuck { .. }))), "{read:?}");
            }
            Call::Upkeep => {
                let checkpoint = ledger.checkpoint().await;
                assert!(matches!(checkpoint, Err(CheckpointError::Poisoned(Poison::Stuck { .. }))));
            }
            _ => {}
        }
        let closed = ledger.close().await;
        assert!(matches!(closed, Err(CloseError::Poisoned(Poison::Stuck { .. }))), "{closed:?}");
        assert!(matches!(ledger.health(), Health::Poisoned(Poison::Stuck { .. })));
        gate.open();
    }
}

/// An open that does not come back is given up; when it comes back after all, it closes again.
#[tokio::test]
async fn a_stuck_open() {
    for stuck_at in [Call::Replay, Call::Append(0)] {
        let journal = MemoryJournal::new();
        let gate = Gate::default();
        let at = gate.clone();
        let closed = Arc::new(AtomicBool::new(false));
        let closes = Arc::clone(&closed);
        let hooked = Hooked::new(&journal, move |call| {
            closes.fetch_or(call == Call::Drop, Ordering::SeqCst);
            if call == stuck_at { Then::Wait(at.clone()) } else { Then::GoOn }
        });
        let opened = Tasks::builder().open_deadline(SOON).open_journal(hooked).await;
        assert!(matches!(opened, Err(OpenError::Stuck { after: SOON })));
        gate.open();
        until(|| closed.load(Ordering::SeqCst)).await;
        let ledger = open(journal).await;
        assert_eq!(ledger.launch_block(name("a"), ok(1)).await.unwrap(), 1);
    }
}
