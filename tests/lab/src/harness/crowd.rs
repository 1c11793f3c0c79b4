//! The power goes while very much is written at once.
//!
//! Thousands of attempts with large outputs end together, so that one append fills several segments of
//! the store. It moves what stands in a segment that it wants to use again, and writes over what stood
//! there; a moved copy that is not on the disk by then is the only one. So the power goes at just those
//! moments: when frames that are durable have been written over, while something in the same file is
//! not durable. A run in which there is no such moment has tried nothing, which is a violation.
//!
//! And a sync fails when there is much: the next process goes on above what the page cache alone holds.

use super::power_cut::{APPEND, Run, Trace, trace, try_state};
use super::{Harness, broken};
use crate::Session;
use crate::disk::{Disk, Fate, Names, Reuse};
use crate::ops::{Model, TAKEN_BACK};
use crate::places::Image;
use crate::tracer::{self, Call};
use std::path::Path;
use taskledger::internals::Sabotage;

pub(super) const HARNESS: Harness = Harness {
    name: "crowd",
    unit: "states",
    ci: 2 * STATES,
    full: 2_400,
    run,
    controls: &[broken(
        Sabotage::SyncLate,
        96,
        &[TAKEN_BACK, "was durable", "the log has a gap", LAST_COPY],
    )],
};

const LAST_COPY: &str = "the last durable copy of a frame is written over";

/// What may be left of what is not durable: where the two kinds of writes come apart.
const FATES: [Fate; 4] = [Fate::Dropped, Fate::Within, Fate::Areas, Fate::Pages];

/// In CI there is one run, the first.
const CROWD: Run<'static> =
    Run { name: "crowd", role: "crowd", clients: 2_000, count: 2, output: 28_000, ..APPEND };
const STATES: u64 = 6;

/// A few segments are full of it when a sync fails.
const FAILED: Run<'static> = Run {
    name: "crowd after a failed sync",
    clients: 64,
    count: 50,
    output: 28_000,
    looks: true,
    ..APPEND
};

/// The later ones are larger, and have more states.
const LARGER: u64 = 3_000;
const MORE_STATES: u64 = 24;

fn run(session: &mut Session) {
    let Some(tracer) = tracer::tracer() else { return session.skip(tracer::NO_TRACER) };
    for number in 0_u64.. {
        if !session.goes_on() {
            return;
        }
        if number % 4 == 0 {
            at_once(session, tracer, number == 0);
        } else {
            after_a_failure(session, tracer);
        }
    }
}

/// One run of very many ends at once, and a few states of it.
fn at_once(session: &mut Session, tracer: &Path, is_first: bool) {
    let (clients, states) = if is_first { (CROWD.clients, STATES) } else { (LARGER, MORE_STATES) };
    let run = Run { clients, ..CROWD };
    let traced = trace(tracer, Image::new(), &Model::default(), 0, &run);
    let (of_copies, of_the_last) = moments(session, run.name, &traced.calls);
    if of_copies.is_empty() && of_the_last.is_empty() {
        let wrong = "crowd: no durable frame is written over while something is unsynced";
        session.violated(wrong.to_owned());
    }
    // Half of them where it is worst, if there is such a moment.
    let mut chosen: Vec<(usize, Fate)> = Vec::new();
    for number in 0..states {
        let turn = number % 2 == 0 || of_copies.is_empty();
        if turn && !of_the_last.is_empty() {
            chosen.push((*session.rng.pick(&of_the_last), Fate::Within));
        } else if !of_copies.is_empty() {
            chosen.push((*session.rng.pick(&of_copies), *session.rng.pick(&FATES)));
        }
    }
    try_chosen(session, run.name, &traced, chosen);
}

/// A sync fails, and the process with it; the next one goes on, on top of what the page cache holds and
/// the disk may not: also of what the store had moved, though that was durable long before.
fn after_a_failure(session: &mut Session, tracer: &Path) {
    // EIO.
    let hurt = [("TL_FAIL", format!("sync:{}:5:once", 30 + session.rng.below(120)))];
    let run = Run { hurt: &hurt, ..FAILED };
    let traced = trace(tracer, Image::new(), &Model::default(), 0, &run);
    let failed = |call: &Call| matches!(call, Call::Ack(line) if line.starts_with("ack fault"));
    session.count("runs with a failed sync", u64::from(traced.calls.iter().any(failed)));
    moments(session, run.name, &traced.calls);
    let (last, length) = (traced.last, traced.calls.len());
    let mut moment = |number: u64| {
        let from = last as u64 + (length - last) as u64 * number / STATES;
        let at = from + session.rng.below((length - last) as u64 / STATES);
        (at as usize, *session.rng.pick(&FATES))
    };
    // The last one when it has been closed.
    let mut chosen: Vec<(usize, Fate)> = (0..STATES - 1).map(&mut moment).collect();
    chosen.push((length - 1, Fate::Dropped));
    try_chosen(session, run.name, &traced, chosen);
}

/// Tries these states, each after a call.
fn try_chosen(session: &mut Session, name: &str, traced: &Trace, mut chosen: Vec<(usize, Fate)>) {
    chosen.sort_unstable_by_key(|(at, _)| *at);
    let mut disks = [Names::Strict, Names::Journalled].map(|names| (names, Disk::empty(names)));
    let mut model = Model::default();
    let mut played = 0;
    for (at, fate) in chosen {
        if !session.goes_on() {
            return;
        }
        for call in &traced.calls[played..=at] {
            disks.iter_mut().for_each(|(_, disk)| disk.play(call));
            if let Call::Ack(line) = call {
                model.hear(line);
            }
        }
        played = at + 1;
        let (names, disk) = session.rng.pick(&disks);
        let calls = traced.calls.len();
        let context = format!("{name}, call {at} of {calls}, {names:?} names, {fate:?}");
        let image = disk.cut(fate, &mut session.rng);
        let outcome = try_state(&image, &mut model.clone(), false, None);
        session.count(&format!("states of {name}"), 1);
        session.tried(outcome.map(drop).map_err(|lost| format!("{context}: {lost}")));
    }
}

/// The calls that write over durable frames while something is unsynced: those that leave a durable copy
/// of each of them, and those that do not, of which there must be none.
fn moments(session: &mut Session, name: &str, calls: &[Call]) -> (Vec<usize>, Vec<usize>) {
    let mut disk = Disk::empty(Names::Journalled);
    let (mut of_copies, mut of_the_last) = (Vec::new(), Vec::new());
    for (at, call) in calls.iter().enumerate() {
        match disk.reuses(call) {
            Some(Reuse::OfTheLast) => of_the_last.push(at),
            Some(Reuse::OfCopies) => of_copies.push(at),
            None => {}
        }
        disk.play(call);
    }
    session.count("moments at which durable frames are written over", of_copies.len() as u64);
    session.count("such moments with no durable copy left", of_the_last.len() as u64);
    if !of_the_last.is_empty() {
        session.violated(format!("{name}: {LAST_COPY}, {} times", of_the_last.len()));
    }
    (of_copies, of_the_last)
}
