//! The watchdog: a store that does not come back must not take its callers with it.
//!
//! A sync on a dying disk, or a store caught in a loop, cannot be interrupted.
//! A thread looks now and then whether the writer has been at one call for
//! longer than the deadline. If so, it settles the group in flight as given up
//! (one compare-and-swap against the writer's own decision), poisons the ledger
//! and wakes everybody. The stuck thread is left alone, with its locks.

use crate::sabotage::{self, Sabotage};
use crate::submission::{Group, Request};
use crate::sync::{Arc, Condvar, Mutex, lock};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// What the writer is at.
#[derive(Debug)]
struct Turn {
    since: Instant,
    group: Arc<Group>,
    requests: Arc<Vec<Request>>,
}

#[derive(Debug, Default)]
struct State {
    turn: Option<Turn>,
    stopped: bool,
}

/// The writer's side of the watchdog.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch(Arc<(Mutex<State>, Condvar)>);

/// While it lives, the clock of the deadline runs.
#[derive(Debug)]
pub(crate) struct Watched(Watch);

impl Watch {
    /// Starts the clock over a call that decides on `group`.
    pub(crate) fn arm(&self, group: Arc<Group>, requests: Arc<Vec<Request>>) -> Watched {
        lock(&self.0.0).turn = Some(Turn { since: Instant::now(), group, requests });
        Watched(self.clone())
    }

    /// Ends the watchdog.
    pub(crate) fn stop(&self) {
        lock(&self.0.0).stopped = !sabotage::is(Sabotage::StayBehind);
        self.0.1.notify_all();
    }

    /// The watchdog's thread: looks four times in a deadline, so that it costs nothing while all
    /// is well and fires at most a quarter late. `stuck` is called at most once.
    pub(crate) fn run(&self, deadline: Duration, stuck: impl FnOnce(&Arc<Group>, &[Request])) {
        let mut state = lock(&self.0.0);
        while !state.stopped {
            let overdue = state.turn.take_if(|turn| turn.since.elapsed() >= deadline);
            let overdue = overdue.filter(|_| !sabotage::is(Sabotage::NeverGiveUp));
            if let Some(turn) = overdue.filter(|turn| turn.group.decide_given_up()) {
                drop(state);
                stuck(&turn.group, &turn.requests);
                return;
            }
            // A deadline of next to nothing must not become a busy loop.
            let pause = (deadline / 4).max(Duration::from_millis(1));
            let wait = self.0.1.wait_timeout(state, pause);
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        lock(&self.0.0.0).turn = None;
    }
}

#[cfg(test)]
mod tests;
