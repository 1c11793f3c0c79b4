//! Durable tasks per second, their launch and their success each durable before it is told.

use crate::figure::{Figure, Goal, interleaved};
use crate::flat::FlatJournal;
use crate::load::{fill, id, tasks};
use crate::{Options, Result};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;
use taskledger::{Ledger, MemoryJournal};

const BENCH: &str = "Durable tasks per second";

/// Where durable tasks are recorded.
#[derive(Clone, Copy, Debug)]
enum Variant {
    /// The limit.
    Flat,
    Durable,
    /// What a disk can do.
    BareAppend,
    /// What the ledger costs without a disk.
    Memory,
}

impl Variant {
    const ALL: [Self; 4] = [Self::Flat, Self::Durable, Self::BareAppend, Self::Memory];

    const fn name(self) -> &'static str {
        match self {
            Self::Durable => "the ledger",
            Self::Flat => "the same ledger on a flat file",
            Self::BareAppend => "a bare append, no ledger",
            Self::Memory => "the same ledger in memory (not durable)",
        }
    }
}

pub(crate) async fn throughput(options: &Options) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for launchers in &options.launchers {
        let one = async |variant| {
            let dir = tempfile::tempdir_in(&options.dir)?;
            let rate = rate(variant, dir.path(), *launchers).await?;
            drop(dir);
            rustix::fs::sync();
            Ok(rate)
        };
        let rates = interleaved(options.rounds, &Variant::ALL, one).await?;
        let limit = rates.first().cloned().unwrap_or_default();
        for (variant, rates) in Variant::ALL.into_iter().zip(&rates) {
            let figure = Figure::new(BENCH, variant.name(), "/s", rates)
                .at("launchers", *launchers as u64)
                .against("the flat file", &limit, goal(variant, *launchers));
            figures.push(match (variant, *launchers) {
                (Variant::Durable, 1024) => figure.goal(Goal::AtLeast(300_000.0)),
                _ => figure,
            });
        }
    }
    Ok(figures)
}

const fn goal(variant: Variant, launchers: usize) -> Option<Goal> {
    match (variant, launchers) {
        (Variant::Durable, 1) => Some(Goal::AtLeast(0.8)),
        (Variant::Durable, 64) => Some(Goal::AtLeast(0.85)),
        (Variant::Durable, 1024) => Some(Goal::AtLeast(0.9)),
        _ => None,
    }
}

async fn rate(variant: Variant, dir: &Path, launchers: usize) -> Result<f64> {
    let builder = Ledger::<String>::builder();
    let ledger = match variant {
        Variant::BareAppend => return bare_append(dir, launchers as u64),
        Variant::Durable => builder.open(dir.join("ledger")).await?,
        Variant::Flat => {
            let journal = FlatJournal::create(&dir.join("flat")).map_err(|e| e.to_string())?;
            builder.open_journal(journal).await?
        }
        Variant::Memory => builder.open_journal(MemoryJournal::new()).await?,
    };
    let tasks = tasks(launchers);
    let seconds = fill(&ledger, launchers, 0..tasks, id).await?;
    ledger.close().await?;
    Ok(tasks as f64 / seconds)
}

/// Two records of 35 bytes a task, half of the launchers' in a batch, one `fdatasync` a batch.
fn bare_append(dir: &Path, launchers: u64) -> Result<f64> {
    let mut file = File::create(dir.join("bare"))?;
    let (batch, tasks) = ((launchers / 2).max(1), tasks(usize::try_from(launchers)?));
    let bytes = vec![b'x'; 35 * usize::try_from(batch)?];
    let began = Instant::now();
    for _ in 0..(2 * tasks / batch) {
        file.write_all(&bytes)?;
        file.sync_data()?;
    }
    Ok(tasks as f64 / began.elapsed().as_secs_f64())
}
