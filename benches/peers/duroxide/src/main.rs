//! duroxide on SQLite: an orchestration of one activity, as in its quick start, awaited with its client.
//!
//! Its provider sets `synchronous = WAL` on every connection, which is no value that SQLite knows, so
//! that NORMAL is in force: in WAL mode a commit is not synced. `full` sets FULL on each
//! connection of the pool that the provider hands out.

#[path = "../../common.rs"]
mod common;

use common::Args;
use duroxide::providers::sqlite::SqliteProvider;
use duroxide::runtime::registry::ActivityRegistry;
use duroxide::runtime::{Runtime, RuntimeOptions};
use duroxide::{
    ActivityContext, Client, ClientError, OrchestrationContext, OrchestrationRegistry,
    OrchestrationStatus,
};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

const DEFAULT: &str = "SQLite, WAL, synchronous=NORMAL (its pragma synchronous=WAL means that): an acknowledgement waits for a write, not for an fsync";
const FULL: &str = "SQLite, WAL, synchronous=FULL on each connection of its pool: an acknowledgement waits for an fsynced commit of its own";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let url = format!("sqlite:{}?mode=rwc", args.dir.join("data.db").display());
    let store = Arc::new(SqliteProvider::new(&url, None).await?);
    let pool = store.get_pool();
    let mut connections = Vec::new();
    for _ in 0..pool.options().get_max_connections() {
        connections.push(pool.acquire().await?);
    }
    for connection in &mut connections {
        if args.full {
            sqlx::query("PRAGMA synchronous = FULL").execute(&mut **connection).await?;
        }
        let level: i64 =
            sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut **connection).await?;
        assert_eq!(level, if args.full { 2 } else { 1 });
    }
    drop(connections);
    let activities = ActivityRegistry::builder()
        .register("Noop", |_: ActivityContext, _: String| async { Ok(String::new()) })
        .build();
    let orchestrations = OrchestrationRegistry::builder()
        .register("Job", |ctx: OrchestrationContext, input: String| async move {
            ctx.schedule_activity("Noop", input).await
        })
        .build();
    let options = RuntimeOptions {
        // What its guide gives for a local SQLite, and calls the default; that is 100 ms.
        dispatcher_min_poll_interval: Duration::from_millis(10),
        ..RuntimeOptions::default()
    };
    let _runtime =
        Runtime::start_with_options(store.clone(), activities, orchestrations, options).await;
    let client = Client::new(store);
    let words = if args.full { FULL } else { DEFAULT };
    common::measure(("duroxide", "0.1.32"), words, &args, move |_, number| {
        let client = client.clone();
        async move {
            let longer_than_the_limit = Duration::from_secs(600);
            // One that has failed, as some do when the database stays locked, is begun again.
            for attempt in 0.. {
                let instance = format!("job-{number}-{attempt}");
                client.start_orchestration(&instance, "Job", "").await?;
                let status =
                    client.wait_for_orchestration(&instance, longer_than_the_limit).await?;
                if matches!(status, OrchestrationStatus::Completed { .. }) {
                    break;
                }
            }
            Ok::<_, ClientError>(())
        }
    })
    .await
}
