//! `taskledger map` and the files that stand for its commands: how many there are, and what they cost.

use crate::map::{map, mapped, numbers, pid, scratch, until};
use rustix::process::{Signal, kill_process};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
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
    let (mut err, mut told) = (child.stderr.take().unwrap(), Vec::new());
    while !String::from_utf8_lossy(&told).contains("looking for what is left of 1 command") {
        let mut byte = [0];
        assert_eq!(err.read(&mut byte).unwrap(), 1);
        told.push(byte[0]);
    }
    kill_process(pid(&child), Signal::INT).unwrap();
    let code = until("the end", || child.try_wait().unwrap());
    assert_eq!(code.code(), Some(130));
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
