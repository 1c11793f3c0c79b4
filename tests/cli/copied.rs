//! Copies of ledgers, made by the command.

use crate::{on, run, snapshot, succeed, with, words};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn words_of(args: &[&Path]) -> Vec<std::ffi::OsString> {
    args.iter().map(|word| word.as_os_str().to_owned()).collect()
}

fn backup(from: &Path, to: &Path) -> crate::Run {
    run(words_of(&[Path::new("backup"), from, to]))
}

#[test]
fn a_backup_is_the_same_ledger_and_changes_nothing() {
    let (dir, path) = words();
    let copy = dir.path().join("new/copy");
    let before = snapshot(&path);
    let done = backup(&path, &copy).expect(0);
    assert_eq!((done.out.as_str(), done.err.as_str()), ("", ""));
    assert_eq!(snapshot(&path), before);
    on("verify", &copy, &[]).expect(0);
    let dumped = |path: &Path| on("dump", path, &["--format", "json"]).expect(0).out;
    assert_eq!(dumped(&path), dumped(&copy));
    let refused = backup(&path, &copy).expect(2);
    assert!(
        refused.err.contains("it has a ledger; give the path of a new or empty"),
        "{refused:?}"
    );
    with::<String>(&copy, async |ledger| succeed(ledger, "more".into(), vec![]).await);
}

#[test]
fn a_backup_of_what_is_in_use_or_damaged_is_refused() {
    let (dir, path) = words();
    let copy = dir.path().join("copy");
    with::<String>(&path, async |_| {
        let refused = backup(&path, &copy).expect(2);
        assert!(refused.err.contains("is in use by process"), "{refused:?}");
    });
    std::fs::remove_file(path.join("witness")).unwrap();
    let refused = backup(&path, &copy).expect(1);
    assert!(refused.err.contains("nothing was copied, since the ledger is damaged"), "{refused:?}");
    assert!(!copy.exists());
}

/// All files but the lock, which says who has taken it.
fn contents(path: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let all = snapshot(path).into_iter().map(|(path, (bytes, ..))| (path, bytes));
    all.filter(|(path, _)| !path.ends_with("lock")).collect()
}

/// Runs the command in a shell that lets no file grow beyond a few KiB.
fn with_short_files(before: &str, args: &[&Path]) -> std::process::Output {
    let script = format!("{before} ulimit -c 0; ulimit -f 4; exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_taskledger")]).args(args);
    shell.output().unwrap()
}

/// As on a full disk.
#[test]
fn what_cannot_be_written_leaves_nothing() {
    let (dir, path) = words();
    let (copy, export) = (dir.path().join("copy"), dir.path().join("export"));
    std::fs::write(&export, on("export", &path, &[]).expect(0).out).unwrap();
    for args in [["backup".as_ref(), path.as_path(), &copy], ["import".as_ref(), &export, &copy]] {
        // Writing fails instead.
        let failed = with_short_files("trap '' XFSZ;", &args);
        let told = String::from_utf8_lossy(&failed.stderr);
        assert_eq!(failed.status.code(), Some(2), "{told}");
        assert!(told.contains("cannot") || told.contains("could not"), "{told}");
        assert!(!copy.exists(), "{told}");
    }
}

/// What a backup leaves that was cut off.
#[test]
fn what_a_cut_off_backup_leaves_is_refused_by_all_and_made_again() {
    let (dir, path) = words();
    let copy = dir.path().join("copy");
    // The kernel ends whoever writes a longer file.
    let status = with_short_files("", &["backup".as_ref(), &path, &copy]).status;
    assert_eq!(status.signal(), Some(rustix::process::Signal::XFSZ.as_raw()), "{status}");
    assert!(copy.join("copying").exists() && !copy.join("manifest").exists());
    let before = contents(&copy);
    for (command, args) in crate::LOOKS.into_iter().chain([("repair", &["--accept-loss"][..])]) {
        let refused = on(command, &copy, args).expect(2);
        assert!(
            refused.err.contains("a backup or an import there was never finished"),
            "{refused:?}"
        );
    }
    let words = ["exec", "--ledger", copy.to_str().unwrap(), "id", "--", "true"];
    let refused = run(words).expect(2);
    assert!(refused.err.contains("never finished"), "{refused:?}");
    assert_eq!(contents(&copy), before);
    backup(&path, &copy).expect(0);
    on("verify", &copy, &[]).expect(0);
}
