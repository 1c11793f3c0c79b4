//! Lists of ids, made by going through the map.

use super::Index;
use crate::id::EncodedId;
use crate::state::{SeqNo, TaskState};

impl Index {
    /// The ids of one part of the map, in the state or in any; `None` after the last part.
    pub(crate) fn ids_in_part(
        &self,
        part: usize,
        state: Option<TaskState>,
    ) -> Option<Vec<EncodedId>> {
        let part = self.parts.get(part)?;
        let mut ids = Vec::new();
        part.each(|id, cell| {
            if state.is_none_or(|state| cell.state == state) {
                ids.push(EncodedId::from_bytes(id));
            }
        });
        Some(ids)
    }

    /// The ids in a state whose last record comes after this one, in the order of those.
    pub(crate) fn changed_since(&self, state: TaskState, last: SeqNo) -> Vec<EncodedId> {
        let mut changed = Vec::new();
        for part in &self.parts {
            part.each(|id, cell| {
                if cell.state == state && cell.seq > last {
                    changed.push((cell.seq, EncodedId::from_bytes(id)));
                }
            });
        }
        changed.sort_unstable_by_key(|(seq, _)| *seq);
        changed.into_iter().map(|(_, id)| id).collect()
    }
}
