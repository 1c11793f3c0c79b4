//! Folding a log into a checkpoint.
//!
//! ```text
//! old checkpoint   a: succeeded @3    c: failed @9            e: queued @8
//! log                                 c: 10 started, 12 ended               f: 11 queued
//! new checkpoint   a: succeeded @3    c: succeeded @12        e: queued @8  f: queued @11
//! ```
//!
//! The old checkpoint is a sorted stream. The records of the log are gathered by id, still encoded,
//! and merged into it. When they take more memory than allowed, what there is so far goes into an
//! intermediate checkpoint, and the rest is folded into that one: a log of any size is folded in
//! bounded memory.
//!
//! A strict fold is valid if and only if the records are dense from the old checkpoint to the new
//! one's position and each of them is legal where it stands.

use crate::error::JournalError;
use crate::journal::chain::{Chain, LedgerId};
use crate::journal::checkpoint::{Checkpoint, CheckpointWriter, Graves};
use crate::journal::merge::{Changes, Known, Merge, Told};
use crate::journal::scan::Scan;
use crate::journal::{Entry, LedgerEvent, Record};
use crate::sabotage::{self, Sabotage};
use crate::state::{Epoch, Grave, SeqNo, TaskState, Tombstone};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Memory for the records of one round, where nothing else is asked for.
pub(crate) const FOLD_MEMORY: usize = 128 * 1024 * 1024;

/// What to do with a record that cannot follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It is an error.
    Strict,
    /// It is believed: its owner accepted a loss, and each event fixes the state it leaves behind.
    Forced,
}

/// Frames of one log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log<'a> {
    pub(crate) scan: &'a Scan,
    /// Their numbers, in order.
    pub(crate) frames: &'a [usize],
}

/// The checkpoint to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) path: &'a Path,
    pub(crate) ledger: LedgerId,
    /// The last record folded in; when forced, it may be later than all that are there.
    pub(crate) last_seq: SeqNo,
    pub(crate) chain: Chain,
}

/// What was made.
#[derive(Debug)]
pub(crate) struct Folded {
    /// Durable and in its place.
    pub(crate) checkpoint: Checkpoint,
    /// Records folded in.
    pub(crate) records: u64,
}

/// Folds `old` and the records of `logs`, in this order, into a new checkpoint, holding about
/// `memory` bytes of records at a time. Gives up soon after `stop` is set.
///
/// # Errors
///
/// [`JournalError::Illegal`] and [`JournalError::Damaged`] when strict; otherwise those of reading
/// and writing. Nothing is in the place of the new checkpoint then.
pub(crate) fn fold(
    old: Option<&Checkpoint>,
    logs: &[Log<'_>],
    mode: Mode,
    target: &Target<'_>,
    memory: usize,
    stop: &AtomicBool,
) -> Result<Folded, JournalError> {
    let mut round = Round::after(old, mode);
    let mut so_far: Option<Checkpoint> = None;
    let mut rounds = 0;
    for log in logs {
        let mut reader = log.scan.reader();
        for frame in log.frames.iter().filter_map(|number| log.scan.frames().get(*number)) {
            if round.changes.bytes() > memory {
                rounds += 1;
                let path = part_of(target.path, rounds);
                let part = Target { path: &path, ..*target };
                so_far = Some(round.write(so_far.as_ref().or(old), &part, stop)?);
                // It stays readable until it is dropped, and never becomes a leftover.
                std::fs::remove_file(&path).map_err(JournalError::io("remove", &path))?;
            }
            go_on(stop)?;
            for record in reader.records(frame)? {
                round.take(record)?;
            }
        }
    }
    if mode == Mode::Strict && round.last != target.last_seq {
        return Err(JournalError::Store(format!(
            "the log ends at record {}, the checkpoint was to stand at {}",
            round.last, target.last_seq
        )));
    }
    let checkpoint = round.write(so_far.as_ref().or(old), target, stop)?;
    Ok(Folded { checkpoint, records: round.records })
}

/// The records that are not yet in a checkpoint, by id, and what is summed up beside them.
struct Round {
    mode: Mode,
    changes: Changes,
    last: SeqNo,
    records: u64,
    epoch: Epoch,
    metadata: BTreeMap<String, Vec<u8>>,
    /// Tombstones that came and went: of each, whether it is there now.
    graves: BTreeMap<Tombstone, bool>,
}

impl Round {
    fn after(old: Option<&Checkpoint>, mode: Mode) -> Self {
        let summary = old.map(Checkpoint::summary);
        Self {
            mode,
            changes: Changes::default(),
            last: summary.map(|summary| summary.last_seq).unwrap_or_default(),
            records: 0,
            epoch: summary.map(|summary| summary.epoch).unwrap_or_default(),
            metadata: summary.map(|summary| summary.metadata.clone()).unwrap_or_default(),
            graves: BTreeMap::new(),
        }
    }

    fn take(&mut self, record: Record) -> Result<(), JournalError> {
        match self.mode {
            Mode::Strict if record.seq != self.last.next() => {
                return Err(JournalError::Store(format!(
                    "record {} was handed over after record {}",
                    record.seq, self.last
                )));
            }
            // Two histories overlap: the one that came first in order holds.
            Mode::Forced if record.seq <= self.last => return Ok(()),
            Mode::Strict | Mode::Forced => {}
        }
        self.last = record.seq;
        self.records += 1;
        match record.entry {
            Entry::Task { id, prev, event } => {
                match event.grave() {
                    Some(Grave::Dug(tombstone)) => _ = self.graves.insert(tombstone, true),
                    Some(Grave::Opened(tombstone)) => _ = self.graves.insert(tombstone, false),
                    None => {}
                }
                self.changes.take(record.seq, record.at, id, prev, &event);
            }
            Entry::Ledger(LedgerEvent::EpochOpened { epoch }) => self.epoch = epoch,
            Entry::Ledger(LedgerEvent::LossAccepted { .. }) => {}
            Entry::Ledger(LedgerEvent::MetadataSet { name, value: Some(value) }) => {
                self.metadata.insert(name, value);
            }
            Entry::Ledger(LedgerEvent::MetadataSet { name, value: None }) => {
                self.metadata.remove(&name);
            }
        }
        Ok(())
    }

    /// Merges the changes into `old`, and forgets them.
    fn write(
        &mut self,
        old: Option<&Checkpoint>,
        target: &Target<'_>,
        stop: &AtomicBool,
    ) -> Result<Checkpoint, JournalError> {
        let Target { path, ledger, last_seq, chain } = *target;
        let mut writer = CheckpointWriter::create(path, ledger, last_seq, chain)?;
        let known = old.map_or(Known::Nothing, |old| Known::Checkpoint(Box::new(old.entries())));
        let mut merge = Merge::new(known, std::mem::take(&mut self.changes));
        while let Some(Told { id, details, illegal }) = merge.next_before(None)? {
            go_on(stop)?;
            match (self.mode, illegal) {
                (Mode::Strict, Some((seq, source))) => {
                    assert!(!sabotage::is(Sabotage::TrustRecord), "record {seq} was believed");
                    return Err(JournalError::Illegal { seq, source });
                }
                (Mode::Strict, None) | (Mode::Forced, _) => {}
            }
            match details.state() {
                TaskState::NotFound => {}
                TaskState::Queued
                | TaskState::Running
                | TaskState::Succeeded
                | TaskState::Failed
                | TaskState::Revoking => writer.push(&id, &details)?,
            }
        }
        let mut graves = std::mem::take(&mut self.graves);
        graves.retain(|_, there| !*there || !sabotage::is(Sabotage::LoseGraves));
        let graves = Graves::new(old, graves);
        if sabotage::is(Sabotage::LoseMetadata) {
            self.metadata.clear();
        }
        writer.finish(self.epoch, &self.metadata, graves)
    }
}

/// A close waits for the fold, so whatever is as long as the ledger is large has to ask.
pub(crate) fn go_on(stop: &AtomicBool) -> Result<(), JournalError> {
    if stop.load(Ordering::Relaxed) {
        return Err(JournalError::Store("asked to stop".into()));
    }
    Ok(())
}

fn part_of(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(format!(".part-{number}"));
    name.into()
}

#[cfg(test)]
mod tests;
