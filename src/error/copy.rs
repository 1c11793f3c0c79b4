//! What can go wrong with copies of a ledger.

use super::{CheckpointError, Damage, Holder, JournalError, OpenError, Poison};
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a new ledger could not be made at a path: by a backup, or by an import.
///
/// There is no ledger at the path then, unless the very last step failed, which says whether it outlives
/// the power. What is left there goes when it is tried again.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CreateError {
    /// Something is there already, and nothing of it was touched. Take another path, or remove it.
    #[error("{} is not empty, it has {found}; give the path of a new or empty directory", path.display())]
    Exists {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// The path is something else than a directory. Take another one.
    #[error("{} is not a directory; give the path of a new or empty one", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The path lies in the directory of a ledger, which is no place for another one. Take another path.
    #[error("{} lies in {}, which is a ledger; give a path outside of it", path.display(), ledger.display())]
    Within {
        /// The path.
        path: PathBuf,
        /// The directory of the ledger around it.
        ledger: PathBuf,
    },
    /// Somebody else is making a ledger there.
    #[error("{} is in use by {holder}", path.display())]
    Locked {
        /// The path.
        path: PathBuf,
        /// Who, as far as the lock file tells.
        holder: Holder,
    },
    /// The file system refused; the disk is full, for one.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// What is to be copied is damaged, or what was written does not read back.
    #[error("damaged: {0}")]
    Damaged(Damage),
    /// Another failure.
    #[error("the new ledger could not be made")]
    Journal(#[source] JournalError),
}

impl From<JournalError> for CreateError {
    fn from(error: JournalError) -> Self {
        OpenError::from(error).into()
    }
}

impl From<OpenError> for CreateError {
    /// Of the path where it is to be made.
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::NotADirectory { path } => Self::NotADirectory { path },
            OpenError::NotALedger { path, found } => {
                Self::Exists { path, found: format!("{found:?}") }
            }
            OpenError::Io { action, path, source } => Self::Io { action, path, source },
            OpenError::Locked { path, holder } => Self::Locked { path, holder },
            OpenError::Damaged(damage) => Self::Damaged(damage),
            OpenError::Journal(error) => Self::Journal(error),
            OpenError::Unfinished { .. }
            | OpenError::Newer { .. }
            | OpenError::OtherIdType(_)
            | OpenError::Full { .. }
            | OpenError::Stuck { .. } => Self::Journal(JournalError::Store(super::chain(&error))),
        }
    }
}

/// Why there is no backup. The ledger itself goes on as it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The ledger is closed.
    #[error("the ledger is closed")]
    Closed,
    /// The ledger has stopped recording: what it would copy may not be all. Open it again first.
    #[error(transparent)]
    Poisoned(#[from] Poison),
    /// The checkpoint to be copied could not be made; it can be tried again.
    #[error("the checkpoint to be copied could not be made")]
    Checkpoint(#[source] CheckpointError),
    /// The journal of this ledger cannot be copied: it is not the one on disk.
    #[error("the journal of this ledger cannot be copied; only one on disk can")]
    Unsupported,
    /// The new ledger could not be made.
    #[error(transparent)]
    Create(#[from] CreateError),
}

impl From<CheckpointError> for BackupError {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Closed => Self::Closed,
            CheckpointError::Poisoned(poison) => Self::Poisoned(poison),
            CheckpointError::Failed(_) => Self::Checkpoint(error),
        }
    }
}

/// Why a ledger could not be [exported](crate::dump::Inspection::export). What was written by then has no
/// closing line, so it is never taken for an export of the whole.
#[cfg(feature = "json")]
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The ledger is damaged, and its loss is not accepted.
    #[error("the ledger is damaged: {0}")]
    Damaged(Damage),
    /// It could not be read.
    #[error("the ledger cannot be read")]
    Read(#[source] JournalError),
    /// The export could not be written.
    #[error("the export cannot be written")]
    Write(#[source] io::Error),
}

#[cfg(feature = "json")]
impl From<JournalError> for ExportError {
    fn from(error: JournalError) -> Self {
        match CreateError::from(error) {
            CreateError::Damaged(damage) => Self::Damaged(damage),
            CreateError::Journal(error) => Self::Read(error),
            CreateError::Io { action, path, source } => {
                Self::Read(JournalError::Io { action, path, source })
            }
            // Not of a journal.
            other @ (CreateError::Exists { .. }
            | CreateError::NotADirectory { .. }
            | CreateError::Within { .. }
            | CreateError::Locked { .. }) => Self::Read(JournalError::Store(super::chain(&other))),
        }
    }
}

/// Why nothing was [imported](crate::dump::import). There is no ledger at the path, but for what
/// [`CreateError`] says.
#[cfg(feature = "json")]
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It is not an export of a ledger.
    #[error("this is no export of a ledger: {0}")]
    NotAnExport(String),
    /// A newer version of this library wrote it.
    #[error(
        "the export has format version {found}; this version of taskledger reads up to {supported}: use a newer one"
    )]
    Newer {
        /// The version of the export.
        found: u32,
        /// The newest version that is understood.
        supported: u32,
    },
    /// A line says what no ledger can hold, or stands where it cannot.
    #[error("line {line}: {what}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// It is not all of a ledger: cut off, changed, or made of a damaged one. Export again, or accept that
    /// what is missing is lost.
    #[error("the export is not whole: {0}; export again, or accept the loss of what is missing")]
    Incomplete(String),
    /// It could not be read.
    #[error("the export cannot be read")]
    Read(#[source] io::Error),
    /// The new ledger could not be made.
    #[error(transparent)]
    Create(#[from] CreateError),
}
