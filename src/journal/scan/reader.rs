//! Reading again what a scan has found.

use super::{FrameAt, Scan, Source};
use crate::error::JournalError;
use crate::journal::Record;
use crate::journal::fault::damaged;
use crate::journal::frame::{self, FrameError, FrameHead};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes read at once, mostly in the order of the file.
const READ_AHEAD: usize = 256 * 1024;

/// Reads frames of a [`Scan`] again, ahead where they lie in a row.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    scan: &'a Scan,
    buffer: Vec<u8>,
    /// Where in the file the buffer begins.
    at: u64,
}

impl<'a> Reader<'a> {
    pub(super) const fn of(scan: &'a Scan) -> Self {
        Self { scan, buffer: Vec::new(), at: 0 }
    }

    /// The bytes of the whole frame, verified.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`]; [`JournalError::Damaged`] when the file is no longer as it was found.
    pub(crate) fn read(&mut self, frame: &FrameAt) -> Result<&[u8], JournalError> {
        self.parsed(frame).map(|(bytes, ..)| bytes)
    }

    /// The same, its head and its body.
    fn parsed(&mut self, frame: &FrameAt) -> Result<(&[u8], FrameHead, &[u8]), JournalError> {
        let scan = self.scan;
        let (bytes, at) = match &scan.source {
            Source::File(file) => {
                self.fill(file, frame)?;
                (self.buffer.as_slice(), self.at)
            }
            Source::Memory(bytes) => (bytes.as_slice(), 0),
        };
        let from = usize::try_from(frame.offset - at).unwrap_or(usize::MAX);
        let bytes = bytes.get(from..).and_then(|bytes| bytes.get(..frame.length as usize));
        let changed = || damaged(&scan.path, "the file changed while it was read");
        let bytes = bytes.ok_or_else(changed)?;
        match frame::parse(scan.ledger, bytes) {
            Ok((head, body)) if head.checksum == frame.checksum => Ok((bytes, head, body)),
            Ok(_) | Err(_) => Err(changed()),
        }
    }

    /// The records of the frame.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), and [`JournalError::Damaged`] when they do not decode.
    pub(crate) fn records(&mut self, frame: &FrameAt) -> Result<Vec<Record>, JournalError> {
        let scan = self.scan;
        let wrong = |error: FrameError| {
            damaged(&scan.path, format!("the frame of record {}: {error}", frame.first))
        };
        let (_, head, body) = self.parsed(frame)?;
        frame::decode_records(&head, body).map_err(wrong)
    }

    fn fill(&mut self, file: &File, frame: &FrameAt) -> Result<(), JournalError> {
        let end = frame.offset + u64::from(frame.length);
        if frame.offset >= self.at && end <= self.at + self.buffer.len() as u64 {
            return Ok(());
        }
        self.at = frame.offset;
        self.buffer.resize(READ_AHEAD.max(frame.length as usize), 0);
        let mut filled = 0;
        while let Some(rest) = self.buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, self.at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.clear();
                    return Err(JournalError::io("read", &self.scan.path)(error));
                }
            }
        }
        self.buffer.truncate(filled);
        Ok(())
    }
}
