//! The writer's rule under random groups, failing appends and random crashes, held against a plain
//! map: no thread, no clock, no runtime, the same from the same seed.

#![expect(clippy::unwrap_used, reason = "what panics here is a finding")]
#![expect(clippy::indexing_slicing, reason = "what panics here is a finding")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a model names what it knows")]

use crate::details::TaskDetails;
use crate::error::JournalError;
use crate::id::EncodedId;
use crate::index::Index;
use crate::journal::{Base, Entry, Journal, MemoryJournal, OpenReport, Record, Visit};
use crate::recovery::{FoundRunning, recover};
use crate::state::{Cell, Event, Failure, Output, SeqNo, SuccessBy, Timestamp};
use crate::submission::{Answer, AttemptKey, Begin, Request, Within};
use crate::writer::Core;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Random steps from `seed`: at most one success per id unless it is taken back, none lost by a
/// crash, none running after one. Returns how many requests and crashes there were.
///
/// # Panics
///
/// When that does not hold.
#[must_use]
pub fn simulate(seed: u64) -> (u64, u64) {
    let mut simulation = Simulation::new(seed);
    let steps = 1 + simulation.below(120);
    for _ in 0..steps {
        simulation.take();
    }
    simulation.sync();
    simulation.crash();
    (simulation.requests, simulation.crashes)
}

const IDS: u64 = 4;

/// What one id is allowed to have gone through, by hand: no `apply` here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Plain {
    state: Option<&'static str>,
    by: Option<AttemptKey>,
    /// All that is left is a tombstone.
    buried: bool,
    pinned: bool,
    /// The first record of its life, while that is not over.
    since: SeqNo,
    /// The attempt that it runs within.
    within: Option<AttemptKey>,
    /// How it has ended, if that waits for what runs within it.
    ended: Option<Event>,
}

struct Simulation {
    random: u64,
    journal: MemoryJournal,
    index: Index,
    core: Core,
    plain: BTreeMap<u8, Plain>,
    group: Vec<Request>,
    attempts: Vec<(u8, AttemptKey, bool)>,
    /// Successes acknowledged since the id was last not found.
    successes: BTreeMap<u8, u32>,
    requests: u64,
    crashes: u64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut journal = MemoryJournal::new();
        let recovered = recover(
            &mut journal,
            OpenReport::default(),
            &mut FoundRunning::default(),
            Instant::now(),
        )
        .unwrap();
        Self {
            random: seed,
            journal,
            index: recovered.index,
            core: recovered.core,
            plain: BTreeMap::new(),
            group: Vec::new(),
            attempts: Vec::new(),
            successes: BTreeMap::new(),
            requests: 0,
            crashes: 0,
        }
    }

    /// splitmix64.
    const fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn id(&mut self) -> u8 {
        u8::try_from(self.below(IDS)).unwrap()
    }

    fn take(&mut self) {
        let key = AttemptKey(self.attempts.len() as u64);
        let n = self.id();
        let request = match self.below(24) {
            0..4 => {
                let within = match self.attempts.len() as u64 {
                    0 => None,
                    all => usize::try_from(self.below(3 * all)).ok(),
                };
                let within = within.and_then(|which| self.attempts.get(which));
                let within = within.map(|(n, key, _)| Within { key: *key, id: number(*n) });
                self.attempts.push((n, key, false));
                Request::Start { id: number(n), key, begin: Begin { within, ..Begin::default() } }
            }
            4..6 => {
                self.attempts.push((n, key, true));
                Request::StartRevoke { id: number(n), key }
            }
            6 => Request::mark(number(n)),
            7 => Request::forget(number(n)),
            8..14 => {
                if self.attempts.is_empty() {
                    return;
                }
                // The end of one of the attempts so far, current or not.
                let which = usize::try_from(self.below(self.attempts.len() as u64)).unwrap();
                let (n, key, revoke) = self.attempts[which];
                let event = match (revoke, self.below(3)) {
                    (false, 0) => Event::Failed { failure: Failure::TimedOut },
                    (false, _) => {
                        Event::Succeeded { by: SuccessBy::Attempt, output: Output::Absent }
                    }
                    (true, 0) => Event::RevokeFailed { failure: Failure::TimedOut },
                    (true, _) => Event::Revoked,
                };
                Request::End { id: number(n), key, event }
            }
            14 | 15 => {
                if self.attempts.is_empty() {
                    return;
                }
                let which = usize::try_from(self.below(self.attempts.len() as u64)).unwrap();
                let (n, key, _) = self.attempts[which];
                Request::Note { id: number(n), key, note: "on its way".to_owned() }
            }
            16..20 => {
                let tombstone = self.index.seal().tombstone(&[n]);
                let events = [
                    Event::Resolved { failure: Failure::Released(String::new()) },
                    Event::Succeeded { by: SuccessBy::Resolve, output: Output::Absent },
                    Event::Buried { tombstone },
                    Event::Pinned,
                    Event::Unpinned,
                ];
                let event = events[usize::try_from(self.below(5)).unwrap()].clone();
                Request::Change { id: number(n), event, after: None }
            }
            20..23 => return self.sync(),
            _ => return self.crash(),
        };
        self.requests += 1;
        self.group.push(request);
    }

    fn sync(&mut self) {
        let group = std::mem::take(&mut self.group);
        let index = &self.index;
        let look = |id: &EncodedId| index.find(id);
        let step = self
            .core
            .step(
                &group,
                Timestamp::default(),
                look,
                |_| false,
                &mut self.journal,
                |to, records| to.append(records),
            )
            .unwrap();
        self.index.publish(step.changes);
        let mut changed = BTreeSet::new();
        for (request, answer) in group.iter().zip(&step.answers) {
            let taken = matches!(answer, Answer::Done(_));
            let verdict = if taken { "taken" } else { "refused" };
            // Whether its own batch had a say in it tells what went wrong.
            let behind = changed.contains(&request.id().unwrap().as_bytes()[0]);
            let behind = if behind { ", behind another one of its id" } else { "" };
            let cell = if let Answer::Done(cell) = answer { *cell } else { Cell::ABSENT };
            let accepted = self.expect(request, cell.seq);
            assert!(
                taken == accepted,
                "{verdict} against the rule{behind}: {request:?}: {answer:?}"
            );
            if accepted {
                changed.insert(request.id().unwrap().as_bytes()[0]);
            }
        }
        self.check();
    }

    /// What a request does to the plain map; whether it is taken.
    fn expect(&mut self, request: &Request, seq: SeqNo) -> bool {
        let n = request.id().unwrap().as_bytes()[0];
        let plain = self.plain.entry(n).or_default();
        let was = plain.clone();
        match (request, was.state) {
            (Request::Start { key, begin, .. }, None | Some("failed")) => {
                let since = if was.state.is_none() { seq } else { was.since };
                let within = begin.within.as_ref().map(|within| within.key);
                let takes_more = |plain: &Plain| plain.by == within && plain.ended.is_none();
                if within.is_some() && !self.plain.values().any(takes_more) {
                    return false;
                }
                let (state, by) = (Some("running"), Some(*key));
                let running = Plain { state, by, since, within, ..Plain::default() };
                self.plain.insert(n, running);
                return true;
            }
            (Request::StartRevoke { key, .. }, Some("succeeded")) => {
                *plain = Plain {
                    state: Some("revoking"),
                    by: Some(*key),
                    pinned: was.pinned && !was.buried,
                    ..Plain::default()
                };
            }
            (
                Request::Change { event: Event::Succeeded { by: SuccessBy::Resolve, .. }, .. },
                None,
            ) => {
                return false;
            }
            (Request::Change { event: Event::Succeeded { .. }, .. }, None | Some("failed")) => {
                let (state, pinned) = (Some("succeeded"), was.pinned);
                *plain = Plain { state, pinned, ..Plain::default() };
            }
            (Request::Change { event: Event::Resolved { .. }, .. }, Some("failed")) => {}
            (Request::Change { event: Event::Buried { .. }, .. }, Some("succeeded"))
                if !was.buried =>
            {
                let state = Some("succeeded");
                *plain = Plain { state, buried: true, ..Plain::default() };
                return true;
            }
            (Request::Change { event, .. }, Some("succeeded" | "failed"))
                if !was.buried && matches!(event, Event::Pinned | Event::Unpinned) =>
            {
                plain.pinned = matches!(event, Event::Pinned);
                return true;
            }
            (Request::Note { key, .. }, Some("running")) if was.by == Some(*key) => return true,
            (Request::Change { event: Event::Forgotten, .. }, Some("succeeded" | "failed")) => {
                *plain = Plain::default()
            }
            (Request::End { key, event, .. }, _) if was.by == Some(*key) => {
                if self.plain.values().any(|plain| plain.within == Some(*key)) {
                    self.plain.entry(n).or_default().ended = Some(event.clone());
                    return false;
                }
                self.ends(n, event);
                return true;
            }
            _ => return false,
        }
        self.counts(n, &was);
        true
    }

    /// An attempt ends, and with it whatever has waited for that.
    fn ends(&mut self, n: u8, event: &Event) {
        let was = self.plain.get(&n).cloned().unwrap_or_default();
        let state = match event {
            Event::Revoked => None,
            Event::RevokeFailed { .. } => Some("succeeded"),
            Event::Failed { .. } => Some("failed"),
            _ => Some("succeeded"),
        };
        let since = if state == Some("failed") { was.since } else { SeqNo::ZERO };
        let pinned = was.pinned && state.is_some();
        self.plain.insert(n, Plain { state, since, pinned, ..Plain::default() });
        self.counts(n, &was);
        if was.within.is_none() || self.plain.values().any(|plain| plain.within == was.within) {
            return;
        }
        let parent = self.plain.iter().find(|(_, plain)| plain.by == was.within);
        let parent = parent.and_then(|(n, plain)| Some((*n, plain.ended.clone()?)));
        if let Some((n, event)) = parent {
            self.ends(n, &event);
        }
    }

    fn counts(&mut self, n: u8, was: &Plain) {
        let state = self.plain.get(&n).and_then(|plain| plain.state);
        if state == Some("succeeded") && was.state != Some("revoking") {
            let successes = self.successes.entry(n).or_default();
            *successes += 1;
            assert_eq!(*successes, 1, "a success is acknowledged once");
        }
        if state.is_none() {
            self.successes.remove(&n);
        }
    }

    /// Nothing in the log outlives the scope that it ran within.
    fn children_come_first(&self) {
        let mut running: BTreeMap<EncodedId, Option<EncodedId>> = BTreeMap::new();
        for record in self.journal.records() {
            let Entry::Task { id, event, .. } = record.entry else { continue };
            match event {
                Event::Started { parent, .. } => {
                    let parent = parent.map(|parent| EncodedId::from_bytes(parent.as_bytes()));
                    running.insert(id, parent);
                }
                Event::Succeeded { .. } | Event::Failed { .. } => {
                    let orphan = running.iter().find(|(_, parent)| parent.as_ref() == Some(&id));
                    assert_eq!(orphan, None, "record {} ends a scope before it", record.seq);
                    running.remove(&id);
                }
                _ => {}
            }
        }
    }

    /// Dies with the group in flight, or after it has failed, some of it durable, and opens again.
    fn crash(&mut self) {
        self.crashes += 1;
        // What was acknowledged is durable; of the group in flight any prefix is.
        let durable = self.journal.records().len();
        let group = std::mem::take(&mut self.group);
        let index = &self.index;
        let look = |id: &EncodedId| index.find(id);
        let mut failing = Failing(self.journal.clone());
        // Nothing is published or answered after it, whatever of it is on the disk.
        let failed = self.core.step(
            &group,
            Timestamp::default(),
            look,
            |_| false,
            &mut failing,
            |to, records| to.append(records),
        );
        let all = self.journal.records();
        assert!(failed.is_err() || all.len() == durable, "a failure is told");
        let more = self.below((all.len() - durable + 1) as u64);
        let kept = durable + usize::try_from(more).unwrap();
        let survivor = self.journal.fork_at(kept);
        for record in &all[durable..kept] {
            self.replay_plainly(record);
        }
        let running = self.in_state("running");
        let revoking = self.in_state("revoking");
        let mut journal = survivor;
        let recovered = recover(
            &mut journal,
            OpenReport::default(),
            &mut FoundRunning::default(),
            Instant::now(),
        )
        .unwrap();
        let (crashed, told) = (recovered.recovery.crashed::<u8>().count(), running.len());
        assert_eq!(crashed, told, "what was running is found crashed");
        let interrupted = recovered.recovery.interrupted_revokes::<u8>().count();
        assert_eq!(interrupted, revoking.len(), "what was being revoked is found interrupted");
        for n in running {
            let plain = self.plain.entry(n).or_default();
            (plain.state, plain.by) = (Some("failed"), None);
            (plain.within, plain.ended) = (None, None);
            let cell = recovered.index.cell(&[n]);
            let details = journal.read(&number(n), cell).unwrap();
            assert_eq!(details.failure, Some(Failure::Crashed), "and says so of itself");
        }
        for n in revoking {
            let plain = self.plain.entry(n).or_default();
            (plain.state, plain.by) = (Some("succeeded"), None);
        }
        self.journal = journal;
        self.index = recovered.index;
        self.core = recovered.core;
        // The keys of the dead process mean nothing to the new one.
        self.attempts.clear();
        self.check();
        self.children_come_first();
    }

    fn replay_plainly(&mut self, record: &Record) {
        let Entry::Task { id, event, .. } = &record.entry else { return };
        let n = id.as_bytes()[0];
        let state = match event {
            Event::Started { .. } => Some("running"),
            Event::RevokeStarted => Some("revoking"),
            Event::Succeeded { .. } | Event::RevokeFailed { .. } => Some("succeeded"),
            Event::Failed { .. } | Event::Resolved { .. } => Some("failed"),
            Event::Buried { .. } | Event::Exhumed { .. } => Some("succeeded"),
            Event::Noted { .. } => return,
            Event::Pinned | Event::Unpinned => {
                self.plain.entry(n).or_default().pinned = matches!(event, Event::Pinned);
                return;
            }
            _ => None,
        };
        match event {
            Event::Succeeded { .. } => _ = self.successes.insert(n, 1),
            Event::Revoked | Event::Forgotten => _ = self.successes.remove(&n),
            _ => {}
        }
        let was = self.plain.get(&n).cloned().unwrap_or_default();
        let since = match (state, was.state) {
            (Some("running"), None) => record.seq,
            (Some("running" | "failed"), _) => was.since,
            _ => SeqNo::ZERO,
        };
        let buried = matches!(event, Event::Buried { .. });
        let gone = buried || state.is_none() || state == Some("running");
        let pinned = was.pinned && !gone && !matches!(event, Event::Exhumed { .. });
        self.plain.insert(n, Plain { state, since, buried, pinned, ..Plain::default() });
    }

    fn in_state(&self, state: &str) -> BTreeSet<u8> {
        let is = |plain: &Plain| plain.state == Some(state);
        self.plain.iter().filter_map(|(n, plain)| is(plain).then_some(*n)).collect()
    }

    fn check(&self) {
        for n in 0..u8::try_from(IDS).unwrap() {
            let plain = self.plain.get(&n).cloned().unwrap_or_default();
            let shown = self.index.state(&[n]).name();
            assert_eq!(shown, plain.state.unwrap_or("not found"), "memory shows it");
            let (cell, tombstone) = self.index.look(&[n]);
            assert_eq!(
                tombstone.is_some(),
                plain.buried,
                "what was buried is there as a tombstone"
            );
            if cell != Cell::ABSENT {
                let details = self.journal.clone().read(&number(n), cell).unwrap();
                assert_eq!(details.cell, cell, "the journal tells of the same state");
                assert_eq!(details.since, plain.since, "a life begins once");
                assert_eq!(details.pinned, plain.pinned, "it is pinned, or not");
            }
        }
    }
}

/// Its appends reach the disk, and are told to have failed.
struct Failing(MemoryJournal);

impl Journal for Failing {
    fn replay(&mut self, visit: &mut Visit<'_>) -> Result<Base, JournalError> {
        self.0.replay(visit)
    }

    fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        self.0.append(records)?;
        Err(JournalError::Store("the disk is on fire".into()))
    }

    fn read(&mut self, id: &EncodedId, cell: Cell) -> Result<TaskDetails, JournalError> {
        self.0.read(id, cell)
    }
}

fn number(n: u8) -> EncodedId {
    EncodedId::from_bytes(&[n])
}

#[cfg(test)]
mod tests {
    #[test]
    fn random_groups_and_crashes_keep_the_promise() {
        let (mut requests, mut crashes) = (0, 0);
        for seed in 0..300 {
            let (some, dead) = super::simulate(seed);
            requests += some;
            crashes += dead;
        }
        assert!(requests > 5_000 && crashes > 500, "{requests} requests, {crashes} crashes");
    }
}
