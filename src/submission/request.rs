//! What can be asked of the writer.

use crate::details::Life;
use crate::id::EncodedId;
use crate::state::{Event, Fingerprint, Output, SeqNo, SuccessBy};
use std::hash::{BuildHasherDefault, Hasher};

/// Names one attempt (or revoke) within this process, from its submission to its end. The writer
/// knows which fencing token belongs to it, so an end can be submitted by one that has not heard
/// of its own acceptance yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AttemptKey(pub(crate) u64);

/// Hashes keys of attempts. Nobody chooses them: they are counted.
pub(crate) type ByKey = BuildHasherDefault<Counted>;

/// See [`ByKey`].
#[derive(Debug, Default)]
pub(crate) struct Counted(u64);

impl Hasher for Counted {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u64(&mut self, number: u64) {
        // Spreads them over all bits: tables look at the highest and at the lowest. The multiplier is 2^64
        // by the golden ratio (Knuth, The Art of Computer Programming, volume 3, 6.4).
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// How an attempt begins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Begin {
    /// Of the request that it serves.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// The attempt of the scope within which it runs.
    pub(crate) within: Option<Within>,
    /// Only if this is the last record of its id.
    pub(crate) after: Option<SeqNo>,
    /// It comes out of the queue, and this is its life: nobody else starts what is queued, and that starts
    /// nothing else.
    pub(crate) queued: Option<Life>,
    /// It was found out that what has crashed before had no effect.
    pub(crate) settled: bool,
}

/// An attempt within which others run. Its end is recorded after theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Within {
    pub(crate) key: AttemptKey,
    pub(crate) id: EncodedId,
}

/// A change that somebody asks for.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// Start an attempt.
    Start { id: EncodedId, key: AttemptKey, begin: Begin },
    /// Start taking a success back.
    StartRevoke { id: EncodedId, key: AttemptKey },
    /// The attempt or revoke with this key ended in this event.
    End { id: EncodedId, key: AttemptKey, event: Event },
    /// The attempt with this key tells how far it has got.
    Note { id: EncodedId, key: AttemptKey, note: String },
    /// This happened to it, says somebody outside; with a position, only if that is its last record.
    Change { id: EncodedId, event: Event, after: Option<SeqNo> },
    /// It has succeeded, as somebody has found out, who says this of it: both are recorded, or neither.
    /// With a position, only if that is its last record.
    Resolve { id: EncodedId, note: Option<String>, output: Output, after: Option<SeqNo> },
    /// Drop what is old of it, in this event, unless a run is at it; only if this is its last record.
    Prune { id: EncodedId, event: Event, after: SeqNo },
    /// Set or remove a name of the metadata.
    SetMetadata { name: String, value: Option<Vec<u8>> },
}

impl Request {
    /// It succeeded, says somebody outside.
    pub(crate) const fn mark(id: EncodedId) -> Self {
        let event = Event::Succeeded { by: SuccessBy::Mark, output: Output::Absent };
        Self::Change { id, event, after: None }
    }

    /// Drop all that is known of it.
    pub(crate) const fn forget(id: EncodedId) -> Self {
        Self::Change { id, event: Event::Forgotten, after: None }
    }

    /// The id that it would change.
    pub(crate) const fn id(&self) -> Option<&EncodedId> {
        match self {
            Self::Start { id, .. }
            | Self::StartRevoke { id, .. }
            | Self::End { id, .. }
            | Self::Note { id, .. }
            | Self::Change { id, .. }
            | Self::Resolve { id, .. }
            | Self::Prune { id, .. } => Some(id),
            Self::SetMetadata { .. } => None,
        }
    }

    /// Whether it works on a success of which only a tombstone may be left.
    pub(crate) const fn opens_a_grave(&self) -> bool {
        matches!(
            self,
            Self::StartRevoke { .. } | Self::Change { event: Event::Forgotten, after: None, .. }
        )
    }

    /// Whether something begins to live with it.
    pub(crate) const fn begins(&self) -> bool {
        matches!(self, Self::Start { .. } | Self::StartRevoke { .. })
    }

    /// Whether it is the note of something that runs. It has a permit of its own kind.
    pub(crate) const fn is_note(&self) -> bool {
        matches!(self, Self::Note { .. })
    }

    /// Whether its submitter took a permit for it, freed with its answer. The ends of attempts
    /// need none: they are bounded by what runs. Of many that are submitted together only
    /// some may have one: see [`submit_all`](super::Submissions::submit_all).
    pub(crate) const fn holds_permit(&self) -> bool {
        match self {
            Self::Start { .. }
            | Self::StartRevoke { .. }
            | Self::Change { .. }
            | Self::Resolve { .. }
            | Self::Prune { .. }
            | Self::SetMetadata { .. } => true,
            Self::End { .. } | Self::Note { .. } => false,
        }
    }
}
