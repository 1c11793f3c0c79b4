//! What can be asked for, and how.

use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use taskledger::{TaskState, Timestamp};

const EXIT_CODES: &str = "\
Exit codes: 0 fine; 1 the ledger is damaged, or does not know the id; 2 could not look (in use by a \
process, not a ledger, written by a newer version, ...), or called wrongly.";

/// Looks into a task ledger: what became of each task, its log, and whether it is sound.
///
/// A ledger is a directory. It can be looked into while no process has it open; nothing but
/// `repair` ever writes to it.
#[derive(Debug, Parser)]
#[command(name = "taskledger", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Dump(DumpArgs),
    Show(ShowArgs),
    Log(LogArgs),
    Stats(StatsArgs),
    Verify(VerifyArgs),
    Repair(RepairArgs),
}

/// Prints every task, one a line, in the order of the bytes of their ids.
///
/// A damaged ledger is printed as far as it can be read, with exit code 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  taskledger dump /var/lib/mailer/ledger
  taskledger dump ledger --state failed,running
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
    fn states_are_those_that_a_task_can_be_listed_in() {
        assert_eq!(state("failed"), Ok(TaskState::Failed));
        assert!(state("not found").unwrap_err().contains("queued, running, succeeded"));
    }
}
