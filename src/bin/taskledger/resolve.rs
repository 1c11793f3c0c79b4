//! `taskledger resolve`: what somebody has found out about a failed task.

use crate::args::ResolveArgs;
use crate::raw::{self, RawId};
use crate::terminal::{Done, Failure, chain, complain, look};
use std::process::ExitCode;
use taskledger::{ChangeError, TaskState, Verdict};

pub(crate) fn run(args: &ResolveArgs) -> Done {
    let verdict = match (args.verdict.succeeded, args.verdict.failed) {
        (true, _) => Verdict::Succeeded,
        (_, true) => Verdict::Failed,
        _ => Verdict::Retry,
    };
    let inspection = look(&args.path)?;
    let id = inspection.parse_id(&args.id).map_err(|what| {
        let (id, shape) = (&args.id, inspection.id_shape());
        Failure::Look(format!("\"{id}\" is no id of this ledger ({shape}): {what}"))
    })?;
    let text = inspection.id_text(&id);
    let shape = inspection.id_shape().clone();
    // It holds the ledger.
    drop(inspection);
    let resolved = raw::with(&args.path, &shape, async |ledger| {
        let note = args.note.clone().unwrap_or_default();
        Ok(ledger.resolve(&RawId::of(&id), verdict, note).await)
    })?;
    match resolved {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(ChangeError::Refused { state: TaskState::NotFound }) => {
            complain(&format!("the ledger knows nothing of the id {text}"));
            Ok(ExitCode::FAILURE)
        }
        Err(ChangeError::Refused { state }) => {
            complain(&format!("{text} is {state}: only what has failed or crashed is resolved"));
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(Failure::Look(chain(&error))),
    }
}
