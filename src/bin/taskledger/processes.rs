//! Processes, as the system lists them in `/proc`.

use crate::terminal::clean;
use rustix::io::Errno;
use rustix::process::{Pid, getpid, test_kill_process_group};
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::path::{Path, PathBuf};

/// What is known of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    state: char,
    parent: i32,
    group: i32,
    /// In clock ticks since the system was started.
    started: u64,
}

impl Process {
    pub(crate) fn of(pid: Pid) -> Option<Self> {
        Self::read(&entry(pid))
    }

    fn read(entry: &Path) -> Option<Self> {
        let stat = std::fs::read(entry.join("stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        // pid (name) state parent group ..., and 22nd the start. A name may have brackets.
        let mut words = stat.rsplit_once(") ")?.1.split(' ');
        let state = words.next()?.chars().next()?;
        let parent = words.next()?.parse().ok()?;
        let group = words.next()?.parse().ok()?;
        let started = words.nth(16)?.parse().ok()?;
        Some(Self { state, parent, group, started })
    }

    /// Whether it is one that is alive. Who is dead stays where nobody waits for it.
    const fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// By somebody, or because it wants something of the terminal.
    pub(crate) const fn is_stopped(&self) -> bool {
        self.state == 'T'
    }
}

/// Where the system tells of a process: where it tells of one of its threads that is alive, should the first
/// one have ended. That is dead from then on as far as the system tells, and has nothing open any more.
fn entry(pid: Pid) -> PathBuf {
    let whole = PathBuf::from(format!("/proc/{pid}"));
    let lives = |entry: &Path| Process::read(entry).is_some_and(|found| found.is_alive());
    if lives(&whole) {
        return whole;
    }
    let threads = std::fs::read_dir(whole.join("task")).into_iter().flatten().flatten();
    threads.map(|thread| thread.path()).find(|thread| lives(thread)).unwrap_or(whole)
}

/// Those that have started this one, directly or not, and are there.
pub(crate) fn ancestors() -> Vec<Pid> {
    let parent = |pid: &Pid| Process::of(*pid).and_then(|found| Pid::from_raw(found.parent));
    std::iter::successors(rustix::process::getppid(), parent).collect()
}

/// What this process has open.
pub(crate) fn own_files() -> HashSet<PathBuf> {
    open_files(getpid()).collect()
}

/// The numbers of all processes but this one.
pub(crate) fn all() -> impl Iterator<Item = Pid> {
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(move |pid| u32::try_from(*pid).is_ok_and(|pid| pid != own))
        .filter_map(Pid::from_raw)
}

/// A process group that is known again, though its leader may be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) leader: Pid,
    /// When the leader was started; `None` where that cannot be told.
    pub(crate) started: Option<u64>,
}

impl Group {
    /// That of a leader who has just been started and not been waited for.
    pub(crate) fn of(leader: Pid) -> Self {
        Self { leader, started: Process::of(leader).map(|leader| leader.started) }
    }

    /// Whether its number may be another one's by now. No process is given the number of a group that
    /// has members: so if there is another one with the number of the leader, this group had ended.
    pub(crate) fn is_another(&self) -> bool {
        let found = Process::of(self.leader);
        found.zip(self.started).is_some_and(|(found, started)| found.started != started)
    }

    /// Whether its leader, and no later process with that number, is alive.
    pub(crate) fn leader_lives(&self) -> bool {
        Process::of(self.leader).is_some_and(|leader| leader.is_alive()) && !self.is_another()
    }

    /// Whether any of its processes are there, dead or alive.
    pub(crate) fn is_there(&self) -> bool {
        test_kill_process_group(self.leader) != Err(Errno::SRCH) && !self.is_another()
    }

    /// Those of its processes that are alive.
    pub(crate) fn members(&self) -> Vec<Pid> {
        if !self.is_there() {
            return Vec::new();
        }
        let group = self.leader.as_raw_pid();
        let ours = |pid: &Pid| {
            Process::of(*pid).is_some_and(|found| found.group == group && found.is_alive())
        };
        let found: Vec<Pid> = all().filter(ours).collect();
        // Who has just been made may be in no look.
        if found.is_empty() { all().filter(ours).collect() } else { found }
    }
}

/// Those that have something open whose name, where the system lists what a process has open, is this.
pub(crate) fn holders(path: &Path) -> Vec<Pid> {
    all().filter(|pid| open_files(*pid).any(|open| open == path)).collect()
}

fn open_files(pid: Pid) -> impl Iterator<Item = PathBuf> {
    let open = std::fs::read_dir(entry(pid).join("fd")).into_iter().flatten().flatten();
    open.filter_map(|fd| std::fs::read_link(fd.path()).ok())
}

/// All processes that have one of something, by what they have. One look at each, however much is asked.
pub(crate) type By<K> = HashMap<K, Vec<Pid>>;

fn by<K: Eq + Hash, I: IntoIterator<Item = K>>(of: impl Fn(Pid) -> I) -> By<K> {
    let mut found = By::new();
    for pid in all() {
        for key in of(pid) {
            found.entry(key).or_default().push(pid);
        }
    }
    found
}

/// Those that are alive, by the number of their group.
pub(crate) fn by_group() -> By<i32> {
    by(|pid| Process::of(pid).filter(Process::is_alive).map(|found| found.group))
}

/// By the files of a directory that they have open.
pub(crate) fn by_open_file(directory: &Path) -> By<PathBuf> {
    by(|pid| open_files(pid).filter(|open| open.starts_with(directory)).collect::<HashSet<_>>())
}

/// Those that are alive, by a variable of their environment, as far as that may be read.
pub(crate) fn by_variable(name: &[u8]) -> By<Vec<u8>> {
    let look = || by_variable_now(name);
    let mut found = look();
    // Who has just been made may be in no look.
    for (value, pids) in look() {
        let known = found.entry(value).or_default();
        known.extend(pids);
        known.sort_unstable_by_key(|pid| pid.as_raw_pid());
        known.dedup();
    }
    found
}

fn by_variable_now(name: &[u8]) -> By<Vec<u8>> {
    by(|pid| {
        let environment = environment(pid);
        let value = |entry: &[u8]| entry.strip_prefix(name)?.strip_prefix(b"=").map(<[u8]>::to_vec);
        let values: HashSet<_> = environment.split(|byte| *byte == 0).filter_map(value).collect();
        let alive = !values.is_empty() && Process::of(pid).is_some_and(|found| found.is_alive());
        if alive { values } else { HashSet::new() }
    })
}

/// Empty while a process replaces itself by another program, so it is looked at some times; and for ever for
/// what is of the system itself, which is in no group.
fn environment(pid: Pid) -> Vec<u8> {
    const LOOKS: usize = 8;
    let may_have_one = || Process::of(pid).is_some_and(|found| found.group != 0);
    let look = || std::fs::read(entry(pid).join("environ")).unwrap_or_default();
    let found = look();
    if !found.is_empty() || !may_have_one() {
        return found;
    }
    std::iter::repeat_with(look).take(LOOKS).find(|found| !found.is_empty()).unwrap_or_default()
}

/// With their command lines, of a few; once each.
pub(crate) fn in_words(mut pids: Vec<Pid>) -> String {
    const TOLD: usize = 10;
    pids.sort_unstable_by_key(|pid| pid.as_raw_pid());
    pids.dedup();
    const LONG: usize = 200;
    let words = |pid: &Pid| {
        let words = std::fs::read(entry(*pid).join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        let (words, cut) = match words.trim_end().char_indices().nth(LONG) {
            Some((at, _)) => (words.get(..at).unwrap_or_default(), "..."),
            None => (words.trim_end(), ""),
        };
        format!("{pid} ({}{cut})", clean(words))
    };
    let found: Vec<String> = pids.iter().take(TOLD).map(words).collect();
    match pids.len() {
        0 => "of other users, or already gone".to_owned(),
        all if all > TOLD => format!("{} and {} more", found.join(", "), all - TOLD),
        _ => found.join(", "),
    }
}
