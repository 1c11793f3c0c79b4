use super::*;
use crate::held::HeldPath;
use crate::journal::frame::Frame;
use crate::journal::sled::{Log, data_file};
use crate::state::SeqNo;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Small, so that a test gets through several.
const SEGMENT: u64 = 64 * 1024;

fn frame(first: u64) -> Frame {
    Frame { first: SeqNo::new(first), bytes: vec![7; 150] }
}

fn appended(log: &mut Log, firsts: impl IntoIterator<Item = u64>) {
    for first in firsts {
        log.append(vec![frame(first)]).unwrap();
    }
}

/// The keys that it has, whose values are right.
fn found(log: &mut Log) -> Vec<u64> {
    let mut found = Vec::new();
    let visited = log.visit(|first, bytes| {
        assert_eq!(bytes, frame(0).bytes, "at {first}");
        found.push(first.get());
        Ok(true)
    });
    visited.unwrap();
    found
}

fn content(dir: &Path) -> Vec<u8> {
    std::fs::read(data_file(dir)).unwrap()
}

/// Where the zeros at the end of the file begin.
fn end(content: &[u8]) -> usize {
    content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

fn to_append(path: &Path) -> File {
    File::create(path).unwrap();
    open(path).unwrap()
}

#[test]
fn few_appends_make_the_file_longer() {
    const APPENDS: u64 = 2000;
    let dir = tempfile::tempdir().unwrap();
    let dir = HeldPath::by_name(dir.path()).join("log");
    let mut log = Log::create(&dir, SEGMENT).unwrap();
    let (mut length, mut longer) = (log.bytes().unwrap(), 0);
    for first in 1..=APPENDS {
        appended(&mut log, [first]);
        let now = log.bytes().unwrap();
        longer += u64::from(now > length);
        length = now;
        assert!(
            length <= (end(&content(&dir)) as u64).next_multiple_of(SEGMENT),
            "zeros end with the segment"
        );
    }
    let segments = length.div_ceil(SEGMENT);
    assert!(segments > 8, "{length}");
    // Of the first few KiB each doubling; of each segment the beginning, and the zeros after it.
    assert!(longer <= 2 * segments + 10, "{longer} appends of {APPENDS}, {segments} segments");
    assert_eq!(found(&mut log), Vec::from_iter(1..=APPENDS));
}

/// As a kill leaves them in the middle of their write, and a loss of power that keeps a part.
#[test]
fn a_log_whose_zeros_were_cut_anywhere_has_all_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = HeldPath::by_name(dir.path());
    for appends in [3, 40, 250] {
        let whole = dir.join(format!("{appends}"));
        let mut log = Log::create(&whole, SEGMENT).unwrap();
        appended(&mut log, 1..=appends);
        // Not closed, so that nothing is written at the end.
        let content = content(&whole);
        let end = end(&content);
        assert!(content.len() > end + 1000, "the control: it has been written ahead");
        let lengths = (end..content.len()).step_by(617).chain([end + 1, content.len()]);
        for length in lengths.chain([end.next_multiple_of(SEGMENT as usize)]) {
            let cut = dir.join("cut");
            std::fs::create_dir(&cut).unwrap();
            std::fs::copy(whole.join("conf"), cut.join("conf")).unwrap();
            let mut kept = content.clone();
            kept.resize(length, 0);
            std::fs::write(data_file(&cut), kept).unwrap();
            for round in 0..2 {
                let mut log = Log::open(&cut, SEGMENT).unwrap();
                let known = appends + round * 30;
                assert_eq!(found(&mut log), Vec::from_iter(1..=known), "{length}, round {round}");
                appended(&mut log, known + 1..=known + 30);
                assert_eq!(found(&mut log), Vec::from_iter(1..=known + 30), "{length}");
            }
            std::fs::remove_dir_all(&cut).unwrap();
        }
    }
}

/// The store's own threads may write at any time.
#[test]
fn nothing_that_others_write_meanwhile_is_written_over() {
    const LENGTH: u64 = 4_000_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let file = to_append(&path);
    // A segment that never has much room is one of many looks that find something to do.
    let mut ahead = Ahead::of(&file, 4096);
    let (looks, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let extended = std::thread::scope(|scope| {
        scope.spawn(|| {
            let store = File::options().write(true).open(&path).unwrap();
            for (write, at) in (0..LENGTH).step_by(1000).enumerate() {
                store.write_all_at(&[7; 1000], at).unwrap();
                let seen = looks.load(Ordering::Relaxed);
                // Neither gets far ahead of the other.
                while write % 8 == 0 && looks.load(Ordering::Relaxed) == seen {
                    std::thread::yield_now();
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        let mut extended = 0;
        while !done.load(Ordering::Relaxed) {
            let before = ahead.length;
            ahead.extend(&file);
            extended += u64::from(ahead.length > before);
            looks.fetch_add(1, Ordering::Relaxed);
        }
        extended
    });
    assert!(extended > 100, "the control: {extended} times");
    let content = std::fs::read(&path).unwrap();
    assert!(content.iter().take(LENGTH as usize).all(|byte| *byte == 7));
}

#[test]
fn what_is_there_stays_and_zeros_follow_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let file = to_append(&path);
    let store = File::options().write(true).open(&path).unwrap();
    let mut ahead = Ahead::of(&file, SEGMENT);
    let mut extend = || {
        ahead.extend(&file);
        (file.metadata().unwrap().len(), end(&std::fs::read(&path).unwrap()))
    };
    assert_eq!(extend(), (0, 0), "an empty file is left alone");
    store.write_all_at(&[7; 10], 0).unwrap();
    assert_eq!(extend(), (10 + LEAST, 10));
    assert_eq!(extend(), (10 + LEAST, 10), "what has not been used up is enough");
    store.write_all_at(&[7; 20_000], 10).unwrap();
    assert_eq!(extend(), (2 * 20_010, 20_010), "it doubles");
    store.write_all_at(&[7; 40_000], 20_010).unwrap();
    assert_eq!(extend(), (SEGMENT, 60_010), "it ends with the segment");
    store.write_all_at(&[7; 8_000], 60_010).unwrap();
    assert_eq!(extend(), (2 * SEGMENT, 68_010));
    store.set_len(SEGMENT).unwrap();
    assert_eq!(extend(), (SEGMENT, SEGMENT as usize), "no segment is begun");
    store.write_all_at(&[7; 1], SEGMENT).unwrap();
    assert_eq!(extend(), (2 * SEGMENT, SEGMENT as usize + 1));
}

#[test]
fn after_a_failure_nothing_more_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let file = to_append(&path);
    let mut ahead = Ahead::of(&file, SEGMENT);
    std::fs::write(&path, [7; 10]).unwrap();
    ahead.extend(&File::open(&path).unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), [7; 10]);
    ahead.extend(&file);
    assert_eq!(std::fs::read(&path).unwrap(), [7; 10]);
}

#[test]
fn they_take_little_of_what_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let file = to_append(&path);
    std::fs::write(&path, [7; 10_000]).unwrap();
    let enough = 10_000 * PART_OF_FREE;
    assert_eq!(extended(&file, 0, SEGMENT, |_| Ok(0)).unwrap(), 10_000);
    assert_eq!(extended(&file, 0, SEGMENT, |_| Ok(enough - 1)).unwrap(), 10_000);
    assert_eq!(std::fs::read(&path).unwrap(), [7; 10_000]);
    assert_eq!(extended(&file, 0, SEGMENT, |_| Ok(enough)).unwrap(), 20_000);
    assert!(free(&file).unwrap() > 0);
}

/// The store cuts free segments off its file in a thread of its own: a length that was seen before that
/// lets zeros begin where no segment is.
#[test]
fn zeros_in_segments_that_were_not_begun_are_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = HeldPath::by_name(dir.path());
    for appends in [3, 250, 700] {
        let whole = dir.join(format!("{appends}"));
        let mut log = Log::create(&whole, SEGMENT).unwrap();
        appended(&mut log, 1..=appends);
        let content = content(&whole);
        let next = end(&content).next_multiple_of(SEGMENT as usize);
        for more in
            [1, 15, 16, 20, 21, 4096, SEGMENT as usize - 1, SEGMENT as usize, 100_000, 200_000]
        {
            let cut = dir.join("cut");
            std::fs::create_dir(&cut).unwrap();
            std::fs::copy(whole.join("conf"), cut.join("conf")).unwrap();
            let mut kept = content.clone();
            kept.resize(next + more, 0);
            std::fs::write(data_file(&cut), kept).unwrap();
            for round in 0..4 {
                let mut log = Log::open(&cut, SEGMENT).unwrap();
                let known = appends + round * 300;
                assert_eq!(found(&mut log), Vec::from_iter(1..=known), "{more}, round {round}");
                appended(&mut log, known + 1..=known + 300);
                assert_eq!(found(&mut log), Vec::from_iter(1..=known + 300), "{more}");
            }
            std::fs::remove_dir_all(&cut).unwrap();
        }
    }
}
