//! Writing a checkpoint: sorted entries in, one durable file out.

use super::entry::{Origin, encode_entry};
use super::{Checkpoint, END_MAGIC, Graves, HEAD_MAGIC, MetadataWire, PlaceWire, SummaryWire};
use crate::details::TaskDetails;
use crate::error::JournalError;
use crate::id::EncodedId;
use crate::journal::chain::{Chain, LedgerId};
use crate::journal::codec;
use crate::journal::frame::{self, FrameStart, HEAD, Kind, MAX_BODY, MAX_VALUE, TAIL};
use crate::journal::wire::BytesWire;
use crate::state::{Epoch, SeqNo, TaskState, Tombstone};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The longest frame of several entries. Looking up one id reads one frame and decodes half of it,
/// which this keeps below a tenth of a millisecond; the index of ten million ids takes 1 MB.
const MAX_ENTRIES: usize = 16 * 1024;

/// Writes a checkpoint beside its place and puts it there when it is whole and durable.
#[derive(Debug)]
pub(crate) struct CheckpointWriter {
    path: PathBuf,
    unfinished: Unfinished,
    out: Out,
    last_seq: SeqNo,
    chain: Chain,
    body: Body,
    origin: Option<Origin>,
    frame_first: Option<EncodedId>,
    last_id: Option<EncodedId>,
    places: Vec<(u32, EncodedId)>,
    counts: [u64; TaskState::ALL.len()],
}

/// A file that goes when it is not finished: on a full disk, its space is what the log can go on
/// with.
#[derive(Debug)]
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Most often it has been renamed. What is left is removed by the next open.
        drop(std::fs::remove_file(&self.0));
    }
}

impl CheckpointWriter {
    /// Begins `<path>.tmp`, in place of an older one. `last_seq` and `chain` are the position up to
    /// which everything is folded in.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`].
    pub(crate) fn create(
        path: &Path,
        ledger: LedgerId,
        last_seq: SeqNo,
        chain: Chain,
    ) -> Result<Self, JournalError> {
        let mut name = path.as_os_str().to_os_string();
        name.push(".tmp");
        let unfinished = PathBuf::from(name);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)
            .map_err(JournalError::io("create", &unfinished))?;
        let mut head = HEAD_MAGIC.to_vec();
        head.extend_from_slice(&ledger.0);
        head.extend_from_slice(&last_seq.get().to_le_bytes());
        head.extend_from_slice(&chain.0.to_le_bytes());
        let checksum = xxh3_64(&head);
        head.extend_from_slice(&checksum.to_le_bytes());
        let mut out = Out {
            path: unfinished.clone(),
            file: BufWriter::with_capacity(4 * MAX_VALUE, file),
            ledger,
            whole: Xxh3::new(),
            written: 0,
            frames: 0,
            chain: Chain(checksum),
            frame: Vec::with_capacity(MAX_VALUE),
        };
        out.write(&head)?;
        Ok(Self {
            path: path.into(),
            unfinished: Unfinished(unfinished),
            out,
            last_seq,
            chain,
            body: Body::default(),
            origin: None,
            frame_first: None,
            last_id: None,
            places: Vec::new(),
            counts: [0; TaskState::ALL.len()],
        })
    }

    /// Adds an id, greater than all before it. Ids of which nothing is known have no place here.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`]; [`JournalError::Store`] for an entry that does not belong here.
    pub(crate) fn push(
        &mut self,
        id: &EncodedId,
        details: &TaskDetails,
    ) -> Result<(), JournalError> {
        let ascending = self.last_id.as_ref().is_none_or(|last| last < id);
        debug_assert!(ascending, "ids come in order, each once");
        if !ascending {
            return Err(refused(id, "out of order"));
        }
        let origin = self.origin_for(details);
        let before = self.body.bytes.len();
        encode_entry(&mut self.body.bytes, origin, id, details)
            .ok_or_else(|| refused(id, "not known, or newer than the checkpoint"))?;
        if self.body.count > 0 && self.body.bytes.len() > MAX_ENTRIES - HEAD - TAIL {
            self.body.bytes.truncate(before);
            self.seal_entries()?;
            // Again, since it is measured from another base now.
            let origin = self.origin_for(details);
            encode_entry(&mut self.body.bytes, origin, id, details)
                .ok_or_else(|| refused(id, "not known, or newer than the checkpoint"))?;
        }
        if self.body.bytes.len() > MAX_BODY {
            return Err(refused(id, "longer than an entry may be"));
        }
        self.body.count += 1;
        if self.frame_first.is_none() {
            self.frame_first = Some(id.clone());
        }
        self.last_id = Some(id.clone());
        if let Some(count) = self.counts.get_mut(place_of(details.cell.state)) {
            *count += 1;
        }
        Ok(())
    }

    /// Writes index, metadata, summary and tombstones, makes the file durable, and puts it in its
    /// place.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`], and those of [`Checkpoint::open`]. Whatever was in its place is
    /// untouched then, unless only the last step failed.
    pub(crate) fn finish(
        self,
        epoch: Epoch,
        metadata: &BTreeMap<String, Vec<u8>>,
        mut graves: Graves<'_>,
    ) -> Result<Checkpoint, JournalError> {
        let mut summed_up = self.sum_up(epoch, metadata)?;
        while let Some(tombstone) = graves.next()? {
            summed_up.bury(tombstone)?;
        }
        summed_up.end()
    }

    /// The first part of [`finish`](Self::finish): writes index, metadata and summary.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`].
    pub(crate) fn sum_up(
        mut self,
        epoch: Epoch,
        metadata: &BTreeMap<String, Vec<u8>>,
    ) -> Result<SummedUp, JournalError> {
        self.seal_entries()?;
        let tail = self.out.written;
        let places = std::mem::take(&mut self.places);
        for (length, first) in &places {
            let first = BytesWire(first.as_bytes());
            self.list(Kind::Index, &PlaceWire { length: *length, first })?;
        }
        self.out.seal(Kind::Index, &mut self.body)?;
        for (name, value) in metadata {
            self.list(Kind::Metadata, &MetadataWire { name, value: BytesWire(value) })?;
        }
        self.out.seal(Kind::Metadata, &mut self.body)?;
        let summary = SummaryWire {
            last_seq: self.last_seq.get(),
            chain: self.chain.0,
            epoch: epoch.get(),
            counts: self.counts,
            entry_frames: places.len() as u64,
            names: metadata.len() as u64,
        };
        self.list(Kind::Summary, &summary)?;
        self.out.seal(Kind::Summary, &mut self.body)?;
        Ok(SummedUp { writer: self, tail })
    }

    fn origin_for(&mut self, details: &TaskDetails) -> Origin {
        *self.origin.get_or_insert_with(|| {
            let origin = Origin::of(self.last_seq, details);
            codec::encode_into(&mut self.body.bytes, &origin.at);
            origin
        })
    }

    fn seal_entries(&mut self) -> Result<(), JournalError> {
        let before = self.out.written;
        self.out.seal(Kind::Entries, &mut self.body)?;
        self.origin = None;
        if let Some(first) = self.frame_first.take() {
            let length = u32::try_from(self.out.written - before).unwrap_or(u32::MAX);
            self.places.push((length, first));
        }
        Ok(())
    }

    /// Adds an item of the tail, in frames as full as they may be.
    fn list<T: serde::Serialize>(&mut self, kind: Kind, item: &T) -> Result<(), JournalError> {
        let before = self.body.bytes.len();
        codec::encode_into(&mut self.body.bytes, item);
        if self.body.count > 0 && self.body.bytes.len() > MAX_VALUE - HEAD - TAIL {
            self.body.bytes.truncate(before);
            self.out.seal(kind, &mut self.body)?;
            codec::encode_into(&mut self.body.bytes, item);
        }
        self.body.count += 1;
        Ok(())
    }
}

/// A checkpoint of which only the tombstones are left to be written.
#[derive(Debug)]
pub(crate) struct SummedUp {
    writer: CheckpointWriter,
    /// Where its tail begins.
    tail: u64,
}

impl SummedUp {
    /// Adds a tombstone, greater than all before it.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`].
    pub(crate) fn bury(&mut self, tombstone: Tombstone) -> Result<(), JournalError> {
        let CheckpointWriter { out, body, .. } = &mut self.writer;
        if body.bytes.len() + tombstone.to_bytes().len() > MAX_VALUE - HEAD - TAIL {
            out.seal(Kind::Tombstones, body)?;
        }
        body.bytes.extend_from_slice(&tombstone.to_bytes());
        body.count += 1;
        Ok(())
    }

    /// Makes the file durable and puts it in its place.
    ///
    /// # Errors
    ///
    /// As [`CheckpointWriter::finish`].
    pub(crate) fn end(self) -> Result<Checkpoint, JournalError> {
        let Self { mut writer, tail } = self;
        writer.out.seal(Kind::Tombstones, &mut writer.body)?;
        let CheckpointWriter { path, unfinished, out, last_seq, chain, .. } = writer;
        let ledger = out.ledger;
        let file = out.end(tail)?;
        file.sync_all().map_err(JournalError::io("sync", &unfinished.0))?;
        std::fs::rename(&unfinished.0, &path).map_err(JournalError::io("rename", &unfinished.0))?;
        sync_directory_of(&path)?;
        Checkpoint::open(&path, ledger, last_seq, chain)
    }
}

/// Makes the names in the directory of `path` durable.
///
/// # Errors
///
/// [`JournalError::Io`].
fn sync_directory_of(path: &Path) -> Result<(), JournalError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or_else(|| Path::new("."));
    let opened = File::open(directory).map_err(JournalError::io("open", directory))?;
    opened.sync_all().map_err(JournalError::io("sync", directory))
}

/// The body of the frame that is being filled.
#[derive(Debug, Default)]
struct Body {
    bytes: Vec<u8>,
    count: u32,
}

/// The file, and what is summed up while it is written.
struct Out {
    path: PathBuf,
    file: BufWriter<File>,
    ledger: LedgerId,
    whole: Xxh3,
    written: u64,
    frames: u64,
    chain: Chain,
    frame: Vec<u8>,
}

impl Out {
    /// Writes the body as one frame, if there is something in it, and empties it.
    fn seal(&mut self, kind: Kind, body: &mut Body) -> Result<(), JournalError> {
        if body.count > 0 {
            let start = FrameStart {
                kind,
                first: self.frames,
                lead: 0,
                count: body.count,
                chain: self.chain,
            };
            let mut frame = std::mem::take(&mut self.frame);
            frame.clear();
            self.chain = frame::seal(&mut frame, self.ledger, &start, &body.bytes)
                .map_err(|error| JournalError::Store(format!("a checkpoint's frame: {error}")))?;
            self.frames += 1;
            self.write(&frame)?;
            self.frame = frame;
        }
        body.bytes.clear();
        body.count = 0;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        self.whole.update(bytes);
        self.written += bytes.len() as u64;
        self.file.write_all(bytes).map_err(JournalError::io("write", &self.path))
    }

    fn end(mut self, tail: u64) -> Result<File, JournalError> {
        self.write(&END_MAGIC)?;
        self.write(&tail.to_le_bytes())?;
        let whole = self.whole.digest();
        self.write(&whole.to_le_bytes())?;
        let Self { file, path, .. } = self;
        file.into_inner().map_err(|error| JournalError::io("write", &path)(error.into_error()))
    }
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Out").field("path", &self.path).finish_non_exhaustive()
    }
}

fn refused(id: &EncodedId, why: &str) -> JournalError {
    JournalError::Store(format!("id {id:?} cannot be put into the checkpoint: {why}"))
}

pub(super) fn place_of(state: TaskState) -> usize {
    TaskState::ALL.iter().position(|other| *other == state).unwrap_or_default()
}
