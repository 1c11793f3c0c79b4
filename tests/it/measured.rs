//! What is told to the `metrics` facade. The recorder is one for the whole process, so other tests are
//! counted as well: what is asserted are lower bounds, names and kinds.

use crate::support::{
    Call, Gate, Hand, Hooked, Tasks, Then, crashed, fresh, name, never, ok, until,
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use metrics_util::{CompositeKey, MetricKind};
use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;
use taskledger::{ClaimKind, MemoryJournal, OnFailure, Retention, RunError, TaskState};
use tokio::time::Instant;

fn recorder() -> &'static Snapshotter {
    static RECORDER: OnceLock<Snapshotter> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        recorder.install().unwrap();
        snapshotter
    })
}

fn labelled(key: &CompositeKey) -> String {
    let labels: Vec<String> =
        key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
    format!("{} {}", key.key().name(), labels.join(",")).trim().to_owned()
}

#[tokio::test]
async fn everything_is_told_under_its_name() {
    let snapshotter = recorder();
    let (ledger, _) = fresh().await;
    ledger.run(name("a"), |_| ok(1)).await.unwrap();
    ledger.run(name("a"), |_| ok(1)).await.unwrap();
    ledger.run(name("b"), |_| async { Err::<u32, _>("no") }).await.unwrap_err();
    ledger.task(name("b")).on_failure(OnFailure::Refuse).run(|_| ok(1)).await.unwrap_err();
    let runs = || ledger.run(name("c"), |_| ok(1));
    let (first, second) = tokio::join!(runs(), runs());
    assert_eq!(
        (first.unwrap().kind, second.unwrap().kind),
        (ClaimKind::Executed, ClaimKind::Joined)
    );
    // Its caller is dropped, and it goes on.
    let dropped = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.run(name("d"), |_| never()).await }
    });
    until(|| ledger.query_task_state_quick("d") == TaskState::Running).await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    ledger.cancel("d", "enough").unwrap();
    assert_eq!(ledger.wait("d").await.unwrap(), TaskState::Failed);
    ledger.close().await.unwrap();

    let told = snapshotter.snapshot().into_vec();
    let of = |wanted: &str| {
        let found = told.iter().find(|(key, ..)| labelled(key) == wanted);
        found.map(|(key, _, _, value)| (key.kind(), value)).unwrap_or_else(|| {
            panic!(
                "{wanted} is not among {:?}",
                told.iter().map(|t| labelled(&t.0)).collect::<Vec<_>>()
            )
        })
    };
    for (kind, least) in
        [("executed", 2), ("replayed", 1), ("joined", 1), ("refused", 1), ("dropped", 1)]
    {
        let (metric, value) = of(&format!("taskledger_claims_total kind={kind}"));
        assert_eq!(metric, MetricKind::Counter);
        let DebugValue::Counter(count) = value else { panic!("{value:?}") };
        assert!(*count >= least, "{kind}: {count}");
    }
    for histogram in ["taskledger_sync_seconds", "taskledger_batch_requests"] {
        let (metric, value) = of(histogram);
        let DebugValue::Histogram(values) = value else { panic!("{metric:?}") };
        assert!(!values.is_empty() && values.iter().all(|value| value.into_inner() >= 0.0));
    }
    for state in TaskState::ALL.into_iter().filter(|state| *state != TaskState::NotFound) {
        assert_eq!(of(&format!("taskledger_tasks state={state}")).0, MetricKind::Gauge);
    }
    for gauge in ["taskledger_queue_depth", "taskledger_tombstones", "taskledger_recovery_seconds"]
    {
        assert_eq!(of(gauge).0, MetricKind::Gauge);
    }
}

/// Told by whoever calls, so only what this thread does counts here.
#[tokio::test]
async fn each_run_counts_once_as_what_it_came_to() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let guard = metrics::set_default_local_recorder(&recorder);
    let (ledger, _) = fresh().await;
    let refuse = || ledger.task(name("a")).on_failure(OnFailure::Refuse);
    ledger.run(name("a"), |_| async { Err::<u32, _>("no") }).await.unwrap_err();
    refuse().run(|_| ok(1)).await.unwrap_err();
    let replay = ledger.task(name("a")).on_failure(OnFailure::Replay);
    replay.run(|_| ok(1)).await.unwrap_err();
    ledger.run(name("a"), |_| ok(1)).await.unwrap();
    ledger.run(name("a"), |_| ok(1)).await.unwrap();
    // One that executes and one that joins, both of which are dropped.
    let both = async {
        tokio::join!(ledger.run(name("b"), |_| never()), ledger.run(name("b"), |_| never()))
    };
    tokio::select! {
        biased;
        _ = both => unreachable!(),
        () = until(|| ledger.query_task_state_quick("b") == TaskState::Running) => {}
    }
    // Nothing runs for these: one is late, one waits until it is late, one is cancelled while its probe
    // is asked.
    let now = Instant::now();
    ledger.task(name("c")).deadline(now).run(|_| ok(1)).await.unwrap_err();
    let waits = ledger.task(name("b")).deadline(now + Duration::from_millis(20));
    waits.run(|_| ok(1)).await.unwrap_err();
    let (crashed, _) = crashed("a").await;
    let asks = crashed.task(name("a")).probe(|_| std::future::pending());
    let cancel = async {
        tokio::task::yield_now().await;
        crashed.cancel("a", "enough").unwrap();
    };
    let (cancelled, ()) = tokio::join!(asks.run(|_| ok(1)), cancel);
    assert!(matches!(cancelled, Err(RunError::Cancelled(_))), "{cancelled:?}");
    // This one has run.
    let late = ledger.task(name("d")).timeout(Duration::from_millis(1));
    late.run(|_| never()).await.unwrap_err();
    drop(guard);
    let mut told: Vec<String> = snapshotter
        .snapshot()
        .into_vec()
        .iter()
        .filter(|(key, ..)| key.key().name() == "taskledger_claims_total")
        .map(|(key, _, _, value)| format!("{} {value:?}", labelled(key)))
        .collect();
    told.sort();
    assert_eq!(
        told,
        [("dropped", 2), ("executed", 3), ("refused", 4), ("replayed", 2)]
            .map(|(kind, count)| format!("taskledger_claims_total kind={kind} Counter({count})"))
    );
}

/// Only that there were gauges was looked at. Told by the writer's thread, so only that of one ledger counts
/// here.
#[tokio::test]
async fn the_gauges_tell_how_it_is() {
    let recorder: &'static DebuggingRecorder = Box::leak(Box::default());
    let snapshotter = recorder.snapshotter();
    let gates = [Gate::default(), Gate::default()];
    let [first, second] = gates.clone();
    let hooked = Hooked::new(&MemoryJournal::new(), move |call| match call {
        Call::Append(1) => {
            // As long as the thread lives.
            std::mem::forget(metrics::set_default_local_recorder(recorder));
            Then::Wait(first.clone())
        }
        Call::Append(2) => Then::Wait(second.clone()),
        _ => Then::GoOn,
    });
    // No more than there can be permits.
    let ledger = Tasks::builder().max_pending(usize::MAX).open_journal(hooked).await.unwrap();
    // Whatever is told is gone from the recorder.
    let gauges = || -> HashMap<String, f64> {
        let told = snapshotter.snapshot().into_vec().into_iter();
        let gauges = told.filter_map(|(key, _, _, value)| match value {
            DebugValue::Gauge(value) => Some((labelled(&key), value.into_inner())),
            _ => None,
        });
        gauges.collect()
    };
    let mut marks = Vec::new();
    for (id, gate) in [("a", Some(&gates[0])), ("b", None), ("c", None), ("d", None)] {
        let mut mark = Hand::new(ledger.mark_succeeded(name(id)));
        assert!(mark.poll().is_pending());
        marks.push(mark);
        if let Some(gate) = gate {
            gate.somebody_waits().await;
        }
    }
    gates[0].open();
    gates[1].somebody_waits().await;
    let told = gauges();
    assert_eq!(told["taskledger_queue_depth"], 3.0);
    assert_eq!(told["taskledger_tasks state=succeeded"], 1.0);
    gates[1].open();
    for mark in marks {
        mark.finish().await.unwrap();
    }
    ledger.prune(&Retention::new().succeeded(Duration::ZERO)).await.unwrap();
    ledger.close().await.unwrap();
    let told = gauges();
    assert_eq!(told["taskledger_queue_depth"], 0.0);
    assert_eq!(told["taskledger_tasks state=succeeded"], 0.0);
    assert_eq!(told["taskledger_tombstones"], 4.0);
}
