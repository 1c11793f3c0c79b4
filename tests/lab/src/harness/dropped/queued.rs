//! Queues that are dropped while they are made, filled, and stopped.

use super::{Calling, DEEDS, Tasks, attempt, never};
use crate::Rng;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use taskledger::{Queue, TaskState};
use tokio::runtime::Runtime;

/// A place in [`DEEDS`], and how often it yields.
type Operation = (usize, u64);

type Operations = Queue<String, u32, Operation>;

/// The ids of operations. They are none of the others', which are expected to be free.
const QUEUED: [&str; 3] = ["q", "r", "s"];

/// The queue of a mix, if there is one.
#[derive(Clone, Default)]
pub(super) struct Slot {
    queue: Arc<Mutex<Option<Operations>>>,
    made: Arc<AtomicU64>,
}

impl Slot {
    /// How many queues were made.
    pub(super) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    fn take(&self) -> Option<Operations> {
        self.queue.lock().unwrap().take()
    }

    /// The queue, or a new one, with a runner as often as not.
    async fn queue(&self, ledger: &Tasks, runs: bool) -> Option<Operations> {
        let queue = self.queue.lock().unwrap().clone();
        if let Some(queue) = queue {
            return Some(queue);
        }
        let builder = ledger.queue_builder().capacity(NonZero::new(2).unwrap());
        let perform = |(deed, yields): Operation, _| attempt(DEEDS[deed], yields);
        let queue = builder.open(perform).await.ok()?;
        self.made.fetch_add(1, Ordering::Relaxed);
        if runs {
            drop(queue.start(1));
        }
        *self.queue.lock().unwrap() = Some(queue.clone());
        Some(queue)
    }

    /// The call of this name, if it is one of a queue.
    pub(super) fn call(
        &self,
        name: &'static str,
        ledger: &Tasks,
        rng: &mut Rng,
    ) -> Option<Calling> {
        let (slot, ledger) = (self.clone(), ledger.clone());
        let id = (*rng.pick(&QUEUED)).to_owned();
        let deed = usize::try_from(rng.below(DEEDS.len() as u64)).unwrap();
        let (operation, runs) = ((deed, rng.below(8)), rng.coin());
        Some(match name {
            "queue" => Box::pin(async move {
                // Dropping the last handle stops it.
                drop(slot.take());
                drop(slot.queue(&ledger, runs).await);
            }),
            "stop" | "stop_now" => Box::pin(async move {
                let queue = match slot.take() {
                    Some(queue) => queue,
                    None => match slot.queue(&ledger, runs).await {
                        Some(queue) => queue,
                        None => return,
                    },
                };
                if name == "stop" {
                    queue.stop().await
                } else {
                    queue.stop_now().await
                };
            }),
            "enqueue" | "try_enqueue" | "requeue" | "enqueue_future" | "wait_idle" => {
                Box::pin(async move {
                    let Some(queue) = slot.queue(&ledger, runs).await else { return };
                    match name {
                        "enqueue" => drop(queue.enqueue(id, operation).await),
                        "try_enqueue" => drop(queue.try_enqueue(id, operation).await),
                        "requeue" => drop(queue.requeue(&id).await),
                        "wait_idle" => drop(queue.wait_idle().await),
                        _ => {
                            let future = attempt(DEEDS[operation.0], operation.1);
                            drop(queue.enqueue_future(async { drop(future.await) }).await);
                        }
                    }
                })
            }
            _ => return None,
        })
    }

    /// Without its runtime, nothing of it is being performed for ever, and the next queue performs all that
    /// is left.
    pub(super) fn goes_on(&self, runtime: &Runtime, ledger: &Tasks) -> Result<(), String> {
        drop(self.take());
        let states = || QUEUED.map(|id| ledger.query_task_state_quick(id));
        let since = Instant::now();
        while states().contains(&TaskState::Running) {
            if since.elapsed() > never() {
                return Err(format!("without a runtime operations are {:?} for ever", states()));
            }
            std::thread::yield_now();
        }
        runtime.block_on(async {
            let performs = |_: Operation, _| async { Ok::<_, String>(7) };
            // Its runners, and calls that were dropped, may take a moment to be gone.
            let queue = loop {
                match ledger.queue(performs).await {
                    Ok(queue) => break queue,
                    Err(error) if since.elapsed() > never() => {
                        return Err(format!("no other queue can be made: {error}"));
                    }
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            queue.start(2).map_err(|error| error.to_string())?;
            let left = tokio::time::timeout(never(), queue.stop()).await;
            let left = left.map_err(|_| format!("the queue never stops: {:?}", states()))?;
            if left.operations > 0 || states().contains(&TaskState::Queued) {
                return Err(format!("stopped, it leaves {left:?}: {:?}", states()));
            }
            Ok(())
        })
    }
}
