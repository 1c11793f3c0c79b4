//! `taskledger map` where descriptors or processes are short.

use crate::map::{feed, map, mapped, numbers, scratch, succeeded, until};
use crate::{Run, on};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The same run under limits, or as somebody else.
fn under(wrapper: &[&str], plain: &Command) -> Command {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(plain.get_program()).args(plain.get_args());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// With few descriptors fewer commands run at a time; the ledger always has its own.
#[test]
fn commands_never_get_the_last_descriptors() {
    let (_dir, ledger) = scratch();
    let script = "head -c 1100000 /dev/zero; head -c 1100000 /dev/zero >&2; sleep 0.2";
    let plain = map(&ledger, &["-j", "40", "--", "sh", "-c", script]);
    let run = under(&["prlimit", "--nofile=128:128"], &plain).spawn().unwrap();
    let done = feed(run, &numbers(45));
    let told = done.err.replace('\0', "");
    assert_eq!(done.code, Some(0), "{told}");
    assert!(told.contains(" commands at a time, not 40: the limit of open files is 128"), "{told}");
    assert!(told.contains("45 succeeded, 0 failed"), "{told}");
    assert_eq!(done.out.len(), 45 * 1_100_000);
    assert_eq!(succeeded(&ledger).len(), 45);

    let (_dir, ledger) = scratch();
    let plain = map(&ledger, &["--", "true"]);
    let run = under(&["prlimit", "--nofile=40:40"], &plain).spawn().unwrap();
    let done = feed(run, &numbers(1)).expect(2);
    assert!(done.err.contains("40 open files are too few"), "{done:?}");
    assert!(!ledger.exists());
}

/// The soft limit is there to be raised.
#[test]
fn what_the_hard_limit_allows_runs_at_a_time() {
    let (dir, ledger) = scratch();
    let log = dir.path().join("log");
    // Each waits for all the others.
    let script = r#"echo >> "$0"; while [ "$(wc -l < "$0")" -lt 40 ]; do sleep 0.05; done"#;
    let args = ["-j", "40", "--timeout", "60", "--", "sh", "-c", script, log.to_str().unwrap()];
    let args = [&args[..], &["{}"]].concat();
    let run = under(&["prlimit", "--nofile=128:4096"], &map(&ledger, &args)).spawn().unwrap();
    let done = feed(run, &numbers(40)).expect(0);
    assert!(!done.err.contains("at a time"), "{done:?}");
}

/// `-j` of any size is a number of commands, not a reason to end.
#[test]
fn any_number_of_jobs_is_taken() {
    for jobs in ["18446744073709551615", "3000000000"] {
        let (_dir, ledger) = scratch();
        mapped(&ledger, &numbers(3), &["-j", jobs, "--", "true"]).expect(0);
    }
}

/// A user of whom nobody else has processes, and what that one has.
struct Other {
    uid: u32,
    _dir: tempfile::TempDir,
    ledger: PathBuf,
    program: PathBuf,
}

impl Other {
    /// `None` for whoever cannot become another user, which is said.
    fn user(of: u32) -> Option<Self> {
        if !rustix::process::getuid().is_root() {
            let told = b"SKIPPED: a limit of processes: only root can become another user\n";
            std::io::stderr().write_all(told).unwrap();
            return None;
        }
        let uid = of + std::process::id() % 1000;
        let (dir, ledger) = scratch();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let program = dir.path().join("taskledger");
        std::fs::copy(env!("CARGO_BIN_EXE_taskledger"), &program).unwrap();
        chown(dir.path(), Some(uid), Some(uid)).unwrap();
        Some(Self { uid, _dir: dir, ledger, program })
    }

    /// The program, with so many processes at most.
    fn limited(&self, limit: u64) -> Command {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={}", self.uid), format!("--regid={}", self.uid)]);
        command.args(["--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]);
        command.args(["prlimit".to_owned(), format!("--nproc={limit}")]).arg(&self.program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.current_dir("/");
        command
    }
}

/// It panicked when there could be no thread by the end of its command, and its exit code was that of the panic.
#[test]
fn exec_needs_no_thread_to_end() {
    let Some(other) = Other::user(56_000) else { return };
    // Threads that have nothing to do go in less time.
    let mut command = other.limited(1000);
    command.args(["exec", "-l"]).arg(&other.ledger).args([
        "x",
        "--",
        "sh",
        "-c",
        "sleep 12; exit 3",
    ]);
    let child = command.spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let mut limit = Command::new("setpriv");
    let uid = other.uid;
    limit.args([format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".to_owned()]);
    limit.args(["prlimit", &format!("--pid={}", child.id()), "--nproc=1"]);
    assert!(limit.status().unwrap().success());
    let done = child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(3), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Who may have no more processes waits for one that ends: it is not the fault of the id.
#[test]
fn a_command_that_has_no_room_waits_for_one_that_ends() {
    let Some(other) = Other::user(54_000) else { return };
    let ledger = &other.ledger;
    let start = |limit: u64, args: &[&str]| {
        let plain = map(ledger, args);
        // Without what sets the signals, and its name.
        let mut command = other.limited(limit);
        command.args(plain.get_args().skip(2)).spawn().unwrap()
    };
    // How many threads it has by itself.
    let mut alone = start(1000, &["-j", "1", "--", "sleep"]);
    let mut stdin = alone.stdin.take().unwrap();
    stdin.write_all(b"0.3\n").unwrap();
    let has_child = || {
        let all = format!("/proc/{}/task", alone.id());
        let tasks = std::fs::read_dir(all).into_iter().flatten().flatten();
        let of = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children"));
        tasks.filter_map(|task| of(task).ok()).any(|list| !list.is_empty()).then_some(())
    };
    until("a command", has_child);
    let status = std::fs::read_to_string(format!("/proc/{}/status", alone.id())).unwrap();
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap();
    let threads: u64 = threads.trim().parse().unwrap();
    drop(stdin);
    assert_eq!(alone.wait().unwrap().code(), Some(0));

    let input: String = (100..140).map(|number| format!("0.{number}\n")).collect();
    let child = start(threads + 4, &["-j", "16", "--", "sleep"]);
    let done: Run = feed(child, input.as_bytes()).expect(0);
    assert!(done.err.contains("40 succeeded, 0 failed"), "{done:?}");
    assert!(done.err.contains("sleep cannot be started by now"), "{done:?}");
    let dumped = on("dump", ledger, &["--state", "failed"]);
    assert!(!dumped.out.contains("0.1"), "{dumped:?}");
}
