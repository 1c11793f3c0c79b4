//! A call to the operating system fails: the n-th of its kind, once or for ever.
//!
//! EIO, ENOSPC, EINTR, or a write that is cut short; on writes, syncs, creations, renames, removals
//! and reads; while a ledger is created, opened, worked with and folded. What fails is told with a
//! typed error, nobody hangs, the poison holds, and the next open has all that was acknowledged.

use super::Harness;
use super::killed::reopen_and_check;
use crate::ops::Model;
use crate::places::{self, Image};
use crate::{Session, tracer};
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::channel;
use std::time::Duration;
use taskledger::internals::Sabotage;

pub(super) const HARNESS: Harness = Harness {
    row: 5,
    name: "io-faults",
    unit: "injections",
    ci: 400,
    full: 10_000,
    run,
    controls: &[(Sabotage::SwallowFailure, 2_000)],
};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EINTR: i32 = 4;
/// A write that writes half.
const SHORT: i32 = 0;

const FAULTS: [(&str, &[i32]); 6] = [
    ("write", &[EIO, ENOSPC, EINTR, SHORT]),
    ("sync", &[EIO, ENOSPC, EINTR]),
    ("create", &[EIO, ENOSPC, EINTR]),
    ("rename", &[EIO, ENOSPC]),
    ("unlink", &[EIO]),
    ("read", &[EIO, EINTR]),
];

/// Far more than a child takes: only to tell slow from never.
const NEVER: Duration = Duration::from_secs(30);

/// Every n of a class in turn, until there is no n-th call any more; then the next class.
fn run(session: &mut Session) {
    let Some(tracer) = tracer::tracer() else { return session.skip(tracer::NO_TRACER) };
    let top = places::scratch();
    let path = top.path().join("history");
    let mut known = Model::default();
    let mut work = places::child("clients", &path);
    work.env("TASKLEDGER_CHILD_SEED", session.rng.next().to_string())
        .env("TASKLEDGER_CHILD_CHECKPOINTS", "2");
    super::killed::killed_after(work, 120, |line| line.contains("done"), &mut known);
    let history = (places::image(&path), known);
    loop {
        for (class, errnos) in FAULTS {
            let mut at = 1;
            while session.goes_on() {
                let errno = *session.rng.pick(errnos);
                // No system interrupts the same call for ever, or never writes more than half.
                let ever = errno != EINTR && errno != SHORT && session.rng.coin();
                let fault = format!("{class}:{at}:{errno}:{}", if ever { "ever" } else { "once" });
                let fresh = session.rng.below(4) == 0;
                let hurt = inject(session, tracer, &fault, fresh, &history);
                if !hurt && !fresh {
                    break;
                }
                // With a small step, every n gets its turn sooner or later.
                at += 1 + session.rng.below(3);
            }
            if !session.goes_on() {
                return;
            }
        }
    }
}

/// Whether there was an n-th call.
fn inject(
    session: &mut Session,
    tracer: &Path,
    fault: &str,
    fresh: bool,
    history: &(Image, Model),
) -> bool {
    let top = places::scratch();
    let path = top.path().join("ledger");
    let mark = top.path().join("mark");
    std::fs::create_dir(&path).unwrap();
    let mut model = Model::default();
    if !fresh {
        places::lay_out(&history.0, &path);
        model = history.1.clone();
    }
    let mut child = places::child("suffers", &path);
    child
        .env("TASKLEDGER_CHILD_SEED", session.rng.below(1000).to_string())
        .env("TASKLEDGER_CHILD_FIRST_CLIENT", "100")
        .env("TASKLEDGER_CHILD_CHECKPOINTS", "1")
        .env("TL_FAIL", fault)
        .env("TL_FAIL_MARK", &mark);
    tracer::preload(&mut child, tracer, &path);
    let outcome = suffer(child.spawn().unwrap(), &mut model).and_then(|()| {
        let wanted = (model.acked, model.hurt);
        session.count("acknowledged", wanted.0.saturating_sub(history.1.acked * u64::from(!fresh)));
        session.count("poisoned clients", wanted.1);
        reopen_and_check_repaired(&path, &mut model)
    });
    let happened = mark.exists();
    session.count("happened", u64::from(happened));
    session.tried(outcome.map_err(|wrong| format!("{fault}, fresh {fresh}: {wrong}")));
    happened
}

/// A write that was cut short or failed may leave what takes a repair; a loss it may not.
fn reopen_and_check_repaired(path: &Path, model: &mut Model) -> Result<(), String> {
    match reopen_and_check(path, &mut model.clone()) {
        Err(why) if why.starts_with("a kill took a repair") => reopen_and_check(path, model),
        checked => checked,
    }
}

/// Hears the child to its end, which comes.
fn suffer(mut child: Child, model: &mut Model) -> Result<(), String> {
    let stderr = child.stderr.take().unwrap();
    let (lines, heard) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stderr);
        let mut text = String::new();
        // All of it, once it has ended.
        drop(reader.read_to_string(&mut text));
        drop(lines.send(text));
    });
    let Ok(text) = heard.recv_timeout(NEVER) else {
        drop(child.kill());
        drop(child.wait());
        return Err(format!("it hangs: not ended after {NEVER:?}"));
    };
    let status = child.wait().unwrap();
    for line in text.as_bytes().lines().map_while(Result::ok) {
        // sled panics when it is dropped after a failed sync; that is caught, and the child goes on.
        if line.contains("panicked") && line.contains("/sled-0.34") {
            continue;
        }
        if line.contains("panicked") || line.starts_with("ack bad") {
            return Err(format!("the child says: {line}"));
        }
        model.hear(&line);
    }
    if status.success() { Ok(()) } else { Err(format!("it ends with {status}: {text}")) }
}
