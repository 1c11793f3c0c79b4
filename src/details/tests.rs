use super::*;
use crate::id::EncodedId;
use crate::journal::LedgerEvent;
use crate::state::{SeqNo, Tombstone, apply};
use proptest::prelude::*;

/// One id's life: each event follows the one before it, at time 10 * seq.
struct Life {
    details: TaskDetails,
    seq: u64,
}

impl Life {
    const fn new() -> Self {
        Self { details: TaskDetails::ABSENT, seq: 0 }
    }

    fn record(&mut self, event: Event) -> Record {
        self.seq += 1;
        Record {
            seq: SeqNo::new(self.seq),
            at: Timestamp::from_micros(10 * self.seq),
            entry: Entry::Task {
                id: EncodedId::from_bytes(b"id"),
                prev: self.details.cell.seq,
                event,
            },
        }
    }

    /// The details after the event, which must be legal.
    fn then(&mut self, event: Event) -> TaskDetails {
        let record = self.record(event);
        self.details = self.details.clone().after(&record).unwrap();
        self.details.clone()
    }

    fn started(&mut self) -> TaskDetails {
        let attempt = self.details.attempt().next();
        self.then(Event::Started {
            attempt,
            epoch: Epoch::new(5),
            since: SeqNo::ZERO,
            fingerprint: None,
            parent: None,
            crashed_before: false,
        })
    }
}

const fn at(micros: u64) -> Option<Timestamp> {
    Some(Timestamp::from_micros(micros))
}

fn cell(state: TaskState, attempt: u32, seq: u64) -> Cell {
    Cell { state, attempt: Attempt::new(attempt), seq: SeqNo::new(seq) }
}

fn kept() -> Event {
    Event::Succeeded { by: SuccessBy::Attempt, output: Output::Kept(vec![1]) }
}

#[test]
fn a_full_life() {
    let mut life = Life::new();
    let queued = TaskDetails {
        cell: cell(TaskState::Queued, 0, 1),
        queued_at: at(10),
        since: SeqNo::new(1),
        ..TaskDetails::ABSENT
    };
    assert_eq!(life.then(Event::Queued { payload: None, since: SeqNo::ZERO }), queued);
    let running = TaskDetails {
        cell: cell(TaskState::Running, 1, 2),
        epoch: Some(Epoch::new(5)),
        started_at: at(20),
        since: SeqNo::new(2),
        ..queued
    };
    assert_eq!(life.started(), running);
    let failure = Failure::Error("no route".into());
    let failed = TaskDetails {
        cell: cell(TaskState::Failed, 1, 3),
        ended_at: at(30),
        failure: Some(failure.clone()),
        ..running
    };
    assert_eq!(life.then(Event::Failed { failure }), failed);
    // The retry did not wait in the queue, and knows nothing of the failure.
    let retried = TaskDetails {
        cell: cell(TaskState::Running, 2, 4),
        epoch: Some(Epoch::new(5)),
        started_at: at(40),
        since: SeqNo::new(4),
        ..TaskDetails::ABSENT
    };
    assert_eq!(life.started(), retried);
    let succeeded = TaskDetails {
        cell: cell(TaskState::Succeeded, 2, 5),
        ended_at: at(50),
        succeeded_by: Some(SuccessBy::Attempt),
        output: Output::Kept(vec![1]),
        since: SeqNo::ZERO,
        ..retried
    };
    assert_eq!(life.then(kept()), succeeded);
    let revoking = TaskDetails {
        cell: cell(TaskState::Revoking, 2, 6),
        revoke_started_at: at(60),
        ..succeeded
    };
    assert_eq!(life.then(Event::RevokeStarted), revoking);
    let stands = TaskDetails {
        cell: cell(TaskState::Succeeded, 2, 7),
        revoke_failure: Some(Failure::Crashed),
        ..revoking
    };
    assert_eq!(life.then(Event::RevokeFailed { failure: Failure::Crashed }), stands);
    let again = TaskDetails {
        cell: cell(TaskState::Revoking, 2, 8),
        revoke_started_at: at(80),
        revoke_failure: None,
        ..stands
    };
    assert_eq!(life.then(Event::RevokeStarted), again);
    assert_eq!(life.then(Event::Revoked), TaskDetails::ABSENT);
    assert_eq!(life.started().attempt(), Attempt::new(1));
}

#[test]
fn queueing_again_forgets_the_failure_but_not_the_count() {
    let mut life = Life::new();
    life.started();
    life.then(Event::Failed { failure: Failure::TimedOut });
    let queued = TaskDetails {
        cell: cell(TaskState::Queued, 1, 3),
        queued_at: at(30),
        since: SeqNo::new(3),
        ..TaskDetails::ABSENT
    };
    assert_eq!(life.then(Event::Queued { payload: None, since: SeqNo::ZERO }), queued);
    assert_eq!(life.started().queued_at, at(30));
    assert_eq!(life.details.attempt(), Attempt::new(2));
}

/// What an attempt says of where its life began is believed; notes are its own, and bounded.
#[test]
fn a_life_of_several_attempts() {
    let mut life = Life::new();
    life.started();
    let first = life.details.since;
    life.then(Event::Noted { note: "half".into() });
    life.then(Event::Failed { failure: Failure::Crashed });
    let pinned = life.then(Event::Pinned);
    assert!(pinned.pinned && pinned.failure == Some(Failure::Crashed));
    let released = life.then(Event::Resolved { failure: Failure::Released("seen".into()) });
    assert_eq!(
        (released.failure, released.ended_at),
        (Some(Failure::Released("seen".into())), at(50))
    );
    let fingerprint = Some(Fingerprint::from_bytes([3; 16]));
    let (attempt, epoch) = (Attempt::new(2), Epoch::new(5));
    let again = life.then(Event::Started {
        attempt,
        epoch,
        since: first,
        fingerprint,
        parent: None,
        crashed_before: false,
    });
    assert_eq!((again.since, again.fingerprint), (first, fingerprint));
    assert!(again.notes.is_empty() && !again.pinned);
    for number in 0..MAX_NOTES + 2 {
        life.then(Event::Noted { note: number.to_string() });
    }
    let texts: Vec<&str> = life.details.notes.iter().map(|note| note.text.as_str()).collect();
    assert_eq!(texts, ["2", "3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!(life.details.notes.back().map(|note| note.at), at(10 * life.seq));
    let done = life.then(kept());
    assert_eq!(
        (done.since, done.fingerprint, done.notes.len()),
        (SeqNo::ZERO, fingerprint, MAX_NOTES)
    );
    let tombstone = Tombstone::from_bytes([1; 16]);
    assert_eq!(life.then(Event::Buried { tombstone }), TaskDetails::ABSENT);
    let exhumed = life.then(Event::Exhumed { tombstone });
    assert_eq!((exhumed.state(), exhumed.succeeded_by), (TaskState::Succeeded, None));
}

/// What outlasts an attempt was lost while the id waited in the queue: whose request it is, and that it has
/// crashed. Traced from its last record, it is the same.
#[test]
fn what_waits_in_the_queue_goes_on_with_its_life() {
    let mut life = Life::new();
    let fingerprint = Some(Fingerprint::from_bytes([3; 16]));
    let started = |attempt, since, crashed_before| Event::Started {
        attempt: Attempt::new(attempt),
        epoch: Epoch::new(5),
        since: SeqNo::new(since),
        fingerprint,
        parent: None,
        crashed_before,
    };
    let queued = |since| Event::Queued { payload: None, since: SeqNo::new(since) };
    let crashed = || Event::Failed { failure: Failure::Crashed };
    let gave_up = Failure::GaveUp { attempts: 1, last: String::new() };
    let seen = Failure::Resolved(String::new());
    let events = [
        (started(1, 0, false), false),
        (Event::Noted { note: "half".into() }, false),
        (crashed(), false),
        (Event::Resolved { failure: gave_up }, true),
        (queued(1), true),
        (started(2, 1, true), true),
        (Event::Failed { failure: Failure::TimedOut }, true),
        (queued(1), true),
        (started(3, 1, true), true),
        (crashed(), true),
        (Event::Resolved { failure: seen }, false),
        (queued(1), false),
    ];
    let mut records = Vec::new();
    for (event, before) in events {
        records.push(life.record(event));
        let record = records.last().unwrap();
        life.details = life.details.clone().after(record).unwrap();
        let details = &life.details;
        assert_eq!((details.fingerprint, details.crashed_before), (fingerprint, before));
        let fetch = |seq: SeqNo| Ok(records[seq.get() as usize - 1].clone());
        let traced = TaskDetails::trace(details.cell, SeqNo::ZERO, fetch, || Ok(None)).unwrap();
        assert_eq!(traced, *details);
    }
    // Another life has nothing of it.
    life.then(Event::Forgotten);
    assert_eq!(life.then(queued(0)).fingerprint, None);
}

#[test]
fn marked_from_outside() {
    let mark = || Event::Succeeded { by: SuccessBy::Mark, output: Output::Absent };
    let mut life = Life::new();
    let marked = TaskDetails {
        cell: cell(TaskState::Succeeded, 0, 1),
        ended_at: at(10),
        succeeded_by: Some(SuccessBy::Mark),
        ..TaskDetails::ABSENT
    };
    assert_eq!(life.then(mark()), marked);
    assert_eq!(life.then(Event::Forgotten), TaskDetails::ABSENT);
    // A failed id keeps when its attempt started; its failure is no longer one.
    life.started();
    life.then(Event::Failed { failure: Failure::Crashed });
    let details = life.then(mark());
    assert_eq!((details.started_at, details.ended_at), (at(30), at(50)));
    assert_eq!((details.attempt(), details.failure), (Attempt::new(1), None));
}

#[test]
fn what_cannot_follow_is_refused() {
    let mut life = Life::new();
    let record = life.record(Event::Revoked);
    assert!(life.details.clone().after(&record).is_err());
    let record = life.record(Event::Queued { payload: None, since: SeqNo::ZERO });
    let Entry::Task { id, event, .. } = record.entry else { panic!("not of a task") };
    let entry = Entry::Task { id, prev: SeqNo::new(1), event };
    assert!(life.details.after(&Record { entry, ..record }).is_err());
}

#[test]
fn records_of_the_ledger_change_nothing() {
    let mut life = Life::new();
    let details = life.started();
    let entry = Entry::Ledger(LedgerEvent::EpochOpened { epoch: Epoch::new(9) });
    let record = Record { entry, ..life.record(Event::Revoked) };
    assert_eq!(details.clone().after(&record).as_ref(), Ok(&details));
    assert_eq!(details.clone().forced(&record), details);
}

#[test]
fn forced_goes_on_over_a_gap() {
    let mut life = Life::new();
    // Its `Started` is lost: what is there is believed.
    let forced = TaskDetails::ABSENT.forced(&life.record(kept()));
    assert_eq!(forced.cell, cell(TaskState::Succeeded, 0, 1));
    assert_eq!(forced.output, Output::Kept(vec![1]));
    let record = life.record(Event::Started {
        attempt: Attempt::new(7),
        epoch: Epoch::new(2),
        since: SeqNo::ZERO,
        fingerprint: None,
        parent: None,
        crashed_before: false,
    });
    let forced = forced.forced(&record);
    assert_eq!(forced.cell, cell(TaskState::Running, 7, 2));
    assert_eq!((forced.output, forced.ended_at), (Output::Absent, None));
}

fn any_event() -> impl Strategy<Value = Event> {
    let failure =
        prop_oneof![any::<String>().prop_map(Failure::Error), Just(Failure::Crashed)].boxed();
    let output = prop_oneof![Just(Output::Absent), any::<Vec<u8>>().prop_map(Output::Kept)];
    let by = prop_oneof![Just(SuccessBy::Attempt), Just(SuccessBy::Mark), Just(SuccessBy::Resolve)];
    prop_oneof![
        Just(Event::Queued { payload: None, since: SeqNo::ZERO }),
        // The attempt is put right where the event is used.
        (1..9_u64, 0..3_u64, any::<bool>()).prop_map(|(epoch, since, fingerprint)| {
            Event::Started {
                attempt: Attempt::NONE,
                epoch: Epoch::new(epoch),
                since: SeqNo::new(since),
                fingerprint: fingerprint.then_some(Fingerprint::from_bytes([7; 16])),
                parent: None,
                crashed_before: false,
            }
        }),
        any::<String>().prop_map(|note| Event::Noted { note }),
        any::<String>().prop_map(|text| Event::Resolved { failure: Failure::Released(text) }),
        Just(Event::Pinned),
        Just(Event::Unpinned),
        Just(Event::Buried { tombstone: Tombstone::from_bytes([1; 16]) }),
        Just(Event::Exhumed { tombstone: Tombstone::from_bytes([1; 16]) }),
        (by, output).prop_map(|(by, output)| Event::Succeeded { by, output }),
        failure.clone().prop_map(|failure| Event::Failed { failure }),
        Just(Event::RevokeStarted),
        failure.prop_map(|failure| Event::RevokeFailed { failure }),
        Just(Event::Revoked),
        Just(Event::Forgotten),
    ]
}

proptest! {
    /// Over random legal histories (what is illegal is left out).
    #[test]
    fn forced_is_after_wherever_it_is_legal(
        events in prop::collection::vec(any_event(), 0..60),
    ) {
        let mut life = Life::new();
        for event in events {
            if apply(life.details.state(), &event).is_err() {
                continue;
            }
            let mut event = event;
            if let Event::Started { attempt, .. } = &mut event {
                *attempt = life.details.attempt().next();
            }
            let before = life.details.clone();
            let record = life.record(event);
            let after = before.clone().after(&record);
            prop_assert_eq!(after.as_ref(), Ok(&before.forced(&record)));
            life.details = after.unwrap();
            consistent(&life.details)?;
        }
    }
}

/// What holds for the details of every id at all times.
fn consistent(details: &TaskDetails) -> Result<(), TestCaseError> {
    let state = details.state();
    let succeeded = matches!(state, TaskState::Succeeded | TaskState::Revoking);
    prop_assert_eq!(details.failure.is_some(), state == TaskState::Failed);
    // Of an exhumed success nothing is known but that it was one.
    prop_assert!(succeeded || details.succeeded_by.is_none());
    prop_assert!(succeeded || details.output == Output::Absent);
    prop_assert!(succeeded || details.revoke_started_at.is_none());
    prop_assert!(state == TaskState::Succeeded || details.revoke_failure.is_none());
    prop_assert_eq!(details.started_at.is_some(), details.epoch.is_some());
    prop_assert!(state != TaskState::Running || details.ended_at.is_none());
    prop_assert!(state != TaskState::NotFound || *details == TaskDetails::ABSENT);
    Ok(())
}
