//! More than an open hands over at once.
//!
//! The harnesses have dozens of ids. A replay that lost one of every 4,096 of a checkpoint was noticed by
//! nothing but a million lines of the command.

use crate::lab;
use std::time::Duration;
use taskledger::{Builder, Retention, TaskState};

const IDS: usize = 9_000;

fn id(number: usize) -> String {
    format!("{number:05}")
}

fn builder() -> Builder<String, String> {
    lab::builder().ballast_bytes(0)
}

#[test]
fn every_id_of_a_large_checkpoint_is_found_and_every_tombstone() {
    let dir = lab::on_disk();
    let path = dir.path().join("ledger");
    lab::run(async {
        let ledger = lab::open(builder(), &path).await.unwrap();
        let marked = ledger.mark_succeeded_all((0..IDS).map(id)).await;
        assert!(marked.iter().all(Result::is_ok));
        ledger.checkpoint().await.unwrap();
        ledger.close().await.unwrap();
        let ledger = lab::open(builder(), &path).await.unwrap();
        assert_eq!(ledger.recovery().from_checkpoint(), IDS as u64);
        let mut found: Vec<String> = ledger.all_tasks().iter().map(Result::unwrap).collect();
        found.sort_unstable();
        assert!(found.into_iter().eq((0..IDS).map(id)));
        let pruned = ledger.prune(&Retention::new().succeeded(Duration::ZERO)).await.unwrap();
        assert_eq!(pruned.succeeded, IDS as u64);
        ledger.checkpoint().await.unwrap();
        ledger.close().await.unwrap();
        let ledger = lab::open(builder(), &path).await.unwrap();
        assert_eq!((ledger.tombstones(), ledger.all_tasks().len()), (IDS, 0));
        let succeeded = |number| ledger.query_task_state_quick(&id(number)) == TaskState::Succeeded;
        assert!((0..IDS).all(succeeded));
        ledger.close().await.unwrap();
    });
}
