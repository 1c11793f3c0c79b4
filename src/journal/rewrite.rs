//! Writing again what a failed sync may have left in the page cache alone.
//!
//! When a write to the disk fails, Linux keeps the pages and takes them for clean: they are read
//! as if they were on the disk, and no later sync writes them. So what the next open finds behind
//! the last sync that is known to have succeeded may be gone with the power, though that open syncs
//! the file again. It is all written once more, byte for byte in its place, which makes its pages
//! dirty; the sync that ends every open then means what it says.
//!
//! ```text
//! db    ....[frame][frame][frame]|[frame][frame]
//!                     the witness ^-------------- pages that are written again
//! ```
//!
//! If we die on the way, every byte is as it was: a page is written with what it holds. After a clean
//! close the witness stands at the end of the log, and nothing is done.

use super::scan::Scan;
use crate::error::JournalError;
use crate::sabotage::{self, Sabotage};
use crate::state::SeqNo;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What the kernel writes as a whole, at most: 64 KiB on some machines.
const PAGE: u64 = 64 * 1024;

/// Bytes read and written at once.
const CHUNK: u64 = 1024 * 1024;

/// Writes again the pages of the log's file, of which this is the scan, that hold these frames, as
/// far as they have records after `durable`. Nothing is synced.
///
/// # Errors
///
/// [`JournalError::Io`].
pub(crate) fn rewrite(
    path: &Path,
    scan: &Scan,
    run: &[usize],
    durable: SeqNo,
) -> Result<(), JournalError> {
    if sabotage::is(Sabotage::TrustCache) {
        return Ok(());
    }
    let frames = run.iter().filter_map(|at| scan.frames().get(*at));
    let mut places = Vec::new();
    for frame in frames.filter(|frame| frame.last() > durable.get()) {
        // What has been read from two files is known no better.
        places.push(scan.place(frame).unwrap_or(0..scan.file_bytes));
    }
    if places.is_empty() {
        return Ok(());
    }
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(JournalError::io("open", path))?;
    let mut buffer = Vec::new();
    for pages in pages(places) {
        let mut at = pages.start;
        while at < pages.end.min(scan.file_bytes) {
            let end = pages.end.min(scan.file_bytes).min(at + CHUNK);
            buffer.resize(usize::try_from(end - at).unwrap_or_default(), 0);
            file.read_exact_at(&mut buffer, at).map_err(JournalError::io("read", path))?;
            file.write_all_at(&buffer, at).map_err(JournalError::io("write", path))?;
            at = end;
        }
    }
    tracing::debug!(path = ?path, "what no sync is known to have reached is written again");
    Ok(())
}

/// The pages that these places lie in, each once, in order.
fn pages(mut places: Vec<Range<u64>>) -> Vec<Range<u64>> {
    places.sort_unstable_by_key(|place| place.start);
    let mut pages: Vec<Range<u64>> = Vec::new();
    for place in places {
        let (start, end) = (place.start - place.start % PAGE, place.end.next_multiple_of(PAGE));
        match pages.last_mut() {
            Some(last) if start <= last.end => last.end = last.end.max(end),
            _ => pages.push(start..end),
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_whole_and_taken_once() {
        let page = PAGE;
        let found = pages(vec![5 * page + 1..5 * page + 2, 3..page + 1, 10..20]);
        assert_eq!(found, [0..2 * page, 5 * page..6 * page]);
        assert_eq!(pages(vec![0..page, page..page + 1]), [0..2 * page]);
    }
}
