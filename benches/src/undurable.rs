//! Tasks of which nothing is recorded: the ledger in memory beside the recorders that it takes after.

use crate::figure::{Figure, Goal, interleaved};
use crate::load::{Key, closed_loop, id};
use crate::{Options, Result};
use async_tasks_recorder::AsyncTasksRecorder as Recorder;
use async_tasks_state_map::AsyncTasksRecorder as StateMap;
use std::time::Instant;
use taskledger::{Ledger, MemoryJournal, TaskState};

const BENCH: &str =
    "Tasks per second without durability, from the first launch to the last success";
const TASKS: u64 = 100_000;

/// Who launches at once.
const LAUNCHERS: [usize; 3] = [1, 2, 8];

#[derive(Clone, Copy, Debug)]
enum Variant {
    StateMap,
    Recorder,
    Ledger,
}

impl Variant {
    const ALL: [Self; 3] = [Self::StateMap, Self::Recorder, Self::Ledger];

    const fn name(self) -> &'static str {
        match self {
            Self::StateMap => "async_tasks_state_map 1.0.1",
            Self::Recorder => "async_tasks_recorder 2.0.2",
            Self::Ledger => "the ledger in memory",
        }
    }
}

pub(crate) async fn undurable(options: &Options) -> Result<Vec<Figure>> {
    let mut figures = of_type(options, "u64", |number| number).await?;
    figures.extend(of_type(options, "20-byte", id).await?);
    Ok(figures)
}

async fn of_type<K: Key>(
    options: &Options,
    kind: &str,
    id: impl Fn(u64) -> K + Copy + Send + Sync + 'static,
) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for launchers in LAUNCHERS {
        let one = async |variant| rate(variant, launchers, id).await;
        let rates = interleaved(options.rounds, &Variant::ALL, one).await?;
        let map = rates.first().cloned().unwrap_or_default();
        for (variant, rates) in Variant::ALL.into_iter().zip(&rates) {
            let goal = matches!(variant, Variant::Ledger).then_some(Goal::AtLeast(1.0));
            let what = format!("{}, {kind} ids", variant.name());
            let figure = Figure::new(BENCH, what, "/s", rates).at("launchers", launchers as u64);
            figures.push(figure.against("the state map", &map, goal));
        }
    }
    Ok(figures)
}

/// By `launch`, which in the recorders spawns a task, as in the ledger.
async fn rate<K: Key>(
    variant: Variant,
    launchers: usize,
    id: impl Fn(u64) -> K + Copy + Send + Sync + 'static,
) -> Result<f64> {
    let began = Instant::now();
    match variant {
        Variant::StateMap => {
            let map = StateMap::new();
            let launched = map.clone();
            let each = move |number| {
                let map = launched.clone();
                async move {
                    let launched = map.launch(id(number), async { Ok::<_, ()>(()) });
                    launched.await.map_err(|(state, _)| format!("{state:?}"))
                }
            };
            closed_loop(launchers, 0..TASKS, each).await?;
            for number in 0..TASKS {
                let success = async_tasks_state_map::TaskState::Success;
                while map.query_task_state(&id(number)).await != success {
                    tokio::task::yield_now().await;
                }
            }
        }
        Variant::Recorder => {
            let recorder = Recorder::new();
            let launched = recorder.clone();
            let each = move |number| {
                let recorder = launched.clone();
                async move {
                    let launched = recorder.launch(id(number), async { Ok::<_, ()>(()) });
                    launched.await.map_err(|(state, _)| format!("{state:?}"))
                }
            };
            closed_loop(launchers, 0..TASKS, each).await?;
            for number in 0..TASKS {
                let success = async_tasks_recorder::TaskState::Success;
                while recorder.query_task_state(&id(number)).await != success {
                    tokio::task::yield_now().await;
                }
            }
        }
        Variant::Ledger => {
            let ledger = Ledger::<K>::builder().open_journal(MemoryJournal::new()).await?;
            let launched = ledger.clone();
            let each = move |number| {
                let ledger = launched.clone();
                async move {
                    let launched = ledger.launch(id(number), async { Ok::<_, ()>(()) });
                    launched.await.map_err(|error| error.to_string())
                }
            };
            closed_loop(launchers, 0..TASKS, each).await?;
            for number in 0..TASKS {
                while ledger.query_task_state(&id(number)).await != TaskState::Succeeded {
                    tokio::task::yield_now().await;
                }
            }
            let rate = TASKS as f64 / began.elapsed().as_secs_f64();
            ledger.close().await?;
            return Ok(rate);
        }
    }
    Ok(TASKS as f64 / began.elapsed().as_secs_f64())
}
