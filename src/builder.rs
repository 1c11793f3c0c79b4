//! The few options of an open.

use crate::error::{JournalError, OpenError, panic_text};
use crate::id::{EncodedId, IdShape, TaskId};
use crate::journal::ballast;
use crate::journal::open::{self, StoreOptions};
use crate::journal::{Journal, OpenReport};
use crate::ledger::{Ledger, TaskOutput};
use crate::measure;
use crate::recovery::{FoundRunning, Recovered, recover};
use crate::shared::{Options, Shared};
use crate::submission::{Group, Patience};
use crate::sync::{Arc, Mutex, lock};
use crate::wake;
use crate::watch::Watch;
use crate::writer::{Writer, close};
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The options of an open. Each has a default that is right for most.
pub struct Builder<K, V = ()> {
    output_cap: usize,
    sync_deadline: Duration,
    open_deadline: Duration,
    max_pending: usize,
    checkpoint_after: u64,
    lock_wait: Duration,
    ballast_bytes: u64,
    accept_loss: bool,
    types: PhantomData<fn(K) -> V>,
}

/// Whether a damaged ledger is to be opened at the price of what is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third answer")]
pub enum AcceptLoss {
    /// No: a damaged ledger is refused, and no record is changed; what is, if anything, is told at
    /// [`OpenError::Damaged`].
    #[default]
    No,
    /// Yes.
    Yes,
}

/// The largest cap of an output: with its id it must fit into a record.
const MAX_OUTPUT_CAP: usize = 40 * 1024;

impl<K: TaskId, V: TaskOutput> Builder<K, V> {
    pub(crate) const fn new() -> Self {
        Self {
            output_cap: 32 * 1024,
            sync_deadline: Duration::from_secs(60),
            open_deadline: Duration::from_secs(300),
            max_pending: 4096,
            checkpoint_after: 64 * 1024 * 1024,
            lock_wait: Duration::from_secs(1),
            ballast_bytes: 16 * 1024 * 1024,
            accept_loss: false,
            types: PhantomData,
        }
    }

    /// The largest output that is kept, in serialized bytes. Default 32 KiB, at most 40 KiB. A
    /// larger one is recorded as succeeded with its output not kept. Lower it when outputs are many
    /// and only some matter; store large ones elsewhere and return where.
    #[must_use]
    pub const fn output_cap(mut self, bytes: usize) -> Self {
        self.output_cap = if bytes < MAX_OUTPUT_CAP { bytes } else { MAX_OUTPUT_CAP };
        self
    }

    /// How long one write may take before the ledger gives it up as stuck. Default 60 s. Giving up
    /// is for good, so be generous: raise it where disks are known to stall.
    #[must_use]
    pub const fn sync_deadline(mut self, deadline: Duration) -> Self {
        self.sync_deadline = deadline;
        self
    }

    /// How long an open may take. Default 5 minutes. Raise it for very large ledgers on slow disks.
    #[must_use]
    pub const fn open_deadline(mut self, deadline: Duration) -> Self {
        self.open_deadline = deadline;
        self
    }

    /// How many requests may be submitted and not yet answered; more wait for their turn. Default
    /// 4096, at least 1. It bounds memory, not the number of running attempts.
    #[must_use]
    pub const fn max_pending(mut self, requests: usize) -> Self {
        self.max_pending = if requests == 0 { 1 } else { requests };
        self
    }

    /// How long the log may get, in bytes on disk, before it is folded into a checkpoint in the
    /// background; it may always be as long as the checkpoint itself. Default 64 MiB. Lower it to
    /// save space and make opening faster, at the price of folding more often.
    #[must_use]
    pub const fn checkpoint_after(mut self, bytes: u64) -> Self {
        self.checkpoint_after = bytes;
        self
    }

    /// How long an open waits for a ledger that somebody else has open. Default 1 s, which covers
    /// the last handle having been dropped just before.
    #[must_use]
    pub const fn lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// Space kept back in a file of its own, given up when the disk is full so that the ledger can
    /// still be opened, which itself writes a little. Default 16 MiB; 0 for none, when something
    /// else makes sure that there is room.
    #[must_use]
    pub const fn ballast_bytes(mut self, bytes: u64) -> Self {
        self.ballast_bytes = bytes;
        self
    }

    /// Goes on where the open would be refused as [`Damaged`](OpenError::Damaged): everything that
    /// can still be read is kept, what is gone is gone, and that is recorded. **An id whose success
    /// was lost may run again.** The damaged files are kept in `damaged/` inside the directory.
    /// Changes nothing about a sound ledger. Default: not accepted.
    #[must_use]
    pub const fn accept_loss(mut self, accept: AcceptLoss) -> Self {
        self.accept_loss = matches!(accept, AcceptLoss::Yes);
        self
    }

    /// Opens the ledger that `journal` holds: [`MemoryJournal`](crate::MemoryJournal) for tests and
    /// for ledgers that need not outlive the process, or one of your own.
    ///
    /// # Durability
    ///
    /// As durable as the journal.
    ///
    /// # Cancel safety
    ///
    /// As [`Ledger::open`].
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use taskledger::{Ledger, MemoryJournal, TaskState};
    /// let journal = MemoryJournal::new();
    /// let ledger = Ledger::<u64>::builder().open_journal(journal.clone()).await?;
    /// ledger.mark_succeeded(7).await?;
    /// ledger.close().await?;
    /// let ledger = Ledger::<u64>::builder().open_journal(journal).await?; // the same records
    /// assert_eq!(ledger.query_task_state(&7).await, TaskState::Succeeded);
    /// # Ok(()) }
    /// ```
    pub async fn open_journal(self, journal: impl Journal) -> Result<Ledger<K, V>, OpenError> {
        self.open_with(move |recover| recover(Box::new(journal), OpenReport::default())).await
    }

    /// Opens the ledger in the directory `path`, or creates it there. See [`Ledger::open`].
    ///
    /// # Durability
    ///
    /// As [`Ledger::open`].
    ///
    /// # Cancel safety
    ///
    /// As [`Ledger::open`].
    ///
    /// # Errors
    ///
    /// As [`Ledger::open`].
    ///
    /// # Panics
    ///
    /// None.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # use taskledger::{Ledger, OpenError};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("ledger");
    /// let ledger = Ledger::<u64>::builder().open(&path).await?;
    /// let second = Ledger::<u64>::builder().lock_wait(Duration::ZERO).open(&path).await;
    /// assert!(matches!(second, Err(OpenError::Locked { .. })));
    /// ledger.close().await?;
    /// let other = Ledger::<String>::builder().open(&path).await;
    /// assert!(matches!(other, Err(OpenError::OtherIdType(_))));
    /// # Ok(()) }
    /// ```
    pub async fn open(self, path: impl AsRef<Path>) -> Result<Ledger<K, V>, OpenError> {
        let shape = IdShape::of_type::<K>();
        let options = StoreOptions {
            path: path.as_ref().to_owned(),
            lock_wait: self.lock_wait,
            checkpoint_after: self.checkpoint_after,
            ballast: self.ballast_bytes,
            accept_loss: self.accept_loss,
            store_deadline: self.open_deadline / 2,
            shape: shape.to_bytes(),
            judge_shape: Box::new(move |stored| {
                let stored = IdShape::from_bytes(stored)?;
                if stored.compatible(&shape) {
                    return Ok(());
                }
                Err(format!("{stored}, not {shape}"))
            }),
            judge_id: Box::new(|id| {
                let id = EncodedId::from_bytes(id);
                id.check_round_trip::<K>().map_err(|error| format!("stored id {id:?}: {error}"))
            }),
        };
        // What is reset is written as well: the disk may be found full by that.
        self.open_with(move |recover| {
            let mut report = OpenReport::default();
            ballast::with_ballast(&options.path, |held| {
                let journal = open::open_once(&options, &mut report, held)?;
                recover(Box::new(journal), report.clone())
            })
        })
        .await
    }

    /// Opens on a thread of its own, which then becomes the writer.
    async fn open_with(
        self,
        make: impl FnOnce(&mut Recover<'_>) -> Result<Opened, OpenError> + Send + 'static,
    ) -> Result<Ledger<K, V>, OpenError> {
        let (reply, opened) = oneshot::channel();
        let reply = Reply(Arc::new(Mutex::new(Some(reply))));
        let watch = Watch::default();
        let turn = Group::new();
        let watched = watch.arm(Arc::clone(&turn), Arc::default());
        let deadline = self.open_deadline;
        let on_late = reply.clone();
        spawn("taskledger-open-watch", {
            let watch = watch.clone();
            move || {
                watch.run(deadline, |_, _| on_late.send(Err(OpenError::Stuck { after: deadline })))
            }
        })?;
        let on_refused = watch.clone();
        spawn("taskledger-writer", move || {
            let began = Instant::now();
            let mut found = FoundRunning::default();
            let mut recover = |journal, report| recover_caught(journal, report, &mut found, began);
            let opened = catch_unwind(AssertUnwindSafe(|| make(&mut recover)));
            drop(watched);
            watch.stop();
            match opened {
                // The watchdog has answered already; nobody will use the ledger.
                Ok(Ok((journal, _))) if !turn.decide_durable() => drop(close(journal)),
                Ok(Ok((journal, recovered))) => self.serve(journal, recovered, &reply),
                Ok(Err(error)) => reply.send(Err(error)),
                Err(panic) => {
                    reply.send(Err(OpenError::Journal(JournalError::Panicked(panic_text(panic)))))
                }
            }
        })
        .inspect_err(|_| on_refused.stop())?;
        opened.await.unwrap_or(Err(OpenError::Stuck { after: deadline }))
    }

    /// Hands the ledger over and becomes its writer.
    fn serve(&self, journal: Box<dyn Journal>, recovered: Recovered, reply: &Reply<Ledger<K, V>>) {
        let options = Options {
            output_cap: self.output_cap,
            sync_deadline: self.sync_deadline,
            max_pending: self.max_pending,
        };
        let Recovered { index, core, base, recovery, newest } = recovered;
        tracing::info!(epoch = %recovery.epoch(), took = ?recovery.took(), "opened");
        measure::opened(recovery.took());
        let shared = Shared::new(options, index, recovery, base.metadata, IdShape::of_type::<K>());
        let shared = Arc::new(shared);
        shared.dated(newest);
        let watch = Watch::default();
        let guarded = Arc::clone(&shared);
        let deadline = self.sync_deadline;
        let watchdog = spawn("taskledger-watch", {
            let watch = watch.clone();
            move || {
                watch.run(deadline, |group, requests| {
                    let poison = crate::error::Poison::Stuck { after: deadline };
                    guarded.poison(&poison, Some((group, requests)));
                });
            }
        });
        if let Err(error) = watchdog {
            return reply.send(Err(error));
        }
        // If nobody takes it, it is dropped, which closes the ledger.
        reply.send(Ok(Ledger::from_shared(Arc::clone(&shared))));
        let checkpoints = Vec::new();
        let (in_hand, patience) = (None, Patience::default());
        Writer { shared, core, journal, watch, in_hand, checkpoints, patience }.run();
    }
}

/// A journal that was replayed, and what it told.
type Opened = (Box<dyn Journal>, Recovered);

type Recover<'a> = dyn FnMut(Box<dyn Journal>, OpenReport) -> Result<Opened, OpenError> + 'a;

fn recover_caught(
    journal: Box<dyn Journal>,
    report: OpenReport,
    found: &mut FoundRunning,
    began: Instant,
) -> Result<Opened, OpenError> {
    let mut journal = ManuallyDrop::new(journal);
    let recovered =
        catch_unwind(AssertUnwindSafe(|| recover(&mut **journal, report, found, began)));
    match recovered {
        Ok(Ok(recovered)) => Ok((ManuallyDrop::into_inner(journal), recovered)),
        // A store that panicked is in an unknown state: it is leaked, not dropped.
        Ok(Err(error @ OpenError::Journal(JournalError::Panicked(_)))) => Err(error),
        Ok(Err(error)) => {
            drop(ManuallyDrop::into_inner(journal));
            Err(error)
        }
        Err(panic) => Err(JournalError::Panicked(panic_text(panic)).into()),
    }
}

/// The one answer of an open: the opener's, or the watchdog's.
struct Reply<T>(Arc<Mutex<Option<Answer<T>>>>);

type Answer<T> = oneshot::Sender<Result<T, OpenError>>;

impl<T> Reply<T> {
    fn send(&self, result: Result<T, OpenError>) {
        if let Some(reply) = lock(&self.0).take() {
            // Nobody waiting any more is fine.
            wake::caught(|| drop(reply.send(result)));
        }
    }
}

impl<T> Clone for Reply<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

fn spawn(name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
    thread::Builder::new().name(name.into()).spawn(work).map(drop).map_err(|source| OpenError::Io {
        action: "start a thread for",
        path: name.into(),
        source,
    })
}

impl<K, V> fmt::Debug for Builder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("output_cap", &self.output_cap)
            .field("sync_deadline", &self.sync_deadline)
            .field("open_deadline", &self.open_deadline)
            .field("max_pending", &self.max_pending)
            .finish_non_exhaustive()
    }
}
