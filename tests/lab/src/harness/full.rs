//! The disk is full: a file system of our own, of some size, filled to the last byte.
//!
//! Nothing acknowledged is lost. The ledger can be opened although nothing is free, by giving up its
//! ballast, and read; when that is gone as well, it says so, and can still be looked into.

use super::{Harness, broken};
use crate::Session;
use crate::places::{self, TestLedger};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use taskledger::dump::Inspection;
use taskledger::internals::Sabotage;
use taskledger::{Builder, ChangeError, Health, OpenError};

pub(super) const HARNESS: Harness = Harness {
    row: 6,
    name: "full",
    unit: "sizes",
    ci: 4,
    full: 100,
    run,
    controls: &[broken(Sabotage::SwallowFailure, 4, &["is lost"])],
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

async fn try_size(small: &Small, ballast: u64, some: u64) -> Result<u64, String> {
    let path = small.0.path().join("ledger");
    let builder = || places::builder().ballast_bytes(ballast);
    let failed = |what: &str, error: OpenError| format!("{what} it does not open: {error:?}");
    let ledger = places::open(builder(), &path).await.map_err(|e| failed("at first", e))?;
    for number in 0..some {
        ledger.mark_succeeded(format!("{number}")).await.map_err(|error| error.to_string())?;
    }
    ledger.close().await.map_err(|error| format!("{error:?}"))?;
    // There is none where there is no room for it twice.
    let has_ballast = path.join("ballast").exists();
    small.fill();
    let acked = if has_ballast {
        // By its ballast; then what that has freed fills up.
        mark_until_full(builder(), &path, some).await?
    } else {
        some
    };
    // Whether it opens now depends on what is left. It says so, or tells all.
    match places::open(builder(), &path).await {
        Ok(ledger) => check(&ledger, acked).await?,
        Err(OpenError::Full { .. }) => {}
        Err(other) => return Err(failed("with everything full", other)),
    }
    // Without opening it, it can always be looked into.
    let looked = Inspection::open(&path).map_err(|e| failed("to be looked into", e))?;
    if !looked.damage().is_empty() {
        return Err(format!("a full disk is no damage: {:?}", looked.damage()));
    }
    drop(looked);
    std::fs::remove_file(small.filler()).unwrap();
    // A ledger may have filled a small disk all by itself.
    small.grow()?;
    let ledger = places::open(builder(), &path).await.map_err(|e| failed("with room", e))?;
    check(&ledger, acked).await?;
    // There is room again: so is the ballast.
    let ledger = places::open(builder(), &path).await.map_err(|e| failed("with room", e))?;
    check(&ledger, acked).await?;
    small.fill();
    match places::open(builder(), &path).await {
        Ok(ledger) => check(&ledger, acked).await?,
        Err(OpenError::Full { .. }) if !has_ballast => {}
        Err(other) => return Err(failed("full again", other)),
    }
    Ok(acked - some)
}

/// Marks ids until it fails; how many are acknowledged by then.
async fn mark_until_full(
    builder: Builder<String, String>,
    path: &Path,
    some: u64,
) -> Result<u64, String> {
    let opened = places::open(builder, path).await;
    let ledger = opened.map_err(|error| format!("full, it does not open: {error:?}"))?;
    let mut acked = some;
    let error = loop {
        match ledger.mark_succeeded(format!("{acked}")).await {
            Ok(()) if acked > some + 30_000 => return Err("the disk is never full".to_owned()),
            Ok(()) => acked += 1,
            Err(error) => break error,
        }
        // Large ones, so that it does not take all day.
        let large = "x".repeat(20_000);
        let id = format!("large {acked}");
        if ledger.launch_block(id, async { Ok::<_, String>(large) }).await.is_err() {
            break ChangeError::InDoubt(poison(&ledger)?);
        }
    };
    if !matches!(error, ChangeError::InDoubt(_)) {
        return Err(format!("{error:?}"));
    }
    poison(&ledger)?;
    let refused = ledger.mark_succeeded("more".to_owned()).await;
    if !matches!(refused, Err(ChangeError::Rejected(_))) {
        return Err(format!("the poison does not hold: {refused:?}"));
    }
    if ledger.close().await.is_ok() {
        return Err("a poisoned ledger closes as if all were well".to_owned());
    }
    Ok(acked)
}

fn poison(ledger: &TestLedger) -> Result<taskledger::Poison, String> {
    match ledger.health() {
        Health::Poisoned(poison) => Ok(poison),
        other => Err(format!("after a failure it is {other:?}")),
    }
}

/// All that was acknowledged is there, and can be read.
async fn check(ledger: &TestLedger, acked: u64) -> Result<(), String> {
    let mut missing = (0..acked).filter(|n| !ledger.succeeded_tasks().contains(&n.to_string()));
    if let Some(id) = missing.next() {
        return Err(format!("{id} of {acked} is lost"));
    }
    if acked > 0 {
        let record = ledger.record("0").await.map_err(|error| format!("{error:?}"))?;
        record.ok_or_else(|| "the first is not on record".to_owned())?;
    }
    drop(ledger.close().await);
    Ok(())
}
