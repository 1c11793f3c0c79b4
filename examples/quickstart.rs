//! A task that must not be done twice, remembered across a restart.
//!
//! ```sh
//! cargo run --example quickstart            # in a new temporary directory
//! cargo run --example quickstart -- DIR     # in DIR: run it twice and see that nothing runs again
//! ```

use std::error::Error;
use std::path::PathBuf;
use taskledger::{AttemptError, Failure, Ledger, TaskState};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Kept until the end of `main`: dropping it removes the directory.
    let scratch = tempfile::tempdir()?;
    let path =
        std::env::args_os().nth(1).map_or_else(|| scratch.path().join("payments"), PathBuf::from);

    // The ids are order numbers; what a success returns is kept with it.
    let ledger: Ledger<u64, String> = Ledger::open(&path).await?;
    println!("open number {}", ledger.recovery().epoch());

    // However often this is asked for, by however many callers: the card is charged once.
    for _ in 0..2 {
        println!("order 7: {}", pay(&ledger, 7).await?);
    }

    // A failure is recorded as well, and may be tried again.
    let failed = ledger.launch_block(8, async { Err("card expired") }).await;
    if let Err(AttemptError::Failed(reason)) = &failed {
        println!("order 8: {reason}, says the future");
    }
    if let Some(details) = ledger.record(&8).await? {
        let why = details.failure.as_ref().map_or_else(String::new, Failure::to_string);
        println!(
            "order 8: {} at attempt {} ({why}), says the ledger",
            details.state(),
            details.attempt()
        );
    }

    // Once closed, the ledger can be opened again, here or elsewhere, and knows it all.
    ledger.close().await?;
    let ledger: Ledger<u64, String> = Ledger::open(&path).await?;
    assert_eq!(ledger.query_task_state_quick(&7), TaskState::Succeeded);
    println!("after a restart, order 7: {}", pay(&ledger, 7).await?);
    println!(
        "{} succeeded, {} failed, opened in {:?}",
        ledger.succeeded_tasks().len(),
        ledger.failed_tasks().len(),
        ledger.recovery().took()
    );
    ledger.close().await?;
    Ok(())
}

/// Charges the card for an order unless that is on record already; returns the receipt.
///
/// There is no "ask first, then launch" here: launching *is* the question, and of any number of
/// callers exactly one gets to run.
async fn pay(ledger: &Ledger<u64, String>, order: u64) -> Result<String, Box<dyn Error>> {
    match ledger.launch_block(order, charge(order)).await {
        Ok(receipt) => Ok(format!("charged now, {receipt}")),
        Err(AttemptError::Refused { state: TaskState::Succeeded, .. }) => {
            let receipt = ledger.output(&order).await?.unwrap_or_default();
            Ok(format!("charged before, {receipt}"))
        }
        Err(other) => Err(other.into()),
    }
}

/// Stands for the call of a payment provider. A real one is given the order number as *its*
/// idempotency key: if this process dies between the charge and its record, the ledger says
/// `Failed(Crashed)`, and only the provider knows whether the charge happened.
async fn charge(order: u64) -> Result<String, String> {
    Ok(format!("receipt {}", order * 1000 + 1))
}
