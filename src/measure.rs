//! What the ledger does, in numbers, told to the `metrics` facade: with the feature `metrics` only.
//!
//! | name | kind | what |
//! | --- | --- | --- |
//! | `taskledger_claims_total` | counter, by `kind` | runs: `executed`, `joined`, `replayed`, `refused` (anything that is no answer) |
//! | `taskledger_sync_seconds` | histogram | how long a group takes until it is durable |
//! | `taskledger_batch_requests` | histogram | requests in a group |
//! | `taskledger_queue_depth` | gauge | requests that are submitted and not answered |
//! | `taskledger_tasks` | gauge, by `state` | ids in a state, as of the last group |
//! | `taskledger_tombstones` | gauge | pruned successes, as of the last group |
//! | `taskledger_recovery_seconds` | gauge | how long the last open took |
//!
//! Several ledgers of one process add up in the counter and the histograms; the gauges tell of the one
//! that was the last to record.

#[cfg(feature = "metrics")]
mod on {
    use crate::guard::ClaimKind;
    use crate::shared::Shared;
    use crate::state::TaskState;
    use crate::wake;
    use std::time::Duration;

    /// A recorder is foreign code: it may panic.
    fn told(tell: impl FnOnce()) {
        wake::caught(tell);
    }

    pub(crate) fn claimed(kind: Option<ClaimKind>) {
        let kind = match kind {
            Some(ClaimKind::Executed) => "executed",
            Some(ClaimKind::Joined) => "joined",
            Some(ClaimKind::Replayed) => "replayed",
            None => "refused",
        };
        told(|| metrics::counter!("taskledger_claims_total", "kind" => kind).increment(1));
    }

    pub(crate) fn recorded(shared: &Shared, requests: usize, took: Duration) {
        told(|| {
            metrics::histogram!("taskledger_sync_seconds").record(took.as_secs_f64());
            metrics::histogram!("taskledger_batch_requests").record(requests as f64);
            let free = shared.permits.available_permits();
            let depth = shared.options.max_pending.saturating_sub(free);
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
pub(crate) use on::{claimed, opened, recorded};

#[cfg(not(feature = "metrics"))]
mod off {
    use crate::guard::ClaimKind;
    use crate::shared::Shared;
    use std::time::Duration;

    pub(crate) const fn claimed(_: Option<ClaimKind>) {}
    pub(crate) const fn recorded(_: &Shared, _: usize, _: Duration) {}
    pub(crate) const fn opened(_: Duration) {}
}

#[cfg(not(feature = "metrics"))]
pub(crate) use off::{claimed, opened, recorded};
