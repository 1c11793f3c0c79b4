//! Shutting down so that the record tells the truth.
//!
//! Takes jobs until ctrl-c, or until N of them have been taken, then closes the ledger with a grace
//! period: what ends within it is recorded as what it ended in, the rest is cancelled and recorded
//! as cancelled. Nothing is left "running" for ever. Opens the ledger again to show it.
//!
//! ```sh
//! cargo run --example graceful_shutdown          # until ctrl-c
//! cargo run --example graceful_shutdown -- 5     # or until 5 jobs have been taken
//! ```

use std::error::Error;
use std::time::Duration;
use taskledger::{Failure, Ledger, TaskState};

/// How long running jobs may go on after the shutdown has begun.
const GRACE: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let most = match std::env::args().nth(1) {
        Some(number) => {
            number.parse().map_err(|_| format!("{number:?} is not a number of jobs"))?
        }
        None => u64::MAX,
    };
    let scratch = tempfile::tempdir()?;
    let path = scratch.path().join("jobs");
    let ledger: Ledger<String> = Ledger::open(&path).await?;

    // The ledger needs no signal handler of its own: whoever owns the process decides.
    tokio::select! {
        taken = take_jobs(&ledger, most) => println!("took {} jobs", taken?),
        pressed = tokio::signal::ctrl_c() => { pressed?; println!("ctrl-c"); }
    }

    let running = ledger.running_tasks().len();
    println!("closing with {running} running, grace {GRACE:?}");
    // Refuses new work at once, for every clone of the handle. When it returns, all is on disk.
    ledger.close_within(GRACE).await?;
    let late = ledger.launch("too late".to_owned(), async { Ok::<_, ()>(()) }).await;
    if let Err(error) = late {
        println!("a job that comes too late: {error}");
    }

    show(&Ledger::open(&path).await?).await
}

/// Takes a job now and then. Every other one takes longer than the grace period.
async fn take_jobs(ledger: &Ledger<String>, most: u64) -> Result<u64, Box<dyn Error>> {
    for number in 0..most {
        let (name, takes) = match number % 2 {
            0 => (format!("short job {number}"), GRACE / 10),
            _ => (format!("long job {number}"), GRACE * 100),
        };
        let job = async move {
            tokio::time::sleep(takes).await;
            Ok::<_, String>(())
        };
        ledger.launch(name, job).await?;
        tokio::time::sleep(GRACE / 50).await;
    }
    Ok(most)
}

/// What the next process finds.
async fn show(ledger: &Ledger<String>) -> Result<(), Box<dyn Error>> {
    println!(
        "opened again: {} succeeded, {} failed, {} crashed",
        ledger.succeeded_tasks().len(),
        ledger.failed_tasks().len(),
        ledger.recovery().crashed::<String>().len()
    );
    let mut names = ledger.all_tasks().iter().collect::<Result<Vec<_>, _>>()?;
    names.sort();
    for name in names {
        let Some(details) = ledger.record(&name).await? else { continue };
        match (details.state(), details.failure) {
            (TaskState::Failed, Some(Failure::Cancelled(why))) => {
                println!("  {name}: cancelled: {why}");
            }
            (state, _) => println!("  {name}: {state}"),
        }
    }
    ledger.close().await?;
    Ok(())
}
