//! No command of a dead run beside its successor.
//!
//! A run that is killed leaves its commands behind, and nobody can tell what they are still doing.
//! So each command has a slot, a file of the ledger, from before it starts until its end has been
//! recorded and nothing is left of it. A run first waits for all that the slots of earlier ones stand for.
//! A process belongs to a slot if
//!
//! * it has inherited the open file, which is locked as long as anybody has it open;
//! * or it is in the process group of the command, which is noted in the slot. The number alone does not
//!   say so: it may be given to another group, in another boot it is another one's anyway. So the boot
//!   and the start of the leader are noted as well;
//! * or it has the name of the slot in its environment. That is how the command is found of a run that was
//!   killed before it could note the group.
//!
//! Many programs close what they do not know, and leave the group; few do both and lose their environment.
//!
//! What a command leaves running that has succeeded holds up nobody: a slot is gone with the success,
//! and where a kill came between, the ledger says that the id has succeeded.

mod note;

use crate::beside::beside;
use crate::command::start_or_by_shell;
use crate::processes::{self, By, Group};
use crate::terminal::{Failure, complaint, print};
use note::{Noted, head, line};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::Pid;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use taskledger::{ByteId, Ledger, TaskState};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// The name of the directory in that of the ledger.
const NAME: &str = "commands";

/// The one file that all commands had inherited before there were slots.
const ONE_FOR_ALL: &str = "commands.lock";

/// Where a process finds the name of its slot.
const VARIABLE: &str = "TASKLEDGER_SLOT";

/// How often a wait says that it goes on.
const TOLD: Duration = Duration::from_secs(10);

/// How long it may take at most until it is looked again.
pub(crate) const LOOK: Duration = Duration::from_millis(250);

/// When it is said that a look itself takes long.
const LASTS: Duration = Duration::from_secs(1);

/// Where the commands of this process get their slots.
#[derive(Debug)]
pub(crate) struct Slots {
    directory: PathBuf,
    /// In which boot, and among which processes, a number is that of a process.
    here: String,
    /// Distinguishes this run from all others.
    run: u64,
    next: AtomicU64,
}

impl Slots {
    /// Waits for up to `wait` until nothing is left of the commands of earlier runs. The ledger is open:
    /// so no other run begins commands meanwhile.
    pub(crate) async fn begin(
        ledger: &Ledger<ByteId, ()>,
        path: &Path,
        wait: Duration,
    ) -> Result<Result<Self, String>, Failure> {
        let slots = Self {
            directory: path.join(NAME),
            here: here(),
            run: RandomState::new().hash_one(std::process::id()),
            next: AtomicU64::new(0),
        };
        let failed = |error: io::Error| {
            Failure::Look(format!("cannot use {}: {error}", slots.directory.display()))
        };
        match std::fs::DirBuilder::new().mode(0o700).create(&slots.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            Ok(()) | Err(_) => {}
        }
        let (since, mut told, mut pause) = (Instant::now(), None, Duration::from_millis(10));
        let mut look = slots.look(ledger).map_err(failed)?;
        loop {
            let mut left: Vec<Pid>;
            (look, left) = look.again().await.map_err(failed)?;
            let of_all = left_of_all(&path.join(ONE_FOR_ALL)).map_err(failed)?;
            if look.paths.is_empty() && of_all.is_none() {
                if told.is_some() {
                    drop(tell(format!(
                        "they have ended, after {:.1} s",
                        since.elapsed().as_secs_f64()
                    )));
                }
                break;
            }
            if look.is_of_us(&left) {
                return Ok(Err(format!(
                    "this was itself started by what an earlier run has left running{}: it would have to \
                     wait for itself; start it when that has ended, or with another ledger",
                    at_work(path, " of ")
                )));
            }
            left.extend(of_all.into_iter().flatten());
            let whose = processes::in_words(left) + &at_work(path, ", for ");
            if since.elapsed() >= wait {
                return Ok(Err(format!(
                    "commands of an earlier run are still running: {whose}; wait for them, or end them"
                )));
            }
            let again =
                |(said, at): &(JoinHandle<()>, Instant)| said.is_finished() && at.elapsed() >= TOLD;
            if told.as_ref().is_none_or(again) {
                let said = tell(format!(
                    "waiting for commands of an earlier run, {} s so far: {whose}; if they are not to go \
                     on, end them",
                    since.elapsed().as_secs(),
                ));
                told = Some((said, Instant::now()));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK);
        }
        Ok(Ok(slots))
    }

    /// Removes the slots of those that have ended by now, and says what is left, for which the next run waits.
    pub(crate) async fn left(&self, ledger: &Ledger<ByteId, ()>) -> Option<String> {
        let mut look = self.look(ledger).ok()?;
        let mut left = Vec::new();
        // Helpers outlive a command by a moment.
        for pause in [Duration::ZERO, LOOK / 2, LOOK] {
            tokio::time::sleep(pause).await;
            // What cannot be looked at is told by the next run.
            (look, left) = look.again().await.ok()?;
            if look.paths.is_empty() {
                return None;
            }
        }
        let ids = in_words(look.paths.iter().map(PathBuf::as_path), ", for ");
        Some(format!(
            "processes are left of what has not succeeded: {}{ids}; no other command of this ledger begins before \
             they have ended: if they are not to go on, end them",
            processes::in_words(left)
        ))
    }

    /// At all slots that are there now.
    fn look(&self, ledger: &Ledger<ByteId, ()>) -> io::Result<Look> {
        let entries = std::fs::read_dir(&self.directory)?;
        // A directory is nobody's slot.
        let paths = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .filter(|path| !path.as_ref().is_ok_and(|path| path.is_dir()));
        Ok(Look {
            ledger: ledger.clone(),
            directory: self.directory.canonicalize()?,
            here: self.here.clone(),
            paths: paths.collect::<io::Result<_>>()?,
        })
    }

    /// One for a command of this id, which is about to start.
    pub(crate) fn take(&self, id: &ByteId) -> io::Result<Taken> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{:016x}-{number}", self.run);
        let path = self.directory.join(&name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let written = flock(&file, FlockOperation::NonBlockingLockShared)
            .map_err(io::Error::from)
            .and_then(|()| file.write_all(head(id, &self.here).as_bytes()));
        let slot = Slot { path, name };
        match written {
            Ok(()) => Ok(Taken { slot, file }),
            Err(error) => {
                slot.clear();
                Err(error)
            }
        }
    }
}

/// A look at what is left of commands. It concerns no slot that comes later: when it is not waited for
/// any more, it may go on beside another run.
struct Look {
    ledger: Ledger<ByteId, ()>,
    directory: PathBuf,
    here: String,
    /// Somebody has them, as far as is known.
    paths: Vec<PathBuf>,
}

/// A slot of an id that has not succeeded, and what it says by itself.
struct Candidate {
    path: PathBuf,
    /// The group of the command, if it is there.
    group: Option<Pid>,
    /// The command alone, if it is alive.
    process: Option<Pid>,
    is_held: bool,
}

impl Look {
    /// Whether what was found would be waited for in vain: it waits for this process, or is itself that.
    fn is_of_us(&self, left: &[Pid]) -> bool {
        let own = processes::own_files();
        let names = self.paths.iter().filter_map(|path| path.file_name());
        processes::ancestors().iter().any(|pid| left.contains(pid))
            || names.map(|name| self.directory.join(name)).any(|path| own.contains(&path))
    }

    /// Leaves the slots that somebody has, and tells these processes, which need not be known. The others
    /// are removed. It may take long, so it is done beside everything else.
    async fn again(mut self) -> io::Result<(Self, Vec<Pid>)> {
        let count = self.paths.len();
        let mut look = pin!(beside(move || {
            let left = self.left()?;
            Ok((self, left))
        }));
        let looked = match tokio::time::timeout(LASTS, look.as_mut()).await {
            Ok(looked) => looked,
            Err(_) => {
                let commands = if count == 1 { "command" } else { "commands" };
                tell(format!("looking for what is left of {count} {commands}"));
                look.await
            }
        };
        looked.unwrap_or_else(|| Err(io::Error::other("the look has panicked")))
    }

    /// However many slots there are, each process is looked at once.
    fn left(&mut self) -> io::Result<Vec<Pid>> {
        let mut candidates = Vec::new();
        for path in std::mem::take(&mut self.paths) {
            match self.candidate(&path) {
                Ok(Some(candidate)) => candidates.push(candidate),
                Ok(None) => remove(&path)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let any = |is: fn(&Candidate) -> bool| candidates.iter().any(is);
        let groups = any(|slot| slot.group.is_some()).then(processes::by_group);
        let held = any(|slot| slot.is_held).then(|| processes::by_open_file(&self.directory));
        let mut left = Vec::new();
        let mut unknown = Vec::new();
        for slot in candidates {
            let Candidate { path, group, process, is_held } = slot;
            let mut found: Vec<Pid> = process.into_iter().collect();
            let members = group.zip(groups.as_ref());
            let members = members.and_then(|(group, all)| all.get(&group.as_raw_pid()));
            found.extend(members.into_iter().flatten());
            if is_held {
                let name = self.directory.join(path.file_name().unwrap_or_default());
                found.extend(held.iter().filter_map(|all| all.get(&name)).flatten());
            }
            if found.is_empty() && !is_held {
                unknown.push(path);
            } else {
                left.extend(found);
                self.paths.push(path);
            }
        }
        let named = (!unknown.is_empty()).then(|| processes::by_variable(VARIABLE.as_bytes()));
        for path in unknown {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            match named.as_ref().and_then(|all| all.get(name)) {
                Some(found) => {
                    left.extend(found);
                    self.paths.push(path);
                }
                None => remove(&path)?,
            }
        }
        Ok(left)
    }

    /// `None` if its id has succeeded.
    fn candidate(&self, path: &Path) -> io::Result<Option<Candidate>> {
        let mut file = File::open(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let noted = Noted::read(&String::from_utf8_lossy(&text));
        let id = noted.id.filter(|id| !id.is_empty());
        if id.is_some_and(|id| self.ledger.query_task_state_quick(&*id) == TaskState::Succeeded) {
            return Ok(None);
        }
        let (mut group, mut process) = (None, None);
        match noted.here.filter(|here| *here == self.here).and(noted.command) {
            Some(Started::Group(found)) if found.is_there() => group = Some(found.leader),
            Some(Started::Process(found)) if found.leader_lives() => process = Some(found.leader),
            Some(_) | None => {}
        }
        Ok(Some(Candidate { path: path.to_owned(), group, process, is_held: is_held(&file)? }))
    }
}

/// The ids that have slots in this ledger, after some words; nothing if there are none.
pub(crate) fn at_work(ledger: &Path, words: &str) -> String {
    let files = std::fs::read_dir(ledger.join(NAME)).into_iter().flatten().flatten();
    in_words(files.map(|entry| entry.path()), words)
}

/// The ids of these slots, after some words; nothing if there are none.
fn in_words(slots: impl Iterator<Item = impl AsRef<Path>>, words: &str) -> String {
    const TOLD: usize = 3;
    // Nothing else can be read without waiting for anybody.
    let files = slots.filter(|path| path.as_ref().is_file());
    let text = files.filter_map(|path| std::fs::read(path).ok());
    let ids = text.filter_map(|text| Noted::read(&String::from_utf8_lossy(&text)).id);
    let mut ids: Vec<String> = ids.map(|id| ByteId::from(id).to_string()).collect();
    ids.sort_unstable();
    let more = ids.len().saturating_sub(TOLD);
    ids.truncate(TOLD);
    match (ids.is_empty(), more) {
        (true, _) => String::new(),
        (false, 0) => format!("{words}{}", ids.join(", ")),
        (false, more) => format!("{words}{} and {more} more", ids.join(", ")),
    }
}

/// Also if somebody else has done so.
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Signals are to be heard, whether or not anybody reads.
pub(crate) fn tell(what: String) -> JoinHandle<()> {
    tokio::spawn(print(complaint(&what)))
}

/// A slot whose command has not been started yet.
#[derive(Debug)]
pub(crate) struct Taken {
    slot: Slot,
    file: File,
}

/// What is noted of a command that has been started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Started {
    /// It leads a process group of its own.
    Group(Group),
    /// It is in our group, as whoever started us is.
    Process(Group),
}

impl Taken {
    /// Starts the command, which finds the slot, and notes it. The caller sees to it that nothing else is
    /// started meanwhile, which would inherit it as well.
    pub(crate) fn start(
        self,
        words: &[OsString],
        command: impl Fn(&[OsString]) -> io::Result<Command>,
        as_what: fn(Group) -> Started,
    ) -> io::Result<(Child, Group, Slot)> {
        let Self { slot, mut file } = self;
        let spawn = |words: &[OsString]| command(words)?.env(VARIABLE, &slot.name).spawn();
        let started = fcntl_setfd(&file, FdFlags::empty())
            .map_err(io::Error::from)
            .and_then(|()| start_or_by_shell(words, spawn));
        let child = match started {
            Ok(child) => child,
            Err(error) => {
                slot.clear();
                return Err(error);
            }
        };
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else { return Err(io::Error::other("it has no number")) };
        let group = Group::of(pid);
        // Without the note there are still the lock and the environment.
        drop(file.write_all(line(as_what(group)).as_bytes()));
        Ok((child, group, slot))
    }
}

/// The slot of a command that has been started.
#[derive(Debug)]
pub(crate) struct Slot {
    path: PathBuf,
    name: String,
}

impl Slot {
    /// Those that are alive and have its name in their environment.
    pub(crate) async fn named(&self) -> Vec<Pid> {
        let all = named_by_now().await;
        all.get(self.name.as_bytes()).cloned().unwrap_or_default()
    }

    /// Nobody is waited for any more because of it.
    pub(crate) fn clear(&self) {
        // Whoever finds it looks whether there is anybody.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Processes by the slot that they name.
type Named = By<Vec<u8>>;

/// The last look at the environments of all processes, and when it began.
static LAST_LOOK: Mutex<Option<(Instant, Arc<Named>)>> = Mutex::const_new(None);

/// What is found by now. However many ask meanwhile, there is one look at a time, and
/// the next one is for all of them.
async fn named_by_now() -> Arc<Named> {
    let asked = Instant::now();
    let mut last = LAST_LOOK.lock().await;
    if let Some((_, all)) = last.as_ref().filter(|(began, _)| *began >= asked) {
        return Arc::clone(all);
    }
    let began = Instant::now();
    let look = || processes::by_variable(VARIABLE.as_bytes());
    let all = beside(look).await.unwrap_or_else(look);
    let all = Arc::new(all);
    *last = Some((began, Arc::clone(&all)));
    all
}

/// The boot of the system, and the namespace of the numbers of processes.
fn here() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let numbers = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{} {}", boot.trim(), numbers.display())
}

/// Whether somebody has it open who has locked it.
fn is_held(file: &File) -> io::Result<bool> {
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(false),
            Err(Errno::WOULDBLOCK) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Of the file that all commands of an earlier release have inherited.
fn left_of_all(path: &Path) -> io::Result<Option<Vec<Pid>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if is_held(&file)? {
        return Ok(Some(processes::holders(&path.canonicalize()?)));
    }
    std::fs::remove_file(path)?;
    Ok(None)
}
