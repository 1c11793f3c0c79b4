use super::*;
use TaskState::{Failed, NotFound, Queued, Revoking, Running, Succeeded};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn started(attempt: u32) -> Event {
    Event::Started { attempt: Attempt::new(attempt), epoch: Epoch::new(3) }
}

fn succeeded(by: SuccessBy) -> Event {
    Event::Succeeded { by, output: Output::Absent }
}

/// Every event, in the order of the columns of [`TABLE`].
fn events() -> [Event; 9] {
    let failure = Failure::Crashed;
    [
        Event::Queued,
        started(1),
        succeeded(SuccessBy::Attempt),
        succeeded(SuccessBy::Mark),
        Event::Failed { failure: failure.clone() },
        Event::RevokeStarted,
        Event::RevokeFailed { failure },
        Event::Revoked,
        Event::Forgotten,
    ]
}

const NO: Option<TaskState> = None;

/// The whole state machine, written out a second time: any change of [`apply`] fails here.
#[rustfmt::skip]
const TABLE: [(TaskState, [Option<TaskState>; 9]); 6] = [
//             queued        started        by attempt       by mark          failed        revoke started   revoke failed    revoked         forgotten
    (NotFound, [Some(Queued), Some(Running), NO,              Some(Succeeded), NO,           NO,              NO,              NO,             NO]),
    (Queued,   [NO,           Some(Running), NO,              NO,              NO,           NO,              NO,              NO,             Some(NotFound)]),
    (Running,  [NO,           NO,            Some(Succeeded), NO,              Some(Failed), NO,              NO,              NO,             NO]),
    (Succeeded,[NO,           NO,            NO,              NO,              NO,           Some(Revoking),  NO,              NO,             Some(NotFound)]),
    (Failed,   [Some(Queued), Some(Running), NO,              Some(Succeeded), NO,           NO,              NO,              NO,             Some(NotFound)]),
    (Revoking, [NO,           NO,            NO,              NO,              NO,           NO,              Some(Succeeded), Some(NotFound), NO]),
];

#[test]
fn the_whole_table() {
    assert_eq!(TABLE.map(|(state, _)| state), TaskState::ALL);
    for (state, row) in TABLE {
        for (event, expected) in events().iter().zip(row) {
            let illegal = IllegalTransition { state, event: event.name(), why: WhyIllegal::State };
            assert_eq!(apply(state, event), expected.ok_or(illegal), "{state}, {event:?}");
        }
    }
}

#[test]
fn targets_do_not_depend_on_the_state() {
    let targets =
        [Queued, Running, Succeeded, Succeeded, Failed, Revoking, Succeeded, NotFound, NotFound];
    assert_eq!(events().map(|event| event.target()), targets);
}

#[test]
fn a_cell_follows_the_table_and_counts() {
    for (state, row) in TABLE {
        let attempt = if state == NotFound { 0 } else { 4 };
        let cell = cell(state, attempt, 10);
        for (mut event, expected) in events().into_iter().zip(row) {
            let mut next = attempt;
            if let Event::Started { attempt: named, .. } = &mut event {
                next += 1;
                *named = Attempt::new(next);
            }
            let expected = match expected {
                Some(NotFound) => Ok(Cell::ABSENT),
                Some(target) => Ok(Cell { state: target, ..self::cell(state, next, 12) }),
                None => {
                    Err(IllegalTransition { state, event: event.name(), why: WhyIllegal::State })
                }
            };
            let found = cell.apply(SeqNo::new(12), SeqNo::new(10), &event);
            assert_eq!(found, expected, "{state}, {event:?}");
        }
    }
}

fn cell(state: TaskState, attempt: u32, seq: u64) -> Cell {
    Cell { state, attempt: Attempt::new(attempt), seq: SeqNo::new(seq) }
}

#[test]
fn stale_records_are_fenced_off_in_every_state() {
    for (state, row) in TABLE {
        let cell = cell(state, 0, 10);
        for (event, expected) in events().iter().zip(row) {
            for prev in [0, 9, 11] {
                let found = SeqNo::new(prev);
                let why = match expected {
                    Some(_) => WhyIllegal::Token { expected: SeqNo::new(10), found },
                    None => WhyIllegal::State,
                };
                let illegal = IllegalTransition { state, event: event.name(), why };
                assert_eq!(cell.apply(SeqNo::new(12), found, event), Err(illegal), "{event:?}");
            }
        }
    }
}

#[test]
fn attempts_are_counted_by_one() {
    for (state, last) in [(NotFound, 0), (Queued, 0), (Queued, 4), (Failed, 4)] {
        let cell = cell(state, last, 10);
        for attempt in [0, last, last + 2, u32::MAX] {
            let found = Attempt::new(attempt);
            let why = WhyIllegal::Attempt { expected: Attempt::new(last + 1), found };
            assert_eq!(
                cell.apply(SeqNo::new(12), SeqNo::new(10), &started(attempt)).unwrap_err().why,
                why
            );
        }
        let after = cell.apply(SeqNo::new(12), SeqNo::new(10), &started(last + 1));
        assert_eq!(after, Ok(self::cell(Running, last + 1, 12)));
    }
    let worn = cell(Failed, u32::MAX, 10);
    let after = worn.apply(SeqNo::new(12), SeqNo::new(10), &started(u32::MAX));
    assert_eq!(after, Ok(cell(Running, u32::MAX, 12)));
}

#[test]
fn forced_believes_every_event() {
    for state in TaskState::ALL {
        for event in events() {
            let expected = match &event {
                Event::Revoked | Event::Forgotten => Cell::ABSENT,
                Event::Started { attempt, .. } => cell(Running, attempt.get(), 12),
                Event::Queued
                | Event::Succeeded { .. }
                | Event::Failed { .. }
                | Event::RevokeStarted
                | Event::RevokeFailed { .. } => cell(event.target(), 4, 12),
            };
            assert_eq!(cell(state, 4, 10).forced(SeqNo::new(12), &event), expected, "{event:?}");
        }
    }
}

#[test]
fn what_illegal_transitions_say() {
    let cell = cell(Running, 1, 7);
    let said = |prev, event: &Event, cell: Cell| {
        cell.apply(SeqNo::new(9), SeqNo::new(prev), event).unwrap_err().to_string()
    };
    assert_eq!(said(7, &started(2), cell), "\"started\" cannot follow \"running\"");
    assert_eq!(
        said(5, &succeeded(SuccessBy::Attempt), cell),
        "\"succeeded\" cannot follow \"running\": it follows record 5, the last one is 7"
    );
    assert_eq!(
        said(7, &started(3), Cell { state: Failed, ..cell }),
        "\"started\" cannot follow \"failed\": it is attempt 3, the next one is 2"
    );
}

#[test]
fn names() {
    assert_eq!(
        TaskState::ALL.map(TaskState::name),
        ["not found", "queued", "running", "succeeded", "failed", "revoking"]
    );
    assert_eq!(format!("{:>9}|{:<7}|", Queued, Running), "   queued|running|");
    assert_eq!(TaskState::ALL.map(TaskState::is_settled), [true, false, false, true, true, false]);
    assert_eq!(Failure::Error("no route".into()).to_string(), "error: no route");
    assert_eq!(Failure::TimedOut.to_string(), "timed out");
    assert_eq!(NotKept::TooLarge { size: 40_000 }.to_string(), "40000 bytes, over the cap");
}

#[test]
fn times_of_known_dates() {
    for (micros, shown) in [
        (0, "1970-01-01T00:00:00.000000Z"),
        (86_399_999_999, "1970-01-01T23:59:59.999999Z"),
        (68_169_600_000_000, "1972-02-29T00:00:00.000000Z"),
        (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
        (951_868_800_000_000, "2000-03-01T00:00:00.000000Z"),
        (1_795_326_737_000_123, "2026-11-22T05:52:17.000123Z"),
        (4_107_542_399_000_000, "2100-02-28T23:59:59.000000Z"),
        (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
    ] {
        assert_eq!(Timestamp::from_micros(micros).to_string(), shown);
    }
    // No date is out of reach: nothing overflows.
    assert!(Timestamp::from_micros(u64::MAX).to_string().starts_with("586524-"));
}

#[test]
fn times_convert_and_clamp() {
    assert_eq!(Timestamp::from(UNIX_EPOCH), Timestamp::from_micros(0));
    assert_eq!(Timestamp::from(UNIX_EPOCH - Duration::from_secs(1)), Timestamp::from_micros(0));
    let time = UNIX_EPOCH + Duration::new(5, 6_999);
    assert_eq!(Timestamp::from(time).as_micros(), 5_000_006);
    let time = Timestamp::from_micros(5_000_006);
    assert_eq!(Timestamp::from(SystemTime::from(time)), time);
}
