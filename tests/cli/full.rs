//! `taskledger map` on a full disk: a file system of its own, where that can be mounted.

use crate::map::{feed, map, mapped, numbers, scratch, succeeded};
use crate::on;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A file system of a few MiB in memory, gone with this.
struct Small(tempfile::TempDir);

impl Small {
    /// `None`, and loudly so, where nothing can be mounted.
    fn mount(mebibytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={mebibytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(dir.path())
            .output();
        if mounted.is_ok_and(|done| done.status.success()) {
            return Some(Self(dir));
        }
        // Past what the tests capture.
        let told = b"SKIPPED: map on a full disk: no file system can be mounted here\n";
        std::io::stderr().write_all(told).unwrap();
        None
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        for length in [1 << 20, 4096, 1] {
            while file.write_all(&vec![7; length]).is_ok() {}
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

/// How often each id was begun.
fn begun(log: &Path) -> BTreeMap<String, u32> {
    let mut begun = BTreeMap::new();
    for id in std::fs::read_to_string(log).unwrap_or_default().lines() {
        *begun.entry(id.to_owned()).or_default() += 1;
    }
    begun
}

/// The disk of the ledger is full: what cannot be recorded is said, nothing recorded is lost, and with
/// room again it goes on where it was.
#[test]
fn a_full_disk_ends_a_run_and_loses_nothing() {
    let Some(small) = Small::mount(48) else { return };
    let (elsewhere, _) = scratch();
    let (ledger, log) = (small.0.path().join("ledger"), elsewhere.path().join("log"));
    // What a failure says is kept, so failures are what fills a ledger.
    let script = r#"echo "$1" >> "$0"; [ "$1" -le 20 ] || [ -e "$0.room" ] || { head -c 3000 /dev/zero | tr "\\0" x >&2; exit 1; }"#;
    let args = ["-q", "-j", "2", "--", "sh", "-c", script, log.to_str().unwrap(), "{}"];
    mapped(&ledger, &numbers(20), &args).expect(0);
    let run = map(&ledger, &args).spawn().unwrap();
    let run = std::thread::spawn(move || feed(run, &numbers(4_000)));
    // It opens with the room of the ballast, which is then taken as well.
    while !run.is_finished() {
        if begun(&log).len() > 20 {
            small.fill();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let told = run.join().unwrap().expect(1).err;
    assert!(told.contains("No space left on device"), "{told}");
    assert!(!told.contains(": rejected\n"), "without a reason: {told}");
    small.fill();
    // Whether it opens, and how far it comes, is a question of what was folded.
    assert_ne!(mapped(&ledger, &numbers(400), &args).code, Some(0));
    assert_eq!(succeeded(&ledger).len(), 20, "what it had");
    let before = begun(&log);
    assert!((1..=20).all(|id: u32| before[&id.to_string()] == 1), "{before:?}");
    assert!(before.len() < 4_000, "it ended early");

    std::fs::remove_file(small.filler()).unwrap();
    File::create(elsewhere.path().join("log.room")).unwrap();
    mapped(&ledger, &numbers(400), &args).expect(0);
    assert_eq!(succeeded(&ledger).len(), 400);
    let after = begun(&log);
    for (id, times) in after {
        let more = times - before.get(&id).copied().unwrap_or_default();
        assert_eq!(more, u32::from((21..=400).contains(&id.parse::<u32>().unwrap())), "{id}");
    }
}

/// Where an output goes that is too large for memory.
#[test]
fn an_output_that_cannot_be_kept_is_told_and_ends_the_run() {
    let Some(small) = Small::mount(1) else { return };
    let (_dir, ledger) = scratch();
    let script = "head -c 3000000 /dev/zero | tr '\\0' x";
    let mut command = map(&ledger, &["-j", "1", "--", "sh", "-c", script]);
    let run = feed(command.env("TMPDIR", small.0.path()).spawn().unwrap(), &numbers(9)).expect(1);
    assert!(run.err.contains("1: some of its output could not be kept in"), "{run:?}");
    assert!(run.err.contains("No space left on device"), "{}", run.err);
    // Its output is lost, so it is none that has succeeded; those after it are not begun.
    assert!(succeeded(&ledger).is_empty());
    assert!(on("show", &ledger, &["1"]).out.contains("some of its output could not be kept"));
    assert_eq!(on("show", &ledger, &["2"]).code, Some(1));
    let again = mapped(&ledger, &numbers(9), &["-q", "--", "sh", "-c", script]).expect(0);
    assert_eq!(again.out.len(), 9 * 3_000_000);
}

fn exec(ledger: &Path, id: &str) -> crate::Run {
    let (ledger, script) = (ledger.to_str().unwrap(), "echo ran");
    crate::run(["exec", "-l", ledger, id, "--", "sh", "-c", script])
}

/// To say so, nothing need be written.
#[test]
fn what_has_succeeded_is_told_from_a_full_and_a_read_only_disk() {
    let Some(small) = Small::mount(40) else { return };
    let ledger = small.0.path().join("ledger");
    assert_eq!(exec(&ledger, "done").expect(0).out, "ran\n");
    assert_eq!(exec(&ledger, "pruned").expect(0).out, "ran\n");
    on("prune", &ledger, &["--succeeded", "0s"]).expect(0);
    assert_eq!(exec(&ledger, "done too").expect(0).out, "ran\n");
    // Once with the room of the ballast, which is taken as well then.
    for _ in 0..2 {
        small.fill();
        drop(exec(&ledger, "other"));
    }
    small.fill();
    let told = |why: &str| {
        for (id, when) in [("done", "before"), ("pruned", "before"), ("done too", "20")] {
            let done = exec(&ledger, id).expect(0);
            assert_eq!(done.out, "");
            let says = format!("taskledger: {id} has succeeded: {when}");
            assert!(done.err.contains(&says) && done.err.contains(why), "{done:?}");
        }
        let refused = exec(&ledger, "new").expect(2);
        assert!(refused.err.contains(why), "{refused:?}");
        assert_eq!(refused.out, "");
    };
    told("the disk is full");
    std::fs::remove_file(small.filler()).unwrap();
    let read_only = ["-o", "remount,ro"];
    let mut mount = Command::new("mount");
    mount.args(read_only).arg(small.0.path()).stderr(Stdio::inherit());
    assert!(mount.status().unwrap().success());
    told("Read-only file system");
}
