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
    use crate::Ledger;
    use crate::journal::chain::Chain;
    use crate::journal::manifest::{Judged, Manifest};
    use crate::journal::scan::scan_file;
    use crate::journal::sled::data_file;
    use std::time::SystemTime;

    #[tokio::test]
    async fn what_no_sync_has_vouched_for_is_written_with_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::<u32>::builder().ballast_bytes(0).open(dir.path()).await.unwrap();
        for id in 0..50 {
            ledger.launch_block(id, async { Ok::<_, ()>(()) }).await.unwrap();
        }
        ledger.close().await.unwrap();
        let Ok(Judged::Current(manifest)) = Manifest::read(dir.path()) else { panic!() };
        let path = data_file(&dir.path().join("log-1"));
        let scan = scan_file(&path, manifest.ledger, SeqNo::ZERO).unwrap();
        let run = scan.run(SeqNo::ZERO, Chain::START);
        let before = std::fs::read(&path).unwrap();
        let was_written = |durable| {
            let long_ago = SystemTime::UNIX_EPOCH;
            File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
            rewrite(&path, &scan, &run.frames, durable).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), before);
            std::fs::metadata(&path).unwrap().modified().unwrap() != long_ago
        };
        assert!(!was_written(run.end));
        assert!(was_written(SeqNo::new(run.end.get() - 1)));
        assert!(was_written(SeqNo::ZERO));
    }

    #[test]
    fn pages_are_whole_and_taken_once() {
        let page = PAGE;
        let found = pages(vec![5 * page + 1..5 * page + 2, 3..page + 1, 10..20]);
        assert_eq!(found, [0..2 * page, 5 * page..6 * page]);
        let [touching] = &pages(vec![0..page, page..page + 1])[..] else { panic!() };
        assert_eq!(*touching, 0..2 * page);
    }
}
