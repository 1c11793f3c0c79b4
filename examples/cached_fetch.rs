//! A cache that fetches each key once: for everybody who asks meanwhile, and for the next process too.
//!
//! Looking up, fetching and storing are one step here, so there is no moment between "it is not there"
//! and "I fetch it" in which somebody else does the same. A fetch has a timeout and is tried again; one
//! that fails for good is told to all who waited for it, and the next who asks fetches anew.
//!
//! ```sh
//! cargo run --example cached_fetch
//! ```

use std::error::Error;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use taskledger::{ClaimKind, Context, Ledger, Retry, RunError};
use tokio::task::JoinSet;

/// Somewhere far away, where fetches are counted; the first one of all gets lost.
#[derive(Clone, Debug, Default)]
struct Origin(Arc<AtomicU32>);

impl Origin {
    async fn fetch(self, key: String) -> Result<String, String> {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            // Nobody answers: the timeout ends it.
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        if key == "nowhere" { Err("no such page".to_owned()) } else { Ok(format!("<{key}>")) }
    }
}

async fn look_up(
    pages: &Ledger<String, String>,
    origin: &Origin,
    key: &str,
) -> Result<(ClaimKind, String), RunError<String, String>> {
    let origin = origin.clone();
    let three = NonZero::<u32>::MIN.saturating_add(2);
    let retry = Retry::attempts(three)
        .min_delay(Duration::from_millis(5))
        .when(|error: &String| error != "no such page");
    let fetches = origin.clone();
    let claim = pages
        .task(key.to_owned())
        .timeout(Duration::from_millis(200))
        .retry(retry)
        .run(move |cx: Context<String>| fetches.clone().fetch(cx.id().clone()))
        .await?;
    match claim.value {
        Some(page) => Ok((claim.kind, page)),
        // It was over the cap, and is not in the cache: everybody fetches it.
        None => {
            let page = origin.fetch(key.to_owned()).await.map_err(RunError::Failed)?;
            Ok((ClaimKind::Executed, page))
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let (path, origin) = (scratch.path().join("pages"), Origin::default());
    for process in 1..=2 {
        let pages: Ledger<String, String> = Ledger::open(&path).await?;
        let before = origin.0.load(Ordering::Relaxed);
        let mut readers = JoinSet::new();
        for key in ["index", "news", "about"].iter().cycle().take(30) {
            let (pages, origin) = (pages.clone(), origin.clone());
            readers.spawn(async move { look_up(&pages, &origin, key).await });
        }
        let (mut executed, mut others) = (0, 0);
        for read in readers.join_all().await {
            if read?.0 == ClaimKind::Executed {
                executed += 1;
            } else {
                others += 1;
            }
        }
        let fetches = origin.0.load(Ordering::Relaxed) - before;
        println!("process {process}: 30 readers of 3 pages, {fetches} fetches");
        println!("  executed {executed}, joined or replayed {others}");
        pages.close().await?;
    }
    let pages: Ledger<String, String> = Ledger::open(&path).await?;
    let (one, other) =
        tokio::join!(look_up(&pages, &origin, "nowhere"), look_up(&pages, &origin, "nowhere"));
    for read in [one, other] {
        match read {
            Err(RunError::Failed(why)) => println!("nowhere: {why}"),
            Err(told) => println!("nowhere: {told}"),
            Ok((_, page)) => println!("nowhere: {page}"),
        }
    }
    pages.close().await?;
    Ok(())
}
