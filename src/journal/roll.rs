//! Shortening the log: the next log takes over, the old one is folded away.
//!
//! ```text
//!                                   logs in manifest   if we die on this line, the next open
//! a helper creates log-N+1, synced  N                  removes log-N+1
//! manifest: N, N+1                  N, N+1             replays both, folds N
//! appends go to N+1
//! a helper folds N -> checkpoint-M  N, N+1             removes checkpoint-M.tmp, folds again
//! manifest: checkpoint-M, N+1       N+1                removes log-N and the old checkpoint
//! a helper deletes log-N
//! ```
//!
//! Appends wait for none of the helpers, only for the two small manifests. A
//! step that fails before its manifest is renamed has changed nothing: the logs
//! stay as they are, the last one grows, and the step is told of and tried
//! again. A rename or a sync of the directory that fails leaves in doubt which
//! manifest the next open reads, and poisons. The helpers never touch the store
//! of a log that is written. Whoever has lost the path begins no step: where the
//! directory cannot be held (`held.rs`), its names may be another ledger's by now.

use super::chain::LedgerId;
use super::checkpoint::Checkpoint;
use super::directory;
use super::durable::{Frozen, FrozenReader, SledJournal};
use super::fold::{self, FOLD_MEMORY, Mode, Target};
use super::judge::Position;
use super::lock::DirLock;
use super::manifest::{CheckpointRef, LogRef, Manifest};
use super::scan::scan_file;
use super::sled::{Log, data_file};
use super::{Upkeep, ballast, files};
use crate::error::JournalError;
use crate::error::panic_text;
use crate::held::HeldPath;
use crate::state::SeqNo;
use crate::sync::Arc;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How soon to look again for a helper that is at work.
const POLL: Duration = Duration::from_millis(5);

/// Pauses before a failed step is tried again: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// What the helpers are at.
#[derive(Debug)]
pub(crate) struct Roller {
    /// A log this long is folded away.
    pub(crate) checkpoint_after: u64,
    pub(crate) ballast: u64,
    job: Option<Job>,
    /// A log that is ready to take over.
    next: Option<Log>,
    helpers: Vec<JoinHandle<()>>,
    /// Asks the helpers to give up: the ledger is closing.
    stop: Arc<AtomicBool>,
    retry_at: Option<Instant>,
    pause: Duration,
}

/// A helper's answer, to come.
#[derive(Debug)]
enum Job {
    Create(Receiver<Result<Log, JournalError>>),
    Fold(Receiver<Result<Checkpoint, JournalError>>),
}

impl Roller {
    pub(crate) fn new(checkpoint_after: u64, ballast: u64) -> Self {
        Self {
            checkpoint_after,
            ballast,
            job: None,
            next: None,
            helpers: Vec::new(),
            stop: Arc::default(),
            retry_at: None,
            pause: RETRY.0,
        }
    }

    /// Ends the helpers. What they were at is begun again by the next open.
    pub(crate) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for helper in self.helpers.drain(..) {
            // It catches its panics.
            drop(helper.join());
        }
    }

    /// Gives work to a helper thread.
    fn spawn<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
    ) -> Receiver<Result<T, JournalError>> {
        self.helpers.retain(|helper| !helper.is_finished());
        let (answer, answered) = channel();
        let refused = answer.clone();
        let spawned =
            std::thread::Builder::new().name("taskledger-helper".into()).spawn(move || {
                let done = catch_unwind(AssertUnwindSafe(work))
                    .unwrap_or_else(|panic| Err(JournalError::Panicked(panic_text(panic))));
                // The journal may be gone.
                drop(answer.send(done));
            });
        match spawned {
            Ok(helper) => self.helpers.push(helper),
            Err(error) => {
                drop(refused.send(Err(JournalError::Store(format!("no helper thread: {error}")))));
            }
        }
        answered
    }

    fn failed(&mut self, now: Instant) {
        self.retry_at = Some(now + self.pause);
        self.pause = (self.pause * 2).min(RETRY.1);
    }

    fn succeeded(&mut self) {
        self.retry_at = None;
        self.pause = RETRY.0;
    }
}

impl Drop for Roller {
    fn drop(&mut self) {
        self.stop();
    }
}

impl SledJournal {
    /// Takes the next step that is due, if any.
    pub(crate) fn roll(
        &mut self,
        wanted: Option<SeqNo>,
        now: Instant,
    ) -> Result<Upkeep, JournalError> {
        let mut failed = self.finish_job()?.err();
        let checkpointed = self.base().seq;
        // Who asks for a checkpoint does not want to wait for a pause, and is told of a failure.
        let wanted = wanted.is_some_and(|seq| seq > checkpointed);
        let paused = self.roller.retry_at.is_some_and(|at| at > now) && !wanted;
        if failed.is_none() && self.roller.job.is_none() && !paused {
            failed = self.go_on(wanted)?.err();
        }
        if failed.is_some() {
            self.roller.failed(now);
        }
        let again_after = match (&self.roller.job, self.roller.retry_at) {
            (Some(_), _) => Some(POLL),
            (None, Some(at)) => Some(at.saturating_duration_since(now)),
            (None, None) => None,
        };
        Ok(Upkeep { checkpointed, failed, again_after })
    }

    /// Takes over what a helper has done, if it has. The outer error poisons.
    fn finish_job(&mut self) -> Result<Step, JournalError> {
        match self.roller.job.take() {
            Some(Job::Create(answer)) => match answer.try_recv() {
                Ok(Ok(log)) => self.roller.next = Some(log),
                Ok(Err(error)) => return Ok(Err(error)),
                Err(TryRecvError::Empty) => self.roller.job = Some(Job::Create(answer)),
                Err(TryRecvError::Disconnected) => {}
            },
            Some(Job::Fold(answer)) => match answer.try_recv() {
                Ok(Ok(checkpoint)) => return self.folded(checkpoint),
                Ok(Err(error)) => return Ok(Err(error)),
                Err(TryRecvError::Empty) => self.roller.job = Some(Job::Fold(answer)),
                Err(TryRecvError::Disconnected) => {}
            },
            None => {}
        }
        Ok(Ok(()))
    }

    /// Begins the next step that is due. The outer error poisons.
    fn go_on(&mut self, wanted: bool) -> Result<Step, JournalError> {
        self.roller.retry_at = None;
        if let Some(frozen) = &self.frozen {
            self.lock.still_ours()?;
            let job = FoldJob::of(self, frozen.end);
            let stop = Arc::clone(&self.roller.stop);
            self.roller.job = Some(Job::Fold(self.roller.spawn(move || job.run(&stop))));
            return Ok(Ok(()));
        }
        let live = self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.bytes());
        let limit = self.roller.checkpoint_after.max(live);
        let length = self.log.bytes()?;
        let due = length > limit || (wanted && self.end.seq > self.log_base.seq);
        match self.roller.next.take() {
            Some(next) if due => match self.switch_to(next)? {
                Ok(()) => self.go_on(wanted),
                Err(error) => Ok(Err(error)),
            },
            next => {
                let soon = due || length > limit / 2;
                self.roller.next = next;
                if soon && self.roller.next.is_none() {
                    self.lock.still_ours()?;
                    let dir = self.lock.dir().join(directory::log_dir(self.manifest.next_number));
                    let segment_size = self.manifest.segment_size;
                    self.roller.job = Some(Job::Create(self.roller.spawn(move || {
                        // What a failed creation left.
                        files::remove(&dir)?;
                        Log::create(&dir, segment_size)
                    })));
                }
                Ok(Ok(()))
            }
        }
    }

    /// The next log takes over, or waits on.
    fn switch_to(&mut self, next: Log) -> Result<Step, JournalError> {
        self.log.check_no_blobs()?;
        let mut manifest = self.manifest.clone();
        manifest.logs.push(LogRef { number: manifest.next_number });
        manifest.next_number += 1;
        if let Err(error) = self.replace_manifest(manifest)? {
            self.roller.next = Some(next);
            return Ok(Err(error));
        }
        let old = std::mem::replace(&mut self.log, next);
        self.log_base = self.end;
        self.frozen = Some(Frozen { end: self.end, reader: FrozenReader::Store(old) });
        self.last_read.clear();
        Ok(Ok(()))
    }

    /// The frozen log is in the checkpoint: it goes. If that cannot be noted, the checkpoint goes.
    fn folded(&mut self, checkpoint: Checkpoint) -> Result<Step, JournalError> {
        let Some(end) = self.frozen.as_ref().map(|frozen| frozen.end) else { return Ok(Ok(())) };
        let before = self.manifest.clone();
        let number = before.next_number;
        let mut manifest = Manifest {
            checkpoint: Some(CheckpointRef { number, last_seq: end.seq, chain: end.chain }),
            next_number: number + 1,
            ..before.clone()
        };
        manifest.logs.remove(0);
        if let Err(error) = self.replace_manifest(manifest)? {
            // On a full disk its space is what the log can go on with.
            drop(files::remove(&self.lock.dir().join(directory::checkpoint(number))));
            return Ok(Err(error));
        }
        self.witness.sync()?;
        self.last_read.clear();
        self.checkpoint = Some(Arc::new(checkpoint));
        // Only now: if the manifest cannot be written, what it holds can still be read.
        let Some(frozen) = self.frozen.take() else { return Ok(Ok(())) };
        self.roller.succeeded();
        tracing::info!(last = %end.seq, bytes = self.checkpoint.as_ref().map(|c| c.bytes()), "checkpoint");
        let (lock, ballast) = (Arc::clone(&self.lock), self.roller.ballast);
        let unwanted = Unwanted { frozen, before, lock, ballast };
        // Whether it succeeds matters to nobody: the next open removes what is left.
        drop(self.roller.spawn(move || unwanted.remove()));
        Ok(Ok(()))
    }

    /// Makes this the manifest, or leaves the one that is.
    fn replace_manifest(&mut self, manifest: Manifest) -> Result<Step, JournalError> {
        self.lock.still_ours()?;
        if let Err(error) = manifest.stage(self.lock.dir()) {
            return Ok(Err(error));
        }
        self.lock.still_ours()?;
        Manifest::publish(self.lock.dir())?;
        self.manifest = manifest;
        Ok(Ok(()))
    }
}

/// What became of a step. One that failed has changed nothing, and is tried again.
type Step = Result<(), JournalError>;

/// What a helper needs to fold a frozen log.
struct FoldJob {
    old: Option<Arc<Checkpoint>>,
    base: Position,
    end: Position,
    dir: HeldPath,
    log: u64,
    ledger: LedgerId,
    checkpoint: u64,
}

impl FoldJob {
    fn of(journal: &SledJournal, end: Position) -> Self {
        Self {
            old: journal.checkpoint.clone(),
            base: journal.base(),
            end,
            dir: journal.lock.dir().clone(),
            log: journal.manifest.logs.first().map_or(0, |log| log.number),
            ledger: journal.ledger(),
            checkpoint: journal.manifest.next_number,
        }
    }

    fn run(self, stop: &AtomicBool) -> Result<Checkpoint, JournalError> {
        let log = directory::log_dir(self.log);
        let scan = scan_file(&data_file(&self.dir.join(&log)), self.ledger, self.base.seq)?;
        let run = scan.run(self.base.seq, self.base.chain);
        if (run.end, run.chain) != (self.end.seq, self.end.chain) {
            let what = format!("it ends at record {}, not at {}", run.end, self.end.seq);
            return Err(JournalError::damaged(log, what));
        }
        let target = Target {
            path: &self.dir.join(directory::checkpoint(self.checkpoint)),
            ledger: self.ledger,
            last_seq: self.end.seq,
            chain: self.end.chain,
        };
        let logs = [fold::Log { scan: &scan, frames: &run.frames }];
        let folded =
            fold::fold(self.old.as_deref(), &logs, Mode::Strict, &target, FOLD_MEMORY, stop)?;
        // The log goes once this is believed: read it back first.
        folded.checkpoint.check()?;
        Ok(folded.checkpoint)
    }
}

/// What is no longer part of the ledger.
struct Unwanted {
    frozen: Frozen,
    before: Manifest,
    lock: Arc<DirLock>,
    ballast: u64,
}

impl Unwanted {
    fn remove(self) -> Result<(), JournalError> {
        // Before its files go.
        drop(self.frozen);
        if let Some(log) = self.before.logs.first() {
            self.lock.still_ours()?;
            files::remove(&self.lock.dir().join(directory::log_dir(log.number)))?;
        }
        if let Some(checkpoint) = self.before.checkpoint {
            self.lock.still_ours()?;
            files::remove(&self.lock.dir().join(directory::checkpoint(checkpoint.number)))?;
        }
        self.lock.still_ours()?;
        files::sync_dir(self.lock.dir())?;
        ballast::refill_if_room(self.lock.dir(), self.ballast).log();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
