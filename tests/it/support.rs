//! What several modules share: gates instead of sleeps, bounded polling instead of deadlines, and
//! a journal that does at any call what a test wants.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use taskledger::{
    Base, Cell, EncodedId, Journal, JournalError, Ledger, MemoryJournal, Reader, Record, SeqNo,
    TaskDetails, Upkeep, Visit,
};

/// The ledger of most tests.
pub(crate) type Tasks = Ledger<String, u32>;

pub(crate) async fn open(journal: impl Journal) -> Tasks {
    Tasks::builder().open_journal(journal).await.unwrap()
}

/// A ledger in memory, and its journal.
pub(crate) async fn fresh() -> (Tasks, MemoryJournal) {
    let journal = MemoryJournal::new();
    (open(journal.clone()).await, journal)
}

pub(crate) fn name(name: &str) -> String {
    name.to_owned()
}

/// A future that succeeds.
pub(crate) async fn ok(value: u32) -> Result<u32, String> {
    Ok(value)
}

/// A future that never ends.
pub(crate) async fn never() -> Result<u32, String> {
    std::future::pending().await
}

/// Something that others wait for, without any clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<(Mutex<(bool, usize)>, Condvar)>);

impl Gate {
    /// Blocks the thread until the gate is open.
    pub(crate) fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.1 += 1;
        while !state.0 {
            state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn open(&self) {
        self.0.0.lock().unwrap().0 = true;
        self.0.1.notify_all();
    }

    /// How many have come to the gate.
    pub(crate) fn arrived(&self) -> usize {
        self.0.0.lock().unwrap().1
    }

    pub(crate) async fn somebody_waits(&self) {
        until(|| self.arrived() > 0).await;
    }
}

/// Yields until it is so; a bound on the turns is what fails instead of a clock.
pub(crate) async fn until(is_so: impl Fn() -> bool) {
    for _ in 0..3_000_000 {
        if is_so() {
            return;
        }
        tokio::task::yield_now().await;
        std::thread::yield_now();
    }
    panic!("it never comes to that");
}

/// Polls one future by hand.
pub(crate) struct Hand<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + 'a>>,
    woken: Arc<Woken>,
    pub(crate) polls: usize,
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl<'a, T> Hand<'a, T> {
    pub(crate) fn new(future: impl Future<Output = T> + 'a) -> Self {
        Self { future: Box::pin(future), woken: Arc::default(), polls: 0 }
    }

    pub(crate) fn poll(&mut self) -> Poll<T> {
        self.polls += 1;
        self.woken.0.store(0, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&self.woken));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::SeqCst) > 0
    }

    /// Polls it whenever it is woken, until it is ready.
    pub(crate) async fn finish(mut self) -> T {
        loop {
            if let Poll::Ready(output) = self.poll() {
                return output;
            }
            until(|| self.is_woken()).await;
        }
    }
}

/// A call of a journal; appends are counted from 0, which is that of the open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Replay,
    Append(usize),
    Read,
    Upkeep,
    Close,
    Drop,
}

/// What becomes of a call.
#[derive(Clone, Debug)]
pub(crate) enum Then {
    GoOn,
    Fail,
    /// It reaches the disk, and is reported as failed.
    FailAfterwards,
    Panic,
    PanicAfterwards,
    /// Goes on when the gate opens.
    Wait(Gate),
}

/// A journal in memory whose every call a test decides on.
pub(crate) struct Hooked {
    inner: MemoryJournal,
    appends: usize,
    hook: Box<dyn FnMut(Call) -> Then + Send>,
    /// Whether checkpoints fail, which the log survives.
    pub(crate) checkpoints_fail: Arc<AtomicBool>,
}

impl Hooked {
    pub(crate) fn new(
        inner: &MemoryJournal,
        hook: impl FnMut(Call) -> Then + Send + 'static,
    ) -> Self {
        Self {
            inner: inner.clone(),
            appends: 0,
            hook: Box::new(hook),
            checkpoints_fail: Arc::default(),
        }
    }

    /// Appends wait at the gate, once the other says so.
    pub(crate) fn gated(inner: &MemoryJournal) -> (Self, Gate, Arc<AtomicBool>) {
        let (gate, armed) = (Gate::default(), Arc::new(AtomicBool::new(false)));
        let (waits, when) = (gate.clone(), Arc::clone(&armed));
        let journal = Self::new(inner, move |call| match call {
            Call::Append(_) if when.load(Ordering::SeqCst) => Then::Wait(waits.clone()),
            _ => Then::GoOn,
        });
        (journal, gate, armed)
    }

    /// Does this at one append, and nothing else.
    pub(crate) fn at_append(inner: &MemoryJournal, at: usize, then: Then) -> Self {
        Self::new(
            inner,
            move |call| {
                if call == Call::Append(at) { then.clone() } else { Then::GoOn }
            },
        )
    }

    fn call<T>(
        &mut self,
        call: Call,
        inner: impl FnOnce(&mut MemoryJournal) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let failed = || JournalError::Store(format!("{call:?} fails"));
        match (self.hook)(call) {
            Then::GoOn => inner(&mut self.inner),
            Then::Fail => Err(failed()),
            Then::FailAfterwards => inner(&mut self.inner).and_then(|_| Err(failed())),
            Then::Panic => panic!("{call:?} panics"),
            Then::PanicAfterwards => {
                drop(inner(&mut self.inner));
                panic!("{call:?} panics")
            }
            Then::Wait(gate) => {
                gate.pass();
                inner(&mut self.inner)
            }
        }
    }
}

impl Journal for Hooked {
    fn replay(&mut self, visit: &mut Visit<'_>) -> Result<Base, JournalError> {
        self.call(Call::Replay, |inner| inner.replay(visit))
    }

    fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let at = self.appends;
        self.appends += 1;
        self.call(Call::Append(at), |inner| inner.append(records))
    }

    fn read(&mut self, id: &EncodedId, cell: Cell) -> Result<TaskDetails, JournalError> {
        self.call(Call::Read, |inner| inner.read(id, cell))
    }

    fn upkeep(&mut self, wanted: Option<SeqNo>) -> Result<Upkeep, JournalError> {
        if wanted.is_some() && self.checkpoints_fail.load(Ordering::SeqCst) {
            let mut upkeep = Upkeep::default();
            upkeep.failed = Some(JournalError::Store("no room to fold".into()));
            return Ok(upkeep);
        }
        self.call(Call::Upkeep, |inner| inner.upkeep(wanted))
    }

    fn reader(&mut self) -> Option<(SeqNo, Reader)> {
        self.inner.reader()
    }

    fn close(&mut self) -> Result<(), JournalError> {
        self.call(Call::Close, Journal::close)
    }
}

impl Drop for Hooked {
    fn drop(&mut self) {
        drop(self.call(Call::Drop, |_| Ok(())));
    }
}

/// What comes of it, if that does not take for ever.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    let long = std::time::Duration::from_secs(60);
    tokio::time::timeout(long, future).await.expect("it never ends")
}

/// What the next process finds when this one dies with `id` running.
pub(crate) async fn crashed(id: &str) -> (Tasks, MemoryJournal) {
    let (ledger, journal) = fresh().await;
    ledger.launch(name(id), never()).await.unwrap();
    let next = journal.fork();
    (open(next.clone()).await, next)
}

/// Panics when it is dropped.
#[derive(Debug)]
pub(crate) struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a bomb was dropped")
        }
    }
}
