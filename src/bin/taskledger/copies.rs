//! `taskledger backup`: copies of ledgers.

use crate::terminal::{Done, Progress, complain, look};
use std::path::PathBuf;
use std::process::ExitCode;
use taskledger::{BackupError, CreateError};

/// The commands that copy.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Copies {
    Backup(BackupArgs),
}

/// Copies a ledger that no process has open, into a new directory.
///
/// The ledger is only read, and locked for others meanwhile: what was running when its process died is
/// still running in the copy as well, and crashed once that is opened. A process that has a ledger open
/// copies it itself, with `Ledger::backup` of the library.
///
/// The copy keeps the identity: go on with one of the two, never with both, since they would hand out the
/// same effect keys, and neither would know what the other has done.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  taskledger backup /var/lib/mailer/ledger /backup/mailer-$(date +%F)
  taskledger backup ledger copy && taskledger verify copy

There is no ledger at the new path until the copy is whole and on disk. If it is cut off, the same command \
begins anew.")]
pub(crate) struct BackupArgs {
    /// The directory of the ledger.
    path: PathBuf,
    /// The directory of the copy: new, or empty.
    to: PathBuf,
}

pub(crate) fn run(copies: &Copies) -> Done {
    match copies {
        Copies::Backup(args) => backup(args),
    }
}

fn backup(args: &BackupArgs) -> Done {
    let inspection = look(&args.path)?;
    let mut progress = Progress::before_output();
    match inspection.backup_with(&args.to, || progress.step()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(BackupError::Create(CreateError::Damaged(damage))) => {
            drop(progress);
            complain(&format!(
                "nothing was copied, since the ledger is damaged: {damage}; `taskledger repair` goes on \
                 with what is left of it"
            ));
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.into()),
    }
}
