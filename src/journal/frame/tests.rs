use super::*;
use crate::journal::arbitrary;
use crate::journal::{LedgerEvent, Record};
use crate::state::{Attempt, Epoch, Event, Failure, Output, SuccessBy};
use proptest::prelude::*;

const LEDGER: LedgerId = LedgerId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

fn task(seq: u64, prev: u64, event: Event) -> Record {
    let entry = Entry::Task { id: EncodedId::from_bytes(b"\x02ab"), prev: SeqNo::new(prev), event };
    Record { seq: SeqNo::new(seq), at: Timestamp::from_micros(1_000 + seq), entry }
}

fn opened() -> Record {
    Record {
        seq: SeqNo::new(1),
        at: Timestamp::from_micros(1_000),
        entry: Entry::Ledger(LedgerEvent::EpochOpened { epoch: Epoch::new(1) }),
    }
}

fn output_of(seq: u64, size: usize) -> Record {
    let output = Output::Kept(vec![7; size]);
    task(seq, 0, Event::Succeeded { by: SuccessBy::Mark, output })
}

fn encoded(records: &[Record]) -> Vec<Frame> {
    encode_records(LEDGER, Chain::START, records).expect("small records").0
}

/// Reads frames back as a log does: dense, linked, nothing left over.
fn decoded(frames: &[Frame], mut chain: Chain) -> Vec<Record> {
    let mut records = Vec::new();
    for frame in frames {
        assert!(frame.bytes.len() <= MAX_VALUE, "a value of the store");
        let (head, body) = parse(LEDGER, &frame.bytes).expect("a frame just made");
        assert_eq!((head.first, head.chain), (frame.first.get(), chain), "dense and linked");
        assert_eq!(head.lead as usize, records.len(), "one batch");
        assert_eq!(head.length, frame.bytes.len(), "the whole frame");
        chain = head.checksum;
        records.extend(decode_records(&head, body).expect("records just made"));
    }
    records
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The example of the module's head. Whatever changes it breaks every ledger that exists.
#[test]
fn a_frame_has_its_golden_bytes() {
    let frames = encoded(&[opened()]);
    assert_eq!(
        hex(&frames[0].bytes),
        "544c6672616d6501000102030405060708090a0b0c0d0e0f01010000000000000000000000\
         01000000000000000000000007000000fbe80300010001b2b110ee52a174b7"
    );
}

#[test]
fn a_frame_of_two_steps_of_an_id_has_its_golden_bytes() {
    let started = Event::Started {
        attempt: Attempt::new(1),
        epoch: Epoch::new(3),
        since: SeqNo::ZERO,
        fingerprint: None,
        parent: None,
        crashed_before: false,
    };
    let by = SuccessBy::Attempt;
    let succeeded = Event::Succeeded { by, output: Output::Kept(vec![0xc0]) };
    let records = [task(2, 0, started), task(3, 2, succeeded)];
    let (frames, chain) = encode_records(LEDGER, Chain(0x1122), &records).expect("small records");
    let expected = "544c6672616d6501000102030405060708090a0b0c0d0e0f010200000000000000\
         0000000002000000221100000000000019000000fbea030000030261620001010302000302\
         61620102000101c0f1c411d2c2240d95";
    assert_eq!(hex(&frames[0].bytes), expected);
    let (head, _) = parse(LEDGER, &frames[0].bytes).expect("a frame just made");
    assert_eq!(head.checksum, chain);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_records_come_back(records in arbitrary::records(0..60), chain: u64) {
        let (frames, end) = encode_records(LEDGER, Chain(chain), &records).expect("within limits");
        prop_assert_eq!(decoded(&frames, Chain(chain)), records);
        let last = frames.last().map(|frame| parse(LEDGER, &frame.bytes).expect("valid").0);
        prop_assert_eq!(last.map_or(Chain(chain), |head| head.checksum), end);
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(parse(LEDGER, &bytes).is_err());
        for (to, from) in bytes.iter_mut().zip(MAGIC) {
            *to = from;
        }
        prop_assert!(parse(LEDGER, &bytes).is_err());
    }

    #[test]
    fn any_body_under_a_good_checksum_is_judged_without_a_panic(
        body in prop::collection::vec(any::<u8>(), 1..200),
        count in 1_u32..4,
    ) {
        let count = count.min(body.len() as u32);
        let start = FrameStart { kind: Kind::Records, first: 9, lead: 0, count, chain: Chain(1) };
        let mut bytes = Vec::new();
        seal(&mut bytes, LEDGER, &start, &body).expect("a small body");
        let (head, body) = parse(LEDGER, &bytes).expect("sealed just now");
        let _judged = decode_records(&head, body);
    }
}

#[test]
fn every_truncation_is_refused() {
    let failed = Event::Failed { failure: Failure::Error("no".into()) };
    for records in [vec![opened()], vec![task(2, 1, failed), output_of(3, 100)]] {
        let whole = encoded(&records).remove(0).bytes;
        for length in 0..whole.len() {
            let cut = parse(LEDGER, &whole[..length]).expect_err("a part is no frame");
            let needed = if length < HEAD { HEAD + TAIL } else { whole.len() };
            assert_eq!(cut, FrameError::Truncated { needed }, "at {length}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert_eq!(parse(LEDGER, &longer).expect("more may follow").0.length, whole.len());
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let failed = Event::Failed { failure: Failure::Error("no".into()) };
    for records in [vec![opened()], vec![task(2, 1, failed), output_of(3, 100)]] {
        let whole = encoded(&records).remove(0).bytes;
        for at in 0..whole.len() {
            for flip in (0..8).map(|bit| 1 << bit).chain([0xff]) {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                assert!(parse(LEDGER, &bytes).is_err(), "byte {at} with {flip:02x}");
            }
        }
    }
}

/// A frame of any fields with a good checksum: damage cannot make these, malice can.
fn forged(first: u64, count: u32, length: u32, body: &[u8]) -> Vec<u8> {
    let start = FrameStart { kind: Kind::Records, first: 1, lead: 0, count: 1, chain: Chain(0) };
    let mut bytes = Vec::new();
    seal(&mut bytes, LEDGER, &start, body).expect("a small body");
    bytes.truncate(bytes.len() - TAIL);
    bytes[25..33].copy_from_slice(&first.to_le_bytes());
    bytes[37..41].copy_from_slice(&count.to_le_bytes());
    bytes[49..53].copy_from_slice(&length.to_le_bytes());
    let checksum = xxh3_64(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

#[test]
fn hostile_numbers_are_refused() {
    let body = [0; 40];
    assert!(parse(LEDGER, &forged(1, 1, 40, &body)).is_ok(), "the forgery is good");
    let cases = [
        (forged(1, 0, 40, &body), FrameError::Count(0)),
        (forged(1, 41, 40, &body), FrameError::Count(41)),
        (forged(1, u32::MAX, 40, &body), FrameError::Count(u32::MAX)),
        (forged(u64::MAX, 1, 40, &body), FrameError::Position { first: u64::MAX }),
        (forged(SeqNo::LAST, 1, 40, &body), FrameError::Position { first: SeqNo::LAST }),
        (forged(1, 1, 41, &body), FrameError::Truncated { needed: HEAD + 41 + TAIL }),
        (
            forged(1, 1, u32::MAX, &body),
            FrameError::TooLong((HEAD + TAIL) as u64 + u64::from(u32::MAX)),
        ),
        (forged(1, 1, 39, &body), FrameError::Checksum),
    ];
    for (bytes, expected) in cases {
        assert_eq!(parse(LEDGER, &bytes).expect_err("hostile"), expected);
    }
}

/// It was written, acknowledged, and passed over when it was read.
#[test]
fn what_would_not_be_read_back_is_not_written() {
    let at = |seq| Record { seq: SeqNo::new(seq), ..opened() };
    let last = SeqNo::LAST - 1;
    let (frames, _) = encode_records(LEDGER, Chain(0), &[at(last)]).expect("the last one");
    parse(LEDGER, &frames[0].bytes).expect("it is read back");
    for first in [SeqNo::LAST, SeqNo::LAST + 1, u64::MAX] {
        let refused = encode_records(LEDGER, Chain(0), &[at(first)]).expect_err("beyond");
        assert_eq!(refused, FrameError::Position { first });
    }
    let refused = encode_records(LEDGER, Chain(0), &[at(last), at(last + 1)]).expect_err("half");
    assert_eq!(refused, FrameError::Position { first: last });
}

/// A length inside the body that claims up to `u64::MAX` bytes is answered at once: everything
/// borrows from the body, so there is nothing to allocate.
#[test]
fn hostile_lengths_within_the_body_are_refused() {
    for claim in [30_u64, 1 << 16, 1 << 31, 1 << 40, u64::MAX] {
        for front in [&[0, 0, 0][..], &[0, 0, 0, 0, 0, 2, 0, 1], &[0, 0, 1, 1]] {
            let mut body = front.to_vec();
            body.push(0xfd);
            body.extend_from_slice(&claim.to_le_bytes());
            body.extend_from_slice(&[0; 20]);
            let bytes = forged(1, 1, body.len() as u32, &body);
            let (head, body) = parse(LEDGER, &bytes).expect("a good checksum");
            let error = decode_records(&head, body).expect_err("hostile");
            assert!(matches!(error, FrameError::Body(_)), "{claim}: {error}");
        }
    }
}

#[test]
fn a_body_with_too_much_or_a_false_prev_is_refused() {
    let good = [0, 0, 1, 0, 7];
    let cases: [(&[u8], bool); 5] = [
        (&good, true),
        (&[0, 0, 1, 0, 7, 0], false),
        (&[0, 0, 0, 0, 4, 0], true),
        (&[0, 0, 0, 0, 5, 0], false),
        (&[0, 0, 0, 0, 9, 0], false),
    ];
    for (body, expected) in cases {
        let bytes = forged(5, 1, body.len() as u32, body);
        let (head, body) = parse(LEDGER, &bytes).expect("a good checksum");
        assert_eq!(decode_records(&head, body).is_ok(), expected, "{body:02x?}");
    }
    let bytes = forged(1, 2, 10, &[0, 0, 1, 0, 7, 0, 1, 0, 8, 0xee]);
    let (head, body) = parse(LEDGER, &bytes).expect("a good checksum");
    assert!(decode_records(&head, body).is_err(), "one byte too many");
}

#[test]
fn frames_of_others_are_told_apart() {
    let whole = encoded(&[opened()]).remove(0).bytes;
    let other = LedgerId([9; 16]);
    assert_eq!(parse(other, &whole), Err(FrameError::OtherLedger(LEDGER)));
    let mut newer = whole.clone();
    newer[7] = 2;
    assert_eq!(parse(LEDGER, &newer), Err(FrameError::Version(2)));
    let mut nothing = whole;
    nothing[0] = b'X';
    assert_eq!(parse(LEDGER, &nothing), Err(FrameError::NotAFrame));
}

#[test]
fn records_of_the_largest_size_fit_and_larger_ones_are_refused() {
    let spare = 16;
    let records = [output_of(1, MAX_RECORD - spare), output_of(2, MAX_RECORD - spare)];
    let frames = encoded(&records);
    assert_eq!(frames.len(), 2, "each in a frame of its own");
    assert_eq!(decoded(&frames, Chain::START), records);
    let larger = encode_records(LEDGER, Chain::START, &[output_of(1, MAX_RECORD)]);
    assert!(matches!(larger, Err(FrameError::TooLong(_))), "{larger:?}");
}

/// A record that would pass the limit of a value by one byte goes to the next frame whole.
#[test]
fn a_batch_is_cut_at_the_border_of_a_record() {
    for size in (MAX_VALUE - 40_000 - 200)..(MAX_VALUE - 40_000) {
        let records = [output_of(1, 40_000), output_of(2, size), output_of(3, 10)];
        let frames = encoded(&records);
        assert_eq!(decoded(&frames, Chain::START), records, "{size}");
        assert_eq!(frames.len(), if size <= MAX_VALUE - 40_000 - 111 { 1 } else { 2 }, "{size}");
    }
}

#[test]
fn a_hundred_thousand_tiny_records_are_split_and_come_back() {
    let records: Vec<_> =
        (1..=100_000).map(|seq| task(seq, seq - 1, Event::RevokeStarted)).collect();
    let frames = encoded(&records);
    let bytes: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
    assert_eq!(frames.len(), bytes.div_ceil(MAX_VALUE), "frames are full");
    assert_eq!(decoded(&frames, Chain::START), records);
}

/// They are part of the format: what an older version wrote must be read, and a value in the store
/// must stay below what it would put elsewhere.
#[test]
fn the_limits_are_what_they_were() {
    assert_eq!((MAX_VALUE, MAX_RECORD, MAX_FRAME), (65_536, 49_152, 131_072));
    assert_eq!((HEAD, TAIL, MAX_BODY), (HEAD, TAIL, 131_072 - HEAD - TAIL));
}

/// The longest frame is one, however it is read, and a longer one is not written.
#[test]
fn the_longest_frame_is_one() {
    let start =
        FrameStart { kind: Kind::Entries, first: 0, lead: 0, count: 1, chain: Chain::START };
    let mut bytes = Vec::new();
    let body = vec![7; MAX_BODY];
    seal(&mut bytes, LEDGER, &start, &body).unwrap();
    assert_eq!(bytes.len(), MAX_FRAME);
    assert_eq!(parse(LEDGER, &bytes).unwrap().1, body);
    let refused = seal(&mut bytes, LEDGER, &start, &vec![7; MAX_BODY + 1]);
    assert!(matches!(refused, Err(FrameError::TooLong(_))), "{refused:?}");
    assert_eq!(bytes.len(), MAX_FRAME, "nothing was added");
}
