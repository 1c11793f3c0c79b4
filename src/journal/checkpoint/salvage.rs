//! What can still be read of a damaged checkpoint.

use super::{CheckpointWriter, MetadataWire, SummaryWire, decode_entries, tombstones};
use crate::details::TaskDetails;
use crate::error::JournalError;
use crate::id::EncodedId;
use crate::journal::chain::LedgerId;
use crate::journal::codec;
use crate::journal::fault::damaged;
use crate::journal::frame::{self, ITEM_LIMIT, Kind};
use crate::journal::scan::{FrameAt, Reader, Scan, scan_checkpoint};
use crate::journal::wire::BytesWire;
use crate::state::{Epoch, SeqNo, Tombstone};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A damaged checkpoint, as far as its frames are whole, wherever they lie.
#[derive(Debug)]
pub(crate) struct Salvage {
    path: PathBuf,
    ledger: LedgerId,
    last_seq: SeqNo,
    scan: Scan,
    /// The last epoch folded in, if that is still there.
    pub(crate) epoch: Epoch,
    /// The metadata folded in, as far as it is still there.
    pub(crate) metadata: BTreeMap<String, Vec<u8>>,
    /// The tombstones that are still there.
    pub(crate) tombstones: BTreeMap<Tombstone, bool>,
}

impl Salvage {
    /// Finds what is whole. `last_seq` is the position the checkpoint stood at: entries are
    /// measured from it. The file stays readable when its name is gone.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`], and [`JournalError::Damaged`] when whole frames do not decode.
    pub(crate) fn open(
        path: &Path,
        ledger: LedgerId,
        last_seq: SeqNo,
    ) -> Result<Self, JournalError> {
        let scan = scan_checkpoint(path, ledger)?;
        let (mut epoch, mut metadata) = (Epoch::ZERO, BTreeMap::new());
        let mut tombstones = BTreeMap::new();
        let mut reader = scan.reader();
        for frame in scan.frames() {
            let wrong = |what: String| damaged(path, format!("frame {}: {what}", frame.first));
            let (head, body) = frame::parse(ledger, reader.read(frame)?)
                .map_err(|error| wrong(error.to_string()))?;
            let mut rest = body;
            match head.kind {
                Kind::Metadata => {
                    for _ in 0..head.count {
                        let pair = codec::decode_front::<MetadataWire<'_>, ITEM_LIMIT>(&mut rest);
                        let MetadataWire { name, value: BytesWire(value) } = pair.map_err(wrong)?;
                        metadata.insert(name.to_owned(), value.to_vec());
                    }
                }
                Kind::Summary => {
                    let summary = codec::decode_front::<SummaryWire, ITEM_LIMIT>(&mut rest);
                    epoch = Epoch::new(summary.map_err(wrong)?.epoch);
                }
                Kind::Tombstones => {
                    tombstones.extend(tombstones::all_in(rest).map(|tombstone| (tombstone, true)));
                }
                Kind::Entries | Kind::Index | Kind::Records => {}
            }
        }
        drop(reader);
        Ok(Self { path: path.to_owned(), ledger, last_seq, scan, epoch, metadata, tombstones })
    }

    /// Bytes of the file.
    pub(crate) const fn bytes(&self) -> u64 {
        self.scan.file_bytes
    }

    /// Every entry that is in a whole frame, ascending by id; what is out of order is left out.
    pub(crate) fn entries(&self) -> SalvagedEntries<'_> {
        SalvagedEntries {
            salvage: self,
            reader: self.scan.reader(),
            frames: self.scan.frames().iter(),
            current: Vec::new().into_iter(),
            last_id: None,
        }
    }
}

/// The entries of a [`Salvage`], one after the other.
pub(crate) struct SalvagedEntries<'a> {
    salvage: &'a Salvage,
    reader: Reader<'a>,
    frames: std::slice::Iter<'a, FrameAt>,
    current: std::vec::IntoIter<(EncodedId, TaskDetails)>,
    last_id: Option<EncodedId>,
}

impl SalvagedEntries<'_> {
    /// The next entry; `None` when there is none left.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`], and [`JournalError::Damaged`] when a whole frame does not decode. The
    /// next call goes on after it.
    pub(crate) fn next(&mut self) -> Result<Option<(EncodedId, TaskDetails)>, JournalError> {
        loop {
            for (id, details) in self.current.by_ref() {
                if self.last_id.as_ref().is_none_or(|last| *last < id) {
                    self.last_id = Some(id.clone());
                    return Ok(Some((id, details)));
                }
            }
            let Some(frame) = self.frames.next() else { return Ok(None) };
            let Salvage { path, ledger, last_seq, .. } = self.salvage;
            let wrong = |what: String| damaged(path, format!("frame {}: {what}", frame.first));
            let (head, body) = frame::parse(*ledger, self.reader.read(frame)?)
                .map_err(|error| wrong(error.to_string()))?;
            match head.kind {
                Kind::Entries => {
                    let entries = decode_entries(*last_seq, &head, body).map_err(wrong)?;
                    self.current = entries.into_iter();
                }
                Kind::Index | Kind::Metadata | Kind::Summary | Kind::Tombstones | Kind::Records => {
                }
            }
        }
    }
}

/// What is left beside the entries.
type Salvaged = (Epoch, BTreeMap<String, Vec<u8>>, BTreeMap<Tombstone, bool>);

/// Pushes into `writer` every entry of the damaged checkpoint at `path` that is in a whole frame.
/// Returns epoch, metadata and tombstones as far as they are still there, for
/// [`CheckpointWriter::finish`].
///
/// A whole frame that does not decode is passed over: the loss has been accepted.
///
/// # Errors
///
/// As [`Salvage::open`] and [`SalvagedEntries::next`].
pub(crate) fn salvage(
    path: &Path,
    ledger: LedgerId,
    last_seq: SeqNo,
    writer: &mut CheckpointWriter,
) -> Result<Salvaged, JournalError> {
    let salvage = Salvage::open(path, ledger, last_seq)?;
    let mut entries = salvage.entries();
    loop {
        match entries.next() {
            Ok(Some((id, details))) => writer.push(&id, &details)?,
            Ok(None) => break,
            Err(error @ JournalError::Damaged(_)) => {
                tracing::warn!(error = %crate::error::chain(&error), "passed over");
            }
            Err(error) => return Err(error),
        }
    }
    drop(entries);
    Ok((salvage.epoch, salvage.metadata, salvage.tombstones))
}
