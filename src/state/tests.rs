use super::*;
use TaskState::{Failed, NotFound, Queued, Revoking, Running, Succeeded};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn started(attempt: u32) -> Event {
    Event::Started {
        attempt: Attempt::new(attempt),
        epoch: Epoch::new(3),
        since: SeqNo::ZERO,
        fingerprint: None,
        parent: None,
        crashed_before: false,
    }
}

fn succeeded(by: SuccessBy) -> Event {
    Event::Succeeded { by, output: Output::Absent }
}

/// Every event, in the order of the columns of [`TABLE`].
fn events() -> [Event; 16] {
    let failure = Failure::Crashed;
    let tombstone = Tombstone::from_bytes([7; 16]);
    [
        Event::Queued { payload: None, since: SeqNo::ZERO },
        started(1),
        succeeded(SuccessBy::Attempt),
        succeeded(SuccessBy::Mark),
        Event::Failed { failure: failure.clone() },
        Event::RevokeStarted,
        Event::RevokeFailed { failure: failure.clone() },
        Event::Revoked,
        Event::Forgotten,
        Event::Noted { note: String::new() },
        succeeded(SuccessBy::Resolve),
        Event::Resolved { failure },
        Event::Pinned,
        Event::Unpinned,
        Event::Buried { tombstone },
        Event::Exhumed { tombstone },
    ]
}

const NO: Option<TaskState> = None;
const Q: Option<TaskState> = Some(Queued);
const R: Option<TaskState> = Some(Running);
const S: Option<TaskState> = Some(Succeeded);
const F: Option<TaskState> = Some(Failed);
const V: Option<TaskState> = Some(Revoking);
const N: Option<TaskState> = Some(NotFound);

/// The whole state machine, written out a second time: any change of [`apply`] fails here.
#[rustfmt::skip]
const TABLE: [(TaskState, [Option<TaskState>; 16]); 6] = [
//             queued started succeeded by  failed revoke        revoked forgotten noted resolved as  pinned unpinned buried exhumed
//                            attempt mark         started failed                        success failure
    (NotFound, [Q,    R,      NO,     S,    NO,    NO,    NO,    NO,     NO,       NO,   NO,     NO,     NO, NO,      NO,    S]),
    (Queued,   [NO,   R,      NO,     NO,   NO,    NO,    NO,    NO,     N,        NO,   NO,     NO,     NO, NO,      NO,    NO]),
    (Running,  [NO,   NO,     S,      NO,   F,     NO,    NO,    NO,     NO,       R,    NO,     NO,     NO, NO,      NO,    NO]),
    (Succeeded,[NO,   NO,     NO,     NO,   NO,    V,     NO,    NO,     N,        NO,   NO,     NO,     S,  S,       N,     NO]),
    (Failed,   [Q,    R,      NO,     S,    NO,    NO,    NO,    NO,     N,        F,    S,      F,      F,  F,       NO,    NO]),
    (Revoking, [NO,   NO,     NO,     NO,   NO,    NO,    S,     N,      NO,       NO,   NO,     NO,     NO, NO,      NO,    NO]),
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
fn targets_are_what_the_table_says_wherever_it_says_something() {
    for (state, row) in TABLE {
        for (event, expected) in events().iter().zip(row) {
            assert_eq!(
                event.target(state),
                expected.unwrap_or_else(|| event.target(state)),
                "{event:?}"
            );
        }
    }
    // Over a gap, only what is pinned or noted depends on what is known.
    for event in events() {
        let targets = TaskState::ALL.map(|state| event.target(state));
        let other = if matches!(event, Event::Pinned | Event::Unpinned) {
            Succeeded
        } else if let Event::Noted { .. } = event {
            Running
        } else {
            targets[4]
        };
        let expected = |state| if state == Failed { targets[4] } else { other };
        assert_eq!(targets, TaskState::ALL.map(expected), "{event:?}");
    }
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
            let target = event.target(state);
            let attempt = if let Event::Started { .. } = event { 1 } else { 4 };
            let expected =
                if target == NotFound { Cell::ABSENT } else { cell(target, attempt, 12) };
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
    assert_eq!(Failure::Released(String::new()).to_string(), "released");
    let gave_up = Failure::GaveUp { attempts: 3, last: "crashed".into() };
    assert_eq!(gave_up.to_string(), "gave up after 3 attempts: crashed");
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
