//! The lines of an export, and what they stand for.
//!
//! ```text
//! {"ledger":{"format":"taskledger export","version":2,...}}    once, first
//! {"task":{"id":"066f726465722d","state":"succeeded",...}}      ascending by the bytes of the id
//! {"tombstone":"9f86d081884c7d659a2feaa0c55ad015"}              ascending
//! {"end":{"tasks":2,"tombstones":1,"checksum":"2c68..."}}       once, last
//! ```
//!
//! Lines are UTF-8 and end with a newline. Ids, hashes, the identity and checksums are lower-case
//! hexadecimal, so they sort as their bytes do; outputs, the id type and values of metadata are base64
//! (RFC 4648, padded). Times are microseconds since 1970-01-01 UTC. What is absent has no field. `info`
//! is for people: whoever imports does not look at it. The checksum is xxh3-64 of all bytes before the
//! closing line.
//!
//! A line is valid if and only if it has no other fields than these, and says what a ledger can hold:
//!
//! * The position of a task and the first of its life lie within those of the ledger. No two tasks have one
//!   position. There are as many positions as opens and as attempts, at least: each has a record of its own.
//! * What has failed has a `failure`, and nothing else has one. Only a success, and what is being revoked,
//!   has `succeeded_by`, an `output`, a `revoke_started_at` and a `revoke_failure`, and it has no `since`.
//! * What runs has neither ended nor is it pinned. What is being revoked has been since some time. What is
//!   queued has nothing but the time since when, and its payload. No success has a payload, and whatever
//!   has one has a `queued_at`.
//! * The times, the epoch, the fingerprint and the parent of an attempt come together: with `epoch` there
//!   are `started_at` and an attempt, without it none of the others.
//! * All sizes are within the limits of the ledger.
//! * The last position of the ledger leaves a quarter of all positions for what is to come, and no tombstone
//!   is that of a task.
//!
//! Nothing else is asked of how fields go together, since a repair believes what it finds over a gap; and
//! nothing of times, since a clock may say anything.

use crate::details::{MAX_NOTES, Note, TaskDetails};
use crate::id::{EncodedId, MAX_ID_BYTES};
use crate::journal::frame::MAX_RECORD;
use crate::state::{
    Attempt, Cell, Epoch, Failure, Fingerprint, NotKept, Output, Parent, SeqNo, SuccessBy,
    TaskState, Timestamp,
};
use data_encoding::{BASE64, HEXLOWER};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::VecDeque;
use std::fmt;

/// What an export says that it is.
pub(super) const FORMAT: &str = "taskledger export";

/// The version that is written, and the newest one that is read.
pub(super) const VERSION: u32 = 2;

/// The longest line. A ledger leads to none that is longer: an entry of its checkpoint has at most 128 KiB,
/// its id type 256 KiB, and escaping takes six bytes for one.
pub(super) const MAX_LINE: usize = 4 * 1024 * 1024;

/// The longest text of a failure, and of a note, that is read: four times what is written. With these, an
/// entry has room for whatever comes later. Were it full already, no checkpoint could be made any more.
const MAX_TEXT: usize = 16 * 1024;
const MAX_NOTE: usize = 4 * 1024;

/// Any line; `L` and `T` are what is told besides of a ledger and of a task.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line<L, T> {
    Ledger(Box<LedgerLine<L>>),
    Task(Box<TaskLine<T>>),
    Tombstone(Hex<16>),
    End(EndLine),
}

/// Of which ledger it is an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LedgerLine<I> {
    pub(super) format: String,
    pub(super) version: u32,
    pub(super) ledger: Hex<16>,
    pub(super) created_at: u64,
    pub(super) id_type: Base64,
    pub(super) last_seq: u64,
    pub(super) chain: Hex<8>,
    pub(super) epoch: u64,
    pub(super) metadata: Vec<MetadataLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) info: Option<I>,
}

/// The part of it that every version has.
#[derive(Debug, Deserialize)]
pub(super) struct Glimpse {
    pub(super) ledger: GlimpseOfLedger,
}

#[derive(Debug, Deserialize)]
pub(super) struct GlimpseOfLedger {
    pub(super) format: String,
    pub(super) version: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetadataLine {
    pub(super) name: String,
    pub(super) value: Base64,
}

/// What a ledger looks like to people.
#[derive(Debug, Serialize)]
pub(super) struct LedgerInfo {
    pub(super) id_type: String,
    pub(super) created_at: String,
}

/// All that is known of one id.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskLine<I> {
    id: Hex<0>,
    state: String,
    attempt: u32,
    seq: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queued_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoke_started_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<FailureLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoke_failure: Option<FailureLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    succeeded_by: Option<ByLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<OutputLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fingerprint: Option<Hex<16>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<Hex<0>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<Base64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notes: Vec<NoteLine>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pinned: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    crashed_before: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<I>,
}

/// What a task looks like to people.
#[derive(Debug, Serialize)]
pub(super) struct TaskInfo {
    pub(super) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) output: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_change: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FailureLine {
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ByLine {
    Attempt,
    Mark,
    Resolve,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutputLine {
    Kept(Base64),
    TooLarge(u64),
    NotSerializable(String),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoteLine {
    at: u64,
    text: String,
}

/// What came before it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndLine {
    pub(super) tasks: u64,
    pub(super) tombstones: u64,
    /// What could not be read of a damaged ledger.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) missing: Vec<String>,
    pub(super) checksum: Hex<8>,
}

impl<I> TaskLine<I> {
    pub(super) fn of(id: &EncodedId, details: &TaskDetails, info: Option<I>) -> Self {
        let micros = |at: Option<Timestamp>| at.map(Timestamp::as_micros);
        // A repair of an older version may have left more than belongs to the state.
        let details = &details.clone().fitted();
        let failure = |failure: &Option<Failure>| failure.as_ref().map(FailureLine::of);
        let note = |note: &Note| NoteLine { at: note.at.as_micros(), text: note.text.clone() };
        Self {
            id: Hex(id.as_bytes().to_vec()),
            state: details.state().name().to_owned(),
            attempt: details.attempt().get(),
            seq: details.cell.seq.get(),
            since: Some(details.since.get()).filter(|since| *since > 0),
            epoch: details.epoch.map(Epoch::get),
            queued_at: micros(details.queued_at),
            started_at: micros(details.started_at),
            ended_at: micros(details.ended_at),
            revoke_started_at: micros(details.revoke_started_at),
            failure: failure(&details.failure),
            revoke_failure: failure(&details.revoke_failure),
            succeeded_by: details.succeeded_by.map(|by| match by {
                SuccessBy::Attempt => ByLine::Attempt,
                SuccessBy::Mark => ByLine::Mark,
                SuccessBy::Resolve => ByLine::Resolve,
            }),
            output: match &details.output {
                Output::Absent => None,
                Output::Kept(bytes) => Some(OutputLine::Kept(Base64(bytes.clone()))),
                Output::NotKept(NotKept::TooLarge { size }) => Some(OutputLine::TooLarge(*size)),
                Output::NotKept(NotKept::NotSerializable(text)) => {
                    Some(OutputLine::NotSerializable(text.clone()))
                }
            },
            fingerprint: details.fingerprint.map(|print| Hex(print.to_bytes().to_vec())),
            parent: details.parent.as_ref().map(|parent| Hex(parent.as_bytes().to_vec())),
            payload: details.payload.clone().map(Base64),
            notes: details.notes.iter().map(note).collect(),
            pinned: details.pinned,
            crashed_before: details.crashed_before,
            info,
        }
    }

    /// The task in a ledger whose last record is at `last`; or why there can be none like it.
    pub(super) fn read(self, last: SeqNo) -> Result<(EncodedId, TaskDetails), String> {
        let (id, seq, since) = (self.id.0, self.seq, self.since.unwrap_or_default());
        if id.len() > MAX_ID_BYTES {
            return Err(format!(
                "the id has {} bytes, at most {MAX_ID_BYTES} are allowed",
                id.len()
            ));
        }
        let state = TaskState::ALL.into_iter().find(|state| state.name() == self.state);
        let state = state.filter(|state| *state != TaskState::NotFound);
        let state = state.ok_or_else(|| format!("no task is in the state {:?}", self.state))?;
        if seq == 0 || seq > last.get() {
            return Err(format!("its last record is {seq}, but that of the ledger is {last}"));
        }
        if since > seq {
            return Err(format!("its last record is {seq}, and its first one {since}"));
        }
        if self.notes.len() > MAX_NOTES {
            return Err(format!("{} notes, at most {MAX_NOTES} are kept", self.notes.len()));
        }
        let time = |at: Option<u64>| at.map(Timestamp::from_micros);
        let failure = |line: Option<FailureLine>| line.map(FailureLine::read).transpose();
        let note = |line: NoteLine| Note { at: Timestamp::from_micros(line.at), text: line.text };
        let details = TaskDetails {
            cell: Cell { state, attempt: Attempt::new(self.attempt), seq: SeqNo::new(seq) },
            epoch: self.epoch.map(Epoch::new),
            queued_at: time(self.queued_at),
            started_at: time(self.started_at),
            ended_at: time(self.ended_at),
            revoke_started_at: time(self.revoke_started_at),
            failure: failure(self.failure)?,
            revoke_failure: failure(self.revoke_failure)?,
            succeeded_by: self.succeeded_by.map(|by| match by {
                ByLine::Attempt => SuccessBy::Attempt,
                ByLine::Mark => SuccessBy::Mark,
                ByLine::Resolve => SuccessBy::Resolve,
            }),
            output: match self.output {
                None => Output::Absent,
                Some(OutputLine::Kept(Base64(bytes))) => Output::Kept(bytes),
                Some(OutputLine::TooLarge(size)) => Output::NotKept(NotKept::TooLarge { size }),
                Some(OutputLine::NotSerializable(text)) => {
                    Output::NotKept(NotKept::NotSerializable(text))
                }
            },
            since: SeqNo::new(since),
            fingerprint: self.fingerprint.map(|print| Fingerprint::from_bytes(print.array())),
            parent: self.parent.map(|Hex(parent)| Parent::from_bytes(&parent)),
            payload: self.payload.map(|Base64(payload)| payload),
            notes: self.notes.into_iter().map(note).collect::<VecDeque<_>>(),
            pinned: self.pinned,
            crashed_before: self.crashed_before,
            in_doubt: false,
        };
        judge(&details)?;
        Ok((EncodedId::from_bytes(&id), details))
    }
}

/// Whether records can lead to it, those that a repair believes over gaps included.
fn judge(details: &TaskDetails) -> Result<(), String> {
    let within = |what: &str, length: usize, limit: usize| {
        if length <= limit {
            return Ok(());
        }
        Err(format!("{what} has {length} bytes, at most {limit} are kept"))
    };
    match &details.output {
        Output::Kept(bytes) => within("the output", bytes.len(), MAX_RECORD)?,
        Output::NotKept(NotKept::NotSerializable(text)) => {
            within("the reason to keep no output", text.len(), MAX_TEXT)?;
        }
        Output::NotKept(NotKept::TooLarge { .. }) | Output::Absent => {}
    }
    for failure in [&details.failure, &details.revoke_failure].into_iter().flatten() {
        within("the text of a failure", failure.text().map_or(0, str::len), MAX_TEXT)?;
    }
    let parent = details.parent.as_ref().map_or(0, |parent| parent.as_bytes().len());
    within("the parent", parent, MAX_ID_BYTES)?;
    within("the payload", details.payload.as_ref().map_or(0, Vec::len), MAX_RECORD)?;
    for note in &details.notes {
        within("a note", note.text.len(), MAX_NOTE)?;
    }
    if details.state() == TaskState::Queued {
        let TaskDetails { cell, queued_at, since, fingerprint, crashed_before, .. } = *details;
        let payload = details.payload.clone();
        let known = TaskDetails { cell, queued_at, since, payload, ..TaskDetails::ABSENT };
        let waits = TaskDetails { fingerprint, crashed_before, ..known };
        if queued_at.is_none() || *details != waits {
            return Err("what is queued has a `queued_at`, and nothing of an attempt".to_owned());
        }
    }
    judge_fields(details)
}

/// Whether it has what its state has, and nothing else.
fn judge_fields(details: &TaskDetails) -> Result<(), String> {
    use TaskState::{Failed, Revoking, Running, Succeeded};
    let TaskDetails { epoch, started_at, failure, revoke_started_at, .. } = details;
    let Cell { state, attempt, seq } = details.cell;
    let success = matches!(state, Succeeded | Revoking);
    let revoke = revoke_started_at.is_some() || details.revoke_failure.is_some();
    let output = details.output != Output::Absent;
    let (epoch, begun) = (epoch.map_or(0, Epoch::get), epoch.is_some());
    let wrong = [
        (state == Failed && failure.is_none(), "no `failure`"),
        (state != Failed && failure.is_some(), "a `failure`"),
        (!success && details.succeeded_by.is_some(), "a `succeeded_by`"),
        (!success && output, "an `output`"),
        (!success && revoke, "something of a revoke"),
        (success && details.since != SeqNo::ZERO, "a `since`"),
        (success && details.crashed_before, "a `crashed_before`"),
        (state == Revoking && revoke_started_at.is_none(), "no `revoke_started_at`"),
        (state == Running && details.ended_at.is_some(), "an `ended_at`"),
        (state == Running && details.pinned, "a pin"),
        (begun != started_at.is_some(), "only one of `epoch` and `started_at`"),
        (begun && attempt == Attempt::NONE, "an `epoch`, and no attempt"),
        (!begun && details.parent.is_some(), "a `parent`, and no `epoch`"),
        (
            details.payload.is_some() && details.queued_at.is_none(),
            "a `payload`, and no `queued_at`",
        ),
        (success && details.payload.is_some(), "a `payload`"),
        (epoch > seq.get(), "more opens than records"),
        (u64::from(attempt.get()) > seq.get(), "more attempts than records"),
    ];
    match wrong.into_iter().find(|(wrong, _)| *wrong) {
        Some((_, what)) => Err(format!("no task that is {state} has {what}")),
        None => Ok(()),
    }
}

impl FailureLine {
    fn of(failure: &Failure) -> Self {
        let attempts = match failure {
            Failure::GaveUp { attempts, .. } => Some(*attempts),
            Failure::Error(_)
            | Failure::Panicked(_)
            | Failure::Cancelled(_)
            | Failure::TimedOut
            | Failure::Crashed
            | Failure::Resolved(_)
            | Failure::Released(_) => None,
        };
        let (kind, text) = (failure.name().to_owned(), failure.text().map(str::to_owned));
        Self { kind, text, attempts }
    }

    fn read(self) -> Result<Failure, String> {
        Ok(match (self.kind.as_str(), self.text, self.attempts) {
            ("error", Some(text), None) => Failure::Error(text),
            ("panicked", Some(text), None) => Failure::Panicked(text),
            ("cancelled", Some(text), None) => Failure::Cancelled(text),
            ("timed out", None, None) => Failure::TimedOut,
            ("crashed", None, None) => Failure::Crashed,
            ("gave up", Some(last), Some(attempts)) => Failure::GaveUp { attempts, last },
            ("resolved", Some(text), None) => Failure::Resolved(text),
            ("released", Some(text), None) => Failure::Released(text),
            (kind, text, attempts) => {
                let has = |there: bool| if there { "a" } else { "no" };
                let (text, attempts) = (has(text.is_some()), has(attempts.is_some()));
                return Err(format!(
                    "there is no failure of the kind {kind:?} with {text} `text` and {attempts} `attempts`"
                ));
            }
        })
    }
}

/// Bytes as hexadecimal digits: `N` of them, or any number if that is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hex<const N: usize>(pub(super) Vec<u8>);

impl<const N: usize> Hex<N> {
    /// The bytes, which are `N`.
    pub(super) fn array(&self) -> [u8; N] {
        self.0.as_slice().try_into().unwrap_or([0; N])
    }
}

impl Hex<8> {
    pub(super) fn of_number(number: u64) -> Self {
        Self(number.to_be_bytes().to_vec())
    }

    pub(super) fn number(&self) -> u64 {
        u64::from_be_bytes(self.array())
    }
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&HEXLOWER.encode(&self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = deserializer.deserialize_str(Text("hexadecimal digits", |text: &str| {
            HEXLOWER.decode(text.as_bytes()).ok()
        }))?;
        if N > 0 && bytes.len() != N {
            return Err(D::Error::custom(format!("{} bytes where {N} are wanted", bytes.len())));
        }
        Ok(Self(bytes))
    }
}

/// Bytes in base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base64(pub(super) Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let decode = |text: &str| BASE64.decode(text.as_bytes()).ok();
        deserializer.deserialize_str(Text("base64", decode)).map(Self)
    }
}

/// A text that stands for bytes: what it should be, and how it is read.
struct Text<F>(&'static str, F);

impl<F: FnOnce(&str) -> Option<Vec<u8>>> Visitor<'_> for Text<F> {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
        let Self(what, read) = self;
        read(text).ok_or_else(|| E::custom(format!("this is no {what}")))
    }
}

#[cfg(test)]
mod tests;
