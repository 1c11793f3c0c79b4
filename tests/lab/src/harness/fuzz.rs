//! Hostile bytes: what is written in the files is changed, and the checksums are made right again.
//!
//! No decoder panics, hangs, or asks for more memory than its bound, whatever the bytes say: frames
//! of records, descriptions of id types and printed ids by themselves, and whole ledgers (manifest,
//! witness, logs, checkpoints) looked into, verified, opened, and opened with the loss accepted. In half
//! of the hostile logs the frames are chained again, and the witness with them, so that they are
//! believed as far as the replay of their records. What once was found, of whatever kind, stays in
//! `corpus/` and is tried first.

mod hostile;

use super::{Harness, broken, damaged};
use crate::places::{self, Image, builder};
use crate::{MEMORY, Session};
use hostile::{frames_of, hostile, mutate, reseal};
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use taskledger::dump::Inspection;
use taskledger::internals::{self, Sabotage};
use taskledger::{AcceptLoss, ByteId, OpenError, SeqNo};
use xxhash_rust::xxh3::xxh3_64;

pub(super) const HARNESS: Harness = Harness {
    name: "fuzz",
    unit: "inputs",
    ci: 20_000,
    full: 5_000_000,
    run,
    controls: &[
        broken(Sabotage::TrustLength, 10_000, &["bytes asked for"]),
        broken(Sabotage::TrustRecord, 20_000, &["was believed"]),
    ],
};

/// More than a store with its segments asks for.
const LEDGER_BOUND: usize = 512 << 20;
/// More than a decoder of one frame, or of one id, does.
const DECODER_BOUND: usize = 4 << 20;

const FRAME: &[u8] = b"TLframe\x01";
const LEDGER: [u8; 16] = *b"the ledger's id.";
/// Where a frame names the one before it, where it says how long its body is, and where that begins.
const CHAIN_AT: usize = 41;
const LENGTH_AT: usize = 49;
const HEAD: usize = 53;

/// Why a replay refuses what everything before it has believed.
const IN_REPLAY: [&str; 3] = [" cannot follow ", " follows where ", " opens a tombstone "];

const REFUSED_IN_REPLAY: &str = "whole ledgers refused in their replay";

/// Of so many inputs some come so far.
const ENOUGH: u64 = 20_000;

/// Inputs of decoders alone for each whole ledger.
const PER_LEDGER: u64 = 39;

fn run(session: &mut Session) {
    // What it asks for can be told only where nothing else does.
    if !session.alone {
        return session.apart(&HARNESS);
    }
    for path in corpus() {
        let bytes = std::fs::read(&path).unwrap();
        let what = path.display().to_string();
        match path.extension().and_then(|kind| kind.to_str()) {
            Some("shape") => {
                let input = Input::from_bytes(&bytes);
                tried(session, &what, DECODER_BOUND, || input.print());
            }
            Some("ledger") => {
                let image = image_from(&bytes);
                tried(session, &what, LEDGER_BOUND, || places::run(whole(&image)).map(drop));
            }
            _ => drop(tried(session, &what, DECODER_BOUND, || decode(&bytes))),
        }
    }
    let samples = damaged::closed_samples();
    let frames: Vec<Vec<u8>> = samples.iter().flat_map(|sample| frames_of(&sample.image)).collect();
    let shapes = [
        internals::shape_of::<String>(),
        internals::shape_of::<(u64, Option<String>)>(),
        internals::shape_of::<Vec<(i8, [u8; 3])>>(),
        internals::shape_of::<ByteId>(),
    ];
    ledgers_and_decoders(session, &samples, &frames, &shapes);
    let counted = session.report.counts.get(REFUSED_IN_REPLAY).copied().unwrap_or_default();
    if counted == 0 && session.report.tried >= ENOUGH {
        session.violated(format!("none of the {REFUSED_IN_REPLAY}: nothing hostile comes so far"));
    }
}

/// Each of them a ledger now and then.
fn ledgers_and_decoders(
    session: &mut Session,
    samples: &[damaged::Sample],
    frames: &[Vec<u8>],
    shapes: &[Vec<u8>],
) {
    while session.goes_on() {
        for _ in 0..PER_LEDGER {
            if !session.goes_on() {
                return;
            }
            let mut bytes = session.rng.pick(frames).clone();
            bytes[8..24].copy_from_slice(&LEDGER);
            mutate(&mut bytes, frames, &mut session.rng);
            if session.rng.below(16) > 0 {
                reseal(&mut bytes);
            }
            let mut shape = session.rng.pick(shapes).clone();
            if session.rng.coin() {
                mutate(&mut shape, frames, &mut session.rng);
            }
            let id: Vec<u8> =
                (0..session.rng.below(40)).map(|_| session.rng.next() as u8).collect();
            let input = Input { frame: bytes, shape, id };
            if !tried(session, "a decoder", DECODER_BOUND, || decode(&input.frame)) {
                keep(&input.frame, "frame");
                session.violated(input.frame.escape_ascii().to_string());
            }
            if !checked(session, "a printed id", DECODER_BOUND, || input.print()) {
                keep(&input.to_bytes(), "shape");
            }
        }
        if !session.goes_on() {
            return;
        }
        let sample = &samples[usize::try_from(session.rng.below(3)).unwrap()];
        let (image, what) = hostile(&sample.image, frames, &mut session.rng);
        let mut came = Came::Refused;
        let held = tried(session, &what, LEDGER_BOUND, || {
            came = places::run(whole(&image))?;
            Ok(())
        });
        let came = match came {
            Came::Opened => "whole ledgers opened",
            Came::RefusedInReplay => REFUSED_IN_REPLAY,
            Came::Refused => "whole ledgers refused before",
        };
        session.count(came, 1);
        if !held {
            keep(&image_bytes(&image), "ledger");
        }
    }
}

/// One input: no panic, and no more memory than the bound.
fn tried(
    session: &mut Session,
    what: &str,
    bound: usize,
    work: impl FnOnce() -> Result<(), String>,
) -> bool {
    session.report.tried += 1;
    checked(session, what, bound, work)
}

/// The same, of an input that has been counted.
fn checked(
    session: &mut Session,
    what: &str,
    bound: usize,
    work: impl FnOnce() -> Result<(), String>,
) -> bool {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let outcome = catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(format!("a panic: {}", crate::session::text_of(&*panic))));
    let asked = MEMORY.peak_usage().saturating_sub(before);
    let outcome = outcome.and_then(|()| {
        if asked > bound { Err(format!("{asked} bytes asked for")) } else { Ok(()) }
    });
    outcome.map_err(|wrong| session.violated(format!("{what}: {wrong}"))).is_ok()
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
    /// Only what is printed.
    fn to_bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.shape.len()).unwrap().to_le_bytes();
        [&length[..], &self.shape, &self.id].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let (length, rest) = bytes.split_first_chunk().unwrap();
        let (shape, id) = rest.split_at(u32::from_le_bytes(*length) as usize);
        Self { frame: Vec::new(), shape: shape.to_owned(), id: id.to_owned() }
    }

    /// What is printed of an id is read back as it, whatever its description says.
    fn print(&self) -> Result<(), String> {
        match internals::try_shape(&self.shape, &self.id) {
            Err(wrong) if wrong.starts_with("lost in print") => Err(wrong),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// What a hostile ledger came to, if nothing is wrong.
#[derive(Clone, Copy, Debug)]
enum Came {
    /// Opened as it is.
    Opened,
    /// Refused for what a record says: all before that was believed.
    RefusedInReplay,
    Refused,
}

async fn whole(image: &Image) -> Result<Came, String> {
    let top = places::scratch();
    let path = top.path().join("ledger");
    places::lay_out(image, &path);
    if let Ok(inspection) = Inspection::open(&path) {
        no_panic("verify", &inspection.verify())?;
        for task in inspection.tasks().take(10_000) {
            no_panic("a task", &task)?;
        }
        for record in inspection.records(SeqNo::ZERO).take(10_000) {
            no_panic("a record", &record)?;
        }
        drop(inspection.stats());
    }
    let mut came = Came::Refused;
    for accept in [AcceptLoss::No, AcceptLoss::Yes] {
        let opened = places::open(builder().accept_loss(accept), &path).await;
        no_panic("the open", &opened)?;
        match opened {
            Ok(ledger) => {
                if accept == AcceptLoss::No {
                    came = Came::Opened;
                }
                ledger.all_tasks().iter().take(10_000).for_each(drop);
                // Whatever the writer's thread comes upon.
                no_panic("a record", &ledger.record("id-0001").await)?;
                no_panic("an output", &ledger.output("id-0002").await)?;
                no_panic("a checkpoint", &ledger.checkpoint().await)?;
                no_panic("a record", &ledger.record("id-0003").await)?;
                no_panic::<(), _>("the health", &Err(ledger.health()))?;
                no_panic("the close", &ledger.close().await)?;
            }
            Err(OpenError::Damaged(damage))
                if IN_REPLAY.iter().any(|why| damage.what.contains(why)) =>
            {
                came = if accept == AcceptLoss::No { Came::RefusedInReplay } else { came };
            }
            Err(_) => {}
        }
    }
    Ok(came)
}

/// A panic that somebody has caught, or a thread that does not come back, is one all the same. What a
/// ledger holds may well say that a task has panicked.
fn no_panic<T, E: Debug>(what: &str, told: &Result<T, E>) -> Result<(), String> {
    let Err(error) = told else { return Ok(()) };
    let text = format!("{error:?}");
    let wrong = text.contains("Panicked(") || text.contains("Stuck {");
    if wrong { Err(format!("{what}: {text}")) } else { Ok(()) }
}

/// A ledger in one file: of each of its files the name, the length, and what is not zeros at its end.
fn image_bytes(image: &Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    let number = |bytes: &mut Vec<u8>, n: u64| bytes.extend(n.to_le_bytes());
    for (name, content) in image {
        let name = name.to_str().unwrap();
        number(&mut bytes, name.len() as u64);
        bytes.extend(name.as_bytes());
        number(&mut bytes, content.as_ref().map_or(u64::MAX, |content| content.len() as u64));
        let used = content.as_deref().map_or(0, places::used);
        number(&mut bytes, used);
        bytes.extend(&content.as_deref().unwrap_or_default()[..used as usize]);
    }
    bytes
}

fn image_from(mut bytes: &[u8]) -> Image {
    let number = |bytes: &mut &[u8]| {
        let (n, rest) = bytes.split_first_chunk().unwrap();
        *bytes = rest;
        u64::from_le_bytes(*n)
    };
    let part = |bytes: &mut &[u8], length: u64| {
        let (part, rest) = bytes.split_at(length as usize);
        *bytes = rest;
        part.to_vec()
    };
    let mut image = Image::new();
    while !bytes.is_empty() {
        let length = number(&mut bytes);
        let name = String::from_utf8(part(&mut bytes, length)).unwrap();
        let (length, used) = (number(&mut bytes), number(&mut bytes));
        let mut content = part(&mut bytes, used);
        let content = (length != u64::MAX).then(|| {
            content.resize(length as usize, 0);
            content
        });
        image.insert(PathBuf::from(name), content);
    }
    image
}

fn corpus_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn corpus() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(corpus_dir()).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// What has been found is tried again by every later run.
fn keep(bytes: &[u8], kind: &str) {
    if crate::is_sabotaged() {
        return;
    }
    std::fs::create_dir_all(corpus_dir()).unwrap();
    std::fs::write(corpus_dir().join(format!("{:016x}.{kind}", xxh3_64(bytes))), bytes).unwrap();
}
