//! What can still be read of a damaged checkpoint, as a sound one.

use super::{CheckpointWriter, MetadataWire, SummaryWire, decode_entries};
use crate::error::JournalError;
use crate::journal::chain::LedgerId;
use crate::journal::codec;
use crate::journal::fault::damaged;
use crate::journal::frame::{self, ITEM_LIMIT, Kind};
use crate::journal::scan::scan_checkpoint;
use crate::journal::wire::BytesWire;
use crate::state::{Epoch, SeqNo};
use std::collections::BTreeMap;
use std::path::Path;

/// Pushes into `writer` every entry of the damaged checkpoint at `path` that is in a whole frame,
/// wherever it lies. `last_seq` is the position the checkpoint stood at: entries are measured from
/// it. Returns epoch and metadata as far as they are still there, for
/// [`CheckpointWriter::finish`].
///
/// # Errors
///
/// [`JournalError::Io`]. A whole frame of entries that does not decode is passed over.
pub(crate) fn salvage(
    path: &Path,
    ledger: LedgerId,
    last_seq: SeqNo,
    writer: &mut CheckpointWriter,
) -> Result<(Epoch, BTreeMap<String, Vec<u8>>), JournalError> {
    let scan = scan_checkpoint(path, ledger)?;
    let mut reader = scan.reader();
    let (mut epoch, mut metadata) = (Epoch::ZERO, BTreeMap::new());
    let mut last_id = None;
    for frame in scan.frames() {
        let wrong = |what: String| damaged(path, format!("frame {}: {what}", frame.first));
        let (head, body) =
            frame::parse(ledger, reader.read(frame)?).map_err(|error| wrong(error.to_string()))?;
        let mut rest = body;
        match head.kind {
            Kind::Entries => {
                let entries = decode_entries(last_seq, &head, body).unwrap_or_else(|what| {
                    tracing::warn!(path = %path.display(), frame = frame.first, what, "passed over");
                    Vec::new()
                });
                for (id, details) in entries {
                    if last_id.as_ref().is_none_or(|last| *last < id) {
                        writer.push(&id, &details)?;
                        last_id = Some(id);
                    }
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
                let summary = codec::decode_front::<SummaryWire, ITEM_LIMIT>(&mut rest);
                epoch = Epoch::new(summary.map_err(wrong)?.epoch);
            }
            Kind::Index | Kind::Records => {}
        }
    }
    Ok((epoch, metadata))
}
