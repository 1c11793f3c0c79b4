//! `taskledger map` and what commands print: passed on before a success is recorded, so nothing of it is lost.

use crate::map::{
    NEVER, commands_of, feed, map, mapped, numbers, pid, scratch, state, succeeded, until,
};
use crate::map_reader::terminal;
use crate::on;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Signal, kill_process};
use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

/// More than a pipe takes.
const BIG: &str =
    r#"echo "begin $1"; head -c 300000 /dev/zero | tr '\0' x; echo; echo "end $1"; echo >> "$0""#;

/// Killed while nobody reads: what was not passed on has not succeeded.
#[test]
fn an_output_that_a_kill_cuts_off_comes_again() {
    let (dir, ledger) = scratch();
    let log = dir.path().join("log");
    let args = ["-j", "2", "--", "sh", "-c", BIG, log.to_str().unwrap(), "{}"];
    let mut child = map(&ledger, &args).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&numbers(3)).unwrap();
    let ended = || std::fs::read(&log).unwrap_or_default().len();
    until("the end of two commands", || (ended() >= 2).then_some(()));
    // Long enough for a success to be recorded, if it were.
    std::thread::sleep(Duration::from_millis(500));
    kill_process(pid(&child), Signal::KILL).unwrap();
    let out = child.wait_with_output().unwrap().stdout;
    assert!(!String::from_utf8_lossy(&out).contains("end "), "nobody has read it");
    assert!(succeeded(&ledger).is_empty());
    let again = mapped(&ledger, &numbers(3), &args).expect(0);
    for id in 1..=3 {
        assert!(again.out.contains(&format!("end {id}\n")), "{id}");
    }
}

/// What cannot be passed on is no success, and the id says why.
#[test]
fn an_output_that_cannot_be_written_is_a_failure() {
    let (_dir, ledger) = scratch();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let args = ["-j", "1", "--", "echo", "said"];
    let mut command = map(&ledger, &args);
    let done = feed(command.stdout(full).spawn().unwrap(), &numbers(9)).expect(1);
    let says = "its output could not be passed on: No space left on device";
    assert!(done.err.contains(&format!("1: {says}")), "{done:?}");
    assert!(done.err.contains("0 succeeded, 1 failed"), "{done:?}");
    assert!(on("show", &ledger, &["1"]).out.contains(says));
    assert_eq!(on("show", &ledger, &["2"]).code, Some(1), "it has not begun");

    // Where what is too large for memory would go.
    let script = "head -c 3000000 /dev/zero";
    let args = ["-j", "1", "--any-command", "--", "sh", "-c", script];
    let mut command = map(&ledger, &args);
    let done = feed(command.env("TMPDIR", "/no/such").spawn().unwrap(), &numbers(9)).expect(1);
    assert!(done.err.contains("1: some of its output could not be kept in /no/such: "), "{done:?}");
    assert_eq!(state(&ledger, "1"), "failed");

    // Whoever reads has seen enough.
    let mut child = map(&ledger, &["-j", "1", "--any-command", "--", "echo"]).spawn().unwrap();
    drop(child.stdout.take());
    let done = feed(child, &numbers(9)).expect(141);
    assert!(done.err.contains("0 succeeded, 0 failed, 0 skipped, 1 cancelled"), "{done:?}");
    assert!(on("show", &ledger, &["1"]).out.contains("nobody reads its output"));
    let done = mapped(&ledger, &numbers(9), &["-j", "1", "--any-command", "--", "echo"]).expect(0);
    assert_eq!(done.lines().len(), 9);
}

/// On standard error as well; that nobody listens there is nobody's failure.
#[test]
fn errors_that_cannot_be_written_are_a_failure() {
    for more in [&["-j", "1"][..], &["-j", "1", "--ungroup"]] {
        let (_dir, ledger) = scratch();
        let args = [more, &["--", "sh", "-c", "echo said; echo wrong >&2"]].concat();
        let mut command = map(&ledger, &args);
        command.stderr(File::options().write(true).open("/dev/full").unwrap());
        let done = feed(command.spawn().unwrap(), &numbers(9)).expect(1);
        assert_eq!(done.out, "said\n");
        let says = "its output could not be passed on: No space left on device";
        assert!(on("show", &ledger, &["1"]).out.contains(says), "{more:?}");
        assert_eq!(on("show", &ledger, &["2"]).code, Some(1), "it has not begun");

        let mut child = map(&ledger, &args).spawn().unwrap();
        drop(child.stderr.take());
        assert_eq!(feed(child, &numbers(9)).expect(0).lines().len(), 9);
        assert_eq!(succeeded(&ledger).len(), 9, "{more:?}");

        // Somebody is there, and does not listen.
        let (_dir, ledger) = scratch();
        let (err, peer) = UnixStream::pair().unwrap();
        peer.shutdown(Shutdown::Read).unwrap();
        let mut command = map(&ledger, &args);
        command.stderr(OwnedFd::from(err));
        assert_eq!(feed(command.spawn().unwrap(), &numbers(9)).expect(0).lines().len(), 9);
        assert_eq!(succeeded(&ledger).len(), 9, "{more:?}");
    }
}

/// Whoever looked at a terminal that is gone reads as little as whoever has closed a pipe.
#[test]
fn a_terminal_that_is_gone_is_nobody_who_reads() {
    let (dir, ledger) = scratch();
    let go = dir.path().join("go");
    let script = r#"until [ -e "$0" ]; do sleep 0.05; done; echo said"#;
    let (seen, end) = terminal();
    let mut command = map(&ledger, &["-j", "1", "--", "sh", "-c", script, go.to_str().unwrap()]);
    let mut child = command.stdout(end).spawn().unwrap();
    drop(command);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&numbers(2)).unwrap();
    commands_of(&child, &ledger, 1);
    drop(seen);
    std::fs::write(&go, "").unwrap();
    let code = until("the end", || child.try_wait().unwrap());
    assert_eq!(code.code(), Some(141));
    assert!(on("show", &ledger, &["1"]).out.contains("nobody reads its output"));
}

/// A reader who is slow, or has made the pipe so that a write does not wait, is waited for; that takes no
/// time of a command.
#[test]
fn a_slow_reader_gets_everything() {
    let (_dir, ledger) = scratch();
    let (reader, writer) = std::io::pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    let args = ["-j", "2", "--timeout", "5", "--", "sh", "-c", BIG, "/dev/null", "{}"];
    let mut command = map(&ledger, &args);
    command.stdout(OwnedFd::from(writer));
    let mut child = command.spawn().unwrap();
    drop(command);
    child.stdin.take().unwrap().write_all(&numbers(3)).unwrap();
    std::thread::sleep(Duration::from_secs(6));
    let mut out = Vec::new();
    File::from(OwnedFd::from(reader)).read_to_end(&mut out).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&out).matches("end ").count(), 3);
    assert_eq!(succeeded(&ledger).len(), 3);
}

/// What a command has left running may print as long as the run goes on.
#[test]
fn what_is_printed_later_is_passed_on() {
    let (dir, ledger) = scratch();
    let (go, log) = (dir.path().join("go"), dir.path().join("log"));
    // The second command waits for what the first one has left running, which waits for that.
    let script = r#"until_there() { for i in $(seq 600); do [ -e "$1" ] && return; sleep 0.1; done; exit 1; }
        if [ $2 = a ]; then (until_there "$0"; printf 'late\nlater' && printf late >&2 && echo >> "$1") & exit 0; fi
        sleep 0.5; echo >> "$0"; until_there "$1"; echo second"#;
    let files = [go.to_str().unwrap(), log.to_str().unwrap()];
    let args = ["-j", "1", "--", "sh", "-c", script, files[0], files[1], "{}"];
    let done = mapped(&ledger, b"a\nb\n", &args).expect(0);
    assert!(done.out.contains("late\n") && done.out.contains("later"), "{done:?}");
    assert!(done.out.contains("second\n") && done.err.contains("late"), "{done:?}");
    assert!(!done.err.contains("still open"), "{done:?}");
}

/// It is one JSON object on a line of its own.
#[test]
fn the_summary_begins_a_line() {
    for ungroup in [false, true] {
        let (_dir, ledger) = scratch();
        let mut args = vec!["--summary", "json", "--", "sh", "-c", "printf 'no newline' >&2"];
        if ungroup {
            args.insert(0, "--ungroup");
        }
        let done = mapped(&ledger, b"a\n", &args).expect(0);
        let last = done.err.lines().last().unwrap();
        let summary: serde_json::Value = serde_json::from_str(last).unwrap();
        assert_eq!(summary["succeeded"], 1, "{done:?}");
    }
}

/// Also of a command that did not end by itself.
#[test]
fn the_last_words_of_what_was_ended_are_recorded() {
    let script =
        r#"trap 'echo going >&2; exit 1' TERM; echo "hello $0" >&2; while :; do sleep 0.02; done"#;
    let (_dir, ledger) = scratch();
    let done = mapped(&ledger, b"a\n", &["--timeout", "2", "--", "sh", "-c", script]).expect(1);
    assert!(done.err.contains("a: timed out"), "{done:?}");
    let shown = on("show", &ledger, &["a"]);
    assert!(shown.out.contains("failure            timed out"), "{shown:?}");
    // The shell may say something of its own in between.
    assert!(shown.out.contains("the last it said: hello a\n"), "{shown:?}");
    assert!(shown.out.contains("\n                   going\n"), "{shown:?}");

    // As the second Ctrl-C.
    let (dir, ledger) = scratch();
    let log = dir.path().join("log");
    let script = script.replace("while", r#"echo > "$1"; while"#);
    let args = ["-j", "1", "--", "sh", "-c", &script, "{}", log.to_str().unwrap()];
    let mut child = map(&ledger, &args).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"a\nb\n").unwrap();
    until("the command", || log.exists().then_some(()));
    std::thread::sleep(Duration::from_millis(500));
    kill_process(pid(&child), Signal::QUIT).unwrap();
    let since = std::time::Instant::now();
    let done = feed(child, b"").expect(130);
    assert!(since.elapsed() < NEVER);
    assert!(done.err.contains("a: ended: interrupted"), "{done:?}");
    let shown = on("show", &ledger, &["a"]);
    assert!(shown.out.contains("cancelled: interrupted"), "{shown:?}");
    // The shell may say something of its own in between.
    assert!(shown.out.contains("the last it said: hello a\n"), "{shown:?}");
    assert!(shown.out.contains("\n                   going\n"), "{shown:?}");
    assert_eq!(on("show", &ledger, &["b"]).code, Some(1));
}
