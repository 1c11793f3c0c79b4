//! What the ledger costs: `cargo run --release -p taskledger-benches -- --help`.
//!
//! Every figure is taken several times, the variants in turn (A B C A B C ...), on the same disk;
//! medians are printed with their spread. On a shared machine only the ratios mean much.

mod answers;
mod flat;
mod map;
mod peers;

use clap::Parser;
use flat::FlatJournal;
use serde_json::{Value, json};
use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use taskledger::{Ledger, MemoryJournal, TaskState};
use tokio::task::JoinSet;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Measures the ledger and prints a table, and JSON with --json.
#[derive(Debug, Parser)]
#[command(after_help = "Example: taskledger-benches --rounds 7 throughput reopen query")]
struct Options {
    /// What to measure: throughput, reopen, query, answers, tombstones, map, skip; all by default. The
    /// last two need the command, built for release, and `map` needs GNU parallel. And, only if named,
    /// peers (benches/README.md).
    what: Vec<String>,
    /// Rounds of each variant.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Where to put the ledgers; a temporary directory below it is used and removed.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Ids for reopening, querying, pruning and skipping.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000])]
    ids: Vec<u64>,
    /// Launchers at once, for the throughput.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 1024])]
    launchers: Vec<usize>,
    /// Only these peers.
    #[arg(long, value_delimiter = ',', default_values_t = peers::PEERS.map(String::from))]
    peers: Vec<String>,
    /// Also write the figures as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Options {
    /// Launchers, and tasks for about a second of work.
    fn launchers(&self) -> impl Iterator<Item = (usize, usize)> {
        let tasks = |launchers| match launchers {
            0..16 => 2_000,
            16..512 => 60_000,
            _ => 300_000,
        };
        self.launchers.iter().map(move |launchers| (*launchers, tasks(*launchers)))
    }
}

fn main() -> Result<()> {
    if let Some(done) = peers::as_peer() {
        return done;
    }
    let options = Options::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let Some(done) = runtime.block_on(answers::open_and_weigh()) {
        return done;
    }
    rustix::fs::sync();
    std::thread::sleep(Duration::from_secs(2));
    let wants = |what: &str| options.what.is_empty() || options.what.iter().any(|w| w == what);
    let mut figures = Vec::new();
    if wants("throughput") {
        for (launchers, tasks) in options.launchers() {
            figures.extend(runtime.block_on(throughput(&options, launchers, tasks))?);
        }
    }
    if wants("reopen") || wants("query") {
        for ids in &options.ids {
            figures.extend(runtime.block_on(reopen_and_query(&options, *ids))?);
        }
    }
    if wants("answers") {
        figures.extend(runtime.block_on(answers::answers(&options))?);
    }
    if wants("tombstones") {
        for ids in &options.ids {
            figures.push(runtime.block_on(answers::tombstones(&options, *ids))?);
        }
    }
    if wants("map") {
        figures.extend(map::commands(&options)?);
    }
    if wants("skip") {
        for ids in &options.ids {
            figures.push(runtime.block_on(map::skipping(&options, *ids))?);
        }
    }
    // Only if asked for: they take minutes to build.
    if options.what.iter().any(|what| what == "peers") {
        figures.extend(peers::peers(&options)?);
    }
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&figures)?)?;
    }
    Ok(())
}

/// Where durable tasks are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Durable,
    Flat,
    BareAppend,
    Memory,
}

impl Variant {
    const ALL: [Self; 4] = [Self::Flat, Self::Durable, Self::BareAppend, Self::Memory];

    const fn name(self) -> &'static str {
        match self {
            Self::Durable => "ledger on sled",
            Self::Flat => "same ledger on a flat file",
            Self::BareAppend => "bare append, no ledger",
            Self::Memory => "same ledger in memory",
        }
    }
}

async fn throughput(options: &Options, launchers: usize, tasks: usize) -> Result<Vec<Value>> {
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); Variant::ALL.len()];
    for _ in 0..options.rounds {
        for (variant, rates) in Variant::ALL.into_iter().zip(&mut rates) {
            let dir = tempfile::tempdir_in(&options.dir)?;
            rates.push(one_throughput(variant, dir.path(), launchers, tasks).await?);
            drop(dir);
            rustix::fs::sync();
        }
    }
    println!("\ndurable tasks per second, both transitions durable, {launchers} launchers");
    let against = rates.first().cloned().unwrap_or_default();
    let mut figures = Vec::new();
    for (variant, rates) in Variant::ALL.into_iter().zip(&rates) {
        let ratios: Vec<f64> =
            rates.iter().zip(&against).map(|(rate, limit)| rate / limit).collect();
        let (low, median, high) = spread(rates);
        let (low_ratio, ratio, high_ratio) = spread(&ratios);
        println!(
            "  {:<28} {median:>10.0} ({low:.0}-{high:.0})   {ratio:.2} of the flat file ({low_ratio:.2}-{high_ratio:.2})",
            variant.name()
        );
        figures.push(json!({
            "figure": "tasks per second", "launchers": launchers, "variant": variant.name(),
            "median": median, "low": low, "high": high, "ratio": ratio,
        }));
    }
    Ok(figures)
}

async fn one_throughput(
    variant: Variant,
    dir: &Path,
    launchers: usize,
    tasks: usize,
) -> Result<f64> {
    if variant == Variant::BareAppend {
        return bare_append(dir, launchers, tasks);
    }
    let builder = Ledger::<String>::builder();
    let ledger = match variant {
        Variant::Durable | Variant::BareAppend => builder.open(dir.join("ledger")).await?,
        Variant::Flat => {
            let journal = FlatJournal::create(&dir.join("flat")).map_err(|e| e.to_string())?;
            builder.open_journal(journal).await?
        }
        Variant::Memory => builder.open_journal(MemoryJournal::new()).await?,
    };
    let began = Instant::now();
    let mut set = JoinSet::new();
    let each = tasks / launchers;
    for launcher in 0..launchers {
        let ledger = ledger.clone();
        set.spawn(async move {
            for task in 0..each {
                let done =
                    ledger.launch_block(id(launcher * each + task), async { Ok::<_, ()>(()) });
                done.await.map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(())
        });
    }
    while let Some(done) = set.join_next().await {
        done??;
    }
    let rate = (each * launchers) as f64 / began.elapsed().as_secs_f64();
    ledger.close().await?;
    Ok(rate)
}

/// Two records of 35 bytes a task, half of the launchers' in a batch, one `fdatasync` a batch.
fn bare_append(dir: &Path, launchers: usize, tasks: usize) -> Result<f64> {
    let mut file = File::create(dir.join("bare"))?;
    let batch = (launchers / 2).max(1);
    let bytes = vec![b'x'; 35 * batch];
    let began = Instant::now();
    for _ in 0..(2 * tasks / batch) {
        file.write_all(&bytes)?;
        file.sync_data()?;
    }
    Ok(tasks as f64 / began.elapsed().as_secs_f64())
}

async fn reopen_and_query(options: &Options, ids: u64) -> Result<Vec<Value>> {
    let dir = tempfile::tempdir_in(&options.dir)?;
    let path = dir.path().join("ledger");
    let ledger = Ledger::<String>::open(&path).await?;
    fill(&ledger, ids).await?;
    ledger.close().await?;
    drop(ledger);
    let mut figures = Vec::new();
    for compacted in [false, true] {
        if compacted {
            let ledger = Ledger::<String>::open(&path).await?;
            ledger.checkpoint().await?;
            ledger.close().await?;
        }
        let mut times = Vec::new();
        for _ in 0..options.rounds {
            let began = Instant::now();
            let ledger = Ledger::<String>::open(&path).await?;
            times.push(began.elapsed().as_secs_f64());
            ledger.close().await?;
        }
        let (low, median, high) = spread(&times);
        let what = if compacted { "checkpoint made" } else { "as the process left it" };
        println!(
            "\nreopening {ids} succeeded 20-byte ids, {what}: {median:.3} s ({low:.3}-{high:.3})"
        );
        figures.push(json!({
            "figure": "reopen seconds", "ids": ids, "compacted": compacted,
            "median": median, "low": low, "high": high,
        }));
    }
    let ledger = Ledger::<String>::open(&path).await?;
    figures.push(query(&ledger, ids, options.rounds)?);
    ledger.close().await?;
    Ok(figures)
}

/// Random order, one task, hits only.
fn query(ledger: &Ledger<String>, ids: u64, rounds: usize) -> Result<Value> {
    const QUERIES: u64 = 1_000_000;
    let names: Vec<String> = (0..QUERIES)
        .map(|n| id(usize::try_from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % ids).unwrap_or(0)))
        .collect();
    let mut times = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        let hits = names
            .iter()
            .filter(|name| ledger.query_task_state_quick(name.as_str()) == TaskState::Succeeded)
            .count();
        times.push(began.elapsed().as_secs_f64() * 1e9 / QUERIES as f64);
        if hits != names.len() {
            return Err("an id was not found".into());
        }
    }
    let (low, median, high) = spread(&times);
    println!("\nquery of a 20-byte id among {ids}: {median:.0} ns ({low:.0}-{high:.0})");
    Ok(json!({ "figure": "query ns", "ids": ids, "median": median, "low": low, "high": high }))
}

async fn fill(ledger: &Ledger<String>, ids: u64) -> Result<()> {
    const LAUNCHERS: u64 = 1024;
    let mut set = JoinSet::new();
    for launcher in 0..LAUNCHERS {
        let ledger = ledger.clone();
        set.spawn(async move {
            let mut number = launcher;
            while number < ids {
                let name = id(usize::try_from(number).map_err(|error| error.to_string())?);
                let done = ledger.launch_block(name, async { Ok::<_, ()>(()) });
                done.await.map_err(|error| error.to_string())?;
                number += LAUNCHERS;
            }
            Ok::<_, String>(())
        });
    }
    while let Some(done) = set.join_next().await {
        done??;
    }
    Ok(())
}

/// 20 bytes.
fn id(number: usize) -> String {
    format!("task-{number:015}")
}

/// Lowest, median, highest.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |part: usize| sorted.get(part).copied().unwrap_or(f64::NAN);
    (at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1)))
}
