//! Many run into one problem at once: a line under stress.
//!
//! `TASKLEDGER_ROUNDS=x50` makes it 50 million operations: `just line`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use taskledger::line::{AcquireOutcome, Line, Token, Waited};

const TASKS: u64 = 64;

/// Far more than it takes: only to tell slow from never.
const NEVER: Duration = Duration::from_secs(3_600);

fn operations() -> u64 {
    let factor = std::env::var("TASKLEDGER_ROUNDS").ok();
    let factor = factor.and_then(|text| text.strip_prefix('x').and_then(|x| x.parse::<u64>().ok()));
    1_000_000 * factor.unwrap_or(1)
}

#[derive(Default)]
struct Seen {
    done: AtomicU64,
    is_handled: AtomicBool,
    solved: AtomicU64,
    failed: AtomicU64,
    taken_over: AtomicU64,
}

/// Alone, now at once and now after others have had a turn; and it ends in each of the three ways.
async fn handle(token: Token, number: u64, seen: &Seen) {
    assert!(!seen.is_handled.swap(true, Ordering::SeqCst), "two handle it");
    if number % 3 == 0 {
        tokio::task::yield_now().await;
    }
    seen.is_handled.store(false, Ordering::SeqCst);
    match number % 7 {
        0 => drop(token),
        1 => token.fail("it does not go"),
        _ => token.solve(),
    }
}

async fn one(line: Line, name: u64, seen: Arc<Seen>, operations: u64) {
    loop {
        let number = seen.done.fetch_add(1, Ordering::Relaxed);
        if number >= operations {
            return;
        }
        match line.try_acquire_token() {
            AcquireOutcome::Success(token) => handle(token, number, &seen).await,
            // Some try again at once, which is what starved the others of the original.
            AcquireOutcome::Failure(_) if (number + name) % 5 == 0 => {
                tokio::task::yield_now().await
            }
            AcquireOutcome::Failure(wait) => match wait.await {
                Waited::Solved => _ = seen.solved.fetch_add(1, Ordering::Relaxed),
                Waited::Failed(_) => _ = seen.failed.fetch_add(1, Ordering::Relaxed),
                Waited::TakeOver(token) => {
                    seen.taken_over.fetch_add(1, Ordering::Relaxed);
                    handle(token, number, &seen).await;
                }
            },
        }
    }
}

fn stress(workers: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_time()
        .build()
        .unwrap();
    let (line, seen) = (Line::new(), Arc::new(Seen::default()));
    let all = async {
        let mut tasks = tokio::task::JoinSet::new();
        for name in 0..TASKS {
            tasks.spawn(one(line.clone(), name, Arc::clone(&seen), operations()));
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    };
    runtime.block_on(async { tokio::time::timeout(NEVER, all).await.expect("it stalls") });
    for (what, count) in
        [("solved", &seen.solved), ("failed", &seen.failed), ("taken over", &seen.taken_over)]
    {
        assert!(count.load(Ordering::Relaxed) > 0, "{workers} workers: nothing {what}");
    }
    assert!(matches!(line.try_acquire_token(), AcquireOutcome::Success(_)));
}

/// A token's drop once took an asynchronous lock by blocking its thread: with 64 tasks on 2 workers all
/// stood still after a million operations or twenty.
#[test]
fn sixty_four_tasks_on_few_workers_never_stall() {
    for workers in [1, 2, 4] {
        stress(workers);
    }
}
