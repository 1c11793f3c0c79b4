//! The one writer: validates, appends, publishes - in that order.
//!
//! [`Core`] is the rule without its surroundings: requests and a journal in,
//! publications and answers out; no thread, no clock, no channel, no map but its
//! own. [`Writer`] is the loop around it, on a plain OS thread that outlives the
//! tokio runtime.
//!
//! ```text
//!  take a group -> Core::step: apply to index + the group's own earlier events
//!               -> journal.append: one flush, one sync      (die here: nobody was told)
//!               -> decide (the watchdog may have given up)
//!               -> publish to the index, in log order       (queries see it)
//!               -> answer everybody, acceptances and refusals (callers know it)
//! ```

mod core;
mod found;

pub(crate) use core::Core;
pub(crate) use found::Found;

use crate::details::TaskDetails;
use crate::error::{CheckpointError, CloseError, JournalError, Poison, chain, panic_text};
use crate::id::EncodedId;
use crate::journal::{Journal, Record};
use crate::measure;
use crate::sabotage::{self, Sabotage};
use crate::shared::Shared;
use crate::state::{Cell, SeqNo};
use crate::submission::{
    Answer, Checkpointed, Company, CopyOf, Errand, Group, Patience, ReaderOf, Request, Taken,
};
use crate::sync::Arc;
use crate::wake;
use crate::watch::Watch;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::oneshot;

/// A group that takes longer than this to become durable is worth a warning.
const SLOW_SYNC: Duration = Duration::from_secs(1);

/// The loop around [`Core`].
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) core: Core,
    pub(crate) journal: Box<dyn Journal>,
    pub(crate) watch: Watch,
    /// The group that is being recorded, to be answered whatever happens.
    pub(crate) in_hand: Option<(Arc<Group>, Arc<Vec<Request>>)>,
    /// Who waits for a checkpoint.
    pub(crate) checkpoints: Vec<Waiting>,
    /// Whom the next group waits for.
    pub(crate) patience: Patience,
}

/// Who waits for a checkpoint.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// Up to where.
    seq: SeqNo,
    /// To copy it.
    copy: bool,
    reply: oneshot::Sender<Checkpointed>,
}

impl Writer {
    /// Works until the ledger is closed and nothing is live, then closes the journal.
    pub(crate) fn run(mut self) {
        let worked = catch_unwind(AssertUnwindSafe(|| self.work()));
        // A writer that just vanished would leave everybody waiting, and the lock to somebody else
        // while attempts still run.
        let poisoned = worked.unwrap_or_else(|panic| {
            let poison = Poison::Panicked(panic_text(panic).into());
            let in_hand = self.in_hand.take().filter(|(group, _)| group.is_left_unanswered());
            let in_hand = in_hand.as_ref().map(|(group, requests)| (group, requests.as_slice()));
            self.shared.poison(&poison, in_hand);
            Some(poison)
        });
        self.finish(poisoned);
    }

    /// Works until nothing will ever come, or until the ledger is poisoned.
    fn work(&mut self) -> Option<Poison> {
        // At once: the open may have left a log to fold, and a witness to sync.
        let mut wake_in = Some(Duration::ZERO);
        loop {
            let company = self.patience.company();
            match self.shared.submissions.take(wake_in, company) {
                Taken::Work { requests, permits, group, errands } => {
                    // Who asks for something else has ended the wait: that says nothing of who comes back.
                    if errands.is_empty() {
                        self.patience.came(company, requests.len());
                    }
                    let recorded = self.record(requests, permits, &group);
                    if let Err(poison) = recorded.and_then(|()| self.run_errands(errands)) {
                        return Some(poison);
                    }
                }
                Taken::Idle => {}
                Taken::End => return None,
            }
            match self.upkeep() {
                Ok(again) => wake_in = again,
                Err(poison) => return Some(poison),
            }
        }
    }

    /// Makes a group durable, publishes and answers it. An error has poisoned the ledger.
    fn record(
        &mut self,
        requests: Vec<Request>,
        permits: usize,
        group: &Arc<Group>,
    ) -> Result<(), Poison> {
        if requests.is_empty() {
            return Ok(());
        }
        let requests = Arc::new(requests);
        let shared = Arc::clone(&self.shared);
        self.in_hand = Some((Arc::clone(group), Arc::clone(&requests)));
        let began = Instant::now();
        let watched = self.watch.arm(Arc::clone(group), Arc::clone(&requests));
        let at = SystemTime::now().into();
        shared.dated(at);
        let mut sync = Duration::ZERO;
        let step = guarded(|| {
            let append = |journal: &mut dyn Journal, records: &[Record]| {
                let began = Instant::now();
                let appended = journal.append(records);
                sync = began.elapsed();
                appended
            };
            let published = |id: &EncodedId| shared.index.find(id);
            // A run that begins after this was asked reads what is known of its id through the writer:
            // it finds it pruned.
            let at_work = |id: &EncodedId| shared.flights.has(id);
            self.core.step(&requests, at, published, at_work, &mut *self.journal, append)
        });
        drop(watched);
        let took = began.elapsed();
        if took > SLOW_SYNC {
            tracing::warn!(?took, requests = requests.len(), "slow sync");
        }
        let step = match step {
            Ok(step) if group.decide_durable() => step,
            // The watchdog has given the group up, and has poisoned the ledger.
            Ok(_) => return Err(self.stuck()),
            Err(poison) if group.decide_given_up() => {
                shared.poison(&poison, Some((group, &requests)));
                return Err(poison);
            }
            Err(_) => return Err(self.stuck()),
        };
        shared.metadata_changed(step.metadata);
        let superseded = step.answers.iter().filter(|a| **a == Answer::Superseded).count();
        shared.count_superseded(superseded);
        let notes = requests.iter().filter(|request| request.is_note()).count();
        // Those who are answered now may come back at once, and join those who have come meanwhile.
        let around = requests.len() + shared.submissions.pending();
        self.patience.recorded(around, sync);
        let answer = || {
            shared.answered(permits, notes);
            // With these counted as answered: after the last group nothing is left in the queue.
            measure::recorded(&shared, requests.len(), took);
            group.answer(Ok(step.answers.into()));
        };
        if sabotage::is(Sabotage::AnswerFirst) {
            answer();
            std::thread::yield_now();
            shared.index.publish(step.changes);
        } else {
            shared.index.publish(step.changes);
            // Before the answers: who begins to watch after one is not told of it.
            shared.watchers.tell(step.records);
            answer();
        }
        self.in_hand = None;
        Ok(())
    }

    /// An error has poisoned the ledger; the errands left are dropped, which tells who waits.
    fn run_errands(&mut self, errands: Vec<Errand>) -> Result<(), Poison> {
        for errand in errands {
            match errand {
                Errand::Read { id, reply } => {
                    let read = self.read(&id)?;
                    send(reply, read);
                }
                Errand::Checkpoint { copy, reply } => {
                    self.checkpoints.push(Waiting { seq: self.core.last(), copy, reply });
                }
                Errand::Reader { reply } => {
                    let reader = guarded(|| Ok(ReaderOf(self.journal.reader())));
                    let reader = reader.inspect_err(|poison| self.shared.poison(poison, None))?;
                    send(reply, reader);
                }
            }
        }
        Ok(())
    }

    /// Reads what is known of an id. That it cannot be read is for its caller; only a store that
    /// panicked or is stuck poisons the ledger.
    fn read(
        &mut self,
        id: &EncodedId,
    ) -> Result<Result<Option<TaskDetails>, JournalError>, Poison> {
        // The cell of this very moment: one that the caller has seen may be older than the
        // checkpoint, which then tells of another state than the cell.
        let (cell, tombstone) = self.shared.index.look(id.as_bytes());
        if cell == Cell::ABSENT {
            return Ok(Ok(tombstone.map(|_| TaskDetails::buried())));
        }
        let turn = Group::new();
        let watched = self.watch.arm(Arc::clone(&turn), Arc::default());
        let read = guarded(|| match self.journal.read(id, cell) {
            Err(error @ JournalError::Panicked(_)) => Err(error),
            read => Ok(read),
        });
        drop(watched);
        if !turn.decide_durable() {
            return Err(self.stuck());
        }
        let read = read.inspect_err(|poison| self.shared.poison(poison, None))?;
        Ok(read.map(Some))
    }

    /// Lets the journal do what it has to beside appending. An error has poisoned the ledger.
    fn upkeep(&mut self) -> Result<Option<Duration>, Poison> {
        let wanted = self.checkpoints.iter().map(|waiting| waiting.seq).max();
        let copy =
            self.checkpoints.iter().filter(|waiting| waiting.copy).map(|waiting| waiting.seq);
        let copy = copy.min();
        let turn = Group::new();
        let watched = self.watch.arm(Arc::clone(&turn), Arc::default());
        let upkeep = guarded(|| {
            let upkeep = self.journal.upkeep(wanted)?;
            let ready = copy.is_some_and(|seq| seq <= upkeep.checkpointed);
            Ok((CopyOf(ready.then(|| self.journal.copier()).flatten()), upkeep))
        });
        drop(watched);
        if !turn.decide_durable() {
            return Err(self.stuck());
        }
        let (copy, upkeep) = upkeep.inspect_err(|poison| self.shared.poison(poison, None))?;
        if let Some(error) = upkeep.failed {
            tracing::warn!(error = %chain(&error), "checkpoint failed; the log goes on");
            let error = Arc::new(error);
            for waiting in self.checkpoints.drain(..) {
                send(waiting.reply, Err(CheckpointError::Failed(Arc::clone(&error))));
            }
        }
        let done = upkeep.checkpointed;
        let (ready, later): (Vec<_>, _) =
            self.checkpoints.drain(..).partition(|waiting| waiting.seq <= done);
        self.checkpoints = later;
        for waiting in ready {
            send(waiting.reply, Ok(if waiting.copy { copy.clone() } else { CopyOf::default() }));
        }
        Ok(upkeep.again_after)
    }

    /// The watchdog has given up what the writer was at. It poisons the ledger, but may not have
    /// come to that yet, and nobody records what is submitted until it does.
    fn stuck(&self) -> Poison {
        let poison = Poison::Stuck { after: self.shared.options.sync_deadline };
        self.shared.index.doubt(self.shared.submissions.poison(&poison));
        poison
    }

    /// Keeps the journal until the last future is gone: before that, a reopen in this process
    /// could start again what still runs here. A store that only failed to write still answers
    /// reads. Returns the worst that happened.
    fn outlive(&mut self, mut poison: Poison) -> Poison {
        loop {
            match self.shared.submissions.take(None, Company::NONE) {
                Taken::Work { errands, .. } if matches!(poison, Poison::Failed(_)) => {
                    poison = self.run_errands(errands).err().unwrap_or(poison);
                }
                Taken::Work { .. } | Taken::Idle => {}
                Taken::End => return poison,
            }
        }
    }

    /// Closes the journal when the last future is gone.
    fn finish(mut self, poisoned: Option<Poison>) {
        for waiting in self.checkpoints.drain(..) {
            let error = poisoned.clone().map_or(CheckpointError::Closed, CheckpointError::Poisoned);
            send(waiting.reply, Err(error));
        }
        let result = match poisoned {
            None => {
                let stuck = Poison::Stuck { after: self.shared.options.sync_deadline };
                let turn = Group::new();
                let watched = self.watch.arm(Arc::clone(&turn), Arc::default());
                let closed = close(self.journal);
                drop(watched);
                if turn.decide_durable() { closed } else { Err(CloseError::Poisoned(stuck)) }
            }
            Some(poison) => {
                let poison = self.outlive(poison);
                match &poison {
                    Poison::Failed(_) => drop_caught(self.journal),
                    // Its state is unknown: dropping it could hang or panic. Its locks stay.
                    Poison::Panicked(_) | Poison::Stuck { .. } => std::mem::forget(self.journal),
                }
                Err(CloseError::Poisoned(poison))
            }
        };
        self.watch.stop();
        self.shared.ended(result);
    }
}

/// Nobody waiting any more is fine.
fn send<T>(reply: oneshot::Sender<T>, message: T) {
    wake::caught(|| drop(reply.send(message)));
}

/// Closes a journal and lets go of it.
pub(crate) fn close(mut journal: Box<dyn Journal>) -> Result<(), CloseError> {
    let closed = catch_unwind(AssertUnwindSafe(|| journal.close()));
    let error = match closed {
        Ok(Ok(())) => {
            drop_caught(journal);
            return Ok(());
        }
        Ok(Err(error)) => {
            drop_caught(journal);
            error
        }
        Err(panic) => {
            std::mem::forget(journal);
            JournalError::Panicked(panic_text(panic))
        }
    };
    Err(CloseError::Journal(Arc::new(error)))
}

fn drop_caught(journal: Box<dyn Journal>) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(journal))) {
        let panic = panic_text(panic);
        tracing::error!(panic, "the journal panicked while it was dropped");
    }
}

/// Runs a call of the journal; its error or panic is what the ledger is poisoned with.
fn guarded<T>(call: impl FnOnce() -> Result<T, JournalError>) -> Result<T, Poison> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(JournalError::Panicked(what))) => Err(Poison::Panicked(what.into())),
        Ok(Err(error)) => Err(Poison::Failed(chain(&error).into())),
        Err(panic) => Err(Poison::Panicked(panic_text(panic).into())),
    }
}

#[cfg(test)]
mod tests;
