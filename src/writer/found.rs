//! What the writer is told of an id, and what an event makes of its life.

use crate::attempt;
use crate::details::Life;
use crate::state::{Cell, Event, Failure, TaskState, Tombstone};
use crate::submission::AttemptKey;

/// What is known of an id when a request comes to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) cell: Cell,
    /// Of a failed id.
    pub(crate) life: Life,
    /// Of a failed id, whose attempt that was.
    pub(crate) key: Option<AttemptKey>,
    /// All that is left of a success.
    pub(crate) tombstone: Option<Tombstone>,
}

impl Found {
    /// An id of which nothing is known.
    #[cfg(test)]
    pub(crate) const NOTHING: Self =
        Self { cell: Cell::ABSENT, life: Life::UNKNOWN, key: None, tombstone: None };

    /// As callers see it.
    pub(super) const fn state(&self) -> TaskState {
        if self.tombstone.is_some() { TaskState::Succeeded } else { self.cell.state }
    }
}

/// The life of an id after an event that leaves this cell. One that has ended, or has come to its success,
/// begins no other.
pub(super) fn life_after(mut life: Life, cell: Cell, event: &Event) -> Life {
    if !matches!(cell.state, TaskState::Running | TaskState::Failed) {
        return Life::default();
    }
    if let Event::Failed { failure: Failure::Cancelled(why) } = event {
        life.left += u32::from(attempt::ended_with_its_caller(why));
    }
    if let Event::Resolved { failure: Failure::Resolved(_) | Failure::Released(_) } = event {
        life.crashed = Some(false);
    }
    life
}
