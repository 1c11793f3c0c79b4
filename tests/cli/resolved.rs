//! What somebody has found out, by the command.

use crate::{fail, on, snapshot, succeed, with};
use std::path::{Path, PathBuf};
use taskledger::Ledger;

/// A ledger of these ids, of which 2 crashed.
fn crashed() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("before"), dir.path().join("ledger"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ledger: Ledger<u64, Vec<u32>> =
            Ledger::builder().ballast_bytes(0).open(&path).await.unwrap();
        succeed(&ledger, 1, vec![1]).await;
        let never = std::future::pending::<Result<Vec<u32>, ()>>();
        ledger.launch(2, never).await.unwrap();
        fail(&ledger, 3, "no").await;
        // What a kill would leave.
        copy_dir(&path, &copy);
        ledger.cancel(&2, "").unwrap();
        ledger.close().await.unwrap();
    });
    (dir, copy)
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn shown(path: &Path, id: &str) -> String {
    on("show", path, &[id]).expect(0).out
}

#[test]
fn a_crashed_task_is_resolved_as_what_it_is() {
    for (flag, expected) in [
        ("--succeeded", "somebody found out that it had succeeded"),
        ("--failed", "resolved: seen\n                   there\n"),
        ("--retry", "released: seen\n                   there\n"),
    ] {
        let (_dir, path) = crashed();
        on("resolve", &path, &["2", flag, "--note", "seen\nthere"]).expect(0);
        let told = shown(&path, "2");
        assert!(told.contains(expected), "{told}");
        on("verify", &path, &[]).expect(0);
        // The ledger is as typed as before, and its ids come back.
        with::<u64>(&path, async |ledger| {
            assert_eq!(ledger.all_tasks().len(), 3);
            let ids: Result<Vec<u64>, _> = ledger.all_tasks().iter().collect();
            ids.unwrap();
        });
    }
}

/// What an open finds running it records as crashed, and tells once: here, since the owner's next open
/// has nothing left to find.
#[test]
fn what_the_open_found_crashed_is_told() {
    let (_dir, path) = crashed();
    let before = snapshot(&path);
    let would = on("prune", &path, &["--failed", "0s", "--succeeded", "0s", "--dry-run"]).expect(0);
    assert_eq!(would.err, "", "it has found nothing, since it only looks");
    assert!(would.out.contains("succeeded\t1\twould become"), "{would:?}");
    assert!(would.out.contains("failed\t1\twould be forgotten"), "{would:?}");
    assert!(would.out.contains("crashed, given up or released\t1\t"), "{would:?}");
    assert_eq!(snapshot(&path), before);
    let done = on("resolve", &path, &["3", "--retry"]).expect(0);
    assert!(done.err.contains("2 was running when its process died"), "{done:?}");
    let again = on("resolve", &path, &["3", "--failed"]).expect(0);
    assert_eq!(again.err, "");

    let (_dir, path) = crashed();
    let done = on("prune", &path, &["--failed", "0s"]).expect(0);
    assert!(done.err.contains("2 was running when its process died"), "{done:?}");
    assert!(done.out.contains("failed\t1\twere forgotten"), "{done:?}");
}

/// Its owner prunes.
#[test]
fn a_ledger_in_use_is_left_alone() {
    let (_dir, path) = crashed();
    with::<u64>(&path, async |_| {
        let before = snapshot(&path);
        for args in [&["--failed", "0s"][..], &["--failed", "0s", "--dry-run"]] {
            let refused = on("prune", &path, args).expect(2);
            assert!(refused.err.contains("in use"), "{refused:?}");
        }
        assert_eq!(snapshot(&path), before);
    });
}

#[test]
fn what_cannot_be_resolved_is_said_and_nothing_is_changed() {
    let (_dir, path) = crashed();
    let refused = on("resolve", &path, &["1", "--retry"]).expect(1);
    assert!(refused.err.contains("1 is succeeded: only what has failed"), "{refused:?}");
    let unknown = on("resolve", &path, &["9", "--retry"]).expect(1);
    assert!(unknown.err.contains("knows nothing of the id 9"), "{unknown:?}");
    let other = on("resolve", &path, &["x", "--retry"]).expect(2);
    assert!(other.err.contains("is no id of this ledger (u64)"), "{other:?}");
    for wrong in [&["2"][..], &["2", "--retry", "--failed"], &["--retry"]] {
        on("resolve", &path, wrong).expect(2);
    }
    on("resolve", &path.join("no"), &["2", "--retry"]).expect(2);
    // But for what every open does.
    assert!(shown(&path, "2").contains("crashed"));
}
