//! What a call allocates. A program of its own, since it brings its own allocator.

use allocation_counter::measure;
use std::error::Error;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use taskledger::{AttemptError, LaunchError, Ledger, MemoryJournal, TaskId, TaskState};

/// What comes of a future that need not wait.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// Allocations of a launch, of a launch that is awaited, and of a query, of what has succeeded.
async fn of_repeats<K: TaskId + Clone>(id: K) -> Result<[u64; 3], Box<dyn Error>> {
    let ledger = Ledger::<K>::builder().open_journal(MemoryJournal::new()).await?;
    ledger.mark_succeeded(id.clone()).await?;
    // The ids belong to their caller.
    let (launched, awaited) = (id.clone(), id.clone());
    let launch = measure(|| match at_once(ledger.launch(launched, async { Ok::<_, ()>(()) })) {
        Err(LaunchError::Refused { state: TaskState::Succeeded, .. }) => {}
        other => panic!("{other:?}"),
    });
    let block =
        measure(|| match at_once(ledger.launch_block(awaited, async { Ok::<_, ()>(()) })) {
            Err(AttemptError::Refused { state: TaskState::Succeeded, .. }) => {}
            other => panic!("{other:?}"),
        });
    let query = measure(|| assert_eq!(ledger.query_task_state_quick(&id), TaskState::Succeeded));
    ledger.close().await?;
    Ok([launch, block, query].map(|counted| counted.count_total))
}

#[tokio::test]
async fn a_repeat_allocates_nothing() -> Result<(), Box<dyn Error>> {
    assert_eq!(of_repeats(7_u64).await?, [0; 3]);
    assert_eq!(of_repeats(u128::MAX).await?, [0; 3]);
    assert_eq!(of_repeats("task-000000000000007".to_owned()).await?, [0; 3]);
    assert_eq!(of_repeats("x".repeat(1000)).await?, [0; 3]);
    Ok(())
}

/// The control: a launch that is not one allocates, and that is counted.
#[tokio::test]
async fn what_is_allocated_is_seen() -> Result<(), Box<dyn Error>> {
    let ledger = Ledger::<u64>::builder().open_journal(MemoryJournal::new()).await?;
    let counted = measure(|| {
        let launch = pin!(ledger.launch(7, async { Ok::<_, ()>(()) }));
        assert!(launch.poll(&mut Context::from_waker(Waker::noop())).is_pending());
    });
    assert!(counted.count_total > 0);
    ledger.close().await?;
    Ok(())
}
