//! A loss is accepted.
//!
//! It opens a damaged ledger in any case, keeps the evidence, says so and has it on record, finds nothing
//! that never was, has every success whose frame is still whole, and each id as it was, to the last
//! detail, if all frames that name it are; and so with the metadata, of which each name has its last value
//! if the frame with that is still whole.
//!
//! Those who kill it on its way, or cut its power, begin with a ledger that has lost the end of its log,
//! and hold what they find against what an acceptance comes to that nobody disturbs.

use super::damaged::{Sample, builder, known};
use crate::ops::{self, META, Model};
use crate::places::{self, Image, TestLedger};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use taskledger::dump::Inspection;
use taskledger::{AcceptLoss, Entry, LedgerEvent, OpenError, SeqNo, TaskState};

/// What a frame begins with.
const FRAME: &[u8] = b"TLframe\x01";

/// Bytes of a frame before its body; the last four of them tell how long that is.
const HEAD: usize = 53;

/// Where its head says which record is its first.
const FIRST: usize = 25;

/// What is said of metadata that an accepted loss had no need to lose.
pub(super) const META_LOST: &str = "of the metadata is lost, though what noted it is whole";

/// A frame in a file of a sample, the number of its first record if it is one of a log, and the ids and
/// names of the metadata in it.
pub(super) struct Frame {
    pub(super) file: PathBuf,
    pub(super) at: usize,
    pub(super) length: usize,
    first: u64,
    ids: BTreeSet<String>,
}

/// All frames of a ledger but those in unfinished files.
pub(super) fn frames_of(image: &Image) -> Vec<Frame> {
    let mut frames = Vec::new();
    let finished = |name: &Path| !name.to_str().unwrap().ends_with(".tmp");
    for (file, content) in image.iter().filter(|(name, _)| finished(name)) {
        let bytes = content.as_deref().unwrap_or_default();
        for at in memchr::memmem::find_iter(bytes, FRAME) {
            let Some(head) = bytes.get(at..at + HEAD) else { continue };
            let body = u32::from_le_bytes(head[HEAD - 4..].try_into().unwrap());
            let length = HEAD + body as usize + 8;
            if let Some(frame) = bytes.get(at..at + length) {
                let first = u64::from_le_bytes(head[FIRST..FIRST + 8].try_into().unwrap());
                frames.push(Frame { file: file.clone(), at, length, first, ids: ids_in(frame) });
            }
        }
    }
    frames
}

/// The last of these frames that the logs have, so many, each wherever it is; the very last one last.
pub(super) fn last_frames(frames: &[Frame], count: usize) -> Vec<&Frame> {
    let mut logs: Vec<&Frame> = frames.iter().filter(|frame| frame.file.ends_with("db")).collect();
    logs.sort_by_key(|frame| frame.first);
    let numbers: BTreeSet<u64> = logs.iter().map(|frame| frame.first).collect();
    let from = numbers.iter().rev().take(count).next_back().copied().expect("there is a log");
    logs.split_off(logs.partition_point(|frame| frame.first < from))
}

/// The ids of the samples, and the names of their metadata: a word and four digits.
fn ids_in(frame: &[u8]) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for word in ["id-", "large-", META] {
        for at in memchr::memmem::find_iter(frame, word) {
            let id = frame.get(at..at + word.len() + 4).map(<[u8]>::to_vec);
            ids.extend(id.and_then(|id| String::from_utf8(id).ok()));
        }
    }
    ids
}

impl Frame {
    fn bytes<'a>(&self, image: &'a Image) -> Option<&'a [u8]> {
        image.get(&self.file)?.as_ref()?.get(self.at..self.at + self.length)
    }

    /// Whether it is byte for byte where and what it was.
    fn is_whole(&self, sample: &Sample, image: &Image) -> bool {
        self.bytes(image) == self.bytes(&sample.image)
    }
}

/// Accepts the loss of this image of the sample, which is at `path`.
pub(super) async fn accept(sample: &Sample, path: &Path, image: &Image) -> Result<(), String> {
    let accepting = builder().accept_loss(AcceptLoss::Yes);
    // Nothing that is damaged here takes with it all that tells which ledger it is.
    let ledger = places::open(accepting, path)
        .await
        .map_err(|error| format!("the accepted loss does not open it: {error:?}"))?;
    if ledger.recovery().loss_accepted().is_none() {
        return Err("the loss is not told".to_owned());
    }
    let found = known(&ledger).await;
    for (id, (state, _)) in &found {
        // What came before a lost record may come back: a state of its own past.
        let was = sample.known.get(id).map(|(was, _)| was.as_str());
        let is_past = match was {
            _ if id.starts_with(META) => ops::is_past_of(id, state, was.unwrap_or("none")),
            was => was.is_some() && state == "crashed",
        };
        match was {
            Some(was) if was == state => {}
            _ if is_past => {}
            None => return Err(format!("{id} is {state:?} and was never there")),
            Some(was) => return Err(format!("{id} was {was:?} and is {state:?}")),
        }
    }
    let whole: Vec<&Frame> =
        sample.frames.iter().filter(|frame| frame.is_whole(sample, image)).collect();
    // Names of the metadata that were erased are in some frames, and known no more.
    let ids: BTreeSet<&String> =
        sample.known.keys().chain(sample.frames.iter().flat_map(|frame| &frame.ids)).collect();
    for id in ids {
        let (was, is) = (sample.known.get(id), found.get(id));
        let state = is.map(|(state, _)| state);
        if is_last_in(&whole, sample, id) && state != was.map(|(was, _)| was) {
            let what = if id.starts_with(META) {
                META_LOST
            } else {
                "is lost, though its record is whole"
            };
            return Err(format!("{id} {what}; it is {is:?}"));
        }
        let all = sample.frames.iter().filter(|frame| frame.ids.contains(id)).count();
        let left = whole.iter().filter(|frame| frame.ids.contains(id)).count();
        if all > 0 && all == left && is != was {
            return Err(format!("{id} is not kept as it was: {was:?}, but {is:?}"));
        }
    }
    ledger.mark_succeeded("after the loss".to_owned()).await.unwrap();
    ledger.close().await.map_err(|error| format!("it does not close: {error:?}"))?;
    evidence_is_kept(image, path)?;
    is_on_record(path)?;
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

/// Whether one of these frames records the success of the id, with its output; or the last value of a name
/// of the metadata.
fn is_last_in(frames: &[&Frame], sample: &Sample, id: &str) -> bool {
    let Some((state, _)) = sample.known.get(id) else { return false };
    let output = match (state.strip_prefix("ok "), state.strip_prefix("noted ")) {
        (Some(number), _) => format!("{number}:"),
        (None, Some(value)) => value.to_owned(),
        (None, None) => return false,
    };
    frames.iter().filter(|frame| frame.ids.contains(id)).any(|frame| {
        let bytes = frame.bytes(&sample.image).unwrap_or_default();
        memchr::memmem::find(bytes, output.as_bytes()).is_some()
    })
}

/// The same ledger without the end of the log that has most frames, so that it is refused; and what is
/// found when that is accepted. Of the metadata that was `noted` before anything else, that has to be what
/// was noted as long as no frame that names it is damaged. `None` if it misses nothing, wherever that ends.
pub(super) fn cut_short(whole: &Image, noted: &BTreeMap<String, String>) -> Option<(Image, Model)> {
    let mut frames: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
    let all = frames_of(whole);
    for frame in all.iter().filter(|frame| frame.file.ends_with("db")) {
        frames.entry(frame.file.clone()).or_default().push(frame.at);
    }
    let (name, frames) = frames.into_iter().max_by_key(|(_, at)| at.len()).expect("there is a log");
    // The store keeps some of them twice.
    for quarters in [3, 2, 1, 0] {
        let mut image = whole.clone();
        if let Some(Some(bytes)) = image.get_mut(&name) {
            bytes.truncate(frames[(frames.len() - 1) * quarters / 4]);
        }
        let top = places::scratch();
        places::lay_out(&image, top.path());
        let known = places::run(async {
            match places::open(places::builder(), top.path()).await {
                Err(OpenError::Damaged(_)) => {}
                Ok(ledger) => return ledger.close().await.map(|()| None).unwrap(),
                Err(other) => panic!("a log cut short: {other:?}"),
            }
            let accepting = places::builder().accept_loss(AcceptLoss::Yes);
            let ledger = places::open(accepting, top.path()).await.unwrap();
            let mut known = BTreeMap::new();
            for id in ops::all(&ledger) {
                let found = ops::found(&ledger, &id).await;
                known.insert(id, found);
            }
            ledger.close().await.unwrap();
            Some(known)
        });
        if let Some(mut known) = known {
            let is_whole = |name: &str| {
                let mut named = all.iter().filter(|frame| frame.ids.contains(name));
                named.all(|frame| frame.bytes(&image) == frame.bytes(whole))
            };
            let kept = noted.iter().filter(|(name, _)| name.starts_with(META) && is_whole(name));
            known.extend(kept.map(|(name, state)| (name.clone(), state.clone())));
            return Some((image, Model::of_known(known)));
        }
    }
    None
}

/// The same ledger, whose frames are whole while the structure that the store has put around them is not,
/// so that the store takes a part for a torn end and the log has to be rebuilt from its frames. `None` if it
/// need not be, wherever that is: too little stands in the log.
pub(super) fn torn_structure(whole: &Image) -> Option<Image> {
    let logs = frames_of(whole).into_iter().filter(|frame| frame.file.ends_with("db"));
    let logs: Vec<Frame> = logs.collect();
    // Much is behind it, which the store wipes. Before a frame stands its key, and before that the
    // checksum of both.
    for frame in &logs[logs.len() / 2..] {
        let mut image = whole.clone();
        if let Some(Some(bytes)) = image.get_mut(&frame.file) {
            bytes[frame.at - 10] ^= 1;
        }
        let top = places::scratch();
        places::lay_out(&image, top.path());
        let rebuilt = places::run(async {
            let ledger = places::open(places::builder(), top.path()).await.unwrap();
            let rebuilt = !ledger.recovery().repaired().is_empty();
            ledger.close().await.unwrap();
            rebuilt
        });
        if rebuilt {
            return Some(image);
        }
    }
    None
}

/// The same ledger without its last frame, wherever the store has that.
pub(super) fn without_last_frame(whole: &Image) -> Image {
    let mut image = whole.clone();
    for frame in last_frames(&frames_of(whole), 1) {
        if let Some(Some(bytes)) = image.get_mut(&frame.file) {
            bytes[frame.at..frame.at + frame.length].fill(0);
        }
    }
    image
}

/// Opens the ledger at `path`, of which this was left; the loss may have to be accepted unless that
/// has been told.
pub(super) async fn open_or_accept(
    ballast: u64,
    path: &Path,
    told: bool,
) -> Result<TestLedger, String> {
    let builder = || places::builder().ballast_bytes(ballast);
    let opened = match places::open(builder(), path).await {
        Err(OpenError::Damaged(_)) if !told => {
            places::open(builder().accept_loss(AcceptLoss::Yes), path).await
        }
        opened => opened,
    };
    opened.map_err(|error| format!("it does not open: {error:?}"))
}

/// That what may tell something of this image is kept, byte by byte.
pub(super) fn evidence_is_kept(image: &Image, path: &Path) -> Result<(), String> {
    let kept = places::image(&path.join("damaged"));
    for (name, content) in image {
        let text = name.to_str().unwrap();
        let evidence = ["log-", "checkpoint-", "witness", "manifest"];
        let is_evidence = evidence.iter().any(|kind| text.starts_with(kind));
        if is_evidence
            && !text.ends_with(".tmp")
            && content.is_some()
            && kept.get(name) != Some(content)
        {
            return Err(format!("{text} is not kept as evidence"));
        }
    }
    Ok(())
}

/// That a loss is on the record of the closed ledger, once.
pub(super) fn is_on_record(path: &Path) -> Result<(), String> {
    let inspection = Inspection::open(path).map_err(|error| format!("to look at: {error:?}"))?;
    let records: Result<Vec<_>, _> = inspection.records(SeqNo::ZERO).collect();
    let records = records.map_err(|error| format!("to look at: {error:?}"))?;
    let is_loss = |entry: &Entry| matches!(entry, Entry::Ledger(LedgerEvent::LossAccepted { .. }));
    match records.iter().filter(|record| is_loss(&record.entry)).count() {
        1 => Ok(()),
        losses => Err(format!("{losses} losses are on record")),
    }
}
