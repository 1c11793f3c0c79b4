//! What a run says at its end, and its exit code.

use super::course::{Course, Stop};
use super::progress::{Counts, read};
use super::{INTERRUPTED, NOBODY_READS, USAGE};
use crate::args::{MapArgs, Summary};
use crate::terminal::complaint;
use serde_json::json;
use std::process::ExitCode;
use std::time::Duration;

/// The last line, as it is printed; `None` if none is wanted.
pub(super) fn text(
    args: &MapArgs,
    counts: &Counts,
    course: Course,
    took: Duration,
) -> Option<String> {
    if args.summary == Summary::Json {
        return Some(json(counts, course != Course::On, took));
    }
    if args.quiet {
        return None;
    }
    let mut text = format!(
        "{} succeeded, {} failed, {} skipped",
        read(&counts.succeeded),
        read(&counts.failed),
        read(&counts.skipped)
    );
    let more = [
        (&counts.cancelled, "cancelled"),
        (&counts.left, "left alone"),
        (
            &counts.duplicates,
            if read(&counts.duplicates) == 1 { "duplicate" } else { "duplicates" },
        ),
        (&counts.blank, "blank"),
    ];
    for (count, what) in more.iter().filter(|(count, _)| read(count) > 0) {
        text.push_str(&format!(", {} {what}", read(count)));
    }
    let early = if course == Course::On { "" } else { "; it has ended early" };
    Some(complaint(&format!("{text}, in {:.1} s{early}", took.as_secs_f64())))
}

/// All of it, as one line.
pub(super) fn json(counts: &Counts, ended_early: bool, took: Duration) -> String {
    let value = json!({
        "lines": read(&counts.lines),
        "succeeded": read(&counts.succeeded),
        "failed": read(&counts.failed),
        "cancelled": read(&counts.cancelled),
        "skipped": read(&counts.skipped),
        "left": read(&counts.left),
        "duplicates": read(&counts.duplicates),
        "blank": read(&counts.blank),
        "seconds": took.as_secs_f64(),
        "ended_early": ended_early,
    });
    format!("{}\n", crate::json::line(&value))
}

pub(super) fn exit_code(args: &MapArgs, counts: &Counts, course: Course) -> ExitCode {
    let failed = read(&counts.failed);
    match course {
        Course::End | Course::NothingNew(Stop::Interrupted) => ExitCode::from(INTERRUPTED),
        Course::NothingNew(Stop::NobodyReads) => ExitCode::from(NOBODY_READS),
        Course::NothingNew(Stop::NotRun(code)) => ExitCode::from(code),
        Course::NothingNew(Stop::Input) => ExitCode::from(USAGE),
        Course::NothingNew(Stop::Failed | Stop::Broken) => ExitCode::FAILURE,
        Course::On if failed + read(&counts.left) > 0 && args.only.is_empty() => ExitCode::FAILURE,
        Course::On if failed > 0 => ExitCode::FAILURE,
        Course::On => ExitCode::SUCCESS,
    }
}
