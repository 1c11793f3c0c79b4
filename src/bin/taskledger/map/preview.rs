//! `--dry-run` and `--status`: what `map` would do, from a ledger that is only looked into.

use super::input::{self, Line};
use super::template::Template;
use super::{COMMAND, USAGE, fits};
use crate::args::MapArgs;
use crate::terminal::{Done, Failure, complain, look, out};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Write;
use std::process::ExitCode;
use taskledger::{ByteId, TaskState};

/// What is known of each id, by its text; and of crashed ones, that they are.
type Known = HashMap<String, (TaskState, bool)>;

pub(super) fn run(args: &MapArgs, template: &Template) -> Done {
    let Some(known) = known(args, template)? else { return Ok(ExitCode::from(USAGE)) };
    let end = if args.null { 0 } else { b'\n' };
    let (input, _) = super::open_input()?;
    let mut batches = input::read(input, end);
    let (mut seen, mut counts) = (HashSet::new(), BTreeMap::new());
    let mut out = out();
    while let Some(batch) = batches.blocking_recv() {
        let batch =
            batch.map_err(|error| Failure::Look(format!("cannot read the input: {error}")))?;
        for line in batch.lines {
            let (text, what) = match line {
                Line::TooLong(beginning) => (ByteId::from(beginning).to_string(), "too long"),
                Line::Whole(id) if id.is_empty() => continue,
                Line::Whole(id) => {
                    let text = ByteId::from(id).to_string();
                    let what = if seen.insert(text.clone()) {
                        becomes(args, known.get(&text).copied())
                    } else {
                        "duplicate"
                    };
                    (text, what)
                }
            };
            *counts.entry(what).or_insert(0_u64) += 1;
            if args.dry_run {
                writeln!(out, "{what}\t{text}")?;
            }
        }
    }
    if args.status {
        for (what, count) in &counts {
            writeln!(out, "{what}\t{count}")?;
        }
    } else {
        let counts: Vec<String> =
            counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        complain(&if counts.is_empty() { "no ids".to_owned() } else { counts.join(", ") });
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// What is in the ledger, which need not be there yet; `None` if that is for another command.
fn known(args: &MapArgs, template: &Template) -> Result<Option<Known>, Failure> {
    let mut known = Known::new();
    if !args.ledger.exists() {
        return Ok(Some(known));
    }
    let inspection = look(&args.ledger)?;
    if !fits(args, template, inspection.metadata().get(COMMAND).map(Vec::as_slice)) {
        return Ok(None);
    }
    for task in inspection.tasks() {
        let (id, details) = task?;
        let crashed = matches!(details.failure, Some(taskledger::Failure::Crashed));
        // Whose process is dead: the next open finds it crashed.
        let dead = details.state() == TaskState::Running;
        let state = if dead { TaskState::Failed } else { details.state() };
        known.insert(inspection.id_text(&id), (state, crashed || dead));
    }
    Ok(Some(known))
}

/// What is, for `--status`, or what would become of the id.
fn becomes(args: &MapArgs, known: Option<(TaskState, bool)>) -> &'static str {
    let (state, crashed) = known.unwrap_or((TaskState::NotFound, false));
    if args.status {
        return if crashed {
            "crashed"
        } else if state == TaskState::NotFound {
            "new"
        } else {
            state.name()
        };
    }
    let left = (args.no_retry && state == TaskState::Failed)
        || (!args.only.is_empty() && !args.only.iter().any(|only| only.wants(state, crashed)));
    if state == TaskState::Succeeded {
        "skip"
    } else if left {
        "leave"
    } else {
        "run"
    }
}
