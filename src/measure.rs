//! What the ledger does, in numbers, told to the `metrics` facade: with the feature `metrics` only.
//!
//! | name | kind | what |
//! | --- | --- | --- |
//! | `taskledger_claims_total` | counter, by `kind` | calls of `run`, each once: see below |
//! | `taskledger_sync_seconds` | histogram | how long a group takes until it is durable |
//! | `taskledger_batch_requests` | histogram | requests in a group |
//! | `taskledger_queue_depth` | gauge | how much of `max_pending` is taken, as of the last group: each request that is submitted and not answered, but many ids of one call never take more than half; ends and notes of attempts are not counted |
//! | `taskledger_tasks` | gauge, by `state` | ids in a state, as of the last group |
//! | `taskledger_tombstones` | gauge | pruned successes, as of the last group |
//! | `taskledger_recovery_seconds` | gauge | how long the last open took |
//!
//! The kinds of claims: `executed` (this call ran it, whatever came of it), `joined` and `replayed` (it was
//! told what somebody else's attempt, or an earlier one, came to: a value, a failure, or that nobody knows),
//! `refused` (nothing ran for it, and there was nothing to tell: a policy, another fingerprint, a closed
//! ledger, its deadline, a cancel), `dropped` (its caller was dropped before the answer; what it had begun
//! may go on).
//!
//! Several ledgers of one process add up in the counter and the histograms; the gauges tell of the one
//! that was the last to record.

#[cfg(feature = "metrics")]
mod on {
    use crate::error::RunError;
    use crate::guard::{Claim, ClaimKind};
    use crate::shared::Shared;
    use crate::state::TaskState;
    use crate::wake;
    use std::time::Duration;

    /// A recorder is foreign code: it may panic.
    fn told(tell: impl FnOnce()) {
        wake::caught(tell);
    }

    /// A call of `run`, which counts once: by its answer, or as dropped.
    pub(crate) struct Claiming {
        kind: &'static str,
        ran: bool,
    }

    impl Claiming {
        pub(crate) const fn begin() -> Self {
            Self { kind: "dropped", ran: false }
        }

        /// Whether an attempt of this call is on record.
        pub(crate) const fn ran(&mut self, ran: bool) {
            self.ran = ran;
        }

        pub(crate) fn answered<V, E>(mut self, answer: &Result<Claim<V>, RunError<V, E>>) {
            self.kind = match answer {
                Ok(Claim { kind, .. }) | Err(RunError::Told { kind, .. }) => match kind {
                    ClaimKind::Executed => "executed",
                    ClaimKind::Joined => "joined",
                    ClaimKind::Replayed => "replayed",
                },
                Err(
                    RunError::Failed(_)
                    | RunError::Panicked(_)
                    | RunError::InDoubt { outcome: Some(_), .. }
                    | RunError::Superseded { .. },
                ) => "executed",
                Err(RunError::Cancelled(_) | RunError::TimedOut) if self.ran => "executed",
                Err(RunError::InDoubt { outcome: None, .. }) => "joined",
                Err(
                    RunError::Cancelled(_)
                    | RunError::TimedOut
                    | RunError::GaveUp { .. }
                    | RunError::Held
                    | RunError::OtherRequest { .. }
                    | RunError::Refused { .. }
                    | RunError::Rejected(_)
                    | RunError::Read(_)
                    | RunError::Change(_)
                    | RunError::Lost,
                ) => "refused",
            };
        }
    }

    impl Drop for Claiming {
        fn drop(&mut self) {
            let kind = self.kind;
            told(|| metrics::counter!("taskledger_claims_total", "kind" => kind).increment(1));
        }
    }

    pub(crate) fn recorded(shared: &Shared, requests: usize, took: Duration) {
        told(|| {
            metrics::histogram!("taskledger_sync_seconds").record(took.as_secs_f64());
            metrics::histogram!("taskledger_batch_requests").record(requests as f64);
            let free = shared.permits.available_permits();
            let all = shared.options.max_pending.min(tokio::sync::Semaphore::MAX_PERMITS);
            let depth = all.saturating_sub(free);
            metrics::gauge!("taskledger_queue_depth").set(depth as f64);
            let counts = shared.index.counts();
            for (state, count) in TaskState::ALL.iter().zip(counts) {
                if *state != TaskState::NotFound {
                    metrics::gauge!("taskledger_tasks", "state" => state.name()).set(count as f64);
                }
            }
            let tombstones = shared.index.tombstones();
            metrics::gauge!("taskledger_tombstones").set(tombstones as f64);
        });
    }

    pub(crate) fn opened(took: Duration) {
        told(|| metrics::gauge!("taskledger_recovery_seconds").set(took.as_secs_f64()));
    }
}

#[cfg(feature = "metrics")]
pub(crate) use on::{Claiming, opened, recorded};

#[cfg(not(feature = "metrics"))]
mod off {
    use crate::error::RunError;
    use crate::guard::Claim;
    use crate::shared::Shared;
    use std::time::Duration;

    pub(crate) struct Claiming;

    impl Claiming {
        pub(crate) const fn begin() -> Self {
            Self
        }

        pub(crate) const fn ran(&mut self, _: bool) {}

        pub(crate) const fn answered<V, E>(self, _: &Result<Claim<V>, RunError<V, E>>) {}
    }

    pub(crate) const fn recorded(_: &Shared, _: usize, _: Duration) {}
    pub(crate) const fn opened(_: Duration) {}
}

#[cfg(not(feature = "metrics"))]
pub(crate) use off::{Claiming, opened, recorded};
