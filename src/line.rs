//! One handles, the others wait: a line for a problem that many run into at once.
//!
//! A server refuses a login that has expired, and fifty requests find out at the same time. One of them
//! should log in again while the others wait, and all should go on then. A mutex would make them log in
//! one after the other; a [`Line`] lets the first one handle it and tells the others what came of it.
//!
//! ```
//! use taskledger::line::{AcquireOutcome, Line, Waited};
//!
//! # async fn log_in() -> Result<(), String> { Ok(()) }
//! /// Logs in again, or waits for whoever does.
//! async fn renew(line: &Line) -> Result<(), String> {
//!     let token = match line.try_acquire_token() {
//!         AcquireOutcome::Success(token) => token,
//!         AcquireOutcome::Failure(wait) => match wait.await {
//!             Waited::Solved => return Ok(()),
//!             Waited::Failed(why) => return Err(why.to_string()),
//!             // Whoever had it is gone without a word, and this one is the next.
//!             Waited::TakeOver(token) => token,
//!         },
//!     };
//!     match log_in().await {
//!         Ok(()) => Ok(token.solve()),
//!         Err(why) => {
//!             token.fail(why.clone());
//!             Err(why)
//!         }
//!     }
//! }
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! assert_eq!(renew(&Line::new()).await, Ok(()));
//! # }
//! ```
//!
//! A *problem* begins when a token is handed out on a free line, and ends when its holder says that it is
//! [solved](Token::solve) or that it has [failed](Token::fail); all who wait are told. A holder that is
//! dropped without a word (by a panic, an abort, a timeout, or because it forgot) has vanished: exactly one
//! of those who wait gets the token, in the order in which they began to wait, and the others go on waiting.
//!
//! Nothing here blocks or awaits but a [`Wait`]: acquiring, releasing and dropping take a short lock under
//! which no foreign code runs. Nothing is on disk. [`Ledger::line`](crate::Ledger::line) has a line for
//! each key.

use crate::sabotage::{self, Sabotage};
use crate::sync::{Arc, Mutex, lock};
use crate::wake::caught;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc as StdArc;
use std::task::{Context, Poll, Waker};

mod keyed;

pub(crate) use keyed::Lines;

/// A problem that one handles while the others wait. Cloned to be shared: all clones are one line.
#[derive(Clone, Default)]
pub struct Line {
    shared: Arc<Shared>,
}

/// What all clones of a line share.
#[derive(Default)]
struct Shared {
    /// The problem that is handled, or the last one.
    problem: Mutex<Option<Arc<Problem>>>,
    /// Leaves the registry of the keyed lines when the line goes.
    _key: Option<keyed::Entry>,
}

/// From a token that is handed out on a free line to the word that ends it.
struct Problem(Mutex<State>);

struct State {
    stage: Stage,
    /// How many tokens of it have been handed out; what an earlier one says does not matter.
    tokens: u64,
    /// Those who wait, in the order in which they began to.
    waiters: BTreeMap<u64, Waker>,
    tickets: u64,
}

enum Stage {
    /// Somebody has the token.
    Held,
    /// The holder has vanished, and this one may take the token.
    Offered(u64),
    /// The holder has vanished, and nobody waited.
    Vacant,
    Solved,
    Failed(StdArc<str>),
}

/// Whether somebody handles the problem.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "whoever asks has to say what to do in each case")]
pub enum LineStatus {
    /// Nobody does.
    Free,
    /// Somebody does; this waits for it.
    Busy(Wait),
}

/// What became of a try to get the token.
#[derive(Debug)]
#[must_use = "a token that is dropped has vanished, and a problem is not to be handled by two"]
#[expect(clippy::exhaustive_enums, reason = "whoever asks has to say what to do in each case")]
pub enum AcquireOutcome {
    /// This one handles the problem.
    Success(Token),
    /// Somebody else does; this waits for it.
    Failure(Wait),
}

/// What came of waiting.
#[derive(Debug)]
#[must_use = "it may be the token, which others wait for"]
#[expect(clippy::exhaustive_enums, reason = "whoever asks has to say what to do in each case")]
pub enum Waited {
    /// The holder has solved the problem.
    Solved,
    /// The holder has failed to, and says why.
    Failed(StdArc<str>),
    /// The holder has vanished without a word, and this one is the next.
    TakeOver(Token),
}

/// A token that belongs to another line than the outcome it was held against; both are handed back.
#[derive(Debug)]
#[non_exhaustive]
pub struct OtherLine {
    /// What the try came to.
    pub outcome: AcquireOutcome,
    /// The token of the other line.
    pub token: Token,
}

impl fmt::Display for OtherLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the token belongs to another line")
    }
}

impl std::error::Error for OtherLine {}

impl Line {
    /// A free line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn keyed(entry: keyed::Entry) -> Self {
        let shared = Shared { problem: Mutex::default(), _key: Some(entry) };
        Self { shared: Arc::new(shared) }
    }

    /// Takes the token if nobody has it; else hands out what to wait on. It never waits itself.
    ///
    /// Whoever comes while a token whose holder has vanished is offered to one who waits gets in line
    /// behind that one.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskledger::line::{AcquireOutcome, Line, LineStatus};
    ///
    /// let line = Line::new();
    /// let AcquireOutcome::Success(token) = line.try_acquire_token() else { panic!("it is free") };
    /// assert!(matches!(line.try_acquire_token(), AcquireOutcome::Failure(_)));
    /// token.solve();
    /// assert!(matches!(line.status(), LineStatus::Free));
    /// ```
    pub fn try_acquire_token(&self) -> AcquireOutcome {
        let mut current = lock(&self.shared.problem);
        if let Some(problem) = &*current {
            let mut state = lock(&problem.0);
            match state.stage {
                Stage::Held | Stage::Offered(_) => {
                    drop(state);
                    return AcquireOutcome::Failure(self.wait_for(problem));
                }
                Stage::Vacant => {
                    let number = state.hand_out();
                    drop(state);
                    return AcquireOutcome::Success(self.token(problem, number));
                }
                Stage::Solved | Stage::Failed(_) => {}
            }
        }
        let problem = current.insert(Arc::new(Problem::held()));
        AcquireOutcome::Success(self.token(problem, 1))
    }

    /// Whether somebody handles the problem, without taking the token.
    #[must_use]
    pub fn status(&self) -> LineStatus {
        let current = lock(&self.shared.problem);
        let busy = current
            .as_ref()
            .filter(|problem| matches!(lock(&problem.0).stage, Stage::Held | Stage::Offered(_)));
        busy.map_or(LineStatus::Free, |problem| LineStatus::Busy(self.wait_for(problem)))
    }

    /// Takes the token from a holder that never gives it back: one that hangs, or that has leaked it. The
    /// holder counts as vanished, and what it says later does not matter. Tells whether there was one: who was
    /// offered the token has not got it before its [`Wait`] is polled, and passes it on when that is dropped.
    pub fn depose(&self) -> bool {
        let Some(problem) = lock(&self.shared.problem).clone() else { return false };
        let mut state = lock(&problem.0);
        let is_held = matches!(state.stage, Stage::Held);
        let next = if is_held { state.offer() } else { None };
        drop(state);
        wake(next);
        is_held
    }

    fn wait_for(&self, problem: &Arc<Problem>) -> Wait {
        Wait { line: self.clone(), problem: Arc::clone(problem), ticket: None }
    }

    fn token(&self, problem: &Arc<Problem>, number: u64) -> Token {
        Token { line: self.clone(), problem: Arc::clone(problem), number, said: false }
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl AcquireOutcome {
    /// Keeps a token that the caller has already: a try while one holds the token is refused, and this
    /// turns that into the success that it is.
    ///
    /// # Errors
    ///
    /// [`OtherLine`] if the token belongs to another line; nothing is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use taskledger::line::{AcquireOutcome, Line};
    ///
    /// let line = Line::new();
    /// let AcquireOutcome::Success(mine) = line.try_acquire_token() else { panic!("it is free") };
    /// // Tried again by the one who has it.
    /// let again = line.try_acquire_token().or_token(Some(mine))?;
    /// assert!(matches!(again, AcquireOutcome::Success(_)));
    ///
    /// let other = Line::new();
    /// let AcquireOutcome::Success(foreign) = other.try_acquire_token() else { panic!("it is free") };
    /// let refused = line.try_acquire_token().or_token(Some(foreign)).unwrap_err();
    /// refused.token.solve();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn or_token(self, token: Option<Token>) -> Result<Self, Box<OtherLine>> {
        let Some(token) = token else { return Ok(self) };
        let line = match &self {
            Self::Success(own) => &own.line,
            Self::Failure(wait) => &wait.line,
        };
        if !line.is(&token.line) {
            return Err(Box::new(OtherLine { outcome: self, token }));
        }
        match self {
            // The token given is one that was deposed, or whose problem is over.
            Self::Success(own) => Ok(Self::Success(own)),
            Self::Failure(_) if token.counts() => Ok(Self::Success(token)),
            Self::Failure(wait) => Ok(Self::Failure(wait)),
        }
    }
}

/// The right to handle the problem, and the duty to say what came of it.
///
/// Dropped without a word, its holder has vanished: see the [module](self). Each of its calls is
/// immediate.
#[must_use = "dropped without a word, its holder has vanished, and another one takes over"]
pub struct Token {
    line: Line,
    problem: Arc<Problem>,
    number: u64,
    said: bool,
}

impl Token {
    /// The problem is solved: all who wait are told, and the line is free.
    pub fn solve(self) {
        self.say(Stage::Solved);
    }

    /// The problem is not solved: all who wait are told why, and the line is free.
    pub fn fail(self, why: impl Into<StdArc<str>>) {
        let why = why.into();
        self.say(Stage::Failed(why));
    }

    /// The line that it belongs to.
    #[must_use]
    pub const fn line(&self) -> &Line {
        &self.line
    }

    /// Whether it is the token that counts: it has not been [deposed](Line::depose).
    fn counts(&self) -> bool {
        lock(&self.problem.0).counts(self.number)
    }

    fn say(mut self, stage: Stage) {
        self.said = true;
        let mut state = lock(&self.problem.0);
        if !state.counts(self.number) {
            return;
        }
        state.stage = stage;
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        waiters.into_values().for_each(|waker| wake(Some(waker)));
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if self.said {
            return;
        }
        let mut state = lock(&self.problem.0);
        let next = if state.counts(self.number) { state.offer() } else { None };
        drop(state);
        wake(next);
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

/// Waits for what comes of a problem that somebody else handles.
///
/// Its place in the line is taken when it is first polled. A clone waits for the same problem, in a place
/// of its own.
///
/// # Cancel safety
///
/// Dropping it gives up its place; a token that was about to be its own goes to the next one.
#[must_use = "it does nothing unless it is awaited"]
pub struct Wait {
    line: Line,
    problem: Arc<Problem>,
    ticket: Option<u64>,
}

impl Future for Wait {
    type Output = Waited;

    /// # Panics
    ///
    /// None: also when it is polled again after it was ready.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Waited> {
        let this = self.get_mut();
        // Foreign code, and so is the drop of the last one: neither under the lock.
        let waker = context.waker().clone();
        let mut state = lock(&this.problem.0);
        let (waited, replaced) = match &state.stage {
            Stage::Solved => (Some(Waited::Solved), None),
            Stage::Failed(why) => (Some(Waited::Failed(StdArc::clone(why))), None),
            Stage::Offered(ticket) if Some(*ticket) != this.ticket => {
                (None, state.enter(&mut this.ticket, waker))
            }
            Stage::Held => (None, state.enter(&mut this.ticket, waker)),
            Stage::Offered(_) | Stage::Vacant => {
                let number = state.hand_out();
                (Some(Waited::TakeOver(this.line.token(&this.problem, number))), None)
            }
        };
        if waited.is_some() {
            this.ticket = None;
        }
        drop(state);
        caught(|| drop(replaced));
        waited.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Clone for Wait {
    fn clone(&self) -> Self {
        self.line.wait_for(&self.problem)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = lock(&self.problem.0);
        let own = state.waiters.remove(&ticket);
        let offered = matches!(state.stage, Stage::Offered(to) if to == ticket);
        let passes_on = offered && !sabotage::is(Sabotage::KeepOffer);
        let next = if passes_on { state.offer() } else { None };
        drop(state);
        caught(|| drop(own));
        wake(next);
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").finish_non_exhaustive()
    }
}

impl Problem {
    fn held() -> Self {
        let waiters = BTreeMap::new();
        Self(Mutex::new(State { stage: Stage::Held, tokens: 1, waiters, tickets: 0 }))
    }
}

impl State {
    /// Whether this token is the one that is out.
    const fn counts(&self, number: u64) -> bool {
        matches!(self.stage, Stage::Held) && self.tokens == number
    }

    /// The number of the token that is handed out.
    fn hand_out(&mut self) -> u64 {
        self.stage = Stage::Held;
        self.tokens += 1;
        self.tokens
    }

    /// Offers the token, whose holder is gone without a word, to who has waited longest. Whom to wake.
    fn offer(&mut self) -> Option<Waker> {
        let next = self.waiters.pop_first();
        self.stage = next.as_ref().map_or(Stage::Vacant, |(ticket, _)| Stage::Offered(*ticket));
        next.map(|(_, waker)| waker)
    }

    /// Takes a place, or keeps it. The waker that was there.
    fn enter(&mut self, ticket: &mut Option<u64>, waker: Waker) -> Option<Waker> {
        let place = *ticket.get_or_insert_with(|| {
            self.tickets += 1;
            self.tickets
        });
        self.waiters.insert(place, waker)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        caught(|| waker.wake());
    }
}

#[cfg(test)]
mod tests;
