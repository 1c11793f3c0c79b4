//! What is known of the operations and scopes of a ledger, from what its processes have said.

use crate::harness::deaths::Hears;
use crate::places::TestLedger;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use taskledger::dump::Inspection;
use taskledger::{Entry, Event, Failure, SeqNo, TaskDetails, TaskState};

pub(super) const LOST: &str = "it is lost";
pub(super) const AGAIN: &str = "it has ended, and is performed again";
pub(super) const ORDER: &str = "out of turn";
pub(super) const OUTLIVES: &str = "outlives its scope";

/// An operation that was performed, or is being performed.
#[derive(Clone, Debug)]
pub(super) struct Performed {
    pub(super) id: String,
    pub(super) number: u64,
    pub(super) attempt: u64,
    pub(super) key: String,
}

/// An operation. What is said is numbered: so it is known what came before what.
#[derive(Clone, Debug, Default)]
struct Operation {
    number: u64,
    tried: u64,
    acked: Option<u64>,
    /// The last attempt that was seen, and the effect key.
    attempt: u64,
    key: Option<String>,
    ended: Option<TaskState>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    said: u64,
    operations: BTreeMap<String, Operation>,
    /// Scopes of which somebody has heard the end.
    scopes: BTreeMap<String, TaskState>,
    queued: u64,
    crashed: u64,
    put_back: u64,
    performed: u64,
}

impl Hears for Model {
    fn hear(&mut self, line: &str) -> Result<(), String> {
        self.said += 1;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["ack", "open" | "queue"] => Ok(()),
            ["ack", "try", "enqueue", id, number] => {
                let number = number.parse().unwrap();
                let operation = Operation { number, tried: self.said, ..Operation::default() };
                self.operations.insert(id.to_owned(), operation);
                Ok(())
            }
            ["ack", "done", "enqueue", id] => {
                let said = self.said;
                self.operation(id)?.acked = Some(said);
                Ok(())
            }
            ["ack", "effect", id, number, attempt, key] => self.performed(&Performed {
                id: id.to_owned(),
                number: number.parse().unwrap(),
                attempt: attempt.parse().unwrap(),
                key: key.to_owned(),
            }),
            ["ack", "ended", id, state] => {
                let state = match state {
                    "succeeded" => TaskState::Succeeded,
                    "failed" => TaskState::Failed,
                    other => return Err(format!("{id} ends {other}")),
                };
                if id.starts_with('s') {
                    self.scopes.insert(id.to_owned(), state);
                } else {
                    self.operation(id)?.ended = Some(state);
                }
                Ok(())
            }
            // A panic of an operation is told as well.
            _ if !line.contains("ack ") => Ok(()),
            _ => Err(format!("it says: {line}")),
        }
    }
}

impl Model {
    pub(super) fn counts(&self) -> [(&'static str, u64); 5] {
        [
            ("found queued", self.queued),
            ("found crashed", self.crashed),
            ("put back and performed", self.put_back),
            ("performed by the next process", self.performed),
            ("scopes whose end was told", self.scopes.len() as u64),
        ]
    }

    fn operation(&mut self, id: &str) -> Result<&mut Operation, String> {
        self.operations.get_mut(id).ok_or_else(|| format!("nobody has enqueued {id}"))
    }

    /// It is being performed.
    pub(super) fn performed(&mut self, performed: &Performed) -> Result<(), String> {
        let Performed { id, number, attempt, key } = performed;
        self.performed += 1;
        let operation = self.operation(id)?;
        if operation.ended.is_some() {
            return Err(format!("{id}: {AGAIN}"));
        }
        if operation.number != *number {
            return Err(format!("{id} is performed with {number}, not {}", operation.number));
        }
        if *attempt <= operation.attempt {
            return Err(format!("{id}: attempt {attempt} after {}", operation.attempt));
        }
        if operation.key.as_ref().is_some_and(|known| known != key) {
            return Err(format!("{id} has another effect key"));
        }
        operation.attempt = *attempt;
        operation.key = Some(key.clone());
        Ok(())
    }

    /// What an open finds.
    pub(super) async fn found(&mut self, ledger: &TestLedger) -> Result<(), String> {
        let mut never = Vec::new();
        for (id, operation) in &mut self.operations {
            let details = ledger.record(id).await.map_err(|error| format!("{id}: {error:?}"))?;
            let Some(details) = details else {
                if operation.acked.is_some() || operation.attempt > 0 {
                    return Err(format!("{id}: {LOST}"));
                }
                never.push(id.clone());
                continue;
            };
            operation.is(&details).map_err(|wrong| format!("{id}: {wrong}"))?;
            self.queued += u64::from(details.state() == TaskState::Queued);
            self.crashed += u64::from(details.failure == Some(Failure::Crashed));
        }
        never.iter().for_each(|id| drop(self.operations.remove(id)));
        for (id, state) in &self.scopes {
            let found = ledger.query_task_state_quick(id);
            if found != *state {
                return Err(format!("{id}: {LOST}: it is {found}, and was {state}"));
            }
        }
        for id in ledger.all_tasks().iter().map(Result::unwrap) {
            if id.starts_with('p') && !self.operations.contains_key(&id) {
                return Err(format!("nobody has enqueued {id}"));
            }
            if ledger.query_task_state_quick(&id) == TaskState::Running {
                return Err(format!("{id} runs, and nobody runs it"));
            }
        }
        self.in_order(ledger).await
    }

    /// What was acknowledged before something else was begun stands before it.
    async fn in_order(&self, ledger: &TestLedger) -> Result<(), String> {
        let queued = queued(ledger).await?;
        let new = queued.iter().filter(|(_, details)| details.attempt().get() == 0);
        let mut begun_before = 0;
        for (id, _) in new {
            let Some(Operation { tried, acked, .. }) = self.operations.get(id) else { continue };
            if acked.is_some_and(|acked| acked < begun_before) {
                return Err(format!("{ORDER}: {id} stands behind what was begun after it"));
            }
            begun_before = begun_before.max(*tried);
        }
        Ok(())
    }

    /// What the queue holds now: what was queued before, in its order, and behind that what has crashed.
    pub(super) async fn put_back(&mut self, ledger: &TestLedger) -> Result<Vec<String>, String> {
        let queued: Vec<String> = queued(ledger).await?.into_iter().map(|(id, _)| id).collect();
        let held: BTreeSet<&String> = queued.iter().collect();
        for (id, operation) in &self.operations {
            let waits = operation.ended.is_none();
            if waits != held.contains(id) {
                return Err(format!("{id} is in the queue: {}", !waits));
            }
            self.put_back += u64::from(waits && operation.attempt > 0);
        }
        Ok(queued)
    }
}

/// What is queued, in the order of its records.
async fn queued(ledger: &TestLedger) -> Result<Vec<(String, TaskDetails)>, String> {
    let mut queued = Vec::new();
    for id in ledger.all_tasks().iter().map(Result::unwrap) {
        if ledger.query_task_state_quick(&id) == TaskState::Queued {
            let details = ledger.record(&id).await.map_err(|error| format!("{id}: {error:?}"))?;
            queued.push((id, details.ok_or("it is queued, and not on record")?));
        }
    }
    queued.sort_by_key(|(_, details)| details.cell.seq);
    Ok(queued)
}

impl Operation {
    fn is(&mut self, details: &TaskDetails) -> Result<(), String> {
        let state = details.state();
        if self.ended.is_some_and(|ended| ended != state) {
            return Err(format!("{LOST}: it is {state}, and was {:?}", self.ended));
        }
        let attempt = u64::from(details.attempt().get());
        if attempt < self.attempt {
            return Err(format!("{LOST}: it has {attempt} attempts, {} were seen", self.attempt));
        }
        self.attempt = attempt;
        // As `perform` has it.
        match (state, &details.failure, self.number % 7) {
            (TaskState::Queued, ..) | (TaskState::Failed, Some(Failure::Crashed), _) => Ok(()),
            (TaskState::Failed, Some(Failure::Error(text) | Failure::Panicked(text)), 0 | 1)
                if text.contains(&self.number.to_string()) =>
            {
                self.ended = Some(state);
                Ok(())
            }
            (TaskState::Succeeded, _, 2..) => {
                self.ended = Some(state);
                Ok(())
            }
            (_, failure, _) => Err(format!("{} has come to {state}, {failure:?}", self.number)),
        }
    }
}

/// In the log no end of a scope comes before that of something which runs within it.
pub(super) fn trees(path: &Path) -> Result<(), String> {
    let inspection = Inspection::open(path).map_err(|error| format!("looked into: {error:?}"))?;
    // By the id of the scope.
    let mut within: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>> = BTreeMap::new();
    let mut parents: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for record in inspection.records(SeqNo::ZERO) {
        let record = record.map_err(|error| format!("looked into: {error:?}"))?;
        let Entry::Task { id, event, .. } = record.entry else { continue };
        let id = id.as_bytes().to_vec();
        match event {
            Event::Started { parent: Some(parent), .. } => {
                let parent = parent.as_bytes().to_vec();
                within.entry(parent.clone()).or_default().insert(id.clone());
                parents.insert(id, parent);
            }
            Event::Succeeded { .. } | Event::Failed { .. } => {
                if within.get(&id).is_some_and(|children| !children.is_empty()) {
                    let text = id.escape_ascii();
                    return Err(format!("record {}: something {OUTLIVES} {text}", record.seq));
                }
                if let Some(parent) = parents.remove(&id) {
                    within.entry(parent).or_default().remove(&id);
                }
            }
            _ => {}
        }
    }
    Ok(())
}
