//! A directory that is moved away while its owner is at work there, and another that takes its name.
//!
//! Whatever is under way stays in the directory that it was begun in: an open that reads a long log,
//! one that rebuilds it, one that migrates, one that accepts a loss, a checkpoint. It may come to its
//! end there or give up, but nothing is acknowledged after the move, the newcomer never notices, and
//! the ledger that was moved opens in its new place with all that it had.

use super::works;
use crate::Rng;
use crate::places::{self, Image, TestLedger, builder, image, lay_out};
use std::path::Path;
use std::time::{Duration, Instant};
use taskledger::{AcceptLoss, Builder};

/// What the owner is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Opening,
    Rebuilding,
    Migrating,
    AcceptingLoss,
    Folding,
}

/// A ledger to be moved, and what is known of it when it stays where it is.
pub(super) struct Move {
    at: At,
    image: Image,
    ids: Vec<String>,
    takes: Duration,
}

/// One of each.
pub(super) fn all(dir: &Path) -> Result<Vec<Move>, String> {
    let sound = sound(&dir.join("template"))?;
    [At::Opening, At::Rebuilding, At::Migrating, At::AcceptingLoss, At::Folding]
        .into_iter()
        .map(|at| Move::prepare(at, &sound, &dir.join("prepared")))
        .collect()
}

/// A log of some megabytes, and nothing in a checkpoint.
fn sound(path: &Path) -> Result<Image, String> {
    places::run(async {
        let ledger = open(builder(), path).await?;
        for id in 0..150_u32 {
            let output = format!("{id}:{}", "x".repeat(20_000));
            let done = ledger.launch_block(id.to_string(), async { Ok::<_, String>(output) }).await;
            done.map_err(|error| error.to_string())?;
        }
        ledger.close().await.map_err(|error| format!("{error:?}"))
    })?;
    Ok(image(path))
}

async fn open(builder: Builder<String, String>, path: &Path) -> Result<TestLedger, String> {
    places::open(builder, path).await.map_err(|error| format!("{error}: {error:?}"))
}

fn ids(ledger: &TestLedger) -> Vec<String> {
    let mut ids = super::ids(ledger);
    ids.sort_unstable();
    ids
}

/// Changes the bytes of the log that are found.
fn flip(image: &mut Image, find: impl FnOnce(&[u8]) -> Vec<usize>) {
    let log = image.get_mut(Path::new("log-1/db")).and_then(Option::as_mut);
    let log = log.expect("there is a log");
    find(log).into_iter().for_each(|at| log[at] ^= 0x55);
}

impl Move {
    fn prepare(at: At, sound: &Image, path: &Path) -> Result<Self, String> {
        let mut changed = sound.clone();
        match at {
            At::Opening | At::Folding => {}
            // The head of a segment, which is the store's alone.
            At::Rebuilding => flip(&mut changed, |_| vec![8]),
            At::Migrating => {
                lay_out(&changed, path);
                taskledger::internals::age(path)?;
                changed = image(path);
                std::fs::remove_dir_all(path).unwrap();
            }
            // An output, in each copy that the store has made of it.
            At::AcceptingLoss => flip(&mut changed, |log| {
                let copies = log.windows(6).enumerate().filter(|(_, bytes)| *bytes == b"75:xxx");
                copies.map(|(at, _)| at).collect()
            }),
        }
        // Nobody has signed: whoever does holds the lock.
        changed.insert("lock".into(), Some(Vec::new()));
        let mut prepared = Self { at, image: changed, ids: Vec::new(), takes: Duration::ZERO };
        lay_out(&prepared.image, path);
        (prepared.ids, prepared.takes) = places::run(prepared.undisturbed(path))?;
        std::fs::remove_dir_all(path).unwrap();
        Ok(prepared)
    }

    /// What it holds, and how long it takes.
    async fn undisturbed(&self, path: &Path) -> Result<(Vec<String>, Duration), String> {
        let began = Instant::now();
        let ledger = open(self.builder(), path).await?;
        let opened = Instant::now();
        let recovery = ledger.recovery();
        let as_meant = match self.at {
            At::Opening | At::Folding => recovery.repaired().is_empty(),
            At::Rebuilding => !recovery.repaired().is_empty(),
            At::Migrating => recovery.migrated().is_some(),
            At::AcceptingLoss => recovery.loss_accepted().is_some(),
        };
        if !as_meant {
            return Err(format!("{:?} does not come about: {recovery:?}", self.at));
        }
        ledger.checkpoint().await.map_err(|error| error.to_string())?;
        let takes = if self.at == At::Folding { opened.elapsed() } else { opened - began };
        let ids = ids(&ledger);
        ledger.close().await.map_err(|error| format!("{error:?}"))?;
        Ok((ids, takes))
    }

    fn builder(&self) -> Builder<String, String> {
        match self.at {
            At::AcceptingLoss => builder().accept_loss(AcceptLoss::Yes),
            At::Opening | At::Rebuilding | At::Migrating | At::Folding => builder(),
        }
    }

    pub(super) fn name(&self) -> String {
        format!("moved while {:?}", self.at)
    }

    /// One race, in a new directory at `path`.
    pub(super) fn race(&self, path: &Path, rng: &mut Rng) -> Result<(), String> {
        let elsewhere = path.with_extension("elsewhere");
        for place in [path, &elsewhere] {
            drop(std::fs::remove_dir_all(place));
        }
        lay_out(&self.image, path);
        let delay = Duration::from_micros(rng.below(self.takes.as_micros() as u64 + 1));
        places::run(async {
            let before = match self.at {
                At::Folding => Some(open(self.builder(), path).await?),
                At::Opening | At::Rebuilding | At::Migrating | At::AcceptingLoss => None,
            };
            let owner = tokio::spawn(at_work(before, self.builder(), path.to_owned()));
            signed(path).await?;
            tokio::time::sleep(delay).await;
            std::fs::rename(path, &elsewhere).unwrap();
            let newcomer = open(builder(), path).await;
            let newcomer =
                newcomer.map_err(|error| format!("the newcomer cannot come: {error}"))?;
            works(&newcomer, "newcomer").await?;
            let owner = owner.await.map_err(|error| error.to_string())?;
            if let Some(owner) = owner? {
                if owner.mark_succeeded("after".to_owned()).await.is_ok() {
                    return Err("whose directory was moved goes on".to_owned());
                }
                drop(owner.close().await);
            }
            works(&newcomer, "later").await?;
            let closed = newcomer.close().await;
            closed.map_err(|error| format!("the newcomer cannot close: {error:?}"))?;
            let found = look(builder(), path).await;
            let found = found.map_err(|error| format!("the newcomer does not open: {error}"))?;
            if found != ["later", "newcomer"] {
                return Err(format!("the newcomer has {found:?}"));
            }
            let found = look(self.builder(), &elsewhere).await;
            let found = found.map_err(|error| format!("what was moved does not open: {error}"))?;
            if found != self.ids {
                return Err(format!("what was moved has {found:?} instead of {:?}", self.ids));
            }
            Ok(())
        })
    }
}

/// Opens the ledger, or folds the one that is open; gives up only for the move.
async fn at_work(
    ledger: Option<TestLedger>,
    builder: Builder<String, String>,
    path: std::path::PathBuf,
) -> Result<Option<TestLedger>, String> {
    let (ledger, failed) = match ledger {
        Some(ledger) => {
            let folded = ledger.checkpoint().await;
            (Some(ledger), folded.err().map(|error| format!("{error:?}")))
        }
        None => match open(builder, &path).await {
            Ok(ledger) => (Some(ledger), None),
            Err(error) => (None, Some(error)),
        },
    };
    match failed {
        Some(error)
            if !["Moved {", "was moved or replaced"].iter().any(|it| error.contains(it)) =>
        {
            Err(format!("whose directory was moved fails in another way: {error}"))
        }
        _ => Ok(ledger),
    }
}

async fn look(builder: Builder<String, String>, path: &Path) -> Result<Vec<String>, String> {
    let ledger = open(builder, path).await?;
    let found = ids(&ledger);
    ledger.close().await.map_err(|error| format!("{error:?}"))?;
    Ok(found)
}

/// Until the owner has the lock.
async fn signed(path: &Path) -> Result<(), String> {
    let since = Instant::now();
    while std::fs::metadata(path.join("lock")).map_or(0, |found| found.len()) == 0 {
        if since.elapsed() > places::NEVER {
            return Err("it never takes the lock".to_owned());
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    Ok(())
}
