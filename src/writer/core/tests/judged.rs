//! Requests that are about the record that somebody has looked at.

use super::*;

/// Such as a verdict of a run, or an operation that is put back: it is about the record that was looked at.
#[test]
fn a_change_that_has_judged_another_record_is_refused() {
    let (mut bench, _) = Bench::with(TaskState::Failed);
    let now = bench.cell("a").seq;
    let failure = Failure::GaveUp { attempts: 1, last: String::new() };
    let event = Event::Resolved { failure };
    let change = |after| Request::Change { id: id("a"), event: event.clone(), after };
    let before = bench.journal.records()[0].seq;
    assert_eq!(bench.step(&[change(Some(before))]), [Answer::Superseded]);
    bench.accept(&[change(Some(now)), change(None)]);
    assert_eq!(bench.step(&[change(Some(now))]), [Answer::Superseded]);
}
