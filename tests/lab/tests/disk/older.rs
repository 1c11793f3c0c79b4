//! The ledger was written by an older version.
//!
//! `tests/fixtures/v<N>` was written by a version with format N and is never changed. A copy of it
//! must open and say all that it said then. To make one for a new format version:
//!
//! ```text
//! cargo test -p taskledger-lab --test disk older::make_fixture -- --ignored --nocapture
//! ```
//!
//! which writes the fixture of this version anew, and what must be found in it beside it. The ledger is
//! opened once only, so that the store's file stays small.

use crate::lab::{self, builder};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use taskledger::{Context, Retention, Scope, TaskState, Verdict};
use taskledger_lab::ops;

/// The version of this library.
const CURRENT: u16 = 3;

fn fixture(version: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../fixtures/v{version}"))
}

/// All that a ledger says, a line for each id.
async fn told(path: &Path) -> String {
    let ledger = lab::open(builder(), path).await.unwrap();
    assert_eq!(ledger.recovery().repaired(), <&[String]>::default());
    assert_eq!(ledger.recovery().loss_accepted(), None);
    let mut ids: Vec<String> = ledger.all_tasks().iter().map(Result::unwrap).collect();
    ids.sort();
    let mut text = String::new();
    for (name, value) in ledger.metadata() {
        writeln!(text, "metadata {name} {}", value.escape_ascii()).unwrap();
    }
    for id in ids {
        let found = ledger.record(&id).await.unwrap().unwrap();
        let time = |at: Option<taskledger::Timestamp>| {
            at.map_or_else(|| "-".to_owned(), |at| at.as_micros().to_string())
        };
        writeln!(
            text,
            "{id}: {} | seq {} attempt {} epoch {:?} | {} {} {} | by {:?} | {:?} {:?}",
            ops::found(&ledger, &id).await,
            found.cell.seq,
            found.cell.attempt.get(),
            found.epoch.map(|epoch| epoch.get()),
            time(found.started_at),
            // When this very open reset it is no matter of the fixture.
            if id.ends_with("running") { "reset".to_owned() } else { time(found.ended_at) },
            time(found.revoke_started_at),
            found.succeeded_by,
            found.failure,
            found.revoke_failure,
        )
        .unwrap();
    }
    ledger.close().await.unwrap();
    text
}

/// What came with version 3, a line for each id that has some of it.
async fn told_most(path: &Path) -> String {
    let ledger = lab::open(builder(), path).await.unwrap();
    let mut ids: Vec<String> = ledger.all_tasks().iter().map(Result::unwrap).collect();
    ids.sort();
    let mut text = String::new();
    for id in ids {
        let found = ledger.record(&id).await.unwrap().unwrap();
        if found.parent.is_none() && found.payload.is_none() {
            continue;
        }
        let parent = found.parent.map(|parent| parent.decode::<String>().unwrap());
        writeln!(
            text,
            "{id}: within {parent:?}, payload {:?}, since {}",
            found.payload, found.since
        )
        .unwrap();
    }
    ledger.close().await.unwrap();
    text
}

/// What came with version 2, a line for each id.
async fn told_more(path: &Path) -> String {
    let ledger = lab::open(builder(), path).await.unwrap();
    let mut ids: Vec<String> = ledger.all_tasks().iter().map(Result::unwrap).collect();
    ids.sort();
    let mut text = format!("tombstones {}\n", ledger.tombstones());
    for part in ["checkpoint", "log"] {
        let id = format!("{part}/buried");
        let (state, record) = (ledger.query_task_state_quick(&id), ledger.record(&id).await);
        let ended = record.unwrap().unwrap().ended_at;
        writeln!(text, "{id}: {state} {ended:?}").unwrap();
    }
    for id in ids {
        let found = ledger.record(&id).await.unwrap().unwrap();
        let notes: Vec<String> = found
            .notes
            .iter()
            .map(|note| format!("{} {}", note.at.as_micros(), note.text))
            .collect();
        writeln!(
            text,
            "{id}: since {} pinned {} {:?} {notes:?}",
            found.since, found.pinned, found.fingerprint
        )
        .unwrap();
    }
    ledger.close().await.unwrap();
    text
}

/// Opens a copy of a fixture, twice: as it was written, and after a checkpoint of this version.
///
/// What they say has changed once: a verdict in the log counts as an end, since its age is counted from there.
/// In the checkpoints of the fixtures, which were made before, it does not.
fn opens(version: u16, expected: &str, more: Option<&str>, most: Option<&str>) {
    let top = lab::scratch();
    let path = top.path().join("ledger");
    lab::lay_out(&lab::image(&fixture(version)), &path);
    lab::run(async {
        for checkpointed in [false, true] {
            let ledger = lab::open(builder(), &path).await.unwrap();
            let migrated = (version < CURRENT && !checkpointed).then_some((version, CURRENT));
            assert_eq!(ledger.recovery().migrated(), migrated);
            if checkpointed {
                ledger.checkpoint().await.unwrap();
            }
            ledger.close().await.unwrap();
            assert_eq!(told(&path).await, expected);
            if let Some(more) = more {
                assert_eq!(told_more(&path).await, more);
            }
            if let Some(most) = most {
                assert_eq!(told_most(&path).await, most);
            }
        }
    });
}

#[test]
fn a_ledger_of_format_1_opens_and_says_what_it_said() {
    opens(1, include_str!("../../../fixtures/v1.txt"), None, None);
}

#[test]
fn a_ledger_of_format_2_opens_and_says_what_it_said() {
    let more = include_str!("../../../fixtures/v2.more.txt");
    opens(2, include_str!("../../../fixtures/v2.txt"), Some(more), None);
}

#[test]
fn a_ledger_of_format_3_opens_and_says_what_it_said() {
    let more = include_str!("../../../fixtures/v3.more.txt");
    let most = include_str!("../../../fixtures/v3.most.txt");
    opens(3, include_str!("../../../fixtures/v3.txt"), Some(more), Some(most));
}

#[test]
#[ignore = "writes tests/fixtures anew; only for a new format version"]
fn make_fixture() {
    let path = fixture(CURRENT);
    if path.exists() {
        std::fs::remove_dir_all(&path).unwrap();
    }
    lab::run(async {
        let ledger = lab::open(builder(), &path).await.unwrap();
        ledger.set_metadata("owner", Some(b"the tests".to_vec())).await.unwrap();
        for part in ["checkpoint", "log"] {
            let id = |name: &str| format!("{part}/{name}");
            let value = ops::output_of(7);
            ledger.launch_block(id("succeeded"), async { Ok::<_, String>(value) }).await.unwrap();
            let failing = async { Err::<String, _>("no") };
            ledger.launch_block(id("failed"), failing).await.unwrap_err();
            let panicking = async { panic!("on purpose") };
            ledger.launch_block::<_, String>(id("panicked"), panicking).await.unwrap_err();
            let again = async { Ok::<_, String>(ops::output_of(8)) };
            ledger.launch_block(id("again"), async { Err(String::new()) }).await.unwrap_err();
            ledger.launch_block(id("again"), again).await.unwrap();
            ledger.mark_succeeded(id("marked")).await.unwrap();
            ledger.mark_succeeded(id("not revoked")).await.unwrap();
            let failing = async { Err::<(), _>("stays") };
            ledger.revoke_task_block(id("not revoked"), failing).await.unwrap_err();
            ledger.mark_succeeded(id("revoked")).await.unwrap();
            ledger.revoke_task_block(id("revoked"), async { Ok::<_, String>(()) }).await.unwrap();
            ledger.mark_succeeded(id("forgotten")).await.unwrap();
            ledger.forget(&id("forgotten")).await.unwrap();
            ledger.mark_succeeded(id("\u{1b}[31m \"quoted\"")).await.unwrap();
            let noted = |cx: Context<String>| async move {
                cx.note("half").await.map_err(|error| error.to_string())?;
                cx.note("whole").await.map_err(|error| error.to_string())?;
                Ok::<_, String>(ops::output_of(9))
            };
            ledger.task(id("noted")).fingerprint("request").run(noted).await.unwrap();
            for (name, verdict) in [
                ("resolved success", Verdict::Succeeded),
                ("resolved failure", Verdict::Failed),
                ("released", Verdict::Retry),
            ] {
                let failing = |_| async { Err::<String, _>("no") };
                ledger.run(id(name), failing).await.unwrap_err();
                ledger.run(id(name), failing).await.unwrap_err();
                ledger.resolve(&id(name), verdict, "seen").await.unwrap();
            }
            let once = std::num::NonZero::<u32>::MIN;
            let given_up = ledger.task(id("given up")).max_attempts(once);
            given_up.run(|_| async { Err::<String, _>("no") }).await.unwrap_err();
            let left: Vec<String> = ledger.succeeded_tasks().iter().map(Result::unwrap).collect();
            for pinned in &left {
                ledger.pin(pinned).await.unwrap();
            }
            for name in ["buried", "exhumed"] {
                ledger.mark_succeeded(id(name)).await.unwrap();
            }
            let all = Retention::new().succeeded(std::time::Duration::ZERO);
            assert_eq!(ledger.prune(&all).await.unwrap().succeeded, 2);
            let failing = async { Err::<(), _>("stays") };
            ledger.revoke_task_block(id("exhumed"), failing).await.unwrap_err();
            for pinned in left.iter().filter(|pinned| !pinned.ends_with("marked")) {
                ledger.unpin(pinned).await.unwrap();
            }
            let (below, failing) = (id("child"), id("failing child"));
            let body = |scope: Scope<String, String>| async move {
                let done = async { Ok::<_, String>(ops::output_of(10)) };
                scope.task(below).launch_block(done).await.map_err(|error| error.to_string())?;
                let no = async { Err::<String, _>("no") };
                scope.task(failing).launch_block(no).await.unwrap_err();
                Ok::<_, String>(ops::output_of(11))
            };
            ledger.task(id("scope")).scope(body).await.unwrap();
            let perform = |word: String, _| async move { Err::<String, _>(word) };
            let queue = ledger.queue(perform).await.unwrap();
            queue.enqueue(id("performed"), "performed".to_owned()).await.unwrap();
            queue.start(1).unwrap();
            ledger.wait(&id("performed")).await.unwrap();
            queue.stop().await;
            drop(queue);
            let queue = ledger.queue(perform).await.unwrap();
            queue.enqueue(id("queued"), "waits".to_owned()).await.unwrap();
            // In the life that it had.
            queue.requeue(&id("performed")).await.unwrap();
            queue.stop_now().await;
            drop(queue);
            if part == "checkpoint" {
                ledger.checkpoint().await.unwrap();
            }
        }
        let running = std::future::pending::<Result<String, String>>();
        ledger.launch("log/running".to_owned(), running).await.unwrap();
        assert_eq!(ledger.query_task_state_quick("log/running"), TaskState::Running);
        // As a crash would leave it: copied while nothing is written.
        let image = lab::image(&path);
        ledger.close_within(std::time::Duration::ZERO).await.unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        lab::lay_out(&image, &path);
        std::fs::write(path.join("lock"), "").unwrap();
        let probe = lab::scratch();
        lab::lay_out(&image, &probe.path().join("ledger"));
        let text = told(&probe.path().join("ledger")).await;
        std::fs::write(path.with_extension("txt"), text).unwrap();
        let text = told_more(&probe.path().join("ledger")).await;
        std::fs::write(path.with_extension("more.txt"), text).unwrap();
        let text = told_most(&probe.path().join("ledger")).await;
        std::fs::write(path.with_extension("most.txt"), text).unwrap();
    });
    for (name, content) in lab::image(&path) {
        println!("{} {:?}", name.display(), content.map(|bytes| bytes.len()));
    }
}
