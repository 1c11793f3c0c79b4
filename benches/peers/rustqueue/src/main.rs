//! RustQueue on redb: a push, the pull that hands a job out and its ack are commits, each fsynced.
//!
//! `default` is its quick start. `full` is as durable; where several call at once it has the write
//! coalescing that its guide advises for throughput: pushes share commits, and so do acks, and both
//! wait for that.

#[path = "../../common.rs"]
mod common;
#[path = "../../waiting.rs"]
mod waiting;

use common::Args;
use rustqueue::RustQueue;
use rustqueue::storage::BufferedRedbConfig;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Notify;
use waiting::Waiting;

const DEFAULT: &str =
    "redb, Durability::Immediate: an acknowledgement waits for an fsynced commit of its own";
const COALESCED: &str = "redb, Durability::Immediate, write coalescing (10 ms or 100): an acknowledgement waits for an fsynced commit that others share";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut builder = RustQueue::redb(args.dir.join("jobs.db"))?;
    let coalesced = args.full && args.callers > 1;
    if coalesced {
        builder = builder.with_write_coalescing(BufferedRedbConfig::default());
    }
    let queue = builder.build()?;
    let waiting = Arc::new(Waiting::of(args.callers));
    let pushed = Arc::new(Notify::new());
    // Its managed worker takes one job at a time and sleeps half a second when there is none; this
    // one is woken, and acks as many at a time as there are.
    let worker = (queue.clone(), Arc::clone(&waiting), Arc::clone(&pushed));
    let most = u32::try_from(args.callers)?;
    tokio::spawn(async move {
        let (queue, waiting, pushed) = worker;
        loop {
            let jobs = queue.pull("noop", most).await.expect("a pull");
            if jobs.is_empty() {
                pushed.notified().await;
            }
            for job in jobs {
                let (queue, waiting) = (queue.clone(), Arc::clone(&waiting));
                tokio::spawn(async move {
                    queue.ack(job.id, None).await.expect("an ack");
                    waiting.done(job.data.as_u64().expect("a caller") as usize);
                });
            }
        }
    });
    let words = if coalesced { COALESCED } else { DEFAULT };
    common::measure(("rustqueue", "0.3.0"), words, &args, move |caller, _| {
        let (queue, waiting, pushed) = (queue.clone(), Arc::clone(&waiting), Arc::clone(&pushed));
        async move {
            let done = waiting.expect(caller);
            queue.push("noop", "noop", json!(caller), None).await?;
            pushed.notify_one();
            anyhow::Ok(done.await?)
        }
    })
    .await
}
