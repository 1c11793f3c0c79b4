//! The stored twins of what a record says.
//!
//! The domain types may be renamed and reordered freely; these may not: the
//! order of the variants and of the fields *is* the format (bincode 2
//! `standard()`: variants and integers as varints, texts and bytes with their
//! length in front). They borrow texts and bytes, in both directions, so that
//! nothing is copied on the way to the disk.
//!
//! ```text
//! Entry        0 Task { id bytes, back u64, event }      1 Ledger(LedgerEvent)
//! Event        0 Queued                                  1 Started { attempt u32, epoch u64 }
//!              2 Succeeded { by, output }                3 Failed { failure }
//!              4 RevokeStarted                           5 RevokeFailed { failure }
//!              6 Revoked                                 7 Forgotten
//!              8 StartedFor { attempt u32, epoch u64, since u64, fingerprint option of 16 bytes }
//!              9 Noted { note text }                    10 Resolved { failure }
//!             11 Pinned                                 12 Unpinned
//!             13 Buried { tombstone 16 bytes }          14 Exhumed { tombstone 16 bytes }
//!             15 QueuedWith { since u64, payload option of bytes }
//!             16 StartedWithin { attempt u32, epoch u64, since u64, fingerprint option of 16 bytes,
//!                                parent bytes }
//!             17 StartedAgain { attempt u32, epoch u64, since u64, fingerprint option of 16 bytes,
//!                               parent option of bytes }
//! Failure      0 Error(text)   1 Panicked(text)   2 Cancelled(text)   3 TimedOut   4 Crashed
//!              5 GaveUp { attempts u32, last text }     6 Resolved(text)   7 Released(text)
//! Output       0 Absent        1 Kept(bytes)      2 NotKept(NotKept)
//! NotKept      0 TooLarge { size u64 }            1 NotSerializable(text)
//! SuccessBy    0 Attempt       1 Mark       2 Resolve
//! LedgerEvent  0 EpochOpened { epoch u64 }        1 LossAccepted { what text }
//!              2 MetadataSet { name text, value option of bytes }
//!
//! What is numbered from 8, 5 and 2 on came with format version 2, what is numbered from 15 on with 3.
//! `Started` is the short form of `StartedFor` with since 0 and no fingerprint, and that is the form of
//! an attempt without a parent; `StartedAgain` that of every attempt after one that crashed and of which
//! nobody has said what came of it; `Queued` that of `QueuedWith` with since 0 and no payload.
//!
//! Started, attempt 1, epoch 300:           01 01 fb 2c 01
//! Succeeded by the attempt, Kept [0xc0]:   02 00 01 01 c0
//! ```
//!
//! `back` is the distance to the id's record before this one, 0 if there is none. An encoding is
//! valid if and only if every variant and length is one of these, texts are UTF-8, and nothing is
//! left over.

use crate::journal::LedgerEvent;
use crate::state::{
    Attempt, Epoch, Event, Failure, Fingerprint, NotKept, Output, Parent, SeqNo, SuccessBy,
    Tombstone,
};
use serde::{Deserialize, Serialize};

/// Bytes, written in one piece and borrowed when read; a plain slice would go element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BytesWire<'a>(pub(crate) &'a [u8]);

impl Serialize for BytesWire<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for BytesWire<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'a [u8]>::deserialize(deserializer).map(Self)
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum EntryWire<'a> {
    Task {
        #[serde(borrow)]
        id: BytesWire<'a>,
        back: u64,
        event: EventWire<'a>,
    },
    Ledger(LedgerEventWire<'a>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum EventWire<'a> {
    Queued,
    Started {
        attempt: u32,
        epoch: u64,
    },
    Succeeded {
        by: SuccessByWire,
        #[serde(borrow)]
        output: OutputWire<'a>,
    },
    Failed {
        failure: FailureWire<'a>,
    },
    RevokeStarted,
    RevokeFailed {
        failure: FailureWire<'a>,
    },
    Revoked,
    Forgotten,
    StartedFor {
        attempt: u32,
        epoch: u64,
        since: u64,
        fingerprint: Option<[u8; 16]>,
    },
    Noted {
        note: &'a str,
    },
    Resolved {
        failure: FailureWire<'a>,
    },
    Pinned,
    Unpinned,
    Buried {
        tombstone: [u8; 16],
    },
    Exhumed {
        tombstone: [u8; 16],
    },
    QueuedWith {
        since: u64,
        payload: Option<BytesWire<'a>>,
    },
    StartedWithin {
        attempt: u32,
        epoch: u64,
        since: u64,
        fingerprint: Option<[u8; 16]>,
        parent: BytesWire<'a>,
    },
    StartedAgain {
        attempt: u32,
        epoch: u64,
        since: u64,
        fingerprint: Option<[u8; 16]>,
        parent: Option<BytesWire<'a>>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FailureWire<'a> {
    Error(&'a str),
    Panicked(&'a str),
    Cancelled(&'a str),
    TimedOut,
    Crashed,
    GaveUp { attempts: u32, last: &'a str },
    Resolved(&'a str),
    Released(&'a str),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum OutputWire<'a> {
    Absent,
    Kept(#[serde(borrow)] BytesWire<'a>),
    NotKept(NotKeptWire<'a>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum NotKeptWire<'a> {
    TooLarge { size: u64 },
    NotSerializable(&'a str),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum SuccessByWire {
    Attempt,
    Mark,
    Resolve,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum LedgerEventWire<'a> {
    EpochOpened {
        epoch: u64,
    },
    LossAccepted {
        what: &'a str,
    },
    MetadataSet {
        name: &'a str,
        #[serde(borrow)]
        value: Option<BytesWire<'a>>,
    },
}

impl<'a> From<&'a Event> for EventWire<'a> {
    fn from(event: &'a Event) -> Self {
        match event {
            Event::Queued { payload: None, since: SeqNo::ZERO } => Self::Queued,
            Event::Queued { payload, since } => {
                Self::QueuedWith { since: since.get(), payload: payload.as_deref().map(BytesWire) }
            }
            Event::Started { attempt, epoch, since, fingerprint, parent, crashed_before: true } => {
                Self::StartedAgain {
                    attempt: attempt.get(),
                    epoch: epoch.get(),
                    since: since.get(),
                    fingerprint: fingerprint.map(Fingerprint::to_bytes),
                    parent: parent.as_ref().map(|parent| BytesWire(parent.as_bytes())),
                }
            }
            Event::Started {
                attempt,
                epoch,
                since: SeqNo::ZERO,
                fingerprint: None,
                parent: None,
                ..
            } => Self::Started { attempt: attempt.get(), epoch: epoch.get() },
            Event::Started { attempt, epoch, since, fingerprint, parent: Some(parent), .. } => {
                Self::StartedWithin {
                    attempt: attempt.get(),
                    epoch: epoch.get(),
                    since: since.get(),
                    fingerprint: fingerprint.map(Fingerprint::to_bytes),
                    parent: BytesWire(parent.as_bytes()),
                }
            }
            Event::Started { attempt, epoch, since, fingerprint, parent: None, .. } => {
                Self::StartedFor {
                    attempt: attempt.get(),
                    epoch: epoch.get(),
                    since: since.get(),
                    fingerprint: fingerprint.map(Fingerprint::to_bytes),
                }
            }
            Event::Succeeded { by, output } => {
                Self::Succeeded { by: (*by).into(), output: output.into() }
            }
            Event::Failed { failure } => Self::Failed { failure: failure.into() },
            Event::RevokeStarted => Self::RevokeStarted,
            Event::RevokeFailed { failure } => Self::RevokeFailed { failure: failure.into() },
            Event::Revoked => Self::Revoked,
            Event::Forgotten => Self::Forgotten,
            Event::Noted { note } => Self::Noted { note },
            Event::Resolved { failure } => Self::Resolved { failure: failure.into() },
            Event::Pinned => Self::Pinned,
            Event::Unpinned => Self::Unpinned,
            Event::Buried { tombstone } => Self::Buried { tombstone: tombstone.to_bytes() },
            Event::Exhumed { tombstone } => Self::Exhumed { tombstone: tombstone.to_bytes() },
        }
    }
}

impl From<EventWire<'_>> for Event {
    fn from(wire: EventWire<'_>) -> Self {
        match wire {
            EventWire::Queued => Self::Queued { payload: None, since: SeqNo::ZERO },
            EventWire::QueuedWith { since, payload } => Self::Queued {
                payload: payload.map(|BytesWire(payload)| payload.into()),
                since: SeqNo::new(since),
            },
            EventWire::Started { attempt, epoch } => Self::Started {
                attempt: Attempt::new(attempt),
                epoch: Epoch::new(epoch),
                since: SeqNo::ZERO,
                fingerprint: None,
                parent: None,
                crashed_before: false,
            },
            EventWire::StartedFor { attempt, epoch, since, fingerprint } => Self::Started {
                attempt: Attempt::new(attempt),
                epoch: Epoch::new(epoch),
                since: SeqNo::new(since),
                fingerprint: fingerprint.map(Fingerprint::from_bytes),
                parent: None,
                crashed_before: false,
            },
            EventWire::StartedWithin { attempt, epoch, since, fingerprint, parent } => {
                Self::Started {
                    attempt: Attempt::new(attempt),
                    epoch: Epoch::new(epoch),
                    since: SeqNo::new(since),
                    fingerprint: fingerprint.map(Fingerprint::from_bytes),
                    parent: Some(Parent::from_bytes(parent.0)),
                    crashed_before: false,
                }
            }
            EventWire::StartedAgain { attempt, epoch, since, fingerprint, parent } => {
                Self::Started {
                    attempt: Attempt::new(attempt),
                    epoch: Epoch::new(epoch),
                    since: SeqNo::new(since),
                    fingerprint: fingerprint.map(Fingerprint::from_bytes),
                    parent: parent.map(|parent| Parent::from_bytes(parent.0)),
                    crashed_before: true,
                }
            }
            EventWire::Succeeded { by, output } => {
                Self::Succeeded { by: by.into(), output: output.into() }
            }
            EventWire::Failed { failure } => Self::Failed { failure: failure.into() },
            EventWire::RevokeStarted => Self::RevokeStarted,
            EventWire::RevokeFailed { failure } => Self::RevokeFailed { failure: failure.into() },
            EventWire::Revoked => Self::Revoked,
            EventWire::Forgotten => Self::Forgotten,
            EventWire::Noted { note } => Self::Noted { note: note.into() },
            EventWire::Resolved { failure } => Self::Resolved { failure: failure.into() },
            EventWire::Pinned => Self::Pinned,
            EventWire::Unpinned => Self::Unpinned,
            EventWire::Buried { tombstone } => {
                Self::Buried { tombstone: Tombstone::from_bytes(tombstone) }
            }
            EventWire::Exhumed { tombstone } => {
                Self::Exhumed { tombstone: Tombstone::from_bytes(tombstone) }
            }
        }
    }
}

impl<'a> From<&'a Failure> for FailureWire<'a> {
    fn from(failure: &'a Failure) -> Self {
        match failure {
            Failure::Error(text) => Self::Error(text),
            Failure::Panicked(text) => Self::Panicked(text),
            Failure::Cancelled(text) => Self::Cancelled(text),
            Failure::TimedOut => Self::TimedOut,
            Failure::Crashed => Self::Crashed,
            Failure::GaveUp { attempts, last } => Self::GaveUp { attempts: *attempts, last },
            Failure::Resolved(text) => Self::Resolved(text),
            Failure::Released(text) => Self::Released(text),
        }
    }
}

impl From<FailureWire<'_>> for Failure {
    fn from(wire: FailureWire<'_>) -> Self {
        match wire {
            FailureWire::Error(text) => Self::Error(text.into()),
            FailureWire::Panicked(text) => Self::Panicked(text.into()),
            FailureWire::Cancelled(text) => Self::Cancelled(text.into()),
            FailureWire::TimedOut => Self::TimedOut,
            FailureWire::Crashed => Self::Crashed,
            FailureWire::GaveUp { attempts, last } => Self::GaveUp { attempts, last: last.into() },
            FailureWire::Resolved(text) => Self::Resolved(text.into()),
            FailureWire::Released(text) => Self::Released(text.into()),
        }
    }
}

impl<'a> From<&'a Output> for OutputWire<'a> {
    fn from(output: &'a Output) -> Self {
        match output {
            Output::Absent => Self::Absent,
            Output::Kept(bytes) => Self::Kept(BytesWire(bytes)),
            Output::NotKept(why) => Self::NotKept(why.into()),
        }
    }
}

impl From<OutputWire<'_>> for Output {
    fn from(wire: OutputWire<'_>) -> Self {
        match wire {
            OutputWire::Absent => Self::Absent,
            OutputWire::Kept(bytes) => Self::Kept(bytes.0.into()),
            OutputWire::NotKept(why) => Self::NotKept(why.into()),
        }
    }
}

impl<'a> From<&'a NotKept> for NotKeptWire<'a> {
    fn from(why: &'a NotKept) -> Self {
        match why {
            NotKept::TooLarge { size } => Self::TooLarge { size: *size },
            NotKept::NotSerializable(text) => Self::NotSerializable(text),
        }
    }
}

impl From<NotKeptWire<'_>> for NotKept {
    fn from(wire: NotKeptWire<'_>) -> Self {
        match wire {
            NotKeptWire::TooLarge { size } => Self::TooLarge { size },
            NotKeptWire::NotSerializable(text) => Self::NotSerializable(text.into()),
        }
    }
}

impl From<SuccessBy> for SuccessByWire {
    fn from(by: SuccessBy) -> Self {
        match by {
            SuccessBy::Attempt => Self::Attempt,
            SuccessBy::Mark => Self::Mark,
            SuccessBy::Resolve => Self::Resolve,
        }
    }
}

impl From<SuccessByWire> for SuccessBy {
    fn from(wire: SuccessByWire) -> Self {
        match wire {
            SuccessByWire::Attempt => Self::Attempt,
            SuccessByWire::Mark => Self::Mark,
            SuccessByWire::Resolve => Self::Resolve,
        }
    }
}

impl<'a> From<&'a LedgerEvent> for LedgerEventWire<'a> {
    fn from(event: &'a LedgerEvent) -> Self {
        match event {
            LedgerEvent::EpochOpened { epoch } => Self::EpochOpened { epoch: epoch.get() },
            LedgerEvent::LossAccepted { what } => Self::LossAccepted { what },
            LedgerEvent::MetadataSet { name, value } => {
                Self::MetadataSet { name, value: value.as_deref().map(BytesWire) }
            }
        }
    }
}

impl From<LedgerEventWire<'_>> for LedgerEvent {
    fn from(wire: LedgerEventWire<'_>) -> Self {
        match wire {
            LedgerEventWire::EpochOpened { epoch } => {
                Self::EpochOpened { epoch: Epoch::new(epoch) }
            }
            LedgerEventWire::LossAccepted { what } => Self::LossAccepted { what: what.into() },
            LedgerEventWire::MetadataSet { name, value } => Self::MetadataSet {
                name: name.into(),
                value: value.map(|BytesWire(bytes)| bytes.into()),
            },
        }
    }
}

#[cfg(test)]
mod tests;
