#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the arms that it expects")]

use super::*;
use crate::index::{Index, PARTS};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Ids of a few lengths on both sides of every border, so alike that each is another one's beginning or
/// differs from it in its end only.
fn id() -> impl Strategy<Value = Vec<u8>> {
    let length = prop::sample::select(vec![0_usize, 1, 9, 10, 11, 23, 24, 25, 39, 40, 41, 1024]);
    (length, 0..3_u8).prop_map(|(length, last)| {
        let mut id = vec![0; length];
        if let Some(byte) = id.last_mut() {
            *byte = last;
        }
        id
    })
}

fn cell() -> impl Strategy<Value = Cell> {
    let number = prop_oneof![0..3_u64, Just(u64::MAX), Just(1 << 62), any::<u64>()];
    let attempt = prop_oneof![0..3_u32, Just(u32::MAX), any::<u32>()];
    let state = prop::sample::select(&TaskState::ALL);
    (state, attempt, number).prop_map(|(state, attempt, seq)| match state {
        TaskState::NotFound => Cell::ABSENT,
        state => Cell { state, attempt: Attempt::new(attempt), seq: SeqNo::new(seq) },
    })
}

proptest! {
    #[test]
    fn a_part_is_as_a_plain_map(
        changes in prop::collection::vec((id(), cell(), any::<bool>()), 0..100)
    ) {
        let key = Key::random();
        let part = Part::new(key);
        let mut plain = BTreeMap::new();
        for (id, cell, put) in changes {
            let before = plain.get(&id).copied();
            if put {
                prop_assert_eq!(part.put(&key.hashed(&Probe::of(&id)), cell), before);
            } else {
                let mut seen = None;
                let changed = part.change(&key.hashed(&Probe::of(&id)), |found| {
                    seen = Some(found);
                    Ok::<_, ()>(cell)
                });
                prop_assert_eq!((changed, seen), (Ok(()), Some(before.unwrap_or(Cell::ABSENT))));
                prop_assert_eq!(part.change(&key.hashed(&Probe::of(&id)), Err), Err(cell));
            }
            match cell.state {
                TaskState::NotFound => _ = plain.remove(&id),
                _ => _ = plain.insert(id, cell),
            }
            let mut all = BTreeMap::new();
            part.each(|id, cell| assert_eq!(all.insert(id.to_vec(), cell), None));
            prop_assert_eq!(&all, &plain);
            for (id, cell) in &plain {
                prop_assert_eq!(part.get(&key.hashed(&Probe::of(id))), Some(*cell));
            }
        }
    }

    #[test]
    fn what_is_gathered_is_put_in(
        cells in prop::collection::btree_map(id(), cell(), 0..30),
        again in prop::collection::btree_map(id(), cell(), 0..30),
    ) {
        let key = Key::random();
        let part = Part::new(key);
        let mut gathered = Gathered::default();
        for cells in [&cells, &again] {
            for (id, cell) in cells {
                gathered.push(id, *cell);
            }
            gathered.put_into(&part, key);
            prop_assert_eq!(gathered.bytes(), 0);
            for (id, cell) in cells {
                let there = (cell.state != TaskState::NotFound).then_some(*cell);
                prop_assert_eq!(part.get(&key.hashed(&Probe::of(id))), there);
            }
        }
    }
}

/// What memory takes for each id rests on this.
#[test]
fn slots_are_as_small_as_they_are_told_to_be() {
    assert_eq!(size_of::<(Short<10>, Packed)>(), 24);
    assert_eq!(size_of::<(Short<24>, Packed)>(), 38);
    assert_eq!(size_of::<(Short<40>, Packed)>(), 54);
    assert_eq!(size_of::<(Long, Packed)>(), 32);
}

/// A table with room for all is not made anew while they come.
#[test]
fn room_is_kept_while_it_is_reserved() {
    let index = Index::new();
    let ids = 40_000 * PARTS;
    let room = index.reserve(&[(21, ids), (5, PARTS)]);
    assert_eq!(room.len(), PARTS, "of few there is nothing to reserve");
    let part = &index.parts[0];
    for number in 0..1000_u32 {
        let mut id = [0; 21];
        id[..4].copy_from_slice(&number.to_le_bytes());
        part.put(
            &index.key.hashed(&Probe::of(&id)),
            Cell { state: TaskState::Succeeded, ..Cell::ABSENT },
        );
    }
    let capacity = part.small.capacity();
    assert!((40_000 * 16 / 13..=65_536 * 2).contains(&capacity), "{capacity}");
    drop(room);
    assert!(part.small.capacity() <= capacity);
    let mut left = 0;
    part.each(|_, _| left += 1);
    assert_eq!(left, 1000);
}

/// What a table goes by, its lowest byte and its highest bits, says nothing of the part.
#[test]
fn ids_of_one_part_are_spread_over_its_tables() {
    use std::collections::HashSet;
    let key = Key::random();
    let (mut parts, mut buckets, mut tags) = (HashSet::new(), HashSet::new(), HashSet::new());
    for number in 0..64_000_u64 {
        let bytes = number.to_le_bytes();
        let probe = Probe::of(&bytes);
        let id = key.hashed(&probe);
        parts.insert(id.part(PARTS));
        if id.part(PARTS) == 0 {
            buckets.insert(id.hash >> 58);
            tags.insert(id.hash as u8);
        }
    }
    assert_eq!((parts.len(), buckets.len()), (PARTS, 64));
    // About a thousand ids: a tag is missing once in fifty.
    assert!(tags.len() > 230, "{}", tags.len());
}
