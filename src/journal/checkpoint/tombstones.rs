//! What a checkpoint keeps of pruned successes: 16 bytes each, ascending, in frames of their own.

use super::stream::{Stream, Whole};
use super::{Checkpoint, END_BYTES};
use crate::error::JournalError;
use crate::journal::fault::damaged;
use crate::journal::frame::{FrameHead, Kind};
use crate::state::Tombstone;
use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;

/// Bytes of each.
const BYTES: usize = 16;

/// Takes the tombstones of a frame from `rest`, which are as many as its head says, and ascend after
/// `last`. Returns the last of them.
pub(super) fn judge(
    head: &FrameHead,
    rest: &mut &[u8],
    mut last: Option<Tombstone>,
) -> Result<Option<Tombstone>, String> {
    if rest.len() != head.count as usize * BYTES {
        return Err(format!("{} tombstones in {} bytes", head.count, rest.len()));
    }
    for tombstone in all_in(rest) {
        if last.is_some_and(|last| last >= tombstone) {
            return Err(format!("tombstone {tombstone} is out of order"));
        }
        last = Some(tombstone);
    }
    *rest = &[];
    Ok(last)
}

/// The tombstones in the body of a frame.
pub(super) fn all_in(body: &[u8]) -> impl Iterator<Item = Tombstone> + '_ {
    let all = body.chunks_exact(BYTES).filter_map(|bytes| bytes.first_chunk());
    all.map(|bytes| Tombstone::from_bytes(*bytes))
}

impl Checkpoint {
    /// All tombstones, ascending.
    pub(crate) fn tombstones(&self) -> Tombstones<'_> {
        let end = self.bytes - END_BYTES as u64;
        let stream = Stream::new(&self.path, &self.file, self.ledger, self.graves, end);
        Tombstones { checkpoint: self, stream, current: Vec::new().into_iter() }
    }
}

/// The tombstones of a [`Checkpoint`], one after the other.
pub(crate) struct Tombstones<'a> {
    checkpoint: &'a Checkpoint,
    stream: Stream<'a>,
    current: std::vec::IntoIter<Tombstone>,
}

impl Tombstones<'_> {
    /// The next one.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`], [`JournalError::Damaged`].
    pub(crate) fn next(&mut self) -> Result<Option<Tombstone>, JournalError> {
        loop {
            if let Some(tombstone) = self.current.next() {
                return Ok(Some(tombstone));
            }
            let Some(Whole { head, body, .. }) = self.stream.next()? else { return Ok(None) };
            if head.kind != Kind::Tombstones {
                let what = format!("frame {} holds no tombstones", head.first);
                return Err(damaged(&self.checkpoint.path, what));
            }
            self.current = all_in(body).collect::<Vec<_>>().into_iter();
        }
    }
}

/// Tombstones that came and went, merged into those that were there before.
pub(crate) struct Graves<'a> {
    old: Option<Tombstones<'a>>,
    ahead: Option<Tombstone>,
    changes: Peekable<btree_map::IntoIter<Tombstone, bool>>,
}

impl<'a> Graves<'a> {
    /// Of each change: whether it is there now.
    pub(crate) fn new(old: Option<&'a Checkpoint>, changes: BTreeMap<Tombstone, bool>) -> Self {
        let old = old.map(Checkpoint::tombstones);
        Self { old, ahead: None, changes: changes.into_iter().peekable() }
    }

    /// The next one that is there.
    ///
    /// # Errors
    ///
    /// Those of reading what was there before.
    pub(crate) fn next(&mut self) -> Result<Option<Tombstone>, JournalError> {
        loop {
            if self.ahead.is_none() {
                if let Some(old) = &mut self.old {
                    self.ahead = old.next()?;
                }
            }
            let before = |ahead: &mut Tombstone| {
                self.changes.peek().is_none_or(|(changed, _)| *ahead < *changed)
            };
            if let Some(old) = self.ahead.take_if(before) {
                return Ok(Some(old));
            }
            let Some((changed, there)) = self.changes.next() else { return Ok(None) };
            self.ahead.take_if(|ahead| *ahead == changed);
            if there {
                return Ok(Some(changed));
            }
        }
    }
}
