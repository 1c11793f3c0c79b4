//! What is done again and again: launchers that each launch one task after the other.

use crate::Result;
use std::future::Future;
use std::hash::Hash;
use std::ops::Range;
use std::time::Instant;
use taskledger::{Ledger, TaskId};
use tokio::task::JoinSet;

/// What all that is compared takes for an id.
pub(crate) trait Key: TaskId + Eq + Hash + Clone + Sync {}

impl<K: TaskId + Eq + Hash + Clone + Sync> Key for K {}

/// 20 bytes.
pub(crate) fn id(number: u64) -> String {
    format!("task-{number:015}")
}

/// Each launcher in a task of its own, each number once. Returns the seconds that it took.
///
/// # Errors
///
/// The first that a launcher comes to.
pub(crate) async fn closed_loop<F>(
    launchers: usize,
    numbers: Range<u64>,
    each: impl Fn(u64) -> F + Clone + Send + 'static,
) -> Result<f64>
where
    F: Future<Output = std::result::Result<(), String>> + Send,
{
    let began = Instant::now();
    let mut set = JoinSet::new();
    for launcher in 0..launchers as u64 {
        let (mut numbers, each) = (numbers.clone(), each.clone());
        set.spawn(async move {
            numbers.start += launcher;
            for number in numbers.step_by(launchers) {
                each(number).await?;
            }
            Ok::<_, String>(())
        });
    }
    while let Some(done) = set.join_next().await {
        done??;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// A task that does nothing, recorded from its launch to its success.
pub(crate) async fn no_op<K: TaskId>(ledger: &Ledger<K>, id: K) -> std::result::Result<(), String> {
    let done = ledger.launch_block(id, async { Ok::<_, ()>(()) });
    done.await.map_err(|error| error.to_string())
}

/// Lets tasks of these numbers succeed.
pub(crate) async fn fill<K: TaskId>(
    ledger: &Ledger<K>,
    launchers: usize,
    numbers: Range<u64>,
    id: impl Fn(u64) -> K + Clone + Send + Sync + 'static,
) -> Result<f64> {
    let ledger = ledger.clone();
    let each = move |number| {
        let (ledger, id) = (ledger.clone(), id(number));
        async move { no_op(&ledger, id).await }
    };
    closed_loop(launchers, numbers, each).await
}

/// Tasks for about a second.
pub(crate) const fn tasks(launchers: usize) -> u64 {
    match launchers {
        0..4 => 2_000,
        4..16 => 8_000,
        16..512 => 60_000,
        _ => 300_000,
    }
}

/// So many, in an order that no cache foresees, each below `ids`.
pub(crate) fn scattered(count: u64, ids: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % ids)
}
