//! `taskledger map` and its command: which one a ledger is for, and one that cannot be run.

use crate::map::{mapped, numbers, scratch, succeeded};
use crate::on;
use std::os::unix::fs::PermissionsExt;

/// Somebody has mistyped the first one.
#[test]
fn a_ledger_can_be_given_another_command() {
    let (_dir, ledger) = scratch();
    mapped(&ledger, b"a\n", &["--", "false", "typo"]).expect(1);
    let told = mapped(&ledger, b"a\n", &["--", "true"]).expect(2);
    assert!(told.err.contains("for another command: false typo {}"), "{told:?}");
    assert!(told.err.contains("--rebind") && told.err.contains("--any-command"), "{told:?}");
    // For one run; the ledger keeps its own.
    mapped(&ledger, b"b\n", &["--any-command", "--", "true"]).expect(0);
    mapped(&ledger, b"a\n", &["--", "true"]).expect(2);
    // A preview binds nothing.
    let dry = mapped(&ledger, b"a\nb\n", &["--rebind", "--dry-run", "--", "true"]).expect(0);
    assert_eq!(dry.out, "run\ta\nskip\tb\n");
    mapped(&ledger, b"a\n", &["--", "true"]).expect(2);
    mapped(&ledger, b"a\n", &["--rebind", "--", "true"]).expect(0);
    mapped(&ledger, b"c\n", &["--", "true"]).expect(0);
    let told = mapped(&ledger, b"a\n", &["--", "false", "typo"]).expect(2);
    assert!(told.err.contains("for another command: true {}"), "{told:?}");
    assert_eq!(succeeded(&ledger).len(), 3);
    mapped(&ledger, b"a\n", &["--rebind", "--any-command", "--", "true"]).expect(2);
}

/// As with xargs: 127 what is not found, 126 what cannot be run; once, not for each id.
#[test]
fn a_program_that_cannot_be_run_is_told_before_anything_is_recorded() {
    let (dir, ledger) = scratch();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (file, gone) = (file.to_str().unwrap(), dir.path().join("gone"));
    let cases = [
        ("no-such-program", 127, "cannot run no-such-program: it is not found in PATH"),
        (gone.to_str().unwrap(), 127, "No such file or directory"),
        ("", 127, "cannot run ''"),
        (file, 126, "Permission denied"),
        (dir.path().to_str().unwrap(), 126, "Permission denied"),
    ];
    for (program, code, says) in cases {
        let told = mapped(&ledger, &numbers(9), &["--", program, "{}"]).expect(code);
        assert!(told.err.contains(says), "{told:?}");
        assert_eq!(told.err.lines().count(), 1, "{told:?}");
        assert!(!ledger.exists());
    }
    // Relative to where it runs, and through PATH.
    let at = |path: &str| {
        let mut command = crate::map::map(&ledger, &["--any-command", "--", "./file"]);
        command.current_dir(dir.path()).env("PATH", path);
        crate::map::feed(command.spawn().unwrap(), b"1\n")
    };
    at("/nowhere").expect(126);
    std::fs::set_permissions(file, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(file, "#!/bin/sh\n").unwrap();
    at("/nowhere").expect(0);
    let mut command = crate::map::map(&ledger, &["--any-command", "--", "file"]);
    command.env("PATH", format!("/nowhere:{}", dir.path().display()));
    crate::map::feed(command.spawn().unwrap(), b"2\n").expect(0);
    // Whether a name that is made of the id can be run is a question of the id.
    let (_dir, ledger) = scratch();
    let failed = mapped(&ledger, b"no-such-program\ntrue\n", &["--", "{}"]).expect(1);
    assert!(failed.err.contains("1 succeeded, 1 failed"), "{failed:?}");
}

/// It is there, and yet the system cannot start it: then it cannot for the others either.
#[test]
fn a_program_that_cannot_be_started_ends_the_run() {
    let (dir, ledger) = scratch();
    let script = dir.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let script = script.to_str().unwrap();
    let told = mapped(&ledger, &numbers(9), &["-j", "1", "--", script]).expect(127);
    assert!(told.err.contains("0 succeeded, 0 failed, 0 skipped, 1 cancelled"), "{told:?}");
    let shown = on("show", &ledger, &["1"]);
    assert!(shown.out.contains("cancelled: cannot run "), "{shown:?}");
    assert_eq!(on("show", &ledger, &["2"]).code, Some(1));
}

/// As the shells and `xargs` have it: a script that does not say what it is for is one of `sh`.
#[test]
fn a_script_without_an_interpreter_is_run_by_sh() {
    let (dir, ledger) = scratch();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let script = file("script", b"echo \"hi $1 $2 $TASKLEDGER_ATTEMPT\"\n");
    let done = mapped(&ledger, &numbers(3), &["-j", "1", "--", &script, "a", "{}"]).expect(0);
    assert_eq!(done.out, "hi a 1 1\nhi a 2 1\nhi a 3 1\n");
    let path = dir.path().to_str().unwrap();
    let mut command = crate::map::map(&ledger, &["--any-command", "--", "script", "b"]);
    command.env("PATH", format!("{path}:{}", std::env::var("PATH").unwrap()));
    let done = crate::map::feed(command.spawn().unwrap(), b"4\n").expect(0);
    assert_eq!(done.out, "hi b 4 1\n");
    let exec = ["exec", "-l", ledger.to_str().unwrap(), "x", "--", &script, "c", "d"];
    assert_eq!(crate::run(exec).expect(0).out, "hi c d 1\n");
    // What is no text is none.
    let program = file("program", b"\x7fELF\0echo no\n");
    let args = ["-j", "1", "--any-command", "--", &program];
    let told = mapped(&ledger, b"new\n", &args).expect(126);
    assert!(told.err.contains("Exec format error"), "{told:?}");
}

/// The program is there; what is not would run it.
#[test]
fn a_missing_interpreter_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, ledger) = scratch();
    let script = dir.path().join("script");
    std::fs::write(&script, "#! /no/such/sh -e\necho\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = script.to_str().unwrap();
    let told = mapped(&ledger, b"a\n", &["--", script]).expect(127);
    assert!(told.err.contains("script: its interpreter /no/such/sh is not there"), "{told:?}");
    let exec = ["exec", "-l", ledger.to_str().unwrap(), "x", "--", script];
    assert!(crate::run(exec).expect(127).err.contains("its interpreter /no/such/sh"));
}

/// For one run only, whether or not the ledger has one by then.
#[test]
fn any_command_makes_it_no_command_of_the_ledger() {
    let (_dir, ledger) = scratch();
    mapped(&ledger, b"a\n", &["--any-command", "--", "false"]).expect(1);
    mapped(&ledger, b"a\n", &["--", "true"]).expect(0);
    let told = mapped(&ledger, b"a\n", &["--", "false"]).expect(2);
    assert!(told.err.contains("for another command: true {}"), "{told:?}");
}

/// Once: as `dump` prints an id, and `show` reads it.
#[test]
fn ids_in_messages_are_escaped_once() {
    let (_dir, ledger) = scratch();
    let input = b"caf\xe9\\n \x1b[2J'x'\n";
    let text = r"caf\xe9\\n \u{1b}[2J'x'";
    let told =
        mapped(&ledger, input, &["--", "sh", "-c", "printf '%s\\n' 'C:\\new\x1b[2J' >&2; exit 3"]);
    assert!(told.err.contains(&format!("taskledger: {text}: exit status 3\n")), "{}", told.err);
    let shown = on("show", &ledger, &[text]).expect(0);
    assert_eq!(shown.lines()[0], format!("id                 {text}"));
    // As any text that is shown, where a backslash is two.
    assert!(shown.out.contains(r"the last it said: C:\\new\u{1b}[2J"), "{shown:?}");
    let (_dir, ledger) = scratch();
    mapped(&ledger, b"x\n", &["--", "echo", "it's", "C:\\new"]).expect(0);
    let told = mapped(&ledger, b"x\n", &["--", "echo"]).expect(2);
    assert!(told.err.contains(r"another command: echo 'it'\''s' 'C:\new' {}"), "{told:?}");
}
