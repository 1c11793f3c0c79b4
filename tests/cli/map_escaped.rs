//! `taskledger map` and processes that only their environment gives away: of a session of their own, with all
//! closed that they had inherited.

use crate::map::{mapped, scratch};
use crate::on;
use std::path::{Path, PathBuf};

/// As Python does with `start_new_session=True`: it waits for a child of another session, which has closed
/// what it does not know, and that is all that is left when it is ended.
const WAITS: &str = r#"use POSIX; my ($log, $seconds) = @ARGV; my $attempt = $ENV{TASKLEDGER_ATTEMPT};
    exit 0 if -e "$log.done"; my $child = fork;
    if (!$child) {
        POSIX::setsid(); POSIX::close($_) for 3 .. 255;
        open STDOUT, ">", "/dev/null"; open STDERR, ">", "/dev/null";
        open my $file, ">>", $log; syswrite $file, "start $attempt\n"; sleep $seconds;
        syswrite $file, "end $attempt\n"; open my $done, ">", "$log.done"; exit 0;
    }
    waitpid $child, 0;"#;

fn args<'a>(more: &[&'a str], log: &'a Path) -> Vec<&'a str> {
    let work = ["--timeout", "2", "--", "perl", "-e", WAITS, log.to_str().unwrap(), "9", "{}"];
    [more, &work[..]].concat()
}

fn log() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let (dir, ledger) = scratch();
    let log = dir.path().join("log");
    (dir, ledger, log)
}

#[test]
fn a_retry_waits_for_a_process_of_another_session() {
    let (_dir, ledger, log) = log();
    let done = mapped(&ledger, b"a\n", &args(&["--retries", "1"], &log)).expect(0);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "start 1\nend 1\n");
    assert!(done.err.contains("a: processes of its last attempt are waited for: "), "{done:?}");
    assert!(done.err.contains("(perl -e "), "{done:?}");
    assert_eq!(std::fs::read_dir(ledger.join("commands")).unwrap().count(), 0);
}

#[test]
fn the_next_run_waits_for_a_process_of_another_session() {
    let (_dir, ledger, log) = log();
    mapped(&ledger, b"a\n", &args(&[], &log)).expect(1);
    let told = mapped(&ledger, b"a\n", &args(&["--no-wait"], &log)).expect(75);
    assert!(told.err.contains("(perl -e "), "{told:?}");
    mapped(&ledger, b"a\n", &args(&[], &log)).expect(0);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "start 1\nend 1\n");
    assert!(on("show", &ledger, &["a"]).out.contains("attempt            2"));
}

/// In the group of the command, with another thread at work when its first one has ended: the system tells of
/// it as of one that is dead.
const GOES_ON: &str = r#"use threads; use POSIX; my ($log) = @ARGV; my $attempt = $ENV{TASKLEDGER_ATTEMPT};
    sub note { open my $file, ">>", $log; syswrite $file, "$_[0] $attempt\n" }
    note("start"); exit 0 if $attempt > 1;
    if (!fork) {
        $SIG{TERM} = "IGNORE"; POSIX::close($_) for 3 .. 255;
        open STDOUT, ">", "/dev/null"; open STDERR, ">", "/dev/null";
        threads->create(sub { select undef, undef, undef, 3; note("end"); POSIX::_exit(0) });
        note("goes on"); syscall((POSIX::uname())[4] eq "x86_64" ? 60 : 93, 0);
    }
    select undef, undef, undef, 0.5; exit 1;"#;

#[test]
fn a_process_whose_first_thread_has_ended_is_alive() {
    let (_dir, ledger, log) = log();
    let path = log.to_str().unwrap();
    let args = ["--retries", "1", "--", "perl", "-e", GOES_ON, path, "{}"];
    mapped(&ledger, b"a\n", &args).expect(0);
    std::thread::sleep(std::time::Duration::from_secs(4));
    let found = std::fs::read_to_string(&log).unwrap();
    let found: Vec<&str> = found.lines().collect();
    let ended = ["start 1", "goes on 1", "start 2"];
    let waited = ["start 1", "goes on 1", "end 1", "start 2"];
    assert!(found == ended || found == waited, "{found:?}");
}
