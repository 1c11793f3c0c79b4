//! `taskledger exec`, as it is run.

use crate::{Run, on, taskledger};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    (dir, ledger)
}

fn exec(ledger: &Path, args: &[&str]) -> Command {
    let mut command = taskledger();
    command.args(["exec", "-l"]).arg(ledger).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn end(child: Child) -> Run {
    let done = child.wait_with_output().unwrap();
    Run {
        code: done.status.code(),
        out: String::from_utf8(done.stdout).unwrap(),
        err: String::from_utf8(done.stderr).unwrap(),
    }
}

fn executed(ledger: &Path, args: &[&str]) -> Run {
    end(exec(ledger, args).spawn().unwrap())
}

#[test]
fn it_runs_until_it_has_succeeded_and_then_never_again() {
    let (_dir, ledger) = scratch();
    let script = r#"echo "$TASKLEDGER_ID, $TASKLEDGER_ATTEMPT"; echo bad >&2; exit $((3 - TASKLEDGER_ATTEMPT))"#;
    let args = ["a job", "--", "sh", "-c", script];
    let first = executed(&ledger, &args).expect(2);
    assert_eq!((&*first.out, &*first.err), ("a job, 1\n", "bad\n"));
    let shown = on("show", &ledger, &["a job"]);
    assert!(shown.out.contains("error: exit status 2"), "{shown:?}");
    executed(&ledger, &args).expect(1);
    let third = executed(&ledger, &args).expect(0);
    assert_eq!(third.out, "a job, 3\n");
    let again = executed(&ledger, &args).expect(0);
    assert_eq!(again.out, "");
    assert!(again.err.starts_with("taskledger: a job has succeeded: 20"), "{again:?}");
    executed(&ledger, &["another", "--", "true"]).expect(0);
}

#[test]
fn input_and_exit_codes_are_passed_on() {
    let (_dir, ledger) = scratch();
    let mut child = exec(&ledger, &["cat", "--", "cat"]).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello").unwrap();
    assert_eq!(end(child).expect(0).out, "hello");
    executed(&ledger, &["killed", "--", "sh", "-c", "kill -9 $$"]).expect(137);
    let missing = executed(&ledger, &["missing", "--", "no-such-program"]).expect(127);
    assert!(missing.err.contains("missing: cannot run no-such-program"), "{missing:?}");
    executed(&ledger, &["denied", "--", "/dev/null"]).expect(126);
    let shown = on("show", &ledger, &["killed"]);
    assert!(shown.out.contains("error: killed by signal 9"), "{shown:?}");
    executed(&ledger, &["no command"]).expect(2);
    executed(&ledger, &["--wait=soon", "a", "--", "true"]).expect(2);
}

/// The first line that it says.
fn line(child: &mut Child) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while child.stdout.as_mut().unwrap().read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

#[test]
fn a_ledger_in_use_is_waited_for_if_that_is_wanted() {
    let (_dir, ledger) = scratch();
    let mut first = exec(&ledger, &["first", "--", "sh", "-c", "echo on; cat"]).spawn().unwrap();
    assert_eq!(line(&mut first), "on");
    let told = executed(&ledger, &["second", "--", "true"]).expect(75);
    assert!(
        told.err.contains("second: ") && told.err.contains(&first.id().to_string()),
        "{told:?}"
    );
    assert!(told.err.ends_with(", at work on first; --wait waits for that\n"), "{told:?}");
    let told = crate::map::mapped(&ledger, b"a\n", &["--no-wait", "--", "true"]).expect(75);
    assert!(told.err.contains(", at work on first; wait until that has ended"), "{told:?}");
    executed(&ledger, &["--wait=0.2", "second", "--", "true"]).expect(75);
    let mut waiting = exec(&ledger, &["--wait", "second", "--", "true"]).spawn().unwrap();
    // It says so while it waits.
    let mut told = vec![0; "taskledger: second: waiting: ".len()];
    waiting.stderr.as_mut().unwrap().read_exact(&mut told).unwrap();
    assert_eq!(String::from_utf8(told).unwrap(), "taskledger: second: waiting: ");
    drop(first.stdin.take());
    end(first).expect(0);
    assert!(end(waiting).expect(0).err.contains("in use"));
    assert!(on("show", &ledger, &["second"]).out.contains("succeeded"));
}

/// It is not noticed that it would have to wait for itself: that cannot be told from a child in the background, which is
/// to wait.
#[test]
fn below_the_run_that_has_the_ledger_it_waits_as_elsewhere() {
    let (dir, ledger) = scratch();
    let (own, program) = (ledger.to_str().unwrap(), env!("CARGO_BIN_EXE_taskledger"));
    let inner = [program, "exec", "-l", own, "--wait=0.2", "inner", "--", "true"];
    let done = executed(&ledger, &[&["outer", "--"], &inner[..]].concat()).expect(75);
    assert!(
        done.err.contains("inner: waiting: ") && done.err.ends_with(", at work on outer\n"),
        "{done:?}"
    );

    let said = dir.path().join("said");
    let script = format!(
        "{program} exec -l {own} --wait second -- true > {0} 2>&1 && echo done >> {0} &",
        said.to_str().unwrap()
    );
    executed(&ledger, &["first", "--", "sh", "-c", &script]).expect(0);
    crate::map::until("its end", || {
        let said = std::fs::read_to_string(&said).ok();
        said.filter(|said| said.ends_with("done\n"))
    });
    assert!(on("show", &ledger, &["second"]).out.contains("succeeded"));
}

#[test]
fn a_signal_reaches_the_command() {
    for (name, signal) in [("TERM", Signal::TERM), ("INT", Signal::INT), ("HUP", Signal::HUP)] {
        let (_dir, ledger) = scratch();
        let script =
            format!("trap 'echo told; exit 9' {name}; echo on; while :; do sleep 0.01; done");
        // Without a terminal: from that, Ctrl-C reaches both by itself.
        let plain = exec(&ledger, &["x", "--", "sh", "-c", &script]);
        let mut command = Command::new("setsid");
        command.arg(plain.get_program()).args(plain.get_args());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        assert_eq!(line(&mut child), "on");
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(end(child).expect(9).out, "told\n", "{name}");
    }
}

/// With a terminal, but not in its foreground: no key reaches the command.
#[test]
fn a_signal_in_the_background_of_a_terminal_reaches_the_command() {
    let (dir, ledger) = scratch();
    let file = dir.path().join("pid");
    let (_master, slave) = crate::map_reader::terminal();
    let script = "trap 'echo told; exit 9' INT; echo on; for i in $(seq 9000); do sleep 0.01; done";
    let plain = exec(&ledger, &["x", "--", "sh", "-c", script]);
    let mut command = Command::new("setsid");
    // A job of its own, as of a shell that people use.
    command.args(["--ctty", "bash", "-c", r#"set -m; "$@" & echo $! > "$0"; wait $!"#]).arg(&file);
    command.arg(plain.get_program()).args(plain.get_args());
    command.stdin(slave).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    assert_eq!(line(&mut child), "on");
    let job = || std::fs::read_to_string(&file).ok()?.trim().parse().ok();
    let job = Pid::from_raw(crate::map::until("its number", job)).unwrap();
    kill_process(job, Signal::INT).unwrap();
    let code = crate::map::until("the end", || child.try_wait().unwrap());
    assert_eq!(code.code(), Some(9));
}

/// Whoever starts it may ignore signals, as `nohup` and `&` do: then it does, and so does its command.
#[test]
fn a_signal_that_was_ignored_before_stays_ignored() {
    for name in ["HUP", "INT"] {
        let (_dir, ledger) = scratch();
        let plain = exec(&ledger, &["x", "--", "sh", "-c", "echo on; read line; echo $line"]);
        let mut command = Command::new("env");
        command.args([&format!("--ignore-signal={name}"), "setsid"]);
        // Without what sets them to their defaults.
        command.args(plain.get_args().skip(1));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        assert_eq!(line(&mut child), "on");
        let signal = if name == "HUP" { Signal::HUP } else { Signal::INT };
        // To it and its command, as a terminal that is closed does.
        rustix::process::kill_process_group(Pid::from_child(&child), signal).unwrap();
        child.stdin.take().unwrap().write_all(b"went on\n").unwrap();
        assert_eq!(end(child).expect(0).out, "went on\n", "{name}");
    }
}

/// Who does not wait for his children may ignore that they end: they are waited for here all the same.
#[test]
fn ignored_ends_of_children_are_no_failures() {
    let (_dir, ledger) = scratch();
    let ignored = |plain: Command| {
        let mut command = Command::new("env");
        command.arg("--ignore-signal=CHLD").arg(plain.get_program()).args(plain.get_args());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        end(command.spawn().unwrap())
    };
    // The command has the default again: it waits for its own.
    let script = "sh -c 'exit 7'; echo $?; grep SigIgn: /proc/self/status";
    let done = ignored(exec(&ledger, &["once", "--", "sh", "-c", script])).expect(0);
    let (first, mask) = done.out.split_once('\n').unwrap();
    let mask = u64::from_str_radix(mask.trim_start_matches("SigIgn:").trim(), 16).unwrap();
    assert_eq!((first, mask >> 16 & 1), ("7", 0), "{done:?}");
    ignored(exec(&ledger, &["three", "--", "sh", "-c", "exit 3"])).expect(3);
    let (_dir, ledger) = scratch();
    let input = ledger.with_extension("input");
    std::fs::write(&input, "a\n").unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"exec "$@" < "$0""#]).arg(&input);
    let plain = crate::map::map(&ledger, &["--", "echo", "ran"]);
    shell.arg(plain.get_program()).args(plain.get_args());
    assert_eq!(ignored(shell).expect(0).out, "ran a\n");
}

#[test]
fn what_a_killed_one_has_left_is_not_run_beside() {
    let (_dir, ledger) = scratch();
    let script = "echo on; read line";
    let mut child = exec(&ledger, &["x", "--", "sh", "-c", script]).spawn().unwrap();
    assert_eq!(line(&mut child), "on");
    let stdin = child.stdin.take();
    child.kill().unwrap();
    child.wait().unwrap();
    let told = executed(&ledger, &["x", "--", "true"]).expect(75);
    assert!(told.err.contains("still running") && told.err.contains("read line"), "{told:?}");
    assert!(told.err.contains("), for x; wait for them, or end them; --wait"), "{told:?}");
    let waiting = exec(&ledger, &["x", "--wait=60", "--", "true"]).spawn().unwrap();
    drop(stdin);
    end(waiting).expect(0);
    assert!(on("show", &ledger, &["x"]).out.contains("attempt            2"));
}

/// Two ends, of which the second takes nothing more.
fn full() -> (UnixStream, OwnedFd) {
    let (reader, mut writer) = UnixStream::pair().unwrap();
    writer.set_nonblocking(true).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    writer.set_nonblocking(false).unwrap();
    (reader, writer.into())
}

/// What it says waits for whoever reads it, or for a signal, and keeps nobody from the ledger.
#[test]
fn what_nobody_reads_holds_up_nobody() {
    let (_dir, ledger) = scratch();
    crate::map::mapped(&ledger, b"1\n", &["--", "true"]).expect(0);
    let left = "sleep 300 > /dev/null 2>&1 & echo $! > \"$0\"; exit 1";
    let pid_file = ledger.with_extension("pid");
    let pid_name = pid_file.to_str().unwrap();
    let runs = [
        (crate::map::map(&ledger, &["--", "echo"]), 2),
        (exec(&ledger, &["x", "--", "sh", "-c", "exit 127"]), 127),
        (exec(&ledger, &["y", "--", "sh", "-c", left, pid_name]), 1),
        (crate::map::map(&ledger, &["--no-wait", "--", "true"]), 75),
    ];
    for (mut run, code) in runs {
        let (mut reader, writer) = full();
        let mut waits = run.stderr(writer).spawn().unwrap();
        drop(run);
        std::thread::sleep(std::time::Duration::from_secs(3));
        assert!(waits.try_wait().unwrap().is_none(), "{code}");
        // Whoever comes meanwhile finds the ledger free, but for what was left running.
        let free = if code == 2 || code == 127 { 1 } else { 75 };
        let others = executed(&ledger, &["z", "--", "false"]).expect(free);
        assert!(!others.err.contains("in use by"), "{others:?}");
        if code == 127 {
            let mut said = Vec::new();
            let reads = std::thread::spawn(move || {
                reader.read_to_end(&mut said).unwrap();
                said
            });
            assert_eq!(waits.wait().unwrap().code(), Some(code));
            let said = reads.join().unwrap();
            assert!(String::from_utf8_lossy(&said).contains("x: exit status 127"), "{code}");
        } else {
            kill_process(Pid::from_child(&waits), Signal::TERM).unwrap();
            assert_eq!(waits.wait().unwrap().code(), Some(code));
        }
    }
    let left = std::fs::read_to_string(pid_file).unwrap();
    kill_process(Pid::from_raw(left.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();

    // Nor does it need anybody who reads that it waits.
    let mut first = exec(&ledger, &["first", "--", "cat"]).spawn().unwrap();
    first.stdin.as_mut().unwrap().write_all(b"on\n").unwrap();
    assert_eq!(line(&mut first), "on");
    let (_reader, writer) = full();
    let mut second = exec(&ledger, &["second", "--wait", "--", "true"]);
    let mut second = second.stderr(writer).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    drop(first.stdin.take());
    end(first).expect(0);
    assert_eq!(crate::map::until("the end", || second.try_wait().unwrap()).code(), Some(0));
}

/// A ledger that is moved away meanwhile records nothing more.
#[test]
fn what_could_not_be_recorded_has_a_code_of_its_own() {
    let (dir, ledger) = scratch();
    let (ledger, other) = (ledger.to_str().unwrap(), dir.path().join("other"));
    let other = other.to_str().unwrap();
    let done = executed(Path::new(ledger), &["x", "--", "mv", ledger, other]).expect(74);
    assert!(done.err.contains("x: in doubt: the attempt ended"), "{done:?}");
    // A failure has its own.
    let script = r#"mv "$0" "$1"; exit 5"#;
    let done = executed(Path::new(other), &["y", "--", "sh", "-c", script, other, ledger]);
    assert!(done.expect(5).err.contains("y: in doubt"));
    let again = executed(Path::new(ledger), &["x", "--", "printenv", "TASKLEDGER_ATTEMPT"]);
    assert_eq!(again.expect(0).out, "2\n");
}

#[test]
fn any_id_is_taken_but_an_empty_one() {
    let (_dir, ledger) = scratch();
    for id in ["-x", "--what", "-", "--wait-for-it", "a\nb"] {
        let args = [id, "--", "sh", "-c", "printf %s \"$TASKLEDGER_ID\""];
        let done = executed(&ledger, &args).expect(0);
        assert_eq!(done.out, id);
        // It may have been meant as an option.
        let told = format!("taskledger: {id} is taken as the id: there is no such option\n");
        assert_eq!(done.err, if id.starts_with("--") { told } else { String::new() });
    }
    // So it may if it stands where a time would.
    let done = executed(&ledger, &["--wait", "5s", "--", "true"]).expect(0);
    assert_eq!(done.err, "taskledger: 5s is taken as the id: to wait so long, write --wait=5s\n");
    // Options are options on either side of it.
    executed(&ledger, &["--wait=1", "-y", "--", "true"]).expect(0);
    executed(&ledger, &["-z", "--wait=1", "--", "true"]).expect(0);
    assert_eq!(on("dump", &ledger, &["--format", "json"]).lines().len(), 8);
    let (_dir, ledger) = scratch();
    let told = executed(&ledger, &["", "--", "true"]).expect(2);
    assert!(told.err.contains("an id is not empty"), "{told:?}");
    assert!(!ledger.exists());
}

#[test]
fn what_makes_no_sense_is_said_and_nothing_is_run() {
    let (dir, ledger) = scratch();
    let there = dir.path().join("file");
    std::fs::write(&there, "").unwrap();
    let long = "x".repeat(2000);
    let cases: &[(&[&str], &str)] = &[
        (&[], "required arguments were not provided"),
        (&["a"], "COMMAND"),
        (&["--", "true"], "<ID>"),
        (&["a", "true"], "unexpected argument"),
        (&["a", "--"], "COMMAND"),
        (&["a", "--wait=soon", "--", "true"], "no span of time"),
        (&["a", "--wait=-1s", "--", "true"], "negative"),
        (&["a", "--wait", "1", "--", "true"], "unexpected argument"),
        (&["a", "-l", "other", "--", "true"], "cannot be used multiple times"),
    ];
    for (args, says) in cases {
        let told = executed(&ledger, args).expect(2);
        assert!(told.err.contains(says), "{args:?}: {told:?}");
        assert!(!ledger.exists(), "{args:?}");
    }
    let told = executed(&ledger, &[&long, "--", "true"]).expect(2);
    assert!(told.err.contains("at most 1024 are allowed"), "{told:?}");
    let told = executed(&there, &["a", "--", "true"]).expect(2);
    assert!(told.err.contains("is not a directory"), "{told:?}");
    let told = executed(dir.path(), &["a", "--", "true"]).expect(2);
    assert!(told.err.contains("is not a ledger"), "{told:?}");
    let plain = Command::new(env!("CARGO_BIN_EXE_taskledger"))
        .args(["exec", "a", "--", "true"])
        .output()
        .unwrap();
    assert_eq!(plain.status.code(), Some(2));
    assert!(String::from_utf8(plain.stderr).unwrap().contains("--ledger"));
}
