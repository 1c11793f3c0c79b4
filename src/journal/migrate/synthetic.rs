//! A format older than the first, which was never released: in its migration the crash lab kills
//! and cuts the power.
//!
//! In version 0 the two halves of each byte are swapped, in the body of the manifest, in the
//! checkpoint and in all files of the logs. So no file of the one version can be taken for one of
//! the other, and the step has to write each of them anew.

use super::{Step, StepInput};
use crate::error::JournalError;
use crate::journal::manifest::{self, Judged, Manifest};
use crate::journal::{directory, files};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

pub(super) const STEP: Step = Step { from: 0, shape, run };

fn manifest(body: &[u8]) -> Result<Manifest, String> {
    let mut body = body.to_vec();
    swap(&mut body);
    Manifest::from_body(&body)
}

fn shape(body: &[u8]) -> Option<Vec<u8>> {
    manifest(body).ok().map(|manifest| manifest.shape)
}

fn run(input: &StepInput<'_>) -> Result<Vec<u8>, JournalError> {
    let mut manifest =
        manifest(input.body).map_err(|what| JournalError::damaged(manifest::NAME, what))?;
    let mut renewed = |number: u64, name: fn(u64) -> String| {
        let next = manifest.next_number;
        manifest.next_number += 1;
        swap_all(&input.dir.join(name(number)), &input.dir.join(name(next)))?;
        Ok::<_, JournalError>(next)
    };
    for log in &mut manifest.logs {
        log.number = renewed(log.number, directory::log_dir)?;
    }
    // Last, so that its name is durable by nobody's grace but the machinery's.
    if let Some(checkpoint) = &mut manifest.checkpoint {
        checkpoint.number = renewed(checkpoint.number, directory::checkpoint)?;
    }
    Ok(manifest.to_body())
}

/// Makes the closed ledger in `dir` one of version 0. Nothing that may be interrupted.
pub(crate) fn age(dir: &Path) -> Result<(), JournalError> {
    let Judged::Current(manifest) = Manifest::read(dir)? else {
        return Err(JournalError::Store("it is of no version that can be aged".to_owned()));
    };
    let logs = manifest.logs.iter().map(|log| directory::log_dir(log.number));
    let checkpoint = manifest.checkpoint.map(|at| directory::checkpoint(at.number));
    for name in logs.chain(checkpoint) {
        let (path, swapped) = (dir.join(&name), files::unfinished(dir, &name));
        swap_all(&path, &swapped)?;
        files::remove(&path)?;
        std::fs::rename(&swapped, &path).map_err(JournalError::io("replace", &path))?;
    }
    let mut body = manifest.to_body();
    swap(&mut body);
    manifest::replace(dir, STEP.from, &body)
}

fn swap(bytes: &mut [u8]) {
    bytes.iter_mut().for_each(|byte| *byte = byte.rotate_left(4));
}

/// A file, or a directory with all that is in it, anew under another name, durable but for that name.
fn swap_all(from: &Path, to: &Path) -> Result<(), JournalError> {
    files::remove(to)?;
    if !from.is_dir() {
        return swap_file(from, to).map_err(JournalError::io("write", to));
    }
    files::create_dir(to)?;
    for entry in from.read_dir().map_err(JournalError::io("read", from))? {
        let name = entry.map_err(JournalError::io("read", from))?.file_name();
        swap_all(&from.join(&name), &to.join(&name))?;
    }
    files::sync_dir(to)
}

/// Holes stay holes: zeros are zeros in both versions.
fn swap_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut bytes = std::fs::read(from)?;
    swap(&mut bytes);
    let file = files::create(to).map_err(io::Error::other)?;
    file.set_len(bytes.len() as u64)?;
    for (offset, part) in (0..).step_by(PART).zip(bytes.chunks(PART)) {
        if part.iter().any(|&byte| byte != 0) {
            file.write_all_at(part, offset)?;
        }
    }
    file.sync_all()
}

const PART: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ledger, OpenError, TaskState};

    #[tokio::test]
    async fn an_aged_ledger_is_migrated_by_the_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let ledger = Ledger::<String>::open(&path).await.unwrap();
        ledger.mark_succeeded("in the checkpoint".to_owned()).await.unwrap();
        ledger.checkpoint().await.unwrap();
        ledger.mark_succeeded("in the log".to_owned()).await.unwrap();
        ledger.close().await.unwrap();
        age(&path).unwrap();
        assert!(matches!(Manifest::read(&path).unwrap(), Judged::Older(0, _)));
        assert!(age(&path).is_err());

        let other = Ledger::<u64>::open(&path).await.unwrap_err();
        assert!(matches!(other, OpenError::OtherIdType(_)), "{other:?}");
        assert!(matches!(Manifest::read(&path).unwrap(), Judged::Older(0, _)), "it was changed");
        for migrated in [Some((0, super::super::FORMAT_VERSION)), None] {
            let ledger = Ledger::<String>::open(&path).await.unwrap();
            assert_eq!(ledger.recovery().migrated(), migrated);
            for id in ["in the checkpoint", "in the log"] {
                assert_eq!(ledger.query_task_state_quick(id), TaskState::Succeeded);
            }
            ledger.close().await.unwrap();
        }
    }
}
