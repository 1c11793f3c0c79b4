//! How the files of a ledger say what went wrong with them.

use crate::error::{Damage, JournalError};
use crate::state::SeqNo;
use std::io;
use std::path::Path;

/// What to make of an error of the file system: `.map_err(failed("read", path))`.
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    move |source| JournalError::Io { action, path: path.into(), source }
}

/// The file is damaged in this way.
pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> JournalError {
    JournalError::Damaged(Damage { place: place(path), what: what.into(), lost: None })
}

/// The file lacks these records.
pub(crate) fn lost(path: &Path, what: impl Into<String>, lost: (SeqNo, SeqNo)) -> JournalError {
    JournalError::Damaged(Damage { place: place(path), what: what.into(), lost: Some(lost) })
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
