//! A backup is dropped: of a ledger on disk, since one in memory has nothing to copy.

use super::{Calling, Target, never, poll_and_drop, runtime};
use crate::Rng;
use crate::places::{self, TestLedger};
use std::path::Path;
use std::time::Instant;
use taskledger::{BackupError, CreateError, TaskState};

const IDS: [&str; 3] = ["a", "b", "c"];

/// The copy is given up, or just being finished: then it is whole. Either way the ledger goes on, and
/// another copy can be made.
pub(super) fn backup(rng: &mut Rng, target: Target) -> Result<(), String> {
    let top = places::scratch();
    let (path, copy) = (top.path().join("ledger"), top.path().join("copy"));
    let now = runtime(rng);
    let opened = now.block_on(places::open(places::builder(), &path));
    let ledger = opened.map_err(|error| error.to_string())?;
    now.block_on(async {
        for id in IDS {
            ledger.mark_succeeded(id.to_owned()).await.map_err(|error| error.to_string())?;
        }
        Ok::<_, String>(())
    })?;
    let calling: Calling = {
        let (ledger, copy) = (ledger.clone(), copy.clone());
        Box::pin(async move { drop(ledger.backup(&copy).await) })
    };
    poll_and_drop(&now, calling, target.polls, target.again)?;
    // The thread that makes the dropped one may take a moment to notice.
    let since = Instant::now();
    let made = now.block_on(async {
        loop {
            match ledger.backup(&copy).await {
                Ok(()) => return Ok(true),
                Err(BackupError::Create(CreateError::Exists { .. })) if is_whole(&copy).await => {
                    return Ok(false);
                }
                Err(error) if since.elapsed() > never() => {
                    return Err(format!("after a backup that was dropped: {error:?}"));
                }
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })?;
    if made && !now.block_on(is_whole(&copy)) {
        return Err("the backup after one that was dropped is not whole".to_owned());
    }
    now.block_on(ledger.close()).map_err(|error| error.to_string())
}

async fn is_whole(copy: &Path) -> bool {
    let Ok(ledger) = TestLedger::builder().ballast_bytes(0).open(copy).await else { return false };
    let whole = IDS.iter().all(|id| ledger.query_task_state_quick(*id) == TaskState::Succeeded);
    whole && ledger.close().await.is_ok()
}
