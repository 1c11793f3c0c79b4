//! The queue, its tickets and its poison, with the test as the writer.

use super::*;
use crate::state::{Event, SeqNo};
use std::sync::atomic::AtomicUsize;
use std::task::Wake;
use tokio::sync::oneshot;

/// Counts its wake-ups.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Counter {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn poll(ticket: &mut Ticket, counter: &Arc<Counter>) -> Poll<Result<Answer, Poison>> {
    let waker = Arc::clone(counter).into();
    Pin::new(ticket).poll(&mut Context::from_waker(&waker))
}

fn id(name: &str) -> EncodedId {
    EncodedId::from_bytes(name.as_bytes())
}

fn start(name: &str, key: u64) -> Request {
    Request::Start { id: id(name), key: AttemptKey(key), begin: Begin::default() }
}

fn end(name: &str, key: u64) -> Request {
    Request::End { id: id(name), key: AttemptKey(key), event: Event::Revoked }
}

fn poison() -> Poison {
    Poison::Failed("no space".into())
}

fn take(queue: &Submissions) -> (Vec<Request>, Arc<Group>, usize) {
    match queue.take(Some(Duration::ZERO), Company::NONE) {
        Taken::Work { requests, group, errands, .. } => (requests, group, errands.len()),
        other @ (Taken::Idle | Taken::End) => panic!("{other:?}"),
    }
}

fn refused(state: TaskState) -> Answer {
    Answer::Refused(state)
}

#[test]
fn a_ticket_may_be_answered_before_it_is_polled() {
    let queue = Submissions::new();
    let mut ticket = queue.submit(start("a", 1)).unwrap();
    let (_, group, _) = take(&queue);
    assert!(group.decide_durable());
    group.answer(Ok([refused(TaskState::Running)].into()));
    let counter = Arc::default();
    assert_eq!(poll(&mut ticket, &counter), Poll::Ready(Ok(refused(TaskState::Running))));
    assert_eq!(counter.count(), 0);
}

#[test]
fn a_ticket_polled_before_its_answer_is_woken_once() {
    let queue = Submissions::new();
    let mut ticket = queue.submit(start("a", 1)).unwrap();
    let (stale, fresh) = (Arc::default(), Arc::default());
    assert!(poll(&mut ticket, &stale).is_pending());
    assert!(poll(&mut ticket, &fresh).is_pending());
    assert!(poll(&mut ticket, &fresh).is_pending());
    let (_, group, _) = take(&queue);
    assert!(group.decide_durable());
    group.answer(Ok([refused(TaskState::Failed)].into()));
    assert_eq!((stale.count(), fresh.count()), (0, 1), "only the last waker, and once");
    assert_eq!(poll(&mut ticket, &fresh), Poll::Ready(Ok(refused(TaskState::Failed))));
}

#[test]
fn everybody_gets_the_answer_of_its_own_place() {
    let queue = Submissions::new();
    let counters: Vec<Arc<Counter>> = (0..100).map(|_| Arc::default()).collect();
    let mut tickets: Vec<Ticket> =
        (0..100).map(|key| queue.submit(start("a", key)).unwrap()).collect();
    for (ticket, counter) in tickets.iter_mut().zip(&counters).rev() {
        assert!(poll(ticket, counter).is_pending());
    }
    let (requests, group, _) = take(&queue);
    assert_eq!(requests.len(), 100);
    // Every second one is gone by now.
    let mut kept: Vec<(u64, Ticket)> = (0..).zip(tickets).filter(|(key, _)| key % 2 == 0).collect();
    assert!(group.decide_durable());
    let answer = |seq| Cell { seq: SeqNo::new(seq), ..Cell::ABSENT };
    group.answer(Ok((0..100).map(|seq| Answer::Done(answer(seq))).collect()));
    for (key, ticket) in &mut kept {
        let counter = &counters[*key as usize];
        assert_eq!(counter.count(), 1);
        assert_eq!(poll(ticket, counter), Poll::Ready(Ok(Answer::Done(answer(*key)))));
    }
}

#[test]
fn groups_do_not_mix() {
    let queue = Submissions::new();
    let mut first = queue.submit(start("a", 1)).unwrap();
    let (_, group, _) = take(&queue);
    let mut second = queue.submit(start("a", 2)).unwrap();
    assert!(group.decide_durable());
    group.answer(Ok([refused(TaskState::Running)].into()));
    let counter = Arc::default();
    assert!(poll(&mut first, &counter).is_ready());
    assert!(poll(&mut second, &counter).is_pending());
    assert_eq!(take(&queue).0.len(), 1);
}

#[test]
fn what_forms_when_the_poison_comes_is_answered_with_it() {
    let queue = Submissions::new();
    let counter = Arc::default();
    let mut launch = queue.submit(start("never ran", 1)).unwrap();
    let mut ended = queue.submit_end(end("ran", 2)).unwrap();
    assert!(poll(&mut launch, &counter).is_pending());
    assert!(poll(&mut ended, &counter).is_pending());
    assert_eq!(queue.poison(&poison()), [id("ran")], "only an end is in doubt");
    assert_eq!(counter.count(), 2);
    assert_eq!(poll(&mut launch, &counter), Poll::Ready(Err(poison())));
    assert_eq!(poll(&mut ended, &counter), Poll::Ready(Err(poison())));
}

#[test]
fn what_is_in_flight_is_answered_by_whoever_gave_it_up() {
    let queue = Submissions::new();
    let mut ticket = queue.submit(start("a", 1)).unwrap();
    let (_, group, _) = take(&queue);
    let counter = Arc::default();
    assert!(poll(&mut ticket, &counter).is_pending());
    assert_eq!(queue.poison(&poison()), []);
    assert!(poll(&mut ticket, &counter).is_pending(), "not the queue's to answer");
    assert!(group.decide_given_up());
    group.answer(Err(poison()));
    assert_eq!(poll(&mut ticket, &counter), Poll::Ready(Err(poison())));
}

#[test]
fn the_first_poison_stays_and_nothing_is_taken_after_it() {
    let queue = Submissions::new();
    queue.poison(&poison());
    assert_eq!(queue.poison(&Poison::Panicked("later".into())), []);
    let rejected = Rejection::Poisoned(poison());
    assert_eq!(queue.submit(start("a", 1)).unwrap_err(), rejected);
    assert_eq!(queue.rejection(), Some(rejected.clone()));
    assert_eq!(queue.submit_end(end("a", 1)).unwrap_err(), poison());
    queue.close();
    assert_eq!(queue.rejection(), Some(rejected), "closing does not hide it");
    assert!(matches!(queue.take(None, Company::NONE), Taken::End));
    assert!(matches!(queue.phase(), Phase::Poisoned(_)));
}

/// Writer and watchdog, in both orders: one of them decides.
#[test]
fn one_decision_is_made_of_a_group() {
    let group = Group::new();
    assert!(group.decide_durable());
    assert!(!group.decide_given_up());
    assert!(!group.decide_durable());
    let group = Group::new();
    assert!(group.decide_given_up());
    assert!(!group.decide_durable());
}

#[test]
fn a_closing_queue_takes_ends_alone_and_ends_with_the_last_live_one() {
    let queue = Submissions::new();
    drop(queue.submit(start("a", 1)).unwrap());
    drop(take(&queue));
    queue.close();
    assert_eq!(queue.submit(start("b", 2)).unwrap_err(), Rejection::Closed);
    assert!(matches!(queue.take(Some(Duration::ZERO), Company::NONE), Taken::Idle), "one is live");
    drop(queue.submit_end(end("a", 1)).unwrap());
    queue.leave();
    assert_eq!(take(&queue).0.len(), 1, "its end is taken first");
    assert!(matches!(queue.phase(), Phase::Closing));
    assert!(matches!(queue.take(None, Company::NONE), Taken::End));
    assert!(matches!(queue.phase(), Phase::Ended));
}

#[test]
fn changes_without_an_attempt_keep_nobody_waiting() {
    let queue = Submissions::new();
    drop(queue.submit(Request::mark(id("a"))).unwrap());
    queue.close();
    drop(take(&queue));
    assert!(matches!(queue.take(None, Company::NONE), Taken::End));
}

/// An errand that came after the writer's last look would wait for ever.
#[test]
fn no_errand_is_taken_once_the_writer_heard_the_end() {
    for poisoned in [false, true] {
        let queue = Submissions::new();
        if poisoned {
            queue.poison(&poison());
        }
        queue.close();
        let read = || Errand::Read { id: id("a"), reply: oneshot::channel().0 };
        assert!(queue.send(read()).is_ok());
        assert_eq!(take(&queue).2, 1);
        assert!(matches!(queue.take(None, Company::NONE), Taken::End));
        assert!(queue.send(read()).is_err());
    }
}

#[test]
fn the_poison_drops_the_errands_and_says_so() {
    let queue = Submissions::new();
    let (reply, mut read) = oneshot::channel();
    queue.send(Errand::Read { id: id("a"), reply }).unwrap();
    queue.poison(&Poison::Panicked("poof".into()));
    assert!(matches!(read.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    let (reply, _) = oneshot::channel();
    assert!(queue.send(Errand::Read { id: id("a"), reply }).is_err());
    let (reply, _) = oneshot::channel();
    assert!(queue.send(Errand::Checkpoint { copy: false, reply }).is_err());
}

#[test]
fn a_waiting_writer_is_woken_by_work_and_by_the_end() {
    let queue = Arc::new(Submissions::new());
    let writer = std::thread::spawn({
        let queue = Arc::clone(&queue);
        move || {
            let mut taken = 0;
            while let Taken::Work { requests, group, .. } = queue.take(None, Company::NONE) {
                taken += requests.len();
                assert!(group.decide_durable());
                group.answer(Ok(requests.iter().map(|_| Answer::Superseded).collect()));
            }
            taken
        }
    });
    for key in 0..2000 {
        let mut ticket = queue.submit(start("a", key)).unwrap();
        let counter = Arc::default();
        while poll(&mut ticket, &counter).is_pending() {
            std::thread::yield_now();
        }
        queue.leave();
    }
    queue.close();
    assert_eq!(writer.join().unwrap(), 2000);
}

/// The writer, which waits until it has this company, however long that takes.
fn waits_for(queue: &Arc<Submissions>, requests: usize) -> std::thread::JoinHandle<Taken> {
    let company = Company { requests, within: Duration::from_secs(3600) };
    let writer = std::thread::spawn({
        let queue = Arc::clone(queue);
        move || queue.take(None, company)
    });
    while !lock(&queue.forming).waiting {
        std::thread::yield_now();
    }
    writer
}

#[test]
fn the_writer_waits_for_company_and_is_woken_by_the_last_of_it() {
    let queue = Arc::new(Submissions::new());
    let writer = waits_for(&queue, 3);
    for key in 0..3 {
        queue.submit(start("a", key)).unwrap();
    }
    match writer.join().unwrap() {
        Taken::Work { requests, .. } => assert_eq!(requests.len(), 3),
        other @ (Taken::Idle | Taken::End) => panic!("{other:?}"),
    }
}

#[test]
fn who_asks_for_a_read_or_for_the_end_waits_for_no_company() {
    let read = |queue: &Submissions| {
        let (reply, _) = oneshot::channel();
        queue.send(Errand::Read { id: id("a"), reply }).unwrap();
    };
    let closes = |queue: &Submissions| queue.close();
    let poisons = |queue: &Submissions| _ = queue.poison(&poison());
    for (what, requests) in [(read as fn(&Submissions), 1), (closes, 1), (poisons, 0)] {
        let queue = Arc::new(Submissions::new());
        let writer = waits_for(&queue, 3);
        queue.submit(start("a", 1)).unwrap();
        what(&queue);
        if requests == 0 {
            // Nothing is left to take: what was there has been answered.
            queue.close();
            queue.leave();
        }
        match writer.join().unwrap() {
            Taken::Work { requests: taken, .. } => assert_eq!(taken.len(), requests),
            Taken::End => assert_eq!(requests, 0),
            Taken::Idle => panic!("nobody told it when"),
        }
    }
}

#[test]
fn company_that_does_not_come_is_waited_for_no_longer_than_that() {
    let queue = Submissions::new();
    queue.submit(start("a", 1)).unwrap();
    let company = Company { requests: 2, within: Duration::from_millis(1) };
    assert!(
        matches!(queue.take(None, company), Taken::Work { requests, .. } if requests.len() == 1)
    );
}

/// Somebody who asks, and is dropped, again and again while the writer is at a long sync.
#[test]
fn errands_that_nobody_waits_for_do_not_pile_up() {
    let queue = Submissions::new();
    let read = |name| {
        let (reply, answer) = oneshot::channel();
        queue.send(Errand::Read { id: id(name), reply }).unwrap();
        answer
    };
    let waits: Vec<_> = (0..10).map(|_| read("a")).collect();
    (0..10_000).for_each(|_| drop(read("b")));
    let (_, _, errands) = take(&queue);
    assert!(errands <= waits.len() + CROWDED, "{errands}");
    assert!(errands >= waits.len());
}
