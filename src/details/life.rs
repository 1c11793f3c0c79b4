//! What outlasts the attempts of an id, until its life ends.

use super::TaskDetails;
use crate::state::{Fingerprint, SeqNo};

/// What is known of the life of an id beside its cell: of one that runs, or has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Life {
    /// Where it began; zero if nobody has asked yet, and then the fingerprint is not known either.
    pub(crate) since: SeqNo,
    /// Of the request that it serves.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// Whether an attempt has crashed, and nobody has said what came of it; `None` if nobody has asked.
    pub(crate) crashed: Option<bool>,
    /// How many of its attempts have ended, in this process, with whoever had begun them.
    pub(crate) left: u32,
}

impl Life {
    /// Nobody has asked.
    #[cfg(test)]
    pub(crate) const UNKNOWN: Self =
        Self { since: SeqNo::ZERO, fingerprint: None, crashed: None, left: 0 };

    /// As the details tell.
    pub(crate) fn of(details: &TaskDetails) -> Self {
        let TaskDetails { since, fingerprint, .. } = *details;
        Self { since, fingerprint, crashed: Some(details.has_crashed()), left: 0 }
    }

    /// With what the details, which may be older, tell of what is not known.
    pub(crate) fn or(self, details: &TaskDetails) -> Self {
        let read = Self::of(details);
        Self { crashed: self.crashed.or(read.crashed), left: self.left, ..read }
    }
}
