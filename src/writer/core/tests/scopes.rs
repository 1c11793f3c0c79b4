//! Attempts within attempts.

use super::*;
use crate::submission::Within;

fn start_within(name: &str, key: AttemptKey, scope: (&str, AttemptKey)) -> Request {
    let within = Some(Within { key: scope.1, id: id(scope.0) });
    Request::Start { id: id(name), key, begin: Begin { within, ..Begin::default() } }
}

fn ends(name: &str, key: AttemptKey, event: Event) -> Request {
    Request::End { id: id(name), key, event }
}

/// The ids of the ends in the log, in their order.
fn ended(bench: &Bench) -> Vec<String> {
    let end = |record: Record| match record.entry {
        Entry::Task { id, event: Event::Failed { .. } | Event::Succeeded { .. }, .. } => {
            Some(String::from_utf8_lossy(id.as_bytes()).into_owned())
        }
        Entry::Task { .. } | Entry::Ledger(_) => None,
    };
    bench.journal.records().into_iter().filter_map(end).collect()
}

#[test]
fn the_end_of_a_scope_waits_for_those_within_it_and_below() {
    // In one group, and each in a group of its own.
    for together in [true, false] {
        let mut bench = Bench::new();
        let top = bench.start("top");
        let (below, deep, other) = (bench.key(), bench.key(), bench.key());
        bench.accept(&[
            start_within("below", below, ("top", top)),
            start_within("deep", deep, ("below", below)),
            start_within("other", other, ("top", top)),
        ]);
        let requests = [
            ends("top", top, succeeded()),
            ends("below", below, failed()),
            ends("deep", deep, succeeded()),
            ends("other", other, failed()),
        ];
        let answers = if together {
            bench.step(&requests)
        } else {
            requests.iter().flat_map(|request| bench.step(std::slice::from_ref(request))).collect()
        };
        assert_eq!(answers[..2], [Answer::Deferred, Answer::Deferred]);
        assert!(answers[2..].iter().all(|answer| matches!(answer, Answer::Done(_))), "{answers:?}");
        assert_eq!(ended(&bench), ["deep", "below", "other", "top"]);
        assert_eq!(bench.cell("top").state, TaskState::Succeeded);
        assert_eq!(bench.cell("below").state, TaskState::Failed);
    }
}

#[test]
fn nothing_begins_within_a_scope_that_has_ended() {
    let mut bench = Bench::new();
    let top = bench.start("top");
    let (child, late) = (bench.key(), bench.key());
    bench.accept(&[start_within("child", child, ("top", top))]);
    // Its end waits for the child.
    let answers =
        bench.step(&[ends("top", top, succeeded()), start_within("late", late, ("top", top))]);
    assert_eq!(answers, [Answer::Deferred, Answer::ScopeEnded]);
    bench.accept(&[ends("child", child, failed())]);
    let answers = bench.step(&[start_within("late", late, ("top", top))]);
    assert_eq!(answers, [Answer::ScopeEnded]);
    assert_eq!(bench.cell("late"), Cell::ABSENT);
    assert_eq!(ended(&bench), ["child", "top"]);
}

/// A child that is refused, or whose end changes nothing, keeps its scope from nothing.
#[test]
fn who_is_refused_is_not_waited_for() {
    let mut bench = Bench::new();
    let (top, running) = (bench.start("top"), bench.start("running"));
    let refused = bench.key();
    let answers = bench.step(&[
        start_within("running", refused, ("top", top)),
        ends("running", refused, failed()),
        ends("top", top, succeeded()),
        ends("running", running, succeeded()),
    ]);
    assert_eq!(answers[0], Answer::Refused(TaskState::Running));
    assert_eq!(answers[1], Answer::Superseded);
    assert_eq!(ended(&bench), ["top", "running"]);
}
