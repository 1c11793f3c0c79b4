//! `taskledger dump`: every task, one a line.

use crate::args::{DumpArgs, Format};
use crate::json::{self, Row};
use crate::terminal::{Done, Failure, Progress, chain, clean, complain, look, out, sound_or_not};
use crate::tree::{self, Leaf, Node};
use std::io::{self, Write};
use taskledger::dump::{Filter, Selected};
use taskledger::{EncodedId, TaskDetails, Timestamp};

pub(crate) fn run(args: &DumpArgs) -> Done {
    let inspection = look(&args.path)?;
    let filter = Filter {
        states: args.state.clone(),
        prefix: args.prefix.clone(),
        since: args.since,
        limit: args.limit,
    };
    let mut rows =
        Rows { tasks: inspection.select(&filter), errors: 0, progress: Progress::beside_output() };
    match args.format {
        Format::Table if args.tree => tree(&mut rows)?,
        Format::Table => table(&mut rows)?,
        Format::Json => json_lines(&mut rows)?,
        Format::Csv => csv(&mut rows)?,
    }
    Ok(sound_or_not(&inspection, rows.errors))
}

/// The wanted tasks; what cannot be read is told of and left out.
struct Rows<'a> {
    tasks: Selected<'a>,
    errors: usize,
    progress: Progress,
}

impl Iterator for Rows<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let (id, details) = self.task()?;
        Some(Row::of(self.tasks.inspection(), &id, &details))
    }
}

impl Rows<'_> {
    fn task(&mut self) -> Option<(EncodedId, TaskDetails)> {
        loop {
            match self.tasks.next()? {
                Ok(task) => {
                    self.progress.step();
                    return Some(task);
                }
                Err(error) => {
                    self.errors += 1;
                    complain(&chain(&error));
                }
            }
        }
    }
}

/// They are all read before the first one is printed.
fn tree(rows: &mut Rows<'_>) -> Result<(), Failure> {
    let mut nodes = Vec::new();
    while let Some((id, details)) = rows.task() {
        nodes.push(node(&id, &details, Row::of(rows.tasks.inspection(), &id, &details)));
    }
    print(tree::draw(nodes).into_iter().map(|leaf| {
        let Leaf { branch, task } = leaf;
        Row { id: branch + &task.id, ..task }
    }))
}

/// A task, to be drawn.
pub(crate) fn node<T>(id: &EncodedId, details: &TaskDetails, task: T) -> Node<T> {
    Node {
        id: id.as_bytes().to_vec(),
        parent: details.parent.as_ref().map(|parent| parent.as_bytes().to_vec()),
        // Its last record is later than those of what stands beside it only by chance.
        order: details.started_at.map_or_else(|| details.cell.seq.get(), Timestamp::as_micros),
        task,
    }
}

fn table(rows: &mut Rows<'_>) -> Result<(), Failure> {
    print(rows)
}

fn print(rows: impl Iterator<Item = Row>) -> Result<(), Failure> {
    let mut out = out();
    let mut line =
        |state: &str, attempt: &str, epoch: &str, times: [&str; 2], result: &str, id: &str| {
            let [started, ended] = times;
            writeln!(
                out,
                "{state:<9} {attempt:>7} {epoch:>5} {started:<27} {ended:<27} {result:<9} {id}"
            )
        };
    line("STATE", "ATTEMPT", "EPOCH", ["STARTED", "ENDED"], "RESULT", "ID")?;
    for row in rows {
        let result = match (&row.failure, row.marked, &row.output_not_kept) {
            (Some(failure), ..) => failure.kind,
            (None, true, _) => "marked",
            (None, false, _) if row.resolved => "resolved",
            (None, false, Some(_)) => "not kept",
            (None, false, None) => "-",
        };
        let times = [&row.started_at, &row.ended_at].map(|at| at.as_deref().unwrap_or("-"));
        let epoch = row.epoch.map_or_else(|| "-".to_owned(), |epoch| epoch.to_string());
        line(row.state, &row.attempt.to_string(), &epoch, times, result, &row.id)?;
    }
    Ok(out.flush()?)
}

fn json_lines(rows: &mut Rows<'_>) -> Result<(), Failure> {
    let mut out = out();
    for row in rows {
        writeln!(out, "{}", json::line(&row))?;
    }
    Ok(out.flush()?)
}

fn csv(rows: &mut Rows<'_>) -> Result<(), Failure> {
    const HEADER: [&str; 14] = [
        "id",
        "state",
        "attempt",
        "epoch",
        "queued_at",
        "started_at",
        "ended_at",
        "failure_kind",
        "failure_text",
        "output",
        "output_not_kept",
        "marked",
        "parent",
        "payload",
    ];
    let mut out = csv::Writer::from_writer(out());
    out.write_record(HEADER).map_err(output_error)?;
    for row in rows {
        let (kind, text) = row.failure.map_or(("", None), |failure| (failure.kind, failure.text));
        let fields = [
            row.id,
            row.state.to_owned(),
            row.attempt.to_string(),
            row.epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
            row.queued_at.unwrap_or_default(),
            row.started_at.unwrap_or_default(),
            row.ended_at.unwrap_or_default(),
            kind.to_owned(),
            text.map(|text| clean(&text)).unwrap_or_default(),
            row.output.map(|value| json::line(&value)).or(row.output_bytes).unwrap_or_default(),
            row.output_not_kept.map(|why| clean(&why)).unwrap_or_default(),
            row.marked.to_string(),
            row.parent.unwrap_or_default(),
            row.payload.map(|value| json::line(&value)).unwrap_or_default(),
        ];
        out.write_record(fields).map_err(output_error)?;
    }
    Ok(out.flush()?)
}

/// A closed pipe must stay one.
fn output_error(error: csv::Error) -> Failure {
    let text = error.to_string();
    if let csv::ErrorKind::Io(error) = error.into_kind() {
        return Failure::Output(error);
    }
    Failure::Output(io::Error::other(text))
}
