//! The orders in which threads can take their steps in queue, poison, watchdog, publication, close, and in a
//! line: tried by a model checker, in a build of its own (`src/sync/tests.rs`).

use super::{Harness, broken};
use crate::Session;
use std::path::Path;
use std::process::Command;
use taskledger::internals::Sabotage;

pub(super) const HARNESS: Harness = Harness {
    name: "interleavings",
    unit: "schedules",
    ci: 12_000,
    full: 1_000_000,
    run,
    controls: &[
        // A wake that is lost matters in few orders: it takes many to find one.
        broken(
            Sabotage::LoseWake,
            40_000,
            &["the_end_of_the_last_attempt_ends_the_writer: deadlock!"],
        )
        .only(&["the_end_of_the_last_attempt_ends_the_writer"]),
        broken(Sabotage::AnswerFirst, 20_000, &["right: Running", "right: Succeeded"]),
        broken(Sabotage::ForgetBatch, 20_000, &["the log is legal", "two attempts at a time"]),
        broken(
            Sabotage::NeverGiveUp,
            240,
            &["a_store_that_does_not_come_back_keeps_nobody: deadlock!"],
        )
        .only(&["a_store_that_does_not_come_back_keeps_nobody"]),
        broken(Sabotage::OpenFirst, 8_000, &["it was one all the time"])
            .only(&["a_success_is_one_while_it_is_buried"]),
        broken(Sabotage::KeepOffer, 8_000, &KEPT).only(&["one_handles_and_nobody_waits_for_ever"]),
    ],
};

/// Who is left waits for ever, or finds the line taken by nobody.
const KEPT: [&str; 2] = [
    "one_handles_and_nobody_waits_for_ever: deadlock!",
    "one_handles_and_nobody_waits_for_ever: nobody has it any more",
];

/// Thirteen scenes, each at random and at three depths.
const SCENES: u64 = 13;
const DEPTHS: u64 = 4;

fn run(session: &mut Session) {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    // The tests' own sabotage comes to them by the environment, as to any process of the lab.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // All, or the one of a control.
    let one = session.only.first();
    let (part, scenes) = one.map_or(("sync::tests", SCENES), |scene| (scene, 1));
    let rounds = session.units.div_ceil(scenes * DEPTHS);
    command
        .current_dir(&top)
        .args(["test", "--lib", "--locked", "--features", "internals"])
        .args(["--target-dir", "target/shuttle", part])
        .env("RUSTFLAGS", "--cfg shuttle")
        .env("TASKLEDGER_ROUNDS", rounds.to_string())
        .env("TASKLEDGER_SEED", (session.seed % 1_000_000).to_string());
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return session.skip(format!("there is no cargo: {error}")),
    };
    let told = String::from_utf8_lossy(&output.stdout);
    let result = told.lines().find(|line| line.starts_with("test result"));
    match result {
        Some(result)
            if result.contains(&format!(" {scenes} passed")) && output.status.success() =>
        {
            session.report.tried += rounds * scenes * DEPTHS;
        }
        Some(result) => {
            let failed: Vec<String> = told.split("---- sync::tests::").skip(1).map(said).collect();
            session.violated(format!("{}; {result}", failed.join("; ")));
        }
        None => {
            let why = format!("it does not run: {}", String::from_utf8_lossy(&output.stderr));
            session.violated(why);
        }
    }
}

/// The name of a scene that failed, and what it said.
fn said(told: &str) -> String {
    let name = told.split(' ').next().unwrap_or_default();
    // What the model checker says comes before its advice how to try it again.
    let said = told.split("panicked at ").nth(1).unwrap_or_default();
    let said: Vec<&str> = said.lines().skip(1).take(3).collect();
    format!("{name}: {}", said.join(" "))
}
