//! Who asks once more: callers of `run`, and those who prune, shorten, back up, export and import their ledger.
//!
//! A child is killed at a line that it says, or before a change of a file, most often while it prunes, makes a
//! checkpoint, a backup or an import; or the power goes then. The next process finds every success that was
//! acknowledged, be it as a tombstone, and never executes it again; a replay gives what was returned, to the
//! last byte; pins are kept, and so is what may have happened; what has failed runs again. What was to be a
//! copy is a whole one, of the ledger as it was at one moment since it was asked for, or it is refused and can
//! be begun again.

mod copies;
mod model;

use super::deaths::{self, OF_THE_POWER};
use super::{Harness, broken};
use crate::Session;
use crate::kept::rules::{executed, quiet};
use crate::kept::{Op, State, What, found, number_of, value_of};
use crate::places::{self, Image, TestLedger, builder};
use crate::tracer::{self, Call};
use copies::{HALF, Left};
use model::{AGAIN, KEY, LOST, Model, NOT_HELD};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use taskledger::internals::Sabotage;
use taskledger::{Claim, ClaimKind, Context, OnCrash, RunError};

pub(super) const HARNESS: Harness = Harness {
    name: "kept",
    unit: "deaths",
    ci: 80,
    full: 12_000,
    run,
    controls: &[
        broken(Sabotage::DigNoGrave, 60, &[LOST, AGAIN]),
        broken(Sabotage::LoseGraves, 60, &[LOST, AGAIN, "opens a tombstone that is not there"]),
        broken(Sabotage::PruneHeld, 120, &[NOT_HELD, AGAIN, KEY]),
        broken(Sabotage::RunAgain, 60, &[AGAIN, LOST]),
        broken(Sabotage::CopyUnmarked, 240, &[HALF]),
        broken(Sabotage::CopyUnsynced, 240, &[HALF]),
    ],
};

/// States of one run in which the power goes.
const CUTS: u64 = 10;

/// One ledger goes on over all deaths of its processes. Those of the power are of its copies.
fn run(session: &mut Session) {
    let Some(tracer) = tracer::tracer() else { return session.skip(tracer::NO_TRACER) };
    let top = places::scratch();
    let disk = top.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mut model = Model::default();
    for round in 0_u64.. {
        if !session.goes_on() {
            break;
        }
        if round % OF_THE_POWER == OF_THE_POWER - 1 {
            cut(session, tracer, &disk, &model);
            continue;
        }
        let outcome = killed(session, tracer, &disk, &mut model);
        let failed = outcome.is_err();
        session.tried(outcome);
        if failed {
            // What follows would follow from this.
            break;
        }
    }
    session.count("acknowledged", model.acked);
    session.count("executed", model.effects);
    session.count("answered by others", model.joined);
    session.count("replayed", model.replayed);
}

fn child(session: &mut Session, disk: &Path) -> Command {
    let mut child = places::child("kept", &disk.join("ledger"));
    child
        .env("TASKLEDGER_CHILD_SEED", session.rng.next().to_string())
        .env("TASKLEDGER_CHILD_CHECKPOINT_AFTER", (1 << 20).to_string());
    child
}

/// One process, which is killed, and what it leaves.
fn killed(
    session: &mut Session,
    tracer: &Path,
    disk: &Path,
    model: &mut Model,
) -> Result<(), String> {
    let mut child = child(session, disk);
    let rng = &mut session.rng;
    child.env("TASKLEDGER_CHILD_CLIENTS", (1 + rng.below(5)).to_string());
    // Lines after something that its keeper has begun, or in all; or changes of files.
    let (kept, lines, how) = match rng.below(4) {
        0 => {
            let most = *rng.pick(&[40, 150, 500]);
            let at = 1 + rng.below(most);
            tracer::killed_at(&mut child, tracer, disk, at);
            (0, u64::MAX, format!("change {at}"))
        }
        1 => {
            let lines = 1 + rng.below(200);
            (0, lines, format!("line {lines}"))
        }
        _ => {
            let (kept, lines) = (1 + rng.below(8), 1 + rng.below(4));
            (kept, lines, format!("line {lines} after {kept} things were begun to keep it"))
        }
    };
    let (mut begun, mut said) = (0, 0);
    let ends = |line: &str| {
        begun += u64::from(line.starts_with("ack try admin"));
        said += u64::from(begun >= kept);
        said == lines
    };
    let died = deaths::until(child, model, ends);
    died.map_err(|wrong| format!("{how}: {wrong}"))?;
    if let Some(keeping) = &model.keeping {
        let what = keeping.split_whitespace().next().unwrap_or_default();
        session.count(&format!("killed in a {what}"), 1);
    }
    let leaves = session.rng.coin();
    let one = session.rng.next();
    let left = places::run(reopen(disk, model, Some(one), leaves));
    let left = left.map_err(|wrong| format!("{how}: {wrong}"))?;
    for (name, left) in left {
        session.count(&format!("copies left: {left:?}"), 1);
        if left == Left::Whole || !leaves {
            std::fs::remove_dir_all(disk.join(&name)).unwrap();
            model.copies.remove(&name);
        }
    }
    Ok(())
}

/// The next process: what it finds, and what its callers are told. Tells what there is of the copies.
async fn reopen(
    disk: &Path,
    model: &mut Model,
    killed: Option<u64>,
    leaves: bool,
) -> Result<BTreeMap<String, Left>, String> {
    let opened = places::open(builder(), &disk.join("ledger")).await;
    let ledger = opened.map_err(|error| format!("it does not open: {error:?}"))?;
    let repaired = ledger.recovery().repaired();
    if killed.is_some() && !repaired.is_empty() {
        return Err(format!("a kill took a repair: {repaired:?}"));
    }
    let found = all_found(&ledger, model.moment().keys()).await?;
    model.found(&found)?;
    let buried = found.values().filter(|state| state.what == What::Buried).count();
    if ledger.tombstones() != buried {
        return Err(format!("{buried} tombstones are found, {} told", ledger.tombstones()));
    }
    // Before anything is changed: they are held against what there was.
    let left = copies::check(disk, model, &ledger, leaves).await?;
    asks_again(&ledger, model, &found, killed.unwrap_or_default()).await?;
    ledger.close().await.map_err(|error| format!("it does not close: {error:?}"))?;
    Ok(left)
}

/// What these ids are, and all others that the ledger knows.
async fn all_found(
    ledger: &TestLedger,
    ids: impl Iterator<Item = &String>,
) -> Result<BTreeMap<String, State>, String> {
    let listed: BTreeSet<String> = ledger.all_tasks().iter().map(Result::unwrap).collect();
    let mut all = BTreeMap::new();
    for id in ids.cloned().chain(listed.iter().cloned()).collect::<BTreeSet<String>>() {
        let state = found(ledger, &id).await?;
        let is_listed = !matches!(state.what, What::None | What::Buried);
        if listed.contains(&id) != is_listed {
            return Err(format!("{id}, {state}, is listed: {}", !is_listed));
        }
        if state.what.is_success() != ledger.succeeded_tasks().contains(&id) {
            return Err(format!("{id}, {state}: the view says something else"));
        }
        all.insert(id, state);
    }
    Ok(all)
}

/// Runs once more whatever is not to be executed, and one id that is.
async fn asks_again(
    ledger: &TestLedger,
    model: &mut Model,
    found: &BTreeMap<String, State>,
    pick: u64,
) -> Result<(), String> {
    let waits = |state: &State| quiet(Op::Hold, ASKED, *state).is_none();
    let waiting: Vec<&String> =
        found.iter().filter(|(_, state)| waits(state)).map(|(id, _)| id).collect();
    let chosen = waiting.get(pick as usize % waiting.len().max(1)).copied();
    for (id, state) in found.iter().filter(|(id, state)| !waits(state) || Some(*id) == chosen) {
        let (answer, effect) = ask(ledger, id).await;
        let fits = match (&answer, state.what) {
            (Ok(Claim { kind: ClaimKind::Replayed, value, .. }), what) if what.is_success() => {
                let number = value.as_deref().map(number_of).transpose()?;
                number == what.output()
            }
            (Err(RunError::Held), what) => what.has_crashed(),
            (Err(RunError::GaveUp { .. }), What::GaveUp) => true,
            (Ok(Claim { kind: ClaimKind::Executed, .. }), what) => {
                if what.is_success() {
                    return Err(format!("{id}, {state}: {AGAIN}"));
                }
                effect
                    && matches!(what, What::None | What::Failed(_) | What::Ruled | What::Released)
            }
            _ => false,
        };
        if !fits {
            return Err(format!("{id}, {state}, is run: {answer:?}"));
        }
        if effect {
            let last = executed(Op::Run, ASKED).pop().unwrap_or(What::None);
            model.has_succeeded(id, last);
        }
    }
    Ok(())
}

/// The number of what is returned where it is asked for once more.
const ASKED: u64 = 7;

/// Whoever may have happened is held. Tells whether it was executed.
async fn ask(
    ledger: &TestLedger,
    id: &str,
) -> (Result<Claim<String>, RunError<String, String>>, bool) {
    let effect = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&effect);
    let work = move |_: Context<String>| {
        told.store(true, Ordering::SeqCst);
        async { Ok::<_, String>(value_of(ASKED)) }
    };
    let answer = ledger.task(id.to_owned()).on_crash(OnCrash::Hold).run(work).await;
    let effect = effect.load(Ordering::SeqCst);
    (answer, effect)
}

/// One process, whose power goes at several moments.
fn cut(session: &mut Session, tracer: &Path, disk: &Path, model: &Model) {
    let child = |session: &mut Session, disk: &Path| {
        let mut child = child(session, disk);
        child
            .env("TASKLEDGER_CHILD_CLIENTS", "3")
            .env("TASKLEDGER_CHILD_COUNT", "8")
            .env("TASKLEDGER_CHILD_KEEPING", "5");
        child
    };
    deaths::power_goes(session, tracer, (disk, model), child, moments, state);
}

/// Calls before which the power goes: most of them while the ledger is pruned, shortened or copied.
fn moments(session: &mut Session, calls: &[Call]) -> Vec<usize> {
    let says = |call: &Call, what: &str| matches!(call, Call::Ack(line) if line.starts_with(what));
    let mut keeping = false;
    let mut kept = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        keeping = (keeping || says(call, "ack try admin")) && !says(call, "ack done admin");
        if keeping {
            kept.push(at);
        }
    }
    let any = calls.len() as u64 + 1;
    let rng = &mut session.rng;
    let mut one = |number| {
        if number % 4 == 0 || kept.is_empty() { rng.below(any) as usize } else { *rng.pick(&kept) }
    };
    (0..CUTS).map(&mut one).collect()
}

/// What is found of a disk after the power went.
fn state(session: &mut Session, image: &Image, model: &mut Model) -> Result<(), String> {
    let keeping = model.keeping.clone().unwrap_or_else(|| "nothing".to_owned());
    let what = keeping.split_whitespace().next().unwrap_or_default();
    session.count(&format!("power cut in a {what}"), 1);
    let top = places::scratch();
    places::lay_out(image, top.path());
    let left = places::run(reopen(top.path(), model, None, false))
        .map_err(|wrong| format!("{keeping}: {wrong}"))?;
    for left in left.into_values() {
        session.count(&format!("copies left: {left:?}"), 1);
    }
    Ok(())
}
