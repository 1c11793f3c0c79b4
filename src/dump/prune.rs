//! What pruning would do to a ledger that nobody has open.

use super::Inspection;
use crate::details::TaskDetails;
use crate::error::{JournalError, PruneError, ReadError};
use crate::retention::{Pruned, Retention};
use crate::state::{Failure, TaskState, Timestamp};

impl Inspection {
    /// What [`Ledger::prune`](crate::Ledger::prune) would do after the next open. Changes nothing: what was
    /// running when its process died is still to be found by that open, and counts here as what it will be
    /// then, crashed just now. Reads everything; blocks.
    ///
    /// # Errors
    ///
    /// [`PruneError`]; [`PruneError::Read`] also for a damaged ledger, which does not open.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # use taskledger::{Ledger, Retention};
    /// # use taskledger::dump::Inspection;
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("ledger");
    /// # let ledger = Ledger::<u64>::open(&path).await?;
    /// # ledger.mark_succeeded(7).await?;
    /// # ledger.close().await?;
    /// let all = Retention::new().succeeded(Duration::ZERO);
    /// assert_eq!(Inspection::open(&path)?.prunable(&all)?.succeeded, 1);
    /// # Ok(()) }
    /// ```
    pub fn prunable(&self, retention: &Retention) -> Result<Pruned, PruneError> {
        if let Some(damage) = self.damage.first() {
            return Err(read(JournalError::Damaged(damage.clone())));
        }
        let mut newest = Timestamp::default();
        for record in self.records(crate::state::SeqNo::ZERO) {
            newest = newest.max(record.map_err(read)?.at);
        }
        let limits = retention.limits(newest)?;
        let mut pruned = Pruned::default();
        for task in self.tasks() {
            let mut details = task.map_err(read)?.1;
            newest = newest.max(details.newest());
            match details.state() {
                TaskState::Running => {
                    details = TaskDetails {
                        failure: Some(Failure::Crashed),
                        ended_at: Some(limits.now),
                        ..details
                    };
                    details.cell.state = TaskState::Failed;
                }
                // The revoke was interrupted: a success again, as old as it was.
                TaskState::Revoking => details.cell.state = TaskState::Succeeded,
                TaskState::NotFound
                | TaskState::Queued
                | TaskState::Succeeded
                | TaskState::Failed => {}
            }
            pruned.count(limits.fate(&details));
        }
        // Now that all times are known.
        retention.limits(newest)?;
        Ok(pruned)
    }
}

fn read(error: JournalError) -> PruneError {
    PruneError::Read(ReadError::Journal(error))
}
