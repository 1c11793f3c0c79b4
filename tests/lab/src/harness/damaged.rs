//! The disk returns something else than what was written.
//!
//! Every file of a ledger is damaged in turn. The open then finds everything that was acknowledged,
//! or says with a typed error what is wrong and leaves the directory as it was found, byte by byte.
//! It never panics, never hangs, and never silently finds less. An accepted loss opens it in any
//! case, keeps the evidence, says so on record, and has every success whose frame is still whole.
//!
//! Between them copies of a ledger that is open are tried (`copied.rs`).

use super::copied::try_copy;
use super::{Harness, broken};
use crate::places::{self, Image, TestLedger};
use crate::{Rng, Session, ops};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use taskledger::internals::Sabotage;
use taskledger::{AcceptLoss, Builder, OpenError, TaskState};

pub(super) const HARNESS: Harness = Harness {
    row: 7,
    name: "damaged",
    unit: "cases",
    ci: 300,
    full: 50_000,
    run,
    controls: &[broken(Sabotage::IgnoreWitness, 900, &["silently lost"])],
};

/// Bytes of a segment of the store.
const SEGMENT: u64 = 8 << 20;

/// Large outputs that fill more than one.
const LARGE: u64 = 340;

/// Bytes of a frame before its body; the last four of them tell how long that is.
const HEAD: usize = 53;

/// A ledger as it lies on the disk, an older copy of it, and what is known of its ids.
pub(super) struct Sample {
    name: &'static str,
    pub(super) image: Image,
    older: Image,
    known: BTreeMap<String, String>,
}

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

async fn known(ledger: &TestLedger) -> BTreeMap<String, String> {
    let mut known = BTreeMap::new();
    for id in ledger.all_tasks().iter() {
        let id = id.unwrap();
        let found = ops::found(ledger, &id).await;
        known.insert(id, found);
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
        Sample { name: "long log", image, older, known }
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
            samples.push(Sample { name, image, older: older.clone(), known });
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
            let still = sample.known.iter().all(|(id, state)| {
                let succeeded = ledger.succeeded_tasks().contains(id);
                succeeded == (state.starts_with("ok") || state == "marked")
            });
            ledger.close().await.map_err(|error| format!("it does not close: {error:?}"))?;
            if !still {
                return Err("the second open finds something else".to_owned());
            }
            Ok(if repaired { Came::Repaired } else { Came::Unharmed })
        }
        Err(OpenError::Damaged(_)) => {
            if let Some(changed) = places::difference(&before, &places::image(&path)) {
                return Err(format!("the refused open has changed:\n{changed}"));
            }
            accept(sample, &path, image).await.map(|()| Came::Refused)
        }
        Err(other) => Err(format!("it does not open: {other:?}")),
    }
}

/// The first id that is not found as it is known.
fn lost(known: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> Option<String> {
    if let Some(more) = found.keys().find(|id| !known.contains_key(*id)) {
        return Some(format!("{more} was never there"));
    }
    known
        .iter()
        .find(|(id, state)| found.get(*id) != Some(*state))
        .map(|(id, state)| format!("{id} was {state:?}, is {:?}", found.get(id)))
}

/// Accepts the loss.
async fn accept(sample: &Sample, path: &Path, image: &Image) -> Result<(), String> {
    let accepting = builder().accept_loss(AcceptLoss::Yes);
    // Nothing that is damaged here takes with it all that tells which ledger it is.
    let ledger = places::open(accepting, path)
        .await
        .map_err(|error| format!("the accepted loss does not open it: {error:?}"))?;
    if ledger.recovery().loss_accepted().is_none() {
        return Err("the loss is not told".to_owned());
    }
    let found = known(&ledger).await;
    for (id, state) in &found {
        // What came before a lost record may come back: a state of its own past.
        match sample.known.get(id).map(String::as_str) {
            None => return Err(format!("{id} is {state:?} and was never there")),
            Some(was) if was == state || state == "crashed" => {}
            Some(was) => return Err(format!("{id} was {was:?} and is {state:?}")),
        }
    }
    let whole = whole_successes(sample, image);
    if let Some(id) = whole
        .iter()
        .find(|id| found.get(**id).is_none_or(|found| Some(found) != sample.known.get(**id)))
    {
        return Err(format!("{id} is lost, though its record is whole; found {found:?}"));
    }
    ledger.mark_succeeded("after the loss".to_owned()).await.unwrap();
    ledger.close().await.map_err(|error| format!("it does not close: {error:?}"))?;
    let kept = places::image(&path.join("damaged"));
    for (name, content) in image {
        let evidence = ["log-", "checkpoint-", "witness", "manifest"];
        let is_evidence = evidence.iter().any(|kind| name.to_str().unwrap().starts_with(kind));
        let is_evidence = is_evidence && !name.to_str().unwrap().ends_with(".tmp");
        if is_evidence && content.is_some() && kept.get(name) != Some(content) {
            return Err(format!("{} is not kept as evidence", name.display()));
        }
    }
    let ledger = places::open(builder(), path)
        .await
        .map_err(|error| format!("after the loss: {error:?}"))?;
    let state = ledger.query_task_state_quick("after the loss");
    ledger.close().await.unwrap();
    if state != TaskState::Succeeded {
        return Err("what was recorded after the loss is gone".to_owned());
    }
    Ok(())
}

/// The ids whose success stands in a frame that is byte for byte where and what it was.
fn whole_successes<'a>(sample: &'a Sample, image: &Image) -> Vec<&'a String> {
    let mut whole = Vec::new();
    for (name, content) in &sample.image {
        let belongs = !name.to_str().unwrap().ends_with(".tmp");
        let now = image.get(name).and_then(Option::as_ref);
        let (Some(was), Some(now), true) = (content, now, belongs) else { continue };
        for at in memchr::memmem::find_iter(was, b"TLframe\x01") {
            let length = frame_length(&was[at..]);
            let frame = was.get(at..at + length);
            if frame.is_some() && frame == now.get(at..at + length) {
                whole.push(&was[at..at + length]);
            }
        }
    }
    let stands = |id: &str, state: &str| {
        let Some(number) = state.strip_prefix("ok ") else { return false };
        let output = format!("{number}:");
        let has = |frame: &[u8], text: &str| memchr::memmem::find(frame, text.as_bytes()).is_some();
        whole.iter().any(|frame| has(frame, id) && has(frame, &output))
    };
    sample.known.iter().filter(|(id, state)| stands(id, state)).map(|(id, _)| id).collect()
}

/// As the head of a frame tells it.
fn frame_length(frame: &[u8]) -> usize {
    HEAD + u32::from_le_bytes(frame[HEAD - 4..HEAD].try_into().unwrap()) as usize + 8
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
