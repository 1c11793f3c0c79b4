//! What is at a path, and what the ledger then makes of it: what can be said without random numbers.
//!
//! Each module is named after a misfortune. What is tried again and again is in the harnesses.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod full;
mod large;
mod older;
mod raced;
mod refused;
mod traced;

/// What the harnesses have as well.
mod lab {
    pub(crate) use taskledger_lab::places::*;

    use std::path::Path;
    use std::process::Command;

    pub(crate) fn child(role: &str, path: &Path) -> Command {
        taskledger_lab::begin(Path::new(env!("CARGO_BIN_EXE_taskledger-lab")));
        taskledger_lab::places::child(role, path)
    }
}
