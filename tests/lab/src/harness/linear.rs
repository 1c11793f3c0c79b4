//! Whether a history of one id is linearizable: a search after Wing and Gong (1993), with what has
//! been tried remembered as in Lowe (2017).
//!
//! Each operation took effect at one moment between its call and its answer. One whose answer never
//! came may have taken effect at any moment after its call, or never.

use std::collections::HashSet;
use taskledger::TaskState;

/// What one operation did to one id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Did {
    /// An attempt (with this number) began.
    Started(u64),
    /// An attempt with this number ended in success, or not.
    Ended(u64, bool),
    /// A revoke began.
    RevokeStarted(u64),
    /// It ended: the id is not found, or succeeded as before.
    RevokeEnded(u64, bool),
    Marked,
    Forgotten,
    /// It was refused since the id was in this state: of a launch, a mark, a forget or a revoke.
    Refused(Kind, TaskState),
    /// A query saw this.
    Saw(TaskState),
    /// The process died, and the next one reset what had been running.
    Died,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Launch,
    Mark,
    Forget,
    Revoke,
}

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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    NotFound,
    Running(u64),
    Succeeded,
    Failed,
    Revoking(u64),
}

impl State {
    const fn name(self) -> TaskState {
        match self {
            Self::NotFound => TaskState::NotFound,
            Self::Running(_) => TaskState::Running,
            Self::Succeeded => TaskState::Succeeded,
            Self::Failed => TaskState::Failed,
            Self::Revoking(_) => TaskState::Revoking,
        }
    }

    /// What the state is after the operation, if it can be at this moment.
    fn after(self, did: &Did) -> Option<Self> {
        match (did, self) {
            (Did::Started(n), Self::NotFound | Self::Failed) => Some(Self::Running(*n)),
            (Did::Ended(n, true), Self::Running(m)) if *n == m => Some(Self::Succeeded),
            (Did::Ended(n, false), Self::Running(m)) if *n == m => Some(Self::Failed),
            (Did::RevokeStarted(n), Self::Succeeded) => Some(Self::Revoking(*n)),
            (Did::RevokeEnded(n, true), Self::Revoking(m)) if *n == m => Some(Self::NotFound),
            (Did::RevokeEnded(n, false), Self::Revoking(m)) if *n == m => Some(Self::Succeeded),
            (Did::Marked, Self::NotFound | Self::Failed) => Some(Self::Succeeded),
            (Did::Forgotten, Self::Succeeded | Self::Failed) => Some(Self::NotFound),
            (Did::Refused(kind, told), _) => {
                (self.name() == *told && !self.takes(*kind)).then_some(self)
            }
            (Did::Saw(told), _) => (self.name() == *told).then_some(self),
            (Did::Died, Self::Running(_)) => Some(Self::Failed),
            (Did::Died, Self::Revoking(_)) => Some(Self::Succeeded),
            (Did::Died, _) => Some(self),
            _ => None,
        }
    }

    const fn takes(self, kind: Kind) -> bool {
        matches!(
            (kind, self),
            (Kind::Launch | Kind::Mark, Self::NotFound | Self::Failed)
                | (Kind::Forget, Self::Succeeded | Self::Failed)
                | (Kind::Revoke, Self::Succeeded)
        )
    }
}

/// Whether there is an order that explains all operations of one id.
pub(super) fn is_linearizable(ops: &[Op]) -> bool {
    let mut ops = ops.to_vec();
    ops.sort_by_key(|op| op.called);
    let words = ops.len().div_ceil(64);
    let mut tried = HashSet::new();
    let mut open = vec![(vec![0_u64; words], State::NotFound)];
    while let Some((done, state)) = open.pop() {
        let is_done = |at: usize| done[at / 64] >> (at % 64) & 1 == 1;
        let left = || (0..ops.len()).filter(|at| !is_done(*at));
        if left().all(|at| ops[at].unsure) {
            return true;
        }
        // Nothing can come before an operation that had been answered when it was called.
        let first_answer = left().filter(|at| !ops[*at].unsure).map(|at| ops[at].answered).min();
        for at in left().take_while(|at| first_answer.is_none_or(|first| ops[*at].called <= first))
        {
            // One that is unsure takes effect before its last moment, or never.
            if ops[at].unsure && passed(&ops, &done, ops[at].answered) {
                continue;
            }
            let Some(after) = state.after(&ops[at].did) else { continue };
            let mut then = done.clone();
            then[at / 64] |= 1 << (at % 64);
            if tried.insert((then.clone(), after)) {
                open.push((then, after));
            }
        }
    }
    false
}

/// Whether something has taken effect already that was called after this moment.
fn passed(ops: &[Op], done: &[u64], moment: u64) -> bool {
    ops.iter().enumerate().any(|(at, op)| done[at / 64] >> (at % 64) & 1 == 1 && op.called > moment)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let two = [op(Did::Started(1), 1, 2), op(Did::Started(2), 3, 4)];
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
}
