//! The process is killed before each single change that it makes to a file.
//!
//! The call itself is not made. Creation, open with replay and reset, migration, commit, checkpoint
//! and close, each call of them in turn, each followed by a second kill, before one of the calls that
//! the open after it makes; then each call of a run of 300 operations, from a random one on and round
//! again. Only deaths are counted. The history, and each scene over it, has a ballast or none: so
//! some make one, keep it, or remove it.

use super::killed::{killed_after, reopen_with};
use super::{Harness, broken};
use crate::ops::Model;
use crate::places::{self, BALLAST, Image, some_ballast};
use crate::{Session, tracer};
use std::io::{BufRead, BufReader};
use std::path::Path;
use taskledger::internals::{Sabotage, age};

pub(super) const HARNESS: Harness = Harness {
    row: 2,
    name: "each-call",
    unit: "kills",
    ci: 450,
    full: 6_000,
    run,
    controls: &[
        broken(Sabotage::HoldBack, 400, &["but it must be one of"]),
        broken(Sabotage::SkipReset, 400, &["but it must be one of", "still run after an open"]),
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
    /// A longer life of a ledger with a history.
    Long,
}

fn run(session: &mut Session) {
    let Some(tracer) = tracer::tracer() else { return session.skip(tracer::NO_TRACER) };
    let top = places::scratch();
    // A ledger with a history, killed at work, to open.
    let path = top.path().join("history");
    let mut known = Model::default();
    let mut work = places::child("clients", &path);
    work.env("TASKLEDGER_CHILD_SEED", session.rng.next().to_string())
        .env(BALLAST, some_ballast(&mut session.rng).to_string())
        .env("TASKLEDGER_CHILD_CHECKPOINTS", "2");
    killed_after(work, 120, |line| line.contains("done"), &mut known);
    let history = (places::image(&path), known.clone());
    age(&path).unwrap();
    let aged = (places::image(&path), known);
    for scene in [Scene::Fresh, Scene::History, Scene::Migration] {
        let before = if scene == Scene::Migration { &aged } else { &history };
        // The same for all its calls, since it adds some.
        let ballast = some_ballast(&mut session.rng);
        for at in 1.. {
            if !session.goes_on() {
                return;
            }
            if !kill(session, tracer, scene, ballast, at, before) {
                session.count(&format!("calls of {scene:?}"), at - 1);
                break;
            }
        }
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
        Scene::Long => (100, 3, 3),
    };
    let mut child = places::child("clients", &path);
    child
        .env(BALLAST, ballast.to_string())
        .env("TASKLEDGER_CHILD_SEED", session.rng.below(1000).to_string())
        .env("TASKLEDGER_CHILD_CLIENTS", clients.to_string())
        .env("TASKLEDGER_CHILD_FIRST_CLIENT", "100")
        .env("TASKLEDGER_CHILD_COUNT", count.to_string())
        .env("TASKLEDGER_CHILD_CHECKPOINTS", checkpoints.to_string());
    tracer::killed_at(&mut child, tracer, &disk, at);
    let killed = killed_after(child, u64::MAX, |_| false, &mut model);
    let mut again = 0;
    let mut outcome = Ok(());
    if killed && scene != Scene::Long {
        match calls_of_open(tracer, &disk, ballast) {
            // Only what is called before it is open: what is killed is the recovery.
            Ok(calls) => {
                again = 1 + session.rng.below(calls);
                if opens_once(tracer, &disk, ballast, again).is_none() {
                    session.count(&format!("killed again in the recovery of {scene:?}"), 1);
                    session.tried(Ok(()));
                } else {
                    // A helper's turn may come a little later.
                    session.count("not killed again", 1);
                }
            }
            Err(wrong) => outcome = Err(wrong),
        }
    }
    let outcome = outcome.and_then(|()| reopen_with(ballast, &path, &mut model));
    let case = format!("{scene:?}, ballast {ballast}, call {at}, again {again}");
    let outcome = outcome.map_err(|lost| format!("{case}: {lost}"));
    if killed {
        session.tried(outcome);
    } else if let Err(wrong) = outcome {
        session.violated(wrong);
    }
    killed
}

/// How many changes of files an open of the ledger on this disk makes, as one of a copy does.
fn calls_of_open(tracer: &Path, disk: &Path, ballast: u64) -> Result<u64, String> {
    let copy = places::scratch();
    places::lay_out(&places::image(disk), copy.path());
    opens_once(tracer, copy.path(), ballast, u64::MAX >> 1)
        .ok_or_else(|| "it does not open again".to_owned())
}

/// Opens the ledger on this disk in a child that is killed before its `at`th change. `None` if it
/// died before it was open, else how many changes it had made until then.
fn opens_once(tracer: &Path, disk: &Path, ballast: u64, at: u64) -> Option<u64> {
    let mut child = places::child("opens once", &disk.join("ledger"));
    child.env(BALLAST, ballast.to_string());
    tracer::killed_at(&mut child, tracer, disk, at);
    let mut child = child.env("TL_COUNT", "1").spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut lines = lines.skip_while(|line| line != "ack owner");
    let changes = lines.nth(1).map(|line| line.strip_prefix("ack changes ").unwrap().parse());
    lines.for_each(drop);
    child.wait().unwrap();
    changes.map(Result::unwrap)
}
