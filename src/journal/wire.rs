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
//! an attempt without a parent; `Queued` that of `QueuedWith` with since 0 and no payload.
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
            Event::Started {
                attempt,
                epoch,
                since: SeqNo::ZERO,
                fingerprint: None,
                parent: None,
            } => Self::Started { attempt: attempt.get(), epoch: epoch.get() },
            Event::Started { attempt, epoch, since, fingerprint, parent: Some(parent) } => {
                Self::StartedWithin {
                    attempt: attempt.get(),
                    epoch: epoch.get(),
                    since: since.get(),
                    fingerprint: fingerprint.map(Fingerprint::to_bytes),
                    parent: BytesWire(parent.as_bytes()),
                }
            }
            Event::Started { attempt, epoch, since, fingerprint, parent: None } => {
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
            },
            EventWire::StartedFor { attempt, epoch, since, fingerprint } => Self::Started {
                attempt: Attempt::new(attempt),
                epoch: Epoch::new(epoch),
                since: SeqNo::new(since),
                fingerprint: fingerprint.map(Fingerprint::from_bytes),
                parent: None,
            },
            EventWire::StartedWithin { attempt, epoch, since, fingerprint, parent } => {
                Self::Started {
                    attempt: Attempt::new(attempt),
                    epoch: Epoch::new(epoch),
                    since: SeqNo::new(since),
                    fingerprint: fingerprint.map(Fingerprint::from_bytes),
                    parent: Some(Parent::from_bytes(parent.0)),
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
mod tests {
    use super::*;
    use crate::journal::codec;

    fn event_bytes(event: &Event) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::encode_into(&mut bytes, &EventWire::from(event));
        let mut rest = bytes.as_slice();
        let wire: EventWire<'_> =
            codec::decode_front::<_, 1024>(&mut rest).expect("what was encoded");
        assert_eq!(&Event::from(wire), event, "comes back");
        assert!(rest.is_empty(), "nothing is left over");
        bytes
    }

    fn succeeded(by: SuccessBy, output: Output) -> Event {
        Event::Succeeded { by, output }
    }

    fn started(epoch: u64, since: u64, fingerprint: Option<[u8; 16]>) -> Event {
        started_within(epoch, since, fingerprint, None)
    }

    fn queued(since: u64, payload: Option<Vec<u8>>) -> Event {
        Event::Queued { payload, since: SeqNo::new(since) }
    }

    fn started_within(
        epoch: u64,
        since: u64,
        fingerprint: Option<[u8; 16]>,
        parent: Option<&[u8]>,
    ) -> Event {
        Event::Started {
            attempt: Attempt::new(1),
            epoch: Epoch::new(epoch),
            since: SeqNo::new(since),
            fingerprint: fingerprint.map(Fingerprint::from_bytes),
            parent: parent.map(Parent::from_bytes),
        }
    }

    /// Whatever changes one of these bytes breaks every ledger that exists.
    #[test]
    fn every_event_has_its_golden_bytes() {
        let tombstone = Tombstone::from_bytes([5; 16]);
        let golden: &[(Event, &[u8])] = &[
            (queued(0, None), &[0]),
            (queued(9, None), &[15, 9, 0]),
            (queued(0, Some(vec![0xc0, 7])), &[15, 0, 1, 2, 0xc0, 7]),
            (started_within(2, 0, None, Some(b"\x01p")), &[16, 1, 2, 0, 0, 2, 1, b'p']),
            (
                started_within(2, 7, Some([9; 16]), Some(b"")),
                &[&[16, 1, 2, 7, 1][..], &[9; 16], &[0]].concat(),
            ),
            (started(300, 0, None), &[1, 1, 0xfb, 0x2c, 1]),
            (started(2, 7, None), &[8, 1, 2, 7, 0]),
            (started(2, 0, Some([9; 16])), &[&[8, 1, 2, 0, 1][..], &[9; 16]].concat()),
            (succeeded(SuccessBy::Attempt, Output::Kept(vec![0xc0])), &[2, 0, 1, 1, 0xc0]),
            (succeeded(SuccessBy::Mark, Output::Absent), &[2, 1, 0]),
            (
                succeeded(SuccessBy::Attempt, Output::NotKept(NotKept::TooLarge { size: 9 })),
                &[2, 0, 2, 0, 9],
            ),
            (
                succeeded(
                    SuccessBy::Attempt,
                    Output::NotKept(NotKept::NotSerializable("x".into())),
                ),
                &[2, 0, 2, 1, 1, b'x'],
            ),
            (Event::Failed { failure: Failure::Error("e".into()) }, &[3, 0, 1, b'e']),
            (Event::Failed { failure: Failure::Panicked("p".into()) }, &[3, 1, 1, b'p']),
            (Event::Failed { failure: Failure::Cancelled("c".into()) }, &[3, 2, 1, b'c']),
            (Event::Failed { failure: Failure::TimedOut }, &[3, 3]),
            (Event::Failed { failure: Failure::Crashed }, &[3, 4]),
            (Event::RevokeStarted, &[4]),
            (Event::RevokeFailed { failure: Failure::Crashed }, &[5, 4]),
            (Event::Revoked, &[6]),
            (Event::Forgotten, &[7]),
            (succeeded(SuccessBy::Resolve, Output::Absent), &[2, 2, 0]),
            (
                Event::Failed { failure: Failure::GaveUp { attempts: 3, last: "l".into() } },
                &[3, 5, 3, 1, b'l'],
            ),
            (Event::Noted { note: "n".into() }, &[9, 1, b'n']),
            (Event::Resolved { failure: Failure::Resolved("r".into()) }, &[10, 6, 1, b'r']),
            (Event::Resolved { failure: Failure::Released(String::new()) }, &[10, 7, 0]),
            (Event::Pinned, &[11]),
            (Event::Unpinned, &[12]),
            (Event::Buried { tombstone }, &[&[13][..], &[5; 16]].concat()),
            (Event::Exhumed { tombstone }, &[&[14][..], &[5; 16]].concat()),
        ];
        for (event, bytes) in golden {
            assert_eq!(event_bytes(event), *bytes, "{event:?}");
        }
    }

    #[test]
    fn every_event_of_the_ledger_has_its_golden_bytes() {
        let set = |value| LedgerEvent::MetadataSet { name: "n".into(), value };
        let golden: &[(LedgerEvent, &[u8])] = &[
            (LedgerEvent::EpochOpened { epoch: Epoch::new(7) }, &[0, 7]),
            (LedgerEvent::LossAccepted { what: "w".into() }, &[1, 1, b'w']),
            (set(None), &[2, 1, b'n', 0]),
            (set(Some(vec![9])), &[2, 1, b'n', 1, 1, 9]),
        ];
        for (event, expected) in golden {
            let mut bytes = Vec::new();
            codec::encode_into(&mut bytes, &LedgerEventWire::from(event));
            assert_eq!(bytes, *expected, "{event:?}");
            let wire = codec::decode_front::<LedgerEventWire<'_>, 1024>(&mut bytes.as_slice());
            assert_eq!(&LedgerEvent::from(wire.expect("what was encoded")), event);
        }
    }

    #[test]
    fn an_unknown_variant_and_a_hostile_length_are_refused() {
        let hostile: &[&[u8]] = &[
            &[17],
            &[15, 0, 2],
            &[15, 0, 1, 2, 1],
            &[16, 1, 2, 0, 0, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[2, 3, 0],
            &[2, 0, 3],
            &[3, 8],
            &[13, 1, 2],
            &[8, 1, 2, 0, 2],
            &[3, 0, 1, 0xff],
            &[2, 0, 1, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[2, 0, 1, 0xfc, 0xff, 0xff, 0xff, 0x7f],
        ];
        for bytes in hostile {
            let mut rest = *bytes;
            let decoded = codec::decode_front::<EventWire<'_>, { 1 << 40 }>(&mut rest);
            assert!(decoded.is_err(), "{bytes:02x?}");
        }
    }
}
