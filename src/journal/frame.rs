//! The frame: the unit of everything that is read back from a disk.
//!
//! A frame is the value of one entry of the log (many whole records each), and what the body of a
//! checkpoint consists of.
//!
//! ```text
//! magic      8  b"TLframe" and the frame's version, 1
//! ledger    16  whose frame it is
//! kind       1  1 records, 2 entries, 3 index, 4 metadata, 5 summary (2 to 5: of a checkpoint)
//! first      8  u64 LE  position of the first record (records), else the frame's number from 0
//! lead       4  u32 LE  records of the same batch before `first`
//! count      4  u32 LE  records, or entries, in the body; at least 1
//! chain      8  u64 LE  checksum of the frame before; 0 for the first of all
//! length     4  u32 LE  bytes of the body
//! body  length  kind 1: base_at u64, then per record { at i64 after base_at, entry }, see wire.rs
//! checksum   8  u64 LE  xxh3-64 of all the bytes before it
//!
//! Record 1 of ledger 00 01 .. 0f, at 1,000 us: the ledger was opened for the first time.
//! 54 4c 66 72 61 6d 65 01  00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f  01
//! 01 00 00 00 00 00 00 00  00 00 00 00  01 00 00 00  00 00 00 00 00 00 00 00  07 00 00 00
//! fb e8 03  00  01 00 01   b2 b1 10 ee 52 a1 74 b7
//! ```
//!
//! A frame is valid if and only if magic, version, ledger and kind are known, its length is at most
//! [`MAX_FRAME`], all its bytes are there, the checksum is that of the bytes before it, `count` is
//! at least 1 and at most `length`, `first + count` and `lead` stay within the numbers, and the body
//! decodes to exactly `count` items with nothing left over.
//!
//! **Why `lead`.** All records before a batch were durable when the batch was written; within it the
//! disk may keep any part when the power goes. A frame found beyond a gap proves a loss only if the
//! gap begins before the frame's own batch, that is before `first - lead`.

use crate::id::{EncodedId, MAX_ID_BYTES};
use crate::journal::chain::{Chain, LedgerId};
use crate::journal::codec;
use crate::journal::wire::{BytesWire, EntryWire};
use crate::journal::{Entry, Record};
use crate::sabotage::{self, Sabotage};
use crate::state::{SeqNo, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// What every frame begins with. The last byte is the version.
pub(crate) const MAGIC: [u8; 8] = *b"TLframe\x01";

/// Bytes before the body.
pub(crate) const HEAD: usize = 8 + 16 + 1 + 8 + 4 + 4 + 8 + 4;

/// Bytes after the body.
pub(crate) const TAIL: usize = 8;

/// The longest frame of records, which is one value in the store. With segments of 8 MiB a leaf of
/// 19 of them stays below the size at which the store would put it into a file that it never syncs.
pub(crate) const MAX_VALUE: usize = 64 * 1024;

/// The longest record. With its frame around it, it fits [`MAX_VALUE`].
pub(crate) const MAX_RECORD: usize = 48 * 1024;

/// The longest frame of all: that of a checkpoint's entry that holds more than one record did.
pub(crate) const MAX_FRAME: usize = 2 * MAX_VALUE;

/// The longest body.
pub(crate) const MAX_BODY: usize = MAX_FRAME - HEAD - TAIL;

/// What one item of a body may claim while it is decoded. A text or bytes claim their length, which
/// lies within the body; each integer claims at most 8 bytes, and no item has more than 32. Texts and
/// bytes are borrowed, so a claim that is a lie finds too few bytes and allocates nothing.
pub(crate) const ITEM_LIMIT: usize = MAX_BODY + 32 * 8;

/// The shortest record: time, variant, variant, value.
const MIN_RECORD: usize = 3;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Records of the log.
    Records = 1,
    /// Entries of a checkpoint.
    Entries = 2,
    /// Where the frames of entries of a checkpoint are.
    Index = 3,
    /// The metadata in a checkpoint.
    Metadata = 4,
    /// What a checkpoint says of itself.
    Summary = 5,
    /// What is left of pruned successes in a checkpoint.
    Tombstones = 6,
}

/// What a frame says of itself before its body is sealed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameStart {
    pub(crate) kind: Kind,
    pub(crate) first: u64,
    pub(crate) lead: u32,
    pub(crate) count: u32,
    pub(crate) chain: Chain,
}

/// What a valid frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) kind: Kind,
    pub(crate) first: u64,
    pub(crate) lead: u32,
    pub(crate) count: u32,
    pub(crate) chain: Chain,
    /// Of the whole frame.
    pub(crate) length: usize,
    pub(crate) checksum: Chain,
}

impl FrameHead {
    /// The position of the last record.
    pub(crate) const fn last(&self) -> u64 {
        self.first + (self.count as u64 - 1)
    }
}

/// Records on their way to the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The position of the first record: the key in the store.
    pub(crate) first: SeqNo,
    /// The whole frame.
    pub(crate) bytes: Vec<u8>,
}

/// Why some bytes are no frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum FrameError {
    #[error("no frame begins here")]
    NotAFrame,
    #[error("frame version {0} is not known")]
    Version(u8),
    #[error("frame kind {0} is not known, or not expected here")]
    Kind(u8),
    #[error("it belongs to ledger {0}")]
    OtherLedger(LedgerId),
    #[error("{0} bytes are longer than a frame may be")]
    TooLong(u64),
    #[error("a frame cannot hold {0} items in its length")]
    Count(u32),
    #[error("it ends before its {needed} bytes")]
    Truncated { needed: usize },
    #[error("its checksum is wrong")]
    Checksum,
    #[error("its position {first} is beyond all numbers")]
    Position { first: u64 },
    #[error("its body does not decode: {0}")]
    Body(String),
}

/// Packs `records`, dense and in order, into frames that follow the position `chain`.
/// Returns the position after them.
///
/// # Errors
///
/// [`FrameError::TooLong`] for a record above [`MAX_RECORD`]: the limits of ids, outputs and texts
/// are kept further up, so this is a second fence, before anything is written.
/// [`FrameError::Position`] when there are no positions left.
pub(crate) fn encode_records(
    ledger: LedgerId,
    mut chain: Chain,
    records: &[Record],
) -> Result<(Vec<Frame>, Chain), FrameError> {
    let mut frames = Vec::new();
    let mut rest = records;
    while let Some(first) = rest.first() {
        let lead = u32::try_from(records.len() - rest.len()).unwrap_or(u32::MAX);
        let (mut bytes, count) = packed(rest)?;
        let start = FrameStart { kind: Kind::Records, first: first.seq.get(), lead, count, chain };
        chain = finish(&mut bytes, 0, ledger, &start)?;
        frames.push(Frame { first: first.seq, bytes });
        rest = rest.get(count as usize..).unwrap_or_default();
    }
    Ok((frames, chain))
}

/// The records in the body of a frame that [`parse`] found valid.
pub(crate) fn decode_records(head: &FrameHead, body: &[u8]) -> Result<Vec<Record>, FrameError> {
    if head.kind != Kind::Records {
        return Err(FrameError::Kind(head.kind as u8));
    }
    let mut rest = body;
    let base = codec::decode_front::<u64, ITEM_LIMIT>(&mut rest).map_err(FrameError::Body)?;
    // The count is a claim; the bytes that are there bound what it can cost.
    let mut records = Vec::with_capacity((head.count as usize).min(body.len() / MIN_RECORD + 1));
    for number in 0..u64::from(head.count) {
        records.push(decode_record(base, head.first + number, &mut rest)?);
    }
    if rest.is_empty() {
        Ok(records)
    } else {
        Err(FrameError::Body(format!("{} bytes too many", rest.len())))
    }
}

/// Appends one whole frame around `body` to `out`.
///
/// # Errors
///
/// [`FrameError::TooLong`]; `out` is then as it was.
pub(crate) fn seal(
    out: &mut Vec<u8>,
    ledger: LedgerId,
    start: &FrameStart,
    body: &[u8],
) -> Result<Chain, FrameError> {
    if body.len() > MAX_BODY {
        return Err(FrameError::TooLong(body.len() as u64));
    }
    let at = out.len();
    out.reserve(HEAD + body.len() + TAIL);
    out.resize(at + HEAD, 0);
    out.extend_from_slice(body);
    finish(out, at, ledger, start)
}

/// Reads the frame with which `bytes` begin; more may follow it. Returns it and its body.
pub(crate) fn parse(ledger: LedgerId, bytes: &[u8]) -> Result<(FrameHead, &[u8]), FrameError> {
    let fields = fields(bytes)?;
    let length = HEAD + fields.length as usize + TAIL;
    if sabotage::is(Sabotage::TrustLength) {
        drop(std::hint::black_box(vec![1_u8; length]));
    }
    if fields.length as usize > MAX_BODY {
        return Err(FrameError::TooLong(length as u64));
    }
    let truncated = FrameError::Truncated { needed: length };
    let Some((sealed, mut tail)) = bytes.get(..length).map(|all| all.split_at(length - TAIL))
    else {
        return Err(truncated);
    };
    let checksum = u64::from_le_bytes(take(&mut tail).ok_or(truncated)?);
    if xxh3_64(sealed) != checksum {
        return Err(FrameError::Checksum);
    }
    if fields.ledger != ledger {
        return Err(FrameError::OtherLedger(fields.ledger));
    }
    let kind = kind_of(fields.kind).ok_or(FrameError::Kind(fields.kind))?;
    if fields.count == 0 || fields.count > fields.length {
        return Err(FrameError::Count(fields.count));
    }
    let first = fields.first;
    end_of(first, fields.count)?;
    if first < fields.lead.into() {
        return Err(FrameError::Position { first });
    }
    let head = FrameHead {
        kind,
        first,
        lead: fields.lead,
        count: fields.count,
        chain: fields.chain,
        length,
        checksum: Chain(checksum),
    };
    Ok((head, sealed.get(HEAD..).unwrap_or_default()))
}

/// How many items the frame with which `bytes` begin says that it has, for an estimate: nothing of it
/// is verified.
pub(crate) fn claimed(bytes: &[u8]) -> Option<u32> {
    fields(bytes).ok().map(|fields| fields.count)
}

/// The position behind so many items, which there has to be.
fn end_of(first: u64, count: u32) -> Result<u64, FrameError> {
    let end = first.checked_add(count.into()).filter(|end| *end <= SeqNo::LAST);
    end.ok_or(FrameError::Position { first })
}

/// As many of the records as fit, as a frame whose head is still to be filled in and whose checksum
/// is missing.
fn packed(records: &[Record]) -> Result<(Vec<u8>, u32), FrameError> {
    const USUAL_RECORD: usize = 64;
    let usual = HEAD + TAIL + 16 + records.len().saturating_mul(USUAL_RECORD);
    let mut bytes = Vec::with_capacity(usual.min(MAX_VALUE + USUAL_RECORD));
    bytes.resize(HEAD, 0);
    let base = records.first().map_or(0, |record| record.at.as_micros());
    codec::encode_into(&mut bytes, &base);
    let mut count = 0;
    for record in records {
        let before = bytes.len();
        encode_record(&mut bytes, base, record);
        let size = bytes.len() - before;
        if size > MAX_RECORD {
            return Err(FrameError::TooLong(size as u64));
        }
        if bytes.len() + TAIL > MAX_VALUE {
            bytes.truncate(before);
            break;
        }
        count += 1;
    }
    Ok((bytes, count))
}

/// Fills in the head of the frame that begins at `at` and ends with `out`, and appends its checksum.
fn finish(
    out: &mut Vec<u8>,
    at: usize,
    ledger: LedgerId,
    start: &FrameStart,
) -> Result<Chain, FrameError> {
    let body = out.len() - at - HEAD;
    let length = u32::try_from(body).map_err(|_| FrameError::TooLong(body as u64))?;
    // What would not be read back is not written.
    end_of(start.first, start.count)?;
    debug_assert!(start.count >= 1 && start.count <= length, "items in a frame");
    let head = MAGIC
        .iter()
        .chain(&ledger.0)
        .copied()
        .chain([start.kind as u8])
        .chain(start.first.to_le_bytes())
        .chain(start.lead.to_le_bytes())
        .chain(start.count.to_le_bytes())
        .chain(start.chain.0.to_le_bytes())
        .chain(length.to_le_bytes());
    for (to, byte) in out.iter_mut().skip(at).zip(head) {
        *to = byte;
    }
    let checksum = xxh3_64(out.get(at..).unwrap_or_default());
    out.extend_from_slice(&checksum.to_le_bytes());
    Ok(Chain(checksum))
}

/// The fields of a head, as they stand there.
struct Fields {
    ledger: LedgerId,
    kind: u8,
    first: u64,
    lead: u32,
    count: u32,
    chain: Chain,
    length: u32,
}

fn fields(bytes: &[u8]) -> Result<Fields, FrameError> {
    let truncated = || FrameError::Truncated { needed: HEAD + TAIL };
    let mut rest = bytes;
    let known = MAGIC.len().min(bytes.len());
    let name = MAGIC.len() - 1;
    if bytes.get(..known.min(name)) != MAGIC.get(..known.min(name)) {
        return Err(FrameError::NotAFrame);
    }
    let magic = take::<8>(&mut rest).ok_or_else(truncated)?;
    if magic != MAGIC {
        let [.., version] = magic;
        return Err(FrameError::Version(version));
    }
    let ledger = LedgerId(take(&mut rest).ok_or_else(truncated)?);
    let [kind] = take(&mut rest).ok_or_else(truncated)?;
    Ok(Fields {
        ledger,
        kind,
        first: u64::from_le_bytes(take(&mut rest).ok_or_else(truncated)?),
        lead: u32::from_le_bytes(take(&mut rest).ok_or_else(truncated)?),
        count: u32::from_le_bytes(take(&mut rest).ok_or_else(truncated)?),
        chain: Chain(u64::from_le_bytes(take(&mut rest).ok_or_else(truncated)?)),
        length: u32::from_le_bytes(take(&mut rest).ok_or_else(truncated)?),
    })
}

/// The next `N` bytes, moving past them.
pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

const fn kind_of(byte: u8) -> Option<Kind> {
    match byte {
        1 => Some(Kind::Records),
        2 => Some(Kind::Entries),
        3 => Some(Kind::Index),
        4 => Some(Kind::Metadata),
        5 => Some(Kind::Summary),
        6 => Some(Kind::Tombstones),
        _ => None,
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct RecordWire<'a> {
    at: i64,
    #[serde(borrow)]
    entry: EntryWire<'a>,
}

fn encode_record(out: &mut Vec<u8>, base: u64, record: &Record) {
    let entry = match &record.entry {
        Entry::Task { id, prev, event } => {
            debug_assert!(*prev < record.seq, "a record follows an earlier one");
            let back = match prev.get() {
                0 => 0,
                prev => record.seq.get().wrapping_sub(prev),
            };
            EntryWire::Task { id: BytesWire(id.as_bytes()), back, event: event.into() }
        }
        Entry::Ledger(event) => EntryWire::Ledger(event.into()),
    };
    // Wrapping both ways: whatever the clock says comes back as it was.
    let at = record.at.as_micros().wrapping_sub(base) as i64;
    codec::encode_into(out, &RecordWire { at, entry });
}

fn decode_record(base: u64, seq: u64, rest: &mut &[u8]) -> Result<Record, FrameError> {
    let wire = codec::decode_front::<RecordWire<'_>, ITEM_LIMIT>(rest).map_err(FrameError::Body)?;
    let entry = match wire.entry {
        EntryWire::Task { id: BytesWire(id), back, event } => {
            if id.len() > MAX_ID_BYTES {
                return Err(FrameError::Body(format!("an id of {} bytes", id.len())));
            }
            let prev = match back {
                0 => SeqNo::ZERO,
                back if back < seq => SeqNo::new(seq - back),
                back => return Err(FrameError::Body(format!("record {seq} goes back {back}"))),
            };
            Entry::Task { id: EncodedId::from_bytes(id), prev, event: event.into() }
        }
        EntryWire::Ledger(event) => Entry::Ledger(event.into()),
    };
    let at = Timestamp::from_micros(base.wrapping_add(wire.at as u64));
    Ok(Record { seq: SeqNo::new(seq), at, entry })
}

#[cfg(test)]
mod tests;
