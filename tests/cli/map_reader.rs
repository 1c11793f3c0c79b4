//! `taskledger map`, and whoever reads what it prints: stops reading, or goes away.

use crate::map::{feed, map, numbers, pid, scratch, succeeded, until};
use crate::on;
use rustix::process::{Signal, kill_process};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command};

/// A terminal: the end of whoever looks at it, and that of the programs.
pub(crate) fn terminal() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let name = std::ffi::OsStr::from_bytes(name.as_bytes());
    let slave = File::options().read(true).write(true).open(name).unwrap();
    (File::from(master), slave)
}

fn lines(log: &Path) -> usize {
    std::fs::read(log).unwrap_or_default().len()
}

/// Starts it, feeds it, and gives it a signal twice while nobody reads what it prints.
fn interrupted_twice(command: &mut Command, log: &Path, signal: Signal) -> Child {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&numbers(50)).unwrap();
    // As many as there are slots have ended, and their outputs find no reader.
    until("a full pipe", || (lines(log) >= 2).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(300));
    kill_process(pid(&child), signal).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "one signal waits for the reader");
    kill_process(pid(&child), signal).unwrap();
    let code = until("the end", || child.try_wait().unwrap());
    assert_eq!(code.code(), Some(130));
    drop(stdin);
    child
}

/// Whoever has stopped reading holds up neither signals nor the end.
#[test]
fn signals_are_heard_while_nobody_reads() {
    let script = r#"head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; printf x >> "$0""#;
    let (int, term) = (Signal::INT, Signal::TERM);
    for (how, signal) in [("out", int), ("both", term), ("terminal", int), ("mixed", term)] {
        let (dir, ledger) = scratch();
        let log = dir.path().join("log");
        let mut args = vec!["-j", "2", "--kill-after", "0.5"];
        // What a command itself writes to a full pipe is its own business.
        let script = if how == "mixed" {
            args.push("--ungroup");
            r#"printf x >> "$0"; head -c 300000 /dev/zero >&2"#
        } else {
            script
        };
        args.extend(["--", "sh", "-c", script, log.to_str().unwrap(), "{}"]);
        let mut command = map(&ledger, &args);
        let (master, slave) = terminal();
        match how {
            "out" => {
                // What is said to those who read it does not wait for the others.
                let told = dir.path().join("told");
                command.stderr(File::create(&told).unwrap());
                drop(interrupted_twice(&mut command, &log, signal));
                let told = std::fs::read_to_string(told).unwrap();
                assert!(told.contains("it has ended early"), "{:?}", told.trim_matches('\0'));
                continue;
            }
            "terminal" => _ = command.stdout(slave.try_clone().unwrap()).stderr(slave),
            "both" | "mixed" => {
                let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
                let writer = std::os::fd::OwnedFd::from(writer);
                command.stdout(writer.try_clone().unwrap()).stderr(writer);
                let child = interrupted_twice(&mut command, &log, signal);
                drop((reader, child));
                continue;
            }
            other => panic!("{other}"),
        }
        let child = interrupted_twice(&mut command, &log, signal);
        drop((master, child));
    }
}

/// As for output that is passed on: without a reader there is no point in going on.
#[test]
fn commands_that_write_to_nobody_end_the_run() {
    // By the signal, and by an error of their own.
    for script in ["echo $0", "trap '' PIPE; echo $0 || exit 3"] {
        let (_dir, ledger) = scratch();
        let args = ["-j", "1", "--ungroup", "--", "sh", "-c", script];
        let mut child = map(&ledger, &args).spawn().unwrap();
        drop(child.stdout.take());
        let done = feed(child, &numbers(50)).expect(141);
        assert!(succeeded(&ledger).is_empty(), "{done:?}");
        let dumped = on("dump", &ledger, &["--format", "csv"]);
        assert_eq!(dumped.lines().len(), 2, "a head and one id: {dumped:?}");
        // A failure of the command is one; that nobody reads is none of its making.
        let (counted, how) = if script.contains("trap") {
            ("0 succeeded, 1 failed", "exit status 3")
        } else {
            ("0 succeeded, 0 failed, 0 skipped, 1 cancelled", "nobody reads its output")
        };
        assert!(done.err.contains(counted), "{done:?}");
        assert!(dumped.out.contains(how), "{dumped:?}");
    }
    // With a reader, it is the command's own affair.
    let (_dir, ledger) = scratch();
    let args = ["-j", "1", "--ungroup", "--", "sh", "-c", "kill -PIPE $$"];
    let done = feed(map(&ledger, &args).spawn().unwrap(), &numbers(3)).expect(1);
    assert!(done.err.contains("0 succeeded, 3 failed"), "{done:?}");
}

/// Prints what takes a while to be passed on, says so in a file, and is then to be killed.
const LARGE: &str = r#"head -c 2000000 /dev/zero | tr '\0' x; echo; echo "end $1"; echo >> "$0"
    trap "" TERM; sleep 60; sleep 60"#;

/// Starts it with four ids; once all have printed, a signal twice, and a third time if that is wanted.
fn ended_while_it_prints(command: &mut Command, log: &Path, third: bool) -> Child {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"a\nb\nc\nd\n").unwrap();
    until("the output", || (lines(log) == 4).then_some(()));
    for _ in 0..2 + usize::from(third) {
        kill_process(pid(&child), Signal::INT).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    child
}

#[track_caller]
fn all_of_it(out: &str, err: &str) {
    let summary: serde_json::Value = serde_json::from_str(err.lines().last().unwrap()).unwrap();
    assert_eq!(summary["cancelled"], 4, "{err}");
    assert!(!err.contains("passed on") && !err.contains("nobody"), "{err}");
    for id in ["a", "b", "c", "d"] {
        assert!(out.contains(&format!("end {id}\n")), "{id}: {} bytes, {err}", out.len());
    }
    assert_eq!(out.len(), 4 * (2_000_000 + "\nend a\n".len()));
}

/// A file needs nobody who reads it.
#[test]
fn what_is_killed_has_all_its_output_in_a_file() {
    let (dir, ledger) = scratch();
    let [log, out, err] = ["log", "out", "err"].map(|name| dir.path().join(name));
    let args = ["-j", "4", "--kill-after", "0.3", "--summary", "json", "--", "sh", "-c", LARGE];
    let mut command = map(&ledger, &[&args[..], &[log.to_str().unwrap(), "{}"]].concat());
    command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let mut child = ended_while_it_prints(&mut command, &log, false);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let read = |path| std::fs::read_to_string(path).unwrap();
    all_of_it(&read(&out), &read(&err));
}

/// Only what nobody reads is given up, not what is read slowly; also if nothing else is waited for.
#[test]
fn after_the_third_signal_a_slow_reader_gets_everything() {
    let (dir, ledger) = scratch();
    let log = dir.path().join("log");
    let args = ["-j", "4", "--kill-after", "1h", "--summary", "json", "--", "sh", "-c", LARGE];
    let mut command = map(&ledger, &[&args[..], &[log.to_str().unwrap(), "{}"]].concat());
    let mut child = ended_while_it_prints(&mut command, &log, true);
    let mut from = child.stdout.take().unwrap();
    let mut out = Vec::new();
    let mut buffer = [0; 32 * 1024];
    loop {
        match from.read(&mut buffer).unwrap() {
            0 => break,
            read => out.extend_from_slice(&buffer[..read]),
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let done = child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(130));
    all_of_it(std::str::from_utf8(&out).unwrap(), std::str::from_utf8(&done.stderr).unwrap());
}
