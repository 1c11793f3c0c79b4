//! What every peer's program does around its own queue: arguments, callers in a closed loop, one
//! line of JSON.

use std::future::Future;
use std::path::PathBuf;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What was asked for on the command line.
#[derive(Clone, Debug)]
pub(crate) struct Args {
    pub(crate) dir: PathBuf,
    pub(crate) callers: usize,
    pub(crate) jobs: usize,
    /// Everything told is to be synced before it is told.
    pub(crate) full: bool,
    /// What was done until then counts.
    pub(crate) limit: Duration,
}

impl Args {
    /// Ends the process if they make no sense.
    pub(crate) fn parse() -> Self {
        let mut parsed = Self {
            dir: PathBuf::new(),
            callers: 1,
            jobs: 100,
            full: false,
            limit: Duration::from_secs(60),
        };
        let mut args = std::env::args().skip(1);
        while let Some(name) = args.next() {
            let value = args.next().unwrap_or_default();
            let number = || value.parse::<usize>().unwrap_or_else(|_| usage(&name));
            match name.as_str() {
                "--dir" => parsed.dir = PathBuf::from(&value),
                "--callers" => parsed.callers = number().max(1),
                "--jobs" => parsed.jobs = number(),
                "--limit" => parsed.limit = Duration::from_secs(number() as u64),
                "--durability" if value == "default" => parsed.full = false,
                "--durability" if value == "full" => parsed.full = true,
                _ => usage(&name),
            }
        }
        if parsed.dir.as_os_str().is_empty() {
            usage("--dir");
        }
        parsed
    }
}

fn usage(name: &str) -> ! {
    eprintln!(
        "{name}? --dir DIR --callers N --jobs M [--durability default|full] [--limit SECONDS]"
    );
    exit(2)
}

/// The callers: each has one job under way, again and again, until all jobs are done. Prints how
/// many were and ends the process, without closing anything: what was told must not need that.
///
/// `job` gets the number of its caller and its own.
pub(crate) async fn measure<F, Fut, E>(
    (peer, version): (&str, &str),
    durability: &str,
    args: &Args,
    job: F,
) -> !
where
    F: Fn(usize, usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(), E>> + Send,
    E: std::fmt::Display,
{
    // Seen by whoever traces system calls: what comes before it was no job's.
    let _ = std::fs::File::create(args.dir.join("measured"));
    let (taken, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let began = Instant::now();
    let mut callers = Vec::new();
    for caller in 0..args.callers {
        let (job, taken, done, jobs) =
            (job.clone(), Arc::clone(&taken), Arc::clone(&done), args.jobs);
        callers.push(tokio::spawn(async move {
            loop {
                let number = taken.fetch_add(1, Ordering::Relaxed);
                if number >= jobs {
                    break;
                }
                if let Err(error) = job(caller, number).await {
                    eprintln!("job {number}: {error}");
                    exit(1);
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let all = async {
        for caller in callers {
            if caller.await.is_err() {
                exit(1);
            }
        }
    };
    let _ = tokio::time::timeout(args.limit, all).await;
    let (seconds, jobs) = (began.elapsed().as_secs_f64(), done.load(Ordering::Relaxed));
    println!(
        "{{\"peer\":{peer:?},\"version\":{version:?},\"durability\":{durability:?},\"jobs\":{jobs},\"seconds\":{seconds:.6}}}"
    );
    exit(0)
}
