use super::*;
use crate::journal::chain::{Chain, LedgerId};
use crate::journal::manifest::{CheckpointRef, LogRef};
use crate::journal::witness::Witness;
use crate::state::{SeqNo, Timestamp};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

const LEDGER: LedgerId = LedgerId([7; 16]);

/// A log holds frames if it has a file of that name.
fn has_frames(log: &Path) -> Result<bool, JournalError> {
    Ok(log.join("frames").exists())
}

fn judged(dir: &Path) -> Result<Found, OpenError> {
    judge(dir, Access::Write, has_frames)
}

/// A directory with these names; those that end in a slash are directories.
fn directory(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        let path = dir.path().join(name);
        match name.strip_suffix('/') {
            Some(_) => std::fs::create_dir_all(path).unwrap(),
            None => std::fs::write(path, b"").unwrap(),
        }
    }
    dir
}

fn names(dir: &Path) -> Vec<String> {
    let list = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        list.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn damage(dir: &Path) -> String {
    match judged(dir) {
        Err(OpenError::Damaged(damage)) => {
            assert_eq!(damage.place, "manifest");
            damage.what
        }
        other => panic!("not damaged: {other:?}"),
    }
}

#[test]
fn names_are_read_back() {
    let of = |name: &str| Name::of(OsStr::new(name));
    for number in [1, 9, 10, u64::MAX] {
        assert_eq!(of(&log_dir(number)), Name::Log(number));
        assert_eq!(of(&checkpoint(number)), Name::Checkpoint(number));
    }
    for (name, meaning) in [
        ("lock", Name::Lock),
        ("manifest", Name::Manifest),
        ("witness", Name::Witness),
        ("ballast", Name::Ballast),
        ("damaged", Name::Damaged),
    ] {
        assert_eq!(of(name), meaning);
        assert_eq!(of(&format!("{name}.tmp")), Name::Unfinished);
    }
    assert_eq!(of("checkpoint-7.tmp"), Name::Unfinished);
    for unknown in [
        "log-0",
        "log-01",
        "log-+1",
        "log--1",
        "log-",
        "log",
        "log-1 ",
        "checkpoint-x",
        "Lock",
        "log-18446744073709551616",
        "report.tmp",
        ".tmp",
        "manifest.tmp.tmp",
        "lock~",
        "",
    ] {
        assert_eq!(of(unknown), Name::Unknown, "{unknown:?}");
    }
}

#[test]
fn nothing_and_an_empty_directory_can_become_a_ledger() {
    let dir = directory(&[]);
    assert_eq!(judged(&dir.path().join("none")).unwrap(), Found::Missing);
    assert_eq!(judged(dir.path()).unwrap(), Found::Empty);
    std::fs::create_dir(dir.path().join("lost+found")).unwrap();
    assert_eq!(judged(dir.path()).unwrap(), Found::Empty);
}

#[test]
fn a_file_is_not_a_directory() {
    let dir = directory(&["file"]);
    let path = dir.path().join("file");
    assert!(matches!(judged(&path), Err(OpenError::NotADirectory { .. })));
    assert!(matches!(judged(&path.join("below")), Err(OpenError::Io { action: "look at", .. })));
}

#[test]
fn a_manifest_makes_a_ledger_whatever_else_is_there() {
    let dir = directory(&["manifest", "notes.txt", "checkpoint-3", "log-4/"]);
    assert_eq!(judged(dir.path()).unwrap(), Found::Ledger);
}

#[test]
fn something_else_is_not_a_ledger_and_one_name_of_it_is_told() {
    for other in [
        &["notes.txt"][..],
        &["lock", "notes.txt"],
        &["log-1/", "notes.txt"],
        &["notes.txt", "zzz"],
        &["notes.txt", "notes.txt.tmp"],
    ] {
        let dir = directory(other);
        match judged(dir.path()) {
            Err(OpenError::NotALedger { found, .. }) => assert_eq!(found, "notes.txt"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_a_creation_leaves_at_any_moment_is_a_leftover_and_goes() {
    let all = ["lock", "witness", "log-1/", "log-1/db", "ballast", "manifest.tmp"];
    for count in 1..=all.len() {
        let dir = directory(&all[..count]);
        if count > 1 {
            Witness::create(dir.path(), LEDGER).unwrap();
        }
        assert_eq!(judged(dir.path()).unwrap(), Found::LeftoversOfCreation);
        remove_leftovers_of_creation(dir.path()).unwrap();
        assert_eq!(names(dir.path()), ["lock"]);
        assert_eq!(judged(dir.path()).unwrap(), Found::LeftoversOfCreation);
    }
    let dir = directory(&["witness.tmp", "log-1.tmp/", "damaged.tmp/"]);
    assert_eq!(judged(dir.path()).unwrap(), Found::LeftoversOfCreation);
    remove_leftovers_of_creation(dir.path()).unwrap();
    assert_eq!(judged(dir.path()).unwrap(), Found::Empty);
}

#[test]
fn a_ledger_without_its_manifest_is_damaged_never_empty() {
    let with_checkpoint = directory(&["checkpoint-3"]);
    assert_eq!(damage(with_checkpoint.path()), "it is missing, but there is checkpoint-3");
    let with_frames = directory(&["lock", "log-1/", "log-2/", "log-2/frames"]);
    assert_eq!(damage(with_frames.path()), "it is missing, but log-2 holds records");
    let put_aside = directory(&["lock", "damaged/"]);
    assert!(damage(put_aside.path()).contains("accepted"));
    let witnessed = directory(&["log-1/"]);
    let mut witness = Witness::create(witnessed.path(), LEDGER).unwrap();
    witness.note(SeqNo::new(5), Chain(1), Instant::now()).unwrap();
    assert_eq!(damage(witnessed.path()), "it is missing, but the witness has seen record 5");
    let torn = directory(&["witness"]);
    assert!(damage(torn.path()).contains("the witness is damaged"));
    let beside_others = directory(&["notes.txt", "checkpoint-3"]);
    assert!(damage(beside_others.path()).contains("checkpoint-3"));
}

#[test]
fn a_log_that_cannot_be_read_is_not_taken_for_empty() {
    let dir = directory(&["log-1/"]);
    let unreadable = |_: &Path| Err(JournalError::Store("unreadable".to_owned()));
    assert!(matches!(judge(dir.path(), Access::Write, unreadable), Err(OpenError::Journal(_))));
}

/// Root may do anything, so root runs this as nobody, where that can read the test's program.
#[test]
fn a_directory_that_cannot_be_written_to_is_told_first() {
    let dir = directory(&["notes.txt"]);
    if dir.path().metadata().unwrap().uid() == 0 {
        let test = "journal::directory::tests::a_directory_that_cannot_be_written_to_is_told_first";
        let nobody = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .uid(65_534)
            .stdout(Stdio::null())
            .status();
        assert!(nobody.is_ok_and(|status| status.success()));
        return;
    }
    let allow = |mode| {
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let action = |access| match judge(dir.path(), access, has_frames) {
        Err(OpenError::Io { action, .. }) => Some(action),
        Err(OpenError::NotALedger { .. }) => None,
        other => panic!("{other:?}"),
    };
    allow(0o500);
    assert_eq!((action(Access::Write), action(Access::Read)), (Some("write to"), None));
    allow(0o300);
    assert_eq!((action(Access::Write), action(Access::Read)), (Some("read"), Some("read")));
    allow(0o600);
    assert_eq!(action(Access::Read), Some("read"));
    allow(0o700);
}

#[test]
fn only_what_the_manifest_does_not_name_is_removed() {
    let dir = directory(&[
        "lock",
        "manifest",
        "witness",
        "ballast",
        "damaged/",
        "notes.txt",
        "notes.tmp",
        "log-02/",
        "log-2/",
        "log-2/db",
        "log-3/",
        "log-3/db",
        "log-4/",
        "checkpoint-1",
        "checkpoint-3",
        "checkpoint-5.tmp",
        "manifest.tmp",
        "damaged.tmp/",
        "damaged.tmp/x",
    ]);
    let mut manifest = Manifest {
        ledger: LEDGER,
        created_at: Timestamp::from_micros(0),
        shape: Vec::new(),
        segment_size: 1,
        checkpoint: Some(CheckpointRef { number: 1, last_seq: SeqNo::new(1), chain: Chain::START }),
        logs: vec![LogRef { number: 2 }, LogRef { number: 4 }],
        next_number: 5,
    };
    let removed = remove_leftovers(dir.path(), &manifest).unwrap();
    assert_eq!(
        removed,
        ["checkpoint-3", "checkpoint-5.tmp", "damaged.tmp", "log-3", "manifest.tmp"]
    );
    assert!(remove_leftovers(dir.path(), &manifest).unwrap().is_empty());
    manifest.checkpoint = None;
    assert_eq!(remove_leftovers(dir.path(), &manifest).unwrap(), ["checkpoint-1"]);
    let left = names(dir.path());
    let expected = [
        "ballast",
        "damaged",
        "lock",
        "log-02",
        "log-2",
        "log-4",
        "manifest",
        "notes.tmp",
        "notes.txt",
        "witness",
    ];
    assert_eq!(left, expected);
    assert!(PathBuf::from(dir.path()).join("log-2/db").exists());
}
