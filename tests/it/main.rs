//! One binary; its modules are named after what goes wrong.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the arms that it expects")]

mod cancelled;
mod company;
mod copied;
mod counted;
mod faults;
mod guarded;
mod halted;
mod joined;
mod left;
mod limited;
mod lined;
#[cfg(feature = "metrics")]
mod measured;
mod mistaken;
mod model;
mod noting;
mod overtaken;
mod paused;
mod porting;
mod printed;
mod pruned;
mod queued;
mod refusals;
mod replayed;
mod scoped;
mod stopped;
mod stuck;
mod support;
mod traced;
mod unsettled;
mod watched;
