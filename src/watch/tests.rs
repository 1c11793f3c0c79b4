use super::*;
use crate::id::EncodedId;
use std::sync::mpsc;

fn request() -> Request {
    Request::mark(EncodedId::from_bytes(b"a"))
}

/// Runs the watchdog over one armed turn until it has looked, and tells whether it gave it up.
fn look(group: &Arc<Group>, deadline: Duration) -> bool {
    let watch = Watch::default();
    let watched = watch.arm(Arc::clone(group), Arc::new(vec![request()]));
    let (given_up, told) = mpsc::channel();
    let dog = std::thread::spawn({
        let watch = watch.clone();
        move || watch.run(deadline, |_, requests| given_up.send(requests.len()).unwrap())
    });
    if deadline.is_zero() {
        while lock(&watch.0.0).turn.is_some() {
            std::thread::yield_now();
        }
    }
    watch.stop();
    dog.join().unwrap();
    drop(watched);
    match told.try_recv() {
        Ok(requests) => {
            assert_eq!(requests, 1, "it says what was in flight");
            true
        }
        Err(_) => false,
    }
}

#[test]
fn an_overdue_call_is_given_up_once() {
    let group = Group::new();
    assert!(look(&group, Duration::ZERO));
    assert!(!group.decide_durable(), "the writer comes too late");
    assert!(!look(&group, Duration::ZERO), "not twice");
}

#[test]
fn a_group_that_the_writer_decided_is_left_alone() {
    let group = Group::new();
    assert!(group.decide_durable());
    assert!(!look(&group, Duration::ZERO));
}

#[test]
fn a_call_within_its_deadline_is_left_alone() {
    for deadline in [Duration::from_secs(3600), Duration::MAX] {
        let group = Group::new();
        assert!(!look(&group, deadline));
        assert!(group.decide_durable());
    }
}

#[test]
fn a_call_that_came_back_is_not_watched() {
    let watch = Watch::default();
    drop(watch.arm(Group::new(), Arc::default()));
    assert!(lock(&watch.0.0).turn.is_none());
}
