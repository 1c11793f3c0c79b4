//! Whether what a disk holds is all that was acknowledged: judged from a scan,
//! before any store has touched the files.
//!
//! The logs of a ledger are whole if and only if their frames run dense and
//! chain-linked from the checkpoint to the end, every log but the last up to
//! where the next begins; nothing lies beyond the end of a log but parts of a
//! batch that a loss of power tore (nobody was told of it, and the log went on
//! without it); and the witness's position is in the run, with the witness's
//! chain, or before it.

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

/// For each of these logs, which need not be whole, the frames that can be put in order; and the end
/// of the last one. A log goes on where the one before it has ended: what that one holds beyond the
/// beginning of a later one is a leftover that never counted.
pub(crate) fn salvage<'a>(
    base: Position,
    logs: impl IntoIterator<Item = &'a Scan>,
) -> (Vec<Vec<usize>>, Position) {
    let logs: Vec<&Scan> = logs.into_iter().collect();
    let mut end = base;
    let pick = |(number, scan): (usize, &&Scan)| {
        let later = logs.get(number + 1..).unwrap_or_default();
        let before = later.iter().filter_map(|log| log.beginning()).min().unwrap_or(u64::MAX);
        let frames = if sabotage::is(Sabotage::StopAtGap) {
            scan.run(end.seq, end.chain).frames
        } else {
            scan.salvage(end.seq, end.chain, before)
        };
        if let Some(last) = frames.last().and_then(|at| scan.frames().get(*at)) {
            end = Position { seq: SeqNo::new(last.last()), chain: last.checksum };
        }
        frames
    };
    let frames = logs.iter().enumerate().map(pick).collect();
    (frames, end)
}

fn wrong_with(log: &Scanned, run: &Run, is_last: bool, witness: Position) -> Option<Damage> {
    let place = log.name.clone();
    if let Some(seq) = run.fork {
        let what = format!("two different batches claim to begin with record {seq}");
        return Some(Damage { place, what, lost: None });
    }
    let (first, last) = run.beyond?;
    // If it was not torn but lost, the next log does not follow, or the witness knows more.
    if run.torn && (!is_last || witness.seq <= run.end) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::chain::LedgerId;
    use crate::journal::frame::{Frame, encode_records};
    use crate::journal::scan::scan_file;
    use crate::journal::{Entry, LedgerEvent, Record};
    use crate::state::Timestamp;

    const LEDGER: LedgerId = LedgerId([7; 16]);

    /// Records `first` to `last` after this chain, as a batch of frames of one record each.
    fn batch(chain: Chain, first: u64, last: u64) -> (Vec<Frame>, Chain) {
        let what = "x".repeat(40_000);
        let records: Vec<Record> = (first..=last)
            .map(|seq| Record {
                seq: SeqNo::new(seq),
                at: Timestamp::from_micros(seq),
                entry: Entry::Ledger(LedgerEvent::LossAccepted { what: what.clone() }),
            })
            .collect();
        let (frames, chain) = encode_records(LEDGER, chain, &records).unwrap();
        assert_eq!(frames.len(), records.len());
        (frames, chain)
    }

    fn log<'a>(name: &str, frames: impl IntoIterator<Item = &'a Frame>) -> Scanned {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = frames.into_iter().flat_map(|frame| frame.bytes.clone()).collect();
        std::fs::write(file.path(), bytes).unwrap();
        let scan = scan_file(file.path(), LEDGER, SeqNo::ZERO).unwrap();
        Scanned { name: name.to_owned(), scan }
    }

    fn at(seq: u64, chain: Chain) -> Position {
        Position { seq: SeqNo::new(seq), chain }
    }

    fn salvaged(logs: &[Scanned]) -> Vec<u64> {
        let (picked, _) = salvage(Position::START, logs.iter().map(|log| &log.scan));
        let frames = logs
            .iter()
            .zip(&picked)
            .flat_map(|(log, picked)| picked.iter().map(|number| log.scan.frames()[*number].first));
        frames.collect()
    }

    /// A power cut tears a batch, 2 to 7; the ledger goes on without it; and before the log is folded
    /// away, the next one takes over. What is left of the torn batch was taken for damage once, and a
    /// repair then believed it and passed over what the next log holds.
    #[test]
    fn what_was_torn_in_a_log_that_has_ended_does_not_count() {
        let (first, chain) = batch(Chain::START, 1, 1);
        let (torn, _) = batch(chain, 2, 7);
        let (second, chain) = batch(chain, 2, 2);
        let old = log("log-1", first.iter().chain(&torn[4..]).chain(&second));
        let (next, end) = batch(chain, 3, 4);
        let logs = [old, log("log-2", &next)];
        let whole = judge(Position::START, &logs, at(4, end)).unwrap();
        assert_eq!(whole.end, at(4, end));
        assert_eq!(salvaged(&logs), [1, 2, 3, 4]);

        // The same before anything stands in the next log.
        let empty = [logs.into_iter().next().unwrap(), log("log-2", [])];
        assert_eq!(judge(Position::START, &empty, at(2, chain)).unwrap().end, at(2, chain));
        assert_eq!(salvaged(&empty), [1, 2, 6, 7]);
        // The witness knows of more: what is gone was not torn.
        let lost = judge(Position::START, &empty, at(4, end)).unwrap_err();
        assert_eq!(lost.lost, Some((SeqNo::new(3), SeqNo::new(4))));
    }

    /// The same frames, but what is missing had been acknowledged: the next log begins after it.
    #[test]
    fn what_was_lost_in_a_log_that_has_ended_is_damage() {
        let (first, chain) = batch(Chain::START, 1, 1);
        let (second, chain) = batch(chain, 2, 4);
        let (next, end) = batch(chain, 5, 6);
        for left in [vec![], vec![&second[1]], vec![&second[2]], vec![&second[1], &second[2]]] {
            let old = log("log-1", first.iter().chain(left.iter().copied()));
            let logs = [old, log("log-2", &next)];
            let damage = judge(Position::START, &logs, Position::START).unwrap_err();
            assert!(damage.what.contains("gap"), "{damage:?}");
            let mut expected = vec![1];
            expected.extend(left.iter().map(|frame| frame.first.get()));
            expected.extend([5, 6]);
            assert_eq!(salvaged(&logs), expected);
            assert_eq!(salvage(Position::START, logs.iter().map(|log| &log.scan)).1, at(6, end));
        }
    }

    /// Where the next log has lost its beginning as well, nothing links the two.
    #[test]
    fn a_leftover_does_not_hide_a_later_log_that_has_lost_its_beginning() {
        let (first, chain) = batch(Chain::START, 1, 2);
        let (torn, _) = batch(chain, 3, 8);
        let (next, chain) = batch(chain, 3, 3);
        let (rest, end) = batch(chain, 4, 9);
        let logs = [log("log-1", first.iter().chain(&torn[3..])), log("log-2", &rest)];
        judge(Position::START, &logs, Position::START).unwrap_err();
        assert_eq!(salvaged(&logs), [1, 2, 4, 5, 6, 7, 8, 9]);
        assert_eq!(salvage(Position::START, logs.iter().map(|log| &log.scan)).1, at(9, end));
        let whole =
            [log("log-1", first.iter().chain(&torn[3..])), log("log-2", next.iter().chain(&rest))];
        assert_eq!(judge(Position::START, &whole, at(9, end)).unwrap().end, at(9, end));
    }

    /// Behind a gap, a leftover and the log both claim to go on.
    #[test]
    fn behind_a_gap_the_longer_run_is_believed() {
        let (_, lost) = batch(Chain::START, 1, 3);
        let (leftover, _) = batch(lost, 4, 4);
        let (second, chain) = batch(lost, 4, 5);
        let (third, _) = batch(chain, 6, 6);
        let logs = [log("log-1", leftover.iter().chain(&second).chain(&third))];
        assert_eq!(salvaged(&logs), [4, 5, 6]);
        let frames = logs[0].scan.frames();
        let (picked, _) = salvage(Position::START, logs.iter().map(|log| &log.scan));
        assert_eq!(frames[picked[0][0]].checksum, frames[picked[0][1]].chain);
    }
}
