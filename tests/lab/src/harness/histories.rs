//! Histories: several clients on a few ids, the process dying and the disk failing in between, and
//! every answer held against an order in which it can have been given (`linear.rs`) if each id is what
//! it is said to be (`model.rs`). Some of the clients run what others launch, mark, resolve, revoke and
//! forget, and some of those leave before they are answered (`runs.rs`).
//!
//! A death is a copy of the journal at any moment: what had been answered by then must be in it,
//! what had not may be. A failing disk is an append that is told to have failed, whether or not it
//! is on the disk. Counts of all clients are held against the log (`counts.rs`): each must be that of
//! the end of a batch, not before the last one known to be published, nor behind the last one that was
//! appended by then; after a failed append that of the last one before it, whatever is on the disk.

mod counts;
mod linear;
mod model;
mod runs;

use super::{Harness, broken};
use crate::{Rng, Session, places};
use counts::{Count, Since};
use linear::{Op, Order, linearize};
use model::{Did, End, Kind, Number};
use runs::Run;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use taskledger::internals::Sabotage;
use taskledger::{
    AttemptError, Base, Cell, ChangeError, EncodedId, Health, Journal, JournalError, Ledger,
    MemoryJournal, Record, TaskDetails, TaskState, Verdict, Visit,
};

pub(super) const HARNESS: Harness = Harness {
    name: "histories",
    unit: "histories",
    ci: 200,
    full: 20_000,
    run,
    controls: &[
        broken(Sabotage::HoldBack, 200, &["has no order", "are said to be"]),
        broken(
            Sabotage::ForgetBatch,
            200,
            &["has no order", "are said to be", "cannot follow", "an illegal log"],
        ),
        broken(Sabotage::AnswerFirst, 400, &["has no order", "are said to be"]),
        broken(Sabotage::SkipReset, 1500, &["has no order", "are said to be", HANGS]),
        broken(Sabotage::SwallowFailure, 200, &["has no order", "are said to be", "follows where"]),
        broken(Sabotage::RunAgain, 100, &["has no order"]),
        broken(Sabotage::StartBlindly, 400, &["has no order"]),
        broken(Sabotage::TellOldNews, 400, &["has no order", "from before its call"]),
    ],
};

/// Such as for the end of what nobody runs.
const HANGS: &str = "somebody waits for ever";

/// Far more than a life takes: only to tell slow from never. A control may be found by just that.
fn never() -> Duration {
    Duration::from_secs(if crate::is_sabotaged() { 5 } else { 60 })
}

type Tasks = Ledger<String, u32>;

const IDS: [&str; 3] = ["a", "b", "c"];
const CLIENTS: u64 = 4;
/// Things that each client does in one life of the process; three lives are a history.
const DEEDS: u64 = 46;
const LIVES: u64 = 3;

fn run(session: &mut Session) {
    while session.goes_on() {
        let seed = session.rng.next();
        let notes = Arc::new(Notes::default());
        let outcome = places::run(history(seed, &notes));
        for (what, number) in &*notes.tried.lock().unwrap() {
            session.count(what, *number);
        }
        session.tried(outcome.map_err(|wrong| format!("history {seed}: {wrong}")));
    }
}

/// What all clients write down.
#[derive(Default)]
struct Notes {
    clock: AtomicU64,
    numbers: AtomicU64,
    /// Of the lives before this one.
    past: Mutex<BTreeMap<&'static str, Vec<Op>>>,
    /// Of this life of the process.
    ops: Mutex<BTreeMap<&'static str, Vec<Op>>>,
    runs: Mutex<Vec<Run>>,
    counts: Mutex<Vec<Count>>,
    /// Since when it is known at the latest that the ledger is poisoned; 0 for never.
    poisoned: AtomicU64,
    wrong: Mutex<Vec<String>>,
    /// What has been tried, and how often.
    tried: Mutex<BTreeMap<&'static str, u64>>,
}

impl Notes {
    fn now(&self) -> u64 {
        // Never 0, which stands for never.
        self.clock.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn note(&self, id: &'static str, did: Did, called: u64, answered: u64) {
        let op = Op { did, called, answered, unsure: false };
        self.ops.lock().unwrap().entry(id).or_default().push(op);
    }

    fn number(&self) -> Number {
        self.numbers.fetch_add(1, Ordering::SeqCst)
    }

    fn ran(&self, run: Run) {
        self.runs.lock().unwrap().push(run);
    }

    fn wrong(&self, wrong: String) {
        self.wrong.lock().unwrap().push(wrong);
    }

    /// Looks whether the ledger is poisoned.
    fn is_poisoned(&self, ledger: &Tasks) -> bool {
        let poisoned = matches!(ledger.health(), Health::Poisoned(_));
        if poisoned && self.poisoned.load(Ordering::SeqCst) == 0 {
            // Whoever is later than this one says nothing wrong.
            self.poisoned.store(self.now(), Ordering::SeqCst);
        }
        poisoned
    }

    fn tried(&self, what: &'static str, number: usize) {
        *self.tried.lock().unwrap().entry(what).or_default() += number as u64;
    }

    /// Of which no answer will come.
    fn unsure(&self, id: &'static str, did: Did, called: u64) {
        let op = Op { did, called, answered: u64::MAX, unsure: true };
        self.ops.lock().unwrap().entry(id).or_default().push(op);
    }
}

/// How long the log was after each append that has not failed.
type Ends = Arc<Mutex<Vec<usize>>>;

/// A journal in memory that fails at one append, with its records there or not, and yields.
struct Disk {
    inner: MemoryJournal,
    fails: Option<(u64, bool)>,
    appends: u64,
    length: usize,
    ends: Ends,
}

impl Journal for Disk {
    fn replay(&mut self, visit: &mut Visit<'_>) -> Result<Base, JournalError> {
        self.inner.replay(visit)
    }

    fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        std::thread::yield_now();
        self.appends += 1;
        let failed = Err(JournalError::Store("the disk is on fire".into()));
        match self.fails {
            Some((at, kept)) if at == self.appends => {
                if kept {
                    self.inner.append(records)?;
                }
                failed
            }
            _ => {
                self.inner.append(records)?;
                self.length += records.len();
                self.ends.lock().unwrap().push(self.length);
                Ok(())
            }
        }
    }

    fn read(&mut self, id: &EncodedId, cell: Cell) -> Result<TaskDetails, JournalError> {
        self.inner.read(id, cell)
    }

    fn close(&mut self) -> Result<(), JournalError> {
        self.inner.close()
    }
}

async fn history(seed: u64, notes: &Arc<Notes>) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let mut journal = MemoryJournal::new();
    let mut outcome = Ok(());
    for _ in 0..LIVES {
        let life = tokio::time::timeout(never(), life(journal, notes, &mut rng)).await;
        match life.unwrap_or_else(|_| Err(HANGS.to_owned())) {
            Ok(left) => journal = left,
            Err(wrong) => {
                outcome = Err(wrong);
                break;
            }
        }
    }
    let wrong = std::mem::take(&mut *notes.wrong.lock().unwrap());
    if let (Ok(()), Some(first)) = (&outcome, wrong.first()) {
        outcome = Err(first.clone());
    }
    let ops = std::mem::take(&mut *notes.past.lock().unwrap());
    notes.tried("operations", ops.values().map(Vec::len).sum());
    outcome?;
    for (id, ops) in &ops {
        match linearize(ops) {
            Order::Found => {}
            Order::None(longest) => {
                return Err(format!("{id} has no order: it comes to {longest}"));
            }
            Order::Unknown => notes.tried("too hard to tell", 1),
        }
    }
    Ok(())
}

/// One life of the process, from its open to its death. Returns what is on the disk then.
async fn life(
    journal: MemoryJournal,
    notes: &Arc<Notes>,
    rng: &mut Rng,
) -> Result<MemoryJournal, String> {
    let fails = (rng.below(3) == 0).then(|| (2 + rng.below(40), rng.coin()));
    let (ends, length) = (Ends::default(), journal.records().len());
    let disk = Disk { inner: journal.clone(), fails, appends: 0, length, ends: Arc::clone(&ends) };
    let opened = Tasks::builder().open_journal(disk).await;
    let ledger = opened.map_err(|error| format!("it does not open: {error:?}"))?;
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (ledger, notes, over) = (ledger.clone(), Arc::clone(notes), Arc::clone(&over));
        let (ends, mut rng) = (Arc::clone(&ends), Rng::new(rng.next()));
        clients.spawn(async move {
            for _ in 0..DEEDS {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                // The deeds of one client are one after the other.
                deed(&ledger, &notes, &mut rng).await;
                count(&ledger, &ends, &notes, &mut rng).await;
            }
        });
    }
    let dies = rng.coin();
    let patience = rng.below(400);
    let mut left = None;
    if dies {
        for _ in 0..patience {
            tokio::task::yield_now().await;
        }
        left = Some((notes.now(), journal.fork(), notes.now()));
        over.store(true, Ordering::SeqCst);
    }
    while let Some(ended) = clients.join_next().await {
        ended.map_err(|error| error.to_string())?;
    }
    // What still runs ends now, as far as this process is concerned.
    let closing = notes.now();
    drop(ledger.close_within(Duration::ZERO).await);
    let poisoned = notes.is_poisoned(&ledger);
    drop(ledger);
    settle(notes, closing, poisoned).await?;
    check_counts(notes, &journal, &ends);
    let (before, left, after) = left.unwrap_or_else(|| {
        let now = notes.now();
        (now, journal, now)
    });
    bury(notes, before, after);
    Ok(left)
}

/// Waits until all runs are over, and notes what they come to.
async fn settle(notes: &Notes, closing: u64, poisoned: bool) -> Result<(), String> {
    let runs = std::mem::take(&mut *notes.runs.lock().unwrap());
    let over = async {
        while !runs.iter().all(Run::is_over) {
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(places::NEVER, over).await;
    in_time.map_err(|_| "a run goes on when the ledger is closed".to_owned())?;
    let mut ops = notes.ops.lock().unwrap();
    for run in &runs {
        notes.tried(run.what(), 1);
        let done = run.ops(closing, poisoned, &notes.numbers)?;
        ops.entry(run.id).or_default().extend(done);
    }
    for (id, (number, called)) in runs.iter().filter_map(|run| Some((run.id, run.awaited()?))) {
        let has_failed = |op: &&mut Op| match op.did {
            Did::Ended(other, End::Error | End::LeftError(_)) => other == number,
            _ => false,
        };
        let end = ops.entry(id).or_default().iter_mut().find(has_failed);
        match end.filter(|end| end.answered >= called) {
            Some(end) => end.called = end.called.max(called),
            None => return Err(format!("{id}: a run is told of {number}, from before its call")),
        }
    }
    Ok(())
}

/// The process is dead: what it had not answered before its death is unsure, what it began after it
/// never was, and what it saw by then counts for nothing.
fn bury(notes: &Notes, before: u64, after: u64) {
    let died = notes.now();
    let poisoned = match notes.poisoned.swap(0, Ordering::SeqCst) {
        0 => u64::MAX,
        poisoned => poisoned,
    };
    let (mut ops, mut past) = (notes.ops.lock().unwrap(), notes.past.lock().unwrap());
    for id in IDS {
        let mut ops = ops.remove(id).unwrap_or_default();
        ops.retain_mut(|op| {
            // After a failed write nothing more is written. (What was can still take effect: at the end.)
            if op.unsure && op.called > poisoned {
                return false;
            }
            if op.answered <= before {
                return true;
            }
            if op.called >= after {
                return false;
            }
            op.unsure = true;
            op.answered = op.answered.min(after);
            !op.did.is_look()
        });
        ops.push(Op { did: Did::Died, called: died, answered: died, unsure: false });
        past.entry(id).or_default().extend(ops);
    }
}

async fn deed(ledger: &Tasks, notes: &Arc<Notes>, rng: &mut Rng) {
    let id = *rng.pick(&IDS);
    let own = id.to_owned();
    let called = notes.now();
    match rng.below(16) {
        0 | 1 => {
            let state = ledger.query_task_state_quick(id);
            notes.note(id, Did::Saw(state), called, notes.now());
        }
        2 => {
            let state = ledger.query_task_state(id).await;
            notes.note(id, Did::Saw(state), called, notes.now());
        }
        3 => match ledger.mark_succeeded(own).await {
            Ok(()) => notes.note(id, Did::Marked, called, notes.now()),
            Err(ChangeError::Refused { state }) => {
                notes.note(id, Did::Refused(Kind::Mark, state), called, notes.now());
            }
            Err(_) => notes.unsure(id, Did::Marked, called),
        },
        4 => match ledger.forget(id).await {
            Ok(()) => notes.note(id, Did::Forgotten, called, notes.now()),
            Err(ChangeError::Refused { state }) => {
                notes.note(id, Did::Refused(Kind::Forget, state), called, notes.now());
            }
            Err(_) => notes.unsure(id, Did::Forgotten, called),
        },
        5 => {
            let verdict = *rng.pick(&[Verdict::Succeeded, Verdict::Failed, Verdict::Retry]);
            match ledger.resolve(id, verdict, "").await {
                Ok(()) => notes.note(id, Did::Resolved(verdict), called, notes.now()),
                Err(ChangeError::Refused { state }) => {
                    notes.note(id, Did::Refused(Kind::Resolve, state), called, notes.now());
                }
                Err(_) => notes.unsure(id, Did::Resolved(verdict), called),
            }
        }
        6 | 7 => attempt(ledger, notes, rng, id, Kind::Revoke).await,
        8 | 9 => attempt(ledger, notes, rng, id, Kind::Launch).await,
        _ => runs::run(ledger, notes, rng, id).await,
    }
}

/// Two operations: the start, answered when the future is first polled; and the end, called when it
/// returns.
async fn attempt(ledger: &Tasks, notes: &Arc<Notes>, rng: &mut Rng, id: &'static str, kind: Kind) {
    let number = notes.number();
    let (good, yields) = (rng.below(3) > 0, rng.below(6));
    let (began, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let future = {
        let (notes, began, ended) = (Arc::clone(notes), Arc::clone(&began), Arc::clone(&ended));
        async move {
            began.store(notes.now(), Ordering::SeqCst);
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
            ended.store(notes.now(), Ordering::SeqCst);
            if good { Ok(u32::try_from(number).unwrap()) } else { Err(number) }
        }
    };
    let called = notes.now();
    let told = match kind {
        Kind::Revoke => ledger.revoke_task_block(id.to_owned(), future).await,
        _ => ledger.launch_block(id.to_owned(), future).await,
    };
    let answered = notes.now();
    let (began, ended) = (began.load(Ordering::SeqCst), ended.load(Ordering::SeqCst));
    let (start, end) = match kind {
        Kind::Revoke => (Did::RevokeStarted(number), Did::RevokeEnded(number, good)),
        _ => {
            let end = if good { End::Success } else { End::Error };
            (Did::Started(number, None), Did::Ended(number, end))
        }
    };
    if let Err(AttemptError::Refused { state, .. }) = told {
        return notes.note(id, Did::Refused(kind, state), called, answered);
    }
    match began {
        0 => return notes.unsure(id, start, called),
        began => notes.note(id, start, called, began),
    }
    match (told, ended) {
        (_, 0) => {
            // It was cancelled by the end of the process: an end all the same.
            let end = match kind {
                Kind::Revoke => Did::RevokeEnded(number, false),
                _ => Did::Ended(number, End::Cancelled(answered)),
            };
            notes.unsure(id, end, began);
        }
        (Ok(_) | Err(AttemptError::Failed(_)), ended) => notes.note(id, end, ended, answered),
        (Err(_), ended) => notes.unsure(id, end, ended),
    }
}

/// Counts ids, after a mark of its own if that can still be made.
async fn count(ledger: &Tasks, ends: &Ends, notes: &Notes, rng: &mut Rng) {
    let own = format!("counted {}", notes.now());
    let since = match ledger.mark_succeeded(own.clone()).await {
        Ok(()) => Since::Mark(own),
        Err(_) if notes.is_poisoned(ledger) => Since::End,
        Err(error) => {
            let wrong = format!("{own} is not marked: {error:?}");
            return notes.wrong(wrong);
        }
    };
    let states = [TaskState::Succeeded, TaskState::Failed, TaskState::Running, TaskState::Revoking];
    let state = (rng.below(5) > 0).then(|| *rng.pick(&states));
    let told = match state {
        None => ledger.all_tasks().len(),
        Some(TaskState::Succeeded) => ledger.succeeded_tasks().len(),
        Some(TaskState::Failed) => ledger.failed_tasks().len(),
        Some(TaskState::Running) => ledger.running_tasks().len(),
        Some(_) => ledger.revoking_tasks().len(),
    };
    let end = ends.lock().unwrap().last().copied().unwrap_or_default();
    notes.counts.lock().unwrap().push(Count { state, told, since, end });
}

/// Holds the counts of a life against the log. What comes to it now is behind all of them.
fn check_counts(notes: &Notes, journal: &MemoryJournal, ends: &Ends) {
    let counts = std::mem::take(&mut *notes.counts.lock().unwrap());
    let late = counts.iter().filter(|count| matches!(count.since, Since::End)).count();
    notes.tried("counts", counts.len());
    notes.tried("counts after a failed write", late);
    if let Err(wrong) = counts::check(&journal.records(), &ends.lock().unwrap(), &counts) {
        notes.wrong(wrong);
    }
}
