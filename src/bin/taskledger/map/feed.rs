//! From the input to the commands: which ids run, and when.

use super::course::Stop;
use super::input::{self, Line};
use super::progress::one_more;
use super::{End, Shared};
use crate::args::{MapArgs, Only};
use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use taskledger::{ByteId, Queue, QueueError, TaskState};
use tokio::sync::mpsc;

/// Which ids have been in the input: a keyed digest of 96 bits of each, which no two of a hundred million
/// share but with a chance of one in 10^13.
#[derive(Debug, Default)]
pub(super) struct Seen {
    keys: [RandomState; 2],
    ids: HashSet<[u32; 3]>,
}

impl Seen {
    /// Whether it is there for the first time.
    pub(super) fn first(&mut self, id: &[u8]) -> bool {
        let [one, other] = &self.keys;
        let (one, other) = (one.hash_one(id), other.hash_one(id));
        self.ids.insert([one as u32, (one >> 32) as u32, other as u32])
    }
}

pub(super) struct Jobs<'a> {
    args: &'a MapArgs,
    shared: Arc<Shared>,
    /// Of jobs: each of its runners has one at a time, and one more waits for the first that is free.
    queue: Queue<ByteId, (), ()>,
    seen: Seen,
}

impl<'a> Jobs<'a> {
    pub(super) fn new(
        args: &'a MapArgs,
        shared: Arc<Shared>,
        at_a_time: usize,
    ) -> Result<Self, QueueError> {
        let queue = shared.ledger.queue_builder().capacity(NonZero::<usize>::MIN).of_futures();
        queue.start(at_a_time)?;
        Ok(Self { args, shared, queue, seen: Seen::default() })
    }

    /// Waits for all that has begun.
    pub(super) async fn end(self) {
        self.queue.stop().await;
    }

    /// Takes the ids in their order, until there are none or nothing new is to be started.
    pub(super) async fn feed(
        &mut self,
        batches: &mut mpsc::Receiver<io::Result<input::Batch>>,
    ) -> io::Result<()> {
        let mut all = 0;
        loop {
            let batch = tokio::select! {
                batch = batches.recv() => batch,
                () = self.shared.steering.off() => return Ok(()),
            };
            let Some(batch) = batch.transpose()? else { return Ok(()) };
            for line in batch.lines {
                if self.line(line).await.is_none() {
                    return Ok(());
                }
            }
            // Those of its lines are not exactly those that were read.
            all += batch.bytes;
            self.shared.counts.taken.store(all, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    }

    /// `None` when nothing new is to be started.
    async fn line(&mut self, line: Line) -> Option<()> {
        let counts = &self.shared.counts;
        one_more(&counts.lines);
        let id = match line {
            Line::Whole(id) => {
                counts.taken.fetch_add(id.len() as u64 + 1, Ordering::Relaxed);
                id
            }
            Line::TooLong(beginning) => {
                let beginning = ByteId::from(beginning.get(..40).unwrap_or_default().to_vec());
                let told = format!("{beginning}...: this line is longer than an id can be");
                self.shared.printer.say(told).await;
                self.shared.ended(End::Failed);
                return Some(());
            }
        };
        if id.is_empty() {
            one_more(&counts.blank);
            return Some(());
        }
        if !self.seen.first(&id) {
            one_more(&counts.duplicates);
            return Some(());
        }
        let state = self.shared.ledger.query_task_state_quick(id.as_slice());
        if state == TaskState::Succeeded {
            one_more(&counts.skipped);
            return Some(());
        }
        let id = ByteId::from(id);
        if !self.is_wanted(&id, state).await {
            one_more(&counts.left);
            return Some(());
        }
        let bytes = id.as_bytes().len() as u64 + 1;
        counts.begun.fetch_add(bytes, Ordering::Relaxed);
        let shared = Arc::clone(&self.shared);
        let job = async move {
            // It may have waited until nothing new is to be started.
            if shared.steering.is_on() {
                let ending = Ending::begin(&shared, bytes);
                let end = shared.run(id).await;
                ending.with(end);
            }
        };
        tokio::select! {
            enqueued = self.queue.enqueue_future(job) => match enqueued {
                Ok(()) => Some(()),
                // The ledger has stopped recording.
                Err(_) => {
                    self.shared.steering.stop(Stop::Broken);
                    None
                }
            },
            () = self.shared.steering.off() => None,
        }
    }

    async fn is_wanted(&self, id: &ByteId, state: TaskState) -> bool {
        let mut failure = None;
        if state == TaskState::Failed && (self.args.no_retry || !self.args.only.is_empty()) {
            let record = self.shared.ledger.record(id).await.ok().flatten();
            failure = record.and_then(|details| details.failure);
        }
        self.args.wants(state, Only::of(state, failure.as_ref()))
    }
}

/// Counts a job, also if it panics.
struct Ending {
    shared: Arc<Shared>,
    /// Of the input.
    bytes: u64,
    /// `None` unless it has come to one.
    end: Option<End>,
}

impl Ending {
    fn begin(shared: &Arc<Shared>, bytes: u64) -> Self {
        one_more(&shared.counts.running);
        Self { shared: Arc::clone(shared), bytes, end: None }
    }

    fn with(mut self, end: End) {
        self.end = Some(end);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.shared.counts.running.fetch_sub(1, Ordering::Relaxed);
        self.shared.counts.ended.fetch_add(self.bytes, Ordering::Relaxed);
        self.shared.ended(self.end.unwrap_or(End::Broken));
    }
}
