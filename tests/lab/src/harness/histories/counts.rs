//! Counts, held against the log: each must be that of the end of a batch.

use std::collections::BTreeMap;
use taskledger::{Cell, EncodedId, Entry, Record, TaskState};

/// A count that was told.
#[derive(Clone, Debug)]
pub(super) struct Count {
    /// Of the ids in this state, or of all.
    pub(super) state: Option<TaskState>,
    pub(super) told: usize,
    pub(super) since: Since,
    /// How long the log was by then, but for what was told to have failed.
    pub(super) end: usize,
}

/// From where on it can have been taken.
#[derive(Clone, Debug)]
pub(super) enum Since {
    /// This id had been marked, never before: so its batch was published.
    Mark(String),
    /// All of the log: nothing more is ever published.
    End,
}

/// Holds counts against a whole log, the batches of which end after so many records.
pub(super) fn check(records: &[Record], ends: &[usize], counts: &[Count]) -> Result<(), String> {
    let mut cells: BTreeMap<EncodedId, Cell> = BTreeMap::new();
    let mut now: BTreeMap<TaskState, usize> = BTreeMap::new();
    let mut at_ends = BTreeMap::new();
    let mut ends = ends.iter().peekable();
    for (at, record) in (1..).zip(records) {
        if let Entry::Task { id, prev, event } = &record.entry {
            let cell = cells.entry(id.clone()).or_insert(Cell::ABSENT);
            let before = cell.state;
            *cell = cell
                .apply(record.seq, *prev, event)
                .map_err(|error| format!("an illegal log: {error:?}"))?;
            now.entry(before).and_modify(|count| *count = count.saturating_sub(1));
            *now.entry(cell.state).or_default() += 1;
        }
        if ends.next_if_eq(&&at).is_some() {
            at_ends.insert(at, now.clone());
        }
    }
    for Count { state, told, since, end } in counts {
        let first = match since {
            Since::Mark(id) => position(&cells, id),
            Since::End => Some(*end),
        };
        let of = |counts: &BTreeMap<TaskState, usize>| match state {
            Some(state) => counts.get(state).copied().unwrap_or_default(),
            None => {
                let there = counts.iter().filter(|(state, _)| **state != TaskState::NotFound);
                there.map(|(_, count)| count).sum()
            }
        };
        // One that is told after a mark that is nowhere, or behind the end, can be none.
        let possible = first.into_iter().flat_map(|first| at_ends.range(first..));
        let possible = possible.take_while(|(at, _)| *at <= end).map(|(_, counts)| of(counts));
        let possible: Vec<usize> = possible.collect();
        if !possible.contains(told) {
            let state = state.map_or_else(|| "there".to_owned(), |state| state.to_string());
            return Err(format!(
                "{told} ids are said to be {state}, but it was one of {possible:?}"
            ));
        }
    }
    Ok(())
}

/// The position of the only record of an id: a short text is stored behind its length.
fn position(cells: &BTreeMap<EncodedId, Cell>, id: &str) -> Option<usize> {
    let length = u8::try_from(id.len()).unwrap();
    let id = EncodedId::from_bytes(&[&[length], id.as_bytes()].concat());
    cells.get(&id).map(|cell| usize::try_from(cell.seq.get()).unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskledger::{Ledger, MemoryJournal};

    /// Marks of "a" and "b", then of "counted 1", each in a batch of its own.
    async fn log() -> Vec<Record> {
        let journal = MemoryJournal::new();
        let opened = Ledger::<String, u32>::builder().open_journal(journal.clone()).await;
        let ledger = opened.unwrap();
        for id in ["a", "b", "counted 1"] {
            ledger.mark_succeeded(id.to_owned()).await.unwrap();
        }
        ledger.close().await.unwrap();
        journal.records()
    }

    #[tokio::test]
    async fn what_can_be_counted_is_told_from_what_cannot() {
        let records = log().await;
        let all = records.len();
        let ends: Vec<usize> = (1..=all).collect();
        let try_one = |told, since: Since, end| {
            let state = Some(TaskState::Succeeded);
            let one = Count { state, told, since: since.clone(), end };
            let of_all = Count { state: None, told, since, end };
            let outcome = check(&records, &ends, &[one]);
            assert_eq!(outcome.is_ok(), check(&records, &ends, &[of_all]).is_ok());
            outcome.is_ok()
        };
        let marked = || Since::Mark("counted 1".to_owned());
        assert!(try_one(3, marked(), all));
        // Before its own mark, or of records that are not there.
        assert!(!try_one(2, marked(), all));
        assert!(!try_one(4, marked(), all));
        // The mark is nowhere, or behind the end.
        assert!(!try_one(3, Since::Mark("counted 2".to_owned()), all));
        assert!(!try_one(3, marked(), all - 1));
        // The last append failed, and is on the disk.
        assert!(try_one(2, Since::End, all - 1));
        assert!(!try_one(3, Since::End, all - 1));
        assert!(!try_one(1, Since::End, all - 1));
        // In the middle of a batch nobody can count.
        let one = |told, end| Count { state: None, told, since: Since::End, end };
        let ends = [all - 2, all];
        assert!(check(&records, &ends, &[one(1, all - 2), one(3, all)]).is_ok());
        assert!(check(&records, &ends, &[one(2, all - 1)]).is_err());
    }
}
