//! Damage in each file: `verify` names the place, the rest is shown all the same, `repair` brings
//! the ledger back and keeps the evidence.

use crate::{fail, on, snapshot, succeed, with};
use std::path::{Path, PathBuf};
use taskledger::{Ledger, TaskState};

/// A ledger with a checkpoint, of ids `old-..`, and a log, of ids `new-..`.
fn sample() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    with::<String>(&path, async |ledger| {
        for number in 0..200 {
            succeed(ledger, format!("old-{number:03}"), vec![number]).await;
        }
        ledger.checkpoint().await.unwrap();
        for number in 0..20 {
            succeed(ledger, format!("new-{number:03}"), vec![number]).await;
            fail(ledger, format!("no-{number:03}"), "no").await;
        }
    });
    (dir, path)
}

fn named(path: &Path, prefix: &str) -> PathBuf {
    let mut names = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let wanted = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
    names.find(wanted).unwrap()
}

fn flip(file: &Path, at: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(file, bytes).unwrap();
}

fn truncate(file: &Path, to: u64) {
    std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(to).unwrap();
}

/// Where the last frame of a log begins.
fn last_frame(file: &Path) -> usize {
    let bytes = std::fs::read(file).unwrap();
    memchr::memmem::rfind(&bytes, b"TLframe\x01").unwrap()
}

/// `verify` finds it in `place` and changes nothing; `repair` makes it sound and keeps the damaged
/// file as it was. Returns how many tasks are left.
#[track_caller]
fn found_and_repaired(path: &Path, place: &str) -> usize {
    let before = snapshot(path);
    let verified = on("verify", path, &[]).expect(1);
    let finding = verified.lines()[0].to_owned();
    assert!(finding.starts_with(place), "{}", verified.out);
    let dumped = on("dump", path, &["--format", "json"]).expect(1);
    assert!(dumped.err.starts_with("taskledger: damaged: "), "{}", dumped.err);
    for (command, args) in [("log", &[][..]), ("stats", &[]), ("show", &["old-001"])] {
        on(command, path, args).expect(1);
    }
    on("repair", path, &[]).expect(2);
    assert_eq!(snapshot(path), before, "looking changes nothing");

    let repaired = on("repair", path, &["--accept-loss"]).expect(0);
    assert!(repaired.out.contains(&format!("was damaged: {finding}")), "{}", repaired.out);
    assert!(repaired.out.contains("loss accepted: "), "{}", repaired.out);
    on("verify", path, &[]).expect(0);
    let file = finding.split(['/', ':']).next().unwrap();
    for (name, (bytes, ..)) in before {
        let name = name.strip_prefix(path).unwrap();
        if name.starts_with(file) {
            let kept = std::fs::read(path.join("damaged").join(name)).ok();
            assert_eq!(kept, bytes, "{} is kept as it was", name.display());
        }
    }
    let log = on("log", path, &[]).expect(0);
    assert!(log.lines()[0].contains("\tloss accepted\t-\t"), "{}", log.out);
    let again = on("repair", path, &["--accept-loss"]).expect(0);
    assert!(again.out.starts_with("sound: "), "{}", again.out);
    let after = on("dump", path, &["--format", "json"]).expect(0);
    assert_eq!(after.out, dumped.out, "what could be read is what is kept");
    with::<String>(path, async |ledger: &Ledger<String, Vec<u32>>| {
        assert_eq!(ledger.all_tasks().len(), after.lines().len());
        assert_ne!(ledger.query_task_state("no-000").await, TaskState::Running);
        succeed(ledger, "afterwards".into(), vec![]).await;
    });
    on("verify", path, &[]).expect(0);
    after.lines().len()
}

#[test]
fn a_flipped_bit_in_the_log() {
    let (_dir, path) = sample();
    let db = named(&path, "log-").join("db");
    flip(&db, last_frame(&db) + 60);
    assert!(found_and_repaired(&path, "log-") >= 239);
}

#[test]
fn a_log_that_is_cut_off() {
    let (_dir, path) = sample();
    let db = named(&path, "log-").join("db");
    truncate(&db, last_frame(&db) as u64 - 1);
    assert!(found_and_repaired(&path, "log-") >= 200);
}

#[test]
fn a_log_that_is_gone() {
    let (_dir, path) = sample();
    std::fs::remove_dir_all(named(&path, "log-")).unwrap();
    assert_eq!(found_and_repaired(&path, "log-"), 200);
}

#[test]
fn a_flipped_bit_in_the_checkpoint() {
    let (_dir, path) = sample();
    flip(&named(&path, "checkpoint-"), 200);
    assert_eq!(found_and_repaired(&path, "checkpoint-"), 40);
}

#[test]
fn a_checkpoint_that_is_cut_off() {
    let (_dir, path) = sample();
    let file = named(&path, "checkpoint-");
    truncate(&file, file.metadata().unwrap().len() - 30);
    assert_eq!(found_and_repaired(&path, "checkpoint-"), 240);
}

#[test]
fn a_checkpoint_that_is_gone() {
    let (_dir, path) = sample();
    std::fs::remove_file(named(&path, "checkpoint-")).unwrap();
    assert_eq!(found_and_repaired(&path, "checkpoint-"), 40);
}

#[test]
fn a_manifest_that_is_damaged_cut_off_or_gone() {
    let damages: [fn(&Path); 3] = [
        |file| flip(file, 40),
        |file| truncate(file, 20),
        |file| std::fs::remove_file(file).unwrap(),
    ];
    for damage in damages {
        let (_dir, path) = sample();
        damage(&path.join("manifest"));
        assert_eq!(found_and_repaired(&path, "manifest"), 240);
    }
}

#[test]
fn a_witness_that_is_damaged_or_gone() {
    let damages: [fn(&Path); 3] = [
        |file| {
            flip(file, 30);
            flip(file, 4096 + 30);
        },
        |file| truncate(file, 0),
        |file| std::fs::remove_file(file).unwrap(),
    ];
    for damage in damages {
        let (_dir, path) = sample();
        damage(&path.join("witness"));
        assert_eq!(found_and_repaired(&path, "witness"), 240);
    }
}

#[test]
fn a_file_of_another_ledger() {
    let ((_one, path), (_other, foreign)) = (sample(), sample());
    std::fs::copy(foreign.join("witness"), path.join("witness")).unwrap();
    assert_eq!(found_and_repaired(&path, "witness: it belongs to another ledger"), 240);
}

#[test]
fn values_that_the_store_never_syncs() {
    let (_dir, path) = sample();
    std::fs::write(named(&path, "log-").join("blobs/7"), "x").unwrap();
    let verified = on("verify", &path, &[]).expect(1);
    assert!(verified.lines()[0].contains("/blobs: it holds 1 files"), "{}", verified.out);
}

#[test]
fn evidence_of_an_earlier_repair_is_never_lost() {
    let (_dir, path) = sample();
    std::fs::remove_file(path.join("witness")).unwrap();
    on("repair", &path, &["--accept-loss"]).expect(0);
    let evidence = snapshot(&path.join("damaged"));
    std::fs::remove_file(path.join("manifest")).unwrap();
    let refused = on("repair", &path, &["--accept-loss"]).expect(2);
    assert!(refused.err.contains("move it to another place first"), "{}", refused.err);
    assert_eq!(snapshot(&path.join("damaged")), evidence);
    std::fs::rename(path.join("damaged"), path.join("first damage")).unwrap();
    on("repair", &path, &["--accept-loss"]).expect(0);
    on("verify", &path, &[]).expect(0);
}
