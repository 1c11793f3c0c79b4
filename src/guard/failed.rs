//! What a run makes of an id that has failed: the policies.

use super::drive::{Drive, Look, Own, ended_with_its_caller};
use super::flight::{Stored, Whom};
use super::{ClaimKind, Context, Landed, OnCrash, OnFailure, Run};
use crate::attempt::{self, MAX_FAILURE_BYTES};
use crate::details::TaskDetails;
use crate::error::{ChangeError, Rejection, RunError, panic_text};
use crate::foreign::{Contained, drop_caught};
use crate::id::TaskId;
use crate::index::Seen;
use crate::ledger::TaskOutput;
use crate::scope::Membership;
use crate::state::{Event, Failure, Output, SeqNo, TaskState};
use crate::submission::Request;
use crate::sync::{Arc, lock};
use crate::wake;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task;
use tokio::time::Instant;
use tracing::Instrument as _;

/// What a probe has found out about a crash.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// It has not happened.
    Nothing,
    /// It has, and this is what came of it.
    Success(Output),
    /// It could not tell.
    Unknown,
}

impl<K: TaskId, V: TaskOutput, W> Run<K, V, W> {
    /// Of so many attempts of a life that have ended with whoever had begun them, those since this request
    /// came.
    fn spared(&self, since: SeqNo, left: u32) -> u32 {
        // Those of a life that began later are all of them.
        let before = self.came.filter(|came| since <= came.cell.seq).map_or(0, |came| came.left);
        left.saturating_sub(before)
    }

    /// Whether there may be no attempt after this one, when so many of its life had left.
    pub(super) fn is_worn(&self, last: Own, left: u32) -> bool {
        let counted = last.attempt.get().saturating_sub(self.spared(last.since, left));
        self.options.max_attempts.is_some_and(|most| counted >= most.get())
    }
}

impl<K, V, W, F, E> Drive<'_, K, V, W, E>
where
    K: TaskId,
    V: TaskOutput,
    W: FnMut(Context<K>) -> F + Send + 'static,
    F: Future<Output = Result<V, E>> + Send + 'static,
    E: fmt::Debug + Send + 'static,
{
    /// Records what was decided of the id; `None` if it is stopped before there is room for that.
    async fn change(&mut self, request: Request) -> Option<Result<(), ChangeError>> {
        let ledger = &self.run.ledger;
        Some(match self.begun.unless_stopped(None, ledger.shared().permit()).await? {
            Ok(()) => ledger.change_with_permit(request).await,
            Err(reason) => Err(reason.into()),
        })
    }

    async fn give_up(&mut self, details: &TaskDetails) -> Option<Result<Failure, ChangeError>> {
        let last = details.failure.as_ref().map(Failure::to_string).unwrap_or_default();
        let last = attempt::cut_at(last, MAX_FAILURE_BYTES);
        let failure = Failure::GaveUp { attempts: details.attempt().get(), last };
        let event = Event::Resolved { failure: failure.clone() };
        let (id, after) = (self.run.encoded.clone(), Some(details.cell.seq));
        let changed = self.change(Request::Change { id, event, after }).await?;
        Some(changed.map(|()| failure))
    }

    /// What the policies say of an id that has failed, in this very run or before.
    pub(super) async fn after_failure(&mut self, seen: &Seen) -> Result<Look, RunError<V, E>> {
        let details = self.details().await?.filter(|details| details.cell == seen.cell);
        let Some(mut details) = details else { return Ok(Look::Again) };
        // No ledger records a failure without a reason, but a journal may have been told of one. Nobody
        // knows what came of it then.
        let failure = details.failure.get_or_insert(Failure::Crashed).clone();
        let own = self.own.is_some_and(|own| {
            (own.attempt, own.since) == (details.attempt(), details.since) && !is_verdict(&failure)
        });
        if own {
            return self.unless_worn(seen, &details).await;
        }
        // It is released to be tried again, which is not to be another request's.
        let same = self.run.same_request(Stored::of(&details));
        if matches!(failure, Failure::Released(_)) && same.is_ok() {
            return Ok(Look::Now);
        }
        // Others have taken it up between two attempts of this run, which has no more then.
        if let Some(last) = self.take_last() {
            // What ended with its caller is nobody's failure: who came before that of this run is told that.
            if !ended_with_its_caller(&failure) {
                self.tells.whom = Whom::Before(details.cell, seen.key);
                self.tells.failure = Some(failure);
            }
            return Err(last);
        }
        same?;
        if let Failure::GaveUp { attempts, .. } = failure {
            return Err(RunError::GaveUp { attempts });
        }
        if details.has_crashed() {
            match self.run.options.on_crash {
                OnCrash::Run if failure == Failure::Crashed => {
                    return self.unless_worn(seen, &details).await;
                }
                OnCrash::Run => {}
                OnCrash::Hold => return Err(RunError::Held),
                OnCrash::Ask => {
                    if let Some(look) = self.after_crash(seen, &details).await? {
                        return Ok(look);
                    }
                }
            }
        }
        let left = seen.key.is_some_and(|key| self.run.pardoned.contains(&key));
        let spared = self.run.spared(details.since, seen.left) > 0;
        if left || (spared && ended_with_its_caller(&failure)) {
            return self.unless_worn(seen, &details).await;
        }
        match self.run.options.on_failure {
            OnFailure::Run => self.unless_worn(seen, &details).await,
            OnFailure::Replay => Err(RunError::Told { failure, kind: ClaimKind::Replayed }),
            OnFailure::Refuse => Err(RunError::Refused { state: TaskState::Failed }),
        }
    }

    /// Another attempt, if there may be one.
    async fn unless_worn(
        &mut self,
        seen: &Seen,
        details: &TaskDetails,
    ) -> Result<Look, RunError<V, E>> {
        let last = Own { attempt: details.attempt(), since: details.since };
        if !self.run.is_worn(last, seen.left) {
            return Ok(Look::Go);
        }
        if let Some(Failure::Resolved(_)) = details.failure {
            // What somebody has found out stays on record.
            return Err(RunError::GaveUp { attempts: details.attempt().get() });
        }
        match self.give_up(details).await {
            Some(Ok(failure)) => {
                (self.tells.whom, self.tells.failure) = (Whom::All, Some(failure));
                Err(RunError::GaveUp { attempts: details.attempt().get() })
            }
            // Something has happened since.
            None | Some(Err(ChangeError::Refused { .. })) => Ok(Look::Again),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// After the last attempt: a next run is not to begin with finding that out.
    pub(super) async fn give_up_if_worn(&mut self, left: u32) {
        let Some(own) = self.own.filter(|own| self.run.is_worn(*own, left)) else { return };
        let read = self.begun.unless_stopped(None, self.run.details::<E>()).await;
        let Some(Ok(Some(details))) = read else { return };
        let same = (details.attempt(), details.since) == (own.attempt, own.since);
        if same && details.failure.as_ref().is_some_and(|failure| !is_verdict(failure)) {
            // If not now, the next run does.
            drop(self.give_up(&details).await);
        }
    }

    /// It may have happened, which the probe finds out; `None` if it has not, and this is a failure like any
    /// other.
    async fn after_crash(
        &mut self,
        seen: &Seen,
        details: &TaskDetails,
    ) -> Result<Option<Look>, RunError<V, E>> {
        // No other attempt of this life crashes as long as this process lives.
        let life = details.since;
        match self.found.clone().filter(|(asked, _)| *asked == life) {
            Some((_, Found::Nothing)) if details.failure != Some(Failure::Crashed) => Ok(None),
            Some((_, Found::Nothing)) => self.unless_worn(seen, details).await.map(Some),
            Some((_, Found::Success(output))) => self.has_landed(details, output).await.map(Some),
            Some((_, Found::Unknown)) => Err(RunError::Held),
            None => {
                let found = self.ask(details).await?;
                self.found = found.map(|found| (life, found));
                // Whatever has happened meanwhile is to be heard of first.
                Ok(Some(Look::Again))
            }
        }
    }

    /// Asks the probe, which has no more time than an attempt; `None` if it is stopped.
    async fn ask(&mut self, details: &TaskDetails) -> Result<Option<Found>, RunError<V, E>> {
        let member = self.enters_scope()?;
        let run = &self.run;
        let probe = lock(&run.options.probe).take().and_then(Contained::into_inner);
        let Some(probe) = probe else { return Ok(Some(Found::Unknown)) };
        let context =
            Context::after_crash(&run.ledger, Arc::clone(&run.id), run.encoded.clone(), details);
        // In a task of its own: one that panics has found out nothing.
        let asked = async move { probe(context).await };
        let asked = asked.instrument(tracing::Span::current());
        // Aborted, it may outlive the run for a moment.
        let asked = tokio::spawn(Asked { asked: Box::pin(asked), _member: member });
        let stop = asked.abort_handle();
        let timeout = run.options.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let until = [timeout, run.options.deadline].into_iter().flatten().min();
        let shared = Arc::clone(run.ledger.shared());
        let asked = wake::unless(asked, shared.wait_closed());
        let landed = self.begun.unless_stopped(until, asked).await.flatten();
        stop.abort();
        match landed {
            Some(Ok(Landed::No)) => Ok(Some(Found::Nothing)),
            Some(Ok(Landed::Unknown)) => {
                self.tells.has_answered = true;
                Ok(Some(Found::Unknown))
            }
            Some(Err(error)) => {
                drop(error.try_into_panic().map(panic_text));
                Ok(Some(Found::Unknown))
            }
            Some(Ok(Landed::Yes(value))) => {
                let output = value.as_ref().map(|value| attempt::output_of(value, &shared));
                drop_caught(value);
                Ok(Some(Found::Success(output.unwrap_or(Output::Absent))))
            }
            None if self.begun.stopped().is_some() => Ok(None),
            None => match shared.submissions.rejection() {
                Some(reason @ Rejection::Closed) => Err(reason.into()),
                _ => Ok(Some(Found::Unknown)),
            },
        }
    }

    async fn has_landed(
        &mut self,
        details: &TaskDetails,
        output: Output,
    ) -> Result<Look, RunError<V, E>> {
        let (id, after) = (self.run.encoded.clone(), Some(details.cell.seq));
        let note = Some("its probe has found that it had happened".to_owned());
        let request = Request::Resolve { id, note, output, after };
        match self.change(request).await {
            None | Some(Ok(()) | Err(ChangeError::Refused { .. })) => Ok(Look::Again),
            Some(Err(error)) => Err(error.into()),
        }
    }
}

/// A probe that is asked.
struct Asked<T> {
    asked: Pin<Box<dyn Future<Output = T> + Send>>,
    /// Dropped after it.
    _member: Option<Arc<Membership>>,
}

impl<T> Future for Asked<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<T> {
        self.asked.as_mut().poll(context)
    }
}

/// Whether it is not how an attempt ended, but what was said of that afterwards.
const fn is_verdict(failure: &Failure) -> bool {
    matches!(failure, Failure::GaveUp { .. } | Failure::Resolved(_) | Failure::Released(_))
}
