//! `taskledger queue`: what waits to be performed, in its order.

use crate::args::QueueArgs;
use crate::json::{self, Row};
use crate::terminal::{Done, Progress, chain, complain, look, out, sound_or_not};
use std::io::Write;
use taskledger::TaskState;
use taskledger::dump::Filter;

pub(crate) fn run(args: &QueueArgs) -> Done {
    let inspection = look(&args.path)?;
    let filter = Filter { states: vec![TaskState::Queued], ..Filter::default() };
    let (mut queued, mut errors) = (Vec::new(), 0);
    let mut progress = Progress::beside_output();
    for task in inspection.select(&filter) {
        progress.step();
        match task {
            Ok((id, details)) => {
                queued.push((details.cell.seq, Row::of(&inspection, &id, &details)));
            }
            Err(error) => {
                errors += 1;
                complain(&chain(&error));
            }
        }
    }
    // Put into the queue one after the other, as their records stand in the log.
    queued.sort_by_key(|(seq, _)| *seq);
    let mut out = out();
    if !args.json {
        writeln!(out, "{:>6} {:<27} {:>7} ID  PAYLOAD", "PLACE", "QUEUED", "ATTEMPT")?;
    }
    for (place, (_, row)) in (1..=args.limit.unwrap_or(usize::MAX)).zip(&queued) {
        if args.json {
            writeln!(out, "{}", json::line(row))?;
            continue;
        }
        let (at, id) = (row.queued_at.as_deref().unwrap_or("-"), &row.id);
        let payload = row.payload.as_ref().map_or_else(|| "-".to_owned(), json::line);
        // What it will be when it is performed.
        let attempt = row.attempt + 1;
        writeln!(out, "{place:>6} {at:<27} {attempt:>7} {id}  {payload}")?;
    }
    out.flush()?;
    Ok(sound_or_not(&inspection, errors))
}
