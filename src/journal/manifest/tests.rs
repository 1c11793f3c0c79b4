use super::*;
use std::path::PathBuf;

fn sample() -> Manifest {
    Manifest {
        ledger: LedgerId(*b"0123456789abcdef"),
        created_at: Timestamp::from_micros(1_732_254_737_000_123),
        shape: vec![1, 2, 3],
        segment_size: 8 << 20,
        checkpoint: Some(CheckpointRef {
            number: 3,
            last_seq: SeqNo::new(300),
            chain: Chain(0x0102_0304_0506_0708),
        }),
        logs: vec![LogRef { number: 2 }, LogRef { number: 4 }],
        next_number: 5,
    }
}

fn directory() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    (dir, path)
}

fn judged(bytes: &[u8]) -> Judged {
    let (_guard, dir) = directory();
    std::fs::write(dir.join(NAME), bytes).unwrap();
    Manifest::read(&dir).unwrap()
}

fn why_damaged(bytes: &[u8]) -> String {
    match judged(bytes) {
        Judged::Damaged(why) => why,
        other @ (Judged::Missing | Judged::Newer(_) | Judged::Older(..) | Judged::Current(_)) => {
            panic!("not damaged: {other:?}")
        }
    }
}

#[test]
fn the_bytes_are_frozen() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let golden = [
        "544c6d616e69660a",
        "0100",
        "34000000",
        "30313233343536373839616263646566",
        "fdbb6642fc79270600",
        "03010203",
        "fc00008000",
        "01",
        "03fb2c01fd0807060504030201",
        "020204",
        "05",
    ]
    .concat();
    // The body is still that of version 1.
    let bytes = frame(1, &sample().to_body()).unwrap();
    assert_eq!(hex(&bytes[..bytes.len() - 8]), golden);
    assert_eq!(hex(&bytes[bytes.len() - 8..]), "d0f919a3672b24e8");
}

#[test]
fn what_is_written_is_read() {
    let (_guard, dir) = directory();
    assert_eq!(Manifest::read(&dir).unwrap(), Judged::Missing);
    let one = Manifest { checkpoint: None, logs: vec![LogRef { number: 1 }], ..sample() };
    for manifest in [one, sample()] {
        manifest.write(&dir).unwrap();
        assert_eq!(Manifest::read(&dir).unwrap(), Judged::Current(manifest));
    }
}

#[test]
fn every_flipped_bit_is_damage() {
    let bytes = frame(FORMAT_VERSION, &sample().to_body()).unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            why_damaged(&flipped);
        }
    }
}

#[test]
fn every_cut_and_every_tail_is_damage() {
    let bytes = frame(FORMAT_VERSION, &sample().to_body()).unwrap();
    for end in 0..bytes.len() {
        why_damaged(&bytes[..end]);
    }
    why_damaged(&[bytes.as_slice(), b"\0"].concat());
    why_damaged(&vec![0; 2 * MAX_BODY]);
}

/// A length that lies under a right checksum is no accident, and no manifest either.
#[test]
fn a_wrong_length_is_damage_under_any_checksum() {
    let bytes = frame(FORMAT_VERSION, &sample().to_body()).unwrap();
    for wrong in [0, 51, 53, u32::MAX] {
        let mut bytes = bytes[..bytes.len() - CHECKSUM].to_vec();
        bytes[HEAD - 4..HEAD].copy_from_slice(&u32::to_le_bytes(wrong));
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        assert!(why_damaged(&bytes).contains("its body should have"));
    }
}

#[test]
fn a_version_counts_only_under_a_right_checksum() {
    let newer = frame(FORMAT_VERSION + 1, b"a body that nobody here can read").unwrap();
    assert_eq!(judged(&newer), Judged::Newer(FORMAT_VERSION + 1));
    let mut damaged = newer.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(why_damaged(&damaged), "its checksum is wrong");
    let older = frame(FORMAT_VERSION - 1, b"only a migration reads this").unwrap();
    assert_eq!(
        judged(&older),
        Judged::Older(FORMAT_VERSION - 1, b"only a migration reads this".to_vec())
    );
}

#[test]
fn a_manifest_that_says_what_cannot_be_is_damaged() {
    let impossible = [
        Manifest { logs: vec![], ..sample() },
        Manifest { logs: [1, 2, 3].map(|number| LogRef { number }).to_vec(), ..sample() },
        Manifest { logs: vec![LogRef { number: 2 }; 2], ..sample() },
        Manifest { logs: vec![LogRef { number: 0 }], ..sample() },
        Manifest { next_number: 4, ..sample() },
        Manifest { next_number: SeqNo::LAST + 1, ..sample() },
        Manifest { next_number: 0, ..sample() },
    ];
    for manifest in impossible {
        why_damaged(&frame(FORMAT_VERSION, &manifest.to_body()).unwrap());
    }
    let long = [sample().to_body().as_slice(), b"\0"].concat();
    assert!(why_damaged(&frame(FORMAT_VERSION, &long).unwrap()).contains("too many"));
}

#[test]
fn a_hostile_length_asks_for_no_memory() {
    let mut body = Vec::new();
    codec::encode_into(&mut body, &([0_u8; 16], 0_u64, u64::MAX));
    why_damaged(&frame(FORMAT_VERSION, &body).unwrap());
}

#[test]
fn the_longest_description_fits_and_one_longer_than_a_manifest_is_refused() {
    let (_guard, dir) = directory();
    let longest = Manifest { shape: vec![255; MAX_SHAPE_BYTES], ..sample() };
    longest.write(&dir).unwrap();
    assert_eq!(Manifest::read(&dir).unwrap(), Judged::Current(longest.clone()));
    let too_long = Manifest { shape: vec![0; MAX_BODY], ..sample() };
    assert!(matches!(too_long.write(&dir), Err(JournalError::Io { action: "write", .. })));
    assert_eq!(Manifest::read(&dir).unwrap(), Judged::Current(longest));
}

/// A kill between any two steps of a replacement.
#[test]
fn a_kill_leaves_the_old_one_or_the_new_one() {
    let (_guard, dir) = directory();
    let (old, new) = (sample(), Manifest { next_number: 6, ..sample() });
    let bytes = frame(FORMAT_VERSION, &new.to_body()).unwrap();
    old.write(&dir).unwrap();
    for written in 0..=bytes.len() {
        std::fs::write(dir.join("manifest.tmp"), &bytes[..written]).unwrap();
        assert_eq!(Manifest::read(&dir).unwrap(), Judged::Current(old.clone()));
    }
    files::publish(&dir, NAME).unwrap();
    assert_eq!(Manifest::read(&dir).unwrap(), Judged::Current(new));
}
