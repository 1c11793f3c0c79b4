//! A part of the map from id to [`Cell`], packed: and the tombstones. The only place of scc.
//!
//! ```text
//!                          slot    an id of                e.g. (encoded)
//! up to 10 bytes    11 + 13 = 24   at most 10 bytes        u64 (1 to 9)
//! up to 24 bytes    25 + 13 = 38   11 to 24                a text of 20 (21), a UUID (17)
//! up to 40 bytes    41 + 13 = 54   25 to 40                a UUID as text (37)
//! longer            16 + 13 + 3    the rest, on the heap
//! ```
//!
//! Memory for ten million ids is what these slots take: scc keeps 2 bytes more for each, and between two
//! fifths and four fifths of them are used. So an id stands in the table of its length, its cell is not
//! padded, and nothing of either needs an alignment.

use crate::state::{Attempt, Cell, SeqNo, TaskState, Tombstone};
use scc::hash_map::Entry;
use scc::{Equivalent, HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher, RandomState};

/// The ids of a part, by their length.
pub(super) struct Part {
    tiny: HashMap<Short<10>, Packed, RandomState>,
    small: HashMap<Short<24>, Packed, RandomState>,
    medium: HashMap<Short<40>, Packed, RandomState>,
    long: HashMap<Long, Packed, RandomState>,
}

/// Does something with the table for ids of this length.
macro_rules! with_table {
    ($part:expr, $length:expr, $table:ident => $then:expr) => {
        match $length {
            0..=10 => {
                let $table = &$part.tiny;
                $then
            }
            11..=24 => {
                let $table = &$part.small;
                $then
            }
            25..=40 => {
                let $table = &$part.medium;
                $then
            }
            _ => {
                let $table = &$part.long;
                $then
            }
        }
    };
}

impl Part {
    /// Ids are hashed with this key, which nobody outside has: whoever chooses ids chooses no collisions.
    pub(super) fn new(key: &RandomState) -> Self {
        Self {
            tiny: HashMap::with_hasher(key.clone()),
            small: HashMap::with_hasher(key.clone()),
            medium: HashMap::with_hasher(key.clone()),
            long: HashMap::with_hasher(key.clone()),
        }
    }

    pub(super) fn get(&self, id: &[u8]) -> Option<Cell> {
        with_table!(self, id.len(), table => table.read_sync(&Plain(id), |_, cell| cell.unpacked()))
    }

    /// Replaces the cell of an id, and removes it if nothing is known any more. The cell before.
    pub(super) fn put(&self, id: &[u8], cell: Cell) -> Option<Cell> {
        with_table!(self, id.len(), table => {
            if cell.state == TaskState::NotFound {
                table.remove_sync(&Plain(id)).map(|(_, cell)| cell.unpacked())
            } else {
                table.upsert_sync(Plain(id).into(), Packed::of(cell)).map(Packed::unpacked)
            }
        })
    }

    /// Replaces the cell of an id by what `change` makes of it.
    pub(super) fn change<E>(
        &self,
        id: &[u8],
        change: impl FnOnce(Cell) -> Result<Cell, E>,
    ) -> Result<(), E> {
        with_table!(self, id.len(), table => match table.entry_sync(Plain(id).into()) {
            Entry::Occupied(mut entry) => {
                let after = change(entry.get().unpacked())?;
                if after.state == TaskState::NotFound {
                    let _ = entry.remove();
                } else {
                    *entry.get_mut() = Packed::of(after);
                }
                Ok(())
            }
            Entry::Vacant(entry) => {
                let after = change(Cell::ABSENT)?;
                if after.state != TaskState::NotFound {
                    drop(entry.insert_entry(Packed::of(after)));
                }
                Ok(())
            }
        })
    }

    /// Hands over what there is.
    pub(super) fn each(&self, mut visit: impl FnMut(&[u8], Cell)) {
        fn all<K: AsRef<[u8]> + Eq + Hash + 'static>(
            table: &HashMap<K, Packed, RandomState>,
            visit: &mut impl FnMut(&[u8], Cell),
        ) {
            table.iter_sync(|id, cell| {
                visit(id.as_ref(), cell.unpacked());
                true
            });
        }
        all(&self.tiny, &mut visit);
        all(&self.small, &mut visit);
        all(&self.medium, &mut visit);
        all(&self.long, &mut visit);
    }
}

/// Ids and cells on their way into one part.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    cells: Vec<Packed>,
    ids: Vec<u8>,
    lengths: Vec<u32>,
}

impl Gathered {
    pub(super) fn push(&mut self, id: &[u8], cell: Cell) {
        self.cells.push(Packed::of(cell));
        self.ids.extend_from_slice(id);
        self.lengths.push(id.len() as u32);
    }

    pub(super) fn bytes(&self) -> usize {
        self.ids.len() + self.cells.len() * (size_of::<Packed>() + size_of::<u32>())
    }

    /// Empties it into the part.
    pub(super) fn put_into(&mut self, part: &Part) {
        let mut rest = self.ids.as_slice();
        for (cell, length) in self.cells.drain(..).zip(self.lengths.drain(..)) {
            let Some((id, behind)) = rest.split_at_checked(length as usize) else { break };
            part.put(id, cell.unpacked());
            rest = behind;
        }
        self.ids.clear();
    }
}

/// Room for ids that are expected. When it goes, the table may become smaller: if next to nothing of it is used.
pub(super) type Reserved<'a> = Box<dyn fmt::Debug + Send + 'a>;

impl Part {
    /// Makes room for so many ids of this length.
    pub(super) fn reserve(&self, length: usize, ids: usize) -> Option<Reserved<'_>> {
        // A table grows when more than 13 of 16 slots are used.
        let slots = ids.saturating_mul(16) / 13;
        with_table!(self, length, table => {
            table.reserve(slots).map(|reserved| Box::new(reserved) as Reserved<'_>)
        })
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tiny, small, medium, long } = self;
        let ids = [tiny.len(), small.len(), medium.len(), long.len()];
        f.debug_tuple("Part").field(&ids).finish()
    }
}

/// The bytes of an id that is looked up.
struct Plain<'a>(&'a [u8]);

/// Those of one that is kept, in place.
#[derive(Clone, Copy)]
struct Short<const MOST: usize> {
    length: u8,
    bytes: [u8; MOST],
}

/// Those of one that is too long for that.
struct Long(Box<[u8]>);

impl<const MOST: usize> AsRef<[u8]> for Short<MOST> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Long {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Plain<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

impl<const MOST: usize> From<Plain<'_>> for Short<MOST> {
    fn from(Plain(id): Plain<'_>) -> Self {
        let mut bytes = [0; MOST];
        debug_assert!(id.len() <= MOST, "an id stands in the table of its length");
        if let Some(to) = bytes.get_mut(..id.len()) {
            to.copy_from_slice(id);
        }
        // No longer than 40.
        Self { length: id.len() as u8, bytes }
    }
}

impl From<Plain<'_>> for Long {
    fn from(Plain(id): Plain<'_>) -> Self {
        Self(id.into())
    }
}

/// The bytes alone: all of them are fed to the hash at once, so no end of theirs has to be told.
macro_rules! hash_of_bytes {
    ([$($generics:tt)*] $type:ty) => {
        impl<$($generics)*> Hash for $type {
            fn hash<H: Hasher>(&self, state: &mut H) {
                state.write(self.as_ref());
            }
        }
    };
}

hash_of_bytes!([] Plain<'_>);
hash_of_bytes!([] Long);
hash_of_bytes!([const MOST: usize] Short<MOST>);

impl<const MOST: usize> PartialEq for Short<MOST> {
    fn eq(&self, other: &Self) -> bool {
        self.as_ref() == other.as_ref()
    }
}

impl<const MOST: usize> Eq for Short<MOST> {}

impl PartialEq for Long {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Long {}

impl<const MOST: usize> Equivalent<Short<MOST>> for Plain<'_> {
    fn equivalent(&self, key: &Short<MOST>) -> bool {
        self.0 == key.as_ref()
    }
}

impl Equivalent<Long> for Plain<'_> {
    fn equivalent(&self, key: &Long) -> bool {
        *self.0 == *key.0
    }
}

/// A [`Cell`] without padding.
#[derive(Clone, Copy, Debug)]
struct Packed {
    seq: [u8; 8],
    attempt: [u8; 4],
    state: TaskState,
}

impl Packed {
    const fn of(cell: Cell) -> Self {
        let Cell { state, attempt, seq } = cell;
        Self { seq: seq.get().to_le_bytes(), attempt: attempt.get().to_le_bytes(), state }
    }

    const fn unpacked(self) -> Cell {
        Cell {
            state: self.state,
            attempt: Attempt::new(u32::from_le_bytes(self.attempt)),
            seq: SeqNo::new(u64::from_le_bytes(self.seq)),
        }
    }
}

/// What is left of pruned successes.
#[derive(Debug, Default)]
pub(super) struct Tombstones(HashSet<Tombstone, BuildHasherDefault<AsItIs>>);

impl Tombstones {
    pub(super) fn has(&self, tombstone: &Tombstone) -> bool {
        self.0.contains_sync(tombstone)
    }

    /// Whether it was not there before.
    pub(super) fn insert(&self, tombstone: Tombstone) -> bool {
        self.0.insert_sync(tombstone).is_ok()
    }

    /// Whether it was there.
    pub(super) fn remove(&self, tombstone: &Tombstone) -> bool {
        self.0.remove_sync(tombstone).is_some()
    }
}

/// Tombstones are hashes already, under a key that nobody outside has.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
    }

    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests;
