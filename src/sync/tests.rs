//! The orders in which threads can take their steps, tried by a model checker.
//!
//! The real queue, writer, index, watchdog and close, over a journal that yields where a disk would
//! be slow. Built with `--cfg shuttle` only:
//!
//! ```sh
//! RUSTFLAGS="--cfg shuttle" cargo test --lib --target-dir target/shuttle sync::tests
//! ```
//!
//! `TASKLEDGER_ROUNDS` says how many schedules of each scene (a factor is `x10`), `TASKLEDGER_SEED`
//! where their random numbers begin. That nobody waits for ever is what the checker itself finds: a
//! schedule in which nobody can go on is a failure.

use crate::attempt::{Kind, Live, Seat};
use crate::details::{Life, TaskDetails};
use crate::error::{ChangeError, CloseError, JournalError, Poison, Rejection, WaitError};
use crate::id::{EncodedId, IdShape};
use crate::index::{Change, Index};
use crate::journal::{Base, Entry, Journal, OpenReport, Record, Visit};
use crate::recovery::{FoundRunning, recover};
#[cfg(feature = "internals")]
use crate::sabotage::{Sabotage, sabotage};
use crate::shared::{Options, Shared};
use crate::state::{Cell, Grave, SeqNo, TaskState};
use crate::submission::{Answer, Begin, Company, Patience, Request, Submissions, Taken};
use crate::sync::lock;
use crate::watch::Watch;
use crate::writer::Writer;
use crate::{Health, Ledger};
use shuttle::future::block_on;
use shuttle::rand::Rng as _;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner, thread};
use std::collections::BTreeMap;
use std::future::Future as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::{Duration, Instant, SystemTime};

mod line;

/// Tries a scene in many orders: at random, and with one to three changes of the thread that runs.
fn try_orders(name: &str, scene: fn()) {
    let of = |name: &str| std::env::var(name).ok();
    #[cfg(feature = "internals")]
    match of("TASKLEDGER_LAB_SABOTAGE").as_deref() {
        None => {}
        Some("LoseWake") => sabotage(Sabotage::LoseWake),
        Some("AnswerFirst") => sabotage(Sabotage::AnswerFirst),
        Some("ForgetBatch") => sabotage(Sabotage::ForgetBatch),
        Some("NeverGiveUp") => sabotage(Sabotage::NeverGiveUp),
        Some("OpenFirst") => sabotage(Sabotage::OpenFirst),
        Some("KeepOffer") => sabotage(Sabotage::KeepOffer),
        Some(other) => panic!("nobody does {other} here"),
    }
    let usual = 1000;
    let rounds = match of("TASKLEDGER_ROUNDS") {
        None => usual,
        Some(wanted) => match wanted.strip_prefix('x') {
            Some(factor) => usual * factor.parse::<usize>().unwrap(),
            None => wanted.parse().unwrap(),
        },
    };
    let seed = of("TASKLEDGER_SEED").map(|seed| seed.parse().unwrap()).unwrap_or_else(|| {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64
            % 1_000_000
    });
    println!("{name}: TASKLEDGER_SEED={seed}, {rounds} schedules at each of four depths");
    Runner::new(RandomScheduler::new_from_seed(seed, rounds), Config::new()).run(scene);
    for depth in 1..4 {
        Runner::new(PctScheduler::new_from_seed(seed, depth, rounds), Config::new()).run(scene);
    }
}

/// What the disk has, and when it fails.
#[derive(Default)]
struct Tape(Arc<Mutex<Taped>>);

#[derive(Default)]
struct Taped {
    records: Vec<Record>,
    appends: usize,
    /// The append that fails, and whether the records are there all the same.
    fails: Option<(usize, bool)>,
    /// How many there were when it failed.
    at_failure: Option<usize>,
    /// The append that does not come back.
    hangs: Option<(usize, Arc<Hang>)>,
}

/// A store that comes back only when all its callers have been answered.
#[derive(Default)]
struct Hang(crate::sync::Mutex<Hung>, crate::sync::Condvar);

#[derive(Default)]
struct Hung {
    begun: bool,
    answered: usize,
}

impl Hang {
    fn change(&self, change: impl FnOnce(&mut Hung)) {
        change(&mut lock(&self.0));
        self.1.notify_all();
    }

    fn wait_until(&self, is: impl Fn(&Hung) -> bool) {
        let mut hung = lock(&self.0);
        while !is(&hung) {
            hung = self.1.wait(hung).unwrap();
        }
    }
}

impl Journal for Tape {
    fn replay(&mut self, _: &mut Visit<'_>) -> Result<Base, JournalError> {
        Ok(Base::default())
    }

    fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        thread::yield_now();
        if let Some(hang) = self.hangs_now() {
            hang.change(|hung| hung.begun = true);
            hang.wait_until(|hung| hung.answered == NAMES.len());
        }
        let result = {
            let mut tape = self.0.lock().unwrap();
            assert_eq!(tape.at_failure, None, "something is appended after a failure");
            let at = tape.appends;
            tape.appends += 1;
            match tape.fails {
                Some((fails, kept)) if fails == at => {
                    tape.at_failure = Some(tape.records.len());
                    if kept {
                        tape.records.extend_from_slice(records);
                    }
                    Err(JournalError::Store("the disk is on fire".into()))
                }
                _ => {
                    tape.records.extend_from_slice(records);
                    Ok(())
                }
            }
        };
        thread::yield_now();
        result
    }

    fn read(&mut self, _: &EncodedId, cell: Cell) -> Result<TaskDetails, JournalError> {
        thread::yield_now();
        Ok(TaskDetails { cell, ..TaskDetails::ABSENT })
    }
}

impl Tape {
    /// What its records say of an id; they must be legal and dense.
    fn cell(&self, id: &EncodedId) -> Cell {
        let mut cell = Cell::ABSENT;
        let mut last = None;
        for record in &self.0.lock().unwrap().records {
            assert!(last.is_none_or(|last: SeqNo| last.next() == record.seq), "a gap");
            last = Some(record.seq);
            let Entry::Task { id: of, prev, event } = &record.entry else { continue };
            if of == id {
                cell = cell.apply(record.seq, *prev, event).expect("the log is legal");
            }
        }
        cell
    }

    fn hangs_now(&self) -> Option<Arc<Hang>> {
        let tape = self.0.lock().unwrap();
        let (_, hang) = tape.hangs.as_ref().filter(|(at, _)| *at == tape.appends)?;
        Some(Arc::clone(hang))
    }

    /// Another caller, one for each name, has been answered whatever it asked.
    fn answered(&self) {
        let hang = self.0.lock().unwrap().hangs.as_ref().map(|(_, hang)| Arc::clone(hang));
        hang.into_iter().for_each(|hang| hang.change(|hung| hung.answered += 1));
    }

    fn has(&self, seq: SeqNo) -> bool {
        self.0.lock().unwrap().records.iter().any(|record| record.seq == seq)
    }
}

/// The ids of all scenes.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// A ledger with its writer at work.
struct Scene {
    ledger: Ledger<String>,
    shared: Arc<Shared>,
    tape: Tape,
    watch: Watch,
    threads: Vec<thread::JoinHandle<()>>,
    /// Attempts of each id that run right now.
    running: Arc<[AtomicU64; NAMES.len()]>,
}

impl Scene {
    fn begin(max_pending: usize) -> Self {
        let tape = Tape::default();
        let mut opened = Tape(Arc::clone(&tape.0));
        let recovered = recover(
            &mut opened,
            OpenReport::default(),
            &mut FoundRunning::default(),
            Instant::now(),
        )
        .unwrap();
        let options = Options { output_cap: 100, sync_deadline: Duration::ZERO, max_pending };
        let shape = IdShape::of_type::<String>();
        let (index, recovery) = (recovered.index, recovered.recovery);
        let shared = Arc::new(Shared::new(options, index, recovery, BTreeMap::new(), shape));
        let watch = Watch::default();
        let writer = Writer {
            in_hand: None,
            shared: Arc::clone(&shared),
            core: recovered.core,
            journal: Box::new(opened),
            watch: watch.clone(),
            checkpoints: Vec::new(),
            patience: Patience::default(),
        };
        let threads = vec![thread::spawn(move || writer.run())];
        let ledger = Ledger::from_shared(Arc::clone(&shared));
        Self { ledger, shared, tape, watch, threads, running: Arc::default() }
    }

    /// At some append the disk fails, with its records there or not.
    fn failing() -> Self {
        let mut rng = shuttle::rand::thread_rng();
        let scene = Self::begin(rng.gen_range(1..4));
        scene.tape.0.lock().unwrap().fails = Some((rng.gen_range(1..6), rng.gen_bool(0.5)));
        scene
    }

    /// The watchdog looks once, at any moment, and takes whatever the writer is at for stuck.
    fn watched() -> Self {
        Self::begin(shuttle::rand::thread_rng().gen_range(1..4)).watched_when(|| {})
    }

    fn watched_when(mut self, it_is_time: impl FnOnce() + Send + 'static) -> Self {
        let (watch, shared) = (self.watch.clone(), Arc::clone(&self.shared));
        self.threads.push(thread::spawn(move || {
            it_is_time();
            watch.run(Duration::ZERO, |group, requests| {
                let poison = Poison::Stuck { after: Duration::ZERO };
                shared.poison(&poison, Some((group, requests)));
            });
        }));
        self
    }

    /// At some append the store hangs, and the watchdog looks.
    fn hanging() -> Self {
        let mut rng = shuttle::rand::thread_rng();
        let scene = Self::begin(rng.gen_range(1..4));
        let hang = Arc::new(Hang::default());
        // However they share batches, there is one with a start, and one with its end.
        scene.tape.0.lock().unwrap().hangs = Some((rng.gen_range(1..3), Arc::clone(&hang)));
        scene.watched_when(move || hang.wait_until(|hung| hung.begun))
    }

    fn spawn(&mut self, work: impl FnOnce(Player) + Send + 'static) {
        let player = Player {
            ledger: self.ledger.clone(),
            shared: Arc::clone(&self.shared),
            tape: Tape(Arc::clone(&self.tape.0)),
            running: Arc::clone(&self.running),
        };
        self.threads.push(thread::spawn(move || work(player)));
    }

    /// Lets go of the ledger, waits for everybody, the writer included, and holds memory against
    /// the disk.
    fn end(self) {
        let Self { ledger, shared, tape, threads, .. } = self;
        drop(ledger);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let poison = shared.poisoned();
        assert!(!matches!(poison, Some(Poison::Panicked(_))), "{poison:?}");
        for name in NAMES {
            let id = id(name);
            let (published, on_disk) = (shared.index.cell(id.as_bytes()), tape.cell(&id));
            if poison.is_some() {
                assert!(published.seq <= on_disk.seq, "memory ran ahead of the disk");
            } else {
                assert_eq!(published, on_disk, "memory is not what is on the disk");
            }
        }
        assert!(shared.submissions.rejection().is_some());
        let counted: usize = shared.index.counts().iter().sum();
        let there =
            NAMES.iter().filter(|name| shared.index.cell(id(name).as_bytes()) != Cell::ABSENT);
        assert_eq!(counted, there.count());
    }
}

fn id(name: &str) -> EncodedId {
    EncodedId::encode::<String, str>(name).unwrap()
}

/// What a thread of a scene has.
struct Player {
    ledger: Ledger<String>,
    shared: Arc<Shared>,
    tape: Tape,
    running: Arc<[AtomicU64; NAMES.len()]>,
}

impl Player {
    /// What `launch` does. `None` if it is refused.
    fn launch(&self, name: &str) -> Result<Option<Attempt>, Rejection> {
        block_on(self.shared.permit())?;
        let seat = Seat::take(&self.shared);
        let (live, ticket) = Live::submit(seat, id(name), Kind::Launch, Begin::default())?;
        let answer = block_on(ticket)?;
        let Answer::Done(cell) = answer else {
            assert!(matches!(answer, Answer::Refused(TaskState::Running)), "{answer:?}");
            return Ok(None);
        };
        assert!(self.tape.has(cell.seq), "acknowledged and not on the disk");
        assert_eq!(self.ledger.query_task_state_quick(name), TaskState::Running);
        assert!(!self.ledger.running_tasks().is_empty());
        let at = NAMES.iter().position(|other| *other == name).unwrap();
        assert_eq!(self.running[at].fetch_add(1, Ordering::SeqCst), 0, "two attempts at a time");
        thread::yield_now();
        Ok(Some(Attempt { running: Arc::clone(&self.running), at, _live: live }))
    }

    fn mark(&self, name: &str) -> Result<(), ChangeError> {
        block_on(self.ledger.mark_succeeded(name.to_owned()))?;
        assert_eq!(self.ledger.query_task_state_quick(name), TaskState::Succeeded);
        assert!(!self.ledger.succeeded_tasks().is_empty());
        let cell = self.shared.index.cell(id(name).as_bytes());
        assert!(self.tape.has(cell.seq), "acknowledged and not on the disk");
        Ok(())
    }

    /// The wait ends: in a settled state, or with the poison.
    fn wait(&self, name: &str) {
        match block_on(self.ledger.wait(name)) {
            Ok(state) => assert!(state.is_settled()),
            Err(WaitError::InDoubt(_)) => assert!(self.shared.poisoned().is_some()),
            Err(other) => panic!("{other}"),
        }
    }

    /// The close ends, and says whether all went well.
    fn close(&self) {
        match block_on(self.ledger.close()) {
            Ok(()) => assert!(self.shared.poisoned().is_none()),
            Err(CloseError::Poisoned(_)) => assert!(self.shared.poisoned().is_some()),
            Err(other) => panic!("{other}"),
        }
    }
}

/// An attempt that runs until it is dropped, as one without a handle.
struct Attempt {
    running: Arc<[AtomicU64; NAMES.len()]>,
    at: usize,
    /// Dropped after this is: the end is submitted when nothing runs any more.
    _live: Live,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.running[self.at].fetch_sub(1, Ordering::SeqCst);
    }
}

fn scene_of_attempts() {
    let mut scene = Scene::begin(2);
    for _ in 0..3 {
        scene.spawn(|player| {
            player.launch("a").unwrap();
        });
    }
    scene.spawn(|player| player.wait("a"));
    scene.end();
}

/// The same requests and waits whatever it is that goes wrong.
fn scene_of_a_failure(mut scene: Scene) {
    for name in ["a", "b"] {
        scene.spawn(move |player| {
            match player.launch(name) {
                Ok(attempt) => drop(attempt),
                Err(rejection) => assert!(matches!(rejection, Rejection::Poisoned(_))),
            }
            player.wait(name);
            player.tape.answered();
        });
    }
    scene.spawn(|player| {
        match player.mark("c") {
            Ok(()) => {}
            Err(ChangeError::InDoubt(_) | ChangeError::Rejected(Rejection::Poisoned(_))) => {
                assert!(matches!(player.ledger.health(), Health::Poisoned(_)));
            }
            Err(other) => panic!("{other}"),
        }
        // It ends, whatever it says.
        drop(block_on(player.ledger.record("c")));
        drop(block_on(player.ledger.checkpoint()));
        player.tape.answered();
    });
    scene.end();
}

fn scene_of_closing(attempts: usize, readers: u32, closers: u32) {
    let mut scene = Scene::begin(8);
    for name in &NAMES[..attempts] {
        scene.spawn(move |player| match player.launch(name) {
            // Once no handle is left, the end of the attempt is what ends the writer.
            Ok(attempt) => {
                drop(player);
                drop(attempt);
            }
            Err(Rejection::Closed) => player.wait(name),
            Err(other) => panic!("{other}"),
        });
    }
    for _ in 0..readers {
        scene.spawn(|player| {
            drop(block_on(player.ledger.record("a")));
            drop(block_on(player.ledger.checkpoint()));
        });
    }
    for _ in 0..closers {
        scene.spawn(|player| {
            player.close();
            assert_eq!(player.ledger.health(), Health::Closed);
        });
    }
    scene.end();
}

/// One permit for all, and callers that are dropped while they wait for it.
fn scene_of_little_room() {
    let mut scene = Scene::begin(1);
    for name in NAMES {
        scene.spawn(move |player| {
            let mut given_up = Box::pin(player.shared.permit());
            let mut context = Context::from_waker(Waker::noop());
            let polled = given_up.as_mut().poll(&mut context);
            if polled.is_ready() {
                player.shared.answered(1, 0);
            }
            thread::yield_now();
            drop(given_up);
            player.mark(name).unwrap();
        });
    }
    scene.end();
}

#[test]
fn one_attempt_at_a_time() {
    try_orders("one_attempt_at_a_time", scene_of_attempts);
}

#[test]
fn nobody_waits_for_ever_after_a_failed_write() {
    let scene = || scene_of_a_failure(Scene::failing());
    try_orders("nobody_waits_for_ever_after_a_failed_write", scene);
}

#[test]
fn a_group_is_durable_or_given_up_and_never_both() {
    let scene = || scene_of_a_failure(Scene::watched());
    try_orders("a_group_is_durable_or_given_up_and_never_both", scene);
}

#[test]
fn a_store_that_does_not_come_back_keeps_nobody() {
    let scene = || scene_of_a_failure(Scene::hanging());
    try_orders("a_store_that_does_not_come_back_keeps_nobody", scene);
}

#[test]
fn everybody_hears_of_the_close() {
    try_orders("everybody_hears_of_the_close", || scene_of_closing(2, 1, 2));
}

/// With next to nobody else there to wake the writer by chance.
#[test]
fn the_end_of_the_last_attempt_ends_the_writer() {
    try_orders("the_end_of_the_last_attempt_ends_the_writer", || scene_of_closing(1, 0, 0));
}

/// A writer that waits for two, who come when they like, is woken by the last of them.
fn scene_of_company() {
    let queue = Arc::new(Submissions::new());
    let callers: Vec<_> = NAMES
        .map(|name| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || drop(queue.submit(Request::mark(id(name))).unwrap()))
        })
        .into_iter()
        .collect();
    let company = Company { requests: NAMES.len(), within: Duration::from_secs(3600) };
    match queue.take(None, company) {
        Taken::Work { requests, .. } => assert_eq!(requests.len(), NAMES.len()),
        other @ (Taken::Idle | Taken::End) => panic!("{other:?}"),
    }
    callers.into_iter().for_each(|caller| caller.join().unwrap());
}

#[test]
fn company_that_comes_is_taken() {
    try_orders("company_that_comes_is_taken", scene_of_company);
}

/// A writer that waits for more than will come is woken by whatever else there is to do, in every order.
fn scene_of_no_company(what: fn(&Submissions)) {
    let queue = Arc::new(Submissions::new());
    let callers: Vec<_> = NAMES
        .map(|name| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || drop(queue.submit(Request::mark(id(name)))))
        })
        .into_iter()
        .collect();
    let other = thread::spawn({
        let queue = Arc::clone(&queue);
        move || what(&queue)
    });
    let company = Company { requests: NAMES.len() + 1, within: Duration::from_secs(3600) };
    // Every time anew, as the writer does.
    loop {
        match queue.take(None, company) {
            Taken::Work { errands, .. } => {
                if !errands.is_empty() {
                    queue.close();
                }
            }
            Taken::Idle => panic!("nobody told it when"),
            Taken::End => break,
        }
    }
    other.join().unwrap();
    callers.into_iter().for_each(|caller| caller.join().unwrap());
}

#[test]
fn a_close_ends_the_wait_for_company() {
    try_orders("a_close_ends_the_wait_for_company", || {
        scene_of_no_company(Submissions::close);
    });
}

#[test]
fn a_poison_ends_the_wait_for_company() {
    try_orders("a_poison_ends_the_wait_for_company", || {
        scene_of_no_company(|queue| {
            drop(queue.poison(&Poison::Failed("the disk is on fire".into())));
            queue.close();
        });
    });
}

#[test]
fn an_errand_ends_the_wait_for_company() {
    try_orders("an_errand_ends_the_wait_for_company", || {
        scene_of_no_company(|queue| {
            let (reply, _) = tokio::sync::oneshot::channel();
            queue.send(crate::submission::Errand::Read { id: id("a"), reply }).unwrap();
        });
    });
}

/// A success is buried, exhumed and buried again, while others ask for it: it is one at every moment.
fn scene_of_moving() {
    let index = Arc::new(Index::new());
    let moved = id("a");
    let tombstone = index.seal().tombstone(moved.as_bytes());
    let change = |state, grave| Change {
        id: moved.clone(),
        cell: Cell { state, ..Cell::ABSENT },
        key: None,
        life: Life::default(),
        moved: grave,
    };
    index.publish(vec![change(TaskState::Succeeded, None)]);
    let asking: Vec<_> = (0..2)
        .map(|_| {
            let (index, moved) = (Arc::clone(&index), moved.clone());
            thread::spawn(move || {
                for _ in 0..2 {
                    let found = index.state(moved.as_bytes());
                    assert_eq!(found, TaskState::Succeeded, "it was one all the time");
                }
            })
        })
        .collect();
    index.publish(vec![change(TaskState::NotFound, Some(Grave::Dug(tombstone)))]);
    index.publish(vec![change(TaskState::Succeeded, Some(Grave::Opened(tombstone)))]);
    index.publish(vec![change(TaskState::NotFound, Some(Grave::Dug(tombstone)))]);
    for asking in asking {
        asking.join().unwrap();
    }
}

#[test]
fn a_success_is_one_while_it_is_buried() {
    try_orders("a_success_is_one_while_it_is_buried", scene_of_moving);
}

#[test]
fn a_permit_is_never_lost() {
    try_orders("a_permit_is_never_lost", scene_of_little_room);
}
