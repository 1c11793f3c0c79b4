//! The process is killed before each single change that it makes to a file.
//!
//! The call itself is not made. Creation, open with replay and reset, migration, an accepted loss, a
//! rebuild of the log, commit, checkpoint and close, each call of them in turn, each followed by a second kill, before one of the calls that
//! the open after it makes; then each call of a run of 300 operations, from a random one on and round
//! again. Only deaths are counted. The history, and each scene over it, has a ballast or none: so
//! some make one, keep it, or remove it.

use super::accepted::{self, cut_short, torn_structure};
use super::killed::{killed_after, reopen, reopen_with};
use super::{Harness, broken};
use crate::ops::{self, Model, NOT_RESET, TAKEN_BACK};
use crate::places::{self, ACCEPTS, BALLAST, Image, some_ballast};
use crate::{Session, tracer};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use taskledger::internals::{Sabotage, age};

pub(super) const HARNESS: Harness = Harness {
    name: "each-call",
    unit: "kills",
    ci: 1_100,
    full: 11_000,
    run,
    controls: &[
        broken(Sabotage::HoldBack, 400, &[TAKEN_BACK]).only(&["History"]),
        broken(Sabotage::SkipReset, 400, &[NOT_RESET]),
        broken(Sabotage::ForgetRepair, 600, &["keep the damaged files in"]).only(&["AcceptedLoss"]),
        broken(Sabotage::SkipRescue, 400, &[TAKEN_BACK, "was durable", "the log has a gap"])
            .only(&["TornStructure"]),
        broken(Sabotage::LoseMetadata, 100, &["it is \"none\", not one of [\"noted "])
            .only(&["AcceptedLoss"]),
    ],
};

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    /// Creation, one commit, close.
    Fresh,
    /// Open of a killed ledger with a history, one commit, a checkpoint, close.
    History,
    /// The same for a ledger of an older format version, which is migrated.
    Migration,
    /// The same for a ledger that has lost the end of its log, which is accepted.
    AcceptedLoss,
    /// The same for a ledger whose log has to be rebuilt from its frames.
    TornStructure,
    /// A longer life of a ledger with a history.
    Long,
}

fn run(session: &mut Session) {
    let Some(tracer) = tracer::tracer() else { return session.skip(tracer::NO_TRACER) };
    let top = places::scratch();
    // A ledger with a history, killed at work, to open; and what is left of it when the end of its log is
    // gone, and when the structure of that is torn. Killed while a log is being folded, or soon after, it may
    // miss nothing of that: then another one is taken.
    let mut tries = 0;
    let (filled, noted) = places::run(filled(&top.path().join("filled")));
    let (path, known, lossy, torn) = loop {
        tries += 1;
        let path = top.path().join(format!("history-{tries}"));
        places::lay_out(&filled, &path);
        let mut known = Model::of_known(noted.clone());
        let mut work = places::child("clients", &path);
        work.env("TASKLEDGER_CHILD_SEED", session.rng.next().to_string())
            .env(BALLAST, some_ballast(&mut session.rng).to_string())
            .env("TASKLEDGER_CHILD_CHECKPOINTS", "2");
        let killed = killed_after(work, 120, |line| line.contains("done"), &mut known);
        assert_eq!(killed, Ok(true), "the history");
        let image = places::image(&path);
        match (cut_short(&image, &noted), torn_structure(&image)) {
            (Some(lossy), Some(torn)) => break (path, known, lossy, torn),
            (None, _) => assert!(tries < 20, "whatever is cut off the log, nothing is missed"),
            (_, None) => assert!(tries < 20, "wherever it is torn, the log is not rebuilt"),
        }
    };
    let history = (places::image(&path), known.clone());
    age(&path).unwrap();
    let aged = (places::image(&path), known);
    let torn = (torn, history.1.clone());
    let mut complete = false;
    loop {
        for scene in [
            Scene::TornStructure,
            Scene::AcceptedLoss,
            Scene::Fresh,
            Scene::History,
            Scene::Migration,
        ] {
            if !session.takes(&format!("{scene:?}")) {
                continue;
            }
            let before = match scene {
                Scene::Migration => &aged,
                Scene::AcceptedLoss => &lossy,
                Scene::TornStructure => &torn,
                Scene::Fresh | Scene::History | Scene::Long => &history,
            };
            // The same for all its calls, since it adds some.
            let ballast = some_ballast(&mut session.rng);
            for at in 1.. {
                if !session.goes_on() {
                    if !complete {
                        session.incomplete(&HARNESS, &format!("{scene:?}, call {at}"));
                    }
                    return;
                }
                if !kill(session, tracer, scene, ballast, at, before) {
                    session.count(&format!("calls of {scene:?}"), at - 1);
                    break;
                }
            }
        }
        if session.takes("Long") {
            break;
        }
        complete = true;
    }
    let mut at = 1 + session.rng.below(1000);
    let mut ballast = some_ballast(&mut session.rng);
    while session.goes_on() {
        if kill(session, tracer, Scene::Long, ballast, at, &history) {
            at += 1;
        } else {
            at = 1;
            ballast = some_ballast(&mut session.rng);
            session.count("times that Long came to its end", 1);
        }
    }
}

/// A ledger with a few ids and names of the metadata, which no client works on, and what those are.
async fn filled(path: &Path) -> (Image, BTreeMap<String, String>) {
    let ledger = places::open(places::builder(), path).await.unwrap();
    ops::fill(&ledger, 0..10).await;
    ledger.close().await.unwrap();
    let image = places::image(path);
    let ledger = places::open(places::builder(), path).await.unwrap();
    let mut known = BTreeMap::new();
    for id in ops::all(&ledger) {
        let found = ops::found(&ledger, &id).await;
        known.insert(id, found);
    }
    ledger.close().await.unwrap();
    (image, known)
}

/// Whether there was a call to kill at.
fn kill(
    session: &mut Session,
    tracer: &Path,
    scene: Scene,
    ballast: u64,
    at: u64,
    history: &(Image, Model),
) -> bool {
    let top = places::scratch();
    // Watched from above: the ledger's own directory, and its name, are part of a creation.
    let disk = top.path().join("disk");
    let path = disk.join("ledger");
    std::fs::create_dir(&disk).unwrap();
    let mut model = Model::default();
    if scene != Scene::Fresh {
        places::lay_out(&history.0, &path);
        model = history.1.clone();
    }
    let (count, checkpoints, clients) = match scene {
        Scene::Fresh => (1, 0, 1),
        Scene::History | Scene::Migration => (1, 1, 1),
        // Which would fold the record of the loss.
        Scene::AcceptedLoss | Scene::TornStructure => (1, 0, 1),
        Scene::Long => (100, 3, 3),
    };
    let mut child = places::child("clients", &path);
    let accepts = scene == Scene::AcceptedLoss;
    child
        .env(ACCEPTS, u64::from(accepts).to_string())
        .env(BALLAST, ballast.to_string())
        .env("TASKLEDGER_CHILD_SEED", session.rng.below(1000).to_string())
        .env("TASKLEDGER_CHILD_CLIENTS", clients.to_string())
        .env("TASKLEDGER_CHILD_FIRST_CLIENT", "100")
        .env("TASKLEDGER_CHILD_COUNT", count.to_string())
        .env("TASKLEDGER_CHILD_CHECKPOINTS", checkpoints.to_string());
    tracer::killed_at(&mut child, tracer, &disk, at);
    let killed = killed_after(child, u64::MAX, |_| false, &mut model);
    let mut outcome = killed.clone().map(drop);
    let killed = killed.unwrap_or(true);
    let mut again = 0;
    if killed && scene != Scene::Long && outcome.is_ok() {
        // Only what is called before it is open: what is killed is the recovery.
        let second = calls_of_open(tracer, &disk, ballast, accepts).and_then(|calls| {
            again = 1 + session.rng.below(calls);
            opens_once(tracer, &disk, ballast, accepts, again)
        });
        match second {
            Ok(None) => {
                session.count(&format!("killed again in the recovery of {scene:?}"), 1);
                session.tried(Ok(()));
            }
            // A helper's turn may come a little later.
            Ok(Some(_)) => session.count("not killed again", 1),
            Err(wrong) => outcome = Err(format!("again {again}: {wrong}")),
        }
    }
    if accepts && outcome.is_ok() {
        outcome = settle_loss(ballast, &path, model.opened, &history.0);
    }
    let outcome = outcome.and_then(|()| match scene {
        // Unless it was rebuilt before the kill.
        Scene::TornStructure => reopen(ballast, &path, &mut model).map(drop),
        _ => reopen_with(ballast, &path, &mut model),
    });
    let case = format!("{scene:?}, ballast {ballast}, call {at}, again {again}");
    let outcome = outcome.map_err(|lost| format!("{case}: {lost}"));
    if killed {
        session.tried(outcome);
    } else if let Err(wrong) = outcome {
        session.violated(wrong);
    }
    killed
}

/// Accepts the loss if that has not been done, and has it on record, and the evidence kept.
fn settle_loss(ballast: u64, path: &Path, told: bool, evidence: &Image) -> Result<(), String> {
    places::run(async {
        let ledger = accepted::open_or_accept(ballast, path, told).await?;
        ledger.close().await.map_err(|error| format!("it does not close: {error:?}"))
    })?;
    accepted::evidence_is_kept(evidence, path)?;
    accepted::is_on_record(path)
}

/// How many changes of files an open of the ledger on this disk makes, as one of a copy does.
fn calls_of_open(tracer: &Path, disk: &Path, ballast: u64, accepts: bool) -> Result<u64, String> {
    let copy = places::scratch();
    places::lay_out(&places::image(disk), copy.path());
    let calls = opens_once(tracer, copy.path(), ballast, accepts, u64::MAX >> 1)?;
    calls.ok_or_else(|| "it is killed though nobody kills it".to_owned())
}

/// Opens the ledger on this disk in a child that is killed before its `at`th change. `None` if that
/// was before it was open, else how many changes it had made until then. Any other end is wrong.
fn opens_once(
    tracer: &Path,
    disk: &Path,
    ballast: u64,
    accepts: bool,
    at: u64,
) -> Result<Option<u64>, String> {
    let mut child = places::child("opens once", &disk.join("ledger"));
    child.env(BALLAST, ballast.to_string()).env(ACCEPTS, u64::from(accepts).to_string());
    tracer::killed_at(&mut child, tracer, disk, at);
    let mut child = child.env("TL_COUNT", "1").spawn().unwrap();
    let lines: Vec<String> =
        BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok).collect();
    let said = |wrong: &str| Err(format!("the child that opens again {wrong}: {lines:?}"));
    let killed = match places::was_killed(child.wait().unwrap()) {
        Ok(killed) => killed,
        Err(wrong) => return said(&wrong),
    };
    if lines.iter().any(|line| line.contains("panicked") || line.contains("refused")) {
        return said("does not open it");
    }
    let open = lines.iter().position(|line| line == "ack owner");
    let changes = open.and_then(|at| lines.get(at + 1)?.strip_prefix("ack changes "));
    match changes {
        Some(changes) => Ok(Some(changes.parse().unwrap())),
        None if killed && open.is_none() => Ok(None),
        None => said("ends without a word"),
    }
}
