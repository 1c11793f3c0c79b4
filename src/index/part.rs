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

use crate::id::probe::{Probe, word};
use crate::state::{Attempt, Cell, SeqNo, TaskState, Tombstone};
use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;
use scc::hash_map::Entry;
use scc::{Equivalent, HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::OnceLock;

/// The ids of a part, by their length.
pub(super) struct Part {
    tiny: HashMap<Short<10>, Packed, Key>,
    small: HashMap<Short<24>, Packed, Key>,
    medium: HashMap<Short<40>, Packed, Key>,
    long: HashMap<Long, Packed, Key>,
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
    pub(super) fn new(key: Key) -> Self {
        Self {
            tiny: HashMap::with_hasher(key),
            small: HashMap::with_hasher(key),
            medium: HashMap::with_hasher(key),
            long: HashMap::with_hasher(key),
        }
    }

    pub(super) fn get(&self, id: &Hashed<'_>) -> Option<Cell> {
        with_table!(self, id.probe.length(), table => table.read_sync(id, |_, cell| cell.unpacked()))
    }

    /// That of its cell alone.
    pub(super) fn state(&self, id: &Hashed<'_>) -> Option<TaskState> {
        with_table!(self, id.probe.length(), table => table.read_sync(id, |_, cell| cell.state))
    }

    /// Replaces the cell of an id, and removes it if nothing is known any more. The cell before.
    pub(super) fn put(&self, id: &Hashed<'_>, cell: Cell) -> Option<Cell> {
        with_table!(self, id.probe.length(), table => {
            if cell.state == TaskState::NotFound {
                table.remove_sync(id).map(|(_, cell)| cell.unpacked())
            } else {
                table.upsert_sync(id.into(), Packed::of(cell)).map(Packed::unpacked)
            }
        })
    }

    /// Replaces the cell of an id by what `change` makes of it.
    pub(super) fn change<E>(
        &self,
        id: &Hashed<'_>,
        change: impl FnOnce(Cell) -> Result<Cell, E>,
    ) -> Result<(), E> {
        with_table!(self, id.probe.length(), table => match table.entry_sync(id.into()) {
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
            table: &HashMap<K, Packed, Key>,
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
    pub(super) fn put_into(&mut self, part: &Part, key: Key) {
        let mut rest = self.ids.as_slice();
        for (cell, length) in self.cells.drain(..).zip(self.lengths.drain(..)) {
            let Some((id, behind)) = rest.split_at_checked(length as usize) else { break };
            part.put(&key.hashed(&Probe::of(id)), cell.unpacked());
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

/// The seeds under which ids are hashed. Nobody outside has them, so that no ids that were chosen beforehand
/// collide. (It is no cryptographic hash: who could time single look-ups, or see the order of the table, while
/// choosing ids, might do better.)
#[derive(Clone, Copy)]
pub(super) struct Key {
    seed: u64,
    shared: &'static SharedSeed,
}

impl Key {
    pub(super) fn random() -> Self {
        static SHARED: OnceLock<SharedSeed> = OnceLock::new();
        // Of the system's randomness, as those of the standard library are.
        let random = || RandomState::new().hash_one(0);
        Self { seed: random(), shared: SHARED.get_or_init(|| SharedSeed::from_u64(random())) }
    }

    pub(super) fn hashed<'a>(self, probe: &'a Probe<'a>) -> Hashed<'a> {
        let mut hasher = FoldHasher::with_seed(self.seed, self.shared);
        probe.feed(&mut hasher);
        Hashed { probe, hash: hasher.finish() }
    }
}

impl BuildHasher for Key {
    type Hasher = Once;

    fn build_hasher(&self) -> Once {
        Once { key: *self, hash: 0 }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nobody is told.
        f.write_str("Key")
    }
}

/// Takes the hash of an id, which [`Key`] makes.
#[derive(Debug)]
pub(super) struct Once {
    key: Key,
    hash: u64,
}

impl Hasher for Once {
    fn finish(&self) -> u64 {
        self.hash
    }

    /// All bytes of an id.
    fn write(&mut self, bytes: &[u8]) {
        self.hash = self.key.hashed(&Probe::of(bytes)).hash;
    }

    /// The hash of one.
    fn write_u64(&mut self, hash: u64) {
        self.hash = hash;
    }
}

/// An id that is looked up, and its hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hashed<'a> {
    probe: &'a Probe<'a>,
    hash: u64,
}

impl Hashed<'_> {
    /// A number below `of`, a power of two of at most 256. Tables look at the lowest byte, and at the highest
    /// bits.
    pub(super) const fn part(&self, of: usize) -> usize {
        (self.hash >> 8) as usize % of
    }
}

/// The bytes of an id that is kept, in place; zeros behind the last.
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

impl<const MOST: usize> From<&Hashed<'_>> for Short<MOST> {
    fn from(Hashed { probe, .. }: &Hashed<'_>) -> Self {
        debug_assert!(probe.length() <= MOST, "an id stands in the table of its length");
        let mut bytes = [0; MOST];
        for (to, word) in bytes.chunks_mut(size_of::<u64>()).zip(probe.words()) {
            to.iter_mut().zip(word.to_le_bytes()).for_each(|(to, byte)| *to = byte);
        }
        // No longer than 40.
        Self { length: probe.length() as u8, bytes }
    }
}

impl From<&Hashed<'_>> for Long {
    fn from(Hashed { probe, .. }: &Hashed<'_>) -> Self {
        Self(probe.long().into())
    }
}

impl Hash for Hashed<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<const MOST: usize> Hash for Short<MOST> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.as_ref());
    }
}

impl Hash for Long {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

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

impl<const MOST: usize> Equivalent<Short<MOST>> for Hashed<'_> {
    fn equivalent(&self, key: &Short<MOST>) -> bool {
        let mut words = key.bytes.chunks(size_of::<u64>()).zip(self.probe.words());
        usize::from(key.length) == self.probe.length()
            && words.all(|(bytes, expected)| word(bytes) == *expected)
    }
}

impl Equivalent<Long> for Hashed<'_> {
    fn equivalent(&self, key: &Long) -> bool {
        *self.probe.long() == *key.0
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
