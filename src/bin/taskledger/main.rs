//! The `taskledger` command: commands that run once, and a shell around [`taskledger::dump`].
//!
//! Exit codes: 0 done, and nothing is wrong; 1 damaged, or no such id; 2 could not look, or called
//! wrongly. Those of `map` and `exec` stand in their help.

mod args;
mod beside;
mod command;
mod copies;
mod dump;
mod exec;
mod json;
mod log;
mod map;
mod processes;
mod prune;
mod queue;
mod raw;
mod repair;
mod resolve;
mod show;
mod signals;
mod slots;
mod stats;
mod terminal;
mod tree;
mod verify;

use args::{Args, Command};
use clap::{CommandFactory, Parser};
use std::io::Write;
use std::process::ExitCode;
use terminal::Failure;

/// Made whole before any of it is printed: what makes it does not expect that printing fails.
fn completions(shell: clap_complete::Shell) -> terminal::Done {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "taskledger", &mut script);
    let mut out = terminal::out();
    out.write_all(&script)?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Map(args) => map::run(&args),
        Command::Exec(args) => exec::run(&args),
        Command::Dump(args) => dump::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Log(args) => log::run(&args),
        Command::Queue(args) => queue::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Repair(args) => repair::run(&args),
        Command::Resolve(args) => resolve::run(&args),
        Command::Pin(args) => resolve::pin(&args),
        Command::Unpin(args) => resolve::unpin(&args),
        Command::Prune(args) => prune::run(&args),
        Command::Copies(args) => copies::run(&args),
        Command::Completions(args) => completions(args.shell),
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
