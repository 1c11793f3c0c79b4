//! The one way to the writer.
//!
//! Callers append requests to the *forming* group under one short lock; the
//! writer takes the whole group and, while it syncs that one, the next forms.
//! The sync gathers company, and a wait of less than a sync for those who are
//! about to come back, see [`Company`]. One verdict answers a whole group, so a
//! request costs a slot in a shared list instead of a channel of its own.
//!
//! Submitting is the point of no return: who drops its [`Ticket`] afterwards
//! changes nothing but that nobody reads the answer.
//!
//! ```text
//!  submit --> forming group --take--> in flight --decide--> durable --publish, answer--> waiters wake
//!                   |                     |
//!                   +------- poison ------+--> every waiter gets the poison
//! ```
//!
//! Writer and watchdog race for the decision of a group in flight; one
//! compare-and-swap settles it, so a group is never both published and given up.

mod company;
mod errand;
mod request;

pub(crate) use company::{Company, Patience};
pub(crate) use errand::{Checkpointed, CopyOf, Errand, ReaderOf};
pub(crate) use request::{AttemptKey, Begin, ByKey, Request, Within};

use crate::error::{Poison, Rejection};
use crate::id::EncodedId;
use crate::sabotage::{self, Sabotage};
use crate::state::{Cell, TaskState};
use crate::sync::{Arc, AtomicU8, Condvar, Mutex, Ordering, lock};
use crate::wake;
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// What the writer says to a request once its group is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is recorded; this is the id's cell now (absent for a change of the metadata).
    Done(Cell),
    /// The id is in a state in which this is not done.
    Refused(TaskState),
    /// The end of an attempt that is not, or no longer, the current one.
    Superseded,
    /// There is no room for it among the metadata.
    NoRoom,
    /// What is known of the id, which is needed for it, cannot be read.
    Unreadable,
    /// The scope that it should run within has ended.
    ScopeEnded,
    /// The end of a scope within which something still runs: it is recorded after that.
    Deferred,
}

/// Requests that are made durable together, and the one verdict on them.
#[derive(Debug)]
pub(crate) struct Group {
    decision: AtomicU8,
    verdict: OnceLock<Result<Box<[Answer]>, Poison>>,
    /// `None` once the verdict is given. Not an async lock: held for a push or a take.
    wakers: Mutex<Option<Vec<Waker>>>,
}

/// Errands worth looking for abandoned ones among.
const CROWDED: usize = 64;

const UNDECIDED: u8 = 0;
const DURABLE: u8 = 1;
const GIVEN_UP: u8 = 2;

impl Group {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            decision: AtomicU8::new(UNDECIDED),
            verdict: OnceLock::new(),
            wakers: Mutex::new(Some(Vec::new())),
        })
    }

    /// Settles that the group is durable; false if it has been given up before.
    pub(crate) fn decide_durable(&self) -> bool {
        self.decide(DURABLE)
    }

    /// Settles that the group will never be acknowledged; false if it is durable already.
    pub(crate) fn decide_given_up(&self) -> bool {
        self.decide(GIVEN_UP)
    }

    fn decide(&self, decision: u8) -> bool {
        self.decision
            .compare_exchange(UNDECIDED, decision, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Whether the writer, which has lost its way, is to answer: nobody has, and nobody else will.
    pub(crate) fn is_left_unanswered(&self) -> bool {
        let decided_here =
            self.decide_given_up() || self.decision.load(Ordering::Acquire) == DURABLE;
        decided_here && self.verdict.get().is_none()
    }

    /// Answers everybody. Only whoever decided may, and only once.
    pub(crate) fn answer(&self, verdict: Result<Box<[Answer]>, Poison>) {
        let first = self.verdict.set(verdict).is_ok();
        debug_assert!(first, "a group is answered once");
        let wakers = lock(&self.wakers).take();
        for waker in wakers.into_iter().flatten() {
            wake::caught(|| waker.wake());
        }
    }
}

/// The place of one request in its group: a future of its answer.
#[derive(Debug)]
pub(crate) struct Ticket {
    group: Arc<Group>,
    place: usize,
    waker: Option<usize>,
}

impl Future for Ticket {
    type Output = Result<Answer, Poison>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.group.verdict.get().is_none() {
            // What becomes of a waker is foreign code, and the writer wants this lock.
            let waker = context.waker().clone();
            let before = match &mut *lock(&this.group.wakers) {
                None => Err(waker),
                Some(wakers) => Ok(match this.waker.and_then(|at| wakers.get_mut(at)) {
                    Some(place) => Some(std::mem::replace(place, waker)),
                    None => {
                        this.waker = Some(wakers.len());
                        wakers.push(waker);
                        None
                    }
                }),
            };
            if before.map(drop).is_ok() {
                return Poll::Pending;
            }
        }
        // The wakers are taken only after the verdict is set.
        match this.group.verdict.get() {
            Some(Ok(answers)) => match answers.get(this.place) {
                Some(answer) => Poll::Ready(Ok(*answer)),
                None => Poll::Ready(Ok(Answer::Superseded)),
            },
            Some(Err(poison)) => Poll::Ready(Err(poison.clone())),
            None => Poll::Pending,
        }
    }
}

/// Whether the ledger takes work.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// It does.
    Open,
    /// Only the notes and the ends of what runs.
    Closing,
    /// Nothing is recorded any more.
    Poisoned(Poison),
    /// The writer takes nothing any more.
    Ended,
}

#[derive(Debug)]
struct Forming {
    phase: Phase,
    requests: Vec<Request>,
    /// How many permits they have, to be given back with their answers.
    permits: usize,
    errands: Vec<Errand>,
    /// When there are so many errands, those of callers that are gone are dropped: so there are
    /// never many more than callers that wait.
    crowded: usize,
    group: Arc<Group>,
    /// Attempts and revokes submitted whose futures are not gone yet. The lock of the directory
    /// outlives them.
    live: usize,
    /// Nobody will submit new work any more; the writer ends when `live` is 0.
    closing: bool,
    waiting: bool,
    /// How many requests wake the writer if it waits.
    wanted: usize,
    /// The writer was told that nothing comes any more.
    ended: bool,
}

/// The submission queue.
#[derive(Debug)]
pub(crate) struct Submissions {
    /// A plain mutex: held for a push or a swap, never across I/O or foreign code.
    forming: Mutex<Forming>,
    ready: Condvar,
}

/// What the writer finds when it asks for work.
#[derive(Debug)]
pub(crate) enum Taken {
    /// A group to record, and errands to run after it. Either may be empty.
    Work { requests: Vec<Request>, permits: usize, group: Arc<Group>, errands: Vec<Errand> },
    /// Nothing came in the time given.
    Idle,
    /// Nothing will ever come.
    End,
}

impl Submissions {
    pub(crate) fn new() -> Self {
        Self {
            forming: Mutex::new(Forming {
                phase: Phase::Open,
                requests: Vec::new(),
                permits: 0,
                errands: Vec::new(),
                crowded: CROWDED,
                group: Group::new(),
                live: 0,
                closing: false,
                waiting: false,
                wanted: 1,
                ended: false,
            }),
            ready: Condvar::new(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        lock(&self.forming).phase.clone()
    }

    /// Why new work would be rejected now.
    pub(crate) fn rejection(&self) -> Option<Rejection> {
        lock(&self.forming).rejection()
    }

    /// Submits new work. With `Start` and `StartRevoke` an attempt begins to live, until
    /// [`leave`](Self::leave). What runs may note something until it ends, also while the ledger closes.
    pub(crate) fn submit(&self, request: Request) -> Result<Ticket, Rejection> {
        let mut forming = lock(&self.forming);
        let ends = matches!(forming.phase, Phase::Closing) && request.is_note();
        if let Some(rejection) = forming.rejection().filter(|_| !ends) {
            return Err(rejection);
        }
        forming.live += usize::from(request.begins());
        Ok(self.push(forming, request))
    }

    /// Submits new work, all in one group, for so many permits.
    pub(crate) fn submit_all(
        &self,
        requests: Vec<Request>,
        permits: usize,
    ) -> Result<Vec<Ticket>, Rejection> {
        let mut forming = lock(&self.forming);
        if let Some(rejection) = forming.rejection() {
            return Err(rejection);
        }
        let places = forming.requests.len()..forming.requests.len() + requests.len();
        forming.live += requests.iter().filter(|request| request.begins()).count();
        forming.requests.extend(requests);
        forming.permits += permits;
        self.wake_for_requests(&mut forming);
        let ticket = |place| Ticket { group: Arc::clone(&forming.group), place, waker: None };
        Ok(places.map(ticket).collect())
    }

    /// Submits the end of a live attempt: never waits, is taken while closing.
    pub(crate) fn submit_end(&self, end: Request) -> Result<Ticket, Poison> {
        let forming = lock(&self.forming);
        match &forming.phase {
            Phase::Open | Phase::Closing => Ok(self.push(forming, end)),
            Phase::Poisoned(poison) => Err(poison.clone()),
            // Unreachable while an attempt is live; the next open finds it as crashed.
            Phase::Ended => Err(Poison::Failed("the writer has ended".into())),
        }
    }

    /// A live attempt, with its future, is gone.
    pub(crate) fn leave(&self) {
        let mut forming = lock(&self.forming);
        forming.live = forming.live.saturating_sub(1);
        if forming.live == 0 && forming.closing && !sabotage::is(Sabotage::LoseWake) {
            self.wake(&mut forming);
        }
    }

    /// Submits an errand, unless the writer will not run it any more. A store that failed to write
    /// can still be read; one that panicked or is stuck is not touched again.
    pub(crate) fn send(&self, errand: Errand) -> Result<(), Phase> {
        let mut forming = lock(&self.forming);
        let runs = match (&forming.phase, &errand) {
            (Phase::Open | Phase::Closing, _) => true,
            (Phase::Poisoned(Poison::Failed(_)), Errand::Read { .. }) => !forming.ended,
            (Phase::Poisoned(_) | Phase::Ended, _) => false,
        };
        if !runs {
            return Err(forming.phase.clone());
        }
        forming.errands.push(errand);
        let abandoned = forming.abandoned();
        self.wake(&mut forming);
        drop(forming);
        // With somebody else's waker, so not under the lock.
        abandoned.into_iter().for_each(|errand| wake::caught(|| drop(errand)));
        Ok(())
    }

    /// Takes no new work from now on, and ends the writer when nothing is live.
    pub(crate) fn close(&self) {
        let mut forming = lock(&self.forming);
        forming.closing = true;
        if matches!(forming.phase, Phase::Open) {
            forming.phase = Phase::Closing;
        }
        self.wake(&mut forming);
    }

    /// Takes nothing any more, and answers what is forming. Returns the ids whose ends it gives
    /// up: nobody knows what the disk will say of them. The first poison stays.
    pub(crate) fn poison(&self, poison: &Poison) -> Vec<EncodedId> {
        let (requests, group, errands) = {
            let mut forming = lock(&self.forming);
            match forming.phase {
                // The last call into the store, its close, may be what fails.
                Phase::Open | Phase::Closing | Phase::Ended => {
                    forming.phase = Phase::Poisoned(poison.clone());
                }
                Phase::Poisoned(_) => return Vec::new(),
            }
            self.wake(&mut forming);
            (
                std::mem::take(&mut forming.requests),
                std::mem::replace(&mut forming.group, Group::new()),
                std::mem::take(&mut forming.errands),
            )
        };
        // Tells who waits for them, so not under the lock.
        errands.into_iter().for_each(|errand| wake::caught(|| drop(errand)));
        if group.decide_given_up() {
            group.answer(Err(poison.clone()));
        }
        // What was not an end has neither run nor reached the journal.
        requests
            .into_iter()
            .filter_map(|request| match request {
                Request::End { id, .. } => Some(id),
                Request::Start { .. }
                | Request::StartRevoke { .. }
                | Request::Note { .. }
                | Request::Change { .. }
                | Request::Resolve { .. }
                | Request::Prune { .. }
                | Request::SetMetadata { .. } => None,
            })
            .collect()
    }

    /// How many requests have been submitted since the last were taken.
    pub(crate) fn pending(&self) -> usize {
        lock(&self.forming).requests.len()
    }

    /// What there is to do; waits for it, up to `timeout`, and for its company.
    pub(crate) fn take(&self, timeout: Option<Duration>, company: Company) -> Taken {
        let mut forming = lock(&self.forming);
        let mut until = None;
        loop {
            let left = forming.wait_for(company, &mut until);
            if !left.is_zero() {
                forming.wanted = company.requests;
                forming.waiting = true;
                forming = self.wait(forming, Some(left)).0;
                forming.waiting = false;
                forming.wanted = 1;
                continue;
            }
            if !forming.requests.is_empty() || !forming.errands.is_empty() {
                return Taken::Work {
                    requests: std::mem::take(&mut forming.requests),
                    permits: std::mem::take(&mut forming.permits),
                    group: std::mem::replace(&mut forming.group, Group::new()),
                    errands: std::mem::take(&mut forming.errands),
                };
            }
            if forming.closing && forming.live == 0 {
                // Under the same lock: an errand that came after this would never be run.
                forming.ended = true;
                if matches!(forming.phase, Phase::Open | Phase::Closing) {
                    forming.phase = Phase::Ended;
                }
                return Taken::End;
            }
            forming.waiting = true;
            let (woken, timed_out) = self.wait(forming, timeout);
            forming = woken;
            forming.waiting = false;
            if timed_out && forming.requests.is_empty() && forming.errands.is_empty() {
                return Taken::Idle;
            }
        }
    }

    fn wait<'a>(
        &self,
        forming: crate::sync::MutexGuard<'a, Forming>,
        timeout: Option<Duration>,
    ) -> (crate::sync::MutexGuard<'a, Forming>, bool) {
        use std::sync::PoisonError;
        match timeout {
            Some(timeout) => {
                let (forming, result) = self
                    .ready
                    .wait_timeout(forming, timeout)
                    .unwrap_or_else(PoisonError::into_inner);
                (forming, result.timed_out())
            }
            None => (self.ready.wait(forming).unwrap_or_else(PoisonError::into_inner), false),
        }
    }

    fn push(&self, mut forming: crate::sync::MutexGuard<'_, Forming>, request: Request) -> Ticket {
        let ticket = Ticket {
            group: Arc::clone(&forming.group),
            place: forming.requests.len(),
            waker: None,
        };
        forming.permits += usize::from(request.holds_permit());
        forming.requests.push(request);
        self.wake_for_requests(&mut forming);
        ticket
    }

    /// Wakes the writer if it has waited for no more than there are.
    fn wake_for_requests(&self, forming: &mut Forming) {
        if forming.requests.len() >= forming.wanted {
            self.wake(forming);
        }
    }

    /// Wakes the writer if it waits; while it works it looks by itself.
    fn wake(&self, forming: &mut Forming) {
        if std::mem::take(&mut forming.waiting) {
            self.ready.notify_one();
        }
    }
}

impl Forming {
    /// The errands that nobody waits for any more, now and then.
    fn abandoned(&mut self) -> Vec<Errand> {
        if self.errands.len() < self.crowded {
            return Vec::new();
        }
        let (abandoned, wanted) =
            std::mem::take(&mut self.errands).into_iter().partition(Errand::is_abandoned);
        self.errands = wanted;
        self.crowded = CROWDED.max(2 * self.errands.len());
        abandoned
    }

    /// How long it is still worth to wait for company, by now.
    fn wait_for(&self, company: Company, until: &mut Option<Instant>) -> Duration {
        let open = matches!(self.phase, Phase::Open) && self.errands.is_empty();
        if !open || self.requests.len() >= company.requests || company.within.is_zero() {
            return Duration::ZERO;
        }
        let now = Instant::now();
        until.get_or_insert(now + company.within).saturating_duration_since(now)
    }

    fn rejection(&self) -> Option<Rejection> {
        match &self.phase {
            Phase::Open => None,
            Phase::Closing | Phase::Ended => Some(Rejection::Closed),
            Phase::Poisoned(poison) => Some(Rejection::Poisoned(poison.clone())),
        }
    }
}

#[cfg(test)]
mod tests;
