//! `taskledger map`, and whoever reads what it prints: stops reading, or goes away.

use crate::map::{map, numbers, pid, scratch, until};
use rustix::process::{Signal, kill_process};
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A terminal: the end of whoever looks at it, and that of the programs.
pub(crate) fn terminal() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let name = std::ffi::OsStr::from_bytes(name.as_bytes());
    let slave = File::options().read(true).write(true).open(name).unwrap();
    (File::from(master), slave)
}

fn lines(log: &Path) -> usize {
    std::fs::read(log).unwrap_or_default().len()
}

/// Starts it, feeds it, and gives it a signal twice while nobody reads what it prints.
fn interrupted_twice(command: &mut Command, log: &Path, signal: Signal) -> Child {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&numbers(50)).unwrap();
    // As many as there are slots have ended, and their outputs find no reader.
    until("a full pipe", || (lines(log) >= 2).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(300));
    kill_process(pid(&child), signal).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "one signal waits for the reader");
    kill_process(pid(&child), signal).unwrap();
    let code = until("the end", || child.try_wait().unwrap());
    assert_eq!(code.code(), Some(130));
    drop(stdin);
    child
}

/// Whoever has stopped reading holds up neither signals nor the end.
#[test]
fn signals_are_heard_while_nobody_reads() {
    let script = r#"head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; printf x >> "$0""#;
    let (int, term) = (Signal::INT, Signal::TERM);
    for (how, signal) in [("out", int), ("both", term), ("terminal", int), ("mixed", term)] {
        let (dir, ledger) = scratch();
        let log = dir.path().join("log");
        let mut args = vec!["-j", "2", "--kill-after", "0.5"];
        // What a command itself writes to a full pipe is its own business.
        let script = if how == "mixed" {
            args.push("--ungroup");
            r#"printf x >> "$0"; head -c 300000 /dev/zero >&2"#
        } else {
            script
        };
        args.extend(["--", "sh", "-c", script, log.to_str().unwrap(), "{}"]);
        let mut command = map(&ledger, &args);
        let (master, slave) = terminal();
        match how {
            "out" => _ = command.stderr(Stdio::null()),
            "terminal" => _ = command.stdout(slave.try_clone().unwrap()).stderr(slave),
            "both" | "mixed" => {
                let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
                let writer = std::os::fd::OwnedFd::from(writer);
                command.stdout(writer.try_clone().unwrap()).stderr(writer);
                let child = interrupted_twice(&mut command, &log, signal);
                drop((reader, child));
                continue;
            }
            other => panic!("{other}"),
        }
        let child = interrupted_twice(&mut command, &log, signal);
        drop((master, child));
    }
}
