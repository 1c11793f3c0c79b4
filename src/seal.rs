//! The keyed hashes of a ledger.
//!
//! BLAKE3 with the random identity of the ledger for a key: nobody who does not know that can tell
//! what was hashed, and nobody at all can make up two ids, or two requests, with one hash. Each use
//! begins with a byte of its own, so that no hash of one kind is one of another.

use crate::state::{Fingerprint, SeqNo, Tombstone};

/// Makes the hashes of one ledger.
#[derive(Clone, Default)]
pub(crate) struct Seal {
    key: [u8; blake3::KEY_LEN],
}

/// What is hashed.
#[derive(Clone, Copy)]
enum Use {
    Tombstone = 1,
    Fingerprint = 2,
    EffectKey = 3,
}

impl Seal {
    /// Of the ledger with this identity.
    pub(crate) fn new(ledger: [u8; 16]) -> Self {
        Self { key: blake3::derive_key("taskledger 2026-11 ids and requests", &ledger) }
    }

    /// Stands for an id.
    pub(crate) fn tombstone(&self, id: &[u8]) -> Tombstone {
        Tombstone::from_bytes(self.hash(Use::Tombstone, &[id]))
    }

    /// Stands for a request.
    pub(crate) fn fingerprint(&self, request: &[u8]) -> Fingerprint {
        Fingerprint::from_bytes(self.hash(Use::Fingerprint, &[request]))
    }

    /// Names one life of an id, to the world outside.
    pub(crate) fn effect_key(&self, id: &[u8], since: SeqNo) -> [u8; 16] {
        self.hash(Use::EffectKey, &[&since.get().to_le_bytes(), id])
    }

    fn hash(&self, used: Use, parts: &[&[u8]]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&[used as u8]);
        for part in parts {
            hasher.update(part);
        }
        let mut short = [0; 16];
        hasher.finalize_xof().fill(&mut short);
        short
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_depend_on_ledger_use_and_all_that_is_hashed() {
        let (one, other) = (Seal::new([1; 16]), Seal::new([2; 16]));
        let bytes = |seal: &Seal| seal.tombstone(b"a").to_bytes();
        assert_eq!(bytes(&one), bytes(&Seal::new([1; 16])));
        let mut all = vec![bytes(&one), bytes(&other), one.fingerprint(b"a").to_bytes()];
        all.extend([one.tombstone(b"b").to_bytes(), one.tombstone(b"").to_bytes()]);
        for (id, since) in [(&b"a"[..], 1), (b"a", 2), (b"b", 1)] {
            all.push(one.effect_key(id, SeqNo::new(since)));
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    /// They are on disk and with others: none may ever change.
    #[test]
    fn hashes_are_what_they_were() {
        let seal = Seal::new([7; 16]);
        let hex =
            |bytes: [u8; 16]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(seal.tombstone(b"a").to_bytes()), "ebadde77099b5963a4c335ccfab2352a");
        assert_eq!(hex(seal.fingerprint(b"a").to_bytes()), "e91a532769ce62dbf2c4ba1b727395e8");
        assert_eq!(hex(seal.effect_key(b"a", SeqNo::new(9))), "79071758ccb21e4f9e9063f3d886d24f");
    }
}
