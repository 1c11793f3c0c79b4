//! effectum: the writer batches what comes to it into one transaction, and answers after the commit.
//!
//! `Queue::new` sets the pragma `journal` (there is none; `journal_mode` was meant) and
//! `synchronous=normal`. So the database keeps SQLite's rollback journal, in which NORMAL syncs the
//! journal and the database before a commit returns; only the deletion of the journal is not. That
//! is as far as effectum goes, and it lets its user set neither, so that `full` is the same.

#[path = "../../common.rs"]
mod common;
#[path = "../../waiting.rs"]
mod waiting;

use common::Args;
use effectum::{Error, Job, JobRunner, Queue, RunningJob, Worker};
use std::sync::Arc;
use waiting::Waiting;

const DURABILITY: &str = "SQLite, rollback journal (its pragma for WAL has no effect), synchronous=NORMAL, not to be set: an acknowledgement waits for the commit of a batch, with fsyncs of the journal and the database, but not of the journal's deletion";

/// The job tells its success itself, to know when that is committed; then its caller.
async fn noop(job: RunningJob, waiting: Arc<Waiting>) -> Result<(), Error> {
    let caller: usize = job.json_payload()?;
    job.complete(()).await?;
    waiting.done(caller);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args = Args::parse();
    let queue = Arc::new(Queue::new(&args.dir.join("effectum.db")).await?);
    let waiting = Arc::new(Waiting::of(args.callers));
    let _worker = Worker::builder(&queue, Arc::clone(&waiting))
        .max_concurrency(u16::try_from(args.callers).unwrap_or(u16::MAX))
        .jobs([JobRunner::builder("noop", noop).build()])
        .build()
        .await?;
    common::measure(("effectum", "0.7.0"), DURABILITY, &args, move |caller, _| {
        let (queue, waiting) = (Arc::clone(&queue), Arc::clone(&waiting));
        async move {
            let done = waiting.expect(caller);
            Job::builder("noop").json_payload(&caller)?.add_to(&queue).await?;
            done.await.map_err(|_| Error::QueueClosed)
        }
    })
    .await
}
