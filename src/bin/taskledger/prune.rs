//! `taskledger prune`: dropping what is old.

use crate::args::PruneArgs;
use crate::raw;
use crate::terminal::{Done, Failure, chain, look, out};
use std::io::Write;
use std::process::ExitCode;
use taskledger::Retention;

pub(crate) fn run(args: &PruneArgs) -> Done {
    // A ledger that is not there is not made.
    let inspection = look(&args.path)?;
    let mut retention = Retention::new();
    if let Some(age) = args.succeeded {
        retention = retention.succeeded(age);
    }
    if let Some(age) = args.failed {
        retention = retention.failed(age);
    }
    if let Some(time) = args.as_of {
        retention = retention.as_of(time.into());
    }
    let (pruned, left) = if args.dry_run {
        // An open would record what it finds: this only looks.
        let pruned = inspection.prunable(&retention);
        let pruned = pruned.map_err(|error| Failure::Look(chain(&error)))?;
        (pruned, inspection.stats().tombstones)
    } else {
        let shape = inspection.id_shape().clone();
        // It holds the ledger.
        drop(inspection);
        raw::with(&args.path, &shape, async |ledger| {
            let pruned = ledger.prune(&retention).await;
            let pruned = pruned.map_err(|error| Failure::Look(chain(&error)))?;
            if pruned.succeeded + pruned.failed > 0 {
                // What was pruned is in the log until that is folded.
                ledger.checkpoint().await.map_err(|error| Failure::Look(chain(&error)))?;
            }
            Ok((pruned, ledger.tombstones() as u64))
        })?
    };
    let mut out = out();
    let would = if args.dry_run { "would become" } else { "became" };
    writeln!(out, "succeeded\t{}\t{would} tombstones", pruned.succeeded)?;
    let would = if args.dry_run { "would be" } else { "were" };
    writeln!(out, "failed\t{}\t{would} forgotten", pruned.failed)?;
    writeln!(out, "pinned\t{}\tkept", pruned.pinned)?;
    writeln!(out, "crashed, given up or released\t{}\tkept until resolved or run", pruned.held)?;
    writeln!(out, "tombstones\t{left}\tin all")?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
