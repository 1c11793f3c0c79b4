use super::*;
use crate::journal::codec;

fn event_bytes(event: &Event) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_into(&mut bytes, &EventWire::from(event));
    let mut rest = bytes.as_slice();
    let wire: EventWire<'_> = codec::decode_front::<_, 1024>(&mut rest).expect("what was encoded");
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
        crashed_before: false,
    }
}

/// Whatever changes one of these bytes breaks every ledger that exists.
#[test]
fn every_event_has_its_golden_bytes() {
    let tombstone = Tombstone::from_bytes([5; 16]);
    let again = |parent| Event::Started {
        attempt: Attempt::new(2),
        epoch: Epoch::new(3),
        since: SeqNo::new(4),
        fingerprint: None,
        parent,
        crashed_before: true,
    };
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
            succeeded(SuccessBy::Attempt, Output::NotKept(NotKept::NotSerializable("x".into()))),
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
        (again(None), &[17, 2, 3, 4, 0, 0]),
        (again(Some(Parent::from_bytes(b"p"))), &[17, 2, 3, 4, 0, 1, 1, b'p']),
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
        &[17, 1, 2, 0, 0, 2],
        &[18],
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
