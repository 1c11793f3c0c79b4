//! Whether what a disk holds is all that was acknowledged: judged from a scan,
//! before any store has touched the files.
//!
//! The logs of a ledger are whole if and only if their frames run dense and
//! chain-linked from the checkpoint to the end, every log but the last up to
//! where the next begins; nothing lies beyond the end but parts of a last batch
//! that a loss of power tore (nobody was told of it); and the witness's position
//! is in the run, with the witness's chain, or before it.

use super::chain::Chain;
use super::scan::{Run, Scan};
use crate::error::Damage;
use crate::sabotage::{self, Sabotage};
use crate::state::SeqNo;

/// A position of the log and the chain there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) seq: SeqNo,
    pub(crate) chain: Chain,
}

impl Position {
    /// Before the first record.
    pub(crate) const START: Self = Self { seq: SeqNo::ZERO, chain: Chain::START };
}

/// A log that was scanned, by its name.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) name: String,
    pub(crate) scan: Scan,
}

/// Logs that are whole.
#[derive(Debug)]
pub(crate) struct Whole {
    /// For each log, which of its frames are the log.
    pub(crate) runs: Vec<Run>,
    /// The end of the last one.
    pub(crate) end: Position,
}

/// Judges the logs that follow `base`, in their order, against the witness.
///
/// # Errors
///
/// What is wrong, and which records are known to be gone.
pub(crate) fn judge(base: Position, logs: &[Scanned], witness: Position) -> Result<Whole, Damage> {
    let mut runs: Vec<Run> = Vec::with_capacity(logs.len());
    let mut end = base;
    for (number, log) in logs.iter().enumerate() {
        let run = log.scan.run(end.seq, end.chain);
        let is_last = number + 1 == logs.len();
        if let Some(damage) = wrong_with(log, &run, is_last, witness) {
            return Err(damage);
        }
        end = Position { seq: run.end, chain: run.chain };
        runs.push(run);
    }
    held_against(witness, base, logs, &runs, end)?;
    Ok(Whole { runs, end })
}

fn wrong_with(log: &Scanned, run: &Run, is_last: bool, witness: Position) -> Option<Damage> {
    let place = log.name.clone();
    if let Some(seq) = run.fork {
        let what = format!("two different batches claim to begin with record {seq}");
        return Some(Damage { place, what, lost: None });
    }
    let (first, last) = run.beyond?;
    if run.torn && is_last && witness.seq <= run.end {
        return None;
    }
    let gap = (run.end.next(), SeqNo::new(first.get().saturating_sub(1)));
    let (what, lost) = if gap.0 <= gap.1 {
        (format!("the log has a gap before record {first}; it goes on to {last}"), Some(gap))
    } else {
        (format!("record {first} does not follow the one before it"), None)
    };
    Some(Damage { place, what, lost })
}

fn held_against(
    witness: Position,
    base: Position,
    logs: &[Scanned],
    runs: &[Run],
    end: Position,
) -> Result<(), Damage> {
    if sabotage::is(Sabotage::IgnoreWitness) {
        return Ok(());
    }
    let place = logs.last().map_or_else(|| "log".to_owned(), |log| log.name.clone());
    if witness.seq > end.seq {
        let what =
            format!("the log ends at record {}, but record {} was durable", end.seq, witness.seq);
        return Err(Damage { place, what, lost: Some((end.seq.next(), witness.seq)) });
    }
    let known = if witness.seq == base.seq {
        Some(base.chain)
    } else if witness.seq < base.seq {
        // From before the checkpoint: a power cut kept an old witness, which is normal.
        return Ok(());
    } else {
        logs.iter().zip(runs).find_map(|(log, run)| {
            let mut frames = run.frames.iter().filter_map(|at| log.scan.frames().get(*at));
            frames.find(|frame| frame.last() == witness.seq.get()).map(|frame| frame.checksum)
        })
    };
    if known == Some(witness.chain) {
        return Ok(());
    }
    let what = format!(
        "record {} is not the one that the witness has seen: the log or the witness is from another time",
        witness.seq
    );
    Err(Damage { place, what, lost: None })
}
