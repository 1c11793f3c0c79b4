//! `taskledger map`, as it is run: whole processes, real commands, real signals.

use crate::{Run, on, taskledger};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Far more than anything here takes: only to tell slow from never.
pub(crate) const NEVER: Duration = Duration::from_secs(60);

pub(crate) fn scratch() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    (dir, ledger)
}

/// `taskledger map -l LEDGER args..`, not yet started.
pub(crate) fn map(ledger: &Path, args: &[&str]) -> Command {
    let mut command = taskledger();
    command.args(["map", "-l"]).arg(ledger).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn feed(mut child: Child, input: &[u8]) -> Run {
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // It may end before it has read all of it.
    let fed = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let done = child.wait_with_output().unwrap();
    fed.join().unwrap();
    Run {
        code: done.status.code(),
        out: String::from_utf8_lossy(&done.stdout).into_owned(),
        err: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}

pub(crate) fn mapped(ledger: &Path, input: &[u8], args: &[&str]) -> Run {
    feed(map(ledger, args).spawn().unwrap(), input)
}

pub(crate) fn numbers(count: u32) -> Vec<u8> {
    (1..=count).map(|number| format!("{number}\n")).collect::<String>().into_bytes()
}

pub(crate) fn state(ledger: &Path, id: &str) -> String {
    let shown = on("show", ledger, &[id]);
    shown
        .lines()
        .into_iter()
        .find_map(|line| line.strip_prefix("state "))
        .unwrap()
        .trim()
        .to_owned()
}

pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(since.elapsed() < NEVER, "{what} never comes");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// They could take the list of ids for theirs.
#[test]
fn commands_have_nothing_to_read() {
    let (_dir, ledger) = scratch();
    let done = mapped(&ledger, b"/proc/self/fd/0\n", &["--", "readlink"]).expect(0);
    assert_eq!(done.out, "/dev/null\n");
}

#[test]
fn each_id_succeeds_once_and_what_failed_runs_again() {
    let (dir, ledger) = scratch();
    let log = dir.path().join("log");
    let log = log.to_str().unwrap();
    let script = r#"echo "$TASKLEDGER_ID $TASKLEDGER_ATTEMPT" >> "$0"; echo "out $1"
        [ "$1" != 3 ] || [ "$TASKLEDGER_ATTEMPT" = 2 ] || { echo first >&2; echo not yet >&2; exit 7; }"#;
    let args = ["-j", "2", "--", "sh", "-c", script, log, "{}"];
    let first = mapped(&ledger, &numbers(5), &args).expect(1);
    assert!(first.err.contains("first\nnot yet\ntaskledger: 3: exit status 7\n"), "{first:?}");
    assert!(first.err.contains("4 succeeded, 1 failed, 0 skipped"), "{first:?}");
    let mut out = first.lines();
    out.sort_unstable();
    assert_eq!(out, ["out 1", "out 2", "out 3", "out 4", "out 5"]);
    let shown = on("show", &ledger, &["3"]).expect(0);
    assert!(
        shown.out.contains("exit status 7; the last it said: first\n                   not yet\n"),
        "{shown:?}"
    );
    assert_eq!(shown.out.matches("not yet").count(), 1, "{shown:?}");
    assert!(shown.out.contains("\terror: as above\n"), "{shown:?}");
    let second = mapped(&ledger, &numbers(5), &args).expect(0);
    assert_eq!(second.lines(), ["out 3"]);
    assert!(second.err.contains("1 succeeded, 0 failed, 4 skipped"), "{second:?}");
    mapped(&ledger, &numbers(5), &args).expect(0);
    let mut ran: Vec<String> =
        std::fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect();
    ran.sort_unstable();
    assert_eq!(ran, ["1 1", "2 1", "3 1", "3 2", "4 1", "5 1"]);
}

#[test]
fn retries_end_with_the_first_success_or_with_their_number() {
    let (_dir, ledger) = scratch();
    let script = r#"[ "$1" = 2 ] && [ "$TASKLEDGER_ATTEMPT" = 3 ]"#;
    let args = ["--retries", "3", "--summary", "json", "--", "sh", "-c", script, "sh", "{}"];
    let done = mapped(&ledger, &numbers(2), &args).expect(1);
    let summary: serde_json::Value =
        serde_json::from_str(done.err.lines().last().unwrap()).unwrap();
    assert_eq!((&summary["succeeded"], &summary["failed"]), (&1.into(), &1.into()));
    for (id, attempts) in [("1", "attempt            4"), ("2", "attempt            3")] {
        let shown = on("show", &ledger, &[id]);
        assert!(shown.out.contains(attempts), "{shown:?}");
    }
    let args = ["--no-retry", "--", "sh", "-c", script, "sh", "{}"];
    let left = mapped(&ledger, &numbers(3), &args).expect(1);
    assert!(left.err.contains("0 succeeded, 1 failed, 1 skipped, 1 left alone"), "{left:?}");
    let args = ["--only", "failed", "--", "sh", "-c", script, "sh", "{}"];
    let only = mapped(&ledger, &numbers(9), &args).expect(1);
    assert!(only.err.contains("0 succeeded, 2 failed, 1 skipped, 6 left alone"), "{only:?}");
    // Nobody has asked for these.
    let args = ["--only", "new", "--", "sh", "-c", script, "sh", "{}"];
    let only = mapped(&ledger, &numbers(3), &args).expect(0);
    assert!(only.err.contains("0 succeeded, 0 failed, 1 skipped, 2 left alone"), "{only:?}");
}

#[test]
fn ids_are_bytes_and_reach_the_command_as_they_are() {
    let (_dir, ledger) = scratch();
    let args = ["-j", "1", "--", "printf", "<%s|%s>", "a{}b{}", "-x"];
    let done = mapped(&ledger, b"$(x) 'y\"\n\n--z\n$(x) 'y\"\nlast", &args).expect(0);
    assert_eq!(done.out, "<a$(x) 'y\"b$(x) 'y\"|-x><a--zb--z|-x><alastblast|-x>");
    assert!(
        done.err.contains("3 succeeded, 0 failed, 0 skipped, 1 duplicate, 1 blank, in"),
        "{done:?}"
    );
    let (dir, ledger) = scratch();
    let odd = dir.path().join(OsStr::from_bytes(b"caf\xe9\nx"));
    std::fs::write(&odd, "").unwrap();
    let mut input = odd.as_os_str().as_bytes().to_vec();
    input.push(0);
    mapped(&ledger, &input, &["-0", "--", "rm"]).expect(0);
    assert!(!odd.exists());
    assert!(on("dump", &ledger, &[]).out.contains("caf\\xe9\\nx"));
    let failed = mapped(&ledger, b"a\0b\n", &["--", "rm"]).expect(1);
    assert!(failed.err.contains("it has a NUL byte, which no argument can have"), "{failed:?}");
    let long = [&b"x".repeat(100_000)[..], b"\n", &b"y".repeat(2000), b"\n"].concat();
    let failed = mapped(&ledger, &long, &["--", "rm"]).expect(1);
    assert!(failed.err.contains("longer than an id can be"), "{failed:?}");
    assert!(failed.err.contains("0 succeeded, 2 failed"), "{failed:?}");
}

#[test]
fn outputs_are_whole_whatever_their_size_and_may_be_streamed() {
    let (_dir, ledger) = scratch();
    let script =
        "for i in 1 2 3 4 5 6; do head -c 400000 /dev/zero | tr '\\0' $0; sleep 0.01; done";
    let input = b"a\nb\nc\nd\n";
    let done = mapped(&ledger, input, &["-j", "4", "--", "sh", "-c", script]).expect(0);
    assert_eq!(done.out.len(), 4 * 2_400_000);
    let mut letters: Vec<char> = done.out.chars().collect();
    letters.dedup();
    assert_eq!(letters.len(), 4, "{letters:?}");
    let (_dir, ledger) = scratch();
    let done =
        mapped(&ledger, b"a\n", &["--ungroup", "--", "sh", "-c", "echo o; echo e >&2; exit 1"]);
    let done = done.expect(1);
    assert_eq!(done.out, "o\n");
    assert!(done.err.contains("e\ntaskledger: a: exit status 1\n"), "{done:?}");
}

/// Somebody else keeps the pipes of a command that has ended.
#[test]
fn what_a_command_leaves_running_holds_up_nobody() {
    let (_dir, ledger) = scratch();
    let since = Instant::now();
    let done =
        mapped(&ledger, b"30\n", &["--", "sh", "-c", "echo before; sleep $0 & exit 0"]).expect(0);
    assert_eq!(done.out, "before\n");
    assert!(since.elapsed() < Duration::from_secs(25));
    let left = left_of(&ledger);
    assert_eq!(left.len(), 1, "it is still there");
    end_all_of(&ledger);
}

#[test]
fn one_ledger_is_for_one_command() {
    let (_dir, ledger) = scratch();
    mapped(&ledger, b"a\n", &["--", "true", "it's"]).expect(0);
    let other = mapped(&ledger, b"b\n", &["--", "false"]).expect(2);
    assert!(other.err.contains(r"another command: true 'it'\''s' {}"), "{other:?}");
    mapped(&ledger, b"b\n", &["--dry-run", "--", "false"]).expect(2);
    assert!(on("show", &ledger, &["b"]).code == Some(1));
    mapped(&ledger, b"b\n", &["--any-command", "--", "true"]).expect(0);
}

#[test]
fn a_preview_changes_nothing_and_says_what_would_be() {
    let (dir, ledger) = scratch();
    let args = ["--", "sh", "-c", "[ $1 != 2 ]", "sh", "{}"];
    let with = |more: &[&'static str]| -> Vec<&str> { more.iter().chain(&args).copied().collect() };
    let nothing = mapped(&ledger, b"1\n", &with(&["--dry-run"])).expect(0);
    assert_eq!(nothing.out, "run\t1\n");
    assert!(!ledger.exists());
    mapped(&ledger, &numbers(2), &args).expect(1);
    let files = || crate::snapshot(dir.path());
    let before = files();
    let dry = mapped(&ledger, b"1\n2\n3\n1\n", &with(&["--dry-run"])).expect(0);
    assert_eq!(dry.out, "skip\t1\nrun\t2\nrun\t3\nduplicate\t1\n");
    let dry = mapped(&ledger, b"1\n2\n3\n", &with(&["--dry-run", "--no-retry"])).expect(0);
    assert_eq!(dry.out, "skip\t1\nleave\t2\nrun\t3\n");
    let status = mapped(&ledger, b"1\n2\n3\n1\n", &with(&["--status"])).expect(0);
    assert_eq!(status.out, "duplicate\t1\nfailed\t1\nnew\t1\nsucceeded\t1\n");
    assert!(files() == before);
}

#[test]
fn a_timeout_ends_the_whole_group() {
    let (dir, ledger) = scratch();
    let log = dir.path().join("pids");
    let script = r#"trap "" TERM; sh -c 'trap "" TERM; echo $$ >> "$0"; sleep 50' "$0" & echo $$ >> "$0"; wait"#;
    let args = [
        "--timeout",
        "0.5",
        "--kill-after",
        "0.2",
        "--",
        "sh",
        "-c",
        script,
        log.to_str().unwrap(),
        "{}",
    ];
    let done = mapped(&ledger, b"a\n", &args).expect(1);
    assert!(done.err.contains("a: timed out"), "{done:?}");
    assert!(on("show", &ledger, &["a"]).out.contains("failure            timed out"));
    let pids = std::fs::read_to_string(&log).unwrap();
    assert_eq!(pids.lines().count(), 2);
    until("the end of the group", || pids.lines().all(|pid| !is_alive(pid)).then_some(()));
}

/// A zombie is dead.
pub(crate) fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

#[test]
fn one_signal_waits_for_what_runs_and_two_end_it() {
    for (signal, twice) in [(Signal::INT, false), (Signal::TERM, true), (Signal::INT, true)] {
        let (dir, ledger) = scratch();
        let (begun, go) = (dir.path().join("begun"), dir.path().join("go"));
        let script = r#"echo >> "$0"; while ! [ -e "$1" ]; do sleep 0.01; done"#;
        let files = [begun.to_str().unwrap(), go.to_str().unwrap()];
        let mut command =
            map(&ledger, &["-j", "2", "--", "sh", "-c", script, files[0], files[1], "{}"]);
        let mut child = command.spawn().unwrap();
        // The input does not end.
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&numbers(5)).unwrap();
        let two = || (std::fs::read(&begun).ok()?.len() == 2).then_some(());
        until("the second command", two);
        kill_process(pid(&child), signal).unwrap();
        if twice {
            std::thread::sleep(Duration::from_millis(100));
            kill_process(pid(&child), signal).unwrap();
        } else {
            std::fs::write(&go, "").unwrap();
        }
        let done = child.wait_with_output().unwrap();
        drop(stdin);
        assert_eq!(done.status.code(), Some(130), "{done:?}");
        assert_eq!(std::fs::read(&begun).unwrap().len(), 2, "something new was started");
        let (state, how) =
            if twice { ("failed", "cancelled: interrupted") } else { ("succeeded", "") };
        for id in ["1", "2"] {
            assert_eq!(self::state(&ledger, id), state);
            assert!(on("show", &ledger, &[id]).out.contains(how));
        }
        assert!(on("show", &ledger, &["3"]).code == Some(1));
    }
}

/// As of `nohup taskledger map ... &`: neither a hang-up nor somebody else's Ctrl-C stops it.
#[test]
fn a_signal_that_was_ignored_before_stops_nothing() {
    for (name, signal) in [("HUP", Signal::HUP), ("INT", Signal::INT)] {
        let (_dir, ledger) = scratch();
        let plain = map(&ledger, &["-j", "1", "--", "sh", "-c", "echo on"]);
        let mut command = Command::new("env");
        // Without what sets them to their defaults.
        command.arg(format!("--ignore-signal={name}")).args(plain.get_args().skip(1));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"1\n").unwrap();
        let mut first = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        kill_process(pid(&child), signal).unwrap();
        stdin.write_all(b"2\n").unwrap();
        drop(stdin);
        let done = child.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{name}: {done:?}");
        assert_eq!(done.stdout, b"on\n");
    }
}

#[test]
fn fail_fast_starts_nothing_new() {
    let (_dir, ledger) = scratch();
    let done =
        mapped(&ledger, &numbers(100), &["-j", "1", "--fail-fast", "--", "sh", "-c", "exit $0"]);
    let done = done.expect(1);
    assert!(done.err.contains("0 succeeded, 1 failed"), "{done:?}");
}

#[test]
fn nobody_reads_the_output_any_more() {
    let (_dir, ledger) = scratch();
    let mut child = map(&ledger, &["-j", "1", "--", "echo"]).spawn().unwrap();
    drop(child.stdout.take());
    let done = feed_without_output(child, &numbers(1000));
    assert_eq!(done.code, Some(141), "{done:?}");
    assert!(!done.err.contains("panicked"), "{done:?}");
    let done = mapped(&ledger, &numbers(1000), &["-j", "1", "--", "echo"]).expect(0);
    assert!(done.lines().len() >= 990, "it went on: {}", done.lines().len());
}

fn feed_without_output(mut child: Child, input: &[u8]) -> Run {
    let mut stdin = child.stdin.take().unwrap();
    drop(stdin.write_all(input));
    drop(stdin);
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    Run { code: child.wait().unwrap().code(), out: String::new(), err }
}

#[test]
fn a_million_lines_take_little_memory() {
    let (_dir, ledger) = scratch();
    let mut input = Vec::new();
    for number in 0..1_000_000_u32 {
        writeln!(input, "{}", if number % 2 == 0 { number } else { number % 7 }).unwrap();
    }
    let child = map(&ledger, &["--only", "failed", "--", "true"]).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let watched = std::thread::spawn(move || {
        let mut most = 0;
        while let Ok(text) = std::fs::read_to_string(&status) {
            let Some(line) = text.lines().find(|line| line.starts_with("VmHWM")) else { break };
            most = most.max(line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
        most
    });
    let done = feed(child, &input).expect(0);
    assert!(done.err.contains("500003 left alone, 499997 duplicates"), "{done:?}");
    let most = watched.join().unwrap();
    assert!(most < 200 * 1024, "{most} KiB");
}

/// The bar is for people, lines are for files.
#[test]
fn a_terminal_shows_how_far_it_has_got() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let (_dir, ledger) = scratch();
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = std::fs::File::options()
        .read(true)
        .write(true)
        .open(OsStr::from_bytes(name.as_bytes()))
        .unwrap();
    let mut command = map(&ledger, &["-j", "2", "--", "sleep", "0.4"]);
    command.stderr(slave).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"0.1\n0.2\n0.3\n0.5\n").unwrap();
    drop(stdin);
    let mut master = std::fs::File::from(master);
    let mut shown = Vec::new();
    // Until nobody has the other end any more, which is told as an error.
    drop(master.read_to_end(&mut shown));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let shown = String::from_utf8_lossy(&shown).into_owned();
    assert!(shown.contains("2 running"), "{shown:?}");
    assert!(shown.contains("4 succeeded, 0 failed"), "{shown:?}");
}

#[test]
fn what_makes_no_sense_is_said_and_nothing_is_run() {
    let (dir, ledger) = scratch();
    let there = dir.path().join("file");
    std::fs::write(&there, "").unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&[], "COMMAND"),
        (&["--dry-run"], "COMMAND"),
        (&["--no-retry"], "COMMAND"),
        (&["true"], "unexpected argument"),
        (&["-j", "0", "--", "true"], "at least one command"),
        (&["-j", "many", "--", "true"], "not a number of commands"),
        (&["--timeout", "100y", "--", "true"], "the longest unit is a week"),
        (&["--timeout", "soon", "--", "true"], "no span of time"),
        (&["--timeout=-3s", "--", "true"], "negative"),
        (&["--kill-after", "soon", "--", "true"], "no span of time"),
        (&["--kill-after=-1s", "--", "true"], "negative"),
        (&["--retries=-1", "--", "true"], "not in 0..=4294967295"),
        (&["--only", "running", "--", "true"], "possible values: failed, crashed, cancelled, new"),
        (&["--only", "failed", "--no-retry", "--", "true"], "cannot be used with"),
        (&["--dry-run", "--status", "--", "true"], "cannot be used with"),
        (&["--summary", "xml", "--", "true"], "possible values"),
    ];
    for (args, says) in cases {
        let done = mapped(&ledger, b"a\n", args).expect(2);
        assert!(done.err.contains(says), "{args:?}: {done:?}");
        assert!(!ledger.exists(), "{args:?}");
    }
    let done = mapped(&there, b"a\n", &["--", "true"]).expect(2);
    assert!(done.err.contains("is not a directory"), "{done:?}");
    let done = mapped(dir.path(), b"a\n", &["--", "true"]).expect(2);
    assert!(done.err.contains("is not a ledger"), "{done:?}");
    let done = crate::run(["map", "--", "true"]).expect(2);
    assert!(done.err.contains("--ledger <DIR>"), "{done:?}");
}

#[test]
fn of_two_at_a_time_one_is_told_of_the_other() {
    let (_dir, ledger) = scratch();
    let mut first = map(&ledger, &["--", "true"]).spawn().unwrap();
    let stdin = first.stdin.take();
    until("the first", || ledger.join("commands").exists().then_some(()));
    let second = mapped(&ledger, b"a\n", &["--", "true"]).expect(75);
    assert!(
        second.err.contains(&format!("process {}", first.id()))
            || second.err.contains(&first.id().to_string()),
        "{second:?}"
    );
    drop(stdin);
    assert_eq!(first.wait().unwrap().code(), Some(0));
}

/// Processes that have a lock that commands inherit.
pub(crate) fn left_of(ledger: &Path) -> Vec<u32> {
    users_of(&ledger.join("commands"))
}

/// Processes that have something open below a directory.
pub(crate) fn users_of(directory: &Path) -> Vec<u32> {
    let Ok(directory) = directory.canonicalize() else { return Vec::new() };
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let open = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let mut links = open.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        if links.any(|link| link.starts_with(&directory)) {
            found.push(pid);
        }
    }
    found
}

/// Waits until a run has started so many.
pub(crate) fn commands_of(run: &Child, ledger: &Path, count: usize) {
    let others = || left_of(ledger).into_iter().filter(|pid| *pid != run.id()).count();
    until("its commands", || (others() >= count).then_some(()));
}

pub(crate) fn end_all_of(ledger: &Path) {
    until("the end of all commands", || {
        let left = left_of(ledger);
        for pid in &left {
            let pid = Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap();
            let _gone = kill_process(pid, Signal::KILL);
        }
        left.is_empty().then_some(())
    });
}

/// What the ledger has as succeeded; nothing, if it is not one yet.
pub(crate) fn succeeded(ledger: &Path) -> std::collections::BTreeSet<String> {
    let dumped = on("dump", ledger, &["--state", "succeeded", "--format", "csv"]);
    let mut reader = csv_ids(&dumped.out);
    reader.drain(..).collect()
}

fn csv_ids(text: &str) -> Vec<String> {
    let mut lines = text.lines();
    let Some(head) = lines.next() else { return Vec::new() };
    let at = head.split(',').position(|name| name == "id").unwrap();
    lines.map(|line| line.split(',').nth(at).unwrap().to_owned()).collect()
}
