//! Calls of `run`: what they are asked, what they execute and what they are told; and the operations
//! that this comes to.
//!
//! ```text
//!  call ---> execution begins ... returns, or is dropped ---> the next one ... ---> answer ---> over
//!       start                    end                     start                 look
//! ```
//!
//! A run is over when the work that it was given is dropped: everything that it does is on record
//! then. That tells when what a caller that has left does not hear has happened at the latest.

use super::linear::Op;
use super::model::{Asks, Cause, Did, End, Number, Start, Told};
use super::{Notes, Tasks};
use crate::Rng;
use std::future::{Future, poll_fn};
use std::num::NonZero;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;
use taskledger::{
    Claim, ClaimKind, Context, EffectKey, Failure, OnCrash, OnFailure, Rejection, Retry, RunError,
    TaskState,
};

/// The id of which each run says what its request is about. Its launches do not.
const FINGERPRINTED: &str = "c";

/// A call of `run`.
pub(super) struct Run {
    pub(super) id: &'static str,
    asks: Asks,
    called: u64,
    /// 0 if its caller left before.
    answered: u64,
    heard: Heard,
    /// The ledger was poisoned by then.
    late: bool,
    executions: Arc<Mutex<Vec<Execution>>>,
    over: Arc<AtomicU64>,
}

struct Execution {
    number: Number,
    attempt: u32,
    key: EffectKey,
    began: u64,
    /// When it returned, or was dropped.
    ended: u64,
    /// Whether it returned a success; `None` if it was dropped.
    good: Option<bool>,
}

/// What its caller was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Executed(Option<Number>),
    Failed(Number),
    /// Something that it has not executed; and whether it has waited for that.
    Told(Told, bool),
    /// Its end, or that of somebody else, could not be recorded.
    InDoubt,
    Rejected,
    /// Its caller has left.
    Nothing,
}

impl Run {
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst) != 0
    }

    /// In a word, to be counted.
    pub(super) const fn what(&self) -> &'static str {
        match self.heard {
            Heard::Executed(_) => "executed",
            Heard::Failed(_) => "failed",
            Heard::Told(Told::Success(_), true) => "joined a success",
            Heard::Told(Told::Success(_), false) => "replayed a success",
            Heard::Told(Told::Failure(_), true) => "joined a failure",
            Heard::Told(Told::Failure(_), false) => "replayed a failure",
            Heard::Told(Told::Held, _) => "held",
            Heard::Told(Told::GaveUp(_), _) => "given up",
            Heard::Told(Told::OtherRequest, _) => "another request",
            Heard::Told(Told::Refused, _) => "refused",
            Heard::InDoubt => "in doubt",
            Heard::Rejected => "rejected",
            Heard::Nothing => "left",
        }
    }

    /// The attempt of whose failure it was told when it had waited for that, and since when it has: what
    /// had failed before is no answer. (What had succeeded before is one, if it still stands. After a
    /// poison what was known is all that can be told.)
    pub(super) fn awaited(&self) -> Option<(Number, u64)> {
        match self.heard {
            Heard::Told(Told::Failure(Cause::Error(number)), true) if !self.late => {
                Some((number, self.called))
            }
            _ => None,
        }
    }

    /// What it comes to. `closing`: since when the ledger of this life is closed, which cancels what
    /// runs; `poisoned`: whether it was poisoned in this life; `numbers`: for what nobody has seen.
    pub(super) fn ops(
        &self,
        closing: u64,
        poisoned: bool,
        numbers: &AtomicU64,
    ) -> Result<Vec<Op>, String> {
        let Self { asks, called, answered, heard, .. } = *self;
        let over = self.over.load(Ordering::SeqCst);
        let executions = self.executions.lock().unwrap();
        let left = heard == Heard::Nothing;
        let last = if left { over } else { answered };
        // Nobody knows when, or whether, what is recorded after a poison was recorded.
        let unsure = |did, called| {
            let answered = if poisoned { u64::MAX } else { over };
            Op { did, called, answered, unsure: true }
        };
        let sure = |did, called, answered| Op { did, called, answered, unsure: false };
        let mut ops = Vec::new();
        let (mut since, mut after) = (called, None);
        for (at, execution) in executions.iter().enumerate() {
            let Execution { number, attempt, key, began, ended, good } = *execution;
            let start = Start { asks, came: called, after, told: Some((attempt, key)) };
            ops.push(sure(Did::Started(number, Some(start)), since, began));
            let end = Did::Ended(
                number,
                match good {
                    Some(true) => End::Success,
                    Some(false) => End::Error,
                    None => End::Cancelled(over),
                },
            );
            let next = executions.get(at + 1).map(|next| next.began);
            match (heard, good) {
                _ if next.is_some() => ops.push(sure(end, ended, next.unwrap_or(last))),
                (Heard::Executed(_), Some(true)) | (Heard::Failed(_), Some(false)) => {
                    ops.push(sure(end, ended, answered));
                }
                // It went on after that was recorded.
                (Heard::Told(..), Some(false)) => ops.push(sure(end, ended, answered)),
                (Heard::Nothing, Some(false)) => {
                    let end = if asks.with_caller { End::LeftError(over) } else { End::Error };
                    ops.push(unsure(Did::Ended(number, end), ended));
                    // Told to stop before it returned that.
                    ops.push(unsure(Did::Ended(number, End::Cancelled(over)), ended));
                }
                (Heard::Nothing, _) if !poisoned => {
                    ops.push(sure(end, ended, over));
                }
                (Heard::Nothing | Heard::InDoubt, _) => {
                    ops.push(unsure(end, ended));
                }
                _ => return Err(format!("a run has heard {heard:?} after {good:?}")),
            }
            (since, after) = (ended, Some(number));
        }
        drop(executions);
        let told = match heard {
            Heard::Executed(number) if number != after => {
                return Err(format!("a run has executed {after:?}, and heard {heard:?}"));
            }
            Heard::Failed(number) if Some(number) != after => {
                return Err(format!("a run has executed {after:?}, and heard {heard:?}"));
            }
            // What is told of a run that a poison has ended need not be what is on record.
            Heard::Told(Told::Failure(_), true) if self.late => None,
            Heard::Told(told, _) => Some(sure(Did::Told(told, asks.fingerprint), called, answered)),
            _ => None,
        };
        ops.extend(told);
        // An attempt may have been recorded without being begun: it was cancelled first, or that it was
        // recorded could not be told.
        let stops = left && (asks.with_caller || over >= closing);
        let unheard = self.late && matches!(heard, Heard::Failed(_) | Heard::Rejected);
        if stops || unheard || (left && poisoned) {
            let number = numbers.fetch_add(1, Ordering::SeqCst);
            let start = Start { asks, came: called, after, told: None };
            ops.push(unsure(Did::Started(number, Some(start)), since));
            ops.push(unsure(Did::Ended(number, End::Cancelled(over)), since));
        }
        let gives_up = asks.max_attempts.map(|most| unsure(Did::GaveUp(most), called));
        ops.extend(gives_up);
        Ok(ops)
    }
}

/// Notes when it is dropped.
struct Over(Arc<Notes>, Arc<AtomicU64>);

impl Drop for Over {
    fn drop(&mut self) {
        self.1.store(self.0.now(), Ordering::SeqCst);
    }
}

/// An execution under way.
struct Executing {
    notes: Arc<Notes>,
    executions: Arc<Mutex<Vec<Execution>>>,
    at: usize,
}

impl Executing {
    fn begin(
        notes: &Arc<Notes>,
        executions: &Arc<Mutex<Vec<Execution>>>,
        context: &Context<String>,
    ) -> Self {
        let number = notes.number();
        let (attempt, key) = (context.attempt().get(), context.effect_key());
        let mut all = executions.lock().unwrap();
        let began = notes.now();
        all.push(Execution { number, attempt, key, began, ended: 0, good: None });
        let at = all.len() - 1;
        drop(all);
        Self { notes: Arc::clone(notes), executions: Arc::clone(executions), at }
    }

    fn returns(self, good: bool) -> Result<u32, Number> {
        let number = {
            let execution = &mut self.executions.lock().unwrap()[self.at];
            (execution.ended, execution.good) = (self.notes.now(), Some(good));
            execution.number
        };
        if good { Ok(u32::try_from(number).unwrap()) } else { Err(number) }
    }
}

impl Drop for Executing {
    fn drop(&mut self) {
        let execution = &mut self.executions.lock().unwrap()[self.at];
        if execution.ended == 0 {
            execution.ended = self.notes.now();
        }
    }
}

fn some_asks(rng: &mut Rng, id: &str) -> Asks {
    Asks {
        fingerprint: if id == FINGERPRINTED { Some(*rng.pick(&[1, 1, 2])) } else { None },
        on_failure: *rng.pick(&[
            OnFailure::Run,
            OnFailure::Run,
            OnFailure::Replay,
            OnFailure::Refuse,
        ]),
        on_crash: *rng.pick(&[OnCrash::Run, OnCrash::Hold]),
        max_attempts: *rng.pick(&[None, None, Some(2), Some(3)]),
        with_caller: rng.below(3) == 0,
    }
}

/// One call of `run`, until it is answered or its caller has had enough of it.
pub(super) async fn run(ledger: &Tasks, notes: &Arc<Notes>, rng: &mut Rng, id: &'static str) {
    let asks = some_asks(rng, id);
    let executions = Arc::<Mutex<Vec<Execution>>>::default();
    let over = Arc::new(AtomicU64::new(0));
    let work = {
        let over = Over(Arc::clone(notes), Arc::clone(&over));
        let (executions, mut rng) = (Arc::clone(&executions), Rng::new(rng.next()));
        move |context: Context<String>| {
            let (good, yields) = (rng.below(3) > 0, rng.below(6));
            let executing = Executing::begin(&over.0, &executions, &context);
            async move {
                for _ in 0..yields {
                    tokio::task::yield_now().await;
                }
                executing.returns(good)
            }
        }
    };
    let mut task = ledger.task(id.to_owned()).on_failure(asks.on_failure).on_crash(asks.on_crash);
    if let Some(fingerprint) = asks.fingerprint {
        task = task.fingerprint([fingerprint]);
    }
    if let Some(most) = asks.max_attempts.and_then(NonZero::new) {
        task = task.max_attempts(most);
    }
    if asks.with_caller {
        task = task.cancel_with_caller();
    }
    if rng.coin() {
        task = task.cancel_grace(Duration::ZERO);
    }
    let attempts = *rng.pick(&[NonZero::<u32>::MIN, NonZero::new(3).unwrap()]);
    let pause = Duration::from_millis(rng.below(2));
    let retry = Retry::attempts(attempts).min_delay(pause).max_delay(pause);
    let patience = (rng.below(4) == 0).then(|| rng.below(24));
    let called = notes.now();
    let answer = patiently(patience, task.retry(retry).run(work)).await;
    let answered = if answer.is_some() { notes.now() } else { 0 };
    let late = notes.is_poisoned(ledger);
    let heard = match answer.map_or(Ok(Heard::Nothing), |answer| heard(answer, late)) {
        Ok(heard) => heard,
        Err(wrong) => return notes.wrong(format!("{id}: {wrong}")),
    };
    notes.ran(Run { id, asks, called, answered, heard, late, executions, over });
}

/// What comes of a future, unless it is dropped after so many polls of somebody who does not wait for it.
async fn patiently<T>(patience: Option<u64>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let Some(patience) = patience else { return Some(future.await) };
    for _ in 0..patience {
        let poll = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(answer) = poll {
            return Some(answer);
        }
        tokio::task::yield_now().await;
    }
    None
}

fn heard(answer: Result<Claim<u32>, RunError<u32, Number>>, late: bool) -> Result<Heard, String> {
    let error = match answer {
        Ok(Claim { kind, value, .. }) => {
            let value = value.map(Number::from);
            return Ok(match kind {
                ClaimKind::Executed => Heard::Executed(value),
                kind => Heard::Told(Told::Success(value), kind == ClaimKind::Joined),
            });
        }
        Err(error) => error,
    };
    Ok(match error {
        RunError::Failed(number) => Heard::Failed(number),
        RunError::Told { failure, kind } => {
            let told = match &failure {
                Failure::Error(text) => {
                    let number = text.parse().map_err(|_| format!("nobody has said {text}"))?;
                    Told::Failure(Cause::Error(number))
                }
                Failure::Cancelled(_) => Told::Failure(Cause::Cancelled),
                Failure::Resolved(_) => Told::Failure(Cause::Resolved),
                Failure::GaveUp { attempts, .. } => Told::GaveUp(*attempts),
                _ => return Err(format!("a run is told of {failure:?}")),
            };
            Heard::Told(told, kind == ClaimKind::Joined)
        }
        RunError::Held => Heard::Told(Told::Held, false),
        RunError::GaveUp { attempts } => Heard::Told(Told::GaveUp(attempts), false),
        RunError::OtherRequest { at: Some(_) } => Heard::Told(Told::OtherRequest, false),
        RunError::Refused { state: TaskState::Failed } => Heard::Told(Told::Refused, false),
        RunError::InDoubt { .. } if late => Heard::InDoubt,
        RunError::Rejected(Rejection::Poisoned(_)) | RunError::Change(_) | RunError::Read(_)
            if late =>
        {
            Heard::Rejected
        }
        other => return Err(format!("a run ends in {other:?}")),
    })
}
