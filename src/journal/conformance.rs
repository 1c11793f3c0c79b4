//! What every journal must do: the same functions, run against each of them.
//!
//! A case gets an [`Opener`] of a fresh store. It appends, reads, checkpoints and
//! reopens through [`Subject`], which keeps beside the journal what the journal
//! must know, and compares after every step.

use super::{Base, Entry, Journal, LedgerEvent, Record, Replayed};
use crate::details::TaskDetails;
use crate::error::JournalError;
use crate::id::{EncodedId, MAX_ID_BYTES};
use crate::state::{
    Attempt, Cell, Epoch, Event, Failure, Grave, NotKept, Output, SeqNo, SuccessBy, TaskState,
    Timestamp, Tombstone,
};
use std::collections::{BTreeMap, BTreeSet};

/// Opens, or opens again, one store.
pub(crate) type Opener = Box<dyn Fn() -> Result<Box<dyn Journal>, JournalError>>;

/// Runs the suite; each call of `make` gives a fresh store.
pub(crate) fn run(make: &dyn Fn() -> Opener) {
    const CASES: [fn(Opener); 13] = [
        a_new_journal_is_empty,
        what_was_appended_is_replayed,
        a_reopen_goes_on_where_the_last_one_ended,
        every_event_and_every_text_comes_back,
        hostile_ids_come_back,
        the_largest_records_come_back,
        one_large_batch_comes_back,
        a_checkpoint_changes_nothing_but_where_things_are,
        a_checkpoint_drops_ids_that_are_not_found,
        appends_go_on_while_a_checkpoint_is_made,
        metadata_and_epochs_outlive_checkpoints,
        a_clock_that_jumps_is_kept_as_it_was,
        a_second_open_fails_and_harms_nobody,
    ];
    CASES.iter().for_each(|case| case(make()));
}

fn a_new_journal_is_empty(open: Opener) {
    let mut subject = Subject::open(open);
    subject.reopen(How::Close);
    subject.reopen(How::Drop);
    assert_eq!(subject.replayed, 0);
}

fn what_was_appended_is_replayed(open: Opener) {
    let mut subject = Subject::open(open);
    for number in 0..50_u64 {
        let id = id(&number.to_be_bytes());
        subject.append([(id.clone(), started(1))]);
        subject.append([(id, succeeded(Output::Kept(vec![1, 2, 3])))]);
    }
    subject.check_reads();
    subject.reopen(How::Close);
    assert_eq!(subject.replayed, 100);
    // A replay changes nothing that the next one hands over.
    subject.reopen(How::Drop);
    assert_eq!(subject.replayed, 100);
    subject.check_reads();
}

fn a_reopen_goes_on_where_the_last_one_ended(open: Opener) {
    let mut subject = Subject::open(open);
    for round in 0..6_u32 {
        subject.append([(id(b"same"), started(round + 1))]);
        let failure = Failure::Error(format!("round {round}"));
        subject.append([(id(b"same"), Event::Failed { failure })]);
        subject.check_reads();
        subject.reopen(if round % 2 == 0 { How::Close } else { How::Drop });
        subject.check_reads();
        if round == 3 {
            subject.checkpoint();
        }
    }
}

fn every_event_and_every_text_comes_back(open: Opener) {
    let mut subject = Subject::open(open);
    for (number, life) in lives().into_iter().enumerate() {
        for event in life {
            subject.append([(id(format!("life {number}").as_bytes()), event)]);
        }
    }
    subject.check_reads();
    subject.reopen(How::Close);
    subject.check_reads();
    subject.checkpoint();
    subject.check_reads();
    subject.reopen(How::Drop);
    subject.check_reads();
}

fn hostile_ids_come_back(open: Opener) {
    let mut subject = Subject::open(open);
    let hostile = [
        Vec::new(),
        vec![0],
        vec![0, 0],
        vec![0xff; 3],
        b"\x1b[31m\r\n\"',;../..".to_vec(),
        vec![b'x'; MAX_ID_BYTES],
        vec![b'x'; MAX_ID_BYTES - 1],
        b"TLframe\x01TLcheck\x01".to_vec(),
    ];
    let batch = |event: Event| hostile.iter().map(move |bytes| (id(bytes), event.clone()));
    subject.append(batch(started(1)));
    subject.check_reads();
    subject.reopen(How::Drop);
    subject.append(batch(succeeded(Output::Absent)));
    subject.checkpoint();
    subject.reopen(How::Close);
    subject.check_reads();
}

fn the_largest_records_come_back(open: Opener) {
    let mut subject = Subject::open(open);
    let large = |number: u8| id(&[number; MAX_ID_BYTES]);
    subject.append((0..12).map(|number| (large(number), started(1))));
    let output = |number| Output::Kept((0..40 * 1024).map(|at| number ^ at as u8).collect());
    subject.append((0..6).map(|number| (large(number), succeeded(output(number)))));
    for number in 6..9 {
        subject.append([(large(number), succeeded(output(number)))]);
    }
    let text = "\u{20ac}".repeat(4096 / 3);
    let failed = |text: &str| Event::Failed { failure: Failure::Panicked(text.into()) };
    subject.append((9..12).map(|number| (large(number), failed(&text))));
    subject.check_reads();
    subject.reopen(How::Drop);
    subject.check_reads();
    subject.checkpoint();
    subject.check_reads();
    subject.reopen(How::Close);
    subject.check_reads();
}

fn one_large_batch_comes_back(open: Opener) {
    let mut subject = Subject::open(open);
    subject.append(
        (0..2500_u32).map(|number| (id(&number.to_be_bytes()), started(1))).chain(
            (0..2500_u32).map(|number| (id(&number.to_be_bytes()), succeeded(Output::Absent))),
        ),
    );
    subject.reopen(How::Drop);
    assert_eq!(subject.replayed, 5000);
    subject.checkpoint();
    subject.reopen(How::Close);
    assert_eq!(subject.ids_from_checkpoint, 2500);
    subject.check_reads();
}

fn a_checkpoint_changes_nothing_but_where_things_are(open: Opener) {
    let mut subject = Subject::open(open);
    // Halves of lives before the checkpoint, the other halves after it: reads walk over the border.
    let lives = lives();
    for (number, life) in lives.iter().enumerate() {
        for event in life.iter().take(life.len() / 2) {
            subject.append([(id(&[number as u8]), event.clone())]);
        }
    }
    subject.checkpoint();
    subject.check_reads();
    for (number, life) in lives.iter().enumerate() {
        for event in life.iter().skip(life.len() / 2) {
            subject.append([(id(&[number as u8]), event.clone())]);
            subject.check_reads();
        }
    }
    subject.reopen(How::Close);
    subject.check_reads();
    subject.checkpoint();
    subject.checkpoint();
    subject.reopen(How::Drop);
    subject.check_reads();
    // And a checkpoint right after an open, with nothing new since.
    subject.checkpoint();
    subject.reopen(How::Close);
    subject.check_reads();
}

fn a_checkpoint_drops_ids_that_are_not_found(open: Opener) {
    let mut subject = Subject::open(open);
    for name in ["kept", "revoked", "forgotten", "forgotten later"] {
        subject.append([(id(name.as_bytes()), marked())]);
    }
    subject.append([(id(b"revoked"), Event::RevokeStarted)]);
    subject.append([(id(b"revoked"), Event::Revoked), (id(b"forgotten"), Event::Forgotten)]);
    subject.checkpoint();
    subject.append([(id(b"forgotten later"), Event::Forgotten)]);
    subject.checkpoint();
    subject.reopen(How::Close);
    assert_eq!(subject.ids_from_checkpoint, 1);
    // What was dropped begins anew.
    subject.append([(id(b"revoked"), started(1)), (id(b"forgotten later"), started(1))]);
    subject.check_reads();
    subject.reopen(How::Drop);
    subject.check_reads();
}

fn appends_go_on_while_a_checkpoint_is_made(open: Opener) {
    let mut subject = Subject::open(open);
    subject.append((0..500_u32).map(|number| (id(&number.to_be_bytes()), started(1))));
    let wanted = subject.last();
    subject.upkeep(Some(wanted));
    for number in 0..20_u32 {
        subject.append([(id(&number.to_be_bytes()), succeeded(Output::Kept(vec![9])))]);
        subject.upkeep(None);
    }
    subject.check_reads();
    subject.checkpoint_to(wanted);
    subject.check_reads();
    subject.append([(id(&30_u32.to_be_bytes()), succeeded(Output::Absent))]);
    subject.reopen(How::Drop);
    subject.check_reads();
}

fn metadata_and_epochs_outlive_checkpoints(open: Opener) {
    let mut subject = Subject::open(open);
    let set = |name: &str, value: Option<&[u8]>| LedgerEvent::MetadataSet {
        name: name.into(),
        value: value.map(Vec::from),
    };
    subject.append_ledger(LedgerEvent::EpochOpened { epoch: Epoch::new(1) });
    subject.append_ledger(set("schema", Some(b"1")));
    subject.append_ledger(set("gone", Some(&[0, 0xff])));
    subject.append_ledger(set("", Some(b"")));
    subject.append_ledger(LedgerEvent::LossAccepted { what: "two records\n".into() });
    subject.reopen(How::Close);
    subject.checkpoint();
    subject.append_ledger(set("gone", None));
    subject.append_ledger(set("schema", Some(&[b'2'; 4000])));
    subject.append_ledger(LedgerEvent::EpochOpened { epoch: Epoch::new(2) });
    subject.reopen(How::Drop);
    subject.checkpoint();
    subject.reopen(How::Close);
    assert_eq!(subject.base.epoch, Epoch::new(2));
    assert_eq!(subject.base.metadata.len(), 2);
}

fn a_clock_that_jumps_is_kept_as_it_was(open: Opener) {
    let mut subject = Subject::open(open);
    let year_9999 = 253_402_300_799_999_999;
    for (number, micros) in
        [year_9999, 0, 1, year_9999, 1_700_000_000_000_000, 3].iter().enumerate()
    {
        subject.clock = *micros;
        let id = id(&[number as u8]);
        subject.append([(id.clone(), started(1)), (id, succeeded(Output::Absent))]);
    }
    subject.reopen(How::Close);
    subject.checkpoint();
    subject.check_reads();
    subject.reopen(How::Drop);
    subject.check_reads();
}

fn a_second_open_fails_and_harms_nobody(open: Opener) {
    let mut subject = Subject::open(open);
    subject.append([(id(b"before"), started(1))]);
    let second = (subject.open)().and_then(|mut second| second.replay(&mut |_| Ok(())));
    assert!(second.is_err(), "two hold one journal");
    subject.append([(id(b"after"), started(1))]);
    subject.check_reads();
    subject.reopen(How::Close);
    subject.append([(id(b"before"), succeeded(Output::Absent))]);
    subject.reopen(How::Drop);
    assert_eq!(subject.replayed, 3);
}

/// How a journal is let go.
#[derive(Clone, Copy)]
enum How {
    Close,
    Drop,
}

/// A journal under test, and what it must know.
struct Subject {
    open: Opener,
    journal: Option<Box<dyn Journal>>,
    records: Vec<Record>,
    details: BTreeMap<EncodedId, TaskDetails>,
    /// What all records say of the ledger as a whole.
    base: Base,
    checkpointed: SeqNo,
    clock: u64,
    /// Of the last open.
    replayed: usize,
    ids_from_checkpoint: usize,
}

impl Subject {
    fn open(open: Opener) -> Self {
        let mut subject = Self {
            open,
            journal: None,
            records: Vec::new(),
            details: BTreeMap::new(),
            base: Base::default(),
            checkpointed: SeqNo::ZERO,
            clock: 1_700_000_000_000_000,
            replayed: 0,
            ids_from_checkpoint: 0,
        };
        subject.open_and_check();
        subject
    }

    fn last(&self) -> SeqNo {
        SeqNo::new(self.records.len() as u64)
    }

    fn reopen(&mut self, how: How) {
        if let (Some(mut journal), How::Close) = (self.journal.take(), how) {
            journal.close().unwrap();
        }
        self.open_and_check();
    }

    /// Opens, and compares what the replay hands over with all that was appended.
    fn open_and_check(&mut self) {
        let mut journal = (self.open)().unwrap();
        let mut cells: BTreeMap<EncodedId, Cell> = BTreeMap::new();
        let mut records: Vec<Record> = Vec::new();
        let mut tombstones = BTreeSet::new();
        let mut base = journal
            .replay(&mut |found| {
                match found {
                    Replayed::Expected(_) => {}
                    Replayed::Base(known) => {
                        assert!(records.is_empty(), "the checkpoint comes first");
                        for (id, cell) in known {
                            let twice = cells.insert(id.clone(), cell);
                            assert!(twice.is_none(), "{id:?} is in the checkpoint twice");
                        }
                    }
                    Replayed::Tombstones(known) => {
                        assert!(records.is_empty(), "the checkpoint comes first");
                        for tombstone in known {
                            assert!(tombstones.insert(tombstone), "{tombstone} is there twice");
                        }
                    }
                    Replayed::Records(found) => records.extend(found),
                }
                Ok(())
            })
            .unwrap();
        assert!(base.last_seq >= self.checkpointed, "a finished checkpoint is gone");
        let folded = usize::try_from(base.last_seq.get()).unwrap();
        assert_eq!(records, &self.records[folded..], "records after {folded}");
        let mut left = BTreeSet::new();
        buried_by(&self.records[..folded], &mut left);
        assert_eq!(tombstones, left, "tombstones up to {folded}");
        self.replayed = records.len();
        self.ids_from_checkpoint = cells.len();
        for record in &records {
            match &record.entry {
                Entry::Task { id, prev, event } => {
                    let before = cells.remove(id).unwrap_or(Cell::ABSENT);
                    let cell = before.apply(record.seq, *prev, event).unwrap();
                    if cell != Cell::ABSENT {
                        cells.insert(id.clone(), cell);
                    }
                }
                Entry::Ledger(event) => base.told(event),
            }
        }
        let known = self.details.iter().map(|(id, details)| (id.clone(), details.cell));
        assert_eq!(cells, known.collect());
        assert_eq!((base.epoch, &base.metadata), (self.base.epoch, &self.base.metadata));
        self.journal = Some(journal);
    }

    fn append(&mut self, events: impl IntoIterator<Item = (EncodedId, Event)>) {
        let mut batch = Vec::new();
        for (id, event) in events {
            let prev = self.details.get(&id).map_or(SeqNo::ZERO, |details| details.cell.seq);
            let record = self.record(Entry::Task { id: id.clone(), prev, event });
            fold(&mut self.details, &id, &record);
            batch.push(record);
        }
        self.journal().append(&batch).unwrap();
    }

    fn append_ledger(&mut self, event: LedgerEvent) {
        self.base.told(&event);
        let record = self.record(Entry::Ledger(event));
        self.journal().append(&[record]).unwrap();
    }

    fn record(&mut self, entry: Entry) -> Record {
        let record =
            Record { seq: self.last().next(), at: Timestamp::from_micros(self.clock), entry };
        self.clock += 7;
        self.records.push(record.clone());
        record
    }

    fn journal(&mut self) -> &mut dyn Journal {
        &mut **self.journal.as_mut().unwrap()
    }

    fn upkeep(&mut self, wanted: Option<SeqNo>) {
        let done = self.journal().upkeep(wanted).unwrap();
        assert!(done.failed.is_none(), "{:?}", done.failed);
        assert!(done.checkpointed <= self.last(), "more is folded than there is");
        self.checkpointed = self.checkpointed.max(done.checkpointed);
    }

    /// Folds everything so far.
    fn checkpoint(&mut self) {
        self.checkpoint_to(self.last());
    }

    fn checkpoint_to(&mut self, wanted: SeqNo) {
        for _ in 0..10_000_000 {
            self.upkeep(Some(wanted));
            if self.checkpointed >= wanted {
                return;
            }
            std::thread::yield_now();
        }
        panic!("the checkpoint never finishes");
    }

    /// Reads every id, and compares with the fold of its records.
    fn check_reads(&mut self) {
        let known: Vec<(EncodedId, TaskDetails)> =
            self.details.iter().map(|(id, details)| (id.clone(), details.clone())).collect();
        for (id, details) in known {
            let read = self.journal().read(&id, details.cell).unwrap();
            assert_eq!(read, details, "{id:?}");
        }
    }
}

fn fold(details: &mut BTreeMap<EncodedId, TaskDetails>, id: &EncodedId, record: &Record) {
    let after = details.remove(id).unwrap_or(TaskDetails::ABSENT).after(record).unwrap();
    if after.cell != Cell::ABSENT {
        assert_ne!(after.state(), TaskState::NotFound);
        details.insert(id.clone(), after);
    }
}

fn id(bytes: &[u8]) -> EncodedId {
    EncodedId::from_bytes(bytes)
}

fn started(attempt: u32) -> Event {
    Event::Started {
        attempt: Attempt::new(attempt),
        epoch: Epoch::new(3),
        since: SeqNo::ZERO,
        fingerprint: None,
        parent: None,
        crashed_before: false,
    }
}

fn succeeded(output: Output) -> Event {
    Event::Succeeded { by: SuccessBy::Attempt, output }
}

fn marked() -> Event {
    Event::Succeeded { by: SuccessBy::Mark, output: Output::Absent }
}

/// Lives that hold every event, every failure and every output between them.
fn lives() -> Vec<Vec<Event>> {
    let failed = |failure| Event::Failed { failure };
    let not_kept = |why| succeeded(Output::NotKept(why));
    vec![
        vec![
            Event::Queued { payload: None, since: SeqNo::ZERO },
            started(1),
            failed(Failure::Error("\"no\"\n\0\u{1f4a5}".into())),
            Event::Queued { payload: None, since: SeqNo::ZERO },
            started(2),
            succeeded(Output::Kept(Vec::new())),
        ],
        vec![started(1), failed(Failure::Panicked(String::new())), started(2)],
        vec![started(1), failed(Failure::TimedOut), marked(), Event::Forgotten, started(1)],
        vec![
            started(1),
            failed(Failure::Crashed),
            Event::Queued { payload: None, since: SeqNo::ZERO },
            Event::Forgotten,
            Event::Queued { payload: None, since: SeqNo::ZERO },
        ],
        vec![started(1), failed(Failure::Cancelled("stop".into())), Event::Forgotten],
        vec![
            marked(),
            Event::RevokeStarted,
            Event::RevokeFailed { failure: Failure::Crashed },
            Event::RevokeStarted,
            Event::RevokeFailed { failure: Failure::Error("still there".into()) },
        ],
        vec![
            started(1),
            succeeded(Output::Kept(vec![0, 1, 0xff])),
            Event::RevokeStarted,
            Event::Revoked,
            started(1),
            succeeded(Output::Absent),
            Event::RevokeStarted,
        ],
        vec![started(1), not_kept(NotKept::TooLarge { size: u64::MAX })],
        vec![started(1), not_kept(NotKept::NotSerializable("a map without keys".into()))],
    ]
}

mod on_disk;

/// The tombstones that are there after these records.
fn buried_by(records: &[Record], left: &mut BTreeSet<Tombstone>) {
    for record in records {
        let Entry::Task { event, .. } = &record.entry else { continue };
        match event.grave() {
            Some(Grave::Dug(tombstone)) => _ = left.insert(tombstone),
            Some(Grave::Opened(tombstone)) => _ = left.remove(&tombstone),
            None => {}
        }
    }
}
