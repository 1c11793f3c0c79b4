//! A cache that is refreshed in the background: readers never fetch, they read what is there.
//!
//! * The refresher is a child of a scope, so it ends with it. It refreshes at once, and then at every
//!   tick of an interval. A tick that it has missed, because a refresh took longer than a period, is
//!   skipped: by default an interval makes up for missed ticks in a burst.
//! * Each refresh is a run of its own. One that fails or panics is recorded, and does not end the
//!   refresher.
//! * Readers wait until the cache is primed, within a limit that covers waiting and reading. If the
//!   refresher is gone before that, they hear of it instead of waiting for ever.
//!
//! ```sh
//! cargo run --example cache_refresher              # eight refreshes, of which one fails and one panics
//! cargo run --example cache_refresher -- --down 8  # starts with what it had: the origin is down
//! ```
//!
//! What the ledger remembers: the last refreshes, under their numbers, with what they brought. So the
//! next process is primed at once, however stale that is, and says which refresh was cut off.

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use taskledger::{Context, Ended, Ledger, Scope};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

const USAGE: &str =
    "usage: cache_refresher [--ledger DIR] [--period MS] [--refreshes N] [--down N] [--slow MS]

  --ledger DIR    where the refreshes are remembered (default: target/cache_refresher)
  --period MS     how often the cache is refreshed (default: 100)
  --refreshes N   after how many it ends (default: 8), unless ctrl-c comes first
  --down N        how many fetches fail before the origin is up (default: 1)
  --slow MS       how long the second fetch takes after that (default: three periods and a half);
                  the third one panics

Exit status: 0 all readers have read something, 1 some have not, 2 it could not work.";

/// How long a reader waits.
const READ_LIMIT: Duration = Duration::from_secs(20);

/// Refreshes that are kept.
const KEPT: u64 = 10;

const READERS: usize = 3;

type AnyError = Box<dyn Error + Send + Sync>;

/// What readers see.
#[derive(Clone, Copy, Debug)]
struct Cached {
    value: u64,
    /// By which refresh it came.
    refresh: u64,
}

/// The signal that the cache is primed, and the cache: `None` until then.
type Cache = watch::Receiver<Option<Cached>>;

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("cache_refresher: {wrong}; see --help");
            return ExitCode::from(2);
        }
    };
    match run(options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("cache_refresher: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether all readers have read something.
async fn run(options: Options) -> Result<bool, AnyError> {
    let ledger: Ledger<u64, u64> = Ledger::open(&options.ledger).await?;
    for refresh in ledger.recovery().crashed::<u64>() {
        println!("refresh {} was cut off when the last process died", refresh?);
    }
    let known = last_known(&ledger).await?;
    if let Some(Cached { value, refresh }) = known {
        println!("primed from the ledger: {value} of refresh {refresh}");
    }
    let (fill, cache) = watch::channel(known);
    let last = ledger
        .all_tasks()
        .iter()
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .max()
        .unwrap_or_default();
    let refresher = Refresher {
        origin: Origin { asked: Arc::default(), down: options.down, slow: options.slow },
        period: options.period,
        numbers: last + 1..=last.saturating_add(options.refreshes),
        fill,
    };

    let root = ledger.scope();
    // It hears of the end of its scope, and has a second to end by itself.
    let within = root.with_grace(Duration::from_secs(1));
    let mut refreshing = within.nest(|scope| refresher.run(scope))?;
    let mut readers = JoinSet::new();
    for number in 1..=READERS {
        let cache = cache.clone();
        readers.spawn(async move { (number, read(cache).await) });
    }
    // They hold the only receivers now, as others would.
    drop(cache);
    tokio::select! {
        ended = &mut refreshing => if let Ended::Panicked(why) = ended {
            println!("the refresher itself has panicked: {why}");
        },
        pressed = tokio::signal::ctrl_c() => pressed?,
    }
    root.end().await;
    let mut all_read = true;
    while let Some(read) = readers.join_next().await {
        match read? {
            (number, Ok(Cached { value, refresh })) => {
                println!("reader {number}: {value} of refresh {refresh}");
            }
            (number, Err(why)) => {
                all_read = false;
                println!("reader {number}: {why}");
            }
        }
    }
    ledger.close().await?;
    Ok(all_read)
}

/// What the newest refresh that succeeded has brought.
async fn last_known(ledger: &Ledger<u64, u64>) -> Result<Option<Cached>, AnyError> {
    let refreshes = ledger.succeeded_tasks().iter().collect::<Result<Vec<_>, _>>()?;
    let Some(refresh) = refreshes.into_iter().max() else { return Ok(None) };
    let value = ledger.output(&refresh).await?;
    Ok(value.map(|value| Cached { value, refresh }))
}

/// Waits until there is something to be read, and reads it. The limit is around both.
async fn read(mut cache: Cache) -> Result<Cached, &'static str> {
    let primed = async {
        let found = cache.wait_for(Option::is_some).await;
        found.ok().and_then(|found| *found).ok_or("nobody refreshes the cache any more")
    };
    timeout(READ_LIMIT, primed).await.unwrap_or(Err("it takes too long"))
}

struct Refresher {
    origin: Origin,
    period: Duration,
    /// Of its refreshes.
    numbers: std::ops::RangeInclusive<u64>,
    fill: watch::Sender<Option<Cached>>,
}

impl Refresher {
    async fn run(self, scope: Scope<u64, u64>) {
        let mut ticks = interval(self.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let began = Instant::now();
        for refresh in self.numbers {
            let tick = tokio::select! {
                // The first one comes at once.
                tick = ticks.tick() => tick,
                () = scope.stopping() => return,
            };
            let since = tick.saturating_duration_since(began).as_millis() + 1;
            let tick = since / self.period.as_millis();
            let origin = self.origin.clone();
            // One that is under way when the scope ends has the grace to finish, as this has.
            let refreshed = scope.task(refresh).run(move |cx: Context<u64>| {
                println!("refresh {refresh}, tick {tick}: begins");
                origin.clone().fetch(*cx.id())
            });
            match refreshed.await {
                Ok(claim) => {
                    if let Some(value) = claim.value {
                        println!("refresh {refresh}: {value}");
                        self.fill.send_replace(Some(Cached { value, refresh }));
                    }
                    forget_old(scope.ledger(), refresh).await;
                }
                // An old value is better than none, and the next tick comes.
                Err(why) => println!("refresh {refresh}: {why}"),
            }
        }
    }
}

/// After a success: that one is the newest, so none of these is missed.
async fn forget_old(ledger: &Ledger<u64, u64>, newest: u64) {
    let refreshes = ledger.all_tasks().iter().filter_map(Result::ok);
    let old: Vec<u64> = refreshes.filter(|refresh| refresh + KEPT <= newest).collect();
    for forgotten in ledger.forget_all(&old).await {
        if let Err(why) = forgotten {
            println!("an old refresh is kept: {why}");
        }
    }
}

/// Somewhere far away.
#[derive(Clone, Debug)]
struct Origin {
    asked: Arc<AtomicU64>,
    down: u64,
    slow: Duration,
}

impl Origin {
    async fn fetch(self, refresh: u64) -> Result<u64, String> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        match number.checked_sub(self.down) {
            None => return Err("the origin is down".to_owned()),
            Some(1) => tokio::time::sleep(self.slow).await,
            Some(2) => panic!("the answer makes no sense"),
            Some(_) => {}
        }
        Ok(100 + refresh)
    }
}

struct Options {
    ledger: PathBuf,
    period: Duration,
    refreshes: u64,
    down: u64,
    slow: Duration,
}

impl Options {
    /// `None` when help is wanted.
    fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Option<Self>, String> {
        let (mut ledger, mut period, mut refreshes, mut down, mut slow) = (None, 100, 8, 1, None);
        while let Some(arg) = args.next() {
            let arg = arg.to_string_lossy().into_owned();
            if matches!(arg.as_str(), "-h" | "--help") {
                return Ok(None);
            }
            if !["--ledger", "--period", "--refreshes", "--down", "--slow"].contains(&&*arg) {
                return Err(format!("unknown option {arg}"));
            }
            let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
            if arg == "--ledger" {
                ledger = Some(PathBuf::from(value));
                continue;
            }
            let number: Option<u64> = value.to_str().and_then(|value| value.parse().ok());
            let number = number.ok_or_else(|| format!("{arg} needs a number"))?;
            match arg.as_str() {
                "--period" if number == 0 => return Err("--period needs a number from 1".into()),
                "--period" => period = number,
                "--refreshes" => refreshes = number,
                "--down" => down = number,
                _ => slow = Some(number),
            }
        }
        // Set by `cargo run`, whatever the current directory is.
        let here = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| ".".into(), PathBuf::from);
        Ok(Some(Self {
            ledger: ledger.unwrap_or_else(|| here.join("target").join("cache_refresher")),
            period: Duration::from_millis(period),
            refreshes,
            down,
            slow: Duration::from_millis(slow.unwrap_or_else(|| period.saturating_mul(7) / 2)),
        }))
    }
}
