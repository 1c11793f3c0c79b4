//! The form in which an id is looked up.
//!
//! Up to 40 bytes, in words, not in bytes. A query encodes its id and looks it up at once, and what was written in pieces
//! and is read in larger ones has to come out of the cache: the processor waits until all has got there that
//! was written before, also into memory that the look-up before this one has not waited for. Whole words it passes
//! on. (Of a million keys of 11 bytes in random order, a look-up in a bare table took 275 ns by bytes, 79 by words.)

use std::hash::Hasher;

/// Bytes that fit into the words.
pub(crate) const MOST: usize = 40;

const WORD: usize = size_of::<u64>();

/// The bytes of an id.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Probe<'a> {
    /// The first byte is the lowest; zeros behind the last.
    words: [u64; MOST / WORD],
    length: usize,
    /// All of them, if they do not fit.
    long: &'a [u8],
}

impl<'a> Probe<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        let mut probe = Self::default();
        if !probe.push(bytes) {
            probe = Self { length: bytes.len(), long: bytes, ..Self::default() };
        }
        probe
    }

    pub(crate) const fn length(&self) -> usize {
        self.length
    }

    pub(crate) const fn words(&self) -> &[u64; MOST / WORD] {
        &self.words
    }

    /// All bytes of one that is longer than [`MOST`].
    pub(crate) const fn long(&self) -> &'a [u8] {
        self.long
    }

    /// Hands its bytes to `then`.
    pub(crate) fn with_bytes<R>(&self, then: impl FnOnce(&[u8]) -> R) -> R {
        let short = self.words.map(u64::to_le_bytes);
        then(short.as_flattened().get(..self.length).unwrap_or(self.long))
    }

    /// Feeds it to a hash.
    pub(crate) fn feed(&self, hasher: &mut impl Hasher) {
        // Not by value: copied as a whole, it would be read in larger pieces than it was written.
        let [a, b, c, d, e] = &self.words;
        hasher.write_u64(*a);
        hasher.write_u64(*b);
        hasher.write_usize(self.length);
        if self.length > 2 * WORD {
            hasher.write_u64(*c);
            hasher.write_u64(*d);
            hasher.write_u64(*e);
        }
        if self.length > MOST {
            hasher.write(self.long);
        }
    }
}

impl Probe<'_> {
    /// Appends bytes; false if they do not fit, and then it is none.
    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > MOST - self.length.min(MOST) {
            return false;
        }
        for piece in bytes.chunks(WORD) {
            let (at, shift) = (self.length / WORD, 8 * (self.length % WORD));
            let word = word(piece);
            if let Some(first) = self.words.get_mut(at) {
                *first |= word << shift;
            }
            if let Some(second) = self.words.get_mut(at + 1).filter(|_| shift > 0) {
                *second |= word >> (8 * WORD - shift);
            }
            self.length += piece.len();
        }
        true
    }
}

/// At most eight bytes, the first one lowest.
#[inline]
pub(crate) fn word(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::hash::DefaultHasher;

    fn hash(id: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        Probe::of(id).feed(&mut hasher);
        hasher.finish()
    }

    proptest! {
        #[test]
        fn one_byte_makes_another_hash(
            id in prop::collection::vec(any::<u8>(), 1..60),
            at in any::<prop::sample::Index>(),
            change in 1_u8..,
        ) {
            let mut other = id.clone();
            other[at.index(id.len())] ^= change;
            let longer = [id.as_slice(), &[0]].concat();
            prop_assert_ne!(hash(&id), hash(&other));
            prop_assert_ne!(hash(&id), hash(&longer));
        }

        #[test]
        fn in_whatever_pieces_it_is_the_same(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..8)
        ) {
            let whole = pieces.concat();
            let mut probe = Probe::default();
            let fits = pieces.iter().all(|piece| probe.push(piece));
            prop_assert_eq!(fits, whole.len() <= MOST);
            let of = Probe::of(&whole);
            prop_assert!(of.with_bytes(|bytes| bytes == whole));
            prop_assert_eq!(of.length(), whole.len());
            if fits {
                prop_assert_eq!((of.words, of.length), (probe.words, probe.length));
                prop_assert!(of.long().is_empty());
            } else {
                prop_assert_eq!(of.long(), &*whole);
            }
        }
    }
}
