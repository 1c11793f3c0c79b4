//! durare on SQLite: a workflow without steps, started in its own process and awaited by its handle.
//!
//! `SqliteProvider::connect` sets WAL and `synchronous=NORMAL`: a commit is not synced. `full` gives
//! the provider a pool of its user's, the same but for FULL.

#[path = "../../common.rs"]
mod common;

use common::Args;
use durare::{DurableContext, DurableEngine, Result, SqliteProvider, WorkflowOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::sync::Arc;
use std::time::Duration;

const DEFAULT: &str =
    "SQLite, WAL, synchronous=NORMAL: an acknowledgement waits for a write, not for an fsync";
const FULL: &str = "SQLite, WAL, synchronous=FULL on each connection of its pool: an acknowledgement waits for an fsynced commit of its own";

async fn noop(_: DurableContext, _: ()) -> Result<()> {
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let path = args.dir.join("durare.db");
    let provider = if args.full {
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5));
        let pool = SqlitePoolOptions::new().max_connections(5).connect_with(options).await?;
        SqliteProvider::from_pool(pool)
    } else {
        SqliteProvider::connect(&format!("sqlite://{}", path.display())).await?
    };
    let mut builder = DurableEngine::builder(Arc::new(provider));
    builder.register("noop", noop);
    let engine = Arc::new(builder.build().await?);
    let words = if args.full { FULL } else { DEFAULT };
    common::measure(("durare", "0.5.0"), words, &args, move |_, number| {
        let engine = Arc::clone(&engine);
        async move {
            let options = WorkflowOptions::with_id(format!("job-{number}"));
            engine.start::<(), ()>("noop", (), options).await?.await
        }
    })
    .await
}
