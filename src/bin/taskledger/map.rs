//! `taskledger map`: a command for each line of the input, each to its success, once.
//!
//! ```text
//! input thread --batches--> the loop: seen before? succeeded? --a slot--> a job: launch, run, pass on
//!                              ^                                              |
//!                           signals                                     counts, exit code
//! ```

mod input;
mod job;
mod preview;
mod progress;
mod relay;
mod room;
mod template;

use crate::args::{MapArgs, Summary};
use crate::beside::Beside;
use crate::signals::Signals;
use crate::terminal::{Done, Failure, chain, complain};
use input::Line;
use progress::{Counts, Progress, one_more, read};
use room::Room;
use rustix::process::Signal as Kind;
use serde_json::json;
use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{self, Seek};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use taskledger::{ByteId, Ledger, OpenError, TaskState};
use template::{Template, in_words};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

/// The name under which a ledger remembers its command.
const COMMAND: &str = "map.command";

/// Exit codes, beside 0 and 1.
const USAGE: u8 = 2;
const IN_USE: u8 = 75;
const INTERRUPTED: u8 = 130;
const NOBODY_READS: u8 = 141;

type Tasks = Ledger<ByteId, ()>;

/// What is still to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Course {
    #[default]
    On,
    /// Nothing new is started.
    NothingNew(Stop),
    /// What runs is ended as well.
    End,
}

/// Why nothing new is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    Failed,
    Interrupted,
    NobodyReads,
    /// The ledger has stopped recording, or the input cannot be read.
    Broken,
}

/// How the run of one id went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Succeeded,
    Failed,
    Cancelled,
    /// It was not for us to run.
    Skipped,
    /// The ledger records no more.
    Broken,
    /// Its command could not be started, because of what others take by now.
    NoRoom,
}

pub(crate) fn run(args: &MapArgs) -> Done {
    let template = Template::new(&args.command);
    if args.dry_run || args.status {
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
    let done = runtime.block_on(map(args, template, jobs));
    // The thread that reads the input may wait for it for ever.
    runtime.shutdown_background();
    done
}

/// What all jobs share.
struct Shared {
    ledger: Tasks,
    template: Template,
    counts: Counts,
    course: watch::Sender<Course>,
    /// Whoever prints.
    printing: Mutex<()>,
    bar: indicatif::ProgressBar,
    timeout: Option<Duration>,
    grace: Duration,
    retries: u32,
    ungroup: bool,
    fail_fast: bool,
    room: Room,
}

async fn map(args: &MapArgs, template: Template, jobs: usize) -> Done {
    let ledger = match Tasks::builder().open(&args.ledger).await {
        Ok(ledger) => ledger,
        Err(error @ OpenError::Locked { .. }) => {
            complain(&chain(&error));
            return Ok(ExitCode::from(IN_USE));
        }
        Err(error) => return Err(error.into()),
    };
    let prepared = prepare(args, &ledger, &template).await;
    let done = match prepared {
        Ok(beside) => {
            let done = run_all(args, ledger.clone(), template, jobs).await;
            drop(beside);
            done
        }
        Err(done) => done,
    };
    match ledger.close().await {
        Ok(()) => done,
        Err(error) => {
            complain(&chain(&error));
            done.map(|_| ExitCode::FAILURE)
        }
    }
}

/// Whether the command is the one that the ledger was begun with; says so if it is not.
fn fits(args: &MapArgs, template: &Template, remembered: Option<&[u8]>) -> bool {
    let other = remembered.filter(|first| **first != *template.to_bytes() && !args.any_command);
    if let Some(first) = other {
        complain(&format!(
            "this ledger is for another command: {}; use another ledger, or --any-command if its ids \
             mean the same",
            in_words(first)
        ));
    }
    other.is_none()
}

/// Everything before the first command: that of the ledger, and those of an earlier run.
async fn prepare(args: &MapArgs, ledger: &Tasks, template: &Template) -> Result<Beside, Done> {
    let remembered = ledger.metadata().remove(COMMAND);
    if !fits(args, template, remembered.as_deref()) {
        return Err(Ok(ExitCode::from(USAGE)));
    }
    if remembered.is_none() {
        let set = ledger.set_metadata(COMMAND, Some(template.to_bytes())).await;
        set.map_err(|error| Err(Failure::Look(chain(&error))))?;
    }
    let wait = if args.no_wait { Duration::ZERO } else { Duration::MAX };
    match Beside::begin(&args.ledger, wait) {
        Ok(Ok(beside)) => Ok(beside),
        Ok(Err(told)) => {
            complain(&told);
            Err(Ok(ExitCode::from(IN_USE)))
        }
        Err(failure) => Err(Err(failure)),
    }
}

async fn run_all(args: &MapArgs, ledger: Tasks, template: Template, jobs: usize) -> Done {
    let mut progress = Progress::new(args.quiet);
    let (course, mut changed) = watch::channel(Course::On);
    let shared = Arc::new(Shared {
        ledger,
        template,
        counts: Counts::default(),
        course,
        printing: Mutex::new(()),
        bar: progress.bar(),
        timeout: args.timeout,
        grace: args.kill_after,
        retries: args.retries,
        ungroup: args.ungroup,
        fail_fast: args.fail_fast,
        room: Room::default(),
    });
    let mut signals = Signals::listen(&[Kind::INT, Kind::TERM, Kind::HUP])
        .map_err(|error| Failure::Look(error.to_string()))?;
    let (input, size) = open_input()?;
    shared.counts.of_bytes.store(size, Ordering::Relaxed);
    let end = if args.null { 0 } else { b'\n' };
    let mut jobs = Jobs {
        args,
        shared: Arc::clone(&shared),
        slots: Arc::new(Semaphore::new(jobs)),
        running: JoinSet::new(),
        seen: Seen::default(),
    };
    let mut batches = input::read(input, end);
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let fed = {
        let mut feeding = std::pin::pin!(jobs.feed(&mut batches, &mut changed));
        loop {
            tokio::select! {
                fed = &mut feeding => break fed,
                _ = signals.next() => shared.interrupted(),
                _ = tick.tick() => progress.show(&shared.counts),
            }
        }
    };
    if let Err(error) = fed {
        complain(&format!("cannot read the input: {error}"));
        shared.stop(Stop::Broken);
    }
    while !jobs.running.is_empty() {
        tokio::select! {
            _ = jobs.running.join_next() => {}
            _ = signals.next() => shared.interrupted(),
            _ = tick.tick() => {
                progress.show(&shared.counts);
                shared.end_what_runs();
            }
        }
    }
    progress.end();
    Ok(shared.summary(args, progress.took()))
}

/// The input, and how many bytes it has if it is a file.
fn open_input() -> Result<(File, u64), Failure> {
    let failed = |error: io::Error| Failure::Look(format!("cannot read the input: {error}"));
    let input = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    let mut input = File::from(input);
    let found = input.metadata().map_err(failed)?;
    let at = if found.is_file() { input.stream_position().unwrap_or_default() } else { 0 };
    let size = if found.is_file() { found.len().saturating_sub(at) } else { 0 };
    Ok((input, size))
}

/// Which ids have been in the input: a keyed digest of 128 bits of each.
#[derive(Debug, Default)]
struct Seen {
    keys: [RandomState; 2],
    ids: HashSet<(u64, u64)>,
}

impl Seen {
    /// Whether it is there for the first time.
    fn first(&mut self, id: &[u8]) -> bool {
        let [one, other] = &self.keys;
        self.ids.insert((one.hash_one(id), other.hash_one(id)))
    }
}

struct Jobs<'a> {
    args: &'a MapArgs,
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
    running: JoinSet<()>,
    seen: Seen,
}

impl Jobs<'_> {
    /// Takes the ids in their order, until there are none or nothing new is to be started.
    async fn feed(
        &mut self,
        batches: &mut mpsc::Receiver<io::Result<input::Batch>>,
        course: &mut watch::Receiver<Course>,
    ) -> io::Result<()> {
        loop {
            let batch = tokio::select! {
                batch = batches.recv() => batch,
                _ = course.wait_for(|course| *course != Course::On) => return Ok(()),
            };
            let Some(batch) = batch.transpose()? else { return Ok(()) };
            for line in batch.lines {
                if self.line(line, course).await.is_none() {
                    return Ok(());
                }
            }
            self.shared.counts.bytes.fetch_add(batch.bytes, Ordering::Relaxed);
            // What has ended takes no memory.
            while self.running.try_join_next().is_some() {}
            tokio::task::yield_now().await;
        }
    }

    /// `None` when nothing new is to be started.
    async fn line(&mut self, line: Line, course: &mut watch::Receiver<Course>) -> Option<()> {
        let counts = &self.shared.counts;
        one_more(&counts.lines);
        let id = match line {
            Line::Whole(id) => id,
            Line::TooLong(beginning) => {
                let beginning = ByteId::from(beginning.get(..40).unwrap_or_default().to_vec());
                complain(&format!("{beginning}...: this line is longer than an id can be"));
                self.shared.ended(End::Failed);
                return Some(());
            }
        };
        if id.is_empty() {
            one_more(&counts.blank);
            return Some(());
        }
        if !self.seen.first(&id) {
            one_more(&counts.duplicates);
            return Some(());
        }
        let state = self.shared.ledger.query_task_state_quick(id.as_slice());
        if state == TaskState::Succeeded {
            one_more(&counts.skipped);
            return Some(());
        }
        let id = ByteId::from(id);
        if state == TaskState::Failed && self.args.no_retry {
            one_more(&counts.left);
            return Some(());
        }
        if !self.args.only.is_empty() && !self.is_selected(&id, state).await {
            one_more(&counts.left);
            return Some(());
        }
        let slot = tokio::select! {
            slot = Arc::clone(&self.slots).acquire_owned() => slot.ok()?,
            _ = course.wait_for(|course| *course != Course::On) => return None,
        };
        // Both may have come at once.
        if *course.borrow() != Course::On {
            return None;
        }
        let shared = Arc::clone(&self.shared);
        self.running.spawn(async move {
            one_more(&shared.counts.running);
            let end = shared.run(id).await;
            shared.counts.running.fetch_sub(1, Ordering::Relaxed);
            shared.ended(end);
            drop(slot);
        });
        Some(())
    }

    async fn is_selected(&self, id: &ByteId, state: TaskState) -> bool {
        let mut crashed = false;
        if state == TaskState::Failed {
            let record = self.shared.ledger.record(id).await.ok().flatten();
            let failure = record.and_then(|details| details.failure);
            crashed = matches!(failure, Some(taskledger::Failure::Crashed));
        }
        self.args.only.iter().any(|only| only.wants(state, crashed))
    }
}

impl Shared {
    fn stop(&self, why: Stop) {
        self.course.send_if_modified(|course| {
            let on = *course == Course::On;
            if on {
                *course = Course::NothingNew(why);
            }
            on
        });
    }

    /// Once: nothing new. Twice: what runs is ended.
    fn interrupted(&self) {
        self.course.send_modify(|course| match course {
            Course::On => {
                let running = read(&self.counts.running);
                self.bar.suspend(|| {
                    complain(&format!(
                        "nothing new is started; {running} commands are waited for; again to end them"
                    ));
                });
                *course = Course::NothingNew(Stop::Interrupted);
            }
            Course::NothingNew(_) | Course::End => *course = Course::End,
        });
        self.end_what_runs();
    }

    /// Also what has begun since it was said.
    fn end_what_runs(&self) {
        if *self.course.borrow() == Course::End {
            for id in self.ledger.running_tasks().iter().flatten() {
                drop(self.ledger.cancel(&id, "interrupted"));
            }
        }
    }

    fn ended(&self, end: End) {
        match end {
            End::Succeeded => one_more(&self.counts.succeeded),
            End::Failed => {
                one_more(&self.counts.failed);
                if self.fail_fast {
                    self.stop(Stop::Failed);
                }
            }
            End::Cancelled => one_more(&self.counts.cancelled),
            End::Skipped => one_more(&self.counts.skipped),
            End::Broken | End::NoRoom => {
                one_more(&self.counts.failed);
                self.stop(Stop::Broken);
            }
        }
    }

    fn summary(&self, args: &MapArgs, took: Duration) -> ExitCode {
        let counts = &self.counts;
        let course = *self.course.borrow();
        let failed = read(&counts.failed);
        if args.summary == Summary::Json {
            let value = json!({
                "lines": read(&counts.lines),
                "succeeded": read(&counts.succeeded),
                "failed": failed,
                "cancelled": read(&counts.cancelled),
                "skipped": read(&counts.skipped),
                "left": read(&counts.left),
                "duplicates": read(&counts.duplicates),
                "blank": read(&counts.blank),
                "seconds": took.as_secs_f64(),
                "ended_early": course != Course::On,
            });
            eprintln!("{}", crate::json::line(&value));
        } else if !args.quiet {
            let mut text = format!(
                "{} succeeded, {failed} failed, {} skipped",
                read(&counts.succeeded),
                read(&counts.skipped)
            );
            let more = [
                (&counts.cancelled, "ended"),
                (&counts.left, "left alone"),
                (&counts.duplicates, "duplicates"),
            ];
            for (count, what) in more.iter().filter(|(count, _)| read(count) > 0) {
                text.push_str(&format!(", {} {what}", read(count)));
            }
            complain(&format!("{text}, in {:.1} s", took.as_secs_f64()));
        }
        match course {
            Course::End | Course::NothingNew(Stop::Interrupted) => ExitCode::from(INTERRUPTED),
            Course::NothingNew(Stop::NobodyReads) => ExitCode::from(NOBODY_READS),
            Course::NothingNew(Stop::Failed | Stop::Broken) => ExitCode::FAILURE,
            Course::On if failed + read(&counts.left) > 0 && args.only.is_empty() => {
                ExitCode::FAILURE
            }
            Course::On if failed > 0 => ExitCode::FAILURE,
            Course::On => ExitCode::SUCCESS,
        }
    }
}
