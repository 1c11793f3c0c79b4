#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the arms that it expects")]

use super::*;
use crate::state::{Attempt, SeqNo};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Waker};

fn id(number: u16) -> EncodedId {
    EncodedId::from_bytes(&number.to_be_bytes())
}

/// No two ids have a record in common.
fn cell(number: u16, state: TaskState) -> Cell {
    match state {
        TaskState::NotFound => Cell::ABSENT,
        _ => Cell { state, attempt: Attempt::new(1), seq: SeqNo::new(1 + u64::from(number)) },
    }
}

fn change(number: u16, state: TaskState) -> Change {
    let key = (state == TaskState::Running).then_some(AttemptKey(u64::from(number)));
    let life = Life::default();
    Change { id: id(number), cell: cell(number, state), key, life, moved: None }
}

/// All that a look at the whole index tells must agree with a plain map.
fn check(index: &Index, plain: &BTreeMap<u16, TaskState>) {
    assert_eq!(index.count_all(), plain.len());
    assert_eq!(index.counts().iter().sum::<usize>(), plain.len());
    let listed = |state: Option<TaskState>| {
        let mut ids: Vec<EncodedId> = match state.and_then(|state| index.exact(state)) {
            Some(exact) => exact,
            None => (0..).map_while(|part| index.ids_in_part(part, state)).flatten().collect(),
        };
        ids.sort();
        ids
    };
    let expected = |wanted: Option<TaskState>| -> Vec<EncodedId> {
        let fits = |state: &TaskState| wanted.is_none_or(|wanted| wanted == *state);
        plain.iter().filter(|(_, state)| fits(state)).map(|(number, _)| id(*number)).collect()
    };
    assert_eq!(listed(None), expected(None));
    for state in TaskState::ALL.into_iter().filter(|state| *state != TaskState::NotFound) {
        assert_eq!(listed(Some(state)), expected(Some(state)), "{state}");
        assert_eq!(index.count(state), expected(Some(state)).len(), "{state}");
    }
    assert_eq!(index.count(TaskState::NotFound), 0);
}

proptest! {
    #[test]
    fn counts_and_sets_agree_with_a_plain_map(
        batches in prop::collection::vec(
            prop::collection::vec((0..12_u16, prop::sample::select(&TaskState::ALL)), 0..6),
            1..30,
        )
    ) {
        let index = Index::new();
        let mut plain = BTreeMap::new();
        for batch in batches {
            for (number, state) in &batch {
                match state {
                    TaskState::NotFound => _ = plain.remove(number),
                    state => _ = plain.insert(*number, *state),
                }
            }
            index.publish(batch.into_iter().map(|(n, state)| change(n, state)).collect());
            check(&index, &plain);
            for number in 0..12 {
                let state = plain.get(&number).copied().unwrap_or(TaskState::NotFound);
                prop_assert_eq!(index.cell(&number.to_be_bytes()).state, state);
                let runs = (state == TaskState::Running).then(|| AttemptKey(u64::from(number)));
                prop_assert_eq!(index.runs(&number.to_be_bytes()), runs);
            }
        }
    }
}

proptest! {
    /// A replay changes cells alone; counts and sets are made up from them at its end.
    #[test]
    fn a_replayed_index_is_as_a_published_one(
        changes in prop::collection::vec(
            (0..12_u16, prop::sample::select(&TaskState::ALL)), 0..60,
        )
    ) {
        let index = Index::new();
        let mut plain = BTreeMap::new();
        for (number, state) in changes {
            let before = plain.get(&number).copied().unwrap_or(TaskState::NotFound);
            let replayed = index.lane(0, 1).change(id(number).as_bytes(), |found| {
                if found.state == before { Ok(cell(number, state)) } else { Err(found) }
            });
            prop_assert_eq!(replayed, Ok(()));
            match state {
                TaskState::NotFound => _ = plain.remove(&number),
                state => _ = plain.insert(number, state),
            }
        }
        index.recount();
        check(&index, &plain);
    }
}

#[test]
fn what_is_restored_counts_like_what_is_published() {
    let index = Index::new();
    index.restore(vec![(id(1), cell(1, TaskState::Running))]);
    index.restore(vec![(id(1), cell(1, TaskState::Failed))]);
    index.restore(vec![(id(2), cell(2, TaskState::Revoking))]);
    index.restore(vec![(id(3), cell(3, TaskState::Succeeded))]);
    index.restore(vec![(id(3), Cell::ABSENT)]);
    let plain = [(1, TaskState::Failed), (2, TaskState::Revoking)].into();
    check(&index, &plain);
    assert_eq!(index.runs(&2_u16.to_be_bytes()), None, "nobody runs it in this process");
}

/// Somebody who saw one change of a batch must not count as if the batch had not happened.
#[test]
fn counts_show_whole_batches() {
    let index = Index::new();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..300_u16 {
                let to = if round % 2 == 0 { TaskState::Running } else { TaskState::Failed };
                index.publish((0..64).map(|number| change(number, to)).collect());
            }
            stop.store(true, Ordering::SeqCst);
        });
        while !stop.load(Ordering::SeqCst) {
            let counts = index.counts();
            let (running, failed) =
                (counts[slot(TaskState::Running)], counts[slot(TaskState::Failed)]);
            assert!(
                matches!((running, failed), (0, 0) | (64, 0) | (0, 64)),
                "{running} running, {failed} failed"
            );
            for state in [TaskState::Running, TaskState::Failed] {
                assert!(matches!(index.exact(state).unwrap().len(), 0 | 64));
            }
        }
        writer.join().unwrap();
    });
}

/// An id that is in the state all the time is listed, whatever comes and goes around it.
#[test]
fn a_scan_under_change_lists_what_stays() {
    let index = Index::new();
    index.publish((0..500).map(|number| change(number, TaskState::Succeeded)).collect());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                index.publish((500..4000).map(|n| change(n, TaskState::Succeeded)).collect());
                index.publish((500..4000).map(|n| change(n, TaskState::NotFound)).collect());
            }
        });
        for _ in 0..60 {
            for state in [None, Some(TaskState::Succeeded)] {
                let seen: HashSet<EncodedId> =
                    (0..).map_while(|part| index.ids_in_part(part, state)).flatten().collect();
                if let Some(missing) = (0..500).find(|number| !seen.contains(&id(*number))) {
                    stop.store(true, Ordering::SeqCst);
                    panic!("{missing} is not listed");
                }
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
}

fn ready(future: std::pin::Pin<&mut tokio::sync::futures::Notified<'_>>) -> bool {
    matches!(Future::poll(future, &mut Context::from_waker(Waker::noop())), Poll::Ready(()))
}

#[test]
fn waiters_are_woken_when_their_id_settles_and_only_then() {
    let index = Index::new();
    let (mine, other) = (index.register(&id(1)), index.register(&id(2)));
    let second = index.register(&id(1));
    let mut woken = std::pin::pin!(mine.notified());
    let mut also_woken = std::pin::pin!(second.notified());
    let mut not_woken = std::pin::pin!(other.notified());
    for notified in [&mut woken, &mut also_woken, &mut not_woken] {
        assert!(!notified.as_mut().enable());
    }
    index.publish(vec![change(1, TaskState::Running), change(2, TaskState::Running)]);
    assert!(!ready(woken.as_mut()), "running is no end");
    index.publish(vec![change(1, TaskState::Failed)]);
    assert!(ready(woken.as_mut()) && ready(also_woken.as_mut()), "many may wait");
    assert!(!ready(not_woken.as_mut()));
    index.wake_all();
    assert!(ready(not_woken.as_mut()));
}

#[test]
fn nothing_is_kept_of_waiters_that_are_gone() {
    let index = Index::new();
    let (first, second) = (index.register(&id(1)), index.register(&id(1)));
    drop(first);
    assert_eq!(lock(&index.waiters).len(), 1);
    drop(second);
    assert_eq!(lock(&index.waiters).len(), 0);
    assert_eq!(index.waiting.load(Ordering::SeqCst), 0);
}

#[test]
fn doubt_is_kept_by_id() {
    let index = Index::new();
    index.doubt([id(1)]);
    assert!(index.in_doubt(&1_u16.to_be_bytes()));
    assert!(!index.in_doubt(&2_u16.to_be_bytes()));
}

/// Who registers while a batch is being published either sees it or is woken by it.
#[test]
fn nobody_who_comes_during_a_publication_is_forgotten() {
    use std::sync::Barrier;
    let index = Index::new();
    let (begin, end) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..3000 {
                index.publish((0..40).map(|n| change(n, TaskState::Running)).collect());
                begin.wait();
                index.publish((0..40).map(|n| change(n, TaskState::Failed)).collect());
                end.wait();
            }
        });
        let mut forgotten = 0;
        for _ in 0..3000 {
            begin.wait();
            let registered = index.register(&id(39));
            let mut notified = std::pin::pin!(registered.notified());
            notified.as_mut().enable();
            let seen = index.cell(&39_u16.to_be_bytes()).state.is_settled();
            end.wait();
            forgotten += usize::from(!seen && !ready(notified));
        }
        assert_eq!(forgotten, 0);
    });
}
