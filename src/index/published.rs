//! What is published beside the cells: counts, and the exact sets of the states that must be listed.

use crate::details::Life;
use crate::id::EncodedId;
use crate::state::{Cell, SeqNo, TaskState};
use crate::submission::AttemptKey;
use std::collections::{BTreeMap, HashMap};

#[derive(Debug, Default)]
pub(super) struct Published {
    pub(super) counts: [usize; TaskState::ALL.len()],
    /// In the order in which they were put into the queue, by the positions of those records.
    pub(super) queued: BTreeMap<SeqNo, EncodedId>,
    /// The last of those records that was published.
    pub(super) last_queued: SeqNo,
    /// Whose attempt it was that failed, unless there is a verdict on that, and the life of the id.
    pub(super) failed: HashMap<EncodedId, (Option<AttemptKey>, Life)>,
    /// Who runs, and the life of the id.
    pub(super) running: HashMap<EncodedId, (Option<AttemptKey>, Life)>,
    pub(super) revoking: HashMap<EncodedId, Option<AttemptKey>>,
}

pub(super) const fn slot(state: TaskState) -> usize {
    match state {
        TaskState::NotFound => 0,
        TaskState::Queued => 1,
        TaskState::Running => 2,
        TaskState::Succeeded => 3,
        TaskState::Failed => 4,
        TaskState::Revoking => 5,
    }
}

impl Published {
    pub(super) fn moved(
        &mut self,
        id: EncodedId,
        before: Cell,
        cell: Cell,
        key: Option<AttemptKey>,
        life: Life,
    ) {
        let (from, to) = (before.state, cell.state);
        match from {
            TaskState::NotFound | TaskState::Succeeded => {}
            TaskState::Queued => _ = self.queued.remove(&before.seq),
            TaskState::Failed => _ = self.failed.remove(&id),
            TaskState::Running => _ = self.running.remove(&id),
            TaskState::Revoking => _ = self.revoking.remove(&id),
        }
        if from != TaskState::NotFound {
            self.count(from, |count| count.saturating_sub(1));
        }
        match to {
            TaskState::NotFound => return,
            TaskState::Succeeded => {}
            TaskState::Queued => {
                self.last_queued = self.last_queued.max(cell.seq);
                self.queued.insert(cell.seq, id);
            }
            TaskState::Failed => _ = self.failed.insert(id, (key, life)),
            TaskState::Running => _ = self.running.insert(id, (key, life)),
            TaskState::Revoking => _ = self.revoking.insert(id, key),
        }
        self.count(to, |count| count + 1);
    }

    pub(super) fn count(&mut self, state: TaskState, change: impl FnOnce(usize) -> usize) {
        if let Some(count) = self.counts.get_mut(slot(state)) {
            *count = change(*count);
        }
    }
}
