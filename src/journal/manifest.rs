//! The manifest: what belongs to the ledger.
//!
//! A small file outside the log, replaced as a whole by write, fsync, rename, fsync of the
//! directory. It is read before anything else of a ledger, so that what this version cannot handle
//! is refused before anything is touched.
//!
//! ```text
//! magic     8  b"TLmanif\n"
//! version   2  u16 LE  format version of the whole ledger; the first that was released is 1
//! length    4  u32 LE  of the body, at most MAX_BODY
//! body      length     for FORMAT_VERSION: bincode of `Body`; else known to a migration only
//! checksum  8  u64 LE  xxh3-64 of everything before it (seed 0)
//! ```
//!
//! This frame stays the same in every format version for ever: any version can tell the version of
//! any other, and that it is not just damage that looks like one.
//!
//! Example, the first 14 bytes of version 1 with a body of 52 bytes:
//! `54 4c 6d 61 6e 69 66 0a  01 00  34 00 00 00`.
//!
//! A manifest file is valid if and only if it has exactly the length that its length field says,
//! begins with the magic and its checksum is right. A valid manifest of `FORMAT_VERSION` is sound if and only if, besides, its body decodes to its last byte, it names
//! one or two logs, all numbers it names are different (those of checkpoints and of logs apart),
//! at least 1 and below the next number, and nothing in it is beyond the last position that there
//! is (2^62).
//!
//! If we die while it is replaced, the file is the old one or the new one, and perhaps there is a
//! `manifest.tmp`, which the next open removes.

use super::chain::{Chain, LedgerId};
use super::migrate::FORMAT_VERSION;
use super::{codec, files};
use crate::error::JournalError;
use crate::state::{SeqNo, Timestamp};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// The name of the file.
pub(crate) const NAME: &str = "manifest";

/// The longest description of an id type that fits.
pub(crate) const MAX_SHAPE_BYTES: usize = 256 * 1024;

const MAX_BODY: usize = MAX_SHAPE_BYTES + 4096;
const MAGIC: [u8; 8] = *b"TLmanif\n";
const HEAD: usize = MAGIC.len() + 2 + 4;
const CHECKSUM: usize = 8;

/// What belongs to a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Which ledger this is.
    pub(crate) ledger: LedgerId,
    /// When it was created. Information only.
    pub(crate) created_at: Timestamp,
    /// The description of its id type, at most [`MAX_SHAPE_BYTES`]; opaque here.
    pub(crate) shape: Vec<u8>,
    /// The segment size of its logs, fixed at creation.
    pub(crate) segment_size: u64,
    /// Its checkpoint, if it has one.
    pub(crate) checkpoint: Option<CheckpointRef>,
    /// Its logs, in order: one, or two while a checkpoint is made.
    pub(crate) logs: Vec<LogRef>,
    /// The number that the next log or checkpoint gets. No number is used twice.
    pub(crate) next_number: u64,
}

/// The checkpoint that belongs to the ledger, and the end of the log folded into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointRef {
    /// The number in its name.
    pub(crate) number: u64,
    /// The last record folded into it.
    pub(crate) last_seq: SeqNo,
    /// The chain value at that record.
    pub(crate) chain: Chain,
}

/// A log that belongs to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogRef {
    /// The number in its name.
    pub(crate) number: u64,
}

/// What is found where a manifest should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// No such file.
    Missing,
    /// A valid manifest of a newer format version. Nothing more is known of it.
    Newer(u16),
    /// A valid manifest of an older format version, with its body; a migration reads that.
    Older(u16, Vec<u8>),
    /// A sound manifest.
    Current(Manifest),
    /// Something else, and why.
    Damaged(String),
}

/// What is found where a manifest should be, without looking into its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Framed {
    /// No such file.
    Missing,
    /// A valid manifest of some version, with its body.
    Valid(u16, Vec<u8>),
    /// Something else, and why.
    Damaged(String),
}

impl Manifest {
    /// Reads and judges the manifest in `dir`. Changes nothing.
    pub(crate) fn read(dir: &Path) -> Result<Judged, JournalError> {
        Ok(match read_framed(dir)? {
            Framed::Missing => Judged::Missing,
            Framed::Damaged(why) => Judged::Damaged(why),
            Framed::Valid(version, _) if version > FORMAT_VERSION => Judged::Newer(version),
            Framed::Valid(version, body) if version < FORMAT_VERSION => {
                Judged::Older(version, body)
            }
            Framed::Valid(_, body) => {
                Self::from_body(&body).map_or_else(Judged::Damaged, Judged::Current)
            }
        })
    }

    /// Makes this the manifest in `dir`: when it returns `Ok`, that outlives the power. If it
    /// fails, or we die in it, the manifest is the old one or this one.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), JournalError> {
        self.stage(dir)?;
        Self::publish(dir)
    }

    /// The first half of [`write`](Self::write): whatever becomes of it, the manifest is the old
    /// one, and a failed one takes no space.
    pub(crate) fn stage(&self, dir: &Path) -> Result<(), JournalError> {
        debug_assert_eq!(self.check(), Ok(()));
        stage(dir, FORMAT_VERSION, &self.to_body())
    }

    /// The second half: what is staged becomes the manifest.
    pub(crate) fn publish(dir: &Path) -> Result<(), JournalError> {
        files::publish(dir, NAME)
    }

    pub(super) fn to_body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        codec::encode_into(&mut body, &Body::from(self));
        body
    }

    pub(crate) fn from_body(body: &[u8]) -> Result<Self, String> {
        let body: Body = codec::decode::<_, { MAX_BODY + 4096 }>(body)?;
        let manifest = Self::from(body);
        manifest.check()?;
        Ok(manifest)
    }

    /// Whether it says something that can be.
    fn check(&self) -> Result<(), String> {
        let numbers = || self.logs.iter().map(|log| log.number);
        let mut all = numbers().chain(self.checkpoint.map(|checkpoint| checkpoint.number));
        let (first, second) = match self.logs.as_slice() {
            [only] => (only, None),
            [first, second] => (first, Some(second)),
            other => return Err(format!("it names {} logs", other.len())),
        };
        if second == Some(first) {
            return Err(format!("it names log {} twice", first.number));
        }
        let last = self.checkpoint.map_or(0, |checkpoint| checkpoint.last_seq.get());
        if last.max(self.next_number) > SeqNo::LAST {
            return Err("it names a number beyond all numbers".to_owned());
        }
        match all.find(|&number| number == 0 || number >= self.next_number) {
            Some(number) => Err(format!(
                "it names number {number}, but the next number is {}",
                self.next_number
            )),
            None => Ok(()),
        }
    }
}

/// Reads the manifest in `dir` as far as every version can.
pub(crate) fn read_framed(dir: &Path) -> Result<Framed, JournalError> {
    let longest = HEAD + MAX_BODY + CHECKSUM;
    let found = files::read(&dir.join(NAME), u64::try_from(longest).unwrap_or(u64::MAX))?;
    Ok(match found {
        None => Framed::Missing,
        Some(bytes) => match unframe(&bytes) {
            Ok((version, body)) => Framed::Valid(version, body.to_vec()),
            Err(why) => Framed::Damaged(why),
        },
    })
}

/// Makes a manifest of this version and body the manifest in `dir`; see [`Manifest::write`].
pub(crate) fn replace(dir: &Path, version: u16, body: &[u8]) -> Result<(), JournalError> {
    stage(dir, version, body)?;
    files::publish(dir, NAME)
}

fn stage(dir: &Path, version: u16, body: &[u8]) -> Result<(), JournalError> {
    let bytes = frame(version, body).map_err(JournalError::io("write", &dir.join(NAME)))?;
    files::stage(dir, NAME, &bytes)
        .inspect_err(|_| drop(files::remove(&files::unfinished(dir, NAME))))
}

fn frame(version: u16, body: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= MAX_BODY)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the manifest is too long"))?;
    let mut bytes = Vec::with_capacity(HEAD + body.len() + CHECKSUM);
    bytes.extend(MAGIC);
    bytes.extend(version.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend(body);
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    Ok(bytes)
}

fn unframe(bytes: &[u8]) -> Result<(u16, &[u8]), String> {
    let cut = || format!("it is cut off after {} bytes", bytes.len());
    let (summed, checksum) = bytes.split_last_chunk::<CHECKSUM>().ok_or_else(cut)?;
    let (magic, rest) = summed.split_first_chunk::<8>().ok_or_else(cut)?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
    let (length, body) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
    if *magic != MAGIC {
        return Err("it does not begin as a manifest does".to_owned());
    }
    let length = u32::from_le_bytes(*length);
    if body.len() > MAX_BODY || usize::try_from(length) != Ok(body.len()) {
        return Err(format!("its body should have {length} bytes, not {}", body.len()));
    }
    if xxh3_64(summed) != u64::from_le_bytes(*checksum) {
        return Err("its checksum is wrong".to_owned());
    }
    Ok((u16::from_le_bytes(*version), body))
}

/// The body on disk, format version 1. Frozen: a change of it is a new format version.
#[derive(Serialize, Deserialize)]
struct Body {
    ledger: [u8; 16],
    created_at_micros: u64,
    shape: Vec<u8>,
    segment_size: u64,
    checkpoint: Option<BodyCheckpoint>,
    logs: Vec<u64>,
    next_number: u64,
}

#[derive(Serialize, Deserialize)]
struct BodyCheckpoint {
    number: u64,
    last_seq: u64,
    chain: u64,
}

impl From<&Manifest> for Body {
    fn from(manifest: &Manifest) -> Self {
        Self {
            ledger: manifest.ledger.0,
            created_at_micros: manifest.created_at.as_micros(),
            shape: manifest.shape.clone(),
            segment_size: manifest.segment_size,
            checkpoint: manifest.checkpoint.map(|checkpoint| BodyCheckpoint {
                number: checkpoint.number,
                last_seq: checkpoint.last_seq.get(),
                chain: checkpoint.chain.0,
            }),
            logs: manifest.logs.iter().map(|log| log.number).collect(),
            next_number: manifest.next_number,
        }
    }
}

impl From<Body> for Manifest {
    fn from(body: Body) -> Self {
        Self {
            ledger: LedgerId(body.ledger),
            created_at: Timestamp::from_micros(body.created_at_micros),
            shape: body.shape,
            segment_size: body.segment_size,
            checkpoint: body.checkpoint.map(|checkpoint| CheckpointRef {
                number: checkpoint.number,
                last_seq: SeqNo::new(checkpoint.last_seq),
                chain: Chain(checkpoint.chain),
            }),
            logs: body.logs.into_iter().map(|number| LogRef { number }).collect(),
            next_number: body.next_number,
        }
    }
}

#[cfg(test)]
mod tests;
