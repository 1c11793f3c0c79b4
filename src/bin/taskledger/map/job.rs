//! One id: its command, started, followed, and what it printed passed on.

use super::course::Stop;
use super::progress::{one_more, read};
use super::relay::{self, Relay, TAIL};
use super::room::{self, TRIES};
use super::{End, Shared};
use crate::command::{Alive, Group, Kin, Why, code_of, command, failure_of, not_started, said};
use crate::terminal::{chain, nobody_reads, nobody_took};
use rustix::io::Errno;
use rustix::process::Signal as Kind;
use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use taskledger::{Attempt, AttemptError, ByteId, Rejection, TaskState};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

/// How often it is looked at what a command does.
const OFTEN: Duration = Duration::from_millis(500);

/// When, and how often, it is said that processes of an earlier attempt are waited for.
const SOON: Duration = Duration::from_millis(500);
const SELDOM: Duration = Duration::from_secs(10);

/// Bytes of what it has said last that are noted of a command that was ended.
const NOTE: usize = 1000;

const LATE: &str = "timed out";

const NOBODY: &str = "nobody reads its output";

/// What has become of the command of an attempt.
enum Begun {
    Running(Arc<Mutex<Relay>>, Arc<Kin>),
    NoRoom,
}

impl Shared {
    /// Runs it, and again if it fails and may be tried again.
    pub(super) async fn run(self: &Arc<Self>, id: ByteId) -> End {
        // With a NUL it fails whenever it is tried.
        let mut left = if id.as_bytes().contains(&0) { 0 } else { self.retries };
        let mut tries = 0;
        loop {
            let (end, kin) = self.attempt(&id).await;
            if end == End::NoRoom {
                // With nothing running, nothing of ours will make room.
                tries = if read(&self.counts.alive) == 0 { tries + 1 } else { 0 };
                if tries >= TRIES {
                    self.printer.say(format!("{id}: given up: nothing can be started")).await;
                    return End::Broken;
                }
                tokio::select! {
                    () = self.room.wait() => continue,
                    () = self.steering.off() => return End::Cancelled,
                }
            }
            let over = end != End::Failed || left == 0 || !self.steering.is_on();
            if let Some(kin) = kin {
                // What is left of a success is as it should be; of anything else, a later run waits
                // for it.
                if end == End::Succeeded || kin.have_ended().await {
                    kin.clear_slot();
                } else if !over {
                    tokio::select! {
                        () = self.no_more_of(&id, &kin) => kin.clear_slot(),
                        () = self.steering.off() => return end,
                    }
                }
            }
            if over {
                return end;
            }
            left -= 1;
        }
    }

    /// Nothing of an attempt beside the next one: ends its group, and waits for those that have left it,
    /// whatever they have closed.
    async fn no_more_of(&self, id: &ByteId, kin: &Kin) {
        kin.end_group(&self.patience).await;
        let mut pause = SOON;
        while timeout(pause, kin.ended()).await.is_err() {
            let left = kin.left().await;
            self.printer
                .say(format!("{id}: processes of its last attempt are waited for: {left}"))
                .await;
            pause = SELDOM;
        }
    }

    async fn attempt(self: &Arc<Self>, id: &ByteId) -> (End, Option<Arc<Kin>>) {
        // Nobody has the sender any more when the command and its group are gone.
        let (alive, mut gone) = mpsc::channel(1);
        let (reading, begun) = oneshot::channel();
        let work = Arc::clone(self).follow(id.clone(), alive, reading);
        // What was refused gives its future back, which would be waited for: told without it.
        let told = match self.ledger.launch_block(id.clone(), work).await {
            Ok(()) => Ok(()),
            Err(AttemptError::Failed(Why(why, _)) | AttemptError::Panicked(why)) => {
                Err((End::Failed, why))
            }
            Err(AttemptError::TimedOut) => Err((End::Failed, LATE.to_owned())),
            Err(AttemptError::Cancelled(why)) => Err((End::Cancelled, format!("ended: {why}"))),
            Err(AttemptError::Refused { state: TaskState::Succeeded, .. }) => {
                return (End::Skipped, None);
            }
            Err(AttemptError::Rejected { reason: Rejection::Id(error), .. }) => {
                Err((End::Failed, chain(&error)))
            }
            // It has not begun, as those behind it in the input.
            Err(AttemptError::Rejected { reason, .. }) => Err((End::NotBegun, chain(&reason))),
            Err(other) => Err((End::Broken, other.to_string())),
        };
        let cut_off = told.as_ref().is_err_and(|(end, why)| *end == End::Cancelled || why == LATE);
        while gone.recv().await.is_some() {}
        let kin = match begun.await {
            Ok(Begun::Running(relay, kin)) => {
                self.rest(id, relay, cut_off).await;
                Some(kin)
            }
            Ok(Begun::NoRoom) => return (End::NoRoom, None),
            // It was not even tried.
            Err(_) => None,
        };
        let (end, why) = match told {
            Ok(()) => return (End::Succeeded, kin),
            Err(told) => told,
        };
        self.printer.say(format!("{id}: {why}")).await;
        (end, kin)
    }

    /// What is not passed on yet, because the attempt was cut off, or because it comes later.
    async fn rest(self: &Arc<Self>, id: &ByteId, relay: Arc<Mutex<Relay>>, cut_off: bool) {
        let mut relay = relay.lock().await;
        relay.finish().await;
        let lost = self.pass_on(&mut relay).await;
        if let Some(Lost::Why(why)) = lost {
            self.printer.say(format!("{id}: {why}")).await;
        }
        if let Some(words) = relay.last_words(NOTE).filter(|_| cut_off) {
            // Nothing depends on it.
            drop(self.ledger.note(id, said(&words)).await);
        }
        for open in relay.take_open() {
            self.later.pass_on(Arc::clone(self), id, open);
        }
    }

    /// The attempt itself: from the start of the command to its end, and until its output is passed on.
    async fn follow(
        self: Arc<Self>,
        id: ByteId,
        gone: mpsc::Sender<Infallible>,
        reading: oneshot::Sender<Begun>,
    ) -> Result<(), Why> {
        let Some(words) = self.template.of(id.as_bytes()) else {
            return Err("it has a NUL byte, which no argument can have".to_owned().into());
        };
        let record = self.ledger.record(&id).await.map_err(|error| chain(&error))?;
        let attempt = record.map_or(Attempt::NONE, |details| details.attempt());
        let program = words.first().cloned().unwrap_or_default();
        let command = |words: &[OsString]| {
            let mut command = command(words, &id, attempt)?;
            command.stderr(Stdio::piped());
            if !self.ungroup {
                command.stdout(Stdio::piped());
            }
            Ok(command)
        };
        let slot = match self.slots.take(&id) {
            Err(error) if !room::is_short(&error) => {
                self.steering.stop(Stop::Broken);
                return Err(self.withdrawn(&id, format!("it cannot be noted: {error}")).await);
            }
            taken => taken,
        };
        let alive = || Box::new(Running::begin(&self, gone)) as Alive;
        let started =
            slot.and_then(|slot| Group::start(&words, command, slot, self.patience.clone(), alive));
        let mut group = match started {
            Ok(group) => group,
            Err(error) if room::is_short(&error) => {
                let program = program.to_string_lossy();
                let why = format!("{program} cannot be started by now: {error}");
                if !self.room.is_told() {
                    let told = format!("{why}; it is tried again when another command has ended");
                    self.printer.note(told);
                }
                drop(reading.send(Begun::NoRoom));
                return Err(self.withdrawn(&id, why).await);
            }
            Err(error) => {
                let why = not_started(&program, &error);
                // Too long for one id, it may be short enough for another.
                let of_all = Errno::from_io_error(&error) != Some(Errno::TOOBIG);
                if of_all && self.template.program().is_some() {
                    self.steering.stop(Stop::NotRun(code_of(&error)));
                    return Err(self.withdrawn(&id, why).await);
                }
                return Err(why.into());
            }
        };
        let kin = group.kin();
        let Some(child) = group.child() else {
            return Err("it has ended before".to_owned().into());
        };
        let relay =
            Arc::new(Mutex::new(Relay::of(child, self.ungroup.then(|| self.printer.clone()))));
        drop(reading.send(Begun::Running(Arc::clone(&relay), Arc::clone(&kin))));
        let status = self.status(&id, &mut group, &kin).await?;
        let failure = failure_of(status);
        if self.ungroup && failure.is_some() && nobody_reads() {
            self.steering.stop(Stop::NobodyReads);
            if status.signal() == Some(Kind::PIPE.as_raw()) {
                return Err(self.withdrawn(&id, NOBODY.to_owned()).await);
            }
        }
        // What it has printed is passed on before its success is recorded: who has succeeded does not
        // run again, and prints nothing again.
        let mut relay = relay.lock().await;
        relay.finish().await;
        match (failure, self.pass_on(&mut relay).await) {
            (None, None) => Ok(()),
            (None, Some(Lost::NobodyReads)) => Err(self.withdrawn(&id, NOBODY.to_owned()).await),
            (None, Some(Lost::Why(why))) => Err(why.into()),
            (Some(why), lost) => {
                if let Some(Lost::Why(lost)) = lost {
                    self.printer.say(format!("{id}: {lost}")).await;
                }
                Err(Why(why, relay.last_words(TAIL)))
            }
        }
    }

    /// How the command has ended. Only this takes time that counts, not what comes after.
    async fn status(&self, id: &ByteId, group: &mut Group, kin: &Kin) -> Result<ExitStatus, Why> {
        let until_it_ends = async {
            let mut stopped = 0;
            loop {
                match timeout(OFTEN, group.wait()).await {
                    Ok(status) => break status.map_err(|error| error.to_string().into()),
                    Err(_) => self.say_if_stopped(id, kin, &mut stopped),
                }
            }
        };
        let Some(limit) = self.timeout else { return until_it_ends.await };
        let in_time = timeout(limit, until_it_ends).await;
        if let Ok(status) = in_time {
            return status;
        }
        // While we were stopped it may have ended: then it has not taken that time.
        if let Some(status) = group.look().map_err(|error| error.to_string())? {
            return Ok(status);
        }
        match self.ledger.time_out(id) {
            Ok(()) => std::future::pending().await,
            Err(_) => Err(LATE.to_owned().into()),
        }
    }

    /// Nobody else would say why it does not go on. Stopped in passing, as by Ctrl-Z, it may be.
    fn say_if_stopped(&self, id: &ByteId, kin: &Kin, looks: &mut u32) {
        let leader = kin.stopped();
        *looks = if leader.is_some() { looks.saturating_add(1) } else { 0 };
        if let Some(leader) = leader.filter(|_| *looks == 3) {
            self.printer.note(format!(
                "{id}: it is stopped, as a command is that reads the terminal; end it with: kill -KILL {leader}"
            ));
        }
    }

    /// Ends the attempt within which it is called as cancelled: it is not the id that has failed.
    async fn withdrawn(&self, id: &ByteId, why: String) -> Why {
        match self.ledger.cancel(id, &*why) {
            Ok(()) => std::future::pending().await,
            Err(_) => why.into(),
        }
    }

    /// Passes on what the command has printed, and nothing of others in between. What is lost of it ends
    /// the run.
    async fn pass_on(&self, relay: &mut Relay) -> Option<Lost> {
        let mut printed = relay.take();
        let lost = printed.take_lost();
        let written = if printed.is_empty() { Ok(()) } else { self.printer.output(printed).await };
        let lost = match (written, lost) {
            // Only of standard output: of standard error it is no loss.
            (Err(error), _) if nobody_took(&error) || nobody_reads() => Lost::NobodyReads,
            (Err(error), _) | (Ok(()), Some(relay::Lost::PassedOn(error))) => {
                Lost::Why(format!("its output could not be passed on: {error}"))
            }
            (Ok(()), Some(relay::Lost::Kept(error))) => {
                let where_to = std::env::temp_dir();
                let where_to = where_to.display();
                Lost::Why(format!("some of its output could not be kept in {where_to}: {error}"))
            }
            (Ok(()), None) => return None,
        };
        self.steering.stop(match lost {
            Lost::NobodyReads => Stop::NobodyReads,
            Lost::Why(_) => Stop::Broken,
        });
        Some(lost)
    }
}

/// Why some of an output is missing.
enum Lost {
    NobodyReads,
    Why(String),
}

/// A command that has been started, until it and its group are gone.
struct Running {
    shared: Arc<Shared>,
    _gone: mpsc::Sender<Infallible>,
}

impl Running {
    fn begin(shared: &Arc<Shared>, gone: mpsc::Sender<Infallible>) -> Self {
        one_more(&shared.counts.alive);
        Self { shared: Arc::clone(shared), _gone: gone }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.counts.alive.fetch_sub(1, Ordering::Relaxed);
        self.shared.room.one_ended();
    }
}
