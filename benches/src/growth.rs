//! Whether anything becomes dearer with more ids.

use crate::bytes::{of_checkpoint, weighed};
use crate::figure::{Figure, Goal, interleaved};
use crate::load::{closed_loop, fill, id, no_op, scattered};
use crate::{Options, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use taskledger::{Ledger, TaskState};

const BENCH: &str = "Growth";

/// Of each round.
const TASKS: u64 = 10_000;
const LAUNCHERS: usize = 64;

/// A ledger of one size.
struct Sized {
    ids: u64,
    path: PathBuf,
    /// What it has grown by since.
    more: AtomicU64,
}

impl Sized {
    async fn open(&self) -> Result<Ledger<String>> {
        Ok(Ledger::open(&self.path).await?)
    }
}

pub(crate) async fn growth(options: &Options) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir_in(&options.dir)?;
    let empty = dir.path().join("empty");
    Ledger::<String>::open(&empty).await?.close().await?;
    let mut all = Vec::new();
    for ids in &options.sizes {
        let path = dir.path().join(ids.to_string());
        let ledger = Ledger::<String>::open(&path).await?;
        fill(&ledger, 1024, 0..*ids, id).await?;
        ledger.checkpoint().await?;
        ledger.close().await?;
        all.push(Sized { ids: *ids, path, more: AtomicU64::new(0) });
    }
    let all: Vec<&Sized> = all.iter().collect();
    let per_id = |value: f64, of: &Sized| value / of.ids as f64;
    let mut figures = Vec::new();
    let mut told = |what: &str, unit, rounds: &[Vec<f64>]| {
        figures.extend(curve(what, unit, &all, rounds));
    };
    let each = async |of: &Sized| {
        let began = Instant::now();
        let ledger = of.open().await?;
        let took = began.elapsed();
        ledger.close().await?;
        Ok(per_id(took.as_secs_f64() * 1e9, of))
    };
    told("to open it", "ns/id", &interleaved(options.rounds, &all, each).await?);
    let each = async |of: &Sized| Ok(per_id(weighed(&of.path, "20-byte")?, of));
    told("memory after an open", "B/id", &interleaved(options.rounds, &all, each).await?);
    let each = async |of: &Sized| Ok(per_id(of_checkpoint(&of.path)? as f64, of));
    told("disk, in a checkpoint", "B/id", &interleaved(1, &all, each).await?);
    told("a query", "ns", &interleaved(options.rounds, &all, query).await?);
    let rounds = interleaved(options.rounds, &all, async |of| launches(of).await).await?;
    told("a task, 64 launchers", "us", &rounds);
    let mut pauses = Vec::new();
    for of in &all {
        pauses.extend(beside_a_checkpoint(options, of).await?);
    }
    figures.extend(pauses);
    Ok(figures)
}

/// A line each, beside the smallest.
fn curve(what: &str, unit: &'static str, all: &[&Sized], rounds: &[Vec<f64>]) -> Vec<Figure> {
    let smallest = rounds.first().cloned().unwrap_or_default();
    let figures = all.iter().zip(rounds).enumerate().map(|(place, (of, rounds))| {
        let figure = Figure::new(BENCH, what, unit, rounds).at("ids", of.ids);
        if place == 0 { figure } else { figure.against("the first", &smallest, Goal::AtMost(1.3)) }
    });
    figures.collect()
}

async fn query(of: &Sized) -> Result<f64> {
    const QUERIES: u64 = 500_000;
    let ledger = of.open().await?;
    let names: Vec<String> = scattered(QUERIES, of.ids).map(id).collect();
    let began = Instant::now();
    let found = names
        .iter()
        .filter(|name| ledger.query_task_state_quick(name.as_str()) == TaskState::Succeeded)
        .count();
    let took = began.elapsed().as_secs_f64() * 1e9 / QUERIES as f64;
    ledger.close().await?;
    if found == names.len() { Ok(took) } else { Err("an id was not found".into()) }
}

/// Microseconds a task, of launchers that launch one after the other.
async fn launches(of: &Sized) -> Result<f64> {
    let ledger = of.open().await?;
    let first = of.ids + of.more.fetch_add(TASKS, Ordering::Relaxed);
    let took = fill(&ledger, LAUNCHERS, first..first + TASKS, id).await?;
    ledger.close().await?;
    Ok(took * 1e6 / TASKS as f64)
}

/// The longest that a task takes while a checkpoint is made, and while none is.
async fn beside_a_checkpoint(options: &Options, of: &Sized) -> Result<Vec<Figure>> {
    let ledger = of.open().await?;
    let (mut quiet, mut busy, mut took) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        quiet.push(
            longest(&ledger, of, async {
                tokio::time::sleep(PAUSE).await;
                Ok(())
            })
            .await?
            .0,
        );
        let checkpoint = async { Ok(ledger.checkpoint().await?) };
        let (pause, seconds) = longest(&ledger, of, checkpoint).await?;
        busy.push(pause);
        took.push(seconds);
    }
    ledger.close().await?;
    let figure =
        |what, unit, rounds: &[f64]| Figure::new(BENCH, what, unit, rounds).at("ids", of.ids);
    Ok(vec![
        figure("the longest task, no checkpoint", "ms", &quiet),
        figure("the longest task beside a checkpoint", "ms", &busy)
            .against("that without", &quiet, None)
            .goal(Goal::AtMost(20.0)),
        figure("a checkpoint beside 64 launchers", "s", &took),
    ])
}

const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// Milliseconds of the longest task while something is done, and the seconds that this takes.
async fn longest(
    ledger: &Ledger<String>,
    of: &Sized,
    work: impl Future<Output = Result<()>>,
) -> Result<(f64, f64)> {
    let (over, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let numbers = Arc::new(AtomicU64::new(of.ids + of.more.load(Ordering::Relaxed)));
    let launched = {
        let (ledger, over, most) = (ledger.clone(), Arc::clone(&over), Arc::clone(&most));
        let numbers = Arc::clone(&numbers);
        tokio::spawn(closed_loop(LAUNCHERS, 0..u64::MAX, move |_| {
            let (ledger, over, most) = (ledger.clone(), Arc::clone(&over), Arc::clone(&most));
            let number = numbers.fetch_add(1, Ordering::Relaxed);
            async move {
                if over.load(Ordering::Relaxed) {
                    return Err("over".to_owned());
                }
                let began = Instant::now();
                no_op(&ledger, id(number)).await?;
                let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                most.fetch_max(took, Ordering::Relaxed);
                Ok(())
            }
        }))
    };
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let began = Instant::now();
    work.await?;
    let seconds = began.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    match launched.await? {
        Err(error) if error.to_string() == "over" => {}
        other => return Err(format!("{other:?}").into()),
    }
    of.more.store(numbers.load(Ordering::Relaxed) - of.ids, Ordering::Relaxed);
    Ok((most.load(Ordering::Relaxed) as f64 / 1e3, seconds))
}
