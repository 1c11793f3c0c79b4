//! A process dies, or its power goes, while operations wait in a queue and are performed, and while scopes
//! end with all that runs within them.
//!
//! Nothing that was acknowledged as enqueued is lost. What has ended is not performed again, what was being
//! performed is, with the same effect key and another attempt, behind what was waiting. With one runner
//! the order is that of the log, which is that of the acknowledgements. The end of a scope is on record
//! after those of all that ran within it, however both have ended.

mod model;

use super::deaths::{self, OF_THE_POWER};
use super::{Harness, broken};
use crate::Session;
use crate::child::queued::{key_of, perform};
use crate::places::{self, Image, TestLedger};
use crate::tracer::{self, Call};
use model::{AGAIN, LOST, Model, ORDER, OUTLIVES, Performed};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use taskledger::internals::Sabotage;
use taskledger::{Context, TaskState};

pub(super) const HARNESS: Harness = Harness {
    name: "queued",
    unit: "deaths",
    ci: 60,
    full: 6_000,
    run,
    controls: &[
        broken(Sabotage::HoldBack, 60, &[LOST, AGAIN, "is not there"]),
        broken(Sabotage::TakeLast, 60, &[ORDER]),
        broken(Sabotage::EndFirst, 60, &[OUTLIVES]),
    ],
};

/// States of one run in which the power goes.
const CUTS: u64 = 10;

/// Lives of one ledger: the next one begins anew, as each looks at the whole log.
const LIVES: u64 = 64;

fn run(session: &mut Session) {
    let Some(tracer) = tracer::tracer() else { return session.skip(tracer::NO_TRACER) };
    while session.goes_on() {
        one_ledger(session, tracer);
    }
}

/// It goes on over all deaths of its processes. Those of the power are of its copies.
fn one_ledger(session: &mut Session, tracer: &Path) {
    let top = places::scratch();
    let disk = top.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mut model = Model::default();
    for round in 0..LIVES {
        if !session.goes_on() {
            break;
        }
        if round % OF_THE_POWER == OF_THE_POWER - 1 {
            cut(session, tracer, &disk, &model, round);
            continue;
        }
        let outcome = killed(session, tracer, &disk, &mut model, round);
        let failed = outcome.is_err();
        session.tried(outcome);
        if failed {
            // What follows would follow from this.
            break;
        }
    }
    for (what, count) in model.counts() {
        session.count(what, count);
    }
}

fn child(session: &mut Session, disk: &Path, round: u64) -> Command {
    let mut child = places::child("queued", &disk.join("ledger"));
    child
        .env("TASKLEDGER_CHILD_SEED", session.rng.next().to_string())
        .env("TASKLEDGER_CHILD_FIRST_CLIENT", round.to_string())
        .env("TASKLEDGER_CHILD_CLIENTS", (1 + session.rng.below(3)).to_string())
        .env("TASKLEDGER_CHILD_CHECKPOINTS", session.rng.below(3).to_string())
        .env("TASKLEDGER_CHILD_CHECKPOINT_AFTER", (1 << 20).to_string());
    child
}

/// One process, which is killed, and what it leaves.
fn killed(
    session: &mut Session,
    tracer: &Path,
    disk: &Path,
    model: &mut Model,
    round: u64,
) -> Result<(), String> {
    let mut child = child(session, disk, round);
    let (lines, how) = if session.rng.below(3) == 0 {
        let at = 1 + session.rng.below(*session.rng.clone().pick(&[30, 100, 400]));
        tracer::killed_at(&mut child, tracer, disk, at);
        (u64::MAX, format!("change {at}"))
    } else {
        let lines = 1 + session.rng.below(*session.rng.clone().pick(&[20, 100, 400]));
        (lines, format!("line {lines}"))
    };
    let mut said = 0;
    let ends = |_: &str| {
        said += 1;
        said == lines
    };
    let died = deaths::until(child, model, ends);
    died.map_err(|wrong| format!("{how}: {wrong}"))?;
    let drains = session.rng.coin();
    places::run(reopen(disk, model, drains)).map_err(|wrong| format!("{how}: {wrong}"))
}

/// The next process: what it finds, and, if it is to drain the queue, how that goes on.
async fn reopen(disk: &Path, model: &mut Model, drains: bool) -> Result<(), String> {
    let path = disk.join("ledger");
    let opened = places::open(places::builder(), &path).await;
    let ledger = opened.map_err(|error| format!("it does not open: {error:?}"))?;
    model.found(&ledger).await?;
    if drains {
        drain(&ledger, model).await?;
    }
    ledger.close().await.map_err(|error| format!("it does not close: {error:?}"))?;
    model::trees(&path)
}

/// One runner performs all that there is.
async fn drain(ledger: &TestLedger, model: &mut Model) -> Result<(), String> {
    let done: Arc<Mutex<Vec<Performed>>> = Arc::default();
    let told = Arc::clone(&done);
    let performs = move |number: u64, context: Context<String>| {
        let (id, attempt) = (context.id().clone(), context.attempt().get().into());
        let performed = Performed { id, number, attempt, key: key_of(&context) };
        told.lock().unwrap().push(performed);
        perform(number, 0)
    };
    let queue = ledger.queue(performs).await.map_err(|error| format!("no queue: {error:?}"))?;
    let expected = model.put_back(ledger).await?;
    queue.start(1).map_err(|error| error.to_string())?;
    let left = queue.stop().await;
    let done = std::mem::take(&mut *done.lock().unwrap());
    let order: Vec<&String> = done.iter().map(|performed| &performed.id).collect();
    if order != expected.iter().collect::<Vec<_>>() {
        return Err(format!("{ORDER}: {order:?} are performed, queued were {expected:?}"));
    }
    if left.operations > 0 {
        return Err(format!("stopped, it leaves {left:?}"));
    }
    for performed in &done {
        model.performed(performed)?;
    }
    model.found(ledger).await?;
    let queued = ledger.all_tasks().iter().map(Result::unwrap);
    match queued.into_iter().find(|id| ledger.query_task_state_quick(id) == TaskState::Queued) {
        Some(id) => Err(format!("{id} is queued though all was performed")),
        None => Ok(()),
    }
}

/// One process, whose power goes at several moments.
fn cut(session: &mut Session, tracer: &Path, disk: &Path, model: &Model, round: u64) {
    let child = |session: &mut Session, disk: &Path| {
        let mut child = child(session, disk, round);
        child.env("TASKLEDGER_CHILD_COUNT", "12");
        child
    };
    let moments = |session: &mut Session, calls: &[Call]| {
        (0..CUTS).map(|_| session.rng.below(calls.len() as u64 + 1) as usize).collect()
    };
    deaths::power_goes(session, tracer, (disk, model), child, moments, state);
}

/// What is found of a disk after the power went.
fn state(session: &mut Session, image: &Image, model: &mut Model) -> Result<(), String> {
    session.count("power cuts", 1);
    let drains = session.rng.coin();
    let top = places::scratch();
    places::lay_out(image, top.path());
    places::run(reopen(top.path(), model, drains))
}
