//! The power goes, and the disk forgets what was never synced.
//!
//! A child's writes, syncs and acknowledgements are traced, in one order. For moments of it the
//! simulator in `lab/disk.rs` makes what a disk might hold after a power cut then, and every record
//! acknowledged by that moment must be there. A creation that nobody was told of may be gone; the
//! directory is not bricked by it.
//!
//! What a killed process wrote is in the page cache alone, and so are the names it gave: so some runs
//! go over several processes on one disk, the first ones killed, and the power goes in the last one.
//! Other runs begin with what a power cut has left, and the power goes again. And in some the disk
//! fails to write what a sync was to write: the next process still reads it, and says what it has
//! read; that is certain from then on.
//!
//! Very many outputs that are written at once are a harness of their own (`crowd.rs`).
//!
//! The controls leave out the one sync that the promise stands on, or those within a long append, and
//! must find records lost: else the simulator would see nothing.

use super::{Harness, accepted, broken};
use crate::disk::{Disk, Fate, Names};
use crate::ops::{Model, TAKEN_BACK};
use crate::places::{self, ACCEPTS, Image, builder};
use crate::tracer::{self, Call};
use crate::{Rng, Session};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use taskledger::OpenError;
use taskledger::internals::{Sabotage, age};

pub(super) const HARNESS: Harness = Harness {
    name: "power-cut",
    unit: "states",
    ci: 1_000,
    full: 100_000,
    run,
    controls: &[
        broken(Sabotage::SkipSync, 1000, &[TAKEN_BACK, "was durable"]),
        broken(Sabotage::TrustCache, 3000, &[TAKEN_BACK, "was durable", "the log has a gap"])
            .only(&["a failed sync"]),
        broken(Sabotage::TrustNames, 3000, &[TAKEN_BACK]).only(&["killed at a directory"]),
        broken(Sabotage::TrustManifest, 3000, &[TAKEN_BACK, "was durable", "it is missing"])
            .only(&["killed at a manifest"]),
        broken(Sabotage::TrustEvidence, 3000, &["is not kept as evidence"])
            .only(&["an accepted loss"]),
        broken(Sabotage::LeaveWitness, 1000, &[UNSEEN]).only(&["idle"]),
    ],
};

/// Where the ledger is on its disk: who creates it creates these directories as well.
const LEDGER: &str = "some/where/ledger";

/// What is said of a loss that only the witness can tell of, and does not.
const UNSEEN: &str = "the end of the log is gone, and nobody says so";

/// Bytes of a segment of the store.
const SEGMENT: u64 = 8 << 20;

/// Traced runs of clients, one process after the other.
pub(super) struct Trace {
    pub(super) before: Image,
    model: Model,
    pub(super) calls: Vec<Call>,
    /// Where the calls of the last process begin, in which the power goes.
    pub(super) last: usize,
    /// Bytes that are used of the longest log, at the end.
    longest: u64,
    accepts: bool,
}

/// How the clients of a run are set.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) name: &'a str,
    /// What a child plays that nothing is done to.
    pub(super) role: &'a str,
    pub(super) clients: u64,
    pub(super) count: u64,
    pub(super) checkpoints: u64,
    /// The last process makes none.
    pub(super) settles: bool,
    pub(super) checkpoint_after: u64,
    /// Bytes of each output, at least.
    pub(super) output: u64,
    /// Whether the first process says what it has found; all later ones do.
    pub(super) looks: bool,
    /// Whether the ledger has lost something, which is accepted.
    pub(super) accepts: bool,
    /// Processes that are killed before, or whose disk fails, each with how, in the words of
    /// `tracer.c`.
    pub(super) hurt: &'a [(&'a str, String)],
}

/// Runs clients in a ledger that begins as `before`, with clients of names that were not used yet.
pub(super) fn trace(
    tracer: &Path,
    before: Image,
    model: &Model,
    first: u64,
    run: &Run<'_>,
) -> Trace {
    let top = places::scratch();
    let dir = top.path().join("disk");
    places::lay_out(&before, &dir);
    let mut calls = Vec::new();
    let mut last = 0;
    let hurt = run.hurt.iter().map(Some).chain([None]);
    for (process, hurt) in hurt.enumerate() {
        last = calls.len();
        let process = process as u64;
        let first = first + process * run.clients;
        let file = top.path().join("trace");
        let fails = hurt.is_some_and(|(how, _)| *how == "TL_FAIL");
        let checkpoints = if run.settles && hurt.is_none() { 0 } else { run.checkpoints };
        let role = if fails { "suffers" } else { run.role };
        let mut child = places::child(role, &dir.join(LEDGER));
        child
            .env("TASKLEDGER_CHILD_LOOKS", u64::from(run.looks || process > 0).to_string())
            .env("TASKLEDGER_CHILD_SEED", first.to_string())
            .env("TASKLEDGER_CHILD_FIRST_CLIENT", first.to_string())
            .env("TASKLEDGER_CHILD_CLIENTS", run.clients.to_string())
            .env("TASKLEDGER_CHILD_COUNT", run.count.to_string())
            .env("TASKLEDGER_CHILD_CHECKPOINTS", checkpoints.to_string())
            .env("TASKLEDGER_CHILD_CHECKPOINT_AFTER", run.checkpoint_after.to_string())
            .env("TASKLEDGER_CHILD_OUTPUT", run.output.to_string())
            .env("TASKLEDGER_CHILD_DEADLINE", places::NEVER.as_secs().to_string())
            .env(ACCEPTS, u64::from(run.accepts).to_string());
        tracer::traced(&mut child, tracer, &dir, &file);
        if let Some((how, when)) = hurt {
            child.env(how, when);
        }
        let mut child = child.spawn().unwrap();
        // Read, so that the child is not held up.
        let lines: Vec<String> =
            BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap).collect();
        // A disk that fails makes the store panic when it is dropped.
        let panicked = |line: &&String| line.contains("panicked") && !line.contains("/sled-0.34");
        let bad = lines.iter().find(|line| panicked(line) || line.starts_with("ack bad"));
        assert_eq!(bad, None, "{}", run.name);
        let may_be_killed = hurt.is_some() && !fails;
        match places::was_killed(child.wait().unwrap()) {
            Ok(killed) => assert!(!killed || may_be_killed, "{}: killed", run.name),
            Err(wrong) => panic!("{}: {wrong}: {:?}", run.name, lines.last()),
        }
        calls.extend(tracer::read(&file, &dir, process * tracer::HANDLES));
    }
    let longest = places::image(&dir)
        .iter()
        .filter(|(name, _)| name.ends_with("db"))
        .filter_map(|(_, content)| content.as_deref().map(places::used))
        .max();
    let (model, longest) = (model.clone(), longest.unwrap_or_default());
    Trace { before, model, calls, last, longest, accepts: run.accepts }
}

/// What a cut has left, and what is known in it: nobody has opened it yet.
struct Cut {
    image: Image,
    model: Model,
    /// The open had something to repair.
    sore: bool,
}

/// Tries up to `states` states of the trace. Returns one of them.
fn try_states(session: &mut Session, trace: &Trace, name: &str, states: u64) -> Option<Cut> {
    let (last, length) = (trace.last as u64, trace.calls.len() as u64);
    // Most calls of an open are made before anybody is told of it: half of the moments after that.
    // A repair is made before: half of them then.
    let told = |call: &Call| matches!(call, Call::Ack(line) if line == "ack open");
    let told = trace.calls[trace.last..].iter().position(told);
    let told = told.map_or(length - 1, |at| last + at as u64);
    let mut moment = |number: u64| {
        let (from, end) = match name {
            "create" | "killed at a directory" | "killed at a manifest" if number % 2 == 0 => {
                (told + 1, length)
            }
            "cut before, repaired" if number % 2 == 0 => (last, told),
            _ => (last, length),
        };
        from + session.rng.below(end - from + 1)
    };
    let mut moments: Vec<u64> = (0..states).map(&mut moment).collect();
    moments.sort_unstable();
    let mut disks = [Names::Strict, Names::Journalled].map(|names| {
        let disk = Disk::holding(&trace.before, names);
        (names, disk)
    });
    let mut model = trace.model.clone();
    let mut played = 0;
    let mut one = None;
    for moment in moments {
        if !session.goes_on() {
            return None;
        }
        for call in &trace.calls[played..moment as usize] {
            disks.iter_mut().for_each(|(_, disk)| disk.play(call));
            if let Call::Ack(line) = call {
                model.hear(line);
            }
        }
        played = moment as usize;
        let (names, disk) = session.rng.pick(&disks);
        let fate = *session.rng.pick(&Fate::ALL);
        let context = format!("{name}, call {moment} of {length}, {names:?} names, {fate:?}");
        let image = disk.cut(fate, &mut session.rng);
        let goes_on = session.rng.below(4) == 0;
        let damaged = trace.accepts.then_some(&trace.before);
        let outcome = try_state(&image, &mut model.clone(), goes_on, damaged);
        session.count(&format!("states of {name}"), 1);
        session.count("states with nothing acknowledged yet", u64::from(model.acked == 0));
        session.count("repaired", u64::from(outcome == Ok(true)));
        if outcome.is_err() {
            if let Ok(keep) = std::env::var("TASKLEDGER_KEEP") {
                let kept = Path::new(&keep).join(format!("{name}-{moment}-{fate:?}"));
                places::lay_out(&image, &kept);
            }
        }
        // What took a repair is what a second cut may hurt.
        let sore = outcome == Ok(true);
        let taken = one.as_ref().is_none_or(|one: &Cut| sore || (!one.sore && goes_on));
        if outcome.is_ok() && taken {
            one = Some(Cut { image, model: model.clone(), sore });
        }
        session.tried(outcome.map(drop).map_err(|lost| format!("{context}: {lost}")));
    }
    one
}

/// Cuts the power when the ledger has been idle for a while, and damages the end of the log in addition:
/// nothing but the witness can tell that it has been longer.
fn tail_is_missed(session: &mut Session, trace: &Trace) {
    let idle = |call: &Call| matches!(call, Call::Ack(line) if line == "ack idle");
    let idle = trace.calls.iter().position(idle).expect("it has been idle");
    for names in [Names::Strict, Names::Journalled] {
        let mut disk = Disk::holding(&trace.before, names);
        trace.calls[..idle].iter().for_each(|call| disk.play(call));
        let fate = *session.rng.pick(&Fate::ALL);
        let image = of_ledger(&disk.cut(fate, &mut session.rng));
        let top = places::scratch();
        places::lay_out(&accepted::without_last_frame(&image), top.path());
        let outcome = places::run(async {
            match places::open(builder(), top.path()).await {
                Err(OpenError::Damaged(_)) => Ok(()),
                Err(other) => Err(format!("it says something else: {other:?}")),
                Ok(ledger) => {
                    ledger.close().await.unwrap();
                    Err(UNSEEN.to_owned())
                }
            }
        });
        session.count("states with the end of the log gone", 1);
        session.tried(outcome.map_err(|wrong| format!("idle, {names:?} names, {fate:?}: {wrong}")));
    }
}

/// Opens what the cut left. Tells whether something was repaired. If it was `damaged` before, the loss
/// may have to be accepted now, until that has been told.
pub(super) fn try_state(
    image: &Image,
    model: &mut Model,
    goes_on: bool,
    damaged: Option<&Image>,
) -> Result<bool, String> {
    let top = places::scratch();
    places::lay_out(image, top.path());
    let path = top.path().join(LEDGER);
    places::run(async {
        let told = damaged.is_none() || model.opened;
        let ledger = accepted::open_or_accept(0, &path, told).await?;
        model.check(&ledger).await?;
        let repaired = !ledger.recovery().repaired().is_empty();
        if goes_on {
            ledger.mark_succeeded("after the cut".to_owned()).await.unwrap();
        }
        ledger.close().await.map_err(|error| format!("it does not close: {error:?}"))?;
        if let Some(damaged) = damaged {
            accepted::evidence_is_kept(&of_ledger(damaged), &path)?;
            accepted::is_on_record(&path)?;
        }
        if goes_on {
            let ledger =
                places::open(builder(), &path).await.map_err(|error| format!("{error:?}"))?;
            assert!(ledger.succeeded_tasks().contains("after the cut"));
            ledger.close().await.unwrap();
        }
        Ok(repaired)
    })
}

/// A ledger with a history, closed; the same of an older format version; and what is known of it. Both as
/// a disk.
fn history(checkpoints: u64) -> (Image, Image, Model) {
    let top = places::scratch();
    let mut child = places::child("clients", &top.path().join(LEDGER));
    child
        .env("TASKLEDGER_CHILD_COUNT", "30")
        .env("TASKLEDGER_CHILD_CHECKPOINTS", checkpoints.to_string());
    let mut child = child.spawn().unwrap();
    let mut model = Model::default();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        model.hear(&line.unwrap());
    }
    assert!(child.wait().unwrap().success());
    model.opened = false;
    let history = places::image(top.path());
    age(&top.path().join(LEDGER)).unwrap();
    (history, places::image(top.path()), model)
}

/// What is below the ledger on this disk.
fn of_ledger(disk: &Image) -> Image {
    let below = |name: &PathBuf| name.strip_prefix(LEDGER).ok().map(Path::to_owned);
    disk.iter().filter_map(|(name, content)| Some((below(name)?, content.clone()))).collect()
}

/// The same disk with this as its ledger.
fn with_ledger(disk: &Image, ledger: Image) -> Image {
    let others = disk.iter().filter(|(name, _)| !name.starts_with(LEDGER));
    let others = others.map(|(name, content)| (name.clone(), content.clone()));
    let ledger = ledger.into_iter().map(|(name, content)| (Path::new(LEDGER).join(name), content));
    others.chain(ledger).collect()
}

pub(super) const APPEND: Run<'static> = Run {
    name: "append",
    role: "clients",
    clients: 4,
    count: 60,
    checkpoints: 0,
    settles: false,
    checkpoint_after: 64 << 20,
    output: 0,
    looks: false,
    accepts: false,
    hurt: &[],
};

/// What is done to the processes before the last one, each in the words of `tracer.c`.
fn hurt(run: &str, fresh: bool, rng: &mut Rng) -> Vec<(&'static str, String)> {
    let kill_at = |rng: &mut Rng, most| ("TL_KILL_AT", (1 + rng.below(most)).to_string());
    match run {
        // While the directories are made.
        "killed at a directory" => vec![kill_at(rng, 4)],
        // Between its rename and the sync of its name: that of the creation, of the start of a new log,
        // of a checkpoint. Most of them where nothing is renamed soon after.
        "killed at a manifest" => {
            let number = rng.pick(if fresh { &[1, 1, 2, 3] } else { &[2, 2, 2, 1] });
            vec![("TL_KILL_AFTER", format!("manifest:{number}"))]
        }
        "killed before" => (0..=rng.below(2)).map(|_| kill_at(rng, 150)).collect(),
        "killed in a rebuild" | "killed in a migration" => vec![kill_at(rng, 40)],
        // EIO.
        "a failed sync" => vec![("TL_FAIL", format!("sync:{}:5:once", 1 + rng.below(60)))],
        _ => Vec::new(),
    }
}

/// Runs of each kind in turn, and a few states of each.
fn run(session: &mut Session) {
    let Some(tracer) = tracer::tracer() else { return session.skip(tracer::NO_TRACER) };
    // Without a checkpoint all of it stands in the log, of which a part goes.
    let (long, _, known_of_it) = history(0);
    let (lossy, left) = accepted::cut_short(&of_ledger(&long), &BTreeMap::new())
        .expect("all of it stands in the log, of which a part goes");
    let lossy = with_ledger(&long, lossy);
    let torn = accepted::torn_structure(&of_ledger(&long))
        .expect("wherever its structure is torn, the log is not rebuilt");
    let torn = with_ledger(&long, torn);
    let (history, aged, known) = history(1);
    let create = Run { name: "create", clients: 1, count: 6, ..APPEND };
    let reopen = Run { name: "reopen", clients: 1, count: 2, ..APPEND };
    // Of a ledger of an older format version.
    let migration = Run { name: "migration", ..reopen };
    let killed_migration = Run { name: "killed in a migration", ..reopen };
    let checkpoint =
        Run { name: "checkpoint", count: 30, checkpoints: 4, checkpoint_after: 1 << 16, ..APPEND };
    // Longer than a segment of the store, which has to be filled, sealed and left.
    let large = Run { name: "large outputs", clients: 8, count: 200, output: 28_000, ..APPEND };
    let killed = Run { name: "killed before", clients: 2, count: 15, checkpoints: 2, ..checkpoint };
    let at_a_directory = Run { name: "killed at a directory", ..create };
    let at_a_manifest = Run { name: "killed at a manifest", settles: true, ..killed };
    // Whose log is rebuilt from its frames.
    let rebuild = Run { name: "killed in a rebuild", ..reopen };
    let idle = Run { name: "idle", role: "idles", clients: 1, count: 5, ..APPEND };
    let failed =
        Run { name: "a failed sync", clients: 2, count: 15, checkpoint_after: 1 << 16, ..APPEND };
    // Of a ledger that has lost the end of its log.
    let accept = Run { name: "an accepted loss", accepts: true, ..reopen };
    for round in 0_u64.. {
        for run in [
            create,
            at_a_directory,
            idle,
            accept,
            at_a_manifest,
            at_a_manifest,
            APPEND,
            reopen,
            checkpoint,
            killed,
            killed,
            rebuild,
            failed,
            migration,
            killed_migration,
            large,
        ] {
            if !session.goes_on() {
                return;
            }
            let slow = run.name == large.name || run.name == idle.name;
            let left_out = session.only.is_empty() && slow && round % 4 != 0;
            if left_out || !session.takes(run.name) {
                continue;
            }
            let rng = &mut session.rng;
            let may_be_fresh = [killed.name, at_a_manifest.name].contains(&run.name);
            let is_fresh = [create.name, at_a_directory.name].contains(&run.name);
            let fresh = is_fresh || (may_be_fresh && rng.coin());
            let old = run.name == migration.name || run.name == killed_migration.name;
            let hurt = hurt(run.name, fresh, rng);
            let (before, model) = match (fresh, old) {
                _ if run.accepts => (lossy.clone(), left.clone()),
                _ if run.name == rebuild.name => (torn.clone(), known_of_it.clone()),
                (true, _) => (Image::new(), Model::default()),
                (_, true) => (aged.clone(), known.clone()),
                _ => (history.clone(), known.clone()),
            };
            let first = 100 + rng.below(400);
            let traced = trace(tracer, before, &model, first, &Run { hurt: &hurt, ..run });
            if run.name == large.name {
                let longest = traced.longest;
                if longest <= SEGMENT {
                    session.violated(format!("large outputs fill no segment: {longest} bytes"));
                }
                session.count("runs that fill a segment", u64::from(longest > SEGMENT));
            }
            if run.name == idle.name {
                tail_is_missed(session, &traced);
            }
            let name =
                if fresh && run.name == killed.name { "killed while fresh" } else { run.name };
            let cut = try_states(session, &traced, name, 25);
            let cut = cut.filter(|cut| cut.sore || session.rng.below(3) == 0);
            // A second cut knows nothing of a loss that is still to be accepted.
            let Some(cut) = cut.filter(|_| !run.accepts) else {
                continue;
            };
            let name = if cut.sore { "cut before, repaired" } else { "cut before" };
            let again = Run { name, clients: 2, count: 5, looks: true, ..APPEND };
            let traced = trace(tracer, cut.image, &cut.model, first + 500, &again);
            try_states(session, &traced, again.name, 25);
        }
    }
}
