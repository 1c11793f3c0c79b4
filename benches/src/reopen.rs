//! Opening a ledger.

use crate::figure::{Figure, Goal};
use crate::load::{fill, id};
use crate::{Options, Result};
use std::time::Instant;
use taskledger::Ledger;

const BENCH: &str = "Opening a ledger of succeeded 20-byte ids";

pub(crate) async fn reopen(options: &Options, ids: u64) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir_in(&options.dir)?;
    let path = dir.path().join("ledger");
    let ledger = Ledger::<String>::open(&path).await?;
    fill(&ledger, 1024, 0..ids, id).await?;
    ledger.close().await?;
    drop(ledger);
    let mut figures = Vec::new();
    for compacted in [false, true] {
        if compacted {
            let ledger = Ledger::<String>::open(&path).await?;
            ledger.checkpoint().await?;
            ledger.close().await?;
        }
        let mut times = Vec::new();
        for _ in 0..options.rounds {
            let began = Instant::now();
            let ledger = Ledger::<String>::open(&path).await?;
            times.push(began.elapsed().as_secs_f64());
            ledger.close().await?;
        }
        let what = if compacted { "a checkpoint" } else { "as the process left it" };
        let goal = (ids >= 10_000_000).then_some(Goal::AtMost(5.0));
        figures.push(Figure::new(BENCH, what, "s", &times).at("ids", ids).goal(goal));
    }
    Ok(figures)
}
