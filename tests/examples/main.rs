//! The examples do what they say.
//!
//! They are run as the programs they are. `cargo test` builds them before it runs this; after
//! `cargo test --test examples` alone they may be missing or stale: `cargo build --examples` first.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]
#![expect(clippy::indexing_slicing, reason = "likewise")]

mod cache_refresher;
mod cache_with_timeout;
mod crawl;
mod echo_server;
mod running;

use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The example's program, beside this test's own.
fn example(name: &str) -> Command {
    let own = std::env::current_exe().unwrap();
    let program = own.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(program.exists(), "{program:?} is missing: cargo build --examples");
    Command::new(program)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// A tree of small files, with names that are no text, and the ledger beside it.
struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let tree = Self { dir: tempfile::tempdir().unwrap() };
        for number in 0..40 {
            tree.write(format!("sub/{}/file {number}", number % 4), &format!("content {number}"));
        }
        tree.write(OsStr::from_bytes(b"caf\xe9 \xff"), "not UTF-8");
        tree.write("two\nlines", "a newline");
        tree.write("back\\slash", "a backslash");
        tree.write("deep/target/kept", "only the target at the top is passed over");
        tree.write("target/skipped", "built");
        tree.write(".git/skipped", "history");
        tree
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    fn write(&self, path: impl AsRef<Path>, content: &str) {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut command = example("checksum_tree");
        command.arg("--ledger").arg(self.dir.path().join("ledger")).args(options).arg(self.root());
        command
    }

    fn hash(&self, options: &[&str]) -> Output {
        self.command(options).output().unwrap()
    }

    /// What `sha256sum` would say of the whole tree, by file.
    fn expected(&self) -> BTreeMap<Vec<u8>, String> {
        let (mut found, mut directories) = (BTreeMap::new(), vec![self.root()]);
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(self.root()).unwrap().as_os_str().as_bytes().to_vec();
                if path.is_dir() {
                    directories.push(path);
                } else if !name.ends_with(b"skipped") {
                    let digest = Sha256::digest(std::fs::read(path).unwrap());
                    found.insert(name, digest.iter().map(|b| format!("{b:02x}")).collect());
                }
            }
        }
        found
    }
}

/// The lines of `sha256sum`, by file.
fn parse(stdout: &[u8]) -> BTreeMap<Vec<u8>, String> {
    let lines = stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let parsed = lines.map(|line| match line.strip_prefix(b"\\") {
        Some(escaped) => (unescape(&escaped[66..]), text(&escaped[..64])),
        None => (line[66..].to_vec(), text(&line[..64])),
    });
    parsed.collect()
}

fn unescape(name: &[u8]) -> Vec<u8> {
    let (mut plain, mut bytes) = (Vec::new(), name.iter());
    while let Some(&byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => match bytes.next().unwrap() {
                b'n' => b'\n',
                other => *other,
            },
            byte => byte,
        });
    }
    plain
}

/// "31 done now, 12 from the ledger, 0 failed", the last line.
fn summary(output: &Output) -> [usize; 3] {
    let stderr = text(&output.stderr);
    let numbers = |line: &str| -> Vec<usize> {
        line.split([' ', ',']).filter_map(|word| word.parse().ok()).collect()
    };
    stderr.lines().last().map(numbers).and_then(|n| n.try_into().ok()).expect(&stderr)
}

#[test]
fn a_tree_is_hashed_once_although_killed_half_way() {
    let tree = Tree::new();
    let all = tree.expected();
    let half = all.len() / 2;

    let killed = tree.hash(&["--kill-half-way", "--jobs", "3"]);
    assert_eq!(killed.status.signal(), Some(9), "{}", text(&killed.stderr));
    let printed = parse(&killed.stdout);
    assert!(printed.len() <= half);

    // What is recorded is not hashed again: were it, a changed file would show. The files are taken
    // in the order of their names, so these are recorded and will be.
    let first = all.keys().next().unwrap();
    tree.write(OsStr::from_bytes(first), "changed since");
    let again = tree.hash(&["--jobs", "3"]);
    let stderr = text(&again.stderr);
    assert!(again.status.success(), "{stderr}");
    assert!(stderr.contains(&format!(": {half} succeeded, ")), "{stderr}");
    // One pulled the plug from within its attempt; at most as many as may run were running.
    let crashed = stderr.lines().filter(|line| line.starts_with("  crashed: ")).count();
    assert!((1..=3).contains(&crashed), "{stderr}");
    assert!(stderr.contains("changed since they were hashed: 1 files;"), "{stderr}");
    assert_eq!(summary(&again), [all.len() - half, half, 0]);
    assert_eq!(parse(&again.stdout), all);

    let once_more = tree.hash(&[]);
    assert_eq!(summary(&once_more), [0, all.len(), 0]);
    assert_eq!(once_more.stdout, again.stdout);
}

#[test]
fn what_fails_is_listed_and_the_rest_is_done() {
    let tree = Tree::new();
    let all = tree.expected();
    // A path that is longer than an id may be.
    let name = "n".repeat(250);
    tree.write([&*name; 5].join("/"), "too deep");
    let output = tree.hash(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(summary(&output), [all.len(), 0, 1]);
    assert_eq!(parse(&output.stdout), all);
    let stderr = text(&output.stderr);
    assert!(stderr.contains("failed: nnn") && stderr.contains("at most 1024"), "{stderr}");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let tree = Tree::new();
    // More than a pipe holds.
    for number in 0..1000 {
        tree.write(format!("{}{number}", "long ".repeat(40)), "");
    }
    let mut child =
        tree.command(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = Vec::new();
    let mut stdout = BufReader::with_capacity(1, child.stdout.take().unwrap());
    stdout.read_until(b'\n', &mut line).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr).lines().count(), 1, "{}", text(&output.stderr));
}

#[test]
fn wrong_use_is_one_line_and_status_2() {
    let tree = Tree::new();
    tree.hash(&[]);
    let elsewhere = tempfile::tempdir().unwrap();
    let ledger = tree.dir.path().join("ledger");
    let other_tree: &[&OsStr] = &["--ledger".as_ref(), ledger.as_ref(), elsewhere.path().as_ref()];
    let no_tree: &[&OsStr] = &["/nonexistent".as_ref()];
    let cases = [
        (no_tree, "No such file"),
        (&["--unknown".as_ref()], "unknown option"),
        (&["--jobs".as_ref(), "0".as_ref()], "from 1"),
        (&["a".as_ref(), "b".as_ref()], "more than one"),
        (other_tree, "this ledger is about"),
    ];
    for (args, says) in cases {
        let output = example("checksum_tree").args(args).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(
            stderr.lines().last().is_some_and(|line| line.contains(says)),
            "{args:?}: {stderr}"
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn each_says_what_it_takes_and_what_is_wrong() {
    let cases = [
        ("cache_refresher", &["--period", "0"][..], "from 1"),
        ("cache_with_timeout", &["--origin", "192.0.2.1:80"], "loopback"),
        ("crawl", &["a", "b"], "more than one"),
        ("echo_server", &["--port", "70000"], "needs a port"),
    ];
    for (name, args, says) in cases {
        let help = run(example(name).arg("--help"));
        assert!(help.starts_with(&format!("usage: {name} ")), "{help}");
        for (args, says) in [(args, says), (&["--unknown"], "unknown option")] {
            let output = example(name).args(args).output().unwrap();
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{name} {args:?}: {stderr}");
            assert!(stderr.contains(says) && stderr.lines().count() == 1, "{stderr}");
            assert!(output.stdout.is_empty());
        }
    }
}

#[test]
fn quickstart_charges_once() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    let first = run(example("quickstart").arg(&ledger));
    assert_eq!(first.matches("charged now").count(), 1, "{first}");
    assert_eq!(first.matches("charged before").count(), 2, "{first}");
    assert!(first.contains("failed at attempt 1 (error: \"card expired\")"), "{first}");
    let second = run(example("quickstart").arg(&ledger));
    assert_eq!(second.matches("charged now").count(), 0, "{second}");
    assert!(second.contains("failed at attempt 2"), "{second}");
}

#[test]
fn an_upload_goes_its_way_and_back() {
    let said = run(&mut example("idempotent_upload"));
    let lines: Vec<&str> = said.lines().collect();
    let expected = [
        "check:  not there",
        "upload: accepted",
        "check:  uploading",
        "upload: on its way already",
        "check:  uploaded",
        "upload: there already",
        "stored: 4 bytes as cat.jpg",
        "delete: deleted",
        "delete: was not there",
        "check:  not there",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_shutdown_leaves_nothing_running() {
    let said = run(example("graceful_shutdown").arg("4"));
    assert!(said.contains("a job that comes too late: the ledger is closed"), "{said}");
    assert!(said.contains("opened again: 2 succeeded, 2 failed, 0 crashed"), "{said}");
    assert!(said.contains("  long job 3: cancelled: the ledger is closing"), "{said}");
}

#[test]
fn a_payment_is_made_once_although_two_processes_die_at_it() {
    let said = run(&mut example("payment_once"));
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("died before the bank was asked"), "{said}");
    assert!(lines[1].starts_with("died after the bank was asked"), "{said}");
    assert_eq!(lines[2..4], ["receipt for 12.50: Replayed, after 2 attempts"; 2]);
    assert_eq!(lines[4], "the bank has charged 1 times");
}

#[test]
fn a_page_is_fetched_once_for_everybody() {
    let said = run(&mut example("cached_fetch"));
    // One of the first three fetches gets lost, and is tried again.
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        [
            "process 1: 30 readers of 3 pages, 4 fetches",
            "  executed 3, joined or replayed 27",
            "process 2: 30 readers of 3 pages, 0 fetches",
            "  executed 0, joined or replayed 30",
            "nowhere: no such page",
            "nowhere: it failed, as others ran it: error: \"no such page\"",
        ]
    );
}
