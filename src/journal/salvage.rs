//! Going on after a loss that the owner accepted.
//!
//! What can still be read - every whole frame of the logs, every whole frame of
//! the checkpoint - is folded into a new checkpoint, in order, over the gaps.
//! Each event fixes the state it leaves behind, so what is found after a gap is
//! believed: a success recorded after the gap stays a success. The damaged files
//! are kept in `damaged/`.
//!
//! The manifest itself may be an old one. So logs and checkpoints that it does
//! not name are read as well: the soundest checkpoint that stands furthest is
//! begun from, and every log that is there follows in the order of the numbers.
//! Nothing new is given the name of anything that is there.
//!
//! ```text
//!                                     if we die on this line
//! new checkpoint, durable             a leftover; the ledger is as damaged as before
//! evidence kept in damaged/           likewise
//! fresh witness at the new end        likewise; the repair is begun again
//! fresh log, manifest names both      done
//! ```

use super::aside;
use super::checkpoint::{self, Checkpoint, CheckpointWriter};
use super::directory;
use super::fold::{self, FOLD_MEMORY, Mode, Target};
use super::judge::Position;
use super::open::{Evidence, Opening};
use super::scan::{Scan, scan_file};
use super::sled::data_file;
use super::witness::{self, Witness};
use crate::error::{JournalError, OpenError};
use crate::id::EncodedId;
use crate::journal::Entry;
use crate::state::{Cell, SeqNo};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

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
    let dir = opening.dir.clone();
    let ledger = opening.manifest.ledger;
    directory::remove_unfinished(&dir)?;
    let (logs_there, checkpoints_there) = directory::numbered(&dir)?;
    let highest = logs_there.iter().chain(&checkpoints_there).max().copied().unwrap_or_default();
    opening.manifest.next_number = opening.manifest.next_number.max(highest.saturating_add(1));
    let old = old_checkpoint(opening, &checkpoints_there)?;
    let base = super::durable::position_of(old.as_ref());
    let scans = scans(opening, &logs_there, base.seq)?;
    let mut end = base;
    let mut picked = Vec::new();
    for scan in &scans {
        let frames = scan.salvage(end.seq, end.chain);
        if let Some(last) = frames.last().and_then(|at| scan.frames().get(*at)) {
            end = Position { seq: SeqNo::new(last.last()), chain: last.checksum };
        }
        picked.push(frames);
    }
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
    let logs_there = logs_there.into_iter().map(directory::log_dir);
    let checkpoints_there = checkpoints_there.into_iter().map(directory::checkpoint);
    let evidence: Vec<String> =
        logs_there.chain(checkpoints_there).chain([witness::NAME.to_owned()]).collect();
    aside::put_aside(&dir, &evidence)?;
    drop(Witness::create_at(&dir, ledger, end.seq, end.chain)?);
    opening.start_afresh(number, end)?;
    Ok(format!(
        "{damage}; {} records up to {read_up_to} were read, numbering goes on after {}",
        folded.records, end.seq
    ))
}

/// The sound checkpoint that stands furthest, if that is no less far than the one that the manifest
/// names; otherwise a sound one of what is whole in that.
fn old_checkpoint(
    opening: &Opening<'_>,
    there: &[u64],
) -> Result<Option<Checkpoint>, JournalError> {
    let (dir, ledger) = (&opening.dir, opening.manifest.ledger);
    let named = opening.manifest.checkpoint;
    let mut furthest: Option<Checkpoint> = None;
    for number in there {
        let path = dir.join(directory::checkpoint(*number));
        let at = match named.filter(|at| at.number == *number) {
            Some(at) => Some((at.last_seq, at.chain)),
            None => Checkpoint::standing(&path, ledger)?,
        };
        let Some((last_seq, chain)) = at else { continue };
        let sound = Checkpoint::open(&path, ledger, last_seq, chain)
            .and_then(|checkpoint| checkpoint.check().map(|()| checkpoint));
        match sound {
            Ok(checkpoint)
                if furthest.as_ref().is_none_or(|other| other.summary().last_seq < last_seq) =>
            {
                furthest = Some(checkpoint);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = %crate::error::chain(&error), "a damaged checkpoint");
            }
        }
    }
    let Some(at) = named else { return Ok(furthest) };
    let path = dir.join(directory::checkpoint(at.number));
    if furthest.as_ref().is_some_and(|found| found.summary().last_seq >= at.last_seq)
        || !path.exists()
    {
        return Ok(furthest);
    }
    // If it is another one, put there by mistake, its entries are measured from its own position.
    let (last_seq, chain) = Checkpoint::standing(&path, ledger)?.unwrap_or((at.last_seq, at.chain));
    let salvaged = dir.join(directory::checkpoint(opening.manifest.next_number));
    let mut writer = CheckpointWriter::create(&salvaged, ledger, last_seq, chain)?;
    let (epoch, metadata) = checkpoint::salvage(&path, ledger, last_seq, &mut writer)?;
    let checkpoint = writer.finish(epoch, &metadata)?;
    // It stays readable until it is dropped, and never becomes part of the ledger.
    super::files::remove(&salvaged)?;
    Ok(Some(checkpoint))
}

/// The logs that are there.
fn scans(opening: &Opening<'_>, there: &[u64], base: SeqNo) -> Result<Vec<Scan>, JournalError> {
    there
        .iter()
        .map(|number| data_file(&opening.dir.join(directory::log_dir(*number))))
        .filter(|file| Path::exists(file))
        .map(|file| scan_file(&file, opening.manifest.ledger, base))
        .collect()
}
