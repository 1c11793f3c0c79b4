//! From a call to its answer.

use crate::figure::{Figure, Goal};
use crate::load::{closed_loop, fill, id, no_op, scattered, tasks};
use crate::{Options, Result};
use hdrhistogram::Histogram;
use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use taskledger::{AttemptError, Ledger, TaskId};

const BENCH: &str = "Latency";
const PERCENTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// What is waited for.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// `launch` has returned: the start is durable.
    Started,
    /// `launch_block` has returned: the success is durable.
    Succeeded,
}

pub(crate) async fn latency(options: &Options) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for launchers in &options.launchers {
        for until in [Until::Started, Until::Succeeded] {
            figures.extend(one(options, *launchers, until).await?);
        }
    }
    figures.push(repeats(options, "a repeat, u64 ids", |number| number).await?);
    figures.push(repeats(options, "a repeat, 20-byte ids", id).await?);
    Ok(figures)
}

async fn one(options: &Options, launchers: usize, until: Until) -> Result<Vec<Figure>> {
    let mut rounds = vec![Vec::new(); PERCENTILES.len()];
    for _ in 0..options.rounds {
        let dir = tempfile::tempdir_in(&options.dir)?;
        let times = times(dir.path(), launchers, until).await?;
        for ((_, part), values) in PERCENTILES.iter().zip(&mut rounds) {
            values.push(times.value_at_quantile(*part) as f64 / 1e3);
        }
        drop(dir);
        rustix::fs::sync();
    }
    let medians = rounds.first().cloned().unwrap_or_default();
    let figures = PERCENTILES.iter().zip(&rounds).map(|((name, part), values)| {
        let what = match until {
            Until::Started => format!("launch, {name}"),
            Until::Succeeded => format!("launch to success, {name}"),
        };
        let figure = Figure::new(BENCH, what, "us", values).at("launchers", launchers as u64);
        let goal = matches!(until, Until::Started).then_some(Goal::AtMost(5.0));
        if *part > 0.99 { figure.against("the median", &medians, goal) } else { figure }
    });
    Ok(figures.collect())
}

/// In nanoseconds.
async fn times(dir: &Path, launchers: usize, until: Until) -> Result<Histogram<u64>> {
    let ledger = Ledger::<String>::open(dir.join("ledger")).await?;
    let all = Arc::new(Mutex::new(Histogram::<u64>::new(3)?));
    let each = {
        let (ledger, all) = (ledger.clone(), Arc::clone(&all));
        move |number| {
            let (ledger, all) = (ledger.clone(), Arc::clone(&all));
            async move {
                let began = Instant::now();
                match until {
                    Until::Succeeded => no_op(&ledger, id(number)).await?,
                    Until::Started => {
                        let launched = ledger.launch(id(number), async { Ok::<_, ()>(()) });
                        launched.await.map_err(|error| error.to_string())?;
                    }
                }
                let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                all.record(took).map_err(|error| error.to_string())
            }
        }
    };
    closed_loop(launchers, 0..tasks(launchers), each).await?;
    ledger.close().await?;
    let all = all.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(all.clone())
}

/// A launch of what has succeeded, one after the other by one task, in nanoseconds each.
async fn repeats<K: TaskId>(
    options: &Options,
    what: &str,
    id: impl Fn(u64) -> K + Clone + Send + Sync + 'static,
) -> Result<Figure> {
    const IDS: u64 = 100_000;
    const REPEATS: u64 = 500_000;
    let dir = tempfile::tempdir_in(&options.dir)?;
    let ledger = Ledger::<K>::open(dir.path().join("ledger")).await?;
    fill(&ledger, 1024, 0..IDS, id.clone()).await?;
    let mut rounds = Vec::new();
    for _ in 0..options.rounds {
        // The ids belong to the caller.
        let ids: Vec<K> = scattered(REPEATS, IDS).map(&id).collect();
        let began = Instant::now();
        for id in ids {
            match ledger.launch_block(id, async { Ok::<_, ()>(()) }).await {
                Err(AttemptError::Refused { state, .. }) => _ = black_box(state),
                _ => return Err("it was run again".into()),
            }
        }
        rounds.push(began.elapsed().as_secs_f64() * 1e9 / REPEATS as f64);
    }
    ledger.close().await?;
    Ok(Figure::new(BENCH, what, "ns", &rounds).at("ids", IDS).goal(Goal::AtMost(300.0)))
}
