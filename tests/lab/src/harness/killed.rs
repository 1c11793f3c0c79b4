//! The process is killed: `SIGKILL`, at any time.
//!
//! Nothing that was acknowledged is lost, nothing comes back that was gone, of each client at most
//! the one thing under way is unsure, what was running is `Failed(Crashed)`; and the same directory
//! goes on, round after round. A third of the kills come at a moment counted from the start of the
//! process, half of them in a directory of their own: so creations and opens are killed as well. Half
//! of the processes have a ballast to make or to keep, the others one to remove.

use super::{Harness, broken};
use crate::Session;
use crate::ops::{Model, NOT_RESET, TAKEN_BACK};
use crate::places::{self, BALLAST, builder, some_ballast};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use taskledger::internals::Sabotage;

pub(super) const HARNESS: Harness = Harness {
    name: "killed",
    unit: "rounds",
    ci: 100,
    full: 10_000,
    run,
    controls: &[
        broken(Sabotage::HoldBack, 100, &[TAKEN_BACK]),
        broken(Sabotage::SkipReset, 100, &[NOT_RESET]),
        broken(Sabotage::LoseMetadata, 100, &[TAKEN_BACK]),
    ],
};

/// One directory goes on over all rounds of a run.
fn run(session: &mut Session) {
    let dir = places::on_disk();
    let path = dir.path().join("ledger");
    let mut model = Model::default();
    for number in 0_u64.. {
        if !session.goes_on() {
            return;
        }
        let acked = model.acked;
        let outcome = if session.rng.below(3) > 0 {
            round(session, &path, &mut model)
        } else if session.rng.coin() {
            at_a_moment(session, &path, &mut model)
        } else {
            let fresh = dir.path().join(format!("fresh-{number}"));
            let outcome = at_a_moment(session, &fresh, &mut Model::default());
            drop(std::fs::remove_dir_all(fresh));
            outcome
        };
        session.count("acknowledged", model.acked - acked);
        let failed = outcome.is_err();
        session.tried(outcome);
        if failed {
            // What follows would follow from this.
            return;
        }
    }
}

/// Now clients at work, with checkpoints made whenever the log has a few segments; now a child that
/// only opens, makes a checkpoint, and closes.
fn round(session: &mut Session, path: &Path, model: &mut Model) -> Result<(), String> {
    let rng = &mut session.rng;
    let ballast = some_ballast(rng);
    if rng.below(8) == 0 {
        let lines = 1 + rng.below(8);
        let mut child = places::child("opens and checkpoints", path);
        child.env(BALLAST, ballast.to_string());
        let counts = |line: &str| line.starts_with("ack");
        if !killed_after(child, lines, counts, &mut model.clone())? {
            return Err(format!("{lines} lines: the child ended by itself"));
        }
        return reopen_with(ballast, path, model).map_err(|lost| format!("{lines} lines: {lost}"));
    }
    let mut child = places::child("clients", path);
    let checkpoints = if rng.coin() { u64::MAX } else { 0 };
    child
        .env(BALLAST, ballast.to_string())
        .env("TASKLEDGER_CHILD_SEED", rng.next().to_string())
        .env("TASKLEDGER_CHILD_CLIENTS", (1 + rng.below(8)).to_string())
        .env("TASKLEDGER_CHILD_CHECKPOINTS", checkpoints.to_string())
        .env("TASKLEDGER_CHILD_CHECKPOINT_AFTER", "65536");
    // Often very soon: creation, replay and reset are where it hurts.
    let acks = match rng.below(4) {
        0 => 1 + rng.below(3),
        1 => 1 + rng.below(20),
        _ => 1 + rng.below(150),
    };
    if !killed_after(child, acks, |line| line.starts_with("ack"), model)? {
        return Err(format!("{acks} lines: the child ended by itself"));
    }
    reopen_with(ballast, path, model).map_err(|lost| format!("{acks} lines: {lost}"))
}

/// Kills it a short time after its start, whatever it is at: a creation, an open, the first work.
fn at_a_moment(session: &mut Session, path: &Path, model: &mut Model) -> Result<(), String> {
    let mut child = places::child("clients", path);
    let seed = session.rng.next().to_string();
    let ballast = some_ballast(&mut session.rng);
    child.env(BALLAST, ballast.to_string());
    // A creation takes longer where a sync does.
    let most = if session.rng.coin() { 30_000 } else { 200_000 };
    let delay = Duration::from_micros(session.rng.below(most));
    let mut child = child.env("TASKLEDGER_CHILD_SEED", seed).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap());
    // It is not waited for before this is over, so that the number is still its own.
    let pid = rustix::process::Pid::from_child(&child);
    let kills = std::thread::spawn(move || {
        std::thread::sleep(delay);
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)
    });
    lines.lines().map_while(Result::ok).for_each(|line| model.hear(&line));
    kills.join().unwrap().unwrap();
    if !places::was_killed(child.wait().unwrap())? {
        return Err(format!("{delay:?}: the child ended by itself"));
    }
    let what = match (model.opened, path.exists()) {
        (true, _) => "died at work at a moment",
        (false, true) => "died before it was open",
        (false, false) => "died before there was anything",
    };
    session.count(what, 1);
    reopen_with(ballast, path, model).map_err(|lost| format!("after {delay:?}: {lost}"))
}

/// Runs the child, kills it when it has said `acks` lines that `counts`, and lets the model hear
/// all it has said. Nobody sleeps: the child is killed when a line is read. Tells whether it died of a
/// kill; any other end than that or a good one is wrong.
pub(super) fn killed_after(
    mut command: Command,
    acks: u64,
    counts: impl Fn(&str) -> bool,
    model: &mut Model,
) -> Result<bool, String> {
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap());
    let (mut seen, mut last) = (0, String::new());
    for line in lines.lines() {
        let line = line.unwrap();
        model.hear(&line);
        seen += u64::from(counts(&line));
        if seen == acks {
            child.kill().unwrap();
        }
        last = line;
    }
    places::was_killed(child.wait().unwrap()).map_err(|wrong| format!("{wrong}: {last}"))
}

pub(super) fn reopen_and_check(path: &Path, model: &mut Model) -> Result<(), String> {
    reopen_with(0, path, model)
}

/// The same with a ballast of this size.
pub(super) fn reopen_with(ballast: u64, path: &Path, model: &mut Model) -> Result<(), String> {
    match reopen(ballast, path, model)?.as_slice() {
        [] => Ok(()),
        repaired => Err(format!("a kill took a repair: {repaired:?}")),
    }
}

/// The same; hands out what had to be repaired.
pub(super) fn reopen(ballast: u64, path: &Path, model: &mut Model) -> Result<Vec<String>, String> {
    places::run(async {
        let opened = places::open(builder().ballast_bytes(ballast), path).await;
        let ledger = opened.map_err(|error| format!("it does not open: {error:?}"))?;
        model.check(&ledger).await?;
        let running = ledger.running_tasks().len() + ledger.revoking_tasks().len();
        if running > 0 {
            return Err(format!("{running} {NOT_RESET}"));
        }
        let repaired = ledger.recovery().repaired().to_vec();
        ledger.close().await.map_err(|error| format!("it does not close: {error:?}"))?;
        Ok(repaired)
    })
}
