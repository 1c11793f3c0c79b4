//! A copy of a ledger that nobody has open.

use super::Inspection;
use crate::error::{BackupError, CreateError, JournalError};
use crate::journal::fresh::{self, Fresh, Origin};
use std::path::Path;

impl Inspection {
    /// Makes a copy of the ledger in the directory `path`: a new or an empty one. The ledger itself is left
    /// as it is: what was running when its process died is still running in the copy as well, until that is
    /// opened. For a ledger that is open there is [`Ledger::backup`](crate::Ledger::backup), which says what
    /// else there is to know of a copy. Reads everything; blocks.
    ///
    /// # Durability
    ///
    /// When it returns `Ok`, the copy is on disk. Until then there is no ledger at `path`.
    ///
    /// # Errors
    ///
    /// [`BackupError::Create`], with [`CreateError::Damaged`] when the ledger is damaged: accept its loss
    /// first, then copy what is left.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::Ledger;
    /// # use taskledger::dump::Inspection;
    /// # let dir = tempfile::tempdir()?;
    /// # let (path, copy) = (dir.path().join("ledger"), dir.path().join("copy"));
    /// # let ledger = Ledger::<u64>::open(&path).await?;
    /// # ledger.mark_succeeded(7).await?;
    /// # ledger.close().await?;
    /// Inspection::open(&path)?.backup(&copy)?;
    /// let (original, copy) = (Inspection::open(&path)?, Inspection::open(&copy)?);
    /// assert_eq!(original.last_seq(), copy.last_seq());
    /// # Ok(()) }
    /// ```
    pub fn backup(&self, path: impl AsRef<Path>) -> Result<(), BackupError> {
        self.backup_with(path, || ())
    }

    /// As [`backup`](Self::backup), telling of every task as it is copied.
    ///
    /// # Errors
    ///
    /// As [`backup`](Self::backup).
    pub fn backup_with(
        &self,
        path: impl AsRef<Path>,
        mut step: impl FnMut(),
    ) -> Result<(), BackupError> {
        if let Some(damage) = self.damage.first() {
            return Err(CreateError::Damaged(damage.clone()).into());
        }
        let fresh = Fresh::begin(path.as_ref())?;
        let copied = self.copy_to(fresh, &mut step);
        Ok(copied.map_err(CreateError::from)?)
    }

    fn copy_to(&self, fresh: Fresh, step: &mut dyn FnMut()) -> Result<(), JournalError> {
        let (base, errors) = self.whole();
        if let Some(error) = errors.into_iter().next() {
            return Err(error);
        }
        let origin = self.origin();
        let mut writer = fresh.write_checkpoint(&origin)?;
        for task in self.tasks() {
            let (id, details) = task?;
            writer.push(&id, &details)?;
            step();
        }
        writer.finish(base.epoch, &base.metadata, self.graves())?.check()?;
        fresh.finish(&origin, &[])
    }

    /// What a copy is to be a copy of.
    pub(super) fn origin(&self) -> Origin {
        Origin::of(&self.manifest, self.numbered)
    }
}

/// Whether something can be written at a path: not within the directory of a ledger, where it might take the
/// place of one of the ledger's own files.
///
/// # Errors
///
/// [`CreateError::Within`]; [`CreateError::Io`] when there is no telling where a relative path leads.
///
/// # Examples
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use taskledger::Ledger;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("ledger");
/// # Ledger::<u64>::open(&path).await?.close().await?;
/// assert!(taskledger::dump::outside(&dir.path().join("copy.jsonl")).is_ok());
/// assert!(taskledger::dump::outside(&path.join("manifest")).is_err());
/// # Ok(()) }
/// ```
pub fn outside(path: &Path) -> Result<(), CreateError> {
    let path = std::path::absolute(path).map_err(JournalError::io("find", path))?;
    fresh::outside(&path)
}
