//! A real file system: ext4 on a loop device, whose image is copied at an acknowledgement.
//!
//! The copy is what a drive holds that has lost nothing it was given: what the file system had not
//! yet written is gone. It is mounted, which replays its journal, and everything acknowledged is
//! there.

use super::killed::reopen_and_check;
use super::{Harness, broken};
use crate::Session;
use crate::ops::{Model, TAKEN_BACK};
use crate::places;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use taskledger::internals::Sabotage;

pub(super) const HARNESS: Harness = Harness {
    name: "ext4",
    unit: "cuts",
    ci: 5,
    full: 300,
    run,
    controls: &[broken(Sabotage::SkipSync, 15, &[TAKEN_BACK, "was durable"])],
};

/// A mounted image, which is unmounted when this is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn mount(image: &Path, at: PathBuf) -> Result<Self, String> {
        std::fs::create_dir_all(&at).unwrap();
        done(Command::new("mount").args(["-o", "loop"]).arg(image).arg(&at))?;
        Ok(Self(at))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: what was killed a moment ago may still hold it.
        drop(done(Command::new("umount").arg("-l").arg(&self.0)));
    }
}

fn done(command: &mut Command) -> Result<(), String> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn run(session: &mut Session) {
    let top = places::on_disk();
    let fresh = top.path().join("fresh.img");
    let made = places::is_root()
        .then_some(())
        .ok_or_else(|| "only root may mount a file system".to_owned())
        .and_then(|()| {
            std::fs::File::create(&fresh).unwrap().set_len(96 << 20).unwrap();
            done(Command::new("mkfs.ext4").arg("-q").arg(&fresh))
        })
        .and_then(|()| Mounted::mount(&fresh, top.path().join("fresh")).map(drop));
    if let Err(why) = made {
        return session.skip(why);
    }
    while session.goes_on() {
        let outcome = cut(session, top.path(), &fresh);
        session.tried(outcome);
    }
}

fn cut(session: &mut Session, top: &Path, fresh: &Path) -> Result<(), String> {
    let (image, copy) = (top.join("disk.img"), top.join("copy.img"));
    std::fs::copy(fresh, &image).unwrap();
    let mut model = Model::default();
    let mounted = Mounted::mount(&image, top.join("disk"))?;
    let path = mounted.0.join("ledger");
    let rng = &mut session.rng;
    // Now a new ledger, now one that was closed and is opened again.
    if rng.coin() {
        let mut before = places::child("clients", &path);
        before.env("TASKLEDGER_CHILD_COUNT", "20").env("TASKLEDGER_CHILD_FIRST_CLIENT", "50");
        if super::killed::killed_after(before, u64::MAX, |_| false, &mut model)? {
            return Err("the child before was killed".to_owned());
        }
    }
    let mut child = places::child("clients", &path);
    child
        .env("TASKLEDGER_CHILD_SEED", rng.next().to_string())
        .env("TASKLEDGER_CHILD_CHECKPOINTS", if rng.coin() { u64::MAX } else { 0 }.to_string())
        .env("TASKLEDGER_CHILD_CHECKPOINT_AFTER", "65536");
    let mut child = child.spawn().unwrap();
    let acks = 1 + rng.below(400);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    for line in lines.by_ref().take(acks as usize) {
        model.hear(&line.unwrap());
    }
    let stopped = stop(child.id());
    std::fs::copy(&image, &copy).unwrap();
    child.kill().unwrap();
    // What it had said before it was stopped.
    lines.map(Result::unwrap).for_each(|line| model.hear(&line));
    let killed = places::was_killed(child.wait().unwrap());
    stopped?;
    if !killed? {
        return Err("the child ended by itself".to_owned());
    }
    drop(mounted);
    let mounted = Mounted::mount(&copy, top.join("copy"))?;
    session.count("acknowledged", model.acked);
    reopen_and_check(&mounted.0.join("ledger"), &mut model)
        .map_err(|lost| format!("cut after {acks} lines: {lost}"))
}

/// Stops the process; when this returns, it does nothing any more.
fn stop(process: u32) -> Result<(), String> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    for _ in 0..1_000_000 {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let stopped = tasks.filter_map(Result::ok).all(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            let state = stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('T'));
            state.unwrap_or(true)
        });
        if stopped {
            return Ok(());
        }
        std::thread::yield_now();
    }
    Err("the child does not stop".to_owned())
}
