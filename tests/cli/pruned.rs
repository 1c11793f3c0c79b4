//! What is old, dropped by the command.

use crate::{on, words};

#[test]
fn pruning_is_tried_done_and_seen() {
    let (_dir, path) = words();
    let all = ["--succeeded", "0s", "--failed", "0s"];
    let would = on("prune", &path, &[&all[..], &["--dry-run"]].concat()).expect(0);
    assert_eq!(
        would.lines(),
        [
            "succeeded\t2\twould become tombstones",
            "failed\t2\twould be forgotten",
            "pinned\t0\tkept",
            "crashed, given up or released\t0\tkept until resolved or run",
            "tombstones\t0\tin all",
        ]
    );
    assert_eq!(on("dump", &path, &["--format", "json"]).expect(0).lines().len(), 4);
    let nothing = on("prune", &path, &["--succeeded", "1h"]).expect(0);
    assert!(nothing.out.contains("succeeded\t0\t"), "{nothing:?}");
    let before = ["--succeeded", "0s", "--as-of", "2001-02-03T04:05:06Z"];
    let nothing = on("prune", &path, &before).expect(0);
    assert!(nothing.out.contains("succeeded\t0\t"), "{nothing:?}");
    let ahead = ["--succeeded", "1h", "--as-of", "2101-02-03T04:05:06Z", "--dry-run"];
    let would = on("prune", &path, &ahead).expect(0);
    assert!(would.out.contains("succeeded\t2\t"), "{would:?}");
    let done = on("prune", &path, &["--succeeded", "0s"]).expect(0);
    assert!(done.out.contains("succeeded\t2\tbecame tombstones"), "{done:?}");
    assert!(done.out.contains("tombstones\t2\tin all"), "{done:?}");
    let left = on("dump", &path, &["--format", "json"]).expect(0);
    assert_eq!(left.lines().len(), 2, "the failures");
    let shown = on("show", &path, &["apple"]).expect(0);
    assert_eq!(shown.out, "apple has succeeded; it was pruned, and nothing else is known of it\n");
    on("show", &path, &["apples"]).expect(1);
    let stats = on("stats", &path, &["--format", "json"]).expect(0);
    let stats: serde_json::Value = serde_json::from_str(&stats.out).unwrap();
    assert_eq!((&stats["tombstones"], &stats["tasks"]["succeeded"]), (&2.into(), &0.into()));
    on("verify", &path, &[]).expect(0);
}

/// There was no way to pin anything but by a program.
#[test]
fn what_is_pinned_is_kept_until_it_is_unpinned() {
    let (_dir, path) = words();
    let failed = on("dump", &path, &["--state", "failed", "--format", "json"]).expect(0);
    let failed: serde_json::Value = serde_json::from_str(failed.lines()[0]).unwrap();
    let failed = failed["id"].as_str().unwrap();
    for id in ["apple", failed] {
        on("pin", &path, &[id]).expect(0);
        let shown = on("show", &path, &[id]).expect(0);
        assert!(shown.out.contains("it is not pruned by age"), "{shown:?}");
    }
    let all = ["--succeeded", "0s", "--failed", "0s"];
    let done = on("prune", &path, &all).expect(0);
    assert!(done.out.contains("pinned\t2\tkept"), "{done:?}");
    on("unpin", &path, &["apple"]).expect(0);
    let done = on("prune", &path, &all).expect(0);
    assert!(done.out.contains("succeeded\t1\tbecame tombstones"), "{done:?}");
    assert!(done.out.contains("pinned\t1\tkept"), "{done:?}");
    let pruned = on("pin", &path, &["apple"]).expect(1);
    assert!(pruned.err.contains("apple is succeeded: only what"), "{pruned:?}");
    let unknown = on("unpin", &path, &["never seen"]).expect(1);
    assert!(unknown.err.contains("knows nothing of the id"), "{unknown:?}");
    on("pin", &path, &[]).expect(2);
    on("verify", &path, &[]).expect(0);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (_dir, path) = words();
    for wrong in [&[][..], &["--succeeded", "soon"], &["--succeeded", "-3d"], &["--failed"]] {
        on("prune", &path, wrong).expect(2);
    }
    on("prune", &path.join("no"), &["--succeeded", "1d"]).expect(2);
    assert!(!path.join("no").exists());
}
