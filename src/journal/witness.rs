//! The witness: how far the log was durable, kept outside the log.
//!
//! A store that loses the end of its log cannot know it. The witness does: after every batch's
//! sync, and before its answers, the position of its last record is written here. A log that ends
//! before the witness has lost something; one that ends behind it has not.
//!
//! ```text
//! offset 0     slot 0     a slot, 56 bytes, never across a sector:
//! offset 4096  slot 1       magic     8  b"TLwitns\x01"  (last byte = version)
//!                           ledger   16  LedgerId
//!                           counter   8  u64 LE  higher = newer; no number is used twice
//!                           last_seq  8  u64 LE  last durable record
//!                           chain     8  u64 LE  chain value there
//!                           checksum  8  u64 LE  xxh3-64 of everything before it (seed 0)
//! ```
//!
//! A slot is valid if and only if its magic and its checksum are right, and neither counter nor
//! position is beyond the last that there is (2^62). A witness is valid if and
//! only if it has a valid slot, all its valid slots name this ledger, and no two have the same
//! counter. The valid slot with the higher counter counts.
//!
//! A slot is written in place and not synced, since the kernel keeps what a killed process wrote.
//! A slot that is known to be on the disk is not written again until the other one is on the disk
//! as well: all notes between two syncs go to the slot that the last sync did not vouch for. So
//! even a power cut that tears every write under way leaves one valid slot. That one may be older
//! by up to [`MOST`]; a log longer than the witness is normal.
//!
//! If we die in `create`, there is no witness, or the whole one (`witness.tmp`, then renamed). If
//! we die in `note`, the position is the one before or the new one. If we die in `sync`, likewise.

use super::chain::{Chain, LedgerId};
use super::files;
use crate::error::JournalError;
use crate::sabotage::{self, Sabotage};
use crate::state::SeqNo;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// The name of the file.
pub(crate) const NAME: &str = "witness";

/// A note is synced when none has followed it for this long.
pub(crate) const IDLE: Duration = Duration::from_secs(1);

/// No note waits longer than this for its sync, however many follow it.
pub(crate) const MOST: Duration = Duration::from_secs(5);

const MAGIC: [u8; 8] = *b"TLwitns\x01";
const SLOT: usize = 56;
const SLOT_OFFSETS: [usize; 2] = [0, 4096];
const LENGTH: usize = 8192;

/// An open witness.
#[derive(Debug)]
pub(crate) struct Witness {
    file: File,
    path: PathBuf,
    latest: Slot,
    /// Where the next note goes: never onto the slot that the last sync vouched for.
    target: Place,
    unsynced: Option<Unsynced>,
}

/// Since when the disk has not been told.
#[derive(Clone, Copy, Debug)]
struct Unsynced {
    first: Instant,
    last: Instant,
}

/// What a witness says whose ledger is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Glimpse {
    /// There is no witness.
    Missing,
    /// No slot is valid, or they contradict each other.
    Damaged,
    /// The log was durable up to here.
    At(SeqNo),
}

impl Witness {
    /// Creates the witness of a log without records; it outlives the power. Takes the place of one
    /// that is there.
    pub(crate) fn create(dir: &Path, ledger: LedgerId) -> Result<Self, JournalError> {
        Self::create_at(dir, ledger, SeqNo::ZERO, Chain::START)
    }

    /// Creates the witness of a log that is durable up to here; see [`create`](Self::create).
    pub(crate) fn create_at(
        dir: &Path,
        ledger: LedgerId,
        last_seq: SeqNo,
        chain: Chain,
    ) -> Result<Self, JournalError> {
        let first = Slot { ledger, counter: 1, last_seq, chain };
        let second = Slot { counter: 2, ..first };
        let gap = vec![0; 4096 - SLOT];
        let bytes = [&first.to_bytes()[..], &gap, &second.to_bytes(), &gap].concat();
        files::replace(dir, NAME, &bytes)?;
        Self::open(dir, ledger)
    }

    /// Opens the witness of this ledger. What it says is on the disk when this returns.
    pub(crate) fn open(dir: &Path, ledger: LedgerId) -> Result<Self, JournalError> {
        let path = dir.join(NAME);
        let slots = Slots::read(dir)?.ok_or_else(missing)?;
        let (place, latest) = slots.latest(Some(ledger)).map_err(damaged)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(JournalError::io("open", &path))?;
        // A killed process may have left the latest slot in the page cache alone, and a failed sync has made
        // that look clean: it is written again with what it holds.
        file.write_all_at(&latest.to_bytes(), place.offset())
            .map_err(JournalError::io("write", &path))?;
        file.sync_data().map_err(JournalError::io("sync", &path))?;
        let mut witness = Self { file, path, latest, target: place.other(), unsynced: None };
        if sabotage::is(Sabotage::TouchFirst) {
            witness.note(latest.last_seq, latest.chain, Instant::now())?;
        }
        Ok(witness)
    }

    /// Up to where the log was durable.
    pub(crate) const fn position(&self) -> (SeqNo, Chain) {
        (self.latest.last_seq, self.latest.chain)
    }

    /// Notes that the log is durable up to here. The note outlives this process, but the power
    /// only after a [`sync`](Self::sync).
    pub(crate) fn note(
        &mut self,
        last_seq: SeqNo,
        chain: Chain,
        now: Instant,
    ) -> Result<(), JournalError> {
        debug_assert!(
            last_seq >= self.latest.last_seq || sabotage::is(Sabotage::IgnoreWitness),
            "the log does not get shorter"
        );
        let slot =
            Slot { ledger: self.latest.ledger, counter: self.latest.counter + 1, last_seq, chain };
        if !sabotage::is(Sabotage::NoteLate) {
            self.write(slot)?;
        }
        self.latest = slot;
        let first = self.unsynced.map_or(now, |unsynced| unsynced.first);
        self.unsynced = Some(Unsynced { first, last: now });
        Ok(())
    }

    fn write(&self, slot: Slot) -> Result<(), JournalError> {
        self.file
            .write_all_at(&slot.to_bytes(), self.target.offset())
            .map_err(JournalError::io("write", &self.path))
    }

    /// Makes the last note outlive the power.
    pub(crate) fn sync(&mut self) -> Result<(), JournalError> {
        if self.unsynced.is_some() {
            if sabotage::is(Sabotage::NoteLate) {
                self.write(self.latest)?;
            }
            if !sabotage::is(Sabotage::LeaveWitness) {
                self.file.sync_data().map_err(JournalError::io("sync", &self.path))?;
            }
            self.unsynced = None;
            self.target = self.target.other();
        }
        Ok(())
    }

    /// How long after `now` a [`sync`](Self::sync) is due: zero when it is, `None` when there is
    /// nothing to sync.
    pub(crate) fn due(&self, now: Instant) -> Option<Duration> {
        self.unsynced.map(|unsynced| {
            let idle = IDLE.saturating_sub(now.saturating_duration_since(unsynced.last));
            let most = MOST.saturating_sub(now.saturating_duration_since(unsynced.first));
            idle.min(most)
        })
    }
}

/// What the witness of this ledger says, for whoever only reads. Changes and syncs nothing.
pub(crate) fn peek(dir: &Path, ledger: LedgerId) -> Result<(SeqNo, Chain), JournalError> {
    let slots = Slots::read(dir)?.ok_or_else(missing)?;
    let (_, latest) = slots.latest(Some(ledger)).map_err(damaged)?;
    Ok((latest.last_seq, latest.chain))
}

/// What the witness says when nothing tells whose it is, since there is no manifest.
pub(crate) fn glimpse(dir: &Path) -> Result<Glimpse, JournalError> {
    Ok(match Slots::read(dir)? {
        None => Glimpse::Missing,
        Some(slots) => {
            slots.latest(None).map_or(Glimpse::Damaged, |(_, latest)| Glimpse::At(latest.last_seq))
        }
    })
}

/// The ledgers that the valid slots name, one or none if all is well.
pub(crate) fn owners(dir: &Path) -> Result<Vec<LedgerId>, JournalError> {
    let slots = Slots::read(dir)?;
    let slots = slots.into_iter().flat_map(|slots| [slots.first, slots.second]).flatten();
    Ok(slots.map(|slot| slot.ledger).collect())
}

fn missing() -> JournalError {
    damaged("it is missing")
}

fn damaged(what: &str) -> JournalError {
    JournalError::damaged(NAME, what)
}

/// One of the two places for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    First,
    Second,
}

impl Place {
    const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    const fn offset(self) -> u64 {
        match self {
            Self::First => 0,
            Self::Second => 4096,
        }
    }
}

/// What the two places hold; `None` for what is no valid slot.
struct Slots {
    first: Option<Slot>,
    second: Option<Slot>,
}

impl Slots {
    fn read(dir: &Path) -> Result<Option<Self>, JournalError> {
        let limit = u64::try_from(LENGTH).unwrap_or(u64::MAX);
        Ok(files::read(&dir.join(NAME), limit)?.map(|bytes| {
            let [first, second] = SLOT_OFFSETS.map(|offset| {
                bytes.get(offset..).and_then(<[u8]>::first_chunk).and_then(Slot::from_bytes)
            });
            Self { first, second }
        }))
    }

    /// The slot that counts, and where it is; of any ledger if `ledger` is `None`.
    fn latest(&self, ledger: Option<LedgerId>) -> Result<(Place, Slot), &'static str> {
        let foreign = |slot: &Slot| ledger.is_some_and(|ledger| slot.ledger != ledger);
        if self.first.iter().chain(&self.second).any(foreign) {
            return Err("it belongs to another ledger");
        }
        match (self.first, self.second) {
            (None, None) => Err("neither of its slots is valid"),
            (Some(slot), None) => Ok((Place::First, slot)),
            (None, Some(slot)) => Ok((Place::Second, slot)),
            (Some(first), Some(second)) if first.ledger != second.ledger => {
                Err("its slots belong to different ledgers")
            }
            (Some(first), Some(second)) => match first.counter.cmp(&second.counter) {
                std::cmp::Ordering::Greater => Ok((Place::First, first)),
                std::cmp::Ordering::Less => Ok((Place::Second, second)),
                std::cmp::Ordering::Equal => Err("its slots have the same counter"),
            },
        }
    }
}

/// A position, and how new it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    ledger: LedgerId,
    counter: u64,
    last_seq: SeqNo,
    chain: Chain,
}

impl Slot {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SLOT);
        bytes.extend(MAGIC);
        bytes.extend(self.ledger.0);
        bytes.extend(self.counter.to_le_bytes());
        bytes.extend(self.last_seq.get().to_le_bytes());
        bytes.extend(self.chain.0.to_le_bytes());
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; SLOT]) -> Option<Self> {
        let (summed, checksum) = bytes.split_last_chunk::<8>()?;
        let (magic, rest) = summed.split_first_chunk::<8>()?;
        let (ledger, rest) = rest.split_first_chunk::<16>()?;
        let (counter, rest) = rest.split_first_chunk::<8>()?;
        let (last_seq, chain) = rest.split_first_chunk::<8>()?;
        let (counter, last_seq) = (u64::from_le_bytes(*counter), u64::from_le_bytes(*last_seq));
        let valid = *magic == MAGIC
            && xxh3_64(summed) == u64::from_le_bytes(*checksum)
            && counter.max(last_seq) <= SeqNo::LAST;
        valid.then_some(Self {
            ledger: LedgerId(*ledger),
            counter,
            last_seq: SeqNo::new(last_seq),
            chain: Chain(u64::from_le_bytes(*chain.first_chunk()?)),
        })
    }
}

#[cfg(test)]
mod tests;
