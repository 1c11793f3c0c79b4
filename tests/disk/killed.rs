//! The process is killed: `SIGKILL`, at any time.
//!
//! Nothing that was acknowledged is lost, nothing comes back that was gone, of each client at most
//! the one thing under way is unsure, what was running is `Failed(Crashed)`; and the same directory
//! goes on, round after round.

use crate::lab::ops::Model;
use crate::lab::{self, Rng, builder, rounds, tracer};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs the child, kills it when it has said `acks` lines that `counts`, and lets the model hear
/// all it has said. Nobody sleeps: the child is killed when a line is read.
fn killed_after(
    mut command: Command,
    acks: u64,
    counts: impl Fn(&str) -> bool,
    model: &mut Model,
) -> bool {
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap());
    let mut seen = 0;
    for line in lines.lines() {
        let line = line.unwrap();
        model.hear(&line);
        seen += u64::from(counts(&line));
        if seen == acks {
            child.kill().unwrap();
        }
    }
    !child.wait().unwrap().success()
}

fn reopen_and_check(path: &Path, model: &mut Model, context: &str) {
    lab::run(async {
        let ledger = lab::open(builder(), path)
            .await
            .unwrap_or_else(|error| panic!("{context}: it does not open: {error:?}"));
        model.check(&ledger).await.unwrap_or_else(|lost| panic!("{context}: {lost}"));
        assert_eq!(ledger.running_tasks().len() + ledger.revoking_tasks().len(), 0);
        assert_eq!(ledger.recovery().repaired(), <&[String]>::default(), "{context}");
        ledger.close().await.unwrap();
    });
}

/// Clients at work, with a checkpoint made whenever the log has a few segments.
#[test]
fn while_clients_work() {
    let mut rng = Rng::of("killed::while_clients_work");
    let dir = lab::on_disk();
    let path = dir.path().join("ledger");
    let mut model = Model::default();
    let rounds = rounds(100);
    for round in 0..rounds {
        let mut child = lab::child("clients", &path);
        let checkpoints = if rng.coin() { u64::MAX } else { 0 };
        child
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
        let died = killed_after(child, acks, |line| line.starts_with("ack"), &mut model);
        assert!(died, "round {round}: the child ended by itself");
        reopen_and_check(&path, &mut model, &format!("round {round}, {acks} lines"));
    }
    println!("{rounds} rounds, {} things acknowledged, none lost", model.acked);
    assert!(model.acked > rounds, "the clients did next to nothing");
}

/// A child that only opens, makes a checkpoint, and closes.
#[test]
fn while_it_opens_and_checkpoints() {
    let mut rng = Rng::of("killed::while_it_opens_and_checkpoints");
    let dir = lab::on_disk();
    let path = dir.path().join("ledger");
    let mut model = Model::default();
    let rounds = rounds(15);
    for round in 0..rounds {
        let mut work = lab::child("clients", &path);
        work.env("TASKLEDGER_CHILD_SEED", rng.next().to_string());
        killed_after(work, 60, |line| line.contains("done"), &mut model);
        let child = lab::child("opens and checkpoints", &path);
        let lines = 1 + rng.below(8);
        let died = killed_after(child, lines, |line| line.starts_with("ack"), &mut model.clone());
        assert!(died, "round {round}");
        reopen_and_check(&path, &mut model, &format!("round {round}, {lines} lines"));
    }
    println!("{rounds} rounds");
}

/// At every single change that creation, open, replay, reset, checkpoint and close make to a file,
/// the call itself not made. A kill in the recovery from a kill included.
#[test]
fn before_each_change_of_a_file() {
    let Some(tracer) = tracer::tracer("killed::before_each_change_of_a_file") else { return };
    let mut rng = Rng::of("killed::before_each_change_of_a_file");
    // In the first run all calls are new; then as many as the budget allows.
    let budget = rounds(120);
    let top = lab::scratch();
    let (mut at, mut tried, mut died) = (1, 0, 0);
    // A ledger with a history, killed at work, to open.
    let path = top.path().join("history");
    let mut history_model = Model::default();
    let mut work = lab::child("clients", &path);
    work.env("TASKLEDGER_CHILD_SEED", "7").env("TASKLEDGER_CHILD_CHECKPOINTS", "2");
    killed_after(work, 120, |line| line.contains("done"), &mut history_model);
    let history = lab::image(&path);
    for fresh in [true, false] {
        loop {
            let path = top.path().join(format!("{fresh}-{at}"));
            std::fs::create_dir(&path).unwrap();
            let mut model = Model::default();
            if !fresh {
                lab::lay_out(&history, &path);
                model = history_model.clone();
            }
            let mut child = lab::child("clients", &path);
            child
                .env("TASKLEDGER_CHILD_SEED", "1")
                .env("TASKLEDGER_CHILD_CLIENTS", "1")
                .env("TASKLEDGER_CHILD_FIRST_CLIENT", "100")
                .env("TASKLEDGER_CHILD_COUNT", "3")
                .env("TASKLEDGER_CHILD_CHECKPOINTS", "1")
                .stderr(Stdio::piped());
            tracer::killed_at(&mut child, tracer, &path, at);
            let killed = killed_after(child, u64::MAX, |_| false, &mut model);
            // And again, while the next open tidies up.
            if killed && rng.below(3) == 0 {
                let mut again = lab::child("opens and checkpoints", &path);
                again.env("TASKLEDGER_CHILD_COUNT", "1");
                tracer::killed_at(&mut again, tracer, &path, 1 + rng.below(40));
                killed_after(again, u64::MAX, |_| false, &mut model.clone());
            }
            reopen_and_check(&path, &mut model, &format!("fresh {fresh}, killed at change {at}"));
            std::fs::remove_dir_all(&path).unwrap();
            tried += 1;
            died += u64::from(killed);
            if !killed {
                println!("fresh {fresh}: {at} changes");
                break;
            }
            at += 1 + rng.below(2 * 200 / budget.max(1));
        }
        at = 1;
    }
    println!("{tried} kills tried, {died} died");
    assert!(died > 20, "the tracer kills nobody");
}
