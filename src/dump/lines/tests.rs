use super::*;
use crate::journal::arbitrary::{event, id};
use crate::journal::{Entry, Record};
use crate::state::Event;
use proptest::collection::vec;
use proptest::prelude::*;
use serde::de::IgnoredAny;

fn read(line: &str, last: u64) -> Result<(EncodedId, TaskDetails), String> {
    let line: TaskLine<IgnoredAny> = serde_json::from_str(line).map_err(|e| e.to_string())?;
    line.read(SeqNo::new(last))
}

proptest! {
    /// Whatever records lead to, also those that a repair believes over gaps, has a line that reads
    /// back as the same.
    #[test]
    fn what_records_lead_to_has_a_line(id in id(), events in vec(event(), 1..12)) {
        let mut details = TaskDetails::ABSENT;
        for (mut event, seq) in events.into_iter().zip(3_u32..) {
            // Each attempt and each open has a record.
            if let Event::Started { attempt, epoch, .. } = &mut event {
                *attempt = Attempt::new(1 + attempt.get() % seq);
                *epoch = Epoch::new(epoch.get() % u64::from(seq));
            }
            let seq = u64::from(seq);
            let entry = Entry::Task { id: id.clone(), prev: details.cell.seq, event };
            let at = Timestamp::from_micros(seq * 1_000);
            details = details.forced(&Record { seq: SeqNo::new(seq), at, entry });
        }
        prop_assume!(details.state() != TaskState::NotFound);
        let info = TaskInfo { id: "x".to_owned(), output: None, last_change: None };
        let line = serde_json::to_string(&TaskLine::of(&id, &details, Some(info))).unwrap();
        prop_assert!(!line.contains('\n') && line.len() < MAX_LINE);
        prop_assert_eq!(read(&line, 15), Ok((id, details)));
    }
}

/// The format: a change of it is a new version.
#[test]
fn a_line_is_written_like_this() {
    let details = TaskDetails {
        cell: Cell { state: TaskState::Failed, attempt: Attempt::new(2), seq: SeqNo::new(9) },
        epoch: Some(Epoch::new(3)),
        queued_at: Some(Timestamp::from_micros(1)),
        started_at: Some(Timestamp::from_micros(2)),
        ended_at: Some(Timestamp::from_micros(3)),
        failure: Some(Failure::GaveUp { attempts: 2, last: "no".to_owned() }),
        since: SeqNo::new(5),
        fingerprint: Some(Fingerprint::from_bytes([0xab; 16])),
        notes: [Note { at: Timestamp::from_micros(6), text: "half".to_owned() }].into(),
        pinned: true,
        ..TaskDetails::ABSENT
    };
    let id = EncodedId::from_bytes(b"\x01a");
    let line = |details: &TaskDetails| {
        let info = TaskInfo { id: "a".to_owned(), output: Some(true.into()), last_change: None };
        let line: Line<IgnoredInfo, TaskInfo> =
            Line::Task(Box::new(TaskLine::of(&id, details, Some(info))));
        serde_json::to_string(&line).unwrap()
    };
    let expected = concat!(
        r#"{"task":{"id":"0161","state":"failed","attempt":2,"seq":9,"since":5,"epoch":3,"queued_at":1,"#,
        r#""started_at":2,"ended_at":3,"#,
        r#""failure":{"kind":"gave up","text":"no","attempts":2},"#,
        r#""fingerprint":"abababababababababababababababab","notes":[{"at":6,"text":"half"}],"#,
        r#""pinned":true,"info":{"id":"a","output":true}}}"#,
    );
    assert_eq!(line(&details), expected);
    // With what only a success has.
    let details = TaskDetails {
        cell: Cell { state: TaskState::Succeeded, attempt: Attempt::NONE, seq: SeqNo::new(9) },
        ended_at: Some(Timestamp::from_micros(3)),
        revoke_started_at: Some(Timestamp::from_micros(4)),
        revoke_failure: Some(Failure::TimedOut),
        succeeded_by: Some(SuccessBy::Resolve),
        output: Output::Kept(vec![0xc3, 0xff]),
        ..TaskDetails::ABSENT
    };
    let expected = concat!(
        r#"{"task":{"id":"0161","state":"succeeded","attempt":0,"seq":9,"ended_at":3,"#,
        r#""revoke_started_at":4,"revoke_failure":{"kind":"timed out"},"#,
        r#""succeeded_by":"resolve","output":{"kept":"w/8="},"info":{"id":"a","output":true}}}"#,
    );
    assert_eq!(line(&details), expected);
}

type IgnoredInfo = ();

#[test]
fn what_no_ledger_holds_is_refused_with_the_reason() {
    let queued = r#""id":"61","state":"queued","attempt":0,"seq":4,"since":4,"queued_at":7"#;
    assert!(read(&format!("{{{queued}}}"), 4).is_ok());
    let done = r#""id":"61","state":"succeeded","attempt":1,"seq":4"#;
    assert!(read(&format!("{{{done},\"info\":{{\"any\":[1]}}}}"), 4).is_ok());
    let long = "61".repeat(MAX_ID_BYTES + 1);
    let output = BASE64.encode(&vec![0; MAX_RECORD + 1]);
    let (text, note) = ("x".repeat(MAX_TEXT + 1), "x".repeat(MAX_NOTE + 1));
    let notes = [r#"{"at":1,"text":""}"#; MAX_NOTES + 1].join(",");
    let cases = [
        (format!(r#"{{"id":"{long}","state":"failed","attempt":1,"seq":4}}"#), "at most 1024"),
        (r#"{"id":"61","state":"not found","attempt":1,"seq":4}"#.to_owned(), "no task is in"),
        (r#"{"id":"61","state":"done","attempt":1,"seq":4}"#.to_owned(), "no task is in"),
        (r#"{"id":"61","state":"failed","attempt":1,"seq":5}"#.to_owned(), "the ledger is 4"),
        (r#"{"id":"61","state":"failed","attempt":1,"seq":0}"#.to_owned(), "its last record is 0"),
        (r#"{"id":"61","state":"failed","attempt":1,"seq":3,"since":4}"#.to_owned(), "first one 4"),
        (r#"{"id":"61","state":"failed","attempt":-1,"seq":3}"#.to_owned(), "invalid value"),
        (r#"{"id":"6","state":"failed","attempt":1,"seq":3}"#.to_owned(), "no hexadecimal digits"),
        (r#"{"id":"6A","state":"failed","attempt":1,"seq":3}"#.to_owned(), "no hexadecimal digits"),
        (format!(r#"{{{done},"fingerprint":"61"}}"#), "1 bytes where 16 are wanted"),
        (format!(r#"{{{done},"output":{{"kept":"{output}"}}}}"#), "at most 49152 are kept"),
        (format!(r#"{{{done},"output":{{"kept":"w/8"}}}}"#), "this is no base64"),
        (format!(r#"{{{done},"output":{{"kept":"","too_large":1}}}}"#), "expected"),
        (
            format!(r#"{{{done},"output":{{"not_serializable":"{text}"}}}}"#),
            "the reason to keep no",
        ),
        (
            format!(r#"{{{done},"failure":{{"kind":"error","text":"{text}"}}}}"#),
            "of a failure has 16385",
        ),
        (
            format!(r#"{{{done},"revoke_failure":{{"kind":"error","text":"{text}"}}}}"#),
            "of a failure",
        ),
        (format!(r#"{{{done},"notes":[{{"at":1,"text":"{note}"}}]}}"#), "a note has 4097 bytes"),
        (format!(r#"{{{done},"notes":[{notes}]}}"#), "at most 8"),
        (
            format!(r#"{{{done},"failure":{{"kind":"crashed","text":""}}}}"#),
            "no failure of the kind",
        ),
        (format!(r#"{{{done},"failure":{{"kind":"gave up","text":""}}}}"#), "no `attempts`"),
        (format!(r#"{{{done},"failure":{{"kind":"x","text":""}}}}"#), "no failure of the kind"),
        (format!(r#"{{{done},"seq":4}}"#), "duplicate field"),
        (format!(r#"{{{done},"prio":1}}"#), "unknown field `prio`"),
        (format!(r#"{{{queued},"pinned":true}}"#), "what is queued"),
        (format!(r#"{{{queued},"started_at":1}}"#), "what is queued"),
        (r#"{"id":"61","state":"queued","attempt":0,"seq":4}"#.to_owned(), "what is queued"),
    ];
    for (line, why) in cases {
        let error = read(&line, 4).unwrap_err();
        assert!(error.contains(why), "{line}: {error}");
    }
}
