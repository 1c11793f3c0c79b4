//! `taskledger resolve`, `pin` and `unpin`: what a person says of a task that has finished.

use crate::args::{PinArgs, ResolveArgs};
use crate::raw::{self, Raw, RawId};
use crate::terminal::{Done, Failure, chain, complain, look};
use std::path::Path;
use std::process::ExitCode;
use taskledger::{ChangeError, TaskState, Verdict};

pub(crate) fn run(args: &ResolveArgs) -> Done {
    let verdict = match (args.verdict.succeeded, args.verdict.failed) {
        (true, _) => Verdict::Succeeded,
        (_, true) => Verdict::Failed,
        _ => Verdict::Retry,
    };
    let only = "what has failed or crashed is resolved";
    change(&args.path, &args.id, only, async |ledger, id| {
        ledger.resolve(id, verdict, args.note.clone().unwrap_or_default()).await
    })
}

pub(crate) fn pin(args: &PinArgs) -> Done {
    change(&args.path, &args.id, PINNED, async |ledger, id| ledger.pin(id).await)
}

pub(crate) fn unpin(args: &PinArgs) -> Done {
    change(&args.path, &args.id, PINNED, async |ledger, id| ledger.unpin(id).await)
}

const PINNED: &str = "what has succeeded or failed, and was not pruned, is pinned";

/// Changes one task, of which it may be refused: `only` says for what it is there.
fn change(
    path: &Path,
    id: &str,
    only: &str,
    change: impl AsyncFnOnce(&Raw, &RawId) -> Result<(), ChangeError>,
) -> Done {
    let inspection = look(path)?;
    let id = inspection.parse_id(id).map_err(|what| {
        let shape = inspection.id_shape();
        Failure::Look(format!("\"{id}\" is no id of this ledger ({shape}): {what}"))
    })?;
    let text = inspection.id_text(&id);
    let shape = inspection.id_shape().clone();
    // It holds the ledger.
    drop(inspection);
    let changed =
        raw::with(path, &shape, async |ledger| Ok(change(ledger, &RawId::of(&id)).await))?;
    match changed {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(ChangeError::Refused { state: TaskState::NotFound }) => {
            complain(&format!("the ledger knows nothing of the id {text}"));
            Ok(ExitCode::FAILURE)
        }
        Err(ChangeError::Refused { state }) => {
            complain(&format!("{text} is {state}: only {only}"));
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(Failure::Look(chain(&error))),
    }
}
