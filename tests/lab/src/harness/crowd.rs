//! The power goes while very much is written at once.
//!
//! Thousands of attempts with large outputs end together, so that one append fills several segments of
//! the store. It moves what stands in a segment that it wants to use again, and writes over what stood
//! there; a moved copy that is not on the disk by then is the only one. So the power goes at just those
//! moments: when frames that are durable have been written over, while something in the same file is
//! not durable. A run in which there is no such moment has tried nothing, which is a violation.

use super::power_cut::{APPEND, Run, trace, try_state};
use super::{Harness, broken};
use crate::Session;
use crate::disk::{Disk, Fate, Names, Reuse};
use crate::ops::{Model, TAKEN_BACK};
use crate::places::Image;
use crate::tracer::{self, Call};
use std::path::Path;
use taskledger::internals::Sabotage;

pub(super) const HARNESS: Harness = Harness {
    row: 3,
    name: "crowd",
    unit: "states",
    ci: STATES,
    full: 2_400,
    run,
    controls: &[broken(
        Sabotage::SyncLate,
        24,
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

/// The later ones are larger, and have more states.
const LARGER: u64 = 3_000;
const MORE_STATES: u64 = 24;

fn run(session: &mut Session) {
    let Some(tracer) = tracer::tracer() else { return session.skip(tracer::NO_TRACER) };
    let mut is_first = true;
    while session.goes_on() {
        one(session, tracer, is_first);
        is_first = false;
    }
}

/// One run, and a few states of it.
fn one(session: &mut Session, tracer: &Path, is_first: bool) {
    let (clients, states) = if is_first { (CROWD.clients, STATES) } else { (LARGER, MORE_STATES) };
    let run = Run { clients, ..CROWD };
    let traced = trace(tracer, Image::new(), &Model::default(), 0, &run);
    let (of_copies, of_the_last) = moments(&traced.calls);
    session.count("moments at which durable frames are written over", of_copies.len() as u64);
    session.count("such moments with no durable copy left", of_the_last.len() as u64);
    if of_copies.is_empty() && of_the_last.is_empty() {
        let wrong = "crowd: no durable frame is written over while something is unsynced";
        session.violated(wrong.to_owned());
    }
    if !of_the_last.is_empty() {
        let moments = of_the_last.len();
        session.violated(format!("crowd: {LAST_COPY}, {moments} times"));
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
        let context = format!("crowd, call {at} of {calls}, {names:?} names, {fate:?}");
        let image = disk.cut(fate, &mut session.rng);
        let outcome = try_state(&image, &mut model.clone(), false, None);
        session.count("states of crowd", 1);
        session.tried(outcome.map(drop).map_err(|lost| format!("{context}: {lost}")));
    }
}

/// The calls that write over durable frames while something is unsynced: those that leave a durable copy
/// of each of them, and those that do not.
fn moments(calls: &[Call]) -> (Vec<usize>, Vec<usize>) {
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
    (of_copies, of_the_last)
}
