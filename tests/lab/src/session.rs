//! One run of a harness: so many units, from one seed.

use crate::Rng;
use crate::harness::Harness;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// What a run came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Units that were tried.
    pub tried: u64,
    /// What else is worth counting.
    pub counts: BTreeMap<String, u64>,
    /// How often something was that must not be.
    pub violated: u64,
    /// What it was: the first few.
    pub violations: Vec<String>,
    /// The violation that a control is to find.
    pub found: Option<String>,
    /// Why it cannot be run here.
    pub skipped: Option<String>,
}

/// More than these say no more.
const TOLD: usize = 20;

/// A run under way.
#[derive(Debug)]
pub struct Session {
    pub rng: Rng,
    pub seed: u64,
    /// Units to try.
    pub units: u64,
    pub report: Report,
    /// Whether nothing else runs in this process.
    pub alone: bool,
    until: Option<Instant>,
    shows: Option<Vec<String>>,
    /// Parts of the harness; none for all.
    pub only: Vec<String>,
    /// How many parts in a row were not to be tried.
    untaken: Cell<u64>,
}

/// More parts than any harness has: none has a name that was asked for.
const NO_PART: u64 = 100_000;

impl Session {
    /// Whether another unit is to be tried.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.report.skipped.is_none()
            && self.report.found.is_none()
            && self.report.tried < self.units
            && self.untaken.get() < NO_PART
            && self.until.is_none_or(|until| Instant::now() < until)
    }

    /// Whether this part of the harness is to be tried: all of them are, unless some are named.
    #[must_use]
    pub fn takes(&self, part: &str) -> bool {
        let takes = self.only.is_empty() || self.only.iter().any(|only| only == part);
        self.untaken.set(if takes { 0 } else { self.untaken.get() + 1 });
        takes
    }

    pub fn count(&mut self, what: &str, by: u64) {
        *self.report.counts.entry(what.to_owned()).or_default() += by;
    }

    /// A unit has been tried, and this is what became of it.
    pub fn tried(&mut self, outcome: Result<(), String>) {
        self.report.tried += 1;
        if let Err(violation) = outcome {
            self.violated(violation);
        }
    }

    pub fn violated(&mut self, violation: String) {
        eprintln!("VIOLATION (seed {}): {violation}", self.seed);
        self.report.violated += 1;
        let shows = self.shows.iter().flatten().any(|part| violation.contains(part));
        if shows && self.report.found.is_none() {
            self.report.found = Some(violation.clone());
        }
        if self.report.violations.len() < TOLD {
            self.report.violations.push(violation);
        }
    }

    /// A run of CI's size or more that is not bounded in time has tried "every n" of what it names, or it is
    /// too small: then it ended here.
    pub fn incomplete(&mut self, harness: &Harness, here: &str) {
        if self.until.is_none() && self.report.found.is_none() && self.units >= harness.ci {
            self.violated(format!("{} units are not every one: it ended at {here}", self.units));
        }
    }

    /// How much time is left, if there is an end to it.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// The same in a process of its own.
    pub fn apart(&mut self, harness: &Harness) {
        let mut slice = crate::slice(harness, self.units, self.seed);
        if let Some(left) = self.time_left() {
            slice.args(["--seconds", &left.as_secs_f64().to_string()]);
        }
        match crate::report_of(&mut slice) {
            Ok(report) => self.report = report,
            Err(why) => self.violated(why),
        }
    }

    pub fn skip(&mut self, why: impl Into<String>) {
        self.report.skipped = Some(why.into());
    }
}

/// How long a run may go on.
#[derive(Clone, Debug)]
pub struct Bounds {
    pub units: u64,
    pub time: Option<Duration>,
    /// A control has shown what it has to with the first violation that says one of these.
    pub shows: Option<Vec<String>>,
    /// Tries these parts of the harness alone, or all if there are none.
    pub only: Vec<String>,
    /// Whether nothing else runs in this process.
    pub alone: bool,
}

/// Runs a harness. A panic is a violation like any other.
#[must_use]
pub fn run(harness: &Harness, seed: u64, bounds: Bounds) -> Report {
    let mut session = Session {
        rng: Rng::new(seed),
        seed,
        units: bounds.units,
        report: Report::default(),
        alone: bounds.alone,
        until: bounds.time.map(|time| Instant::now() + time),
        shows: bounds.shows,
        only: bounds.only,
        untaken: Cell::default(),
    };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (harness.run)(&mut session))) {
        session.violated(format!("a panic: {}", text_of(&*panic)));
    }
    if session.untaken.get() >= NO_PART {
        session.violated(format!("{} has no part that is called {:?}", harness.name, session.only));
    }
    session.report
}

/// What a panic says.
#[must_use]
pub fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default().to_owned()
}
