//! A checkpoint: all that is known of every id at one position of the log, in one immutable file.
//!
//! ```text
//! head      8  b"TLcheck\x01"
//!          16  ledger
//!           8  u64 LE  last record folded in
//!           8  u64 LE  chain there
//!           8  u64 LE  xxh3-64 of the head before it
//! frames       kind 2: base of the times u64, then entries (entry.rs), ascending by id
//! tail         kind 3: per frame of entries { length u32, first id bytes }
//!              kind 4: metadata { name text, value bytes }, ascending by name
//!              kind 5: { last record u64, chain u64, epoch u64, ids per state 6 * u64,
//!                      frames of entries u64, names u64 }
//!              kind 6: tombstones of 16 bytes each, ascending (since format version 2)
//! end       8  b"TLchkend"
//!           8  u64 LE  where the tail begins
//!           8  u64 LE  xxh3-64 of all bytes before it
//!
//! One id (the example of entry.rs), folded at record 9, chain 2, epoch 3, of ledger 00 01 .. 0f:
//! 54 4c 63 68 65 63 6b 01  00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f
//! 09 00 00 00 00 00 00 00  02 00 00 00 00 00 00 00  35 b7 50 09 5f c4 07 94
//! frame 0, kind 2, body    05  02 01 61 0b 8d 01 02 01 00 04 01 01 c0
//! frame 1, kind 3, body    4b  02 01 61
//! frame 2, kind 5, body    09 02 03  00 00 00 01 00 00  01 00
//! 54 4c 63 68 6b 65 6e 64  7b 00 00 00 00 00 00 00  5a af 79 ff 9f 1b 23 6d
//! ```
//!
//! Frames (frame.rs) are numbered from 0 through the whole file and each names the checksum of the
//! one before it, the first that of the head. Frames of entries are at most 16 KiB, since
//! looking up one id reads one of them, those of the tail 64 KiB; or they hold a single item.
//!
//! A checkpoint is valid if and only if head, frames and end follow each other without a gap to the
//! last byte of the file, all their checksums and that of the whole are right, every frame links to
//! the one before, ids and tombstones ascend, the index names every frame of entries, and the summary
//! counts what is there. [`Checkpoint::open`] reads and judges head, tail and end;
//! [`Checkpoint::visit`] the rest.

mod check;
mod entries;
mod entry;
mod salvage;
mod stream;
mod tombstones;
mod writer;

pub(crate) use entries::Entries;
pub(crate) use salvage::{Salvage, SalvagedEntries, salvage};
pub(crate) use tombstones::Graves;
pub(crate) use writer::CheckpointWriter;
#[cfg(feature = "json")]
pub(crate) use writer::SummedUp;

use crate::details::TaskDetails;
use crate::error::JournalError;
use crate::id::{EncodedId, MAX_ID_BYTES};
use crate::journal::chain::{Chain, LedgerId};
use crate::journal::codec;
use crate::journal::fault::damaged;
use crate::journal::files;
use crate::journal::frame::{self, FrameHead, ITEM_LIMIT, Kind, MAX_FRAME, take};
use crate::journal::wire::BytesWire;
use crate::state::{Epoch, SeqNo, TaskState};
use entry::EntriesOf;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use stream::{Stream, Whole};
use xxhash_rust::xxh3::xxh3_64;

const HEAD_MAGIC: [u8; 8] = *b"TLcheck\x01";
const HEAD_BYTES: usize = 48;
const END_MAGIC: [u8; 8] = *b"TLchkend";
const END_BYTES: usize = 24;

/// An open checkpoint. It stays readable when its name is gone.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    path: PathBuf,
    file: File,
    ledger: LedgerId,
    bytes: u64,
    head: [u8; HEAD_BYTES],
    tail: u64,
    places: Vec<Place>,
    summary: Summary,
    /// Where the tombstones begin.
    graves: u64,
}

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The last record folded in.
    pub(crate) last_seq: SeqNo,
    /// The chain there.
    pub(crate) chain: Chain,
    /// The last epoch folded in.
    pub(crate) epoch: Epoch,
    /// Ids per state, as [`TaskState::ALL`].
    pub(crate) counts: [u64; TaskState::ALL.len()],
    /// The metadata folded in.
    pub(crate) metadata: BTreeMap<String, Vec<u8>>,
}

/// A frame of entries.
#[derive(Debug)]
struct Place {
    offset: u64,
    length: u32,
    first: EncodedId,
}

impl Checkpoint {
    /// Opens the file and judges head, index and summary; the entries are judged when they are read.
    /// `last_seq` and `chain` are the position it must stand at.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`], [`JournalError::Damaged`].
    pub(crate) fn open(
        path: &Path,
        ledger: LedgerId,
        last_seq: SeqNo,
        chain: Chain,
    ) -> Result<Self, JournalError> {
        let file = File::open(path).map_err(JournalError::io("open", path))?;
        let bytes = file.metadata().map_err(JournalError::io("read", path))?.len();
        let least = (HEAD_BYTES + END_BYTES) as u64;
        if bytes < least {
            return Err(damaged(path, format!("{bytes} bytes are no checkpoint")));
        }
        let mut head = [0; HEAD_BYTES];
        file.read_exact_at(&mut head, 0).map_err(JournalError::io("read", path))?;
        judge_head(&head, ledger, last_seq, chain).map_err(|what| damaged(path, what))?;
        let mut end = [0; END_BYTES];
        let end_at = bytes - END_BYTES as u64;
        file.read_exact_at(&mut end, end_at).map_err(JournalError::io("read", path))?;
        let tail = end.split_first_chunk().and_then(|(magic, mut rest)| {
            (*magic == END_MAGIC).then(|| take(&mut rest).map(u64::from_le_bytes)).flatten()
        });
        let tail = tail.filter(|tail| (HEAD_BYTES as u64..end_at).contains(tail));
        let tail = tail.ok_or_else(|| damaged(path, "its end is not one"))?;
        let mut stream = Stream::new(path, &file, ledger, tail, end_at);
        let (places, summary, graves) = read_tail(&mut stream)?;
        if (summary.last_seq, summary.chain) != (last_seq, chain) {
            return Err(damaged(path, "head and summary differ"));
        }
        Ok(Self { path: path.into(), file, ledger, bytes, head, tail, places, summary, graves })
    }

    /// What the head of a checkpoint says when nothing else tells which ledger's it is and where
    /// it stands; `None` if it has no sound head.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`].
    pub(crate) fn glimpse(path: &Path) -> Result<Option<(LedgerId, SeqNo, Chain)>, JournalError> {
        let bytes = files::read(path, HEAD_BYTES as u64)?.unwrap_or_default();
        let Some(head) = bytes.first_chunk() else { return Ok(None) };
        Ok(read_head(head).ok())
    }

    /// What it says of itself.
    pub(crate) const fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Bytes of the file.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it knows of `id`.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`], [`JournalError::Damaged`].
    pub(crate) fn get(&self, id: &EncodedId) -> Result<Option<TaskDetails>, JournalError> {
        let after = self.places.partition_point(|place| place.first <= *id);
        let Some(number) = after.checked_sub(1) else { return Ok(None) };
        let Some(place) = self.places.get(number) else { return Ok(None) };
        let mut bytes = vec![0; place.length as usize];
        self.file
            .read_exact_at(&mut bytes, place.offset)
            .map_err(JournalError::io("read", &self.path))?;
        let (head, body) = frame::parse(self.ledger, &bytes)
            .map_err(|error| damaged(&self.path, format!("frame {number}: {error}")))?;
        if (head.kind, head.first) != (Kind::Entries, number as u64) {
            return Err(damaged(&self.path, format!("frame {number} is another")));
        }
        let wrong = |what| damaged(&self.path, format!("frame {number}: {what}"));
        let mut entries = EntriesOf::new(self.summary.last_seq, &head, body).map_err(wrong)?;
        while let Some((other, details)) = entries.next().map_err(wrong)? {
            match other.cmp(id) {
                Ordering::Less => {}
                Ordering::Equal => return Ok(Some(details)),
                Ordering::Greater => break,
            }
        }
        Ok(None)
    }

    /// Hands over all entries in order. Only when it returns `Ok`, the whole file was verified:
    /// what was handed over before an error may be a part.
    ///
    /// # Errors
    ///
    /// What `visit` returned, [`JournalError::Io`], [`JournalError::Damaged`].
    pub(crate) fn visit(
        &self,
        mut visit: impl FnMut(&EncodedId, &TaskDetails) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let mut entries = self.entries();
        while let Some((id, details)) = entries.next()? {
            visit(&id, &details)?;
        }
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct PlaceWire<'a> {
    length: u32,
    #[serde(borrow)]
    first: BytesWire<'a>,
}

#[derive(Serialize, Deserialize)]
struct MetadataWire<'a> {
    name: &'a str,
    #[serde(borrow)]
    value: BytesWire<'a>,
}

#[derive(Serialize, Deserialize)]
struct SummaryWire {
    last_seq: u64,
    chain: u64,
    epoch: u64,
    counts: [u64; TaskState::ALL.len()],
    entry_frames: u64,
    names: u64,
}

/// The entries in the body of a frame that [`frame::parse`] found valid.
fn decode_entries(
    last_seq: SeqNo,
    head: &FrameHead,
    body: &[u8],
) -> Result<Vec<(EncodedId, TaskDetails)>, String> {
    let mut entries = EntriesOf::new(last_seq, head, body)?;
    let mut all = Vec::new();
    while let Some(entry) = entries.next()? {
        all.push(entry);
    }
    Ok(all)
}

fn judge_head(
    head: &[u8; HEAD_BYTES],
    ledger: LedgerId,
    last_seq: SeqNo,
    chain: Chain,
) -> Result<(), String> {
    let (found, found_seq, found_chain) = read_head(head)?;
    if found != ledger {
        return Err(format!("it belongs to ledger {found}"));
    }
    if (found_seq, found_chain) != (last_seq, chain) {
        return Err(format!("it stands at record {found_seq}, not at {last_seq} as it should"));
    }
    Ok(())
}

fn read_head(head: &[u8; HEAD_BYTES]) -> Result<(LedgerId, SeqNo, Chain), String> {
    let mut rest = head.as_slice();
    if take(&mut rest) != Some(HEAD_MAGIC) {
        return Err("it does not begin as a checkpoint of this version".into());
    }
    let sealed = head.get(..HEAD_BYTES - 8).unwrap_or_default();
    if Chain(xxh3_64(sealed)) != head_checksum(head) {
        return Err("the checksum of its head is wrong".into());
    }
    let ledger = LedgerId(take(&mut rest).unwrap_or_default());
    let last_seq = SeqNo::new(take(&mut rest).map_or(0, u64::from_le_bytes));
    let chain = Chain(take(&mut rest).map_or(0, u64::from_le_bytes));
    if last_seq.get() > SeqNo::LAST {
        return Err("it stands beyond all numbers".into());
    }
    Ok((ledger, last_seq, chain))
}

fn head_checksum(head: &[u8; HEAD_BYTES]) -> Chain {
    Chain(head.last_chunk().map_or(0, |checksum| u64::from_le_bytes(*checksum)))
}

/// Index, metadata, summary and tombstones, in this order and nothing else. Returns where the
/// tombstones begin.
fn read_tail(stream: &mut Stream<'_>) -> Result<(Vec<Place>, Summary, u64), JournalError> {
    let path = stream.path;
    let tail = stream.at;
    let mut offset = HEAD_BYTES as u64;
    let (mut places, mut metadata) = (Vec::<Place>::new(), BTreeMap::new());
    let mut before: Option<(Kind, Chain, u64)> = None;
    let mut summary = None;
    let (mut last, mut at) = (None, tail);
    while let Some(Whole { head, body, .. }) = stream.next()? {
        let wrong = |what: String| damaged(path, format!("frame {}: {what}", head.first));
        if before.is_some_and(|(kind, chain, number)| {
            (kind as u8) > head.kind as u8 || chain != head.chain || number + 1 != head.first
        }) {
            return Err(wrong("does not follow".into()));
        }
        before = Some((head.kind, head.checksum, head.first));
        at += head.length as u64;
        let mut rest = body;
        match head.kind {
            Kind::Index => {
                for _ in 0..head.count {
                    let place = read_place(&mut rest, offset, places.last()).map_err(wrong)?;
                    offset += u64::from(place.length);
                    places.push(place);
                }
            }
            Kind::Metadata => {
                for _ in 0..head.count {
                    let pair = codec::decode_front::<MetadataWire<'_>, ITEM_LIMIT>(&mut rest);
                    let MetadataWire { name, value: BytesWire(value) } = pair.map_err(wrong)?;
                    metadata.insert(name.to_owned(), value.to_vec());
                }
            }
            Kind::Summary => {
                let wire = codec::decode_front::<SummaryWire, ITEM_LIMIT>(&mut rest);
                let wire = wire.map_err(wrong)?;
                let (frames, names) = (places.len() as u64, metadata.len() as u64);
                let counted = (wire.entry_frames, wire.names) == (frames, names);
                if offset != tail || !counted || !rest.is_empty() || summary.is_some() {
                    return Err(damaged(path, "index, metadata and summary do not fit together"));
                }
                let told = Summary {
                    last_seq: SeqNo::new(wire.last_seq),
                    chain: Chain(wire.chain),
                    epoch: Epoch::new(wire.epoch),
                    counts: wire.counts,
                    metadata: std::mem::take(&mut metadata),
                };
                summary = Some((told, at));
            }
            Kind::Tombstones => {
                last = tombstones::judge(&head, &mut rest, last).map_err(wrong)?;
            }
            Kind::Records | Kind::Entries => return Err(wrong("not expected in the tail".into())),
        }
        if !rest.is_empty() {
            return Err(wrong(format!("{} bytes too many", rest.len())));
        }
    }
    let (summary, graves) = summary.ok_or_else(|| damaged(path, "it has no summary"))?;
    Ok((places, summary, graves))
}

fn read_place(rest: &mut &[u8], offset: u64, before: Option<&Place>) -> Result<Place, String> {
    let wire = codec::decode_front::<PlaceWire<'_>, ITEM_LIMIT>(rest)?;
    let BytesWire(first) = wire.first;
    if wire.length as usize > MAX_FRAME || first.len() > MAX_ID_BYTES {
        return Err("a place beyond all limits".into());
    }
    let first = EncodedId::from_bytes(first);
    if before.is_some_and(|before| before.first >= first) {
        return Err("the index is out of order".into());
    }
    Ok(Place { offset, length: wire.length, first })
}

#[cfg(test)]
mod tests;
