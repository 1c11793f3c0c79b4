//! What can be asked of `map` and `exec`.

use clap::ValueEnum;
use clap::builder::{OsStringValueParser, TypedValueParser};
use std::ffi::OsString;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;
use taskledger::{Failure, TaskState};

/// Runs a command for each line of the input; survives anything, and never redoes what succeeded.
///
/// Each line is an id, of at most 1021 bytes: a longer one fails. Empty lines are skipped, and a line that has
/// been in this input before is a duplicate, whatever became of the first. Nothing is taken off a line, so of
/// CRLF the CR is part of the id (`tr -d '\r'` takes it off); a closed input is an empty one. The command gets it in place of each {}, also inside an
/// argument, or as its last argument if there is no {}; never through a shell. Once an id is recorded as succeeded (exit
/// status 0) its command never runs again, in this run or any later one with the same ledger. What
/// failed, and what was running when a run was killed, runs again: a command that was cut off may
/// have done its work, or some of it.
///
/// Commands read nothing (/dev/null), and find TASKLEDGER_ID and TASKLEDGER_ATTEMPT (1, 2, ...) in
/// their environment. Each has a process group of its own: one that reads the terminal is stopped, which
/// is said.
///
/// What they print is passed on when they have ended, not mixed with others, and only then a success is
/// recorded. Output comes at least once: after a kill it may come again. An output that cannot be passed
/// on, on standard error as well, is a failure of that id, and ends the run: the next one could not be either
/// (that nobody listens to standard error is nobody's failure). What a command leaves
/// running may print on, which is passed on as it comes; a second after the end of everything else nobody
/// reads it any more, which is said.
///
/// Ctrl-C, TERM or a hang-up once: nothing new is started, and what runs is waited for. Twice (but for a
/// hang-up after another signal, which says nothing new), or QUIT once: it is told to end (TERM, then KILL after --kill-after) with all processes of its group, and
/// recorded as cancelled. Three times: it is killed at once. From then on, or after the same time, output of
/// which nobody has read anything for a second is given up, and its id runs again next time; what is read,
/// or goes to a file, is passed on to its end. Ctrl-Z stops the commands as well; --timeout goes on.
///
/// No command runs beside another one for the same id: before a retry the group of the last attempt is
/// ended, and processes that have left it are waited for, which is said. Nor does a command run beside those
/// of an earlier run, which are waited for: what a failed command leaves running holds back every other command of
/// the ledger, which is said at the end of this one. What escapes: a process that has left the group, and closed all
/// files that it does not know, and has an environment without the TASKLEDGER_SLOT of the command, or one
/// that may not be read, or that replaces itself, by a program or a process, again and again. What a command
/// leaves running that has succeeded holds up nobody.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  find . -name '*.rs' | taskledger map --ledger L -- wc -l {}
  find photos -name '*.jpg' -print0 | taskledger map -0 --ledger L -j 4 -- sh -c '
    mkdir -p \"small/${1%/*}\" && convert \"$1\" -resize 50% \"jpg:small/$1.tmp\" &&
    mv \"small/$1.tmp\" \"small/$1\"' sh {}
  taskledger map --ledger L --timeout 10m --retries 3 -- curl -fsSO {} < urls.txt
  taskledger map --ledger L --dry-run -- curl -fsSO {} < urls.txt
  taskledger map --ledger L --status < urls.txt
  taskledger map --ledger L --only failed,crashed -- curl -fsSO {} < urls.txt
  taskledger map --ledger L --rebind -- curl -fsSLO {} < urls.txt
  taskledger map --ledger L -- sh -c '
    gzip -c \"$1\" > \"$1.gz.tmp\" && mv \"$1.gz.tmp\" \"$1.gz\"' sh {} < files

What searches a directory also finds what is in a ledger there (`find . -type f`), and what the commands \
write there: keep both elsewhere. A command that was cut off runs again: let it write to another name and \
rename.

Exit codes: 0 all succeeded, now or before, but for those that --only leaves alone: nobody has asked for \
them; 1 some failed, or were left alone for another reason, or the run has ended early; 2 called wrongly, or the \
ledger or the input cannot be used; 75 the ledger, or what an earlier run has left running, is in use; 126, 127 the \
command cannot be run, is not found; 130 interrupted; 141 nobody reads the output any more. With --dry-run and --status: 0 told, 1 told as far as \
a damaged ledger can be read.

What succeeded is looked at with: taskledger dump L; why something failed with: taskledger show L ID.")]
pub(crate) struct MapArgs {
    /// The directory of the ledger; created if it is not there, with those above it.
    #[arg(long, short, value_name = "DIR")]
    pub(crate) ledger: PathBuf,
    /// How many commands run at a time; by default as many as there are processors.
    ///
    /// Each takes six open files: the soft limit (`ulimit -n`) is raised for as many as that needs, also for
    /// the commands, and where the hard limit is too low fewer run. A command that cannot be started for
    /// want of processes or memory waits until another one has ended.
    #[arg(long, short, value_name = "N", default_value_t = processors(), hide_default_value = true, value_parser = jobs)]
    pub(crate) jobs: NonZero<usize>,
    /// Lines end with a NUL byte instead of a newline: for `find -print0`.
    #[arg(long, short = '0')]
    pub(crate) null: bool,
    /// Ends a command, with its process group, that takes longer (`90s`, `10m`, `1h30m`, `1d`).
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    pub(crate) timeout: Option<Duration>,
    /// How long a command that is told to end (TERM) has until it is killed (KILL).
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) kill_after: Duration,
    /// Runs a command that fails, or takes too long, so many times more.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) retries: u32,
    /// Starts nothing new after the first failure.
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Leaves alone what has failed or crashed before. What was cancelled runs again.
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
    /// Does not wait for a ledger in use, nor for commands that a killed run has left: exit code 75.
    ///
    /// Otherwise a ledger in use is waited for for 1 s, and such commands as long as it takes.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Passes output on as it comes, mixed. There is no progress bar then.
    ///
    /// Commands write to standard output themselves. When one fails, and nobody reads that any more, the
    /// run ends (141).
    #[arg(long)]
    pub(crate) ungroup: bool,
    /// How the closing summary is written to standard error.
    ///
    /// The JSON object has the numbers of `lines` read, of ids that `succeeded`, `failed`, were `cancelled` (by
    /// signals, or for a reason that is not theirs; they run again), `skipped` (they had succeeded before) and `left`
    /// alone by --no-retry or --only, or because they wait in a queue of the ledger, of `duplicates` and `blank`
    /// lines; how many `seconds` it took, with all waiting at the start; and whether it has `ended_early`.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub(crate) summary: Summary,
    /// No progress and no summary in words.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Runs nothing and changes nothing: says of each id whether it would run.
    ///
    /// `run`; `skip`: it has succeeded; `leave`: --no-retry or --only leave it alone, or it waits in a queue of
    /// the ledger; `duplicate`: it has been in this input before; `too long` for an id, of which none is a duplicate; `NUL`: it would fail, as no argument can have that byte.
    #[arg(long, conflicts_with_all = ["status", "summary"])]
    pub(crate) dry_run: bool,
    /// Runs nothing and changes nothing: counts the ids of the input by state.
    ///
    /// `new`, `succeeded`, `failed`, `crashed`: it was running when its run was killed, or `cancelled`: it was
    /// interrupted, or its command could not be started. What else uses the ledger may have it `queued`. Beside
    /// them lines that are a `duplicate`, or `too long`. It needs no command.
    #[arg(long, conflicts_with_all = ["only", "no_retry", "retries", "summary"])]
    pub(crate) status: bool,
    /// The command and its arguments.
    #[arg(last = true, required_unless_present = "status", value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

impl MapArgs {
    /// Whether an id in this state, that is asked for so, runs. What waits in a queue is the queue's.
    pub(crate) fn wants(&self, state: TaskState, id: Option<Only>) -> bool {
        if state == TaskState::Queued {
            false
        } else if self.only.is_empty() {
            !self.no_retry || !id.is_some_and(Only::is_a_failure)
        } else {
            id.is_some_and(|id| self.only.contains(&id))
        }
    }
}

/// What can be asked for with `--only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Only {
    /// It has failed.
    Failed,
    /// It was running when its process died.
    Crashed,
    /// It was interrupted, or its command could not be started.
    Cancelled,
    /// Nothing is known of it.
    New,
}

impl Only {
    /// What asks for an id in this state, which has failed for this reason.
    pub(crate) fn of(state: TaskState, failure: Option<&Failure>) -> Option<Self> {
        match (state, failure) {
            (TaskState::NotFound, _) => Some(Self::New),
            (TaskState::Failed, Some(Failure::Crashed)) => Some(Self::Crashed),
            (TaskState::Failed, Some(Failure::Cancelled(_))) => Some(Self::Cancelled),
            (TaskState::Failed, _) => Some(Self::Failed),
            _ => None,
        }
    }

    /// Its name, as it is asked for.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::Cancelled => "cancelled",
            Self::New => "new",
        }
    }

    /// Whether the command itself has failed.
    pub(crate) const fn is_a_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Crashed)
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

/// Without another word, as long as it takes.
const FOR_EVER: Duration = Duration::MAX;

/// Runs one command unless it has succeeded before.
///
/// Its exit code is passed on, and so is what it prints and reads. If the id is recorded as succeeded,
/// nothing runs: the exit code is 0, and standard error says when it was, also if the ledger can only be read (its
/// disk is full, or mounted so). While another process has the ledger open, nobody can tell (75). The command finds TASKLEDGER_ID
/// and TASKLEDGER_ATTEMPT (1, 2, ...) in its environment.
///
/// Signals are handed on to the command: TERM and HUP always, INT and QUIT unless this is in the foreground of
/// a terminal, whose keys reach the command by themselves.
///
/// What the command leaves running holds up nobody if it has succeeded; otherwise, which is said, and
/// if this is killed, the next command with this ledger waits for it, or fails (75). What escapes: a process, but for the
/// command itself, that has closed all files that it does not know, and has an environment without the
/// TASKLEDGER_SLOT of the command, or one that may not be read, or that replaces itself, by a program or a process,
/// again and again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  taskledger exec --ledger /var/lib/backup/ledger \"backup $(date +%F)\" -- /usr/local/bin/backup
  taskledger exec --ledger L migrate-0042 --wait=5m -- psql -f 0042.sql
  taskledger exec --ledger L \"deploy $GIT_COMMIT\" -- ./deploy.sh

Exit codes: that of the command (128 + n if signal n ended it); 0 as well if it had succeeded before; \
2 called wrongly, or the ledger cannot be used; 74 it succeeded, but that could not be recorded; 75 the \
ledger, or a command that a killed run has left running, is in use, or the id waits in a queue of the ledger; \
126, 127 the command cannot be run, is not found, which is recorded as a failure.")]
pub(crate) struct ExecArgs {
    /// The directory of the ledger; created if it is not there, with those above it.
    #[arg(long, short, value_name = "DIR")]
    pub(crate) ledger: PathBuf,
    /// The id: what is to be done once.
    #[arg(allow_hyphen_values = true, value_parser = OsStringValueParser::new().try_map(id))]
    pub(crate) id: OsString,
    /// Waits for a ledger that is in use: as long as it takes, or so long. It says so. Within a command of the same
    /// ledger it waits for itself.
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

impl ExecArgs {
    /// Whether the id looks like one: with `--wait 5s`, it is the id.
    pub(crate) fn may_mean_a_time(&self) -> bool {
        let id =
            self.id.to_str().filter(|id| id.ends_with(|last: char| last.is_ascii_alphabetic()));
        self.wait == Some(FOR_EVER) && id.is_some_and(|id| duration(id).is_ok())
    }
}

fn processors() -> NonZero<usize> {
    std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN)
}

fn jobs(text: &str) -> Result<NonZero<usize>, &'static str> {
    let number = text.parse::<usize>().map_err(|_| "not a number of commands")?;
    NonZero::new(number).ok_or("at least one command runs at a time")
}

/// A span of time; a bare number is one of seconds, a day has 24 hours.
fn duration(text: &str) -> Result<Duration, String> {
    // What jiff says is about dates.
    let wrong = |_: jiff::Error| "no span of time such as 90s, 10m, 1h30m or 2w, or too long a one; the longest unit is a week";
    let seconds = text.parse::<f64>().ok().map(|seconds| format!("{seconds}s"));
    let span = seconds.as_deref().unwrap_or(text).parse::<jiff::Span>().map_err(wrong)?;
    let span = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(wrong)?;
    Duration::try_from(span).map_err(|_| "a span of time is not negative".to_owned())
}

fn timeout(text: &str) -> Result<Duration, String> {
    let span = duration(text)?;
    if span.is_zero() { Err("longer than nothing".to_owned()) } else { Ok(span) }
}

fn id(id: OsString) -> Result<OsString, &'static str> {
    if id.is_empty() { Err("an id is not empty") } else { Ok(id) }
}

fn wait(text: &str) -> Result<Duration, String> {
    if text == "for ever" { Ok(FOR_EVER) } else { duration(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_are_read_and_a_number_is_seconds() {
        let of = |text| timeout(text).unwrap().as_millis();
        assert_eq!((of("90"), of("0.5"), of("1h30m")), (90_000, 500, 5_400_000));
        assert_eq!((of("1d"), of("1w")), (86_400_000, 604_800_000));
        for wrong in ["", "soon", "-3s", "1 month", "inf"] {
            duration(wrong).unwrap_err();
        }
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        timeout("0").unwrap_err();
    }
}
