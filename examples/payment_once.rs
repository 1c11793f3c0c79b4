//! A payment that is made once, though its process is killed in the middle of it.
//!
//! The bank is a file; it takes a payment once for each key that it is given, as payment services do.
//! The first process dies before it has asked the bank, the second one right after. Neither can tell
//! afterwards what happened, but the next one can ask: the effect key is still the same.
//!
//! ```sh
//! cargo run --example payment_once            # all of it, in a new temporary directory
//! cargo run --example payment_once -- DIR     # one process: pays order 7 in DIR unless that is paid
//! ```

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use taskledger::{Context, Landed, Ledger};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let Some(dir) = args.next() else { return play() };
    let dies = args.next().map(|moment| moment.to_string_lossy().into_owned());
    pay(&PathBuf::from(dir), dies).await?;
    Ok(ExitCode::SUCCESS)
}

/// Pays order 7, unless that is on record, or has happened all the same.
async fn pay(dir: &Path, dies: Option<String>) -> Result<(), Box<dyn Error>> {
    let ledger: Ledger<u64, String> = Ledger::open(dir.join("ledger")).await?;
    let (bank, asked) = (Bank(dir.join("bank")), Bank(dir.join("bank")));
    let claim = ledger
        .task(7)
        .fingerprint("order 7, 12.50")
        .probe(move |cx: Context<u64>| async move {
            // Whoever crashed may have paid. Not to be able to ask is not a no.
            match asked.receipt(&cx.effect_key().to_string()) {
                Ok(Some(receipt)) => Landed::Yes(Some(receipt)),
                Ok(None) => Landed::No,
                Err(_) => Landed::Unknown,
            }
        })
        .run(move |cx: Context<u64>| {
            let (bank, dies) = (Bank(bank.0.clone()), dies.clone());
            async move {
                if dies.as_deref() == Some("before") {
                    std::process::abort();
                }
                let receipt = bank.charge(&cx.effect_key().to_string(), "12.50")?;
                if dies.as_deref() == Some("after") {
                    std::process::abort();
                }
                Ok::<_, std::io::Error>(receipt)
            }
        })
        .await?;
    let details = ledger.record(&7).await?.ok_or("it is not there")?;
    println!(
        "{}: {:?}, after {} attempts",
        claim.value.as_deref().unwrap_or("no receipt"),
        claim.kind,
        details.attempt()
    );
    ledger.close().await?;
    Ok(())
}

/// Four processes, one after the other; two of them die.
fn play() -> Result<ExitCode, Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    for moment in [Some("before"), Some("after"), None, None] {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(scratch.path()).args(moment);
        let ended = command.status()?;
        match moment {
            Some(moment) => println!("died {moment} the bank was asked: {ended}"),
            None if ended.success() => {}
            None => return Err(format!("it does not go on: {ended}").into()),
        }
    }
    let charges = std::fs::read_to_string(scratch.path().join("bank"))?;
    println!("the bank has charged {} times", charges.lines().count());
    Ok(ExitCode::SUCCESS)
}

/// A service outside: one line for each payment.
struct Bank(PathBuf);

impl Bank {
    /// Takes a payment, once for each key.
    fn charge(&self, key: &str, amount: &str) -> std::io::Result<String> {
        if let Some(receipt) = self.receipt(key)? {
            return Ok(receipt);
        }
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.0)?;
        writeln!(file, "{key} {amount}")?;
        file.sync_all()?;
        Ok(format!("receipt for {amount}"))
    }

    fn receipt(&self, key: &str) -> std::io::Result<Option<String>> {
        let text = match std::fs::read_to_string(&self.0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let paid = text.lines().find_map(|line| line.strip_prefix(key));
        Ok(paid.map(|amount| format!("receipt for {}", amount.trim())))
    }
}
