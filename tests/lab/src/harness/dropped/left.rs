//! A ledger whose open is dropped: it closes itself, and can be opened again.

use super::{Tasks, never};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use taskledger::{
    Base, Cell, EncodedId, Journal, JournalError, MemoryJournal, Record, TaskDetails, Visit,
};
use tokio::runtime::Runtime;

/// The journal of a ledger that nobody takes, and what has become of it.
#[derive(Clone, Default)]
pub(super) struct Left {
    journal: MemoryJournal,
    opened: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
    gone: Arc<AtomicBool>,
}

/// Its ledger's part of it.
pub(super) struct Given(pub(super) Left);

impl Journal for Given {
    fn replay(&mut self, visit: &mut Visit<'_>) -> Result<Base, JournalError> {
        self.0.opened.store(true, Ordering::SeqCst);
        self.0.journal.replay(visit)
    }

    fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        self.0.journal.append(records)
    }

    fn read(&mut self, id: &EncodedId, cell: Cell) -> Result<TaskDetails, JournalError> {
        self.0.journal.read(id, cell)
    }

    fn close(&mut self) -> Result<(), JournalError> {
        self.0.closed.store(true, Ordering::SeqCst);
        self.0.journal.close()
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::SeqCst);
    }
}

impl Left {
    /// Its ledger has closed itself, if it was ever open, and the next one works.
    pub(super) fn is_free(&self, runtime: &Runtime) -> Result<(), String> {
        let since = Instant::now();
        while !self.gone.load(Ordering::SeqCst) {
            if since.elapsed() > never() {
                return Err("a ledger that nobody has taken stays open".to_owned());
            }
            std::thread::yield_now();
        }
        if self.opened.load(Ordering::SeqCst) != self.closed.load(Ordering::SeqCst) {
            return Err("a ledger that nobody has taken is let go of without a close".to_owned());
        }
        let again = async {
            let opened = Tasks::builder().open_journal(self.journal.clone()).await;
            let ledger = opened.map_err(|error| error.to_string())?;
            let marked = ledger.mark_succeeded("again".to_owned()).await;
            marked.map_err(|error| error.to_string())?;
            ledger.close().await.map_err(|error| error.to_string())
        };
        let again = runtime.block_on(async { tokio::time::timeout(never(), again).await });
        let again = again.unwrap_or_else(|_| Err("it hangs".to_owned()));
        again.map_err(|wrong| format!("again what nobody has taken: {wrong}"))
    }
}
