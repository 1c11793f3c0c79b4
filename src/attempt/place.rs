//! An attempt among others, within which it runs and which run within it.

use super::Live;
use crate::error::Poison;
use crate::id::EncodedId;
use crate::scope::{Membership, Node};
use crate::shared::Shared;
use crate::submission::{Answer, AttemptKey};
use crate::sync::Arc;
use crate::wake;
use std::pin::pin;

/// Where an attempt stands in a tree of scopes.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// The scope that it is.
    pub(crate) scope: Option<Arc<Node>>,
    /// Its place in the one that it runs within.
    pub(crate) membership: Option<Membership>,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Dropped by its runtime. It leaves when nothing runs within it any more.
        if let Some(scope) = self.scope.take() {
            let membership = self.membership.take();
            scope.end(move || drop(membership));
        }
    }
}

/// An attempt whose end waits for those of what ran within it: dropped by a runtime, they may leave
/// their scope a little before they say that they have ended.
pub(super) struct Later {
    shared: Arc<Shared>,
    id: EncodedId,
    key: AttemptKey,
}

impl Later {
    pub(super) fn of(live: &Live) -> Self {
        Self { shared: Arc::clone(live.shared()), id: live.id.clone(), key: live.seat.key() }
    }

    /// Waits until its end is on record.
    pub(super) async fn ended(self) -> Result<Answer, Poison> {
        let index = &self.shared.index;
        let registered = index.register(&self.id);
        loop {
            let mut changed = pin!(registered.notified());
            changed.as_mut().enable();
            if let Some(poison) = self.shared.poisoned() {
                return Err(poison);
            }
            if index.runs(self.id.as_bytes()) != Some(self.key) {
                return Ok(Answer::Done(index.cell(self.id.as_bytes())));
            }
            wake::guarded(changed).await;
        }
    }
}
