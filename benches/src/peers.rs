//! The ledger beside other queues that keep jobs in files: a no-op job, until it is known to have
//! succeeded, as the users of each would do it. Each is a program of its own in `benches/peers`.

use crate::figure::{Figure, Goal};
use crate::load::{id, tasks};
use crate::{Options, Result};
use common::Args;
use serde_json::Value;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use taskledger::Ledger;

#[path = "../peers/common.rs"]
mod common;

const BENCH: &str = "Peers: durable jobs per second";

/// The packages in `benches/peers`.
pub(crate) const PEERS: [&str; 6] =
    ["effectum", "apalis", "duroxide", "persistent-queue", "rustqueue", "durare"];

/// How a peer says that it cannot be made to sync what it tells.
const NOT_SO_DURABLE: i32 = 3;

/// The variable that tells a child to take the part of a peer.
const CHILD: &str = "TASKLEDGER_BENCH_PEER";

/// No run takes longer; what was done until then counts.
const LIMIT: Duration = Duration::from_secs(60);

/// About what a run takes.
const RUN: f64 = 1.5;

/// Who takes longer for two jobs a caller is not run again.
const SLOW: f64 = 20.0;

/// In a child: the ledger's own part, with the arguments of a peer.
pub(crate) fn as_peer() -> Option<Result<()>> {
    std::env::var_os(CHILD)?;
    Some(ours())
}

fn ours() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let args = Args::parse();
        let ledger = Ledger::<String>::open(args.dir.join("ledger")).await?;
        let words = "sled and a sync of its file: an acknowledgement waits for an fsynced batch";
        common::measure(("taskledger", "this one"), words, &args, move |_, number| {
            let ledger = ledger.clone();
            async move {
                let done = ledger.launch_block(id(number as u64), async { Ok::<_, ()>(()) });
                done.await.map(|_| ()).map_err(|error| error.to_string())
            }
        })
        .await
    })
}

/// A program and how durable it is asked to be.
#[derive(Debug)]
struct Variant {
    name: String,
    program: PathBuf,
    ours: bool,
    durability: &'static str,
}

/// What a run has told.
#[derive(Debug)]
struct Told {
    rate: f64,
    seconds: f64,
    durability: String,
}

/// Calls that write to the disk, for each job.
#[derive(Clone, Copy, Debug)]
struct Syncs {
    /// `fsync`, `fdatasync`, `msync`.
    synced: f64,
    /// `sync_file_range`, after which neither the file's size nor the disk's cache is safe.
    written: f64,
    /// Files opened with `O_SYNC` or `O_DSYNC`, in all.
    opened: usize,
}

impl std::fmt::Display for Syncs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} syncs a job", self.synced)?;
        if self.written > 0.005 {
            write!(f, ", {:.2} sync_file_range", self.written)?;
        }
        if self.opened > 0 {
            write!(f, ", {} O_SYNC files", self.opened)?;
        }
        Ok(())
    }
}

impl Variant {
    fn full(&self) -> bool {
        self.durability == "full"
    }

    fn command(&self, program: &Path, dir: &Path, callers: usize, jobs: usize) -> Command {
        let mut command = Command::new(program);
        if program != self.program {
            command.args(["-f", "--seccomp-bpf", "-qq", "-s", "4096", "-o"]);
            command.arg(dir.join("trace"));
            command.args(["-e", "trace=fsync,fdatasync,sync_file_range,msync,open,openat"]);
            command.arg(&self.program);
        }
        command.arg("--dir").arg(dir).args(["--callers", &callers.to_string()]);
        command.args(["--jobs", &jobs.to_string(), "--durability", self.durability]);
        command.args(["--limit", &LIMIT.as_secs().to_string()]);
        // duroxide tells of each time that it finds its database locked.
        command.env("RUST_LOG", "off");
        if self.ours {
            command.env(CHILD, "1");
        }
        command
    }

    fn run(&self, options: &Options, callers: usize, jobs: usize) -> Result<Option<Told>> {
        let dir = tempfile::tempdir_in(&options.dir)?;
        let told = told(self.command(&self.program, dir.path(), callers, jobs));
        drop(dir);
        rustix::fs::sync();
        told
    }

    /// A short run, and how many syncs it took if that can be seen.
    fn try_out(&self, options: &Options, callers: usize) -> Result<Option<(Told, Option<Syncs>)>> {
        let jobs = (2 * callers).max(50);
        if !traceable() {
            return Ok(self.run(options, callers, jobs)?.map(|told| (told, None)));
        }
        let dir = tempfile::tempdir_in(&options.dir)?;
        let Some(told) = told(self.command(Path::new("strace"), dir.path(), callers, jobs))? else {
            return Ok(None);
        };
        let done = told.rate * told.seconds;
        let syncs = syncs(&std::fs::read_to_string(dir.path().join("trace"))?, done);
        Ok(Some((told, Some(syncs))))
    }
}

fn traceable() -> bool {
    let mut command = Command::new("strace");
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// What has been called since the first job, and for any file opened before that.
fn syncs(trace: &str, jobs: f64) -> Syncs {
    let in_sync = |line: &&str| line.contains("O_SYNC") || line.contains("O_DSYNC");
    let opened = trace.lines().filter(in_sync).count();
    let during = trace.split_once("/measured\"").map_or(trace, |(_, during)| during);
    let calls = |name: &str| {
        let call = format!("{name}(");
        during.lines().filter(|line| line.contains(&call)).count() as f64
    };
    Syncs {
        synced: (calls("fsync") + calls("fdatasync") + calls("msync")) / jobs,
        written: calls("sync_file_range") / jobs,
        opened,
    }
}

/// Runs it to its end. Nothing if it cannot be as durable as that.
fn told(mut command: Command) -> Result<Option<Told>> {
    // A group of its own, so that a tracer does not leave behind whom it has traced.
    let mut child = command.process_group(0).stdout(Stdio::piped()).spawn()?;
    let until = Instant::now() + LIMIT + Duration::from_secs(10);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > until {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process_group(pid, rustix::process::Signal::KILL)?;
            break child.wait()?;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    if status.code() == Some(NOT_SO_DURABLE) {
        return Ok(None);
    }
    if !status.success() {
        return Err(format!("{command:?}: {:?}, {:?}", status.code(), status.signal()).into());
    }
    let mut line = String::new();
    child.stdout.take().ok_or("no output")?.read_to_string(&mut line)?;
    let line: Value = serde_json::from_str(&line)?;
    let number = |name: &str| line.get(name).and_then(Value::as_f64).ok_or("no number");
    let words = line.get("durability").and_then(Value::as_str).unwrap_or_default();
    let (jobs, seconds) = (number("jobs")?, number("seconds")?);
    Ok(Some(Told { rate: jobs / seconds, seconds, durability: words.to_owned() }))
}

/// Builds them. Those that cannot be built are told and left out.
fn built(options: &Options) -> Result<Vec<Variant>> {
    let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = benches.join("../target/peers");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut variants = vec![Variant {
        name: "taskledger".to_owned(),
        program: std::env::current_exe()?,
        ours: true,
        durability: "full",
    }];
    for durability in ["full", "default"] {
        for peer in &options.peers {
            let mut command = Command::new(&cargo);
            command.args(["build", "--release", "--locked", "--quiet", "--target-dir"]);
            command.arg(&target).arg("--manifest-path");
            command.arg(benches.join("peers").join(peer).join("Cargo.toml"));
            if command.status()?.success() {
                let program = target.join("release").join(format!("peer-{peer}"));
                let name = format!("{peer}, {durability}");
                variants.push(Variant { name, program, ours: false, durability });
            } else {
                eprintln!("{peer} cannot be built and is left out");
            }
        }
    }
    Ok(variants)
}

/// Jobs per second of each, in turn.
pub(crate) fn peers(options: &Options) -> Result<Vec<Figure>> {
    if !traceable() {
        eprintln!("strace is not there: syncs are not counted");
    }
    let variants = built(options)?;
    let mut figures = Vec::new();
    for callers in &options.launchers {
        figures.extend(compared(options, &variants, *callers));
    }
    Ok(figures)
}

/// A variant that takes part, and what it has done.
#[derive(Debug)]
struct Entry<'a> {
    variant: &'a Variant,
    durability: String,
    /// Slow as it is, its first run stands for all.
    once: Option<f64>,
    jobs: usize,
    syncs: Option<Syncs>,
    rates: Vec<f64>,
}

fn compared(options: &Options, variants: &[Variant], callers: usize) -> Vec<Figure> {
    let mut entries = Vec::new();
    for variant in variants {
        match variant.try_out(options, callers) {
            Ok(Some((told, syncs))) => {
                let jobs = (told.rate * RUN) as usize;
                let of_ours = usize::try_from(tasks(callers)).unwrap_or(usize::MAX);
                let jobs = if variant.ours { of_ours } else { jobs.max(2 * callers) };
                let once = (told.seconds > SLOW).then_some(told.rate);
                let durability = told.durability;
                let rates = Vec::new();
                entries.push(Entry { variant, durability, once, jobs, syncs, rates });
            }
            Ok(None) => eprintln!("{} is not to be had", variant.name),
            Err(error) => eprintln!("{} is left out: {error}", variant.name),
        }
    }
    for _ in 0..options.rounds {
        for entry in &mut entries {
            // A run that fails has done nothing: the others go on.
            let rate = match entry.once {
                Some(rate) => Ok(Some(rate)),
                None => {
                    let told = entry.variant.run(options, callers, entry.jobs);
                    told.map(|told| told.map(|told| told.rate))
                }
            };
            let rate = rate.unwrap_or_else(|error| {
                eprintln!("{}: {error}", entry.variant.name);
                None
            });
            entry.rates.push(rate.unwrap_or(f64::NAN));
        }
    }
    let as_durable = entries.iter().filter(|entry| !entry.variant.ours && entry.variant.full());
    let best = as_durable.max_by(|a, b| a.median().total_cmp(&b.median()));
    let figures = entries.iter().map(|entry| {
        let figure = Figure::new(BENCH, &entry.variant.name, "/s", &entry.rates);
        let figure = figure.at("callers", callers as u64).note(entry.note());
        match best.filter(|_| entry.variant.ours) {
            Some(best) => {
                let to = format!("the best that is as durable ({})", best.variant.name);
                figure.against(to, &best.rates, goal(callers))
            }
            None => figure,
        }
    });
    figures.collect()
}

const fn goal(callers: usize) -> Option<Goal> {
    match callers {
        1 => Some(Goal::AtLeast(2.0)),
        64 => Some(Goal::AtLeast(7.0)),
        1024 => Some(Goal::AtLeast(20.0)),
        _ => None,
    }
}

impl Entry<'_> {
    /// Nothing done, if it has failed.
    fn median(&self) -> f64 {
        let median = Figure::new(BENCH, "", "/s", &self.rates).spread.median;
        if median.is_nan() { 0.0 } else { median }
    }

    fn note(&self) -> String {
        let syncs = self.syncs.map_or_else(|| "syncs unknown".to_owned(), |it| it.to_string());
        let once = if self.once.is_some() { "; run once" } else { "" };
        format!("{}; {syncs}{once}", self.durability)
    }
}

#[cfg(test)]
mod tests {
    use super::syncs;

    #[test]
    fn calls_count_once_and_from_the_first_job_on() {
        let trace = r#"10 openat(AT_FDCWD, "/d/log", O_RDWR|O_CREAT|O_DSYNC, 0644) = 3
10 fsync(3) = 0
10 openat(AT_FDCWD, "/d/measured", O_WRONLY|O_CREAT|O_TRUNC, 0666) = 4
11 fsync(3 <unfinished ...>
12 sync_file_range(3, 0, 512, SYNC_FILE_RANGE_WRITE) = 0
11 <... fsync resumed>) = 0
11 fdatasync(3) = 0
12 msync(0x7f0000000000, 4096, MS_SYNC) = 0
"#;
        let seen = syncs(trace, 2.0);
        assert_eq!((seen.synced, seen.written, seen.opened), (1.5, 0.5, 1));
    }
}
