//! One entry of a checkpoint: an id and all that is known of it, small.
//!
//! ```text
//! id         bytes, with their length in front
//! shape      1   state (1 queued, 2 running, 3 succeeded, 4 failed, 5 revoking)
//!                + 8 * succeeded by (0 nobody, 1 the attempt, 2 a mark, 3 somebody who resolved it)
//!                + 128 if there is a second byte of what is present (since format version 2)
//! present    1   which of the optional fields follow, lowest bit first
//! more       1   the second byte
//! attempt    u32
//! back       u64 distance from the entry's last record to the checkpoint's
//! epoch      u64 (bit 0)
//! queued     i64 (bit 1)   times, each as distance to the present one before it, the first
//! started    i64 (bit 2)   as distance to the base of the frame, in microseconds
//! ended      i64 (bit 3)
//! revoking   i64 (bit 4)
//! failure        (bit 5)   as in wire.rs
//! revoke failure (bit 6)
//! output         (bit 7)   unless absent
//! since      u64 (more, bit 0)   distance from the first record of its life to its last one
//! fingerprint    (more, bit 1)   16 bytes
//! notes          (more, bit 2)   their number u8, then of each its time, as the times above, and text
//! pinned         (more, bit 3)   nothing follows
//! parent         (more, bit 4)   bytes, with their length in front (since format version 3, as the next)
//! payload        (more, bit 5)   bytes, with their length in front
//! crashed before (more, bit 6)   nothing follows (since format version 3)
//!
//! id "\x01a" succeeded in attempt 1 of epoch 1, last record 7 of 9, from the base of
//! the times for 2 us, output c0:    02 01 61  0b  8d  01  02  01  00 04  01 01 c0
//! ```
//!
//! An entry is valid if and only if all its fields are there, state and nobody-or-who are known, the
//! id is not longer than an id may be, and `back` leads to record 1 or later.

use crate::details::{MAX_NOTES, Note, TaskDetails};
use crate::id::{EncodedId, MAX_ID_BYTES};
use crate::journal::codec;
use crate::journal::frame::{FrameHead, ITEM_LIMIT};
use crate::journal::wire::{BytesWire, FailureWire, OutputWire};
use crate::state::{
    Attempt, Cell, Epoch, Failure, Fingerprint, Output, Parent, SeqNo, SuccessBy, TaskState,
    Timestamp,
};
use serde::Deserialize;

/// In the shape: what is present takes a second byte.
const MORE: u8 = 128;

/// What the entries of one frame are measured from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// The last record of the checkpoint.
    pub(super) last_seq: SeqNo,
    /// The base of the times.
    pub(super) at: u64,
}

impl Origin {
    /// For a frame that begins with these details.
    pub(super) fn of(last_seq: SeqNo, details: &TaskDetails) -> Self {
        let at = times(details).into_iter().flatten().next();
        Self { last_seq, at: at.map_or(0, Timestamp::as_micros) }
    }
}

/// The entries in the body of a frame, read one after the other.
pub(super) struct EntriesOf<'a> {
    origin: Origin,
    left: u32,
    rest: &'a [u8],
}

impl<'a> EntriesOf<'a> {
    pub(super) fn new(last_seq: SeqNo, head: &FrameHead, body: &'a [u8]) -> Result<Self, String> {
        let mut rest = body;
        let origin = Origin { last_seq, at: field(&mut rest)? };
        Ok(Self { origin, left: head.count, rest })
    }

    /// The next entry; `None` when all that were promised are read and nothing is left over.
    pub(super) fn next(&mut self) -> Result<Option<(EncodedId, TaskDetails)>, String> {
        Ok(self.next_borrowed()?.map(|entry| (EncodedId::from_bytes(entry.id), entry.into())))
    }

    /// The same, and nothing is copied: for who wants only a part of it.
    pub(super) fn next_borrowed(&mut self) -> Result<Option<Borrowed<'a>>, String> {
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            Borrowed::decode(&mut self.rest, self.origin).map(Some)
        } else if self.rest.is_empty() {
            Ok(None)
        } else {
            Err(format!("{} bytes too many", self.rest.len()))
        }
    }
}

/// Appends an entry. `None`, and nothing appended, if nothing is known of the id or its last record
/// lies after the checkpoint's.
pub(super) fn encode_entry(
    out: &mut Vec<u8>,
    origin: Origin,
    id: &EncodedId,
    details: &TaskDetails,
) -> Option<()> {
    let more = more(details);
    let shape = state_code(details.cell.state)? | by_code(details.succeeded_by) << 3;
    let shape = if more == 0 { shape } else { shape | MORE };
    let back = origin.last_seq.get().checked_sub(details.cell.seq.get())?;
    codec::encode_into(out, &BytesWire(id.as_bytes()));
    out.extend_from_slice(&[shape, present(details)]);
    if more != 0 {
        out.push(more);
    }
    codec::encode_into(out, &details.cell.attempt.get());
    codec::encode_into(out, &back);
    if let Some(epoch) = details.epoch {
        codec::encode_into(out, &epoch.get());
    }
    let mut before = origin.at;
    for time in times(details).into_iter().flatten() {
        codec::encode_into(out, &(time.as_micros().wrapping_sub(before) as i64));
        before = time.as_micros();
    }
    for failure in [&details.failure, &details.revoke_failure].into_iter().flatten() {
        codec::encode_into(out, &FailureWire::from(failure));
    }
    if details.output != Output::Absent {
        codec::encode_into(out, &OutputWire::from(&details.output));
    }
    if details.since != SeqNo::ZERO {
        let back = details.cell.seq.get().checked_sub(details.since.get())?;
        codec::encode_into(out, &back);
    }
    if let Some(fingerprint) = details.fingerprint {
        out.extend_from_slice(&fingerprint.to_bytes());
    }
    if !details.notes.is_empty() {
        out.push(u8::try_from(details.notes.len()).ok()?);
    }
    for note in &details.notes {
        codec::encode_into(out, &(note.at.as_micros().wrapping_sub(before) as i64));
        before = note.at.as_micros();
        codec::encode_into(out, &note.text.as_str());
    }
    if let Some(parent) = &details.parent {
        codec::encode_into(out, &BytesWire(parent.as_bytes()));
    }
    if let Some(payload) = &details.payload {
        codec::encode_into(out, &BytesWire(payload));
    }
    Some(())
}

/// An entry whose id, texts and bytes are those of the frame.
pub(super) struct Borrowed<'a> {
    pub(super) id: &'a [u8],
    pub(super) cell: Cell,
    epoch: Option<Epoch>,
    /// Queued, started, ended, revoking.
    times: [Option<Timestamp>; 4],
    failure: Option<FailureWire<'a>>,
    revoke_failure: Option<FailureWire<'a>>,
    succeeded_by: Option<SuccessBy>,
    output: Option<OutputWire<'a>>,
    since: SeqNo,
    fingerprint: Option<[u8; 16]>,
    notes: Vec<(Timestamp, &'a str)>,
    parent: Option<BytesWire<'a>>,
    payload: Option<BytesWire<'a>>,
    pinned: bool,
    crashed_before: bool,
}

impl<'a> Borrowed<'a> {
    /// Reads the entry at the front of `rest`.
    fn decode(rest: &mut &'a [u8], origin: Origin) -> Result<Self, String> {
        let BytesWire(id) = field(rest)?;
        if id.len() > MAX_ID_BYTES {
            return Err(format!("an id of {} bytes", id.len()));
        }
        let (shape, present): (u8, u8) = (field(rest)?, field(rest)?);
        let has = |bit: u8| present & 1 << bit != 0;
        let more: u8 = if shape & MORE == 0 { 0 } else { field(rest)? };
        let has_more = |bit: u8| more & 1 << bit != 0;
        if more > 0b111_1111 {
            return Err(format!("an entry with {more:08b}"));
        }
        let attempt = Attempt::new(field(rest)?);
        let back: u64 = field(rest)?;
        let seq = origin.last_seq.get().checked_sub(back).filter(|seq| *seq > 0);
        let seq = SeqNo::new(seq.ok_or_else(|| format!("an entry goes back {back}"))?);
        let epoch = has(0).then(|| field(rest)).transpose()?.map(Epoch::new);
        let mut before = origin.at;
        let mut time = |there: bool, rest: &mut &[u8]| -> Result<Option<Timestamp>, String> {
            if !there {
                return Ok(None);
            }
            before = before.wrapping_add(field::<i64>(rest)? as u64);
            Ok(Some(Timestamp::from_micros(before)))
        };
        let queued_at = time(has(1), rest)?;
        let started_at = time(has(2), rest)?;
        let ended_at = time(has(3), rest)?;
        let revoke_started_at = time(has(4), rest)?;
        let failure = has(5).then(|| field::<FailureWire<'_>>(rest)).transpose()?;
        let revoke_failure = has(6).then(|| field::<FailureWire<'_>>(rest)).transpose()?;
        let output = has(7).then(|| field::<OutputWire<'_>>(rest)).transpose()?;
        let since = if has_more(0) { Some(field::<u64>(rest)?) } else { None };
        let since =
            since.map_or(Some(0), |back| seq.get().checked_sub(back).filter(|since| *since > 0));
        let since = SeqNo::new(since.ok_or("an entry begins before the log")?);
        let fingerprint = has_more(1).then(|| field::<[u8; 16]>(rest)).transpose()?;
        let count: u8 = if has_more(2) { field(rest)? } else { 0 };
        if usize::from(count) > MAX_NOTES || has_more(2) != (count > 0) {
            return Err(format!("an entry with {count} notes"));
        }
        let mut notes = Vec::new();
        for _ in 0..count {
            let at = time(true, rest)?.unwrap_or_default();
            notes.push((at, field::<&str>(rest)?));
        }
        let parent = has_more(4).then(|| field::<BytesWire<'_>>(rest)).transpose()?;
        if parent.is_some_and(|parent| parent.0.len() > MAX_ID_BYTES) {
            return Err("a parent that is longer than an id".to_owned());
        }
        let payload = has_more(5).then(|| field::<BytesWire<'_>>(rest)).transpose()?;
        Ok(Self {
            id,
            cell: Cell { state: state_of(shape & 7)?, attempt, seq },
            epoch,
            times: [queued_at, started_at, ended_at, revoke_started_at],
            failure,
            revoke_failure,
            succeeded_by: by_of((shape & !MORE) >> 3)?,
            output,
            since,
            fingerprint,
            notes,
            parent,
            payload,
            pinned: has_more(3),
            crashed_before: has_more(6),
        })
    }

    /// As [`TaskDetails::newest`].
    pub(super) fn newest(&self) -> Timestamp {
        let times = self.times.iter().flatten().chain(self.notes.iter().map(|(at, _)| at));
        times.max().copied().unwrap_or_default()
    }
}

impl From<Borrowed<'_>> for TaskDetails {
    fn from(entry: Borrowed<'_>) -> Self {
        let [queued_at, started_at, ended_at, revoke_started_at] = entry.times;
        let notes = entry.notes.into_iter().map(|(at, text)| Note { at, text: text.to_owned() });
        Self {
            cell: entry.cell,
            epoch: entry.epoch,
            queued_at,
            started_at,
            ended_at,
            revoke_started_at,
            failure: entry.failure.map(Failure::from),
            revoke_failure: entry.revoke_failure.map(Failure::from),
            succeeded_by: entry.succeeded_by,
            output: entry.output.map_or(Output::Absent, Output::from),
            since: entry.since,
            fingerprint: entry.fingerprint.map(Fingerprint::from_bytes),
            parent: entry.parent.map(|parent| Parent::from_bytes(parent.0)),
            payload: entry.payload.map(|payload| payload.0.to_vec()),
            notes: notes.collect(),
            pinned: entry.pinned,
            crashed_before: entry.crashed_before,
            in_doubt: false,
        }
    }
}

fn field<'a, T: Deserialize<'a>>(rest: &mut &'a [u8]) -> Result<T, String> {
    codec::decode_front::<T, ITEM_LIMIT>(rest)
}

const fn times(details: &TaskDetails) -> [Option<Timestamp>; 4] {
    [details.queued_at, details.started_at, details.ended_at, details.revoke_started_at]
}

fn present(details: &TaskDetails) -> u8 {
    let [queued, started, ended, revoking] = times(details).map(|time| time.is_some());
    let epoch = details.epoch.is_some();
    let (failure, revoke_failure) = (details.failure.is_some(), details.revoke_failure.is_some());
    let output = details.output != Output::Absent;
    [epoch, queued, started, ended, revoking, failure, revoke_failure, output]
        .into_iter()
        .rev()
        .fold(0, |bits, bit| bits << 1 | u8::from(bit))
}

fn more(details: &TaskDetails) -> u8 {
    let since = details.since != SeqNo::ZERO;
    let (fingerprint, notes) = (details.fingerprint.is_some(), !details.notes.is_empty());
    let (parent, payload) = (details.parent.is_some(), details.payload.is_some());
    [since, fingerprint, notes, details.pinned, parent, payload, details.crashed_before]
        .into_iter()
        .rev()
        .fold(0, |bits, bit| bits << 1 | u8::from(bit))
}

const fn state_code(state: TaskState) -> Option<u8> {
    match state {
        TaskState::NotFound => None,
        TaskState::Queued => Some(1),
        TaskState::Running => Some(2),
        TaskState::Succeeded => Some(3),
        TaskState::Failed => Some(4),
        TaskState::Revoking => Some(5),
    }
}

fn state_of(code: u8) -> Result<TaskState, String> {
    match code {
        1 => Ok(TaskState::Queued),
        2 => Ok(TaskState::Running),
        3 => Ok(TaskState::Succeeded),
        4 => Ok(TaskState::Failed),
        5 => Ok(TaskState::Revoking),
        _ => Err(format!("state {code}")),
    }
}

const fn by_code(by: Option<SuccessBy>) -> u8 {
    match by {
        None => 0,
        Some(SuccessBy::Attempt) => 1,
        Some(SuccessBy::Mark) => 2,
        Some(SuccessBy::Resolve) => 3,
    }
}

fn by_of(code: u8) -> Result<Option<SuccessBy>, String> {
    match code {
        0 => Ok(None),
        1 => Ok(Some(SuccessBy::Attempt)),
        2 => Ok(Some(SuccessBy::Mark)),
        3 => Ok(Some(SuccessBy::Resolve)),
        _ => Err(format!("succeeded by {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes on disk, written out by hand from the table above: an entry with everything that format
    /// versions 2 and 3 have brought.
    #[test]
    fn an_entry_with_a_second_byte_of_what_is_present_has_its_golden_bytes() {
        let at = Timestamp::from_micros;
        let details = TaskDetails {
            cell: Cell { state: TaskState::Failed, attempt: Attempt::new(2), seq: SeqNo::new(7) },
            epoch: Some(Epoch::new(3)),
            started_at: Some(at(1_000)),
            ended_at: Some(at(1_005)),
            failure: Some(Failure::Crashed),
            since: SeqNo::new(4),
            fingerprint: Some(Fingerprint::from_bytes(*b"0123456789abcdef")),
            notes: [
                Note { at: at(1_002), text: "half".into() },
                Note { at: at(1_003), text: String::new() },
            ]
            .into(),
            pinned: true,
            crashed_before: true,
            parent: Some(Parent::from_bytes(b"\x01p")),
            payload: Some(vec![0xc0]),
            ..TaskDetails::ABSENT
        };
        let id = EncodedId::from_bytes(b"\x01a");
        let origin = Origin { last_seq: SeqNo::new(9), at: 1_000 };
        let mut golden = vec![
            2,
            0x01,
            b'a',        // id
            4 | MORE,    // failed, nobody says that it succeeded, a second byte
            0b0010_1101, // epoch, started, ended, failure
            0b111_1111,  // since, fingerprint, notes, pinned, parent, payload, crashed before
            2,           // attempt
            2,           // back from 9 to 7
            3,           // epoch
            0,
            10, // started at the base, ended 5 later (zigzag)
            4,  // crashed
            3,  // since: back from 7 to 4
        ];
        golden.extend(b"0123456789abcdef");
        // Two notes: 3 before the end, and 1 after that (zigzag), each with its text.
        golden.extend([2, 5, 4]);
        golden.extend(b"half");
        golden.extend([2, 0]);
        golden.extend([2, 0x01, b'p', 1, 0xc0]);
        let mut written = Vec::new();
        encode_entry(&mut written, origin, &id, &details).unwrap();
        assert_eq!(written, golden);
        let mut rest = &golden[..];
        let read = Borrowed::decode(&mut rest, origin).unwrap();
        assert_eq!((read.id, read.newest()), (id.as_bytes(), details.newest()));
        assert_eq!(TaskDetails::from(read), details);
        assert!(rest.is_empty());
    }
}
