//! The suite, run against the journal on disk.

use super::run;
use crate::error::JournalError;
use crate::journal::Journal;
use crate::journal::open::{StoreOptions, open};
use std::time::Duration;

#[test]
fn conforms() {
    run(&|| {
        let dir = tempfile::tempdir().unwrap();
        Box::new(move || {
            let options = StoreOptions {
                path: dir.path().join("ledger"),
                lock_wait: Duration::ZERO,
                checkpoint_after: u64::MAX,
                ballast: 0,
                accept_loss: false,
                store_deadline: Duration::from_secs(60),
                shape: b"\0a shape".to_vec(),
                judge_shape: Box::new(|_| Ok(())),
                judge_id: Box::new(|_| Ok(())),
            };
            let (journal, _) =
                open(&options).map_err(|error| JournalError::Store(format!("{error:?}")))?;
            Ok(Box::new(journal) as Box<dyn Journal>)
        })
    });
}
