//! What the ledger knows right now.
//!
//! One map from id to [`Cell`] is the truth that point queries read; beside it,
//! under the publication lock, stand the counts and the exact sets of the
//! states that are small or must be listed exactly. Only the writer changes
//! either, a whole batch at a time, in log order.
//!
//! Point queries ignore the publication lock: they read one cell. Counts and
//! views take it, so they see whole batches only. A caller that saw a change of
//! a batch in a cell and then asks for a count waits until the batch is
//! complete: counts are linearizable with everything else.

mod lane;
mod listed;
mod part;
mod published;

use crate::details::{Life, TaskDetails};
use crate::id::{EncodedId, Probe};
use crate::sabotage::{self, Sabotage};
use crate::seal::Seal;
use crate::state::{Cell, Grave, SeqNo, TaskState, Tombstone};
use crate::submission::AttemptKey;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, Ordering, lock};
use crate::writer::Found;
pub(crate) use lane::Lane;
use part::{Hashed, Key, Part, Tombstones};
use published::{Published, slot};
use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;
use tokio::sync::Notify;

/// Parts of the map. A view of all ids copies one part at a time: no lock is held between items,
/// and the copy of a part of ten million ids stays below ten megabytes. (A look-up among a million ids takes
/// a fifth longer with 256 parts, as long with 16.)
const PARTS: usize = 64;

/// A change that became durable.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) id: EncodedId,
    /// The cell that it leaves; absent when nothing is known any more.
    pub(crate) cell: Cell,
    /// Whose record it is: that of an attempt or a revoke of this process, or of somebody else.
    pub(crate) key: Option<AttemptKey>,
    /// What is known of its life.
    pub(crate) life: Life,
    /// What became of its tombstone, if anything.
    pub(crate) moved: Option<Grave>,
}

/// What a run has seen of an id when it came to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// As callers see it: what has a tombstone has succeeded.
    pub(crate) cell: Cell,
    /// Who runs; or, of a failed id, whose attempt that was, unless there is a verdict on it.
    pub(crate) key: Option<AttemptKey>,
    /// How many attempts of its life have ended with whoever had begun them, so far.
    pub(crate) left: u32,
}

/// The published state of all ids.
#[derive(Debug)]
pub(crate) struct Index {
    key: Key,
    parts: Box<[Part]>,
    tombstones: Tombstones,
    /// How many there are; and how often one was opened, so that whoever looks for an id in both
    /// places knows that it may have moved from the one to the other.
    buried: AtomicUsize,
    opened: AtomicUsize,
    /// Tells the tombstone of an id; set when the journal is replayed.
    seal: OnceLock<Seal>,
    /// The publication lock. Not an async lock: held for one batch of map updates.
    published: Mutex<Published>,
    waiting: AtomicUsize,
    /// Held for a look-up; one entry for each id somebody waits for.
    waiters: Mutex<HashMap<EncodedId, Waiters>>,
    /// Something has come into the queue, or has left it.
    backlog: Notify,
    /// Ids with a change that could not be recorded. Empty until the ledger is poisoned.
    in_doubt: Mutex<HashSet<EncodedId>>,
    /// Whether there are any.
    doubts: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiters {
    notify: Arc<Notify>,
    count: usize,
}

impl Index {
    pub(crate) fn new() -> Self {
        let key = Key::random();
        Self {
            key,
            parts: (0..PARTS).map(|_| Part::new(key)).collect(),
            tombstones: Tombstones::default(),
            buried: AtomicUsize::new(0),
            opened: AtomicUsize::new(0),
            seal: OnceLock::new(),
            published: Mutex::default(),
            waiting: AtomicUsize::new(0),
            waiters: Mutex::default(),
            backlog: Notify::new(),
            in_doubt: Mutex::default(),
            doubts: AtomicBool::new(false),
        }
    }

    /// Under which key ids are hashed, from now on.
    pub(crate) fn set_seal(&self, seal: Seal) {
        // Set once, by the open.
        let _ = self.seal.set(seal);
    }

    pub(crate) fn seal(&self) -> &Seal {
        self.seal.get_or_init(Seal::default)
    }

    /// The published cell of an id; absent also when all that is left of it is a tombstone.
    pub(crate) fn cell(&self, id: &[u8]) -> Cell {
        let probe = Probe::of(id);
        let id = self.key.hashed(&probe);
        self.part(&id).and_then(|part| part.get(&id)).unwrap_or(Cell::ABSENT)
    }

    /// The state of an id as callers see it: what has a tombstone has succeeded.
    pub(crate) fn state(&self, id: &[u8]) -> TaskState {
        self.state_of(&Probe::of(id))
    }

    /// The same, of one that was encoded for this.
    pub(crate) fn state_of(&self, id: &Probe<'_>) -> TaskState {
        match self.find_in(id, Part::state) {
            Ok(state) => state,
            Err(Some(_)) => TaskState::Succeeded,
            Err(None) => TaskState::NotFound,
        }
    }

    /// The cell of an id, or its tombstone.
    pub(crate) fn look(&self, id: &[u8]) -> (Cell, Option<Tombstone>) {
        match self.find_in(&Probe::of(id), Part::get) {
            Ok(cell) => (cell, None),
            Err(tombstone) => (Cell::ABSENT, tombstone),
        }
    }

    /// What `read` finds of an id in its part; or else its tombstone.
    fn find_in<T>(
        &self,
        id: &Probe<'_>,
        read: impl Fn(&Part, &Hashed<'_>) -> Option<T>,
    ) -> Result<T, Option<Tombstone>> {
        let hashed = self.key.hashed(id);
        loop {
            let opened = self.opened.load(Ordering::SeqCst);
            if let Some(found) = self.part(&hashed).and_then(|part| read(part, &hashed)) {
                return Ok(found);
            }
            let tombstone = (self.tombstones() > 0).then(|| self.tombstone_of(id)).flatten();
            // It may have been in the other place while we looked into each.
            if tombstone.is_some() || opened == self.opened.load(Ordering::SeqCst) {
                return Err(tombstone);
            }
        }
    }

    /// Not within the function above: the bytes would be made before they are wanted.
    #[inline(never)]
    fn tombstone_of(&self, id: &Probe<'_>) -> Option<Tombstone> {
        let tombstone = id.with_bytes(|bytes| self.seal().tombstone(bytes));
        self.tombstones.has(&tombstone).then_some(tombstone)
    }

    /// All that the writer has to know of an id.
    pub(crate) fn find(&self, id: &EncodedId) -> Found {
        let (cell, tombstone) = self.look(id.as_bytes());
        let (key, life) = if cell.state == TaskState::Failed {
            lock(&self.published).failed.get(id).copied().unwrap_or_default()
        } else {
            (None, Life::default())
        };
        Found { cell, life, key, tombstone }
    }

    /// Whether there is this one.
    pub(crate) fn has(&self, tombstone: &Tombstone) -> bool {
        self.tombstones.has(tombstone)
    }

    /// How many successes are left as tombstones only.
    pub(crate) fn tombstones(&self) -> usize {
        self.buried.load(Ordering::SeqCst)
    }

    /// Takes in what became of a tombstone.
    pub(crate) fn put_grave(&self, grave: Grave) {
        match grave {
            Grave::Dug(tombstone) => {
                if self.tombstones.insert(tombstone) {
                    self.buried.fetch_add(1, Ordering::SeqCst);
                }
            }
            Grave::Opened(tombstone) => {
                // Before it goes: whoever misses it then looks once more.
                self.opened.fetch_add(1, Ordering::SeqCst);
                if self.tombstones.remove(&tombstone) {
                    self.buried.fetch_sub(1, Ordering::SeqCst);
                }
            }
        }
    }

    /// Publishes a batch in log order, then wakes who waits for an id that has settled.
    pub(crate) fn publish(&self, changes: Vec<Change>) {
        let (mut settled, mut backlog) = (Vec::new(), false);
        let anyone = self.waiting.load(Ordering::SeqCst) > 0;
        {
            let mut published = lock(&self.published);
            for Change { id, cell, key, life, moved } in changes {
                if anyone && cell.state.is_settled() {
                    settled.push(id.clone());
                }
                // At every moment it is in one of the two places: the tombstone comes before the cell
                // goes, and goes after the cell has come.
                let early = sabotage::is(Sabotage::OpenFirst);
                if let Some(grave) = moved.filter(|grave| early || matches!(grave, Grave::Dug(_))) {
                    self.put_grave(grave);
                }
                let before = self.put(&id, cell);
                if let Some(grave @ Grave::Opened(_)) = moved {
                    self.put_grave(grave);
                }
                backlog |= [before.state, cell.state].contains(&TaskState::Queued);
                published.moved(id, before, cell, key, life);
            }
        }
        if backlog {
            self.backlog.notify_waiters();
        }
        if anyone {
            let waiters = lock(&self.waiters);
            let woken = settled.iter().filter_map(|id| waiters.get(id)).map(Waiters::notify);
            let woken: Vec<_> = woken.collect();
            drop(waiters);
            wake(woken);
        } else if self.waiting.load(Ordering::SeqCst) > 0 {
            // Somebody came while we published, and may have looked before and registered after.
            self.wake_all();
        }
    }

    /// Sets cells while the ledger opens, before anybody looks.
    pub(crate) fn restore(&self, cells: Vec<(EncodedId, Cell)>) {
        let mut published = lock(&self.published);
        for (id, cell) in cells {
            let before = self.put(&id, cell);
            published.moved(id, before, cell, None, Life::default());
        }
    }

    /// Makes up counts and sets from the cells.
    pub(crate) fn recount(&self) {
        let mut anew = Published::default();
        for part in &self.parts {
            part.each(|id, cell| match cell.state {
                TaskState::Succeeded => anew.count(cell.state, |count| count + 1),
                TaskState::NotFound
                | TaskState::Queued
                | TaskState::Running
                | TaskState::Failed
                | TaskState::Revoking => {
                    let id = EncodedId::from_bytes(id);
                    anew.moved(id, Cell::ABSENT, cell, None, Life::default());
                }
            });
        }
        *lock(&self.published) = anew;
    }

    /// Returns the cell that was there before.
    fn put(&self, id: &EncodedId, cell: Cell) -> Cell {
        self.set(id.as_bytes(), cell)
    }

    /// The same, beside all that is published.
    pub(crate) fn set(&self, id: &[u8], cell: Cell) -> Cell {
        let probe = Probe::of(id);
        let id = self.key.hashed(&probe);
        self.part(&id).and_then(|part| part.put(&id, cell)).unwrap_or(Cell::ABSENT)
    }

    fn part(&self, id: &Hashed<'_>) -> Option<&Part> {
        self.parts.get(id.part(PARTS))
    }

    /// How many ids are in a state.
    pub(crate) fn count(&self, state: TaskState) -> usize {
        lock(&self.published).counts.get(slot(state)).copied().unwrap_or_default()
    }

    /// How many ids there are.
    pub(crate) fn count_all(&self) -> usize {
        lock(&self.published).counts.iter().sum()
    }

    /// All counts at one moment, in the order of [`TaskState::ALL`].
    pub(crate) fn counts(&self) -> [usize; TaskState::ALL.len()] {
        lock(&self.published).counts
    }

    /// The attempt or revoke that runs for an id.
    pub(crate) fn runs(&self, id: &[u8]) -> Option<AttemptKey> {
        let published = lock(&self.published);
        let running = published.running.get(id).map(|(key, _)| *key);
        running.or_else(|| published.revoking.get(id).copied()).flatten()
    }

    /// What there is to see of an id, at one moment.
    pub(crate) fn seen(&self, id: &[u8]) -> Seen {
        let published = lock(&self.published);
        let (cell, tombstone) = self.look(id);
        let cell = if tombstone.is_some() { TaskDetails::buried().cell } else { cell };
        let known = match cell.state {
            TaskState::Running => published.running.get(id).copied(),
            TaskState::Failed => published.failed.get(id).copied(),
            TaskState::Revoking => published.revoking.get(id).map(|key| (*key, Life::default())),
            TaskState::NotFound | TaskState::Queued | TaskState::Succeeded => None,
        };
        let (key, life) = known.unwrap_or_default();
        Seen { cell, key, left: life.left }
    }

    /// Where the life of a running id began.
    pub(crate) fn since(&self, id: &[u8]) -> SeqNo {
        lock(&self.published).running.get(id).map(|(_, life)| life.since).unwrap_or_default()
    }

    /// The ids in a state that is kept as an exact set, at one moment; `None` for the others.
    pub(crate) fn exact(&self, state: TaskState) -> Option<Vec<EncodedId>> {
        let published = lock(&self.published);
        match state {
            TaskState::Queued => Some(published.queued.values().cloned().collect()),
            TaskState::Failed => Some(published.failed.keys().cloned().collect()),
            TaskState::Running => Some(published.running.keys().cloned().collect()),
            TaskState::Revoking => Some(published.revoking.keys().cloned().collect()),
            TaskState::NotFound | TaskState::Succeeded => None,
        }
    }

    /// The first of those in the queue that came into it after this position.
    pub(crate) fn queued_after(&self, seq: SeqNo) -> Option<(SeqNo, EncodedId)> {
        let published = lock(&self.published);
        let mut later = published.queued.range(seq.next()..);
        let taken = if sabotage::is(Sabotage::TakeLast) { later.next_back() } else { later.next() };
        taken.map(|(seq, id)| (*seq, id.clone()))
    }

    /// The last record of all that have put something into the queue.
    pub(crate) fn last_queued(&self) -> SeqNo {
        lock(&self.published).last_queued
    }

    /// Told when something comes into the queue or leaves it, and when nothing is recorded any more.
    pub(crate) fn backlog_changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.backlog.notified()
    }

    /// Tells whoever waits for the backlog to look again.
    pub(crate) fn tell_backlog(&self) {
        self.backlog.notify_waiters();
    }

    /// Registers somebody who waits for an id. Look at the cell after registering.
    pub(crate) fn register(&self, id: &EncodedId) -> Registered<'_> {
        let mut waiters = lock(&self.waiters);
        let entry = waiters.entry(id.clone()).or_default();
        entry.count += 1;
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Registered { index: self, id: id.clone(), notify: Arc::clone(&entry.notify) }
    }

    /// Wakes everybody who waits for anything.
    pub(crate) fn wake_all(&self) {
        let woken: Vec<_> = lock(&self.waiters).values().map(Waiters::notify).collect();
        wake(woken);
        self.backlog.notify_waiters();
    }

    /// Marks ids whose state on disk nobody knows.
    pub(crate) fn doubt(&self, ids: impl IntoIterator<Item = EncodedId>) {
        let mut in_doubt = lock(&self.in_doubt);
        in_doubt.extend(ids);
        self.doubts.store(!in_doubt.is_empty(), Ordering::SeqCst);
    }

    /// Whether a change of the id could not be recorded.
    pub(crate) fn in_doubt(&self, id: &[u8]) -> bool {
        self.doubts() && lock(&self.in_doubt).contains(id)
    }

    /// Whether there is any such id. There is none until the ledger is poisoned.
    pub(crate) fn doubts(&self) -> bool {
        self.doubts.load(Ordering::SeqCst)
    }
}

/// Somebody who waits for an id to settle.
#[derive(Debug)]
pub(crate) struct Registered<'a> {
    index: &'a Index,
    id: EncodedId,
    notify: Arc<Notify>,
}

impl Registered<'_> {
    pub(crate) fn notified(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.index.waiting.fetch_sub(1, Ordering::SeqCst);
        let mut waiters = lock(&self.index.waiters);
        if let Some(entry) = waiters.get_mut(&self.id) {
            entry.count -= 1;
            if entry.count == 0 {
                waiters.remove(&self.id);
            }
        }
    }
}

impl Waiters {
    fn notify(&self) -> Arc<Notify> {
        Arc::clone(&self.notify)
    }
}

/// Not under the lock: what is woken may be dropped at once, and takes itself off the list then.
fn wake(woken: Vec<Arc<Notify>>) {
    woken.iter().for_each(|notify| notify.notify_waiters());
}

#[cfg(test)]
mod tests;
