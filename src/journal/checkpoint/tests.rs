use super::*;
use crate::state::{Attempt, Cell, Failure, Output, Parent, SuccessBy, Timestamp, Tombstone};
use tempfile::TempDir;

mod forged;

const LEDGER: LedgerId = LedgerId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
const CHAIN: Chain = Chain(0x77);

fn id(number: u64) -> EncodedId {
    let text = format!("{number:020}");
    EncodedId::from_bytes(&[&[20], text.as_bytes()].concat())
}

/// A success as most of them are, somewhere within a week.
fn succeeded(number: u64, last: u64) -> TaskDetails {
    let started = 1_700_000_000_000_000 + (number * 7_919_777_777) % 604_800_000_000;
    TaskDetails {
        cell: Cell {
            state: TaskState::Succeeded,
            attempt: Attempt::new(1),
            seq: SeqNo::new(last - number),
        },
        epoch: Some(Epoch::new(12)),
        started_at: Some(Timestamp::from_micros(started)),
        ended_at: Some(Timestamp::from_micros(started + 3_000_000)),
        succeeded_by: Some(SuccessBy::Attempt),
        output: Output::Kept(vec![0xc0]),
        ..TaskDetails::ABSENT
    }
}

/// Every field in use, as large as the limits allow.
fn largest(last: u64) -> TaskDetails {
    let text = "x".repeat(4_096);
    TaskDetails {
        queued_at: Some(Timestamp::from_micros(u64::MAX)),
        revoke_started_at: Some(Timestamp::from_micros(0)),
        failure: Some(Failure::Error(text.clone())),
        revoke_failure: Some(Failure::Panicked(text)),
        output: Output::Kept(vec![7; 47 * 1_024]),
        ..succeeded(0, last)
    }
}

fn metadata() -> BTreeMap<String, Vec<u8>> {
    [("a".into(), vec![1, 2]), ("b".into(), vec![])].into()
}

fn made(dir: &TempDir, entries: &[(EncodedId, TaskDetails)], last: u64) -> Checkpoint {
    let path = dir.path().join("checkpoint-1");
    let mut writer =
        CheckpointWriter::create(&path, LEDGER, SeqNo::new(last), CHAIN).expect("created");
    for (id, details) in entries {
        writer.push(id, details).expect("in order");
    }
    writer.finish(Epoch::new(3), &metadata(), none()).expect("finished")
}

/// No tombstones.
fn none<'a>() -> Graves<'a> {
    Graves::new(None, BTreeMap::new())
}

fn many(count: u64, last: u64) -> Vec<(EncodedId, TaskDetails)> {
    (0..count).map(|number| (id(number), succeeded(number, last))).collect()
}

fn collected(checkpoint: &Checkpoint) -> Result<Vec<(EncodedId, TaskDetails)>, JournalError> {
    let mut found = Vec::new();
    checkpoint.visit(|id, details| {
        found.push((id.clone(), details.clone()));
        Ok(())
    })?;
    Ok(found)
}

#[test]
fn what_was_put_in_comes_out() {
    let last = 10_000_000;
    let mut entries = many(5_000, last);
    entries[700].1 = largest(last);
    entries[1_700].1.cell.state = TaskState::Queued;
    entries.insert(0, (EncodedId::from_bytes(b""), succeeded(3, last)));
    entries.push((EncodedId::from_bytes(&[0xff; 1_024]), largest(last)));
    let dir = TempDir::new().expect("a directory");
    let checkpoint = made(&dir, &entries, last);
    assert_eq!(collected(&checkpoint).expect("sound"), entries);
    for (id, details) in entries.iter().step_by(37).chain(&entries[700..702]) {
        assert_eq!(checkpoint.get(id).expect("readable").as_ref(), Some(details), "{id:?}");
    }
    for absent in [&b"\x01"[..], b"\x14", b"\x1400000000000000000007x", &[0xff; 1_025]] {
        assert_eq!(checkpoint.get(&EncodedId::from_bytes(absent)).expect("readable"), None);
    }
    let summary = checkpoint.summary();
    assert_eq!((summary.last_seq, summary.chain), (SeqNo::new(last), CHAIN));
    assert_eq!((summary.epoch, &summary.metadata), (Epoch::new(3), &metadata()));
    assert_eq!(summary.counts, [0, 1, 0, 5_001, 0, 0]);
    assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 1, "nothing unfinished");
}

#[test]
fn an_open_checkpoint_outlives_its_name() {
    let dir = TempDir::new().expect("a directory");
    let entries = many(2_000, 9_000);
    let checkpoint = made(&dir, &entries, 9_000);
    std::fs::remove_file(dir.path().join("checkpoint-1")).expect("removed");
    assert_eq!(collected(&checkpoint).expect("sound"), entries);
    assert!(checkpoint.get(&id(1_999)).expect("readable").is_some());
}

/// What ten million old tasks cost: an id of 20 bytes, one attempt, a unit as output.
#[test]
fn a_plain_success_takes_at_most_fifty_bytes() {
    let dir = TempDir::new().expect("a directory");
    let count = 20_000;
    let checkpoint = made(&dir, &many(count, 40_000_000), 40_000_000);
    let each = checkpoint.bytes() as f64 / count as f64;
    assert!(each <= 50.0, "{each} bytes each");
}

#[test]
fn a_whole_file_has_its_golden_bytes() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("checkpoint-1");
    let mut writer =
        CheckpointWriter::create(&path, LEDGER, SeqNo::new(9), Chain(2)).expect("created");
    let details = TaskDetails {
        cell: Cell { state: TaskState::Succeeded, attempt: Attempt::new(1), seq: SeqNo::new(7) },
        epoch: Some(Epoch::new(1)),
        started_at: Some(Timestamp::from_micros(5)),
        ended_at: Some(Timestamp::from_micros(7)),
        succeeded_by: Some(SuccessBy::Attempt),
        output: Output::Kept(vec![0xc0]),
        ..TaskDetails::ABSENT
    };
    writer.push(&EncodedId::from_bytes(b"\x01a"), &details).expect("in order");
    writer.finish(Epoch::new(3), &BTreeMap::new(), none()).expect("finished");
    let bytes = std::fs::read(&path).expect("readable");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "544c636865636b01000102030405060708090a0b0c0d0e0f09000000000000000200000000000000\
         35b750095fc40794544c6672616d6501000102030405060708090a0b0c0d0e0f0200000000000000\
         00000000000100000035b750095fc407940e000000050201610b8d01020100040101c0e0295d6538\
         9a3814544c6672616d6501000102030405060708090a0b0c0d0e0f03010000000000000000000000\
         01000000e0295d65389a3814040000004b020161a0a38e2fc7c2e175544c6672616d650100010203\
         0405060708090a0b0c0d0e0f0502000000000000000000000001000000a0a38e2fc7c2e1750b0000\
         000902030000000100000100c24a575aa9663a4a544c63686b656e647b000000000000005aaf79ff\
         9f1b236d"
    );
}

/// Opens and reads all of it; what is wrong must be said by one of the two.
fn judged(path: &Path, last: u64) -> Result<usize, JournalError> {
    let checkpoint = Checkpoint::open(path, LEDGER, SeqNo::new(last), CHAIN)?;
    // None of these may panic, whatever they find.
    let _first = checkpoint.get(&id(0));
    let _last = checkpoint.get(&id(39));
    collected(&checkpoint).map(|entries| entries.len())
}

#[test]
fn damage_anywhere_is_a_typed_error() {
    let dir = TempDir::new().expect("a directory");
    let entries = many(40, 900);
    made(&dir, &entries, 900);
    let path = dir.path().join("checkpoint-1");
    let whole = std::fs::read(&path).expect("readable");
    assert_eq!(judged(&path, 900).expect("sound"), 40);
    let check = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).expect("written");
        match judged(&path, 900) {
            Err(JournalError::Damaged(damage)) => assert_eq!(damage.place, "checkpoint-1"),
            other => panic!("{what}: {other:?}"),
        }
    };
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            check(&bytes, &format!("byte {at} with {flip:02x}"));
        }
        check(&whole[..at], &format!("cut at {at}"));
    }
    check(&[&whole[..], &[0]].concat(), "one byte more");
    check(&[&whole[..], &whole[..]].concat(), "twice");
}

#[test]
fn another_position_or_ledger_is_refused() {
    let dir = TempDir::new().expect("a directory");
    made(&dir, &many(3, 900), 900);
    let path = dir.path().join("checkpoint-1");
    for (ledger, seq, chain) in
        [(LEDGER, 901, CHAIN), (LEDGER, 900, Chain(1)), (LedgerId([1; 16]), 900, CHAIN)]
    {
        let opened = Checkpoint::open(&path, ledger, SeqNo::new(seq), chain);
        assert!(matches!(opened, Err(JournalError::Damaged(_))), "{opened:?}");
    }
    let missing = Checkpoint::open(&dir.path().join("no"), LEDGER, SeqNo::new(900), CHAIN);
    assert!(matches!(missing, Err(JournalError::Io { .. })), "{missing:?}");
}

#[test]
fn an_entry_that_does_not_belong_is_refused() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("checkpoint-1");
    let mut writer =
        CheckpointWriter::create(&path, LEDGER, SeqNo::new(900), CHAIN).expect("created");
    let unknown = writer.push(&id(1), &TaskDetails::ABSENT);
    assert!(matches!(unknown, Err(JournalError::Store(_))), "{unknown:?}");
    let newer = writer.push(&id(1), &succeeded(1, 1_000));
    assert!(matches!(newer, Err(JournalError::Store(_))), "{newer:?}");
    assert!(!path.exists(), "nothing is in its place before the end");
}

/// A parent is an id, and no longer than one.
#[test]
fn a_parent_that_is_no_id_is_refused() {
    for (length, is_one) in [(MAX_ID_BYTES, true), (MAX_ID_BYTES + 1, false)] {
        let dir = TempDir::new().unwrap();
        let parent = Some(Parent::from_bytes(&vec![b'p'; length]));
        let details = TaskDetails { parent, ..succeeded(1, 900) };
        let read = collected(&made(&dir, &[(id(1), details.clone())], 900));
        assert_eq!(read.is_ok(), is_one, "{length}: {read:?}");
        assert!(read.is_err() || read.unwrap() == [(id(1), details)], "{length}");
    }
}

/// The index and the metadata take several frames as well.
#[test]
fn a_large_tail_comes_back() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("checkpoint-1");
    let last = SeqNo::new(1_000_000);
    let mut writer = CheckpointWriter::create(&path, LEDGER, last, CHAIN).expect("created");
    let mut details = largest(1_000_000);
    details.output = Output::Kept(vec![1; 32 * 1_024]);
    for number in 0..200_u64 {
        let mut bytes = vec![b'x'; 1_016];
        bytes.splice(0..0, number.to_be_bytes());
        writer.push(&EncodedId::from_bytes(&bytes), &details).expect("in order");
    }
    let metadata: BTreeMap<_, _> =
        (0..20).map(|number| (format!("name {number}"), vec![number; 40_000])).collect();
    let checkpoint = writer.finish(Epoch::new(1), &metadata, none()).expect("finished");
    assert_eq!(checkpoint.summary().metadata, metadata);
    assert_eq!(collected(&checkpoint).expect("sound").len(), 200);
}

/// Several frames, one of them broken, and the head and the end as well: the rest is still there.
#[test]
fn what_is_whole_in_a_damaged_checkpoint_is_salvaged() {
    let dir = TempDir::new().expect("a directory");
    let entries = many(4_000, 9_000);
    let frames = made(&dir, &entries, 9_000).places.len();
    let path = dir.path().join("checkpoint-1");
    let mut bytes = std::fs::read(&path).expect("readable");
    let length = bytes.len();
    for at in [3, length / 2, length - 2] {
        bytes[at] ^= 1;
    }
    std::fs::write(&path, bytes).expect("written");
    assert!(judged(&path, 9_000).is_err(), "damaged");
    let (last, sound) = (SeqNo::new(9_000), dir.path().join("checkpoint-2"));
    let mut writer = CheckpointWriter::create(&sound, LEDGER, last, CHAIN).expect("created");
    let (epoch, names, graves) = salvage(&path, LEDGER, last, &mut writer).expect("readable");
    assert_eq!((epoch, &names), (Epoch::new(3), &metadata()));
    let found =
        collected(&writer.finish(epoch, &names, Graves::new(None, graves)).expect("finished"))
            .expect("sound");
    assert!(found.iter().all(|entry| entries.contains(entry)), "nothing is made up");
    let least = entries.len() * (frames - 1) / frames - 100;
    assert!((least..entries.len()).contains(&found.len()), "{} of {frames} frames", found.len());
}

/// A frame of another checkpoint of the same ledger, in the very place of the right one, and every
/// checksum made to fit: only the link to the next frame tells.
#[test]
fn a_frame_of_another_checkpoint_does_not_link() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("checkpoint-1");
    let mut entries = many(3_000, 9_000);
    let whole_of = |entries: &[(EncodedId, TaskDetails)]| {
        let length = made(&dir, entries, 9_000).places[0].length as usize;
        (std::fs::read(&path).expect("readable"), HEAD_BYTES + length)
    };
    let (mut bytes, end) = whole_of(&entries);
    entries[5].1.output = Output::Kept(vec![0xc2]);
    let (other, other_end) = whole_of(&entries);
    assert_eq!(end, other_end, "the same places");
    bytes[HEAD_BYTES..end].copy_from_slice(&other[HEAD_BYTES..end]);
    let sealed = bytes.len() - 8;
    let whole = xxh3_64(&bytes[..sealed]);
    bytes[sealed..].copy_from_slice(&whole.to_le_bytes());
    std::fs::write(&path, &bytes).expect("written");
    let error = judged(&path, 9_000).expect_err("spliced");
    assert!(matches!(error, JournalError::Damaged(_)), "{error}");
}

/// A look at one id reads one frame of entries, so these are short; one long entry has a frame of
/// its own. A file too short for a head and an end is told by its length.
#[test]
fn frames_are_no_longer_than_they_should_be() {
    let dir = TempDir::new().unwrap();
    let mut entries = many(5_000, 20_000);
    entries.push((id(5_000), largest(20_000)));
    drop(made(&dir, &entries, 20_000));
    let path = dir.path().join("checkpoint-1");
    let scan = crate::journal::scan::scan_checkpoint(&path, LEDGER).unwrap();
    let long = scan.frames().iter().filter(|frame| frame.length() > 16 * 1024);
    assert_eq!(long.map(|frame| frame.count).collect::<Vec<_>>(), [1]);
    let full = scan.frames().iter().filter(|frame| frame.length() > 15 * 1024).count();
    assert!(full > 10, "{full} of {}", scan.frames().len());
    for bytes in [0, HEAD_BYTES + END_BYTES - 1] {
        std::fs::write(&path, vec![0; bytes]).unwrap();
        let refused = Checkpoint::open(&path, LEDGER, SeqNo::new(20_000), CHAIN).unwrap_err();
        assert!(refused.to_string().contains(&format!("{bytes} bytes are no")), "{refused}");
    }
    // Just long enough: it is told by what stands there.
    std::fs::write(&path, [0; HEAD_BYTES + END_BYTES]).unwrap();
    let refused = Checkpoint::open(&path, LEDGER, SeqNo::new(20_000), CHAIN).unwrap_err();
    assert!(!refused.to_string().contains("bytes are no"), "{refused}");
}

/// The tail is read as a whole, so its frames are as long as frames may be, and not longer.
#[test]
fn the_frames_of_the_tail_are_full() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("checkpoint-1");
    let last = SeqNo::new(9);
    let writer = CheckpointWriter::create(&path, LEDGER, last, CHAIN).unwrap();
    // Of the same length each, so that it can be told how many fit.
    let names = (0..3_000).map(|number| (format!("name {number:08}"), vec![7; 100]));
    drop(writer.finish(Epoch::new(1), &names.collect(), none()).unwrap());
    let scan = crate::journal::scan::scan_checkpoint(&path, LEDGER).unwrap();
    let lengths: Vec<u64> = scan.frames().iter().map(|frame| frame.length()).collect();
    let [full @ .., _rest, _summary] = &lengths[..] else { panic!("{lengths:?}") };
    let item = 1 + 13 + 1 + 100;
    let longest = frame::MAX_VALUE as u64;
    assert!(full.len() > 3, "{lengths:?}");
    assert!(
        full.iter().all(|length| (longest - item + 1..=longest).contains(length)),
        "{lengths:?}"
    );
}

/// Tombstones of a checkpoint come back, merged with what came and went since, over many frames.
#[test]
fn tombstones_are_merged_from_checkpoint_to_checkpoint() {
    let of =
        |number: u32| Tombstone::from_bytes([number.to_be_bytes(); 4].concat().try_into().unwrap());
    let all = |checkpoint: &Checkpoint| {
        let mut tombstones = checkpoint.tombstones();
        std::iter::from_fn(|| tombstones.next().transpose()).collect::<Result<Vec<_>, _>>().unwrap()
    };
    let dir = TempDir::new().unwrap();
    let made = |name: &str, old: Option<&Checkpoint>, changes: BTreeMap<Tombstone, bool>| {
        let path = dir.path().join(name);
        let writer = CheckpointWriter::create(&path, LEDGER, SeqNo::new(9), CHAIN).unwrap();
        writer.finish(Epoch::new(1), &metadata(), Graves::new(old, changes)).unwrap()
    };
    let evens = made("one", None, (0..20_000).map(|number| (of(2 * number), true)).collect());
    assert_eq!(all(&evens), (0..20_000).map(|number| of(2 * number)).collect::<Vec<_>>());
    // Each is 16 bytes and its part of a frame, which is as long as frames may be, and not longer.
    assert!(evens.bytes() < 20_000 * 17, "{} bytes", evens.bytes());
    let scan = crate::journal::scan::scan_checkpoint(&dir.path().join("one"), LEDGER).unwrap();
    let longest = scan.frames().iter().map(|frame| frame.length()).max().unwrap();
    assert!(
        (frame::MAX_VALUE as u64 - 15..=frame::MAX_VALUE as u64).contains(&longest),
        "{longest}"
    );
    // Before, between and behind; some that were there twice, some that were not there and go.
    let changes = (0..60_000).filter(|number| number % 3 == 0);
    let changes = changes.map(|number| (of(number), number % 6 != 0)).collect();
    let merged = made("two", Some(&evens), changes);
    let expected: Vec<Tombstone> =
        (0..60_000)
            .filter(|number| {
                if number % 3 == 0 { number % 6 != 0 } else { number % 2 == 0 && *number < 40_000 }
            })
            .map(of)
            .collect();
    assert_eq!(all(&merged), expected);
    assert_eq!(merged.summary().metadata, metadata());
}

/// Memory is asked for as many: a frame of few large entries is no frame of many small ones.
#[test]
fn lengths_are_told_by_ids_and_not_by_what_is_known_of_them() {
    const LAST: u64 = 1_000_000;
    let dir = TempDir::new().unwrap();
    let short = |number: u64| {
        let text = format!("{number:08}");
        EncodedId::from_bytes(&[&[8], text.as_bytes()].concat())
    };
    let long = |number: u64| {
        let text = format!("{number:036}");
        EncodedId::from_bytes(&[&[36], text.as_bytes()].concat())
    };
    let (short_ids, long_ids) = (9_000, 1_000);
    let mut entries: Vec<_> = (0..short_ids)
        .map(|number| {
            (short(number), TaskDetails { output: Output::Absent, ..succeeded(number, LAST) })
        })
        .collect();
    entries.extend((0..long_ids).map(|number| {
        let output = Output::Kept(vec![7; 8 * 1024]);
        (long(number), TaskDetails { output, ..succeeded(short_ids + number, LAST) })
    }));
    let lengths = made(&dir, &entries, LAST).lengths();
    let told = |length| lengths.iter().find(|(of, _)| *of == length).map_or(0, |(_, ids)| *ids);
    println!("{lengths:?} of {short_ids} and {long_ids}");
    assert!(told(37) <= 2 * long_ids as usize, "{lengths:?}");
    assert!(told(9) >= short_ids as usize / 2, "{lengths:?}");
}
