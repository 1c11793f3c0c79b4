//! Who watches sees the log, in its order, or is told what was missed.

use crate::support::{Hooked, Tasks, Then, fresh, name, ok, open, soon};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;
use taskledger::{Event, Lagged, Ledger, MemoryJournal, Retention, SeqNo, TaskState, Transition};

async fn rest(mut transitions: taskledger::Transitions<String>) -> Vec<Transition<String>> {
    let mut all = Vec::new();
    while let Some(transition) = transitions.next().await {
        all.push(transition.unwrap());
    }
    all
}

#[tokio::test]
async fn every_transition_is_seen_once_in_the_order_of_the_log() {
    let (ledger, journal) = fresh().await;
    ledger.mark_succeeded(name("before")).await.unwrap();
    let watching = ledger.watch();
    ledger.launch_block(name("a"), ok(1)).await.unwrap();
    ledger.set_metadata("m", Some(vec![1])).await.unwrap();
    ledger.run(name("b"), |_| async { Err::<u32, _>("no") }).await.unwrap_err();
    ledger.pin("b").await.unwrap();
    ledger.prune(&Retention::new().succeeded(Duration::ZERO)).await.unwrap();
    ledger.forget("a").await.unwrap();
    let late = ledger.watch();
    ledger.forget("b").await.unwrap();
    ledger.close().await.unwrap();
    drop(ledger);
    let seen = rest(watching).await;
    let logged: Vec<(SeqNo, Event)> = journal
        .records()
        .into_iter()
        .filter_map(|record| match record.entry {
            taskledger::Entry::Task { event, .. } => Some((record.seq, event)),
            _ => None,
        })
        .skip(1)
        .collect();
    let told: Vec<_> = seen.iter().map(|told| (told.seq, told.event.clone())).collect();
    assert_eq!(told, logged);
    let ids: Vec<String> = seen.iter().map(|told| told.id().unwrap()).collect();
    assert!(ids.iter().all(|id| ["a", "b", "before"].contains(&id.as_str())), "{ids:?}");
    assert_eq!(rest(late).await.len(), 1);
}

/// Looks, when it is woken, what has become of an id.
struct Looks {
    ledger: Tasks,
    id: String,
    seen: Mutex<Vec<TaskState>>,
}

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        let state = self.ledger.query_task_state_quick(&self.id);
        self.seen.lock().unwrap().push(state);
    }
}

/// What is told is visible already, to the first who hears of it; a caller that is dropped while it waits
/// has lost nothing.
#[tokio::test]
async fn what_is_told_is_visible() {
    let (ledger, _) = fresh().await;
    let mut transitions = ledger.watch();
    for number in 0..100 {
        let id = number.to_string();
        // It is woken by the writer itself.
        let looks =
            Arc::new(Looks { ledger: ledger.clone(), id: id.clone(), seen: Mutex::default() });
        let waker = Waker::from(Arc::clone(&looks));
        {
            let mut waiting = pin!(transitions.next());
            assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            ledger.mark_succeeded(id.clone()).await.unwrap();
        }
        assert_eq!(*looks.seen.lock().unwrap(), [TaskState::Succeeded]);
        let told = transitions.next().await.unwrap().unwrap();
        assert_eq!(told.id().unwrap(), id);
        assert_eq!(ledger.query_task_state_quick(&id), TaskState::Succeeded);
    }
}

#[tokio::test]
async fn who_is_too_slow_is_told_how_much_was_missed() {
    let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await.unwrap();
    let mut transitions = ledger.watch();
    let marked = ledger.mark_succeeded_all(0..10_000).await;
    assert!(marked.iter().all(Result::is_ok));
    ledger.close().await.unwrap();
    drop(ledger);
    let Some(Err(Lagged { missed, .. })) = transitions.next().await else {
        panic!("nothing was missed")
    };
    let mut seen = 0;
    while let Some(transition) = transitions.next().await {
        assert_eq!(transition.unwrap().id().unwrap(), missed + seen);
        seen += 1;
    }
    assert_eq!(missed + seen, 10_000);
}

/// The writer waits for nobody: not for who has stopped to look.
#[tokio::test]
async fn who_does_not_look_holds_up_nobody() {
    let (ledger, _): (Tasks, _) = fresh().await;
    let idle = ledger.watch();
    for number in 0..200 {
        ledger.mark_succeeded(number.to_string()).await.unwrap();
    }
    drop(idle);
    ledger.close().await.unwrap();
}

/// A watcher waited for ever when the ledger was closed, or poisoned, while a handle was left.
#[tokio::test]
async fn who_watches_hears_of_the_end() {
    for fails in [false, true] {
        let then = if fails { Then::Fail } else { Then::GoOn };
        // 0 is that of the open.
        let ledger = open(Hooked::at_append(&MemoryJournal::new(), 2, then)).await;
        let watching = ledger.watch();
        ledger.mark_succeeded(name("a")).await.unwrap();
        let last = ledger.mark_succeeded(name("b")).await;
        assert_eq!(last.is_err(), fails);
        assert_eq!(ledger.close().await.is_err(), fails);
        let seen = soon(rest(watching)).await;
        assert_eq!(seen.len(), if fails { 1 } else { 2 });
        // And so does who comes later.
        assert!(soon(rest(ledger.watch())).await.is_empty());
    }
}
