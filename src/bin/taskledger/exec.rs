//! `taskledger exec`: one command, unless it has succeeded before.

use crate::args::ExecArgs;
use crate::command::{NOT_RUN, Why, code_of, command, failure_of, not_started};
use crate::signals::Signals;
use crate::slots::{Slot, Slots, Started, at_work, tell};
use crate::terminal::{Done, Failure, Told, chain, ends};
use rustix::process::{Pid, Signal as Kind, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use taskledger::dump::{History, Inspection};
use taskledger::{
    Attempt, AttemptError, ByteId, EncodedId, Ledger, OpenError, TaskState, Timestamp,
};
use tokio::process::Child;

const UNRECORDED: u8 = 74;
const IN_USE: u8 = 75;

type Tasks = Ledger<ByteId, ()>;

pub(crate) fn run(args: &ExecArgs) -> Done {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Look(format!("no runtime: {error}")))?;
    let code = runtime.block_on(async { ends(exec(args).await).await });
    // What nobody reads may still be being printed.
    runtime.shutdown_background();
    Ok(code)
}

async fn exec(args: &ExecArgs) -> Result<Told, Failure> {
    let id = ByteId::from(args.id.clone().into_vec());
    if id.as_bytes().starts_with(b"--") {
        tell(format!("{id} is taken as the id: there is no such option"));
    } else if args.may_mean_a_time() {
        tell(format!("{id} is taken as the id: to wait so long, write --wait={id}"));
    }
    let since = Instant::now();
    let wait = args.wait.unwrap_or(Duration::ZERO);
    let mut opened = Tasks::builder().lock_wait(Duration::ZERO).open(&args.ledger).await;
    if let Err(error @ OpenError::Locked { .. }) = &opened {
        if !wait.is_zero() {
            tell(format!("{id}: waiting: {}", chain(error)));
            opened = Tasks::builder().lock_wait(wait).open(&args.ledger).await;
        }
    }
    let ledger = match opened {
        Ok(ledger) => ledger,
        Err(error @ OpenError::Locked { .. }) => {
            let at_work = at_work(&args.ledger, ", at work on ");
            let why = format!("{id}: {}{at_work}{}", chain(&error), what_to_do(args));
            return Ok((ExitCode::from(IN_USE), vec![why]));
        }
        // Nothing is to be recorded of what has succeeded.
        Err(error) => {
            let Some(when) = when_it_succeeded(&args.ledger, &id) else { return Err(error.into()) };
            let (code, mut words) = before(&id, when);
            words.insert(0, format!("{}: nothing can be run", chain(&error)));
            return Ok((code, words));
        }
    };
    let ended = guarded(args, &ledger, &id, wait.saturating_sub(since.elapsed())).await;
    let closed = ledger.close().await;
    let (code, mut words) = ended.unwrap_or_else(Failure::told);
    words.extend(closed.err().map(|error| chain(&error)));
    Ok((code, words))
}

async fn guarded(
    args: &ExecArgs,
    ledger: &Tasks,
    id: &ByteId,
    wait: Duration,
) -> Result<Told, Failure> {
    if ledger.query_task_state_quick(id) == TaskState::Succeeded {
        return Ok(before(id, recorded(ledger, id).await));
    }
    let slots = match Slots::begin(ledger, &args.ledger, wait).await? {
        Ok(slots) => Arc::new(slots),
        Err(told) => {
            let told = format!("{id}: {told}{}", what_to_do(args));
            return Ok((ExitCode::from(IN_USE), vec![told]));
        }
    };
    let ended = Arc::new(Mutex::new(Ended::default()));
    let command = args.command.clone();
    let work = work(ledger.clone(), id.clone(), command, Arc::clone(&slots), Arc::clone(&ended));
    let told = ledger.launch_block(id.clone(), work).await;
    let Ended { code, slot } =
        std::mem::take(&mut *ended.lock().unwrap_or_else(PoisonError::into_inner));
    let left = if told.is_ok() {
        // What it has left running is as it should be.
        slot.inspect(Slot::clear);
        None
    } else if slot.is_some() {
        slots.left(ledger).await
    } else {
        None
    };
    let mut words = Vec::new();
    let code = match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(AttemptError::Refused { state: TaskState::Succeeded, .. }) => {
            return Ok(before(id, recorded(ledger, id).await));
        }
        Err(AttemptError::Failed(Why(why, _))) => {
            // What has said by itself why it failed needs no other word.
            if code.is_none_or(|code| code >= NOT_RUN) {
                words.push(format!("{id}: {why}"));
            }
            ExitCode::from(code.unwrap_or(NOT_RUN))
        }
        Err(AttemptError::Rejected { reason, .. }) => return Err(Failure::Look(chain(&reason))),
        Err(AttemptError::Refused { state, .. }) => {
            words.push(format!(
                "{id} is {state}: it is left to the queue of this ledger, and nothing is run"
            ));
            ExitCode::from(IN_USE)
        }
        Err(other) => {
            words.push(format!("{id}: {other}"));
            ExitCode::from(code.filter(|code| *code > 0).unwrap_or(UNRECORDED))
        }
    };
    words.extend(left.map(|left| format!("{id}: {left}")));
    Ok((code, words))
}

const fn what_to_do(args: &ExecArgs) -> &'static str {
    if args.wait.is_some() { "" } else { "; --wait waits for that" }
}

/// When it ended, as far as that is known.
async fn recorded(ledger: &Tasks, id: &ByteId) -> Option<Timestamp> {
    let record = ledger.record(id).await.ok().flatten();
    record.and_then(|details| details.ended_at)
}

/// When an id has succeeded, from a sound ledger that cannot be opened and is only looked into; `None` if it
/// has not. Of one that was pruned it is not known.
fn when_it_succeeded(ledger: &Path, id: &ByteId) -> Option<Option<Timestamp>> {
    let inspection = Inspection::open(ledger).ok().filter(|found| found.damage().is_empty())?;
    inspection.check_id_type::<ByteId>().ok()?;
    let id = EncodedId::of(id).ok()?;
    if let Some(History { details, .. }) = inspection.task(&id).ok()? {
        return (details.state() == TaskState::Succeeded).then_some(details.ended_at);
    }
    inspection.is_tombstone(&id).ok()?.then_some(None)
}

fn before(id: &ByteId, when: Option<Timestamp>) -> Told {
    let when = when.map_or_else(|| "before".to_owned(), |at| at.to_string());
    (ExitCode::SUCCESS, vec![format!("{id} has succeeded: {when}; nothing is run")])
}

/// What an attempt leaves beside its result.
#[derive(Debug, Default)]
struct Ended {
    code: Option<u8>,
    slot: Option<Slot>,
}

/// The attempt: the command with our own input and output.
async fn work(
    ledger: Tasks,
    id: ByteId,
    words: Vec<OsString>,
    slots: Arc<Slots>,
    ended: Arc<Mutex<Ended>>,
) -> Result<(), Why> {
    let record = ledger.record(&id).await.map_err(|error| chain(&error))?;
    let attempt = record.map_or(Attempt::NONE, |details| details.attempt());
    let ended = || ended.lock().unwrap_or_else(PoisonError::into_inner);
    let command = |words: &[OsString]| command(words, &id, attempt);
    let program = words.first().cloned().unwrap_or_default();
    // Before there is anybody whom a signal would leave alone.
    let kinds = [Kind::INT, Kind::QUIT, Kind::TERM, Kind::HUP];
    let signals = Signals::listen(&kinds).map_err(|error| error.to_string())?;
    let taken = slots.take(&id).map_err(|error| format!("it cannot be noted: {error}"))?;
    let (child, _, slot) = taken.start(&words, command, Started::Process).map_err(|error| {
        ended().code = Some(code_of(&error));
        not_started(&program, &error)
    })?;
    ended().slot = Some(slot);
    let status = until_it_ends(signals, child).await.map_err(|error| error.to_string())?;
    let code = match status.signal() {
        Some(signal) => 128 + signal,
        None => status.code().unwrap_or(1),
    };
    ended().code = Some(u8::try_from(code).unwrap_or(u8::MAX));
    failure_of(status).map_or(Ok(()), |why| Err(why.into()))
}

/// A signal that only we have got is handed on. Those of the keyboard reach the command by themselves,
/// if we are in the foreground of a terminal.
async fn until_it_ends(mut signals: Signals, mut child: Child) -> io::Result<ExitStatus> {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    loop {
        let got = tokio::select! {
            status = child.wait() => return status,
            got = signals.next() => got,
        };
        let typed = (got == Kind::INT || got == Kind::QUIT) && is_in_foreground();
        if let Some(pid) = pid.filter(|_| !typed) {
            let _gone = kill_process(pid, got);
        }
    }
}

fn is_in_foreground() -> bool {
    let terminal = File::open("/dev/tty");
    terminal.is_ok_and(|terminal| tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp()))
}
