//! `taskledger map` and the files that stand for its commands: how many there are, and what they cost.

use crate::map::{map, mapped, numbers, pid, scratch, until};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What is left of very many commands is found in one look at all processes.
#[test]
fn a_start_after_many_failures_is_quick() {
    let (_dir, ledger) = scratch();
    mapped(&ledger, b"a\n", &["--", "true"]).expect(0);
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let numbers = std::fs::read_link("/proc/self/ns/pid").unwrap();
    // Their groups have ended.
    let text = format!("id 62\nhere {} {}\ngroup 4194305 1\n", boot.trim(), numbers.display());
    for slot in 0..20_000 {
        std::fs::write(ledger.join(format!("commands/0-{slot}")), &text).unwrap();
    }
    let since = Instant::now();
    mapped(&ledger, b"b\n", &["--", "true"]).expect(0);
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    assert_eq!(std::fs::read_dir(ledger.join("commands")).unwrap().count(), 0);
}

#[test]
fn a_directory_among_them_is_none() {
    let (_dir, ledger) = scratch();
    mapped(&ledger, b"a\n", &["--", "true"]).expect(0);
    std::fs::create_dir(ledger.join("commands/mine")).unwrap();
    mapped(&ledger, b"b\n", &["--", "true"]).expect(0);
    assert!(ledger.join("commands/mine").exists());
}

/// A look that lasts is told, and can be interrupted.
#[test]
fn signals_are_heard_while_it_is_looked_what_is_left() {
    let (_dir, ledger) = scratch();
    mapped(&ledger, b"a\n", &["--", "true"]).expect(0);
    // Whoever opens this waits for somebody who writes.
    let slot = ledger.join("commands/0-0");
    assert!(Command::new("mkfifo").arg(&slot).status().unwrap().success());
    let mut child = map(&ledger, &["--", "true"]).spawn().unwrap();
    let mut err = child.stderr.take().unwrap();
    until_said(&mut err, "looking for what is left of 1 command");
    kill_process(pid(&child), Signal::INT).unwrap();
    let code = until("the end", || child.try_wait().unwrap());
    assert_eq!(code.code(), Some(130));
}

/// What a failed command has left running holds back the next run: this one says so already.
#[test]
fn what_a_failure_has_left_running_is_told() {
    let script = r#"[ "$0" = a ] || exit 0; sleep 300 > /dev/null 2>&1 & echo $!; exit 1"#;
    let words = ["--", "sh", "-c", script];
    let exec = |ledger: &Path| {
        let ledger = ["exec", "-l", ledger.to_str().unwrap(), "a"];
        crate::run([&ledger[..], &words, &["a"]].concat())
    };
    let in_map = |ledger: &Path| mapped(ledger, b"a\nb\n", &words);
    for run in [&in_map as &dyn Fn(&Path) -> crate::Run, &exec] {
        let (_dir, ledger) = scratch();
        let done = run(&ledger).expect(1);
        let left = done.out.trim();
        let told = format!(
            "processes are left of what has not succeeded: {left} (sleep 300), for a; the next run waits for them"
        );
        assert!(done.err.contains(&told), "{done:?}");

        let mut next = map(&ledger, &["--any-command", "--", "true"]).spawn().unwrap();
        drop(next.stdin.take());
        let mut err = next.stderr.take().unwrap();
        let told = until_said(&mut err, "if they are not to go on, end them\n");
        assert!(told.contains(&format!("{left} (sleep 300), for a; if")), "{told}");
        kill_process(Pid::from_raw(left.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
        assert_eq!(next.wait().unwrap().code(), Some(0));
        let told = until_said(&mut err, "skipped");
        assert!(told.contains("taskledger: they have ended, after "), "{told}");
    }
}

/// Everything up to these words.
pub(crate) fn until_said(from: &mut impl Read, words: &str) -> String {
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).ends_with(words) {
        let mut byte = [0];
        assert_eq!(from.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
    String::from_utf8(said).unwrap()
}

/// A helper of a failed command outlives it by a moment: at the end of the run nothing is kept for it.
#[test]
fn what_has_ended_by_the_end_of_the_run_leaves_nothing() {
    let (_dir, ledger) = scratch();
    // The last one ends when all helpers have.
    let script = "[ $0 != 9 ] || exec sleep 2; sleep 0.5 > /dev/null 2>&1 & exit 1";
    mapped(&ledger, &numbers(9), &["-j", "1", "--", "sh", "-c", script]).expect(1);
    assert_eq!(std::fs::read_dir(ledger.join("commands")).unwrap().count(), 0);
    let mode = ledger.join("commands").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}
