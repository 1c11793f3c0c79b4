//! Reading all entries of a checkpoint, and judging each frame of them on the way.

use super::entry::{Borrowed, EntriesOf};
use super::stream::{Stream, Whole};
use super::{Checkpoint, END_BYTES, HEAD_BYTES, head_checksum, writer};
use crate::details::TaskDetails;
use crate::error::JournalError;
use crate::id::EncodedId;
use crate::journal::chain::Chain;
use crate::journal::fault::damaged;
use crate::journal::frame::{FrameHead, HEAD, Kind, claimed as claimed_of};
use crate::state::{Cell, TaskState, Timestamp};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use xxhash_rust::xxh3::Xxh3;

/// Bytes of the shortest entry: the length of its id, state, what is present, attempt and position.
const SHORTEST: u64 = 5;

impl Checkpoint {
    /// All entries in order. When it ends without an error, every byte of the file was verified.
    pub(crate) fn entries(&self) -> Entries<'_> {
        Entries { frames: Frames::of(self), current: Vec::new().into_iter() }
    }

    /// About how many ids of which length it has: those of a frame are taken to be as long as its first.
    /// No more than there is room for in the file, whatever it says, since memory is asked for as many.
    pub(crate) fn lengths(&self) -> Vec<(usize, usize)> {
        let told = self.summary.counts.iter().fold(0_u64, |all, count| all.saturating_add(*count));
        let mut left = told.min(self.bytes / SHORTEST);
        let mut lengths = BTreeMap::<usize, usize>::new();
        for place in &self.places {
            let mut head = [0; HEAD];
            // What cannot be read is found later, and told.
            let claimed = self.file.read_exact_at(&mut head, place.offset).ok();
            let claimed = claimed.and_then(|()| claimed_of(&head)).unwrap_or(0);
            let ids = u64::from(claimed).min(left);
            left -= ids;
            *lengths.entry(place.first.as_bytes().len()).or_default() += ids as usize;
        }
        lengths.into_iter().collect()
    }

    /// The same of each id that memory keeps, and the newest time that is told of any.
    pub(crate) fn cells(&self) -> Cells<'_> {
        Cells { frames: Frames::of(self), newest: Timestamp::default() }
    }
}

/// The entries of a [`Checkpoint`], one after the other.
pub(crate) struct Entries<'a> {
    frames: Frames<'a>,
    current: std::vec::IntoIter<(EncodedId, TaskDetails)>,
}

impl Entries<'_> {
    /// The next entry; `None` when there is none left and the whole file was found right.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`], [`JournalError::Damaged`].
    pub(crate) fn next(&mut self) -> Result<Option<(EncodedId, TaskDetails)>, JournalError> {
        loop {
            if let Some(entry) = self.current.next() {
                return Ok(Some(entry));
            }
            let mut entries = Vec::new();
            let details = |entry: Borrowed<'_>| TaskDetails::from(entry);
            if !self.frames.next(&mut entries, details, TaskDetails::state)? {
                return Ok(None);
            }
            self.current = entries.into_iter();
        }
    }
}

/// What memory keeps of the entries of a [`Checkpoint`].
pub(crate) struct Cells<'a> {
    frames: Frames<'a>,
    /// The newest time that was told of any id so far.
    pub(crate) newest: Timestamp,
}

impl Cells<'_> {
    /// At least so many, and what else is in the last frame of them; none when there are none left
    /// and the whole file was found right.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`], [`JournalError::Damaged`].
    pub(crate) fn next(&mut self, least: usize) -> Result<Vec<(EncodedId, Cell)>, JournalError> {
        const MOST_IN_A_FRAME: usize = 2048;
        let mut cells = Vec::with_capacity(least + MOST_IN_A_FRAME);
        let newest = &mut self.newest;
        let mut cell = |entry: Borrowed<'_>| {
            *newest = entry.newest().max(*newest);
            entry.cell
        };
        while cells.len() < least && self.frames.next(&mut cells, &mut cell, |cell| cell.state)? {}
        Ok(cells)
    }
}

/// The frames of a [`Checkpoint`], one after the other.
struct Frames<'a> {
    checkpoint: &'a Checkpoint,
    stream: Stream<'a>,
    whole: Xxh3,
    chain: Chain,
    frames: u64,
    last_id: Option<EncodedId>,
    counts: [u64; TaskState::ALL.len()],
    ended: bool,
}

impl<'a> Frames<'a> {
    fn of(checkpoint: &'a Checkpoint) -> Self {
        let Checkpoint { path, file, ledger, bytes, head, .. } = checkpoint;
        let mut whole = Xxh3::new();
        whole.update(head);
        Self {
            checkpoint,
            stream: Stream::new(path, file, *ledger, HEAD_BYTES as u64, bytes - END_BYTES as u64),
            whole,
            chain: head_checksum(head),
            frames: 0,
            last_id: None,
            counts: [0; TaskState::ALL.len()],
            ended: false,
        }
    }

    /// Appends what `take` makes of the entries of the next frame. False when there is none left, and
    /// the whole file was found right.
    fn next<T>(
        &mut self,
        out: &mut Vec<(EncodedId, T)>,
        mut take: impl FnMut(Borrowed<'_>) -> T,
        state: impl Fn(&T) -> TaskState,
    ) -> Result<bool, JournalError> {
        if self.ended {
            return Ok(false);
        }
        let checkpoint = self.checkpoint;
        let before = out.len();
        let offset = self.stream.at;
        let Some(Whole { head, body, bytes }) = self.stream.next()? else {
            self.end()?;
            return Ok(false);
        };
        self.whole.update(bytes);
        let linked = (head.first, head.chain) == (self.frames, self.chain);
        let holds_entries = head.kind == Kind::Entries;
        if holds_entries {
            let wrong = |what| damaged(&checkpoint.path, format!("frame {}: {what}", head.first));
            let mut entries =
                EntriesOf::new(checkpoint.summary.last_seq, &head, body).map_err(wrong)?;
            while let Some(entry) = entries.next_borrowed().map_err(wrong)? {
                out.push((EncodedId::from_bytes(entry.id), take(entry)));
            }
        }
        let at_tail = offset >= checkpoint.tail;
        if !linked || at_tail == holds_entries {
            return Err(self.damaged(format!("frame {} does not follow", head.first)));
        }
        if holds_entries {
            let found = out.get(before..).unwrap_or_default();
            if !self.is_named(offset, &head, found.first().map(|(id, _)| id)) {
                return Err(self.damaged(format!("frame {} is not in the index", head.first)));
            }
            self.judge(found, state)?;
        }
        self.frames += 1;
        self.chain = head.checksum;
        Ok(true)
    }

    /// Whether the index says of the frame where it is and with which id it begins.
    fn is_named(&self, offset: u64, head: &FrameHead, first: Option<&EncodedId>) -> bool {
        let number = usize::try_from(self.frames).ok();
        number.and_then(|number| self.checkpoint.places.get(number)).is_some_and(|place| {
            place.offset == offset
                && place.length as usize == head.length
                && first == Some(&place.first)
        })
    }

    /// Ids ascend, within a frame and over its end.
    fn judge<T>(
        &mut self,
        entries: &[(EncodedId, T)],
        state: impl Fn(&T) -> TaskState,
    ) -> Result<(), JournalError> {
        let mut last = self.last_id.as_ref();
        for (id, told) in entries {
            if last.is_some_and(|last| *last >= *id) {
                return Err(self.damaged(format!("id {id:?} is out of order")));
            }
            if let Some(count) = self.counts.get_mut(writer::place_of(state(told))) {
                *count += 1;
            }
            last = Some(id);
        }
        self.last_id = last.cloned();
        Ok(())
    }

    /// After the last frame: holds what was counted and summed up against the end.
    fn end(&mut self) -> Result<(), JournalError> {
        let checkpoint = self.checkpoint;
        let mut end = [0; END_BYTES];
        let at = checkpoint.bytes - END_BYTES as u64;
        checkpoint
            .file
            .read_exact_at(&mut end, at)
            .map_err(JournalError::io("read", &checkpoint.path))?;
        if let Some((before, checksum)) = end.split_last_chunk() {
            self.whole.update(before);
            if self.whole.digest() != u64::from_le_bytes(*checksum) {
                return Err(self.damaged("the checksum of the whole file is wrong"));
            }
        }
        if self.counts != checkpoint.summary.counts {
            return Err(self.damaged("the summary counts other entries"));
        }
        self.ended = true;
        Ok(())
    }

    fn damaged(&self, what: impl Into<String>) -> JournalError {
        damaged(&self.checkpoint.path, what)
    }
}
