//! Hostile bytes: what is written in the files is changed, and the checksums are made right again.
//!
//! No decoder panics, hangs, or asks for more memory than its bound, whatever the bytes say: frames
//! of records, descriptions of id types and printed ids by themselves, and whole ledgers (manifest,
//! witness, logs, checkpoints) looked into, verified, opened, and opened with the loss accepted.
//! What once was found stays in `corpus/` and is tried first.

use super::{Harness, broken, damaged};
use crate::places::{self, Image, builder};
use crate::{MEMORY, Rng, Session};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use taskledger::dump::Inspection;
use taskledger::internals::{self, Sabotage};
use taskledger::{AcceptLoss, ByteId, JournalError, OpenError, SeqNo};
use xxhash_rust::xxh3::xxh3_64;

pub(super) const HARNESS: Harness = Harness {
    row: 13,
    name: "fuzz",
    unit: "inputs",
    ci: 60_000,
    full: 15_000_000,
    run,
    controls: &[broken(Sabotage::TrustLength, 60000, &["bytes asked for"])],
};

/// More than any decoder, and a store with its segments, asks for.
const MEMORY_BOUND: usize = 512 << 20;

const FRAME: &[u8] = b"TLframe\x01";
const LEDGER: [u8; 16] = *b"the ledger's id.";
/// Where a frame says how long its body is, and where that begins.
const LENGTH_AT: usize = 49;
const HEAD: usize = 53;

/// Inputs of decoders alone for each whole ledger.
const PER_LEDGER: u64 = 400;

fn run(session: &mut Session) {
    for path in corpus() {
        let bytes = std::fs::read(&path).unwrap();
        tried(session, &path.display().to_string(), || decode(&bytes));
    }
    let samples = damaged::samples();
    let frames: Vec<Vec<u8>> = samples.iter().flat_map(|sample| frames_of(&sample.image)).collect();
    let shapes = [
        internals::shape_of::<String>(),
        internals::shape_of::<(u64, Option<String>)>(),
        internals::shape_of::<Vec<(i8, [u8; 3])>>(),
        internals::shape_of::<ByteId>(),
    ];
    while session.goes_on() {
        for _ in 0..PER_LEDGER {
            if !session.goes_on() {
                return;
            }
            let mut bytes = session.rng.pick(&frames).clone();
            bytes[8..24].copy_from_slice(&LEDGER);
            mutate(&mut bytes, &frames, &mut session.rng);
            if session.rng.below(16) > 0 {
                reseal(&mut bytes);
            }
            let mut shape = session.rng.pick(&shapes).clone();
            if session.rng.coin() {
                mutate(&mut shape, &frames, &mut session.rng);
            }
            let id: Vec<u8> =
                (0..session.rng.below(40)).map(|_| session.rng.next() as u8).collect();
            let input = Input { frame: bytes, shape, id };
            let hex = || input.frame.escape_ascii().to_string();
            let before = session.report.violations.len();
            tried(session, "a decoder", || decode(&input.frame).and_then(|()| input.print()));
            if session.report.violations.len() > before {
                keep(&input.frame);
                session.violated(hex());
            }
        }
        let sample = &samples[usize::try_from(session.rng.below(3)).unwrap()];
        let (image, what) = hostile(&sample.image, &frames, &mut session.rng);
        tried(session, &what, || places::run(whole(&image)));
    }
}

/// One input: no panic, and no more memory than the bound.
fn tried(
    session: &mut Session,
    what: &str,
    work: impl FnOnce() -> Result<(), String> + std::panic::UnwindSafe,
) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let outcome = catch_unwind(work)
        .unwrap_or_else(|panic| Err(format!("a panic: {}", crate::session::text_of(&*panic))));
    let asked = MEMORY.peak_usage().saturating_sub(before);
    let outcome = outcome.and_then(|()| {
        if asked > MEMORY_BOUND { Err(format!("{asked} bytes asked for")) } else { Ok(()) }
    });
    session.tried(outcome.map_err(|wrong| format!("{what}: {wrong}")));
}

struct Input {
    frame: Vec<u8>,
    shape: Vec<u8>,
    id: Vec<u8>,
}

fn decode(frame: &[u8]) -> Result<(), String> {
    // Right or refused, both are fine.
    drop(internals::try_frame(LEDGER, frame));
    drop(String::from_utf8_lossy(frame).parse::<ByteId>());
    Ok(())
}

impl Input {
    /// What is printed of an id is read back as it, whatever its description says.
    fn print(&self) -> Result<(), String> {
        match internals::try_shape(&self.shape, &self.id) {
            Err(wrong) if wrong.starts_with("lost in print") => Err(wrong),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn frames_of(image: &Image) -> Vec<Vec<u8>> {
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
fn mutate(bytes: &mut Vec<u8>, frames: &[Vec<u8>], rng: &mut Rng) {
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

/// Makes length and checksum of a frame right, so that more than those two is looked at.
fn reseal(bytes: &mut [u8]) {
    let Some(body) = bytes.len().checked_sub(HEAD + 8) else { return };
    bytes[..8].copy_from_slice(FRAME);
    bytes[8..24].copy_from_slice(&LEDGER);
    let length = u32::try_from(body).unwrap();
    bytes[LENGTH_AT..HEAD].copy_from_slice(&length.to_le_bytes());
    let (sealed, checksum) = bytes.split_at_mut(HEAD + body);
    checksum.copy_from_slice(&xxh3_64(sealed).to_le_bytes());
}

/// A ledger one of whose files says something else, under right checksums.
fn hostile(image: &Image, frames: &[Vec<u8>], rng: &mut Rng) -> (Image, String) {
    let mut image = image.clone();
    let names: Vec<PathBuf> = image
        .iter()
        .filter(|(name, content)| {
            let name = name.to_str().unwrap();
            content.is_some() && (name.contains("/db") || !name.contains('/')) && name != "lock"
        })
        .map(|(name, _)| name.clone())
        .collect();
    let name = rng.pick(&names).clone();
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
                let (ledger, length) = (frame[8..24].to_vec(), frame.len());
                mutate(&mut frame, frames, rng);
                frame.resize(length, 0);
                reseal(&mut frame);
                frame[8..24].copy_from_slice(&ledger);
                let (sealed, checksum) = frame.split_at_mut(length - 8);
                checksum.copy_from_slice(&xxh3_64(sealed).to_le_bytes());
                bytes[at..end].copy_from_slice(&frame);
            }
            if let Some(whole) = bytes.len().checked_sub(8).filter(|_| !name.ends_with("db")) {
                let checksum = xxh3_64(&bytes[..whole]);
                bytes[whole..].copy_from_slice(&checksum.to_le_bytes());
            }
        }
    }
    (image, format!("hostile {}", name.display()))
}

async fn whole(image: &Image) -> Result<(), String> {
    let top = places::scratch();
    let path = top.path().join("ledger");
    places::lay_out(image, &path);
    if let Ok(inspection) = Inspection::open(&path) {
        drop(inspection.verify());
        inspection.tasks().take(10_000).for_each(drop);
        inspection.records(SeqNo::ZERO).take(10_000).for_each(drop);
        drop(inspection.stats());
    }
    let panicked = |error: &OpenError| {
        matches!(error, OpenError::Journal(JournalError::Panicked(_)) | OpenError::Stuck { .. })
    };
    for accept in [AcceptLoss::No, AcceptLoss::Yes] {
        match places::open(builder().accept_loss(accept), &path).await {
            Ok(ledger) => {
                ledger.all_tasks().iter().take(10_000).for_each(drop);
                drop(ledger.record("id-0001").await);
                drop(ledger.checkpoint().await);
                drop(ledger.close().await);
            }
            Err(error) if panicked(&error) => return Err(format!("{error:?}")),
            Err(_) => {}
        }
    }
    Ok(())
}

fn corpus_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn corpus() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(corpus_dir()).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// What has been found is tried again by every later run.
fn keep(bytes: &[u8]) {
    if crate::is_sabotaged() {
        return;
    }
    std::fs::create_dir_all(corpus_dir()).unwrap();
    std::fs::write(corpus_dir().join(format!("{:016x}", xxh3_64(bytes))), bytes).unwrap();
}
