//! How the files of a ledger say what is wrong with them.

use crate::error::{Damage, JournalError};
use std::path::Path;

/// The file is damaged in this way.
pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> JournalError {
    JournalError::Damaged(Damage { place: place(path), what: what.into(), lost: None })
}

/// The path relative to the ledger: a file of the store lies one directory further down.
fn place(path: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    match (path.parent().and_then(name), name(path)) {
        (Some(log), Some(file)) if log.starts_with("log-") => format!("{log}/{file}"),
        (_, Some(file)) => file,
        (_, None) => path.display().to_string(),
    }
}
