//! The details of very many ids, one after the other.
//!
//! What the checkpoint tells is read beside everything else, on a thread of its own; only what has changed
//! since is read by the writer, between two groups.

use super::Ledger;
use super::read::gone;
use crate::details::TaskDetails;
use crate::error::{JournalError, ReadError, panic_text};
use crate::id::{EncodedId, TaskId};
use crate::journal::Reader;
use crate::ledger::TaskOutput;
use crate::shared::Shared;
use crate::state::{SeqNo, TaskState};
use crate::submission::Errand;
use crate::sync::Arc;
use crate::wake;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::vec;
use tokio::sync::{mpsc, oneshot};

/// So many failures take less of the writer's time than a large checkpoint takes to be read.
const FEW: usize = 1_000;

/// Ids whose details are read at once: the writer does it between two groups.
const READ_AT_ONCE: usize = 64;

/// What is handed over at once of a checkpoint.
const CHUNK: usize = 1024;

/// An id, as its details were found, and what was looked for in them.
#[derive(Debug)]
pub(crate) struct Swept<T> {
    pub(crate) id: EncodedId,
    pub(crate) seq: SeqNo,
    pub(crate) what: T,
}

/// What is looked for.
type Judge<T> = Arc<dyn Fn(&TaskDetails) -> Option<T> + Send + Sync>;

type Found<T> = mpsc::Receiver<Result<Vec<Swept<T>>, JournalError>>;

/// A look at all ids of some states.
pub(crate) struct Sweep<'a, K, V, T> {
    ledger: &'a Ledger<K, V>,
    states: &'static [TaskState],
    judge: Judge<T>,
    checkpoint: Option<Found<T>>,
    /// The end of that.
    last: SeqNo,
    /// What it does not know, or not as it is.
    rest: Option<vec::IntoIter<EncodedId>>,
}

impl<K: TaskId, V: TaskOutput> Ledger<K, V> {
    /// Begins a look at all ids that have these states, which are ends.
    pub(crate) async fn sweep<T: Send + 'static>(
        &self,
        states: &'static [TaskState],
        judge: impl Fn(&TaskDetails) -> Option<T> + Send + Sync + 'static,
    ) -> Result<Sweep<'_, K, V, T>, ReadError> {
        let judge: Judge<T> = Arc::new(judge);
        // Failures are listed in memory: a few are asked for one by one, however large the checkpoint.
        let few = states == [TaskState::Failed] && self.failed_tasks().len() <= FEW;
        let reader = if few { None } else { self.ask_reader().await? };
        let last = reader.as_ref().map_or(SeqNo::ZERO, |(last, _)| *last);
        let beside = |(_, reader)| read_beside(reader, Arc::clone(&judge), self.shared());
        let checkpoint = reader.map(beside).transpose()?;
        Ok(Sweep { ledger: self, states, judge, checkpoint, last, rest: None })
    }

    /// What reads the checkpoint, and where that ends; `None` if everything is to be read by the writer.
    async fn ask_reader(&self) -> Result<Option<(SeqNo, Reader)>, ReadError> {
        let (reply, reader) = oneshot::channel();
        self.shared().submissions.send(Errand::Reader { reply }).map_err(gone)?;
        let reader = self.shared().reply(reader).await;
        let reader = reader.ok_or_else(|| gone(self.shared().submissions.phase()))?;
        Ok(reader.0)
    }
}

impl<K: TaskId, V: TaskOutput, T> Sweep<'_, K, V, T> {
    /// Some more of what was looked for, perhaps none; `None` when that is all.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Swept<T>>>, ReadError> {
        if let Some(found) = &mut self.checkpoint {
            if let Some(chunk) = wake::guarded(found.recv()).await {
                return Ok(Some(chunk?));
            }
            self.checkpoint = None;
        }
        // The checkpoint knows them as they were before, or not at all.
        let (states, last, index) = (self.states, self.last, &self.ledger.shared().index);
        let rest = self.rest.get_or_insert_with(|| {
            let changed = states.iter().flat_map(|state| index.changed_since(*state, last));
            changed.collect::<Vec<_>>().into_iter()
        });
        let ids: Vec<EncodedId> = rest.take(READ_AT_ONCE).collect();
        if ids.is_empty() {
            return Ok(None);
        }
        let reads: Vec<_> = ids.iter().map(|id| self.ledger.ask_details(id)).collect();
        let mut swept = Vec::new();
        for (id, read) in ids.into_iter().zip(reads) {
            let Some(details) = self.ledger.told_details(&id, read?).await? else { continue };
            if let Some(what) = (self.judge)(&details) {
                swept.push(Swept { id, seq: details.cell.seq, what });
            }
        }
        Ok(Some(swept))
    }
}

/// Reads a checkpoint on a thread of its own, until nobody takes any more what it finds.
fn read_beside<T: Send + 'static>(
    reader: Reader,
    judge: Judge<T>,
    shared: &Arc<Shared>,
) -> Result<Found<T>, ReadError> {
    let (found, taken) = mpsc::channel(2);
    let shared = Arc::clone(shared);
    let work = move || {
        let mut chunk = Vec::new();
        let mut visit = |id: &EncodedId, details: &TaskDetails| {
            let seq = details.cell.seq;
            // What has changed since is read as it is now.
            if shared.index.cell(id.as_bytes()).seq == seq {
                chunk.extend(judge(details).map(|what| Swept { id: id.clone(), seq, what }));
            }
            if chunk.len() < CHUNK {
                return Ok(());
            }
            let full = std::mem::take(&mut chunk);
            let gone = |_| JournalError::Store("nobody takes any more what is read".into());
            found.blocking_send(Ok(full)).map_err(gone)
        };
        let read = catch_unwind(AssertUnwindSafe(|| reader(&mut visit)));
        let read = read.unwrap_or_else(|panic| Err(JournalError::Panicked(panic_text(panic))));
        // Nobody waiting any more is fine.
        drop(found.blocking_send(read.map(|()| chunk)));
    };
    let thread = thread::Builder::new().name("taskledger-sweep".into()).spawn(work);
    thread.map_err(|source| {
        let path = "taskledger-sweep".into();
        JournalError::Io { action: "start a thread for", path, source }
    })?;
    Ok(taken)
}
