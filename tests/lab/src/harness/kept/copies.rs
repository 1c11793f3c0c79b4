//! What backups and imports have left.
//!
//! There is a whole ledger at the path, which is the source as it was at one moment between the beginning and
//! the end of the copy; or there is none, which is said, and it can be begun again. An import is what was
//! exported, to the last detail.

use super::all_found;
use super::model::{Copying, Model, fits, wrong};
use crate::kept::State;
use crate::places::{self, TestLedger, builder};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use taskledger::dump::Inspection;
use taskledger::{BackupError, CreateError, OpenError};

/// What is said of a copy that is neither whole nor refused as unfinished.
pub(super) const HALF: &str = "half a copy";
/// What is said of one that is not what was copied.
const OTHER: &str = "never was like that";

/// What is there of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// A ledger, whole and sound.
    Whole,
    /// What an open refuses.
    Unfinished,
    /// Not even a beginning.
    Nothing,
}

/// Judges all copies beside the ledger, and tells what there is of each. Those that were not finished are
/// begun again, unless they are to be left as they are; whoever wants to copy over a whole one is refused.
pub(super) async fn check(
    beside: &Path,
    model: &Model,
    ledger: &TestLedger,
    leaves: bool,
) -> Result<BTreeMap<String, Left>, String> {
    let mut all = BTreeMap::new();
    for (name, copying) in &model.copies {
        let path = beside.join(name);
        let named = |wrong: String| format!("{name}: {wrong}");
        let left = what_is_left(&path).await.map_err(named)?;
        if copying.done && left != Left::Whole {
            return Err(format!("{name} was finished, and is {left:?}"));
        }
        match &copying.of {
            _ if left != Left::Whole => {}
            None => was_the_source(&path, copying).await.map_err(named)?,
            Some(of) => is_the_same(&path, &beside.join(of)).map_err(named)?,
        }
        all.insert(name.clone(), left);
    }
    // Only now: an import is held against a copy.
    for (name, left) in all.iter().filter(|(_, left)| **left == Left::Whole || !leaves) {
        let path = beside.join(name);
        match (ledger.backup(&path).await, left) {
            (Err(BackupError::Create(CreateError::Exists { .. })), Left::Whole) => {}
            (Ok(()), Left::Unfinished | Left::Nothing) => {
                let copied = opened(&path, model.moment().keys()).await?;
                fits(&model.moment(), &copied)
                    .map_err(|wrong| format!("{name}, begun again, {OTHER}: {wrong}"))?;
            }
            (made, left) => return Err(format!("{name}, {left:?}, begun again: {made:?}")),
        }
    }
    Ok(all)
}

/// Looks, and opens only what is not to be opened.
async fn what_is_left(path: &Path) -> Result<Left, String> {
    if !path.exists() {
        return Ok(Left::Nothing);
    }
    let before = places::image(path);
    let begun = |name: &PathBuf| !matches!(name.to_str(), Some("lock" | "copying.tmp"));
    if !before.keys().any(begun) {
        return Ok(Left::Nothing);
    }
    let sound = match Inspection::open(path) {
        Ok(inspection) => inspection.verify().map_err(|error| format!("{HALF}: {error:?}"))?,
        Err(OpenError::Unfinished { .. }) => {
            return match places::open(builder(), path).await {
                Err(OpenError::Unfinished { .. }) => {
                    match places::difference(&before, &places::image(path)) {
                        None => Ok(Left::Unfinished),
                        Some(changed) => Err(format!("the refused open has changed:\n{changed}")),
                    }
                }
                other => Err(format!("{HALF} is opened: {:?}", other.map(drop))),
            };
        }
        Err(other) => {
            let names: Vec<_> = before.keys().collect();
            return Err(format!("{HALF} is taken for something else: {other:?}, with {names:?}"));
        }
    };
    if sound.is_sound() { Ok(Left::Whole) } else { Err(format!("{HALF}: {sound:?}")) }
}

/// Whether this copy is its source as that was at one of the moments when it was made.
async fn was_the_source(path: &Path, copying: &Copying) -> Result<(), String> {
    // An open changes it, and an import may still be held against it.
    let scratch = places::scratch();
    let copy = scratch.path().join("copy");
    places::lay_out(&places::image(path), &copy);
    let ids = copying.moments.iter().flat_map(BTreeMap::keys);
    let found = opened(&copy, ids).await?;
    // Of a copy that was at none of them, the moment that it is most like.
    let all = copying.moments.iter().map(|moment| wrong(moment, &found));
    let least = all.min_by_key(Vec::len).ok_or("nobody has asked for it")?;
    if least.is_empty() {
        return Ok(());
    }
    Err(format!("it {OTHER}, at none of {} moments: {}", copying.moments.len(), least.join("; ")))
}

/// Whether two ledgers hold the same, to the last detail.
fn is_the_same(path: &Path, source: &Path) -> Result<(), String> {
    let in_full = |path: &Path| -> Result<Vec<String>, String> {
        let inspection = Inspection::open(path).map_err(|error| format!("{error:?}"))?;
        let graves = inspection.graveyard().map_err(|error| format!("{error:?}"))?;
        let mut all: Vec<String> = inspection.tasks().map(|task| format!("{task:?}")).collect();
        all.push(format!("{graves:?}, {:?}", inspection.metadata()));
        all.push(format!("{}, {}", inspection.ledger(), inspection.last_seq()));
        Ok(all)
    };
    let (source, copy) = (in_full(source)?, in_full(path)?);
    let differs = source.iter().zip(&copy).find(|(source, copy)| source != copy);
    match differs {
        None if source.len() == copy.len() => Ok(()),
        other => Err(format!("it {OTHER}: {} and {} tasks, {other:?}", source.len(), copy.len())),
    }
}

/// What an open of this copy finds.
async fn opened(
    path: &Path,
    ids: impl Iterator<Item = &String>,
) -> Result<BTreeMap<String, State>, String> {
    let ledger = places::open(builder(), path)
        .await
        .map_err(|error| format!("{HALF} does not open: {error:?}"))?;
    let found = all_found(&ledger, ids).await?;
    ledger.close().await.map_err(|error| format!("it does not close: {error:?}"))?;
    Ok(found)
}
