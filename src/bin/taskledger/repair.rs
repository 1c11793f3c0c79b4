//! `taskledger repair`: going on after a loss.

use crate::args::RepairArgs;
use crate::terminal::{Done, Failure, clean, complain, out};
use std::io::Write;
use std::process::ExitCode;
use taskledger::AcceptLoss;
use taskledger::dump::repair;

const EXPLANATION: &str = "\
nothing was done: a repair keeps what can still be read and gives up the rest, so a task whose \
success was lost may run again; see what is wrong with `taskledger verify`, and say --accept-loss \
to go on";

pub(crate) fn run(args: &RepairArgs) -> Done {
    if !args.accept_loss {
        return Err(Failure::Look(EXPLANATION.to_owned()));
    }
    complain("reading everything that is left");
    let report = repair(&args.path, AcceptLoss::Yes)?;
    let mut out = out();
    if report.was_sound() {
        writeln!(out, "sound: nothing to repair, and nothing was changed")?;
    }
    for damage in &report.damage {
        writeln!(out, "was damaged: {}", clean(&damage.to_string()))?;
    }
    for repaired in &report.repaired {
        writeln!(out, "repaired without loss: {}", clean(repaired))?;
    }
    if let Some(lost) = &report.lost {
        writeln!(out, "loss accepted: {}", clean(lost))?;
    }
    if let Some(evidence) = &report.evidence {
        writeln!(out, "the damaged files are kept in {}", clean(&evidence.display().to_string()))?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
