//! Several want the same ledger at once.
//!
//! Exactly one has it, and the others are told so: processes and tasks that open at the same moment,
//! a ledger that is there or one to be created; creators that wait for each other; openers that wait while the holder is killed; a
//! directory that is moved away under its owner, also in the middle of its work, whose place another
//! one takes. Whoever owns it holds a file beside it that only one can create, so two owners at once
//! are seen whatever they do.

mod moved;

use super::{Harness, broken};
use crate::Session;
use crate::places::{self, Owns, TestLedger, builder};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use taskledger::OpenError;
use taskledger::internals::Sabotage;

pub(super) const HARNESS: Harness = Harness {
    name: "raced",
    unit: "races",
    ci: 50,
    full: 2_000,
    run,
    // There are seldom two at once even then: behind our lock the store has one of its own, on its
    // file, which cannot be taken from it. Whoever is stopped only there has come past ours.
    controls: &[
        broken(Sabotage::SkipLock, 150, &[places::AT_ONCE, places::PAST_OURS]),
        broken(Sabotage::JudgeOnce, 150, &[WIPED]).only(&[CREATED]),
        broken(Sabotage::LosePath, 50, &["moved away: whose directory was moved goes on: "])
            .only(&["moved away"]),
        // Most moves still come where nothing of it matters.
        broken(Sabotage::ByName, 400, &["the newcomer "]).only(&[MOVED]),
    ],
};

/// Several want to create one ledger, and wait for each other.
const CREATED: &str = "creators that wait";

/// The directory is moved away in the middle of something long.
const MOVED: &str = "moved at work";

/// What is tried, at random: that which comes in several kinds more often.
const WHAT: [&str; 7] =
    [MOVED, MOVED, CREATED, "processes", "the holder dies", "moved away", "tasks"];

fn run(session: &mut Session) {
    let dir = places::on_disk();
    let moves = match moved::all(dir.path()) {
        Ok(moves) => moves,
        Err(wrong) => return session.violated(wrong),
    };
    for round in 0_u64.. {
        if !session.goes_on() {
            return;
        }
        // Now a ledger that is there, now one that is to be created.
        let name = if session.rng.coin() { "ledger".to_owned() } else { round.to_string() };
        let path = dir.path().join(name);
        let what = *session.rng.pick(&WHAT);
        if !session.takes(what) {
            continue;
        }
        let rng = &mut session.rng;
        let (what, outcome) = match what {
            MOVED => {
                let moves = rng.pick(&moves);
                (moves.name(), moves.race(&dir.path().join("moved"), rng))
            }
            CREATED => {
                let fresh = dir.path().join(format!("fresh-{round}"));
                (what.to_owned(), created_by_many(&fresh, 2 + rng.below(4)))
            }
            // A process takes its time to start.
            "processes" if rng.below(8) == 0 => ("50 processes".to_owned(), processes(&path, 50)),
            "processes" => (what.to_owned(), processes(&path, 2 + rng.below(8))),
            "the holder dies" => (what.to_owned(), while_the_holder_dies(&path, 2 + rng.below(4))),
            "moved away" => (what.to_owned(), moved_away(&path, rng.coin())),
            _ if rng.below(3) == 0 => ("50 tasks".to_owned(), tasks(&path, 50)),
            _ => (what.to_owned(), tasks(&path, 2 + rng.below(30))),
        };
        session.count(&what, 1);
        session.tried(outcome.map_err(|wrong| format!("{what}: {wrong}")));
    }
}

/// The first line that the child says of itself.
fn first_word(child: &mut Child) -> String {
    let lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    let word = lines.find_map(|line| Some(line.strip_prefix("ack ")?.to_owned()));
    word.unwrap_or_else(|| "died without a word".to_owned())
}

fn opener(path: &Path, wait: u64) -> Child {
    let mut command = places::child("opens once", path);
    command.env("TASKLEDGER_CHILD_LOCK_WAIT", wait.to_string());
    command.stdin(Stdio::piped()).spawn().unwrap()
}

fn processes(path: &Path, count: u64) -> Result<(), String> {
    let mut openers: Vec<Child> = (0..count).map(|_| opener(path, 0)).collect();
    // Whoever has it keeps it until all have said what they got.
    let said: Vec<String> = openers.iter_mut().map(first_word).collect();
    let mut ended = true;
    for mut child in openers {
        drop(child.stdin.take());
        ended &= child.wait().unwrap().success();
    }
    let owners = said.iter().filter(|word| *word == "owner").count();
    let others = said.iter().filter(|word| *word != "owner");
    let told = others.clone().all(|word| word.contains("is in use by"));
    if owners == 1 && told && ended { Ok(()) } else { Err(format!("{said:?}, ended {ended}")) }
}

/// Several want to create it, and wait for each other: one creates it, and the others find what it is.
fn created_by_many(path: &Path, count: u64) -> Result<(), String> {
    let mut openers: Vec<Child> = (0..count).map(|_| opener(path, 100)).collect();
    openers.iter_mut().for_each(|child| drop(child.stdin.take()));
    let said: Vec<String> = openers.iter_mut().map(first_word).collect();
    let ended = openers.iter_mut().all(|child| child.wait().unwrap().success());
    if !ended || said.iter().any(|word| word != "owner") {
        return Err(format!("{said:?}, ended {ended}"));
    }
    places::run(async {
        let ledger = places::open(builder(), path).await.map_err(|error| format!("{error:?}"))?;
        let epoch = ledger.recovery().epoch().get();
        ledger.close().await.unwrap();
        let opens = count + 1;
        if epoch == opens {
            Ok(())
        } else {
            Err(format!("{WIPED}: epoch {epoch} after {opens} opens"))
        }
    })
}

/// What is said of a ledger that has forgotten who had it.
const WIPED: &str = "an opener has wiped out what another one has done";

/// All wait; the holder is killed; one after the other gets it, each alone.
fn while_the_holder_dies(path: &Path, count: u64) -> Result<(), String> {
    let mut holder = places::child("holds", path).spawn().unwrap();
    let word = first_word(&mut holder);
    if word != "open" {
        return Err(format!("the holder says {word:?}"));
    }
    let mut openers: Vec<Child> = (0..count).map(|_| opener(path, 100)).collect();
    let waiting = wait_until_they_wait(path, &openers);
    holder.kill().unwrap();
    holder.wait().unwrap();
    // Each closes as soon as its stdin ends, which it has.
    openers.iter_mut().for_each(|child| drop(child.stdin.take()));
    let said: Vec<String> = openers.iter_mut().map(first_word).collect();
    let ended = openers.iter_mut().all(|child| child.wait().unwrap().success());
    let all = said.iter().all(|word| word == "owner");
    waiting?;
    if all && ended { Ok(()) } else { Err(format!("{said:?}, ended {ended}")) }
}

/// Until each of them has the lock file open, which none of them can lock. Whoever owns the ledger
/// beside its holder has said so by a file.
fn wait_until_they_wait(path: &Path, openers: &[Child]) -> Result<(), String> {
    let lock = path.canonicalize().unwrap().join("lock");
    let since = Instant::now();
    let mut left: Vec<u32> = openers.iter().map(Child::id).collect();
    while !left.is_empty() {
        // A descriptor may be closed between listing and reading it.
        left.retain(|process| {
            let open = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten();
            let mut names = open.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
            !names.any(|name| name == lock)
        });
        if since.elapsed() > places::NEVER {
            return Err(format!("{} of them never come to wait", left.len()));
        }
        std::thread::yield_now();
    }
    if path.with_extension("owner").exists() {
        return Err(format!("{}: one beside its holder", places::AT_ONCE));
    }
    Ok(())
}

fn tasks(path: &Path, count: u64) -> Result<(), String> {
    places::run(async {
        let mut openers = tokio::task::JoinSet::new();
        for _ in 0..count {
            let path = path.to_owned();
            openers.spawn(async move {
                let opened = places::open(builder().lock_wait(Duration::ZERO), &path).await;
                opened.map(|ledger| (Owns::begin(&path), ledger))
            });
        }
        let mut owners = Vec::new();
        while let Some(opened) = openers.join_next().await {
            match opened.map_err(|error| error.to_string())? {
                Ok((owns, ledger)) => owners.push((owns?, ledger)),
                // Whoever is just opening may not have signed yet.
                Err(OpenError::Locked { holder, .. })
                    if holder.pid.is_none() || holder.this_process => {}
                Err(other) => return Err(places::refused(&other)),
            }
        }
        let count = owners.len();
        let (Some((owns, owner)), 1) = (owners.pop(), count) else {
            return Err(format!("{count} owners"));
        };
        drop(owns);
        owner.close().await.map_err(|error| format!("{error:?}"))
    })
}

/// The one whose directory is moved notices at a mark, or at a checkpoint.
fn moved_away(path: &Path, at_a_mark: bool) -> Result<(), String> {
    let elsewhere = path.with_extension("elsewhere");
    drop(std::fs::remove_dir_all(path));
    drop(std::fs::remove_dir_all(&elsewhere));
    places::run(async {
        let open = || places::open(builder(), path);
        let failed = |error: OpenError| format!("it does not open: {error:?}");
        let ledger = open().await.map_err(failed)?;
        ledger.mark_succeeded("before".to_owned()).await.map_err(|error| error.to_string())?;
        std::fs::rename(path, &elsewhere).unwrap();
        // Another one takes the old place.
        let newcomer = open().await.map_err(failed)?;
        works(&newcomer, "newcomer").await?;
        // Both come to the same names: neither may touch the other's.
        let said = if at_a_mark {
            format!("{:?}", ledger.mark_succeeded("after".to_owned()).await)
        } else {
            format!("{:?}", ledger.checkpoint().await)
        };
        let later = works(&newcomer, "later").await;
        if !said.contains("was moved or replaced") {
            return Err(format!("whose directory was moved goes on: {said}; then {later:?}"));
        }
        later?;
        if ledger.mark_succeeded("after".to_owned()).await.is_ok() {
            return Err("whose directory was moved goes on after an error".to_owned());
        }
        drop(ledger.close().await);
        drop(newcomer.close().await);
        let expected: [(&Path, &[&str]); 2] =
            [(path, &["later", "newcomer"]), (&elsewhere, &["before"])];
        for (place, expected) in expected {
            let ledger = places::open(builder(), place).await.map_err(failed)?;
            let mut ids = ids(&ledger);
            ids.sort_unstable();
            drop(ledger.close().await);
            if ids != expected {
                return Err(format!("{} has {ids:?}", place.display()));
            }
        }
        Ok(())
    })
}

/// Whoever came into the old place is at home there.
async fn works(newcomer: &TestLedger, id: &str) -> Result<(), String> {
    let wrong = |what: String| format!("the newcomer, at {id}: {what}");
    let marked = newcomer.mark_succeeded(id.to_owned()).await;
    marked.map_err(|error| wrong(format!("{error:?}")))?;
    newcomer.checkpoint().await.map_err(|error| wrong(format!("{error:?}")))
}

fn ids(ledger: &TestLedger) -> Vec<String> {
    ledger.all_tasks().iter().map(Result::unwrap).collect()
}
