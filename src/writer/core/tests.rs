use super::*;
use crate::journal::MemoryJournal;
use crate::state::{Attempt, Failure, Output, SuccessBy};
use crate::submission::Begin;
use crate::writer::tests::Scripted;
use std::collections::BTreeMap;

mod judged;
mod scopes;

/// A core over a journal in memory, and the cells as they are published.
struct Bench {
    core: Core,
    journal: MemoryJournal,
    published: BTreeMap<EncodedId, Cell>,
    keys: u64,
    /// Ends that wait for others.
    deferred: usize,
}

impl Bench {
    fn new() -> Self {
        Self {
            core: Core::new(SeqNo::ZERO, Epoch::new(1), &BTreeMap::new()),
            journal: MemoryJournal::new(),
            published: BTreeMap::new(),
            keys: 0,
            deferred: 0,
        }
    }

    /// The id in this state, by the requests that lead there.
    fn with(state: TaskState) -> (Self, Option<AttemptKey>) {
        let mut bench = Self::new();
        let mut current = None;
        match state {
            TaskState::NotFound => {}
            TaskState::Queued => {
                // Only the operation queue makes these; no request does yet.
                let record = Record {
                    seq: bench.core.next,
                    at: Timestamp::default(),
                    entry: Entry::Task {
                        id: id("a"),
                        prev: SeqNo::ZERO,
                        event: Event::Queued { payload: None, since: SeqNo::ZERO },
                    },
                };
                bench.journal.append(&[record]).unwrap();
                let cell = Cell { state, attempt: Attempt::NONE, seq: bench.core.next };
                bench.published.insert(id("a"), cell);
                bench.core.next = bench.core.next.next();
            }
            TaskState::Running => current = Some(bench.start("a")),
            TaskState::Succeeded => {
                let key = bench.start("a");
                bench.accept(&[end(key, succeeded())]);
            }
            TaskState::Failed => {
                let key = bench.start("a");
                bench.accept(&[end(key, failed())]);
            }
            TaskState::Revoking => {
                bench.accept(&[Request::mark(id("a"))]);
                let key = bench.key();
                bench.accept(&[Request::StartRevoke { id: id("a"), key }]);
                current = Some(key);
            }
        }
        assert_eq!(bench.cell("a").state, state);
        (bench, current)
    }

    fn key(&mut self) -> AttemptKey {
        self.keys += 1;
        AttemptKey(self.keys)
    }

    fn start(&mut self, name: &str) -> AttemptKey {
        let key = self.key();
        self.accept(&[Request::Start { id: id(name), key, begin: Begin::default() }]);
        key
    }

    fn accept(&mut self, requests: &[Request]) {
        for answer in self.step(requests) {
            assert!(matches!(answer, Answer::Done(_)), "{answer:?}");
        }
    }

    fn cell(&self, name: &str) -> Cell {
        self.published.get(&id(name)).copied().unwrap_or(Cell::ABSENT)
    }

    /// Steps and publishes; checks that the log grew by exactly what was accepted, densely.
    fn step(&mut self, requests: &[Request]) -> Vec<Answer> {
        let before = self.journal.records().len();
        let published = &self.published;
        let look = |id: &EncodedId| found(published.get(id).copied().unwrap_or(Cell::ABSENT));
        let step = self
            .core
            .step(
                requests,
                Timestamp::default(),
                look,
                |_| false,
                &mut self.journal,
                |to, records| to.append(records),
            )
            .unwrap();
        assert_eq!(step.answers.len(), requests.len());
        let accepted = step.answers.iter().filter(|a| matches!(a, Answer::Done(_))).count();
        let records = self.journal.records();
        // What was deferred comes with the last of those that it waits for.
        self.deferred += step.answers.iter().filter(|a| **a == Answer::Deferred).count();
        let late = records.len() - before - accepted;
        self.deferred = self.deferred.checked_sub(late).unwrap();
        assert_eq!(step.changes.len() + step.metadata.len(), accepted + late);
        for (at, record) in records.iter().enumerate() {
            assert_eq!(record.seq, SeqNo::new(at as u64 + 1), "dense");
        }
        assert_eq!(self.core.last(), SeqNo::new(records.len() as u64));
        for change in step.changes {
            if change.cell == Cell::ABSENT {
                self.published.remove(&change.id);
            } else {
                assert!(change.cell.seq.get() > before as u64);
                self.published.insert(change.id, change.cell);
            }
        }
        step.answers
    }
}

/// An id with this cell, and no tombstone.
const fn found(cell: Cell) -> Found {
    Found { cell, ..Found::NOTHING }
}

pub(in crate::writer) fn id(name: &str) -> EncodedId {
    EncodedId::from_bytes(name.as_bytes())
}

fn succeeded() -> Event {
    Event::Succeeded { by: SuccessBy::Attempt, output: Output::Kept(vec![7]) }
}

pub(in crate::writer) fn failed() -> Event {
    Event::Failed { failure: Failure::Error("no".into()) }
}

fn revoke_failed() -> Event {
    Event::RevokeFailed { failure: Failure::TimedOut }
}

pub(in crate::writer) fn end(key: AttemptKey, event: Event) -> Request {
    Request::End { id: id("a"), key, event }
}

pub(in crate::writer) fn start(key: u64) -> Request {
    Request::Start { id: id("a"), key: AttemptKey(key), begin: Begin::default() }
}

fn states(answers: &[Answer]) -> Vec<Result<TaskState, Option<TaskState>>> {
    let told = |answer: &Answer| match answer {
        Answer::Done(cell) => Ok(cell.state),
        Answer::Refused(state) => Err(Some(*state)),
        Answer::Superseded
        | Answer::NoRoom
        | Answer::Unreadable
        | Answer::ScopeEnded
        | Answer::Deferred => Err(None),
    };
    answers.iter().map(told).collect()
}

/// Every request in every state: accepted where the state machine has an arrow, else refused with
/// the state and without a trace.
#[test]
fn every_request_in_every_state() {
    use TaskState::{Failed, NotFound, Queued, Revoking, Running, Succeeded};
    for state in TaskState::ALL {
        let key = AttemptKey(99);
        let arrows = [
            (
                Request::Start { id: id("a"), key, begin: Begin::default() },
                matches!(state, NotFound | Failed),
                Running,
            ),
            (Request::StartRevoke { id: id("a"), key }, state == Succeeded, Revoking),
            (Request::mark(id("a")), matches!(state, NotFound | Failed), Succeeded),
            (Request::forget(id("a")), matches!(state, Succeeded | Failed | Queued), NotFound),
        ];
        for (request, legal, target) in arrows {
            let (mut bench, _) = Bench::with(state);
            let before = bench.cell("a");
            let answers = bench.step(std::slice::from_ref(&request));
            let expected = if legal { Ok(target) } else { Err(Some(state)) };
            assert_eq!(states(&answers), [expected], "{request:?} while {state}");
            if !legal {
                assert_eq!(bench.cell("a"), before, "a refusal changes nothing");
            }
        }
    }
}

/// Every end in every state, by the current attempt and by a stranger.
#[test]
fn every_end_in_every_state() {
    use TaskState::{Failed, NotFound, Revoking, Running, Succeeded};
    for state in TaskState::ALL {
        let ends = [
            (succeeded(), Running, Succeeded),
            (failed(), Running, Failed),
            (revoke_failed(), Revoking, Succeeded),
            (Event::Revoked, Revoking, NotFound),
        ];
        for (event, legal_in, target) in ends {
            let (mut bench, current) = Bench::with(state);
            let before = bench.cell("a");
            let stranger = AttemptKey(99);
            assert_eq!(bench.step(&[end(stranger, event.clone())]), [Answer::Superseded]);
            assert_eq!(bench.cell("a"), before, "a stranger's end changes nothing");
            let Some(current) = current else { continue };
            let answers = bench.step(&[end(current, event)]);
            let expected = if legal_in == state { Ok(target) } else { Err(None) };
            assert_eq!(states(&answers), [expected]);
        }
    }
}

#[test]
fn of_two_launches_in_one_group_the_first_is_accepted() {
    let mut bench = Bench::new();
    let answers = bench.step(&[start(1), start(2), start(3)]);
    let refused = Err(Some(TaskState::Running));
    assert_eq!(states(&answers), [Ok(TaskState::Running), refused, refused]);
    // The end that counts is the accepted one's.
    assert_eq!(bench.step(&[end(AttemptKey(2), succeeded())]), [Answer::Superseded]);
    assert_eq!(bench.cell("a").state, TaskState::Running);
    bench.accept(&[end(AttemptKey(1), succeeded())]);
    assert_eq!(bench.cell("a").state, TaskState::Succeeded);
}

#[test]
fn a_start_and_its_end_fit_in_one_group() {
    let mut bench = Bench::new();
    let answers = bench.step(&[start(1), end(AttemptKey(1), succeeded()), start(2)]);
    assert_eq!(
        states(&answers),
        [Ok(TaskState::Running), Ok(TaskState::Succeeded), Err(Some(TaskState::Succeeded))]
    );
    let prevs: Vec<_> = bench.journal.records().iter().map(prev).collect();
    assert_eq!(prevs, [SeqNo::ZERO, SeqNo::new(1)], "the end names its own start");
}

#[test]
fn an_end_makes_room_for_a_launch_behind_it() {
    let mut bench = Bench::new();
    bench.accept(&[start(1)]);
    let answers = bench.step(&[
        start(2),
        end(AttemptKey(1), failed()),
        start(3),
        end(AttemptKey(3), failed()),
    ]);
    assert_eq!(
        states(&answers),
        [
            Err(Some(TaskState::Running)),
            Ok(TaskState::Failed),
            Ok(TaskState::Running),
            Ok(TaskState::Failed)
        ]
    );
    assert_eq!(bench.cell("a").attempt, Attempt::new(2));
}

#[test]
fn a_mark_refuses_the_launch_behind_it() {
    let mut bench = Bench::new();
    let mark = Request::mark(id("a"));
    let answers = bench.step(&[mark.clone(), start(1), mark.clone()]);
    let refused = Err(Some(TaskState::Succeeded));
    assert_eq!(states(&answers), [Ok(TaskState::Succeeded), refused, refused]);
    let mut bench = Bench::new();
    let answers = bench.step(&[start(1), mark]);
    assert_eq!(states(&answers), [Ok(TaskState::Running), Err(Some(TaskState::Running))]);
}

/// A start was taken whatever had become of the id since it was judged.
#[test]
fn a_start_follows_only_what_was_judged() {
    let judged = |key, after| Request::Start {
        id: id("a"),
        key: AttemptKey(key),
        begin: Begin { after: Some(SeqNo::new(after)), ..Begin::default() },
    };
    let mut bench = Bench::new();
    let answers = bench.step(&[start(1), end(AttemptKey(1), failed()), judged(2, 0), judged(3, 1)]);
    let refused = Err(Some(TaskState::Failed));
    assert_eq!(states(&answers)[2..], [refused, refused]);
    assert_eq!(states(&bench.step(&[judged(4, 0)])), [refused]);
    let pin = Request::Change { id: id("a"), event: Event::Pinned, after: None };
    let answers = bench.step(&[pin, judged(5, 2)]);
    assert_eq!(states(&answers), [Ok(TaskState::Failed), refused]);
    assert_eq!(states(&bench.step(&[judged(6, 3)])), [Ok(TaskState::Running)]);
    // Of what is not known there is no record.
    let mut bench = Bench::new();
    assert_eq!(states(&bench.step(&[judged(1, 0)])), [Ok(TaskState::Running)]);
}

/// They were two requests, of which the second might be refused.
#[test]
fn a_verdict_and_its_note_are_one_request() {
    let resolve = |note: Option<&str>, after: Option<u64>| Request::Resolve {
        id: id("a"),
        note: note.map(str::to_owned),
        output: Output::Absent,
        after: after.map(SeqNo::new),
    };
    for state in TaskState::ALL {
        for note in [None, Some("seen")] {
            let (mut bench, _) = Bench::with(state);
            let before = bench.journal.records().len();
            let last = bench.cell("a").seq.get();
            if state != TaskState::Failed {
                for after in [None, Some(last), Some(last + 1)] {
                    let answers = bench.step(&[resolve(note, after)]);
                    assert!(!matches!(answers[..], [Answer::Done(_)]), "{state}: {answers:?}");
                }
                assert_eq!(bench.journal.records().len(), before, "{state}");
                continue;
            }
            // Another record is the last one.
            assert_eq!(bench.step(&[resolve(note, Some(last - 1))]), [Answer::Superseded]);
            let published = bench.cell("a");
            let look = |_: &EncodedId| found(published);
            let requests = [resolve(note, Some(last)), start(50)];
            let at = Timestamp::default();
            let step = bench
                .core
                .step(
                    &requests,
                    at,
                    look,
                    |_| false,
                    &mut bench.journal,
                    |to, records| to.append(records),
                )
                .unwrap();
            assert!(
                matches!(step.answers[0], Answer::Done(cell) if cell.state == TaskState::Succeeded)
            );
            assert_eq!(step.answers[1], Answer::Refused(TaskState::Succeeded));
            let names: Vec<_> =
                step.changes.iter().map(|change| change.cell.state.name()).collect();
            let told = bench.journal.records().split_off(before);
            match note {
                None => assert_eq!(names, ["succeeded"]),
                Some(_) => {
                    assert_eq!(names, ["failed", "succeeded"]);
                    let Entry::Task { event: Event::Noted { note }, .. } = &told[0].entry else {
                        panic!("{told:?}")
                    };
                    assert_eq!(note, "seen");
                    assert_eq!((prev(&told[0]).get(), prev(&told[1])), (last, told[0].seq));
                }
            }
        }
    }
}

#[test]
fn a_forget_makes_room_for_a_launch_behind_it() {
    let (mut bench, _) = Bench::with(TaskState::Failed);
    let forget = Request::forget(id("a"));
    let answers = bench.step(&[forget.clone(), start(50), forget]);
    assert_eq!(
        states(&answers),
        [Ok(TaskState::NotFound), Ok(TaskState::Running), Err(Some(TaskState::Running))]
    );
    assert_eq!(bench.cell("a").attempt, Attempt::new(1), "counted anew");
    let record = bench.journal.records().pop().unwrap();
    assert_eq!(prev(&record), SeqNo::ZERO, "it follows nothing");
}

#[test]
fn a_revoke_refuses_the_launch_behind_it_until_it_is_done() {
    let (mut bench, _) = Bench::with(TaskState::Succeeded);
    let key = AttemptKey(50);
    let revoke = Request::StartRevoke { id: id("a"), key };
    let again = Request::StartRevoke { id: id("a"), key: AttemptKey(51) };
    let answers = bench.step(&[revoke, start(52), again, end(key, Event::Revoked), start(53)]);
    let refused = Err(Some(TaskState::Revoking));
    assert_eq!(
        states(&answers),
        [
            Ok(TaskState::Revoking),
            refused,
            refused,
            Ok(TaskState::NotFound),
            Ok(TaskState::Running)
        ]
    );
}

#[test]
fn requests_of_several_ids_are_answered_in_their_order() {
    let mut bench = Bench::new();
    let launch = |name: &str, key| Request::Start {
        id: id(name),
        key: AttemptKey(key),
        begin: Begin::default(),
    };
    let set = |value: &[u8]| Request::SetMetadata { name: "m".into(), value: Some(value.into()) };
    let answers =
        bench.step(&[launch("b", 1), set(b"1"), launch("b", 2), launch("c", 3), set(b"2")]);
    let seqs: Vec<_> = answers
        .iter()
        .map(|answer| match answer {
            Answer::Done(cell) => Some(cell.seq.get()),
            Answer::Refused(_)
            | Answer::Superseded
            | Answer::NoRoom
            | Answer::Unreadable
            | Answer::ScopeEnded
            | Answer::Deferred => None,
        })
        .collect();
    assert_eq!(seqs, [Some(1), Some(0), None, Some(3), Some(0)]);
    assert_eq!(bench.journal.records().len(), 4);
}

/// Fencing: a state map without it let the end of a forgotten attempt overwrite a newer one.
#[test]
fn an_end_counts_once_and_only_for_its_own_attempt() {
    let mut bench = Bench::new();
    let first = bench.start("a");
    bench.accept(&[end(first, failed())]);
    assert_eq!(bench.step(&[end(first, succeeded())]), [Answer::Superseded]);
    let second = bench.start("a");
    assert_eq!(bench.step(&[end(first, succeeded())]), [Answer::Superseded]);
    assert_eq!(bench.cell("a").state, TaskState::Running, "the second one still runs");
    bench.accept(&[end(second, succeeded())]);
    assert_eq!(bench.step(&[end(second, failed())]), [Answer::Superseded]);
    assert_eq!(bench.cell("a").state, TaskState::Succeeded);
}

#[test]
fn the_end_of_a_refused_start_changes_nothing() {
    let mut bench = Bench::new();
    let answers = bench.step(&[start(1), start(2), end(AttemptKey(2), failed())]);
    assert_eq!(
        states(&answers),
        [Ok(TaskState::Running), Err(Some(TaskState::Running)), Err(None)]
    );
    bench.accept(&[end(AttemptKey(1), succeeded())]);
}

#[test]
fn an_end_that_fits_no_state_changes_nothing() {
    let mut bench = Bench::new();
    bench.accept(&[start(1)]);
    assert_eq!(bench.step(&[end(AttemptKey(1), Event::Revoked)]), [Answer::Superseded]);
    assert_eq!(bench.cell("a").state, TaskState::Running);
}

#[test]
fn an_empty_or_wholly_refused_group_appends_nothing() {
    let (mut bench, _) = Bench::with(TaskState::Running);
    let mut refusing = Scripted::failing();
    let cell = bench.cell("a");
    let step = bench.core.step(
        &[start(60)],
        Timestamp::default(),
        |_| found(cell),
        |_| false,
        &mut refusing,
        |to, records| to.append(records),
    );
    assert_eq!(step.unwrap().answers, [Answer::Refused(TaskState::Running)]);
    assert!(
        bench
            .core
            .step(
                &[],
                Timestamp::default(),
                |_| found(cell),
                |_| false,
                &mut refusing,
                |to, records| to.append(records)
            )
            .is_ok()
    );
}

#[test]
fn a_failing_append_gives_nothing_to_publish() {
    let mut core = Core::new(SeqNo::ZERO, Epoch::new(1), &BTreeMap::new());
    let absent = |_: &EncodedId| Found::NOTHING;
    let step = core.step(
        &[start(1)],
        Timestamp::default(),
        absent,
        |_| false,
        &mut Scripted::failing(),
        |to, records| to.append(records),
    );
    assert!(matches!(step, Err(JournalError::Store(_))));
}

#[test]
fn no_token_is_kept_of_what_has_ended() {
    let mut bench = Bench::new();
    for _ in 0..100 {
        let key = bench.start("a");
        bench.step(&[start(1_000_000)]);
        bench.step(&[end(key, failed()), end(key, failed())]);
    }
    assert_eq!(bench.core.tokens.len(), 0);
}

fn prev(record: &Record) -> SeqNo {
    match &record.entry {
        Entry::Task { prev, .. } => *prev,
        Entry::Ledger(_) => SeqNo::ZERO,
    }
}
