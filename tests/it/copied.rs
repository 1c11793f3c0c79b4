//! What a copy of a working ledger has, and has not.

use crate::support::{Hand, Hooked, Tasks, Then, name, never, ok, until};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use taskledger::dump::Inspection;
use taskledger::{
    BackupError, Base, Cell, Context, Copier, CreateError, EncodedId, Failure, Journal,
    JournalError, Ledger, MemoryJournal, Record, Retention, RunError, TaskDetails, TaskState,
    Visit,
};

async fn opened(path: &Path) -> Tasks {
    Tasks::builder().ballast_bytes(0).open(path).await.unwrap()
}

/// A place for a ledger and its copies.
fn scratch() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    (dir, path)
}

fn everything(path: &Path) -> BTreeMap<Vec<u8>, TaskDetails> {
    let inspection = Inspection::open(path).unwrap();
    assert!(inspection.verify().unwrap().is_sound());
    let all = inspection.tasks().map(Result::unwrap);
    all.map(|(id, details)| (id.as_bytes().to_vec(), details)).collect()
}

/// As the next open of the original would, if its process had died.
#[tokio::test]
async fn what_was_under_way_is_found_as_after_a_crash() {
    let (dir, path) = scratch();
    let copy = dir.path().join("copy");
    let ledger = opened(&path).await;
    ledger.launch_block(name("done"), ok(7)).await.unwrap();
    ledger.launch_block(name("failed"), async { Err::<u32, _>("no") }).await.unwrap_err();
    ledger.launch(name("runs"), never()).await.unwrap();
    ledger.launch_block(name("undone"), ok(8)).await.unwrap();
    ledger.revoke_task(name("undone"), std::future::pending::<Result<(), ()>>()).await.unwrap();
    ledger.set_metadata("tenant", Some(b"north".to_vec())).await.unwrap();
    let cells = |ledger: &Tasks, id: &str| ledger.query_task_state_quick(id);
    ledger.backup(&copy).await.unwrap();
    // The original goes on.
    assert_eq!(cells(&ledger, "runs"), TaskState::Running);
    ledger.launch_block(name("later"), ok(9)).await.unwrap();

    let second = opened(&copy).await;
    assert_eq!(second.recovery().epoch().get(), 2);
    let crashed: Vec<String> = second.recovery().crashed().map(Result::unwrap).collect();
    let undone: Vec<String> = second.recovery().interrupted_revokes().map(Result::unwrap).collect();
    assert_eq!((crashed, undone), (vec![name("runs")], vec![name("undone")]));
    assert_eq!(second.output("done").await.unwrap(), Some(7));
    assert_eq!(second.record("runs").await.unwrap().unwrap().failure, Some(Failure::Crashed));
    assert_eq!(cells(&second, "undone"), TaskState::Succeeded);
    assert_eq!(cells(&second, "failed"), TaskState::Failed);
    assert_eq!(cells(&second, "later"), TaskState::NotFound);
    assert_eq!(second.metadata(), ledger.metadata());
    second.launch_block(name("runs"), ok(1)).await.unwrap();
    second.close().await.unwrap();
    assert_eq!(opened(&copy).await.output("runs").await.unwrap(), Some(1));
    ledger.close_within(Duration::ZERO).await.unwrap();
}

/// Tombstones, fingerprints and effect keys rest on the identity, which the copy keeps.
#[tokio::test]
async fn it_is_the_same_ledger_to_the_world_outside() {
    let (dir, path) = scratch();
    let copy = dir.path().join("copy");
    let ledger = opened(&path).await;
    let key = async |ledger: &Tasks, id: &str| {
        let (told, key) = tokio::sync::oneshot::channel();
        let mut told = Some(told);
        let work = move |cx: Context<String>| {
            told.take().unwrap().send(cx.effect_key().to_string()).unwrap();
            async { Err::<u32, _>("no") }
        };
        ledger.run(name(id), work).await.unwrap_err();
        key.await.unwrap()
    };
    let before = key(&ledger, "again").await;
    ledger.launch_block(name("old"), ok(1)).await.unwrap();
    ledger.prune(&Retention::new().succeeded(Duration::ZERO)).await.unwrap();
    ledger.task(name("paid")).fingerprint(b"10").run(|_| ok(10)).await.unwrap();
    ledger.backup(&copy).await.unwrap();
    ledger.close().await.unwrap();
    let mut copies = vec![copy];
    let looked_at = dir.path().join("looked-at");
    Inspection::open(&path).unwrap().backup(&looked_at).unwrap();
    copies.push(looked_at);
    #[cfg(feature = "json")]
    {
        let imported = dir.path().join("imported");
        let mut export = Vec::new();
        Inspection::open(&path).unwrap().export(&mut export).unwrap();
        taskledger::dump::import(&*export, &imported, taskledger::AcceptLoss::No).unwrap();
        copies.push(imported);
    }
    let identity = |path: &Path| Inspection::open(path).unwrap().ledger();
    for copy in &copies {
        assert_eq!(everything(&path), everything(copy));
        assert_eq!(identity(&path), identity(copy));
    }

    for copy in copies {
        let ledger = opened(&copy).await;
        assert_eq!(ledger.tombstones(), 1);
        assert_eq!(ledger.query_task_state_quick("old"), TaskState::Succeeded);
        assert_eq!(ledger.query_task_state_quick("never"), TaskState::NotFound);
        assert_eq!(key(&ledger, "again").await, before);
        let other = ledger.task(name("paid")).fingerprint(b"11").run(|_| ok(11)).await;
        assert!(matches!(other, Err(RunError::OtherRequest { .. })), "{other:?}");
        let same = ledger.task(name("paid")).fingerprint(b"10").run(|_| ok(11)).await.unwrap();
        assert_eq!(same.value, Some(10));
        ledger.close().await.unwrap();
    }
}

/// Whatever is acknowledged before a backup is called is in it, whoever writes, prunes and folds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_has_all_that_was_acknowledged_before() {
    let (dir, path) = scratch();
    let ledger = Ledger::<u64>::builder().ballast_bytes(0).open(&path).await.unwrap();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let writer = tokio::spawn({
        let (ledger, acknowledged) = (ledger.clone(), Arc::clone(&acknowledged));
        async move {
            for number in 1.. {
                let marked = ledger.mark_succeeded(number).await;
                if marked.is_err() {
                    return number;
                }
                acknowledged.store(number, Ordering::SeqCst);
                if number % 50 == 0 {
                    ledger.prune(&Retention::new().succeeded(Duration::ZERO)).await.ok();
                }
                if number % 70 == 0 {
                    ledger.checkpoint().await.ok();
                }
            }
            unreachable!()
        }
    });
    for round in 0..8 {
        let copy = dir.path().join(format!("copy-{round}"));
        let least = acknowledged.load(Ordering::SeqCst);
        // Two at a time.
        let (one, two) = (ledger.backup(&copy), ledger.backup(copy.with_extension("b")));
        let (one, two) = tokio::join!(one, two);
        one.unwrap();
        two.unwrap();
        let most = acknowledged.load(Ordering::SeqCst) + 1;
        for copy in [&copy, &copy.with_extension("b")] {
            let again = Ledger::<u64>::builder().ballast_bytes(0).open(copy).await.unwrap();
            assert_eq!(again.recovery().records_replayed(), 0);
            let has = |number| again.query_task_state_quick(&number) == TaskState::Succeeded;
            assert!((1..=least).all(has));
            assert!(!has(most + 1));
            again.close().await.unwrap();
        }
    }
    assert!(acknowledged.load(Ordering::SeqCst) > 0);
    ledger.close().await.unwrap();
    writer.await.unwrap();
}

/// At every poll; what is left of one is nothing, or whole.
#[tokio::test]
async fn one_that_is_dropped_leaves_nothing_or_all() {
    let (dir, path) = scratch();
    let ledger = opened(&path).await;
    for number in 0..200 {
        ledger.mark_succeeded(format!("{number}")).await.unwrap();
    }
    let mut copies = Vec::new();
    for polls in 1..12 {
        let copy = dir.path().join(format!("copy-{polls}"));
        let mut backup = Hand::new(ledger.backup(&copy));
        for _ in 0..polls {
            if backup.poll().is_ready() {
                break;
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        drop(backup);
        copies.push(copy);
    }
    ledger.backup(dir.path().join("last")).await.unwrap();
    until(|| copies.iter().all(|copy| !copy.exists() || Inspection::open(copy).is_ok())).await;
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_copied_or_where_is_told() {
    let (dir, path) = scratch();
    let ledger = opened(&path).await;
    ledger.launch_block(name("a"), ok(1)).await.unwrap();
    let before = Inspection::open(&path).unwrap_err().to_string();
    assert!(before.contains("in use"));
    for (to, told) in [(path.clone(), "a ledger"), (dir.path().to_owned(), "\"ledger\"")] {
        match ledger.backup(&to).await {
            Err(BackupError::Create(CreateError::Exists { path, found })) => {
                assert_eq!((path, found.as_str()), (to, told));
            }
            other => panic!("{other:?}"),
        }
    }
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let refused = ledger.backup(&file).await;
    assert!(matches!(refused, Err(BackupError::Create(CreateError::NotADirectory { .. }))));
    let below = ledger.backup(file.join("below")).await;
    assert!(matches!(below, Err(BackupError::Create(CreateError::Io { .. }))), "{below:?}");
    ledger.close().await.unwrap();
    let closed = ledger.backup(dir.path().join("late")).await;
    assert!(matches!(closed, Err(BackupError::Closed)), "{closed:?}");
    assert!(!dir.path().join("late").exists());

    let memory = Tasks::builder().open_journal(MemoryJournal::new()).await.unwrap();
    let refused = memory.backup(dir.path().join("memory")).await;
    assert!(matches!(refused, Err(BackupError::Unsupported)), "{refused:?}");
    assert!(!dir.path().join("memory").exists());
    memory.close().await.unwrap();
}

/// A journal of somebody's own, in which copying panics.
struct Panics(MemoryJournal);

impl Journal for Panics {
    fn replay(&mut self, visit: &mut Visit<'_>) -> Result<Base, JournalError> {
        self.0.replay(visit)
    }

    fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        self.0.append(records)
    }

    fn read(&mut self, id: &EncodedId, cell: Cell) -> Result<TaskDetails, JournalError> {
        self.0.read(id, cell)
    }

    fn copier(&mut self) -> Option<Copier> {
        Some(Arc::new(|path, _| panic!("not to {}", path.display())))
    }

    fn close(&mut self) -> Result<(), JournalError> {
        self.0.close()
    }
}

/// The ledger goes on as it was, whatever becomes of its backups.
#[tokio::test]
async fn a_backup_that_fails_harms_nobody() {
    let (dir, _) = scratch();
    let to = dir.path().join("copy");
    let ledger = Tasks::builder().open_journal(Panics(MemoryJournal::new())).await.unwrap();
    let panicked = ledger.backup(&to).await;
    match panicked {
        Err(BackupError::Create(CreateError::Journal(JournalError::Panicked(what)))) => {
            assert!(what.starts_with("not to "), "{what}");
        }
        other => panic!("{other:?}"),
    }
    ledger.launch_block(name("a"), ok(1)).await.unwrap();
    ledger.close().await.unwrap();

    let journal = Hooked::new(&MemoryJournal::new(), |_| Then::GoOn);
    let fails = Arc::clone(&journal.checkpoints_fail);
    let ledger = Tasks::builder().open_journal(journal).await.unwrap();
    fails.store(true, Ordering::SeqCst);
    let failed = ledger.backup(&to).await;
    assert!(matches!(failed, Err(BackupError::Checkpoint(_))), "{failed:?}");
    ledger.launch_block(name("a"), ok(1)).await.unwrap();
    ledger.close().await.unwrap();

    let journal = Hooked::at_append(&MemoryJournal::new(), 1, Then::Fail);
    let ledger = Tasks::builder().open_journal(journal).await.unwrap();
    ledger.mark_succeeded(name("a")).await.unwrap_err();
    let poisoned = ledger.backup(&to).await;
    assert!(matches!(poisoned, Err(BackupError::Poisoned(_))), "{poisoned:?}");
    assert!(!to.exists());
    ledger.close().await.unwrap_err();
}

/// Nothing of the original changes, not even what was running in it.
#[tokio::test]
async fn one_that_nobody_has_open_is_copied_as_it_is() {
    let (dir, path) = scratch();
    let ledger = opened(&path).await;
    ledger.launch_block(name("a"), ok(1)).await.unwrap();
    ledger.checkpoint().await.unwrap();
    ledger.launch_block(name("b"), ok(2)).await.unwrap();
    ledger.prune(&Retention::new().succeeded(Duration::ZERO)).await.unwrap();
    ledger.launch_block(name("c"), ok(3)).await.unwrap();
    ledger.launch(name("d"), never()).await.unwrap();
    // As after a kill: a copy of the files of a ledger at rest.
    let killed = dir.path().join("killed");
    ledger.backup(&killed).await.unwrap();
    ledger.close_within(Duration::ZERO).await.unwrap();

    for (number, from) in [&path, &killed].into_iter().enumerate() {
        let copy = dir.path().join(format!("copy-{number}"));
        let inspection = Inspection::open(from).unwrap();
        inspection.backup(&copy).unwrap();
        assert_eq!(everything(from), everything(&copy));
        let (stats, copied) = (inspection.stats(), Inspection::open(&copy).unwrap().stats());
        assert_eq!((stats.counts, stats.tombstones), (copied.counts, copied.tombstones));
        assert_eq!((stats.epoch, stats.tombstones), (copied.epoch, 2));
        assert_eq!(stats.metadata, copied.metadata);
        let ledger = opened(&copy).await;
        assert_eq!(ledger.query_task_state_quick("a"), TaskState::Succeeded);
        assert_eq!(ledger.output("c").await.unwrap(), Some(3));
        ledger.close().await.unwrap();
        let again = inspection.backup(&copy);
        assert!(matches!(again, Err(BackupError::Create(CreateError::Exists { .. }))));
    }
}

/// A copy in the directory of a ledger would be taken for part of it, or go with it.
#[tokio::test]
async fn no_copy_is_made_in_the_directory_of_a_ledger() {
    let (dir, path) = scratch();
    let ledger = opened(&path).await;
    std::os::unix::fs::symlink(&path, dir.path().join("link")).unwrap();
    std::fs::create_dir(path.join("deep")).unwrap();
    let inside = [path.join("copy"), path.join("deep/copy"), dir.path().join("link/copy")];
    let within = |error: &CreateError, to: &Path| match error {
        CreateError::Within { path: told, ledger } => {
            assert_eq!(told, to);
            assert_eq!(*ledger, path.canonicalize().unwrap());
        }
        other => panic!("{other:?}"),
    };
    for to in &inside {
        match ledger.backup(to).await {
            Err(BackupError::Create(error)) => within(&error, to),
            other => panic!("{other:?}"),
        }
    }
    ledger.close().await.unwrap();
    let inspection = Inspection::open(&path).unwrap();
    for to in &inside {
        match inspection.backup(to) {
            Err(BackupError::Create(error)) => within(&error, to),
            other => panic!("{other:?}"),
        }
        assert!(!to.exists());
    }
}

#[tokio::test]
async fn a_damaged_one_is_not_copied() {
    let (dir, path) = scratch();
    let ledger = opened(&path).await;
    ledger.launch_block(name("a"), ok(1)).await.unwrap();
    ledger.close().await.unwrap();
    std::fs::remove_file(path.join("witness")).unwrap();
    let copy = dir.path().join("copy");
    let refused = Inspection::open(&path).unwrap().backup(&copy);
    assert!(matches!(refused, Err(BackupError::Create(CreateError::Damaged(_)))), "{refused:?}");
    assert!(!copy.exists());
}
