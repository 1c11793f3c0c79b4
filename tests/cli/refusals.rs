//! What cannot be looked at, and what is asked for wrongly: one clear line, exit code 2.

use crate::{LOOKS, on, run, snapshot, succeed, with, words};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Every command refuses the path with this, and changes nothing.
#[track_caller]
fn refused(path: &Path, what: &str) {
    let repair: (&str, &[&str]) = ("repair", &["--accept-loss"]);
    for (command, args) in LOOKS.into_iter().chain([repair]) {
        let refused = on(command, path, args).expect(2);
        let last = refused.err.lines().last().unwrap();
        assert!(last.starts_with("taskledger: ") && last.contains(what), "{command}: {last}");
        assert_eq!(refused.out, "");
    }
}

#[test]
fn a_ledger_that_is_in_use() {
    let (_dir, path) = words();
    with::<String>(&path, async |ledger| {
        succeed(ledger, "x".into(), vec![]).await;
        let before = snapshot(&path);
        let me = format!("is in use by process {} on ", std::process::id());
        refused(&path, &me);
        refused(&path, " since 2");
        assert_eq!(snapshot(&path), before);
    });
    on("verify", &path, &[]).expect(0);
}

#[test]
fn something_else_than_a_ledger() {
    let dir = tempfile::tempdir().unwrap();
    refused(&dir.path().join("nothing"), "no such file");
    assert!(!dir.path().join("nothing").exists());
    refused(dir.path(), "the directory is empty");
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    refused(&file, "is not a directory");
    let before = snapshot(dir.path());
    refused(dir.path(), "is not a ledger: it has no manifest, but it has \"file\"");
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn a_newer_format() {
    let (_dir, path) = words();
    let manifest = path.join("manifest");
    let mut bytes = std::fs::read(&manifest).unwrap();
    bytes[8] = 77;
    let end = bytes.len() - 8;
    let sum = xxhash_rust::xxh3::xxh3_64(&bytes[..end]);
    bytes[end..].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(&manifest, bytes).unwrap();
    refused(&path, "has format version 77");
}

#[test]
fn a_directory_that_cannot_be_written_to_is_fine() {
    let (_dir, path) = words();
    let modes = |dir, file| {
        for entry in snapshot(&path) {
            let mode = if entry.1.0.is_some() { file } else { dir };
            std::fs::set_permissions(entry.0, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    modes(0o500, 0o400);
    for (command, args) in LOOKS {
        on(command, &path, args).expect(0);
    }
    modes(0o700, 0o600);
}

#[test]
fn a_copy_without_its_lock_file_is_fine() {
    let (_dir, path) = words();
    std::fs::remove_file(path.join("lock")).unwrap();
    for (command, args) in LOOKS {
        on(command, &path, args).expect(0);
    }
    assert!(!path.join("lock").exists());
}

#[test]
fn calls_that_make_no_sense() {
    let (_dir, path) = words();
    let wrong = |args: &[&str], what: &str| {
        let refused = on(args[0], &path, &args[1..]).expect(2);
        assert!(refused.err.contains(what), "{args:?}: {}", refused.err);
        assert_eq!(refused.out, "");
    };
    wrong(&["dump", "--state", "lost"], "one of queued, running");
    wrong(&["dump", "--since", "soon"], "neither a time");
    wrong(&["dump", "--format", "xml"], "invalid value 'xml'");
    wrong(&["dump", "--limit", "-1"], "");
    wrong(&["show", "--hex", "abc"], "hexadecimal");
    wrong(&["show", "--hex", "xx"], "hexadecimal");
    wrong(&["show", "\\q"], "is no id of this ledger (String)");
    wrong(&["log", "--from", "x"], "invalid value 'x'");
    wrong(&["repair"], "nothing was done: ");
    run(["melt", "x"]).expect(2);
    run(Vec::<String>::new()).expect(2);
}
