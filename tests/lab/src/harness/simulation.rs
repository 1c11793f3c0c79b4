//! The writer's rule, simulated: random groups, stale ends, failing appends and crashes on a journal
//! in memory. No thread, no clock: the same from the same seed.

use super::{Harness, broken};
use crate::Session;
use std::panic::catch_unwind;
use taskledger::internals::{self, Sabotage};

pub(super) const HARNESS: Harness = Harness {
    name: "simulation",
    unit: "seeds",
    ci: 2_000,
    full: 1_000_000,
    run,
    controls: &[
        broken(Sabotage::SkipFencing, 2000, &["taken against the rule: End {"]),
        broken(
            Sabotage::ForgetBatch,
            2000,
            &[
                "taken against the rule, behind another one of its id: ",
                "refused against the rule, behind another one of its id: ",
            ],
        ),
        broken(
            Sabotage::SkipReset,
            2000,
            &[
                "what was running is found crashed\n  left: 0",
                "what was being revoked is found interrupted\n  left: 0",
            ],
        ),
        broken(
            Sabotage::EndFirst,
            2000,
            &["ends a scope before it", "taken against the rule: End {"],
        ),
        broken(Sabotage::HoldBack, 2000, &["there is no record"]),
        broken(Sabotage::SwallowFailure, 2000, &["a failure is told"]),
    ],
};

fn run(session: &mut Session) {
    while session.goes_on() {
        let seed = session.rng.next();
        match catch_unwind(|| internals::simulate(seed)) {
            Ok((requests, crashes)) => {
                session.count("requests", requests);
                session.count("crashes", crashes);
                session.tried(Ok(()));
            }
            Err(panic) => {
                let what = crate::session::text_of(&*panic);
                session.tried(Err(format!("seed {seed}: {what}")));
            }
        }
    }
}
