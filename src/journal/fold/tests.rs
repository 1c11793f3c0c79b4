use super::*;
use crate::details::TaskDetails;
use crate::id::EncodedId;
use crate::journal::arbitrary;
use crate::journal::checkpoint::Summary;
use crate::journal::frame::encode_records;
use crate::journal::scan::scan_file;
use crate::state::{Event, Failure, Timestamp};
use proptest::prelude::*;
use tempfile::TempDir;

const LEDGER: LedgerId = LedgerId(*b"the ledger's id.");

/// A ledger that is only a map: what every fold must come to.
#[derive(Debug, Default, PartialEq)]
struct Model {
    ids: BTreeMap<EncodedId, TaskDetails>,
    epoch: Epoch,
    metadata: BTreeMap<String, Vec<u8>>,
}

impl Model {
    fn take(&mut self, record: &Record, mode: Mode) {
        match &record.entry {
            Entry::Task { id, .. } => {
                let details = self.ids.remove(id).unwrap_or(TaskDetails::ABSENT);
                let details = match mode {
                    Mode::Strict => details.after(record).expect("a legal history"),
                    Mode::Forced => details.forced(record),
                };
                if details.state() != TaskState::NotFound {
                    self.ids.insert(id.clone(), details);
                }
            }
            Entry::Ledger(LedgerEvent::EpochOpened { epoch }) => self.epoch = *epoch,
            Entry::Ledger(LedgerEvent::LossAccepted { .. }) => {}
            Entry::Ledger(LedgerEvent::MetadataSet { name, value }) => {
                self.metadata.remove(name);
                let value = value.iter().map(|value| (name.clone(), value.clone()));
                self.metadata.extend(value);
            }
        }
    }

    fn of(records: &[Record], mode: Mode) -> Self {
        let mut model = Self::default();
        records.iter().for_each(|record| model.take(record, mode));
        model
    }

    fn in_checkpoint(checkpoint: &Checkpoint) -> Self {
        let mut ids = BTreeMap::new();
        checkpoint
            .visit(|id, details| {
                assert_eq!(checkpoint.get(id).expect("readable").as_ref(), Some(details));
                ids.insert(id.clone(), details.clone());
                Ok(())
            })
            .expect("a sound checkpoint");
        let Summary { epoch, metadata, counts, .. } = checkpoint.summary().clone();
        for (state, count) in TaskState::ALL.iter().zip(counts) {
            let there = ids.values().filter(|details| details.state() == *state).count();
            assert_eq!(there as u64, count, "{state}");
        }
        Self { ids, epoch, metadata }
    }
}

/// A log with one batch of so many records after the other, as a file.
fn log_of(dir: &TempDir, chain: Chain, records: &[Record], batch: usize) -> (Scan, Chain) {
    let (mut bytes, mut end) = (Vec::new(), chain);
    for records in records.chunks(batch) {
        let (frames, after) = encode_records(LEDGER, end, records).expect("within limits");
        frames.iter().for_each(|frame| bytes.extend_from_slice(&frame.bytes));
        end = after;
    }
    let path = dir.path().join("db");
    std::fs::write(&path, &bytes).expect("written");
    let mut scan = scan_file(&path, LEDGER, SeqNo::ZERO).expect("readable");
    assert!(scan.load(u64::MAX).expect("readable"), "kept, since the file is written again");
    (scan, end)
}

fn folded(
    dir: &TempDir,
    old: Option<&Checkpoint>,
    scan: &Scan,
    mode: Mode,
    memory: usize,
) -> Result<Folded, JournalError> {
    let (seq, chain) = old
        .map_or((SeqNo::ZERO, Chain::START), |old| (old.summary().last_seq, old.summary().chain));
    let run = scan.run(seq, chain);
    let frames = match mode {
        Mode::Strict => run.frames.clone(),
        Mode::Forced => scan.salvage(seq, chain, u64::MAX),
    };
    let last_seq = match mode {
        Mode::Strict => run.end,
        Mode::Forced => SeqNo::new(1_000_000),
    };
    let path = dir.path().join(format!("checkpoint-{last_seq}"));
    let target = Target { path: &path, ledger: LEDGER, last_seq, chain: run.chain };
    fold(old, &[Log { scan, frames: &frames }], mode, &target, memory, &AtomicBool::new(false))
}

fn names_in(dir: &TempDir) -> Vec<String> {
    let names = std::fs::read_dir(dir.path()).expect("readable");
    let mut names: Vec<_> =
        names.map(|name| name.expect("a name").file_name().to_string_lossy().into()).collect();
    names.sort();
    names
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_fold_in_steps_comes_to_what_a_plain_map_comes_to(
        records in arbitrary::history(1..300),
        cut: prop::sample::Index,
        batch in 1_usize..60,
        memory in prop_oneof![Just(0_usize), Just(2_000), Just(FOLD_MEMORY)],
    ) {
        let dir = TempDir::new().expect("a directory");
        let cut = cut.index(records.len() + 1);
        let (before, after) = records.split_at(cut);
        let (scan, chain) = log_of(&dir, Chain::START, before, batch);
        let old = folded(&dir, None, &scan, Mode::Strict, memory).expect("legal");
        prop_assert_eq!(old.records, before.len() as u64);
        prop_assert_eq!(Model::in_checkpoint(&old.checkpoint), Model::of(before, Mode::Strict));
        let (scan, _) = log_of(&dir, chain, after, batch);
        let new = folded(&dir, Some(&old.checkpoint), &scan, Mode::Strict, memory).expect("legal");
        prop_assert_eq!(Model::in_checkpoint(&new.checkpoint), Model::of(&records, Mode::Strict));
        prop_assert_eq!(new.checkpoint.summary().last_seq.get(), records.len() as u64);
        let left = names_in(&dir).into_iter().filter(|name| name.contains('.')).count();
        prop_assert_eq!(left, 0, "no parts and nothing unfinished is left");
    }

    #[test]
    fn a_forced_fold_over_a_gap_believes_what_is_there(
        records in arbitrary::history(30..200),
        gap in 1_usize..29,
        batch in 1_usize..9,
    ) {
        let dir = TempDir::new().expect("a directory");
        let kept: Vec<_> =
            records.chunks(batch).enumerate().filter(|(n, _)| n % (gap + 1) != gap).collect();
        let (mut bytes, mut chain) = (Vec::new(), Chain::START);
        for (number, records) in records.chunks(batch).enumerate() {
            let (frames, end) = encode_records(LEDGER, chain, records).expect("within limits");
            if kept.iter().any(|(n, _)| *n == number) {
                frames.iter().for_each(|frame| bytes.extend_from_slice(&frame.bytes));
            }
            chain = end;
        }
        let path = dir.path().join("db");
        std::fs::write(&path, &bytes).expect("written");
        let scan = scan_file(&path, LEDGER, SeqNo::ZERO).expect("readable");
        let made = folded(&dir, None, &scan, Mode::Forced, 5_000).expect("forced");
        let left: Vec<_> = kept.into_iter().flat_map(|(_, records)| records.to_vec()).collect();
        prop_assert_eq!(Model::in_checkpoint(&made.checkpoint), Model::of(&left, Mode::Forced));
    }
}

fn failed_at(seq: u64, prev: u64) -> Record {
    let event = Event::Failed { failure: Failure::Crashed };
    let id = EncodedId::from_bytes(b"a");
    let entry = Entry::Task { id, prev: SeqNo::new(prev), event };
    Record { seq: SeqNo::new(seq), at: Timestamp::from_micros(seq), entry }
}

#[test]
fn an_illegal_record_ends_a_strict_fold_and_is_named() {
    let dir = TempDir::new().expect("a directory");
    let queued = Record {
        entry: Entry::Task {
            id: EncodedId::from_bytes(b"a"),
            prev: SeqNo::ZERO,
            event: Event::Queued { payload: None, since: SeqNo::ZERO },
        },
        ..failed_at(1, 0)
    };
    let (scan, _) = log_of(&dir, Chain::START, &[queued, failed_at(2, 1)], 9);
    let error = folded(&dir, None, &scan, Mode::Strict, FOLD_MEMORY).expect_err("illegal");
    assert!(matches!(error, JournalError::Illegal { seq, .. } if seq.get() == 2), "{error}");
    assert_eq!(names_in(&dir), ["db"], "nothing is left of it");
    let made = folded(&dir, None, &scan, Mode::Forced, FOLD_MEMORY).expect("forced");
    let details = made.checkpoint.get(&EncodedId::from_bytes(b"a")).expect("readable");
    assert_eq!(details.map(|details| details.state()), Some(TaskState::Failed));
}

#[test]
fn a_strict_fold_refuses_a_gap_and_another_end() {
    let dir = TempDir::new().expect("a directory");
    let records: Vec<_> = (1..=3).map(|seq| failed_at(seq, 0)).collect();
    let (scan, chain) = log_of(&dir, Chain::START, &records, 1);
    let path = dir.path().join("checkpoint-1");
    let target = Target { path: &path, ledger: LEDGER, last_seq: SeqNo::new(3), chain };
    for frames in [&[0, 2][..], &[1, 2], &[]] {
        let never = AtomicBool::new(false);
        let log = Log { scan: &scan, frames };
        let made = fold(None, &[log], Mode::Strict, &target, FOLD_MEMORY, &never);
        assert!(matches!(made, Err(JournalError::Store(_))), "{made:?}");
    }
}

/// A close need not wait for a fold that is as long as the ledger is large.
#[test]
fn a_fold_that_is_asked_to_stop_leaves_nothing() {
    let dir = TempDir::new().expect("a directory");
    let (scan, chain) = log_of(&dir, Chain::START, &[failed_at(1, 0), failed_at(2, 1)], 1);
    let path = dir.path().join("checkpoint-1");
    let target = Target { path: &path, ledger: LEDGER, last_seq: SeqNo::new(2), chain };
    let stop = AtomicBool::new(true);
    // Not as the first, were it read.
    let log = Log { scan: &scan, frames: &[1] };
    let reading = fold(None, &[log], Mode::Strict, &target, FOLD_MEMORY, &stop).map(drop);
    let mut round = Round::after(None, Mode::Strict);
    round
        .take(Record {
            entry: Entry::Task {
                id: EncodedId::from_bytes(b"a"),
                prev: SeqNo::ZERO,
                event: Event::Queued { payload: None, since: SeqNo::ZERO },
            },
            ..failed_at(1, 0)
        })
        .expect("the first");
    let writing = round.write(None, &target, &stop).map(drop);
    for stopped in [reading, writing] {
        assert!(matches!(stopped, Err(JournalError::Store(what)) if what == "asked to stop"));
    }
    assert_eq!(names_in(&dir), ["db"]);
}
