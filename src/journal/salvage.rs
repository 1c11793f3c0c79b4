//! Going on after a loss that the owner accepted.
//!
//! What can still be read - every whole frame of the logs, every whole frame of
//! the checkpoint - is folded into a new checkpoint, in order, over the gaps.
//! Each event fixes the state it leaves behind, so what is found after a gap is
//! believed: a success recorded after the gap stays a success. The damaged files
//! are kept in `damaged/`.
//!
//! ```text
//!                                     if we die on this line
//! new checkpoint, durable             a leftover; the ledger is as damaged as before
//! evidence kept in damaged/           likewise
//! fresh witness at the new end        likewise; the repair is begun again
//! fresh log, the accepted loss in it   likewise
//! manifest names both                 done
//! ```
//!
//! A manifest that is itself damaged or missing is made up from what is there:
//! the ledger that most of the files name, the last checkpoint, every log. It is
//! never written; the repair that it makes possible writes the new one, last, as
//! any repair does.
//!
//! One that is sound may be an old one, put back. So logs and checkpoints that it
//! does not name are read as well: the sound checkpoint that stands furthest is
//! begun from, and every log that is there follows in the order of the numbers.
//! Nothing new gets the name of anything that is there.

use super::aside;
use super::chain::LedgerId;
use super::checkpoint::{self, Checkpoint, CheckpointWriter, Graves};
use super::directory::{self, Name};
use super::files;
use super::fold::{self, FOLD_MEMORY, Mode, Target};
use super::judge::{self, Position};
use super::manifest::{CheckpointRef, LogRef, Manifest};
use super::open::{Evidence, Opening};
use super::rescue;
use super::scan::{self, Scan};
use super::sled::{SEGMENT_SIZE, data_file};
use super::witness::{self, Witness};
use crate::error::{JournalError, OpenError};
use crate::id::{EncodedId, IdShape};
use crate::journal::{Entry, LedgerEvent, Record};
use crate::sabotage::{self, Sabotage};
use crate::state::{Cell, SeqNo, Timestamp};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

/// That every record follows legally. An open finds this out in its replay; a repair wants to know
/// before it leaves things as they are.
pub(crate) fn check_legal(evidence: &Evidence) -> Result<(), JournalError> {
    let mut cells: HashMap<EncodedId, Cell> = HashMap::new();
    if let Some(checkpoint) = &evidence.checkpoint {
        checkpoint.visit(|id, details| {
            cells.insert(id.clone(), details.cell);
            Ok(())
        })?;
    }
    for (log, run) in evidence.logs.iter().zip(&evidence.whole.runs) {
        log.scan.visit(&run.frames, |record| {
            if let Entry::Task { id, prev, event } = &record.entry {
                let cell = cells.entry(id.clone()).or_insert(Cell::ABSENT);
                *cell = cell
                    .apply(record.seq, *prev, event)
                    .map_err(|source| JournalError::Illegal { seq: record.seq, source })?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Makes a sound ledger of what can be read of a damaged one. Returns what is to be recorded.
pub(crate) fn salvage(opening: &mut Opening<'_>, damage: &str) -> Result<String, OpenError> {
    let dir = opening.dir().clone();
    let ledger = opening.manifest.ledger;
    directory::remove_unfinished(&dir)?;
    let (logs, checkpoints) = directory::numbered(&dir)?;
    let next = logs.iter().chain(&checkpoints).max().map_or(1, |last| last + 1);
    opening.manifest.next_number = opening.manifest.next_number.max(next);
    let old = old_checkpoint(opening, &checkpoints)?;
    let base = super::durable::position_of(old.as_ref());
    let scans = scans(opening, &logs, base.seq)?;
    let (picked, mut end) = judge::salvage(base, &scans);
    let read_up_to = end.seq;
    // Numbers that were acknowledged are not used again.
    if let Ok((seq, chain)) = witness::peek(&dir, ledger) {
        if seq > end.seq {
            end = Position { seq, chain };
        }
    }
    if let Some(at) = opening.manifest.checkpoint.filter(|at| at.last_seq > end.seq) {
        end = Position { seq: at.last_seq, chain: at.chain };
    }
    let number = opening.manifest.next_number;
    let mut evidence = all_names(&dir)?;
    if sabotage::is(Sabotage::DropEvidence) {
        evidence.clear();
    }
    let logs: Vec<fold::Log<'_>> =
        scans.iter().zip(&picked).map(|(scan, frames)| fold::Log { scan, frames }).collect();
    let target = Target {
        path: &dir.join(directory::checkpoint(number)),
        ledger,
        last_seq: end.seq,
        chain: end.chain,
    };
    let never = AtomicBool::new(false);
    let folded = fold::fold(old.as_ref(), &logs, Mode::Forced, &target, FOLD_MEMORY, &never)?;
    folded.checkpoint.check()?;
    let what = format!(
        "{damage}; {} records up to {read_up_to} were read, numbering goes on after {}",
        folded.records, end.seq
    );
    // In the fresh log before the manifest names it: there is no ledger without the record.
    let entry = Entry::Ledger(LedgerEvent::LossAccepted { what: what.clone() });
    let record = Record { seq: end.seq.next(), at: SystemTime::now().into(), entry };
    let go_on = || {
        aside::put_aside(&dir, &evidence)?;
        drop(Witness::create_at(&dir, ledger, end.seq, end.chain)?);
        let records = if sabotage::is(Sabotage::LossUnrecorded) { &[][..] } else { &[record] };
        opening.start_afresh(number, end, records)?;
        Ok::<_, OpenError>(())
    };
    // On a full disk its space is what the next attempt can go on with.
    go_on().inspect_err(|_| drop(files::remove(target.path)))?;
    Ok(what)
}

/// The manifest of a ledger that has lost it, made up from the other files: for reading, and for a
/// repair, but not to be written. `None` when nothing tells which ledger it is. Changes nothing.
///
/// The number of logs may be any. The description of the id type is gone, and so is the time of
/// creation.
///
/// # Errors
///
/// [`JournalError::Io`].
pub(crate) fn reconstruct(dir: &Path) -> Result<Option<Manifest>, JournalError> {
    let (logs, checkpoints) = directory::numbered(dir)?;
    let Some(ledger) = owner(dir, &logs, &checkpoints)? else { return Ok(None) };
    let last = logs.iter().chain(&checkpoints).max();
    Ok(Some(Manifest {
        ledger,
        created_at: Timestamp::default(),
        shape: IdShape::default().to_bytes(),
        segment_size: SEGMENT_SIZE,
        checkpoint: last_checkpoint(dir, ledger, &checkpoints)?,
        next_number: last.map_or(1, |last| last + 1),
        logs: logs.into_iter().map(|number| LogRef { number }).collect(),
    }))
}

/// The ledger that most of the files name: one of them may have been put in by mistake.
fn owner(dir: &Path, logs: &[u64], checkpoints: &[u64]) -> Result<Option<LedgerId>, JournalError> {
    let mut named = witness::owners(dir)?;
    // A file has one vote.
    named.dedup();
    for number in checkpoints {
        let glimpse = Checkpoint::glimpse(&dir.join(directory::checkpoint(*number)))?;
        named.extend(glimpse.map(|(ledger, ..)| ledger));
    }
    for number in logs {
        named.extend(scan::owner(&data_file(&dir.join(directory::log_dir(*number))))?);
    }
    let votes = |ledger: &LedgerId| named.iter().filter(|other| *other == ledger).count();
    Ok(named.iter().copied().max_by_key(votes))
}

/// The highest checkpoint that is sound; if none is, the highest that says where it stands, of
/// which a part may be read.
fn last_checkpoint(
    dir: &Path,
    ledger: LedgerId,
    numbers: &[u64],
) -> Result<Option<CheckpointRef>, JournalError> {
    let mut partial = None;
    for &number in numbers.iter().rev() {
        let path = dir.join(directory::checkpoint(number));
        let Some((owner, last_seq, chain)) = Checkpoint::glimpse(&path)? else { continue };
        if owner != ledger {
            continue;
        }
        let found = CheckpointRef { number, last_seq, chain };
        match Checkpoint::open(&path, ledger, last_seq, chain).and_then(|file| file.check()) {
            Ok(()) => return Ok(Some(found)),
            Err(_) => partial = partial.or(Some(found)),
        }
    }
    Ok(partial)
}

/// The sound checkpoint that stands furthest, unless the one that the manifest names, damaged as it
/// is, stands further: then a sound one of what is whole in that.
fn old_checkpoint(
    opening: &Opening<'_>,
    there: &[u64],
) -> Result<Option<Checkpoint>, JournalError> {
    let (dir, ledger) = (opening.dir(), opening.manifest.ledger);
    let mut furthest: Option<Checkpoint> = None;
    for number in there {
        let path = dir.join(directory::checkpoint(*number));
        let Some((owner, last_seq, chain)) = Checkpoint::glimpse(&path)? else { continue };
        let known = furthest.as_ref().map(|found| found.summary().last_seq);
        if owner != ledger || known.is_some_and(|known| known >= last_seq) {
            continue;
        }
        let sound = Checkpoint::open(&path, ledger, last_seq, chain)
            .and_then(|checkpoint| checkpoint.check().map(|()| checkpoint));
        match sound {
            Ok(checkpoint) => furthest = Some(checkpoint),
            Err(error) => {
                tracing::warn!(error = %crate::error::chain(&error), "a damaged checkpoint");
            }
        }
    }
    let Some(at) = opening.manifest.checkpoint else { return Ok(furthest) };
    let path = dir.join(directory::checkpoint(at.number));
    let known = furthest.as_ref().map(|found| found.summary().last_seq);
    if known.is_some_and(|known| known >= at.last_seq) || files::found(&path)?.is_none() {
        return Ok(furthest);
    }
    // If it is another one, put there by mistake, its entries are measured from its own position.
    let own = Checkpoint::glimpse(&path)?.filter(|(owner, ..)| *owner == ledger);
    let (last_seq, chain) =
        own.map_or((at.last_seq, at.chain), |(_, last_seq, chain)| (last_seq, chain));
    let salvaged = dir.join(directory::checkpoint(opening.manifest.next_number));
    let mut writer = CheckpointWriter::create(&salvaged, ledger, last_seq, chain)?;
    let (epoch, metadata, tombstones) = checkpoint::salvage(&path, ledger, last_seq, &mut writer)?;
    let checkpoint = writer.finish(epoch, &metadata, Graves::new(None, tombstones))?;
    // It stays readable until it is dropped, and never becomes part of the ledger.
    files::remove(&salvaged)?;
    Ok(Some(checkpoint))
}

/// The logs that are there.
fn scans(opening: &Opening<'_>, there: &[u64], base: SeqNo) -> Result<Vec<Scan>, JournalError> {
    let mut scans = Vec::new();
    for number in there {
        let dir = opening.dir().join(directory::log_dir(*number));
        if files::found(&data_file(&dir))?.is_some() {
            scans.push(rescue::scan_log(&dir, opening.manifest.ledger, base)?);
        }
    }
    Ok(scans)
}

/// Everything that may tell something.
fn all_names(dir: &Path) -> Result<Vec<String>, JournalError> {
    let telling = |name: Name| match name {
        Name::Log(_) | Name::Checkpoint(_) | Name::Witness => true,
        Name::Lock
        | Name::Manifest
        | Name::Ballast
        | Name::Damaged
        | Name::Copying
        | Name::Unfinished
        | Name::Commands
        | Name::Unknown => false,
    };
    let names = directory::list(dir)?.into_iter().filter(|&(_, name)| telling(name));
    Ok(names.map(|(name, _)| name.to_string_lossy().into_owned()).collect())
}

#[cfg(test)]
mod tests;
