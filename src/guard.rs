//! The total answer: do this once, and give everybody the same answer.
//!
//! ```text
//!  run --somebody of this process is at it--> join: wait for the flight, take its result if it is new
//!   |
//!   +--nobody--> a flight, and a task that drives it:
//!        succeeded          the stored output                             replayed
//!        running, revoking  wait for that, then look again
//!        failed             the policies say: run it again, or not
//!        not found, or so   an attempt; if that fails: wait, and another   executed
//!        refused            somebody was faster: look again
//! ```
//!
//! A flight is of this process alone and only saves work: that at most one attempt runs, and that one
//! success is recorded, is the writer's doing. So whatever becomes of a flight, nothing is lost but
//! its company: who has joined it looks again.

mod claim;
mod context;
mod drive;
mod failed;
mod flight;
mod options;
mod resolve;

pub use claim::{Claim, ClaimKind};
pub use context::{Context, EffectKey};
pub(crate) use flight::Flights;
pub(crate) use options::Options;
pub use options::{Landed, OnCrash, OnFailure, Retry};
pub use resolve::Verdict;

use crate::attempt;
use crate::details::TaskDetails;
use crate::error::{Rejection, RunError};
use crate::foreign::{Contained, drop_caught};
use crate::id::{EncodedId, TaskId};
use crate::index::Seen;
use crate::ledger::{Ledger, TaskOutput, decoded};
use crate::measure::Claiming;
use crate::sabotage::{self, Sabotage};
use crate::scope::Name;
use crate::state::{Failure, Output, TaskState};
use crate::submission::AttemptKey;
use crate::sync::{Arc, Mutex};
use crate::task::needs_timer;
use crate::wake;
use drive::Drive;
use flight::{Begun, Joined, Landing, Leaves, Stored};
use std::fmt;
use std::future::Future;
use tokio::sync::oneshot;

/// Everything that a run is about, but for its result.
pub(crate) struct Run<K, V, W> {
    pub(crate) ledger: Ledger<K, V>,
    pub(crate) id: Arc<K>,
    pub(crate) encoded: EncodedId,
    pub(crate) options: Options<K, V>,
    pub(crate) work: Arc<Mutex<Contained<W>>>,
    /// The id as this request has found it. An attempt that ended with its caller, or its runtime, since
    /// then is no failure of this request, and does not count for it.
    pub(crate) came: Option<Seen>,
    /// The last attempts of those who left this request behind, whatever they had ended in.
    pub(crate) pardoned: Vec<AttemptKey>,
}

/// What becomes of a call when it comes to an id.
enum Comes<V, E> {
    /// Nobody is at it.
    First(Begun),
    Told(Answer<V, E>),
    /// It is to look again.
    Again,
}

type Answer<V, E> = Result<Claim<V>, RunError<V, E>>;

impl<K: TaskId, V: TaskOutput> Ledger<K, V> {
    /// Runs `work` for an id unless it has succeeded before, and gives everybody who asks the same
    /// answer. `work` is called once for each attempt, with what that should know of itself.
    ///
    /// * The first caller executes. Who comes while it runs *joins* it and gets the same value. No answer
    ///   is older than its call: what was revoked, forgotten or failed before is not joined.
    /// * A repeat after a success gets the stored output, without executing anything, across restarts.
    /// * After a failure or a crash it runs again; [`task`](Self::task) has other policies, retries,
    ///   deadlines and fingerprints.
    ///
    /// # Durability
    ///
    /// `work` is called only when *running* is on disk. When this returns `Ok`, the success is on disk.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it has begun, nothing has happened. After that **the attempt goes on** without
    /// its caller, and so do its retries, which keep the ledger open until they end or it is
    /// [closed](Self::close), unless
    /// [`cancel_with_caller`](crate::Task::cancel_with_caller) says otherwise. A caller that has
    /// joined can always be dropped.
    ///
    /// # Errors
    ///
    /// [`RunError`]: one variant for each thing a caller can do about it. A runtime without its time
    /// driver is rejected: waits and grace periods need it. A run within an attempt of the same id is
    /// rejected: it would wait for itself. (So would a run in a task that the attempt has spawned and waits
    /// for, one in its [probe](crate::Task::probe), and two ids that run each other, which nobody sees.)
    ///
    /// # Panics
    ///
    /// None: a panic of `work` is a recorded failure.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{ClaimKind, Ledger, MemoryJournal};
    /// # let ledger = Ledger::<u64, String>::builder().open_journal(MemoryJournal::new()).await?;
    /// let charge = |cx: taskledger::Context<u64>| async move {
    ///     // The service outside does it once for this key, however often it is asked.
    ///     Ok::<_, std::io::Error>(format!("charged, with key {}", cx.effect_key()))
    /// };
    /// let first = ledger.run(7, charge).await?;
    /// assert_eq!(first.kind, ClaimKind::Executed);
    /// let again = ledger.run(7, charge).await?;
    /// assert_eq!(again.kind, ClaimKind::Replayed);
    /// assert_eq!(again.value, first.value);
    /// # Ok(()) }
    /// ```
    pub async fn run<W, F, E>(&self, id: K, work: W) -> Result<Claim<V>, RunError<V, E>>
    where
        W: FnMut(Context<K>) -> F + Send + 'static,
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        self.task(id).run(work).await
    }

    /// As [`run`](Self::run), with all that was asked for.
    pub(crate) async fn run_with<W, F, E>(
        &self,
        id: K,
        options: Options<K, V>,
        retry: Retry<E>,
        work: W,
        claiming: &mut Claiming,
    ) -> Answer<V, E>
    where
        W: FnMut(Context<K>) -> F + Send + 'static,
        F: Future<Output = Result<V, E>> + Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        let encoded = EncodedId::encode::<K, K>(&id).map_err(Rejection::Id)?;
        let work = Arc::new(Mutex::new(Contained::new(work)));
        let (ledger, id) = (self.clone(), Arc::new(id));
        let mut run = Run { ledger, id, encoded, options, work, came: None, pardoned: Vec::new() };
        let begun = match run.begins().await {
            Ok(begun) => begun,
            Err(answer) => {
                // The id may panic.
                drop_caught(run);
                return answer;
            }
        };
        let leaves = run.options.cancel_with_caller || run.options.scope.is_some();
        let leaves = leaves.then(|| begun.flight());
        let (reply, answer) = oneshot::channel();
        let span = tracing::Span::current();
        let drive = async move {
            let scope = run.options.scope.clone();
            let mut drive = Drive::new(run, &begun, retry);
            let answer = begun.within(scope, drive.drive()).await;
            let ran = drive.own.is_some();
            // What the user has given is gone before anybody is told.
            let tells = std::mem::take(&mut drive.tells);
            drop_caught(drive);
            begun.land(&answer, tells);
            attempt::send(reply, (answer, ran));
        };
        drop(tokio::spawn(tracing::Instrument::instrument(drive, span)));
        let _leaves = leaves.map(Leaves::new);
        let (answer, ran) = answer.await.unwrap_or((Err(RunError::Lost), false));
        claiming.ran(ran);
        answer
    }
}

impl<K: TaskId, V: TaskOutput, W> Run<K, V, W> {
    fn name(&self) -> Name {
        Name::Id(Arc::clone(self.ledger.shared()), self.encoded.clone())
    }

    /// Until it is the first, or has an answer.
    async fn begins<E>(&mut self) -> Result<Begun, Answer<V, E>> {
        loop {
            match self.comes().await.map_err(Err)? {
                Comes::First(begun) => return Ok(begun),
                Comes::Told(answer) => return Err(answer),
                Comes::Again => {}
            }
        }
    }

    /// Somebody asks for it.
    async fn comes<E>(&mut self) -> Result<Comes<V, E>, RunError<V, E>> {
        let shared = Arc::clone(self.ledger.shared());
        // What is certain needs neither a task nor a flight.
        if self.ledger.state(&self.encoded) == TaskState::Succeeded {
            if sabotage::is(Sabotage::RunAgain) && self.ledger.forget(&*self.id).await.is_ok() {
                return Ok(Comes::Again);
            }
            let details = self.in_time(self.details()).await??;
            let claim = self.replay(ClaimKind::Replayed, details)?;
            return Ok(claim.map_or(Comes::Again, |claim| Comes::Told(Ok(claim))));
        }
        if attempt::is_within_id(&shared, &self.encoded) {
            return Err(Rejection::FromWithinAttempt.into());
        }
        let cap = shared.options.output_cap;
        if self.options.output_bytes.is_some_and(|bytes| bytes > cap) {
            return Err(Rejection::Output { cap }.into());
        }
        needs_timer()?;
        self.came.get_or_insert_with(|| shared.index.seen(self.encoded.as_bytes()));
        let fingerprint = self.options.fingerprint;
        match shared.flights.join_or_begin(&shared.index, &self.encoded, fingerprint) {
            Joined::Own(begun) => Ok(Comes::First(begun)),
            Joined::Other(flight, seen) => {
                // It has none to be compared with, but what it may be waiting for has.
                if fingerprint.is_some() && !flight.has_fingerprint() {
                    if let Some(details) = self.in_time(self.details()).await?? {
                        self.same_request(Stored::of(&details))?;
                    }
                }
                let (landing, request) = self.waits(flight.landed()).await?;
                let Some(answer) = self.hears(landing, &seen) else { return Ok(Comes::Again) };
                self.same_request(request)?;
                Ok(Comes::Told(answer))
            }
            Joined::Stranger(flight) => {
                // Until its attempt is on record, it may still make way for this one.
                if self.waits(flight.begins()).await? {
                    if let Some(details) = self.in_time(self.details()).await?? {
                        self.same_request(Stored::of(&details))?;
                    }
                    // On record is something else by now, which it has to hear of first.
                    self.waits(flight.landed()).await?;
                }
                Ok(Comes::Again)
            }
        }
    }

    /// Waits for others, until it is too late, or its scope has ended.
    async fn waits<T, E>(&self, others: impl Future<Output = T>) -> Result<T, RunError<V, E>> {
        let others = async {
            match &self.options.scope {
                Some(scope) => wake::unless(others, scope.ends()).await,
                None => Some(others.await),
            }
        };
        self.in_time(others).await?.ok_or_else(|| Rejection::ScopeEnded.into())
    }

    /// What others do, unless it is too late.
    async fn in_time<T, E>(&self, others: impl Future<Output = T>) -> Result<T, RunError<V, E>> {
        match self.options.deadline {
            None => Ok(others.await),
            Some(deadline) => {
                needs_timer()?;
                let in_time = tokio::time::timeout_at(deadline, others).await;
                in_time.map_err(|_| RunError::TimedOut)
            }
        }
    }

    /// What a flight came to, for a caller that found the id like this when it joined; `None` if that
    /// is no answer to it, and it has to look again.
    fn hears<E>(&mut self, landing: Landing, seen: &Seen) -> Option<Answer<V, E>> {
        match landing {
            Landing::Succeeded(bytes) => {
                let value = bytes.map(|bytes| decoded(&bytes)).transpose();
                let claim = value.map(|value| Claim { kind: ClaimKind::Joined, value });
                Some(claim.map_err(RunError::from))
            }
            // One that was on record already is not what it has waited for.
            Landing::Failed { failure, whom } => {
                whom.has(seen).then_some(Err(RunError::Told { failure, kind: ClaimKind::Joined }))
            }
            Landing::Held { probed } => {
                let held = match self.options.on_crash {
                    OnCrash::Run => false,
                    OnCrash::Hold => true,
                    // It has one of its own.
                    OnCrash::Ask => probed,
                };
                held.then_some(Err(RunError::Held))
            }
            Landing::InDoubt(poison) => Some(Err(RunError::InDoubt { outcome: None, poison })),
            Landing::Left(latest) => {
                self.pardoned.extend(latest.keys());
                None
            }
            Landing::Gone => None,
        }
    }

    /// The details of the id, of which there are some.
    async fn details<E>(&self) -> Result<Option<TaskDetails>, RunError<V, E>> {
        Ok(self.ledger.details(self.encoded.clone()).await?)
    }

    /// The stored output of the id; `None` if it has not succeeded any more.
    fn replay<E>(
        &self,
        kind: ClaimKind,
        details: Option<TaskDetails>,
    ) -> Result<Option<Claim<V>>, RunError<V, E>> {
        let Some(details) = details.filter(|found| found.state() == TaskState::Succeeded) else {
            return Ok(None);
        };
        self.same_request(Stored::of(&details))?;
        let value = match &details.output {
            Output::Kept(bytes) => Some(decoded(bytes)?),
            Output::Absent | Output::NotKept(_) => None,
        };
        Ok(Some(Claim { kind, value }))
    }

    /// Whether what is stored may be its own.
    fn same_request<E>(&self, stored: Option<Stored>) -> Result<(), RunError<V, E>> {
        match (self.options.fingerprint, stored) {
            (Some(own), Some(Stored { fingerprint, at })) if own != fingerprint => {
                Err(RunError::OtherRequest { at })
            }
            _ => Ok(()),
        }
    }
}

/// Of a failure that is told to others, its text.
fn failure_of<V, E: fmt::Debug>(error: &RunError<V, E>) -> Option<Failure> {
    Some(match error {
        RunError::Failed(error) => Failure::Error(attempt::debug_text(error)),
        RunError::Panicked(text) => Failure::Panicked(text.clone()),
        RunError::Cancelled(text) => Failure::Cancelled(text.clone()),
        RunError::TimedOut => Failure::TimedOut,
        RunError::Told { failure, .. } => failure.clone(),
        RunError::GaveUp { attempts } => {
            Failure::GaveUp { attempts: *attempts, last: String::new() }
        }
        RunError::Held
        | RunError::OtherRequest { .. }
        | RunError::Refused { .. }
        | RunError::Rejected(_)
        | RunError::InDoubt { .. }
        | RunError::Superseded { .. }
        | RunError::Read(_)
        | RunError::Change(_)
        | RunError::Lost => return None,
    })
}
