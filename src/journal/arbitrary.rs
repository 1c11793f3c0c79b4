//! Records for property tests: any at all, and legal histories.

use crate::id::EncodedId;
use crate::journal::{Entry, LedgerEvent, Record};
use crate::state::{
    Attempt, Cell, Epoch, Event, Failure, Fingerprint, Grave, NotKept, Output, Parent, SeqNo,
    SuccessBy, TaskState, Timestamp, Tombstone,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// An id of any bytes, the empty one and the longest among them.
pub(crate) fn id() -> impl Strategy<Value = EncodedId> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..40),
        1 => vec(any::<u8>(), 1024),
    ]
    .prop_map(|bytes| EncodedId::from_bytes(&bytes))
}

/// Any failure.
pub(crate) fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![
        ".{0,40}".prop_map(Failure::Error),
        ".{0,40}".prop_map(Failure::Panicked),
        ".{0,40}".prop_map(Failure::Cancelled),
        Just(Failure::TimedOut),
        Just(Failure::Crashed),
        (any::<u32>(), ".{0,40}").prop_map(|(attempts, last)| Failure::GaveUp { attempts, last }),
        ".{0,40}".prop_map(Failure::Resolved),
        ".{0,40}".prop_map(Failure::Released),
    ]
}

/// Any output.
pub(crate) fn output() -> impl Strategy<Value = Output> {
    prop_oneof![
        2 => Just(Output::Absent),
        4 => vec(any::<u8>(), 0..100).prop_map(Output::Kept),
        1 => vec(any::<u8>(), 20_000..32_768).prop_map(Output::Kept),
        1 => any::<u64>().prop_map(|size| Output::NotKept(NotKept::TooLarge { size })),
        1 => ".{0,40}".prop_map(|text| Output::NotKept(NotKept::NotSerializable(text))),
    ]
}

/// Queued, with any payload or none.
fn queued() -> impl Strategy<Value = Event> {
    let payload = prop_oneof![4 => vec(any::<u8>(), 0..100), 1 => vec(any::<u8>(), 20_000..32_768)];
    (proptest::option::of(payload), any::<u64>()).prop_map(|(payload, since)| Event::Queued {
        payload,
        since: SeqNo::new(since % SeqNo::LAST),
    })
}

/// Any scope, or none.
fn parent() -> impl Strategy<Value = Option<Parent>> {
    proptest::option::of(id().prop_map(|id| Parent::from_bytes(id.as_bytes())))
}

/// Any event.
pub(crate) fn event() -> impl Strategy<Value = Event> {
    let by = prop_oneof![Just(SuccessBy::Attempt), Just(SuccessBy::Mark), Just(SuccessBy::Resolve)];
    let started = (
        any::<u32>(),
        any::<u64>(),
        any::<u64>(),
        proptest::option::of(any::<[u8; 16]>()),
        parent(),
        any::<bool>(),
    );
    prop_oneof![
        queued(),
        started.prop_map(|(attempt, epoch, since, fingerprint, parent, crashed_before)| {
            Event::Started {
                attempt: Attempt::new(attempt),
                epoch: Epoch::new(epoch),
                since: SeqNo::new(since % SeqNo::LAST),
                fingerprint: fingerprint.map(Fingerprint::from_bytes),
                parent,
                crashed_before,
            }
        }),
        (by, output()).prop_map(|(by, output)| Event::Succeeded { by, output }),
        failure().prop_map(|failure| Event::Failed { failure }),
        Just(Event::RevokeStarted),
        failure().prop_map(|failure| Event::RevokeFailed { failure }),
        Just(Event::Revoked),
        Just(Event::Forgotten),
        ".{0,40}".prop_map(|note| Event::Noted { note }),
        failure().prop_map(|failure| Event::Resolved { failure }),
        Just(Event::Pinned),
        Just(Event::Unpinned),
        any::<[u8; 16]>()
            .prop_map(|bytes| Event::Buried { tombstone: Tombstone::from_bytes(bytes) }),
        any::<[u8; 16]>()
            .prop_map(|bytes| Event::Exhumed { tombstone: Tombstone::from_bytes(bytes) }),
    ]
}

/// Any event of the ledger.
pub(crate) fn ledger_event() -> impl Strategy<Value = LedgerEvent> {
    prop_oneof![
        any::<u64>().prop_map(|epoch| LedgerEvent::EpochOpened { epoch: Epoch::new(epoch) }),
        ".{0,40}".prop_map(|what| LedgerEvent::LossAccepted { what }),
        ("[a-d]", proptest::option::of(vec(any::<u8>(), 0..40)))
            .prop_map(|(name, value)| LedgerEvent::MetadataSet { name, value }),
    ]
}

/// Any one record, legal or not, that follows an earlier one.
pub(crate) fn record() -> impl Strategy<Value = Record> {
    let task = (id(), any::<prop::sample::Index>(), event());
    let entry = prop_oneof![
        6 => task.prop_map(Ok),
        1 => ledger_event().prop_map(Err),
    ];
    (1..SeqNo::LAST / 2, any::<u64>(), entry).prop_map(|(seq, at, entry)| Record {
        seq: SeqNo::new(seq),
        at: Timestamp::from_micros(at),
        entry: match entry {
            Ok((id, prev, event)) => {
                let prev = SeqNo::new(prev.index(seq.min(1 << 40) as usize) as u64);
                Entry::Task { id, prev, event }
            }
            Err(event) => Entry::Ledger(event),
        },
    })
}

/// Any records, dense from some position.
pub(crate) fn records(
    count: impl Into<prop::collection::SizeRange>,
) -> impl Strategy<Value = Vec<Record>> {
    (1..SeqNo::LAST / 2, vec(record(), count)).prop_map(|(first, mut records)| {
        for (record, seq) in records.iter_mut().zip(first..) {
            record.seq = SeqNo::new(seq);
            if let Entry::Task { prev, .. } = &mut record.entry {
                *prev = SeqNo::new(prev.get() % seq);
            }
        }
        records
    })
}

/// A history of few ids that the state machine allows, from record 1 on.
pub(crate) fn history(
    count: impl Into<prop::collection::SizeRange>,
) -> impl Strategy<Value = Vec<Record>> {
    let step = (0_u8..12, any::<prop::sample::Index>(), output(), failure(), ledger_event());
    vec(step, count).prop_map(|steps| {
        let mut cells = BTreeMap::new();
        let mut buried = BTreeSet::new();
        let mut records = Vec::new();
        for (number, choice, output, failure, told) in steps {
            let seq = SeqNo::new(records.len() as u64 + 1);
            let entry = if number == 0 {
                // Each open has a record.
                Entry::Ledger(match told {
                    LedgerEvent::EpochOpened { epoch } => LedgerEvent::EpochOpened {
                        epoch: Epoch::new(epoch.get() % (seq.get() + 1)),
                    },
                    told @ (LedgerEvent::LossAccepted { .. } | LedgerEvent::MetadataSet { .. }) => {
                        told
                    }
                })
            } else {
                let id = EncodedId::from_bytes(format!("id-{number}").as_bytes());
                let cell: &mut Cell = cells.entry(id.clone()).or_insert(Cell::ABSENT);
                let tombstone = Tombstone::from_bytes([number; 16]);
                let legal = if buried.contains(&tombstone) {
                    vec![Event::Exhumed { tombstone }]
                } else {
                    legal_events(*cell, seq, &output, &failure, tombstone)
                };
                let event = choice.get(&legal).clone();
                match event.grave() {
                    Some(Grave::Dug(tombstone)) => _ = buried.insert(tombstone),
                    Some(Grave::Opened(tombstone)) => _ = buried.remove(&tombstone),
                    None => {}
                }
                let prev = cell.seq;
                *cell = cell.apply(seq, prev, &event).expect("chosen among the legal ones");
                Entry::Task { id, prev, event }
            };
            let at = Timestamp::from_micros(1_700_000_000_000_000 + seq.get() * 1_000);
            records.push(Record { seq, at, entry });
        }
        records
    })
}

fn legal_events(
    cell: Cell,
    seq: SeqNo,
    output: &Output,
    failure: &Failure,
    tombstone: Tombstone,
) -> Vec<Event> {
    let started = Event::Started {
        attempt: cell.attempt.next(),
        epoch: Epoch::new(seq.get() / 9),
        since: SeqNo::new(if cell.state == TaskState::Failed { cell.seq.get() / 2 } else { 0 }),
        fingerprint: (seq.get() % 3 == 0).then(|| Fingerprint::from_bytes([7; 16])),
        parent: (seq.get() % 5 == 0).then(|| Parent::from_bytes(b"\x01p")),
        crashed_before: seq.get() % 7 == 0,
    };
    let payload = (seq.get() % 2 == 0).then(|| format!("payload of {seq}").into_bytes());
    let since = SeqNo::new(if cell.state == TaskState::Failed { cell.seq.get() / 2 } else { 0 });
    let queued = Event::Queued { payload, since };
    let noted = Event::Noted { note: format!("at {seq}") };
    let resolved = Event::Resolved { failure: Failure::Released(String::new()) };
    let succeeded = |by| Event::Succeeded { by, output: output.clone() };
    let failure = failure.clone();
    match cell.state {
        TaskState::NotFound => vec![queued, started, succeeded(SuccessBy::Mark)],
        TaskState::Queued => vec![started, Event::Forgotten],
        TaskState::Running => {
            vec![succeeded(SuccessBy::Attempt), Event::Failed { failure }, noted]
        }
        TaskState::Succeeded => {
            vec![
                Event::RevokeStarted,
                Event::Forgotten,
                Event::Pinned,
                Event::Unpinned,
                Event::Buried { tombstone },
            ]
        }
        TaskState::Failed => {
            vec![
                queued,
                started,
                succeeded(SuccessBy::Mark),
                Event::Forgotten,
                succeeded(SuccessBy::Resolve),
                resolved,
                Event::Pinned,
            ]
        }
        TaskState::Revoking => vec![Event::Revoked, Event::RevokeFailed { failure }],
    }
}
