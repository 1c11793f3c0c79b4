#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the arms that it expects")]

use super::*;
use crate::details::TaskDetails;
use crate::journal::arbitrary;
use crate::state::{SuccessBy, Tombstone};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Hands over what it was given.
struct Tape(Vec<Replayed>);

impl Journal for Tape {
    fn replay(&mut self, visit: &mut crate::journal::Visit<'_>) -> Result<Base, JournalError> {
        self.0.drain(..).try_for_each(visit)?;
        Ok(Base::default())
    }

    fn append(&mut self, _: &[Record]) -> Result<(), JournalError> {
        unreachable!()
    }

    fn read(&mut self, _: &EncodedId, _: Cell) -> Result<TaskDetails, JournalError> {
        unreachable!()
    }
}

type Cells = BTreeMap<Vec<u8>, Cell>;

/// The shortest replay that there is: one record after the other.
fn plainly(base: &Cells, records: &[Record]) -> Result<Cells, String> {
    let mut cells = base.clone();
    let mut buried = HashSet::new();
    for (number, record) in records.iter().enumerate() {
        let seq = record.seq;
        if let Some(before) = number.checked_sub(1).and_then(|before| records.get(before)) {
            if seq != before.seq.next() {
                return Err(gap(before.seq.next(), seq).to_string());
            }
        }
        let Entry::Task { id, prev, event } = &record.entry else { continue };
        let cell = cells.get(id.as_bytes()).copied().unwrap_or(Cell::ABSENT);
        let after = cell
            .apply(seq, *prev, event)
            .map_err(|source| crate::error::chain(&JournalError::Illegal { seq, source }))?;
        match after.state {
            TaskState::NotFound => _ = cells.remove(id.as_bytes()),
            _ => _ = cells.insert(id.as_bytes().to_vec(), after),
        }
        match event.grave() {
            Some(Grave::Dug(tombstone)) => _ = buried.insert(tombstone),
            Some(Grave::Opened(tombstone)) if !buried.remove(&tombstone) => {
                return Err(format!("record {seq} opens a tombstone that is not there"));
            }
            Some(Grave::Opened(_)) | None => {}
        }
    }
    Ok(cells)
}

/// By so many lanes.
fn replayed(lanes: usize, chunk: usize, base: &Cells, records: &[Record]) -> Result<Cells, String> {
    let index = Index::new();
    let base: Vec<_> = base.iter().map(|(id, cell)| (EncodedId::from_bytes(id), *cell)).collect();
    let mut tape = vec![Replayed::Expected(vec![(4, 100_000)])];
    tape.extend(base.chunks(chunk).map(|cells| Replayed::Base(cells.to_vec())));
    tape.extend(records.chunks(chunk).map(|records| Replayed::Records(records.to_vec())));
    let mut replay = Replay::of(&index);
    replay.run_in(lanes, &mut Tape(tape)).map_err(|error| crate::error::chain(&error))?;
    assert_eq!((replay.ids, replay.records), (base.len() as u64, records.len() as u64));
    let mut cells = Cells::new();
    for part in 0.. {
        let Some(ids) = index.ids_in_part(part, None) else { break };
        cells.extend(ids.iter().map(|id| (id.as_bytes().to_vec(), index.cell(id.as_bytes()))));
    }
    Ok(cells)
}

/// What may become of a record on a disk that lies.
#[derive(Clone, Debug)]
enum Harm {
    Lost,
    FollowsAnother,
    IsAnother(Event),
}

fn harm() -> impl Strategy<Value = Harm> {
    let tombstone = Tombstone::from_bytes([9; 16]);
    let marked = Event::Succeeded { by: SuccessBy::Mark, output: crate::state::Output::Absent };
    let events = vec![Event::Revoked, Event::Pinned, marked, Event::Exhumed { tombstone }];
    prop_oneof![
        Just(Harm::Lost),
        Just(Harm::FollowsAnother),
        prop::sample::select(events).prop_map(Harm::IsAnother),
    ]
}

proptest! {
    /// However many threads replay, they find what one would, and tell what is wrong first.
    #[test]
    fn all_lanes_together_are_as_one(
        mut records in arbitrary::history(0..120),
        from in any::<prop::sample::Index>(),
        harms in prop::collection::vec((any::<prop::sample::Index>(), harm()), 0..4),
        chunk in 1..20_usize,
    ) {
        // The first of them are in the checkpoint, unless that has something to do with tombstones.
        let base = records.iter().take(if records.is_empty() { 0 } else { from.index(records.len()) });
        let base = base.take_while(|record| match &record.entry {
            Entry::Task { event, .. } => event.grave().is_none(),
            Entry::Ledger(_) => true,
        });
        let base = base.count();
        let rest = records.split_off(base);
        let base = plainly(&Cells::new(), &records).unwrap();
        let mut records = rest;
        for (at, harm) in harms {
            if records.is_empty() {
                break;
            }
            let at = at.index(records.len());
            match (harm, &mut records[at].entry) {
                (Harm::Lost, _) => _ = records.remove(at),
                (Harm::FollowsAnother, Entry::Task { prev, .. }) => *prev = prev.next(),
                (Harm::IsAnother(other), Entry::Task { event, .. }) => *event = other,
                (_, Entry::Ledger(_)) => {}
            }
        }
        let expected = plainly(&base, &records);
        for lanes in 1..=4 {
            match (replayed(lanes, chunk, &base, &records), &expected) {
                (Err(found), Err(expected)) => {
                    prop_assert!(found.contains(expected.as_str()), "{found}, not {expected}");
                }
                (found, expected) => prop_assert_eq!(&found, expected),
            }
        }
    }
}

/// What cannot follow is told, although what comes later, and was given to another lane, is wrong as well.
#[test]
fn what_is_wrong_first_is_told() {
    let id = |number: u64| EncodedId::from_bytes(&number.to_le_bytes());
    for first in 1..60_u64 {
        let records: Vec<Record> = (1..=64)
            .map(|seq| Record {
                seq: SeqNo::new(if seq == 64 { 70 } else { seq }),
                at: Timestamp::default(),
                entry: Entry::Task {
                    id: id(seq),
                    prev: SeqNo::ZERO,
                    event: if seq < first {
                        Event::Queued { payload: None, since: SeqNo::ZERO }
                    } else {
                        Event::Revoked
                    },
                },
            })
            .collect();
        let told = replayed(4, 8, &Cells::new(), &records).unwrap_err();
        assert!(told.contains(&format!("record {first} ")), "{first}: {told}");
    }
}

/// The first fault in the order of the log, also when the positions do not ascend.
#[test]
fn a_record_that_goes_back_hides_nothing_that_came_before_it() {
    let record = |seq: u64, event| Record {
        seq: SeqNo::new(seq),
        at: Timestamp::default(),
        entry: Entry::Task {
            id: EncodedId::from_bytes(&seq.to_le_bytes()),
            prev: SeqNo::ZERO,
            event,
        },
    };
    let queued = || Event::Queued { payload: None, since: SeqNo::ZERO };
    // The second cannot be; the third is out of order.
    let records = [record(5, queued()), record(6, Event::Revoked), record(3, queued())];
    let expected = plainly(&Cells::new(), &records).unwrap_err();
    for lanes in 1..=4 {
        for chunk in 1..=3 {
            let found = replayed(lanes, chunk, &Cells::new(), &records).unwrap_err();
            assert!(found.contains(&expected), "{lanes} lanes, {chunk}: {found}, not {expected}");
        }
    }
}

/// A journal of somebody else may know ids that are longer than ours: none of them harms another.
#[test]
fn a_long_id_of_a_base_leaves_the_others_as_they_are() {
    let cell = |seq| Cell { state: TaskState::Succeeded, seq: SeqNo::new(seq), ..Cell::ABSENT };
    let mut base = Cells::new();
    // All of one part, since they go there together.
    for number in 0..2000_u64 {
        _ = base.insert(number.to_le_bytes().to_vec(), cell(number + 1));
    }
    for byte in 0..255 {
        let mut id = vec![byte; 66_000];
        id[0] = 1;
        _ = base.insert(id, cell(9_000 + u64::from(byte)));
    }
    let found = replayed(2, 4096, &base, &[]).unwrap();
    let others = found.keys().filter(|id| !base.contains_key(*id)).count();
    let missing = base.iter().filter(|(id, cell)| found.get(*id) != Some(cell)).count();
    assert_eq!((others, missing), (0, 0), "ids that are none, and ids that are not there");
}
