//! The ledgers that are damaged: some that were closed, some whose process was killed.

use super::super::accepted::{self, Frame};
use crate::ops::{self, META, fill};
use crate::places::{self, BALLAST, Image, TestLedger, block_the_next_checkpoint};
use std::collections::BTreeMap;
use std::path::Path;
use taskledger::{Builder, TaskDetails};

/// Bytes of a segment of the store.
const SEGMENT: u64 = 8 << 20;

/// Large outputs that fill more than one.
const LARGE: u64 = 340;

/// Of a ballast, but a small one.
const BALLAST_BYTES: u64 = 64 << 10;

/// A ledger as it lies on the disk, an older copy of it, and what is known of its ids.
pub(in super::super) struct Sample {
    pub(super) name: &'static str,
    pub(in super::super) image: Image,
    pub(super) older: Image,
    pub(in super::super) known: Known,
    pub(in super::super) frames: Vec<Frame>,
}

impl Sample {
    fn new(name: &'static str, image: Image, older: Image, known: Known) -> Self {
        let frames = accepted::frames_of(&image);
        Self { name, image, older, known, frames }
    }
}

/// What is known of each id, in a word and all of it; and of each name of the metadata, of which a word
/// is all.
pub(in super::super) type Known = BTreeMap<String, (String, Option<TaskDetails>)>;

pub(in super::super) async fn known(ledger: &TestLedger) -> Known {
    let mut known = Known::new();
    for id in ops::all(ledger) {
        let found = ops::found(ledger, &id).await;
        let details = match id.starts_with(META) {
            true => None,
            false => Some(ledger.record(&id).await.unwrap().unwrap()),
        };
        known.insert(id, (found, details));
    }
    known
}

/// What is known of the ledger of this image, which is whole.
async fn known_of(image: &Image) -> Known {
    let top = places::scratch();
    places::lay_out(image, top.path());
    let ledger = places::open(builder(), top.path()).await.unwrap();
    let known = known(&ledger).await;
    ledger.close().await.unwrap();
    known
}

/// A ledger with a ballast.
pub(in super::super) fn builder() -> Builder<String, String> {
    places::builder().ballast_bytes(BALLAST_BYTES)
}

/// A log that is longer than a segment of its store, which has been filled, sealed and left.
pub(super) fn long_sample() -> Sample {
    places::run(async {
        let top = places::scratch();
        let path = top.path().join("ledger");
        let ledger = places::open(builder(), &path).await.unwrap();
        fill(&ledger, 0..10).await;
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
        fill(&ledger, 10..20).await;
        ledger.close().await.unwrap();
        let image = places::image(&path);
        let log = image[Path::new("log-1/db")].as_ref().unwrap();
        assert!(places::used(log) > SEGMENT, "the long log is not longer than a segment");
        let known = known_of(&image).await;
        Sample::new("long log", image, older, known)
    })
}

/// A log alone; a checkpoint and a log; a checkpoint, a frozen log and a log.
pub(in super::super) fn closed_samples() -> Vec<Sample> {
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
                    fill(&ledger, 0..10).await;
                    ledger.close().await.unwrap();
                    // Again, so that the store makes a snapshot.
                    older = places::image(&path);
                    let ledger = open().await.unwrap();
                    fill(&ledger, 10..26).await;
                    ledger.close().await.unwrap();
                }
                "checkpoint and log" => {
                    ledger.checkpoint().await.unwrap();
                    fill(&ledger, 26..34).await;
                    ledger.close().await.unwrap();
                    older = places::image(&path);
                    let ledger = open().await.unwrap();
                    fill(&ledger, 34..42).await;
                    ledger.close().await.unwrap();
                }
                _ => {
                    fill(&ledger, 42..46).await;
                    // The fold has no place to go, so it stays undone.
                    let blocked = block_the_next_checkpoint(&path);
                    ledger.checkpoint().await.unwrap_err();
                    fill(&ledger, 46..54).await;
                    ledger.close().await.unwrap();
                    blocked.iter().for_each(|path| std::fs::remove_dir(path).unwrap());
                }
            }
            let image = places::image(&path);
            let known = known_of(&image).await;
            samples.push(Sample::new(name, image, older.clone(), known));
        }
        samples
    })
}

/// The same, but each left by a process that was killed right after its last acknowledgement. The witness
/// has noted that, as it does before anybody is answered, and the kernel has kept the note; but nothing has
/// synced it. So nothing of such a ledger may be missed either, as long as no power is cut in addition.
pub(super) fn killed_samples() -> Vec<Sample> {
    let top = places::scratch();
    let path = top.path().join("ledger");
    let mut samples = Vec::new();
    let mut filled = 0;
    for (name, count, is_blocked) in [
        ("killed log", 24, false),
        ("killed, checkpoint", 16, false),
        ("killed, two logs", 12, true),
    ] {
        if filled > 0 {
            places::run(async {
                let ledger = places::open(builder(), &path).await.unwrap();
                ledger.checkpoint().await.unwrap();
                ledger.close().await.unwrap();
            });
        }
        let mut child = places::child("falls", &path);
        child
            .env(BALLAST, BALLAST_BYTES.to_string())
            .env("TASKLEDGER_CHILD_FIRST", filled.to_string())
            .env("TASKLEDGER_CHILD_COUNT", count.to_string())
            .env("TASKLEDGER_CHILD_BLOCKED", u64::from(is_blocked).to_string());
        let fell = child.output().unwrap();
        let told = String::from_utf8_lossy(&fell.stderr).into_owned();
        assert_eq!(places::was_killed(fell.status), Ok(true), "{told}");
        filled += count;
        let mut image = places::image(&path);
        // What was in the way of the checkpoint.
        let is_checkpoint = |name: &Path| name.to_str().unwrap().starts_with("checkpoint-");
        image.retain(|name, content| content.is_some() || !is_checkpoint(name));
        let copy = path.with_extension("older");
        let older = places::image(&copy);
        std::fs::remove_dir_all(copy).unwrap();
        let known = places::run(known_of(&image));
        let ids = known.keys().filter(|id| !id.starts_with(META)).count();
        assert_eq!(
            ids as u64, filled,
            "{name}: nothing is damaged, and not all that was acknowledged is there"
        );
        samples.push(Sample::new(name, image, older, known));
    }
    samples
}
