use super::*;
use crate::error::OpenError;
use crate::journal::aside;
use crate::journal::chain::Chain;
use crate::journal::durable::SledJournal;
use crate::journal::manifest::Judged;
use crate::journal::open::{StoreOptions, open};
use crate::journal::{Journal, OpenReport, Record, Replayed};
use crate::state::{Attempt, Epoch, Event, TaskState};
use std::collections::BTreeMap;
use tempfile::TempDir;

fn options(path: &Path, accept_loss: bool) -> StoreOptions {
    StoreOptions { accept_loss, shape: b"\0a shape".to_vec(), ..StoreOptions::plain(path) }
}

fn started(seq: u64) -> Record {
    let event = Event::Started {
        attempt: Attempt::new(1),
        epoch: Epoch::new(1),
        since: SeqNo::ZERO,
        fingerprint: None,
        parent: None,
        crashed_before: false,
    };
    let id = EncodedId::from_bytes(&seq.to_be_bytes());
    let entry = Entry::Task { id, prev: SeqNo::ZERO, event };
    Record { seq: SeqNo::new(seq), at: Timestamp::from_micros(seq), entry }
}

/// A ledger whose records 1 to 10 are in a checkpoint, 11 to 20 in its log.
fn sample() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = open(&options(dir.path(), false)).unwrap();
    replayed(&mut journal);
    journal.append(&(1..=10).map(started).collect::<Vec<_>>()).unwrap();
    while journal.upkeep(Some(SeqNo::new(10))).unwrap().checkpointed < SeqNo::new(10) {
        std::thread::yield_now();
    }
    journal.append(&(11..=20).map(started).collect::<Vec<_>>()).unwrap();
    journal.close().unwrap();
    dir
}

fn replayed(journal: &mut SledJournal) -> BTreeMap<EncodedId, TaskState> {
    let mut states = BTreeMap::new();
    journal
        .replay(&mut |found| {
            match found {
                Replayed::Base(cells) => {
                    states.extend(cells.into_iter().map(|(id, cell)| (id, cell.state)));
                }
                Replayed::Expected(_) | Replayed::Tombstones(_) => {}
                Replayed::Records(records) => {
                    for record in records {
                        if let Entry::Task { id, event, .. } = record.entry {
                            states.insert(id, event.target(TaskState::Succeeded));
                        }
                    }
                }
            }
            Ok(())
        })
        .unwrap();
    states
}

fn repaired(dir: &Path) -> (SledJournal, OpenReport) {
    open(&options(dir, true)).unwrap()
}

fn lose_manifest(dir: &Path) {
    std::fs::remove_file(dir.join("manifest")).unwrap();
}

#[test]
fn a_made_up_manifest_names_what_the_lost_one_did() {
    let dir = sample();
    let Judged::Current(lost) = Manifest::read(dir.path()).unwrap() else { panic!("sound") };
    lose_manifest(dir.path());
    let made_up = reconstruct(dir.path()).unwrap().unwrap();
    assert_eq!(made_up.ledger, lost.ledger);
    assert_eq!(made_up.checkpoint, lost.checkpoint);
    assert_eq!(made_up.segment_size, lost.segment_size);
    assert!(lost.logs.iter().all(|log| made_up.logs.contains(log)));
    assert_eq!(made_up.next_number, lost.next_number);
    assert!(IdShape::from_bytes(&made_up.shape).unwrap().is_opaque());
}

#[test]
fn without_a_manifest_everything_comes_back_and_only_if_accepted() {
    let dir = sample();
    lose_manifest(dir.path());
    let refused = open(&options(dir.path(), false)).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged(_)), "{refused}");
    let (mut journal, report) = repaired(dir.path());
    assert!(report.loss_accepted.unwrap().starts_with("manifest: it is missing"));
    assert_eq!(replayed(&mut journal).len(), 20);
    // The accepted loss itself is the next record.
    assert_eq!(journal.end.seq, SeqNo::new(21));
    drop(journal);
    let (mut journal, report) = open(&options(dir.path(), false)).unwrap();
    assert_eq!(report.loss_accepted, None);
    assert_eq!(replayed(&mut journal).len(), 20);
}

/// Any file may be the one that is left to say which ledger it was.
#[test]
fn one_file_is_enough_to_know_the_ledger() {
    for kept in ["witness", "checkpoint-", "log-"] {
        let dir = sample();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            if !entry.file_name().to_string_lossy().starts_with(kept) {
                files::remove(&entry.path()).unwrap();
            }
        }
        let made_up = reconstruct(dir.path()).unwrap();
        assert!(made_up.is_some(), "{kept}");
        let ids = match kept {
            "witness" => 0,
            _ => 10,
        };
        let (mut journal, _) = repaired(dir.path());
        assert_eq!(replayed(&mut journal).len(), ids, "{kept}");
        assert!(journal.end.seq >= SeqNo::new(10), "numbers are not used again");
    }
}

#[test]
fn a_witness_put_in_by_mistake_does_not_make_it_another_ledger() {
    let dir = sample();
    let owner = reconstruct(dir.path()).unwrap().unwrap().ledger;
    let foreign = LedgerId(*b"of another place");
    drop(Witness::create_at(dir.path(), foreign, SeqNo::new(99), Chain(1)).unwrap());
    assert_eq!(reconstruct(dir.path()).unwrap().unwrap().ledger, owner);
    // Its two slots do not outvote a log.
    lose_manifest(dir.path());
    for (name, meaning) in directory::list(dir.path()).unwrap() {
        if let Name::Checkpoint(_) = meaning {
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
    }
    assert_eq!(reconstruct(dir.path()).unwrap().unwrap().ledger, owner);
}

#[test]
fn nothing_to_go_by_is_no_ledger() {
    let dir = sample();
    for name in ["witness", "checkpoint-2", "checkpoint-3"] {
        files::remove(&dir.path().join(name)).unwrap();
    }
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            std::fs::write(path.join("db"), "nothing of ours").unwrap();
        }
    }
    std::fs::write(dir.path().join("manifest"), "nor here").unwrap();
    assert_eq!(reconstruct(dir.path()).unwrap(), None);
    let refused = open(&options(dir.path(), true)).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged(_)), "{refused}");
}

/// A checkpoint that cannot be used is passed over, but it is not thrown away.
#[test]
fn a_damaged_checkpoint_beside_a_sound_one_is_kept_as_evidence() {
    let dir = sample();
    lose_manifest(dir.path());
    std::fs::write(dir.path().join("checkpoint-77"), "not a checkpoint").unwrap();
    let (mut journal, _) = repaired(dir.path());
    assert_eq!(replayed(&mut journal).len(), 20);
    let kept = std::fs::read(dir.path().join("damaged/checkpoint-77")).unwrap();
    assert_eq!(kept, b"not a checkpoint");
    assert!(!dir.path().join("checkpoint-77").exists());
}

/// Whatever a killed repair has left, the next one comes to the same.
#[test]
fn a_repair_that_was_killed_is_begun_again() {
    for dies_after in 0..3 {
        let dir = sample();
        lose_manifest(dir.path());
        let made_up = reconstruct(dir.path()).unwrap().unwrap();
        let witness = std::fs::read(dir.path().join("witness")).unwrap();
        // What a repair does, up to a line of it.
        let at = made_up.checkpoint.unwrap();
        let old = dir.path().join(directory::checkpoint(at.number));
        let new = dir.path().join(directory::checkpoint(made_up.next_number));
        std::fs::copy(&old, &new).unwrap();
        if dies_after > 0 {
            aside::put_aside(dir.path(), &all_names(dir.path()).unwrap()).unwrap();
        }
        if dies_after > 1 {
            drop(Witness::create_at(dir.path(), made_up.ledger, SeqNo::new(20), Chain(7)).unwrap());
        }
        let (mut journal, _) = repaired(dir.path());
        assert_eq!(replayed(&mut journal).len(), 20, "died after {dies_after}");
        let kept = std::fs::read(dir.path().join("damaged/witness")).unwrap();
        assert_eq!(kept, witness, "died after {dies_after}");
        assert!(!dir.path().join("damaged/manifest").exists());
    }
}

/// When it was the witness that was damaged, the fresh one of a killed repair makes the ledger look
/// sound, and nothing would ever have told of the loss.
#[test]
fn a_repair_that_was_killed_is_no_sound_ledger() {
    let dir = sample();
    std::fs::write(dir.path().join("witness"), "nothing").unwrap();
    let Judged::Current(manifest) = Manifest::read(dir.path()).unwrap() else { panic!() };
    let plain = || open(&options(dir.path(), false));
    let refused = plain().unwrap_err();
    assert!(matches!(&refused, OpenError::Journal(_) | OpenError::Damaged(_)), "{refused}");
    aside::put_aside(dir.path(), &all_names(dir.path()).unwrap()).unwrap();
    let base = manifest.checkpoint.unwrap();
    drop(Witness::create_at(dir.path(), manifest.ledger, base.last_seq, base.chain).unwrap());
    for refused in [plain().map(drop), open(&options(dir.path(), false)).map(drop)] {
        let refused = crate::error::chain(&refused.unwrap_err());
        assert!(refused.contains("begun and not finished"), "{refused}");
    }
    let (mut journal, report) = repaired(dir.path());
    assert!(report.loss_accepted.is_some());
    assert_eq!(replayed(&mut journal).len(), 20);
    journal.close().unwrap();
    drop(journal);
    let (mut journal, report) = plain().unwrap();
    assert_eq!(report.loss_accepted, None);
    assert_eq!(replayed(&mut journal).len(), 20);
}
