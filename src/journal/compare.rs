//! What the store shows of its log, held against what a scan has found in its file.

use super::scan::Scan;
use super::sled::Log;
use crate::error::JournalError;
use crate::state::SeqNo;

/// Where the store's entries are not exactly the frames of the scan.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    /// The scan has what the store has not, or what has never become part of the log.
    Poorer(String),
    /// The store has this record, and the scan has not found it: so the scan is not all there is, and
    /// nothing may be built from it alone.
    Richer(SeqNo),
}

/// `None` if they are exactly the frames of the scan.
///
/// # Errors
///
/// Those of the store.
pub(crate) fn compare(
    log: &mut Log,
    scan: &Scan,
    run: &[usize],
) -> Result<Option<Difference>, JournalError> {
    let mut reader = scan.reader();
    let mut expected = run.iter().filter_map(|at| scan.frames().get(*at));
    let mut difference = None;
    log.visit(|first, bytes| {
        // To the end, whatever is missing before: what is there beyond the scan weighs more.
        if scan.misses(bytes) {
            difference = Some(Difference::Richer(first));
            return Ok(false);
        }
        if difference.is_some() {
            return Ok(true);
        }
        difference = match expected.next() {
            Some(frame) if frame.first == first.get() && reader.read(frame)? == bytes => None,
            Some(frame) => Some(Difference::Poorer(format!(
                "the store has dropped or changed record {}",
                frame.first
            ))),
            None => Some(Difference::Poorer(format!(
                "the store has an entry at record {first} that is no part of the log"
            ))),
        };
        Ok(true)
    })?;
    Ok(difference.or_else(|| {
        let dropped = expected.next()?.first;
        Some(Difference::Poorer(format!("the store has dropped all from record {dropped} on")))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::held::HeldPath;
    use crate::journal::chain::{Chain, LedgerId};
    use crate::journal::frame::{Frame, encode_records};
    use crate::journal::scan::scan_file;
    use crate::journal::{Entry, LedgerEvent, Record};
    use crate::state::Timestamp;

    const LEDGER: LedgerId = LedgerId([3; 16]);

    fn scan(frames: &[Frame]) -> Scan {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes.clone()).collect();
        std::fs::write(file.path(), bytes).unwrap();
        scan_file(file.path(), LEDGER, SeqNo::ZERO).unwrap()
    }

    fn frames(count: u64) -> Vec<Frame> {
        let what = "x".repeat(40_000);
        let record = |seq| Record {
            seq: SeqNo::new(seq),
            at: Timestamp::from_micros(seq),
            entry: Entry::Ledger(LedgerEvent::LossAccepted { what: what.clone() }),
        };
        let records: Vec<Record> = (1..=count).map(record).collect();
        encode_records(LEDGER, Chain::START, &records).unwrap().0
    }

    #[test]
    fn the_store_has_as_much_as_was_found_or_less_or_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::create(&HeldPath::by_name(dir.path()).join("log-1"), 8 << 20).unwrap();
        let all = frames(5);
        log.append(frames(3)).unwrap();
        let mut compared = |found: &[Frame]| {
            let scan = scan(found);
            let run = scan.run(SeqNo::ZERO, Chain::START).frames;
            compare(&mut log, &scan, &run).unwrap()
        };
        assert_eq!(compared(&all[..3]), None);
        let Some(Difference::Poorer(what)) = compared(&all) else { panic!("the rest was dropped") };
        assert!(what.contains("dropped all from record 4"), "{what}");
        // What was not found is evidence: a log must not be rebuilt without it.
        assert_eq!(compared(&all[..2]), Some(Difference::Richer(SeqNo::new(3))));
        assert_eq!(compared(&all[1..]), Some(Difference::Richer(SeqNo::new(1))));
        let gap = [all[0].clone(), all[3].clone(), all[4].clone()];
        assert_eq!(compared(&gap), Some(Difference::Richer(SeqNo::new(2))));
        // What was found, and is no part of the log, the store may have.
        let scan = scan(&all[..3]);
        let Some(Difference::Poorer(what)) = compare(&mut log, &scan, &[0, 1]).unwrap() else {
            panic!("record 3 is no part of the log")
        };
        assert!(what.contains("record 3"), "{what}");
    }
}
