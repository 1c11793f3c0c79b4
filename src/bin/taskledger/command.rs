//! Commands that run as attempts: started, followed, ended.

use crate::processes::{self, Process};
use crate::slots::{LOOK, Slot, Started, Taken};
use crate::terminal::quoted;
use rustix::fs::{Access, access, fstat};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, getpgid, getpid, kill_process, kill_process_group};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use taskledger::{Attempt, ByteId};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// Exit codes for a program that cannot be run, or is not there.
pub(crate) const NOT_RUN: u8 = 126;
pub(crate) const NOT_FOUND: u8 = 127;

/// A command for an attempt of an id, not yet started. The id has no NUL.
pub(crate) fn command(words: &[OsString], id: &ByteId, attempt: Attempt) -> io::Result<Command> {
    let (program, arguments) =
        words.split_first().ok_or_else(|| io::Error::other("there is no command"))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("TASKLEDGER_ID", OsStr::from_bytes(id.as_bytes()))
        .env("TASKLEDGER_ATTEMPT", attempt.to_string());
    Ok(command)
}

/// Why an attempt failed, and the last it said, which is passed on with all the rest. What is recorded is
/// the `Debug` of an error: the text itself.
pub(crate) struct Why(pub(crate) String, pub(crate) Option<String>);

impl fmt::Debug for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)?;
        self.1.as_ref().map_or(Ok(()), |words| write!(f, "; {}", said(words)))
    }
}

impl From<String> for Why {
    fn from(why: String) -> Self {
        Self(why, None)
    }
}

/// How the last that a command has said is recorded.
pub(crate) fn said(words: &str) -> String {
    format!("the last it said: {words}")
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
pub(crate) fn not_started(program: &OsStr, error: &io::Error) -> String {
    let found = (error.kind() == io::ErrorKind::NotFound).then(|| find(program).ok()).flatten();
    let why = found.map_or_else(
        || error.to_string(),
        // It is there: what is not is what would run it.
        |path| format!("its interpreter{} is not there", interpreter(&path)),
    );
    format!("cannot run {}: {why}", quoted(program))
}

/// Which one a script names, after a space.
fn interpreter(script: &Path) -> String {
    let mut line = Vec::new();
    let read = File::open(script).and_then(|file| file.take(256).read_to_end(&mut line));
    let words =
        read.ok().and_then(|_| line.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next());
    let word =
        words.and_then(|words| words.trim_ascii_start().split(|byte| b" \t".contains(byte)).next());
    word.map_or_else(String::new, |word| format!(" {}", ByteId::from(word)))
}

/// The exit code that says why a program could not be started, as shells have it.
pub(crate) fn code_of(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN }
}

/// Looks for a program where the system would, in the directories of `PATH` unless it has a slash.
pub(crate) fn find(program: &OsStr) -> io::Result<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return runs(Path::new(program)).map(|()| PathBuf::from(program));
    }
    let not_found = || io::Error::new(io::ErrorKind::NotFound, "it is not found in PATH");
    if program.is_empty() {
        return Err(not_found());
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/bin:/usr/bin"));
    let mut error = not_found();
    for directory in std::env::split_paths(&path) {
        let path = directory.join(program);
        match runs(&path) {
            Ok(()) => return Ok(path),
            // There may be another one further on.
            Err(denied) if denied.kind() == io::ErrorKind::PermissionDenied => error = denied,
            Err(_) => {}
        }
    }
    Err(error)
}

/// Starts these words; a script that does not say by what it is run, by `sh`, as the shells and `xargs` do.
pub(crate) fn start_or_by_shell<T>(
    words: &[OsString],
    start: impl Fn(&[OsString]) -> io::Result<T>,
) -> io::Result<T> {
    let error = match start(words) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOEXEC) => error,
        started => return started,
    };
    let Some((program, arguments)) = words.split_first() else { return Err(error) };
    let Some(script) = find(program).ok().filter(|path| is_text(path)) else { return Err(error) };
    start(&[&["/bin/sh".into(), script.into()], arguments].concat())
}

/// A program of another machine is none: its first bytes have a NUL.
fn is_text(path: &Path) -> bool {
    let mut beginning = Vec::new();
    let read = File::open(path).and_then(|file| file.take(128).read_to_end(&mut beginning));
    read.is_ok() && !beginning.contains(&0)
}

fn runs(program: &Path) -> io::Result<()> {
    if std::fs::metadata(program)?.is_dir() {
        return Err(Errno::ACCESS.into());
    }
    Ok(access(program, Access::EXEC_OK)?)
}

/// Dropped when a command and its group are gone.
pub(crate) type Alive = Box<dyn Send + Sync>;

/// A process group of its own that is ended when this is dropped before the command has: TERM, and
/// KILL after some time.
pub(crate) struct Group {
    /// `None` once the command has ended.
    running: Option<(Child, Alive)>,
    kin: Arc<Kin>,
    patience: Patience,
}

/// How long those that are told to end have until they are killed.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    pub(crate) grace: Duration,
    /// From when on they have no time at all.
    pub(crate) over: CancellationToken,
}

impl Patience {
    /// Until that has come to pass, or there is no more time.
    async fn with(&self, ended: impl Future<Output = ()>) {
        tokio::select! {
            () = ended => {}
            () = tokio::time::sleep(self.grace) => {}
            () = self.over.cancelled() => {}
        }
    }
}

/// The groups that run. Whoever has it starts a command, and no other one can inherit what is meant for
/// that.
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn groups() -> MutexGuard<'static, Vec<Pid>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ctrl-Z: the terminal stops only us, as commands have groups of their own. Stops all groups and then
/// this process; when that is told to go on, so are they.
pub(crate) fn suspend() {
    let groups = groups();
    let tell = |signal| {
        for group in &*groups {
            let _gone = kill_process_group(*group, signal);
        }
    };
    tell(Signal::TSTP);
    stop_here();
    tell(Signal::CONT);
}

/// As the signal would if nobody listened. Returns when somebody tells this process to go on.
pub(crate) fn stop_here() {
    let _sent = kill_process(getpid(), Signal::STOP);
}

impl Group {
    /// Starts the command as the leader of a new group.
    pub(crate) fn start(
        words: &[OsString],
        command: impl Fn(&[OsString]) -> io::Result<Command>,
        slot: Taken,
        patience: Patience,
        alive: impl FnOnce() -> Alive,
    ) -> io::Result<Self> {
        let command = |words: &[OsString]| {
            let mut command = command(words)?;
            command.process_group(0).stdin(Stdio::null());
            Ok(command)
        };
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let link = format!("socket:[{}]", fstat(&theirs)?.st_ino);
        let mut groups = groups();
        fcntl_setfd(&theirs, FdFlags::empty())?;
        let started = slot.start(words, command, Started::Group);
        drop(theirs);
        let (child, group, slot) = started?;
        groups.push(group.leader);
        drop(groups);
        let kin = Arc::new(Kin { group, slot, left: ours, link });
        Ok(Self { running: Some((child, alive())), kin, patience })
    }

    /// The command's output, if it is piped; handed out once.
    pub(crate) fn child(&mut self) -> Option<&mut Child> {
        self.running.as_mut().map(|(child, _)| child)
    }

    /// All processes of the command.
    pub(crate) fn kin(&self) -> Arc<Kin> {
        Arc::clone(&self.kin)
    }

    /// Waits until the command has ended. What it may have left behind in its group goes on.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let Some((child, _)) = &mut self.running else {
            return Err(io::Error::other("it has ended before"));
        };
        let status = child.wait().await?;
        self.has_ended();
        Ok(status)
    }

    /// How the command has ended, if it has.
    pub(crate) fn look(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = match &mut self.running {
            Some((child, _)) => child.try_wait()?,
            None => None,
        };
        if status.is_some() {
            self.has_ended();
        }
        Ok(status)
    }

    fn has_ended(&mut self) {
        self.running = None;
        self.kin.forget_group();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some((child, alive)) = self.running.take() {
            tokio::spawn(end(child, Arc::clone(&self.kin), self.patience.clone(), alive));
        }
    }
}

fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

/// A number is not given to another group as long as anybody is in this one, nor to another process
/// as long as the leader has not been waited for.
async fn end(mut child: Child, kin: Arc<Kin>, patience: Patience, alive: Alive) {
    // A leader may have gone to another group.
    let tell = |child: &Child, signal| {
        let stray = pid(child).filter(|leader| getpgid(Some(*leader)).ok() != Some(*leader));
        kin.tell(signal);
        if let Some(leader) = stray {
            let _gone = kill_process(leader, signal);
        }
    };
    tell(&child, Signal::TERM);
    // Who is stopped hears nothing else.
    tell(&child, Signal::CONT);
    let all_ended = async {
        drop(child.wait().await);
        kin.group_ended().await;
    };
    patience.with(all_ended).await;
    // Whoever is there after all: a signal misses nobody, a look may.
    tell(&child, Signal::KILL);
    drop(child.wait().await);
    kin.forget_group();
    drop(alive);
}

/// A command and all processes that come of it.
///
/// They inherit one end of a pair of sockets. As long as anybody has that open, the other end has not
/// come to its end: so it is known of those that have left the group. Who has closed what he does not
/// know is known if he is still in the group, and otherwise by the name of the slot in his environment.
#[derive(Debug)]
pub(crate) struct Kin {
    group: processes::Group,
    slot: Slot,
    left: UnixStream,
    /// What their end is called where the system lists what a process has open.
    link: String,
}

impl Kin {
    /// Whether all have ended. It looks at every process, unless some are known more cheaply: of a success,
    /// nobody asks.
    pub(crate) async fn have_ended(&self) -> bool {
        self.are_out_of_sight() && self.slot.named().await.is_empty()
    }

    /// Nobody has what the command has inherited, and nobody is in its group.
    fn are_out_of_sight(&self) -> bool {
        self.have_let_go() && self.group.members().is_empty()
    }

    /// Nobody has the other end of the sockets.
    fn have_let_go(&self) -> bool {
        let mut buffer = [0; 64];
        loop {
            match (&self.left).read(&mut buffer) {
                Ok(0) => return true,
                // Somebody has written to what he does not know.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }

    /// Nobody is told to stop any more.
    fn forget_group(&self) {
        groups().retain(|group| *group != self.group.leader);
    }

    /// No later run waits for what may be left of them.
    pub(crate) fn clear_slot(&self) {
        self.slot.clear();
    }

    /// The leader, if it is stopped: by somebody, or because it wants something of the terminal.
    pub(crate) fn stopped(&self) -> Option<Pid> {
        let leader = self.group.leader;
        Process::of(leader).is_some_and(|found| found.is_stopped()).then_some(leader)
    }

    /// Until all have ended.
    pub(crate) async fn ended(&self) {
        until(|| self.are_out_of_sight()).await;
        while !self.slot.named().await.is_empty() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends those that are still in the group.
    pub(crate) async fn end_group(&self, patience: &Patience) {
        if !self.group.is_there() {
            return;
        }
        self.tell(Signal::TERM);
        self.tell(Signal::CONT);
        patience.with(self.group_ended()).await;
        // Whoever is there after all: a signal misses nobody, a look may.
        self.tell(Signal::KILL);
    }

    /// Those that have not ended, in words.
    pub(crate) async fn left(&self) -> String {
        let mut left = processes::holders(Path::new(&self.link));
        left.extend(self.group.members());
        left.extend(self.slot.named().await);
        processes::in_words(left)
    }

    fn tell(&self, signal: Signal) {
        // Its number may have been given to others, if all have ended.
        if self.group.is_there() {
            let _gone = kill_process_group(self.group.leader, signal);
        }
    }

    /// Until nobody is in the group any more, or only those who are dead and have not been waited for:
    /// where nobody does that, they stay.
    async fn group_ended(&self) {
        until(|| self.group.members().is_empty()).await;
    }
}

async fn until(done: impl Fn() -> bool) {
    let mut pause = Duration::from_millis(1);
    while !done() {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
