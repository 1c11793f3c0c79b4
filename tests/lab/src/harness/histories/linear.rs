//! Whether a history of one id is linearizable: a search after Wing and Gong (1993), with what has
//! been tried remembered as in Lowe (2017).
//!
//! Each operation took effect at one moment between its call and its answer. One whose answer never
//! came may have taken effect at any moment after its call, or never.

use super::model::{Did, State};
use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt;

/// An operation of a history, and when.
#[derive(Clone, Debug)]
pub(super) struct Op {
    pub(super) did: Did,
    pub(super) called: u64,
    /// When it was answered, or the last moment at which it can have taken effect.
    pub(super) answered: u64,
    /// Nobody knows whether it took effect.
    pub(super) unsure: bool,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { did, called, answered, unsure } = self;
        write!(f, "{called}-{answered} {did:?}{}", if *unsure { "?" } else { "" })
    }
}

/// As much is tried before a history is given up as too hard.
const ENOUGH: usize = 300_000;

/// What is told of the operations around a moment that has no next one.
const NEAR: u64 = 60;

/// Which operations have been ordered: a set of their numbers.
type Done = Vec<u64>;

fn has(done: &Done, at: usize) -> bool {
    done[at / 64] >> (at % 64) & 1 == 1
}

fn put(done: &mut Done, at: usize) {
    done[at / 64] |= 1 << (at % 64);
}

/// Whether there is an order that explains all operations of one id.
pub(super) enum Order {
    Found,
    /// There is none: what the longest one comes to, and the operations around that moment.
    None(String),
    /// Too much would have to be tried.
    Unknown,
}

/// Looks for an order that explains all operations of one id.
pub(super) fn linearize(ops: &[Op]) -> Order {
    let mut ops = ops.to_vec();
    ops.sort_by_key(|op| op.called);
    let mut tried = HashSet::new();
    let mut open = vec![(vec![0; ops.len().div_ceil(64)], State::NOT_FOUND)];
    let mut longest = (0, State::NOT_FOUND, Vec::new());
    while let Some((mut done, state)) = open.pop() {
        // One that is unsure takes effect before its last moment, or never.
        let now = (0..ops.len()).filter(|at| has(&done, *at)).map(|at| ops[at].called).max();
        for at in (0..ops.len()).filter(|at| ops[*at].unsure) {
            if now.is_some_and(|now| ops[at].answered < now) {
                put(&mut done, at);
            }
        }
        if !tried.insert((done.clone(), state)) {
            continue;
        }
        if tried.len() > ENOUGH {
            return Order::Unknown;
        }
        let left = || (0..ops.len()).filter(|at| !has(&done, *at));
        // Nothing can come before an operation that had been answered when it was called.
        let Some(first_answer) =
            left().filter(|at| !ops[*at].unsure).map(|at| ops[at].answered).min()
        else {
            return Order::Found;
        };
        let can: Vec<usize> = left().take_while(|at| ops[*at].called <= first_answer).collect();
        let next = can.iter().filter_map(|at| Some((*at, state.after(&ops[*at].did)?)));
        let mut next: Vec<_> = next.collect();
        let explained = ops.len() - left().filter(|at| !ops[*at].unsure).count();
        if explained > longest.0 {
            longest = (explained, state, can);
        }
        // A look that is sure and comes too late for nothing else can just as well be next. (Not what
        // happens to change nothing here: later it might.)
        let is_free = |(at, _): &&(usize, State)| {
            let op = &ops[*at];
            let mut unsure = left().filter(|at| ops[*at].unsure);
            !op.unsure && op.did.is_look() && unsure.all(|at| ops[at].answered >= op.called)
        };
        if let Some(free) = next.iter().find(is_free).copied() {
            next = vec![free];
        }
        // The last one is tried first: what is sure, and has been answered first.
        next.sort_by_key(|(at, _)| Reverse((ops[*at].unsure, ops[*at].answered)));
        for (at, after) in next {
            let mut then = done.clone();
            put(&mut then, at);
            open.push((then, after));
        }
    }
    let (_, state, next) = longest;
    let end = next.iter().map(|at: &usize| ops[*at].answered).min().unwrap_or_default();
    let is_near =
        |op: &&Op| op.called < end.saturating_add(NEAR) && op.answered.saturating_add(NEAR) > end;
    let near = ops.iter().filter(is_near);
    let near: Vec<String> = near.map(ToString::to_string).collect();
    Order::None(format!("{state:?} before {end}: {}", near.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::super::model::{Asks, Cause, End, Start, Told};
    use super::*;
    use taskledger::{OnCrash, OnFailure, TaskState, Verdict};

    fn is_linearizable(ops: &[Op]) -> bool {
        matches!(linearize(ops), Order::Found)
    }

    fn op(did: Did, called: u64, answered: u64) -> Op {
        Op { did, called, answered, unsure: false }
    }

    #[test]
    fn what_can_be_is_told_from_what_cannot() {
        let saw = |state, called, answered| op(Did::Saw(state), called, answered);
        let marked = op(Did::Marked, 1, 4);
        let good =
            [marked.clone(), saw(TaskState::NotFound, 2, 3), saw(TaskState::Succeeded, 2, 5)];
        assert!(is_linearizable(&good));
        // Seen, and then not any more.
        let bad = [marked.clone(), saw(TaskState::Succeeded, 2, 3), saw(TaskState::NotFound, 4, 5)];
        assert!(!is_linearizable(&bad));
        // Two attempts at a time.
        let two = [op(Did::Started(1, None), 1, 2), op(Did::Started(2, None), 3, 4)];
        assert!(!is_linearizable(&two));
        // Acknowledged, and gone after a death.
        let lost = [marked, op(Did::Died, 5, 5), saw(TaskState::NotFound, 6, 7)];
        assert!(!is_linearizable(&lost));
        // Unsure: it may be there or not, but not come back later.
        let unsure = Op { unsure: true, ..op(Did::Marked, 1, 4) };
        let died = op(Did::Died, 5, 5);
        for state in [TaskState::NotFound, TaskState::Succeeded] {
            assert!(is_linearizable(&[unsure.clone(), died.clone(), saw(state, 6, 7)]));
        }
        let back = [unsure, died, saw(TaskState::NotFound, 6, 7), saw(TaskState::Succeeded, 8, 9)];
        assert!(!is_linearizable(&back));
    }

    #[test]
    fn what_changes_nothing_at_one_moment_may_be_needed_at_a_later_one() {
        let resolved = |verdict, called, answered| op(Did::Resolved(verdict), called, answered);
        let ops = [
            op(Did::Started(1, None), 1, 2),
            op(Did::Ended(1, End::Error), 3, 4),
            resolved(Verdict::Failed, 5, 6),
            resolved(Verdict::Retry, 7, 9),
            resolved(Verdict::Failed, 8, 12),
            op(Did::Told(Told::Refused, None), 10, 11),
        ];
        assert!(is_linearizable(&ops));
    }

    #[test]
    fn what_a_run_can_be_told_is_told_from_what_it_cannot() {
        let asks = Asks {
            fingerprint: Some(1),
            on_failure: OnFailure::Refuse,
            on_crash: OnCrash::Hold,
            max_attempts: Some(2),
            with_caller: false,
        };
        let start = |after| Some(Start { asks, came: 1, after, told: None });
        let told = |told, called, answered| op(Did::Told(told, Some(1)), called, answered);
        let begun = op(Did::Started(1, start(None)), 1, 2);
        let good = [begun.clone(), op(Did::Ended(1, End::Success), 3, 4)];
        let and = |ops: &[Op], more: Op| is_linearizable(&[ops, &[more]].concat());
        assert!(and(&good, told(Told::Success(Some(1)), 2, 5)));
        // What nobody has returned; before it was there; for another request; and once more.
        assert!(!and(&good, told(Told::Success(None), 2, 5)));
        assert!(!and(&good, told(Told::Success(Some(1)), 1, 2)));
        assert!(!and(&good, op(Did::Told(Told::Success(Some(1)), Some(2)), 2, 5)));
        assert!(and(&good, op(Did::Told(Told::OtherRequest, Some(2)), 2, 5)));
        assert!(!and(&good, op(Did::Started(2, start(None)), 5, 6)));
        // After a failure: its own next attempt, but nobody else's, and not a third one.
        let bad = [begun.clone(), op(Did::Ended(1, End::Error), 3, 4)];
        assert!(and(&bad, told(Told::Refused, 5, 6)));
        assert!(!and(&bad, told(Told::Held, 5, 6)));
        assert!(!and(&bad, op(Did::Started(2, start(None)), 5, 6)));
        let again = op(Did::Started(2, start(Some(1))), 5, 6);
        assert!(and(&bad, again.clone()));
        let bad = [&bad[..], &[again, op(Did::Ended(2, End::Error), 7, 8)]].concat();
        assert!(!and(&bad, op(Did::Started(3, start(Some(2))), 9, 10)));
        assert!(!and(&bad, told(Told::GaveUp(2), 9, 10)));
        let given_up = Op { unsure: true, ..op(Did::GaveUp(2), 1, 10) };
        assert!(and(&[&bad[..], &[given_up]].concat(), told(Told::GaveUp(2), 9, 10)));
        // After an error of somebody who has left, which stays an error to whoever else looks, and to who
        // comes later.
        let left = [begun.clone(), op(Did::Ended(1, End::LeftError(4)), 3, 4)];
        let left = [&left[..], &[told(Told::Failure(Cause::Error(1)), 5, 6)]].concat();
        let next = op(Did::Started(2, start(None)), 7, 8);
        assert!(and(&left, next.clone()));
        let late = Some(Start { asks, came: 5, after: None, told: None });
        assert!(!and(&left, op(Did::Started(2, late), 7, 8)));
        let verdict = op(Did::Resolved(Verdict::Failed), 6, 7);
        assert!(!and(&[&left[..], &[verdict]].concat(), next));
        // After a crash.
        let died = [begun, op(Did::Died, 3, 3)];
        assert!(and(&died, told(Told::Held, 4, 5)));
        assert!(!and(&died, op(Did::Started(2, start(None)), 4, 5)));
    }
}
