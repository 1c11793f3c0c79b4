//! The disk returns something else than what was written.
//!
//! Every file of a ledger is damaged in turn. The open then finds everything that was acknowledged,
//! or says with a typed error what is wrong and leaves the directory as it was found, byte by byte.
//! It never panics, never hangs, and never silently finds less; and it is not refused for a file that
//! tells nothing, a ballast or a lock. What an accepted loss comes to is in `accepted.rs`.
//!
//! Between them copies of a ledger that is open are tried (`copied.rs`).

use super::accepted::{self, Frame};
use super::copied::try_copy;
use super::{Harness, broken};
use crate::places::{self, Image, TestLedger};
use crate::{Rng, Session, ops};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use taskledger::internals::Sabotage;
use taskledger::{Builder, OpenError, TaskDetails};

pub(super) const HARNESS: Harness = Harness {
    row: 7,
    name: "damaged",
    unit: "cases",
    ci: 300,
    full: 50_000,
    run,
    controls: &[
        broken(Sabotage::IgnoreWitness, 900, &["silently lost"]),
        broken(Sabotage::TouchFirst, 100, &["the refused open has changed:\nwitness"]),
        broken(Sabotage::JudgeBallast, 600, &["[\"ballast\"] differs"]),
        broken(Sabotage::DropEvidence, 100, &["is not kept as evidence"]),
        broken(
            Sabotage::StopAtGap,
            900,
            &["is lost, though its record is whole", "is not kept as it was"],
        ),
        broken(Sabotage::LoseDates, 300, &["is not kept as it was"]),
        broken(Sabotage::LossUntold, 100, &["the loss is not told"]),
        broken(Sabotage::LossUnrecorded, 100, &["0 losses are on record"]),
        broken(Sabotage::AcceptUnasked, 900, &["the copy has silently lost"]),
    ],
};

/// Bytes of a segment of the store.
const SEGMENT: u64 = 8 << 20;

/// Large outputs that fill more than one.
const LARGE: u64 = 340;

/// A ledger as it lies on the disk, an older copy of it, and what is known of its ids.
pub(super) struct Sample {
    name: &'static str,
    pub(super) image: Image,
    older: Image,
    pub(super) known: Known,
    pub(super) frames: Vec<Frame>,
}

impl Sample {
    fn new(name: &'static str, image: Image, older: Image, known: Known) -> Self {
        let frames = accepted::frames_of(&image);
        Self { name, image, older, known, frames }
    }
}

/// What is known of each id: in a word, and all of it.
pub(super) type Known = BTreeMap<String, (String, TaskDetails)>;

async fn fill(ledger: &TestLedger, from: u64, to: u64) {
    for number in from..to {
        let id = format!("id-{number:04}");
        match number % 5 {
            0 => ledger.mark_succeeded(id).await.unwrap(),
            1 => {
                let failed = async { Err::<String, _>("no") };
                ledger.launch_block(id, failed).await.unwrap_err();
            }
            _ => {
                let value = ops::output_of(number * 37);
                ledger.launch_block(id, async { Ok::<_, String>(value) }).await.unwrap();
            }
        }
    }
}

pub(super) async fn known(ledger: &TestLedger) -> Known {
    let mut known = Known::new();
    for id in ledger.all_tasks().iter() {
        let id = id.unwrap();
        let found = ops::found(ledger, &id).await;
        let details = ledger.record(&id).await.unwrap().unwrap();
        known.insert(id, (found, details));
    }
    known
}

/// A ledger with a ballast, but a small one.
pub(super) fn builder() -> Builder<String, String> {
    places::builder().ballast_bytes(64 << 10)
}

/// A log that is longer than a segment of its store, which has been filled, sealed and left.
fn long_sample() -> Sample {
    places::run(async {
        let top = places::scratch();
        let path = top.path().join("ledger");
        let ledger = places::open(builder(), &path).await.unwrap();
        fill(&ledger, 0, 10).await;
        ledger.close().await.unwrap();
        let older = places::image(&path);
        let ledger = places::open(builder(), &path).await.unwrap();
        let mut runs = tokio::task::JoinSet::new();
        for number in 0..LARGE {
            let ledger = ledger.clone();
            runs.spawn(async move {
                let value = ops::long_output_of(number, 28_000);
                let id = format!("large-{number:04}");
                ledger.launch_block(id, async { Ok::<_, String>(value) }).await.unwrap();
            });
        }
        while let Some(ran) = runs.join_next().await {
            ran.unwrap();
        }
        fill(&ledger, 10, 20).await;
        ledger.close().await.unwrap();
        let image = places::image(&path);
        let log = image[Path::new("log-1/db")].as_ref().unwrap();
        assert!(places::used(log) > SEGMENT, "the long log is not longer than a segment");
        let ledger = places::open(builder(), &path).await.unwrap();
        let known = known(&ledger).await;
        ledger.close().await.unwrap();
        Sample::new("long log", image, older, known)
    })
}

/// A log alone; a checkpoint and a log; a checkpoint, a frozen log and a log.
pub(super) fn samples() -> Vec<Sample> {
    places::run(async {
        let top = places::scratch();
        let path = top.path().join("ledger");
        let open = || places::open(builder(), &path);
        let mut samples = Vec::new();
        let mut older = Image::new();
        for name in ["log", "checkpoint and log", "two logs"] {
            let ledger = open().await.unwrap();
            match name {
                "log" => {
                    fill(&ledger, 0, 10).await;
                    ledger.close().await.unwrap();
                    // Again, so that the store makes a snapshot.
                    older = places::image(&path);
                    let ledger = open().await.unwrap();
                    fill(&ledger, 10, 26).await;
                    ledger.close().await.unwrap();
                }
                "checkpoint and log" => {
                    ledger.checkpoint().await.unwrap();
                    fill(&ledger, 26, 34).await;
                    ledger.close().await.unwrap();
                    older = places::image(&path);
                    let ledger = open().await.unwrap();
                    fill(&ledger, 34, 42).await;
                    ledger.close().await.unwrap();
                }
                _ => {
                    fill(&ledger, 42, 46).await;
                    // The fold has no place to go, so it stays undone.
                    let blocked = block_the_next_checkpoint(&path);
                    ledger.checkpoint().await.unwrap_err();
                    fill(&ledger, 46, 54).await;
                    ledger.close().await.unwrap();
                    blocked.iter().for_each(|path| std::fs::remove_dir(path).unwrap());
                }
            }
            let image = places::image(&path);
            let probe = top.path().join(name);
            places::lay_out(&image, &probe);
            let ledger = places::open(builder(), &probe).await.unwrap();
            let known = known(&ledger).await;
            ledger.close().await.unwrap();
            samples.push(Sample::new(name, image, older.clone(), known));
        }
        samples
    })
}

fn block_the_next_checkpoint(path: &Path) -> Vec<PathBuf> {
    let blocked: Vec<_> = (1..20)
        .map(|number| path.join(format!("checkpoint-{number}")))
        .filter(|path| !path.exists())
        .collect();
    blocked.iter().for_each(|path| std::fs::create_dir(path).unwrap());
    blocked
}

/// Damages one file, or two. Tells what it did; `None` if nothing changed.
fn damage(sample: &Sample, name: &Path, rng: &mut Rng) -> Option<(String, Image)> {
    let mut image = sample.image.clone();
    let bytes = image[name].clone().unwrap();
    let length = bytes.len() as u64;
    // Where there is something: most of a store's file are holes.
    let used = places::used(&bytes);
    let what = match rng.below(9) {
        0 | 1 => {
            let (at, bit) = (rng.below(used) as usize, rng.below(8));
            if let Some(byte) = image.get_mut(name)?.as_mut()?.get_mut(at) {
                *byte ^= 1 << bit;
            }
            format!("bit {bit} of byte {at} flipped")
        }
        2 => {
            let to = rng.below(used);
            image.get_mut(name)?.as_mut()?.truncate(to as usize);
            format!("cut to {to} of {length} bytes")
        }
        3 | 4 => {
            let at = rng.below(used / 512 + 1) as usize * 512;
            let end = (at + 512).min(bytes.len());
            image.get_mut(name)?.as_mut()?[at.min(end)..end].fill(0);
            format!("512 bytes at {at} zeroed")
        }
        5 => {
            let at = rng.below(used / 4096 + 1) as usize * 4096;
            let end = (at + 4096).min(bytes.len());
            for byte in &mut image.get_mut(name)?.as_mut()?[at.min(end)..end] {
                *byte = rng.next() as u8;
            }
            format!("4096 bytes at {at} random")
        }
        6 => {
            image.remove(name);
            "gone".to_owned()
        }
        7 => {
            let others: Vec<&PathBuf> = image
                .iter()
                .filter(|(other, content)| content.is_some() && *other != name)
                .map(|(other, _)| other)
                .collect();
            let other = (*rng.pick(&others)).clone();
            let theirs = image.insert(other.clone(), Some(bytes.clone()))?;
            image.insert(name.to_owned(), theirs);
            format!("swapped with {}", other.display())
        }
        _ => {
            let older = sample.older.get(name)?.clone();
            image.insert(name.to_owned(), older);
            "put back to an older copy".to_owned()
        }
    };
    (places::difference(&sample.image, &image).is_some()).then_some((what, image))
}

/// What a case came to, if nothing is wrong.
#[derive(Clone, Copy, Debug)]
enum Came {
    Unharmed,
    Repaired,
    Refused,
}

async fn try_damage(sample: &Sample, image: &Image) -> Result<Came, String> {
    let top = places::scratch();
    let path = top.path().join("ledger");
    places::lay_out(image, &path);
    let before = places::image(&path);
    match places::open(builder(), &path).await {
        Ok(ledger) => {
            let found = known(&ledger).await;
            let repaired = !ledger.recovery().repaired().is_empty();
            ledger.close().await.map_err(|error| format!("it does not close: {error:?}"))?;
            if let Some(lost) = lost(&sample.known, &found) {
                return Err(format!("silently lost: {lost} (repaired: {repaired})"));
            }
            let ledger =
                places::open(builder(), &path).await.map_err(|e| format!("again: {e:?}"))?;
            let still = lost(&sample.known, &known(&ledger).await);
            ledger.close().await.map_err(|error| format!("it does not close: {error:?}"))?;
            if let Some(lost) = still {
                return Err(format!("the second open finds something else: {lost}"));
            }
            Ok(if repaired { Came::Repaired } else { Came::Unharmed })
        }
        Err(OpenError::Damaged(_)) => {
            if let Some(changed) = places::difference(&before, &places::image(&path)) {
                return Err(format!("the refused open has changed:\n{changed}"));
            }
            let differs: Vec<&PathBuf> = differing(&sample.image, image).collect();
            if differs.iter().all(|name| HARMLESS.iter().any(|kind| name.ends_with(kind))) {
                return Err(format!("it is refused, though nothing but {differs:?} differs"));
            }
            accepted::accept(sample, &path, image).await.map(|()| Came::Refused)
        }
        Err(other) => Err(format!("it does not open: {other:?}")),
    }
}

/// Files that say nothing of what is recorded.
const HARMLESS: [&str; 2] = ["ballast", "lock"];

fn differing<'a>(old: &'a Image, new: &'a Image) -> impl Iterator<Item = &'a PathBuf> {
    let added = new.keys().filter(|name| !old.contains_key(*name));
    old.keys().filter(|name| old.get(*name) != new.get(*name)).chain(added)
}

/// The first id that is not found as it is known.
fn lost(known: &Known, found: &Known) -> Option<String> {
    if let Some(more) = found.keys().find(|id| !known.contains_key(*id)) {
        return Some(format!("{more} was never there"));
    }
    known
        .iter()
        .find(|(id, state)| found.get(*id) != Some(*state))
        .map(|(id, state)| format!("{id} was {state:?}, is {:?}", found.get(id)))
}

/// Every file of every sample in turn; the long one, which takes longest, now and then.
fn run(session: &mut Session) {
    let samples = samples();
    let long = long_sample();
    for round in 0_u64.. {
        let long = (round % 4 == 1).then_some(&long);
        for sample in samples.iter().chain(long) {
            for name in
                sample.image.iter().filter_map(|(name, content)| content.is_some().then_some(name))
            {
                if !session.goes_on() {
                    return;
                }
                let Some((what, image)) = damage(sample, name, &mut session.rng) else { continue };
                let case = format!("{}, {}, {what}", sample.name, name.display());
                let came = caught(|| places::run(try_damage(sample, &image)));
                if let Ok(came) = &came {
                    session.count(&format!("{came:?}").to_lowercase(), 1);
                }
                session.count(&format!("cases of {}", sample.name), 1);
                session.tried(came.map(drop).map_err(|wrong| format!("{case}: {wrong}")));
            }
            if !session.goes_on() {
                return;
            }
            let mut made = String::new();
            let came = caught(|| try_copy(&mut session.rng, &mut made));
            if let Ok(came) = &came {
                session.count(&format!("copies {came:?}").to_lowercase(), 1);
            }
            session.tried(came.map(drop).map_err(|wrong| format!("a copy, {made}: {wrong}")));
        }
    }
}

/// A panic is wrong like anything else.
fn caught<T>(tries: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(tries))
        .unwrap_or_else(|panic| Err(format!("a panic: {}", crate::session::text_of(&*panic))))
}
