//! Opening a ledger's directory.
//!
//! ```text
//!  what is at the path? -> lock -> manifest: newer, other ids, damaged are refused here,
//!                                  nothing changed; older is migrated
//!   -> leftovers go -> checkpoint verified -> logs scanned, judged against the witness
//!   -> sled opened, compared with the scan --same--> replay
//!                          |
//!                          +--anything else--> rebuilt from the scan: new checkpoint, fresh log
//! ```
//!
//! Nothing that could destroy evidence happens before the logs are found whole:
//! a damaged ledger is left exactly as it was found, and is its own untouched
//! copy. What sled makes of its directory is held against the scan, entry by
//! entry; if it has dropped anything, cannot be opened, or panics, the scan is
//! what counts.

use super::checkpoint::Checkpoint;
use super::directory::{self, Access, DAMAGED, Found};
use super::durable::{Frozen, FrozenReader, SledJournal, position_of};
use super::fold::{self, FOLD_MEMORY, Mode, Target};
use super::judge::{Position, Scanned, Whole, judge};
use super::lock::DirLock;
use super::manifest::{CheckpointRef, Judged, LogRef, Manifest};
use super::migrate::{self, FORMAT_VERSION, STEPS};
use super::roll::Roller;
use super::scan;
use super::sled::{Log, SEGMENT_SIZE, data_file};
use super::witness::Witness;
use super::{OpenReport, Record, aside, ballast, files, frame, rescue, rewrite, salvage};
use crate::error::{Damage, JournalError, OpenError};
use crate::held::{HeldPath, shown};
use crate::sabotage::{self, Sabotage};
use crate::state::Timestamp;
use crate::sync::{Arc, lock};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

mod store;

use store::{Hold, Opened};

/// Frames up to this many bytes are kept in memory while sled opens its log; a longer log is
/// folded into a checkpoint before, so that sled never touches the only copy.
const KEEP_IN_MEMORY: u64 = 256 * 1024 * 1024;

/// Ids of the checkpoint that are tried with the id type.
const IDS_TRIED: usize = 1000;

/// Judges the bytes of something that only the layer above understands.
pub(crate) type JudgeBytes = Box<dyn Fn(&[u8]) -> Result<(), String> + Send>;

/// How to open a directory.
pub(crate) struct StoreOptions {
    pub(crate) path: PathBuf,
    pub(crate) lock_wait: Duration,
    pub(crate) checkpoint_after: u64,
    pub(crate) ballast: u64,
    pub(crate) accept_loss: bool,
    /// How long the store may take to open its log before that is rebuilt from its frames.
    pub(crate) store_deadline: Duration,
    /// The description of the id type, for a new ledger.
    pub(crate) shape: Vec<u8>,
    /// Whether the ledger's description fits the id type.
    pub(crate) judge_shape: JudgeBytes,
    /// Whether a stored id is one of the id type.
    pub(crate) judge_id: JudgeBytes,
}

#[cfg(test)]
impl StoreOptions {
    /// Of tests, which change what they are about: no checkpoint by itself, no ballast, no waiting, and ids
    /// of any kind.
    pub(crate) fn plain(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            lock_wait: Duration::ZERO,
            checkpoint_after: u64::MAX,
            ballast: 0,
            accept_loss: false,
            store_deadline: Duration::from_secs(60),
            shape: Vec::new(),
            judge_shape: Box::new(|_| Ok(())),
            judge_id: Box::new(|_| Ok(())),
        }
    }
}

/// Opens or creates the ledger, to be replayed.
pub(crate) fn open(options: &StoreOptions) -> Result<(SledJournal, OpenReport), OpenError> {
    let mut report = OpenReport::default();
    let attempt = |held: &mut _| open_once(options, &mut report, held);
    let journal = ballast::with_ballast(&options.path, attempt)?;
    Ok((journal, report))
}

/// One attempt, which adds to the report whatever becomes of it, and hands out the lock.
pub(crate) fn open_once(
    options: &StoreOptions,
    report: &mut OpenReport,
    held: &mut Option<Arc<DirLock>>,
) -> Result<SledJournal, OpenError> {
    // The process may change its current directory while the ledger is open.
    let dir =
        std::path::absolute(&options.path).map_err(JournalError::io("find", &options.path))?;
    let first = judge_path(&dir, options)?;
    match first {
        Found::Missing => files::create_dir(&dir)?,
        Found::Empty | Found::LeftoversOfCreation | Found::LeftoversOfCopy | Found::Ledger => {}
    }
    let lock = Arc::new(DirLock::acquire(&dir, options.lock_wait)?);
    *held = Some(Arc::clone(&lock));
    let dir = lock.dir();
    // Again, since somebody may have been faster.
    let found = if sabotage::is(Sabotage::JudgeOnce) { first } else { judge_path(dir, options)? };
    match found {
        Found::Ledger => {}
        Found::Missing | Found::Empty | Found::LeftoversOfCreation => create(dir, options)?,
        // An empty ledger there would be taken for the one that was to be copied.
        Found::LeftoversOfCopy => return Err(OpenError::Unfinished { path: shown(dir) }),
    }
    // The manifest that is read now may be the rename of a process that was killed before it synced
    // the directory: nothing may be removed or acknowledged on the word of a name that a loss of
    // power could take back.
    if !sabotage::is(Sabotage::TrustManifest) {
        files::sync_dir(dir)?;
    }
    if !options.accept_loss && aside::of_this_repair(dir)? {
        return Err(JournalError::damaged(DAMAGED, aside::UNFINISHED_REPAIR).into());
    }
    let (manifest, damage) = match read_manifest(dir, options, report) {
        Err(OpenError::Damaged(damage)) if options.accept_loss => {
            let made_up = salvage::reconstruct(dir)?;
            let mut made_up = made_up.ok_or_else(|| OpenError::Damaged(damage.clone()))?;
            made_up.shape.clone_from(&options.shape);
            (made_up, Some(damage))
        }
        manifest => (manifest?, None),
    };
    (options.judge_shape)(&manifest.shape).map_err(OpenError::OtherIdType)?;
    let (rebuilt, looked_again, abandoned) = (false, false, Vec::new());
    let opening = Opening { lock, manifest, options, report, rebuilt, looked_again, abandoned };
    match damage {
        Some(damage) => opening.salvaged(damage.to_string()),
        None if options.accept_loss || sabotage::is(Sabotage::AcceptUnasked) => {
            opening.salvage_or_open()
        }
        None => opening.open(),
    }
}

/// What is at the path. A ledger without a manifest is one that is left to be repaired if its loss
/// is accepted.
fn judge_path(dir: &Path, options: &StoreOptions) -> Result<Found, OpenError> {
    match directory::judge(dir, Access::Write, has_frames) {
        Err(OpenError::Damaged(_)) if options.accept_loss => Ok(Found::Ledger),
        found => found,
    }
}

pub(crate) fn has_frames(log: &Path) -> Result<bool, JournalError> {
    Ok(scan::owner(&data_file(log))?.is_some())
}

/// Everything that a new ledger consists of, the manifest last: until then it is only leftovers.
fn create(dir: &HeldPath, options: &StoreOptions) -> Result<(), OpenError> {
    directory::remove_leftovers_of_creation(dir)?;
    let mut ledger = [0; 16];
    getrandom::fill(&mut ledger)
        .map_err(|error| JournalError::Store(format!("no random numbers: {error}")))?;
    let manifest = Manifest {
        ledger: super::chain::LedgerId(ledger),
        created_at: Timestamp::from(SystemTime::now()),
        shape: options.shape.clone(),
        segment_size: SEGMENT_SIZE,
        checkpoint: None,
        logs: vec![LogRef { number: 1 }],
        next_number: 2,
    };
    ballast::refill_if_room(dir, options.ballast).log();
    Witness::create(dir, manifest.ledger)?;
    drop(Log::create(&dir.join(directory::log_dir(1)), manifest.segment_size)?);
    // Before the manifest, which makes it a ledger: a later open then need not ask.
    files::sync_ancestors(dir)?;
    manifest.write(dir)?;
    tracing::info!(path = ?dir, ledger = %manifest.ledger, "created");
    Ok(())
}

fn read_manifest(
    dir: &Path,
    options: &StoreOptions,
    report: &mut OpenReport,
) -> Result<Manifest, OpenError> {
    loop {
        match Manifest::read(dir)? {
            Judged::Current(manifest) => return Ok(manifest),
            Judged::Newer(found) => {
                let (path, supported) = (shown(dir), FORMAT_VERSION);
                return Err(OpenError::Newer { path, found, supported });
            }
            Judged::Older(found, body) => {
                if let Some(shape) = migrate::shape(STEPS, found, &body) {
                    (options.judge_shape)(&shape).map_err(OpenError::OtherIdType)?;
                }
                let step = &mut |from| tracing::info!(from, "migrating");
                let done = migrate::migrate(dir, found, body, STEPS, FORMAT_VERSION, step)?;
                report.migrated = Some((done.from, done.to));
            }
            Judged::Missing => {
                return Err(JournalError::damaged(super::manifest::NAME, "it is missing").into());
            }
            Judged::Damaged(what) => {
                return Err(JournalError::damaged(super::manifest::NAME, what).into());
            }
        }
    }
}

/// A directory whose lock is held and whose manifest is understood.
pub(crate) struct Opening<'a> {
    pub(crate) lock: Arc<DirLock>,
    pub(crate) manifest: Manifest,
    pub(crate) options: &'a StoreOptions,
    pub(crate) report: &'a mut OpenReport,
    /// Whether the log has been rebuilt by this open: a fresh one that differs as well is no damage.
    pub(crate) rebuilt: bool,
    /// Whether a store that had more than the scan has been scanned once more.
    looked_again: bool,
    /// What threads keep that have not come back: the lock, until this open has succeeded without
    /// them. If it fails, nobody may open here beside them.
    abandoned: Vec<Hold>,
}

/// What was found without touching anything.
pub(crate) struct Evidence {
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) logs: Vec<Scanned>,
    pub(crate) witness: Witness,
    pub(crate) whole: Whole,
}

impl Opening<'_> {
    pub(crate) fn dir(&self) -> &HeldPath {
        self.lock.dir()
    }

    fn open(self) -> Result<SledJournal, OpenError> {
        let evidence = self.evidence()?;
        self.settle(evidence)
    }

    fn salvage_or_open(self) -> Result<SledJournal, OpenError> {
        if aside::of_this_repair(self.dir())? {
            return self.salvaged(aside::UNFINISHED_REPAIR.to_owned());
        }
        let found = self.evidence().and_then(|evidence| {
            salvage::check_legal(&evidence)?;
            Ok(evidence)
        });
        match found {
            Ok(evidence) => self.settle(evidence),
            Err(JournalError::Damaged(damage)) => self.salvaged(damage.to_string()),
            Err(error @ JournalError::Illegal { .. }) => self.salvaged(crate::error::chain(&error)),
            Err(error) => Err(error.into()),
        }
    }

    fn salvaged(mut self, damage: String) -> Result<SledJournal, OpenError> {
        tracing::warn!(damage, "accepting the loss");
        let what = salvage::salvage(&mut self, &damage)?;
        self.report.loss_accepted = Some(what).filter(|_| !sabotage::is(Sabotage::LossUntold));
        self.open()
    }

    /// Reads and judges everything; changes nothing.
    fn evidence(&self) -> Result<Evidence, JournalError> {
        let checkpoint = match self.manifest.checkpoint {
            Some(at) => Some(self.checkpoint(at)?),
            None => None,
        };
        let base = position_of(checkpoint.as_ref());
        let logs = self.scans(base)?;
        let witness = Witness::open(self.dir(), self.manifest.ledger)?;
        let (seq, chain) = witness.position();
        let whole = judge(base, &logs, Position { seq, chain }).map_err(JournalError::Damaged)?;
        Ok(Evidence { checkpoint, logs, witness, whole })
    }

    fn checkpoint(&self, at: CheckpointRef) -> Result<Checkpoint, JournalError> {
        let name = directory::checkpoint(at.number);
        let path = self.dir().join(&name);
        missing_is_damage(&path, &name)?;
        let checkpoint = Checkpoint::open(&path, self.manifest.ledger, at.last_seq, at.chain)?;
        checkpoint.check()?;
        Ok(checkpoint)
    }

    fn scans(&self, base: Position) -> Result<Vec<Scanned>, JournalError> {
        let scanned = |log: &LogRef| {
            let name = directory::log_dir(log.number);
            let file = data_file(&self.dir().join(&name));
            missing_is_damage(&file, &name)?;
            let scan = rescue::scan_log(&self.dir().join(&name), self.manifest.ledger, base.seq)?;
            Ok(Scanned { name, scan })
        };
        self.manifest.logs.iter().map(scanned).collect()
    }

    /// Opens the store of logs that are whole, or rebuilds it from the scan.
    fn settle(mut self, evidence: Evidence) -> Result<SledJournal, OpenError> {
        if let Some(checkpoint) = &evidence.checkpoint {
            let mut entries = checkpoint.entries();
            for _ in 0..IDS_TRIED {
                let Some((id, _)) = entries.next()? else { break };
                (self.options.judge_id)(id.as_bytes()).map_err(OpenError::OtherIdType)?;
            }
        }
        // Here and below: where the directory cannot be held, this goes by a name that may be somebody
        // else's by now.
        self.lock.still_ours()?;
        for name in directory::remove_leftovers(self.dir(), &self.manifest)? {
            tracing::info!(name, "removed what the last process left unfinished");
        }
        let Evidence { checkpoint, mut logs, witness, whole } = evidence;
        let (Some(mut last), Some(run)) = (logs.pop(), whole.runs.last()) else {
            return Err(JournalError::damaged("manifest", "it names no log").into());
        };
        let log_dir = self.dir().join(&last.name);
        self.lock.still_ours()?;
        // The logs before it went on only after their last sync, and one that a rebuild has just begun is
        // this process's own.
        if !self.lock.found_well() && !self.rebuilt {
            rewrite::rewrite(&data_file(&log_dir))?;
        }
        let fits = last.scan.load(KEEP_IN_MEMORY)?;
        let last = Arc::new(last);
        if fits && !sabotage::is(Sabotage::SkipRescue) {
            rescue::keep(&log_dir, &last.scan, &run.frames);
        }
        let opened = if fits { self.open_log(&last, &run.frames)? } else { Opened::TooLong };
        // A log that is no longer where it was is not damaged.
        self.lock.still_ours()?;
        let log = match opened {
            Opened::Same(log) => log,
            Opened::Differs(why) if self.rebuilt => return Err(JournalError::Store(why).into()),
            // Somebody who had it open in this process may just have been writing: looked at once more,
            // it is evidence that the scan is not all there is.
            Opened::Richer(_) if !self.looked_again => {
                self.looked_again = true;
                drop(witness);
                let evidence = self.evidence()?;
                return self.settle(evidence);
            }
            Opened::Richer(seq) => {
                let what = format!(
                    "the store has record {seq}, which is not found in its file; \
                     `Builder::accept_loss` goes on without it"
                );
                if !self.options.accept_loss {
                    return Err(JournalError::damaged(last.name.clone(), what).into());
                }
                drop(witness);
                return self.salvaged(format!("{}: {what}", last.name));
            }
            Opened::Differs(_) | Opened::TooLong => {
                if let Opened::Differs(why) = opened {
                    tracing::warn!(why, "the log is rebuilt from its own frames");
                    let repaired = format!("{}: {why}; rebuilt without loss", last.name);
                    self.report.repaired.push(repaired);
                }
                self.rebuilt = true;
                let logs: Vec<&Scanned> = logs.iter().chain([&*last]).collect();
                self.rebuild(checkpoint.as_ref(), &logs, &whole)?;
                drop(witness);
                let evidence = self.evidence()?;
                return self.settle(evidence);
            }
        };
        // What never came back is in a log that is no longer part of this.
        self.abandoned.drain(..).for_each(|hold| drop(lock(&hold).take()));
        // Whatever sled has moved while it opened is on the disk before the copy goes.
        log.sync_file()?;
        rescue::discard(&log_dir)?;
        ballast::refill_if_room(self.dir(), self.options.ballast).log();
        let mut runs = whole.runs;
        let run = runs.pop().map(|run| run.frames).unwrap_or_default();
        let frozen = runs.pop().zip(logs.pop());
        let frozen = frozen.map(|(run, log)| Frozen {
            end: Position { seq: run.end, chain: run.chain },
            reader: FrozenReader::Scan(log.scan, run.frames),
        });
        let base = position_of(checkpoint.as_ref());
        let journal = SledJournal {
            log_base: frozen.as_ref().map_or(base, |frozen| frozen.end),
            manifest: self.manifest,
            witness,
            checkpoint: checkpoint.map(Arc::new),
            log,
            end: whole.end,
            frozen,
            to_replay: Arc::into_inner(last).map(|last| (last.scan, run)),
            roller: Roller::new(self.options.checkpoint_after, self.options.ballast),
            last_read: Vec::new(),
            lock: self.lock,
        };
        Ok(journal)
    }

    /// Folds the frames of all logs into a new checkpoint and begins a fresh log. The old log stays
    /// until the manifest no longer names it.
    fn rebuild(
        &mut self,
        checkpoint: Option<&Checkpoint>,
        logs: &[&Scanned],
        whole: &Whole,
    ) -> Result<(), JournalError> {
        let number = self.manifest.next_number;
        let target = Target {
            path: &self.dir().join(directory::checkpoint(number)),
            ledger: self.manifest.ledger,
            last_seq: whole.end.seq,
            chain: whole.end.chain,
        };
        let sources: Vec<fold::Log<'_>> = logs
            .iter()
            .zip(&whole.runs)
            .map(|(log, run)| fold::Log { scan: &log.scan, frames: &run.frames })
            .collect();
        let never = AtomicBool::new(false);
        let folded = fold::fold(checkpoint, &sources, Mode::Strict, &target, FOLD_MEMORY, &never)?;
        folded.checkpoint.check()?;
        self.lock.still_ours()?;
        self.start_afresh(number, whole.end, &[])
    }

    /// The checkpoint with this number, which stands at `end`, and a fresh log become the ledger.
    /// It begins with these records.
    pub(crate) fn start_afresh(
        &mut self,
        number: u64,
        end: Position,
        records: &[Record],
    ) -> Result<(), JournalError> {
        let log = self.dir().join(directory::log_dir(number + 1));
        files::remove(&log)?;
        let mut log = Log::create(&log, self.manifest.segment_size)?;
        let (frames, _) = frame::encode_records(self.manifest.ledger, end.chain, records)
            .map_err(|error| JournalError::Store(error.to_string()))?;
        log.append(frames)?;
        drop(log);
        self.lock.still_ours()?;
        let manifest = Manifest {
            checkpoint: Some(CheckpointRef { number, last_seq: end.seq, chain: end.chain }),
            logs: vec![LogRef { number: number + 1 }],
            next_number: number + 2,
            ..self.manifest.clone()
        };
        manifest.write(self.dir())?;
        self.manifest = manifest;
        Ok(())
    }
}

fn missing_is_damage(path: &Path, name: &str) -> Result<(), JournalError> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(JournalError::Damaged(Damage {
                place: name.to_owned(),
                what: "it is missing, or part of it".to_owned(),
                lost: None,
            }))
        }
        _ => Ok(()),
    }
}
