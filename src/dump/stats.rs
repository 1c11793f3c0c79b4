//! A ledger in numbers.

use super::{Inspection, Source, last_change};
use crate::details::TaskDetails;
use crate::error::JournalError;
use crate::guard::EffectKey;
use crate::id::EncodedId;
use crate::journal::Entry;
use crate::journal::checkpoint::Graves;
use crate::seal::Seal;
use crate::state::{Epoch, Grave, SeqNo, TaskState, Timestamp, Tombstone};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What there is, in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Tasks by state, as [`TaskState::ALL`].
    pub counts: [u64; TaskState::ALL.len()],
    /// Successes of which only a tombstone is left: their ids are gone.
    pub tombstones: u64,
    /// Attempts of all tasks.
    pub attempts: u64,
    /// The most attempts of one task.
    pub most_attempts: u32,
    /// Start of the attempt that has been running for longest.
    pub oldest_running: Option<Timestamp>,
    /// End of the oldest failure that stands.
    pub oldest_failed: Option<Timestamp>,
    /// When anything last changed.
    pub newest_change: Option<Timestamp>,
    /// How often it was opened.
    pub epoch: Epoch,
    /// Names and sizes of its metadata.
    pub metadata: Vec<(String, usize)>,
    /// The last record that is folded into the checkpoint.
    pub checkpoint_seq: SeqNo,
    /// Bytes of the checkpoint.
    pub checkpoint_bytes: u64,
    /// Records after the checkpoint.
    pub log_records: u64,
    /// Bytes of these records' frames; the files that hold them are larger.
    pub log_bytes: u64,
    /// What could not be read, a line each.
    pub errors: Vec<String>,
}

impl Stats {
    /// Tasks in this state.
    #[must_use]
    pub fn count(&self, state: TaskState) -> u64 {
        let counts = TaskState::ALL.iter().zip(self.counts);
        counts.filter(|(each, _)| **each == state).map(|(_, count)| count).sum()
    }
}

/// The tombstones of a ledger: of each success that was pruned, that it was one.
pub struct Graveyard {
    seal: Seal,
    tombstones: BTreeSet<Tombstone>,
}

impl Graveyard {
    /// Whether this id has succeeded and was pruned.
    #[must_use]
    pub fn has(&self, id: &EncodedId) -> bool {
        self.tombstones.contains(&self.seal.tombstone(id.as_bytes()))
    }
}

impl fmt::Debug for Graveyard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graveyard")
            .field("tombstones", &self.tombstones.len())
            .finish_non_exhaustive()
    }
}

impl Inspection {
    /// The owner's metadata, by name, as far as it can be read: a damaged ledger shows what is whole, and
    /// [`stats`](Self::stats) says what is not. Reads all of the log.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("ledger");
    /// use taskledger::Ledger;
    /// use taskledger::dump::Inspection;
    ///
    /// let ledger = Ledger::<u64>::open(&path).await?;
    /// ledger.set_metadata("made-by", Some(b"the importer".to_vec())).await?;
    /// ledger.close().await?;
    /// assert_eq!(Inspection::open(&path)?.metadata()["made-by"], b"the importer");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn metadata(&self) -> BTreeMap<String, Vec<u8>> {
        self.whole().0.metadata.into_iter().collect()
    }

    /// What is left of successes that were pruned. Reads all of the log.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn graveyard(&self) -> Result<Graveyard, JournalError> {
        Ok(Graveyard { seal: Seal::new(self.manifest.ledger.0), tombstones: self.tombstones()? })
    }

    /// Whether a tombstone is all that is left of a success of this id. Reads all of the log; for many
    /// ids see [`graveyard`](Self::graveyard).
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn is_tombstone(&self, id: &EncodedId) -> Result<bool, JournalError> {
        Ok(self.graveyard()?.has(id))
    }

    /// The [effect key](crate::Context::effect_key) of the attempts of an id, of which these are the details;
    /// `None` of a success, which has no further attempt.
    #[must_use]
    pub fn effect_key(&self, id: &EncodedId, details: &TaskDetails) -> Option<EffectKey> {
        EffectKey::of(&Seal::new(self.manifest.ledger.0), id, details.since)
    }

    /// Every tombstone.
    pub(super) fn tombstones(&self) -> Result<BTreeSet<Tombstone>, JournalError> {
        let (mut graves, mut all) = (self.graves(), BTreeSet::new());
        while let Some(tombstone) = graves.next()? {
            all.insert(tombstone);
        }
        Ok(all)
    }

    /// Every tombstone, ascending. Takes memory for those that came and went in the log.
    pub(super) fn graves(&self) -> Graves<'_> {
        let (old, mut changes) = match &self.source {
            Source::Nothing => (None, BTreeMap::new()),
            Source::Checkpoint(checkpoint) => (Some(checkpoint), BTreeMap::new()),
            Source::Salvaged(salvage) => (None, salvage.tombstones.clone()),
        };
        // What cannot be read of the log is told by whoever reads the tasks.
        for record in self.records(SeqNo::ZERO).flatten() {
            let Entry::Task { event, .. } = &record.entry else { continue };
            match event.grave() {
                Some(Grave::Dug(tombstone)) => _ = changes.insert(tombstone, true),
                Some(Grave::Opened(tombstone)) => _ = changes.insert(tombstone, false),
                None => {}
            }
        }
        Graves::new(old, changes)
    }

    /// Counts everything; reads all of the ledger.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (base, errors) = self.whole();
        let text = |error: &JournalError| crate::error::chain(error);
        let frames = self
            .logs
            .iter()
            .flat_map(|log| log.frames.iter().filter_map(|number| log.scan.frames().get(*number)));
        let mut stats = Stats {
            counts: [0; TaskState::ALL.len()],
            tombstones: 0,
            attempts: 0,
            most_attempts: 0,
            oldest_running: None,
            oldest_failed: None,
            newest_change: None,
            epoch: base.epoch,
            metadata: base
                .metadata
                .iter()
                .map(|(name, value)| (name.clone(), value.len()))
                .collect(),
            checkpoint_seq: self.base_seq(),
            checkpoint_bytes: match &self.source {
                Source::Nothing => 0,
                Source::Checkpoint(checkpoint) => checkpoint.bytes(),
                Source::Salvaged(salvage) => salvage.bytes(),
            },
            log_records: 0,
            log_bytes: frames.map(|frame| frame.length()).sum(),
            errors: errors.iter().map(text).collect(),
        };
        stats.log_records = self.records(SeqNo::ZERO).filter(Result::is_ok).count() as u64;
        match self.tombstones() {
            Ok(tombstones) => stats.tombstones = tombstones.len() as u64,
            Err(error) => stats.errors.push(text(&error)),
        }
        for task in self.tasks() {
            let details = match task {
                Ok((_, details)) => details,
                Err(error) => {
                    let error = text(&error);
                    if !stats.errors.contains(&error) {
                        stats.errors.push(error);
                    }
                    continue;
                }
            };
            let state = details.state();
            let counts = TaskState::ALL.iter().zip(&mut stats.counts);
            counts.filter(|(each, _)| **each == state).for_each(|(_, count)| *count += 1);
            let attempt = details.attempt().get();
            stats.attempts += u64::from(attempt);
            stats.most_attempts = stats.most_attempts.max(attempt);
            stats.newest_change = stats.newest_change.max(last_change(&details));
            match state {
                TaskState::Running => older(&mut stats.oldest_running, details.started_at),
                TaskState::Failed => older(&mut stats.oldest_failed, details.ended_at),
                TaskState::NotFound
                | TaskState::Queued
                | TaskState::Succeeded
                | TaskState::Revoking => {}
            }
        }
        stats
    }
}

fn older(oldest: &mut Option<Timestamp>, at: Option<Timestamp>) {
    *oldest = oldest.iter().chain(&at).min().copied();
}
