//! What becomes of an id by what is done to it.

use super::{Answer, Op, State, What, success_of};
use std::collections::BTreeSet;

impl What {
    #[must_use]
    pub const fn is_success(self) -> bool {
        match self {
            Self::Succeeded(_)
            | Self::Unkept(_)
            | Self::Resolved
            | Self::Exhumed
            | Self::Buried => true,
            Self::None
            | Self::Failed(_)
            | Self::FailedAgain(_)
            | Self::Crashed
            | Self::GaveUp
            | Self::Ruled
            | Self::Released => false,
        }
    }

    /// Whether it has crashed, and nobody has said what came of it.
    #[must_use]
    pub const fn has_crashed(self) -> bool {
        matches!(self, Self::Crashed | Self::FailedAgain(_))
    }

    /// What it is when it has ended like this, and was one of these before.
    #[must_use]
    pub fn after(self, before: &BTreeSet<State>) -> BTreeSet<State> {
        let Self::Failed(number) = self else { return BTreeSet::from([self.into()]) };
        let again = |state: &State| match state.what.has_crashed() {
            true => Self::FailedAgain(number).into(),
            false => self.into(),
        };
        before.iter().map(again).collect()
    }

    /// The number of the output that is kept of a success.
    #[must_use]
    pub const fn output(self) -> Option<u64> {
        if let Self::Succeeded(number) = self { Some(number) } else { None }
    }
}

/// Which states a prune takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prunes {
    pub succeeded: bool,
    pub failed: bool,
}

/// What may be pruned at once, and the word for it.
pub const PRUNES: [(&str, Prunes); 3] = [
    ("both", Prunes { succeeded: true, failed: true }),
    ("succeeded", Prunes { succeeded: true, failed: false }),
    ("failed", Prunes { succeeded: false, failed: true }),
];

impl Prunes {
    /// Both of them.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { succeeded: self.succeeded || other.succeeded, failed: self.failed || other.failed }
    }

    /// What is left of an id that is old enough.
    #[must_use]
    pub fn left(self, state: State) -> State {
        match state.what {
            _ if state.pinned => state,
            what if self.succeeded && what.is_success() => What::Buried.into(),
            What::Failed(_) | What::Ruled if self.failed => What::None.into(),
            // What crashed or was given up may have happened.
            _ => state,
        }
    }
}

/// What a run leaves an id in that executes nothing; `None` if it has to execute.
#[must_use]
pub fn quiet(op: Op, number: u64, state: State) -> Option<State> {
    match state.what {
        what if what.is_success() => Some(state),
        What::GaveUp => Some(state),
        What::None | What::Released => None,
        // It was tried already; what somebody has found out stays.
        What::Ruled if op == Op::Once => Some(state),
        _ if op == Op::Once => Some(State { what: What::GaveUp, ..state }),
        what if what.has_crashed() => match op {
            Op::Hold | Op::Unknown => Some(state),
            Op::Landed => Some(State { what: success_of(number), ..state }),
            Op::Replay | Op::Refuse if what != What::Crashed => Some(state),
            _ => None,
        },
        _ => matches!(op, Op::Replay | Op::Refuse).then_some(state),
    }
}

/// What an id may be while it is executed, the last of them when that was answered.
#[must_use]
pub fn executed(op: Op, number: u64) -> Vec<What> {
    match op {
        Op::Fail => vec![What::Crashed, What::Failed(number)],
        Op::Once => vec![What::Crashed, What::Failed(number), What::GaveUp],
        Op::Hang => vec![What::Crashed],
        _ => vec![What::Crashed, success_of(number)],
    }
}

/// What an id becomes by a change, with what it may be on the way; `None` if that is refused.
#[must_use]
pub fn changed(op: Op, state: State) -> Option<(State, State)> {
    let (success, buried) = (state.what.is_success(), state.what == What::Buried);
    let failure = !success && state.what != What::None;
    let opened = if buried { What::Exhumed.into() } else { state };
    let end = match op {
        Op::Pin if !buried && (success || failure) => State { pinned: true, ..state },
        Op::Unpin if !buried && (success || failure) => State { pinned: false, ..state },
        Op::ResolveSucceeded if failure => State { what: What::Resolved, ..state },
        Op::ResolveFailed if failure => State { what: What::Ruled, ..state },
        Op::ResolveRetry if failure => State { what: What::Released, ..state },
        Op::Forget if success || failure => What::None.into(),
        Op::Revoke if success => What::None.into(),
        Op::Unrevoked if success => opened,
        _ => return None,
    };
    Some((opened, end))
}

/// Whether a run may be answered like this that executes nothing, of an id in this state.
#[must_use]
pub fn explains(op: Op, number: u64, state: State, answer: Answer) -> bool {
    let Some(left) = quiet(op, number, state) else { return false };
    let told_again = matches!(op, Op::Replay);
    match (answer, left.what) {
        (Answer::Told(value), what) if what.is_success() => value == what.output(),
        (Answer::GaveUp, What::GaveUp) => true,
        (Answer::GaveUp, What::Ruled) => op == Op::Once,
        (Answer::Held, what) => what.has_crashed() && matches!(op, Op::Hold | Op::Unknown),
        (Answer::Refused, What::Failed(_) | What::FailedAgain(_) | What::Ruled) => op == Op::Refuse,
        (Answer::Failed(told), What::Failed(number) | What::FailedAgain(number)) => {
            told_again && told == number
        }
        (Answer::ToldOf(told), what) => told_again && told == what,
        _ => false,
    }
}
