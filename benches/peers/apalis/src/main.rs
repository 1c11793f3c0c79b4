//! apalis on SQLite: each caller pushes its job, a worker woken by the database's update hook runs it.
//!
//! `SqliteStorage::setup` sends `PRAGMA synchronous = OFF` through the pool, which reaches the one
//! connection that it has by then; those opened later have SQLite's default, FULL. So in `default` it
//! depends on the connection whether a commit is synced. `full` sets up through a pool of its own,
//! which is closed, and all connections of the other one have FULL.
//!
//! Its `wait_for` asks the database twice a second. Here one task asks for all that wait, with its
//! `check_status`, every millisecond.

#[path = "../../common.rs"]
mod common;

use apalis::prelude::*;
use apalis_sqlite::{Config, SqlitePool, SqliteStorage};
use common::Args;
use futures::StreamExt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

const DEFAULT: &str = "SQLite, WAL, synchronous=OFF on the connection that was there at the set-up, FULL on the up to nine others: it depends on the connection whether an acknowledgement waits for an fsync";
const FULL: &str = "SQLite, WAL, synchronous=FULL on each connection: an acknowledgement waits for an fsynced commit, which a worker's jobs share";

/// Between two looks at what has been done.
const LOOK: Duration = Duration::from_millis(1);

async fn noop(_: usize) -> Result<(), BoxDynError> {
    Ok(())
}

/// By the ids of their tasks.
#[derive(Debug, Default)]
struct Watched {
    callers: Mutex<HashMap<String, oneshot::Sender<()>>>,
    come: Notify,
}

impl Watched {
    fn callers(&self) -> std::sync::MutexGuard<'_, HashMap<String, oneshot::Sender<()>>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn watch(&self, mut storage: SqliteStorage<usize>) -> Result<(), BoxDynError> {
        loop {
            let ids: Vec<TaskId> = self.callers().keys().map(TaskId::from_string).collect();
            if ids.is_empty() {
                self.come.notified().await;
                continue;
            }
            let ended = WaitForCompletion::<()>::check_status(&mut storage, ids).await?;
            for result in &ended {
                if result.result().is_err() {
                    return Err("a job has failed".into());
                }
                if let Some(told) = self.callers().remove(&result.task_id().to_string()) {
                    let _ = told.send(());
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxDynError> {
    let args = Args::parse();
    let url = format!("sqlite://{}?mode=rwc", args.dir.join("apalis.db").display());
    if args.full {
        let first = SqlitePool::connect(&url).await?;
        SqliteStorage::setup(&first).await?;
        first.close().await;
    }
    let (pool, listener) = SqliteStorage::connect_with_callback(&url)?;
    if !args.full {
        SqliteStorage::setup(&pool).await?;
    }
    let config = Config::default().queue("noop").batch_size(args.callers.clamp(10, 1_000));
    // The hook and the half second are its README's.
    let strategy = Strategy::new()
        .stream(listener.ready_chunks(config.batch_size))
        .interval(Duration::from_millis(500));
    let storage = SqliteStorage::<usize>::new(&pool).with_config(config);
    let worker = WorkerBuilder::new("worker")
        .backend(storage.clone().poll_with_strategy(strategy))
        .concurrency(args.callers)
        .build(noop);
    tokio::spawn(async move {
        let ended = worker.run().await;
        eprintln!("the worker has ended: {ended:?}");
        std::process::exit(1);
    });
    let watched = Arc::new(Watched::default());
    let (watch, looking) = (Arc::clone(&watched), storage.clone());
    tokio::spawn(async move {
        if let Err(error) = watch.watch(looking).await {
            eprintln!("the look at what is done: {error}");
            std::process::exit(1);
        }
    });
    let words = if args.full { FULL } else { DEFAULT };
    common::measure(("apalis-sqlite", "1.0.0"), words, &args, move |caller, number| {
        let (watched, mut storage) = (Arc::clone(&watched), storage.clone());
        async move {
            // As the ULID that it has to be: 26 digits.
            let id = TaskId::from_string(format!("{number:026}"));
            let (told, done) = oneshot::channel();
            storage.push_task(TaskBuilder::new(caller).task_id(id.clone()).build()).await?;
            watched.callers().insert(id.to_string(), told);
            watched.come.notify_one();
            done.await?;
            Ok::<_, BoxDynError>(())
        }
    })
    .await
}
