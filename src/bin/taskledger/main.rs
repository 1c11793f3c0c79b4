//! The `taskledger` command: a shell around [`taskledger::dump`].
//!
//! Exit codes: 0 done, and nothing is wrong; 1 damaged, or no such id; 2 could not look, or called
//! wrongly.

mod args;
mod dump;
mod json;
mod log;
mod output;
mod repair;
mod show;
mod stats;
mod terminal;
mod verify;

use args::{Args, Command};
use clap::Parser;
use std::process::ExitCode;
use terminal::Failure;

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Dump(args) => dump::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Log(args) => log::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Repair(args) => repair::run(&args),
    };
    match done {
        Ok(code) => code,
        // Whoever reads has seen enough.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            terminal::complain(&failure.to_string());
            ExitCode::from(2)
        }
    }
}
