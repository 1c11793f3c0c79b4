//! The `taskledger` command, run as people run it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

mod copied;
mod damage;
mod examples;
mod exec;
mod exported;
mod formats;
mod full;
mod ids;
mod map;
mod map_closed;
mod map_command;
mod map_escaped;
mod map_groups;
mod map_killed;
mod map_large;
mod map_output;
mod map_preview;
mod map_reader;
mod map_room;
mod map_slots;
mod map_start;
mod map_terminal;
mod pruned;
mod refusals;
mod resolved;
mod streams;
mod trees;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;
use taskledger::{AttemptError, Ledger, TaskId};

/// How a run of the command ended.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Run {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    fn lines(&self) -> Vec<&str> {
        self.out.lines().collect()
    }
}

/// The command, with the signals as a terminal leaves them: whoever runs the tests may ignore some, as
/// `nohup` and `&` do, and what is ignored at the start stays ignored.
fn taskledger() -> Command {
    // By its whole name: some tests give it another PATH.
    let mut command = Command::new("/usr/bin/env");
    command.args(["--default-signal=HUP,INT,QUIT,TERM", env!("CARGO_BIN_EXE_taskledger")]);
    command
}

fn run<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> Run {
    let done = Command::new(env!("CARGO_BIN_EXE_taskledger")).args(args).output().unwrap();
    Run {
        code: done.status.code(),
        out: String::from_utf8(done.stdout).unwrap(),
        err: String::from_utf8(done.stderr).unwrap(),
    }
}

/// Runs `command PATH args..`.
fn on(command: &str, path: &Path, args: &[&str]) -> Run {
    let words = [OsStr::new(command), path.as_os_str()];
    run(words.into_iter().chain(args.iter().map(OsStr::new)))
}

/// Does something with a ledger, on a runtime of its own, and closes it.
fn with<K: TaskId>(path: &Path, work: impl AsyncFnOnce(&Ledger<K, Vec<u32>>)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // A ballast of 16 MiB in every test is slow to compare.
        let ledger = Ledger::builder().ballast_bytes(0).open(path).await.unwrap();
        work(&ledger).await;
        ledger.close().await.unwrap();
    });
}

async fn succeed<K: TaskId>(ledger: &Ledger<K, Vec<u32>>, id: K, output: Vec<u32>) {
    ledger.launch_block(id, async { Ok::<_, ()>(output) }).await.unwrap();
}

async fn fail<K: TaskId>(ledger: &Ledger<K, Vec<u32>>, id: K, why: &'static str) {
    let failed = ledger.launch_block(id, async move { Err::<Vec<u32>, _>(why) }).await;
    assert!(matches!(failed, Err(AttemptError::Failed(_))));
}

/// A ledger of words: a success, two failures (one in its second attempt), a mark, one revoked.
fn words() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    with::<String>(&path, async |ledger| {
        succeed(ledger, "apple".into(), vec![1, 2]).await;
        fail(ledger, "beer".into(), "flat").await;
        fail(ledger, "bread".into(), "burnt\u{1b}[2J\n").await;
        fail(ledger, "beer".into(), "warm").await;
        ledger.mark_succeeded("cake".to_owned()).await.unwrap();
        succeed(ledger, "date".into(), vec![]).await;
        ledger.revoke_task_block("date".to_owned(), async { Ok::<_, ()>(()) }).await.unwrap();
    });
    (dir, path)
}

/// Everything below a directory: bytes, mode and time of the last change.
fn snapshot(path: &Path) -> BTreeMap<PathBuf, (Option<Vec<u8>>, u32, SystemTime)> {
    use std::os::unix::fs::PermissionsExt;
    let mut found = BTreeMap::new();
    let mut todo = vec![path.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata().unwrap();
        let bytes = if meta.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            None
        } else {
            Some(std::fs::read(&path).unwrap())
        };
        found.insert(path, (bytes, meta.permissions().mode(), meta.modified().unwrap()));
    }
    found
}

/// Every command that only looks, with what it needs.
const LOOKS: [(&str, &[&str]); 10] = [
    ("dump", &[]),
    ("dump", &["--format", "json"]),
    ("dump", &["--format", "csv"]),
    ("show", &["apple"]),
    ("dump", &["--tree"]),
    ("queue", &[]),
    ("log", &[]),
    ("stats", &[]),
    ("stats", &["--format", "json"]),
    ("verify", &[]),
];
