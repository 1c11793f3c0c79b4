//! Reading frames that lie one after the other.

use crate::error::JournalError;
use crate::journal::chain::LedgerId;
use crate::journal::fault::damaged;
use crate::journal::frame::{self, FrameHead, MAX_FRAME};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes read at once.
pub(super) const READ_AHEAD: usize = 1024 * 1024;

/// A valid frame.
pub(super) struct Whole<'a> {
    pub(super) head: FrameHead,
    pub(super) body: &'a [u8],
    /// All its bytes.
    pub(super) bytes: &'a [u8],
}

/// Frames that lie one after the other from `at` to `end`.
pub(super) struct Stream<'a> {
    pub(super) path: &'a Path,
    file: &'a File,
    ledger: LedgerId,
    /// Where in the file the next frame begins.
    pub(super) at: u64,
    end: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl<'a> Stream<'a> {
    pub(super) const fn new(
        path: &'a Path,
        file: &'a File,
        ledger: LedgerId,
        at: u64,
        end: u64,
    ) -> Self {
        Self { path, file, ledger, at, end, buffer: Vec::new(), used: 0 }
    }

    /// The next frame.
    pub(super) fn next(&mut self) -> Result<Option<Whole<'_>>, JournalError> {
        if self.at >= self.end {
            return Ok(None);
        }
        if self.buffer.len() - self.used < MAX_FRAME {
            self.fill()?;
        }
        let bytes = self.buffer.get(self.used..).unwrap_or_default();
        let (head, body) = frame::parse(self.ledger, bytes)
            .map_err(|error| damaged(self.path, format!("at byte {}: {error}", self.at)))?;
        self.at += head.length as u64;
        self.used += head.length;
        let bytes = bytes.get(..head.length).unwrap_or_default();
        Ok(Some(Whole { head, body, bytes }))
    }

    fn fill(&mut self) -> Result<(), JournalError> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let have = self.buffer.len();
        let left = self.end - self.at - have as u64;
        let more = usize::try_from(left).unwrap_or(usize::MAX).min(READ_AHEAD);
        self.buffer.resize(have + more, 0);
        let rest = self.buffer.get_mut(have..).unwrap_or_default();
        self.file
            .read_exact_at(rest, self.at + have as u64)
            .map_err(JournalError::io("read", self.path))
    }
}
