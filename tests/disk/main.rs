//! What can become of a ledger's directory, and what the ledger then makes of it.
//!
//! Each module is named after a misfortune. How many rounds, states or cases are tried is set by
//! `TASKLEDGER_ROUNDS` (a factor is `x10`), where the random numbers begin by `TASKLEDGER_SEED`;
//! every test prints the seed it ran with.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::indexing_slicing, reason = "a test may panic")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the arms that it expects")]

mod child;
mod lab;

mod damaged;
mod full;
mod killed;
mod older;
mod power_cut;
mod raced;
mod refused;
