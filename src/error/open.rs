//! What can go wrong with a ledger's files, and with a journal.

use crate::held::shown;
use crate::state::{IllegalTransition, SeqNo, Timestamp};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Why a ledger could not be opened.
///
/// Nothing that was recorded is changed by an open that fails. `NotADirectory`, `NotALedger`,
/// `Unfinished`, `Newer`, `Locked` and, but for a format migration, `OtherIdType` come before anything is written. The others may
/// come when leftovers are gone, the ballast is given up, or some of what ran is already reset; opening
/// again goes on from there.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The path is something else than a directory.
    #[error("{} is not a directory; a ledger is one", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The directory has other things in it and no ledger.
    #[error("{} is not a ledger: it has no manifest, but it has {found:?}; give the path of a ledger, or of an empty or new directory", path.display())]
    NotALedger {
        /// The path.
        path: PathBuf,
        /// One of the names found there.
        found: String,
    },
    /// A backup or an import was to be made there and never finished. It is no ledger: make it again
    /// with the same path, or remove the directory.
    #[error("{} is no ledger: a backup or an import there was never finished; make it again, or remove the directory", path.display())]
    Unfinished {
        /// The path.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A newer version of this library wrote it.
    #[error("{} has format version {found}; this version of taskledger reads up to {supported}: use a newer one", path.display())]
    Newer {
        /// The path.
        path: PathBuf,
        /// The version on disk.
        found: u16,
        /// The newest version that is understood.
        supported: u16,
    },
    /// It holds ids of another type.
    #[error("the ledger holds ids of another type: {0}")]
    OtherIdType(String),
    /// Somebody has it open.
    #[error("{} is in use by {holder}", path.display())]
    Locked {
        /// The path.
        path: PathBuf,
        /// Who, as far as the lock file tells.
        holder: Holder,
    },
    /// Something on disk is damaged. The only way on is to accept the loss:
    /// [`Builder::accept_loss`](crate::Builder::accept_loss) or `taskledger repair --accept-loss`.
    ///
    /// Damaged bytes and missing records are found before anything is touched: the directory is as
    /// it was, but for the lock file and, if the ledger was of an older format, its migration. A
    /// sound record that cannot follow the ones before it is found only later, in the replay. By
    /// then what the last process left unfinished has been removed, and the store may have been
    /// opened and the ballast filled up. Even so the records of the log are as they were, and none
    /// was added.
    #[error("the ledger is damaged: {0}")]
    Damaged(Damage),
    /// There is not enough space on the disk to open.
    #[error("the disk is full: opening needs at least {needed} bytes, {available} are free")]
    Full {
        /// Bytes needed, at least.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
    /// Opening took longer than its deadline. The thread that opens is left alone and keeps the
    /// lock: restart the process.
    #[error("opening has not finished within {after:?}; the lock stays taken: restart the process")]
    Stuck {
        /// The deadline.
        after: Duration,
    },
    /// Another failure of the journal.
    #[error("the journal cannot be opened")]
    Journal(#[source] JournalError),
}

impl From<JournalError> for OpenError {
    /// What has a variant of its own among the reasons not to open becomes that.
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Io { action, path, source } => Self::Io { action, path, source },
            JournalError::Damaged(damage) => Self::Damaged(damage),
            JournalError::Illegal { seq, source } => Self::Damaged(Damage {
                place: "log".to_owned(),
                what: format!("record {seq}: {source}"),
                lost: None,
            }),
            JournalError::Store(_)
            | JournalError::Panicked(_)
            | JournalError::UsedUp
            | JournalError::Moved { .. } => Self::Journal(error),
        }
    }
}

/// Who holds a ledger, as its lock file tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Process id.
    pub pid: Option<u32>,
    /// Host name.
    pub host: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Whether it is this very process.
    pub this_process: bool,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.this_process, self.pid) {
            (true, _) => f.write_str("this process itself")?,
            (false, Some(pid)) => write!(f, "process {pid}")?,
            (false, None) => f.write_str("another process")?,
        }
        if let Some(host) = &self.host {
            write!(f, " on {host}")?;
        }
        if let Some(since) = self.since {
            write!(f, " since {since}")?;
        }
        Ok(())
    }
}

/// What is damaged, and what is lost by it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The file or directory, relative to the ledger.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
    /// The records known to be gone: the first and the last, where that is known.
    pub lost: Option<(SeqNo, SeqNo)>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)?;
        if let Some((first, last)) = self.lost {
            write!(f, " (records {first} to {last} are missing)")?;
        }
        Ok(())
    }
}

/// A journal that could not do what it was asked for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// What is stored is damaged.
    #[error("damaged: {0}")]
    Damaged(Damage),
    /// A record that cannot follow the ones before it.
    #[error("record {seq} is illegal")]
    Illegal {
        /// Its position.
        seq: SeqNo,
        /// Why.
        source: IllegalTransition,
    },
    /// The store below failed.
    #[error("the store failed: {0}")]
    Store(String),
    /// The store below panicked.
    #[error("the store panicked: {0}")]
    Panicked(String),
    /// There is no position left for a record. No ledger comes to that by itself.
    #[error("all positions of its log are used up: nothing can be recorded any more")]
    UsedUp,
    /// Another directory has taken the place of this one.
    #[error("{} was moved or replaced while the ledger was open", path.display())]
    Moved {
        /// The path that leads elsewhere now.
        path: PathBuf,
    },
}

/// Whether there is no space: on the disk, or for this user.
pub(crate) fn no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl JournalError {
    /// For `map_err`: the file system refused this action on this path.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        move |error| Self::Io { action, path: shown(path), source: error.into() }
    }

    /// This file or directory of the ledger is damaged in this way.
    pub(crate) fn damaged(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Damaged(Damage { place: place.into(), what: what.into(), lost: None })
    }

    /// Whether the cause is a full disk.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => no_space(source),
            Self::Damaged(_)
            | Self::Illegal { .. }
            | Self::Store(_)
            | Self::Panicked(_)
            | Self::UsedUp
            | Self::Moved { .. } => false,
        }
    }
}
