use super::*;
use crate::dump::Inspection;
use crate::error::OpenError;
use crate::id::{EncodedId, IdShape};
use crate::journal::chain::Chain;
use crate::journal::durable::SledJournal;
use crate::journal::open::{self, StoreOptions};
use crate::journal::{Copier, Entry, Journal, LedgerEvent, Replayed};
use crate::state::{Attempt, Epoch, Event, Output, SeqNo, SuccessBy, TaskState, Timestamp};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use tempfile::TempDir;

fn options(path: &Path) -> StoreOptions {
    StoreOptions { shape: IdShape::of_type::<String>().to_bytes(), ..StoreOptions::plain(path) }
}

/// A ledger that works: one id has succeeded, one runs, one is queued, one is being revoked.
fn source(scratch: &TempDir) -> SledJournal {
    let (mut journal, _) = open::open(&options(&scratch.path().join("source"))).unwrap();
    journal.replay(&mut |_| Ok(())).unwrap();
    let id = |name: &str| EncodedId::from_bytes(&[&[4], name.as_bytes()].concat());
    let started = Event::Started {
        attempt: Attempt::new(1),
        epoch: Epoch::new(1),
        since: SeqNo::ZERO,
        fingerprint: None,
        parent: None,
        crashed_before: false,
    };
    let marked = Event::Succeeded { by: SuccessBy::Mark, output: Output::Absent };
    let told = [
        ("done", 0, started.clone()),
        ("done", 1, Event::Succeeded { by: SuccessBy::Attempt, output: Output::Kept(vec![7]) }),
        ("runs", 0, started),
        ("wait", 0, Event::Queued { payload: None, since: SeqNo::ZERO }),
        ("undo", 0, marked),
        ("undo", 5, Event::RevokeStarted),
    ];
    let records: Vec<Record> = told
        .into_iter()
        .zip(1..)
        .map(|((name, prev, event), seq)| {
            let entry = Entry::Task { id: id(name), prev: SeqNo::new(prev), event };
            Record { seq: SeqNo::new(seq), at: Timestamp::from_micros(1_000_000 + seq), entry }
        })
        .collect();
    journal.append(&records).unwrap();
    while journal.upkeep(Some(SeqNo::new(6))).unwrap().checkpointed < SeqNo::new(6) {
        std::thread::yield_now();
    }
    journal
}

fn copier(journal: &mut SledJournal) -> Copier {
    journal.copier().unwrap()
}

fn go() -> AtomicBool {
    AtomicBool::new(false)
}

fn names(dir: &Path) -> Vec<String> {
    let list = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        list.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A directory as it is at this moment: what a kill would leave.
fn frozen(dir: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for name in names(dir) {
        let (from, to) = (dir.join(&name), to.join(&name));
        if from.is_dir() { frozen(&from, &to) } else { _ = std::fs::copy(from, to).unwrap() }
    }
}

fn assert_whole(path: &Path) {
    let inspection = Inspection::open(path).unwrap();
    let report = inspection.verify().unwrap();
    assert!(report.is_sound(), "{report:?}");
    let states: Vec<TaskState> = inspection.tasks().map(|task| task.unwrap().1.state()).collect();
    let expected =
        [TaskState::Succeeded, TaskState::Running, TaskState::Revoking, TaskState::Queued];
    assert_eq!(states, expected);
    assert_eq!(inspection.last_seq(), SeqNo::new(6));
}

#[test]
fn wherever_a_copy_dies_there_is_no_ledger_and_the_next_one_makes_it() {
    let scratch = tempfile::tempdir().unwrap();
    let mut journal = source(&scratch);
    let checkpoint = journal.checkpoint.clone().unwrap();
    let origin = Origin::of(&journal.manifest, journal.end);
    let copy = scratch.path().join("copy");
    let mut deaths = Vec::new();
    let mut dies = |step: &'static str| {
        let left = scratch.path().join(format!("left-{}", deaths.len()));
        frozen(&copy, &left);
        deaths.push((step, left));
    };

    let fresh = Fresh::begin(&copy).unwrap();
    dies("copying");
    let unfinished = copy.join("checkpoint-1.tmp");
    std::fs::write(&unfinished, b"half of it").unwrap();
    dies("half a checkpoint");
    std::fs::remove_file(&unfinished).unwrap();
    fresh.copy_checkpoint(&checkpoint, &go()).unwrap();
    dies("checkpoint");
    fresh.finish_with(&origin, &[], &mut dies).unwrap();
    dies("all");
    assert_whole(&copy);

    let steps: Vec<&str> = deaths.iter().map(|(step, _)| *step).collect();
    let expected = ["copying", "half a checkpoint", "checkpoint", "log", "witness", "manifest.tmp"];
    assert_eq!(steps, [&expected[..], &["manifest", "all"]].concat());
    for (step, left) in &deaths[..expected.len()] {
        let before = names(left);
        assert_eq!(judge(left).unwrap(), Found::LeftoversOfCopy, "{step}");
        let mut accepting = options(left);
        accepting.accept_loss = true;
        for options in [options(left), accepting] {
            let opened = open::open(&options).unwrap_err();
            assert!(matches!(opened, OpenError::Unfinished { .. }), "{step}: {opened}");
        }
        let looked = Inspection::open(left).unwrap_err();
        assert!(matches!(looked, OpenError::Unfinished { .. }), "{step}: {looked}");
        assert_eq!(names(left), before, "{step}");
        copier(&mut journal)(left, &go()).unwrap();
        assert_whole(left);
    }
    for (step, left) in &deaths[expected.len()..] {
        assert_whole(left);
        let again = copier(&mut journal)(left, &go()).unwrap_err();
        assert!(matches!(again, CreateError::Exists { .. }), "{step}: {again}");
        let (opened, _) = open::open(&options(left)).unwrap();
        drop(opened);
        assert_eq!(names(left), ["checkpoint-1", "lock", "log-2", "manifest", "witness"]);
    }
}

#[test]
fn a_copy_goes_on_from_where_it_was_made() {
    let scratch = tempfile::tempdir().unwrap();
    let mut journal = source(&scratch);
    let ledger = journal.ledger();
    let copy = scratch.path().join("a/b/copy");
    copier(&mut journal)(&copy, &go()).unwrap();
    // The original is not needed any more.
    drop(journal);
    std::fs::remove_dir_all(scratch.path().join("source")).unwrap();
    for name in names(&copy) {
        let mode = copy.join(&name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if name == "log-2" { 0o700 } else { 0o600 }, "{name}");
    }
    for next in [7, 8] {
        let (mut journal, report) = open::open(&options(&copy)).unwrap();
        assert_eq!((journal.ledger(), report.repaired.len()), (ledger, 0));
        let base = journal.replay(&mut |_| Ok(())).unwrap();
        assert_eq!((base.ledger, base.last_seq.get()), (ledger.0, 6));
        let event = LedgerEvent::EpochOpened { epoch: Epoch::new(next) };
        let at = Timestamp::from_micros(next);
        let record = Record { seq: SeqNo::new(next), at, entry: Entry::Ledger(event) };
        journal.append(&[record]).unwrap();
        journal.close().unwrap();
    }
    assert_eq!(Inspection::open(&copy).unwrap().last_seq(), SeqNo::new(8));
}

#[test]
fn one_that_is_given_up_leaves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let mut journal = source(&scratch);
    let (missing, empty) = (scratch.path().join("missing"), scratch.path().join("empty"));
    std::fs::create_dir(&empty).unwrap();
    let stopped = AtomicBool::new(true);
    for path in [&missing, &empty] {
        let error = copier(&mut journal)(path, &stopped).unwrap_err();
        assert!(matches!(error, CreateError::Journal(_)), "{error}");
    }
    assert!(!missing.exists());
    assert_eq!(names(&empty), ["lock"]);
    for path in [&missing, &empty] {
        copier(&mut journal)(path, &go()).unwrap();
        assert_whole(path);
    }
}

#[test]
fn what_is_there_is_not_touched() {
    let scratch = tempfile::tempdir().unwrap();
    let mut journal = source(&scratch);
    let occupied = |files: &[(&str, &str)]| {
        let dir = tempfile::tempdir_in(scratch.path()).unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(dir.path().join(name), text).unwrap());
        dir
    };
    let cases = [
        occupied(&[("notes.txt", "x")]),
        // Of somebody else, who has the same word for something.
        occupied(&[("copying", "my list"), ("checkpoint-7", "mine")]),
        occupied(&[("copying", MARK), ("checkpoint-1", "x"), ("notes.txt", "x")]),
        // A ledger that has lost its manifest.
        occupied(&[("checkpoint-7", "x")]),
    ];
    for dir in cases {
        let before = names(dir.path());
        let error = copier(&mut journal)(dir.path(), &go()).unwrap_err();
        assert!(matches!(error, CreateError::Exists { .. }), "{error}");
        assert!(error.to_string().contains("give the path of a new or empty directory"), "{error}");
        // The lock may be taken for a second look.
        let after: Vec<String> = names(dir.path()).into_iter().filter(|n| n != "lock").collect();
        assert_eq!(after, before);
    }
    let own = copier(&mut journal)(&scratch.path().join("source"), &go()).unwrap_err();
    assert!(matches!(&own, CreateError::Exists { found, .. } if found == "a ledger"), "{own}");
    let file = scratch.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = copier(&mut journal)(&file, &go()).unwrap_err();
    assert!(matches!(error, CreateError::NotADirectory { .. }), "{error}");
}

#[test]
fn of_two_at_one_path_one_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let mut journal = source(&scratch);
    let path = scratch.path().join("copy");
    let fresh = Fresh::begin(&path).unwrap();
    let error = copier(&mut journal)(&path, &go()).unwrap_err();
    assert!(matches!(&error, CreateError::Locked { holder, .. } if holder.this_process), "{error}");
    drop(fresh);
    assert!(!path.exists());
}

#[test]
fn a_damaged_checkpoint_is_not_copied() {
    let scratch = tempfile::tempdir().unwrap();
    let mut journal = source(&scratch);
    let number = journal.manifest.checkpoint.unwrap().number;
    let file = scratch.path().join("source").join(directory::checkpoint(number));
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let path = scratch.path().join("copy");
    let error = copier(&mut journal)(&path, &go()).unwrap_err();
    assert!(matches!(error, CreateError::Damaged(_)), "{error}");
    assert!(!path.exists());
}

/// Whoever copies holds what it needs, however many there are.
#[test]
fn a_copier_outlives_its_checkpoint_and_its_ledger() {
    let scratch = tempfile::tempdir().unwrap();
    let mut journal = source(&scratch);
    let copier = copier(&mut journal);
    journal
        .append(&[Record {
            seq: SeqNo::new(7),
            at: Timestamp::from_micros(7),
            entry: Entry::Ledger(LedgerEvent::EpochOpened { epoch: Epoch::new(2) }),
        }])
        .unwrap();
    while journal.upkeep(Some(SeqNo::new(7))).unwrap().checkpointed < SeqNo::new(7) {
        std::thread::yield_now();
    }
    journal.close().unwrap();
    drop(journal);
    let other = Arc::clone(&copier);
    for (copier, name) in [(copier, "one"), (other, "two")] {
        let path = scratch.path().join(name);
        copier(&path, &go()).unwrap();
        assert_whole(&path);
    }
}

/// A record beyond the last position was acknowledged, and passed over by the next open. (No import makes such
/// a ledger.)
#[test]
fn a_ledger_without_positions_left_says_so_and_keeps_what_it_has() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("copy");
    let end = Position { seq: SeqNo::new(SeqNo::LAST - 2), chain: Chain(7) };
    let shape = IdShape::of_type::<String>().to_bytes();
    let created_at = Timestamp::from_micros(1);
    let origin = Origin { ledger: LedgerId([1; 16]), created_at, shape, end };
    let fresh = Fresh::begin(&path).unwrap();
    let writer = fresh.write_checkpoint(&origin).unwrap();
    writer.sum_up(Epoch::new(1), &std::collections::BTreeMap::new()).unwrap().end().unwrap();
    fresh.finish(&origin, &[]).unwrap();
    let opened = |seq: u64| Record {
        seq: SeqNo::new(seq),
        at: Timestamp::from_micros(seq),
        entry: Entry::Ledger(LedgerEvent::EpochOpened { epoch: Epoch::new(2) }),
    };
    let (mut journal, _) = open::open(&options(&path)).unwrap();
    journal.replay(&mut |_| Ok(())).unwrap();
    let last = SeqNo::LAST - 1;
    let both = journal.append(&[opened(last), opened(last + 1)]);
    assert!(matches!(both, Err(JournalError::UsedUp)), "{both:?}");
    journal.append(&[opened(last)]).unwrap();
    let beyond = journal.append(&[opened(last + 1)]);
    assert!(matches!(beyond, Err(JournalError::UsedUp)), "{beyond:?}");
    journal.close().unwrap();
    drop(journal);
    let (mut journal, _) = open::open(&options(&path)).unwrap();
    let mut found = Vec::new();
    let replay = journal.replay(&mut |replayed| {
        if let Replayed::Records(records) = replayed {
            found.extend(records.into_iter().map(|record| record.seq.get()));
        }
        Ok(())
    });
    replay.unwrap();
    assert_eq!(found, [last]);
}
