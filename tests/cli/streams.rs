//! Whatever standard output and standard error are: no panic.

use crate::map::{feed, map, numbers, scratch};
use std::fs::File;
use std::process::{Command, Stdio};

fn full() -> Stdio {
    Stdio::from(File::options().write(true).open("/dev/full").unwrap())
}

/// A pipe from which nobody reads.
fn nobody() -> Stdio {
    let (_, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    Stdio::from(std::os::fd::OwnedFd::from(writer))
}

#[test]
fn completions_are_printed_for_whoever_reads() {
    let start = |shell: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_taskledger"));
        command.args(["completions", shell]);
        command
    };
    for (shell, says) in [
        ("bash", "complete -F _taskledger"),
        ("zsh", "#compdef taskledger"),
        ("fish", "complete -c taskledger"),
    ] {
        let done = start(shell).output().unwrap();
        assert_eq!((done.status.code(), &done.stderr[..]), (Some(0), &b""[..]));
        let text = String::from_utf8(done.stdout).unwrap();
        assert!(text.contains(says) && text.contains("fail-fast") && text.contains("resolve"));
    }
    let check = |name: &str| Command::new(name).arg("--version").output().is_ok();
    if check("bash") {
        let script = start("bash").output().unwrap().stdout;
        let child = Command::new("bash").args(["-n", "/dev/stdin"]).stdin(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), &script).unwrap();
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success(), "bash does not read it");
    }
    // As of `| head -1`, which has seen enough.
    let done = start("bash").stdout(nobody()).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((done.status.code(), &done.stderr[..]), (Some(0), &b""[..]));
    let done = start("bash").stdout(full()).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert!(String::from_utf8(done.stderr).unwrap().contains("No space left on device"));
}

#[test]
fn nothing_panics_whatever_the_streams_are() {
    for stream in [full, nobody] {
        for more in [&["--summary", "json"][..], &["--dry-run"], &["--status"], &["--ungroup"], &[]]
        {
            // What fails is said; what succeeds prints nothing.
            let (_dir, ledger) = scratch();
            let args = [more, &["--", "sh", "-c", "echo said >&2; [ $0 != 2 ]"]].concat();
            let mut command = map(&ledger, &args);
            command.stderr(stream());
            let preview = more.iter().any(|arg| matches!(*arg, "--dry-run" | "--status"));
            feed(command.spawn().unwrap(), &numbers(3)).expect(i32::from(!preview));
            let mut command = map(&ledger, &[&["--rebind"], &args[..]].concat());
            command.stdout(stream()).stderr(stream());
            let code = feed(command.spawn().unwrap(), &numbers(3)).code;
            assert!(code.is_some_and(|code| code != 101), "{more:?}: {code:?}");
        }
    }
}
