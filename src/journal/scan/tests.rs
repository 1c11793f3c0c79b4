use super::*;
use crate::id::EncodedId;
use crate::journal::Entry;
use crate::journal::frame::{Frame, MAX_VALUE, encode_records};
use crate::state::{Event, Output, SuccessBy, Timestamp};
use std::io::Write;
use std::os::unix::fs::FileExt;
use tempfile::{NamedTempFile, TempDir};

const LEDGER: LedgerId = LedgerId(*b"the ledger's id.");
const ALL: Wanted = Wanted::Records { after: SeqNo::ZERO };
const OTHER: LedgerId = LedgerId([9; 16]);

fn record(seq: u64, size: usize) -> Record {
    let output = Output::Kept((0..size).map(|n| (n as u64 * seq) as u8).collect());
    let entry = Entry::Task {
        id: EncodedId::from_bytes(&seq.to_le_bytes()),
        prev: SeqNo::ZERO,
        event: Event::Succeeded { by: SuccessBy::Mark, output },
    };
    Record { seq: SeqNo::new(seq), at: Timestamp::from_micros(seq), entry }
}

/// One frame per size, each a batch of its own.
fn frames_of(ledger: LedgerId, sizes: &[usize]) -> (Vec<Frame>, Chain) {
    let (mut frames, mut chain) = (Vec::new(), Chain::START);
    for (size, seq) in sizes.iter().zip(1..) {
        let (mut made, end) = encode_records(ledger, chain, &[record(seq, *size)]).expect("fits");
        frames.append(&mut made);
        chain = end;
    }
    (frames, chain)
}

/// A batch of large records, which takes several frames.
fn batch(chain: Chain, first: u64, count: u64) -> (Vec<Frame>, Chain) {
    let records: Vec<_> = (first..first + count).map(|seq| record(seq, 30_000)).collect();
    encode_records(LEDGER, chain, &records).expect("fits")
}

fn file_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    for part in parts {
        file.write_all(part).expect("written");
    }
    file
}

fn scan_of(frames: &[&Frame]) -> Scan {
    let file = file_of(frames.iter().map(|frame| frame.bytes.as_slice()));
    scan_file(file.path(), LEDGER, SeqNo::ZERO).expect("readable")
}

fn bytes_of(scan: &Scan) -> Vec<Vec<u8>> {
    let mut reader = scan.reader();
    let read = |frame| reader.read(frame).expect("as it was found").to_vec();
    scan.frames().iter().map(read).collect()
}

fn bytes_in(frames: &[Frame]) -> Vec<Vec<u8>> {
    frames.iter().map(|frame| frame.bytes.clone()).collect()
}

#[test]
fn frames_are_found_between_other_bytes_whatever_the_size_of_a_chunk() {
    let (frames, end) = frames_of(LEDGER, &[0, 5, 100, 17]);
    let (others, _) = frames_of(OTHER, &[3]);
    let parts = [&b"TLfr"[..], &frames[0].bytes, b"TLframe\x01", b"TLframe\x02", &frames[2].bytes];
    let more = [&others[0].bytes, &frames[1].bytes[..40], &frames[0].bytes, &frames[1].bytes];
    let last = [b"TTLframe", frames[3].bytes.as_slice(), &frames[3].bytes[..50]];
    let file = file_of(parts.into_iter().chain(more).chain(last));
    let size = file.as_file().metadata().expect("its size").len();
    for chunk in 1..=size as usize + 1 {
        let scan = scan_in_chunks(file.path(), LEDGER, ALL, chunk).expect("readable");
        assert_eq!(bytes_of(&scan), bytes_in(&frames), "chunks of {chunk}");
        assert_eq!((scan.of_others, scan.file_bytes), (1, size), "chunks of {chunk}");
        let run = scan.run(SeqNo::ZERO, Chain::START);
        assert_eq!((run.end, run.chain, run.beyond), (SeqNo::new(4), end, None));
    }
}

#[test]
fn frames_straddle_the_borders_of_chunks() {
    let (frames, _) = frames_of(LEDGER, &[30_000, 40_000, 20, 45_000, 20_000]);
    let file = file_of(frames.iter().map(|frame| frame.bytes.as_slice()));
    for chunk in [7, 64, 1_000, 4_096, 65_536, 100_000, 1 << 20] {
        let scan = scan_in_chunks(file.path(), LEDGER, ALL, chunk).expect("readable");
        assert_eq!(bytes_of(&scan), bytes_in(&frames), "chunks of {chunk}");
    }
}

#[test]
fn a_missing_file_is_an_error_and_an_empty_one_has_no_frames() {
    let missing = TempDir::new().expect("a directory").path().join("db");
    let error = scan_file(&missing, LEDGER, SeqNo::ZERO).expect_err("nothing there");
    assert!(
        matches!(&error, JournalError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound),
        "{error}"
    );
    let scan = scan_of(&[]);
    assert_eq!(
        scan.run(SeqNo::new(7), Chain(3)),
        Run {
            frames: vec![],
            end: SeqNo::new(7),
            chain: Chain(3),
            beyond: None,
            torn: false,
            fork: None,
        }
    );
}

#[test]
fn what_the_checkpoint_holds_is_dropped_and_the_rest_follows_it() {
    let (frames, end) = frames_of(LEDGER, &[1, 2, 3, 4, 5]);
    let file = file_of(frames.iter().map(|frame| frame.bytes.as_slice()));
    let scan = scan_file(file.path(), LEDGER, SeqNo::new(3)).expect("readable");
    assert_eq!(bytes_of(&scan), bytes_in(&frames[3..]));
    let after_third = scan.frames()[0].chain;
    let run = scan.run(SeqNo::new(3), after_third);
    assert_eq!((run.frames.len(), run.end, run.chain), (2, SeqNo::new(5), end));
    let unlinked = scan.run(SeqNo::new(3), Chain(1));
    assert_eq!(
        (unlinked.end, unlinked.beyond),
        (SeqNo::new(3), Some((SeqNo::new(4), SeqNo::new(5))))
    );
}

/// The frame of record 3 is gone, and it had been acknowledged: record 4 was another batch.
#[test]
fn a_gap_before_another_batch_is_a_loss() {
    let (frames, _) = frames_of(LEDGER, &[1, 2, 3, 4, 5]);
    let scan = scan_of(&[&frames[0], &frames[1], &frames[3], &frames[4]]);
    let run = scan.run(SeqNo::ZERO, Chain::START);
    assert_eq!(run.end, SeqNo::new(2));
    assert_eq!(run.beyond, Some((SeqNo::new(4), SeqNo::new(5))));
    assert!(!run.torn, "record 4 was only written once record 3 was durable");
    assert_eq!(scan.salvage(SeqNo::ZERO, Chain::START, u64::MAX), [0, 1, 2, 3]);
}

/// The power went while a batch of several frames was written, and the disk kept a later one and
/// not an earlier one. Nothing of it was acknowledged.
#[test]
fn a_gap_within_a_batch_is_torn() {
    let (one, chain) = batch(Chain::START, 1, 1);
    let (many, _) = batch(chain, 2, 9);
    assert!(many.len() > 3, "several frames");
    for kept in &many[1..] {
        let scan = scan_of(&[&one[0], kept]);
        let run = scan.run(SeqNo::ZERO, Chain::START);
        assert_eq!((run.end, run.torn), (SeqNo::new(1), true));
    }
    let (third, _) = batch(Chain(5), 11, 1);
    let scan = scan_of(&[&one[0], &many[1], &third[0]]);
    assert!(!scan.run(SeqNo::ZERO, Chain::START).torn, "the third batch followed a sync");
}

/// After such a loss of power the log went on from before the torn batch, and what is left of that
/// batch still lies in the file.
#[test]
fn what_a_torn_batch_left_behind_does_not_disturb_those_that_follow() {
    let (one, chain) = batch(Chain::START, 1, 1);
    let (torn, _) = batch(chain, 2, 9);
    let (first, after) = encode_records(LEDGER, chain, &[record(2, 10)]).expect("fits");
    let (second, after) = encode_records(LEDGER, after, &[record(3, 10)]).expect("fits");
    let (third, end) = batch(after, 4, 20);
    let all: Vec<_> = one.iter().chain(&first).chain(&second).chain(&third).collect();
    let mut with_rest = all.clone();
    with_rest.extend(&torn[1..]);
    let run = scan_of(&with_rest).run(SeqNo::ZERO, Chain::START);
    assert_eq!((run.end, run.chain, run.beyond), (SeqNo::new(23), end, None));
    assert_eq!(run.frames.len(), all.len());
}

#[test]
fn two_frames_that_follow_the_same_position_are_a_fork() {
    let (frames, chain) = frames_of(LEDGER, &[1, 2]);
    let (left, _) = encode_records(LEDGER, chain, &[record(3, 3)]).expect("fits");
    let (right, _) = encode_records(LEDGER, chain, &[record(3, 4)]).expect("fits");
    let scan = scan_of(&[&frames[0], &frames[1], &left[0], &right[0]]);
    let run = scan.run(SeqNo::ZERO, Chain::START);
    assert_eq!((run.end, run.fork, run.torn), (SeqNo::new(2), Some(SeqNo::new(3)), false));
    assert_eq!(scan.salvage(SeqNo::ZERO, Chain::START, u64::MAX).len(), 3, "one of the two");
}

#[test]
fn loaded_frames_outlive_the_file_and_a_changed_file_is_noticed() {
    let (frames, _) = frames_of(LEDGER, &[100, 200, 300]);
    let file = file_of(frames.iter().map(|frame| frame.bytes.as_slice()));
    let changed = scan_file(file.path(), LEDGER, SeqNo::ZERO).expect("readable");
    let mut loaded = scan_file(file.path(), LEDGER, SeqNo::ZERO).expect("readable");
    assert!(!loaded.load(loaded.frame_bytes() - 1).expect("readable"), "over the limit");
    assert!(loaded.load(loaded.frame_bytes()).expect("readable"), "within the limit");
    file.as_file().write_all_at(&[0xee; 4], 60).expect("written");
    assert_eq!(bytes_of(&loaded), bytes_in(&frames));
    let error = changed.reader().read(&changed.frames()[0]).expect_err("changed");
    assert!(matches!(error, JournalError::Damaged(_)), "{error}");
    file.as_file().set_len(100).expect("cut");
    let error = changed.reader().read(&changed.frames()[2]).expect_err("cut");
    assert!(matches!(error, JournalError::Damaged(_)), "{error}");
}

fn store(dir: &Path) -> sled::Db {
    sled::Config::new()
        .path(dir)
        .segment_size(8 * 1024 * 1024)
        .flush_every_ms(None)
        .use_compression(false)
        .open()
        .expect("a store")
}

/// Sizes from 100 B to the largest value, no pattern.
fn size(seq: u64) -> usize {
    let mixed = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    match seq % 10 {
        0 => mixed as usize % 47_000,
        1..=3 => mixed as usize % 5_000,
        _ => mixed as usize % 300,
    }
}

/// The whole idea of this module, tried on the real store: batches, reopens, rewritten leaves.
#[test]
fn everything_in_the_real_store_is_found() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("log-1");
    let (mut all, mut chain) = (Vec::new(), Chain::START);
    let mut next = 1;
    for open in 0..4 {
        let db = store(&path);
        for batch in 0..40 {
            let records: Vec<_> = (next..next + 1 + (batch * 7 + open) % 50)
                .map(|seq| record(seq, size(seq)))
                .collect();
            next += records.len() as u64;
            let (frames, end) = encode_records(LEDGER, chain, &records).expect("fits");
            chain = end;
            for frame in frames {
                assert!(frame.bytes.len() <= MAX_VALUE);
                let key = frame.first.get().to_be_bytes();
                db.insert(key, frame.bytes.as_slice()).expect("inserted");
                all.push(frame);
            }
            db.flush().expect("flushed");
        }
        let scan = scan_file(&path.join("db"), LEDGER, SeqNo::ZERO).expect("readable");
        assert_eq!(bytes_of(&scan), bytes_in(&all), "while the store is open, open {open}");
        drop(db);
        let scan = scan_file(&path.join("db"), LEDGER, SeqNo::ZERO).expect("readable");
        assert_eq!(bytes_of(&scan), bytes_in(&all), "after open {open}");
        let run = scan.run(SeqNo::ZERO, Chain::START);
        assert_eq!((run.end.get() + 1, run.chain, run.beyond), (next, chain, None));
    }
    damage_shows(&path.join("db"), &all);
}

/// A cut end or overwritten bytes never bring up a frame that was not written, and every frame that
/// is left is still found.
fn damage_shows(db: &Path, all: &[Frame]) {
    let whole = std::fs::read(db).expect("readable");
    let written = bytes_in(all);
    for part in [1, 2, 3, 5, 8] {
        let mut cut = whole[..whole.len() * part / 9 + part].to_vec();
        let at = cut.len() * 2 / 3;
        cut[at..at + 5].copy_from_slice(b"\xeeTLfr");
        let file = file_of([cut.as_slice()]);
        let scan = scan_file(file.path(), LEDGER, SeqNo::ZERO).expect("readable");
        let found = bytes_of(&scan);
        let left = written.iter().filter(|frame| memchr::memmem::find(&cut, frame).is_some());
        assert_eq!(found.iter().collect::<Vec<_>>(), left.collect::<Vec<_>>(), "part {part}");
        assert!(found.len() < all.len(), "something is gone");
    }
}

/// Thousands of small frames, one batch each, as a single caller makes them: leaves are merged.
#[test]
fn thousands_of_small_batches_in_the_real_store_are_found() {
    let dir = TempDir::new().expect("a directory");
    let db = store(dir.path());
    let (frames, _) = frames_of(LEDGER, &[40; 5_000]);
    for (frame, number) in frames.iter().zip(1..) {
        db.insert(frame.first.get().to_be_bytes(), frame.bytes.as_slice()).expect("inserted");
        if number % 50 == 0 {
            db.flush().expect("flushed");
        }
    }
    drop(db);
    let scan = scan_file(&dir.path().join("db"), LEDGER, SeqNo::ZERO).expect("readable");
    assert_eq!(bytes_of(&scan), bytes_in(&frames));
    assert!(scan.file_bytes > 2 * scan.frame_bytes(), "the store did rewrite leaves");
}
