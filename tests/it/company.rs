//! Who waits for a run that pauses, or whose scope ends: each answer is one to its call, and nobody is told of
//! somebody else's leaving as a failure.

use crate::support::{
    Call, Gate, Hand, Hooked, Tasks, Then, crashed, fresh, name, never, ok, open, soon, until,
};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use taskledger::{
    Claim, ClaimKind, Failure, Landed, MemoryJournal, OnFailure, Queue, ReadError, Rejection,
    Retry, RunError, Task, TaskState,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

type Answer = Result<Claim<u32>, RunError<u32, String>>;

fn pauses<E>(pause: Duration) -> Retry<E> {
    Retry::attempts(NonZero::new(3).unwrap()).min_delay(pause).max_delay(pause)
}

async fn yields() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// A run of "a" that fails, and pauses; who has come before it failed; and who came in the pause.
struct Paused {
    leads: JoinHandle<Answer>,
    early: JoinHandle<Answer>,
    late: JoinHandle<Answer>,
}

impl Paused {
    async fn of(ledger: &Tasks, pause: Duration) -> Self {
        let (fail, fails) = oneshot::channel::<()>();
        let mut fails = Some(fails);
        let work = move |_| {
            let fails = fails.take();
            async move {
                if let Some(fails) = fails {
                    fails.await.unwrap();
                }
                Err::<u32, _>(name("mine"))
            }
        };
        let run = |value| {
            let ledger = ledger.clone();
            tokio::spawn(async move { ledger.run(name("a"), move |_| ok(value)).await })
        };
        let lead = ledger.clone();
        let leads =
            tokio::spawn(async move { lead.task(name("a")).retry(pauses(pause)).run(work).await });
        until(|| ledger.query_task_state_quick("a") == TaskState::Running).await;
        let early = run(8);
        yields().await;
        fail.send(()).unwrap();
        until(|| ledger.query_task_state_quick("a") == TaskState::Failed).await;
        let late = run(9);
        yields().await;
        Self { leads, early, late }
    }

    /// Both who executed and who has joined that have its own failure; what who came later is told.
    async fn ends(self) -> Answer {
        let led = soon(self.leads).await.unwrap();
        assert!(matches!(&led, Err(RunError::Failed(error)) if error == "mine"), "{led:?}");
        let told = soon(self.early).await.unwrap();
        let mine = Failure::Error("\"mine\"".into());
        let is_mine = matches!(&told, Err(RunError::Told { failure, kind: ClaimKind::Joined }) if *failure == mine);
        assert!(is_mine, "{told:?}");
        soon(self.late).await.unwrap()
    }
}

/// An attempt that began in the pause, and ended with its caller, its scope or its runtime, was told as a failure to
/// all who waited, and nobody took over.
#[tokio::test]
async fn somebody_who_left_in_a_pause_is_no_failure_of_those_who_wait() {
    for how in 0..3 {
        let (ledger, _) = fresh().await;
        let paused = Paused::of(&ledger, Duration::from_secs(10_000)).await;
        match how {
            0 => drop(ledger.task(name("a")).spawn(never()).await.unwrap()),
            1 => {
                let root = ledger.scope();
                root.task(name("a")).launch(never()).await.unwrap();
                root.end().await;
            }
            _ => {
                let other =
                    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
                let of_other = ledger.clone();
                drop(
                    other.spawn(async move { of_other.launch(name("a"), never()).await.unwrap() }),
                );
                until(|| ledger.query_task_state_quick("a") == TaskState::Running).await;
                other.shutdown_background();
            }
        }
        let late = paused.ends().await.unwrap();
        assert_eq!((late.kind, late.value), (ClaimKind::Executed, Some(9)), "{how}");
    }
}

/// What it had failed with was hidden by a queue that had taken the id up in the pause.
#[tokio::test]
async fn a_queue_hides_no_failure() {
    let (ledger, _) = fresh().await;
    let queue: Queue<String, u32, u32> = ledger.queue(|_, _| ok(5)).await.unwrap();
    let paused = Paused::of(&ledger, Duration::from_millis(500)).await;
    queue.enqueue(name("a"), 1).await.unwrap();
    let late = paused.ends().await;
    assert!(matches!(late, Err(RunError::Refused { state: TaskState::Queued })), "{late:?}");
}

/// A read that failed after the pause, and a close, told whoever had come in the pause of a failure from before
/// its call.
#[tokio::test]
async fn who_comes_in_a_pause_is_not_told_of_what_was_before() {
    let armed = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&armed);
    let hook = move |call| {
        if call == Call::Read && fails.load(Ordering::SeqCst) { Then::Fail } else { Then::GoOn }
    };
    let ledger = open(Hooked::new(&MemoryJournal::new(), hook)).await;
    let paused = Paused::of(&ledger, Duration::from_millis(500)).await;
    armed.store(true, Ordering::SeqCst);
    let late = paused.ends().await;
    assert!(
        matches!(
            late,
            Err(RunError::Read(ReadError::Poisoned(_))
                | RunError::Rejected(Rejection::Poisoned(_))
                | RunError::Read(_))
        ),
        "{late:?}"
    );

    let (ledger, _) = fresh().await;
    let paused = Paused::of(&ledger, Duration::from_secs(10_000)).await;
    ledger.close().await.unwrap();
    let late = paused.ends().await;
    assert!(matches!(late, Err(RunError::Rejected(Rejection::Closed))), "{late:?}");
}

/// A note of a failure made it an answer to who had come after it, while who waited for it was not scheduled.
#[test]
fn a_note_makes_no_failure_newer() {
    let lags = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let other = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (fail, fails) = oneshot::channel::<()>();
    let ledger = other.block_on(async {
        let (ledger, _) = fresh().await;
        let work = async move {
            fails.await.unwrap();
            Err::<u32, _>(name("old"))
        };
        ledger.launch(name("a"), work).await.unwrap();
        ledger
    });
    let of_lead = ledger.clone();
    let leads = lags.spawn(async move { of_lead.run(name("a"), |_| ok(1)).await });
    lags.block_on(yields());
    fail.send(()).unwrap();
    let joins = other.block_on(async {
        until(|| ledger.query_task_state_quick("a") == TaskState::Failed).await;
        let of_late = ledger.clone();
        let mut joins = Hand::new(async move { of_late.run(name("a"), |_| ok(9)).await });
        assert!(joins.poll().is_pending());
        ledger.note("a", "seen").await.unwrap();
        joins
    });
    let led = lags.block_on(soon(leads)).unwrap();
    assert!(matches!(&led, Err(RunError::Told { kind: ClaimKind::Joined, .. })), "{led:?}");
    let claim = other.block_on(soon(joins.finish())).unwrap();
    assert_eq!((claim.kind, claim.value), (ClaimKind::Executed, Some(9)));
}

/// A run within a scope that waited for another run, or for one with another fingerprint, did so beyond its end.
#[tokio::test]
async fn who_waits_for_others_hears_of_the_end_of_its_scope() {
    for other in [false, true] {
        let (ledger, _) = fresh().await;
        ledger.launch(name("a"), never()).await.unwrap();
        let mut leads = Hand::new(ledger.task(name("a")).fingerprint("one").run(|_| ok(1)));
        assert!(leads.poll().is_pending());
        yields().await;
        let root = ledger.scope();
        let scope = root.clone();
        let task = scope.task(name("a")).fingerprint(if other { "two" } else { "one" });
        let held = Arc::new(());
        let holds = Arc::clone(&held);
        let mut joins = Hand::new(task.run(move |_| {
            let _holds = &holds;
            ok(2)
        }));
        assert!(joins.poll().is_pending());
        soon(root.end()).await;
        let answer = soon(joins.finish()).await;
        assert!(matches!(answer, Err(RunError::Rejected(Rejection::ScopeEnded))), "{answer:?}");
        assert_eq!(Arc::strong_count(&held), 1);
        // Nor does one begin to wait.
        let late = soon(scope.task(name("a")).run(|_| ok(3))).await;
        assert!(matches!(late, Err(RunError::Rejected(Rejection::ScopeEnded))), "{late:?}");
    }
}

/// A join of the scope found nothing between two attempts, and cut the others off; the end of it left what the run
/// held to be freed later.
#[tokio::test]
async fn a_run_is_within_its_scope_between_two_attempts_as_well() {
    let (ledger, _) = fresh().await;
    let root = ledger.scope();
    let scope = root.clone();
    let mut calls = 0;
    let run = tokio::spawn(async move {
        let work = move |_| {
            calls += 1;
            let call = calls;
            async move { if call < 3 { Err("once more") } else { Ok(call) } }
        };
        scope.task(name("a")).retry(pauses(Duration::from_millis(50))).run(work).await
    });
    until(|| ledger.query_task_state_quick("a") == TaskState::Failed).await;
    soon(root.join()).await;
    assert!(run.is_finished() || ledger.query_task_state_quick("a") == TaskState::Succeeded);
    assert_eq!(soon(run).await.unwrap().unwrap().value, Some(3));

    let root = ledger.scope();
    let scope = root.clone();
    let held = Arc::new(());
    let holds = Arc::clone(&held);
    let run = tokio::spawn(async move {
        let work = move |_| {
            let _holds = &holds;
            async { Err::<u32, _>("no") }
        };
        scope.task(name("b")).retry(pauses(Duration::from_secs(10_000))).run(work).await
    });
    until(|| ledger.query_task_state_quick("b") == TaskState::Failed).await;
    soon(root.end()).await;
    assert_eq!(Arc::strong_count(&held), 1);
    assert!(matches!(soon(run).await.unwrap(), Err(RunError::Failed("no"))));
}

/// The scope ended while what its run had asked was still at work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_is_within_its_scope() {
    let (ledger, _) = crashed("a").await;
    let root = ledger.scope();
    let scope = root.clone();
    let (asked, is_asked) = oneshot::channel();
    let over = Arc::new(AtomicBool::new(false));
    let tells = Arc::clone(&over);
    let run = tokio::spawn(async move {
        let probe = move |_| async move {
            asked.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(500));
            tells.store(true, Ordering::SeqCst);
            std::future::pending::<Landed<u32>>().await
        };
        scope.task(name("a")).probe(probe).run(|_| ok(1)).await
    });
    soon(is_asked).await.unwrap();
    soon(root.end()).await;
    assert!(over.load(Ordering::SeqCst));
    let answer = soon(run).await.unwrap();
    assert!(matches!(answer, Err(RunError::Rejected(Rejection::ScopeEnded))), "{answer:?}");
}

/// A join of the scope waited for an attempt of somebody else.
#[tokio::test]
async fn a_run_that_only_waits_is_not_within_its_scope() {
    let (ledger, _) = fresh().await;
    ledger.launch(name("a"), never()).await.unwrap();
    let root = ledger.scope();
    let scope = root.clone();
    let run = tokio::spawn(async move { scope.task(name("a")).run(|_| ok(1)).await });
    yields().await;
    assert_eq!(root.running(), Vec::<String>::new());
    let children: Vec<_> =
        (0..3).map(|_| root.spawn(std::future::pending::<()>()).unwrap()).collect();
    assert_eq!(root.running().len(), 3, "each of one place");
    drop(children);
    soon(root.join()).await;
    let answer = soon(run).await.unwrap();
    assert!(matches!(answer, Err(RunError::Rejected(Rejection::ScopeEnded))), "{answer:?}");
    // Nor is it when others have taken it up between two attempts.
    let root = ledger.scope();
    let scope = root.clone();
    let run = tokio::spawn(async move { fails(scope.task(name("c"))).await });
    until(|| ledger.query_task_state_quick("c") == TaskState::Failed).await;
    ledger.launch(name("c"), never()).await.unwrap();
    soon(root.join()).await;
    let answer = soon(run).await.unwrap();
    assert!(matches!(answer, Err(RunError::Failed(_))), "{answer:?}");
    // What has succeeded is told all the same.
    let root = ledger.scope();
    let scope = root.clone();
    ledger.mark_succeeded(name("b")).await.unwrap();
    soon(root.end()).await;
    for _ in 0..100 {
        let claim = scope.task(name("b")).run(|_| ok(1)).await.unwrap();
        assert_eq!(claim.kind, ClaimKind::Replayed);
    }
}

/// It had not, if it ended while the start of an attempt was being recorded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_scope_waits_for_what_a_run_holds_whenever_it_comes() {
    struct Slow(Arc<AtomicBool>);
    impl Drop for Slow {
        fn drop(&mut self) {
            std::thread::sleep(Duration::from_millis(200));
            self.0.store(true, Ordering::SeqCst);
        }
    }
    for retried in [false, true] {
        let (journal, gate, armed) = Hooked::gated(&MemoryJournal::new());
        let ledger = open(journal).await;
        let root = ledger.scope();
        let scope = root.clone();
        let dropped = Arc::new(AtomicBool::new(false));
        let slow = Slow(Arc::clone(&dropped));
        armed.store(!retried, Ordering::SeqCst);
        let run = tokio::spawn(async move {
            let work = move |_| {
                let _holds = &slow;
                async { Err::<u32, _>("no") }
            };
            scope.task(name("a")).retry(pauses(Duration::from_millis(100))).run(work).await
        });
        if retried {
            until(|| ledger.query_task_state_quick("a") == TaskState::Failed).await;
            armed.store(true, Ordering::SeqCst);
        }
        soon(gate.somebody_waits()).await;
        let watches = Arc::clone(&dropped);
        let scope = root.clone();
        let ends = tokio::spawn(async move {
            root.end().await;
            watches.load(Ordering::SeqCst)
        });
        until(|| scope.is_ending()).await;
        gate.open();
        assert!(soon(ends).await.unwrap(), "{retried}");
        soon(run).await.unwrap().unwrap_err();
    }
}

/// A join waited for the probe, and cut the run off before anything came of its answer.
#[tokio::test]
async fn a_join_of_the_scope_waits_for_what_comes_of_a_probe() {
    for landed in [Landed::No, Landed::Yes(Some(5))] {
        let (ledger, _) = crashed("a").await;
        let root = ledger.scope();
        let scope = root.clone();
        let (asked, is_asked) = oneshot::channel();
        let (answer, answers) = oneshot::channel::<Landed<u32>>();
        let run = tokio::spawn(async move {
            let probe = move |_| async move {
                asked.send(()).unwrap();
                answers.await.unwrap()
            };
            scope.task(name("a")).probe(probe).run(|_| ok(1)).await
        });
        soon(is_asked).await.unwrap();
        let joins = tokio::spawn(root.join());
        yields().await;
        let expected = match landed {
            Landed::Yes(_) => (ClaimKind::Replayed, Some(5)),
            _ => (ClaimKind::Executed, Some(1)),
        };
        answer.send(landed).unwrap();
        soon(joins).await.unwrap();
        assert_eq!(ledger.query_task_state_quick("a"), TaskState::Succeeded);
        let claim = soon(run).await.unwrap().unwrap();
        assert_eq!((claim.kind, claim.value), expected);
    }
}

/// What a run waits for while the disk stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// Room in the queue of the writer, for its first attempt.
    First,
    /// What is known of its failure.
    Reads,
    /// Room, for its second attempt.
    Again,
}

/// The disk stands, others have all the room, and the run of "a" that `runs` has begun waits.
async fn without_room<T>(waits: Waits, runs: impl FnOnce(&Tasks) -> T) -> (Tasks, Gate, T) {
    let (reads, appends, armed) =
        (Gate::default(), Gate::default(), Arc::new(AtomicBool::new(false)));
    let (at_read, at_append, when) = (reads.clone(), appends.clone(), Arc::clone(&armed));
    let mut read = 0;
    let journal = Hooked::new(&MemoryJournal::new(), move |call| match call {
        Call::Read => {
            read += 1;
            // The first one is before the pause.
            if read == 2 { Then::Wait(at_read.clone()) } else { Then::GoOn }
        }
        Call::Append(_) if when.load(Ordering::SeqCst) => Then::Wait(at_append.clone()),
        _ => Then::GoOn,
    });
    let ledger = Tasks::builder().max_pending(1).open_journal(journal).await.unwrap();
    let launches = |id: String| {
        let ledger = ledger.clone();
        drop(tokio::spawn(async move { drop(ledger.launch(id, ok(1)).await) }));
    };
    let mut runs = Some(runs);
    let mut begins = || runs.take().unwrap()(&ledger);
    let early = (waits != Waits::First).then(&mut begins);
    if early.is_some() {
        until(|| ledger.query_task_state_quick("a") == TaskState::Failed).await;
    }
    armed.store(true, Ordering::SeqCst);
    if waits == Waits::Again {
        soon(reads.somebody_waits()).await;
    }
    launches(name("b"));
    yields().await;
    (0..3).for_each(|n| launches(format!("c{n}")));
    yields().await;
    reads.open();
    soon(appends.somebody_waits()).await;
    let run = early.unwrap_or_else(begins);
    // The pause is over by then.
    tokio::time::sleep(Duration::from_millis(150)).await;
    (ledger, appends, run)
}

fn fails(task: Task<'_, String, u32>) -> impl Future<Output = Answer> {
    task.retry(pauses(Duration::from_millis(100))).run(|_| async { Err(name("no")) })
}

/// A retry held up the end of its scope until the disk came back, a cancelled one its caller.
#[tokio::test]
async fn who_waits_for_room_can_be_stopped() {
    for waits in [Waits::First, Waits::Reads, Waits::Again] {
        let check = |answer: Answer, first: fn(&Answer) -> bool| match &answer {
            Err(RunError::Failed(error)) if waits != Waits::First && error == "no" => {}
            answer if waits == Waits::First && first(answer) => {}
            _ => panic!("{waits:?}: {answer:?}"),
        };
        let (ledger, gate, (root, run)) = without_room(waits, |ledger| {
            let root = ledger.scope();
            let scope = root.clone();
            (root, tokio::spawn(async move { fails(scope.task(name("a"))).await }))
        })
        .await;
        soon(root.end()).await;
        check(soon(run).await.unwrap(), |answer| {
            matches!(answer, Err(RunError::Rejected(Rejection::ScopeEnded)))
        });
        let is = match waits {
            Waits::First => TaskState::NotFound,
            Waits::Reads | Waits::Again => TaskState::Failed,
        };
        assert_eq!(ledger.query_task_state_quick("a"), is);
        gate.open();

        let (ledger, gate, run) = without_room(waits, |ledger| {
            let ledger = ledger.clone();
            tokio::spawn(async move { fails(ledger.task(name("a"))).await })
        })
        .await;
        ledger.cancel("a", "enough").unwrap();
        let answer = soon(run).await.unwrap();
        assert!(matches!(&answer, Err(RunError::Cancelled(why)) if why == "enough"), "{answer:?}");
        gate.open();

        let (_ledger, gate, run) = without_room(waits, |ledger| {
            let ledger = ledger.clone();
            let deadline = tokio::time::Instant::now() + Duration::from_millis(400);
            tokio::spawn(async move { fails(ledger.task(name("a")).deadline(deadline)).await })
        })
        .await;
        check(soon(run).await.unwrap(), |answer| matches!(answer, Err(RunError::TimedOut)));
        gate.open();
    }
}

/// Its last attempt was one that never began, and what it had failed with before was told to who had waited for it.
#[tokio::test]
async fn who_leaves_while_it_waits_for_room_has_left_its_failure_as_well() {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Leaves {
        Caller,
        Scope,
        ScopeAsThereIsRoom,
        Runtime,
    }
    for leaves in [Leaves::Caller, Leaves::Scope, Leaves::ScopeAsThereIsRoom, Leaves::Runtime] {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let on = match leaves {
            Leaves::Runtime => runtime.handle().clone(),
            _ => tokio::runtime::Handle::current(),
        };
        let (_ledger, gate, (root, lead, other)) = without_room(Waits::Again, |ledger| {
            let root = ledger.scope();
            let scope = root.clone();
            let other = ledger.clone();
            let lead = on.spawn(async move { fails(scope.task(name("a"))).await });
            let other = tokio::spawn(async move {
                until(|| other.query_task_state_quick("a") == TaskState::Failed).await;
                other.task(name("a")).on_failure(OnFailure::Replay).run(|_| ok(2)).await
            });
            (root, lead, other)
        })
        .await;
        match leaves {
            Leaves::Caller => lead.abort(),
            Leaves::Scope => drop(root),
            Leaves::ScopeAsThereIsRoom => {
                gate.open();
                // All that is done on this thread waits for it.
                std::thread::sleep(Duration::from_millis(100));
                drop(root);
            }
            Leaves::Runtime => {}
        }
        if leaves == Leaves::Runtime {
            let goes_down = move || runtime.shutdown_timeout(Duration::from_secs(60));
            std::thread::spawn(goes_down).join().unwrap();
        } else {
            runtime.shutdown_background();
        }
        yields().await;
        gate.open();
        let claim = soon(other).await.unwrap().unwrap();
        assert_eq!((claim.kind, claim.value), (ClaimKind::Executed, Some(2)), "{leaves:?}");
    }
}

/// What its probe has found out waited for room, and held up the end of its scope until the disk came back.
#[tokio::test]
async fn what_is_found_out_waits_for_room_only_as_long_as_it_is_asked_for() {
    let (_, dead) = crashed("a").await;
    for cancelled in [false, true] {
        let (reads, appends) = (Gate::default(), Gate::default());
        let (at_read, at_append, mut read) = (reads.clone(), appends.clone(), 0);
        let journal = Hooked::new(&dead.fork(), move |call| {
            read += u32::from(call == Call::Read);
            match call {
                // After its answer.
                Call::Read if read == 2 => Then::Wait(at_read.clone()),
                Call::Append(at) if at > 0 => Then::Wait(at_append.clone()),
                _ => Then::GoOn,
            }
        });
        let ledger = Tasks::builder().max_pending(1).open_journal(journal).await.unwrap();
        let root = ledger.scope();
        let scope = root.clone();
        let run = tokio::spawn(async move {
            let probe = |_| async { Landed::Yes(Some(5)) };
            scope.task(name("a")).probe(probe).run(|_| ok(1)).await
        });
        soon(reads.somebody_waits()).await;
        let other = ledger.clone();
        drop(tokio::spawn(async move { drop(other.launch(name("b"), ok(1)).await) }));
        yields().await;
        reads.open();
        soon(appends.somebody_waits()).await;
        yields().await;
        if cancelled {
            ledger.cancel("a", "enough").unwrap();
        } else {
            soon(root.end()).await;
        }
        let answer = soon(run).await.unwrap();
        match answer {
            Err(RunError::Cancelled(why)) if cancelled && why == "enough" => {}
            Err(RunError::Rejected(Rejection::ScopeEnded)) if !cancelled => {}
            answer => panic!("{cancelled}: {answer:?}"),
        }
        assert_eq!(ledger.query_task_state_quick("a"), TaskState::Failed);
        appends.open();
    }
}

/// Of a failure, and of the success that follows: that of the success waits.
fn second_read_waits() -> (Hooked, Gate) {
    let (gate, mut read) = (Gate::default(), 0);
    let waits = gate.clone();
    let journal = Hooked::new(&MemoryJournal::new(), move |call| {
        read += u32::from(call == Call::Read);
        if call == Call::Read && read == 2 { Then::Wait(waits.clone()) } else { Then::GoOn }
    });
    (journal, gate)
}

/// Who stopped a run while it read the output of a success made that a failure, for all who had waited.
#[tokio::test]
async fn a_success_is_told_whoever_stops_the_run() {
    let (journal, gate) = second_read_waits();
    let ledger = open(journal).await;
    let run = ledger.clone();
    let run = tokio::spawn(async move { fails(run.task(name("a"))).await });
    until(|| ledger.query_task_state_quick("a") == TaskState::Failed).await;
    yields().await;
    ledger.mark_succeeded(name("a")).await.unwrap();
    soon(gate.somebody_waits()).await;
    let _ = ledger.cancel("a", "enough");
    yields().await;
    gate.open();
    assert_eq!(soon(run).await.unwrap().unwrap().kind, ClaimKind::Replayed);

    // But for its own deadline.
    let (journal, gate) = second_read_waits();
    let ledger = open(journal).await;
    let run = ledger.clone();
    let deadline = tokio::time::Instant::now() + Duration::from_millis(500);
    let run = tokio::spawn(async move { fails(run.task(name("a")).deadline(deadline)).await });
    until(|| ledger.query_task_state_quick("a") == TaskState::Failed).await;
    let other = ledger.clone();
    let joins = tokio::spawn(async move {
        other.task(name("a")).on_failure(OnFailure::Replay).run(|_| ok(2)).await
    });
    yields().await;
    ledger.mark_succeeded(name("a")).await.unwrap();
    soon(gate.somebody_waits()).await;
    assert!(matches!(soon(run).await.unwrap(), Err(RunError::TimedOut)));
    gate.open();
    assert!(soon(joins).await.unwrap().is_ok(), "it has succeeded");

    // The scope ends while it records what its probe has found.
    let (_, dead) = crashed("b").await;
    let (journal, gate, armed) = Hooked::gated(&dead.fork());
    let ledger = open(journal).await;
    armed.store(true, Ordering::SeqCst);
    let root = ledger.scope();
    let scope = root.clone();
    let run = tokio::spawn(async move {
        let probe = |_| async { Landed::Yes(Some(5)) };
        scope.task(name("b")).probe(probe).run(|_| ok(1)).await
    });
    soon(gate.somebody_waits()).await;
    let ends = tokio::spawn(root.end());
    yields().await;
    gate.open();
    soon(ends).await.unwrap();
    assert_eq!(soon(run).await.unwrap().unwrap().value, Some(5));
}

/// Of two who left, one after the other, the second had not begun: what the first had failed with was told.
#[tokio::test]
async fn who_takes_over_and_leaves_as_well_has_left_both_failures() {
    let (reads, appends) = (Gate::default(), Gate::default());
    let armed = Arc::new(AtomicBool::new(false));
    let (at_read, at_append, when) = (reads.clone(), appends.clone(), Arc::clone(&armed));
    let journal = Hooked::new(&MemoryJournal::new(), move |call| match call {
        Call::Read if when.load(Ordering::SeqCst) => Then::Wait(at_read.clone()),
        Call::Append(_) if when.load(Ordering::SeqCst) => Then::Wait(at_append.clone()),
        _ => Then::GoOn,
    });
    let ledger = Tasks::builder().max_pending(1).open_journal(journal).await.unwrap();
    let (fail, may_fail) = oneshot::channel::<()>();
    let mut may_fail = Some(may_fail);
    let lead = ledger.clone();
    let lead = tokio::spawn(async move {
        let work = move |_| {
            let may_fail = may_fail.take();
            async move {
                if let Some(may_fail) = may_fail {
                    may_fail.await.unwrap();
                }
                Err::<u32, _>(name("no"))
            }
        };
        let pause = pauses(Duration::from_secs(10_000));
        lead.task(name("a")).cancel_with_caller().retry(pause).run(work).await
    });
    until(|| ledger.query_task_state_quick("a") == TaskState::Running).await;
    let joins = |value, leaves: bool| {
        let ledger = ledger.clone();
        tokio::spawn(async move {
            let task = ledger.task(name("a")).on_failure(OnFailure::Replay);
            let task = if leaves { task.cancel_with_caller() } else { task };
            task.run(move |_| ok(value)).await
        })
    };
    let second = joins(2, true);
    yields().await;
    let third = joins(3, false);
    yields().await;
    fail.send(()).unwrap();
    until(|| ledger.query_task_state_quick("a") == TaskState::Failed).await;
    yields().await;
    armed.store(true, Ordering::SeqCst);
    lead.abort();
    // The second looks at the failure, and then waits for room.
    soon(reads.somebody_waits()).await;
    let other = ledger.clone();
    drop(tokio::spawn(async move { drop(other.launch(name("b"), ok(1)).await) }));
    yields().await;
    reads.open();
    soon(appends.somebody_waits()).await;
    yields().await;
    second.abort();
    yields().await;
    appends.open();
    let claim = soon(third).await.unwrap().unwrap();
    assert_eq!((claim.kind, claim.value), (ClaimKind::Executed, Some(3)));
}

/// It was taken for one that had been found before, since it has the same number.
#[tokio::test]
async fn a_failure_of_another_life_is_no_older_one() {
    let (ledger, _) = crashed("a").await;
    let (asked, is_asked) = oneshot::channel();
    let (answer, answers) = oneshot::channel::<()>();
    let lead = ledger.clone();
    let lead = tokio::spawn(async move {
        let probe = move |_| async move {
            asked.send(()).unwrap();
            answers.await.unwrap();
            Landed::No
        };
        let task = lead.task(name("a")).probe(probe);
        task.run(|_| async { Err::<u32, _>("mine") }).await
    });
    soon(is_asked).await.unwrap();
    let joins = ledger.clone();
    let joins = tokio::spawn(async move { joins.run(name("a"), |_| ok(9)).await });
    yields().await;
    ledger.forget("a").await.unwrap();
    answer.send(()).unwrap();
    assert!(matches!(soon(lead).await.unwrap(), Err(RunError::Failed("mine"))));
    let told = soon(joins).await.unwrap();
    let is_told = matches!(told, Err(RunError::Told { kind: ClaimKind::Joined, .. }));
    assert!(is_told, "{told:?}");
}

/// It gave up an id on record, and asked a probe.
#[tokio::test]
async fn a_run_in_a_scope_that_has_ended_does_nothing() {
    let (ledger, _) = crashed("a").await;
    let root = ledger.scope();
    let scope = root.clone();
    soon(root.end()).await;
    let asked = Arc::new(AtomicBool::new(false));
    let asks = Arc::clone(&asked);
    let probe = move |_| async move {
        asks.store(true, Ordering::SeqCst);
        Landed::<u32>::No
    };
    let answers = [
        soon(scope.task(name("a")).max_attempts(NonZero::new(1).unwrap()).run(|_| ok(1))).await,
        soon(scope.task(name("a")).probe(probe).run(|_| ok(1))).await,
    ];
    for answer in answers {
        assert!(matches!(answer, Err(RunError::Rejected(Rejection::ScopeEnded))), "{answer:?}");
    }
    let failure = ledger.record("a").await.unwrap().unwrap().failure;
    assert_eq!(failure, Some(Failure::Crashed));
    assert!(!asked.load(Ordering::SeqCst));
}
