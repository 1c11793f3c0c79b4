//! `taskledger backup`, `export` and `import`: copies of ledgers.

use crate::terminal::{Done, Failure, Progress, chain, clean, complain, look, out};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use taskledger::dump::{Exported, Inspection, import_with, outside};
use taskledger::{AcceptLoss, BackupError, CreateError, ExportError, ImportError};
use tempfile::NamedTempFile;

/// The commands that copy.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Copies {
    Backup(BackupArgs),
    Export(ExportArgs),
    Import(ImportArgs),
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

/// Writes all that a ledger holds as JSON Lines, of which `import` makes the same ledger.
///
/// The first line says which ledger it is, then comes every task, ascending by the bytes of its id, then
/// the hash of every success that was pruned (its id is gone; it counts as succeeded all the same), and a
/// closing line with a checksum, without which an export is not whole. What stands under `info` is for
/// people and for tools such as jq, and is not imported. A ledger that a process has open is exported from
/// its backup.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  taskledger export ledger --output ledger.jsonl
  taskledger export ledger | zstd > ledger.jsonl.zst
  taskledger export ledger | jq -r '.task | select(.state == \"failed\") | .info.id'

Exit codes: 0 all is there; 1 the ledger is damaged: without --damaged nothing, or only a beginning, was \
written; 2 could not look, or could not write.")]
pub(crate) struct ExportArgs {
    /// The directory of the ledger.
    path: PathBuf,
    /// Writes to this file, which is replaced when the export is whole and on disk; readable for its owner
    /// alone, as the ledger is.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Exports what is left of a damaged ledger. The closing line says what is missing, and `import` wants to
    /// be told that this is accepted.
    #[arg(long)]
    damaged: bool,
}

/// Makes a new ledger of an export.
///
/// Ids, states, outputs, times, positions, tombstones and the identity are those of the ledger that was
/// exported: go on with one of the two, never with both. It never adds to a ledger that is there.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  taskledger import ledger.jsonl ledger
  zstd -dc ledger.jsonl.zst | taskledger import - ledger
  ssh there taskledger export /var/lib/mailer/ledger | taskledger import - mailer

Exit codes: 0 the ledger is there, and on disk; 1 the export is not whole, or a line is wrong; 2 it could not \
be read, or the ledger could not be made. But for 0 there is no ledger.")]
pub(crate) struct ImportArgs {
    /// The export, or `-` for standard input.
    file: PathBuf,
    /// The directory of the new ledger: missing, or empty.
    path: PathBuf,
    /// Takes an export that is cut off, was changed, or was made of a damaged ledger. What is missing is lost:
    /// a task whose success was lost may run again. The loss is recorded.
    #[arg(long)]
    accept_loss: bool,
}

pub(crate) fn run(copies: &Copies) -> Done {
    match copies {
        Copies::Backup(args) => backup(args),
        Copies::Export(args) => export(args),
        Copies::Import(args) => import(args),
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

fn accepted(accept: bool) -> AcceptLoss {
    if accept { AcceptLoss::Yes } else { AcceptLoss::No }
}

fn export(args: &ExportArgs) -> Done {
    let inspection = look(&args.path)?;
    let damaged = accepted(args.damaged);
    let exported = match &args.output {
        Some(file) => to_file(&inspection, args, file)?,
        None => {
            let mut progress = Progress::beside_output();
            inspection.export_with(out(), damaged, || progress.step())
        }
    };
    match exported {
        Ok(exported) => {
            for missing in &exported.missing {
                complain(&format!("missing: {missing}"));
            }
            Ok(ExitCode::from(u8::from(!exported.missing.is_empty())))
        }
        Err(ExportError::Damaged(damage)) => {
            complain(&format!(
                "not exported, since the ledger is damaged: {damage}; --damaged exports what is left of it"
            ));
            Ok(ExitCode::FAILURE)
        }
        Err(ExportError::Write(error)) => Err(Failure::Output(error)),
        Err(error) => Err(Failure::Look(chain(&error))),
    }
}

type Outcome = Result<Exported, ExportError>;

/// Whenever we die, the file is the old one or the whole new one. What is no file, such as a pipe, is
/// written to.
fn to_file(inspection: &Inspection, args: &ExportArgs, file: &Path) -> Result<Outcome, Failure> {
    let damaged = accepted(args.damaged);
    let mut progress = Progress::before_output();
    let cannot =
        |error: io::Error| Failure::Look(format!("cannot write {}: {error}", file.display()));
    if file.metadata().is_ok_and(|found| !found.is_file()) {
        let out = File::options().write(true).open(file).map_err(cannot)?;
        return Ok(inspection.export_with(BufWriter::new(out), damaged, || progress.step()));
    }
    // The file that a link leads to, not the link.
    let file = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    // In the directory of a ledger it might take the place of one of the ledger's own files.
    outside(&file).map_err(|error| Failure::Look(chain(&error)))?;
    let dir =
        file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut unfinished = NamedTempFile::new_in(dir).map_err(cannot)?;
    let out = BufWriter::with_capacity(64 * 1024, unfinished.as_file_mut());
    let exported = inspection.export_with(out, damaged, || progress.step());
    if exported.is_ok() {
        unfinished.as_file().sync_all().map_err(cannot)?;
        unfinished.persist(&file).map_err(|error| cannot(error.error))?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(cannot)?;
    }
    Ok(exported)
}

fn import(args: &ImportArgs) -> Done {
    let from: Box<dyn BufRead> = if args.file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        let cannot = |error| Failure::Look(format!("cannot read {}: {error}", args.file.display()));
        Box::new(BufReader::with_capacity(64 * 1024, File::open(&args.file).map_err(cannot)?))
    };
    let mut progress = Progress::before_output();
    let imported = import_with(from, &args.path, accepted(args.accept_loss), || progress.step());
    drop(progress);
    let imported = match imported {
        Ok(imported) => imported,
        Err(error) => {
            let wrong = matches!(
                error,
                ImportError::NotAnExport(_) | ImportError::Line { .. } | ImportError::Incomplete(_)
            );
            let hint =
                if matches!(error, ImportError::Incomplete(_)) { " (--accept-loss)" } else { "" };
            complain(&format!("nothing was imported: {}{hint}", chain(&error)));
            return Ok(ExitCode::from(if wrong { 1 } else { 2 }));
        }
    };
    let mut out = out();
    writeln!(out, "tasks\t{}", imported.tasks)?;
    writeln!(out, "tombstones\t{}", imported.tombstones)?;
    if let Some(lost) = &imported.lost {
        writeln!(out, "loss accepted\t{}", clean(lost))?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
