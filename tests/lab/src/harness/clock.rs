//! The clock jumps: each time somebody reads it, up to ten years either way.
//!
//! Time dates records and decides nothing. So a run under such a clock, killed and opened again and
//! again, must leave just what any other leaves.

use super::killed::{killed_after, reopen_and_check};
use super::{Harness, broken};
use crate::ops::{Model, TAKEN_BACK};
use crate::{Session, places, tracer};
use taskledger::internals::Sabotage;

pub(super) const HARNESS: Harness = Harness {
    name: "clock",
    unit: "rounds",
    ci: 20,
    full: 500,
    run,
    controls: &[broken(Sabotage::TrustClock, 60, &[TAKEN_BACK, "cannot follow"])],
};

fn run(session: &mut Session) {
    let Some(tracer) = tracer::tracer() else { return session.skip(tracer::NO_TRACER) };
    let dir = places::scratch();
    let path = dir.path().join("ledger");
    let mut model = Model::default();
    while session.goes_on() {
        let rng = &mut session.rng;
        let mut child = places::child("clients", &path);
        let checkpoints = if rng.coin() { u64::MAX } else { 0 };
        child
            .env("TASKLEDGER_CHILD_SEED", rng.next().to_string())
            .env("TASKLEDGER_CHILD_CHECKPOINTS", checkpoints.to_string())
            .env("TASKLEDGER_CHILD_CHECKPOINT_AFTER", "65536")
            .env("TL_CLOCK", (1 + rng.below(1 << 30)).to_string());
        tracer::preload(&mut child, tracer, dir.path());
        let acks = 1 + rng.below(120);
        let died = killed_after(child, acks, |line| line.starts_with("ack"), &mut model);
        let outcome = match died {
            Ok(true) => reopen_and_check(&path, &mut model),
            Ok(false) => Err("the child ended by itself".to_owned()),
            Err(wrong) => Err(wrong),
        };
        let failed = outcome.is_err();
        session.tried(outcome.map_err(|lost| format!("{acks} lines: {lost}")));
        if failed {
            return;
        }
    }
    session.count("acknowledged", model.acked);
}
