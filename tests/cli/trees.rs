//! Scopes drawn as trees, and what waits in the queue.

use crate::{on, with};
use std::path::PathBuf;
use taskledger::{Context, Ledger, Scope};

type Words = Ledger<String, Vec<u32>>;
type Ended = Result<Vec<u32>, String>;

/// A night with a backup of two parts, one of which fails, and a report; and something by itself.
fn night() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    with::<String>(&path, async |ledger: &Words| {
        let part = async |scope: &Scope<String, Vec<u32>>, id: &str, ended: Ended| {
            drop(scope.task(id.to_owned()).launch_block(async { ended }).await);
        };
        let backup = move |scope: Scope<String, Vec<u32>>| async move {
            part(&scope, "photos", Ok(vec![])).await;
            part(&scope, "mail", Err("full".to_owned())).await;
            Ended::Ok(vec![2])
        };
        let nightly = move |scope: Scope<String, Vec<u32>>| async move {
            let backup = scope.task("backup".to_owned()).scope(backup).await;
            backup.map_err(|error| error.to_string())?;
            part(&scope, "report", Ok(vec![])).await;
            Ended::Ok(vec![])
        };
        ledger.task("nightly".to_owned()).scope(nightly).await.unwrap();
        ledger.mark_succeeded("alone".to_owned()).await.unwrap();
    });
    (dir, path)
}

/// The last column of a table, without its header.
fn ids(table: &str) -> Vec<&str> {
    // Behind the columns of fixed width.
    table.lines().skip(1).map(|line| line.get(88..).unwrap_or(line)).collect()
}

#[test]
fn a_dump_draws_what_ran_within_what() {
    let (_dir, path) = night();
    let dumped = on("dump", &path, &["--tree"]).expect(0);
    let drawn = ["nightly", "├─ backup", "│  ├─ photos", "│  └─ mail", "└─ report", "alone"];
    let mut found: Vec<String> = ids(&dumped.out).iter().map(|id| id.trim().to_owned()).collect();
    // Which of the roots comes first is a matter of microseconds or of positions.
    if found.first().is_some_and(|first| first == "alone") {
        found.rotate_left(1);
    }
    assert_eq!(found, drawn, "{dumped:?}");
    // What ran within something that is left out is a root.
    let some = on("dump", &path, &["--tree", "--state", "failed"]).expect(0);
    let found: Vec<&str> = ids(&some.out).iter().map(|id| id.trim()).collect();
    assert_eq!(found, ["mail"], "{some:?}");
    // A tree is for people.
    on("dump", &path, &["--tree", "--format", "json"]).expect(2);
    let line = on("dump", &path, &["--format", "json", "--prefix", "mail"]).expect(0);
    let line: serde_json::Value = serde_json::from_str(&line.out).unwrap();
    assert_eq!(line["parent"], "backup");
}

#[test]
fn show_says_within_what_it_ran_and_draws_what_ran_within_it() {
    let (_dir, path) = night();
    let shown = on("show", &path, &["mail"]).expect(0);
    assert!(shown.out.contains("backup, within nightly"), "{shown:?}");
    let shown = on("show", &path, &["backup", "--tree"]).expect(0);
    let (_, tree) = shown.out.split_once("what ran within it:\n").unwrap();
    assert_eq!(tree, "backup  succeeded\n├─ photos  succeeded\n└─ mail  failed\n");
    let shown = on("show", &path, &["alone", "--tree"]).expect(0);
    assert!(shown.out.ends_with("what ran within it:\nalone  succeeded\n"), "{shown:?}");
}

#[test]
fn the_queue_is_printed_in_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    with::<String>(&path, async |ledger: &Words| {
        let performs = |_: u32, _: Context<String>| async { Ended::Err("no".to_owned()) };
        let queue = ledger.queue(performs).await.unwrap();
        queue.enqueue("tried".to_owned(), 7).await.unwrap();
        queue.start(1).unwrap();
        assert!(queue.wait_idle().await);
        queue.stop_now().await;
        let queue = ledger.queue(performs).await.unwrap();
        for (number, id) in (1..).zip(["zebra", "ape", "mule"]) {
            queue.enqueue(id.to_owned(), number).await.unwrap();
        }
        queue.requeue(&"tried".to_owned()).await.unwrap();
        queue.stop_now().await;
    });
    let printed = on("queue", &path, &[]).expect(0);
    let rows: Vec<Vec<&str>> =
        printed.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["PLACE", "QUEUED", "ATTEMPT", "ID", "PAYLOAD"]);
    let place = |row: usize| (rows[row][0], rows[row][2], rows[row][3], rows[row][4]);
    let expected = [
        ("1", "1", "zebra", "1"),
        ("2", "1", "ape", "2"),
        ("3", "1", "mule", "3"),
        ("4", "2", "tried", "7"),
    ];
    assert_eq!([1, 2, 3, 4].map(place), expected, "{printed:?}");
    let first = on("queue", &path, &["--limit", "2", "--json"]).expect(0);
    let ids: Vec<serde_json::Value> = first
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].clone())
        .collect();
    assert_eq!(ids, ["zebra", "ape"]);
    // Nothing waits in a ledger that has no queue.
    let (_dir, path) = night();
    assert_eq!(on("queue", &path, &[]).expect(0).lines().len(), 1);
    on("queue", &path.join("no"), &[]).expect(2);
}
