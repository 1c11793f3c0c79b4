//! `taskledger map --status` and `--dry-run`: what they say is what `map` would find.

use crate::map::{map, mapped, numbers, scratch, until};
use crate::{on, taskledger, with, words};
use std::path::Path;
use taskledger::{ByteId, Context};

const BOTH: [&str; 2] = ["--status", "--dry-run"];

/// Of a success that was pruned only a tombstone is left: it counts all the same.
#[test]
fn a_pruned_success_is_one() {
    let (_dir, ledger) = scratch();
    mapped(&ledger, &numbers(3), &["--", "true"]).expect(0);
    on("prune", &ledger, &["--succeeded", "0s"]).expect(0);
    let status = mapped(&ledger, &numbers(4), &["--status", "--", "true"]).expect(0);
    assert_eq!(status.out, "new\t1\nsucceeded\t3\n");
    let dry = mapped(&ledger, &numbers(4), &["--dry-run", "--", "true"]).expect(0);
    assert_eq!(dry.out, "skip\t1\nskip\t2\nskip\t3\nrun\t4\n");
    let real = mapped(&ledger, &numbers(4), &["--", "true"]).expect(0);
    assert!(real.err.contains("1 succeeded, 0 failed, 3 skipped"), "{real:?}");
}

fn log_of(ledger: &Path) -> std::path::PathBuf {
    let mut names = std::fs::read_dir(ledger).unwrap().map(|entry| entry.unwrap().path());
    names
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("log-"))
        .unwrap()
        .join("db")
}

#[test]
fn damage_is_told_and_is_no_success() {
    let (_dir, ledger) = scratch();
    mapped(&ledger, &numbers(20), &["--", "true"]).expect(0);
    // In the middle of the records.
    let log = log_of(&ledger);
    let mut bytes = std::fs::read(&log).unwrap();
    let at: Vec<usize> = memchr::memmem::find_iter(&bytes, b"TLframe\x01").collect();
    for at in &at[at.len() / 2..at.len() - 1] {
        bytes[at + 60] ^= 0x10;
    }
    std::fs::write(&log, bytes).unwrap();
    mapped(&ledger, &numbers(20), &["--", "true"]).expect(2);
    for preview in BOTH {
        let told = mapped(&ledger, &numbers(20), &[preview, "--", "true"]).expect(1);
        assert!(told.err.starts_with("taskledger: damaged: "), "{told:?}");
    }
}

#[test]
fn what_map_would_refuse_is_refused() {
    let (dir, ledger) = words();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for preview in BOTH {
        let told = mapped(&ledger, b"apple\n", &[preview, "--", "true"]).expect(2);
        assert!(told.err.contains("ids of another type"), "{told:?}");
        // What cannot be looked at is not a ledger that is yet to be made.
        let told = mapped(&file.join("ledger"), b"a\n", &[preview, "--", "true"]).expect(2);
        assert!(told.err.contains("Not a directory"), "{told:?}");
        let told = mapped(&file, b"a\n", &[preview, "--", "true"]).expect(2);
        assert!(told.err.contains("is not a directory"), "{told:?}");
    }
    let other = mapped(&ledger, b"apple\n", &["--", "true"]).expect(2);
    assert!(other.err.contains("ids of another type"), "{other:?}");
}

#[test]
fn a_ledger_in_use_is_one() {
    let (_dir, ledger) = scratch();
    let mut first = map(&ledger, &["--", "true"]).spawn().unwrap();
    let stdin = first.stdin.take();
    until("the first", || ledger.join("commands").exists().then_some(()));
    for preview in BOTH {
        let told = mapped(&ledger, b"a\n", &[preview, "--", "true"]).expect(75);
        assert!(told.err.contains(&first.id().to_string()), "{told:?}");
    }
    drop(stdin);
    assert_eq!(first.wait().unwrap().code(), Some(0));
}

/// A creation that was cut off has made none: it is begun again.
#[test]
fn a_ledger_that_is_yet_to_be_created_has_nothing() {
    let (_dir, ledger) = scratch();
    let look = || {
        let status = mapped(&ledger, b"a\n", &["--status", "--", "true"]).expect(0);
        assert_eq!((&*status.out, &*status.err), ("new\t1\n", ""));
        let dry = mapped(&ledger, b"a\na\n", &["--dry-run", "--", "true"]).expect(0);
        assert_eq!(dry.out, "run\ta\nduplicate\ta\n");
    };
    look();
    std::fs::create_dir(&ledger).unwrap();
    look();
    for leftover in ["lock", "ballast.tmp"] {
        std::fs::write(ledger.join(leftover), "").unwrap();
        look();
    }
    let real = mapped(&ledger, b"a\na\n", &["--", "true"]).expect(0);
    assert!(real.err.contains("1 succeeded, 0 failed, 0 skipped, 1 duplicate, in"), "{real:?}");
}

/// The same limit for all three.
#[test]
fn a_line_that_is_too_long_is_told_beforehand() {
    let (_dir, ledger) = scratch();
    std::fs::create_dir(&ledger).unwrap();
    let line = |byte: u8, length: usize| [vec![byte; length], vec![b'\n']].concat();
    let input = [line(b'a', 1021), line(b'b', 1022), line(b'c', 4096), line(b'd', 4097)].concat();
    let status = mapped(&ledger, &input, &["--status", "--", "true"]).expect(0);
    assert_eq!(status.out, "new\t1\ntoo long\t3\n");
    let dry = mapped(&ledger, &input, &["--dry-run", "--", "true"]).expect(0);
    let said: Vec<&str> = dry.lines().iter().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(said, ["run", "too long", "too long", "too long"]);
    let real = mapped(&ledger, &input, &["--", "true"]).expect(1);
    assert!(real.err.contains("1 succeeded, 3 failed"), "{real:?}");
}

/// Of a line that no argument can be.
#[test]
fn an_id_with_a_nul_would_not_run() {
    let (_dir, ledger) = scratch();
    let input = b"a\0b\nc\n";
    let dry = mapped(&ledger, input, &["--dry-run", "--", "true"]).expect(0);
    assert_eq!(dry.out, "NUL\ta\\0b\nrun\tc\n");
    let real = mapped(&ledger, input, &["--", "true"]).expect(1);
    assert!(real.err.contains("1 succeeded, 1 failed"), "{real:?}");
    // However often it may be tried.
    mapped(&ledger, input, &["--retries", "3", "--", "true"]).expect(1);
    assert!(on("show", &ledger, &["a\\0b"]).out.contains("attempt            2"));
    let dry = mapped(&ledger, input, &["--dry-run", "--no-retry", "--", "true"]).expect(0);
    assert_eq!(dry.out, "leave\ta\\0b\nskip\tc\n");
}

/// What is printed is explained.
#[test]
fn the_help_and_the_readme_have_all_words() {
    let (_dir, ledger) = scratch();
    let done = mapped(&ledger, b"a\n", &["--summary", "json", "--", "true"]).expect(0);
    let summary: serde_json::Value = serde_json::from_str(done.err.trim()).unwrap();
    let fields: Vec<&str> = summary.as_object().unwrap().keys().map(String::as_str).collect();
    let words =
        ["run", "skip", "leave", "duplicate", "too long", "NUL", "new", "crashed", "cancelled"];
    let help = crate::run(["map", "--help"]).expect(0).out;
    for word in fields.into_iter().chain(words) {
        for text in [&*help, include_str!("../../README.md")] {
            assert!(text.contains(&format!("`{word}`")), "{word}: {text}");
        }
    }
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for said in [
        "were left alone for another reason, or the run has ended early; 2 called wrongly",
        "but for those that --only leaves",
    ] {
        assert!(help.contains(said), "{said}: {help}");
    }
}

/// What was interrupted has not failed.
#[test]
fn a_cancelled_id_is_told_apart_and_runs_again() {
    let (_dir, ledger) = scratch();
    let script =
        "[ $0 != 1 ] || exit 1; [ $TASKLEDGER_ATTEMPT = 1 ] || exit 0; kill -QUIT $PPID; sleep 60";
    let args = ["-j", "1", "--", "sh", "-c", script];
    let with = |more: &[&'static str]| -> Vec<&str> { more.iter().chain(&args).copied().collect() };
    let first = mapped(&ledger, &numbers(3), &args).expect(130);
    assert!(first.err.contains("0 succeeded, 1 failed, 0 skipped, 1 cancelled, in"), "{first:?}");
    let status = mapped(&ledger, &numbers(3), &["--status"]).expect(0);
    assert_eq!(status.out, "cancelled\t1\nfailed\t1\nnew\t1\n");
    for (more, says) in [
        (["--only", "failed"], ["run", "leave", "leave"]),
        (["--only", "cancelled"], ["leave", "run", "leave"]),
        (["--no-retry", "-q"], ["leave", "run", "run"]),
    ] {
        let dry = mapped(&ledger, &numbers(3), &with(&[&more[..], &["--dry-run"]].concat()));
        let dry = dry.expect(0);
        let said: Vec<&str> = dry.lines().iter().map(|line| &line[..line.len() - 2]).collect();
        assert_eq!(said, says, "{more:?}");
    }
    let failed = mapped(&ledger, &numbers(3), &with(&["--only", "failed"])).expect(1);
    assert!(failed.err.contains("0 succeeded, 1 failed, 0 skipped, 2 left alone"), "{failed:?}");
    let again = mapped(&ledger, &numbers(2), &with(&["--no-retry"])).expect(1);
    assert!(again.err.contains("1 succeeded, 0 failed, 0 skipped, 1 left alone"), "{again:?}");
}

/// What has become of ids has nothing to do with a command; what would be run has.
#[test]
fn a_status_needs_no_command_and_a_preview_one_that_is_there() {
    let (_dir, ledger) = scratch();
    mapped(&ledger, &numbers(2), &["--", "true"]).expect(0);
    for command in [&["--", "false"][..], &["--", "no-such-program"], &[]] {
        let args = [&["--status"], command].concat();
        assert_eq!(mapped(&ledger, &numbers(2), &args).expect(0).out, "succeeded\t2\n");
    }
    let (_dir, ledger) = scratch();
    let told = mapped(&ledger, &numbers(2), &["--dry-run", "--", "no-such-program"]).expect(127);
    assert!(told.err.contains("cannot run no-such-program"), "{told:?}");
    mapped(&ledger, &numbers(2), &["--dry-run", "--", "/dev/null"]).expect(126);
    assert!(!ledger.exists());
}

/// None of them is a duplicate, however often it comes, and none is tried.
#[test]
fn every_line_that_is_too_long_fails_as_it_was_told() {
    let (_dir, ledger) = scratch();
    let line = |length: usize| [vec![b'x'; length], vec![b'\n']].concat();
    let input = [line(1022), line(1022), line(5000), line(5000), line(1021), line(1021)].concat();
    let status = mapped(&ledger, &input, &["--status"]).expect(0);
    assert_eq!(status.out, "duplicate\t1\nnew\t1\ntoo long\t4\n");
    let real = mapped(&ledger, &input, &["--retries", "2", "--", "true"]).expect(1);
    assert!(real.err.contains("1 succeeded, 4 failed, 0 skipped, 1 duplicate"), "{real:?}");
    assert_eq!(real.err.matches("longer than an id can be").count(), 4, "{real:?}");
}

/// What somebody else has put into a queue of the ledger is left to that. It ended the run, which had been
/// foretold otherwise; and for `exec` it counted as done.
#[test]
fn what_waits_in_a_queue_is_left_alone() {
    let (_dir, ledger) = scratch();
    let queued = |_: u64, _: Context<ByteId>| async { Ok::<Vec<u32>, String>(vec![]) };
    with::<ByteId>(&ledger, async |ledger| {
        let queue = ledger.queue(queued).await.unwrap();
        queue.enqueue(ByteId::from("2"), 5).await.unwrap();
    });
    let args = ["--", "echo"];
    let would = mapped(&ledger, &numbers(3), &[&["--dry-run"], &args[..]].concat()).expect(0);
    assert_eq!(would.out, "run\t1\nleave\t2\nrun\t3\n");
    let real = mapped(&ledger, &numbers(3), &args).expect(1);
    assert!(real.err.contains("2 succeeded, 0 failed, 0 skipped, 1 left alone, in "), "{real:?}");
    assert_eq!(real.lines().len(), 2, "{real:?}");
    let status = mapped(&ledger, &numbers(3), &["--status"]).expect(0);
    assert_eq!(status.out, "queued\t1\nsucceeded\t2\n");
    let mut exec = taskledger();
    exec.args(["exec", "-l"]).arg(&ledger).args(["2", "--", "echo", "done"]);
    let told = exec.output().unwrap();
    let (out, err) = (String::from_utf8(told.stdout), String::from_utf8(told.stderr));
    assert_eq!((told.status.code(), out.unwrap().as_str()), (Some(75), ""));
    assert!(err.unwrap().contains("2 is queued: it is left to the queue of this ledger"));
}
