//! What the writer does beside recording.

use crate::details::TaskDetails;
use crate::error::{CheckpointError, JournalError};
use crate::id::EncodedId;
use crate::journal::{Copier, Reader};
use crate::state::SeqNo;
use std::fmt;
use tokio::sync::oneshot;

/// Work of the writer that records nothing, done between groups, after the one it was submitted with.
#[derive(Debug)]
pub(crate) enum Errand {
    /// Read the details of an id, if it is known by then.
    Read { id: EncodedId, reply: oneshot::Sender<Result<Option<TaskDetails>, JournalError>> },
    /// Fold everything recorded so far into a checkpoint, and hand out what copies it if `copy` says
    /// so.
    Checkpoint { copy: bool, reply: oneshot::Sender<Checkpointed> },
    /// Hand out what reads the last checkpoint, and up to where that goes.
    Reader { reply: oneshot::Sender<ReaderOf> },
}

impl Errand {
    /// Whether nobody waits for it any more.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Read { reply, .. } => reply.is_closed(),
            Self::Checkpoint { reply, .. } => reply.is_closed(),
            Self::Reader { reply } => reply.is_closed(),
        }
    }
}

/// What became of a checkpoint that was asked for.
pub(crate) type Checkpointed = Result<CopyOf, CheckpointError>;

/// What copies a checkpoint, if that was wanted and the journal can.
#[derive(Clone, Default)]
pub(crate) struct CopyOf(pub(crate) Option<Copier>);

impl fmt::Debug for CopyOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CopyOf").field(&self.0.is_some()).finish()
    }
}

/// What reads a checkpoint, if there is one and the journal can.
#[derive(Default)]
pub(crate) struct ReaderOf(pub(crate) Option<(SeqNo, Reader)>);

impl fmt::Debug for ReaderOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReaderOf").field(&self.0.as_ref().map(|(last, _)| last)).finish()
    }
}
