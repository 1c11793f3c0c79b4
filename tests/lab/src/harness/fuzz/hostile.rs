//! Bytes that say something else, under right checksums.

use super::{CHAIN_AT, FRAME, HEAD, LEDGER, LENGTH_AT};
use crate::Rng;
use crate::places::Image;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

pub(super) fn frames_of(image: &Image) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for bytes in image.values().flatten() {
        for at in memchr::memmem::find_iter(bytes, FRAME) {
            frames.extend(frame_at(bytes, at).map(|end| bytes[at..end].to_vec()));
        }
    }
    frames
}

/// Where the frame ends that begins here.
fn frame_at(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes.get(at + LENGTH_AT..at + HEAD)?;
    let end = at + HEAD + u32::from_le_bytes(length.try_into().unwrap()) as usize + 8;
    (end <= bytes.len()).then_some(end)
}

/// A few changes of the kind that decoders stumble over.
pub(super) fn mutate(bytes: &mut Vec<u8>, frames: &[Vec<u8>], rng: &mut Rng) {
    for _ in 0..=rng.below(3) {
        if bytes.is_empty() {
            return;
        }
        let at = usize::try_from(rng.below(bytes.len() as u64)).unwrap();
        match rng.below(8) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = *rng.pick(&[0, 1, 0x7f, 0x80, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff]),
            2 => bytes[at] = bytes[at].wrapping_add(1),
            3 => {
                // A length or a position, as large as can be.
                let end = (at + 1 + usize::try_from(rng.below(8)).unwrap()).min(bytes.len());
                bytes[at..end].fill(0xff);
            }
            4 => {
                let other = rng.pick(frames);
                let from = usize::try_from(rng.below(other.len() as u64)).unwrap();
                let end = (at + other.len() - from).min(bytes.len());
                bytes[at..end].copy_from_slice(&other[from..from + end - at]);
            }
            5 => bytes.insert(at, rng.next() as u8),
            6 => drop(bytes.remove(at)),
            _ => bytes.truncate(at.max(1)),
        }
    }
}

/// The smallest change, of a byte that is no text: what is still a record, but says something else.
fn nudge(bytes: &mut [u8], rng: &mut Rng) {
    let numbers: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] < 0x20).collect();
    if !numbers.is_empty() {
        let at = *rng.pick(&numbers);
        bytes[at] = if rng.coin() { bytes[at] ^ 1 } else { rng.below(0x20) as u8 };
    }
}

/// Makes length and checksum of a frame right, so that more than those two is looked at.
pub(super) fn reseal(bytes: &mut [u8]) {
    let Some(body) = bytes.len().checked_sub(HEAD + 8) else { return };
    bytes[..8].copy_from_slice(FRAME);
    bytes[8..24].copy_from_slice(&LEDGER);
    let length = u32::try_from(body).unwrap();
    bytes[LENGTH_AT..HEAD].copy_from_slice(&length.to_le_bytes());
    let (sealed, checksum) = bytes.split_at_mut(HEAD + body);
    checksum.copy_from_slice(&xxh3_64(sealed).to_le_bytes());
}

/// A ledger one of whose files says something else, under right checksums.
pub(super) fn hostile(image: &Image, frames: &[Vec<u8>], rng: &mut Rng) -> (Image, String) {
    let mut image = image.clone();
    let names: Vec<PathBuf> = image
        .iter()
        .filter(|(name, content)| {
            let name = name.to_str().unwrap();
            content.is_some()
                && (name.contains("/db") || !name.contains('/'))
                && name != "lock"
                && name != "ballast"
        })
        .map(|(name, _)| name.clone())
        .collect();
    let name = rng.pick(&names).clone();
    let chained = name.ends_with("db") && rng.coin();
    let bytes = image.get_mut(&name).unwrap().as_mut().unwrap();
    match name.to_str().unwrap() {
        "manifest" | "witness" => {
            let slot = if name.to_str() == Some("witness") && rng.coin() { 4096 } else { 0 };
            let length = if name.to_str() == Some("witness") { 56 } else { bytes.len() };
            let mut part = bytes[slot..slot + length - 8].to_vec();
            // Not the magic and the version.
            let mut rest = part.split_off(10);
            mutate(&mut rest, frames, rng);
            rest.resize(length - 18, 0);
            part.extend(rest);
            part.extend(xxh3_64(&part).to_le_bytes());
            bytes[slot..slot + length].copy_from_slice(&part);
        }
        _ => {
            for _ in 0..=rng.below(3) {
                let places: Vec<usize> = memchr::memmem::find_iter(bytes, FRAME).collect();
                if places.is_empty() {
                    break;
                }
                let at = *rng.pick(&places);
                let Some(end) = frame_at(bytes, at) else { continue };
                let mut frame = bytes[at..end].to_vec();
                // The store keeps a frame several times, and one of them that says something else would
                // be a fork of the log.
                let copies: Vec<usize> = if chained {
                    memchr::memmem::find_iter(bytes, &frame).collect()
                } else {
                    vec![at]
                };
                let (ledger, length) = (frame[8..24].to_vec(), frame.len());
                if chained {
                    // Its records alone say something else: its place in the log stays what it is.
                    let mut body = frame[HEAD..length - 8].to_vec();
                    if rng.below(4) == 0 {
                        mutate(&mut body, frames, rng);
                    } else {
                        nudge(&mut body, rng);
                    }
                    body.resize(length - 8 - HEAD, 0);
                    frame[HEAD..length - 8].copy_from_slice(&body);
                } else {
                    mutate(&mut frame, frames, rng);
                    frame.resize(length, 0);
                }
                reseal(&mut frame);
                frame[8..24].copy_from_slice(&ledger);
                let (sealed, checksum) = frame.split_at_mut(length - 8);
                checksum.copy_from_slice(&xxh3_64(sealed).to_le_bytes());
                for at in copies {
                    bytes[at..at + length].copy_from_slice(&frame);
                }
            }
            if let Some(whole) = bytes.len().checked_sub(8).filter(|_| !name.ends_with("db")) {
                let checksum = xxh3_64(&bytes[..whole]);
                bytes[whole..].copy_from_slice(&checksum.to_le_bytes());
            }
        }
    }
    if chained {
        chain_again(&mut image);
    }
    (image, format!("hostile {}, chained {chained}", name.display()))
}

/// Where a frame stands: the file, from where to where.
type Stands = (PathBuf, usize, usize);

/// Makes each frame of the logs follow the one before it again, and the witness stand at its end.
fn chain_again(image: &mut Image) {
    let le = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    // Where the frames are; the store may keep one several times. By position, and by what it was.
    let mut frames: BTreeMap<(u64, u64), Vec<Stands>> = BTreeMap::new();
    for (name, content) in image.iter().filter(|(name, _)| name.ends_with("db")) {
        let bytes = content.as_ref().unwrap();
        for at in memchr::memmem::find_iter(bytes, FRAME) {
            if let Some(end) = frame_at(bytes, at) {
                let (first, checksum) = (le(&bytes[at + 25..at + 33]), le(&bytes[end - 8..end]));
                frames.entry((first, checksum)).or_default().push((name.clone(), at, end));
            }
        }
    }
    let mut ends = BTreeMap::new();
    let mut before = None;
    for ((first, _), copies) in frames {
        let (name, at, end) = &copies[0];
        let mut frame = image[name].as_ref().unwrap()[*at..*end].to_vec();
        if let Some(before) = before {
            frame[CHAIN_AT..LENGTH_AT].copy_from_slice(&u64::to_le_bytes(before));
        }
        let (sealed, checksum) = frame.split_at_mut(end - at - 8);
        let sum = xxh3_64(sealed);
        checksum.copy_from_slice(&sum.to_le_bytes());
        before = Some(sum);
        let count = u32::from_le_bytes(frame[37..CHAIN_AT].try_into().unwrap());
        ends.insert(first + u64::from(count) - 1, sum);
        for (name, at, end) in copies {
            let bytes = image.get_mut(&name).unwrap().as_mut().unwrap();
            bytes[at..end].copy_from_slice(&frame);
        }
    }
    let witness = image.get_mut(Path::new("witness")).unwrap().as_mut().unwrap();
    for slot in [0, 4096] {
        let slot = &mut witness[slot..slot + 56];
        if let Some(chain) = ends.get(&le(&slot[32..40])) {
            slot[40..48].copy_from_slice(&chain.to_le_bytes());
            let (sealed, checksum) = slot.split_at_mut(48);
            checksum.copy_from_slice(&xxh3_64(sealed).to_le_bytes());
        }
    }
}
