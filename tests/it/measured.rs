//! What is told to the `metrics` facade. The recorder is one for the whole process, so other tests are
//! counted as well: what is asserted are lower bounds, names and kinds.

use crate::support::{fresh, name, never, ok};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use metrics_util::{CompositeKey, MetricKind};
use std::sync::OnceLock;
use taskledger::{OnFailure, TaskState};

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
    ledger.launch(name("c"), never()).await.unwrap();
    let joining = ledger.run(name("c"), |_| ok(1));
    let (_, cancelled) = tokio::join!(joining, async { ledger.cancel("c", "enough") });
    cancelled.unwrap();
    assert_eq!(ledger.wait("c").await.unwrap(), TaskState::Failed);
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
    for (kind, least) in [("executed", 1), ("replayed", 1), ("refused", 3)] {
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
