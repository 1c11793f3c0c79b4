//! A persistent, crash-recoverable task ledger: give it an id and a future, and it remembers durably
//! what became of it.
//!
//! *Execution is at least once, recording is exactly once, and a recorded success outlives the
//! power.*
//!
//! It is an embedded idempotency guard. Work that must not be done twice - a charge, an upload, a
//! migration, a mail - is launched under an id. Of all launches of one id exactly one runs at a
//! time; once one has succeeded, none ever runs again, not after a restart, not after `kill -9`, not
//! after a power cut. What was running when the process died is found as *crashed* by the next
//! open, neither lost nor silently run again.
//!
//! # Example
//!
//! ```
//! use taskledger::{AttemptError, Ledger, TaskState};
//!
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("orders");
//! # async fn charge(order: u64) -> Result<String, String> { Ok(format!("receipt {order}")) }
//! // Ids are order numbers; a success keeps its receipt.
//! let ledger: Ledger<u64, String> = Ledger::open(&path).await?;
//!
//! let receipt = match ledger.launch_block(7, charge(7)).await {
//!     Ok(receipt) => receipt, // charged now, and that is on disk
//!     Err(AttemptError::Refused { state: TaskState::Succeeded, .. }) => {
//!         ledger.output(&7).await?.unwrap_or_default() // charged before: not again
//!     }
//!     Err(other) => return Err(other.into()),
//! };
//! assert_eq!(receipt, "receipt 7");
//!
//! ledger.close().await?;
//! let ledger: Ledger<u64, String> = Ledger::open(&path).await?; // the next process
//! assert_eq!(ledger.query_task_state(&7).await, TaskState::Succeeded);
//! # ledger.close().await?;
//! # Ok(()) }
//! ```
//!
//! Most of that match is what [`Ledger::run`] is for: do this once, and give everybody the same answer.
//! The first caller executes, others join it, and a repeat gets the stored output:
//!
//! ```
//! # use taskledger::{ClaimKind, Ledger, MemoryJournal};
//! # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # async fn charge(order: u64, key: String) -> Result<String, String> { Ok(format!("{order} {key}")) }
//! # let ledger = Ledger::<u64, String>::builder().open_journal(MemoryJournal::new()).await?;
//! let once = || ledger.run(7, |cx| charge(7, cx.effect_key().to_string()));
//! let (first, again) = (once().await?, once().await?);
//! assert_eq!((first.kind, again.kind), (ClaimKind::Executed, ClaimKind::Replayed));
//! assert_eq!(first.value, again.value);
//! # Ok(()) }
//! ```
//!
//! [`Ledger`] has all that can be done; [`Ledger::task`] the policies, retries, deadlines and fingerprints
//! of a run; [`Builder`] the few options. More programs are in `examples/`: `quickstart`,
//! `idempotent_upload`, `payment_once`, `cached_fetch`, `graceful_shutdown`, `checksum_tree`.
//!
//! # Guarantees
//!
//! * **A success once acknowledged is never lost and never run again**: not by `kill -9`, not by
//!   power loss, not by a restart. Only an explicit [revoke](Ledger::revoke_task_block),
//!   [forget](Ledger::forget) or [accepted loss](Builder::accept_loss) changes it.
//! * **One attempt of an id at a time.** Of any number of concurrent launches of one id exactly one
//!   is accepted; the others get their future back, unpolled, and change no id.
//! * **Nothing that was running is forgotten.** What was running when the process died is
//!   [`Failed`](TaskState::Failed) with [`Failure::Crashed`] after the next open; so is a panic, a
//!   dropped future, a timeout or the end of the runtime an end that is recorded.
//! * **Memory never runs ahead of the disk.** A query never shows what a crash could take back.
//!   Queries are linearizable per id and never wait for the disk.
//! * **No silent damage.** What a broken disk loses is found and reported as
//!   [`OpenError::Damaged`], with no record changed. The ledger never opens as "empty" or "shorter"
//!   without saying so. Not covered: the whole directory put back to an older copy, and damage
//!   *together with* a power cut within the last seconds.
//!
//! After a failed write the ledger is *poisoned*: it acknowledges nothing more, queries keep
//! showing what was last published, and the next open tells the truth. A value whose end could not
//! be recorded is handed over as [in doubt](AttemptError::InDoubt).
//!
//! # What it means for your effects
//!
//! Nobody can make an effect and its record one step. If the process dies between the two, the
//! effect may have happened and the id is `Failed(Crashed)`. So make the effect one that can be
//! repeated (write and rename, "create if absent", the id as the other side's idempotency key), or
//! look at [`Recovery::crashed`] before you launch again.
//!
//! # It is not
//!
//! * **Exactly-once execution.** See above; that does not exist.
//! * **A distributed lock or a database server.** One process has a ledger open at a time
//!   ([`OpenError::Locked`] says who). Network file systems are not supported: their locks and syncs
//!   do not mean what is needed.
//! * **A scheduler, cron, or a broker.** It runs what you launch, when you launch it; its [`Queue`] is one of
//!   this process. It retries only where [you say so](Task::retry), and what a crash has cut off in a queue.
//! * **Fork-safe.** A forked child must not touch the ledger of its parent.
//! * **Of full use with `panic = "abort"`.** A panicking attempt then takes the process with it, and is
//!   found as crashed.
//! * **Portable everywhere.** Linux is what is proved; macOS is meant to build; Windows is not promised
//!   and does not build.
//!
//! # Features
//!
//! None is on by default, and none changes what the library does without it.
//!
//! * `cli`: the `taskledger` command. It runs commands that must succeed once (`map`, `exec`), looks into
//!   ledgers (`dump`, `show`, `log`, `stats`, `verify`), changes what is asked for (`resolve`, `pin`, `unpin`,
//!   `prune`, `repair`), and copies them (`backup`, `export`, `import`).
//! * `json`: exports and imports of whole ledgers as JSON Lines (`dump::Inspection::export`,
//!   `dump::import`). `cli` turns it on.
//! * `metrics`: what the ledger does, in numbers, for the `metrics` facade.
//! * `internals`: a module of what the benches and the crash lab need of the inside; exempt from
//!   semantic versioning.
//!
//! The oldest supported Rust is 1.85. Raising it is a minor release.

mod attempt;
mod builder;
mod details;
pub mod dump;
mod error;
mod foreign;
mod guard;
mod held;
mod id;
mod index;
mod journal;
mod ledger;
pub mod line;
mod measure;
mod queue;
mod recovery;
mod retention;
mod sabotage;
mod scope;
mod seal;
mod shared;
mod state;
mod submission;
mod sync;
mod task;
mod transitions;
mod views;
mod wake;
mod watch;
mod writer;

#[cfg(feature = "internals")]
pub mod internals;

pub use builder::{AcceptLoss, Builder};
pub use ledger::{Health, Ledger, TaskOutput};
pub use queue::{EnqueueError, Enqueued, Left, Operation, Queue, QueueBuilder, QueueError};
pub use recovery::{Crashed, Recovery};
pub use retention::{Pruned, Retention};
pub use scope::{Cause, Child, ChildBuilder, Ended, Launched, Root, Scope, SpawnError, StopFlag};
pub use task::{Retrying, Task};
pub use transitions::{Lagged, Transition, Transitions};
pub use views::{View, ViewIter};

pub use details::{Note, TaskDetails};
pub use error::*;
pub use guard::{Claim, ClaimKind, Context, EffectKey, Landed, OnCrash, OnFailure, Retry, Verdict};
pub use id::{ByteId, EncodedId, IdShape, Lookup, MAX_ID_BYTES, ParseByteIdError, TaskId};
pub use journal::{
    Base, Copier, Entry, Journal, LedgerEvent, MemoryJournal, Reader, Record, Replayed, Upkeep,
    Visit, VisitDetails,
};
pub use state::*;

/// The examples of the README, compiled and run like all others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct ReadmeDoctests;
