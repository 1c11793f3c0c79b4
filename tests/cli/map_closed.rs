//! `taskledger map` and `exec`, and processes that have closed all that they inherited, as the children of
//! ssh, Python and Node do.

use crate::map::{end_all_of, feed, is_alive, map, mapped, pid, scratch, state, until};
use crate::{Run, on, run, taskledger};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a shell script as a child that has closed everything but its standard streams.
const CLOSED: &str = r#"sub closed { my $pid = fork; return $pid if $pid;
    POSIX::close($_) for 3 .. 255; open STDOUT, ">", "/dev/null"; open STDERR, ">", "/dev/null";
    exec "sh", "-c", @_; } use POSIX; my ($log, $go, $id) = @ARGV; my $try = $ENV{TASKLEDGER_ATTEMPT};
    my $work = 'echo "start $1" >> "$0"; while ! [ -e "$2" ]; do sleep 0.05; done; echo "end $1" >> "$0"'; "#;

fn lines(log: &Path) -> Vec<String> {
    std::fs::read_to_string(log).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The helper is still in the group when its parent is gone: it is ended before the next attempt.
#[test]
fn a_retry_ends_a_helper_that_has_closed_what_it_inherited() {
    for how in ["kill 9, $$", "exit 1"] {
        let (dir, ledger) = scratch();
        let (log, go) = (dir.path().join("log"), dir.path().join("go"));
        let script = format!(
            r#"{CLOSED} if ($try == 2) {{ closed('echo "start 2" >> "$0"', $log); wait; exit 0; }}
            closed('trap "sleep 0.3; echo end 1 >> \"$0\"; exit" TERM; echo start 1 >> "$0"; while :; do sleep 0.05; done', $log);
            select(undef, undef, undef, 0.01) until -s $log; {how};"#
        );
        let args = ["--retries", "1", "--", "perl", "-e", &script];
        let args = [&args[..], &[log.to_str().unwrap(), go.to_str().unwrap(), "{}"]].concat();
        mapped(&ledger, b"a\n", &args).expect(0);
        assert_eq!(lines(&log), ["start 1", "end 1", "start 2"], "{how}");
    }
}

/// Starts the command with `start`, kills the run and then all but what has closed its descriptors.
/// The next run with the same ledger must wait for that.
fn survives(ledger: &Path, start: &[&str], next: &[&str], set_apart: bool) {
    let dir = ledger.parent().unwrap();
    let (log, go) = (dir.join("log"), dir.join("go"));
    let apart = if set_apart { "setsid " } else { "" };
    let script = format!(
        r#"{CLOSED} closed('exec {apart}sh -c "$3" "$0" "$1" "$2"', $log, $try, $go, $work);
        sleep 60"#
    );
    let words = ["--", "perl", "-e", &script, log.to_str().unwrap(), go.to_str().unwrap()];
    let begin = |args: &[&str]| {
        let mut command = taskledger();
        command.args(args).args(words).args((args[0] == "map").then_some("{}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut first = begin(start);
    first.stdin.as_mut().unwrap().write_all(b"a\n").unwrap();
    until("the helper", || (lines(&log) == ["start 1"]).then_some(()));
    kill_process(pid(&first), Signal::KILL).unwrap();
    first.wait().unwrap();
    // What has the descriptors ends: nothing but the helper is left.
    end_all_of(ledger);
    let told: Run = feed(begin(next), b"a\n").expect(75);
    assert!(told.err.contains("still running: ") && told.err.contains("(sh -c "), "{told:?}");
    assert_eq!(lines(&log), ["start 1"]);
    std::fs::write(&go, "").unwrap();
    until("its end", || (lines(&log).len() == 2).then_some(()));
    // The helper may take a moment to be gone.
    until("the ledger", || {
        let ledger = ledger.to_str().unwrap();
        let next = run(["exec", "-l", ledger, "another", "--", "true"]);
        assert!(matches!(next.code, Some(0 | 75)), "{next:?}");
        (next.code == Some(0)).then_some(())
    });
    assert_eq!(lines(&log), ["start 1", "end 1"]);
    assert_eq!(state(ledger, "a"), "failed");
}

#[test]
fn what_a_killed_run_has_left_is_waited_for_whatever_it_has_closed() {
    for set_apart in [false, true] {
        let (_dir, ledger) = scratch();
        let path = ledger.to_str().unwrap();
        let start = ["map", "-l", path];
        survives(&ledger, &start, &["map", "--no-wait", "--any-command", "-l", path], set_apart);
        let (_dir, ledger) = scratch();
        let path = ledger.to_str().unwrap();
        survives(&ledger, &["exec", "-l", path, "a"], &["exec", "-l", path, "a"], set_apart);
    }
}

/// Ends the process whose number is in the file.
fn end(pid_file: &Path) {
    let pid = std::fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// Neither the kill of the run that has started it, nor a stray of another command beside it.
#[test]
fn a_daemon_of_a_successful_command_holds_up_nobody_whatever_happens_beside() {
    let daemon = r#"setsid sh -c 'echo $$ > "$0"; exec sleep 300' "$0/$1" > /dev/null 2>&1 &
        while ! [ -s "$0/$1" ]; do sleep 0.01; done; [ $1 = a ]"#;
    for killed in [true, false] {
        let (dir, ledger) = scratch();
        let of = |id: &str| dir.path().join(id);
        let runs =
            if killed { r#"[ $1 = a ] || { echo $$ > "$0/b"; exec sleep 300; };"# } else { "" };
        let script = format!("{runs} {daemon}");
        let args = ["-j", "1", "--", "sh", "-c", &script, dir.path().to_str().unwrap(), "{}"];
        let mut child = map(&ledger, &args).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"a\nb\n").unwrap();
        if killed {
            until("the second", || {
                std::fs::metadata(of("b")).is_ok_and(|b| b.len() > 0).then_some(())
            });
            kill_process(pid(&child), Signal::KILL).unwrap();
            child.wait().unwrap();
        } else {
            assert_eq!(child.wait_with_output().unwrap().status.code(), Some(1));
        }
        let next = ["--no-wait", "--any-command", "--", "true"];
        let told = mapped(&ledger, b"a\nb\n", &next).expect(75);
        let [a, b] =
            ["a", "b"].map(|id| std::fs::read_to_string(of(id)).unwrap().trim().to_owned());
        assert!(told.err.contains(&b) && !told.err.contains(&a), "{a}, {b}: {told:?}");
        end(&of("b"));
        until("its end", || (!is_alive(&b)).then_some(()));
        let next = mapped(&ledger, b"a\nb\n", &next);
        assert!(is_alive(&a));
        end(&of("a"));
        next.expect(0);
    }
}

/// What another boot has left, or an older release, or a write that was cut off.
#[test]
fn only_what_can_still_run_is_waited_for() {
    let (_dir, ledger) = scratch();
    let args = ["--no-wait", "--any-command", "--", "true"];
    mapped(&ledger, b"a\n", &args).expect(0);
    // A group that lives, with the notes that a run would have made of it.
    let mut child = Command::new("sleep").arg("300").process_group(0).spawn().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let start: u64 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let numbers = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let here = format!("{} {}", boot.trim(), numbers.display());
    let group = |start: u64| format!("group {} {start}\n", child.id());
    let of = |id: &str, here: &str, group: &str| format!("id {id}\nhere {here}\n{group}");
    let slots = [
        (of("62", &here, &group(start)), true),
        (of("62", &here, &format!("process {} {start}\n", child.id())), true),
        // Of the id that has succeeded; of another boot; its number is another group's by now; torn.
        (of("61", &here, &group(start)), false),
        (of("62", &format!("another {}", numbers.display()), &group(start)), false),
        (of("62", &here, &group(start + 1)), false),
        (of("62", &here, &format!("process {} {}\n", child.id(), start + 1)), false),
        (of("62", &here, group(start).trim_end()), false),
        ("\0\0\0".to_owned(), false),
        (String::new(), false),
    ];
    let slot = ledger.join("commands/0-0");
    for (text, waits) in slots {
        std::fs::write(&slot, &text).unwrap();
        let told = mapped(&ledger, b"a\n", &args);
        if waits {
            assert!(told.expect(75).err.contains("(sleep 300)"), "{text}");
        } else {
            told.expect(0);
        }
        assert_eq!(slot.exists(), waits, "{text}");
        drop(std::fs::remove_file(&slot));
    }
    child.kill().unwrap();
    child.wait().unwrap();

    // All commands of an older release have inherited one lock.
    let lock = std::fs::File::create(ledger.join("commands.lock")).unwrap();
    flock(&lock, FlockOperation::LockShared).unwrap();
    let told = mapped(&ledger, b"a\n", &args).expect(75);
    assert!(told.err.contains("commands of an earlier run"), "{told:?}");
    assert_eq!(on("verify", &ledger, &[]).expect(0).lines().len(), 1);
    drop(lock);
    mapped(&ledger, b"a\n", &args).expect(0);
    assert!(!ledger.join("commands.lock").exists());
    assert_eq!(std::fs::read_dir(ledger.join("commands")).unwrap().count(), 0);
    assert_eq!(on("verify", &ledger, &[]).expect(0).lines().len(), 1);
}
