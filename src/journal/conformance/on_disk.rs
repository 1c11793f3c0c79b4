//! The suite, run against the journal on disk.

use super::run;
use crate::error::JournalError;
use crate::journal::Journal;
use crate::journal::open::{StoreOptions, open};

#[test]
fn conforms() {
    run(&|| {
        let dir = tempfile::tempdir().unwrap();
        Box::new(move || {
            let options = StoreOptions {
                shape: b"\0a shape".to_vec(),
                ..StoreOptions::plain(&dir.path().join("ledger"))
            };
            let (journal, _) =
                open(&options).map_err(|error| JournalError::Store(format!("{error:?}")))?;
            Ok(Box::new(journal) as Box<dyn Journal>)
        })
    });
}
