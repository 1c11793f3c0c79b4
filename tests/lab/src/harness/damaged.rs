//! The disk returns something else than what was written.
//!
//! Every file of a ledger is damaged in turn. The open then finds everything that was acknowledged,
//! or says with a typed error what is wrong and leaves the directory as it was found, byte by byte.
//! It never panics, never hangs, and never silently finds less; and it is not refused for a file that
//! tells nothing, a ballast or a lock. What an accepted loss comes to is in `accepted.rs`. The metadata is
//! held against what it was like the ids are.
//!
//! Some of the ledgers were closed (the part `Closed`), and some were left by a process that was killed as
//! soon as its last thing was acknowledged (`Killed`): damaged files are found in those as well, though only
//! the page cache has what the witness noted last. Above all the end of their logs is damaged in every way
//! (`Tail`), since nothing but that note can tell of it.
//!
//! Between them (`Copies`) copies of a ledger that is open are tried (`copied.rs`).

mod samples;

pub(super) use samples::{Sample, builder, closed_samples, known};

use super::accepted::{self, Frame, META_LOST};
use super::copied::try_copy;
use super::{Harness, broken};
use crate::places::{self, Image};
use crate::{Rng, Session};
use samples::{Known, killed_samples, long_sample};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use taskledger::OpenError;
use taskledger::internals::Sabotage;

pub(super) const HARNESS: Harness = Harness {
    name: "damaged",
    unit: "cases",
    ci: 300,
    full: 50_000,
    run,
    controls: &[
        broken(Sabotage::IgnoreWitness, 900, &["silently lost"]).only(&["Closed"]),
        broken(Sabotage::NoteLate, 40, &["silently lost"]).only(&["Tail"]),
        broken(Sabotage::TouchFirst, 100, &["the refused open has changed:\nwitness"]),
        broken(Sabotage::JudgeBallast, 600, &["[\"ballast\"] differs"]).only(&["Closed"]),
        broken(Sabotage::DropEvidence, 100, &["is not kept as evidence"]),
        broken(
            Sabotage::StopAtGap,
            900,
            &["is lost, though its record is whole", "is not kept as it was"],
        )
        .only(&["Closed"]),
        broken(Sabotage::LoseDates, 300, &["is not kept as it was"]).only(&["Closed"]),
        broken(Sabotage::LoseMetadata, 100, &[META_LOST]).only(&["Closed"]),
        broken(Sabotage::LossUntold, 100, &["the loss is not told"]),
        broken(Sabotage::LossUnrecorded, 100, &["0 losses are on record"]),
        broken(Sabotage::AcceptUnasked, 900, &["the copy has silently lost"]).only(&["Copies"]),
    ],
};

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

/// Damages the last frames of the log, wherever the store has them; or what was written since the older
/// copy is gone. `None` if nothing changed.
fn damage_tail(sample: &Sample, rng: &mut Rng) -> Option<(String, Image)> {
    let mut image = sample.image.clone();
    let count = 1 + rng.below(6) as usize;
    let last = accepted::last_frames(&sample.frames, count);
    let log = &last.last()?.file;
    let mut overwrite = |frame: &Frame, sector: usize, byte: &mut dyn FnMut() -> u8| {
        let Some(Some(bytes)) = image.get_mut(&frame.file) else { return };
        let end = (frame.at + frame.length).next_multiple_of(sector).min(bytes.len());
        bytes[frame.at / sector * sector..end].iter_mut().for_each(|old| *old = byte());
    };
    let what = match rng.below(5) {
        0 => {
            last.iter().for_each(|frame| overwrite(frame, 1, &mut || 0));
            format!("{count} frames zeroed")
        }
        1 => {
            last.iter().for_each(|frame| overwrite(frame, 512, &mut || rng.next() as u8));
            format!("the sectors of {count} frames random")
        }
        2 => {
            let frame = *rng.pick(&last);
            overwrite(frame, 512, &mut || 0);
            format!("the sectors of a frame at {} zeroed", frame.at)
        }
        3 => {
            let at = last.iter().filter(|frame| frame.file == *log).map(|frame| frame.at).min()?;
            image.get_mut(log)?.as_mut()?.truncate(at);
            format!("cut to {at} bytes, before {count} frames")
        }
        _ => {
            let older = sample.older.get(log)?.clone();
            image.insert(log.clone(), older);
            "put back to an older copy".to_owned()
        }
    };
    let what = format!("{}, {what}", log.display());
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

/// Every file of every closed sample in turn, the long one, which takes longest, now and then; then every
/// file and the tail of one that was killed, each time of another; and some copies.
fn run(session: &mut Session) {
    let closed = if session.takes("Closed") { closed_samples() } else { Vec::new() };
    let long = session.takes("Closed").then(long_sample);
    let falls = session.takes("Killed") || session.takes("Tail");
    let killed = if falls { killed_samples() } else { Vec::new() };
    for round in 0_usize.. {
        let long = long.iter().filter(|_| round % 4 == 1);
        for sample in closed.iter().chain(long) {
            each_file(session, sample);
        }
        if let Some(sample) = killed.get(round % killed.len().max(1)) {
            if session.takes("Killed") {
                each_file(session, sample);
            }
            for _ in 0..if session.takes("Tail") { TAILS } else { 0 } {
                let Some((what, image)) = damage_tail(sample, &mut session.rng) else { continue };
                try_case(session, sample, &format!("the end of {what}"), &image);
            }
        }
        for _ in 0..if session.takes("Copies") { COPIES } else { 0 } {
            one_copy(session);
        }
        if !session.goes_on() {
            return;
        }
    }
}

/// So often the end of a log is damaged in each round.
const TAILS: usize = 3;

/// So many copies are made in each round.
const COPIES: usize = 4;

fn each_file(session: &mut Session, sample: &Sample) {
    let files = sample.image.iter().filter(|(_, content)| content.is_some());
    for (name, _) in files {
        if !session.goes_on() {
            return;
        }
        let Some((what, image)) = damage(sample, name, &mut session.rng) else { continue };
        try_case(session, sample, &format!("{}, {what}", name.display()), &image);
    }
}

fn one_copy(session: &mut Session) {
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

fn try_case(session: &mut Session, sample: &Sample, case: &str, image: &Image) {
    if !session.goes_on() {
        return;
    }
    let came = caught(|| places::run(try_damage(sample, image)));
    if let Ok(came) = &came {
        session.count(&format!("{came:?}").to_lowercase(), 1);
    }
    session.count(&format!("cases of {}", sample.name), 1);
    session.tried(came.map(drop).map_err(|wrong| format!("{}, {case}: {wrong}", sample.name)));
}

/// A panic is wrong like anything else.
fn caught<T>(tries: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(tries))
        .unwrap_or_else(|panic| Err(format!("a panic: {}", crate::session::text_of(&*panic))))
}
