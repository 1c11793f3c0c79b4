//! Memory and disk per id.

use crate::figure::{Figure, Goal};
use crate::load::{fill, id, tasks};
use crate::{Options, Result};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use taskledger::{Ledger, TaskId};

const BENCH: &str = "Bytes";

/// Of all files below it, as they stand in their blocks.
pub(crate) fn on_disk(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let found = entry.metadata()?;
        bytes += if found.is_dir() { on_disk(&entry.path())? } else { found.blocks() * 512 };
    }
    Ok(bytes)
}

/// Of the logs of a ledger.
fn of_logs(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("log-") {
            bytes += on_disk(&entry.path())?;
        }
    }
    Ok(bytes)
}

/// Of the checkpoint alone.
pub(crate) fn of_checkpoint(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("checkpoint-") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// What the kernel has sent to the device that holds `dir`, whoever asked for it.
fn sent_to_device(dir: &Path) -> Result<u64> {
    let device = std::fs::metadata(dir)?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat"))?;
    let sectors: u64 = stat.split_whitespace().nth(6).ok_or("no sectors written")?.parse()?;
    Ok(sectors * 512)
}

/// Of tasks with 20-byte ids, from their launch to their success.
pub(crate) async fn disk(options: &Options) -> Result<Vec<Figure>> {
    // So many that the last segment, which is not full, hardly counts.
    const TASKS: u64 = 300_000;
    const LAUNCHERS: usize = 64;
    let mut figures = Vec::new();
    for launchers in &options.launchers {
        let mut sent = Vec::new();
        for _ in 0..options.rounds {
            let dir = tempfile::tempdir_in(&options.dir)?;
            let ledger = Ledger::<String>::open(dir.path().join("ledger")).await?;
            rustix::fs::sync();
            let before = sent_to_device(dir.path())?;
            fill(&ledger, *launchers, 0..tasks(*launchers), id).await?;
            rustix::fs::sync();
            let bytes = sent_to_device(dir.path())? - before;
            sent.push(bytes as f64 / tasks(*launchers) as f64);
            ledger.close().await?;
        }
        let figure = Figure::new(BENCH, "written to the device", "B/task", &sent);
        figures.push(figure.at("launchers", *launchers as u64));
    }
    let (mut log, mut checkpoint) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let dir = tempfile::tempdir_in(&options.dir)?;
        let path = dir.path().join("ledger");
        // Not before everything is in the log.
        let ledger = Ledger::<String>::builder().checkpoint_after(u64::MAX).open(&path).await?;
        fill(&ledger, LAUNCHERS, 0..TASKS, id).await?;
        log.push(of_logs(&path)? as f64 / TASKS as f64);
        ledger.checkpoint().await?;
        ledger.close().await?;
        checkpoint.push(of_checkpoint(&path)? as f64 / TASKS as f64);
    }
    let log = Figure::new(BENCH, "disk, in the log", "B/task", &log);
    figures.push(log.at("launchers", LAUNCHERS as u64).goal(Goal::AtMost(150.0)));
    let checkpoint = Figure::new(BENCH, "disk, in a checkpoint", "B/id", &checkpoint);
    figures.push(checkpoint.at("ids", TASKS).goal(Goal::AtMost(50.0)));
    Ok(figures)
}

/// Which ledger a child is to open, to say what that takes, and with which ids.
const OPENED: &str = "TASKLEDGER_BENCH_OPENED";
const WITH: &str = "TASKLEDGER_BENCH_IDS";

/// In a child: opens the ledger and prints how many bytes of memory it takes from then on.
pub(crate) async fn open_and_weigh() -> Option<Result<()>> {
    let path = std::env::var_os(OPENED)?;
    let path = Path::new(&path);
    let of_numbers = std::env::var_os(WITH).is_some_and(|with| with == "u64");
    Some(if of_numbers { weigh::<u64>(path).await } else { weigh::<String>(path).await })
}

async fn weigh<K: TaskId>(path: &Path) -> Result<()> {
    let before = resident()?;
    // An output of any type: nothing is read.
    let ledger = Ledger::<K, serde_json::Value>::open(path).await?;
    println!("{}", resident()?.saturating_sub(before));
    Ok(ledger.close().await?)
}

fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = status.split(' ').nth(1).ok_or("no statm")?.parse()?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// Bytes of memory that a process takes to open it.
pub(crate) fn weighed(path: &Path, ids: &str) -> Result<f64> {
    let mut child = Command::new(std::env::current_exe()?);
    let done = child.env(OPENED, path).env(WITH, ids).output()?;
    let text = String::from_utf8(done.stdout)?;
    let told = String::from_utf8_lossy(&done.stderr);
    Ok(text.trim().parse().map_err(|_| format!("a child said {text:?}: {told}"))?)
}

/// Resident memory of a process that has opened a ledger, beyond that for an empty one.
pub(crate) async fn memory(options: &Options, ids: u64) -> Result<Vec<Figure>> {
    let number = of_type(options, "u64", ids, Goal::AtMost(60.0), |number| number).await?;
    let text = of_type(options, "20-byte", ids, Goal::AtMost(75.0), id).await?;
    Ok(number.into_iter().chain(text).collect())
}

async fn of_type<K: TaskId>(
    options: &Options,
    kind: &str,
    ids: u64,
    goal: Goal,
    id: impl Fn(u64) -> K + Copy + Send + Sync + 'static,
) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir_in(&options.dir)?;
    let (none, all) = (dir.path().join("none"), dir.path().join("all"));
    Ledger::<K>::open(&none).await?.close().await?;
    let ledger = Ledger::<K>::open(&all).await?;
    fill(&ledger, 1024, 0..ids, id).await?;
    ledger.close().await?;
    let mut figures = Vec::new();
    for compacted in [false, true] {
        if compacted {
            let ledger = Ledger::<K>::open(&all).await?;
            ledger.checkpoint().await?;
            ledger.close().await?;
        }
        let mut rounds = Vec::new();
        for _ in 0..options.rounds {
            let beyond = weighed(&all, kind)? - weighed(&none, kind)?;
            rounds.push(beyond / ids as f64);
        }
        let from = if compacted { "from a checkpoint" } else { "from the log" };
        let what = format!("memory after an open {from}, {kind} ids");
        figures.push(Figure::new(BENCH, what, "B/id", &rounds).at("ids", ids).goal(goal));
    }
    Ok(figures)
}
