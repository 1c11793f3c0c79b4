//! What a run is asked to do beside running.

use super::Context;
use crate::attempt::{self, Kind, Limits};
use crate::error::Rejection;
use crate::foreign::{Contained, caught};
use crate::ledger::TaskOutput;
use crate::scope::Node;
use crate::state::Fingerprint;
use crate::sync::{Arc, Mutex, lock};
use crate::task::Start;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use std::fmt;
use std::future::Future;
use std::num::NonZero;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::Instant;

/// How long an attempt may go on when it is asked to stop.
const GRACE: Duration = Duration::from_secs(5);

/// What to do about an id whose last attempt failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFailure {
    /// Run it again.
    #[default]
    Run,
    /// Answer with the failure that is recorded.
    Replay,
    /// Refuse.
    Refuse,
}

/// What to do about an id that was running when its process died: its effect may have happened, until it has
/// succeeded, or somebody has said what came of it. That later attempts have failed says nothing of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnCrash {
    /// Run it again: for effects that can be repeated.
    #[default]
    Run,
    /// Hold it until somebody has found out and [says so](crate::Ledger::resolve).
    Hold,
    /// Ask the [probe](crate::Task::probe); without one it is held.
    Ask,
}

/// What a [probe](crate::Task::probe) has found out about an attempt that crashed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Landed<V> {
    /// It has happened, and this is what it returned, if that can be told: the id has succeeded. The answer is
    /// that of a [replay](crate::ClaimKind::Replayed): without the value if it is larger than what is kept of one.
    Yes(Option<V>),
    /// It has not happened, and will not: it is run again.
    No,
    /// That cannot be told now: the id is held.
    Unknown,
}

/// When a failed attempt is tried again, within one run: how often, after how long, and after which
/// errors. Waits grow from `min_delay` by `factor` up to `max_delay`, each lengthened by a random part
/// of itself, so that what failed together does not come back together.
pub struct Retry<E> {
    retries: usize,
    min_delay: Duration,
    max_delay: Option<Duration>,
    factor: f32,
    when: Option<Contained<When<E>>>,
}

const MAX_DELAY: Duration = Duration::from_secs(60);

impl<E> Retry<E> {
    /// Up to so many attempts in all: 1 s, 2 s, 4 s, ... up to a minute after one another.
    #[must_use]
    pub fn attempts(attempts: NonZero<u32>) -> Self {
        Self {
            retries: attempts.get() as usize - 1,
            min_delay: Duration::from_secs(1),
            max_delay: None,
            factor: 2.0,
            when: None,
        }
    }

    pub(crate) fn never() -> Self {
        Self::attempts(NonZero::<u32>::MIN)
    }

    /// The first wait, unless the longest one is shorter. Default 1 s.
    #[must_use]
    pub const fn min_delay(mut self, delay: Duration) -> Self {
        self.min_delay = delay;
        self
    }

    /// The longest wait, before it is lengthened. Default 60 s, or the first wait if that is longer.
    #[must_use]
    pub const fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = Some(delay);
        self
    }

    /// How much longer each wait is than the one before. Default 2, at least 1.
    #[must_use]
    pub const fn factor(mut self, factor: f32) -> Self {
        self.factor = if factor > 1.0 { factor } else { 1.0 };
        self
    }

    /// Only after errors for which this holds. Panics and timeouts are always tried again.
    #[must_use]
    pub fn when(mut self, when: impl Fn(&E) -> bool + Send + Sync + 'static) -> Self {
        self.when = Some(Contained::new(Box::new(when)));
        self
    }

    pub(super) fn wants(&self, error: &E) -> bool {
        self.when
            .as_ref()
            .and_then(Contained::inner)
            .is_none_or(|when| caught(|| when(error)).unwrap_or(false))
    }

    /// The waits, one for each attempt after the first.
    pub(super) fn pauses(&self) -> impl Iterator<Item = Duration> + Send + use<E> {
        let max_delay = self.max_delay.unwrap_or_else(|| MAX_DELAY.max(self.min_delay));
        ExponentialBuilder::default()
            .with_jitter()
            // It does not bound the first wait by itself.
            .with_min_delay(self.min_delay.min(max_delay))
            .with_max_delay(max_delay)
            .with_factor(self.factor)
            .with_max_times(self.retries)
            .build()
    }
}

impl<E> fmt::Debug for Retry<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("retries", &self.retries)
            .field("min_delay", &self.min_delay)
            .field("max_delay", &self.max_delay)
            .field("factor", &self.factor)
            .finish_non_exhaustive()
    }
}

type When<E> = Box<dyn Fn(&E) -> bool + Send + Sync>;
type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Probe<K, V> = Box<dyn FnOnce(Context<K>) -> BoxFuture<Landed<V>> + Send>;

/// All that is asked for beside the work itself.
pub(crate) struct Options<K, V> {
    pub(crate) timeout: Option<Duration>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) grace: Option<Duration>,
    pub(crate) fingerprint: Option<Fingerprint>,
    pub(crate) on_failure: OnFailure,
    pub(crate) on_crash: OnCrash,
    pub(crate) max_attempts: Option<NonZero<u32>>,
    pub(crate) output_bytes: Option<usize>,
    pub(crate) cancel_with_caller: bool,
    /// The scope that it runs within.
    pub(crate) scope: Option<Arc<Node>>,
    pub(crate) probe: Mutex<Option<Contained<Probe<K, V>>>>,
}

impl<K, V> Options<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            timeout: None,
            deadline: None,
            grace: None,
            fingerprint: None,
            on_failure: OnFailure::Run,
            on_crash: OnCrash::Run,
            max_attempts: None,
            output_bytes: None,
            cancel_with_caller: false,
            scope: None,
            probe: Mutex::new(None),
        }
    }

    pub(crate) fn ask<P, F>(&mut self, probe: P)
    where
        P: FnOnce(Context<K>) -> F + Send + 'static,
        F: Future<Output = Landed<V>> + Send + 'static,
    {
        self.on_crash = OnCrash::Ask;
        let probe: Probe<K, V> = Box::new(move |context| Box::pin(probe(context)));
        self.probe = Mutex::new(Some(Contained::new(probe)));
    }

    /// The limits of an attempt of a run.
    pub(super) fn limits(&self) -> Limits {
        let Self { timeout, deadline, grace, .. } = *self;
        let grace = Some(grace.unwrap_or(GRACE)).filter(|grace| !grace.is_zero());
        Limits { timeout, deadline, grace }
    }
}

impl<K, V: TaskOutput> Options<K, V> {
    /// What is to be launched; or that this was asked of a run.
    pub(crate) fn launch<'a>(&self, id: &'a K) -> Result<Start<'a, K, V>, Rejection> {
        let asked = [
            (self.grace.is_some(), "cancel_grace"),
            (self.fingerprint.is_some(), "fingerprint"),
            (self.on_failure != OnFailure::Run, "on_failure"),
            (lock(&self.probe).is_some(), "probe"),
            (self.on_crash != OnCrash::Run, "on_crash"),
            (self.max_attempts.is_some(), "max_attempts"),
            (self.output_bytes.is_some(), "output_at_most"),
            (self.cancel_with_caller, "cancel_with_caller"),
        ];
        if let Some((_, option)) = asked.into_iter().find(|(asked, _)| *asked) {
            return Err(Rejection::OnlyForRun { option });
        }
        let limits = Limits { timeout: self.timeout, deadline: self.deadline, grace: None };
        let within = self.scope.clone();
        Ok(Start { limits, within, ..Start::new(id, Kind::Launch, attempt::launch_succeeded) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The waits, which are lengthened by up to their double.
    fn within(retry: &Retry<()>, expected: &[u64]) {
        let pauses: Vec<Duration> = retry.pauses().collect();
        assert_eq!(pauses.len(), expected.len());
        for (pause, expected) in pauses.iter().zip(expected) {
            let expected = Duration::from_secs(*expected);
            assert!((expected..=expected * 2).contains(pause), "{pauses:?}, {expected:?}");
        }
    }

    #[test]
    fn waits_grow_and_none_is_longer_than_the_longest() {
        let five = Retry::attempts(NonZero::new(5).unwrap());
        within(&five.max_delay(Duration::from_secs(3)), &[1, 2, 3, 3]);
        // Also the first: it was not bounded, so that those after it were shorter.
        let five = Retry::attempts(NonZero::new(5).unwrap()).min_delay(Duration::from_secs(120));
        within(&five, &[120; 4]);
        within(&five.max_delay(Duration::from_secs(7)), &[7; 4]);
    }
}
