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

use super::{Harness, broken};
use crate::Session;
use crate::disk::{Disk, Fate, Names};
use crate::kept::rules::{executed, quiet};
use crate::kept::{Op, State, What, found, number_of, value_of};
use crate::places::{self, Image, TestLedger, builder};
use crate::tracer::{self, Call};
use copies::{HALF, Left};
use model::{AGAIN, KEY, LOST, Model, NOT_HELD};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use taskledger::internals::Sabotage;
use taskledger::{Claim, ClaimKind, Context, OnCrash, RunError};

pub(super) const HARNESS: Harness = Harness {
    row: 15,
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
        if round % 8 == 7 {
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
    let died = until(child, kept, lines, model);
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

/// Runs the child until its keeper has begun so many things, and then so many lines more; the model hears all
/// that it says.
fn until(mut child: Command, kept: u64, lines: u64, model: &mut Model) -> Result<(), String> {
    let mut child = child.spawn().unwrap();
    let (mut begun, mut said) = (0, 0);
    let (mut wrong, mut heard) = (Ok(()), Vec::new());
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        begun += u64::from(line.starts_with("ack try admin"));
        said += u64::from(begun >= kept);
        wrong = wrong.and_then(|()| model.hear(&line));
        heard.push(line);
        if said == lines || wrong.is_err() {
            child.kill().unwrap();
        }
    }
    let died = places::was_killed(child.wait().unwrap());
    wrong.inspect_err(|_| keep(None, &heard))?;
    if died? { Ok(()) } else { Err("the child ended by itself".to_owned()) }
}

/// Keeps what a child has said that something is wrong with, and the disk, where somebody wants to look at it.
fn keep(image: Option<&Image>, heard: &[impl AsRef<str>]) {
    if let Ok(keep) = std::env::var("TASKLEDGER_KEEP") {
        let keep = Path::new(&keep);
        let lines: Vec<&str> = heard.iter().map(AsRef::as_ref).collect();
        std::fs::write(keep.join("heard"), lines.join("\n")).unwrap();
        if let Some(image) = image {
            places::lay_out(image, &keep.join("disk"));
        }
    }
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
    let top = places::scratch();
    let before = places::image(disk);
    let dir = top.path().join("disk");
    places::lay_out(&before, &dir);
    let file = top.path().join("trace");
    let mut child = child(session, &dir);
    child
        .env("TASKLEDGER_CHILD_CLIENTS", "3")
        .env("TASKLEDGER_CHILD_COUNT", "8")
        .env("TASKLEDGER_CHILD_KEEPING", "5");
    tracer::traced(&mut child, tracer, &dir, &file);
    let said = child.output().unwrap();
    let calls = tracer::read(&file, &dir, 0);
    if !said.status.success() {
        let said = String::from_utf8_lossy(&said.stderr);
        let last = said.lines().next_back().unwrap_or_default();
        return session.violated(format!("the child whose power goes ends: {last}"));
    }
    let mut moments = moments(session, &calls);
    moments.sort_unstable();
    let mut disks = [Names::Strict, Names::Journalled].map(|names| {
        let disk = Disk::holding(&before, names);
        (names, disk)
    });
    let mut model = model.clone();
    let mut played = 0;
    for moment in moments {
        for call in &calls[played..moment] {
            disks.iter_mut().for_each(|(_, disk)| disk.play(call));
            if let Call::Ack(line) = call {
                if let Err(wrong) = model.hear(line) {
                    return session.violated(wrong);
                }
            }
        }
        played = moment;
        if !session.goes_on() {
            return;
        }
        let (names, disk) = session.rng.pick(&disks);
        let fate = *session.rng.pick(&Fate::ALL);
        let keeping = model.keeping.clone().unwrap_or_else(|| "nothing".to_owned());
        let context =
            format!("call {moment} of {}, {names:?} names, {fate:?}, {keeping}", calls.len());
        let image = disk.cut(fate, &mut session.rng);
        let outcome = state(session, &image, &mut model.clone());
        let what = keeping.split_whitespace().next().unwrap_or_default();
        session.count(&format!("power cut in a {what}"), 1);
        if outcome.is_err() {
            let said = |call: &Call| match call {
                Call::Ack(line) => Some(line.clone()),
                _ => None,
            };
            let heard: Vec<String> = calls[..moment].iter().filter_map(said).collect();
            keep(Some(&image), &heard);
        }
        session.tried(outcome.map_err(|wrong| format!("{context}: {wrong}")));
    }
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
    let top = places::scratch();
    places::lay_out(image, top.path());
    let left = places::run(reopen(top.path(), model, None, false))?;
    for left in left.into_values() {
        session.count(&format!("copies left: {left:?}"), 1);
    }
    Ok(())
}
