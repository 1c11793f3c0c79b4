//! Queues that end while something is under way: with the scope that they are within, with their ledger, or
//! with a call that has been dropped.

use crate::support::{Gate, Hand, Hooked, Tasks, fresh, name, open, soon, until};
use std::num::NonZero;
use std::sync::atomic::Ordering;
use std::time::Duration;
use taskledger::{Context, EnqueueError, MemoryJournal, Queue, QueueError, Rejection, TaskState};

type Numbers = Queue<String, u32, u32>;

async fn perform(number: u32, _: Context<String>) -> Result<u32, String> {
    Ok(number)
}

/// There is room for one.
async fn small(ledger: &Tasks) -> Numbers {
    let one = NonZero::<usize>::MIN;
    ledger.queue_builder().capacity(one).open(perform).await.unwrap()
}

/// The places of all runners but the first were never given back, and a stop waited for ever.
#[tokio::test]
async fn no_runner_is_left_of_those_that_an_ended_scope_turns_away() {
    let (ledger, _) = fresh().await;
    let root = ledger.scope();
    let queue = ledger.queue_builder().within(&root).open(perform).await.unwrap();
    root.cancel("enough");
    let refused = queue.start(3);
    assert!(matches!(refused, Err(QueueError::Stopped)), "{refused:?}");
    assert_eq!(queue.runners(), 0);
    soon(queue.stop()).await;
}

/// Nobody told who waited for room, as no runner was there to do so.
#[tokio::test]
async fn who_waits_for_room_is_told_that_the_scope_has_ended() {
    let (ledger, _) = fresh().await;
    let root = ledger.scope();
    let one = NonZero::<usize>::MIN;
    let builder = ledger.queue_builder().capacity(one).within(&root);
    let queue: Numbers = builder.open(perform).await.unwrap();
    queue.enqueue(name("a"), 1).await.unwrap();
    let mut waits = Hand::new(queue.enqueue(name("b"), 2));
    assert!(waits.poll().is_pending());
    root.cancel("enough");
    let told = soon(waits.finish()).await;
    assert!(matches!(told, Err(EnqueueError::Stopped(2))), "{told:?}");
}

/// It was said to be full, which whoever heard of that could only have waited for.
#[tokio::test]
async fn a_full_queue_of_a_closed_ledger_says_that_it_is_closed() {
    let (ledger, _) = fresh().await;
    let queue = small(&ledger).await;
    queue.enqueue(name("a"), 1).await.unwrap();
    ledger.close().await.unwrap();
    for told in [queue.try_enqueue(name("b"), 2).await, soon(queue.enqueue(name("b"), 2)).await] {
        let closed =
            matches!(told, Err(EnqueueError::Rejected { reason: Rejection::Closed, operation: 2 }));
        assert!(closed, "{told:?}");
    }
    let told = queue.try_enqueue_future(async {});
    assert!(matches!(told, Err(EnqueueError::Rejected { .. })));
    // Also where there is room, and no runner would perform it.
    let futures = ledger.queue_of_futures();
    let told = futures.enqueue_future(async {}).await;
    assert!(matches!(told, Err(EnqueueError::Rejected { .. })));
    let told = futures.start(1);
    assert!(matches!(told, Err(QueueError::Rejected(Rejection::Closed))), "{told:?}");
}

/// It waited for room first, which somebody else had to make.
#[tokio::test]
async fn what_is_queued_already_is_refused_by_a_full_queue_as_well() {
    let (ledger, _) = fresh().await;
    let queue = small(&ledger).await;
    queue.enqueue(name("a"), 1).await.unwrap();
    let told = soon(queue.enqueue(name("a"), 2)).await;
    let refused =
        matches!(told, Err(EnqueueError::Refused { state: TaskState::Queued, operation: 2 }));
    assert!(refused, "{told:?}");
}

/// What was under way to the log counted no more when nobody waited for it: a stop that said that nothing was
/// left was followed by an operation in the queue, and there was room for more than there should be.
#[tokio::test]
async fn who_is_dropped_while_enqueuing_keeps_the_place_until_it_is_known() {
    for dropped in [true, false] {
        let (journal, gate, armed) = Hooked::gated(&MemoryJournal::new());
        let ledger = open(journal).await;
        let queue = small(&ledger).await;
        armed.store(true, Ordering::SeqCst);
        let mut comes = Hand::new(queue.enqueue(name("a"), 1));
        // It takes some turns until it has submitted anything.
        while gate.arrived() == 0 {
            assert!(comes.poll().is_pending());
            tokio::task::yield_now().await;
        }
        let comes = (!dropped).then_some(comes);
        let full = queue.try_enqueue(name("b"), 2).await;
        assert!(matches!(full, Err(EnqueueError::Full(2))), "{full:?}");
        assert!(!soon(queue.wait_idle()).await, "somebody may have to perform it");
        let mut stops = Hand::new(queue.stop());
        assert!(stops.poll().is_pending(), "what comes of it is not known");
        gate.open();
        if let Some(comes) = comes {
            soon(comes.finish()).await.unwrap();
        }
        let left = soon(stops.finish()).await;
        assert_eq!(left.operations, 1);
        assert_eq!(ledger.query_task_state_quick("a"), TaskState::Queued);
    }
}

/// All that there was was turned away then, stayed in the queue, and was waited for for ever.
#[test]
fn runners_with_a_timeout_are_not_started_without_a_timer() {
    let with = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let without = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let queue = with.block_on(async {
        let (ledger, _) = fresh().await;
        let builder = ledger.queue_builder().timeout(Duration::from_secs(9));
        let queue: Numbers = builder.open(perform).await.unwrap();
        queue.enqueue(name("a"), 1).await.unwrap();
        queue
    });
    without.block_on(async {
        let refused = queue.start(1);
        let told = matches!(refused, Err(QueueError::Rejected(Rejection::NoTimer)));
        assert!(told, "{refused:?}");
        assert_eq!(queue.runners(), 0);
    });
    with.block_on(async {
        queue.start(1).unwrap();
        assert!(soon(queue.wait_idle()).await);
    });
}

/// A runner ends with its scope, at once; what it performed may take its time. A stop that came back before
/// that let another queue perform something beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_what_is_performed_though_its_runner_is_gone() {
    let (ledger, _) = fresh().await;
    let root = ledger.scope();
    let gate = Gate::default();
    let passes = gate.clone();
    let slow = move |number: u32, _: Context<String>| {
        let passes = passes.clone();
        async move {
            passes.pass();
            Ok::<_, String>(number)
        }
    };
    let queue = ledger.queue_builder().within(&root).open(slow).await.unwrap();
    queue.enqueue(name("a"), 1).await.unwrap();
    queue.start(1).unwrap();
    gate.somebody_waits().await;
    root.cancel("enough");
    until(|| queue.runners() == 0).await;
    let mut stops = Hand::new(queue.stop_now());
    let waits = stops.poll().is_pending();
    let performing = queue.performing();
    let next = ledger.queue(perform).await;
    // Before anything is asserted: a worker is at the gate, and a runtime waits for its workers.
    gate.open();
    assert!(waits && performing == 1, "it is still performed");
    assert!(matches!(next, Err(QueueError::InUse)), "{next:?}");
    soon(stops.finish()).await;
    ledger.queue(perform).await.unwrap();
}

/// What ran within it hung on to whatever attempt of this ledger had the same number: that one's success was
/// never recorded.
#[tokio::test]
async fn a_scope_of_another_ledger_is_refused() {
    let ((ledger, _), (other, _)) = (fresh().await, fresh().await);
    let root = other.scope();
    let refused = ledger.queue_builder().within(&root).open(perform).await;
    assert!(matches!(refused, Err(QueueError::OtherLedger)), "{refused:?}");
    ledger.queue(perform).await.unwrap();
}
