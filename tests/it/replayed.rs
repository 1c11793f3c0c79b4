//! Logs that no ledger wrote, and opens that died half way.

use crate::support::{Call, Hooked, Tasks, Then, name, ok};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use taskledger::{
    Attempt, Base, Cell, EncodedId, Entry, Epoch, Event, Journal, JournalError, LedgerEvent,
    MemoryJournal, OnCrash, OpenError, Output, Record, RunError, SeqNo, SuccessBy, TaskDetails,
    TaskState, Timestamp, Visit,
};

fn task(seq: u64, id: &[u8], prev: u64, event: Event) -> Record {
    let id = EncodedId::from_bytes(id);
    let entry = Entry::Task { id, prev: SeqNo::new(prev), event };
    Record { seq: SeqNo::new(seq), at: Timestamp::default(), entry }
}

fn started(attempt: u32) -> Event {
    Event::Started {
        attempt: Attempt::new(attempt),
        epoch: Epoch::new(1),
        since: SeqNo::ZERO,
        fingerprint: None,
        parent: None,
        crashed_before: false,
    }
}

/// What cannot follow is corruption in replay: nothing is guessed, and nothing is written.
#[tokio::test]
async fn a_log_that_cannot_be_is_refused() {
    let succeeded = Event::Succeeded { by: SuccessBy::Attempt, output: Output::Absent };
    let logs = [
        ("a gap", vec![task(1, b"a", 0, started(1)), task(3, b"b", 0, started(1))]),
        ("a gap before the first", vec![task(2, b"a", 0, started(1))]),
        ("one twice", vec![task(1, b"a", 0, started(1)), task(1, b"b", 0, started(1))]),
        ("an end without a start", vec![task(1, b"a", 0, succeeded.clone())]),
        (
            "the end of another attempt",
            vec![
                task(1, b"b", 0, started(1)),
                task(2, b"a", 0, started(1)),
                task(3, b"a", 1, succeeded),
            ],
        ),
        ("a second attempt first", vec![task(1, b"a", 0, started(2))]),
        ("two at once", vec![task(1, b"a", 0, started(1)), task(2, b"a", 1, started(2))]),
    ];
    for (what, records) in logs {
        let journal = MemoryJournal::new();
        journal.clone().append(&records).unwrap();
        let opened = Tasks::builder().open_journal(journal.clone()).await;
        assert!(matches!(opened, Err(OpenError::Damaged(_))), "{what}: {opened:?}");
        assert_eq!(journal.records(), records, "{what}");
    }
}

/// A process that dies among the resets leaves a legal log; the next open resets the rest.
#[tokio::test]
async fn an_open_that_dies_among_its_resets() {
    let journal = MemoryJournal::new();
    let mut records: Vec<Record> =
        (1..=5).map(|seq| task(seq, &[seq as u8], 0, started(1))).collect();
    let entry = Entry::Ledger(LedgerEvent::EpochOpened { epoch: Epoch::new(1) });
    records.push(Record { seq: SeqNo::new(6), at: Timestamp::default(), entry });
    journal.clone().append(&records).unwrap();
    let whole = journal.fork();
    let ledger = taskledger::Ledger::<u8>::builder().open_journal(whole.clone()).await.unwrap();
    assert_eq!(
        ledger.recovery().crashed::<u8>().map(Result::unwrap).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    assert_eq!(ledger.recovery().epoch(), Epoch::new(2));
    let all = whole.records();
    for cut in 6..=all.len() {
        let died = MemoryJournal::new();
        died.clone().append(&all[..cut]).unwrap();
        let ledger = taskledger::Ledger::<u8>::builder().open_journal(died).await.unwrap();
        assert_eq!(ledger.failed_tasks().len(), 5);
        assert_eq!(ledger.recovery().count(TaskState::Failed), 5);
        assert_eq!(ledger.recovery().crashed::<u8>().len(), 5 - cut.saturating_sub(7));
    }
}

/// One write and one sync each would make an open after a crash as slow as the work that was cut off.
#[tokio::test]
async fn resets_are_written_together() {
    for (running, most) in [(1_usize, 1), (4_095, 1), (4_096, 2), (9_000, 3)] {
        let journal = MemoryJournal::new();
        let records: Vec<Record> =
            (1..=running as u64).map(|seq| task(seq, &seq.to_be_bytes(), 0, started(1))).collect();
        journal.clone().append(&records).unwrap();
        let appends = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&appends);
        let hooked = Hooked::new(&journal, move |call| {
            counted.fetch_add(usize::from(matches!(call, Call::Append(_))), Ordering::SeqCst);
            Then::GoOn
        });
        let ledger = taskledger::Ledger::<[u8; 8]>::builder().open_journal(hooked).await.unwrap();
        assert_eq!(ledger.recovery().count(TaskState::Failed), running);
        assert_eq!(appends.load(Ordering::SeqCst), most, "of {running} and the epoch");
    }
}

/// A journal that has been told of a failure and not why.
struct Vague(MemoryJournal);

impl Journal for Vague {
    fn replay(&mut self, visit: &mut Visit<'_>) -> Result<Base, JournalError> {
        self.0.replay(visit)
    }

    fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        self.0.append(records)
    }

    fn read(&mut self, id: &EncodedId, cell: Cell) -> Result<TaskDetails, JournalError> {
        self.0.read(id, cell).map(|mut details| {
            details.failure = None;
            details
        })
    }

    fn close(&mut self) -> Result<(), JournalError> {
        self.0.close()
    }
}

/// Looking again would tell no more, and went on for ever. It counts as crashed.
#[tokio::test]
async fn a_failure_without_a_reason_is_answered() {
    let ledger = Tasks::builder().open_journal(Vague(MemoryJournal::new())).await.unwrap();
    ledger.launch_block(name("a"), async { Err::<u32, _>("no") }).await.unwrap_err();
    let hold = ledger.task(name("a")).on_crash(OnCrash::Hold);
    let held = tokio::time::timeout(Duration::from_secs(60), hold.run(|_| ok(1))).await;
    assert!(matches!(held.expect("it is answered"), Err(RunError::Held)));
    assert_eq!(ledger.run(name("a"), |_| ok(1)).await.unwrap().value, Some(1));
}
