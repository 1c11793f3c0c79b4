//! What is known of an id: the ledger beside the recorders that it takes after, and a bare map.

use crate::figure::{Figure, Goal, interleaved};
use crate::load::{Key, fill, id, scattered};
use crate::{Options, Result};
use async_tasks_recorder::AsyncTasksRecorder as Recorder;
use async_tasks_state_map::AsyncTasksRecorder as StateMap;
use std::sync::Arc;
use std::time::Instant;
use taskledger::{Ledger, MemoryJournal, TaskState};
use tokio::task::JoinSet;

const BENCH: &str = "Queries per second, ids in random order";

/// Who asks at once.
const TASKS: [usize; 3] = [1, 2, 8];

/// Of each who asks.
const QUERIES: u64 = 500_000;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Bare,
    Quick,
    Full,
    RecorderQuick,
    RecorderFull,
    StateMap,
}

impl Variant {
    const ALL: [Self; 6] = [
        Self::Bare,
        Self::Quick,
        Self::Full,
        Self::RecorderQuick,
        Self::RecorderFull,
        Self::StateMap,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Bare => "scc::HashMap::read_sync",
            Self::Quick => "query_task_state_quick",
            Self::Full => "query_task_state",
            Self::RecorderQuick => "async_tasks_recorder 2.0.2, quick",
            Self::RecorderFull => "async_tasks_recorder 2.0.2",
            Self::StateMap => "async_tasks_state_map 1.0.1",
        }
    }
}

/// The same ids in each of them, all succeeded.
struct All<K: Key> {
    bare: scc::HashMap<K, TaskState>,
    ledger: Ledger<K>,
    recorder: Recorder<K>,
    map: StateMap<K>,
}

pub(crate) async fn queries(options: &Options, ids: u64) -> Result<Vec<Figure>> {
    let mut figures = of_type(options, "u64", ids, |number| number).await?;
    figures.extend(of_type(options, "20-byte", ids, id).await?);
    Ok(figures)
}

async fn of_type<K: Key>(
    options: &Options,
    kind: &str,
    ids: u64,
    id: impl Fn(u64) -> K + Copy + Send + Sync + 'static,
) -> Result<Vec<Figure>> {
    let all = Arc::new(All {
        bare: scc::HashMap::new(),
        ledger: Ledger::builder().open_journal(MemoryJournal::new()).await?,
        recorder: Recorder::new(),
        map: StateMap::new(),
    });
    fill(&all.ledger, 64, 0..ids, id).await?;
    for number in 0..ids {
        let _ = all.bare.insert_sync(id(number), TaskState::Succeeded);
        let task = async { Ok::<_, ()>(()) };
        all.recorder.launch_block(id(number), task).await.map_err(|_| "not launched")?;
        let task = async { Ok::<_, ()>(()) };
        all.map.launch_block(id(number), task).await.map_err(|_| "not launched")?.ok();
    }
    let mut figures = Vec::new();
    for (outcome, first) in [("hit", 0), ("miss", ids)] {
        for tasks in TASKS {
            let names: Vec<K> = scattered(QUERIES, ids).map(|number| id(first + number)).collect();
            let names = Arc::new(names);
            let one = async |variant| rate(variant, &all, &names, tasks, first == 0).await;
            let rates = interleaved(options.rounds, &Variant::ALL, one).await?;
            let of = |wanted| {
                let place = Variant::ALL.iter().position(|variant| *variant == wanted);
                place.and_then(|place| rates.get(place)).cloned().unwrap_or_default()
            };
            for (variant, rates) in Variant::ALL.into_iter().zip(&rates) {
                let what = format!("{}, {kind}, {outcome}", variant.name());
                let figure = Figure::new(BENCH, what, "/s", rates).at("tasks", tasks as u64);
                figures.push(match variant {
                    Variant::Quick => figure
                        .against("the bare map", &of(Variant::Bare), Goal::AtLeast(0.8))
                        .against(
                            "the recorder, quick",
                            &of(Variant::RecorderQuick),
                            Goal::AtLeast(2.0),
                        )
                        .against("the recorder", &of(Variant::RecorderFull), Goal::AtLeast(4.0)),
                    Variant::Full => {
                        figure.against("the recorder", &of(Variant::RecorderFull), None)
                    }
                    Variant::Bare
                    | Variant::RecorderQuick
                    | Variant::RecorderFull
                    | Variant::StateMap => figure,
                });
            }
        }
    }
    all.ledger.close().await?;
    Ok(figures)
}

/// Of all who ask together.
async fn rate<K: Key>(
    variant: Variant,
    all: &Arc<All<K>>,
    names: &Arc<Vec<K>>,
    tasks: usize,
    hits: bool,
) -> Result<f64> {
    let began = Instant::now();
    let mut set = JoinSet::new();
    for task in 0..tasks {
        let (all, names) = (Arc::clone(all), Arc::clone(names));
        set.spawn(async move {
            // Not the same ids at the same time.
            let (behind, before) = names.split_at(names.len() * task / tasks);
            let names = before.iter().chain(behind);
            let mut found = 0_usize;
            match variant {
                Variant::Bare => {
                    for id in names {
                        found += usize::from(all.bare.read_sync(id, |_, state| *state).is_some());
                    }
                }
                Variant::Quick => {
                    for id in names {
                        let state = all.ledger.query_task_state_quick(id);
                        found += usize::from(state == TaskState::Succeeded);
                    }
                }
                Variant::Full => {
                    for id in names {
                        let state = all.ledger.query_task_state(id).await;
                        found += usize::from(state == TaskState::Succeeded);
                    }
                }
                Variant::RecorderQuick => {
                    for id in names {
                        let state = all.recorder.query_task_state_quick(id).await;
                        found += usize::from(state == async_tasks_recorder::TaskState::Success);
                    }
                }
                Variant::RecorderFull => {
                    for id in names {
                        let state = all.recorder.query_task_state(id).await;
                        found += usize::from(state == async_tasks_recorder::TaskState::Success);
                    }
                }
                Variant::StateMap => {
                    for id in names {
                        let state = all.map.query_task_state(id).await;
                        found += usize::from(state == async_tasks_state_map::TaskState::Success);
                    }
                }
            }
            found
        });
    }
    let mut found = 0;
    while let Some(one) = set.join_next().await {
        found += one?;
    }
    let rate = (names.len() * tasks) as f64 / began.elapsed().as_secs_f64();
    let expected = if hits { names.len() * tasks } else { 0 };
    if found != expected {
        return Err(format!("{variant:?}: {found} found instead of {expected}").into());
    }
    Ok(rate)
}
