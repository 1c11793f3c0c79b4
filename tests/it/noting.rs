//! Notes of what runs while the ledger closes: they were refused, so that a run that notes how far it has got
//! failed in every graceful shutdown.

use crate::support::{Gate, Hand, Hooked, Tasks, Then, name, open, soon, until};
use std::sync::Arc;
use taskledger::{ChangeError, Context, MemoryJournal, Rejection, TaskState};
use tokio::sync::Notify;

#[tokio::test]
async fn what_runs_goes_on_noting_while_the_ledger_closes() {
    let journal = MemoryJournal::new();
    let ledger = Tasks::builder().max_pending(1).open_journal(journal.clone()).await.unwrap();
    let go = Arc::new(Notify::new());
    let gate = Arc::clone(&go);
    let work = move |cx: Context<String>| {
        let gate = Arc::clone(&gate);
        async move {
            gate.notified().await;
            // More at once than there is room for.
            let notes: Vec<_> = (0..5).map(|part| cx.note(format!("part {part}"))).collect();
            for note in notes {
                note.await?;
            }
            Ok::<_, ChangeError>(7)
        }
    };
    let runs = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.run(name("a"), work).await }
    });
    until(|| ledger.query_task_state_quick("a") == TaskState::Running).await;
    let mut close = Hand::new(ledger.close());
    assert!(close.poll().is_pending());
    let late = ledger.mark_succeeded(name("b")).await;
    assert!(matches!(late, Err(ChangeError::Rejected(Rejection::Closed))), "{late:?}");
    go.notify_one();
    assert_eq!(soon(runs).await.unwrap().unwrap().value, Some(7));
    soon(close.finish()).await.unwrap();
    let ledger = open(journal.fork()).await;
    assert_eq!(ledger.record("a").await.unwrap().unwrap().notes.len(), 5);
}

/// How many are under way is bounded all the same, whoever drops them.
#[tokio::test]
async fn notes_have_room_of_their_own_and_no_more() {
    let gate = Gate::default();
    // 1 is the start.
    let hooked = Hooked::at_append(&MemoryJournal::new(), 2, Then::Wait(gate.clone()));
    let ledger = Tasks::builder().max_pending(2).open_journal(hooked).await.unwrap();
    let (tell, told) = tokio::sync::oneshot::channel();
    let mut tell = Some(tell);
    let work = move |cx: Context<String>| {
        drop(tell.take().map(|tell| tell.send(cx)));
        std::future::pending::<Result<u32, String>>()
    };
    let mut runs = Hand::new(ledger.run(name("a"), work));
    assert!(runs.poll().is_pending());
    let cx = told.await.unwrap();
    let mut first = Hand::new(cx.note("1"));
    assert!(first.poll().is_pending());
    gate.somebody_waits().await;
    // The writer holds one; there is room for one more, and a third one waits for that.
    let mut second = Hand::new(cx.note("2"));
    assert!(second.poll().is_pending());
    drop(second);
    let mut third = Hand::new(cx.note("3"));
    assert!(third.poll().is_pending());
    drop(third);
    // They take no room of anybody else's.
    let mut mark = Hand::new(ledger.mark_succeeded(name("b")));
    assert!(mark.poll().is_pending());
    gate.open();
    soon(mark.finish()).await.unwrap();
    soon(first.finish()).await.unwrap();
    soon(cx.note("4")).await.unwrap();
    let notes = ledger.record("a").await.unwrap().unwrap().notes;
    let texts: Vec<&str> = notes.iter().map(|note| note.text.as_str()).collect();
    assert_eq!(texts, ["1", "2", "4"]);
}
