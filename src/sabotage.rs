//! Promises broken on purpose, so that the crash lab can show that it would notice.
//!
//! A harness that finds nothing proves something only if it finds what is there. So every harness
//! runs a second time with one of these at work, and must find violations then. Without the feature
//! `internals` nothing here can be switched on, and every question is answered at compile time.

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
#[cfg_attr(
    not(feature = "internals"),
    expect(unreachable_pub, reason = "only `internals` shows it to anybody")
)]
pub enum Sabotage {
    /// The log is not synced.
    SkipSync = 1,
    /// A batch is acknowledged before it is written: each is written with the next one.
    HoldBack,
    /// A failed write or sync is taken for a good one.
    SwallowFailure,
    /// The end of any attempt ends the one that runs.
    SkipFencing,
    /// A request is judged without what its own batch did before it.
    ForgetBatch,
    /// Callers are answered before the batch is published.
    AnswerFirst,
    /// What was running when the process died stays running.
    SkipReset,
    /// What the witness has seen does not matter.
    IgnoreWitness,
    /// Nobody else is kept out.
    SkipLock,
    /// An attempt that is dropped leaves no end.
    DropEnd,
    /// The end of the last attempt does not wake the writer.
    LoseWake,
    /// In a replay, what is dated before the record before it did not happen.
    TrustClock,
    /// A length is believed before the checksum is.
    TrustLength,
    /// A sync of the log that fails is taken for a good one.
    IgnoreSync,
    /// What is read is taken to be on the disk.
    TrustCache,
    /// The watchdog lets a store that does not come back take its callers with it.
    NeverGiveUp,
    /// A ledger that was moved away goes on in its old place.
    LosePath,
    /// What is under way goes by the name of the directory, whatever has that by now.
    ByName,
    /// A ledger whose last handle is dropped stays open.
    StayOpen,
    /// The watchdog outlives its writer.
    StayBehind,
    /// A tombstone goes before the cell of its id is there again.
    OpenFirst,
    /// Who waits for a run that ends without an answer is not woken.
    LeaveCompany,
    /// A run goes on though its caller is gone and wanted it to end with that.
    KeepLead,
    /// A long append is synced at its end alone.
    SyncLate,
    /// The witness is written before the logs are judged.
    TouchFirst,
    /// Damaged files are not kept when a loss is accepted.
    DropEvidence,
    /// What stands behind a gap is not read when a loss is accepted.
    StopAtGap,
    /// What is folded loses its dates.
    LoseDates,
    /// An accepted loss is not told.
    LossUntold,
    /// An accepted loss is not recorded.
    LossUnrecorded,
    /// A loss is accepted though nobody has said so.
    AcceptUnasked,
    /// What the ballast holds matters.
    JudgeBallast,
    /// A record that is read is believed to be legal.
    TrustRecord,
    /// A prune digs no tombstone.
    DigNoGrave,
    /// A checkpoint has no new tombstones.
    LoseGraves,
    /// What may have happened is pruned.
    PruneHeld,
    /// A repeat after a success executes again.
    RunAgain,
    /// A copy is not marked as one while it is made.
    CopyUnmarked,
    /// A copy of a checkpoint is not synced.
    CopyUnsynced,
    /// The directories above a new ledger are taken to have their names on the disk.
    TrustNames,
    /// The name of the manifest that is read is taken to be on the disk.
    TrustManifest,
    /// A log is opened by the store without a copy of its frames.
    SkipRescue,
    /// What the witness notes is never synced.
    LeaveWitness,
    /// The witness notes nothing before it is synced.
    NoteLate,
    /// A checkpoint holds no metadata.
    LoseMetadata,
    /// The evidence of a repair that was killed is taken for that of an earlier one.
    ForgetRepair,
    /// The evidence that an accepted loss keeps is not synced.
    TrustEvidence,
    /// Who has waited for the lock takes the directory for what it was before.
    JudgeOnce,
    /// Who leaves a line keeps the token that was offered to it.
    KeepOffer,
    /// The end of a scope is recorded before those of what runs within it.
    EndFirst,
    /// Who comes to a run after its failure was recorded is told of that.
    TellOldNews,
    /// The place of a runner that is gone is not given back.
    KeepPlace,
    /// A runner takes what was queued last.
    TakeLast,
    /// A queue takes more than it has room for.
    NeverFull,
    /// No ballast is made.
    SkipBallast,
    /// A run starts its attempt though something has happened since it asked its policies.
    StartBlindly,
}

/// Whether this is done wrong.
#[cfg(not(feature = "internals"))]
pub(crate) const fn is(_: Sabotage) -> bool {
    false
}

#[cfg(feature = "internals")]
pub(crate) use on::is;
#[cfg(feature = "internals")]
pub use on::sabotage;

#[cfg(feature = "internals")]
mod on {
    use super::Sabotage;
    use std::sync::atomic::{AtomicU8, Ordering};

    static AT_WORK: AtomicU8 = AtomicU8::new(0);

    /// From now on this is done wrong, in all ledgers of this process.
    pub fn sabotage(what: Sabotage) {
        AT_WORK.store(what as u8, Ordering::SeqCst);
    }

    pub(crate) fn is(what: Sabotage) -> bool {
        AT_WORK.load(Ordering::Relaxed) == what as u8
    }
}
