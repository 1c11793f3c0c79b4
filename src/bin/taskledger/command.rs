//! Commands that run as attempts: started, followed, ended.

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use taskledger::{Attempt, ByteId};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// A command for an attempt of an id, not yet started; `None` without a program. The id has no NUL.
pub(crate) fn command(words: &[OsString], id: &ByteId, attempt: Attempt) -> Option<Command> {
    let (program, arguments) = words.split_first()?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("TASKLEDGER_ID", OsStr::from_bytes(id.as_bytes()))
        .env("TASKLEDGER_ATTEMPT", attempt.to_string());
    Some(command)
}

/// Why an attempt failed. What is recorded is the `Debug` of an error: the text itself.
pub(crate) struct Why(pub(crate) String);

impl fmt::Debug for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a command ended, in words; `None` if it succeeded.
pub(crate) fn failure_of(status: ExitStatus) -> Option<String> {
    if status.success() {
        return None;
    }
    Some(match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => {
            let dumped = if status.core_dumped() { ", core dumped" } else { "" };
            format!("killed by signal {signal}{dumped}")
        }
        (None, None) => status.to_string(),
    })
}

/// Why it could not be started, in words.
pub(crate) fn not_started(program: &OsString, error: &io::Error) -> String {
    format!("cannot run {}: {error}", program.to_string_lossy())
}

/// A process group of its own that is ended when this is dropped before the command has: TERM, and
/// KILL after some time. Whoever waits for its `alive` to be dropped knows that it is gone.
pub(crate) struct Group {
    /// `None` once the command has ended.
    running: Option<(Child, mpsc::Sender<Infallible>)>,
    grace: Duration,
}

impl Group {
    /// Starts the command as the leader of a new group.
    pub(crate) fn start(
        mut command: Command,
        grace: Duration,
        alive: mpsc::Sender<Infallible>,
    ) -> io::Result<Self> {
        let child = command.process_group(0).stdin(Stdio::null()).spawn()?;
        Ok(Self { running: Some((child, alive)), grace })
    }

    /// The command's output, if it is piped; handed out once.
    pub(crate) fn child(&mut self) -> Option<&mut Child> {
        self.running.as_mut().map(|(child, _)| child)
    }

    /// Waits until the command has ended. What it may have left behind in its group goes on.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let Some((child, _)) = &mut self.running else {
            return Err(io::Error::other("it has ended before"));
        };
        let status = child.wait().await?;
        self.running = None;
        Ok(status)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some((child, alive)) = self.running.take() {
            tokio::spawn(end(child, self.grace, alive));
        }
    }
}

/// A number is not given to another group as long as anybody is in this one.
async fn end(mut child: Child, grace: Duration, alive: mpsc::Sender<Infallible>) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(group) = group {
        let _gone = kill_process_group(group, Signal::TERM);
        if tokio::time::timeout(grace, all_ended(&mut child, group)).await.is_err() {
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
    drop(child.wait().await);
    drop(alive);
}

/// Until the leader, and then everybody else in its group, has ended.
async fn all_ended(leader: &mut Child, group: Pid) {
    drop(leader.wait().await);
    let mut pause = Duration::from_millis(1);
    while test_kill_process_group(group).is_ok() {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
