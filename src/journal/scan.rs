//! Finding frames in the raw file of a store, without the store.
//!
//! The store keeps values contiguous and uncompressed, and rewrites them at times, so that its file
//! holds every frame at least once, between bytes that are not ours:
//!
//! ```text
//! ..store.. TLframe\x01 [1..40] ..store.. TLframe\x01 [41..52] ..store.. TLframe\x01 [1..40] ..
//!           `-- offset 0x30, kept                              `-- the same again, dropped
//! ```
//!
//! A frame is found if and only if it is valid, of this ledger, holds records, does not lie within
//! another valid frame, and ends after the last record of the checkpoint. Frames that do not link
//! to the others are no error here: [`Scan::run`] tells what follows from a position, and what lies
//! beyond.
//!
//! Only the places of the frames are kept. Their bytes are read again when they are wanted, and
//! verified again, so that a log of any size can be read in bounded memory; [`Scan::load`] keeps the
//! bytes of a small one, for when the file is about to change.

use crate::error::JournalError;
use crate::journal::Record;
use crate::journal::chain::{Chain, LedgerId};
use crate::journal::frame::{self, FrameError, FrameHead, HEAD, Kind, MAGIC, MAX_FRAME, TAIL};
use crate::state::SeqNo;
use memchr::memmem::Finder;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

mod reader;

pub(crate) use reader::Reader;

/// Bytes read at once while searching.
const CHUNK: usize = 4 * 1024 * 1024;

/// Places collected before the first look for duplicates.
const FEW: usize = 64 * 1024;

/// A frame that was found, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameAt {
    pub(crate) first: u64,
    pub(crate) lead: u32,
    pub(crate) count: u32,
    pub(crate) chain: Chain,
    pub(crate) checksum: Chain,
    offset: u64,
    length: u32,
}

impl FrameAt {
    /// The position of its last record.
    pub(crate) const fn last(&self) -> u64 {
        self.first + (self.count as u64 - 1)
    }

    /// Bytes of the whole frame.
    pub(crate) const fn length(&self) -> u64 {
        self.length as u64
    }
}

/// The frames of one file, ordered by their first record.
#[derive(Debug)]
pub(crate) struct Scan {
    path: PathBuf,
    ledger: LedgerId,
    source: Source,
    frames: Vec<FrameAt>,
    /// Frames of other ledgers that were passed over.
    pub(crate) of_others: u64,
    /// Bytes of the file.
    pub(crate) file_bytes: u64,
}

/// Where the bytes of the frames are.
#[derive(Debug)]
enum Source {
    File(File),
    Memory(Vec<u8>),
}

/// What follows a position, dense and linked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Numbers of the frames in the [`Scan`], in order.
    pub(crate) frames: Vec<usize>,
    /// The last record of the run, or the position it was to follow.
    pub(crate) end: SeqNo,
    /// The chain there.
    pub(crate) chain: Chain,
    /// The first and the last record of what was found after `end` but does not follow it.
    pub(crate) beyond: Option<(SeqNo, SeqNo)>,
    /// Whether all that lies beyond belongs to a batch that begins no later than the gap: a batch
    /// that was never acknowledged, torn by a loss of power. Otherwise the gap was durable once.
    pub(crate) torn: bool,
    /// Where two different frames follow the same position, both valid. Nobody writes that.
    pub(crate) fork: Option<SeqNo>,
}

/// Finds the frames of `ledger` in the file at `path` that hold records after `base`.
///
/// # Errors
///
/// [`JournalError::Io`] when the file is missing or cannot be read.
pub(crate) fn scan_file(path: &Path, ledger: LedgerId, base: SeqNo) -> Result<Scan, JournalError> {
    scan_in_chunks(path, ledger, Wanted::Records { after: base }, CHUNK)
}

/// Finds the frames of a checkpoint of `ledger` that are still whole, whatever became of the rest.
/// They are ordered by their number; each is read by [`Reader::read`].
///
/// # Errors
///
/// [`JournalError::Io`] when the file is missing or cannot be read.
pub(crate) fn scan_checkpoint(path: &Path, ledger: LedgerId) -> Result<Scan, JournalError> {
    scan_in_chunks(path, ledger, Wanted::Checkpoint, CHUNK)
}

/// Whose the first valid frame of records in the file is. A missing file holds none.
///
/// # Errors
///
/// [`JournalError::Io`].
pub(crate) fn owner(path: &Path) -> Result<Option<LedgerId>, JournalError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(JournalError::io("open", path)(error)),
    };
    let finder = Finder::new(&MAGIC);
    let mut window = Vec::new();
    loop {
        let read = Read::by_ref(&mut file).take(CHUNK as u64).read_to_end(&mut window);
        let read = read.map_err(JournalError::io("read", path))?;
        for at in finder.find_iter(&window) {
            let bytes = window.get(at..).unwrap_or_default();
            let id = bytes.get(MAGIC.len()..).and_then(|bytes| bytes.first_chunk());
            let Some(ledger) = id.map(|id| LedgerId(*id)) else { continue };
            if frame::parse(ledger, bytes).is_ok_and(|(head, _)| head.kind == Kind::Records) {
                return Ok(Some(ledger));
            }
        }
        if read == 0 {
            return Ok(None);
        }
        // A frame may lie across the border.
        let seen = window.len().saturating_sub(MAX_FRAME);
        window.drain(..seen);
    }
}

impl Scan {
    /// The frames that were found, ordered by their first record.
    pub(crate) fn frames(&self) -> &[FrameAt] {
        &self.frames
    }

    /// Bytes of all the frames.
    pub(crate) fn frame_bytes(&self) -> u64 {
        self.frames.iter().map(FrameAt::length).sum()
    }

    /// The longest run of frames that follows the position `seq`, whose chain is `chain`.
    pub(crate) fn run(&self, seq: SeqNo, chain: Chain) -> Run {
        let (mut next, mut chain) = (seq.get().saturating_add(1), chain);
        let (mut frames, mut fork) = (Vec::new(), None);
        let mut from = self.frames.partition_point(|frame| frame.first < next);
        while let Some((number, frame, forks)) = self.follower(from, next, chain) {
            if forks {
                fork = Some(SeqNo::new(next));
                break;
            }
            frames.push(number);
            (next, chain) = (frame.last() + 1, frame.checksum);
            from = number + 1;
            while self.frames.get(from).is_some_and(|frame| frame.first < next) {
                from += 1;
            }
        }
        let beyond = self.frames.iter().filter(|frame| frame.last() >= next);
        let torn = fork.is_none()
            && beyond.clone().all(|frame| frame.first - u64::from(frame.lead) <= next);
        let beyond = beyond.fold(None, |span: Option<(u64, u64)>, frame| {
            let (first, last) = span.unwrap_or_else(|| (frame.first, frame.last()));
            Some((first.min(frame.first), last.max(frame.last())))
        });
        Run {
            frames,
            end: SeqNo::new(next - 1),
            chain,
            torn: torn && beyond.is_some(),
            beyond: beyond.map(|(first, last)| (SeqNo::new(first), SeqNo::new(last))),
            fork,
        }
    }

    /// All frames `before` a position that can be put in order, over gaps and forks: first what follows
    /// `seq`, then from the next frame on what follows that, and so on. Of frames that claim the same
    /// place the one counts from which it goes on furthest. For accepting a loss.
    pub(crate) fn salvage(&self, seq: SeqNo, chain: Chain, before: u64) -> Vec<usize> {
        let fits =
            |number: &usize| self.frames.get(*number).is_some_and(|frame| frame.last() < before);
        let mut run = self.run(seq, chain);
        let mut frames = Vec::new();
        loop {
            frames.extend(run.frames.iter().copied().take_while(fits));
            let next = run.end.get().saturating_add(1);
            let number = self.frames.partition_point(|frame| frame.first < next);
            let rest = self.frames.get(number..).unwrap_or_default();
            let mut left = (number..).zip(rest).filter(|(number, _)| fits(number)).peekable();
            let first = left.peek().map(|(_, frame)| frame.first);
            let claims = left.take_while(|(_, frame)| Some(frame.first) == first);
            let runs = claims.map(|(number, frame)| {
                (number, self.run(SeqNo::new(frame.last()), frame.checksum))
            });
            let Some((number, furthest)) = runs.max_by_key(|(_, run)| run.end) else {
                return frames;
            };
            frames.push(number);
            run = furthest;
        }
    }

    /// The first record of the first batch of which something was found.
    pub(crate) fn beginning(&self) -> Option<u64> {
        self.frames.iter().map(|frame| frame.first - u64::from(frame.lead)).min()
    }

    /// Whether these are the bytes of a whole frame that was not found.
    pub(crate) fn misses(&self, bytes: &[u8]) -> bool {
        let Ok((head, _)) = frame::parse(self.ledger, bytes) else { return false };
        let from = self.frames.partition_point(|frame| frame.first < head.first);
        let mut there = self.frames.iter().skip(from).take_while(|frame| frame.first == head.first);
        !there.any(|frame| frame.checksum == head.checksum && frame.chain == head.chain)
    }

    /// Keeps the bytes of all frames in memory, so that the file may change, unless they are more
    /// than `limit`. Returns whether they are kept.
    ///
    /// # Errors
    ///
    /// As [`Reader::read`].
    pub(crate) fn load(&mut self, limit: u64) -> Result<bool, JournalError> {
        let total = self.frame_bytes();
        if total > limit {
            return Ok(false);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(total).unwrap_or_default());
        let mut places = Vec::with_capacity(self.frames.len());
        let mut reader = self.reader();
        for frame in &self.frames {
            places.push(bytes.len() as u64);
            bytes.extend_from_slice(reader.read(frame)?);
        }
        for (frame, place) in self.frames.iter_mut().zip(places) {
            frame.offset = place;
        }
        self.source = Source::Memory(bytes);
        Ok(true)
    }

    /// Takes over the frames of another scan. The bytes of both are kept in memory.
    ///
    /// # Errors
    ///
    /// As [`Reader::read`].
    pub(crate) fn absorb(&mut self, mut other: Self) -> Result<(), JournalError> {
        self.load(u64::MAX)?;
        other.load(u64::MAX)?;
        let (Source::Memory(bytes), Source::Memory(more)) = (&mut self.source, other.source) else {
            return Ok(());
        };
        let base = bytes.len() as u64;
        bytes.extend(more);
        let moved = |frame: FrameAt| FrameAt { offset: base + frame.offset, ..frame };
        self.frames.extend(other.frames.into_iter().map(moved));
        settle(&mut self.frames);
        Ok(())
    }

    /// Reads frames again.
    pub(crate) const fn reader(&self) -> Reader<'_> {
        Reader::of(self)
    }

    /// Hands over the records of the frames with these numbers, in order.
    ///
    /// # Errors
    ///
    /// What `visit` returned, or as [`Reader::read`].
    pub(crate) fn visit(
        &self,
        frames: &[usize],
        mut visit: impl FnMut(&Record) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        self.visit_frames(frames, |records| records.iter().try_for_each(&mut visit))
    }

    /// As [`visit`](Self::visit), the records of a frame at once.
    ///
    /// # Errors
    ///
    /// As [`visit`](Self::visit).
    pub(crate) fn visit_frames(
        &self,
        frames: &[usize],
        mut visit: impl FnMut(Vec<Record>) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let mut reader = self.reader();
        for frame in frames.iter().filter_map(|number| self.frames.get(*number)) {
            visit(reader.records(frame)?)?;
        }
        Ok(())
    }

    /// The first frame from number `from` on that follows, and whether another one does as well.
    fn follower(&self, from: usize, next: u64, chain: Chain) -> Option<(usize, &FrameAt, bool)> {
        let mut follow = (from..)
            .zip(self.frames.get(from..).unwrap_or_default())
            .take_while(|(_, frame)| frame.first == next)
            .filter(|(_, frame)| frame.chain == chain);
        let (number, frame) = follow.next()?;
        Some((number, frame, follow.next().is_some()))
    }
}

/// As [`scan_file`], reading so many bytes at once.
fn scan_in_chunks(
    path: &Path,
    ledger: LedgerId,
    wanted: Wanted,
    chunk: usize,
) -> Result<Scan, JournalError> {
    let mut file = File::open(path).map_err(JournalError::io("open", path))?;
    let mut search = Search::of(ledger, wanted);
    let mut window = Vec::with_capacity(chunk + MAX_FRAME);
    loop {
        let read = (&mut file)
            .take(chunk as u64)
            .read_to_end(&mut window)
            .map_err(JournalError::io("read", path))?;
        let passed = search.pass(&window, read == 0);
        window.drain(..passed);
        search.at += passed as u64;
        if read == 0 {
            break;
        }
    }
    search.settle();
    Ok(Scan {
        path: path.into(),
        ledger,
        source: Source::File(file),
        frames: search.frames,
        of_others: search.of_others,
        file_bytes: search.at,
    })
}

struct Search<'a> {
    ledger: LedgerId,
    wanted: Wanted,
    finder: Finder<'a>,
    /// Where in the file the window begins.
    at: u64,
    frames: Vec<FrameAt>,
    /// How many of the frames were left when duplicates were dropped last.
    settled: usize,
    of_others: u64,
}

/// Which frames are kept.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Records { after: SeqNo },
    Checkpoint,
}

impl Wanted {
    const fn holds(self, head: &FrameHead) -> bool {
        match (head.kind, self) {
            (Kind::Records, Self::Records { after }) => head.last() > after.get(),
            (Kind::Records, Self::Checkpoint) => false,
            (
                Kind::Entries | Kind::Index | Kind::Metadata | Kind::Summary | Kind::Tombstones,
                Self::Records { .. },
            ) => false,
            (
                Kind::Entries | Kind::Index | Kind::Metadata | Kind::Summary | Kind::Tombstones,
                Self::Checkpoint,
            ) => true,
        }
    }
}

impl Search<'_> {
    fn of(ledger: LedgerId, wanted: Wanted) -> Self {
        let finder = Finder::new(&MAGIC);
        Self { ledger, wanted, finder, at: 0, frames: Vec::new(), settled: 0, of_others: 0 }
    }

    /// Takes what is in the window and returns how much of it is done with; the rest is to be seen
    /// again with more behind it, unless this is the `end` of the file.
    fn pass(&mut self, window: &[u8], end: bool) -> usize {
        let mut from = 0;
        loop {
            let rest = window.get(from..).unwrap_or_default();
            let Some(found) = self.finder.find(rest) else {
                // The magic may begin in the last bytes.
                let open = if end { 0 } else { (MAGIC.len() - 1).min(rest.len()) };
                return window.len() - open;
            };
            from += found;
            let bytes = window.get(from..).unwrap_or_default();
            match frame::parse(self.ledger, bytes) {
                Ok((head, _)) => {
                    self.take(&head, self.at + from as u64);
                    from += head.length;
                }
                Err(FrameError::Truncated { .. }) if !end => return from,
                Err(FrameError::OtherLedger(_)) => {
                    self.of_others += 1;
                    from += HEAD + TAIL;
                }
                Err(
                    FrameError::NotAFrame
                    | FrameError::Version(_)
                    | FrameError::Kind(_)
                    | FrameError::TooLong(_)
                    | FrameError::Count(_)
                    | FrameError::Truncated { .. }
                    | FrameError::Checksum
                    | FrameError::Position { .. }
                    | FrameError::Body(_),
                ) => from += MAGIC.len(),
            }
        }
    }

    fn take(&mut self, head: &FrameHead, offset: u64) {
        if !self.wanted.holds(head) {
            return;
        }
        self.frames.push(FrameAt {
            first: head.first,
            lead: head.lead,
            count: head.count,
            chain: head.chain,
            checksum: head.checksum,
            offset,
            length: u32::try_from(head.length).unwrap_or(u32::MAX),
        });
        if self.frames.len() > 2 * self.settled.max(FEW) {
            self.settle();
        }
    }

    fn settle(&mut self) {
        settle(&mut self.frames);
        self.settled = self.frames.len();
    }
}

/// Orders the frames and drops what was found twice.
fn settle(frames: &mut Vec<FrameAt>) {
    frames
        .sort_unstable_by_key(|frame| (frame.first, frame.checksum.0, frame.chain.0, frame.offset));
    frames.dedup_by_key(|frame| (frame.first, frame.checksum, frame.chain));
}

#[cfg(test)]
mod tests;
