//! The power goes, and the disk forgets what was never synced.
//!
//! A child's writes, syncs and acknowledgements are traced, in one order. For moments of it the
//! simulator in `lab/disk.rs` makes what a disk might hold after a power cut then, and every record
//! acknowledged by that moment must be there. A creation that nobody was told of may be gone; the
//! directory is not bricked by it.
//!
//! The control leaves out the one sync that the promise stands on, and must find records lost: else
//! the simulator would see nothing.

use crate::lab::disk::{Disk, Fate, Names};
use crate::lab::ops::Model;
use crate::lab::tracer::{self, Call};
use crate::lab::{self, Image, Rng, builder, rounds};
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Traced runs of clients, one process after the other.
struct Trace {
    before: Image,
    model: Model,
    calls: Vec<Call>,
    /// Where the calls of the last process begin, in which the power goes.
    last: usize,
}

/// How the clients of a run are set.
struct Run<'a> {
    name: &'a str,
    clients: u64,
    count: u64,
    checkpoints: u64,
    checkpoint_after: u64,
    /// The files whose syncs are left out.
    deaf: Option<&'a str>,
    /// Processes that are killed before, each with how, in the words of `tracer.c`.
    killed: &'a [(&'a str, String)],
}

/// Runs clients in a ledger that begins as `before`, with clients of names that were not used yet.
fn trace(tracer: &Path, before: Image, model: &Model, first: u64, run: &Run<'_>) -> Trace {
    let top = lab::scratch();
    let dir = top.path().join("disk");
    lab::lay_out(&before, &dir);
    let mut calls = Vec::new();
    let mut last = 0;
    let kills = run.killed.iter().map(Some).chain([None]);
    for (process, kill) in kills.enumerate() {
        last = calls.len();
        let process = process as u64;
        let first = first + process * run.clients;
        let file = top.path().join("trace");
        let mut child = lab::child("clients", &dir.join("ledger"));
        child
            .env("TASKLEDGER_CHILD_SEED", first.to_string())
            .env("TASKLEDGER_CHILD_FIRST_CLIENT", first.to_string())
            .env("TASKLEDGER_CHILD_CLIENTS", run.clients.to_string())
            .env("TASKLEDGER_CHILD_COUNT", run.count.to_string())
            .env("TASKLEDGER_CHILD_CHECKPOINTS", run.checkpoints.to_string())
            .env("TASKLEDGER_CHILD_CHECKPOINT_AFTER", run.checkpoint_after.to_string());
        if let Some(deaf) = run.deaf {
            child.env("TL_DEAF", deaf);
        }
        tracer::traced(&mut child, tracer, &dir, &file);
        if let Some((how, when)) = kill {
            child.env(how, when);
        }
        let mut child = child.spawn().unwrap();
        // Read, so that the child is not held up.
        let lines: Vec<String> =
            BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap).collect();
        let ended = child.wait().unwrap().success();
        assert!(ended || kill.is_some(), "{}: {lines:?}", run.name);
        calls.extend(tracer::read(&file, &dir, process * tracer::HANDLES));
    }
    Trace { before, model: model.clone(), calls, last }
}

/// What became of the states that were tried.
#[derive(Debug, Default)]
struct Tally {
    states: u64,
    repaired: u64,
    lost: Vec<String>,
}

/// Tries `states` states of the trace.
fn try_states(trace: &Trace, name: &str, states: u64, fates: &[Fate], rng: &mut Rng) -> Tally {
    let (last, length) = (trace.last as u64, trace.calls.len() as u64);
    let mut moments: Vec<u64> = (0..states).map(|_| last + rng.below(length - last + 1)).collect();
    moments.sort_unstable();
    let mut disks = [Names::Strict, Names::Journalled].map(|names| {
        let disk = Disk::holding(&trace.before, names);
        (names, disk)
    });
    let mut model = trace.model.clone();
    let mut tally = Tally::default();
    let mut played = 0;
    for moment in moments {
        for call in &trace.calls[played..moment as usize] {
            disks.iter_mut().for_each(|(_, disk)| disk.play(call));
            if let Call::Ack(line) = call {
                model.hear(line);
            }
        }
        played = moment as usize;
        let (names, disk) = rng.pick(&disks);
        let fate = *rng.pick(fates);
        let context = format!("{name}, call {moment} of {length}, {names:?} names, {fate:?}");
        let image = disk.cut(fate, rng);
        tally.states += 1;
        match try_state(&image, &mut model.clone(), rng.below(4) == 0) {
            Ok(repaired) => tally.repaired += u64::from(repaired),
            Err(lost) => {
                if let Ok(keep) = std::env::var("TASKLEDGER_KEEP") {
                    let kept = Path::new(&keep).join(format!("{name}-{moment}-{fate:?}"));
                    lab::lay_out(&image, &kept);
                }
                tally.lost.push(format!("{context}: {lost}"));
            }
        }
    }
    tally
}

/// Opens what the cut left. Tells whether something was repaired.
fn try_state(image: &Image, model: &mut Model, goes_on: bool) -> Result<bool, String> {
    let top = lab::scratch();
    lab::lay_out(image, top.path());
    let path = top.path().join("ledger");
    lab::run(async {
        let ledger = lab::open(builder(), &path)
            .await
            .map_err(|error| format!("it does not open: {error:?}"))?;
        model.check(&ledger).await?;
        let repaired = !ledger.recovery().repaired().is_empty();
        if goes_on {
            ledger.mark_succeeded("after the cut".to_owned()).await.unwrap();
        }
        ledger.close().await.map_err(|error| format!("it does not close: {error:?}"))?;
        if goes_on {
            let ledger = lab::open(builder(), &path).await.map_err(|error| format!("{error:?}"))?;
            assert!(ledger.succeeded_tasks().contains("after the cut"));
            ledger.close().await.unwrap();
        }
        Ok(repaired)
    })
}

/// A ledger with a history, closed, and what is known of it; as the disk `ledger/...`.
fn history() -> (Image, Model) {
    let top = lab::scratch();
    let mut child = lab::child("clients", &top.path().join("ledger"));
    child.env("TASKLEDGER_CHILD_COUNT", "30").env("TASKLEDGER_CHILD_CHECKPOINTS", "1");
    let mut child = child.spawn().unwrap();
    let mut model = Model::default();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        model.hear(&line.unwrap());
    }
    assert!(child.wait().unwrap().success());
    model.opened = false;
    (lab::image(top.path()), model)
}

const APPEND: Run<'static> = Run {
    name: "append",
    clients: 4,
    count: 60,
    checkpoints: 0,
    checkpoint_after: 64 << 20,
    deaf: None,
    killed: &[],
};

#[test]
fn nothing_acknowledged_is_lost() {
    let Some(tracer) = tracer::tracer("power_cut::nothing_acknowledged_is_lost") else { return };
    let mut rng = Rng::of("power_cut::nothing_acknowledged_is_lost");
    let states = rounds(300) / 4;
    let (before, model) = history();
    let create = Run { name: "create", clients: 1, count: 2, ..APPEND };
    let reopen = Run { name: "reopen", clients: 1, count: 2, ..APPEND };
    let checkpoint =
        Run { name: "checkpoint", count: 30, checkpoints: 4, checkpoint_after: 1 << 16, ..APPEND };
    let mut total = Tally::default();
    for run in [create, APPEND, reopen, checkpoint] {
        let (before, model) = match run.name {
            "create" => (Image::new(), Model::default()),
            _ => (before.clone(), model.clone()),
        };
        let trace = trace(tracer, before, &model, 100, &run);
        let tally = try_states(&trace, run.name, states, &Fate::ALL, &mut rng);
        println!(
            "{}: {} calls, {} states, {} repaired, {} lost",
            run.name,
            trace.calls.len(),
            tally.states,
            tally.repaired,
            tally.lost.len()
        );
        total.states += tally.states;
        total.lost.extend(tally.lost);
    }
    assert!(total.lost.is_empty(), "of {} states:\n{}", total.states, total.lost.join("\n"));
}

/// What a killed process wrote is in the page cache alone, and so are the names it gave: the next
/// one builds on both, acknowledges, and then the power goes.
#[test]
fn what_a_killed_process_left_unsynced_carries_nothing_acknowledged() {
    let test = "power_cut::what_a_killed_process_left_unsynced_carries_nothing_acknowledged";
    let Some(tracer) = tracer::tracer(test) else { return };
    let mut rng = Rng::of(test);
    let (history, model) = history();
    let checkpoints = Run { count: 15, checkpoints: 2, checkpoint_after: 1 << 16, ..APPEND };
    let states = rounds(16);
    let mut total = Tally::default();
    let mut killed_runs: Vec<(bool, Vec<(&str, String)>)> = (1..=3)
        // Between the rename of a manifest and the sync of its name.
        .map(|renames| (true, vec![("TL_KILL_AFTER", format!("manifest:{renames}"))]))
        .collect();
    for _ in 0..6 {
        let mut kill = || ("TL_KILL_AT", (1 + rng.below(150)).to_string());
        killed_runs.push((false, vec![kill()]));
        killed_runs.push((true, vec![kill(), kill()]));
    }
    for (fresh, killed) in &killed_runs {
        let run = Run { name: "killed before", clients: 2, killed, ..checkpoints };
        let (before, model) = match fresh {
            true => (Image::new(), Model::default()),
            false => (history.clone(), model.clone()),
        };
        let trace = trace(tracer, before, &model, 100, &run);
        let name = format!("fresh {fresh}, {killed:?}");
        let tally = try_states(&trace, &name, states, &Fate::ALL, &mut rng);
        total.states += tally.states;
        total.lost.extend(tally.lost);
    }
    println!("{} states after {} kills", total.states, killed_runs.len());
    assert!(total.lost.is_empty(), "of {} states:\n{}", total.states, total.lost.join("\n"));
}

#[test]
fn without_the_sync_records_are_lost() {
    let Some(tracer) = tracer::tracer("power_cut::without_the_sync_records_are_lost") else {
        return;
    };
    let mut rng = Rng::of("power_cut::without_the_sync_records_are_lost");
    let (before, model) = history();
    let run = Run { deaf: Some("db"), ..APPEND };
    let trace = trace(tracer, before, &model, 100, &run);
    let tally = try_states(&trace, "control", rounds(20), &[Fate::Dropped], &mut rng);
    println!("control: {} states, {} lost", tally.states, tally.lost.len());
    assert!(
        tally.lost.len() as u64 * 2 > tally.states,
        "the simulator sees nothing: {} of {} states lost something",
        tally.lost.len(),
        tally.states
    );
}
