//! Whether a checkpoint is as it was written.

use super::{Checkpoint, stream};
use crate::error::JournalError;
use crate::journal::chain::LedgerId;
use crate::journal::fault::damaged;
use std::os::unix::fs::FileExt;
use xxhash_rust::xxh3::Xxh3;

impl Checkpoint {
    /// That every byte is as it was written, without decoding the entries.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`], [`JournalError::Damaged`].
    pub(crate) fn check(&self) -> Result<(), JournalError> {
        const CHECKSUM: u64 = 8;
        let mut whole = Xxh3::new();
        let end = self.bytes - CHECKSUM;
        self.read_up_to(end, |piece| {
            whole.update(piece);
            Ok(())
        })?;
        let mut checksum = [0; CHECKSUM as usize];
        self.file
            .read_exact_at(&mut checksum, end)
            .map_err(JournalError::io("read", &self.path))?;
        if u64::from_le_bytes(checksum) == whole.digest() {
            return Ok(());
        }
        Err(damaged(&self.path, "the checksum of the whole file is wrong"))
    }

    /// Hands over the whole file, piece by piece, without judging it.
    ///
    /// # Errors
    ///
    /// What `visit` returned, [`JournalError::Io`].
    pub(crate) fn read_all(
        &self,
        visit: impl FnMut(&[u8]) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        self.read_up_to(self.bytes, visit)
    }

    /// Whose it is.
    pub(crate) const fn ledger(&self) -> LedgerId {
        self.ledger
    }

    fn read_up_to(
        &self,
        end: u64,
        mut visit: impl FnMut(&[u8]) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let mut buffer = vec![0; stream::READ_AHEAD];
        let mut at = 0;
        while at < end {
            let wanted =
                usize::try_from(end - at).unwrap_or(stream::READ_AHEAD).min(stream::READ_AHEAD);
            let piece = buffer.get_mut(..wanted).unwrap_or_default();
            self.file.read_exact_at(piece, at).map_err(JournalError::io("read", &self.path))?;
            visit(piece)?;
            at += wanted as u64;
        }
        Ok(())
    }
}
