//! The disk is full.
//!
//! A small file system of our own is filled to the last byte. Nothing acknowledged is lost by it,
//! and the ledger can be opened although nothing is free, by giving up its ballast; when that is
//! gone as well, it says so.

use crate::lab::{self, skipped};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use taskledger::{Builder, ChangeError, Health, OpenError, TaskState};

/// A file system of 96 MiB, which goes when this is dropped: a log that has filled up has four segments
/// of 8 MiB, and a ballast of 16 MiB is made only where twice as much is free.
struct Small {
    dir: tempfile::TempDir,
}

impl Small {
    fn mount(test: &str) -> Option<Self> {
        if !lab::is_root() {
            skipped(test, "only root may mount a file system");
            return None;
        }
        let dir = lab::on_disk();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=96m", "taskledger-test"])
            .arg(dir.path())
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            skipped(test, "no file system can be mounted here");
            return None;
        }
        Some(Self { dir })
    }

    fn ledger(&self) -> PathBuf {
        self.dir.path().join("ledger")
    }

    /// Takes all that is free.
    fn fill(&self) {
        let mut file =
            File::options().create(true).append(true).open(self.dir.path().join("filler")).unwrap();
        for length in [1 << 20, 4096, 1] {
            while file.write_all(&vec![7; length]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.dir.path().join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.dir.path()).status());
    }
}

fn builder() -> Builder<String, String> {
    lab::builder().ballast_bytes(16 << 20)
}

/// Marks ids until it fails; how many were acknowledged.
async fn mark_until_full(path: &Path) -> u64 {
    let ledger = lab::open(builder(), path).await.unwrap();
    let mut acked = ledger.succeeded_tasks().len() as u64;
    let error = loop {
        match ledger.mark_succeeded(format!("{acked}-{}", "x".repeat(900))).await {
            Ok(()) => acked += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ChangeError::InDoubt(_)), "{error:?}");
    assert!(matches!(ledger.health(), Health::Poisoned(_)), "{:?}", ledger.health());
    let refused = ledger.mark_succeeded("more".to_owned()).await;
    assert!(matches!(refused, Err(ChangeError::Rejected(_))), "{refused:?}");
    assert_eq!(ledger.succeeded_tasks().len() as u64, acked, "queries go on");
    ledger.close().await.unwrap_err();
    acked
}

async fn count(path: &Path) -> Result<u64, OpenError> {
    let ledger = lab::open(builder(), path).await?;
    let count = ledger.succeeded_tasks().len() as u64;
    assert_eq!(ledger.query_task_state_quick("never"), TaskState::NotFound);
    drop(ledger.close().await);
    Ok(count)
}

#[test]
fn it_is_opened_by_its_ballast_and_loses_nothing() {
    let Some(small) = Small::mount("full::it_is_opened_by_its_ballast_and_loses_nothing") else {
        return;
    };
    let path = small.ledger();
    lab::run(async {
        let ledger = lab::open(builder(), &path).await.unwrap();
        ledger.mark_succeeded("first".to_owned()).await.unwrap();
        ledger.close().await.unwrap();
        assert_eq!(path.join("ballast").metadata().unwrap().len(), 16 << 20);
        small.fill();
        // Opening takes the ballast; then what that has freed fills up.
        let acked = mark_until_full(&path).await;
        assert!(acked > 1, "the ballast was of no use");
        assert!(!path.join("ballast").exists());
        small.free();
        // The one that was in doubt may be there.
        let found = count(&path).await.unwrap();
        assert!(found == acked || found == acked + 1, "{found} found, {acked} acknowledged");
        // There is room again: so is the ballast.
        assert!(count(&path).await.is_ok());
        assert_eq!(path.join("ballast").metadata().unwrap().len(), 16 << 20);
        small.fill();
        assert_eq!(count(&path).await.unwrap(), found);
    });
}

/// What was running is reset by the open, which writes: the disk may be found full only then, and the
/// ballast stayed where it was.
#[test]
fn what_ran_is_reset_on_the_space_of_the_ballast() {
    let test = "full::what_ran_is_reset_on_the_space_of_the_ballast";
    let Some(small) = Small::mount(test) else { return };
    let path = small.ledger();
    // Their resets do not fit into the segment of the log that is there.
    const RUNNING: usize = 4_000;
    lab::run(async {
        let elsewhere = lab::on_disk();
        let ledger = lab::open(builder(), &elsewhere.path().join("ledger")).await.unwrap();
        let mut launched = tokio::task::JoinSet::new();
        for number in 0..RUNNING {
            let ledger = ledger.clone();
            launched.spawn(async move {
                let work = std::future::pending::<Result<String, String>>();
                ledger.launch(format!("{number}-{}", "x".repeat(900)), work).await.unwrap();
            });
        }
        while let Some(launched) = launched.join_next().await {
            launched.unwrap();
        }
        // As a kill would leave it, the space of the ballast included.
        let copy = ["-a", "--sparse=never"];
        let from = elsewhere.path().join("ledger");
        let copied = Command::new("cp").args(copy).args([&from, &path]).status().unwrap();
        assert!(copied.success());
        ledger.close_within(std::time::Duration::ZERO).await.unwrap();
        small.fill();
        let filler = small.dir.path().join("filler");
        let length = filler.metadata().unwrap().len();
        File::options().write(true).open(&filler).unwrap().set_len(length - (1 << 20)).unwrap();

        let ledger = lab::open(builder(), &path).await.unwrap();
        assert_eq!(ledger.failed_tasks().len(), RUNNING);
        assert_eq!(ledger.recovery().crashed::<String>().len(), RUNNING);
        assert!(!path.join("ballast").exists());
        drop(ledger.close().await);
    });
}

#[test]
fn without_a_ballast_it_says_that_the_disk_is_full() {
    let Some(small) = Small::mount("full::without_a_ballast_it_says_that_the_disk_is_full") else {
        return;
    };
    let path = small.ledger();
    lab::run(async {
        let ledger = lab::open(lab::builder(), &path).await.unwrap();
        ledger.mark_succeeded("first".to_owned()).await.unwrap();
        ledger.close().await.unwrap();
        small.fill();
        let refused = lab::open(lab::builder(), &path).await;
        let Err(OpenError::Full { available, .. }) = refused else { panic!("{refused:?}") };
        assert!(available < 1 << 20);
        // A new one cannot be made here either.
        let other = small.dir.path().join("other");
        let refused = lab::open(lab::builder(), &other).await;
        assert!(matches!(refused, Err(OpenError::Full { .. })), "{refused:?}");
        small.free();
        assert_eq!(count(&path).await.unwrap(), 1);
        assert_eq!(count(&other).await.unwrap(), 0);
    });
}
