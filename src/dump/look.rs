//! Finding out what is there, under the shared lock.

use super::{FileSize, ID_SHAPE_NAME, Inspection, LogFrames, Source};
use crate::error::{Damage, JournalError, OpenError};
use crate::held::{HeldPath, shown};
use crate::id::IdShape;
use crate::journal::checkpoint::{Checkpoint, Salvage};
use crate::journal::directory::{self, Access, DAMAGED, Found, Name};
use crate::journal::judge::{self, Position, Scanned, judge};
use crate::journal::lock::{DirLock, SharedLock};
use crate::journal::manifest::{self, CheckpointRef, Judged, Manifest};
use crate::journal::migrate::FORMAT_VERSION;
use crate::journal::open::has_frames;
use crate::journal::sled::data_file;
use crate::journal::{aside, rescue, salvage, witness};
use std::io;
use std::path::Path;

/// Frames up to this many bytes are read while the lock is held, so that it can be freed: once the
/// ledger is open, its store may write over them. With more, the lock is kept.
const KEEP_IN_MEMORY: u64 = 128 * 1024 * 1024;

pub(super) fn open(path: &Path) -> Result<Inspection, OpenError> {
    if path.metadata().is_ok_and(|found| !found.is_dir()) {
        return Err(OpenError::NotADirectory { path: path.to_owned() });
    }
    // What is not there is told of below.
    let dir = HeldPath::open(path).unwrap_or_else(|_| HeldPath::by_name(path));
    let lock = DirLock::acquire_shared(&dir)?;
    let (manifest, mut damage) = read_manifest(&dir)?;
    let mut look = Look { path: &dir, manifest: &manifest, damage: &mut damage, notes: Vec::new() };
    if matches!(lock, SharedLock::NoLockFile) {
        look.notes.push("there is no lock file: a copy, or one that nobody has opened".to_owned());
    }
    let source = look.source()?;
    let (mut logs, [end, numbered]) = look.logs()?;
    look.blobs()?;
    let (files, notes) = (look.files()?, look.notes);
    let total: u64 = logs.iter().map(|log| log.scan.frame_bytes()).sum();
    let lock = if total <= KEEP_IN_MEMORY {
        for log in &mut logs {
            log.scan.load(total)?;
        }
        drop(lock);
        None
    } else {
        Some(lock)
    };
    let shape = IdShape::from_bytes(&manifest.shape).unwrap_or_else(|what| {
        damage.push(found(manifest::NAME, format!("the description of the id type: {what}")));
        IdShape::default()
    });
    let path = path.to_owned();
    let mut inspection = Inspection {
        path,
        manifest,
        shape,
        source,
        logs,
        end,
        numbered,
        damage,
        notes,
        files,
        lock,
    };
    if inspection.shape.is_opaque() {
        let (base, _) = inspection.whole();
        let learned = base.metadata.get(ID_SHAPE_NAME);
        inspection.shape =
            learned.and_then(|bytes| IdShape::from_bytes(bytes).ok()).unwrap_or_default();
    }
    Ok(inspection)
}

/// The manifest, made up from the other files where it is damaged.
fn read_manifest(path: &Path) -> Result<(Manifest, Vec<Damage>), OpenError> {
    let nothing = |what: &str| OpenError::Io {
        action: "find a ledger at",
        path: shown(path),
        source: io::Error::new(io::ErrorKind::NotFound, what.to_owned()),
    };
    let damage = match directory::judge(path, Access::Read, has_frames) {
        Ok(Found::Ledger) => None,
        Ok(Found::Missing) => return Err(nothing("there is no such file or directory")),
        Ok(Found::Empty) => return Err(nothing("the directory is empty")),
        Ok(Found::LeftoversOfCreation) => {
            return Err(nothing("it was never finished: its creation was interrupted"));
        }
        Ok(Found::LeftoversOfCopy) => return Err(OpenError::Unfinished { path: shown(path) }),
        Err(OpenError::Damaged(damage)) => Some(damage),
        Err(error) => return Err(error),
    };
    let damage = match (damage, Manifest::read(path)?) {
        (None, Judged::Current(manifest)) => {
            let unfinished = aside::of_this_repair(path)?;
            let begun = unfinished.then(|| found(DAMAGED, aside::UNFINISHED_REPAIR));
            return Ok((manifest, begun.into_iter().collect()));
        }
        (_, Judged::Newer(found)) => {
            let (path, supported) = (shown(path), FORMAT_VERSION);
            return Err(OpenError::Newer { path, found, supported });
        }
        // What it has is read as it is: nothing that is in it has changed since.
        (None, Judged::Older(1, body)) => match Manifest::from_body(&body) {
            Ok(manifest) => return Ok((manifest, Vec::new())),
            Err(what) => found(manifest::NAME, what),
        },
        (_, Judged::Older(version, _)) => {
            return Err(OpenError::Journal(JournalError::Store(format!(
                "it has format version {version}, which is read only by opening it, and that migrates it to {FORMAT_VERSION}"
            ))));
        }
        (Some(damage), _) => damage,
        (None, Judged::Missing) => found(manifest::NAME, "it is missing"),
        (None, Judged::Damaged(what)) => found(manifest::NAME, what),
    };
    match salvage::reconstruct(path)? {
        Some(manifest) => Ok((manifest, vec![damage])),
        None => Err(OpenError::Damaged(damage)),
    }
}

struct Look<'a> {
    path: &'a Path,
    manifest: &'a Manifest,
    damage: &'a mut Vec<Damage>,
    notes: Vec<String>,
}

impl Look<'_> {
    /// The checkpoint, or what is whole of it.
    fn source(&mut self) -> Result<Source, JournalError> {
        let Some(CheckpointRef { number, last_seq, chain }) = self.manifest.checkpoint else {
            return Ok(Source::Nothing);
        };
        let name = directory::checkpoint(number);
        let path = self.path.join(&name);
        if !there(&path)? {
            self.damage.push(found(&name, "it is missing"));
            return Ok(Source::Nothing);
        }
        let ledger = self.manifest.ledger;
        let sound = Checkpoint::open(&path, ledger, last_seq, chain)
            .and_then(|checkpoint| checkpoint.check().map(|()| checkpoint));
        match sound {
            Ok(checkpoint) => return Ok(Source::Checkpoint(checkpoint)),
            Err(error) => self.told(error)?,
        }
        match Salvage::open(&path, ledger, last_seq) {
            Ok(salvage) => Ok(Source::Salvaged(salvage)),
            Err(error) => self.told(error).map(|()| Source::Nothing),
        }
    }

    /// The logs, where they end, and up to where positions have been used.
    fn logs(&mut self) -> Result<(Vec<LogFrames>, [Position; 2]), JournalError> {
        let base = self
            .manifest
            .checkpoint
            .map_or(Position::START, |at| Position { seq: at.last_seq, chain: at.chain });
        let mut scanned = Vec::new();
        for log in &self.manifest.logs {
            let name = directory::log_dir(log.number);
            let file = data_file(&self.path.join(&name));
            if !there(&file)? {
                self.damage.push(found(&name, "it is missing, or part of it"));
                continue;
            }
            let scan = rescue::scan_log(&self.path.join(&name), self.manifest.ledger, base.seq)?;
            if scan.of_others > 0 {
                let foreign = scan.of_others;
                self.notes.push(format!("{name} holds {foreign} frames of other ledgers"));
            }
            scanned.push(Scanned { name, scan });
        }
        let witnessed = match witness::peek(self.path, self.manifest.ledger) {
            Ok((seq, chain)) => Position { seq, chain },
            Err(error) => {
                self.told(error)?;
                base
            }
        };
        let frames = match judge(base, &scanned, witnessed) {
            Ok(whole) => {
                let frames = whole.runs.into_iter().map(|run| run.frames);
                return Ok((with_frames(scanned, frames), [whole.end; 2]));
            }
            Err(damage) => {
                self.damage.push(damage);
                judge::salvage(base, scanned.iter().map(|log| &log.scan))
            }
        };
        let (frames, end) = frames;
        // As a repair goes on: numbers that were acknowledged are not used again.
        let further = |a: Position, b: Position| if b.seq > a.seq { b } else { a };
        let numbered = further(further(end, witnessed), base);
        Ok((with_frames(scanned, frames.into_iter()), [end, numbered]))
    }

    /// The store puts there what it never syncs, and must never have a reason to.
    fn blobs(&mut self) -> Result<(), JournalError> {
        for log in &self.manifest.logs {
            let name = directory::log_dir(log.number);
            let path = self.path.join(&name).join("blobs");
            let count = match std::fs::read_dir(&path) {
                Ok(entries) => entries.count(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                Err(error) => return Err(JournalError::io("read", &path)(error)),
            };
            if count > 0 {
                let what = format!("it holds {count} files, which are not known to be durable");
                self.damage.push(found(&format!("{name}/blobs"), what));
            }
        }
        Ok(())
    }

    /// What everything takes on disk; says which names are not of this ledger.
    fn files(&mut self) -> Result<Vec<FileSize>, JournalError> {
        let mut files = Vec::new();
        for (name, meaning) in directory::list(self.path)? {
            let bytes = size(&self.path.join(&name))?;
            let name = name.as_encoded_bytes().escape_ascii().to_string();
            if let Some(note) = self.note(&name, meaning) {
                self.notes.push(note);
            }
            files.push(FileSize { name, bytes });
        }
        Ok(files)
    }

    fn note(&self, name: &str, meaning: Name) -> Option<String> {
        let leftover = match meaning {
            Name::Log(number) => self.manifest.logs.iter().all(|log| log.number != number),
            Name::Checkpoint(number) => {
                self.manifest.checkpoint.is_none_or(|checkpoint| checkpoint.number != number)
            }
            Name::Copying | Name::Unfinished => true,
            Name::Damaged => {
                return Some(format!("{name} holds what an accepted loss put aside"));
            }
            Name::Unknown => return Some(format!("{name} is not known, and left alone")),
            Name::Lock | Name::Manifest | Name::Witness | Name::Ballast | Name::Commands => false,
        };
        leftover.then(|| format!("{name} is a leftover, which the next open removes"))
    }

    /// Damage is told of and no reason to stop; anything else is.
    fn told(&mut self, error: JournalError) -> Result<(), JournalError> {
        match error {
            JournalError::Damaged(damage) => {
                self.damage.push(damage);
                Ok(())
            }
            JournalError::Io { .. }
            | JournalError::Illegal { .. }
            | JournalError::Store(_)
            | JournalError::Panicked(_)
            | JournalError::UsedUp
            | JournalError::Moved { .. } => Err(error),
        }
    }
}

fn with_frames(scanned: Vec<Scanned>, frames: impl Iterator<Item = Vec<usize>>) -> Vec<LogFrames> {
    let logs = scanned.into_iter().zip(frames);
    logs.map(|(Scanned { name, scan }, frames)| LogFrames { name, scan, frames }).collect()
}

fn found(place: &str, what: impl Into<String>) -> Damage {
    Damage { place: place.to_owned(), what: what.into(), lost: None }
}

fn there(path: &Path) -> Result<bool, JournalError> {
    path.try_exists().map_err(JournalError::io("look at", path))
}

/// Bytes of a file, or of all files below a directory. What vanishes meanwhile has none.
fn size(path: &Path) -> Result<u64, JournalError> {
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(JournalError::io("look at", path)(error)),
    };
    if !found.is_dir() {
        return Ok(found.len());
    }
    let mut bytes = 0;
    for entry in std::fs::read_dir(path).map_err(JournalError::io("read", path))? {
        bytes += size(&entry.map_err(JournalError::io("read", path))?.path())?;
    }
    Ok(bytes)
}
