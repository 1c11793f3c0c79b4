//! `taskledger map` and all the processes of a command: what leaves the group, what stays behind.

use crate::map::{NEVER, is_alive, mapped, scratch, state, until};
use crate::on;
use std::time::Instant;

/// A leader that goes to another group is still the one that was started.
#[test]
fn a_timeout_ends_a_leader_that_has_left_its_group() {
    let (_dir, ledger) = scratch();
    let script = "setpgrp(0, getpgrp(getppid())) or die; sleep 70";
    let since = Instant::now();
    let args = ["--timeout", "0.5", "--kill-after", "0.5", "--", "perl", "-e", script];
    let done = mapped(&ledger, b"a\n", &args).expect(1);
    assert!(since.elapsed() < NEVER, "it was waited for");
    assert!(done.err.contains("a: timed out"), "{done:?}");
    assert!(on("show", &ledger, &["a"]).out.contains("failure            timed out"));
}

/// What has left the group cannot be ended, so it is waited for.
#[test]
fn a_retry_waits_for_a_process_that_has_left_the_group() {
    let (dir, ledger) = scratch();
    let log = dir.path().join("log");
    let script = r#"[ $TASKLEDGER_ATTEMPT = 1 ] || { echo start 2 >> "$0"; exit 0; }
        setsid sh -c 'echo start 1 >> "$0"; sleep 9; echo end 1 >> "$0"' "$0" & sleep 60"#;
    let args = ["--timeout", "5", "--retries", "1", "--", "sh", "-c", script];
    let args = [&args[..], &[log.to_str().unwrap(), "{}"]].concat();
    let done = mapped(&ledger, b"a\n", &args).expect(0);
    let log = std::fs::read_to_string(&log).unwrap();
    assert_eq!(log.lines().collect::<Vec<_>>(), ["start 1", "end 1", "start 2"]);
    let told = "a: processes of its last attempt are waited for: ";
    assert!(done.err.contains(told) && done.err.contains("(sh -c echo start 1"), "{done:?}");
    assert_eq!(state(&ledger, "a"), "succeeded");
}

/// What is still in the group is ended.
#[test]
fn a_retry_ends_what_a_failed_attempt_has_left_in_its_group() {
    for stubborn in [false, true] {
        let (dir, ledger) = scratch();
        let log = dir.path().join("log");
        let left = if stubborn {
            // It ends only if it is killed, and then says nothing.
            r#"sh -c 'trap "" TERM; echo start 1 >> "$0"; while :; do sleep 0.05; done' "$0""#
        } else {
            r#"sh -c 'trap "sleep 0.2; echo end 1 >> \"$0\"; exit" TERM; echo start 1 >> "$0"; while :; do sleep 0.05; done' "$0""#
        };
        let script = format!(
            r#"[ $TASKLEDGER_ATTEMPT = 1 ] || {{ echo start 2 >> "$0"; exit 0; }}
            {left} > /dev/null 2>&1 & while ! [ -s "$0" ]; do sleep 0.01; done; exit 1"#
        );
        let args = ["--retries", "1", "--kill-after", "2", "--", "sh", "-c", &script];
        let args = [&args[..], &[log.to_str().unwrap(), "{}"]].concat();
        mapped(&ledger, b"a\n", &args).expect(0);
        let log = std::fs::read_to_string(&log).unwrap();
        let all = ["start 1", "end 1", "start 2"];
        let said = all.iter().filter(|line| !stubborn || **line != "end 1").copied();
        assert_eq!(log.lines().collect::<Vec<_>>(), said.collect::<Vec<_>>());
        // Nobody holds the ledger.
        mapped(&ledger, b"a\n", &["--no-wait", "--any-command", "--", "true"]).expect(0);
    }
}

/// A process that has closed what it does not know is still in the group.
#[test]
fn a_group_is_ended_to_the_last_process() {
    let (dir, ledger) = scratch();
    let log = dir.path().join("pid");
    // It has neither the lock nor its end of the sockets, and does not listen.
    let script = r#"use POSIX; POSIX::close($_) for 3 .. 255; $SIG{TERM} = "IGNORE";
        open my $file, ">", $ARGV[0] or die; print $file "$$\n"; close $file; sleep 70"#;
    let shell = r#"perl -e "$1" "$0" > /dev/null 2>&1 & wait"#;
    let args = ["--timeout", "5", "--kill-after", "0.5", "--", "sh", "-c", shell];
    let args = [&args[..], &[log.to_str().unwrap(), script, "{}"]].concat();
    mapped(&ledger, b"a\n", &args).expect(1);
    let pid = std::fs::read_to_string(&log).unwrap();
    until("its end", || (!is_alive(pid.trim())).then_some(()));
}

/// What a successful command has left running is as it should be; of a failed one nobody knows what it
/// still does.
#[test]
fn a_daemon_of_a_successful_command_holds_no_ledger() {
    for (exit, code) in [("0", 0), ("3", 1)] {
        let (dir, ledger) = scratch();
        let pid_file = dir.path().join("pid");
        let script = format!(
            "setsid sh -c 'echo $$ > \"$0\"; exec sleep 300' \"$0\" > /dev/null 2>&1 &
            while ! [ -s \"$0\" ]; do sleep 0.01; done; exit {exit}"
        );
        let args = ["--", "sh", "-c", &script, pid_file.to_str().unwrap(), "{}"];
        mapped(&ledger, b"a\n", &args).expect(code);
        let pid = std::fs::read_to_string(&pid_file).unwrap().trim().to_owned();
        assert!(is_alive(&pid));
        let args = ["--no-wait", "--any-command", "--", "true"];
        let next = mapped(&ledger, b"a\nb\n", &args);
        let again = on_id(&ledger, "c");
        let raw = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
        if exit == "0" {
            next.expect(0);
            again.expect(0);
        } else {
            let says = format!("still running: {pid} (sleep 300)");
            for told in [next.expect(75), again.expect(75)] {
                assert!(told.err.contains(&says), "{told:?}");
                assert!(told.err.contains("wait for them, or end them"), "{told:?}");
            }
        }
    }
}

fn on_id(ledger: &std::path::Path, id: &str) -> crate::Run {
    let ledger = ledger.to_str().unwrap();
    crate::run(["exec", "-l", ledger, id, "--", "true"])
}

#[test]
fn a_daemon_of_exec_holds_no_ledger_either() {
    let (dir, ledger) = scratch();
    let pid_file = dir.path().join("pid");
    let script = "setsid sh -c 'echo $$ > \"$0\"; exec sleep 300' \"$0\" > /dev/null 2>&1 &
        while ! [ -s \"$0\" ]; do sleep 0.01; done";
    let words = ["exec", "-l", ledger.to_str().unwrap(), "start", "--", "sh", "-c", script];
    crate::run(words.into_iter().chain([pid_file.to_str().unwrap()])).expect(0);
    let next = on_id(&ledger, "next");
    let pid = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    let raw = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
    next.expect(0);
}
