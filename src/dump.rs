//! Inspection of a ledger that nobody has open: what `taskledger dump` and its sisters show.
//!
//! ```text
//! path judged -> lock, shared -> manifest -> checkpoint opened, logs scanned, witness read
//!             -> judged as an open would -> lock freed -> tasks, records, stats, verify
//! ```
//!
//! Nothing here writes: an [`Inspection`] works on a directory that cannot be written to, and
//! leaves every byte as it was. The store of the log is not used, only the frames in its file. A
//! damaged ledger is shown as far as it can be read, and [`Inspection::damage`] says what is wrong;
//! only [`repair`] changes anything, and that only if told to.
//!
//! ```no_run
//! use taskledger::dump::{Filter, Inspection};
//! use taskledger::TaskState;
//!
//! let inspection = Inspection::open("/var/lib/mailer/ledger")?;
//! for damage in inspection.damage() {
//!     eprintln!("{damage}");
//! }
//! let failed = Filter { states: vec![TaskState::Failed], ..Filter::default() };
//! for task in inspection.select(&failed) {
//!     let (id, details) = task?;
//!     println!("{} {:?}", inspection.id_text(&id), details.failure);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backup;
#[cfg(feature = "json")]
mod export;
#[cfg(feature = "json")]
mod import;
#[cfg(feature = "json")]
mod json;
#[cfg(feature = "json")]
mod lines;
mod look;
mod prune;
mod read;
mod repair;
mod stats;
mod verify;

pub use backup::outside;
#[cfg(feature = "json")]
pub use export::Exported;
#[cfg(feature = "json")]
pub use import::{Imported, import, import_with};
#[cfg(feature = "json")]
pub use json::{json_line, output_json};
pub use read::{Filter, History, Records, Selected, Tasks, last_change};
pub use repair::{RepairReport, repair};
pub use stats::{Graveyard, Stats};
pub use verify::Report;

use crate::error::{Damage, JournalError, OpenError};
use crate::id::{EncodedId, IdShape, TaskId};
use crate::journal::checkpoint::{Checkpoint, Salvage};
use crate::journal::judge::Position;
use crate::journal::lock::SharedLock;
use crate::journal::manifest::Manifest;
use crate::journal::scan::Scan;
use crate::journal::{Base, Entry};
use crate::state::{SeqNo, Timestamp};
use std::fmt;
use std::path::{Path, PathBuf};

/// The name in the [metadata](crate::Ledger::metadata) under which a ledger keeps a description of
/// its id type that it could learn only from an id.
pub const ID_SHAPE_NAME: &str = "taskledger.id_shape";

/// A ledger, opened to look into it.
///
/// While it is being opened, nobody can open the ledger for work; afterwards the ledger is free
/// again, and this shows what it was. Only where its log is very long (128 MiB) it stays locked
/// as long as this lives.
pub struct Inspection {
    path: PathBuf,
    manifest: Manifest,
    shape: IdShape,
    source: Source,
    logs: Vec<LogFrames>,
    end: Position,
    /// Up to where positions have been used: where it ends, unless it is damaged.
    numbered: Position,
    damage: Vec<Damage>,
    notes: Vec<String>,
    files: Vec<FileSize>,
    /// Held while the log is read from a file that its owner would change.
    lock: Option<SharedLock>,
}

/// What stands before the logs.
#[derive(Debug)]
enum Source {
    Nothing,
    Checkpoint(Checkpoint),
    Salvaged(Salvage),
}

/// A log, and which of its frames count, in order.
#[derive(Debug)]
struct LogFrames {
    name: String,
    scan: Scan,
    frames: Vec<usize>,
}

/// Something in the directory of the ledger, and what it takes on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileSize {
    /// Its name, escaped where it has to be.
    pub name: String,
    /// Bytes of the file, or of all files in the directory.
    pub bytes: u64,
}

impl Inspection {
    /// Opens the ledger at `path` to look into it. Writes nothing, creates nothing, waits for
    /// nobody.
    ///
    /// # Errors
    ///
    /// [`OpenError::Locked`] while a process has it open, and who; [`OpenError::NotADirectory`],
    /// [`OpenError::NotALedger`], [`OpenError::Newer`]; [`OpenError::Io`] also when there is
    /// nothing at the path. [`OpenError::Damaged`] only when nothing is left to tell which ledger
    /// it was: any other damage is in [`damage`](Self::damage).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        look::open(path.as_ref())
    }

    /// What was found wrong when it was opened. [`verify`](Self::verify) finds more, by reading
    /// everything.
    #[must_use]
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// When the ledger was created; `None` if that is not known any more.
    #[must_use]
    pub fn created_at(&self) -> Option<Timestamp> {
        Some(self.manifest.created_at).filter(|at| *at != Timestamp::default())
    }

    /// The random identity of the ledger, as it stands in all its files.
    #[must_use]
    pub fn ledger(&self) -> String {
        self.manifest.ledger.to_string()
    }

    /// What is known of the id type.
    #[must_use]
    pub const fn id_shape(&self) -> &IdShape {
        &self.shape
    }

    /// Whether the ids are of this type, as an open finds it.
    ///
    /// # Errors
    ///
    /// [`OpenError::OtherIdType`].
    pub fn check_id_type<K: TaskId>(&self) -> Result<(), OpenError> {
        let wanted = IdShape::of_type::<K>();
        if self.shape.compatible(&wanted) {
            return Ok(());
        }
        Err(OpenError::OtherIdType(format!("{}, not {wanted}", self.shape)))
    }

    /// The last record that is folded into the checkpoint: what came before it is known only in
    /// sum.
    #[must_use]
    pub fn checkpoint_seq(&self) -> SeqNo {
        self.base_seq()
    }

    /// The last record.
    #[must_use]
    pub const fn last_seq(&self) -> SeqNo {
        self.end.seq
    }

    /// What is in the directory, by name.
    #[must_use]
    pub fn files(&self) -> &[FileSize] {
        &self.files
    }

    /// The id as one line of text without control characters; [`parse_id`](Self::parse_id) reads it.
    #[must_use]
    pub fn id_text(&self, id: &EncodedId) -> String {
        self.shape.render(id.as_bytes())
    }

    /// The id that [`id_text`](Self::id_text) gave as this text.
    ///
    /// # Errors
    ///
    /// What was expected and where, in words.
    pub fn parse_id(&self, text: &str) -> Result<EncodedId, String> {
        self.shape.parse(text)
    }

    /// Epoch and metadata, as the last record leaves them.
    fn whole(&self) -> (Base, Vec<JournalError>) {
        let mut base = Base::default();
        match &self.source {
            Source::Nothing => {}
            Source::Checkpoint(checkpoint) => {
                base.epoch = checkpoint.summary().epoch;
                base.metadata = checkpoint.summary().metadata.clone();
            }
            Source::Salvaged(salvage) => {
                base.epoch = salvage.epoch;
                base.metadata = salvage.metadata.clone();
            }
        }
        let mut errors = Vec::new();
        for record in self.records(SeqNo::ZERO) {
            match record.map(|record| record.entry) {
                Ok(Entry::Ledger(event)) => base.told(&event),
                Ok(Entry::Task { .. }) => {}
                Err(error) => errors.push(error),
            }
        }
        (base, errors)
    }

    fn base_seq(&self) -> SeqNo {
        self.manifest.checkpoint.map(|at| at.last_seq).unwrap_or_default()
    }
}

impl fmt::Debug for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspection")
            .field("path", &self.path)
            .field("ledger", &self.manifest.ledger)
            .field("end", &self.end)
            .field("damage", &self.damage)
            .field("still_locked", &self.lock.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
