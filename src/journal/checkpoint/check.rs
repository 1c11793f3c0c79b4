//! Whether a checkpoint is as it was written.

use super::{Checkpoint, stream};
use crate::error::JournalError;
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
        let mut buffer = vec![0; stream::READ_AHEAD];
        let (mut at, end) = (0, self.bytes - CHECKSUM);
        while at < end {
            let wanted =
                usize::try_from(end - at).unwrap_or(stream::READ_AHEAD).min(stream::READ_AHEAD);
            let chunk = buffer.get_mut(..wanted).unwrap_or_default();
            self.file.read_exact_at(chunk, at).map_err(JournalError::io("read", &self.path))?;
            whole.update(chunk);
            at += wanted as u64;
        }
        let mut checksum = [0; CHECKSUM as usize];
        self.file
            .read_exact_at(&mut checksum, end)
            .map_err(JournalError::io("read", &self.path))?;
        if u64::from_le_bytes(checksum) == whole.digest() {
            return Ok(());
        }
        Err(damaged(&self.path, "the checksum of the whole file is wrong"))
    }
}
