//! Every harness at its small size, and every control.
//!
//! `TASKLEDGER_ROUNDS=x10` tries ten times as much, `TASKLEDGER_SEED` begins where another run began.

#![expect(clippy::print_stdout, reason = "the seeds are told")]

use std::path::Path;
use std::time::SystemTime;
use taskledger_lab::places::skipped;
use taskledger_lab::session::{self, Bounds};
use taskledger_lab::{Verdict, begin, control, of_name};

fn seed() -> u64 {
    let given = std::env::var("TASKLEDGER_SEED").ok();
    given.map(|seed| seed.parse().expect("TASKLEDGER_SEED is a number")).unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.map_or(0, |now| u64::try_from(now.as_micros() % 1_000_000).unwrap_or_default())
    })
}

fn times(usual: u64) -> u64 {
    let Ok(text) = std::env::var("TASKLEDGER_ROUNDS") else { return usual };
    let factor = text.strip_prefix('x').and_then(|factor| factor.parse::<u64>().ok());
    usual * factor.expect("TASKLEDGER_ROUNDS is a factor, as x10")
}

fn holds(name: &str) {
    begin(Path::new(env!("CARGO_BIN_EXE_taskledger-lab")));
    let harness = of_name(name).expect("there is such a harness");
    let seed = seed();
    println!("{name}: TASKLEDGER_SEED={seed}");
    let units = times(harness.ci);
    let bounds = Bounds { units, time: None, shows: None, only: Vec::new(), alone: false };
    let report = session::run(harness, seed, bounds);
    if let Some(why) = report.skipped {
        skipped(name, &why);
        return;
    }
    println!("{name}: {} {}, {:?}", report.tried, harness.unit, report.counts);
    assert!(report.violated == 0, "{}", report.violations.join("\n"));
    assert!(report.tried > 0, "nothing was tried");
}

fn notices(name: &str) {
    begin(Path::new(env!("CARGO_BIN_EXE_taskledger-lab")));
    let harness = of_name(name).expect("there is such a harness");
    let seed = seed();
    println!("{name}: TASKLEDGER_SEED={seed}");
    assert!(!harness.controls.is_empty(), "a harness without a control proves nothing");
    for broken in harness.controls {
        let what = broken.broken;
        match control(harness, broken, seed) {
            Verdict::Found(first, after) => {
                println!("{name}, {what:?}: found after {after} {}: {first}", harness.unit);
            }
            Verdict::Skipped(why) => skipped(&format!("{name}, {what:?}"), &why),
            Verdict::Failed(why) => panic!("{name} with {what:?}: {why}"),
        }
    }
}

macro_rules! harnesses {
    ($($test:ident: $name:literal,)*) => {
        $(mod $test {
            #[test]
            fn holds() {
                super::holds($name);
            }

            #[test]
            fn is_noticed_when_it_does_not() {
                super::notices($name);
            }
        })*

        #[test]
        fn no_harness_is_left_out() {
            let here = [$($name),*];
            assert_eq!(here.len(), taskledger_lab::ALL.len());
        }
    };
}

harnesses! {
    killed: "killed",
    each_call: "each-call",
    power_cut: "power-cut",
    crowd: "crowd",
    ext4: "ext4",
    io_faults: "io-faults",
    full: "full",
    damaged: "damaged",
    histories: "histories",
    simulation: "simulation",
    interleavings: "interleavings",
    dropped: "dropped",
    kept: "kept",
    queued: "queued",
    backlog: "backlog",
    raced: "raced",
    fuzz: "fuzz",
    clock: "clock",
}
