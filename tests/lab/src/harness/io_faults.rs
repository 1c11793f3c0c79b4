//! A call to the operating system fails: the n-th of its kind, once or for ever.
//!
//! EIO, ENOSPC, EINTR, or a write that is cut short; a file system that is read-only by now, no more
//! descriptors, permissions that are gone; on writes, syncs, creations, renames, removals, reads, opens,
//! changes of a length, looks at files and lists of directories; while a ledger is created, opened, worked with and folded. What fails is told with a
//! typed error, nobody hangs, the poison holds, and the next open has all that was acknowledged.
//!
//! What a caller waits for stands on the log that is appended to, on the witness and on the name of
//! the manifest. Once one of these has failed, nothing that is begun later is acknowledged, and the
//! close says so: a failed sync that is taken for a good one is found by that, whether or not the
//! bytes are on the disk. Elsewhere (a log that is being prepared or frozen, a checkpoint, an
//! unfinished file) a failure may be tried again.

use super::killed::reopen_and_check;
use super::{Harness, broken};
use crate::ops::Model;
use crate::places::{self, Image};
use crate::{Rng, Session, tracer};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use taskledger::internals::Sabotage;

pub(super) const HARNESS: Harness = Harness {
    name: "io-faults",
    unit: "injections",
    // Every n of a fresh run, which are some 830, and a few of the others.
    ci: 1_000,
    full: 10_000,
    run,
    controls: &[
        broken(Sabotage::SwallowFailure, 400, &["after a failure of the log"]),
        broken(Sabotage::IgnoreSync, 400, &["after a failure of the log"]),
    ],
};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EINTR: i32 = 4;
const EROFS: i32 = 30;
const EMFILE: i32 = 24;
const EACCES: i32 = 13;
/// A write that writes half.
const SHORT: i32 = 0;

const FAULTS: [(&str, &[i32]); 10] = [
    ("write", &[EIO, ENOSPC, EINTR, SHORT]),
    ("sync", &[EIO, ENOSPC, EINTR]),
    ("create", &[EIO, ENOSPC, EINTR, EROFS, EMFILE, EACCES]),
    ("rename", &[EIO, ENOSPC, EROFS, EACCES]),
    ("unlink", &[EIO, EROFS, EACCES]),
    ("read", &[EIO, EINTR]),
    ("open", &[EIO, EINTR, EROFS, EMFILE, EACCES]),
    ("length", &[EIO, ENOSPC, EINTR]),
    ("stat", &[EIO, EACCES]),
    ("list", &[EIO, EMFILE, EACCES]),
];

/// After the failure of one of these nothing need follow: what is looked at may be looked at again, and
/// what only gets a length is written later.
const LOOKS: [&str; 5] = ["read", "open", "length", "stat", "list"];

/// Far more than a child takes: only to tell slow from never.
const NEVER: Duration = Duration::from_secs(60);

/// What is under way when something fails is over by then, though the machine be busy: no deadline in
/// the child is longer than two seconds.
const HANG: Duration = Duration::from_secs(20);

/// What the child does.
#[derive(Clone, Copy, Debug)]
struct Workload {
    name: &'static str,
    fresh: bool,
    clients: u64,
    /// Operations of each client: 60 in all.
    count: u64,
    checkpoints: u64,
    /// Bytes of each output, at least.
    output: u64,
}

/// With one client, whatever is acknowledged after a failed append has been taken back by it.
const WORKLOADS: [Workload; 3] = [
    Workload { name: "fresh", fresh: true, clients: 1, count: 60, checkpoints: 0, output: 0 },
    Workload { name: "history", fresh: false, clients: 3, count: 20, checkpoints: 0, output: 0 },
    Workload { name: "large", fresh: false, clients: 1, count: 60, checkpoints: 3, output: 20_000 },
];

/// First every n of each class in a fresh ledger; then in each workload, from a random one on and round
/// again, a step of each in turn.
fn run(session: &mut Session) {
    let Some(tracer) = tracer::tracer() else { return session.skip(tracer::NO_TRACER) };
    let top = places::scratch();
    let path = top.path().join("history");
    let mut known = Model::default();
    let mut work = places::child("clients", &path);
    work.env("TASKLEDGER_CHILD_SEED", session.rng.next().to_string())
        .env("TASKLEDGER_CHILD_CHECKPOINTS", "2");
    let killed = super::killed::killed_after(work, 120, |line| line.contains("done"), &mut known);
    assert_eq!(killed, Ok(true), "the history");
    let history = (places::image(&path), known);
    let fault = |rng: &mut Rng, class: &str, errnos: &[i32], at: u64| {
        let errno = *rng.pick(errnos);
        // No system interrupts the same call for ever, or never writes more than half.
        let ever = errno != EINTR && errno != SHORT && rng.coin();
        format!("{class}:{at}:{errno}:{}", if ever { "ever" } else { "once" })
    };
    let [fresh, ..] = WORKLOADS;
    for (class, errnos) in FAULTS {
        for at in 1.. {
            if !session.goes_on() {
                session.incomplete(&HARNESS, &format!("{class} {at}"));
                return;
            }
            let fault = fault(&mut session.rng, class, errnos, at);
            if !inject(session, tracer, &fault, fresh, &history) {
                session.count(&format!("every {class} of a fresh run: {}", at - 1), 1);
                break;
            }
        }
    }
    let mut lanes = Vec::new();
    for workload in WORKLOADS {
        for (class, errnos) in FAULTS {
            lanes.push((workload, class, errnos, 1 + session.rng.below(60)));
        }
    }
    while session.goes_on() {
        for (workload, class, errnos, at) in &mut lanes {
            if !session.goes_on() {
                return;
            }
            let fault = fault(&mut session.rng, class, errnos, *at);
            if inject(session, tracer, &fault, *workload, &history) {
                *at += 1;
            } else {
                session.count(&format!("ends of {class} in {}", workload.name), 1);
                *at = 1;
            }
        }
    }
}

/// Whether there was an n-th call. What did not happen was not tried, but must be right all the same.
fn inject(
    session: &mut Session,
    tracer: &Path,
    fault: &str,
    workload: Workload,
    history: &(Image, Model),
) -> bool {
    let top = places::scratch();
    // Watched from above, so that the ledger's own directory, and its name, are part of it.
    let disk = top.path().join("disk");
    let path = disk.join("ledger");
    std::fs::create_dir(&disk).unwrap();
    let mut model = Model::default();
    if !workload.fresh {
        places::lay_out(&history.0, &path);
        model = history.1.clone();
    }
    let before = model.acked;
    let mut child = places::child("suffers", &path);
    child
        .env("TASKLEDGER_CHILD_SEED", session.rng.below(1000).to_string())
        .env("TASKLEDGER_CHILD_FIRST_CLIENT", "100")
        .env("TASKLEDGER_CHILD_CLIENTS", workload.clients.to_string())
        .env("TASKLEDGER_CHILD_COUNT", workload.count.to_string())
        .env("TASKLEDGER_CHILD_CHECKPOINTS", workload.checkpoints.to_string())
        .env("TASKLEDGER_CHILD_OUTPUT", workload.output.to_string())
        .env("TL_FAIL", fault);
    tracer::preload(&mut child, tracer, &disk);
    let mut demands = Demands { alone: workload.clients == 1, ..Demands::default() };
    let mut outcome = suffer(child.spawn().unwrap(), &mut model, &mut demands);
    session.count("acknowledged", model.acked - before);
    session.count("poisoned clients", model.hurt);
    if outcome.is_ok() {
        outcome = reopen_and_check_repaired(&path, &mut model);
    }
    let outcome = outcome.map_err(|wrong| format!("{fault}, {}: {wrong}", workload.name));
    if demands.first_fault.is_none() {
        outcome.unwrap_or_else(|wrong| session.violated(wrong));
        session.count("runs without an n-th call", 1);
        return false;
    }
    if demands.failed.is_some() || demands.failed_sync_of_open.is_some() {
        session.count("failures of the log, the witness or the manifest", 1);
    }
    if let Some(kind) = demands.open_failed {
        session.count(&format!("opens failed: {kind}"), 1);
    }
    let bounds = [(100, "100 ms"), (500, "500 ms"), (2_000, "2 s"), (u128::MAX, "more than 2 s")];
    let bound = bounds.into_iter().find(|(most, _)| demands.took.as_millis() <= *most);
    session.count(&format!("ended within {} of the failure", bound.unwrap().1), 1);
    session.tried(outcome);
    true
}

/// A write that was cut short or failed may leave what takes a repair; a loss it may not.
fn reopen_and_check_repaired(path: &Path, model: &mut Model) -> Result<(), String> {
    match reopen_and_check(path, &mut model.clone()) {
        Err(why) if why.starts_with("a kill took a repair") => reopen_and_check(path, model),
        checked => checked,
    }
}

/// What may still be said after a failure.
#[derive(Debug, Default)]
struct Demands {
    /// There is one client.
    alone: bool,
    first_fault: Option<Instant>,
    /// How long after that the child had ended.
    took: Duration,
    /// A failure that the ledger may not survive, as it was told.
    failed: Option<String>,
    /// Whether that was part of an append: of a batch that somebody waits for.
    append: bool,
    /// A failed `fdatasync` of the log or the witness, before it was open.
    failed_sync_of_open: Option<String>,
    open: bool,
    closing: bool,
    /// Clients that began something after it.
    too_late: BTreeSet<String>,
    open_failed: Option<String>,
}

impl Demands {
    fn hear(&mut self, line: &str, when: Instant) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["ack", "fault", class, call, errno, live, path] => {
                self.first_fault.get_or_insert(when);
                self.fault(line, class, call, errno.parse().unwrap(), live == "live", path);
            }
            ["ack", "open", "failed", kind, ..] => {
                let kind = kind.trim_end_matches(':');
                if !["io", "full", "stuck"].contains(&kind) {
                    return Err(format!("the open has no typed error: {line}"));
                }
                self.open_failed = Some(kind.to_owned());
            }
            ["ack", "open"] => {
                // Around most of what fails in it, an open may find another way.
                if let Some(failed) = &self.failed_sync_of_open {
                    return Err(format!("after a failure of the log ({failed}) it opens"));
                }
                self.open = true;
            }
            ["ack", "closing"] => self.closing = true,
            ["ack", "closed", "well"] => {
                if let Some(failed) = &self.failed {
                    return Err(format!("after a failure of the log ({failed}) it closes well"));
                }
            }
            ["ack", "try", client, op, ..] if self.failed.is_some() && op != "again" => {
                self.too_late.insert(client.to_owned());
            }
            // What is certain from memory is refused as before.
            ["ack", "done", client, op, ..] if op != "again" => {
                let failed = self.failed.as_deref().unwrap_or_default();
                let late = self.too_late.contains(client) || (self.alone && self.append);
                if late {
                    return Err(format!("after a failure of the log ({failed}): {line}"));
                }
            }
            ["ack", "hurt", ..] if line.contains("Panicked(") => {
                return Err(format!("the store panicked: {line}"));
            }
            _ => {}
        }
        Ok(())
    }

    fn fault(&mut self, line: &str, class: &str, call: &str, errno: i32, live: bool, path: &str) {
        let witness = path.ends_with("/witness");
        if !live || LOOKS.contains(&class) || errno == EINTR || errno == SHORT {
            return;
        }
        if !self.open {
            if call == "fdatasync" {
                self.failed_sync_of_open.get_or_insert_with(|| line.to_owned());
            }
            return;
        }
        // The store still writes when it is dropped, which is after everything has been synced.
        if self.closing && !witness {
            return;
        }
        // The witness is synced beside the appends as well.
        self.append |= !(witness && class == "sync") && call != "rename";
        self.failed.get_or_insert_with(|| line.to_owned());
    }
}

/// Hears the child to its end, which comes.
fn suffer(mut child: Child, model: &mut Model, demands: &mut Demands) -> Result<(), String> {
    let stderr = child.stderr.take().unwrap();
    let (lines, heard) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            drop(lines.send((line, Instant::now())));
        }
    });
    let mut until = Instant::now() + NEVER;
    let mut failed = false;
    let mut all = Vec::new();
    loop {
        match heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if !failed && line.0.starts_with("ack fault") {
                    failed = true;
                    until = Instant::now() + HANG;
                }
                all.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                drop(child.kill());
                drop(child.wait());
                let bound = if failed { HANG } else { NEVER };
                return Err(format!("it hangs: not ended after {bound:?}; {:?}", all.last()));
            }
        }
    }
    let status = child.wait().unwrap();
    let ended = Instant::now();
    for (line, when) in &all {
        // sled panics when it is dropped after a failed sync; that is caught, and the child goes on.
        if line.contains("panicked") && line.contains("/sled-0.34") {
            continue;
        }
        if line.contains("panicked") || line.starts_with("ack bad") {
            return Err(format!("the child says: {line}"));
        }
        demands.hear(line, *when)?;
        model.hear(line);
    }
    demands.took = demands.first_fault.map_or(Duration::ZERO, |fault| ended - fault);
    if status.success() { Ok(()) } else { Err(format!("it ends with {status}: {:?}", all.last())) }
}
