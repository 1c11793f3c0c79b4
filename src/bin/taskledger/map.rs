//! `taskledger map`: a command for each line of the input, each to its success, once.
//!
//! ```text
//! input thread --batches--> the loop: seen before? succeeded? --a slot--> a job: launch, run, pass on
//!                              ^                                              |
//!                           signals                                     counts, exit code
//! ```

mod course;
mod feed;
mod input;
mod job;
mod later;
mod preview;
mod printer;
mod progress;
mod relay;
mod room;
mod summary;
mod template;

use crate::args::{MapArgs, Summary};
use crate::command::{Patience, code_of, find, not_started, stop_here, suspend};
use crate::signals::Signals;
use crate::slots::{Slots, at_work};
use crate::terminal::{
    Done, Failure, Input, Told, chain, complain, complaint, ends, print_in_time,
};
use course::{Course, Steering, Stop};
use feed::Jobs;
use later::Later;
use printer::Printer;
use progress::{Counts, Progress, one_more, read};
use room::Room;
use rustix::process::Signal as Kind;
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use taskledger::{ByteId, Ledger, OpenError};
use template::{Template, in_words};

/// The name under which a ledger remembers its command.
const COMMAND: &str = "map.command";

/// Exit codes, beside 0 and 1.
const USAGE: u8 = 2;
const IN_USE: u8 = 75;
const INTERRUPTED: u8 = 130;
const NOBODY_READS: u8 = 141;

type Tasks = Ledger<ByteId, ()>;

/// How the run of one id went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Succeeded,
    Failed,
    Cancelled,
    /// It was not for us to run.
    Skipped,
    /// The ledger has not taken it.
    NotBegun,
    /// The ledger records no more.
    Broken,
    /// Its command could not be started, because of what others take by now.
    NoRoom,
}

pub(crate) fn run(args: &MapArgs) -> Done {
    let template = Template::new(&args.command);
    if args.status {
        return preview::run(args, &template);
    }
    if let Some(program) = template.program() {
        if let Err(error) = find(program) {
            complain(&not_started(program, &error));
            return Ok(ExitCode::from(code_of(&error)));
        }
    }
    if args.dry_run {
        return preview::run(args, &template);
    }
    let (jobs, told) = room::at_a_time(args.jobs)?;
    if let Some(told) = told {
        complain(&told);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Look(format!("no runtime: {error}")))?;
    let code = runtime.block_on(async { ends(map(args, template, jobs).await).await });
    // The thread that reads the input may wait for it for ever.
    runtime.shutdown_background();
    Ok(code)
}

/// What all jobs share.
struct Shared {
    ledger: Tasks,
    template: Template,
    counts: Arc<Counts>,
    steering: Steering,
    printer: Printer,
    timeout: Option<Duration>,
    patience: Patience,
    retries: u32,
    ungroup: bool,
    fail_fast: bool,
    room: Room,
    slots: Slots,
    later: Later,
}

async fn map(args: &MapArgs, template: Template, jobs: usize) -> Result<Told, Failure> {
    let since = Instant::now();
    let kinds = [Kind::INT, Kind::TERM, Kind::HUP, Kind::QUIT, Kind::TSTP];
    let mut signals = Signals::listen(&kinds).map_err(|error| Failure::Look(error.to_string()))?;
    let mut builder = Tasks::builder();
    if args.no_wait {
        builder = builder.lock_wait(Duration::ZERO);
    }
    let opened = tokio::select! {
        opened = builder.open(&args.ledger) => opened,
        () = interrupted(&mut signals) => return Ok((nothing_started(args, since).await, Vec::new())),
    };
    let ledger = match opened {
        Ok(ledger) => ledger,
        Err(error @ OpenError::Locked { .. }) => {
            return Ok((ExitCode::from(IN_USE), vec![in_use(&error, &args.ledger)]));
        }
        Err(error) => return Err(error.into()),
    };
    let prepared = tokio::select! {
        prepared = prepare(args, &ledger, &template) => Some(prepared),
        () = interrupted(&mut signals) => None,
    };
    let told = match prepared {
        Some(Ok(slots)) => {
            let run = Run { args, jobs, since, signals, slots };
            run.all(ledger.clone(), template).await.map(|code| (code, Vec::new()))
        }
        Some(Err(told)) => told,
        None => Ok((nothing_started(args, since).await, Vec::new())),
    };
    match ledger.close().await {
        Ok(()) => told,
        Err(error) => {
            let ended = told.map(|(_, words)| (ExitCode::FAILURE, words));
            let (code, mut words) = ended.unwrap_or_else(Failure::told);
            words.push(chain(&error));
            Ok((code, words))
        }
    }
}

/// That it is, by whom and for what, and what to do.
fn in_use(error: &OpenError, ledger: &Path) -> String {
    let at_work = at_work(ledger, ", at work on ");
    format!("{}{at_work}; wait until that has ended, or end it", chain(error))
}

/// Returns when one of the signals comes that end a run which has not begun. It is heard then: whatever else
/// is waited for must not come before it any more.
async fn interrupted(signals: &mut Signals) {
    while signals.next().await == Kind::TSTP {
        stop_here();
    }
}

async fn nothing_started(args: &MapArgs, since: Instant) -> ExitCode {
    let told = match args.summary {
        Summary::Text => complaint("interrupted; nothing has been started"),
        Summary::Json => summary::json(&Counts::default(), true, since.elapsed()),
    };
    print_in_time(told).await;
    ExitCode::from(INTERRUPTED)
}

/// Why not, if the command has to be the ledger's, and is not.
fn misfit(args: &MapArgs, template: &Template, remembered: Option<&[u8]>) -> Option<String> {
    let any = args.any_command || args.rebind;
    let other = remembered.filter(|first| **first != *template.to_bytes() && !any)?;
    Some(format!(
        "this ledger is for another command: {}; use another ledger, --rebind to make yours its \
         command from now on, or --any-command for this run only",
        in_words(other)
    ))
}

/// Everything before the first command: that of the ledger, and those of an earlier run.
async fn prepare(
    args: &MapArgs,
    ledger: &Tasks,
    template: &Template,
) -> Result<Slots, Result<Told, Failure>> {
    let remembered = ledger.metadata().remove(COMMAND);
    if let Some(why) = misfit(args, template, remembered.as_deref()) {
        return Err(Ok((ExitCode::from(USAGE), vec![why])));
    }
    let wait = if args.no_wait { Duration::ZERO } else { Duration::MAX };
    let slots = match Slots::begin(ledger, &args.ledger, wait).await {
        Ok(Ok(slots)) => slots,
        Ok(Err(told)) => {
            return Err(Ok((ExitCode::from(IN_USE), vec![told])));
        }
        Err(failure) => return Err(Err(failure)),
    };
    // Whoever is turned away has changed nothing.
    if args.rebind || (remembered.is_none() && !args.any_command) {
        let set = ledger.set_metadata(COMMAND, Some(template.to_bytes())).await;
        set.map_err(|error| Err(Failure::Look(chain(&error))))?;
    }
    Ok(slots)
}

/// What a run is made of.
struct Run<'a> {
    args: &'a MapArgs,
    jobs: usize,
    since: Instant,
    signals: Signals,
    slots: Slots,
}

impl Run<'_> {
    async fn all(self, ledger: Tasks, template: Template) -> Done {
        let Self { args, jobs, since, mut signals, slots } = self;
        let (steering, counts) = (Steering::new(args.kill_after), Arc::new(Counts::default()));
        let patience = Patience { grace: args.kill_after, over: steering.given_up().clone() };
        let progress = Progress::new(args.quiet, !args.ungroup);
        let printer = Printer::start(progress, Arc::clone(&counts), patience.over.clone())
            .map_err(|error| Failure::Look(format!("no thread: {error}")))?;
        let shared = Arc::new(Shared {
            ledger,
            template,
            counts,
            steering,
            printer,
            timeout: args.timeout,
            patience,
            retries: args.retries,
            ungroup: args.ungroup,
            fail_fast: args.fail_fast,
            room: Room::default(),
            slots,
            later: Later::default(),
        });
        let (input, size) = open_input()?;
        shared.counts.all.store(size, Ordering::Relaxed);
        let end = if args.null { 0 } else { b'\n' };
        let mut jobs = Jobs::new(args, Arc::clone(&shared), jobs)
            .map_err(|error| Failure::Look(chain(&error)))?;
        let counts = Arc::clone(&shared.counts);
        let ended = move |bytes| counts.all.store(bytes, Ordering::Relaxed);
        let mut batches = input::read(input, end, ended);
        let all = async {
            if let Err(error) = jobs.feed(&mut batches).await {
                shared.printer.note(format!("cannot read the input: {error}"));
                shared.steering.stop(Stop::Input);
            }
            jobs.end().await;
            let left = shared.later.end().await;
            if left > 0 {
                shared.printer.note(format!(
                    "{left} outputs are still open, of what commands have left running; nobody reads them any more"
                ));
            }
            tokio::select! {
                left = shared.slots.left(&shared.ledger) => {
                    if let Some(left) = left {
                        shared.printer.urge(&left);
                    }
                }
                () = shared.steering.long_given_up() => {}
            }
            let course = shared.steering.now();
            let last = summary::text(args, &shared.counts, course, since.elapsed());
            shared.printer.end(last).await;
        };
        let mut all = std::pin::pin!(all);
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        loop {
            tokio::select! {
                () = &mut all => break,
                got = signals.next() => match got {
                    Kind::TSTP => suspend(),
                    // Whoever closes a terminal says so more than once, and systemd says it after TERM.
                    Kind::HUP if shared.steering.is_interrupted() => {}
                    Kind::QUIT => shared.interrupted(true),
                    _ => shared.interrupted(false),
                },
                // Also what has begun since it was said.
                _ = tick.tick(), if shared.steering.now() == Course::End => shared.end_what_runs(),
            }
        }
        Ok(summary::exit_code(args, &shared.counts, shared.steering.now()))
    }
}

/// The input, and how many bytes it has if it is a file.
fn open_input() -> Result<(Input, u64), Failure> {
    let failed = |error: io::Error| Failure::Look(format!("cannot read the input: {error}"));
    let input = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let mut input = File::from(input);
    let found = input.metadata().map_err(failed)?;
    let at = if found.is_file() { input.stream_position().unwrap_or_default() } else { 0 };
    let size = if found.is_file() { found.len().saturating_sub(at) } else { 0 };
    Ok((Input(input), size))
}

impl Shared {
    /// Once: nothing new. Twice, or `now`: what runs is ended.
    fn interrupted(&self, now: bool) {
        match self.steering.interrupted(now) {
            Course::End => self.end_what_runs(),
            Course::On | Course::NothingNew(_) => {
                let (running, what) = match read(&self.counts.running) {
                    1 => (1, "command is"),
                    running => (running, "commands are"),
                };
                self.printer.urge(&format!(
                    "nothing new is started; {running} {what} waited for; again to end what runs"
                ));
            }
        }
    }

    fn end_what_runs(&self) {
        for id in self.ledger.running_tasks().iter().flatten() {
            drop(self.ledger.cancel(&id, "interrupted"));
        }
    }

    fn ended(&self, end: End) {
        match end {
            End::Succeeded => one_more(&self.counts.succeeded),
            End::Failed => {
                one_more(&self.counts.failed);
                if self.fail_fast {
                    self.steering.stop(Stop::Failed);
                }
            }
            End::Cancelled => one_more(&self.counts.cancelled),
            End::Skipped => one_more(&self.counts.skipped),
            End::NotBegun => self.steering.stop(Stop::Broken),
            End::Broken | End::NoRoom => {
                one_more(&self.counts.failed);
                self.steering.stop(Stop::Broken);
            }
        }
    }
}
