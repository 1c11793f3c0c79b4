//! Accepting a loss.

use super::Inspection;
use crate::AcceptLoss;
use crate::error::{Damage, OpenError};
use crate::id::IdShape;
use crate::journal::open::{self, StoreOptions};
use crate::journal::{Journal, ballast, directory};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What [`repair`] found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairReport {
    /// What was wrong. If nothing was, nothing was done.
    pub damage: Vec<Damage>,
    /// What was lost, as it is recorded now; `None` if nothing was.
    pub lost: Option<String>,
    /// What was damaged without loss and has been rebuilt, a line each.
    pub repaired: Vec<String>,
    /// Where the damaged files are kept.
    pub evidence: Option<PathBuf>,
}

impl RepairReport {
    /// Whether the ledger was sound, and left alone.
    #[must_use]
    pub fn was_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Makes a damaged ledger one that opens: everything that can still be read is kept, what is gone
/// is gone, and that is recorded. **A task whose success was lost may run again.** A sound ledger
/// is left alone. The same as [`Builder::accept_loss`](crate::Builder::accept_loss), without
/// knowing the id type.
///
/// # Durability
///
/// When it returns `Ok`, the repaired ledger outlives the power, and the damaged files are kept in
/// `damaged/` inside the directory. If the process dies in it, the ledger is as damaged as before
/// or repaired.
///
/// # Errors
///
/// [`OpenError::Damaged`] if it is damaged and the loss is not accepted; otherwise as
/// [`Inspection::open`], and the failures of writing.
///
/// # Panics
///
/// None.
pub fn repair(path: impl AsRef<Path>, accept: AcceptLoss) -> Result<RepairReport, OpenError> {
    let path = path.as_ref();
    let found = Inspection::open(path)?.verify()?;
    let Some(first) = found.findings.first() else { return Ok(RepairReport::default()) };
    match accept {
        AcceptLoss::No => return Err(OpenError::Damaged(first.clone())),
        AcceptLoss::Yes => {}
    }
    let ballast = path.join(ballast::NAME).metadata().map_or(0, |found| found.len());
    let (mut journal, report) = open::open(&StoreOptions {
        path: path.to_owned(),
        lock_wait: Duration::ZERO,
        checkpoint_after: u64::MAX,
        ballast,
        accept_loss: true,
        store_deadline: Duration::from_secs(60),
        shape: IdShape::default().to_bytes(),
        judge_shape: Box::new(|_| Ok(())),
        judge_id: Box::new(|_| Ok(())),
    })?;
    journal.close().map_err(OpenError::from)?;
    drop(journal);
    let evidence = path.join(directory::DAMAGED);
    Ok(RepairReport {
        damage: found.findings,
        evidence: report.loss_accepted.is_some().then_some(evidence),
        lost: report.loss_accepted,
        repaired: report.repaired,
    })
}
