use super::*;

const LEDGER: LedgerId = LedgerId(*b"0123456789abcdef");
const OTHER: LedgerId = LedgerId(*b"another ledger!!");

fn at(seq: u64) -> (SeqNo, Chain) {
    (SeqNo::new(seq), Chain(seq * 1000))
}

/// Notes `seq` and its chain value.
fn note(witness: &mut Witness, seq: u64, now: Instant) {
    let (seq, chain) = at(seq);
    witness.note(seq, chain, now).unwrap();
}

/// A directory with a witness that has noted 1, synced, 2, synced, and 3.
fn sample() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut witness = Witness::create(dir.path(), LEDGER).unwrap();
    for seq in 1..=3 {
        witness.sync().unwrap();
        note(&mut witness, seq, Instant::now());
    }
    dir
}

fn file(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join(NAME)
}

fn what_is_damaged(dir: &tempfile::TempDir) -> String {
    let opened = Witness::open(dir.path(), LEDGER).unwrap_err().to_string();
    assert_eq!(peek(dir.path(), LEDGER).unwrap_err().to_string(), opened);
    opened
}

#[test]
fn the_bytes_are_frozen() {
    let slot =
        Slot { ledger: LEDGER, counter: 7, last_seq: SeqNo::new(300), chain: Chain(0x0102_0304) };
    let bytes = slot.to_bytes();
    assert_eq!(bytes.len(), SLOT);
    assert_eq!(
        bytes[..48],
        *b"TLwitns\x010123456789abcdef\
           \x07\0\0\0\0\0\0\0\x2c\x01\0\0\0\0\0\0\x04\x03\x02\x01\0\0\0\0"
    );
    assert_eq!(bytes[48..], 0x1858_4605_76d5_03e4_u64.to_le_bytes());
    assert_eq!(Slot::from_bytes(bytes.as_slice().try_into().unwrap()), Some(slot));
}

#[test]
fn it_begins_at_the_start_in_both_slots() {
    let dir = tempfile::tempdir().unwrap();
    let witness = Witness::create(dir.path(), LEDGER).unwrap();
    assert_eq!(witness.position(), (SeqNo::ZERO, Chain::START));
    assert_eq!(glimpse(dir.path()).unwrap(), Glimpse::At(SeqNo::ZERO));
    let bytes = std::fs::read(file(&dir)).unwrap();
    assert_eq!(bytes.len(), LENGTH);
    for offset in SLOT_OFFSETS {
        let mut torn = bytes.clone();
        torn[offset..offset + SLOT].fill(0);
        std::fs::write(file(&dir), torn).unwrap();
        assert_eq!(peek(dir.path(), LEDGER).unwrap(), (SeqNo::ZERO, Chain::START));
    }
}

#[test]
fn the_last_note_is_found_synced_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let now = Instant::now();
    let mut witness = Witness::create_at(dir.path(), LEDGER, SeqNo::new(40), Chain(1)).unwrap();
    for seq in 41..60 {
        note(&mut witness, seq, now);
        assert_eq!(witness.position(), at(seq));
        assert_eq!(peek(dir.path(), LEDGER).unwrap(), at(seq));
        if seq % 3 == 0 {
            witness.sync().unwrap();
        }
        if seq % 5 == 0 {
            witness = Witness::open(dir.path(), LEDGER).unwrap();
            assert_eq!(witness.position(), at(seq));
        }
    }
}

/// Whatever becomes of the writes since the last sync, the slot that it vouched for is untouched.
#[test]
fn a_synced_slot_stays_until_the_other_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let now = Instant::now();
    let mut witness = Witness::create(dir.path(), LEDGER).unwrap();
    let mut synced = 0;
    for seq in 1..30 {
        let before = std::fs::read(file(&dir)).unwrap();
        note(&mut witness, seq, now);
        let after = std::fs::read(file(&dir)).unwrap();
        let written: Vec<_> = (0..LENGTH).filter(|&at| before[at] != after[at]).collect();
        let mut torn = after.clone();
        for at in written {
            torn[at] = !after[at];
        }
        std::fs::write(file(&dir), torn).unwrap();
        assert_eq!(peek(dir.path(), LEDGER).unwrap().0, SeqNo::new(synced));
        std::fs::write(file(&dir), after).unwrap();
        if seq % 4 == 0 {
            witness.sync().unwrap();
            synced = seq;
        }
    }
}

#[test]
fn a_torn_slot_falls_back_to_the_other_and_is_mended_by_the_next_note() {
    for (torn, left) in [(3, 2), (2, 3)] {
        let dir = sample();
        let mut bytes = std::fs::read(file(&dir)).unwrap();
        let (seq, chain) = at(torn);
        let place = SLOT_OFFSETS
            .into_iter()
            .find(|&place| {
                let slot = Slot::from_bytes(bytes[place..].first_chunk().unwrap()).unwrap();
                (slot.last_seq, slot.chain) == (seq, chain)
            })
            .unwrap();
        bytes[place + 30..place + SLOT].fill(0);
        std::fs::write(file(&dir), bytes).unwrap();
        let mut witness = Witness::open(dir.path(), LEDGER).unwrap();
        assert_eq!(witness.position(), at(left));
        note(&mut witness, 4, Instant::now());
        let slots = Slots::read(dir.path()).unwrap().unwrap();
        assert!(slots.first.is_some() && slots.second.is_some());
        assert_eq!(peek(dir.path(), LEDGER).unwrap(), at(4));
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let dir = sample();
    let bytes = std::fs::read(file(&dir)).unwrap();
    for offset in SLOT_OFFSETS {
        let slot = Slot::from_bytes(bytes[offset..].first_chunk().unwrap()).unwrap();
        let other = if slot.last_seq == SeqNo::new(3) { 2 } else { 3 };
        for place in offset..offset + SLOT {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[place] ^= 1 << bit;
                std::fs::write(file(&dir), flipped).unwrap();
                assert_eq!(peek(dir.path(), LEDGER).unwrap(), at(other));
            }
        }
    }
}

#[test]
fn no_valid_slot_is_damage() {
    let dir = sample();
    let bytes = std::fs::read(file(&dir)).unwrap();
    for cut in [0, 1, SLOT - 1] {
        std::fs::write(file(&dir), &bytes[..cut]).unwrap();
        assert!(what_is_damaged(&dir).contains("neither of its slots is valid"));
        assert_eq!(glimpse(dir.path()).unwrap(), Glimpse::Damaged);
    }
    std::fs::write(file(&dir), vec![0; LENGTH]).unwrap();
    assert!(what_is_damaged(&dir).contains("neither"));
    std::fs::write(file(&dir), &bytes[..SLOT]).unwrap();
    peek(dir.path(), LEDGER).unwrap();
}

#[test]
fn a_slot_of_another_version_is_no_slot_under_any_checksum() {
    let slot = Slot { ledger: LEDGER, counter: 1, last_seq: SeqNo::ZERO, chain: Chain::START };
    let mut bytes = slot.to_bytes()[..SLOT - 8].to_vec();
    bytes[7] = 2;
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    assert_eq!(Slot::from_bytes(bytes.as_slice().try_into().unwrap()), None);
}

#[test]
fn a_missing_witness_is_damage_and_a_glimpse_tells() {
    let dir = tempfile::tempdir().unwrap();
    assert!(what_is_damaged(&dir).contains("missing"));
    assert_eq!(glimpse(dir.path()).unwrap(), Glimpse::Missing);
    assert_eq!(glimpse(sample().path()).unwrap(), Glimpse::At(SeqNo::new(3)));
}

#[test]
fn a_slot_of_another_ledger_is_damage_even_beside_a_right_one() {
    let dir = sample();
    assert!(peek(dir.path(), OTHER).unwrap_err().to_string().contains("another ledger"));
    let foreign = Slot { ledger: OTHER, counter: 1, last_seq: SeqNo::ZERO, chain: Chain::START };
    for place in [Place::First, Place::Second] {
        let dir = sample();
        let opened = OpenOptions::new().write(true).open(file(&dir)).unwrap();
        opened.write_all_at(&foreign.to_bytes(), place.offset()).unwrap();
        assert!(what_is_damaged(&dir).contains("another ledger"));
        assert_eq!(glimpse(dir.path()).unwrap(), Glimpse::Damaged);
    }
}

#[test]
fn equal_counters_are_damage() {
    let dir = sample();
    let bytes = std::fs::read(file(&dir)).unwrap();
    let twice = [&bytes[..4096], &bytes[..4096]].concat();
    std::fs::write(file(&dir), twice).unwrap();
    assert!(what_is_damaged(&dir).contains("same counter"));
}

#[test]
fn a_sync_is_due_a_second_after_the_last_note_and_five_after_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let second = |seconds: f64| start + Duration::from_secs_f64(seconds);
    let mut witness = Witness::create(dir.path(), LEDGER).unwrap();
    assert_eq!(witness.due(start), None);
    note(&mut witness, 1, start);
    assert_eq!(witness.due(start), Some(IDLE));
    assert_eq!(witness.due(second(0.75)), Some(Duration::from_millis(250)));
    assert_eq!(witness.due(second(1.0)), Some(Duration::ZERO));
    assert_eq!(witness.due(second(100.0)), Some(Duration::ZERO));
    for half in 1..=9 {
        note(&mut witness, half + 1, second(0.5 * half as f64));
    }
    assert_eq!(witness.due(second(4.5)), Some(Duration::from_millis(500)));
    assert_eq!(witness.due(second(5.0)), Some(Duration::ZERO));
    witness.sync().unwrap();
    assert_eq!(witness.due(second(5.0)), None);
    note(&mut witness, 11, second(6.0));
    assert_eq!(witness.due(second(6.0)), Some(IDLE));
}

/// One with a right checksum would make whoever counts on from it overflow.
#[test]
fn a_slot_beyond_all_numbers_is_no_slot_under_any_checksum() {
    let slot = Slot { ledger: LEDGER, counter: 7, last_seq: SeqNo::new(300), chain: Chain(1) };
    let read = |slot: Slot| Slot::from_bytes(slot.to_bytes().as_slice().try_into().unwrap());
    for last in [SeqNo::LAST + 1, u64::MAX] {
        assert_eq!(read(Slot { counter: last, ..slot }), None);
        assert_eq!(read(Slot { last_seq: SeqNo::new(last), ..slot }), None);
    }
    let last = Slot { counter: SeqNo::LAST, last_seq: SeqNo::new(SeqNo::LAST), ..slot };
    assert_eq!(read(last), Some(last));
}
