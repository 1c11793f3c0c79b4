//! What the answers of `run` cost, and what a tombstone does.

use crate::{Options, Result, id, spread};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use taskledger::{ClaimKind, Context, Ledger, Retention};
use tokio::sync::watch;
use tokio::task::JoinSet;

type Answers = Ledger<String, String>;

async fn answer(_: Context<String>) -> std::result::Result<String, String> {
    Ok("an answer of thirty-two letters.".to_owned())
}

fn told(what: &str, unit: &str, values: &[f64]) -> Value {
    let (low, median, high) = spread(values);
    println!("{what}: {median:.2} {unit} ({low:.2}-{high:.2})");
    json!({ "figure": what, "unit": unit, "median": median, "low": low, "high": high })
}

/// A replayed answer, a joined one, and a run against a plain launch.
pub(crate) async fn answers(options: &Options) -> Result<Vec<Value>> {
    println!();
    let mut figures = replayed(options).await?;
    figures.push(joined(options).await?);
    for (launchers, tasks) in options.launchers() {
        figures.push(against_launch(options, launchers, tasks / 2).await?);
    }
    Ok(figures)
}

async fn replayed(options: &Options) -> Result<Vec<Value>> {
    const IDS: usize = 100_000;
    const ASKED: usize = 20_000;
    let dir = tempfile::tempdir_in(&options.dir)?;
    let ledger = Answers::open(dir.path().join("ledger")).await?;
    fill(&ledger, IDS).await?;
    let mut figures = Vec::new();
    for (place, compacted) in [("log", false), ("checkpoint", true)] {
        if compacted {
            ledger.checkpoint().await?;
        }
        let (mut same, mut any) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            for (step, times) in [(0, &mut same), (7_919, &mut any)] {
                let began = Instant::now();
                for n in 0..ASKED {
                    let claim = ledger.run(id(n * step % IDS), answer).await;
                    if claim.map_err(|error| error.to_string())?.kind != ClaimKind::Replayed {
                        return Err("it was run again".into());
                    }
                }
                times.push(began.elapsed().as_secs_f64() * 1e6 / ASKED as f64);
            }
        }
        let what = format!("a replayed answer, the same id each time, from the {place}");
        figures.push(told(&what, "us", &same));
        let what = format!("a replayed answer, any of {IDS} ids, from the {place}");
        figures.push(told(&what, "us", &any));
    }
    ledger.close().await?;
    Ok(figures)
}

/// From the end of the attempt until the last of those that have joined it has its answer.
async fn joined(options: &Options) -> Result<Value> {
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
                ledger.run(id(round), work).await.map(|claim| claim.kind)
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
    Ok(told("a joined answer, 10000 callers at once, each", "us", &times))
}

async fn against_launch(options: &Options, launchers: usize, tasks: usize) -> Result<Value> {
    let (mut rates, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let mut both = [0.0; 2];
        for (rate, by_run) in both.iter_mut().zip([false, true]) {
            let dir = tempfile::tempdir_in(&options.dir)?;
            let ledger = Answers::open(dir.path().join("ledger")).await?;
            *rate = one(&ledger, launchers, tasks, by_run).await?;
            ledger.close().await?;
            drop(dir);
            rustix::fs::sync();
        }
        rates.push(both[1]);
        ratios.push(both[1] / both[0]);
    }
    let (low, median, high) = spread(&rates);
    let (low_ratio, ratio, high_ratio) = spread(&ratios);
    println!(
        "run, {launchers} callers: {median:.0}/s ({low:.0}-{high:.0}), {ratio:.2} of launch_block ({low_ratio:.2}-{high_ratio:.2})"
    );
    Ok(json!({
        "figure": "runs per second", "launchers": launchers,
        "median": median, "low": low, "high": high,
        "ratio": ratio, "ratio low": low_ratio, "ratio high": high_ratio,
    }))
}

async fn one(ledger: &Answers, launchers: usize, tasks: usize, by_run: bool) -> Result<f64> {
    let each = tasks / launchers;
    let began = Instant::now();
    let mut set = JoinSet::new();
    for launcher in 0..launchers {
        let ledger = ledger.clone();
        set.spawn(async move {
            for task in 0..each {
                let id = id(launcher * each + task);
                if by_run {
                    ledger.run(id, answer).await.map_err(|error| error.to_string())?;
                } else {
                    let text = async { Ok::<_, String>("an answer of thirty-two letters.".into()) };
                    ledger.launch_block(id, text).await.map_err(|error| error.to_string())?;
                }
            }
            Ok::<_, String>(())
        });
    }
    while let Some(done) = set.join_next().await {
        done??;
    }
    Ok((each * launchers) as f64 / began.elapsed().as_secs_f64())
}

async fn fill(ledger: &Answers, ids: usize) -> Result<()> {
    one(ledger, 1_000, ids, false).await.map(drop)
}

/// The variable that tells a child which ledger to open, to say what that takes.
const OPENED: &str = "TASKLEDGER_BENCH_OPENED";

/// In a child: opens the ledger and prints how many bytes of memory it takes from then on.
pub(crate) async fn open_and_weigh() -> Option<Result<()>> {
    let path = std::env::var_os(OPENED)?;
    let weigh = async {
        let before = resident()?;
        let ledger = Answers::open(&path).await?;
        println!("{} {}", resident()?.saturating_sub(before), ledger.tombstones());
        ledger.close().await?;
        Ok(())
    };
    Some(weigh.await)
}

pub(crate) fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = status.split(' ').nth(1).ok_or("no statm")?.parse()?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// Bytes that one more tombstone takes, on disk and in memory.
pub(crate) async fn tombstones(options: &Options, ids: u64) -> Result<Value> {
    let dir = tempfile::tempdir_in(&options.dir)?;
    let (none, all) = (dir.path().join("none"), dir.path().join("all"));
    Answers::open(&none).await?.close().await?;
    let ledger = Answers::open(&all).await?;
    let count = usize::try_from(ids)?;
    fill(&ledger, count).await?;
    ledger.checkpoint().await?;
    let began = Instant::now();
    let pruned = ledger.prune(&Retention::new().succeeded(Duration::ZERO)).await?;
    let took = began.elapsed().as_secs_f64();
    if pruned.succeeded as usize != count / 1_000 * 1_000 {
        return Err(format!("{pruned:?}").into());
    }
    ledger.checkpoint().await?;
    ledger.close().await?;
    let disk = checkpoint_bytes(&all)? as f64 / pruned.succeeded as f64;
    let mut memory = Vec::new();
    for _ in 0..options.rounds {
        let (empty, full) = (weighed(&none)?, weighed(&all)?);
        memory.push((full - empty) / pruned.succeeded as f64);
    }
    let (low, median, high) = spread(&memory);
    println!(
        "\na tombstone among {ids}: {disk:.1} bytes on disk, {median:.1} ({low:.1}-{high:.1}) in memory after an open; pruned at {:.0} ids/s",
        pruned.succeeded as f64 / took
    );
    Ok(json!({
        "figure": "bytes per tombstone", "ids": ids, "disk": disk,
        "memory": median, "memory low": low, "memory high": high, "prune seconds": took,
    }))
}

fn weighed(path: &Path) -> Result<f64> {
    let done = Command::new(std::env::current_exe()?).env(OPENED, path).output()?;
    let text = String::from_utf8(done.stdout)?;
    Ok(text.split(' ').next().ok_or("a child said nothing")?.parse()?)
}

pub(crate) fn checkpoint_bytes(path: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("checkpoint-") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}
