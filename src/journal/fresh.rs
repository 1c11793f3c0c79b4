//! A new ledger that begins with a checkpoint: what a backup and an import make.
//!
//! ```text
//!                                       if we die on this line, the path holds
//! the directory, its lock               what a creation leaves: an open begins a new ledger
//! copying, synced                       likewise, or no ledger and never one
//! checkpoint-1, synced, read back       no ledger: an open refuses, the next copy begins anew
//! log-2, synced                         likewise
//! witness, at the checkpoint's end      likewise
//! the directory, in the one above       likewise
//! manifest                              the copy, whole
//! copying goes                          the copy, whole
//! ```
//!
//! Checkpoint and witness would tell of a ledger that has lost its manifest, if `copying` did not say
//! that it never had one. That is also why an open does not begin a new ledger there: whoever opens what
//! should be a copy would find it empty.
//!
//! The new ledger has the identity of the one that it is a copy of, so it has its effect keys,
//! tombstones and fingerprints as well. One that is given up removes what it has made, `copying` last.

use super::chain::LedgerId;
use super::checkpoint::{Checkpoint, CheckpointWriter};
use super::directory::{self, Access, COPYING, Found};
use super::files;
use super::fold::go_on;
use super::judge::Position;
use super::lock::DirLock;
use super::manifest::{CheckpointRef, Judged, LogRef, Manifest};
use super::open::has_frames;
use super::sled::{Log, SEGMENT_SIZE};
use super::witness::Witness;
use super::{Record, frame};
use crate::error::{CreateError, JournalError, OpenError};
use crate::held::{HeldPath, shown};
use crate::sabotage::{self, Sabotage};
use crate::state::Timestamp;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// What `copying` holds, for whoever looks into it. Another file of this name is not ours.
const MARK: &str = "A backup or an import is being made here. If there is no manifest beside this file, it was never\n\
finished, and what is here is no ledger: make it again with the same path, or remove the directory.\n";

/// The numbers of what a new ledger consists of.
const CHECKPOINT: u64 = 1;
const LOG: u64 = 2;

/// Whether `copying` in `dir` is ours.
pub(crate) fn is_marked(dir: &Path) -> Result<bool, JournalError> {
    let found = files::read(&dir.join(COPYING), MARK.len() as u64)?;
    Ok(found.is_some_and(|bytes| bytes == MARK.as_bytes()))
}

/// Whether a new ledger can be made at the path. Changes nothing, and somebody may come in between.
///
/// # Errors
///
/// [`CreateError::Exists`], [`CreateError::NotADirectory`], [`CreateError::Within`], [`CreateError::Io`].
pub(crate) fn judge(path: &Path) -> Result<Found, CreateError> {
    outside(path)?;
    let exists = |found: String| Err(CreateError::Exists { path: shown(path), found });
    match directory::judge(path, Access::Write, has_frames) {
        Ok(Found::Ledger) => exists("a ledger".to_owned()),
        Ok(
            found @ (Found::Missing
            | Found::Empty
            | Found::LeftoversOfCreation
            | Found::LeftoversOfCopy),
        ) => Ok(found),
        Err(OpenError::Damaged(damage)) => exists(format!("a damaged ledger ({damage})")),
        Err(error) => Err(error.into()),
    }
}

/// Whether the path lies outside of every ledger.
///
/// # Errors
///
/// [`CreateError::Within`].
pub(crate) fn outside(path: &Path) -> Result<(), CreateError> {
    match ledger_around(path) {
        Some(ledger) => Err(CreateError::Within { path: shown(path), ledger }),
        None => Ok(()),
    }
}

/// The ledger in whose directory the path lies, if it does. What cannot be looked at is none.
fn ledger_around(path: &Path) -> Option<PathBuf> {
    // A link would lead there unseen, and what is to be made is not there yet.
    let around = path.ancestors().skip(1).find_map(|dir| dir.canonicalize().ok())?;
    let is_ledger = |dir: &&Path| match Manifest::read(dir) {
        Ok(Judged::Newer(_) | Judged::Older(..) | Judged::Current(_)) => true,
        Ok(Judged::Missing | Judged::Damaged(_)) | Err(_) => false,
    };
    around.ancestors().find(is_ledger).map(Path::to_path_buf)
}

/// A new ledger that is being made. Until [`finish`](Self::finish) it is none; dropped before, what is
/// there of it goes.
#[derive(Debug)]
pub(crate) struct Fresh {
    lock: DirLock,
    /// Whether the directory itself is new.
    created: bool,
    finished: bool,
}

impl Fresh {
    /// Takes the path, which must be missing, empty, or hold what another one left that died.
    ///
    /// # Errors
    ///
    /// Those of [`judge`]; [`CreateError::Locked`] when somebody else is at it.
    pub(crate) fn begin(path: &Path) -> Result<Self, CreateError> {
        let path = std::path::absolute(path).map_err(JournalError::io("find", path))?;
        let created = judge(&path)? == Found::Missing;
        if created {
            files::create_dir(&path)?;
        }
        let lock = DirLock::acquire(&path, Duration::ZERO)?;
        // Again, since somebody may have been faster.
        let found = judge(lock.dir())?;
        let fresh = Self { lock, created, finished: false };
        let dir = fresh.dir();
        match found {
            Found::LeftoversOfCopy => _ = directory::remove_leftovers_of_copy(dir)?,
            Found::Missing | Found::Empty | Found::LeftoversOfCreation | Found::Ledger => {
                directory::remove_leftovers_of_creation(dir)?;
            }
        }
        // From here on until the manifest, what is here is no ledger.
        if !sabotage::is(Sabotage::CopyUnmarked) {
            files::replace(dir, COPYING, MARK.as_bytes())?;
        }
        Ok(fresh)
    }

    fn dir(&self) -> &HeldPath {
        self.lock.dir()
    }

    /// Where the checkpoint is to be.
    fn checkpoint(&self) -> PathBuf {
        self.dir().join(directory::checkpoint(CHECKPOINT)).to_path_buf()
    }

    /// Begins the checkpoint of the new ledger.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub(crate) fn write_checkpoint(
        &self,
        origin: &Origin,
    ) -> Result<CheckpointWriter, JournalError> {
        let Position { seq, chain } = origin.end;
        CheckpointWriter::create(&self.checkpoint(), origin.ledger, seq, chain)
    }

    /// Makes a checkpoint that is a copy of this one, and reads it back: tomorrow it may be all there
    /// is. Gives up soon after `stop` is set.
    ///
    /// # Errors
    ///
    /// Those of reading and writing; [`JournalError::Damaged`] when one of the two is not whole.
    pub(crate) fn copy_checkpoint(
        &self,
        from: &Checkpoint,
        stop: &AtomicBool,
    ) -> Result<(), JournalError> {
        let name = directory::checkpoint(CHECKPOINT);
        let unfinished = files::unfinished(self.dir(), &name);
        let mut file = files::create(&unfinished)?;
        from.read_all(|piece| {
            go_on(stop)?;
            file.write_all(piece).map_err(JournalError::io("write", &unfinished))
        })?;
        if !sabotage::is(Sabotage::CopyUnsynced) {
            file.sync_all().map_err(JournalError::io("sync", &unfinished))?;
        }
        files::publish(self.dir(), &name)?;
        let summary = from.summary();
        let path = self.checkpoint();
        let copy = Checkpoint::open(&path, from.ledger(), summary.last_seq, summary.chain)
            .and_then(|copy| copy.check());
        // What it was made of may be what is damaged.
        copy.or_else(|error| from.check().and(Err(error)))
    }

    /// Makes it the ledger that `origin` tells of, with the checkpoint that is there by now, and a log
    /// that begins with these records. When this returns `Ok`, it outlives the power.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub(crate) fn finish(self, origin: &Origin, records: &[Record]) -> Result<(), JournalError> {
        self.finish_with(origin, records, &mut |_| ())
    }

    /// As [`finish`](Self::finish), telling after each step what was done last.
    fn finish_with(
        mut self,
        origin: &Origin,
        records: &[Record],
        done: &mut dyn FnMut(&'static str),
    ) -> Result<(), JournalError> {
        let manifest = origin.manifest();
        let Position { seq, chain } = origin.end;
        let mut log =
            Log::create(&self.dir().join(directory::log_dir(LOG)), manifest.segment_size)?;
        let (frames, _) = frame::encode_records(manifest.ledger, chain, records)
            .map_err(|error| JournalError::Store(error.to_string()))?;
        log.append(frames)?;
        drop(log);
        done("log");
        drop(Witness::create_at(self.dir(), manifest.ledger, seq, chain)?);
        files::sync_ancestors(self.dir())?;
        done("witness");
        self.lock.still_ours()?;
        manifest.stage(self.dir())?;
        done("manifest.tmp");
        // A rename that fails, or whose sync does, may have made it a ledger: nothing of it is removed
        // any more, and `copying` tells the next one if it has not.
        self.finished = true;
        Manifest::publish(self.dir())?;
        done("manifest");
        // If it stays, the next open removes it.
        drop(files::remove(&self.dir().join(COPYING)));
        drop(files::sync_dir(self.dir()));
        tracing::info!(path = ?self.dir(), ledger = %manifest.ledger, last = %seq, "copied");
        Ok(())
    }

    fn give_up(&self) -> Result<(), JournalError> {
        directory::remove_leftovers_of_copy(self.dir())?;
        files::sync_dir(self.dir())?;
        files::remove(&self.dir().join(COPYING))?;
        if self.created {
            files::remove(&self.dir().join(super::lock::NAME))?;
            // Not by the path of the directory itself, which is a link to it.
            let path = shown(self.dir());
            std::fs::remove_dir(&path).map_err(JournalError::io("remove", &path))?;
        }
        Ok(())
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.finished {
            if let Err(error) = self.give_up() {
                tracing::debug!(error = %crate::error::chain(&error), "the next copy removes it");
            }
        }
    }
}

/// Of which ledger a new one is a copy, and where that ends.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) ledger: LedgerId,
    pub(crate) created_at: Timestamp,
    /// The description of its id type.
    pub(crate) shape: Vec<u8>,
    pub(crate) end: Position,
}

impl Origin {
    pub(crate) fn of(manifest: &Manifest, end: Position) -> Self {
        let Manifest { ledger, created_at, shape, .. } = manifest;
        Self { ledger: *ledger, created_at: *created_at, shape: shape.clone(), end }
    }

    /// Of the copy.
    fn manifest(&self) -> Manifest {
        let Position { seq: last_seq, chain } = self.end;
        Manifest {
            ledger: self.ledger,
            created_at: self.created_at,
            shape: self.shape.clone(),
            segment_size: SEGMENT_SIZE,
            checkpoint: Some(CheckpointRef { number: CHECKPOINT, last_seq, chain }),
            logs: vec![LogRef { number: LOG }],
            next_number: LOG + 1,
        }
    }
}

#[cfg(test)]
mod tests;
