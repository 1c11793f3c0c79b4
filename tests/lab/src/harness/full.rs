//! The disk is full: a file system of our own, of some size, filled to the last byte.
//!
//! Nothing acknowledged is lost. The ledger can be opened although nothing is free, by giving up its
//! ballast, and read; when that is gone as well, it says so, and can still be looked into.

use super::{Harness, broken};
use crate::Session;
use crate::places::{self, TestLedger};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use taskledger::dump::Inspection;
use taskledger::internals::Sabotage;
use taskledger::{
    AttemptError, Builder, ChangeError, CloseError, Health, OpenError, Poison, Rejection, TaskState,
};

pub(super) const HARNESS: Harness = Harness {
    name: "full",
    unit: "sizes",
    ci: 4,
    full: 100,
    run,
    controls: &[
        broken(Sabotage::SwallowFailure, 4, &["is lost"]),
        broken(Sabotage::SkipBallast, 4, &["there is no ballast"]),
    ],
};

struct Small(tempfile::TempDir);

impl Small {
    fn mount(mebibytes: u64) -> Result<Self, String> {
        if !places::is_root() {
            return Err("only root may mount a file system".to_owned());
        }
        let dir = places::on_disk();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "taskledger-lab"])
            .arg(dir.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            Ok(Self(dir))
        } else {
            Err("no file system can be mounted here".to_owned())
        }
    }

    fn grow(&self) -> Result<(), String> {
        let mut command = Command::new("mount");
        command.args(["-o", "remount,size=400m"]).arg(self.0.path());
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            other => Err(format!("{command:?}: {other:?}")),
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    /// Takes all that is free.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        for length in [1 << 20, 4096, 1] {
            while file.write_all(&vec![7; length]).is_ok() {}
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

fn run(session: &mut Session) {
    while session.goes_on() {
        let mebibytes = 16 + session.rng.below(241);
        let small = match Small::mount(mebibytes) {
            Ok(small) => small,
            Err(why) => return session.skip(why),
        };
        // Below what two opens take, it is no ballast.
        let ballast = (8 << 20) + session.rng.below(9 << 20);
        let some = session.rng.below(300);
        let outcome = places::run(try_size(&small, ballast, some));
        session.count("acknowledged on a full disk", *outcome.as_ref().unwrap_or(&0));
        session.tried(outcome.map(drop).map_err(|wrong| {
            format!("{mebibytes} MiB, ballast of {ballast} bytes, {some} ids: {wrong}")
        }));
    }
}

/// What was acknowledged.
#[derive(Default)]
struct Acked {
    ids: Vec<String>,
    /// The last one that has an output, and that.
    last: Option<(String, String)>,
}

/// Bytes of each large output.
const LARGE: u64 = 20_000;

async fn try_size(small: &Small, ballast: u64, some: u64) -> Result<u64, String> {
    let path = small.0.path().join("ledger");
    let builder = || places::builder().ballast_bytes(ballast);
    let failed = |what: &str, error: OpenError| format!("{what} it does not open: {error:?}");
    let ledger = places::open(builder(), &path).await.map_err(|e| failed("at first", e))?;
    let mut acked = Acked::default();
    for number in 0..some {
        let id = format!("{number}");
        ledger.mark_succeeded(id.clone()).await.map_err(|error| error.to_string())?;
        acked.ids.push(id);
    }
    ledger.close().await.map_err(|error| format!("{error:?}"))?;
    // There is none where there is no room for it twice. More was free when it was opened than is now.
    let has_ballast = path.join("ballast").metadata().is_ok_and(|found| found.len() == ballast);
    let free = rustix::fs::statvfs(&path).map_err(|error| error.to_string())?;
    let free = free.f_bavail * free.f_frsize;
    if !has_ballast && free >= 2 * ballast {
        return Err(format!("there is no ballast though {free} bytes are free"));
    }
    small.fill();
    let told = if has_ballast {
        // By its ballast; then what that has freed fills up.
        // More than there is room for is never acknowledged.
        let most = ballast / LARGE + 100;
        mark_until_full(builder(), &path, most, &mut acked).await
    } else {
        Ok(())
    };
    // Whether it opens now depends on what is left. It says so, or tells all.
    match places::open(builder(), &path).await {
        Ok(ledger) => check(&ledger, &acked).await?,
        Err(OpenError::Full { needed, available }) => is_full(needed, available)?,
        Err(other) => return Err(failed("with everything full", other)),
    }
    // Without opening it, it can always be looked into.
    let looked = Inspection::open(&path).map_err(|e| failed("to be looked into", e))?;
    if !looked.damage().is_empty() {
        return Err(format!("a full disk is no damage: {:?}", looked.damage()));
    }
    let mut seen = BTreeSet::new();
    for task in looked.tasks() {
        let (id, details) = task.map_err(|error| format!("looked into: {error:?}"))?;
        if details.state() == TaskState::Succeeded {
            seen.insert(id.as_bytes().to_vec());
        }
    }
    for id in &acked.ids {
        let encoded = looked.parse_id(id)?;
        if !seen.contains(encoded.as_bytes()) {
            return Err(format!("{id} of {} is lost to whoever looks into it", acked.ids.len()));
        }
    }
    drop(looked);
    std::fs::remove_file(small.filler()).unwrap();
    // A ledger may have filled a small disk all by itself.
    small.grow()?;
    let ledger = places::open(builder(), &path).await.map_err(|e| failed("with room", e))?;
    check(&ledger, &acked).await?;
    // Only now: what was lost says more than how it was told.
    told?;
    // There is room again: so is the ballast.
    let ledger = places::open(builder(), &path).await.map_err(|e| failed("with room", e))?;
    check(&ledger, &acked).await?;
    small.fill();
    match places::open(builder(), &path).await {
        Ok(ledger) => check(&ledger, &acked).await?,
        Err(OpenError::Full { needed, available }) if !has_ballast => is_full(needed, available)?,
        Err(other) => return Err(failed("full again", other)),
    }
    Ok(acked.ids.len() as u64 - some)
}

/// That whoever reads it knows how much to free.
fn is_full(needed: u64, available: u64) -> Result<(), String> {
    if needed > 0 && needed > available {
        return Ok(());
    }
    Err(format!("full, it says: {needed} bytes needed, {available} available"))
}

/// Marks ids and runs some with large outputs until it fails, `most` of each; adds to `acked` what
/// is acknowledged by then.
async fn mark_until_full(
    builder: Builder<String, String>,
    path: &Path,
    most: u64,
    acked: &mut Acked,
) -> Result<(), String> {
    let opened = places::open(builder, path).await;
    let ledger = opened.map_err(|error| format!("full, it does not open: {error:?}"))?;
    let mut told = Err("the disk is never full".to_owned());
    for number in 0..most {
        let id = format!("marked {number}");
        if let Err(error) = ledger.mark_succeeded(id.clone()).await {
            told = in_doubt(matches!(error, ChangeError::InDoubt(_)), &error);
            break;
        }
        acked.ids.push(id);
        // Large ones, so that it does not take all day.
        let large = format!("{number} {}", "x".repeat(LARGE as usize));
        let (id, output) = (format!("large {number}"), large.clone());
        if let Err(error) = ledger.launch_block(id.clone(), async { Ok::<_, ()>(output) }).await {
            let poisoned = matches!(
                error,
                AttemptError::InDoubt { .. }
                    | AttemptError::Rejected { reason: Rejection::Poisoned(_), .. }
            );
            told = in_doubt(poisoned, &error);
            break;
        }
        acked.ids.push(id.clone());
        acked.last = Some((id, large));
    }
    if told.is_ok() {
        match ledger.health() {
            Health::Poisoned(Poison::Failed(why)) if why.contains("No space left") => {}
            other => told = Err(format!("on a full disk it is {other:?}")),
        }
        let refused = ledger.mark_succeeded("more".to_owned()).await;
        if !matches!(refused, Err(ChangeError::Rejected(Rejection::Poisoned(_)))) {
            told = Err(format!("the poison does not hold: {refused:?}"));
        }
    }
    let result = ledger.close().await;
    if told.is_ok() && !matches!(&result, Err(CloseError::Poisoned(Poison::Failed(_)))) {
        told = Err(format!("poisoned, it closes: {result:?}"));
    }
    told
}

fn in_doubt(is: bool, error: &dyn std::fmt::Debug) -> Result<(), String> {
    if is { Ok(()) } else { Err(format!("on a full disk: {error:?}")) }
}

/// All that was acknowledged is there, and can be read; and the close is a good one: nothing was
/// begun.
async fn check(ledger: &TestLedger, acked: &Acked) -> Result<(), String> {
    let all = acked.ids.len();
    let missing = acked.ids.iter().find(|id| !ledger.succeeded_tasks().contains(id.as_str()));
    if let Some(id) = missing {
        return Err(format!("{id} of {all} is lost"));
    }
    if let Some(id) = acked.ids.first() {
        let record = ledger.record(id).await.map_err(|error| format!("{error:?}"))?;
        record.ok_or_else(|| "the first is not on record".to_owned())?;
    }
    if let Some((id, output)) = &acked.last {
        let found = ledger.output(id).await.map_err(|error| format!("{error:?}"))?;
        if found.as_ref() != Some(output) {
            return Err(format!("the output of {id} of {all} is lost"));
        }
    }
    ledger.close().await.map_err(|error| format!("it does not close: {error:?}"))
}
