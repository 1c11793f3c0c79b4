//! What can be asked for, and how.

mod run;

pub(crate) use run::{ExecArgs, MapArgs, Only, Summary};

use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;
use taskledger::{TaskState, Timestamp};

const EXIT_CODES: &str = "\
Exit codes: 0 fine; 1 the ledger is damaged, or does not know the id; 2 could not look (in use by a \
process, not a ledger, written by a newer version, ...), or called wrongly. `map` and `exec` have \
codes of their own: see their help.";

/// Runs commands that must succeed once, and looks into the ledger that remembers it.
///
/// A ledger is a directory. `map` runs a command for each line of its input, `exec` runs one; what has
/// succeeded never runs again. The others look into a ledger while no process has it open: what
/// became of each task, its log, and whether it is sound.
#[derive(Debug, Parser)]
#[command(name = "taskledger", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Map(MapArgs),
    Exec(ExecArgs),
    Dump(DumpArgs),
    Show(ShowArgs),
    Log(LogArgs),
    Queue(QueueArgs),
    Stats(StatsArgs),
    Verify(VerifyArgs),
    Repair(RepairArgs),
    Resolve(ResolveArgs),
    /// Keeps a task that has succeeded or failed from being pruned by age.
    ///
    /// Until it is unpinned, launched again, revoked or forgotten. It opens the ledger, as `resolve` does.
    Pin(PinArgs),
    /// Takes a `pin` back.
    ///
    /// It opens the ledger, as `resolve` does.
    Unpin(PinArgs),
    Prune(PruneArgs),
    #[command(flatten)]
    Copies(crate::copies::Copies),
    Completions(CompletionsArgs),
}

/// Records what somebody has found out about a task that has failed or crashed.
///
/// A task that was running when its process died may have had its effect. Whoever has found out says so
/// here, and it is recorded as that.
///
/// It opens the ledger, as its owner does: what was running when its process died is recorded as crashed.
/// All of that is told on standard error, an id a line, since the owner's next open does not tell of it
/// again (`dump --state failed` shows it). Nothing is done while a process has the ledger open.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  taskledger dump ledger --state failed
  taskledger resolve ledger payment-17 --succeeded --note 'seen in the list of the bank'
  taskledger resolve ledger payment-18 --retry")]
pub(crate) struct ResolveArgs {
    /// The directory of the ledger.
    pub(crate) path: PathBuf,
    /// The id, exactly as `dump` prints it.
    #[arg(allow_hyphen_values = true)]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) verdict: VerdictArgs,
    /// Why: kept with it.
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
}

/// What was found out.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct VerdictArgs {
    /// It had its effect: it counts as succeeded.
    #[arg(long)]
    pub(crate) succeeded: bool,
    /// It had none: it counts as failed, no longer as crashed.
    #[arg(long)]
    pub(crate) failed: bool,
    /// It may be tried again, also if it was given up.
    #[arg(long)]
    pub(crate) retry: bool,
}

/// Which task is pinned, or is no more.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  taskledger pin ledger payment-17
  taskledger unpin ledger payment-17
  taskledger show ledger payment-17")]
pub(crate) struct PinArgs {
    /// The directory of the ledger.
    pub(crate) path: PathBuf,
    /// The id, exactly as `dump` prints it.
    #[arg(allow_hyphen_values = true)]
    pub(crate) id: String,
}

/// Drops tasks that finished longer ago than they are to be kept.
///
/// Of a success a tombstone stays: it goes on counting as succeeded, but its id, its output and its
/// details are gone. A failure is forgotten, and may run again; one that crashed, or was given up, is kept
/// until it is resolved. What was released to be tried again, and what is pinned, is kept.
///
/// It opens the ledger, as its owner does, and tells on standard error what that has found crashed: the
/// owner's next open does not tell of it again. `--dry-run` only looks. Neither does anything while a
/// process has the ledger open: there the owner itself calls `prune` and `prunable`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  taskledger prune ledger --succeeded 30d --failed 90d --dry-run
  taskledger prune ledger --succeeded '2 weeks'")]
pub(crate) struct PruneArgs {
    /// The directory of the ledger.
    pub(crate) path: PathBuf,
    /// How long successes are kept (`12h`, `30d`, `2 weeks`); for ever if this is not given.
    #[arg(long, value_name = "AGE", value_parser = age, required_unless_present = "failed")]
    pub(crate) succeeded: Option<Duration>,
    /// How long failures are kept; for ever if this is not given.
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) failed: Option<Duration>,
    /// Counts ages back from this time (`2026-01-31T12:00:00Z`), whatever the clock says: for a ledger with
    /// records of a time that has not come, written when the clock was ahead.
    #[arg(long, value_name = "TIME")]
    pub(crate) as_of: Option<jiff::Timestamp>,
    /// Changes nothing: says what would be dropped.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Prints a completion script for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  taskledger completions bash > /etc/bash_completion.d/taskledger
  taskledger completions zsh > ~/.zfunc/_taskledger
  taskledger completions fish > ~/.config/fish/completions/taskledger.fish")]
pub(crate) struct CompletionsArgs {
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// An age; days have 24 hours, weeks have 7 days.
fn age(text: &str) -> Result<Duration, String> {
    let wrong = |error: jiff::Error| format!("no age such as 12h, 30d or '2 weeks': {error}");
    let span = text.parse::<jiff::Span>().map_err(wrong)?;
    let age = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(wrong)?;
    Duration::try_from(age).map_err(|_| "an age is not negative".to_owned())
}

/// Prints every task, one a line, in the order of the bytes of their ids.
///
/// A damaged ledger is printed as far as it can be read, with exit code 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  taskledger dump /var/lib/mailer/ledger
  taskledger dump ledger --state failed,running
  taskledger dump ledger --tree
  taskledger dump ledger --prefix order- --since '3 days'
  taskledger dump ledger --since 2026-11-22T05:00:00Z --format csv > tasks.csv
  taskledger dump ledger --format json | jq 'select(.attempt > 3) | .id'")]
pub(crate) struct DumpArgs {
    /// The directory of the ledger.
    pub(crate) path: PathBuf,
    /// Only tasks in one of these states: queued, running, succeeded, failed, revoking.
    #[arg(long, value_name = "STATE,..", value_delimiter = ',', value_parser = state)]
    pub(crate) state: Vec<TaskState>,
    /// Only tasks whose id, as it is printed, begins with this.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) prefix: Option<String>,
    /// Only tasks that changed since then: a time (RFC 3339), or a span back from now (`2h`,
    /// `3 days`).
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(crate) since: Option<Timestamp>,
    /// At most so many.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Draws what ran within a scope below it, in the order in which it began. All that is wanted is read
    /// before the first line.
    #[arg(long, conflicts_with = "format")]
    pub(crate) tree: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Format {
    /// Columns, for people.
    #[default]
    Table,
    /// JSON Lines: an object a line.
    Json,
    /// Comma-separated values, with a header.
    Csv,
}

/// Prints all that is known of one task, and its records back to the last checkpoint.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  taskledger show ledger order-17
  taskledger show ledger nightly --tree
  taskledger show ledger \"Point { x: 1, y: 2 }\"
  taskledger show ledger --hex 076f726465722d31
  taskledger show ledger -- --an-id-that-looks-like-an-option")]
pub(crate) struct ShowArgs {
    /// The directory of the ledger.
    pub(crate) path: PathBuf,
    /// The id, exactly as `dump` prints it.
    #[arg(allow_hyphen_values = true)]
    pub(crate) id: String,
    /// The id is given as the hexadecimal digits of its encoded bytes.
    #[arg(long)]
    pub(crate) hex: bool,
    /// Draws all that ran within it as well. The whole ledger is read for that.
    #[arg(long)]
    pub(crate) tree: bool,
}

/// Prints what waits in the operation queue, in the order in which it will be performed.
///
/// All of it is read before the first line.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  taskledger queue ledger
  taskledger queue ledger --limit 10
  taskledger queue ledger --json | jq .payload")]
pub(crate) struct QueueArgs {
    /// The directory of the ledger.
    pub(crate) path: PathBuf,
    /// The first ones, at most so many.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// JSON Lines, as `dump --format json`.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Prints the records of the log since the last checkpoint, one a line.
///
/// Tab-separated: position, time, event, id, details. Events of the ledger itself have `-` for an
/// id. Two logs can be compared line by line.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  taskledger log ledger
  taskledger log ledger --from 1200 | head
  taskledger log ledger | cut -f3 | sort | uniq -c")]
pub(crate) struct LogArgs {
    /// The directory of the ledger.
    pub(crate) path: PathBuf,
    /// Only records from this position on.
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub(crate) from: u64,
}

/// Prints the ledger in numbers: tasks by state, attempts, ages, sizes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  taskledger stats ledger
  taskledger stats ledger --format json | jq .tasks.failed")]
pub(crate) struct StatsArgs {
    /// The directory of the ledger.
    pub(crate) path: PathBuf,
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: StatsFormat,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum StatsFormat {
    /// For people.
    #[default]
    Table,
    /// One JSON object.
    Json,
}

/// Reads everything and says what is wrong, one finding a line.
///
/// Exit code 0 if the ledger is sound, 1 if it is damaged, 2 if it could not be looked at.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  taskledger verify ledger
  taskledger verify /backup/ledger && echo good")]
pub(crate) struct VerifyArgs {
    /// The directory of the ledger.
    pub(crate) path: PathBuf,
}

/// Makes a damaged ledger one that opens again, at the price of what is lost.
///
/// Everything that can still be read is kept, and the damaged files are put aside in `damaged/`
/// inside the directory. A task whose success was lost may run again. A sound ledger is left alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  taskledger verify ledger; taskledger repair ledger --accept-loss")]
pub(crate) struct RepairArgs {
    /// The directory of the ledger.
    pub(crate) path: PathBuf,
    /// What is gone is gone. Without this, nothing is done.
    #[arg(long)]
    pub(crate) accept_loss: bool,
}

fn state(text: &str) -> Result<TaskState, String> {
    let listed = || TaskState::ALL.into_iter().filter(|state| *state != TaskState::NotFound);
    listed().find(|state| state.name() == text.trim()).ok_or_else(|| {
        let names: Vec<&str> = listed().map(TaskState::name).collect();
        format!("one of {} is wanted", names.join(", "))
    })
}

fn since(text: &str) -> Result<Timestamp, String> {
    let at = match text.parse::<jiff::Timestamp>() {
        Ok(at) => at,
        Err(no_time) => back_from_now(text).map_err(|no_span| {
            format!("neither a time ({no_time}) nor a span of time ({no_span})")
        })?,
    };
    // Before 1970 there was nothing.
    Ok(Timestamp::from_micros(u64::try_from(at.as_microsecond()).unwrap_or_default()))
}

fn back_from_now(text: &str) -> Result<jiff::Timestamp, jiff::Error> {
    let span: jiff::Span = text.parse()?;
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    Ok(now.checked_sub(span.abs())?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_fit_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn since_takes_times_and_spans() {
        let at = |text| since(text).unwrap().as_micros();
        assert_eq!(at("1970-01-01T00:00:01Z"), 1_000_000);
        assert_eq!(at("1970-01-01T01:00:01+01:00"), 1_000_000);
        assert_eq!(at("1960-01-01T00:00:00Z"), 0);
        let hour = at("1h");
        for same in ["60 minutes", "PT1H", "1 hour ago"] {
            assert!((hour..hour + 60_000_000).contains(&at(same)), "{same}");
        }
        assert!(hour - at("1 day") >= 82_000_000_000);
        assert!(since("yesterday").unwrap_err().contains("neither a time"));
    }

    #[test]
    fn ages_are_spans_of_days() {
        let of = |text| age(text).unwrap().as_secs();
        assert_eq!((of("12h"), of("30d"), of("2 weeks")), (43_200, 2_592_000, 1_209_600));
        for wrong in ["", "soon", "-3d", "2 months"] {
            age(wrong).unwrap_err();
        }
        assert_eq!(of("0s"), 0);
    }

    #[test]
    fn states_are_those_that_a_task_can_be_listed_in() {
        assert_eq!(state("failed"), Ok(TaskState::Failed));
        assert!(state("not found").unwrap_err().contains("queued, running, succeeded"));
    }
}
