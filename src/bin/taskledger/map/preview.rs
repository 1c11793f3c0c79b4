//! `--dry-run` and `--status`: what `map` would do, from a ledger that is only looked into.

use super::feed::Seen;
use super::input::{self, Line};
use super::template::Template;
use super::{COMMAND, IN_USE, USAGE, in_use, misfit};
use crate::args::{MapArgs, Only};
use crate::terminal::{Done, Failure, chain, complain, out, sound_or_not, told_of_damage};
use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use taskledger::dump::{Graveyard, Inspection};
use taskledger::{ByteId, EncodedId, OpenError, TaskState};

const RUN: &str = "run";

/// What is known of the ids.
#[derive(Debug, Default)]
struct Known {
    /// Their states, and what asks for them.
    tasks: HashMap<EncodedId, (TaskState, Option<Only>)>,
    graveyard: Option<Graveyard>,
}

impl Known {
    fn of(&self, id: &EncodedId) -> (TaskState, Option<Only>) {
        let pruned = || self.graveyard.as_ref().is_some_and(|graveyard| graveyard.has(id));
        self.tasks.get(id).copied().unwrap_or_else(|| {
            let state = if pruned() { TaskState::Succeeded } else { TaskState::NotFound };
            (state, Only::of(state, None))
        })
    }
}

pub(super) fn run(args: &MapArgs, template: &Template) -> Done {
    let (known, code) = match known(args, template)? {
        Ok(known) => known,
        Err(refused) => return Ok(refused),
    };
    let end = if args.null { 0 } else { b'\n' };
    let (input, _) = super::open_input()?;
    let mut batches = input::read(input, end, |_| {});
    let (mut seen, mut counts) = (Seen::default(), BTreeMap::new());
    let mut out = out();
    while let Some(batch) = batches.blocking_recv() {
        let batch =
            batch.map_err(|error| Failure::Look(format!("cannot read the input: {error}")))?;
        for line in batch.lines {
            let (text, what) = match line {
                Line::TooLong(beginning) => (ByteId::from(beginning).to_string(), "too long"),
                Line::Whole(id) if id.is_empty() => continue,
                Line::Whole(id) => {
                    let id = ByteId::from(id);
                    let what = match EncodedId::of(&id) {
                        Err(_) => "too long",
                        Ok(encoded) => {
                            let state = known.of(&encoded);
                            let what = becomes(args, state);
                            match seen.first(id.as_bytes()) {
                                // No argument can have one.
                                true if what == RUN && id.as_bytes().contains(&0) => "NUL",
                                true => what,
                                false => "duplicate",
                            }
                        }
                    };
                    (id.to_string(), what)
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
    Ok(code)
}

/// What is in the ledger, which need not be there yet, and the exit code that it gives; or the one with
/// which `map` would refuse it.
fn known(
    args: &MapArgs,
    template: &Template,
) -> Result<Result<(Known, ExitCode), ExitCode>, Failure> {
    let mut known = Known::default();
    let inspection = match Inspection::open(&args.ledger) {
        Ok(inspection) => inspection,
        Err(error @ OpenError::Locked { .. }) => {
            complain(&in_use(&error, &args.ledger));
            return Ok(Err(ExitCode::from(IN_USE)));
        }
        // It is yet to be created, or its creation was cut off and will be begun again.
        Err(OpenError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Ok(Ok((known, ExitCode::SUCCESS)));
        }
        Err(error) => return Err(error.into()),
    };
    told_of_damage(&inspection);
    inspection.check_id_type::<ByteId>()?;
    // What they have become is asked, whatever was run.
    let metadata = inspection.metadata();
    let remembered = metadata.get(COMMAND).map(Vec::as_slice);
    if let Some(why) = misfit(args, template, remembered).filter(|_| !args.status) {
        complain(&why);
        return Ok(Err(ExitCode::from(USAGE)));
    }
    let mut errors = 0;
    for task in inspection.tasks() {
        match task {
            Ok((id, details)) => {
                // Whose process is dead: the next open finds it crashed.
                let (state, failure) = if details.state() == TaskState::Running {
                    (TaskState::Failed, Some(&taskledger::Failure::Crashed))
                } else {
                    (details.state(), details.failure.as_ref())
                };
                known.tasks.insert(id, (state, Only::of(state, failure)));
            }
            Err(error) => {
                complain(&chain(&error));
                errors += 1;
            }
        }
    }
    match inspection.graveyard() {
        Ok(graveyard) => known.graveyard = Some(graveyard),
        Err(error) => {
            complain(&chain(&error));
            errors += 1;
        }
    }
    Ok(Ok((known, sound_or_not(&inspection, errors))))
}

/// What is, for `--status`, or what would become of the id.
fn becomes(args: &MapArgs, (state, id): (TaskState, Option<Only>)) -> &'static str {
    if args.status {
        id.map_or_else(|| state.name(), Only::name)
    } else if state == TaskState::Succeeded {
        "skip"
    } else if args.wants(state, id) {
        RUN
    } else {
        "leave"
    }
}
