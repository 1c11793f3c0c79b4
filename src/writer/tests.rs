//! The writer's rule, driven by hand, and the loop around it, on a thread of the test's own.

use super::core::tests::{end, failed, id, start};
use super::*;
use crate::details::TaskDetails;
use crate::journal::{Base, MemoryJournal, OpenReport, Record, Upkeep, Visit};
use crate::recovery::{FoundRunning, recover};
use crate::shared::Options;
use crate::state::{Cell, Epoch, SeqNo};
use crate::submission::{AttemptKey, Patience};
use std::collections::BTreeMap;

type Append = dyn FnMut(&[Record]) -> Result<(), JournalError> + Send;

/// A journal whose appends are the test's closure.
pub(super) struct Scripted {
    append: Box<Append>,
    /// Told of each upkeep.
    kept: Option<std::sync::mpsc::Sender<()>>,
}

impl Scripted {
    pub(super) fn failing() -> Self {
        Self::appending(|_| Err(JournalError::Store("the disk is on fire".into())))
    }

    pub(super) fn appending(
        append: impl FnMut(&[Record]) -> Result<(), JournalError> + Send + 'static,
    ) -> Self {
        Self { append: Box::new(append), kept: None }
    }
}

impl Journal for Scripted {
    fn replay(&mut self, _: &mut Visit<'_>) -> Result<Base, JournalError> {
        Ok(Base::default())
    }

    fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        (self.append)(records)
    }

    fn read(&mut self, _: &EncodedId, cell: Cell) -> Result<TaskDetails, JournalError> {
        Ok(TaskDetails { cell, ..TaskDetails::ABSENT })
    }

    fn upkeep(&mut self, _: Option<SeqNo>) -> Result<Upkeep, JournalError> {
        if let Some(kept) = &self.kept {
            kept.send(()).unwrap_or_default();
        }
        Ok(Upkeep::default())
    }
}

fn writer(journal: Scripted, watch: &Watch) -> (Arc<Shared>, Writer) {
    let mut memory = MemoryJournal::new();
    let recovered =
        recover(&mut memory, OpenReport::default(), &mut FoundRunning::default(), Instant::now())
            .unwrap();
    let options =
        Options { output_cap: 100, sync_deadline: Duration::from_secs(60), max_pending: 8 };
    let shared = Shared::new(
        options,
        recovered.index,
        recovered.recovery,
        BTreeMap::new(),
        crate::id::IdShape::default(),
    );
    let shared = Arc::new(shared);
    let writer = Writer {
        in_hand: None,
        shared: Arc::clone(&shared),
        core: Core::new(SeqNo::ZERO, Epoch::new(1), &BTreeMap::new()),
        journal: Box::new(journal),
        watch: watch.clone(),
        checkpoints: Vec::new(),
        patience: Patience::default(),
    };
    (shared, writer)
}

/// Polls until it is ready; the bound is what fails instead of a clock.
fn poll_bounded<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    for _ in 0..20_000_000 {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::yield_now();
    }
    panic!("nobody answers");
}

/// The watchdog gives a group up, and before it comes to poison the queue the store comes back:
/// what was submitted in between must be answered too.
#[test]
fn whoever_submits_between_giving_up_and_poison_is_answered() {
    let watch = Watch::default();
    let in_append = watch.clone();
    let (given_up, group_in_flight) = std::sync::mpsc::channel();
    let journal = Scripted::appending(move |_| {
        // The watchdog's decision, made here so that its poison can come as late as we like.
        in_append.run(Duration::ZERO, |group, _| given_up.send(Arc::clone(group)).unwrap());
        Ok(())
    });
    let (shared, writer) = writer(journal, &watch);
    let first = shared.submissions.submit(start(1)).unwrap();
    std::thread::spawn(move || writer.run());
    let group = group_in_flight.recv().unwrap();
    let between = match shared.submissions.submit(start(2)) {
        Ok(ticket) => poll_bounded(ticket),
        Err(rejection) => {
            assert!(matches!(rejection, crate::error::Rejection::Poisoned(_)));
            Err(Poison::Stuck { after: Duration::ZERO })
        }
    };
    assert!(matches!(between, Err(Poison::Stuck { .. })));
    let poison = Poison::Stuck { after: Duration::from_secs(60) };
    shared.poison(&poison, Some((&group, &[start(1)])));
    assert_eq!(poll_bounded(first), Err(poison));
    assert_eq!(shared.index.cell(id("a").as_bytes()), Cell::ABSENT, "nothing was published");
}

/// As before, but the store fails when it comes back: what was decided first stays the reason.
#[test]
fn a_store_that_fails_after_it_was_given_up_is_stuck() {
    let watch = Watch::default();
    let in_append = watch.clone();
    let (given_up, group_in_flight) = std::sync::mpsc::channel();
    let journal = Scripted::appending(move |_| {
        in_append.run(Duration::ZERO, |group, _| given_up.send(Arc::clone(group)).unwrap());
        Err(JournalError::Store("the disk is on fire".into()))
    });
    let (shared, writer) = writer(journal, &watch);
    let first = shared.submissions.submit(start(1)).unwrap();
    std::thread::spawn(move || writer.run());
    let group = group_in_flight.recv().unwrap();
    let between = shared.submissions.submit(start(2)).map(poll_bounded);
    assert!(
        matches!(
            between,
            Ok(Err(Poison::Stuck { .. }))
                | Err(crate::error::Rejection::Poisoned(Poison::Stuck { .. }))
        ),
        "{between:?}"
    );
    assert!(matches!(shared.poisoned(), Some(Poison::Stuck { .. })), "{:?}", shared.poisoned());
    let poison = Poison::Stuck { after: Duration::from_secs(60) };
    shared.poison(&poison, Some((&group, &[start(1)])));
    assert_eq!(poll_bounded(first), Err(poison));
}

/// A log to fold and a witness to sync, as an open leaves them, once waited for the first request.
#[test]
fn upkeep_waits_for_no_request() {
    let (kept, upkeeps) = std::sync::mpsc::channel();
    let journal = Scripted { kept: Some(kept), ..Scripted::appending(|_| Ok(())) };
    let (_shared, writer) = writer(journal, &Watch::default());
    std::thread::spawn(move || writer.run());
    upkeeps.recv_timeout(Duration::from_secs(60)).unwrap();
}

/// Panics at everything that it is told.
struct Allergic;

impl tracing::Subscriber for Allergic {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        panic!("{event:?}");
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// Between the sync of a group and its answer stands only our own code, and whatever listens to what
/// it tells: a panic there once left the callers waiting for ever.
#[test]
fn a_panic_before_the_answer_leaves_nobody_waiting() {
    let (shared, writer) = writer(Scripted::appending(|_| Ok(())), &Watch::default());
    // Nothing runs, so this end comes too late, which is told.
    let late = shared.submissions.submit(end(AttemptKey(7), failed())).unwrap();
    std::thread::spawn(move || {
        tracing::subscriber::with_default(Allergic, || writer.run());
    });
    assert!(matches!(poll_bounded(late), Err(Poison::Panicked(_))));
    shared.close();
    assert!(matches!(poll_bounded(shared.wait_closed()), Err(CloseError::Poisoned(_))));
}

/// The gauge is set when a group is answered. Set before, it stayed at the size of the last group.
#[cfg(feature = "metrics")]
#[test]
fn the_queue_of_an_idle_ledger_is_empty() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    let (shared, writer) = writer(Scripted::appending(|_| Ok(())), &Watch::default());
    poll_bounded(shared.permit()).unwrap();
    let one = shared.submissions.submit(Request::mark(id("a"))).unwrap();
    let more = ["b", "c"].map(|name| Request::mark(id(name))).into();
    let more = poll_bounded(shared.submit_all(more)).unwrap();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let work = std::thread::spawn(move || {
        // Only this writer tells it anything.
        metrics::with_local_recorder(&recorder, || writer.run());
    });
    for ticket in more.into_iter().chain([one]) {
        assert!(matches!(poll_bounded(ticket), Ok(Answer::Done(_))));
    }
    shared.close();
    work.join().unwrap();
    let told = snapshotter.snapshot().into_vec();
    let of = |name: &str| {
        let found = told.iter().find(|(key, ..)| key.key().name() == name);
        found.map(|(.., value)| value).unwrap()
    };
    assert_eq!(*of("taskledger_queue_depth"), DebugValue::Gauge(0.0.into()));
    assert_eq!(*of("taskledger_batch_requests"), DebugValue::Histogram(vec![3.0.into()]));
}
