//! Opening the store of a log, which may be damaged and never come back.

use super::Opening;
use crate::error::JournalError;
use crate::journal::compare::{Difference, compare};
use crate::journal::judge::Scanned;
use crate::journal::lock::DirLock;
use crate::journal::sled::Log;
use crate::journal::within::within;
use crate::state::SeqNo;
use crate::sync::{Arc, Mutex};

/// A share of the lock.
pub(super) type Hold = Arc<Mutex<Option<Arc<DirLock>>>>;

/// What became of opening the store of a log.
pub(super) enum Opened {
    /// It holds exactly what the scan found.
    Same(Log),
    /// It does not, for this reason.
    Differs(String),
    /// It has a record that the scan has not found.
    Richer(SeqNo),
    /// It was not tried: the scan could not be kept.
    TooLong,
}

impl Opening<'_> {
    /// Opens the store and holds what it has against the scan. What the operating system refuses,
    /// and a store that somebody else has open, say nothing about the log and are errors.
    ///
    /// A damaged store may also never come back: then its thread is left alone with it, and the log
    /// is rebuilt elsewhere.
    pub(super) fn open_log(
        &mut self,
        scanned: &Arc<Scanned>,
        run: &[usize],
    ) -> Result<Opened, JournalError> {
        let dir = self.dir().join(&scanned.name);
        let segment_size = self.manifest.segment_size;
        let (scanned, run) = (Arc::clone(scanned), run.to_vec());
        let opened = self.within(move || {
            let mut log = Log::open(&dir, segment_size)?;
            Ok((compare(&mut log, &scanned.scan, &run)?, log))
        });
        match opened {
            Ok((None, log)) => match log.check_no_blobs() {
                Ok(()) => Ok(Opened::Same(log)),
                Err(error) => {
                    self.let_go(log);
                    Ok(Opened::Differs(crate::error::chain(&error)))
                }
            },
            Ok((Some(difference), log)) => {
                self.let_go(log);
                Ok(match difference {
                    Difference::Poorer(what) => Opened::Differs(what),
                    Difference::Richer(seq) => Opened::Richer(seq),
                })
            }
            Err(JournalError::Io { action, path, source }) if refused(&source) => {
                Err(JournalError::Io { action, path, source })
            }
            Err(error) => {
                let why = format!("the store cannot be used: {}", crate::error::chain(&error));
                Ok(Opened::Differs(why))
            }
        }
    }

    /// A store that differs may not even come back from being dropped.
    fn let_go(&mut self, log: Log) {
        let dropped = move || {
            drop(log);
            Ok(())
        };
        if let Err(error) = self.within(dropped) {
            tracing::warn!(error = %crate::error::chain(&error), "a store was left alone");
        }
    }

    /// Does what may never come back, and keeps the lock with it then.
    fn within<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let deadline = self.options.store_deadline;
        let hold: Hold = Arc::new(Mutex::new(Some(Arc::clone(&self.lock))));
        let held = Arc::clone(&hold);
        let done = within(deadline, move || {
            let done = work();
            drop(held);
            done
        });
        done.unwrap_or_else(|| {
            self.abandoned.push(hold);
            Err(JournalError::Store(format!("it has not come back within {deadline:?}")))
        })
    }
}

/// Whether the operating system has refused something, and not for what a damaged store has asked of it.
fn refused(error: &std::io::Error) -> bool {
    let nonsense = [rustix::io::Errno::INVAL, rustix::io::Errno::FBIG];
    error.raw_os_error().is_some_and(|code| nonsense.iter().all(|no| no.raw_os_error() != code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::OpenError;
    use crate::journal::OpenReport;
    use crate::journal::manifest::{Judged, Manifest};
    use crate::journal::open::{StoreOptions, create};
    use std::time::Duration;

    /// A store that never comes back may still write, so nobody opens the ledger beside it if the open
    /// has failed; when it does come back, the lock is free.
    #[test]
    fn who_has_not_come_back_keeps_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            store_deadline: Duration::from_millis(1),
            ..StoreOptions::plain(dir.path())
        };
        let lock = Arc::new(DirLock::acquire(dir.path(), Duration::ZERO).unwrap());
        create(lock.dir(), &options).unwrap();
        let Judged::Current(manifest) = Manifest::read(dir.path()).unwrap() else { panic!() };
        let mut report = OpenReport::default();
        let mut opening = Opening {
            lock,
            manifest,
            options: &options,
            report: &mut report,
            rebuilt: false,
            looked_again: false,
            abandoned: Vec::new(),
        };
        let (come_back, gate) = std::sync::mpsc::channel::<()>();
        let stuck = opening.within(move || Ok(gate.recv().is_ok()));
        assert!(matches!(stuck, Err(JournalError::Store(_))), "{stuck:?}");
        drop(opening);
        let refused = DirLock::acquire(dir.path(), Duration::ZERO).unwrap_err();
        assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
        drop(come_back);
        DirLock::acquire(dir.path(), Duration::from_secs(60)).unwrap();
    }
}
