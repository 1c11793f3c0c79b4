//! What the answers of `run` cost, and what a tombstone does.

use crate::bytes::{of_checkpoint, weighed};
use crate::figure::{Figure, interleaved};
use crate::load::{closed_loop, id, tasks};
use crate::{Options, Result};
use std::time::{Duration, Instant};
use taskledger::{ClaimKind, Context, Ledger, Retention};
use tokio::sync::watch;
use tokio::task::JoinSet;

const BENCH: &str = "Answers of `run`";

type Answers = Ledger<String, String>;

async fn answer(_: Context<String>) -> std::result::Result<String, String> {
    Ok("an answer of thirty-two letters.".to_owned())
}

/// A replayed answer, a joined one, and a run beside a plain launch.
pub(crate) async fn answers(options: &Options) -> Result<Vec<Figure>> {
    let mut figures = replayed(options).await?;
    figures.push(joined(options).await?);
    for launchers in &options.launchers {
        figures.extend(beside_launch(options, *launchers).await?);
    }
    Ok(figures)
}

async fn replayed(options: &Options) -> Result<Vec<Figure>> {
    const IDS: u64 = 100_000;
    const ASKED: u64 = 20_000;
    let dir = tempfile::tempdir_in(&options.dir)?;
    let ledger = Answers::open(dir.path().join("ledger")).await?;
    one(&ledger, 1024, IDS, false).await?;
    let mut figures = Vec::new();
    for (place, compacted) in [("log", false), ("checkpoint", true)] {
        if compacted {
            ledger.checkpoint().await?;
        }
        // The same id each time, and any.
        let each = async |step: u64| {
            let began = Instant::now();
            for number in 0..ASKED {
                let claim = ledger.run(id(number * step % IDS), answer).await;
                if claim.map_err(|error| error.to_string())?.kind != ClaimKind::Replayed {
                    return Err("it was run again".into());
                }
            }
            Ok(began.elapsed().as_secs_f64() * 1e6 / ASKED as f64)
        };
        let rounds = interleaved(options.rounds, &[0, 7_919], each).await?;
        for (which, rounds) in ["the same id", "any id"].into_iter().zip(&rounds) {
            let what = format!("a replayed answer, {which}, from the {place}");
            figures.push(Figure::new(BENCH, what, "us", rounds).at("ids", IDS));
        }
    }
    ledger.close().await?;
    Ok(figures)
}

/// From the end of the attempt until the last of those that have joined it has its answer.
async fn joined(options: &Options) -> Result<Figure> {
    const CALLERS: usize = 10_000;
    let dir = tempfile::tempdir_in(&options.dir)?;
    let ledger = Answers::open(dir.path().join("ledger")).await?;
    let mut times = Vec::new();
    for round in 0..options.rounds {
        let (open, gate) = watch::channel(false);
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (ledger, gate) = (ledger.clone(), gate.clone());
            callers.spawn(async move {
                let work = move |cx| {
                    let mut gate = gate.clone();
                    async move {
                        drop(gate.wait_for(|open| *open).await);
                        answer(cx).await
                    }
                };
                ledger.run(id(round as u64), work).await.map(|claim| claim.kind)
            });
        }
        // All have joined long before.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let began = Instant::now();
        open.send_replace(true);
        let mut kinds = Vec::new();
        while let Some(kind) = callers.join_next().await {
            kinds.push(kind?.map_err(|error| error.to_string())?);
        }
        times.push(began.elapsed().as_secs_f64() * 1e6 / CALLERS as f64);
        let joined = kinds.iter().filter(|kind| **kind == ClaimKind::Joined).count();
        if joined != CALLERS - 1 {
            return Err(format!("{joined} of {CALLERS} callers have joined").into());
        }
    }
    ledger.close().await?;
    Ok(Figure::new(BENCH, "a joined answer, each", "us", &times).at("callers", CALLERS as u64))
}

async fn beside_launch(options: &Options, launchers: usize) -> Result<Vec<Figure>> {
    let each = async |by_run| {
        let dir = tempfile::tempdir_in(&options.dir)?;
        let ledger = Answers::open(dir.path().join("ledger")).await?;
        let rate = one(&ledger, launchers, tasks(launchers) / 2, by_run).await?;
        ledger.close().await?;
        drop(dir);
        rustix::fs::sync();
        Ok(rate)
    };
    let rates = interleaved(options.rounds, &[false, true], each).await?;
    let launched = rates.first().cloned().unwrap_or_default();
    let figures = ["launch_block", "run"].into_iter().zip(&rates).map(|(what, rates)| {
        let figure = Figure::new(BENCH, what, "/s", rates).at("launchers", launchers as u64);
        figure.against("launch_block", &launched, None)
    });
    Ok(figures.collect())
}

async fn one(ledger: &Answers, launchers: usize, tasks: u64, by_run: bool) -> Result<f64> {
    let ledger = ledger.clone();
    let each = move |number| {
        let ledger = ledger.clone();
        async move {
            if by_run {
                ledger.run(id(number), answer).await.map(drop).map_err(|error| error.to_string())
            } else {
                let text = async { Ok::<_, String>("an answer of thirty-two letters.".into()) };
                let launched = ledger.launch_block(id(number), text).await;
                launched.map(drop).map_err(|error| error.to_string())
            }
        }
    };
    Ok(tasks as f64 / closed_loop(launchers, 0..tasks, each).await?)
}

/// Bytes that one more tombstone takes, on disk and in memory.
pub(crate) async fn tombstones(options: &Options, ids: u64) -> Result<Vec<Figure>> {
    const BENCH: &str = "What a pruned success leaves";
    let dir = tempfile::tempdir_in(&options.dir)?;
    let (none, all) = (dir.path().join("none"), dir.path().join("all"));
    Answers::open(&none).await?.close().await?;
    let ledger = Answers::open(&all).await?;
    one(&ledger, 1024, ids, false).await?;
    ledger.checkpoint().await?;
    let began = Instant::now();
    let pruned = ledger.prune(&Retention::new().succeeded(Duration::ZERO)).await?;
    let took = began.elapsed().as_secs_f64();
    if pruned.succeeded as u64 != ids {
        return Err(format!("{pruned:?}").into());
    }
    ledger.checkpoint().await?;
    ledger.close().await?;
    let disk = of_checkpoint(&all)? as f64 / ids as f64;
    let mut memory = Vec::new();
    for _ in 0..options.rounds {
        let beyond = weighed(&all, "20-byte")? - weighed(&none, "20-byte")?;
        memory.push(beyond / ids as f64);
    }
    let figure = |what, unit, rounds: &[f64]| Figure::new(BENCH, what, unit, rounds).at("ids", ids);
    Ok(vec![
        figure("disk", "B/id", &[disk]),
        figure("memory after an open", "B/id", &memory),
        figure("pruned", "/s", &[ids as f64 / took]),
    ])
}
