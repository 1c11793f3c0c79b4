//! `taskledger stats`: the ledger in numbers.

use crate::args::{StatsArgs, StatsFormat};
use crate::json;
use crate::terminal::{Done, Failure, clean, complain, look, out, sound_or_not};
use serde_json::{Map, Value, json};
use std::io::Write;
use taskledger::dump::{Inspection, Stats};
use taskledger::{TaskState, Timestamp};

pub(crate) fn run(args: &StatsArgs) -> Done {
    let inspection = look(&args.path)?;
    let stats = inspection.stats();
    for error in &stats.errors {
        complain(error);
    }
    match args.format {
        StatsFormat::Table => table(&inspection, &stats)?,
        StatsFormat::Json => {
            let mut out = out();
            writeln!(out, "{}", json::line(&object(&inspection, &stats)))?;
            out.flush()?;
        }
    }
    Ok(sound_or_not(&inspection, stats.errors.len()))
}

/// The states that a task can be listed in.
fn states() -> impl Iterator<Item = TaskState> {
    TaskState::ALL.into_iter().filter(|state| *state != TaskState::NotFound)
}

fn table(inspection: &Inspection, stats: &Stats) -> Result<(), Failure> {
    let mut out = out();
    let mut line = |name: &str, value: &str| writeln!(out, "{name:<24} {value}");
    let time = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    let total: u64 = states().map(|state| stats.count(state)).sum();
    line("ledger", &inspection.ledger())?;
    line("created", &time(inspection.created_at()))?;
    line("id type", &inspection.id_shape().to_string())?;
    line("opened, times", &stats.epoch.to_string())?;
    line("tasks", &total.to_string())?;
    for state in states() {
        line(&format!("  {state}"), &stats.count(state).to_string())?;
    }
    line("tombstones", &stats.tombstones.to_string())?;
    line("attempts", &stats.attempts.to_string())?;
    line("  most of one task", &stats.most_attempts.to_string())?;
    line("oldest running since", &time(stats.oldest_running))?;
    line("oldest failed since", &time(stats.oldest_failed))?;
    line("newest change", &time(stats.newest_change))?;
    line("records", &inspection.last_seq().to_string())?;
    line("  in the checkpoint", &stats.checkpoint_seq.to_string())?;
    line("  in the log", &stats.log_records.to_string())?;
    line("checkpoint, bytes", &stats.checkpoint_bytes.to_string())?;
    line("log, bytes", &stats.log_bytes.to_string())?;
    line(
        "files, bytes on disk",
        &inspection.files().iter().map(|f| f.bytes).sum::<u64>().to_string(),
    )?;
    for file in inspection.files() {
        line(&format!("  {}", file.name), &file.bytes.to_string())?;
    }
    line("metadata, names", &stats.metadata.len().to_string())?;
    for (name, bytes) in &stats.metadata {
        line(&format!("  {}", clean(name)), &format!("{bytes} bytes"))?;
    }
    Ok(out.flush()?)
}

fn object(inspection: &Inspection, stats: &Stats) -> Value {
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let tasks: Map<String, Value> =
        states().map(|state| (state.name().to_owned(), stats.count(state).into())).collect();
    let files: Map<String, Value> =
        inspection.files().iter().map(|file| (file.name.clone(), file.bytes.into())).collect();
    let metadata: Map<String, Value> =
        stats.metadata.iter().map(|(name, bytes)| (name.clone(), (*bytes).into())).collect();
    json!({
        "ledger": inspection.ledger(),
        "created_at": time(inspection.created_at()),
        "id_type": inspection.id_shape().to_string(),
        "epoch": stats.epoch.get(),
        "tasks": tasks,
        "tombstones": stats.tombstones,
        "attempts": stats.attempts,
        "most_attempts": stats.most_attempts,
        "oldest_running": time(stats.oldest_running),
        "oldest_failed": time(stats.oldest_failed),
        "newest_change": time(stats.newest_change),
        "records": inspection.last_seq().get(),
        "checkpoint_records": stats.checkpoint_seq.get(),
        "checkpoint_bytes": stats.checkpoint_bytes,
        "log_records": stats.log_records,
        "log_bytes": stats.log_bytes,
        "files": files,
        "metadata": metadata,
    })
}
