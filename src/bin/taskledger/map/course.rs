//! How a run comes to its end: what is still begun, what goes on, who is still waited for.
//!
//! ```text
//! On --failed, nobody reads, ...--> NothingNew --signal--+
//!  |                                                     v
//!  +--------------------signal--> NothingNew(Interrupted) --signal--> End --signal, or the grace--> given up
//! ```

use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a look at all processes may take.
const MOMENT: Duration = Duration::from_secs(2);

/// What is still to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Course {
    #[default]
    On,
    /// Nothing new is started.
    NothingNew(Stop),
    /// What runs is ended as well.
    End,
}

/// Why nothing new is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Failed,
    Interrupted,
    NobodyReads,
    /// The program cannot be started, and this is the exit code for it.
    NotRun(u8),
    /// The ledger has stopped recording, or an output could not be kept or written.
    Broken,
    /// The input cannot be read.
    Input,
}

/// The course of a run, which only ever goes towards its end.
#[derive(Debug)]
pub(super) struct Steering {
    course: watch::Sender<Course>,
    /// Nothing is waited for any more, and nobody but those who read.
    given_up: CancellationToken,
    grace: Duration,
}

impl Steering {
    pub(super) fn new(grace: Duration) -> Self {
        let course = watch::Sender::new(Course::On);
        Self { course, given_up: CancellationToken::new(), grace }
    }

    /// Also what takes a moment after that is not waited for any more.
    pub(super) async fn long_given_up(&self) {
        self.given_up.cancelled().await;
        tokio::time::sleep(MOMENT).await;
    }

    pub(super) fn now(&self) -> Course {
        *self.course.borrow()
    }

    pub(super) fn is_on(&self) -> bool {
        self.now() == Course::On
    }

    /// Returns when nothing new is to be started.
    pub(super) async fn off(&self) {
        let mut course = self.course.subscribe();
        // We have the sender: it does not go away.
        drop(course.wait_for(|course| *course != Course::On).await);
    }

    /// Cancelled when commands that are told to end are killed at once, and what is not read is given up.
    pub(super) const fn given_up(&self) -> &CancellationToken {
        &self.given_up
    }

    pub(super) fn stop(&self, why: Stop) {
        self.course.send_if_modified(|course| {
            let on = *course == Course::On;
            if on {
                *course = Course::NothingNew(why);
            }
            on
        });
    }

    /// Whether a signal has been heard.
    pub(super) fn is_interrupted(&self) -> bool {
        matches!(self.now(), Course::NothingNew(Stop::Interrupted) | Course::End)
    }

    /// A signal: one waits for what runs, whatever may have stopped the run before; two, or one that says
    /// `now`, end it; three, or one more, wait for nothing.
    pub(super) fn interrupted(&self, now: bool) -> Course {
        let before = self.now();
        let next = match before {
            _ if now => Course::End,
            Course::NothingNew(Stop::Interrupted) | Course::End => Course::End,
            Course::On | Course::NothingNew(_) => Course::NothingNew(Stop::Interrupted),
        };
        self.course.send_replace(next);
        if before == Course::End {
            self.given_up.cancel();
        } else if next == Course::End {
            let (given_up, grace) = (self.given_up.clone(), self.grace);
            tokio::spawn(async move {
                tokio::time::sleep(grace).await;
                given_up.cancel();
            });
        }
        next
    }
}
