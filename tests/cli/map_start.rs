//! `taskledger map`: what it is given at the start, and signals that come early or stop it for a while.

use crate::map::{commands_of, left_of, map, mapped, numbers, pid, scratch, until, users_of};
use crate::map_slots::until_said;
use rustix::process::{Signal, kill_process};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

#[test]
fn an_input_that_cannot_be_read_is_called_wrongly() {
    let (dir, ledger) = scratch();
    for more in [&[][..], &["--status"], &["--dry-run"]] {
        let mut command = map(&ledger, &[more, &["--", "true"]].concat());
        command.stdin(File::open(dir.path()).unwrap());
        let done = command.output().unwrap();
        let err = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{err}");
        assert!(err.contains("cannot read the input: Is a directory"), "{err}");
    }
}

#[test]
fn spans_of_time_are_what_people_write() {
    let (_dir, ledger) = scratch();
    for time in ["1d", "2 days", "1w", "1h30m", "1d12h", "90", "0.5h", "5m"] {
        mapped(&ledger, b"1\n", &["--timeout", time, "--kill-after", time, "--", "true"]).expect(0);
    }
    mapped(&ledger, b"1\n", &["--kill-after", "0", "--", "true"]).expect(0);
    for time in ["0", "0s", "-1d", "soon", "1 month", ""] {
        let timeout = format!("--timeout={time}");
        mapped(&ledger, b"1\n", &[&timeout, "--", "true"]).expect(2);
    }
    let ledger = ledger.to_str().unwrap();
    for wait in ["0", "0s", "1d"] {
        crate::run(["exec", "-l", ledger, "x", &format!("--wait={wait}"), "--", "true"]).expect(0);
    }
}

/// A command that says nothing: nobody is left to hear it when its run is killed.
const LONG: [&str; 5] = ["-j", "1", "--", "sleep", "300"];

/// A run is killed, and its command lives on.
fn leave_behind(ledger: &Path) {
    let mut killed = map(ledger, &LONG).spawn().unwrap();
    killed.stdin.take().unwrap().write_all(b"1\n").unwrap();
    commands_of(&killed, ledger, 1);
    killed.kill().unwrap();
    killed.wait().unwrap();
}

/// Nothing has been started yet: one signal is enough.
#[test]
fn a_signal_while_it_waits_at_the_start_ends_it() {
    let (_dir, ledger) = scratch();
    leave_behind(&ledger);
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let args = [&["--summary", "json"][..], &LONG].concat();
        let mut waiting = map(&ledger, &args).spawn().unwrap();
        let mut err = waiting.stderr.take().unwrap();
        until_said(&mut err, "if they are not to go on, end them\n");
        kill_process(pid(&waiting), signal).unwrap();
        let code = until("the end", || waiting.try_wait().unwrap());
        assert_eq!(code.code(), Some(130), "{signal:?}");
        let mut summary = String::new();
        err.read_to_string(&mut summary).unwrap();
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        assert_eq!((&summary["lines"], &summary["ended_early"]), (&0.into(), &true.into()));
    }
    crate::map::end_all_of(&ledger);
}

/// It was not the command that took so long.
#[test]
fn a_command_that_has_ended_while_the_run_was_stopped_was_in_time() {
    let (_dir, ledger) = scratch();
    let args = ["-j", "1", "--timeout", "3", "--", "sleep", "1"];
    let mut child = map(&ledger, &args).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"0.001\n").unwrap();
    commands_of(&child, &ledger, 1);
    kill_process(pid(&child), Signal::STOP).unwrap();
    std::thread::sleep(Duration::from_secs(4));
    kill_process(pid(&child), Signal::CONT).unwrap();
    let done = child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{done:?}");
}

/// As others leave it who share it.
#[test]
fn an_input_that_does_not_wait_is_waited_for() {
    use rustix::fs::{OFlags, fcntl_setfl};
    for more in [&["--dry-run"][..], &[]] {
        let (_dir, ledger) = scratch();
        let (reader, mut writer) = std::io::pipe().unwrap();
        fcntl_setfl(&reader, OFlags::NONBLOCK).unwrap();
        let mut command = map(&ledger, &[more, &["-j", "1", "--", "echo", "run"]].concat());
        command.stdin(std::os::fd::OwnedFd::from(reader));
        let child = command.spawn().unwrap();
        for line in [b"1\n", b"2\n"] {
            std::thread::sleep(Duration::from_millis(300));
            writer.write_all(line).unwrap();
        }
        drop(writer);
        let done = child.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        assert_eq!(String::from_utf8_lossy(&done.stdout).matches("run").count(), 2, "{done:?}");
    }
}

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
}

/// Ctrl-Z, and `fg`.
#[test]
fn commands_are_stopped_and_go_on_with_it() {
    let (dir, ledger) = scratch();
    let go = dir.path().join("go");
    // A shell may be waiting for a child that is stopped before it is one.
    let script = "select(undef, undef, undef, 0.02) while !-e $ARGV[0]";
    let args = ["-j", "2", "--", "perl", "-e", script, go.to_str().unwrap(), "{}"];
    let mut child = map(&ledger, &args).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&numbers(2)).unwrap();
    commands_of(&child, &ledger, 2);
    std::thread::sleep(Duration::from_millis(100));
    kill_process(pid(&child), Signal::TSTP).unwrap();
    let all_stopped = || left_of(&ledger).iter().all(|pid| is_stopped(*pid)).then_some(());
    until("all to be stopped", all_stopped);
    assert!(is_stopped(child.id()));
    std::fs::write(&go, "").unwrap();
    kill_process(pid(&child), Signal::CONT).unwrap();
    drop(stdin);
    let code = until("the end", || child.try_wait().unwrap());
    assert_eq!(code.code(), Some(0));
}

/// Not even the wait at the start needs a reader.
#[test]
fn a_signal_at_the_start_is_heard_while_nobody_reads() {
    let (_dir, ledger) = scratch();
    leave_behind(&ledger);
    // A pipe that is full already.
    let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    while (&writer).write(&[b'x'; 4096]).is_ok() {}
    while (&writer).write(b"x").is_ok() {}
    writer.set_nonblocking(false).unwrap();
    let mut waiting = map(&ledger, &LONG);
    waiting.stderr(std::os::fd::OwnedFd::from(writer));
    let mut waiting = waiting.spawn().unwrap();
    // It has the ledger; what comes next is the wait.
    until("the wait", || users_of(&ledger).contains(&waiting.id()).then_some(()));
    std::thread::sleep(Duration::from_millis(500));
    kill_process(pid(&waiting), Signal::TERM).unwrap();
    let code = until("the end", || waiting.try_wait().unwrap());
    assert_eq!(code.code(), Some(130));
    drop(reader);
    crate::map::end_all_of(&ledger);
}
