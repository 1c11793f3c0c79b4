//! `taskledger verify`: what is wrong, and where.

use crate::args::VerifyArgs;
use crate::terminal::{Done, Progress, clean, out};
use std::io::Write;
use std::process::ExitCode;
use taskledger::OpenError;
use taskledger::dump::Inspection;

pub(crate) fn run(args: &VerifyArgs) -> Done {
    let mut out = out();
    let inspection = match Inspection::open(&args.path) {
        Ok(inspection) => inspection,
        Err(OpenError::Damaged(damage)) => {
            writeln!(out, "{}", clean(&damage.to_string()))?;
            writeln!(out, "damaged: nothing of it can be read")?;
            out.flush()?;
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error.into()),
    };
    let mut progress = Progress::before_output();
    let report = inspection.verify_with(|| progress.step())?;
    drop(progress);
    for damage in &report.findings {
        writeln!(out, "{}", clean(&damage.to_string()))?;
    }
    for note in &report.notes {
        writeln!(out, "note: {}", clean(note))?;
    }
    let read = format!("{} tasks, {} records since the checkpoint", report.tasks, report.records);
    if report.is_sound() {
        writeln!(out, "sound: {read}")?;
    } else {
        writeln!(out, "damaged: {} findings; read {read}", report.findings.len())?;
    }
    out.flush()?;
    Ok(ExitCode::from(u8::from(!report.is_sound())))
}
