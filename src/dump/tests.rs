use super::*;
use crate::details::TaskDetails;
use crate::journal::open::{self, StoreOptions};
use crate::journal::{Journal, LedgerEvent, Record};
use crate::state::{Attempt, Cell, Epoch, Event, Failure, Output, SuccessBy, TaskState};
use std::collections::BTreeMap;
use tempfile::TempDir;

/// A ledger whose records are made up here.
struct Made {
    dir: TempDir,
    journal: crate::journal::durable::SledJournal,
    model: BTreeMap<EncodedId, TaskDetails>,
    next: SeqNo,
}

fn id(number: u64) -> EncodedId {
    EncodedId::from_bytes(&[&[8], format!("{number:08}").as_bytes()].concat())
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

fn succeeded() -> Event {
    Event::Succeeded { by: SuccessBy::Attempt, output: Output::Kept(vec![0xc0]) }
}

impl Made {
    fn new(shape: &IdShape) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = open::open(&StoreOptions {
            shape: shape.to_bytes(),
            ..StoreOptions::plain(dir.path())
        })
        .unwrap();
        journal.replay(&mut |_| Ok(())).unwrap();
        Self { dir, journal, model: BTreeMap::new(), next: SeqNo::new(1) }
    }

    fn append(&mut self, entries: impl IntoIterator<Item = Entry>) {
        let mut batch = Vec::new();
        for entry in entries {
            let at = Timestamp::from_micros(1_000_000 + self.next.get());
            batch.push(Record { seq: self.next, at, entry });
            self.next = self.next.next();
        }
        self.journal.append(&batch).unwrap();
    }

    /// Events of ids, each following what came before.
    fn tell(&mut self, events: impl IntoIterator<Item = (u64, Event)>) {
        let (mut seq, mut entries) = (self.next, Vec::new());
        for (number, event) in events {
            let id = id(number);
            let before = self.model.remove(&id).unwrap_or(TaskDetails::ABSENT);
            let entry = Entry::Task { id: id.clone(), prev: before.cell.seq, event };
            let at = Timestamp::from_micros(1_000_000 + seq.get());
            let record = Record { seq, at, entry: entry.clone() };
            let details = before.after(&record).expect("a legal history");
            if details.state() != TaskState::NotFound {
                self.model.insert(id, details);
            }
            entries.push(entry);
            seq = seq.next();
        }
        self.append(entries);
    }

    fn checkpoint(&mut self) {
        let all = SeqNo::new(self.next.get() - 1);
        while self.journal.upkeep(Some(all)).unwrap().checkpointed < all {
            std::thread::yield_now();
        }
    }

    fn look(self) -> (TempDir, BTreeMap<EncodedId, TaskDetails>, Inspection) {
        let Self { dir, mut journal, model, .. } = self;
        journal.close().unwrap();
        drop(journal);
        let inspection = Inspection::open(dir.path()).unwrap();
        assert_eq!(inspection.damage(), []);
        (dir, model, inspection)
    }
}

/// Ids in every state, in the checkpoint, in the log, and in both.
fn mixed() -> Made {
    let mut made = Made::new(&IdShape::of_type::<String>());
    let failed = Event::Failed { failure: Failure::TimedOut };
    made.tell((0..300).map(|number| (number, started(1))));
    made.tell((0..200).map(|number| (number, succeeded())));
    made.tell((200..250).map(|number| (number, failed.clone())));
    made.checkpoint();
    made.tell((200..220).map(|number| (number, started(2))));
    made.tell((0..10).map(|number| (number, Event::RevokeStarted)));
    made.tell((0..5).map(|number| (number, Event::Revoked)));
    made.tell((230..240).map(|number| (number, Event::Forgotten)));
    made.tell(
        (400..450).map(|number| (number, Event::Queued { payload: None, since: SeqNo::ZERO })),
    );
    made
}

fn all(tasks: Tasks<'_>) -> BTreeMap<EncodedId, TaskDetails> {
    let mut last = None;
    tasks
        .map(|task| {
            let (id, details) = task.unwrap();
            assert!(last.replace(id.clone()) < Some(id.clone()), "ascending");
            (id, details)
        })
        .collect()
}

#[test]
fn tasks_are_what_the_records_fold_to_however_little_memory_there_is() {
    let (_dir, model, inspection) = mixed().look();
    assert_eq!(all(inspection.tasks()), model);
    for memory in [0, 300, 1_000, 5_000] {
        assert_eq!(all(inspection.tasks_within(memory)), model, "within {memory}");
    }
}

#[test]
fn everything_goes_on_when_the_ledger_is_opened_and_grows() {
    let (dir, model, inspection) = mixed().look();
    assert!(inspection.lock.is_none());
    for file in ["db", "conf"] {
        for log in &inspection.logs {
            std::fs::write(dir.path().join(&log.name).join(file), "over").unwrap();
        }
    }
    let CheckpointName(checkpoint) = CheckpointName::of(&inspection);
    std::fs::remove_file(dir.path().join(checkpoint)).unwrap();
    assert_eq!(all(inspection.tasks()), model);
    assert!(inspection.verify().unwrap().is_sound());
}

struct CheckpointName(String);

impl CheckpointName {
    fn of(inspection: &Inspection) -> Self {
        let number = inspection.manifest.checkpoint.unwrap().number;
        Self(crate::journal::directory::checkpoint(number))
    }
}

#[test]
fn a_task_has_its_records_since_the_checkpoint() {
    let (_dir, model, inspection) = mixed().look();
    let of = |number| inspection.task(&id(number)).unwrap();
    let twice = of(200).unwrap();
    assert_eq!(twice.checkpoint.as_ref().map(TaskDetails::state), Some(TaskState::Failed));
    assert_eq!(twice.records.len(), 1);
    assert_eq!(Some(&twice.details), model.get(&id(200)));
    let revoked = of(0).unwrap();
    assert_eq!((revoked.records.len(), revoked.details.cell), (2, Cell::ABSENT));
    assert_eq!(of(399), None);
    for (id, details) in &model {
        assert_eq!(inspection.task(id).unwrap().unwrap().details, *details);
    }
}

#[test]
fn records_begin_anywhere() {
    let (_dir, _, inspection) = mixed().look();
    let base = inspection.checkpoint_seq().get();
    let last = inspection.last_seq().get();
    for from in [0, base, base + 1, base + 25, last, last + 1] {
        let records = inspection.records(SeqNo::new(from));
        let seqs: Vec<u64> = records.map(|record| record.unwrap().seq.get()).collect();
        assert_eq!(seqs, (from.max(base + 1)..=last).collect::<Vec<_>>(), "from {from}");
    }
}

#[test]
fn stats_count_what_is_there() {
    let (_dir, model, inspection) = mixed().look();
    let stats = inspection.stats();
    for state in TaskState::ALL {
        let there = model.values().filter(|details| details.state() == state).count();
        assert_eq!(stats.count(state), there as u64, "{state}");
    }
    assert_eq!((stats.most_attempts, stats.checkpoint_seq.get()), (2, 550));
    assert_eq!(stats.log_records, inspection.last_seq().get() - 550);
    let oldest = model.values().filter(|details| details.state() == TaskState::Running);
    assert_eq!(stats.oldest_running, oldest.filter_map(|details| details.started_at).min());
}

#[test]
fn metadata_are_what_was_set_last_before_the_checkpoint_and_since() {
    let mut made = Made::new(&IdShape::of_type::<String>());
    let set = |name: &str, value: Option<&[u8]>| {
        let (name, value) = (name.to_owned(), value.map(<[u8]>::to_vec));
        Entry::Ledger(LedgerEvent::MetadataSet { name, value })
    };
    made.append([set("kept", Some(b"1")), set("changed", Some(b"1")), set("removed", Some(b"1"))]);
    made.checkpoint();
    made.append([set("changed", Some(b"2")), set("removed", None)]);
    let (_dir, _, inspection) = made.look();
    let mut metadata = inspection.metadata();
    metadata.remove(ID_SHAPE_NAME);
    let wanted = [("changed".to_owned(), b"2".to_vec()), ("kept".to_owned(), b"1".to_vec())];
    assert_eq!(metadata, BTreeMap::from(wanted));
}

#[test]
fn a_record_that_cannot_follow_is_found_and_believed() {
    let mut made = mixed();
    let seq = made.next;
    made.append([Entry::Task { id: id(100), prev: SeqNo::ZERO, event: Event::Revoked }]);
    let log = {
        let (_dir, model, inspection) = made.look();
        let report = inspection.verify().unwrap();
        let [finding] = report.findings.as_slice() else { panic!("{report:?}") };
        assert!(finding.what.starts_with(&format!("record {seq} is illegal: ")), "{finding}");
        let errors = inspection.tasks().filter(Result::is_err).count();
        assert_eq!(errors, 1);
        assert_eq!(inspection.tasks().filter(Result::is_ok).count(), model.len() - 1);
        let history = inspection.task(&id(100)).unwrap().unwrap();
        assert_eq!((history.details.state(), history.errors.len()), (TaskState::NotFound, 1));
        finding.place.clone()
    };
    assert!(log.starts_with("log-"));
}

/// The frames of a checkpoint that are whole are read wherever the damage is.
#[test]
fn what_is_whole_of_a_damaged_checkpoint_is_read() {
    let mut made = Made::new(&IdShape::of_type::<String>());
    for first in (0..8_000).step_by(500) {
        made.tell((first..first + 500).map(|number| (number, started(1))));
        made.tell((first..first + 500).map(|number| (number, succeeded())));
    }
    made.checkpoint();
    let (dir, model, inspection) = made.look();
    let CheckpointName(name) = CheckpointName::of(&inspection);
    drop(inspection);
    let mut bytes = std::fs::read(dir.path().join(&name)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(dir.path().join(&name), bytes).unwrap();
    let inspection = Inspection::open(dir.path()).unwrap();
    assert_eq!(inspection.damage()[0].place, name);
    let left = all(inspection.tasks());
    assert!(left.len() > model.len() / 2 && left.len() < model.len(), "{}", left.len());
    assert!(left.iter().all(|(id, details)| model.get(id) == Some(details)));
    let known = left.keys().next_back().unwrap();
    assert!(inspection.task(known).unwrap().is_some());
}

#[test]
fn an_id_type_that_was_learned_from_an_id_is_used_for_printing() {
    let number = EncodedId::from_bytes(&[7]);
    let mut made = Made::new(&IdShape::default());
    made.append([Entry::Task { id: number.clone(), prev: SeqNo::ZERO, event: started(1) }]);
    let (dir, _, inspection) = made.look();
    assert_eq!(inspection.id_text(&number), "\\u{7}");
    assert_eq!(inspection.parse_id("\\u{7}"), Ok(number.clone()));
    drop((dir, inspection));

    let mut made = Made::new(&IdShape::default());
    let value = Some(IdShape::of_value(&7_u32).to_bytes());
    made.append([Entry::Ledger(LedgerEvent::MetadataSet { name: ID_SHAPE_NAME.into(), value })]);
    let (_dir, _, inspection) = made.look();
    assert_eq!(inspection.id_text(&number), "7");
    assert_eq!(inspection.parse_id("7"), Ok(number));
}

#[test]
fn a_repair_is_recorded_and_numbers_go_on() {
    let made = mixed();
    let dir = made.look().0;
    std::fs::remove_file(dir.path().join("witness")).unwrap();
    let refused = repair(dir.path(), crate::AcceptLoss::No).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged(_)));
    let before = Inspection::open(dir.path()).unwrap();
    let report = repair(dir.path(), crate::AcceptLoss::Yes).unwrap();
    assert!(!report.was_sound() && report.evidence.unwrap().is_dir());
    let after = Inspection::open(dir.path()).unwrap();
    assert!(after.verify().unwrap().is_sound());
    assert_eq!(all(after.tasks()), all(before.tasks()));
    let records: Vec<Record> = after.records(SeqNo::ZERO).map(Result::unwrap).collect();
    let [Record { seq, entry: Entry::Ledger(LedgerEvent::LossAccepted { what }), .. }] =
        records.as_slice()
    else {
        panic!("{records:?}")
    };
    assert_eq!((*seq, Some(what)), (before.last_seq().next(), report.lost.as_ref()));
    assert!(repair(dir.path(), crate::AcceptLoss::Yes).unwrap().was_sound());
}

/// The inspection is of use when opening for work is not: it must not rest on it.
#[test]
fn inspection_knows_nothing_of_opening_for_work() {
    let sources = [
        include_str!("../dump.rs"),
        include_str!("look.rs"),
        include_str!("read.rs"),
        include_str!("stats.rs"),
        include_str!("verify.rs"),
        include_str!("repair.rs"),
    ];
    for source in sources {
        for foreign in ["crate::recovery", "crate::builder", "crate::ledger", "crate::index"] {
            assert!(!source.contains(foreign), "{foreign}");
        }
    }
}
