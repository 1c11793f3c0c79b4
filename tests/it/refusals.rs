//! Bad input gets its typed error, and changes nothing.

use crate::support::{Hand, Tasks, fresh, name, never, ok, open, until};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;
use taskledger::{
    AttemptError, CancelError, ChangeError, CheckpointError, CloseError, Failure, Health, IdError,
    LaunchError, Ledger, MAX_ID_BYTES, MemoryJournal, NotKept, Output, ReadError, Rejection,
    TaskId, TaskState, WaitError,
};

async fn open_ids<K: TaskId>() -> (Ledger<K, u32>, MemoryJournal) {
    let journal = MemoryJournal::new();
    (Ledger::builder().open_journal(journal.clone()).await.unwrap(), journal)
}

/// Every call with this id is answered with its error; nothing is recorded, and the future comes
/// back and still works.
async fn id_is_refused<K: TaskId>(id: impl Fn() -> K, is_it: impl Fn(&IdError) -> bool) {
    let (ledger, journal) = open_ids::<K>().await;
    let records = journal.records();
    let check = |error: &IdError| assert!(is_it(error), "{error:?}");
    let future = match ledger.launch(id(), ok(7)).await {
        Err(LaunchError::Rejected { reason: Rejection::Id(error), future }) => {
            check(&error);
            future
        }
        other => panic!("{other:?}"),
    };
    match ledger.launch_block(id(), future).await {
        Err(AttemptError::Rejected { reason: Rejection::Id(error), future }) => {
            check(&error);
            assert_eq!(future.await, Ok(7));
        }
        other => panic!("{other:?}"),
    }
    match ledger.mark_succeeded(id()).await {
        Err(ChangeError::Rejected(Rejection::Id(error))) => check(&error),
        other => panic!("{other:?}"),
    }
    assert_eq!(ledger.query_task_state(&id()).await, TaskState::NotFound);
    assert_eq!(ledger.query_task_state_quick(&id()), TaskState::NotFound);
    assert!(!ledger.all_tasks().contains(&id()));
    assert_eq!(ledger.all_tasks().len(), 0);
    assert_eq!(journal.records(), records);
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn an_id_over_the_cap() {
    let too_long = |error: &IdError| *error == IdError::TooLong { len: 1025, max: MAX_ID_BYTES };
    // Three bytes say how long it is.
    id_is_refused(|| "x".repeat(1022), too_long).await;
    id_is_refused(|| vec![7_u8; 1 << 20], |error| matches!(error, IdError::TooLong { .. })).await;
    let (ledger, _) = fresh().await;
    let longest = "x".repeat(1021);
    assert_eq!(ledger.launch_block(longest.clone(), ok(1)).await.unwrap(), 1);
    assert_eq!(ledger.query_task_state_quick(&*longest), TaskState::Succeeded);

    let long = "x".repeat(2000);
    let is_it = |error: &IdError| matches!(error, IdError::TooLong { len: 2003, .. });
    assert!(matches!(ledger.forget(&*long).await,
        Err(ChangeError::Rejected(Rejection::Id(error))) if is_it(&error)));
    assert!(matches!(ledger.cancel(&*long, ""), Err(CancelError::Id(error)) if is_it(&error)));
    assert!(matches!(ledger.wait(&*long).await, Err(WaitError::Id(error)) if is_it(&error)));
    assert!(matches!(ledger.record(&*long).await, Err(ReadError::Id(error)) if is_it(&error)));
    assert!(matches!(ledger.output(&*long).await, Err(ReadError::Id(error)) if is_it(&error)));
    let revoke = ledger.revoke_task_block(long, ok(0)).await;
    assert!(
        matches!(revoke, Err(AttemptError::Rejected { reason: Rejection::Id(error), .. }) if is_it(&error))
    );
}

#[tokio::test]
async fn odd_ids_are_ids_like_any_other() {
    let odd = ["", "\0", "\0\0", "\x1b[2J\r\n", "\u{202e}txt.exe", "..", "/", "'; --", "\u{1f4a5}"];
    let (ledger, journal) = fresh().await;
    for (at, id) in (0..).zip(odd) {
        assert_eq!(ledger.launch_block(name(id), ok(at)).await.unwrap(), at);
    }
    ledger.checkpoint().await.unwrap();
    ledger.close().await.unwrap();
    let ledger = open(journal).await;
    for (at, id) in (0..).zip(odd) {
        assert_eq!(ledger.query_task_state_quick(id), TaskState::Succeeded);
        assert_eq!(ledger.output(id).await.unwrap(), Some(at));
    }
    let mut listed: Vec<String> = ledger.succeeded_tasks().iter().map(Result::unwrap).collect();
    let mut odd = odd.map(name);
    listed.sort();
    odd.sort();
    assert_eq!(listed, odd);
}

#[tokio::test]
async fn the_empty_id_is_one() {
    let (ledger, _) = open_ids::<()>().await;
    assert_eq!(ledger.launch_block((), ok(7)).await.unwrap(), 7);
    assert_eq!(ledger.query_task_state_quick(&()), TaskState::Succeeded);
    assert_eq!(ledger.succeeded_tasks().iter().collect::<Vec<_>>(), [Ok(())]);
}

#[tokio::test]
async fn bytes_that_are_no_text() {
    let (ledger, _) = open_ids::<Vec<u8>>().await;
    ledger.mark_succeeded(vec![0xff, 0, 0xfe]).await.unwrap();
    assert_eq!(ledger.query_task_state_quick(&[0xff, 0, 0xfe][..]), TaskState::Succeeded);
    // A path that is not UTF-8 has no serialized form.
    let path = || PathBuf::from(std::ffi::OsStr::from_bytes(b"/tmp/\xff"));
    id_is_refused(path, |error| matches!(error, IdError::NotSerializable(_))).await;
}

/// Reads back as something else.
#[derive(Serialize)]
struct Lossy(u8);

impl<'de> Deserialize<'de> for Lossy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u8::deserialize(deserializer).map(|_| Self(0))
    }
}

/// Does not read back at all.
#[derive(Serialize)]
struct WriteOnly(u8);

impl<'de> Deserialize<'de> for WriteOnly {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("write only"))
    }
}

/// Panics when it is written.
#[derive(Deserialize)]
struct Explosive(u8);

impl Serialize for Explosive {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("{} explodes", self.0)
    }
}

#[tokio::test]
async fn an_id_that_does_not_come_back_as_itself() {
    id_is_refused(|| Lossy(9), |error| matches!(error, IdError::NoRoundTrip(_))).await;
    id_is_refused(
        || WriteOnly(9),
        |error| matches!(error, IdError::NoRoundTrip(text) if text.contains("write only")),
    )
    .await;
    let (ledger, _) = open_ids::<Lossy>().await;
    ledger.mark_succeeded(Lossy(0)).await.unwrap();
}

#[tokio::test]
async fn an_id_that_panics_when_it_is_written() {
    let is_it = |error: &IdError| matches!(error, IdError::NotSerializable(text) if text.contains("9 explodes"));
    id_is_refused(|| Explosive(9), is_it).await;
}

/// Panics when it is written, but only what was read back does.
struct Revenant {
    read_back: bool,
}

impl<'de> Deserialize<'de> for Revenant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u8::deserialize(deserializer).map(|_| Self { read_back: true })
    }
}

impl Serialize for Revenant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(!self.read_back, "it came back");
        serializer.serialize_u8(7)
    }
}

/// The look at whether an id comes back once let such a panic through to the caller.
#[tokio::test]
async fn an_id_that_panics_when_it_has_been_read_back() {
    let is_it = |error: &IdError| matches!(error, IdError::NoRoundTrip(text) if text.contains("it came back"));
    id_is_refused(|| Revenant { read_back: false }, is_it).await;
}

/// An output that is as large, or fails as it is told to.
#[derive(Debug, Deserialize)]
enum Result_ {
    Large(usize),
    Fails,
    Panics,
}

impl Serialize for Result_ {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Large(size) => serializer.serialize_bytes(&vec![7; *size]),
            Self::Fails => Err(serde::ser::Error::custom("it will not")),
            Self::Panics => panic!("it cannot"),
        }
    }
}

/// A success is never lost to its output.
#[tokio::test]
async fn an_output_that_cannot_be_kept() {
    let journal = MemoryJournal::new();
    let open =
        async || Ledger::<u8, Result_>::builder().open_journal(journal.clone()).await.unwrap();
    let ledger = open().await;
    for (id, output) in (0..).zip([Result_::Large(32 * 1024), Result_::Fails, Result_::Panics]) {
        ledger.launch_block(id, async { Ok::<_, ()>(output) }).await.unwrap();
    }
    ledger.close().await.unwrap();
    let ledger = open().await;
    let not_kept = async |id: u8| {
        assert_eq!(ledger.query_task_state_quick(&id), TaskState::Succeeded);
        assert!(ledger.output(&id).await.unwrap().is_none());
        match ledger.record(&id).await.unwrap().unwrap().output {
            Output::NotKept(why) => why,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(not_kept(0).await, NotKept::TooLarge { size: 32 * 1024 + 3 });
    assert_eq!(not_kept(1).await, NotKept::NotSerializable("it will not".into()));
    assert!(
        matches!(not_kept(2).await, NotKept::NotSerializable(text) if text.contains("it cannot"))
    );
}

#[tokio::test]
async fn an_output_that_does_not_read_as_the_type_asked_for() {
    let (ledger, journal) = fresh().await;
    ledger.launch_block(name("a"), ok(7)).await.unwrap();
    ledger.close().await.unwrap();
    let other = Ledger::<String, Vec<String>>::builder().open_journal(journal).await.unwrap();
    assert!(matches!(other.output("a").await, Err(ReadError::Output(_))));
    assert_eq!(other.query_task_state_quick("a"), TaskState::Succeeded);
}

/// Panics when it is dropped, and says that it was.
struct Bomb(Arc<AtomicBool>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
        panic!("a Drop that panics");
    }
}

#[tokio::test]
async fn a_future_that_panics_when_dropped() {
    let (ledger, _) = fresh().await;
    let dropped = Arc::new(AtomicBool::new(false));
    let bomb = || Bomb(Arc::clone(&dropped));
    let (held, value) = (bomb(), 7);
    let mut attempt = Box::pin(async move {
        std::future::poll_fn(|_| Poll::Ready(())).await;
        let _ = &held;
        never().await
    });
    let future = std::future::poll_fn(move |context| {
        let _ = attempt.as_mut().poll(context);
        Poll::Ready(Ok::<u32, String>(value))
    });
    assert_eq!(ledger.launch_block(name("ends"), future).await.unwrap(), 7);
    assert!(dropped.swap(false, Ordering::SeqCst));
    assert_eq!(ledger.query_task_state_quick("ends"), TaskState::Succeeded);

    let held = bomb();
    let future = async move {
        let _held = held;
        never().await
    };
    ledger.launch(name("cancelled"), future).await.unwrap();
    ledger.cancel("cancelled", "stop").unwrap();
    assert_eq!(ledger.wait("cancelled").await.unwrap(), TaskState::Failed);
    assert!(dropped.load(Ordering::SeqCst));

    // A value that nobody takes, and an error that nobody takes.
    ledger.launch(name("value"), async { Err::<u32, _>(Loud) }).await.unwrap();
    assert_eq!(ledger.wait("value").await.unwrap(), TaskState::Failed);
    assert_eq!(ledger.launch_block(name("still serves"), ok(1)).await.unwrap(), 1);
}

#[derive(Debug)]
struct Loud;

impl Drop for Loud {
    fn drop(&mut self) {
        panic!("an error whose drop panics");
    }
}

#[tokio::test]
async fn a_panic_whose_payload_panics_when_dropped() {
    let (ledger, _) = fresh().await;
    let end = ledger
        .launch_block(name("a"), async {
            std::panic::panic_any(Bomb(Arc::default()));
            #[expect(unreachable_code, reason = "gives the block its type")]
            ok(1).await
        })
        .await;
    assert!(matches!(end, Err(AttemptError::Panicked(_))));
    assert_eq!(ledger.launch_block(name("a"), ok(1)).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_future_that_never_ends() {
    let (ledger, journal) = fresh().await;
    let end =
        ledger.task(name("late")).timeout(Duration::from_secs(3600)).launch_block(never()).await;
    assert!(matches!(end, Err(AttemptError::TimedOut)));
    let mut block = Hand::new(ledger.launch_block(name("cancelled"), never()));
    assert!(block.poll().is_pending());
    until(|| ledger.query_task_state_quick("cancelled") == TaskState::Running).await;
    ledger.cancel("cancelled", "enough").unwrap();
    ledger.cancel("cancelled", "not the first").unwrap();
    assert!(matches!(block.finish().await, Err(AttemptError::Cancelled(why)) if why == "enough"));
    let nothing = CancelError::NotRunning { state: TaskState::Failed };
    assert_eq!(ledger.cancel("cancelled", ""), Err(nothing));
    ledger.launch(name("closed"), never()).await.unwrap();
    ledger.mark_succeeded(name("revoked")).await.unwrap();
    ledger.revoke_task(name("revoked"), never()).await.unwrap();
    let mut close = Hand::new(ledger.close());
    assert!(close.poll().is_pending(), "it waits for what runs");
    drop(close);
    ledger.close_within(Duration::from_secs(60)).await.unwrap();

    let ledger = open(journal).await;
    assert_eq!(ledger.recovery().crashed::<String>().len(), 0);
    let failure = async |id| ledger.record(id).await.unwrap().unwrap().failure.unwrap();
    assert_eq!(failure("late").await, Failure::TimedOut);
    assert_eq!(failure("cancelled").await, Failure::Cancelled("enough".into()));
    assert_eq!(failure("closed").await, Failure::Cancelled("the ledger is closing".into()));
    let revoked = ledger.record("revoked").await.unwrap().unwrap();
    assert_eq!(revoked.state(), TaskState::Succeeded);
    assert!(matches!(revoked.revoke_failure, Some(Failure::Cancelled(_))));
}

/// It uses up tokio's budget in each poll. That once starved the timer as well.
#[tokio::test]
async fn a_timeout_of_a_future_that_is_never_idle() {
    let (ledger, _) = fresh().await;
    let busy = async {
        let (to, mut from) = tokio::sync::mpsc::unbounded_channel();
        // A bound, so that it fails rather than hangs.
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while std::time::Instant::now() < until {
            to.send(1).unwrap();
            from.recv().await.unwrap();
        }
        ok(1).await
    };
    let end = ledger.task(name("a")).timeout(Duration::from_millis(5)).launch_block(busy).await;
    assert!(matches!(end, Err(AttemptError::TimedOut)), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_reason_of_any_length() {
    let (ledger, _) = fresh().await;
    ledger.launch(name("a"), never()).await.unwrap();
    ledger.cancel("a", "\u{20ac}".repeat(1 << 16)).unwrap();
    ledger.wait("a").await.unwrap();
    let record = ledger.record("a").await.unwrap().unwrap();
    let kept = record.failure.unwrap().text().unwrap().len();
    assert!((4094..=4096).contains(&kept), "{kept}");
}

/// A timeout needs a timer. Without one the launch is rejected before anything is recorded.
#[test]
fn a_timeout_in_a_runtime_without_time() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (ledger, _) = fresh().await;
        let timed = ledger.task(name("a")).timeout(Duration::from_secs(1));
        let rejected = timed.launch_block(never()).await;
        assert!(matches!(rejected, Err(AttemptError::Rejected { reason: Rejection::NoTimer, .. })));
        assert_eq!(ledger.wait("a").await.unwrap(), TaskState::NotFound);
        assert_eq!(ledger.launch_block(name("a"), ok(1)).await.unwrap(), 1);
        ledger.close().await.unwrap();
    });
}

#[tokio::test]
async fn a_close_from_within_an_attempt() {
    let (ledger, _) = fresh().await;
    let (inner, outer) = (ledger.clone(), ledger.clone());
    let closed = ledger.launch_block(name("a"), async move {
        let closes = [inner.close().await, inner.close_within(Duration::ZERO).await];
        let refused =
            closes.iter().all(|close| matches!(close, Err(CloseError::FromWithinAttempt)));
        Ok::<_, String>(u32::from(refused))
    });
    assert_eq!(closed.await.unwrap(), 1);
    assert_eq!(outer.health(), Health::Serving);
    // A revoke is no place for it either, and another ledger's attempt is.
    let (other, _) = fresh().await;
    let inner = ledger.clone();
    let revoke = ledger.revoke_task_block(name("a"), async move {
        other.close().await.map_err(|error| error.to_string())?;
        Ok::<_, String>(matches!(inner.close().await, Err(CloseError::FromWithinAttempt)))
    });
    assert!(revoke.await.unwrap());
    ledger.close().await.unwrap();
}

#[tokio::test]
async fn every_call_after_a_close() {
    let (ledger, journal) = fresh().await;
    assert_eq!(ledger.launch_block(name("done"), ok(1)).await.unwrap(), 1);
    ledger.launch_block(name("failed"), async { Err::<u32, _>(()) }).await.unwrap_err();
    ledger.set_metadata("m", Some(vec![1])).await.unwrap();
    let clone = ledger.clone();
    clone.close().await.unwrap();
    let records = journal.records();
    ledger.close().await.unwrap();
    ledger.close_within(Duration::ZERO).await.unwrap();

    let closed = Rejection::Closed;
    for id in ["new", "failed"] {
        match ledger.launch(name(id), ok(7)).await {
            Err(LaunchError::Rejected { reason, future }) => {
                assert_eq!((reason, future.await), (closed.clone(), Ok(7)));
            }
            other => panic!("{other:?}"),
        }
    }
    let block = ledger.launch_block(name("new"), ok(7)).await;
    assert!(matches!(block, Err(AttemptError::Rejected { reason: Rejection::Closed, .. })));
    let sure = ledger.launch(name("done"), ok(7)).await;
    assert!(matches!(sure, Err(LaunchError::Refused { state: TaskState::Succeeded, .. })));
    let revoke = ledger.revoke_task(name("done"), ok(7)).await;
    assert!(matches!(revoke, Err(LaunchError::Rejected { reason: Rejection::Closed, .. })));
    let revoke = ledger.revoke_task_block(name("done"), ok(7)).await;
    assert!(matches!(revoke, Err(AttemptError::Rejected { reason: Rejection::Closed, .. })));
    let changes = [
        ledger.mark_succeeded(name("new")).await,
        ledger.forget("done").await,
        ledger.set_metadata("m", None).await,
    ];
    assert!(changes.iter().all(|change| *change == Err(ChangeError::Rejected(closed.clone()))));
    let nothing = Err(CancelError::NotRunning { state: TaskState::Succeeded });
    assert_eq!(ledger.cancel("done", ""), nothing);
    assert!(matches!(ledger.record("done").await, Err(ReadError::Closed)));
    assert!(matches!(ledger.output("done").await, Err(ReadError::Closed)));
    assert!(matches!(ledger.checkpoint().await, Err(CheckpointError::Closed)));
    // What memory knows it goes on telling.
    assert_eq!(ledger.query_task_state("done").await, TaskState::Succeeded);
    assert_eq!(ledger.wait("done").await.unwrap(), TaskState::Succeeded);
    assert_eq!(ledger.failed_tasks().iter().collect::<Vec<_>>(), [Ok(name("failed"))]);
    assert_eq!(ledger.metadata()["m"], [1]);
    assert_eq!(ledger.health(), Health::Closed);
    assert_eq!(journal.records(), records);
}

#[tokio::test]
async fn metadata_of_any_size_or_name() {
    let (ledger, journal) = fresh().await;
    let rejected = |change| matches!(change, Err(ChangeError::Rejected(Rejection::Metadata(_))));
    let records = journal.records();
    assert!(rejected(ledger.set_metadata("taskledger.format", Some(vec![1])).await));
    assert!(rejected(ledger.set_metadata("taskledger.", None).await));
    assert!(rejected(ledger.set_metadata("m", Some(vec![0; 4096])).await));
    assert_eq!(journal.records(), records);
    for number in 0..16 {
        ledger.set_metadata(format!("{number:02}"), Some(vec![0; 4094])).await.unwrap();
    }
    assert!(rejected(ledger.set_metadata("", Some(vec![0])).await));
    ledger.set_metadata("00", Some(vec![1; 4094])).await.unwrap();
    ledger.set_metadata("01", None).await.unwrap();
    ledger.set_metadata("", Some(vec![0])).await.unwrap();
    // Not even by setters who cannot know of each other.
    let setters = (0..40)
        .map(|number| Hand::new(ledger.set_metadata(format!("more {number}"), Some(vec![0; 190]))));
    let (mut answers, mut waiting) = (Vec::new(), Vec::new());
    for mut setter in setters {
        // On a busy machine one or the other has its answer at once.
        match setter.poll() {
            Poll::Ready(set) => answers.push(set),
            Poll::Pending => waiting.push(setter),
        }
    }
    for setter in waiting {
        answers.push(setter.finish().await);
    }
    let mut taken = 0;
    for set in answers {
        taken += usize::from(set.is_ok());
        assert!(set.is_ok() || rejected(set));
    }
    let size = |all: BTreeMap<String, Vec<u8>>| -> usize {
        all.iter().map(|(n, v)| n.len() + v.len()).sum()
    };
    assert!(taken > 0 && size(ledger.metadata()) <= 64 * 1024, "{taken} taken");
    assert!(taken < 40, "there was room for all: this shows nothing");
    let told = ledger.metadata();
    ledger.close().await.unwrap();
    assert_eq!(open(journal).await.metadata(), told);
}

#[tokio::test]
async fn options_at_their_ends() {
    let all = Tasks::builder()
        .max_pending(usize::MAX)
        .sync_deadline(Duration::MAX)
        .open_deadline(Duration::MAX)
        .output_cap(usize::MAX);
    let ledger = all.open_journal(MemoryJournal::new()).await.unwrap();
    assert_eq!(ledger.launch_block(name("a"), ok(1)).await.unwrap(), 1);
    ledger.close().await.unwrap();
    let none = Tasks::builder().max_pending(0).output_cap(0);
    let ledger = none.open_journal(MemoryJournal::new()).await.unwrap();
    assert_eq!(ledger.launch_block(name("a"), ok(1)).await.unwrap(), 1);
    assert_eq!(ledger.output("a").await.unwrap(), None);
    ledger.close().await.unwrap();
}
