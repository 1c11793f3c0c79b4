//! Ledgers as JSON Lines, and back.

use crate::{on, run, snapshot, succeed, with, words};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use taskledger::{Retention, TaskState};

fn import(from: &Path, to: &Path, more: &[&str]) -> crate::Run {
    let words = ["import".as_ref(), from.as_os_str(), to.as_os_str()];
    run(words.into_iter().chain(more.iter().map(std::ffi::OsStr::new)))
}

fn lines(export: &str) -> Vec<Value> {
    export.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_export_shows_everything_and_comes_back_as_it_was() {
    let (dir, path) = words();
    let before = snapshot(&path);
    let exported = on("export", &path, &[]).expect(0);
    assert_eq!(exported.err, "");
    assert_eq!(snapshot(&path), before);
    let all = lines(&exported.out);
    assert_eq!(all[0]["ledger"]["format"], "taskledger export");
    assert_eq!(all[0]["ledger"]["info"]["id_type"], "String");
    assert_eq!(all.last().unwrap()["end"]["tasks"], 4);
    let of = |id: &str| &all.iter().find(|line| line["task"]["info"]["id"] == id).unwrap()["task"];
    assert_eq!(of("apple")["info"]["output"], json!([1, 2]));
    assert_eq!(of("apple")["output"], json!({ "kept": "kgEC" }));
    assert_eq!(of("apple")["id"], "056170706c65");
    assert_eq!(of("beer")["attempt"], 2);
    assert_eq!(of("beer")["failure"], json!({ "kind": "error", "text": "\"warm\"" }));
    assert_eq!(of("cake")["succeeded_by"], "mark");
    let controls = exported.out.chars().any(|char| char.is_control() && char != '\n');
    assert!(!controls, "{}", exported.out);

    let file = dir.path().join("ledger.jsonl");
    let to_file = on("export", &path, &["--output", file.to_str().unwrap()]).expect(0);
    assert_eq!((to_file.out.as_str(), to_file.err.as_str()), ("", ""));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), exported.out);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let copy = dir.path().join("copy");
    assert_eq!(import(&file, &copy, &[]).expect(0).out, "tasks\t4\ntombstones\t0\n");
    on("verify", &copy, &[]).expect(0);
    assert_eq!(on("export", &copy, &[]).expect(0).out, exported.out);
    let dumped = |path: &Path| on("dump", path, &["--format", "json"]).expect(0).out;
    assert_eq!(dumped(&path), dumped(&copy));
    with::<String>(&copy, async |ledger| {
        assert_eq!(ledger.output("apple").await.unwrap(), Some(vec![1, 2]));
        succeed(ledger, "more".into(), vec![]).await;
    });
    let again = import(&file, &copy, &[]).expect(2);
    assert!(again.err.contains("nothing was imported") && again.err.contains("it has a ledger"));
}

/// Their ids are gone: `dump` does not list them, `stats` counts them, `show` knows the id that it is
/// given, and an export has their hashes.
#[test]
fn tombstones_are_counted_and_exported_as_hashes_and_go_on_refusing() {
    let (dir, path) = words();
    with::<String>(&path, async |ledger| {
        ledger.prune(&Retention::new().succeeded(Duration::ZERO)).await.unwrap();
    });
    let dumped = |path: &Path| on("dump", path, &["--format", "json"]).expect(0).out;
    assert_eq!(lines(&dumped(&path)).len(), 2);
    let exported = on("export", &path, &[]).expect(0);
    let all = lines(&exported.out);
    let hashes: Vec<&str> = all.iter().filter_map(|line| line["tombstone"].as_str()).collect();
    assert!(hashes.len() == 2 && hashes.is_sorted());
    assert!(hashes.iter().all(|hash| hash.len() == 32));
    assert!(!exported.out.contains("apple"));
    let copy = dir.path().join("copy");
    let mut child = Command::new(env!("CARGO_BIN_EXE_taskledger"))
        .args(["import", "-"])
        .arg(&copy)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), exported.out.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    for path in [&path, &copy] {
        let stats = on("stats", path, &["--format", "json"]).expect(0);
        assert_eq!(lines(&stats.out)[0]["tombstones"], 2);
        let shown = on("show", path, &["apple"]).expect(0);
        assert!(shown.out.contains("has succeeded; it was pruned"), "{shown:?}");
    }
    assert_eq!(dumped(&path), dumped(&copy));
    with::<String>(&copy, async |ledger| {
        assert_eq!(ledger.tombstones(), 2);
        assert_eq!(ledger.query_task_state_quick("cake"), TaskState::Succeeded);
        assert_eq!(ledger.query_task_state_quick("soup"), TaskState::NotFound);
        ledger.mark_succeeded("apple".to_owned()).await.unwrap_err();
    });
}

/// Until it is whole, a file that is replaced is the old one.
#[test]
fn an_export_that_fails_leaves_the_old_file() {
    let (dir, path) = words();
    let file = dir.path().join("ledger.jsonl");
    std::fs::write(&file, "the one before\n").unwrap();
    std::fs::write(path.join("witness"), [0; 100]).unwrap();
    let names = || std::fs::read_dir(dir.path()).unwrap().count();
    let (before, output) = (names(), ["--output", file.to_str().unwrap()]);
    let refused = on("export", &path, &output).expect(1);
    assert!(refused.err.contains("--damaged exports what is left of it"), "{refused:?}");
    assert_eq!(
        (std::fs::read_to_string(&file).unwrap(), names()),
        ("the one before\n".into(), before)
    );
    assert_eq!(on("export", &path, &[]).expect(1).out, "");

    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let left = on("export", &path, &["--damaged", "--output", link.to_str().unwrap()]).expect(1);
    assert!(left.err.contains("missing: witness"), "{left:?}");
    assert!(link.symlink_metadata().unwrap().is_symlink());
    let all = lines(&std::fs::read_to_string(&file).unwrap());
    assert_eq!(all.last().unwrap()["end"]["tasks"], 4);
    assert!(all.last().unwrap()["end"]["missing"][0].as_str().unwrap().contains("witness"));

    let copy = dir.path().join("copy");
    let refused = import(&file, &copy, &[]).expect(1);
    assert!(
        refused.err.contains("made of a damaged ledger") && refused.err.contains("--accept-loss")
    );
    assert!(!copy.exists());
    let taken = import(&file, &copy, &["--accept-loss"]).expect(0);
    assert!(taken.out.contains("loss accepted\timported from an export that is not whole"));
    assert!(on("log", &copy, &[]).expect(0).out.contains("loss accepted"));
    on("verify", &copy, &[]).expect(0);

    let pipe = on("export", &copy, &["--output", "/dev/null"]).expect(0);
    assert_eq!((pipe.out.as_str(), pipe.err.as_str()), ("", ""));
    assert!(!Path::new("/dev/null").metadata().unwrap().is_file());
}

#[test]
fn what_cannot_be_imported_says_where_and_why() {
    let (dir, path) = words();
    let exported = on("export", &path, &[]).expect(0).out;
    let (file, copy) = (dir.path().join("file"), dir.path().join("copy"));
    let swapped = {
        let mut lines: Vec<&str> = exported.lines().collect();
        lines.swap(1, 2);
        lines.join("\n")
    };
    let cases = [
        (
            exported[..exported.len() / 2].to_owned(),
            "the export is not whole: it is cut off in line",
        ),
        (swapped, "line 3: its id does not follow the one before; lines stay in the order"),
        (exported.replace("\"attempt\":2", "\"attempt\":3"), "its checksum is wrong"),
        (exported.replace("\"mark\"", "\"me\""), "unknown variant `me`"),
        ("STATE ID\n".to_owned(), "this is no export of a ledger"),
    ];
    for (text, why) in cases {
        std::fs::write(&file, text).unwrap();
        let refused = import(&file, &copy, &[]).expect(1);
        assert!(refused.err.starts_with("taskledger: nothing was imported: "), "{refused:?}");
        assert!(refused.err.contains(why), "{refused:?}");
        assert!(refused.out.is_empty() && !copy.exists());
    }
    std::fs::write(&file, exported.replacen("\"version\":2", "\"version\":9", 1)).unwrap();
    let newer = import(&file, &copy, &[]).expect(2);
    assert!(newer.err.contains("format version 9"), "{newer:?}");
    let missing = import(&dir.path().join("none"), &copy, &[]).expect(2);
    assert!(missing.err.contains("cannot read"), "{missing:?}");
}

/// An export into the directory of a ledger took the place of its manifest, and said that all was well.
#[test]
fn an_export_is_not_written_into_a_ledger() {
    let (dir, path) = words();
    let other = dir.path().join("other");
    with::<String>(&other, async |ledger| succeed(ledger, "a".into(), vec![]).await);
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(other.join("witness"), &link).unwrap();
    let before = (snapshot(&path), snapshot(&other));
    for file in [path.join("manifest"), path.join("witness"), path.join("x"), other.join("x"), link]
    {
        let refused = on("export", &path, &["--output", file.to_str().unwrap()]).expect(2);
        assert!(refused.err.contains("which is a ledger"), "{}", refused.err);
        let now = (snapshot(&path), snapshot(&other));
        assert!(now == before, "{}", file.display());
    }
    on("verify", &path, &[]).expect(0);
}
