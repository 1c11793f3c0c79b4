//! A new ledger of an export: see `lines.rs` and `journal/fresh.rs`.
//!
//! ```text
//! line 1        -> the path taken, what a ledger is made of begun
//! tasks         -> entries of its checkpoint, one by one
//! tombstones    -> its tail
//! closing line  -> held against what was read; only then the manifest, which makes it a ledger
//! ```

use super::lines::{EndLine, FORMAT, Glimpse, LedgerLine, Line, MAX_LINE, VERSION};
use crate::AcceptLoss;
use crate::error::{CreateError, ImportError, JournalError};
use crate::id::{EncodedId, IdShape};
use crate::journal::chain::{Chain, LedgerId};
use crate::journal::checkpoint::{Checkpoint, CheckpointWriter, SummedUp};
use crate::journal::frame::MAX_RECORD;
use crate::journal::fresh::{Fresh, Origin};
use crate::journal::judge::Position;
use crate::journal::manifest::MAX_SHAPE_BYTES;
use crate::journal::{Entry, LedgerEvent, Record};
use crate::ledger::MAX_METADATA_ENTRY;
use crate::seal::Seal;
use crate::shared::{MAX_METADATA, RESERVED};
use crate::state::{Epoch, SeqNo, Timestamp, Tombstone};
use serde::de::{DeserializeOwned, IgnoredAny};
use std::collections::{BTreeMap, BinaryHeap};
use std::io::{BufRead, Read as _};
use std::path::Path;
use std::time::SystemTime;
use xxhash_rust::xxh3::Xxh3;

/// Positions that an imported ledger has left: more than it will ever use. One that had none would be
/// poisoned with its first record.
const ROOM: u64 = SeqNo::LAST / 4;

/// Tombstones that are held against all tasks at once, and positions that are sorted: 16 MB, however many
/// there are.
const AT_ONCE: usize = 1024 * 1024;

/// What was [imported](import).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// Tasks.
    pub tasks: u64,
    /// Successes of which only a tombstone is left.
    pub tombstones: u64,
    /// What was lost and accepted as lost, as it is recorded in the new ledger; `None` if nothing was.
    pub lost: Option<String>,
}

/// Makes a new ledger in the directory `path`, which is a new or an empty one, of an
/// [export](super::Inspection::export): every id with its state, its output, its times and its position,
/// every tombstone, metadata, epoch and identity are those of the ledger that was exported. It never adds
/// to a ledger that is there.
///
/// As with a [backup](crate::Ledger::backup), the new ledger is the same one to the world outside, and only
/// one of the two may go on being used.
///
/// An export that is not whole is refused, unless its loss is accepted: then what is there of it is
/// imported, and the loss is recorded. **A task whose success is missing may run again.** A line that says
/// what no ledger can hold is always refused; but ids are taken as the bytes that they are, and whether they
/// are of the id type shows only when the ledger is opened with it. Takes no more memory for a longer export.
///
/// # Durability
///
/// When it returns `Ok`, the ledger is on disk. Until then there is none at `path`: if the process dies in
/// it, opening what is left is refused as [`Unfinished`](crate::OpenError::Unfinished), and the next import
/// with the same path begins anew.
///
/// # Errors
///
/// [`ImportError`], with the number of the line where one is to blame. What has been made is removed.
///
/// # Examples
///
/// ```
/// # use taskledger::{AcceptLoss, ImportError};
/// # use taskledger::dump::import;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("ledger");
/// let refused = import(&b"a,b,c\n"[..], &path, AcceptLoss::No);
/// assert!(matches!(refused, Err(ImportError::NotAnExport(_))));
/// assert!(!path.exists());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn import(
    from: impl BufRead,
    path: impl AsRef<Path>,
    incomplete: AcceptLoss,
) -> Result<Imported, ImportError> {
    import_with(from, path, incomplete, || ())
}

/// As [`import`], telling of every task as it is read.
///
/// # Errors
///
/// As [`import`].
pub fn import_with(
    from: impl BufRead,
    path: impl AsRef<Path>,
    incomplete: AcceptLoss,
    mut step: impl FnMut(),
) -> Result<Imported, ImportError> {
    let mut lines = Lines { from, number: 0, line: Vec::new(), checksum: Xxh3::new() };
    let Begun { origin, epoch, metadata } = begin(&mut lines)?;
    // Only now: what is no export at all touches nothing.
    let fresh = Fresh::begin(path.as_ref())?;
    let writer = fresh.write_checkpoint(&origin).map_err(CreateError::from)?;
    let mut import = Import {
        lines,
        last: origin.end.seq,
        part: Part::Tasks { writer, last: None },
        epoch,
        metadata,
        imported: Imported::default(),
    };
    let lost = match import.run(&mut step)? {
        Ok(()) => None,
        Err(what) => match incomplete {
            AcceptLoss::No => return Err(ImportError::Incomplete(what)),
            AcceptLoss::Yes => Some(format!("imported from an export that is not whole: {what}")),
        },
    };
    let Import { part, epoch, metadata, mut imported, .. } = import;
    let end = origin.end.seq;
    let made = match part {
        Part::Tasks { writer, .. } => writer.sum_up(epoch, &metadata).and_then(SummedUp::end),
        Part::Tombstones { summed_up, .. } => summed_up.end(),
        Part::Between => Err(JournalError::Store("an import that has failed went on".into())),
    };
    // In the log before there is a ledger: there is none without the record of its loss.
    let record = lost.clone().map(|what| {
        let entry = Entry::Ledger(LedgerEvent::LossAccepted { what });
        Record { seq: end.next(), at: SystemTime::now().into(), entry }
    });
    let checkpoint = made.map_err(CreateError::from)?;
    checkpoint.check().map_err(CreateError::from)?;
    let beside = buried_alive(&checkpoint, &Seal::new(origin.ledger.0), AT_ONCE);
    if let Some(place) = beside.map_err(CreateError::from)? {
        // After the first line and the tasks.
        let line = 2 + imported.tasks + place;
        let what = "the tombstone of a task that is there as well".to_owned();
        return Err(ImportError::Line { line, what });
    }
    let shared = share_a_position(&checkpoint, AT_ONCE).map_err(CreateError::from)?;
    if let Some(place) = shared {
        let what = "its position is that of another task as well".to_owned();
        return Err(ImportError::Line { line: 2 + place, what });
    }
    drop(checkpoint);
    fresh.finish(&origin, record.as_slice()).map_err(CreateError::from)?;
    imported.lost = lost;
    Ok(imported)
}

/// Which of the tombstones is that of a task, of which there cannot be both: as soon as the task went, its
/// id would have succeeded. They are held against all tasks, so many at a time.
fn buried_alive(
    checkpoint: &Checkpoint,
    seal: &Seal,
    at_once: usize,
) -> Result<Option<u64>, JournalError> {
    let (mut tombstones, mut before) = (checkpoint.tombstones(), 0);
    loop {
        let mut some = Vec::new();
        while some.len() < at_once {
            let Some(tombstone) = tombstones.next()? else { break };
            some.push(tombstone);
        }
        if some.is_empty() {
            return Ok(None);
        }
        let mut tasks = checkpoint.entries();
        while let Some((id, _)) = tasks.next()? {
            // They ascend.
            if let Ok(place) = some.binary_search(&seal.tombstone(id.as_bytes())) {
                return Ok(Some(before + place as u64));
            }
        }
        before += some.len() as u64;
    }
}

/// Which of the tasks has the position of one before it: each is that of one record. The positions are sorted,
/// so many at a time, two at least.
fn share_a_position(checkpoint: &Checkpoint, at_once: usize) -> Result<Option<u64>, JournalError> {
    let mut from = SeqNo::ZERO;
    loop {
        let (mut lowest, mut more) = (BinaryHeap::new(), false);
        let (mut tasks, mut place) = (checkpoint.entries(), 0_u64);
        while let Some((_, details)) = tasks.next()? {
            if details.cell.seq >= from {
                lowest.push((details.cell.seq, place));
            }
            if lowest.len() > at_once {
                lowest.pop();
                more = true;
            }
            place += 1;
        }
        let lowest = lowest.into_sorted_vec();
        let shares = lowest.windows(2).find_map(|pair| match pair {
            [(one, _), (other, place)] if one == other => Some(*place),
            _ => None,
        });
        match lowest.last() {
            // Once more, since the next one may be the same.
            Some((last, _)) if more && shares.is_none() => from = *last,
            Some(_) | None => return Ok(shares),
        }
    }
}

/// What the first line says.
struct Begun {
    origin: Origin,
    epoch: Epoch,
    metadata: BTreeMap<String, Vec<u8>>,
}

fn begin(lines: &mut Lines<impl BufRead>) -> Result<Begun, ImportError> {
    let no_export = |what: &str| ImportError::NotAnExport(what.to_owned());
    if !lines.next()? {
        return Err(no_export("it is empty"));
    }
    let Glimpse { ledger } =
        lines.parse().map_err(|_| no_export("its first line is of no ledger"))?;
    if ledger.format != FORMAT {
        return Err(ImportError::NotAnExport(format!("its format is {:?}", ledger.format)));
    }
    if ledger.version > VERSION {
        return Err(ImportError::Newer { found: ledger.version, supported: VERSION });
    }
    if ledger.version == 0 {
        return Err(lines.wrong("there is no format version 0"));
    }
    match lines.parse().map_err(|what| lines.wrong(what))? {
        Line::Ledger::<IgnoredAny, IgnoredAny>(line) => {
            begun(*line).map_err(|what| lines.wrong(what))
        }
        Line::Task(_) | Line::Tombstone(_) | Line::End(_) => {
            Err(no_export("its first line is of no ledger"))
        }
    }
}

fn begun(line: LedgerLine<IgnoredAny>) -> Result<Begun, String> {
    let (last_seq, chain) = (SeqNo::new(line.last_seq), Chain(line.chain.number()));
    if line.last_seq >= SeqNo::LAST {
        return Err("its last position is beyond all that there are".to_owned());
    }
    if line.last_seq > SeqNo::LAST - ROOM {
        return Err("its last position leaves no room for what is to come".to_owned());
    }
    if last_seq == SeqNo::ZERO && chain != Chain::START {
        return Err("a ledger without records has the chain 0".to_owned());
    }
    if line.epoch > line.last_seq {
        return Err("there were more opens than records, of which each has one".to_owned());
    }
    let shape = line.id_type.0;
    if shape.len() > MAX_SHAPE_BYTES {
        return Err(format!("the description of the id type has {} bytes", shape.len()));
    }
    IdShape::from_bytes(&shape)
        .map_err(|what| format!("the description of the id type: {what}"))?;
    let (mut metadata, mut total) = (BTreeMap::new(), 0);
    for pair in line.metadata {
        let (name, value) = (pair.name, pair.value.0);
        let size = name.len() + value.len();
        let own = name.starts_with(RESERVED);
        if size > if own { MAX_RECORD } else { MAX_METADATA_ENTRY } {
            return Err(format!("the metadata {name:?} has {size} bytes with its value"));
        }
        total += if own { 0 } else { size };
        if total > MAX_METADATA {
            return Err(format!("the metadata has more than {MAX_METADATA} bytes"));
        }
        if metadata.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return Err(format!("the metadata {name:?} is out of order"));
        }
        metadata.insert(name, value);
    }
    let origin = Origin {
        ledger: LedgerId(line.ledger.array()),
        created_at: Timestamp::from_micros(line.created_at),
        shape,
        end: Position { seq: last_seq, chain },
    };
    Ok(Begun { origin, epoch: Epoch::new(line.epoch), metadata })
}

/// What has been read so far.
struct Import<R> {
    lines: Lines<R>,
    /// The last record of the ledger.
    last: SeqNo,
    part: Part,
    epoch: Epoch,
    metadata: BTreeMap<String, Vec<u8>>,
    imported: Imported,
}

/// What the last line was, and what is being written.
enum Part {
    Tasks {
        writer: CheckpointWriter,
        last: Option<EncodedId>,
    },
    Tombstones {
        summed_up: SummedUp,
        last: Tombstone,
    },
    /// On the way from one to the other, or failed on it.
    Between,
}

const ORDER: &str = "lines stay in the order in which they were exported";

impl<R: BufRead> Import<R> {
    /// Reads to the end. The inner error says why it is not whole.
    fn run(&mut self, step: &mut dyn FnMut()) -> Result<Result<(), String>, ImportError> {
        loop {
            let before = self.lines.checksum.digest();
            if !self.lines.next()? {
                return Ok(Err("it has no closing line, so its end is missing".to_owned()));
            }
            let line = match self.lines.parse::<Line<IgnoredAny, IgnoredAny>>() {
                Ok(line) => line,
                // Whoever writes lines ends each with a newline.
                Err(_) if self.lines.is_cut_off() => {
                    let number = self.lines.number;
                    return Ok(Err(format!("it is cut off in line {number}")));
                }
                Err(what) => return Err(self.lines.wrong(what)),
            };
            match line {
                Line::Ledger(_) => {
                    return Err(self.lines.wrong("another ledger begins; one import makes one"));
                }
                Line::Task(line) => {
                    let task = line.read(self.last).map_err(|what| self.lines.wrong(what))?;
                    self.task(task)?;
                    step();
                }
                Line::Tombstone(hash) => self.tombstone(Tombstone::from_bytes(hash.array()))?,
                Line::End(end) => {
                    let whole = self.end(&end, before);
                    if self.lines.next()? {
                        return Err(self.lines.wrong("something follows the closing line"));
                    }
                    return Ok(whole);
                }
            }
        }
    }

    fn task(
        &mut self,
        (id, details): (EncodedId, crate::details::TaskDetails),
    ) -> Result<(), ImportError> {
        let Part::Tasks { writer, last } = &mut self.part else {
            return Err(self.lines.wrong(format!("a task after the tombstones; {ORDER}")));
        };
        if last.as_ref().is_some_and(|last| *last >= id) {
            return Err(self
                .lines
                .wrong(format!("its id does not follow the one before; {ORDER}")));
        }
        match writer.push(&id, &details) {
            // What it does not take is no failure of the disk.
            Err(JournalError::Store(what)) => return Err(self.lines.wrong(what)),
            pushed => pushed.map_err(CreateError::from)?,
        }
        *last = Some(id);
        self.imported.tasks += 1;
        Ok(())
    }

    fn tombstone(&mut self, tombstone: Tombstone) -> Result<(), ImportError> {
        let mut summed_up = match std::mem::replace(&mut self.part, Part::Between) {
            Part::Tombstones { last, .. } if last >= tombstone => {
                return Err(self
                    .lines
                    .wrong(format!("it does not follow the one before; {ORDER}")));
            }
            Part::Tombstones { summed_up, .. } => summed_up,
            Part::Tasks { writer, .. } => {
                writer.sum_up(self.epoch, &self.metadata).map_err(CreateError::from)?
            }
            Part::Between => return Ok(()),
        };
        summed_up.bury(tombstone).map_err(CreateError::from)?;
        self.part = Part::Tombstones { summed_up, last: tombstone };
        self.imported.tombstones += 1;
        Ok(())
    }

    /// Whether the closing line is that of what was read; `before` is the checksum of that.
    fn end(&self, end: &EndLine, before: u64) -> Result<(), String> {
        let Imported { tasks, tombstones, .. } = self.imported;
        if (end.tasks, end.tombstones) != (tasks, tombstones) {
            return Err(format!(
                "its closing line counts {} tasks and {} tombstones, but there are {tasks} and {tombstones}",
                end.tasks, end.tombstones
            ));
        }
        if end.checksum.number() != before {
            return Err(
                "its checksum is wrong: something was changed after it was written".to_owned()
            );
        }
        match end.missing.as_slice() {
            [] => Ok(()),
            [first, rest @ ..] => {
                let more = if rest.is_empty() { "" } else { ", and more" };
                let first: String = first.chars().take(1000).collect();
                Err(format!("it was made of a damaged ledger ({first}{more})"))
            }
        }
    }
}

/// The lines of an export, one at a time.
struct Lines<R> {
    from: R,
    /// Of the line that was read last, from 1.
    number: u64,
    line: Vec<u8>,
    /// Of all that was read.
    checksum: Xxh3,
}

impl<R: BufRead> Lines<R> {
    /// Reads the next line; `false` if there is none. A line that is too long takes no more memory.
    fn next(&mut self) -> Result<bool, ImportError> {
        self.line.clear();
        let limit = MAX_LINE as u64 + 1;
        let mut from = self.from.by_ref().take(limit);
        from.read_until(b'\n', &mut self.line).map_err(ImportError::Read)?;
        self.number += 1;
        if self.line.len() > MAX_LINE {
            return Err(self.wrong(format!("it is longer than {MAX_LINE} bytes")));
        }
        self.checksum.update(&self.line);
        Ok(!self.line.is_empty())
    }

    /// What the line says, or what is wrong with it.
    fn parse<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.line).map_err(|error| {
            // It was read as a text of one line.
            let text = error.to_string();
            let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
            format!("{what} (column {})", error.column())
        })
    }

    /// Whether the line does not end as lines do.
    fn is_cut_off(&self) -> bool {
        !self.line.ends_with(b"\n")
    }

    fn wrong(&self, what: impl Into<String>) -> ImportError {
        ImportError::Line { line: self.number, what: what.into() }
    }
}

#[cfg(test)]
mod tests;
