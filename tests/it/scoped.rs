//! Something that runs within a scope should not outlive it: panics, aborts, dropped handles, runtimes
//! that go down, children that do not end. Each fault of the crate that this replaces has its test.

use crate::support::{Hand, Hooked, Tasks, fresh, name, open, soon, until};
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use taskledger::{
    AttemptError, Cause, Ended, Entry, Failure, LaunchError, MemoryJournal, Rejection, Scope,
    SpawnError, TaskState,
};
use tokio::sync::Notify;

/// What happened, in order.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn read(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Notes when it is dropped.
    fn resource(&self, what: &str) -> Resource {
        Resource(self.clone(), what.to_owned())
    }

    fn done(&self, what: &str) -> impl FnOnce() + Send + 'static + use<> {
        let (diary, what) = (self.clone(), what.to_owned());
        move || diary.note(what)
    }
}

struct Resource(Diary, String);

impl Drop for Resource {
    fn drop(&mut self) {
        self.0.note(format!("{} is gone", self.1));
    }
}

async fn holds(resource: Resource) {
    pending::<()>().await;
    drop(resource);
}

/// The records of a journal as texts: the event and its id.
fn records(journal: &MemoryJournal) -> Vec<String> {
    let told = |record: taskledger::Record| match record.entry {
        Entry::Task { id, event, .. } => {
            let id = id.as_bytes().iter().skip(1).map(|byte| char::from(*byte)).collect::<String>();
            Some(format!("{id} {}", event.name()))
        }
        _ => None,
    };
    journal.records().into_iter().filter_map(told).collect()
}

/// The tree that most of these tests end: a scope with a child, which holds something, and a scope
/// below it that has another.
fn plant(
    ledger: &Tasks,
    diary: &Diary,
    body: Body,
) -> (taskledger::Root<String, u32>, taskledger::Child<()>) {
    let root = ledger.scope();
    let own = diary.clone();
    let tree = root.child().done(diary.done("parent done")).nest(move |scope| async move {
        let _held = own.resource("parent");
        scope
            .child()
            .done(own.done("child done"))
            .spawn(holds(own.resource("child")))
            .unwrap()
            .forget();
        let deep = own.clone();
        let nested = scope.child().done(own.done("nested done")).nest(move |scope| async move {
            scope
                .child()
                .done(deep.done("deep done"))
                .spawn(holds(deep.resource("deep")))
                .unwrap()
                .forget();
            deep.note("planted");
            pending::<()>().await;
        });
        nested.unwrap().forget();
        while !own.read().contains(&"planted".to_owned()) {
            tokio::task::yield_now().await;
        }
        match body {
            Body::Returns => {}
            Body::Panics => panic!("on purpose"),
            Body::Waits => pending().await,
        }
    });
    (root, tree.unwrap())
}

#[derive(Clone, Copy, PartialEq)]
enum Body {
    Returns,
    Panics,
    Waits,
}

/// Everything is gone, and every `done` was called after what it stands for was.
fn is_felled(diary: &Diary) {
    let read = diary.read();
    let at = |what: &str| {
        read.iter()
            .position(|line| line == what)
            .unwrap_or_else(|| panic!("no {what:?} in {read:?}"))
    };
    for (before, after) in [
        ("parent is gone", "parent done"),
        ("child is gone", "child done"),
        ("deep is gone", "deep done"),
        ("deep done", "nested done"),
        ("nested done", "parent done"),
        ("child done", "parent done"),
    ] {
        assert!(at(before) < at(after), "{before} before {after}: {read:?}");
    }
    assert_eq!(read.len(), 8, "each once: {read:?}");
}

/// The root of scoped_spawn cancelled nothing when it was dropped.
#[tokio::test]
async fn a_root_that_is_dropped_fells_its_tree() {
    let ledger = open(MemoryJournal::new()).await;
    let diary = Diary::default();
    let (root, tree) = plant(&ledger, &diary, Body::Waits);
    while !diary.read().contains(&"planted".to_owned()) {
        tokio::task::yield_now().await;
    }
    drop(root);
    assert_eq!(soon(tree).await, Ended::Cancelled(Cause::ScopeEnded));
    is_felled(&diary);
}

#[tokio::test]
async fn a_scope_whose_body_returns_takes_its_children_with_it() {
    let ledger = open(MemoryJournal::new()).await;
    let diary = Diary::default();
    let (root, tree) = plant(&ledger, &diary, Body::Returns);
    assert_eq!(soon(tree).await, Ended::Finished(()));
    is_felled(&diary);
    soon(root.join()).await;
}

/// There the children of a parent that panicked went on as orphans, and its `done` was not called.
#[tokio::test]
async fn a_scope_whose_body_panics_leaves_no_orphans() {
    let ledger = open(MemoryJournal::new()).await;
    let diary = Diary::default();
    let (_root, tree) = plant(&ledger, &diary, Body::Panics);
    assert_eq!(soon(tree).await, Ended::Panicked("on purpose".into()));
    is_felled(&diary);
}

/// As an abort by the executor did there; here a runtime goes down.
#[test]
fn a_runtime_that_goes_down_leaves_no_orphans() {
    for threads in [0, 2] {
        let mut builder = match threads {
            0 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder.enable_all().build().unwrap();
        let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ledger = other.block_on(open(MemoryJournal::new()));
        let diary = Diary::default();
        let (root, tree) = runtime.block_on(async {
            let planted = plant(&ledger, &diary, Body::Waits);
            while !diary.read().contains(&"planted".to_owned()) {
                tokio::task::yield_now().await;
            }
            planted
        });
        drop(runtime);
        assert_eq!(other.block_on(soon(tree)), Ended::Cancelled(Cause::TaskDropped));
        // The tasks were dropped in any order, and its own resource with the body.
        is_felled(&diary);
        other.block_on(soon(root.join()));
    }
}

/// There, to discard the signals of a child killed it at once, without a word; here it says so, and
/// there is a way not to.
#[tokio::test]
async fn a_handle_that_is_dropped_asks_its_child_to_stop_and_a_forgotten_one_does_not() {
    let ledger = open(MemoryJournal::new()).await;
    let root = ledger.scope();
    let diary = Diary::default();
    drop(root.spawn(holds(diary.resource("dropped"))).unwrap());
    soon(async {
        while diary.read().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let go = Arc::new(Notify::new());
    let (waits, note) = (Arc::clone(&go), diary.clone());
    root.spawn(async move {
        waits.notified().await;
        note.note("forgotten, and done");
    })
    .unwrap()
    .forget();
    go.notify_one();
    soon(root.join()).await;
    assert_eq!(diary.read(), ["dropped is gone", "forgotten, and done"]);
}

/// There a spawner that outlived its scope panicked in a debug build, and spawned an orphan in another.
#[tokio::test]
async fn a_handle_to_a_scope_that_has_ended_spawns_nothing() {
    let ledger = open(MemoryJournal::new()).await;
    let root = ledger.scope();
    let leaked = root.nest(|scope| async move { scope }).unwrap();
    let leaked = soon(leaked).await.finished().unwrap();
    assert!(leaked.is_ending());
    assert!(matches!(leaked.spawn(async {}), Err(SpawnError::ScopeEnded(_))));
    assert!(matches!(leaked.nest(|_| async {}), Err(SpawnError::ScopeEnded(_))));
    assert!(matches!(leaked.spawn_blocking(|_| ()), Err(SpawnError::ScopeEnded(_))));
    assert!(matches!(leaked.wrap(async {}), Err(SpawnError::ScopeEnded(_))));
    let launched = leaked.task(name("a")).launch(async { Ok::<_, String>(1) }).await;
    let Err(LaunchError::Rejected { reason: Rejection::ScopeEnded, future }) = launched else {
        panic!("{launched:?}");
    };
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::NotFound);
    // The future came back.
    ledger.launch_block(name("a"), future).await.unwrap();
    let run = leaked.task(name("b")).run(|_| async { Ok::<_, String>(1) }).await;
    assert!(matches!(run, Err(taskledger::RunError::Rejected(Rejection::ScopeEnded))), "{run:?}");
    assert_eq!(ledger.query_task_state_quick("b"), TaskState::NotFound);
}

/// There clones that were used from several threads panicked in a debug build.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_scope_is_used_from_many_threads_at_once() {
    let ledger = open(MemoryJournal::new()).await;
    let root = ledger.scope();
    let (ended, begun) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (scope, ended, begun) =
                (Scope::clone(&root), Arc::clone(&ended), Arc::clone(&begun));
            let runtime = tokio::runtime::Handle::current();
            std::thread::spawn(move || {
                let _inside = runtime.enter();
                for number in 0..500 {
                    let ended = Arc::clone(&ended);
                    let spawned = scope
                        .child()
                        .done(move || _ = ended.fetch_add(1, Ordering::SeqCst))
                        .spawn(async move {
                            if number % 3 == 0 {
                                tokio::task::yield_now().await;
                            }
                        });
                    match spawned {
                        Ok(child) if number % 5 == 0 => drop(child),
                        Ok(child) => child.forget(),
                        Err(error) => panic!("{error}"),
                    }
                    begun.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for thread in threads {
        tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
    }
    soon(root.end()).await;
    assert_eq!((begun.load(Ordering::SeqCst), ended.load(Ordering::SeqCst)), (2000, 2000));
}

/// There a `done` that panicked was never heard of.
#[tokio::test]
async fn a_done_that_panics_costs_nobody_an_answer() {
    let ledger = open(MemoryJournal::new()).await;
    let root = ledger.scope();
    let diary = Diary::default();
    let child = root.nest({
        let diary = diary.clone();
        move |scope| async move {
            scope.child().done(|| panic!("a done")).spawn(async {}).unwrap().forget();
            diary.note("body");
        }
    });
    assert_eq!(soon(child.unwrap()).await, Ended::Finished(()));
    soon(root.end()).await;
    assert_eq!(diary.read(), ["body"]);
}

/// Paused, so that the grace passes at once.
#[tokio::test(start_paused = true)]
async fn a_child_has_its_grace_and_no_more() {
    let ledger = open(MemoryJournal::new()).await;
    let root = ledger.scope();
    let graceful = root.with_grace(Duration::from_secs(10));
    let listens = graceful
        .nest(|scope| async move {
            scope.stopping().await;
            tokio::time::sleep(Duration::from_secs(9)).await;
            "cleaned up"
        })
        .unwrap();
    let deaf = graceful.spawn(pending::<()>()).unwrap();
    tokio::task::yield_now().await;
    let began = tokio::time::Instant::now();
    listens.cancel("enough");
    deaf.cancel("enough");
    assert_eq!(listens.await, Ended::Finished("cleaned up"));
    assert_eq!(began.elapsed().as_secs(), 9);
    assert_eq!(deaf.await, Ended::Cancelled(Cause::Asked("enough".into())));
    assert_eq!(began.elapsed().as_secs(), 10);
}

/// What blocks cannot be stopped: the scope waits for it, and says what it is.
#[tokio::test]
async fn a_scope_waits_for_a_child_that_blocks() {
    let ledger = open(MemoryJournal::new()).await;
    let root = ledger.scope();
    let (go, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (waits, begins) = (Arc::clone(&go), Arc::clone(&begun));
    let child = root.spawn_blocking(move |stop| {
        begins.store(true, Ordering::SeqCst);
        while !waits.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        stop.is_set()
    });
    until(|| begun.load(Ordering::SeqCst)).await;
    let names = root.running();
    assert!(names.len() == 1 && names[0].contains("scoped.rs"), "{names:?}");
    let mut end = Box::pin(root.end());
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut end).await.is_err());
    go.store(true, Ordering::SeqCst);
    soon(end).await;
    assert_eq!(child.unwrap().await, Ended::Finished(true));
}

/// A future that is wrapped and never spawned is part of its scope all the same.
#[tokio::test]
async fn a_wrapped_future_belongs_to_its_scope() {
    let ledger = open(MemoryJournal::new()).await;
    let root = ledger.scope();
    let diary = Diary::default();
    let wrapped = root.wrap(holds(diary.resource("wrapped"))).unwrap();
    let dropped = root.wrap(holds(diary.resource("dropped"))).unwrap();
    drop(dropped);
    let (ended, ()) = tokio::join!(wrapped, async {
        tokio::task::yield_now().await;
        soon(root.end()).await;
        diary.note("root");
    });
    assert_eq!(ended, Ended::Cancelled(Cause::ScopeEnded));
    assert_eq!(diary.read(), ["dropped is gone", "wrapped is gone", "root"]);
}

/// The end of a scope is recorded after those of all that ran within, also below it, and its waiters
/// hear of it then.
#[tokio::test]
async fn the_end_of_a_recorded_scope_comes_after_those_of_its_children() {
    let journal = MemoryJournal::new();
    let ledger = open(journal.clone()).await;
    let body = |scope: Scope<String, u32>| async move {
        scope.task(name("done")).launch_block(async { Ok::<_, String>(1) }).await.unwrap();
        scope.task(name("runs")).launch(pending::<Result<u32, String>>()).await.unwrap();
        let below = |scope: Scope<String, u32>| async move {
            scope.task(name("deep")).launch(pending::<Result<u32, String>>()).await.unwrap();
            // Through a scope that is not recorded: its parent is the one above that.
            let nested = scope.nest(|scope| async move {
                let run = pending::<Result<u32, String>>();
                scope.task(name("deeper")).launch(run).await.unwrap();
                pending::<()>().await;
            });
            nested.unwrap().forget();
            pending::<Result<u32, String>>().await
        };
        scope.task(name("below")).spawn_scope(below).await.unwrap().forget();
        while scope.ledger().query_task_state_quick("deeper") != TaskState::Running {
            tokio::task::yield_now().await;
        }
        Ok::<_, String>(7)
    };
    assert_eq!(soon(ledger.task(name("top")).scope(body)).await.unwrap(), 7);
    let records = records(&journal);
    let at = |what: &str| {
        records
            .iter()
            .position(|line| line == what)
            .unwrap_or_else(|| panic!("no {what} in {records:?}"))
    };
    let end = at("top succeeded");
    assert_eq!(end, records.len() - 1, "{records:?}");
    for child in ["runs failed", "below failed", "deep failed", "deeper failed"] {
        assert!(at(child) < end, "{records:?}");
    }
    assert!(
        at("deep failed") < at("below failed") && at("deeper failed") < at("below failed"),
        "{records:?}"
    );
    for (id, parent) in
        [("done", "top"), ("runs", "top"), ("below", "top"), ("deep", "below"), ("deeper", "below")]
    {
        let details = ledger.record(id).await.unwrap().unwrap();
        assert_eq!(details.parent.unwrap().decode::<String>().unwrap(), parent, "{id}");
    }
    assert_eq!(ledger.record("top").await.unwrap().unwrap().parent, None);
    let cancelled = ledger.record("deep").await.unwrap().unwrap().failure;
    assert_eq!(cancelled, Some(Failure::Cancelled("its scope has ended".into())));
}

/// When nothing can run any more, the order in the log alone holds.
#[test]
fn the_order_of_the_ends_holds_when_the_runtime_goes_down() {
    for seed in 0..20_u64 {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1 + usize::try_from(seed % 3).unwrap())
            .enable_all()
            .build()
            .unwrap();
        let journal = MemoryJournal::new();
        let ledger = runtime.block_on(async {
            let ledger = open(journal.clone()).await;
            let body = |scope: Scope<String, u32>| async move {
                for number in 0..5 {
                    let id = format!("child {number}");
                    scope.task(id).launch(pending::<Result<u32, String>>()).await.unwrap();
                }
                let below = |scope: Scope<String, u32>| async move {
                    scope
                        .task(name("deep"))
                        .launch(pending::<Result<u32, String>>())
                        .await
                        .unwrap();
                    pending::<Result<u32, String>>().await
                };
                scope.task(name("below")).spawn_scope(below).await.unwrap().forget();
                pending::<Result<u32, String>>().await
            };
            ledger.task(name("top")).spawn_scope(body).await.unwrap().forget();
            while ledger.query_task_state_quick("deep") != TaskState::Running {
                tokio::task::yield_now().await;
            }
            ledger
        });
        drop(runtime);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            assert_eq!(soon(ledger.wait("top")).await.unwrap(), TaskState::Failed);
            soon(ledger.close()).await.unwrap();
        });
        let records = records(&journal);
        let at = |what: &str| {
            records
                .iter()
                .position(|line| line == what)
                .unwrap_or_else(|| panic!("no {what} in {records:?}"))
        };
        assert_eq!(at("top failed"), records.len() - 1, "{records:?}");
        assert!(at("deep failed") < at("below failed"), "{records:?}");
    }
}

/// The body of a recorded scope that fails, panics or passes its timeout takes its children with it.
#[tokio::test]
async fn a_recorded_scope_that_fails_takes_its_children_with_it() {
    let ledger = open(MemoryJournal::new()).await;
    for (how, id) in ["error", "panic", "timeout", "cancel", "dropped"]
        .into_iter()
        .zip(["a", "b", "c", "d", "e"])
    {
        let own = ledger.clone();
        let child = format!("child of {id}");
        let task = ledger.task(name(id));
        let task = if how == "timeout" { task.timeout(Duration::from_millis(20)) } else { task };
        let of = child.clone();
        let launched = task
            .spawn_scope(move |scope| async move {
                scope.task(of).launch(pending::<Result<u32, String>>()).await.unwrap();
                match how {
                    "error" => Err("an error"),
                    "panic" => panic!("a panic"),
                    _ => pending().await,
                }
            })
            .await
            .unwrap();
        let ended = match how {
            "dropped" => {
                drop(launched);
                None
            }
            "cancel" => {
                while own.query_task_state_quick(&child) != TaskState::Running {
                    tokio::task::yield_now().await;
                }
                own.cancel(id, "enough").unwrap();
                Some(soon(launched).await)
            }
            _ => Some(soon(launched).await),
        };
        assert_eq!(soon(own.wait(id)).await.unwrap(), TaskState::Failed, "{how}");
        let state = own.query_task_state_quick(&child);
        assert!(
            matches!(state, TaskState::Failed | TaskState::NotFound),
            "{how}: the child is {state}"
        );
        let failure = own.record(id).await.unwrap().unwrap().failure.unwrap();
        let expected = match how {
            "error" => Failure::Error("\"an error\"".into()),
            "panic" => Failure::Panicked("a panic".into()),
            "timeout" => Failure::TimedOut,
            "cancel" => Failure::Cancelled("enough".into()),
            _ => Failure::Cancelled("its handle was dropped".into()),
        };
        assert_eq!(failure, expected, "{how}");
        if let Some(ended) = ended {
            assert!(
                !matches!(ended, Err(AttemptError::Lost | AttemptError::Superseded { .. })),
                "{how}: {ended:?}"
            );
        }
    }
}

/// A scope that is launched again runs those of its children alone that have not succeeded; a crash is
/// told as the tree that it cut off.
#[tokio::test]
async fn a_scope_that_crashed_goes_on_where_it_was() {
    let journal = MemoryJournal::new();
    let ledger = open(journal.clone()).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let nightly = |finishes: bool, runs: &Arc<AtomicUsize>| {
        let runs = Arc::clone(runs);
        move |scope: Scope<String, u32>| async move {
            for part in 0..6 {
                let runs = Arc::clone(&runs);
                let work = move |_| {
                    let runs = Arc::clone(&runs);
                    async move {
                        if part == 3 && !finishes {
                            pending::<()>().await;
                        }
                        runs.fetch_add(1, Ordering::SeqCst);
                        Ok::<_, String>(part)
                    }
                };
                let value = scope
                    .task(format!("part {part}"))
                    .run(work)
                    .await
                    .map_err(|e| e.to_string())?;
                assert_eq!(value.value, Some(part));
            }
            Ok::<_, String>(u32::try_from(runs.load(Ordering::SeqCst)).unwrap())
        }
    };
    ledger.task(name("nightly")).spawn_scope(nightly(false, &runs)).await.unwrap().forget();
    while ledger.query_task_state_quick("part 3") != TaskState::Running {
        tokio::task::yield_now().await;
    }
    // As a crash would leave it.
    let left = journal.fork();
    ledger.close_within(Duration::ZERO).await.unwrap();
    let ledger = open(left).await;
    let trees = ledger.recovery().crashed_trees::<String>();
    let [tree] = &trees[..] else { panic!("{trees:?}") };
    assert_eq!(tree.id.as_ref().unwrap(), "nightly");
    let below: Vec<&String> =
        tree.children.iter().map(|child| child.id.as_ref().unwrap()).collect();
    assert_eq!(below, ["part 3"]);
    let again = ledger.task(name("nightly")).scope(nightly(true, &runs)).await.unwrap();
    assert_eq!(again, 6, "three before the crash, and the other three after it");
    assert_eq!(ledger.succeeded_tasks().len(), 7);
}

/// The resets of a crash are records like any other: those of the children come first, wherever what is
/// known of them stands.
#[tokio::test]
async fn a_crash_ends_the_children_before_their_scope() {
    let journal = MemoryJournal::new();
    let ledger = open(journal.clone()).await;
    let body = |scope: Scope<String, u32>| async move {
        let below = |scope: Scope<String, u32>| async move {
            scope.task(name("z")).launch(pending::<Result<u32, String>>()).await.unwrap();
            pending::<Result<u32, String>>().await
        };
        scope.task(name("m")).spawn_scope(below).await.unwrap().forget();
        scope.task(name("b")).launch(pending::<Result<u32, String>>()).await.unwrap();
        pending::<Result<u32, String>>().await
    };
    ledger.task(name("a")).spawn_scope(body).await.unwrap().forget();
    for id in ["z", "b"] {
        while ledger.query_task_state_quick(id) != TaskState::Running {
            tokio::task::yield_now().await;
        }
    }
    let left = journal.fork();
    ledger.close_within(Duration::ZERO).await.unwrap();
    drop(open(left.clone()).await);
    let records = records(&left);
    let at = |what: &str| {
        records
            .iter()
            .position(|line| line == what)
            .unwrap_or_else(|| panic!("no {what} in {records:?}"))
    };
    assert!(
        at("z failed") < at("m failed")
            && at("m failed") < at("a failed")
            && at("b failed") < at("a failed"),
        "{records:?}"
    );
}

/// A close from within what runs in an attempt would wait for itself.
#[tokio::test]
async fn a_close_from_within_a_child_of_an_attempt_is_refused() {
    let ledger = open(MemoryJournal::new()).await;
    let body = |scope: Scope<String, u32>| async move {
        let closed = scope.spawn({
            let ledger = scope.ledger().clone();
            async move { ledger.close().await.map_err(|error| error.to_string()) }
        });
        closed.unwrap().await.finished().unwrap().map(|()| 1)
    };
    let closed = soon(ledger.task(name("a")).scope(body)).await;
    assert!(
        matches!(&closed, Err(AttemptError::Failed(why)) if why.contains("within")),
        "{closed:?}"
    );
}

/// Each ended within the end of the one below it: a thousand were too much for the stack of a worker, and the
/// process was aborted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_may_be_as_deep_as_memory_allows() {
    const DEEP: usize = 10_000;
    type Body = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
    fn below(scope: Scope<String, u32>, left: usize, depth: Arc<AtomicUsize>) -> Body {
        Box::pin(async move {
            depth.fetch_add(1, Ordering::SeqCst);
            if left > 0 {
                let nested = scope.nest(move |scope| below(scope, left - 1, depth)).unwrap();
                nested.forget();
            }
            pending().await
        })
    }
    let (ledger, _) = fresh().await;
    let root = ledger.scope();
    let depth = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&depth);
    root.nest(move |scope| below(scope, DEEP - 1, told)).unwrap().forget();
    until(|| depth.load(Ordering::SeqCst) == DEEP).await;
    soon(root.end()).await;
}

/// It came back when the ends of its children had been submitted: who looked then found them running.
#[tokio::test]
async fn who_waits_for_a_scope_finds_the_ends_of_its_children() {
    for nested in [true, false] {
        let (journal, gate, armed) = Hooked::gated(&MemoryJournal::new());
        let ledger = open(journal).await;
        let root = ledger.scope();
        let launched = Arc::new(AtomicBool::new(false));
        let (told, work) = (Arc::clone(&launched), pending::<Result<u32, String>>());
        let end = Arc::new(Notify::new());
        let ends = Arc::clone(&end);
        let body = move |scope: Scope<String, u32>| async move {
            scope.task(name("a")).launch(work).await.unwrap();
            told.store(true, Ordering::SeqCst);
            if nested {
                ends.notified().await;
            } else {
                pending::<()>().await;
            }
        };
        let child = root.nest(body).unwrap();
        until(|| launched.load(Ordering::SeqCst)).await;
        armed.store(true, Ordering::SeqCst);
        end.notify_one();
        let waits = async move {
            if nested {
                drop(child.await);
            } else {
                root.end().await;
            }
        };
        let mut waits = Hand::new(waits);
        while gate.arrived() == 0 {
            assert!(waits.poll().is_pending());
            tokio::task::yield_now().await;
        }
        assert!(waits.poll().is_pending());
        gate.open();
        soon(waits.finish()).await;
        assert_eq!(ledger.query_task_state_quick("a"), TaskState::Failed);
    }
}

/// What is not recorded and cannot be cancelled is waited for as well: nothing shows the end of a recorded scope
/// before it.
#[tokio::test]
async fn a_recorded_scope_has_not_ended_while_a_plain_child_runs() {
    let (ledger, journal) = fresh().await;
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (returns, has_returned) = tokio::sync::oneshot::channel();
    let body = |scope: Scope<String, u32>| async move {
        let (begins, has_begun) = tokio::sync::oneshot::channel();
        let work = move |_| {
            begins.send(()).unwrap();
            wait.recv()
        };
        let child = scope.spawn_blocking(work).map_err(|_| "it takes nobody")?;
        child.forget();
        // Before that it can still be cancelled.
        has_begun.await.map_err(|_| "it does not begin")?;
        returns.send(()).map_err(|()| "nobody listens")?;
        Ok::<_, &str>(7)
    };
    let launched = ledger.task(name("a")).spawn_scope(body).await.unwrap();
    soon(has_returned).await.unwrap();
    let mut ends = Box::pin(launched);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut ends).await;
    assert!(early.is_err(), "it has ended: {early:?}");
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::Running);
    assert_eq!(records(&journal), ["a started"]);
    go.send(()).unwrap();
    assert_eq!(soon(ends).await.unwrap(), 7);
    assert_eq!(ledger.query_task_state_quick("a"), TaskState::Succeeded);
}
