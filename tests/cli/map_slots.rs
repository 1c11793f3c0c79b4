//! `taskledger map` and the files that stand for its commands: how many there are, and what they cost.

use crate::map::{feed, map, mapped, numbers, pid, scratch, until};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
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
            "processes are left of what has not succeeded: {left} (sleep 300), for a; no other command of this ledger begins"
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

/// Also at the end of a run that has killed what it ran.
#[test]
fn what_was_left_is_told_after_the_third_signal() {
    let (dir, ledger) = scratch();
    let pid_file = dir.path().join("pid");
    let script = r#"trap "" TERM; setsid sh -c 'echo $$ > "$0.new"; mv "$0.new" "$0"; exec sleep 300' "$0" > /dev/null 2>&1 &
        while :; do sleep 0.05; done"#;
    let args = ["-j", "1", "--", "sh", "-c", script, pid_file.to_str().unwrap(), "{}"];
    let mut run = map(&ledger, &args).spawn().unwrap();
    run.stdin.take().unwrap().write_all(b"a\n").unwrap();
    let left = until("the one that stays", || std::fs::read_to_string(&pid_file).ok());
    let left = left.trim();
    for _ in 0..3 {
        kill_process(pid(&run), Signal::TERM).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
    let done = run.wait_with_output().unwrap();
    kill_process(Pid::from_raw(left.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    let err = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(130), "{err}");
    assert!(
        err.contains(&format!("has not succeeded: {left} (sleep 300), for a; no other")),
        "{err}"
    );
}

/// What a failed command has left running starts a run of the same ledger, which would wait for itself.
#[test]
fn a_run_does_not_wait_for_itself() {
    let (dir, ledger) = scratch();
    let script = r#"(until [ -e "$0" ]; do sleep 0.05; done; to=$1; shift; "$@" > "$to" 2>&1; echo "code $?" >> "$to") &
        exit 1"#;
    let own = ledger.to_str().unwrap();
    let program = env!("CARGO_BIN_EXE_taskledger");
    let calls = "use POSIX; POSIX::close($_) for 3..255; exit(system(@ARGV) >> 8)";
    let again: [&[&str]; 4] = [
        &[program, "map", "-l", own, "--any-command"],
        &[program, "exec", "-l", own, "b", "--wait"],
        // Whatever it has left of what it had inherited.
        &["env", "-i", program, "exec", "-l", own, "b", "--wait"],
        &["perl", "-e", calls, program, "exec", "-l", own, "b", "--wait"],
    ];
    for (number, again) in again.into_iter().enumerate() {
        let [go, log] = ["go", "log"].map(|name| dir.path().join(format!("{name}{number}")));
        let names = [go.to_str().unwrap(), log.to_str().unwrap()];
        let words = ["--any-command", "--ungroup", "--", "sh", "-c", script];
        let words = [&words[..], &names, again, &["--", "true"]].concat();
        let child =
            map(&ledger, &words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        feed(child, format!("{number}\n").as_bytes()).expect(1);
        std::fs::write(&go, "").unwrap();
        let said = until("its end", || {
            std::fs::read_to_string(&log).ok().filter(|said| said.contains("code "))
        });
        let of =
            format!("was itself started by what an earlier run has left running of {number}: ");
        assert!(said.contains(&of) && said.ends_with("code 75\n"), "{said}");
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
