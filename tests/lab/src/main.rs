//! The program of the crash lab.

#![expect(clippy::print_stdout, reason = "that is what a program is for")]

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};
use taskledger_lab::session::{self, Bounds};
use taskledger_lab::tally::Tally;
use taskledger_lab::{ALL, Harness, Verdict, child, control, of_name};

/// Tries to break every promise of taskledger.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  taskledger-lab run --minutes 60                 all harnesses in turn, and their controls
  taskledger-lab run --minutes 5 --only killed,power-cut --seed 7
  taskledger-lab list")]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs harnesses for some time, a slice of each in turn, and adds up the tally.
    Run {
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
        /// Where the random numbers begin; printed, and can be given back.
        #[arg(long)]
        seed: Option<u64>,
        /// Only these harnesses.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// The size of a slice, in CI sizes.
        #[arg(long, default_value_t = 1.0)]
        slice: f64,
        /// No more slices of each than this.
        #[arg(long, default_value_t = u64::MAX)]
        rounds: u64,
        /// The tally to add to.
        #[arg(long)]
        tally: Option<PathBuf>,
    },
    /// Lists the harnesses with their sizes.
    List,
    /// Prints the tally as a table.
    Tally,
    /// One run of one harness; its report goes to stdout as JSON.
    Slice {
        harness: String,
        #[arg(long)]
        units: u64,
        #[arg(long)]
        seed: u64,
        /// Stops at the first violation that says this, or another one of these.
        #[arg(long)]
        shows: Vec<String>,
        /// Tries this part of the harness alone, or these.
        #[arg(long)]
        only: Vec<String>,
        /// Begins nothing more after so many seconds.
        #[arg(long)]
        seconds: Option<f64>,
    },
    /// Plays a part in somebody else's run.
    Child { role: String, path: PathBuf },
}

fn main() -> ExitCode {
    let binary = std::env::current_exe().expect("a program knows where it is");
    taskledger_lab::begin(&binary);
    match Options::parse().what {
        What::Run { minutes, seed, only, slice, rounds, tally } => {
            let seed = seed.unwrap_or_else(some_seed);
            let place = tally.unwrap_or_else(Tally::place);
            let until = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
            if let Some(unknown) = only.iter().find(|name| of_name(name).is_none()) {
                eprintln!("no harness is called {unknown}; see: taskledger-lab list");
                return ExitCode::from(2);
            }
            let chosen: Vec<&Harness> = ALL
                .iter()
                .filter(|harness| only.is_empty() || only.iter().any(|name| name == harness.name))
                .collect();
            run(&chosen, seed, slice, rounds, until, &place)
        }
        What::List => {
            for harness in ALL {
                let Harness { name, unit, ci, full, .. } = harness;
                println!("{name:<14} {ci:>9} {unit} in CI, {full} at full size");
            }
            ExitCode::SUCCESS
        }
        What::Tally => {
            table(&Tally::read(&Tally::place()));
            ExitCode::SUCCESS
        }
        What::Slice { harness, units, seed, shows, only, seconds } => {
            let Some(harness) = of_name(&harness) else {
                eprintln!("there is no harness {harness:?}");
                return ExitCode::from(2);
            };
            let time = seconds.map(Duration::from_secs_f64);
            let bounds = Bounds { units, time, shows: Some(shows), only, alone: true };
            let report = session::run(harness, seed, bounds);
            println!("{}", serde_json::to_string(&report).expect("a report is plain"));
            if report.violated == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        What::Child { role, path } => {
            child::play(&role, path);
            ExitCode::SUCCESS
        }
    }
}

fn some_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_micros() % 1_000_000_000).unwrap_or_default())
}

/// Slices of each harness in turn; before the first of each, its controls.
fn run(
    chosen: &[&Harness],
    seed: u64,
    slice: f64,
    rounds: u64,
    until: Instant,
    place: &Path,
) -> ExitCode {
    println!("seed {seed}, tally {}", place.display());
    let mut wrong = 0_u64;
    for round in 0..rounds {
        for harness in chosen {
            if Instant::now() >= until {
                break;
            }
            let seed = seed.wrapping_add(round);
            if round == 0 {
                for broken in harness.controls {
                    let verdict = control(harness, broken, seed);
                    let name = format!("{:?}", broken.broken);
                    println!("{}, {name}: {}", harness.name, told(&verdict, harness.unit));
                    if matches!(verdict, Verdict::Skipped(_)) {
                        continue;
                    }
                    wrong += u64::from(matches!(verdict, Verdict::Failed(_)));
                    let mut tally = Tally::read(place);
                    tally.add_control(harness.name, harness.unit, seed, &name, &verdict);
                    tally.write(place);
                }
            }
            let began = Instant::now();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size")]
            let units = (harness.ci as f64 * slice).ceil() as u64;
            let left = until.saturating_duration_since(Instant::now());
            let bounds =
                Bounds { units, time: Some(left), shows: None, only: Vec::new(), alone: false };
            let report = session::run(harness, seed, bounds);
            println!(
                "{}, seed {seed}: {} {}, {} violations, {:?}, {:.1} s{}",
                harness.name,
                report.tried,
                harness.unit,
                report.violated,
                report.counts,
                began.elapsed().as_secs_f64(),
                report.skipped.iter().map(|why| format!(", SKIPPED: {why}")).collect::<String>(),
            );
            wrong += report.violated;
            if report.skipped.is_none() {
                let mut tally = Tally::read(place);
                tally.add(harness.name, harness.unit, seed, &report);
                tally.write(place);
            }
        }
        if Instant::now() >= until {
            break;
        }
    }
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn told(verdict: &Verdict, unit: &str) -> String {
    let short = |text: &str| text.chars().take(160).collect::<String>();
    match verdict {
        Verdict::Found(first, after) => {
            format!("found, as it must, within {after} {unit}: {}", short(first))
        }
        Verdict::Skipped(why) => format!("SKIPPED: {why}"),
        Verdict::Failed(why) => format!("FAILED, it proves nothing: {}", short(why)),
    }
}

fn table(tally: &Tally) {
    println!(
        "| harness | version | tried | violations | full size | controls that found | seeds | dates |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for harness in ALL {
        for (version, entry) in tally.0.get(harness.name).into_iter().flatten() {
            let controls: Vec<String> = entry
                .controls
                .iter()
                .map(|(name, control)| {
                    let within = match control.within {
                        0 => String::new(),
                        within => format!(" within {within}"),
                    };
                    format!("{name} {}/{}{within}", control.found, control.runs)
                })
                .collect();
            let seeds: Vec<String> = entry.last_seeds.iter().map(u64::to_string).collect();
            println!(
                "| {} | {version} | {} {} | {} | {} | {} | {} | {} to {} |",
                harness.name,
                entry.tried,
                entry.unit,
                entry.violations,
                harness.full,
                controls.join(", "),
                seeds.join(", "),
                entry.first,
                entry.last
            );
        }
    }
}
