//! Tasks and records of an [`Inspection`], one after the other.

use super::{Inspection, Source};
use crate::details::TaskDetails;
use crate::error::JournalError;
use crate::id::EncodedId;
use crate::journal::merge::{Changes, Known, Merge, Told};
use crate::journal::scan::Reader;
use crate::journal::{Entry, Record};
use crate::state::{SeqNo, TaskState, Timestamp};
use std::collections::VecDeque;

/// Memory for the records of the log that are merged at a time.
const WINDOW: usize = 64 * 1024 * 1024;

/// Which tasks are wanted. The default wants all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "it is written out by callers, with `..default()`")]
pub struct Filter {
    /// In one of these states; any, if there are none.
    pub states: Vec<TaskState>,
    /// Whose id, as [text](Inspection::id_text), begins with this.
    pub prefix: Option<String>,
    /// Whose [last change](last_change) is not before this.
    pub since: Option<Timestamp>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// All that is known of one id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct History {
    /// What is known of it now.
    pub details: TaskDetails,
    /// What the checkpoint says of it: all that is left of what came before the records.
    pub checkpoint: Option<TaskDetails>,
    /// Its records after the checkpoint, in order.
    pub records: Vec<Record>,
    /// What could not be read, a line each.
    pub errors: Vec<String>,
}

/// When something was last recorded of a task with a time: it was queued, it started or ended, or
/// a revoke of it started.
#[must_use]
pub fn last_change(details: &TaskDetails) -> Option<Timestamp> {
    let TaskDetails { queued_at, started_at, ended_at, revoke_started_at, .. } = details;
    [queued_at, started_at, ended_at, revoke_started_at].into_iter().flatten().max().copied()
}

impl Inspection {
    /// Every task, ascending by the bytes of its id: what the checkpoint says, merged with the
    /// records after it. Takes memory for at most 64 MiB of records at a time.
    ///
    /// What cannot be read is an error among the tasks; the next ones follow all the same. A
    /// record that cannot follow is such an error as well, and is then believed.
    #[must_use]
    pub fn tasks(&self) -> Tasks<'_> {
        self.tasks_within(WINDOW)
    }

    pub(super) fn tasks_within(&self, memory: usize) -> Tasks<'_> {
        let known = match &self.source {
            Source::Nothing => Known::Nothing,
            Source::Checkpoint(checkpoint) => Known::Checkpoint(Box::new(checkpoint.entries())),
            Source::Salvaged(salvage) => Known::Salvaged(salvage.entries()),
        };
        let mut tasks = Tasks {
            inspection: self,
            memory,
            merge: Merge::new(known, Changes::default()),
            end: None,
            ready: VecDeque::new(),
            first: true,
        };
        let changes = tasks.gather(None);
        tasks.merge.load(changes);
        tasks
    }

    /// The tasks that `filter` wants. Errors pass it.
    #[must_use]
    pub fn select(&self, filter: &Filter) -> Selected<'_> {
        Selected { tasks: self.tasks(), left: filter.limit, filter: filter.clone() }
    }

    /// All that is known of one id; `None` if nothing is.
    ///
    /// # Errors
    ///
    /// [`JournalError`] when the checkpoint cannot be read.
    pub fn task(&self, id: &EncodedId) -> Result<Option<History>, JournalError> {
        let mut errors = Vec::new();
        let checkpoint = match &self.source {
            Source::Nothing => None,
            Source::Checkpoint(checkpoint) => checkpoint.get(id)?,
            Source::Salvaged(salvage) => {
                let mut entries = salvage.entries();
                loop {
                    match entries.next() {
                        Ok(Some((other, details))) if other == *id => break Some(details),
                        Ok(Some(_)) => {}
                        Ok(None) => break None,
                        Err(error) => errors.push(crate::error::chain(&error)),
                    }
                }
            }
        };
        let mut details = checkpoint.clone().unwrap_or(TaskDetails::ABSENT);
        let mut records = Vec::new();
        for record in self.records(SeqNo::ZERO) {
            match record {
                Ok(record) => {
                    if let Entry::Task { id: other, prev, event } = &record.entry {
                        if other == id {
                            if let Err(source) = details.cell.apply(record.seq, *prev, event) {
                                let illegal = JournalError::Illegal { seq: record.seq, source };
                                errors.push(crate::error::chain(&illegal));
                            }
                            details = details.forced(&record);
                            records.push(record);
                        }
                    }
                }
                Err(error) => errors.push(crate::error::chain(&error)),
            }
        }
        if checkpoint.is_none() && records.is_empty() {
            return Ok(None);
        }
        Ok(Some(History { details, checkpoint, records, errors }))
    }

    /// The records from position `from` on, in order, as far back as the last checkpoint. What
    /// cannot be read is an error among them; the next ones follow all the same.
    #[must_use]
    pub fn records(&self, from: SeqNo) -> Records<'_> {
        Records {
            inspection: self,
            from,
            last: self.base_seq(),
            log: 0,
            frame: 0,
            reader: None,
            current: Vec::new().into_iter(),
        }
    }
}

/// The records of an [`Inspection`].
#[derive(Debug)]
pub struct Records<'a> {
    inspection: &'a Inspection,
    from: SeqNo,
    /// The last one so far: where two histories overlap, the one that came first in order holds.
    last: SeqNo,
    log: usize,
    frame: usize,
    reader: Option<Reader<'a>>,
    current: std::vec::IntoIter<Record>,
}

impl Iterator for Records<'_> {
    type Item = Result<Record, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            for record in self.current.by_ref() {
                if record.seq > self.last {
                    self.last = record.seq;
                    if record.seq >= self.from {
                        return Some(Ok(record));
                    }
                }
            }
            let log = self.inspection.logs.get(self.log)?;
            let Some(number) = log.frames.get(self.frame) else {
                (self.log, self.frame, self.reader) = (self.log + 1, 0, None);
                continue;
            };
            self.frame += 1;
            let Some(frame) = log.scan.frames().get(*number) else { continue };
            if frame.last() < self.from.get() {
                continue;
            }
            match self.reader.get_or_insert_with(|| log.scan.reader()).records(frame) {
                Ok(records) => self.current = records.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The tasks of an [`Inspection`].
pub struct Tasks<'a> {
    inspection: &'a Inspection,
    memory: usize,
    merge: Merge<'a>,
    /// The first id whose changes are not gathered yet; `None` when all are.
    end: Option<EncodedId>,
    ready: VecDeque<Result<(EncodedId, TaskDetails), JournalError>>,
    /// Whether this is the first pass over the records, which tells what cannot be read of them.
    first: bool,
}

impl Tasks<'_> {
    /// The changes of as many ids from `from` on as there is memory for.
    fn gather(&mut self, from: Option<&EncodedId>) -> Changes {
        self.end = None;
        let mut changes = Changes::default();
        for record in self.inspection.records(SeqNo::ZERO) {
            let Record { seq, at, entry } = match record {
                Ok(record) => record,
                Err(error) if self.first => {
                    self.ready.push_back(Err(error));
                    continue;
                }
                Err(_) => continue,
            };
            let Entry::Task { id, prev, event } = entry else { continue };
            let wanted = from.is_none_or(|from| id >= *from)
                && self.end.as_ref().is_none_or(|end| id < *end);
            if !wanted {
                continue;
            }
            changes.take(seq, at, id, prev, &event);
            while changes.bytes() > self.memory {
                let Some(last) = changes.drop_last() else { break };
                self.end = Some(last);
            }
        }
        self.first = false;
        changes
    }
}

impl Iterator for Tasks<'_> {
    type Item = Result<(EncodedId, TaskDetails), JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            match self.merge.next_before(self.end.as_ref()) {
                Ok(Some(Told { id, details, illegal })) => {
                    let illegal =
                        illegal.map(|(seq, source)| JournalError::Illegal { seq, source });
                    self.ready.extend(illegal.map(Err));
                    if details.state() != TaskState::NotFound {
                        self.ready.push_back(Ok((id, details)));
                    }
                }
                Ok(None) => {
                    let from = self.end.take()?;
                    let changes = self.gather(Some(&from));
                    self.merge.load(changes);
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl std::fmt::Debug for Tasks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tasks").field("inspection", &self.inspection).finish_non_exhaustive()
    }
}

/// The tasks of an [`Inspection`] that a [`Filter`] wants.
#[derive(Debug)]
pub struct Selected<'a> {
    tasks: Tasks<'a>,
    filter: Filter,
    left: Option<usize>,
}

impl<'a> Selected<'a> {
    /// Where they come from.
    #[must_use]
    pub const fn inspection(&self) -> &'a Inspection {
        self.tasks.inspection
    }
}

impl Iterator for Selected<'_> {
    type Item = Result<(EncodedId, TaskDetails), JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == Some(0) {
            return None;
        }
        let Self { tasks, filter, left } = self;
        let inspection = tasks.inspection;
        let next = tasks.find(|task| match task {
            Ok((id, details)) => filter.wants(inspection, id, details),
            Err(_) => true,
        })?;
        if next.is_ok() {
            *left = left.map(|left| left - 1);
        }
        Some(next)
    }
}

impl Filter {
    fn wants(&self, inspection: &Inspection, id: &EncodedId, details: &TaskDetails) -> bool {
        (self.states.is_empty() || self.states.contains(&details.state()))
            && self.since.is_none_or(|since| last_change(details) >= Some(since))
            && self
                .prefix
                .as_ref()
                .is_none_or(|prefix| inspection.id_text(id).starts_with(prefix.as_str()))
    }
}
