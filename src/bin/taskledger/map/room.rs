//! How many commands there is room for: descriptors, processes, memory.
//!
//! A ledger that cannot open a file any more stops recording, so commands never get the last
//! descriptors. What else is short, the system says when a command is started: then it is no fault of
//! the id, which waits until another command has ended.

use super::later::PIPES;
use crate::terminal::Failure;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, Notify, Semaphore};
use tokio::time::timeout;

/// Descriptors for the ledger: its files, and those of a checkpoint or a repair.
const LEDGER: u64 = 64;

/// Descriptors that a command takes: two pipes, two temporary files, one to see that all of its
/// processes have ended, one to wait for it.
const COMMAND: u64 = 6;

/// Descriptors that a thread needs in passing to start a command.
const START: u64 = 8;

/// As many of the commands that are wanted at a time as there are descriptors for. The limit is
/// raised as far as that takes, and no further: commands inherit it, and some close whatever could
/// be open.
pub(super) fn at_a_time(wanted: NonZero<usize>) -> Result<(usize, Option<String>), Failure> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let open = std::fs::read_dir("/dev/fd").map_or(3, Iterator::count) as u64;
    let base = open + LEDGER + PIPES + START * threads;
    let needed = (wanted.get() as u64).saturating_mul(COMMAND).saturating_add(base);
    let limit = getrlimit(Resource::Nofile);
    let (now, most) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    let mut carries = now;
    if now < needed && now < most {
        let raised = needed.min(most);
        let new = Rlimit { current: Some(raised), maximum: limit.maximum };
        if setrlimit(Resource::Nofile, new).is_ok() {
            carries = raised;
        }
    }
    let room = usize::try_from(carries.saturating_sub(base) / COMMAND).unwrap_or(usize::MAX);
    let room = room.min(Semaphore::MAX_PERMITS);
    match room {
        0 => Err(Failure::Look(format!(
            "{carries} open files are too few to run commands: raise the limit (`ulimit -n`) to at least {}",
            base + COMMAND
        ))),
        room if room < wanted.get() => {
            let told = format!(
                "{room} commands at a time, not {wanted}: the limit of open files is {carries} \
                 (`ulimit -Hn`)"
            );
            Ok((room, Some(told)))
        }
        _ => Ok((wanted.get(), None)),
    }
}

/// Whether something failed only because of what others take by now.
pub(super) fn is_short(error: &io::Error) -> bool {
    let short = [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|error| short.contains(&error))
}

/// How often it is tried again while nothing of ours ends, and how often if nothing of ours runs.
const PAUSE: Duration = Duration::from_secs(1);
pub(super) const TRIES: u32 = 30;

/// Where those wait whose command could not be started.
#[derive(Debug, Default)]
pub(super) struct Room {
    turn: Mutex<()>,
    ended: Notify,
    told: AtomicBool,
}

impl Room {
    /// Whether somebody has been told already that there is none.
    pub(super) fn is_told(&self) -> bool {
        self.told.swap(true, Ordering::Relaxed)
    }

    /// A command has ended.
    pub(super) fn one_ended(&self) {
        self.ended.notify_one();
    }

    /// Waits for one that ends, or for a while: others may have made room.
    pub(super) async fn wait(&self) {
        let _turn = self.turn.lock().await;
        drop(timeout(PAUSE, self.ended.notified()).await);
    }
}
