use super::*;
use crate::details::TaskDetails;
use crate::id::EncodedId;
use crate::journal::open::{self, StoreOptions};
use crate::journal::{Entry, Journal, OpenReport, Record};
use crate::state::{Attempt, Epoch, Event, Output, SuccessBy, Timestamp};
use std::path::Path;

/// A journal under test, and what it must know.
struct Subject {
    dir: tempfile::TempDir,
    journal: Option<SledJournal>,
    report: OpenReport,
    known: Vec<(EncodedId, TaskDetails)>,
    after: u64,
}

impl Subject {
    fn new(after: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let report = OpenReport::default();
        let mut subject = Self { dir, journal: None, report, known: Vec::new(), after };
        subject.reopen();
        subject
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn reopen(&mut self) {
        self.journal = None;
        let options = StoreOptions {
            lock_wait: Duration::from_secs(5),
            checkpoint_after: self.after,
            ..StoreOptions::plain(self.dir.path())
        };
        let (mut journal, report) = open::open(&options).unwrap();
        journal.replay(&mut |_| Ok(())).unwrap();
        (self.journal, self.report) = (Some(journal), report);
    }

    fn journal(&mut self) -> &mut SledJournal {
        self.journal.as_mut().unwrap()
    }

    /// A new id starts and succeeds, in two batches.
    fn append(&mut self, bytes: usize) {
        let id = EncodedId::from_bytes(format!("id {}", self.known.len()).as_bytes());
        let mut details = TaskDetails::ABSENT;
        let output = Output::Kept(vec![self.known.len() as u8; bytes]);
        let events = [
            Event::Started {
                attempt: Attempt::new(1),
                epoch: Epoch::new(1),
                since: SeqNo::ZERO,
                fingerprint: None,
                parent: None,
                crashed_before: false,
            },
            Event::Succeeded { by: SuccessBy::Attempt, output },
        ];
        for event in events {
            let seq = self.journal().end.seq.next();
            let entry = Entry::Task { id: id.clone(), prev: details.cell.seq, event };
            let record = Record { seq, at: Timestamp::from_micros(seq.get()), entry };
            self.journal().append(std::slice::from_ref(&record)).unwrap();
            details = details.after(&record).unwrap();
        }
        self.known.push((id, details));
    }

    /// What it reads is what was appended, wherever it lies by now.
    fn check(&mut self) {
        for (id, details) in self.known.clone() {
            assert_eq!(self.journal().read(&id, details.cell).unwrap(), details);
        }
    }

    /// Lets the helpers work until there is something to tell.
    fn until(&mut self, wanted: bool, told: impl Fn(&SledJournal, &Upkeep) -> bool) -> Upkeep {
        loop {
            let wanted = wanted.then(|| self.journal().end.seq);
            let upkeep = self.journal().upkeep(wanted).unwrap();
            if told(self.journal(), &upkeep) {
                return upkeep;
            }
            std::thread::yield_now();
        }
    }

    /// Makes every fold fail: its target is a directory.
    fn block(&self) {
        for number in 1..30 {
            let target = self.path().join(directory::checkpoint(number));
            if !target.exists() {
                std::fs::create_dir(target).unwrap();
            }
        }
    }

    fn unblock(&self) {
        for number in 1..30 {
            // Those that are files stay.
            drop(std::fs::remove_dir(self.path().join(directory::checkpoint(number))));
        }
    }

    /// Appends, asks for a checkpoint that fails, and appends: two logs.
    fn with_two_logs() -> Self {
        let mut subject = Self::new(u64::MAX);
        (0..20).for_each(|_| subject.append(100));
        subject.until(true, |journal, _| journal.checkpoint.is_some() && journal.frozen.is_none());
        (0..20).for_each(|_| subject.append(100));
        subject.block();
        subject.until(true, |_, upkeep| upkeep.failed.is_some());
        (0..20).for_each(|_| subject.append(100));
        assert_eq!(subject.journal().manifest.logs.len(), 2);
        subject
    }
}

#[test]
fn a_log_that_has_grown_is_folded_by_itself_while_appends_go_on() {
    let mut subject = Subject::new(64 * 1024);
    let mut checkpoints = 0;
    while checkpoints < 3 {
        let before = subject.journal().base().seq;
        subject.append(20_000);
        let upkeep = subject.journal().upkeep(None).unwrap();
        assert!(upkeep.failed.is_none(), "{:?}", upkeep.failed);
        checkpoints += u32::from(upkeep.checkpointed > before);
    }
    subject.check();
    subject.until(false, |journal, _| journal.roller.job.is_none());
    subject.reopen();
    assert!(subject.report.repaired.is_empty());
    subject.check();
}

#[test]
fn a_fold_that_fails_keeps_both_logs_is_told_and_tried_again() {
    let mut subject = Subject::with_two_logs();
    subject.check();
    // Asked or not, nothing else happens, and the log goes on.
    subject.until(true, |_, upkeep| upkeep.failed.is_some());
    assert_eq!(subject.journal().manifest.logs.len(), 2);
    assert!(subject.journal().roller.retry_at.is_some());
    subject.append(100);
    subject.check();
    subject.unblock();
    let end = subject.journal().end.seq;
    subject.until(true, |_, upkeep| upkeep.checkpointed == end);
    assert_eq!(subject.journal().manifest.logs.len(), 1);
    subject.check();
    subject.reopen();
    subject.check();
}

#[test]
fn an_open_finds_two_logs_and_finishes_the_fold() {
    let mut subject = Subject::with_two_logs();
    subject.unblock();
    subject.reopen();
    let frozen = subject.journal().frozen.as_ref();
    assert!(matches!(frozen, Some(Frozen { reader: FrozenReader::Scan(..), .. })));
    // Read from the checkpoint, the frozen log and the log, before and after.
    subject.check();
    subject.append(100);
    let frozen_end = subject.journal().frozen.as_ref().unwrap().end.seq;
    subject.until(false, |_, upkeep| upkeep.checkpointed == frozen_end);
    assert_eq!(subject.journal().manifest.logs.len(), 1);
    subject.check();
    subject.reopen();
    subject.check();
}

#[test]
fn a_store_that_does_not_open_is_rebuilt_from_its_frames() {
    let damages: [fn(&Path); 3] = [
        |log| std::fs::write(log.join("conf"), "nonsense").unwrap(),
        |log| std::fs::remove_file(log.join("conf")).unwrap(),
        |log| std::fs::write(log.join("snap.00000000000000FF"), "nonsense").unwrap(),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let mut subject = Subject::new(u64::MAX);
        (0..20).for_each(|_| subject.append(100));
        let old = subject.journal().manifest.logs[0];
        subject.journal = None;
        damage(&subject.path().join(directory::log_dir(old.number)));
        subject.reopen();
        let rebuilt = subject.journal().manifest.logs[0] != old;
        assert_eq!(rebuilt, !subject.report.repaired.is_empty(), "damage {number}");
        // The store makes do with a configuration that it does not find, and may with nonsense.
        assert!(rebuilt || number < 2, "damage {number}");
        subject.check();
        subject.append(100);
        subject.reopen();
        assert!(subject.report.repaired.is_empty(), "damage {number}");
        subject.check();
    }
}

#[test]
fn frames_that_the_store_has_dropped_are_taken_from_the_scan() {
    let mut subject = Subject::new(u64::MAX);
    (0..20).for_each(|_| subject.append(100));
    let number = subject.journal().manifest.logs[0].number;
    let log = subject.path().join(directory::log_dir(number));
    subject.journal = None;
    // Not in a frame: sled's own head of its first segment.
    let data = data_file(&log);
    let mut bytes = std::fs::read(&data).unwrap();
    bytes[..20].fill(0xee);
    std::fs::write(&data, bytes).unwrap();
    subject.reopen();
    assert!(!subject.report.repaired.is_empty());
    subject.check();
}

/// A full disk, say: nothing is in doubt before the rename, so nothing may be poisoned.
#[test]
fn a_manifest_that_cannot_be_staged_changes_nothing_is_told_and_tried_again() {
    let mut subject = Subject::new(u64::MAX);
    (0..20).for_each(|_| subject.append(100));
    let staged = subject.path().join("manifest.tmp");
    let block = |path: &Path| std::fs::create_dir_all(path.join("in the way")).unwrap();
    let before = subject.journal().manifest.clone();

    // At the change to the next log: that one waits on.
    block(&staged);
    let staging = |upkeep: &Upkeep| matches!(&upkeep.failed, Some(JournalError::Io { path, .. }) if path.ends_with("manifest.tmp"));
    let upkeep = subject.until(true, |_, upkeep| staging(upkeep));
    assert!(upkeep.again_after.is_some_and(|after| after > POLL));
    assert_eq!(subject.journal().manifest, before);
    assert!(subject.journal().roller.next.is_some() && subject.journal().frozen.is_none());
    subject.append(100);
    subject.check();

    // At the end of the fold: both logs stay, and a checkpoint that nothing names does not.
    assert!(!staged.exists(), "what is in the way of a manifest is removed");
    subject.block();
    subject.until(true, |journal, upkeep| journal.frozen.is_some() && upkeep.failed.is_some());
    subject.unblock();
    let two = subject.journal().manifest.clone();
    assert_eq!(two.logs.len(), 2);
    block(&staged);
    subject.until(true, |_, upkeep| staging(upkeep));
    assert_eq!(subject.journal().manifest, two);
    assert!(!subject.path().join(directory::checkpoint(two.next_number)).exists());
    subject.append(100);
    subject.check();
    subject.reopen();
    subject.check();

    let end = subject.journal().end.seq;
    subject.until(true, |_, upkeep| upkeep.checkpointed == end);
    assert_eq!(subject.journal().manifest.logs.len(), 1);
    subject.check();
    subject.reopen();
    subject.check();
}

/// Which manifest the next open reads is in doubt, so the journal is at its end; but what it holds
/// can still be read, the frozen log included.
#[test]
fn after_a_manifest_that_cannot_be_renamed_everything_is_still_read() {
    let mut subject = Subject::with_two_logs();
    subject.unblock();
    let manifest = subject.path().join("manifest");
    std::fs::rename(&manifest, subject.path().join("kept")).unwrap();
    std::fs::create_dir_all(manifest.join("in the way")).unwrap();
    let error = loop {
        let wanted = Some(subject.journal().end.seq);
        match subject.journal().upkeep(wanted) {
            Ok(_) => std::thread::yield_now(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, JournalError::Io { action: "replace", .. }), "{error:?}");
    subject.check();
    std::fs::remove_dir_all(&manifest).unwrap();
    std::fs::rename(subject.path().join("kept"), &manifest).unwrap();
    subject.reopen();
    subject.check();
}

#[test]
fn what_a_kill_left_of_a_snapshot_is_no_damage() {
    let mut subject = Subject::new(u64::MAX);
    (0..20).for_each(|_| subject.append(100));
    let before = subject.journal().manifest.clone();
    let log = subject.path().join(directory::log_dir(before.logs[0].number));
    subject.journal = None;
    std::fs::write(log.join("snap.00000000FFFFFFFF.generating"), "half of it").unwrap();
    subject.reopen();
    assert!(subject.report.repaired.is_empty());
    assert_eq!(subject.journal().manifest, before);
    subject.check();
}

/// Such a file let the ledger open, and poisoned it at its first sync of the witness, each time anew.
#[test]
fn a_stray_file_among_the_blobs_is_repaired() {
    let mut subject = Subject::new(u64::MAX);
    (0..20).for_each(|_| subject.append(100));
    let number = subject.journal().manifest.logs[0].number;
    let log = subject.path().join(directory::log_dir(number));
    subject.journal = None;
    std::fs::write(log.join("blobs/17"), "stray").unwrap();
    subject.reopen();
    assert!(subject.report.repaired[0].contains("blobs"), "{:?}", subject.report.repaired);
    subject.append(100);
    subject.check();
    subject.journal().close().unwrap();
    subject.reopen();
    assert!(subject.report.repaired.is_empty(), "{:?}", subject.report.repaired);
    subject.check();
}
