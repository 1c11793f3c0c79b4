//! Operations fail, panic, and are cut off; nobody performs them, or nobody waits for them. Each fault of
//! the queue that this replaces has its test.

use crate::support::{Call, Gate, Hand, Hooked, Tasks, Then, name, ok, open, soon, until};
use std::future::Future;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::time::Duration;
use taskledger::{
    Context, EnqueueError, Enqueued, Failure, MemoryJournal, OnCrash, Queue, QueueError, Retention,
    Scope, TaskState,
};

type Performed = Arc<Mutex<Vec<String>>>;

/// A queue whose operations are words: some do what they say.
async fn words(ledger: &Tasks, performed: &Performed) -> Queue<String, u32, String> {
    let performed = Arc::clone(performed);
    ledger.queue(perform(performed)).await.unwrap()
}

type Words = std::pin::Pin<Box<dyn Future<Output = Result<u32, String>> + Send>>;

fn perform(performed: Performed) -> impl Fn(String, Context<String>) -> Words {
    move |word, context| {
        let performed = Arc::clone(&performed);
        Box::pin(async move {
            performed.lock().unwrap().push(word.clone());
            match word.as_str() {
                "panic" => panic!("as it was told"),
                "fail" => Err("as it was told".to_owned()),
                "never" => std::future::pending().await,
                _ => Ok(context.attempt().get()),
            }
        })
    }
}

/// There one that panicked killed its runner without a word, and three later ones never ran.
#[tokio::test]
async fn an_operation_that_panics_or_fails_costs_no_runner() {
    let ledger = open(MemoryJournal::new()).await;
    let performed = Performed::default();
    let queue = words(&ledger, &performed).await;
    for (id, word) in [("a", "panic"), ("b", "fail"), ("c", "one"), ("d", "panic"), ("e", "two")] {
        assert_eq!(queue.enqueue(name(id), name(word)).await.unwrap(), Enqueued::Queued);
    }
    queue.enqueue_future(async { panic!("a future") }).await.unwrap();
    queue.start(1).unwrap();
    let left = soon(queue.stop()).await;
    assert_eq!((left.operations, left.futures), (0, 0));
    assert_eq!(*performed.lock().unwrap(), ["panic", "fail", "one", "panic", "two"]);
    let failure = |id: &'static str| {
        let ledger = ledger.clone();
        async move { ledger.record(id).await.unwrap().unwrap().failure }
    };
    assert_eq!(failure("a").await, Some(Failure::Panicked("as it was told".into())));
    assert_eq!(failure("b").await, Some(Failure::Error("\"as it was told\"".into())));
    assert_eq!(ledger.query_task_state_quick("e"), TaskState::Succeeded);
}

/// There `stop` returned at once, with nothing done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_until_all_is_done_and_the_runners_are_gone() {
    let ledger = open(MemoryJournal::new()).await;
    let done = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&done);
    let perform = move |number: u64, _| {
        let counts = Arc::clone(&counts);
        async move {
            for _ in 0..number % 7 {
                tokio::task::yield_now().await;
            }
            counts.fetch_add(1, Ordering::SeqCst);
            Ok::<_, String>(1)
        }
    };
    let queue = ledger.queue(perform).await.unwrap();
    // Enqueued before the start, and from another thread meanwhile: it is shared.
    for number in 0..40_u64 {
        queue.enqueue(format!("early {number}"), number).await.unwrap();
    }
    assert_eq!((queue.len(), queue.running(), queue.idle()), (40, false, false));
    queue.start(2).unwrap();
    queue.start(1).unwrap();
    assert_eq!((queue.runners(), queue.running()), (3, true));
    let other = queue.clone();
    tokio::spawn(async move {
        for number in 0..40_u64 {
            other.enqueue(format!("late {number}"), number).await.unwrap();
        }
    })
    .await
    .unwrap();
    soon(queue.stop()).await;
    assert_eq!(done.load(Ordering::SeqCst), 80);
    assert_eq!((queue.len(), queue.runners(), queue.performing()), (0, 0, 0));
    assert!(queue.idle() && !queue.running());
    // There such a one was lost; here it comes back.
    let late = queue.enqueue(name("too late"), 7).await.unwrap_err();
    assert!(matches!(late, EnqueueError::Stopped(7)), "{late}");
    assert!(matches!(queue.start(1), Err(QueueError::Stopped)));
    assert_eq!(ledger.query_task_state_quick("too late"), TaskState::NotFound);
}

/// There a queue without a runner was idle, and stopping it lost what was queued.
#[tokio::test]
async fn a_queue_without_a_runner_is_not_idle_and_loses_nothing() {
    let journal = MemoryJournal::new();
    let ledger = open(journal.clone()).await;
    let performed = Performed::default();
    let queue = words(&ledger, &performed).await;
    assert!(queue.idle() && !queue.running());
    for id in ["a", "b", "c"] {
        queue.enqueue(name(id), format!("of {id}")).await.unwrap();
    }
    queue.enqueue_future(async {}).await.unwrap();
    assert!(!queue.idle() && !queue.running() && queue.len() == 4);
    queue.start(0).unwrap();
    assert!(!queue.idle() && !queue.running());
    let left = soon(queue.stop()).await;
    assert_eq!((left.operations, left.futures), (3, 1));
    drop(queue);
    ledger.close().await.unwrap();
    // After a restart they are there, in their order.
    let ledger = open(journal).await;
    let queue = words(&ledger, &performed).await;
    assert_eq!(queue.len(), 3);
    queue.start(1).unwrap();
    soon(queue.stop()).await;
    assert_eq!(*performed.lock().unwrap(), ["of a", "of b", "of c"]);
}

/// What was being performed when the process died is failed as crashed, and comes back by policy, with the
/// effect key that it had.
#[tokio::test]
async fn a_crash_puts_back_what_was_being_performed() {
    let journal = MemoryJournal::new();
    let ledger = open(journal.clone()).await;
    let keys = Arc::new(Mutex::new(Vec::new()));
    let told = |keys: &Arc<Mutex<Vec<String>>>, ends: bool| {
        let keys = Arc::clone(keys);
        move |word: String, context: Context<String>| {
            let keys = Arc::clone(&keys);
            async move {
                keys.lock().unwrap().push(format!("{word} {}", context.effect_key()));
                if word == "cut" && !ends {
                    std::future::pending::<()>().await;
                }
                Ok::<_, String>(context.attempt().get())
            }
        }
    };
    let queue = ledger.queue(told(&keys, false)).await.unwrap();
    for id in ["cut", "waits", "waits too"] {
        queue.enqueue(name(id), name(id)).await.unwrap();
    }
    queue.start(1).unwrap();
    until(|| keys.lock().unwrap().len() == 1).await;
    let left = journal.fork();
    ledger.close_within(Duration::ZERO).await.unwrap();
    for policy in [OnCrash::Hold, OnCrash::Run] {
        let ledger = open(left.fork()).await;
        let state = |id: &str| ledger.query_task_state_quick(id);
        assert_eq!((state("cut"), state("waits")), (TaskState::Failed, TaskState::Queued));
        let again = Arc::new(Mutex::new(Vec::new()));
        let queue = ledger.queue_builder().on_crash(policy).open(told(&again, true)).await.unwrap();
        queue.start(1).unwrap();
        soon(queue.stop()).await;
        let first = keys.lock().unwrap()[0].clone();
        let again = again.lock().unwrap().clone();
        match policy {
            OnCrash::Run => {
                assert_eq!(again.len(), 3, "{again:?}");
                assert_eq!(again[2], first, "behind those that waited, with its key");
                assert_eq!(ledger.output("cut").await.unwrap(), Some(2));
            }
            _ => {
                assert_eq!(again.len(), 2, "{again:?}");
                assert_eq!(ledger.query_task_state_quick("cut"), TaskState::Failed);
            }
        }
    }
    // One that was tried too often is given up.
    let ledger = open(left.fork()).await;
    let once = NonZero::<u32>::MIN;
    let queue = ledger.queue_builder().max_attempts(once).open(told(&keys, true)).await.unwrap();
    assert_eq!(queue.len(), 2);
    let failure = ledger.record("cut").await.unwrap().unwrap().failure;
    assert!(matches!(failure, Some(Failure::GaveUp { attempts: 1, .. })), "{failure:?}");
    // Somebody has found out, and wants it performed after all.
    queue.requeue(&name("cut")).await.unwrap();
    assert_eq!(queue.len(), 3);
}

/// Only what the very open of the queue's process had found crashed was put back: a process that opened the
/// ledger in between, without a queue or dying before it had one, left it failed for ever.
#[tokio::test]
async fn what_crashed_is_put_back_whoever_has_opened_the_ledger_since() {
    let journal = MemoryJournal::new();
    let ledger = open(journal.clone()).await;
    let never = |_: u32, _| std::future::pending::<Result<u32, String>>();
    let queue = ledger.queue(never).await.unwrap();
    // More failures than are looked at one by one, beside those that crash.
    let failed = (0..1_100).map(|n| (format!("fails {n}"), async { Err::<u32, _>("no") }));
    assert!(ledger.launch_all(failed).await.iter().all(Result::is_ok));
    for n in 0..3 {
        queue.enqueue(format!("cut {n}"), n).await.unwrap();
    }
    queue.start(3).unwrap();
    until(|| queue.performing() == 3 && ledger.running_tasks().len() == 3).await;
    let left = journal.fork();
    ledger.close_within(Duration::ZERO).await.unwrap();

    let between = open(left.clone()).await;
    assert_eq!(between.recovery().crashed::<String>().len(), 3);
    between.checkpoint().await.unwrap();
    between.close().await.unwrap();
    let ledger = open(left).await;
    assert_eq!(ledger.recovery().crashed::<String>().len(), 0);
    let performed = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&performed);
    let performs = move |n: u32, _| {
        told.lock().unwrap().push(n);
        ok(n)
    };
    let queue = ledger.queue(performs).await.unwrap();
    queue.start(1).unwrap();
    soon(queue.stop()).await;
    assert_eq!(*performed.lock().unwrap(), [0, 1, 2]);
}

#[tokio::test]
async fn what_has_succeeded_is_skipped_and_nobody_else_starts_what_is_queued() {
    let ledger = open(MemoryJournal::new()).await;
    let performed = Performed::default();
    let queue = words(&ledger, &performed).await;
    ledger.mark_succeeded(name("done")).await.unwrap();
    let again = queue.enqueue(name("done"), name("again")).await.unwrap();
    assert_eq!(again, Enqueued::AlreadySucceeded);
    let all = Retention::new().succeeded(Duration::ZERO);
    assert_eq!(ledger.prune(&all).await.unwrap().succeeded, 1);
    let again = queue.enqueue(name("done"), name("again")).await.unwrap();
    assert_eq!(again, Enqueued::AlreadySucceeded, "a tombstone counts");
    queue.enqueue(name("a"), name("first")).await.unwrap();
    let twice = queue.enqueue(name("a"), name("second")).await.unwrap_err();
    assert!(matches!(twice, EnqueueError::Refused { state: TaskState::Queued, .. }), "{twice}");
    assert_eq!(twice.into_inner(), "second");
    let launched = ledger.launch(name("a"), async { Ok::<_, String>(1) }).await;
    assert!(launched.is_err(), "only its runner starts it");
    assert!(ledger.mark_succeeded(name("a")).await.is_err());
    // Somebody takes one out of the queue.
    queue.enqueue(name("b"), name("forgotten")).await.unwrap();
    ledger.forget("b").await.unwrap();
    queue.enqueue(name("c"), name("third")).await.unwrap();
    assert!(matches!(words_again(&ledger).await, Err(QueueError::InUse)), "one at a time");
    queue.start(1).unwrap();
    soon(queue.stop()).await;
    assert_eq!(*performed.lock().unwrap(), ["first", "third"]);
    // It has stopped, though its handle is there.
    words_again(&ledger).await.unwrap();
}

async fn words_again(ledger: &Tasks) -> Result<Queue<String, u32, String>, QueueError> {
    ledger.queue(perform(Performed::default())).await
}

/// Forgotten and enqueued anew between the read of its payload and its start: it is performed once, and with the
/// new one.
#[tokio::test]
async fn what_is_enqueued_anew_is_not_performed_with_the_old_payload() {
    let journal = MemoryJournal::new();
    let gate = Gate::default();
    let waits = gate.clone();
    let hooked = Hooked::new(&journal, move |call| match call {
        Call::Read => Then::Wait(waits.clone()),
        _ => Then::GoOn,
    });
    let ledger = Tasks::builder().open_journal(hooked).await.unwrap();
    let performed = Performed::default();
    let queue = words(&ledger, &performed).await;
    queue.enqueue(name("a"), name("old")).await.unwrap();
    queue.start(1).unwrap();
    gate.somebody_waits().await;
    // The runner is on this thread, and hears of what was read only when this one waits.
    let comes_to = |state| {
        let since = std::time::Instant::now();
        while ledger.query_task_state_quick("a") != state {
            assert!(since.elapsed() < Duration::from_secs(60), "it does not come to {state}");
            std::thread::yield_now();
        }
    };
    let mut forget = Hand::new(ledger.forget("a"));
    assert!(forget.poll().is_pending());
    gate.open();
    comes_to(TaskState::NotFound);
    let mut again = Hand::new(queue.enqueue(name("a"), name("new")));
    // The writer may be that quick.
    let at_once = again.poll();
    comes_to(TaskState::Queued);
    forget.finish().await.unwrap();
    let enqueued = match at_once {
        Poll::Ready(enqueued) => enqueued,
        Poll::Pending => again.finish().await,
    };
    assert_eq!(enqueued.unwrap(), Enqueued::Queued);
    soon(queue.stop()).await;
    assert_eq!(*performed.lock().unwrap(), ["new"]);
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::Succeeded);
}

/// A failed operation whose id is enqueued anew keeps its life: services outside know it by its key.
#[tokio::test]
async fn a_failed_operation_is_enqueued_again_in_the_same_life() {
    let ledger = open(MemoryJournal::new()).await;
    let keys = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&keys);
    let perform = move |fails: bool, context: Context<String>| {
        told.lock().unwrap().push(context.effect_key().to_string());
        async move { if fails { Err("no") } else { Ok(context.attempt().get()) } }
    };
    let queue = ledger.queue(perform).await.unwrap();
    queue.start(1).unwrap();
    queue.enqueue(name("a"), true).await.unwrap();
    assert_eq!(soon(ledger.wait("a")).await.unwrap(), TaskState::Failed);
    let payload = ledger.record("a").await.unwrap().unwrap().payload;
    assert_eq!(payload, Some(vec![0xc3]), "what has failed can be looked at");
    queue.requeue(&name("a")).await.unwrap();
    assert_eq!(soon(ledger.wait("a")).await.unwrap(), TaskState::Failed);
    queue.enqueue(name("a"), false).await.unwrap();
    assert_eq!(soon(ledger.wait("a")).await.unwrap(), TaskState::Succeeded);
    assert_eq!(ledger.output("a").await.unwrap(), Some(3), "the third attempt");
    let keys = keys.lock().unwrap().clone();
    assert!(keys.len() == 3 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert!(matches!(queue.requeue(&name("a")).await, Err(QueueError::Refused { .. })));
}

/// There the backlog was not bounded.
#[tokio::test]
async fn a_full_queue_holds_back_who_enqueues_and_serves_them_in_order() {
    let ledger = open(MemoryJournal::new()).await;
    let performed = Performed::default();
    let two = NonZero::new(2).unwrap();
    let queue = ledger.queue_builder().capacity(two).open(perform(Arc::clone(&performed))).await;
    let queue = queue.unwrap();
    for id in ["a", "b"] {
        queue.try_enqueue(name(id), name(id)).await.unwrap();
    }
    let full = queue.try_enqueue(name("x"), name("x")).await.unwrap_err();
    assert!(matches!(full, EnqueueError::Full(_)), "{full}");
    assert_eq!(full.into_inner(), "x");
    assert!(matches!(queue.try_enqueue_future(async {}), Err(EnqueueError::Full(_))));
    let mut waiting = Vec::new();
    for id in ["c", "d", "e"] {
        let queue = queue.clone();
        waiting.push(tokio::spawn(async move { queue.enqueue(name(id), name(id)).await.unwrap() }));
        tokio::task::yield_now().await;
    }
    // Who gives up leaves nothing behind.
    let gives_up =
        tokio::time::timeout(Duration::from_millis(10), queue.enqueue(name("y"), name("y")));
    assert!(gives_up.await.is_err());
    assert_eq!(queue.len(), 2);
    queue.start(1).unwrap();
    for waiting in waiting {
        soon(waiting).await.unwrap();
    }
    soon(queue.stop()).await;
    assert_eq!(*performed.lock().unwrap(), ["a", "b", "c", "d", "e"]);
    assert_eq!(ledger.query_task_state_quick("y"), TaskState::NotFound);
}

/// Futures take their turns among the operations.
#[tokio::test]
async fn futures_and_operations_are_performed_in_one_order() {
    let ledger = open(MemoryJournal::new()).await;
    let performed = Performed::default();
    let queue = words(&ledger, &performed).await;
    for number in 0..6 {
        if number % 2 == 0 {
            queue.enqueue(number.to_string(), number.to_string()).await.unwrap();
        } else {
            let performed = Arc::clone(&performed);
            let future = async move { performed.lock().unwrap().push(number.to_string()) };
            queue.enqueue_future(future).await.unwrap();
        }
    }
    queue.start(1).unwrap();
    soon(queue.stop()).await;
    assert_eq!(*performed.lock().unwrap(), ["0", "1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn a_stop_now_waits_for_what_is_performed_alone() {
    let ledger = open(MemoryJournal::new()).await;
    let gate = Gate::default();
    let (waits, begun) = (gate.clone(), Arc::new(AtomicUsize::new(0)));
    let begins = Arc::clone(&begun);
    let perform = move |(), _| {
        let (gate, begins) = (waits.clone(), Arc::clone(&begins));
        async move {
            begins.fetch_add(1, Ordering::SeqCst);
            tokio::task::spawn_blocking(move || gate.pass()).await.map_err(|e| e.to_string())?;
            Ok::<_, String>(1)
        }
    };
    let queue = ledger.queue(perform).await.unwrap();
    for id in ["a", "b", "c", "d"] {
        queue.enqueue(name(id), ()).await.unwrap();
    }
    queue.start(2).unwrap();
    until(|| begun.load(Ordering::SeqCst) == 2).await;
    assert_eq!((queue.performing(), queue.len()), (2, 2));
    let mut stop = Box::pin(queue.stop_now());
    assert!(tokio::time::timeout(Duration::from_millis(30), &mut stop).await.is_err());
    gate.open();
    let left = soon(stop).await;
    assert_eq!((left.operations, left.futures), (2, 0));
    assert_eq!(ledger.succeeded_tasks().len(), 2);
    assert_eq!(ledger.queued_tasks().len(), 2);
}

/// There a queue that was dropped went on unseen; here it drains, and then its claim is free.
#[tokio::test]
async fn a_queue_that_is_dropped_drains() {
    let ledger = open(MemoryJournal::new()).await;
    let performed = Performed::default();
    let queue = words(&ledger, &performed).await;
    for id in ["a", "b", "c"] {
        queue.enqueue(name(id), name(id)).await.unwrap();
    }
    queue.start(2).unwrap();
    drop(queue);
    soon(ledger.wait("c")).await.unwrap();
    soon(async {
        while words_again(&ledger).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(performed.lock().unwrap().len(), 3);
}

/// A ledger that is poisoned or closed keeps no runner, and nobody who enqueues.
#[tokio::test]
async fn a_ledger_that_fails_ends_the_runners() {
    let fails = Arc::new(AtomicUsize::new(0));
    let armed = Arc::clone(&fails);
    let journal = Hooked::new(&MemoryJournal::new(), move |call| match call {
        Call::Append(_) if armed.load(Ordering::SeqCst) == 1 => Then::Fail,
        _ => Then::GoOn,
    });
    let ledger = open(journal).await;
    let one = NonZero::new(1).unwrap();
    let queue = ledger.queue_builder().capacity(one).open(perform(Performed::default())).await;
    let queue = queue.unwrap();
    queue.enqueue(name("a"), name("never")).await.unwrap();
    queue.start(2).unwrap();
    soon(async {
        while queue.performing() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    queue.enqueue(name("b"), name("b")).await.ok();
    fails.store(1, Ordering::SeqCst);
    let poisoned = ledger.mark_succeeded(name("x")).await;
    assert!(poisoned.is_err());
    ledger.cancel("a", "over").ok();
    assert!(soon(queue.enqueue(name("c"), name("c"))).await.is_err());
    soon(queue.stop()).await;
    assert_eq!(queue.runners(), 0);
}

#[tokio::test]
async fn an_operation_that_cannot_be_kept_comes_back() {
    let journal = MemoryJournal::new();
    let ledger = open(journal.clone()).await;
    let queue = words(&ledger, &Performed::default()).await;
    let large = queue.enqueue(name("a"), "x".repeat(100_000)).await.unwrap_err();
    assert!(matches!(large, EnqueueError::TooLarge { .. }), "{large}");
    assert_eq!(large.into_inner().len(), 100_000);
    queue.enqueue(name("b"), name("words")).await.unwrap();
    queue.stop().await;
    // Read as something else, it fails, and says so; the next one is performed.
    let numbers = ledger.queue(|number: u32, _| async move { Ok::<_, String>(number) }).await;
    let numbers = numbers.unwrap();
    numbers.enqueue(name("c"), 7).await.unwrap();
    numbers.start(1).unwrap();
    soon(numbers.stop()).await;
    let failure = ledger.record("b").await.unwrap().unwrap().failure;
    let Some(Failure::Error(why)) = failure else { panic!("{failure:?}") };
    assert!(why.contains("cannot be read"), "{why}");
    assert_eq!(ledger.output("c").await.unwrap(), Some(7));
}

/// A queue whose operations enqueue others: `3` enqueues `2`, which enqueues `1`, ...
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_operations_enqueue_is_waited_for_as_well() {
    let ledger = open(MemoryJournal::new()).await;
    let own: Arc<OnceLock<Queue<String, u32, u32>>> = Arc::default();
    let queues = Arc::clone(&own);
    let perform = move |number: u32, _| {
        let queues = Arc::clone(&queues);
        async move {
            let queue = queues.get().unwrap();
            if let Some(next) = number.checked_sub(1) {
                queue.enqueue(format!("{next}"), next).await.unwrap();
            }
            Ok::<_, String>(number)
        }
    };
    let queue = own.get_or_init({
        let queue = ledger.queue(perform).await.unwrap();
        || queue
    });
    assert!(soon(queue.wait_idle()).await, "there is nothing to be done");
    queue.enqueue(name("30"), 30).await.unwrap();
    assert!(!soon(queue.wait_idle()).await, "nobody performs it");
    queue.start(2).unwrap();
    assert!(soon(queue.wait_idle()).await);
    assert_eq!((queue.len(), queue.performing()), (0, 0));
    assert_eq!(ledger.succeeded_tasks().len(), 31);
    // It takes more, and the end of the ledger ends the wait.
    ledger.close().await.unwrap();
    assert!(queue.enqueue(name("40"), 40).await.is_err());
    soon(queue.stop()).await;
    assert!(soon(queue.wait_idle()).await);
}

/// What is performed within a scope is its child, and ends with it; what was not begun stays queued.
#[tokio::test]
async fn a_queue_within_a_scope_ends_with_it() {
    let journal = MemoryJournal::new();
    let ledger = open(journal.clone()).await;
    let performed = Performed::default();
    let (told, begun) = (Arc::clone(&performed), Arc::clone(&performed));
    let kept: Arc<Mutex<Option<Queue<String, u32, String>>>> = Arc::default();
    let out = Arc::clone(&kept);
    let body = move |scope: Scope<String, u32>| async move {
        let queue =
            scope.ledger().queue_builder().within(&scope).open(perform(told)).await.unwrap();
        for (id, word) in [("a", "one"), ("b", "never"), ("c", "later")] {
            queue.enqueue(name(id), name(word)).await.unwrap();
        }
        queue.start(1).unwrap();
        // That it is running would not do: it may not have been polled yet.
        until(|| begun.lock().unwrap().len() == 2).await;
        *out.lock().unwrap() = Some(queue);
        Ok::<_, String>(7)
    };
    soon(ledger.task(name("nightly")).scope(body)).await.unwrap();
    // What it took now would stay queued.
    let queue = kept.lock().unwrap().take().unwrap();
    let late = queue.enqueue(name("late"), name("one")).await;
    assert!(matches!(late, Err(EnqueueError::Stopped(_))), "{late:?}");
    drop(queue);
    assert_eq!(*performed.lock().unwrap(), ["one", "never"]);
    for (id, ended) in [("a", None), ("b", Some("its scope has ended"))] {
        let details = ledger.record(id).await.unwrap().unwrap();
        assert_eq!(details.parent.unwrap().decode::<String>().unwrap(), "nightly");
        assert_eq!(details.failure, ended.map(|why| Failure::Cancelled(why.into())));
    }
    assert_eq!(ledger.query_task_state_quick("c"), TaskState::Queued);
    // Its runners are gone and its claim is free; the next one goes on.
    let queue = soon(async {
        loop {
            match words_again(&ledger).await {
                Ok(queue) => return queue,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    queue.start(1).unwrap();
    soon(queue.stop()).await;
    assert_eq!(ledger.query_task_state_quick("c"), TaskState::Succeeded);
}

/// Operations that ran within a scope when the process died are found below it, and performed again.
#[tokio::test]
async fn what_crashed_within_a_scope_is_found_below_it() {
    let journal = MemoryJournal::new();
    let ledger = open(journal.clone()).await;
    let seen = ledger.clone();
    let body = move |scope: Scope<String, u32>| async move {
        let queue = seen.queue_builder().within(&scope).open(perform(Performed::default())).await;
        let queue = queue.unwrap();
        queue.enqueue(name("a"), name("never")).await.unwrap();
        queue.start(1).unwrap();
        std::future::pending::<Result<u32, String>>().await
    };
    let scope = ledger.task(name("nightly")).spawn_scope(body).await.unwrap();
    until(|| ledger.query_task_state_quick("a") == TaskState::Running).await;
    let next = open(journal.fork()).await;
    let trees = next.recovery().crashed_trees::<String>();
    assert_eq!(trees.len(), 1);
    assert_eq!(trees[0].id.as_deref().unwrap(), "nightly");
    assert_eq!(trees[0].children[0].id.as_deref().unwrap(), "a");
    let queue = words(&next, &Performed::default()).await;
    assert_eq!(queue.len(), 1);
    drop(scope);
}

/// What a runner had taken when its runtime went down, and not begun, was passed over by all the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_runner_has_not_begun_is_performed_by_another_one() {
    for stops in [false, true] {
        let gate = Gate::default();
        let waits = gate.clone();
        let journal = Hooked::new(&MemoryJournal::new(), move |call| match call {
            Call::Read => Then::Wait(waits.clone()),
            _ => Then::GoOn,
        });
        let ledger = open(journal).await;
        let performed = Performed::default();
        let queue = words(&ledger, &performed).await;
        // One that finds nothing more is there when it comes back.
        let all: &[&str] = if stops { &["one"] } else { &["one", "two"] };
        for word in all {
            queue.enqueue(name(word), name(word)).await.unwrap();
        }
        let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        {
            let _in_other = other.enter();
            queue.start(1).unwrap();
        }
        soon(gate.somebody_waits()).await;
        let stopped = stops.then(|| {
            let queue = queue.clone();
            queue.start(1).unwrap();
            tokio::spawn(async move { queue.stop().await })
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        other.shutdown_background();
        until(|| queue.runners() == usize::from(stops)).await;
        gate.open();
        let left = match stopped {
            Some(stopped) => soon(stopped).await.unwrap(),
            None => {
                queue.start(1).unwrap();
                assert!(soon(queue.wait_idle()).await);
                soon(queue.stop()).await
            }
        };
        assert_eq!((left.operations, queue.performing()), (0, 0), "{stops}");
        assert_eq!(*performed.lock().unwrap(), all, "{stops}");
    }
}

/// What was enqueued, by a call that was dropped, was the last that had the queue: the thread that records dropped the
/// code of the user.
#[tokio::test]
async fn nothing_of_the_users_is_dropped_by_the_writer() {
    struct Tells(std::sync::mpsc::Sender<Option<String>>);
    impl Drop for Tells {
        fn drop(&mut self) {
            let thread = std::thread::current();
            drop(self.0.send(thread.name().map(str::to_owned)));
            panic!("and it panics");
        }
    }
    let (journal, gate, armed) = Hooked::gated(&MemoryJournal::new());
    let ledger = open(journal).await;
    let (of_operations, of_futures) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let tells = Tells(of_operations.0);
    let queue = ledger.queue(move |_: String, _| {
        let _tells = &tells;
        ok(1)
    });
    let queue = queue.await.unwrap();
    let tells = Tells(of_futures.0);
    queue.try_enqueue_future(async move { drop(tells) }).unwrap();
    armed.store(true, Ordering::SeqCst);
    let mut enqueues = Hand::new(queue.enqueue(name("a"), name("a")));
    assert!(enqueues.poll().is_pending());
    soon(gate.somebody_waits()).await;
    drop(enqueues);
    drop(queue);
    let here = std::thread::current().name().map(str::to_owned);
    for told in [of_operations.1, of_futures.1] {
        assert_eq!(told.try_recv(), Ok(here.clone()), "dropped at once, and here");
    }
    gate.open();
    until(|| ledger.query_task_state_quick("a") == TaskState::Queued).await;
}

/// Futures that never wait, and enqueue the next one, had the thread for themselves.
#[tokio::test]
async fn a_runner_leaves_others_a_turn() {
    fn another(
        queue: Queue<String, u32, ()>,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let next = another(queue.clone());
            drop(queue.try_enqueue_future(next));
        })
    }
    let ledger = open(MemoryJournal::new()).await;
    let queue = ledger.queue_of_futures();
    queue.try_enqueue_future(another(queue.clone())).unwrap();
    queue.start(1).unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    // It holds itself alive until it is stopped.
    soon(queue.stop_now()).await;
    assert_eq!(queue.runners(), 0);
}

/// What comes is the queue's in which it was enqueued: the next one began without it.
#[tokio::test]
async fn a_queue_has_not_ended_before_what_was_enqueued_has_come() {
    let (journal, gate, armed) = Hooked::gated(&MemoryJournal::new());
    let ledger = open(journal).await;
    let performed = Performed::default();
    let queue = words(&ledger, &performed).await;
    armed.store(true, Ordering::SeqCst);
    let mut enqueues = Hand::new(queue.enqueue(name("a"), name("one")));
    assert!(enqueues.poll().is_pending());
    soon(gate.somebody_waits()).await;
    drop(enqueues);
    drop(queue);
    assert!(matches!(words_again(&ledger).await, Err(QueueError::InUse)));
    gate.open();
    until(|| ledger.query_task_state_quick("a") == TaskState::Queued).await;
    let queue = loop {
        match words_again(&ledger).await {
            Ok(queue) => break queue,
            Err(QueueError::InUse) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    queue.start(1).unwrap();
    assert_eq!(soon(queue.stop()).await.operations, 0);
}
