//! `taskledger show`: all that is known of one task.

use crate::args::ShowArgs;
use crate::dump::node;
use crate::json::{self, Row, hex};
use crate::log;
use crate::terminal::{Done, Failure, chain, clean, complain, look, out, sound_or_not};
use crate::tree;
use std::io::Write;
use std::process::ExitCode;
use taskledger::dump::{Filter, History, Inspection};
use taskledger::{EncodedId, Parent, SeqNo, TaskDetails, TaskState};

pub(crate) fn run(args: &ShowArgs) -> Done {
    let inspection = look(&args.path)?;
    let id = if args.hex {
        EncodedId::from_bytes(&from_hex(&args.id).map_err(Failure::Look)?)
    } else {
        let wrong = |what| {
            let (id, shape) = (&args.id, inspection.id_shape());
            Failure::Look(format!("\"{id}\" is no id of this ledger ({shape}): {what}"))
        };
        inspection.parse_id(&args.id).map_err(wrong)?
    };
    let Some(history) = inspection.task(&id)? else {
        if inspection.is_tombstone(&id)? {
            let text = inspection.id_text(&id);
            writeln!(
                out(),
                "{text} has succeeded; it was pruned, and nothing else is known of it"
            )?;
            return Ok(ExitCode::SUCCESS);
        }
        complain(&format!("the ledger knows nothing of the id {}", inspection.id_text(&id)));
        return Ok(ExitCode::FAILURE);
    };
    for error in &history.errors {
        complain(error);
    }
    print(&inspection, &id, &history)?;
    if args.tree {
        tree(&inspection, &id)?;
    }
    Ok(sound_or_not(&inspection, history.errors.len()))
}

fn print(inspection: &Inspection, id: &EncodedId, history: &History) -> Result<(), Failure> {
    let History { details, checkpoint, records, .. } = history;
    let row = Row::of(inspection, id, details);
    // As long as the log has the records of it, they are shown.
    let pruned = details.state() == TaskState::NotFound && inspection.is_tombstone(id)?;
    let state = if pruned { "it has succeeded; it was pruned" } else { row.state }.to_owned();
    let failure = |row: json::FailureRow| match row.text {
        Some(text) => format!("{}: {}", row.kind, in_lines(&text)),
        None => row.kind.to_owned(),
    };
    let output = row
        .output
        .map(|value| json::line(&value))
        .or_else(|| row.output_bytes.map(|bytes| format!("does not read, its bytes: {bytes}")))
        .or_else(|| row.output_not_kept.map(|why| format!("not kept: {}", clean(&why))));
    let note = |note: &json::NoteRow| format!("{} {}", note.at, in_lines(&note.text));
    let notes: Vec<String> = row.notes.iter().map(note).collect();
    let failure_text = details.failure.as_ref().and_then(|failure| failure.text());
    let texts = row.notes.iter().map(|note| &*note.text).chain(failure_text);
    // What takes lines is printed once.
    let told: Vec<String> = texts.filter(|text| text.contains('\n')).map(clean).collect();
    let lines = [
        ("id", Some(row.id)),
        ("id bytes", Some(hex(id.as_bytes()))),
        ("state", Some(state)),
        ("attempt", Some(row.attempt.to_string()).filter(|_| row.attempt > 0)),
        ("epoch", row.epoch.map(|epoch| epoch.to_string())),
        ("queued at", row.queued_at),
        ("started at", row.started_at),
        ("ended at", row.ended_at),
        ("revoke started at", row.revoke_started_at),
        ("failure", row.failure.map(failure)),
        ("revoke failure", row.revoke_failure.map(failure)),
        ("succeeded by", row.marked.then(|| "a mark, not an attempt".to_owned())),
        ("resolved", row.resolved.then(|| "somebody found out that it had succeeded".to_owned())),
        (
            "crashed before",
            details.crashed_before.then(|| "nobody has said what came of that attempt".to_owned()),
        ),
        ("effect key", inspection.effect_key(id, details).map(|key| key.to_string())),
        ("pinned", row.pinned.then(|| "it is not pruned by age".to_owned())),
        ("notes", (!notes.is_empty()).then(|| notes.join(BELOW))),
        ("within", within(inspection, details)),
        ("payload", row.payload.map(|value| json::line(&value))),
        ("output", output),
    ];
    let mut out = out();
    for (name, value) in lines.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
        writeln!(out, "{name:<17}  {value}")?;
    }
    let base = inspection.checkpoint_seq();
    if base == SeqNo::ZERO {
        writeln!(out, "\nall its records:")?;
    } else {
        let before = checkpoint.as_ref().map_or(TaskState::NotFound, |details| details.state());
        writeln!(
            out,
            "\nits records since the checkpoint at record {base}, where it was {before}; earlier ones are folded into that:"
        )?;
    }
    for record in records {
        let line = log::line(inspection, record);
        match told.iter().find_map(|text| line.strip_suffix(text)) {
            Some(beginning) => writeln!(out, "{beginning}as above")?,
            None => writeln!(out, "{line}")?,
        }
    }
    Ok(out.flush()?)
}

/// What begins a line of a value that has several.
const BELOW: &str = "\n                   ";

/// A text in its own lines.
fn in_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(clean).collect();
    lines.join(BELOW)
}

/// The scopes within which it ran, the nearest one first.
fn within(inspection: &Inspection, details: &TaskDetails) -> Option<String> {
    let id_of = |parent: &Parent| EncodedId::from_bytes(parent.as_bytes());
    let mut scopes: Vec<EncodedId> = details.parent.iter().map(id_of).collect();
    // As far as the ledger knows them; a damaged one may lead round in a circle.
    while let Some(scope) = scopes.last() {
        let above = inspection.task(scope).ok().flatten();
        let above = above.and_then(|history| history.details.parent.as_ref().map(id_of));
        match above {
            Some(above) if !scopes.contains(&above) => scopes.push(above),
            _ => break,
        }
    }
    let names: Vec<String> = scopes.iter().map(|scope| inspection.id_text(scope)).collect();
    (!names.is_empty()).then(|| names.join(", within "))
}

/// It and all that ran within it.
fn tree(inspection: &Inspection, id: &EncodedId) -> Result<(), Failure> {
    let mut nodes = Vec::new();
    for task in inspection.select(&Filter::default()) {
        match task {
            Ok((id, details)) => {
                let line = format!("{}  {}", inspection.id_text(&id), details.state());
                nodes.push(node(&id, &details, (id.clone(), line)));
            }
            Err(error) => complain(&chain(&error)),
        }
    }
    // It is a root here, whatever it ran within.
    for node in &mut nodes {
        if node.id == id.as_bytes() {
            node.parent = None;
        }
    }
    let drawn = tree::draw(nodes);
    let drawn = drawn.into_iter().skip_while(|leaf| leaf.task.0 != *id);
    let mut out = out();
    writeln!(out, "\nwhat ran within it:")?;
    for (number, leaf) in drawn.enumerate() {
        if number > 0 && leaf.branch.is_empty() {
            break;
        }
        writeln!(out, "{}{}", leaf.branch, leaf.task.1)?;
    }
    Ok(out.flush()?)
}

fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let wrong = || format!("\"{text}\" is not an even number of hexadecimal digits");
    let digits = text.bytes().map(|digit| char::from(digit).to_digit(16));
    let digits: Vec<u32> = digits.collect::<Option<_>>().ok_or_else(wrong)?;
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(high * 16 + low).ok(),
        _ => None,
    });
    pairs.collect::<Option<_>>().ok_or_else(wrong)
}
