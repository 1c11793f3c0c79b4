//! The directory of a ledger: its names, and what a path holds before anything is touched.
//!
//! ```text
//! lock            who holds it                       lock.rs
//! manifest        what belongs to the ledger         manifest.rs
//! witness         last durable position              witness.rs
//! ballast         space kept back                    ballast.rs
//! log-<N>         a log, N = 1, 2, ...               a sled directory
//! checkpoint-<N>  a checkpoint, N as above           a file
//! damaged         what an accepted loss put aside    a directory
//! copying         a copy is being made here          fresh.rs
//! commands        what `map` and `exec` run here     a directory of the command's
//! <one of these>.tmp    not finished
//! ```
//!
//! N is decimal without leading zeros. Other names are not ours; beside a manifest they are left
//! alone. `lost+found`, which the root of a file system has, is as if it were not there.
//!
//! A directory is a ledger if and only if it has a manifest (sound or not: that is judged later).
//! A creation writes the manifest last, so one that died has none. What is found without one is
//! such a leftover if and only if it has no other names than ours, no checkpoint and nothing put
//! aside, a witness at position 0 or none, and no log that holds a frame. Anything more was a
//! ledger that has lost its manifest: damage. Unless there is `copying`: then a backup or an import was
//! to be made here, which has a checkpoint and a witness before it has its manifest, and died. It is no
//! ledger, and never was one; only the next backup or import goes on there.
//!
//! Removing leftovers may die on any line: the rest is removed by the next open.

use super::manifest::Manifest;
use super::{ballast, files, fresh, lock, manifest, witness};
use crate::error::{Damage, JournalError, OpenError};
use crate::held::shown;
use rustix::fs::Access as Permission;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

/// Where an accepted loss puts the damaged files.
pub(crate) const DAMAGED: &str = "damaged";

/// Says that a copy of a ledger is being made. Beside a manifest it is a leftover.
pub(crate) const COPYING: &str = "copying";

/// Where the command notes what it runs: all commands in one file, once, and now each in one of its own.
const COMMANDS: [&str; 2] = ["commands", "commands.lock"];

const LOST_AND_FOUND: &str = "lost+found";

/// The name of log number `number`.
pub(crate) fn log_dir(number: u64) -> String {
    format!("log-{number}")
}

/// The name of checkpoint number `number`.
pub(crate) fn checkpoint(number: u64) -> String {
    format!("checkpoint-{number}")
}

/// What a name in the directory of a ledger means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// Who holds it.
    Lock,
    /// What belongs to the ledger.
    Manifest,
    /// The last durable position.
    Witness,
    /// Space kept back.
    Ballast,
    /// A log.
    Log(u64),
    /// A checkpoint.
    Checkpoint(u64),
    /// What an accepted loss put aside.
    Damaged,
    /// A copy is being made.
    Copying,
    /// What the command runs.
    Commands,
    /// One of the above that was never finished.
    Unfinished,
    /// Not one of ours.
    Unknown,
}

impl Name {
    /// What this name means.
    pub(crate) fn of(name: &OsStr) -> Self {
        let Some(name) = name.to_str() else { return Self::Unknown };
        let whole = name.strip_suffix(files::UNFINISHED).unwrap_or(name);
        // A fold of a long log goes in parts.
        let part = whole.split_once(".part-").filter(|(_, part)| number(part).is_some());
        let whole = part.map_or(whole, |(whole, _)| whole);
        let found = Self::finished(whole);
        if whole == name || found == Self::Unknown { found } else { Self::Unfinished }
    }

    fn finished(name: &str) -> Self {
        let number = |prefix: &str| name.strip_prefix(prefix).and_then(number);
        match name {
            lock::NAME => Self::Lock,
            manifest::NAME => Self::Manifest,
            witness::NAME => Self::Witness,
            ballast::NAME => Self::Ballast,
            DAMAGED => Self::Damaged,
            COPYING => Self::Copying,
            _ if COMMANDS.contains(&name) => Self::Commands,
            _ => number("log-")
                .map(Self::Log)
                .or_else(|| number("checkpoint-").map(Self::Checkpoint))
                .unwrap_or(Self::Unknown),
        }
    }
}

/// Only what [`log_dir`] and [`checkpoint`] write: one number has one name.
fn number(digits: &str) -> Option<u64> {
    let number = digits.parse().ok().filter(|&number: &u64| number > 0)?;
    (number.to_string() == digits).then_some(number)
}

/// What the caller is going to do with the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Only look.
    Read,
    /// Open or create a ledger.
    Write,
}

/// What a path holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing: it can be created.
    Missing,
    /// An empty directory.
    Empty,
    /// What a creation left that died before its manifest was written.
    LeftoversOfCreation,
    /// What a backup or an import left that died before its manifest was written.
    LeftoversOfCopy,
    /// A directory with a manifest.
    Ledger,
}

/// Judges what `path` holds. Changes nothing. Since nothing is locked yet, another process may
/// change it at the same time: judge again once the lock is held.
///
/// `has_frames` tells whether the log in this directory holds a valid frame, of whichever ledger:
/// without a manifest nobody knows which one it would be.
///
/// # Errors
///
/// `NotADirectory`; `Io` when it cannot be read or, for [`Access::Write`], written to;
/// `NotALedger` when it holds something else; `Damaged` when it was a ledger and its manifest is
/// missing.
pub(crate) fn judge(
    path: &Path,
    access: Access,
    has_frames: impl Fn(&Path) -> Result<bool, JournalError>,
) -> Result<Found, OpenError> {
    match path.metadata() {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(OpenError::NotADirectory { path: shown(path) }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
        Err(error) => return Err(JournalError::io("look at", path)(error).into()),
    }
    let may = |permission, action| {
        rustix::fs::access(path, permission).map_err(JournalError::io(action, path))
    };
    may(Permission::READ_OK | Permission::EXEC_OK, "read")?;
    match access {
        Access::Read => {}
        Access::Write => may(Permission::WRITE_OK, "write to")?,
    }
    let names = list(path)?;
    if names.is_empty() {
        return Ok(Found::Empty);
    }
    if names.iter().any(|(_, name)| *name == Name::Manifest) {
        return Ok(Found::Ledger);
    }
    let foreign = || {
        let (name, _) = names.iter().find(|(_, name)| *name == Name::Unknown)?;
        let found = name.to_string_lossy().into_owned();
        Some(OpenError::NotALedger { path: shown(path), found })
    };
    if names.iter().any(|(_, name)| *name == Name::Copying) && fresh::is_marked(path)? {
        return foreign().map_or(Ok(Found::LeftoversOfCopy), Err);
    }
    if let Some(what) = evidence(path, &names, has_frames)? {
        return Err(OpenError::Damaged(Damage {
            place: manifest::NAME.to_owned(),
            what: format!("it is missing, but {what}"),
            lost: None,
        }));
    }
    foreign().map_or(Ok(Found::LeftoversOfCreation), Err)
}

/// What tells that this directory without a manifest was a ledger.
fn evidence(
    path: &Path,
    names: &[(OsString, Name)],
    has_frames: impl Fn(&Path) -> Result<bool, JournalError>,
) -> Result<Option<String>, JournalError> {
    for (name, meaning) in names {
        let name = name.to_string_lossy();
        let what = match meaning {
            Name::Checkpoint(_) => Some(format!("there is {name}")),
            Name::Damaged => Some(format!("{name} shows that a loss was accepted here before")),
            Name::Log(_) => {
                has_frames(&path.join(name.as_ref()))?.then(|| format!("{name} holds records"))
            }
            Name::Witness => match witness::glimpse(path)? {
                witness::Glimpse::At(seq) if seq == crate::state::SeqNo::ZERO => None,
                witness::Glimpse::At(seq) => Some(format!("the witness has seen record {seq}")),
                // A witness gets its name only when it is whole.
                witness::Glimpse::Damaged => Some("the witness is damaged as well".to_owned()),
                witness::Glimpse::Missing => None,
            },
            Name::Lock
            | Name::Manifest
            | Name::Ballast
            | Name::Copying
            | Name::Commands
            | Name::Unfinished
            | Name::Unknown => None,
        };
        if what.is_some() {
            return Ok(what);
        }
    }
    Ok(None)
}

/// Removes what a creation left that died: everything of ours but the lock. Only for
/// [`Found::LeftoversOfCreation`], judged under the lock.
pub(crate) fn remove_leftovers_of_creation(dir: &Path) -> Result<Vec<String>, JournalError> {
    remove_where(dir, |name| match name {
        Name::Witness | Name::Ballast | Name::Log(_) | Name::Unfinished => true,
        Name::Lock
        | Name::Manifest
        | Name::Checkpoint(_)
        | Name::Damaged
        | Name::Copying
        | Name::Commands
        | Name::Unknown => false,
    })
}

/// Removes what a backup or an import left that died: everything of ours but the lock, and `copying`
/// itself, without which the rest would be a ledger that has lost its manifest. Only for
/// [`Found::LeftoversOfCopy`], judged under the lock.
pub(crate) fn remove_leftovers_of_copy(dir: &Path) -> Result<Vec<String>, JournalError> {
    remove_where(dir, |name| match name {
        Name::Witness | Name::Ballast | Name::Log(_) | Name::Checkpoint(_) | Name::Unfinished => {
            true
        }
        Name::Lock
        | Name::Manifest
        | Name::Damaged
        | Name::Copying
        | Name::Commands
        | Name::Unknown => false,
    })
}

/// Removes what is not finished, and the logs and checkpoints that the manifest does not name.
/// Tells their names.
pub(crate) fn remove_leftovers(
    dir: &Path,
    manifest: &Manifest,
) -> Result<Vec<String>, JournalError> {
    remove_where(dir, |name| match name {
        Name::Log(number) => manifest.logs.iter().all(|log| log.number != number),
        Name::Checkpoint(number) => {
            manifest.checkpoint.is_none_or(|checkpoint| checkpoint.number != number)
        }
        Name::Copying | Name::Unfinished => true,
        Name::Lock
        | Name::Manifest
        | Name::Witness
        | Name::Ballast
        | Name::Damaged
        | Name::Commands
        | Name::Unknown => false,
    })
}

/// Removes what is not finished.
pub(crate) fn remove_unfinished(dir: &Path) -> Result<Vec<String>, JournalError> {
    remove_where(dir, |name| name == Name::Unfinished)
}

/// What is there of the ledger beside the files that have only one name: the numbers of the logs
/// and of the checkpoints, ascending, whether the manifest names them or not.
pub(crate) fn numbered(dir: &Path) -> Result<(Vec<u64>, Vec<u64>), JournalError> {
    let (mut logs, mut checkpoints) = (Vec::new(), Vec::new());
    for (_, name) in list(dir)? {
        match name {
            Name::Log(number) => logs.push(number),
            Name::Checkpoint(number) => checkpoints.push(number),
            Name::Lock
            | Name::Manifest
            | Name::Witness
            | Name::Ballast
            | Name::Damaged
            | Name::Copying
            | Name::Commands
            | Name::Unfinished
            | Name::Unknown => {}
        }
    }
    logs.sort_unstable();
    checkpoints.sort_unstable();
    Ok((logs, checkpoints))
}

fn remove_where(dir: &Path, unwanted: impl Fn(Name) -> bool) -> Result<Vec<String>, JournalError> {
    let mut removed = Vec::new();
    for (name, _) in list(dir)?.into_iter().filter(|&(_, name)| unwanted(name)) {
        files::remove(&dir.join(&name))?;
        removed.push(name.to_string_lossy().into_owned());
    }
    Ok(removed)
}

/// The names in the directory and what they mean, sorted.
pub(crate) fn list(dir: &Path) -> Result<Vec<(OsString, Name)>, JournalError> {
    let mut names = std::fs::read_dir(dir)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<io::Result<Vec<_>>>()
        })
        .map_err(JournalError::io("read", dir))?;
    names.retain(|name| name != LOST_AND_FOUND);
    names.sort_unstable();
    Ok(names
        .into_iter()
        .map(|name| {
            let meaning = Name::of(&name);
            (name, meaning)
        })
        .collect())
}

#[cfg(test)]
mod tests;
