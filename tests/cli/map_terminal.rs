//! `taskledger map` for people: the bar on a terminal, lines elsewhere, keys.

use crate::map::{NEVER, feed, map, numbers, pid, scratch, state, until};
use crate::map_reader::terminal;
use crate::on;
use rustix::process::{Signal, kill_process};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs it with both outputs on a terminal; what is seen there.
fn seen(mut command: Command, input: &[u8], code: i32) -> String {
    let (mut master, slave) = terminal();
    command.stdout(slave.try_clone().unwrap()).stderr(slave);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input).unwrap();
    drop(stdin);
    let mut shown = Vec::new();
    // Until nobody has the other end any more, which is told as an error.
    drop(master.read_to_end(&mut shown));
    assert_eq!(child.wait().unwrap().code(), Some(code));
    String::from_utf8_lossy(&shown).into_owned()
}

/// What a terminal still shows of this in the end: lines are wiped by `\x1b[2K` after `\r`.
fn screen(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut rest = text;
    let mut row = 0;
    while let Some(char) = rest.chars().next() {
        rest = &rest[char.len_utf8()..];
        match char {
            '\n' => {
                row += 1;
                if row == lines.len() {
                    lines.push(String::new());
                }
            }
            // Whatever comes next overwrites; nothing here is longer than what it overwrites.
            '\r' => {
                if rest.starts_with("\x1b[2K") {
                    lines[row].clear();
                }
            }
            '\x1b' => {
                let end = rest.find(|char: char| char.is_ascii_alphabetic()).unwrap();
                if &rest[..=end] == "[2K" {
                    lines[row].clear();
                } else if rest[..=end].ends_with('A') {
                    row = row.saturating_sub(1);
                } else if rest[..=end].ends_with('B') {
                    row = (row + 1).min(lines.len() - 1);
                }
                rest = &rest[end + 1..];
            }
            char => lines[row].push(char),
        }
    }
    lines
}

/// The bar is below what commands print, not over it.
#[test]
fn the_bar_wipes_nothing_that_commands_print() {
    let (_dir, ledger) = scratch();
    let script = "sleep 0.3; printf out-$0; printf err-$0 >&2";
    let text = seen(map(&ledger, &["-j", "1", "--", "sh", "-c", script]), b"1\n2\n", 0);
    assert!(text.contains("1 running"), "there was a bar: {text:?}");
    let screen = screen(&text);
    for said in ["out-1", "err-1", "out-2", "err-2"] {
        assert!(screen.iter().any(|line| line.trim() == said), "{said}: {screen:?} of {text:?}");
    }
}

/// What streams is nobody's to move: there is no bar that could wipe it.
#[test]
fn what_streams_has_no_bar_beside_it() {
    let (_dir, ledger) = scratch();
    let script = "printf out-$0; sleep 0.7; printf err-$0 >&2; sleep 0.5";
    let args = ["--ungroup", "-j", "1", "--", "sh", "-c", script];
    let text = seen(map(&ledger, &args), b"1\n2\n", 0);
    for said in ["out-1", "err-1", "out-2", "err-2", "2 succeeded"] {
        assert!(text.contains(said), "{text:?}");
    }
    assert!(!text.contains("running") && !text.contains('\x1b'), "{text:?}");
}

/// The size of the input is known, of a file at once, of a pipe when it has ended.
#[test]
fn the_time_that_is_left_is_told() {
    for file in [true, false] {
        let (dir, ledger) = scratch();
        let mut command = map(&ledger, &["-j", "1", "--", "sh", "-c", "sleep 0.4"]);
        let input = dir.path().join("input");
        std::fs::write(&input, numbers(8)).unwrap();
        if file {
            let file = std::fs::File::open(&input).unwrap();
            let words = [command.get_program()].into_iter().chain(command.get_args());
            let words: Vec<_> = words.map(ToOwned::to_owned).collect();
            // `seen` closes a pipe that nobody reads.
            let mut shell = Command::new("sh");
            shell.args(["-c", r#"exec "$@" < "$0""#]).arg(&input).args(words);
            shell.stdin(Stdio::piped());
            drop(file);
            command = shell;
        }
        let text = seen(command, if file { b"" } else { b"1\n2\n3\n4\n5\n6\n7\n8\n" }, 0);
        assert!(
            text.contains(" seconds left") || text.contains(" second left"),
            "{file}: {text:?}"
        );
        assert!(text.contains('%'), "{text:?}");
    }
}

/// A line now and then, where there is no terminal.
#[test]
fn without_a_terminal_there_is_a_line_now_and_then() {
    let (_dir, ledger) = scratch();
    let run = map(&ledger, &["-j", "1", "--", "sleep", "32"]).spawn().unwrap();
    let quiet_ledger = ledger.with_extension("quiet");
    let quiet = map(&quiet_ledger, &["-q", "-j", "1", "--", "sleep", "32"]).spawn().unwrap();
    let quiet = std::thread::spawn(move || feed(quiet, b"1\n"));
    // Nor one where nothing can be moved.
    let mut dumb = map(&ledger.with_extension("dumb"), &["-j", "1", "--", "sleep", "32"]);
    dumb.env("TERM", "dumb");
    let dumb = std::thread::spawn(move || seen(dumb, b"1\n", 0));
    let done = feed(run, b"1\n");
    assert!(done.err.contains("0 done, 0 skipped, 0 failed, 1 running, 0.0/s\n"), "{done:?}");
    assert_eq!(quiet.join().unwrap().err, "");
    let dumb = dumb.join().unwrap();
    assert!(dumb.contains("0 done, 0 skipped, 0 failed, 1 running, 0.0/s"), "{dumb:?}");
}

/// Of a terminal nobody but the foreground may read: told to end, such a command does.
#[test]
fn a_command_that_reads_the_terminal_can_be_ended() {
    let (dir, ledger) = scratch();
    let (_master, slave) = terminal();
    let input = dir.path().join("input");
    std::fs::write(&input, "1\n").unwrap();
    let args = ["--timeout", "4", "--kill-after", "100", "--", "sh", "-c", "read x < /dev/tty"];
    let plain = map(&ledger, &args);
    let mut command = Command::new("setsid");
    command.args(["--ctty", "sh", "-c", r#"exec "$@" < "$0""#]).arg(&input);
    command.arg(plain.get_program()).args(plain.get_args());
    command.stdin(slave).stdout(Stdio::null()).stderr(Stdio::piped());
    let since = Instant::now();
    let done = command.spawn().unwrap().wait_with_output().unwrap();
    let err = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{err}");
    assert!(since.elapsed() < NEVER, "it was killed only after its grace period");
    assert!(on("show", &ledger, &["1"]).out.contains("timed out"), "{err}");
    assert!(err.contains("1: it is stopped"), "{err}");
}

/// Whoever has stopped a run for another reason has not been heard yet.
#[test]
fn after_a_failure_one_signal_still_waits_for_what_runs() {
    let (dir, ledger) = scratch();
    let go = dir.path().join("go");
    let script = r#"[ $1 != 2 ] || exit 1; while ! [ -e "$0" ]; do sleep 0.01; done"#;
    let args = ["-j", "2", "--fail-fast", "--", "sh", "-c", script, go.to_str().unwrap(), "{}"];
    let mut child = map(&ledger, &args).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&numbers(9)).unwrap();
    let mut err = child.stderr.take().unwrap();
    let mut heard = Vec::new();
    let mut until_heard = |what: &str| {
        let mut byte = [0];
        while !String::from_utf8_lossy(&heard).contains(what) {
            assert_eq!(err.read(&mut byte).unwrap(), 1, "{what} is not said");
            heard.push(byte[0]);
        }
    };
    until_heard("2: exit status 1\n");
    kill_process(pid(&child), Signal::TERM).unwrap();
    // How many: the failed one may not be counted off yet.
    until_heard(" waited for; again to end what runs");
    std::fs::write(&go, "").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(stdin);
    assert_eq!(state(&ledger, "1"), "succeeded");
}

/// Once: nothing new. Twice: told to end. Three times: there is no time left.
#[test]
fn a_third_signal_kills() {
    let (dir, ledger) = scratch();
    let log = dir.path().join("log");
    let script = r#"trap 'echo told >> "$0"' TERM; echo on >> "$0"; while :; do sleep 0.05; done"#;
    let args = ["--kill-after", "1h", "--", "sh", "-c", script, log.to_str().unwrap(), "{}"];
    let mut child = map(&ledger, &args).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"1\n").unwrap();
    let has = |what: &str| {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains(what).then_some(())
    };
    until("the command", || has("on"));
    kill_process(pid(&child), Signal::HUP).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    kill_process(pid(&child), Signal::INT).unwrap();
    until("its trap", || has("told"));
    assert!(child.try_wait().unwrap().is_none());
    kill_process(pid(&child), Signal::INT).unwrap();
    let code = until("the end", || child.try_wait().unwrap());
    assert_eq!(code.code(), Some(130));
    drop(stdin);
    assert!(on("show", &ledger, &["1"]).out.contains("cancelled: interrupted"));
}

/// A terminal that is closed sends more than one hang-up, and systemd one after TERM.
#[test]
fn a_hang_up_is_never_the_second_signal() {
    for signals in [&[Signal::HUP, Signal::HUP, Signal::HUP][..], &[Signal::TERM, Signal::HUP]] {
        let (dir, ledger) = scratch();
        let go = dir.path().join("go");
        let script = r#"echo on; while ! [ -e "$0" ]; do sleep 0.01; done"#;
        let args = ["--ungroup", "--", "sh", "-c", script, go.to_str().unwrap(), "{}"];
        let mut child = map(&ledger, &args).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"1\n").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
        for signal in signals {
            kill_process(pid(&child), *signal).unwrap();
            std::thread::sleep(Duration::from_millis(200));
        }
        std::fs::write(&go, "").unwrap();
        let done = child.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(130), "{done:?}");
        drop(stdin);
        assert_eq!(state(&ledger, "1"), "succeeded");
    }
}
