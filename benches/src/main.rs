//! What the ledger costs: `cargo run --release -p taskledger-benches -- --help`.
//!
//! Every figure is taken several times, the variants in turn (A B C A B C ...), on the same disk;
//! medians are told with their spread. On a shared machine only the ratios mean much.

mod answers;
mod bytes;
mod figure;
mod flat;
mod growth;
mod latency;
mod load;
mod map;
mod peers;
mod plot;
mod queries;
mod reopen;
mod throughput;
mod undurable;

use clap::{Parser, ValueEnum};
use figure::Figure;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Measures the ledger; prints a table, and writes it as JSON and as a plot.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  taskledger-benches --rounds 7                              everything
  taskledger-benches throughput --launchers 1,64             one bench
  taskledger-benches --json figures.json --plot figures.svg --table figures.md
  taskledger-benches --from one.json other.json --plot figures.svg")]
struct Options {
    /// What to measure; by default all but `peers`, which take long to build. `map` and `skip` need the
    /// command, built for release, and `map` needs GNU parallel.
    #[arg(value_enum)]
    what: Vec<Bench>,
    /// Rounds of each variant.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Where to put the ledgers; a temporary directory below it is used and removed.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Ids for reopening, querying, weighing, pruning and skipping.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000], num_args = 1)]
    ids: Vec<u64>,
    /// Ids at which the growth is looked at.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000], num_args = 1)]
    sizes: Vec<u64>,
    /// Launchers at once.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64, 1024], num_args = 1)]
    launchers: Vec<usize>,
    /// Only these peers.
    #[arg(long, value_delimiter = ',', default_values_t = peers::PEERS.map(String::from), num_args = 1)]
    peers: Vec<String>,
    /// Measure nothing: take the figures that --json has written to these files.
    #[arg(long, num_args = 1.., conflicts_with = "what")]
    from: Vec<PathBuf>,
    /// Also write the figures as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Also draw the figures into this file, as SVG.
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Also write the table, in Markdown, to this file.
    #[arg(long)]
    table: Option<PathBuf>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// Durable tasks per second, beside the same ledger on a flat file and in memory.
    Throughput,
    /// Durable jobs per second, beside other durable queues: see benches/README.md.
    Peers,
    /// From a call to its answer.
    Latency,
    /// What is known of an id, beside other recorders.
    Queries,
    /// Tasks per second that nothing is recorded of, beside other recorders.
    Undurable,
    /// Opening a ledger, beside reading a flat file of the same.
    Reopen,
    /// Memory and disk per id.
    Bytes,
    /// All that with more and more ids.
    Growth,
    /// What a replayed and a joined answer cost, and a run.
    Answers,
    /// What a pruned success leaves.
    Tombstones,
    /// The command beside GNU parallel and xargs.
    Map,
    /// The command, when everything has succeeded.
    Skip,
}

impl Options {
    fn wants(&self, bench: Bench) -> bool {
        self.what.is_empty() || self.what.contains(&bench)
    }
}

fn main() -> Result<()> {
    if let Some(done) = peers::as_peer() {
        return done;
    }
    let options = Options::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let Some(done) = runtime.block_on(bytes::open_and_weigh()) {
        return done;
    }
    let figures = if options.from.is_empty() {
        rustix::fs::sync();
        std::thread::sleep(Duration::from_secs(2));
        runtime.block_on(measure(&options))?
    } else {
        let read =
            |path| -> Result<Vec<Figure>> { Ok(serde_json::from_slice(&std::fs::read(path)?)?) };
        options.from.iter().map(read).collect::<Result<Vec<_>>>()?.concat()
    };
    print!("\n{}", figure::table(&figures));
    if let Some(path) = &options.table {
        std::fs::write(path, figure::table(&figures))?;
    }
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&figures)? + "\n")?;
    }
    if let Some(path) = &options.plot {
        plot::draw(path, &figures)?;
    }
    Ok(())
}

/// In the order in which they are told.
async fn measure(options: &Options) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut told = |new: Vec<Figure>| {
        // Long before all are there.
        eprint!("{}", figure::table(&new));
        figures.extend(new);
    };
    if options.wants(Bench::Throughput) {
        told(throughput::throughput(options).await?);
    }
    if options.what.contains(&Bench::Peers) {
        told(peers::peers(options)?);
    }
    if options.wants(Bench::Latency) {
        told(latency::latency(options).await?);
    }
    if options.wants(Bench::Queries) {
        for ids in &options.ids {
            told(queries::queries(options, *ids).await?);
        }
    }
    if options.wants(Bench::Undurable) {
        told(undurable::undurable(options).await?);
    }
    if options.wants(Bench::Reopen) {
        for ids in &options.ids {
            told(reopen::reopen(options, *ids).await?);
        }
    }
    if options.wants(Bench::Bytes) {
        told(bytes::disk(options).await?);
        for ids in &options.ids {
            told(bytes::memory(options, *ids).await?);
        }
    }
    if options.wants(Bench::Growth) {
        told(growth::growth(options).await?);
    }
    if options.wants(Bench::Answers) {
        told(answers::answers(options).await?);
    }
    if options.wants(Bench::Tombstones) {
        for ids in &options.ids {
            told(answers::tombstones(options, *ids).await?);
        }
    }
    if options.wants(Bench::Map) {
        told(map::commands(options).await?);
    }
    if options.wants(Bench::Skip) {
        for ids in &options.ids {
            told(map::skipping(options, *ids).await?);
        }
    }
    Ok(figures)
}
