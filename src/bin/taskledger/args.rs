//! What can be asked for, and how.

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::num::NonZero;
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
    Stats(StatsArgs),
    Verify(VerifyArgs),
    Repair(RepairArgs),
    Resolve(ResolveArgs),
    Prune(PruneArgs),
    Completions(CompletionsArgs),
}

/// Runs a command for each line of the input; survives anything, and never redoes what succeeded.
///
/// Each line is an id. The command gets it in place of each {}, also inside an argument, or as its
/// last argument if there is no {}; never through a shell. Once an id is recorded as succeeded (exit
/// status 0) its command never runs again, in this run or any later one with the same ledger. What
/// failed, and what was running when a run was killed, runs again: a command that was cut off may
/// have done its work, or some of it.
///
/// Commands read nothing (/dev/null), and find TASKLEDGER_ID and TASKLEDGER_ATTEMPT (1, 2, ...) in
/// their environment. What they print is passed on when they have ended, not mixed with others.
///
/// Ctrl-C or TERM once: nothing new is started, and what runs is waited for. Twice: it is ended, with
/// all processes of its group, and recorded as cancelled.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  find . -name '*.rs' | taskledger map --ledger L -- wc -l {}
  find photos -name '*.jpg' -print0 | taskledger map -0 --ledger L -j 4 -- convert {} -resize 50% {}.small.jpg
  taskledger map --ledger L --timeout 10m --retries 3 -- curl -fsSO {} < urls.txt
  taskledger map --ledger L --dry-run -- curl -fsSO {} < urls.txt
  taskledger map --ledger L --only failed,crashed -- curl -fsSO {} < urls.txt
  taskledger map --ledger L -- sh -c 'gzip -k \"$1\" && mv \"$1.gz\" out/' sh {} < files

Exit codes: 0 all succeeded, now or before; 1 some failed, or were left alone; 2 called wrongly, or the \
ledger cannot be used; 75 the ledger, or what an earlier run has left running, is in use; 126, 127 the \
command cannot be run, is not found; 130 interrupted; 141 nobody reads the output any more.

What succeeded is looked at with: taskledger dump L; why something failed with: taskledger show L ID.")]
pub(crate) struct MapArgs {
    /// The directory of the ledger; created if it is not there.
    #[arg(long, short, value_name = "DIR")]
    pub(crate) ledger: PathBuf,
    /// How many commands run at a time; by default as many as there are processors.
    ///
    /// Each takes six open files: the soft limit (`ulimit -n`) is raised for as many as that needs, also for
    /// the commands, and where the hard limit is too low fewer run. A command that cannot be started for
    /// want of processes or memory waits until another one has ended.
    #[arg(long, short, value_name = "N", default_value_t = processors(), hide_default_value = true)]
    pub(crate) jobs: NonZero<usize>,
    /// Lines end with a NUL byte instead of a newline: for `find -print0`.
    #[arg(long, short = '0')]
    pub(crate) null: bool,
    /// Ends a command, with its process group, that takes longer (`90s`, `10m`, `1h30m`).
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// How long a command that is told to end (TERM) has until it is killed (KILL).
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) kill_after: Duration,
    /// Runs a command that fails so many times more.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) retries: u32,
    /// Starts nothing new after the first failure.
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Leaves alone what has failed or crashed before.
    #[arg(long, conflicts_with = "only")]
    pub(crate) no_retry: bool,
    /// Runs only ids that are so by now.
    #[arg(long, value_name = "STATE,..", value_delimiter = ',', value_enum)]
    pub(crate) only: Vec<Only>,
    /// Takes another command than the ledger's, for this run only.
    #[arg(long)]
    pub(crate) any_command: bool,
    /// Makes this the command of the ledger from now on: the first one was mistyped, or has changed.
    ///
    /// What has succeeded with the old command goes on counting as succeeded.
    #[arg(long, conflicts_with = "any_command")]
    pub(crate) rebind: bool,
    /// Does not wait for commands that a killed run has left: exit code 75 if there are any.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Passes output on as it comes, mixed.
    #[arg(long)]
    pub(crate) ungroup: bool,
    /// How the closing summary is written to standard error.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) summary: Summary,
    /// No progress and no summary in words.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Runs nothing and changes nothing: says of each id whether it would run.
    #[arg(long, conflicts_with = "status")]
    pub(crate) dry_run: bool,
    /// Runs nothing and changes nothing: counts the ids of the input by state.
    #[arg(long)]
    pub(crate) status: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// What can be asked for with `--only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Only {
    /// It has failed.
    Failed,
    /// It was running when its process died.
    Crashed,
    /// Nothing is known of it.
    New,
}

impl Only {
    /// Whether it wants an id in this state, which has crashed or not.
    pub(crate) fn wants(self, state: TaskState, crashed: bool) -> bool {
        match self {
            Self::Failed => state == TaskState::Failed && !crashed,
            Self::Crashed => crashed,
            Self::New => state == TaskState::NotFound,
        }
    }
}

/// How the closing summary is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Summary {
    /// A line for people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Runs one command unless it has succeeded before.
///
/// Its exit code is passed on, and so is what it prints and reads. If the id is recorded as succeeded,
/// nothing runs: the exit code is 0, and standard error says when it was.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  taskledger exec --ledger /var/lib/backup/ledger \"backup $(date +%F)\" -- /usr/local/bin/backup
  taskledger exec --ledger L migrate-0042 --wait=5m -- psql -f 0042.sql
  taskledger exec --ledger L \"deploy $GIT_COMMIT\" -- ./deploy.sh

Exit codes: that of the command (128 + n if signal n ended it); 0 as well if it had succeeded before; \
2 called wrongly, or the ledger cannot be used; 74 it succeeded, but that could not be recorded; 75 the \
ledger, or a command that a killed run has left running, is in use; 126, 127 the command cannot be \
run, is not found.")]
pub(crate) struct ExecArgs {
    /// The directory of the ledger; created if it is not there.
    #[arg(long, short, value_name = "DIR")]
    pub(crate) ledger: PathBuf,
    /// The id: what is to be done once.
    #[arg(allow_hyphen_values = true, value_parser = OsStringValueParser::new().try_map(id))]
    pub(crate) id: OsString,
    /// Waits for a ledger that is in use: as long as it takes, or so long.
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "for ever",
        value_parser = wait
    )]
    pub(crate) wait: Option<Duration>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// Records what somebody has found out about a task that has failed or crashed.
///
/// A task that was running when its process died may have had its effect. Whoever has found out says so
/// here, and it is recorded as that.
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

/// Drops tasks that finished longer ago than they are to be kept.
///
/// Of a success a tombstone stays: it goes on counting as succeeded, but its id, its output and its
/// details are gone. A failure is forgotten, and may run again; one that crashed, or was given up, is kept
/// until it is resolved. What is pinned is kept.
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

fn processors() -> NonZero<usize> {
    std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN)
}

/// A span of time; a bare number is one of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().map(|seconds| format!("{seconds}s"));
    let span = seconds.as_deref().unwrap_or(text).parse::<jiff::SignedDuration>();
    let span =
        span.map_err(|error| format!("no span of time such as 90s, 10m or 1h30m: {error}"))?;
    let span = Duration::try_from(span).map_err(|_| "a span of time is not negative".to_owned())?;
    if span.is_zero() { Err("longer than nothing".to_owned()) } else { Ok(span) }
}

/// An age; days have 24 hours, weeks have 7 days.
fn age(text: &str) -> Result<Duration, String> {
    let wrong = |error: jiff::Error| format!("no age such as 12h, 30d or '2 weeks': {error}");
    let span = text.parse::<jiff::Span>().map_err(wrong)?;
    let age = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(wrong)?;
    Duration::try_from(age).map_err(|_| "an age is not negative".to_owned())
}

fn id(id: OsString) -> Result<OsString, &'static str> {
    if id.is_empty() { Err("an id is not empty") } else { Ok(id) }
}

fn wait(text: &str) -> Result<Duration, String> {
    if text == "for ever" { Ok(Duration::MAX) } else { duration(text) }
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
    fn spans_of_time_are_read_and_a_number_is_seconds() {
        let of = |text| duration(text).unwrap().as_millis();
        assert_eq!((of("90"), of("0.5"), of("1h30m")), (90_000, 500, 5_400_000));
        for wrong in ["", "soon", "-3s", "0"] {
            duration(wrong).unwrap_err();
        }
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
