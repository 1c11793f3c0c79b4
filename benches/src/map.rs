//! `taskledger map` beside what people use for this: whole processes, started in turn.

use crate::figure::{Figure, Goal, interleaved};
use crate::load::fill;
use crate::{Options, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use taskledger::{ByteId, Ledger};

const BENCH: &str = "The command: `true`, 4,000 times";

/// Commands of one run.
const COMMANDS: u64 = 4_000;

/// At a time.
const JOBS: [usize; 3] = [1, 2, 8];

/// What runs the commands.
#[derive(Clone, Copy, Debug)]
enum Runner {
    /// One line of its own log per command, not synced.
    Parallel,
    /// Remembers nothing.
    Xargs,
    /// The start and the end of each command durable.
    Map,
}

impl Runner {
    const ALL: [Self; 3] = [Self::Parallel, Self::Map, Self::Xargs];

    const fn name(self) -> &'static str {
        match self {
            Self::Parallel => "parallel --joblog",
            Self::Xargs => "xargs -P",
            Self::Map => "taskledger map",
        }
    }

    fn command(self, dir: &Path, jobs: usize) -> Result<Command> {
        let jobs = jobs.to_string();
        Ok(match self {
            Self::Parallel => {
                let mut command = Command::new("parallel");
                command.args(["--will-cite", "-j", &jobs, "--joblog"]).arg(dir.join("log"));
                command.args(["true", "{}"]);
                command
            }
            Self::Xargs => {
                let mut command = Command::new("xargs");
                command.args(["-P", &jobs, "-n", "1", "true"]);
                command
            }
            Self::Map => map(&dir.join("ledger"), &["-j", &jobs])?,
        })
    }
}

/// `taskledger map -q OPTIONS -- true`.
fn map(ledger: &Path, options: &[&str]) -> Result<Command> {
    let program = std::env::current_exe()?.with_file_name("taskledger");
    if !program.exists() {
        let how = "cargo build --release --features cli --bin taskledger";
        return Err(format!("{} is not there: {how}", program.display()).into());
    }
    let mut command = Command::new(program);
    command.args(["map", "-q", "-l"]).arg(ledger).args(options).args(["--", "true"]);
    Ok(command)
}

/// How long it took, and the most memory that it had, in MiB, as far as that was seen.
fn timed(mut command: Command, input: &Path) -> Result<(f64, f64)> {
    command.stdin(File::open(input)?).stdout(Stdio::null());
    let began = Instant::now();
    let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut most = 0.0_f64;
    let ended = loop {
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        most = most.max(peak(&std::fs::read_to_string(&status).unwrap_or_default()));
        std::thread::sleep(Duration::from_millis(2));
    };
    let took = began.elapsed().as_secs_f64();
    if ended.success() { Ok((took, most)) } else { Err(format!("{command:?}: {ended}").into()) }
}

/// The most memory so far, by the kernel's account.
fn peak(status: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse().ok());
    kib.unwrap_or(0.0_f64) / 1024.0
}

fn numbers(path: &Path, count: u64) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for number in 1..=count {
        writeln!(file, "{number:019}")?;
    }
    Ok(file.flush()?)
}

/// Commands per second, of commands that do nothing.
pub(crate) async fn commands(options: &Options) -> Result<Vec<Figure>> {
    let scratch = tempfile::tempdir_in(&options.dir)?;
    let input = scratch.path().join("input");
    numbers(&input, COMMANDS)?;
    let mut figures = Vec::new();
    for jobs in JOBS {
        let one = async |runner: Runner| {
            let dir = tempfile::tempdir_in(&options.dir)?;
            let (took, _) = timed(runner.command(dir.path(), jobs)?, &input)?;
            drop(dir);
            rustix::fs::sync();
            Ok(COMMANDS as f64 / took)
        };
        let rates = interleaved(options.rounds, &Runner::ALL, one).await?;
        let parallel = rates.first().cloned().unwrap_or_default();
        for (runner, rates) in Runner::ALL.into_iter().zip(&rates) {
            let goal = matches!(runner, Runner::Map).then_some(Goal::AtLeast(1.0));
            let figure = Figure::new(BENCH, runner.name(), "/s", rates).at("jobs", jobs as u64);
            figures.push(figure.against("parallel", &parallel, goal));
        }
    }
    Ok(figures)
}

/// A run in which every id has succeeded before: how long it takes, and how much memory.
pub(crate) async fn skipping(options: &Options, ids: u64) -> Result<Vec<Figure>> {
    let scratch = tempfile::tempdir_in(&options.dir)?;
    let (input, path) = (scratch.path().join("input"), scratch.path().join("ledger"));
    numbers(&input, ids)?;
    // As if `map` had run them all.
    let ledger = Ledger::<ByteId, ()>::open(&path).await?;
    fill(&ledger, 1024, 1..ids + 1, |number| ByteId::from(format!("{number:019}").into_bytes()))
        .await?;
    ledger.close().await?;
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let (took, most) = timed(map(&path, &[])?, &input)?;
        times.push(took);
        memory.push(most);
    }
    let goal = (ids == 1_000_000).then_some(Goal::AtMost(2.0));
    Ok(vec![
        Figure::new(BENCH, "map skips what has succeeded", "s", &times).at("ids", ids).goal(goal),
        Figure::new(BENCH, "and takes", "MiB", &memory).at("ids", ids),
    ])
}
