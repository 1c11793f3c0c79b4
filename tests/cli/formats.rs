//! What is printed reads back, and only what was asked for is printed.

use crate::{LOOKS, on, run, snapshot, words};
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

fn rows(path: &Path, args: &[&str]) -> Vec<Value> {
    let dumped = on("dump", path, &[&["--format", "json"], args].concat()).expect(0);
    dumped.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(path: &Path, args: &[&str]) -> Vec<String> {
    rows(path, args).iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn json_lines() {
    let (_dir, path) = words();
    let rows = rows(&path, &[]);
    let of = |id: &str| rows.iter().find(|row| row["id"] == id).unwrap();
    assert_eq!(rows.len(), 4);
    assert_eq!(of("apple")["output"], json!([1, 2]));
    assert_eq!(of("apple")["failure"], Value::Null);
    assert_eq!(of("beer")["attempt"], 2);
    assert_eq!(of("beer")["failure"], json!({ "kind": "error", "text": "\"warm\"" }));
    assert_eq!(of("cake")["marked"], true);
    assert_eq!(of("cake").get("output"), None);
    for row in &rows {
        assert_eq!(row["epoch"].is_null(), row["marked"].as_bool().unwrap());
        row["ended_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    }
}

#[test]
fn csv_with_a_header() {
    let (_dir, path) = words();
    let dumped = on("dump", &path, &["--format", "csv"]).expect(0);
    let mut reader = csv::Reader::from_reader(dumped.out.as_bytes());
    let header = reader.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let cell = |row: usize, name: &str| {
        rows[row].get(header.iter().position(|column| column == name).unwrap()).unwrap()
    };
    assert_eq!(rows.len(), 4);
    let cake = (0..4).find(|row| cell(*row, "id") == "cake").unwrap();
    assert_eq!(
        ["state", "output", "marked"].map(|name| cell(cake, name)),
        ["succeeded", "", "true"]
    );
    let beer = (0..4).find(|row| cell(*row, "id") == "beer").unwrap();
    assert_eq!([cell(beer, "failure_kind"), cell(beer, "failure_text")], ["error", "\"warm\""]);
    let apple = (0..4).find(|row| cell(*row, "id") == "apple").unwrap();
    assert_eq!(cell(apple, "output"), "[1,2]");
}

#[test]
fn a_table_with_the_id_last() {
    let (_dir, path) = words();
    let table = on("dump", &path, &[]).expect(0);
    let lines = table.lines();
    assert_eq!(
        lines[0],
        "STATE     ATTEMPT EPOCH STARTED                     ENDED                       RESULT    ID"
    );
    let at = lines[0].find("ID").unwrap();
    let mut ids: Vec<&str> = lines[1..].iter().map(|line| &line[at..]).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["apple", "beer", "bread", "cake"]);
}

#[test]
fn no_control_characters_reach_the_terminal() {
    let (_dir, path) = words();
    for (command, args) in LOOKS.into_iter().chain([("show", &["bread"][..])]) {
        let shown = on(command, &path, args).expect(0);
        let controls =
            |text: &str| text.chars().any(|char| char.is_control() && char != '\n' && char != '\t');
        assert!(!controls(&shown.out) && !controls(&shown.err), "{command} {args:?}: {shown:?}");
    }
}

#[test]
fn filters() {
    let (_dir, path) = words();
    let sorted = |args: &[&str]| {
        let mut ids = ids(&path, args);
        ids.sort_unstable();
        ids.join(" ")
    };
    assert_eq!(sorted(&["--state", "failed"]), "beer bread");
    assert_eq!(sorted(&["--state", "failed,succeeded"]), "apple beer bread cake");
    assert_eq!(sorted(&["--state", "running"]), "");
    assert_eq!(sorted(&["--prefix", "b"]), "beer bread");
    assert_eq!(sorted(&["--prefix", "be", "--state", "succeeded"]), "");
    assert_eq!(sorted(&["--since", "1 hour"]), "apple beer bread cake");
    assert_eq!(sorted(&["--since", "2100-01-01T00:00:00Z"]), "");
    assert_eq!(ids(&path, &["--limit", "2"]).len(), 2);
    assert_eq!(ids(&path, &["--limit", "0"]).len(), 0);
    // Since is inclusive.
    let beer = &rows(&path, &["--prefix", "beer"])[0];
    assert!(sorted(&["--since", beer["ended_at"].as_str().unwrap()]).contains("beer"));
}

/// Whoever compares two logs relies on it: position, time, event, id, details.
#[test]
fn the_log_is_stable() {
    let (_dir, path) = words();
    let log = on("log", &path, &[]).expect(0);
    let without_times: Vec<String> = log
        .lines()
        .iter()
        .map(|line| {
            let parts: Vec<&str> = line.split('\t').collect();
            assert_eq!(parts.len(), 5, "{line:?}");
            parts[1].parse::<jiff::Timestamp>().unwrap();
            [parts[0], parts[2], parts[3], parts[4]].join("|")
        })
        .collect();
    let expected = [
        "1|epoch opened|-|epoch=1",
        "2|started|apple|attempt=1 epoch=1",
        "3|succeeded|apple|by=attempt output=[1,2]",
        "4|started|beer|attempt=1 epoch=1",
        "5|failed|beer|error: \"flat\"",
        "6|started|bread|attempt=1 epoch=1",
        "7|failed|bread|error: \"burnt\\\\u{1b}[2J\\\\n\"",
        "8|started|beer|attempt=2 epoch=1 since=4",
        "9|failed|beer|error: \"warm\"",
        "10|succeeded|cake|by=mark",
        "11|started|date|attempt=1 epoch=1",
        "12|succeeded|date|by=attempt output=[]",
        "13|revoke started|date|",
        "14|revoked|date|",
    ];
    assert_eq!(without_times, expected);
    let later = on("log", &path, &["--from", "13"]).expect(0);
    assert_eq!(later.lines(), log.lines()[12..]);
}

#[test]
fn a_task_is_shown_with_its_records() {
    let (_dir, path) = words();
    let shown = on("show", &path, &["beer"]).expect(0);
    for part in [
        "state              failed",
        "attempt            2",
        "failure            error: \"warm\"",
        "all its records:",
    ] {
        assert!(shown.out.contains(part), "{part}: {}", shown.out);
    }
    assert_eq!(shown.lines().iter().filter(|line| line.contains("\tstarted\t")).count(), 2);
    let gone = on("show", &path, &["date"]).expect(0);
    assert!(gone.out.contains("state              not found"), "{}", gone.out);
    let unknown = on("show", &path, &["nobody"]).expect(1);
    assert_eq!(unknown.err, "taskledger: the ledger knows nothing of the id nobody\n");
}

#[test]
fn after_a_checkpoint_only_the_sum_is_known_and_that_is_said() {
    let (_dir, path) = words();
    crate::with::<String>(&path, async |ledger| {
        ledger.checkpoint().await.unwrap();
        crate::fail(ledger, "beer".into(), "spilt").await;
    });
    let shown = on("show", &path, &["beer"]).expect(0);
    assert!(
        shown.out.contains("its records since the checkpoint at record 15, where it was failed"),
        "{}",
        shown.out
    );
    assert!(shown.out.contains("attempt            3"));
    let log = on("log", &path, &[]).expect(0);
    assert_eq!(log.err, "taskledger: the records up to 15 are folded into the checkpoint\n");
    assert_eq!(log.lines()[0].split('\t').next(), Some("16"));
    assert_eq!(ids(&path, &[]).len(), 4);
    on("verify", &path, &[]).expect(0);
}

#[test]
fn stats_in_both_formats() {
    let (_dir, path) = words();
    let stats: Value =
        serde_json::from_str(&on("stats", &path, &["--format", "json"]).expect(0).out).unwrap();
    assert_eq!(stats["tasks"]["failed"], 2);
    assert_eq!(stats["tasks"]["succeeded"], 2);
    assert_eq!(stats["attempts"], 4);
    assert_eq!(stats["most_attempts"], 2);
    assert_eq!(stats["epoch"], 1);
    assert_eq!(stats["log_records"], 14);
    assert_eq!(stats["id_type"], "String");
    assert!(stats["files"]["log-1"].as_u64() > Some(0));
    let table = on("stats", &path, &[]).expect(0);
    assert!(table.lines().contains(&"  failed                 2"), "{}", table.out);
}

#[test]
fn nothing_is_ever_written() {
    let (_dir, path) = words();
    std::fs::write(path.join("log-9"), "a leftover").unwrap();
    std::fs::write(path.join("checkpoint-9.tmp"), "another").unwrap();
    std::fs::write(path.join("my notes"), "of the owner").unwrap();
    let before = snapshot(&path);
    for (command, args) in LOOKS {
        on(command, &path, args).expect(0);
        assert_eq!(snapshot(&path), before, "{command}");
    }
    on("repair", &path, &["--accept-loss"]).expect(0);
    assert_eq!(snapshot(&path), before, "repair of a sound ledger");
    let verified = on("verify", &path, &[]).expect(0);
    assert!(verified.out.contains("note: checkpoint-9.tmp is a leftover"), "{}", verified.out);
    assert!(verified.out.contains("note: my notes is not known"), "{}", verified.out);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let (_dir, path) = words();
    for (command, args) in LOOKS {
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        let done = Command::new(env!("CARGO_BIN_EXE_taskledger"))
            .arg(command)
            .arg(&path)
            .args(args)
            .stdout(OwnedFd::from(writer))
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(0), "{command}");
        assert_eq!(String::from_utf8_lossy(&done.stderr), "", "{command}");
    }
}

#[test]
fn help_has_examples_for_each_command() {
    for command in ["dump", "show", "log", "stats", "verify", "repair"] {
        let help = run([command, "--help"]).expect(0).out;
        assert!(help.contains("Examples:\n  taskledger "), "{help}");
    }
    assert!(run(["--version"]).expect(0).out.starts_with("taskledger "));
}
