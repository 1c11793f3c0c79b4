//! The crash lab: what tries to break every promise of taskledger.
//!
//! Each [`Harness`] breaks one thing (the process, the power, the disk, the clock, ...), again and
//! again, by random numbers from a seed, and holds what is left against a model of what was
//! acknowledged. Each has controls: the same run with a promise broken on purpose
//! ([`taskledger::internals::Sabotage`]), in a process of its own, in which it *must* find
//! violations. A harness whose control finds nothing proves nothing.
//!
//! `cargo test` runs all of them at a small size; `just lab --minutes N --seed S` for as long as one
//! likes, and adds what was run to `tally.json`.

#![expect(missing_docs, reason = "nobody but the lab uses the lab")]
#![expect(clippy::unwrap_used, reason = "what panics in the lab is a finding")]
#![expect(clippy::indexing_slicing, reason = "what panics in the lab is a finding")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a harness names the arms that it expects")]
#![expect(clippy::missing_errors_doc, clippy::missing_panics_doc, reason = "as above")]
#![expect(clippy::exhaustive_enums, clippy::exhaustive_structs, reason = "as above")]

pub mod child;
pub mod disk;
pub mod harness;
pub mod kept;
pub mod ops;
pub mod places;
pub mod rng;
pub mod session;
pub mod tally;
pub mod tracer;

pub use harness::{ALL, Control, Harness, of_name};
pub use rng::Rng;
pub use session::{Report, Session};

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use taskledger::internals::{Sabotage, sabotage};

/// Knows how much memory has been asked for: the fuzzer's bound.
#[global_allocator]
pub static MEMORY: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// The variable that tells a process of the lab which promise it has to break.
const SABOTAGE: &str = "TASKLEDGER_LAB_SABOTAGE";

/// Says where the lab's program is, which plays the children; and breaks the promise that the
/// environment names. Called once at the start of every process.
pub fn begin(binary: &Path) {
    drop(BINARY.set(binary.to_owned()));
    if let Ok(name) = std::env::var(SABOTAGE) {
        let known = SABOTAGES.iter().find(|what| format!("{what:?}") == name);
        sabotage(*known.unwrap_or_else(|| panic!("{SABOTAGE}={name} is not known")));
    }
}

/// Whether this process breaks a promise on purpose.
#[must_use]
pub fn is_sabotaged() -> bool {
    std::env::var_os(SABOTAGE).is_some()
}

const SABOTAGES: &[Sabotage] = &[
    Sabotage::SkipSync,
    Sabotage::HoldBack,
    Sabotage::SwallowFailure,
    Sabotage::SkipFencing,
    Sabotage::ForgetBatch,
    Sabotage::AnswerFirst,
    Sabotage::SkipReset,
    Sabotage::IgnoreWitness,
    Sabotage::SkipLock,
    Sabotage::DropEnd,
    Sabotage::LoseWake,
    Sabotage::TrustClock,
    Sabotage::TrustLength,
    Sabotage::IgnoreSync,
    Sabotage::TrustCache,
    Sabotage::NeverGiveUp,
    Sabotage::OpenFirst,
    Sabotage::LeaveCompany,
    Sabotage::KeepLead,
    Sabotage::LosePath,
    Sabotage::ByName,
    Sabotage::StayOpen,
    Sabotage::StayBehind,
    Sabotage::SyncLate,
    Sabotage::TouchFirst,
    Sabotage::DropEvidence,
    Sabotage::StopAtGap,
    Sabotage::LoseDates,
    Sabotage::LossUntold,
    Sabotage::LossUnrecorded,
    Sabotage::AcceptUnasked,
    Sabotage::JudgeBallast,
    Sabotage::TrustRecord,
    Sabotage::DigNoGrave,
    Sabotage::LoseGraves,
    Sabotage::PruneHeld,
    Sabotage::RunAgain,
    Sabotage::CopyUnmarked,
    Sabotage::CopyUnsynced,
    Sabotage::TrustNames,
    Sabotage::TrustManifest,
    Sabotage::SkipRescue,
    Sabotage::LeaveWitness,
    Sabotage::NoteLate,
    Sabotage::LoseMetadata,
    Sabotage::ForgetRepair,
    Sabotage::TrustEvidence,
    Sabotage::JudgeOnce,
    Sabotage::KeepOffer,
    Sabotage::EndFirst,
    Sabotage::TellOldNews,
    Sabotage::StartBlindly,
    Sabotage::SkipBallast,
    Sabotage::NeverFull,
    Sabotage::TakeLast,
    Sabotage::KeepPlace,
];

/// The lab's program as another process.
#[must_use]
pub fn program() -> Command {
    Command::new(BINARY.get().expect("begin was called"))
}

/// What became of a control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has found what was broken: the violation, after so many units.
    Found(String, u64),
    /// It cannot be run here, as the harness itself cannot.
    Skipped(String),
    /// It has found nothing, or something else, or was brought down: it proves nothing.
    Failed(String),
}

/// The same run with a promise broken, in a process of its own.
#[must_use]
pub fn control(harness: &Harness, control: &Control, seed: u64) -> Verdict {
    let mut command = slice(harness, control.units, seed);
    command
        .args(control.shows.iter().flat_map(|part| ["--shows", part]))
        .args(control.only.iter().flat_map(|part| ["--only", part]))
        .env(SABOTAGE, format!("{:?}", control.broken));
    let report = match report_of(&mut command) {
        Ok(report) => report,
        Err(why) => return Verdict::Failed(why),
    };
    let (tried, unit) = (report.tried, harness.unit);
    match (report.skipped, report.found, report.violations.first()) {
        (Some(why), ..) => Verdict::Skipped(why),
        (None, Some(found), _) => Verdict::Found(found, tried),
        (None, None, None) => Verdict::Failed(format!("it finds nothing in {tried} {unit}")),
        (None, None, Some(first)) => Verdict::Failed(format!("it finds something else: {first}")),
    }
}

/// One run of a harness in a process in which nothing else runs.
#[must_use]
pub fn slice(harness: &Harness, units: u64, seed: u64) -> Command {
    let mut command = program();
    command.args(["slice", harness.name]);
    command.args(["--units", &units.to_string(), "--seed", &seed.to_string()]);
    command
}

/// What the process of a slice has to say.
pub fn report_of(slice: &mut Command) -> Result<Report, String> {
    let output = slice.output().map_err(|error| format!("it does not run: {error}"))?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let told = String::from_utf8_lossy(&output.stderr);
        let last = told.lines().next_back().unwrap_or_default();
        format!("the process ended with {}: {last}", output.status)
    })
}
