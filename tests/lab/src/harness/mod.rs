//! The harnesses, each named after what it does to the ledger.

mod accepted;
mod backlog;
mod clock;
mod copied;
mod crowd;
mod damaged;
mod deaths;
mod dropped;
mod each_call;
mod ext4;
mod full;
mod fuzz;
mod histories;
mod interleavings;
mod io_faults;
mod kept;
mod killed;
mod power_cut;
mod queued;
mod raced;
mod simulation;

use crate::Session;
use taskledger::internals::Sabotage;

/// One way to break a ledger, again and again.
#[derive(Debug)]
pub struct Harness {
    pub name: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// Units in CI, and in a run of full size.
    pub ci: u64,
    pub full: u64,
    pub run: fn(&mut Session),
    /// What is broken on purpose.
    pub controls: &'static [Control],
}

/// The same run with a promise broken, which must find it.
#[derive(Debug)]
pub struct Control {
    pub broken: Sabotage,
    /// Within how many units it must be found.
    pub units: u64,
    /// What the violation says, one of these: a run that fails for another reason has not found it.
    pub shows: &'static [&'static str],
    /// The parts of the harness in which it matters, unless those are all.
    pub only: &'static [&'static str],
}

const fn broken(broken: Sabotage, units: u64, shows: &'static [&'static str]) -> Control {
    Control { broken, units, shows, only: &[] }
}

impl Control {
    /// What is broken matters in these parts of the harness alone: the others would find it by luck.
    const fn only(self, only: &'static [&'static str]) -> Self {
        Self { only, ..self }
    }
}

/// All of them.
pub const ALL: &[Harness] = &[
    killed::HARNESS,
    each_call::HARNESS,
    power_cut::HARNESS,
    crowd::HARNESS,
    ext4::HARNESS,
    io_faults::HARNESS,
    full::HARNESS,
    damaged::HARNESS,
    histories::HARNESS,
    simulation::HARNESS,
    interleavings::HARNESS,
    dropped::HARNESS,
    kept::HARNESS,
    queued::HARNESS,
    backlog::HARNESS,
    raced::HARNESS,
    fuzz::HARNESS,
    clock::HARNESS,
];

#[must_use]
pub fn of_name(name: &str) -> Option<&'static Harness> {
    ALL.iter().find(|harness| harness.name == name)
}
