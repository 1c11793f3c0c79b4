//! The harnesses, each named after what it does to the ledger.

mod clock;
mod damaged;
mod dropped;
mod each_call;
mod ext4;
mod full;
mod fuzz;
mod histories;
mod interleavings;
mod io_faults;
mod killed;
mod linear;
mod power_cut;
mod raced;
mod simulation;

use crate::Session;
use taskledger::internals::Sabotage;

/// One way to break a ledger, again and again.
#[derive(Debug)]
pub struct Harness {
    /// Its number in `GUARANTEES.md`.
    pub row: u32,
    pub name: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// Units in CI, and in a run of full size.
    pub ci: u64,
    pub full: u64,
    pub run: fn(&mut Session),
    /// What is broken on purpose, and within how many units that must be found.
    pub controls: &'static [(Sabotage, u64)],
}

/// All of them.
pub const ALL: &[Harness] = &[
    killed::HARNESS,
    each_call::HARNESS,
    power_cut::HARNESS,
    ext4::HARNESS,
    io_faults::HARNESS,
    full::HARNESS,
    damaged::HARNESS,
    histories::HARNESS,
    simulation::HARNESS,
    interleavings::HARNESS,
    dropped::HARNESS,
    raced::HARNESS,
    fuzz::HARNESS,
    clock::HARNESS,
];

#[must_use]
pub fn of_name(name: &str) -> Option<&'static Harness> {
    ALL.iter().find(|harness| harness.name == name)
}
