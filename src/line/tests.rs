use super::keyed::Lines;
use super::*;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: StdArc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll(wait: &mut Wait, woken: &StdArc<Woken>) -> Poll<Waited> {
    let waker = Waker::from(StdArc::clone(woken));
    Pin::new(wait).poll(&mut Context::from_waker(&waker))
}

fn token(outcome: AcquireOutcome) -> Token {
    match outcome {
        AcquireOutcome::Success(token) => token,
        AcquireOutcome::Failure(_) => panic!("it is busy"),
    }
}

fn wait(outcome: AcquireOutcome) -> Wait {
    match outcome {
        AcquireOutcome::Success(_) => panic!("it is free"),
        AcquireOutcome::Failure(wait) => wait,
    }
}

fn is_busy(line: &Line) -> bool {
    matches!(line.status(), LineStatus::Busy(_))
}

/// So many that wait, polled once in this order.
fn waiting(line: &Line, count: usize) -> Vec<(Wait, StdArc<Woken>)> {
    let enter = |_| {
        let (mut wait, woken) = (wait(line.try_acquire_token()), StdArc::new(Woken::default()));
        assert!(poll(&mut wait, &woken).is_pending());
        (wait, woken)
    };
    (0..count).map(enter).collect()
}

/// A holder that panicked, or gave up, once left those who waited with an answer that looked like a
/// solved problem.
#[test]
fn who_waits_is_told_what_came_of_it() {
    let line = Line::new();
    let first = token(line.try_acquire_token());
    let mut waiters = waiting(&line, 3);
    first.solve();
    for (wait, woken) in &mut waiters {
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(matches!(poll(wait, woken), Poll::Ready(Waited::Solved)));
    }
    assert!(!is_busy(&line));

    let second = token(line.try_acquire_token());
    let mut waiters = waiting(&line, 3);
    second.fail("no route");
    for (wait, woken) in &mut waiters {
        let Poll::Ready(Waited::Failed(why)) = poll(wait, woken) else { panic!("it is told") };
        assert_eq!(&*why, "no route");
    }
    // Also one that asks only now, while the next problem is handled.
    let _third = token(line.try_acquire_token());
    let (wait, woken) = &mut waiters[0];
    assert!(matches!(poll(wait, woken), Poll::Ready(Waited::Failed(_))));
}

#[test]
fn exactly_one_takes_over_from_a_holder_that_vanished_and_it_is_the_first() {
    let line = Line::new();
    let holder = token(line.try_acquire_token());
    let mut waiters = waiting(&line, 3);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _holder = holder;
        panic!("while it is handled");
    }));
    assert!(panicked.is_err());
    let woken =
        |at: usize, waiters: &[(Wait, StdArc<Woken>)]| waiters[at].1.0.load(Ordering::SeqCst);
    assert_eq!([0, 1, 2].map(|at| woken(at, &waiters)), [1, 0, 0]);
    // Nobody overtakes it.
    assert!(is_busy(&line));
    let mut late = wait(line.try_acquire_token());
    assert!(poll(&mut late, &StdArc::default()).is_pending());
    let (second, of_second) = &mut waiters[1];
    assert!(poll(second, of_second).is_pending());
    let (first, of_first) = &mut waiters[0];
    let Poll::Ready(Waited::TakeOver(token)) = poll(first, of_first) else { panic!("its turn") };
    // The next one goes as well, and the one after it is dropped before it takes it.
    drop(token);
    assert_eq!([1, 2].map(|at| woken(at, &waiters)), [1, 0]);
    drop(waiters.remove(1));
    let (third, of_third) = &mut waiters[1];
    assert_eq!(of_third.0.load(Ordering::SeqCst), 1);
    let Poll::Ready(Waited::TakeOver(token)) = poll(third, of_third) else { panic!("its turn") };
    token.solve();
    assert!(matches!(poll(&mut late, &StdArc::default()), Poll::Ready(Waited::Solved)));
}

#[test]
fn a_problem_that_nobody_waits_for_is_free_when_its_holder_vanishes() {
    let line = Line::new();
    drop(token(line.try_acquire_token()));
    assert!(!is_busy(&line));
    let holder = token(line.try_acquire_token());
    // It has not begun to wait, so nothing is kept for it; but it takes what is left lying.
    let mut early = wait(line.try_acquire_token());
    drop(holder);
    assert!(!is_busy(&line));
    let Poll::Ready(Waited::TakeOver(token)) = poll(&mut early, &StdArc::default()) else {
        panic!("nobody has it")
    };
    assert!(is_busy(&line));
    token.solve();
}

/// A token of another line was once taken for the line's own, so two handled one problem.
#[test]
fn a_token_belongs_to_its_line() {
    let (one, other) = (Line::new(), Line::new());
    let of_one = token(one.try_acquire_token());
    let of_other = token(other.try_acquire_token());
    let refused = one.try_acquire_token().or_token(Some(of_other)).unwrap_err();
    assert!(matches!(refused.outcome, AcquireOutcome::Failure(_)));
    // It was dropped, silently, when the line was free.
    of_one.solve();
    let refused = one.try_acquire_token().or_token(Some(refused.token)).unwrap_err();
    let AcquireOutcome::Success(again) = refused.outcome else { panic!("it is free") };
    assert!(is_busy(&other));
    let again = token(one.try_acquire_token().or_token(Some(again)).unwrap());
    again.solve();
    refused.token.solve();
    assert!(!is_busy(&one) && !is_busy(&other));
}

/// A token that was leaked once closed its line for ever.
#[test]
fn a_holder_that_leaks_its_token_can_be_deposed() {
    let line = Line::new();
    assert!(!line.depose());
    let late = token(line.try_acquire_token());
    let mut waiters = waiting(&line, 1);
    assert!(line.depose());
    let (first, woken) = &mut waiters[0];
    let Poll::Ready(Waited::TakeOver(current)) = poll(first, woken) else { panic!("its turn") };
    // What the deposed one says does not matter, and it is nobody's token any more.
    let outcome = line.try_acquire_token().or_token(Some(late)).unwrap();
    let mut other = wait(outcome);
    assert!(poll(&mut other, &StdArc::default()).is_pending());
    current.fail("still there");
    assert!(matches!(poll(&mut other, &StdArc::default()), Poll::Ready(Waited::Failed(_))));
    std::mem::forget(token(line.try_acquire_token()));
    assert!(line.depose() && !is_busy(&line));
}

#[test]
fn a_waker_that_panics_keeps_nobody_else_asleep() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: StdArc<Self>) {
            panic!("a waker");
        }
    }
    let line = Line::new();
    let holder = token(line.try_acquire_token());
    let mut bad = wait(line.try_acquire_token());
    let waker = Waker::from(StdArc::new(Panics));
    assert!(Pin::new(&mut bad).poll(&mut Context::from_waker(&waker)).is_pending());
    let waiters = waiting(&line, 1);
    holder.solve();
    assert_eq!(waiters[0].1.0.load(Ordering::SeqCst), 1);
}

#[test]
fn the_lines_of_keys_come_and_go() {
    let lines = Lines::default();
    let a = lines.of(b"a");
    let held = token(a.try_acquire_token());
    assert!(is_busy(&lines.of(b"a")) && !is_busy(&lines.of(b"b")));
    assert_eq!(lines.len(), 1, "that of b is gone");
    drop(a);
    assert!(is_busy(&lines.of(b"a")), "whoever has its token has the line");
    let waits = wait(lines.of(b"a").try_acquire_token());
    held.solve();
    assert_eq!(lines.len(), 1);
    drop(waits);
    assert_eq!(lines.len(), 0);
}

#[test]
fn everything_can_be_sent_and_shared() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Line>();
    shared::<Token>();
    shared::<Wait>();
    shared::<AcquireOutcome>();
}

#[tokio::test]
async fn a_wait_can_be_polled_after_it_was_ready() {
    let line = Line::new();
    let holder = token(line.try_acquire_token());
    let mut wait = pin!(wait(line.try_acquire_token()));
    holder.solve();
    for _ in 0..2 {
        assert!(matches!(poll_fn(|context| wait.as_mut().poll(context)).await, Waited::Solved));
    }
}
