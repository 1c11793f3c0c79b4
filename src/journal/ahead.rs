//! Zeros ahead of what the store writes, so that a sync has nothing to do but to write.
//!
//! An append that makes the file longer, or that gets blocks for it, costs a commit of the file
//! system's journal with its sync. Written zeros are overwritten in place:
//!
//! ```text
//! |== the store's ==|                      an append makes the file longer: seen by its length
//! |== the store's ==|000000000000|         the next one begins with the zeros, and makes them durable
//! |== the store's ====|0000000000|         the next ones write over them
//! |== the store's ===============|==|      until one makes the file longer again
//! ```
//!
//! **No byte of the store can be lost by it**: the file is open to append, so that every byte of zeros goes
//! where the file ends in the moment of the write, which the system decides under the lock of the file.
//! There is nothing there, whatever the store's own threads do meanwhile. What they write later goes over
//! the zeros; where they cut the file, the zeros go, or are behind the cut.
//!
//! To the store a zero is what it writes itself behind the end that it finds when it opens: nothing.
//! Like there, zeros end with the segment at the latest, so that it finds no segment that it has not begun.
//! So it does not matter which of them a kill or a loss of power leaves.
//!
//! No append fails for want of them. They take little of what is free, and after a failure there are no
//! more: the file grows as the store writes. What has been written of them is space that the store has.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// The most that is written at once: the append that has them in its sync takes longer by it.
const MOST: u64 = 512 * 1024;

/// The least: a block of most file systems.
const LEAST: u64 = 4096;

/// What part of the free space they may take.
const PART_OF_FREE: u64 = 64;

static ZEROS: [u8; MOST as usize] = [0; MOST as usize];

/// Opens the file beside the store that writes it.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).append(true).open(path)
}

/// How far the file of a log has been written ahead.
#[derive(Debug)]
pub(crate) struct Ahead {
    segment: u64,
    /// The length at the last look. `None` once something has failed.
    length: Option<u64>,
}

impl Ahead {
    /// Of a file that has just been opened, and of its segments.
    pub(crate) fn of(file: &File, segment: u64) -> Self {
        Self { segment, length: file.metadata().ok().map(|found| found.len()) }
    }

    /// Writes zeros if the store has made the file longer, which was opened by [`open`]. Nothing is synced.
    pub(crate) fn extend(&mut self, file: &File) {
        let Some(length) = self.length else { return };
        self.length = match extended(file, length, self.segment, free) {
            Ok(length) => Some(length),
            Err(error) => {
                tracing::debug!(%error, "no more zeros are written ahead");
                None
            }
        };
    }
}

/// The length it has then.
fn extended(
    mut file: &File,
    before: u64,
    segment: u64,
    free: impl FnOnce(&File) -> io::Result<u64>,
) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let end = length.checked_next_multiple_of(segment).unwrap_or(length);
    // A short log doubles at most.
    let wanted = length.clamp(LEAST, MOST).min(end - length);
    if length <= before || wanted == 0 || free(file)? / PART_OF_FREE < wanted {
        return Ok(length);
    }
    let zeros = usize::try_from(wanted).ok().and_then(|wanted| ZEROS.get(..wanted));
    Ok(length + file.write(zeros.unwrap_or_default())? as u64)
}

/// Bytes that are free for us on the file system of this file.
fn free(file: &File) -> io::Result<u64> {
    let found = rustix::fs::fstatvfs(file)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests;
