//! The roles that the lab's program plays in other processes.

mod kept;
pub(crate) mod queued;

use crate::places::{self, ACCEPTS, BALLAST, Owns, TestLedger, open, refused, run};
use crate::{Rng, ops};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use taskledger::{AcceptLoss, Builder, OpenError, TaskState};
use tokio::sync::Barrier;

/// Plays a role in the ledger at `path`.
pub fn play(role: &str, path: PathBuf) {
    std::panic::set_hook(Box::new(tell_panic));
    run(async {
        match role {
            "clients" => clients(path).await,
            "idles" => idles(path).await,
            "falls" => falls(path).await,
            "crowd" => crowd(path).await,
            "kept" => kept::kept(path).await,
            "queued" => queued::queued(path).await,
            "opens and checkpoints" => opens_and_checkpoints(path).await,
            "holds" => holds(path).await,
            "opens once" => opens_once(path).await,
            "suffers" => suffers(path).await,
            "by descriptor" => by_descriptor(&path).unwrap(),
            other => panic!("nobody plays {other}"),
        }
    });
}

/// In one line and with one write, as all that is said: what the usual hook writes piece by piece stood in
/// front of what another thread said, and nobody heard that.
fn tell_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let line = format!("{}\n", panic.to_string().replace('\n', " "));
    // Whoever listened has gone.
    drop(io::stderr().write_all(line.as_bytes()));
}

/// `O_DIRECTORY`.
const DIRECTORY: i32 = rustix::fs::OFlags::DIRECTORY.bits() as i32;

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// With a ballast where one is asked for, and with a loss accepted where that is.
fn builder() -> Builder<String, String> {
    let accept = if number(ACCEPTS, 0) > 0 { AcceptLoss::Yes } else { AcceptLoss::No };
    places::builder().ballast_bytes(number(BALLAST, 0)).accept_loss(accept)
}

/// Several clients, at work until they are killed or have done what they were to do.
async fn clients(path: PathBuf) {
    let count = number("TASKLEDGER_CHILD_COUNT", u64::MAX);
    let checkpoint_after = number("TASKLEDGER_CHILD_CHECKPOINT_AFTER", 64 << 20);
    let builder = builder().checkpoint_after(checkpoint_after);
    let ledger = open(builder, &path).await.unwrap();
    ops::say("open");
    if number("TASKLEDGER_CHILD_LOOKS", 0) > 0 {
        ops::look(&ledger).await;
    }
    work(&ledger, count).await;
    ledger.close().await.unwrap();
}

/// So many things of each client, and the checkpoints that are wanted.
async fn work(ledger: &TestLedger, count: u64) {
    let mut rng = Rng::new(number("TASKLEDGER_CHILD_SEED", 0));
    let mut clients = tokio::task::JoinSet::new();
    let first = number("TASKLEDGER_CHILD_FIRST_CLIENT", 0);
    for name in first..first + number("TASKLEDGER_CHILD_CLIENTS", 4) {
        let hanging = count == u64::MAX;
        clients.spawn(ops::client(ledger.clone(), name, rng.next(), count, hanging));
    }
    for _ in 0..number("TASKLEDGER_CHILD_CHECKPOINTS", 0) {
        ledger.checkpoint().await.unwrap();
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

/// Longer than a ledger that nobody uses leaves anything of its own unsynced.
const IDLE: Duration = Duration::from_secs(4);

/// Clients, and then nobody for a while; the ledger stays open.
async fn idles(path: PathBuf) {
    let ledger = open(builder(), &path).await.unwrap();
    ops::say("open");
    work(&ledger, number("TASKLEDGER_CHILD_COUNT", 1)).await;
    tokio::time::sleep(IDLE).await;
    ops::say("idle");
    ledger.close().await.unwrap();
}

/// Fills the ledger, leaves a copy of it as it is on the half of the way, and dies of a kill as soon as the
/// last thing is acknowledged: since then nothing has been idle, and nothing is closed. With the first half
/// in a log that cannot be folded, if that is wanted.
async fn falls(path: PathBuf) {
    let ledger = open(builder(), &path).await.unwrap();
    let first = number("TASKLEDGER_CHILD_FIRST", 0);
    let end = first + number("TASKLEDGER_CHILD_COUNT", 16);
    let half = first.midpoint(end);
    ops::fill(&ledger, first..half).await;
    if number("TASKLEDGER_CHILD_BLOCKED", 0) > 0 {
        places::block_the_next_checkpoint(&path);
        ledger.checkpoint().await.unwrap_err();
    }
    ops::fill(&ledger, half..half + 2).await;
    places::lay_out(&places::image(&path), &path.with_extension("older"));
    ops::fill(&ledger, half + 2..end).await;
    let us = rustix::process::getpid();
    rustix::process::kill_process(us, rustix::process::Signal::KILL).unwrap();
}

/// So many clients, each of which has one attempt in each wave, and all attempts of a wave end together:
/// what they return is written as one group, or a few.
async fn crowd(path: PathBuf) {
    let ledger = open(builder().checkpoint_after(u64::MAX), &path).await.unwrap();
    ops::say("open");
    let first = number("TASKLEDGER_CHILD_FIRST_CLIENT", 0);
    let size = number("TASKLEDGER_CHILD_CLIENTS", 4);
    let all_run = Arc::new(Barrier::new(usize::try_from(size).unwrap()));
    for wave in 0..number("TASKLEDGER_CHILD_COUNT", 1) {
        let mut clients = tokio::task::JoinSet::new();
        for name in first..first + size {
            clients.spawn(ops::one_of_many(ledger.clone(), name, wave, Arc::clone(&all_run)));
        }
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
        }
    }
    ledger.close().await.unwrap();
}

/// Longer than this nothing of a ledger in the lab waits.
const DEADLINE: Duration = Duration::from_secs(2);

/// Clients whose disk fails at some time: whatever fails must be an error that says so.
async fn suffers(path: PathBuf) {
    let seed = number("TASKLEDGER_CHILD_SEED", 0);
    let count = number("TASKLEDGER_CHILD_COUNT", 20);
    let deadline = Duration::from_secs(number("TASKLEDGER_CHILD_DEADLINE", DEADLINE.as_secs()));
    let builder = builder()
        .checkpoint_after(number("TASKLEDGER_CHILD_CHECKPOINT_AFTER", 1 << 16))
        .open_deadline(deadline)
        .sync_deadline(deadline)
        .lock_wait(DEADLINE);
    let ledger = match open(builder, &path).await {
        Ok(ledger) => ledger,
        Err(error) => {
            let kind = match &error {
                OpenError::Io { .. } => "io",
                OpenError::Full { .. } => "full",
                OpenError::Stuck { .. } => "stuck",
                _ => "otherwise",
            };
            return ops::say(&format!("open failed {kind}: {error:?}"));
        }
    };
    ops::say("open");
    let mut rng = Rng::new(seed);
    let mut clients = tokio::task::JoinSet::new();
    let first = number("TASKLEDGER_CHILD_FIRST_CLIENT", 0);
    for name in first..first + number("TASKLEDGER_CHILD_CLIENTS", 3) {
        clients.spawn(ops::client(ledger.clone(), name, rng.next(), count, false));
    }
    for _ in 0..number("TASKLEDGER_CHILD_CHECKPOINTS", 0) {
        drop(ledger.checkpoint().await);
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    drop(ledger.record("c0-0").await);
    ops::say("closing");
    match ledger.close().await {
        Ok(()) => ops::say("closed well"),
        Err(error) => ops::say(&format!("closed badly: {error:?}")),
    }
}

/// Opens, makes a checkpoint, closes, over and over, and says so each time.
async fn opens_and_checkpoints(path: PathBuf) {
    for _ in 0..number("TASKLEDGER_CHILD_COUNT", u64::MAX) {
        let ledger = open(builder(), &path).await.unwrap();
        ops::say("open");
        ledger.checkpoint().await.unwrap();
        ops::say("checkpoint");
        ledger.close().await.unwrap();
    }
}

/// Changes files below the directory by names that begin at its descriptor, as whoever does who wants to
/// stay in it when it is moved.
fn by_descriptor(path: &Path) -> io::Result<()> {
    let dir = File::open(path)?;
    let here = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    std::fs::write(here.join("a"), "text")?;
    std::fs::rename(here.join("a"), here.join("b"))?;
    std::fs::hard_link(here.join("b"), here.join("c"))?;
    std::fs::create_dir(here.join("d"))?;
    let below = File::options().read(true).custom_flags(DIRECTORY).open(here.join("d"))?;
    let there = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), below.as_raw_fd()));
    std::fs::write(there.join("./e"), "")?;
    below.sync_all()?;
    std::fs::remove_file(here.join("c"))?;
    std::fs::write(here.join("../beside"), "")?;
    File::open(here)?.sync_all()
}

/// Opens, says so, and keeps it open until it is killed.
async fn holds(path: PathBuf) {
    let ledger = open(builder(), &path).await.unwrap();
    ops::say("open");
    std::future::pending::<()>().await;
    drop(ledger);
}

/// Tries to open once, as a rule without waiting, and says what came of it; keeps what it got until its
/// stdin ends.
async fn opens_once(path: PathBuf) {
    let wait = number("TASKLEDGER_CHILD_LOCK_WAIT", 0);
    let builder = builder().lock_wait(Duration::from_secs(wait));
    match open(builder, &path).await {
        Ok(ledger) => {
            let owns = match Owns::begin(&path) {
                Ok(owns) => owns,
                Err(wrong) => return ops::say(&wrong),
            };
            ops::say("owner");
            drop(io::read_to_string(io::stdin()));
            assert_eq!(ledger.query_task_state_quick("x"), TaskState::NotFound);
            drop(owns);
            ledger.close().await.unwrap();
        }
        Err(error) => ops::say(&format!("refused: {}", refused(&error))),
    }
}
