//! One ledger that goes on over the deaths of its processes: they are killed, or the power goes.

use crate::Session;
use crate::disk::{Disk, Fate, Names};
use crate::places::{self, Image};
use crate::tracer::{self, Call};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;

/// Which deaths are those of the power: the last of so many.
pub(super) const OF_THE_POWER: u64 = 8;

/// What must be found of the ledger.
pub(super) trait Hears: Clone {
    /// Hears a line of the child; an error is something that must not be.
    fn hear(&mut self, line: &str) -> Result<(), String>;
}

/// Runs the child until a line is said after which it `ends`, or a change of a file kills it; the model
/// hears all that it says.
pub(super) fn until(
    mut child: Command,
    model: &mut impl Hears,
    mut ends: impl FnMut(&str) -> bool,
) -> Result<(), String> {
    let mut child = child.spawn().unwrap();
    let (mut wrong, mut heard) = (Ok(()), Vec::new());
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        wrong = wrong.and_then(|()| model.hear(&line));
        if ends(&line) || wrong.is_err() {
            child.kill().unwrap();
        }
        heard.push(line);
    }
    let died = places::was_killed(child.wait().unwrap());
    wrong.inspect_err(|_| keep(None, &heard))?;
    if died? { Ok(()) } else { Err("the child ended by itself".to_owned()) }
}

/// Runs one child, on a copy of the ledger, to its end, and judges what there is when the power goes before
/// each of these calls: the disk, and what the model has heard by then.
pub(super) fn power_goes<M: Hears>(
    session: &mut Session,
    tracer: &Path,
    (disk, model): (&Path, &M),
    child: impl FnOnce(&mut Session, &Path) -> Command,
    moments: impl FnOnce(&mut Session, &[Call]) -> Vec<usize>,
    mut judge: impl FnMut(&mut Session, &Image, &mut M) -> Result<(), String>,
) {
    let top = places::scratch();
    let before = places::image(disk);
    let dir = top.path().join("disk");
    places::lay_out(&before, &dir);
    let file = top.path().join("trace");
    let mut child = child(session, &dir);
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
    let mut disks =
        [Names::Strict, Names::Journalled].map(|names| (names, Disk::holding(&before, names)));
    let (mut model, mut heard) = (model.clone(), Vec::new());
    let mut played = 0;
    for moment in moments {
        for call in &calls[played..moment] {
            disks.iter_mut().for_each(|(_, disk)| disk.play(call));
            if let Call::Ack(line) = call {
                heard.push(line);
                if let Err(wrong) = model.hear(line) {
                    keep(None, &heard);
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
        let context = format!("call {moment} of {}, {names:?} names, {fate:?}", calls.len());
        let image = disk.cut(fate, &mut session.rng);
        let outcome = judge(session, &image, &mut model.clone());
        if outcome.is_err() {
            keep(Some(&image), &heard);
        }
        session.tried(outcome.map_err(|wrong| format!("{context}: {wrong}")));
    }
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
