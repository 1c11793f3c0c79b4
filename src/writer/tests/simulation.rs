//! Random groups and random crashes, compared with a plain map.

use super::*;
use crate::index::Index;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// What one id is allowed to have gone through, by hand: no `apply` here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Plain {
    state: Option<&'static str>,
    by: Option<AttemptKey>,
}

#[derive(Clone, Debug)]
enum Step {
    Start(u8),
    Revoke(u8),
    Mark(u8),
    Forget(u8),
    /// The end of one of the attempts so far, current or not; the second number chooses how.
    End(prop::sample::Index, u8),
    /// Closes the group.
    Sync,
    /// Dies with the group in flight, some of it durable, and opens again.
    Crash(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = 0..4_u8;
    let step = prop_oneof![
        4 => id.clone().prop_map(Step::Start),
        2 => id.clone().prop_map(Step::Revoke),
        1 => id.clone().prop_map(Step::Mark),
        1 => id.prop_map(Step::Forget),
        6 => (any::<prop::sample::Index>(), 0..3_u8).prop_map(|(which, how)| Step::End(which, how)),
        3 => Just(Step::Sync),
        1 => any::<prop::sample::Index>().prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..120)
}

/// The simulation: groups of random requests, random crashes in the middle of an append, and a
/// plain map that says what must be there.
struct Simulation {
    journal: MemoryJournal,
    index: Index,
    core: Core,
    plain: BTreeMap<u8, Plain>,
    group: Vec<Request>,
    attempts: Vec<(u8, AttemptKey, bool)>,
    /// Successes acknowledged since the id was last not found.
    successes: BTreeMap<u8, u32>,
}

impl Simulation {
    fn new() -> Self {
        let mut journal = MemoryJournal::new();
        let recovered = recover(&mut journal, OpenReport::default(), Instant::now()).unwrap();
        Self {
            journal,
            index: recovered.index,
            core: recovered.core,
            plain: BTreeMap::new(),
            group: Vec::new(),
            attempts: Vec::new(),
            successes: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        let key = AttemptKey(self.attempts.len() as u64);
        match step {
            Step::Start(n) => {
                self.attempts.push((*n, key, false));
                self.group.push(Request::Start { id: number(*n), key });
            }
            Step::Revoke(n) => {
                self.attempts.push((*n, key, true));
                self.group.push(Request::StartRevoke { id: number(*n), key });
            }
            Step::Mark(n) => self.group.push(Request::Mark { id: number(*n) }),
            Step::Forget(n) => self.group.push(Request::Forget { id: number(*n) }),
            Step::End(which, how) if !self.attempts.is_empty() => {
                let (n, key, revoke) = self.attempts[which.index(self.attempts.len())];
                let event = match (revoke, how) {
                    (false, 0) => failed(),
                    (false, _) => succeeded(),
                    (true, 0) => revoke_failed(),
                    (true, _) => Event::Revoked,
                };
                self.group.push(Request::End { id: number(n), key, event });
            }
            Step::End(..) => {}
            Step::Sync => self.sync(),
            Step::Crash(cut) => self.crash(cut),
        }
    }

    fn sync(&mut self) {
        let group = std::mem::take(&mut self.group);
        let index = &self.index;
        let look = |id: &EncodedId| index.cell(id.as_bytes());
        let step = self.core.step(&group, Timestamp::default(), look, &mut self.journal).unwrap();
        self.index.publish(step.changes);
        for (request, answer) in group.iter().zip(&step.answers) {
            let accepted = self.expect(request);
            assert_eq!(matches!(answer, Answer::Done(_)), accepted, "{request:?}: {answer:?}");
        }
        self.check();
    }

    /// What a request does to the plain map; whether it is taken.
    fn expect(&mut self, request: &Request) -> bool {
        let n = request.id().unwrap().as_bytes()[0];
        let plain = self.plain.entry(n).or_default();
        let was = plain.clone();
        match (request, was.state) {
            (Request::Start { key, .. }, None | Some("failed")) => {
                *plain = Plain { state: Some("running"), by: Some(*key) };
            }
            (Request::StartRevoke { key, .. }, Some("succeeded")) => {
                *plain = Plain { state: Some("revoking"), by: Some(*key) };
            }
            (Request::Mark { .. }, None | Some("failed")) => {
                *plain = Plain { state: Some("succeeded"), by: None };
            }
            (Request::Forget { .. }, Some("succeeded" | "failed")) => *plain = Plain::default(),
            (Request::End { key, event, .. }, _) if was.by == Some(*key) => {
                let state = match event {
                    Event::Revoked => None,
                    Event::RevokeFailed { .. } => Some("succeeded"),
                    Event::Failed { .. } => Some("failed"),
                    _ => Some("succeeded"),
                };
                *plain = Plain { state, by: None };
            }
            _ => return false,
        }
        if plain.state == Some("succeeded") && was.state != Some("revoking") {
            let successes = self.successes.entry(n).or_default();
            *successes += 1;
            assert_eq!(*successes, 1, "a success is acknowledged once");
        }
        if plain.state.is_none() {
            self.successes.remove(&n);
        }
        true
    }

    fn crash(&mut self, cut: &prop::sample::Index) {
        // What was acknowledged is durable; of the group in flight any prefix is.
        let durable = self.journal.records().len();
        let group = std::mem::take(&mut self.group);
        let index = &self.index;
        let look = |id: &EncodedId| index.cell(id.as_bytes());
        self.core.step(&group, Timestamp::default(), look, &mut self.journal).unwrap();
        let all = self.journal.records();
        let kept = durable + cut.index(all.len() - durable + 1);
        let survivor = MemoryJournal::new();
        survivor.clone().append(&all[..kept]).unwrap();
        for record in &all[durable..kept] {
            self.replay_plainly(record);
        }
        let running = self.in_state("running");
        let revoking = self.in_state("revoking");
        let mut journal = survivor;
        let recovered = recover(&mut journal, OpenReport::default(), Instant::now()).unwrap();
        assert_eq!(recovered.recovery.crashed::<u8>().count(), running.len());
        assert_eq!(recovered.recovery.interrupted_revokes::<u8>().count(), revoking.len());
        for n in running {
            self.plain.insert(n, Plain { state: Some("failed"), by: None });
            let cell = recovered.index.cell(&[n]);
            let details = journal.read(&number(n), cell).unwrap();
            assert_eq!(details.failure, Some(Failure::Crashed));
        }
        for n in revoking {
            self.plain.insert(n, Plain { state: Some("succeeded"), by: None });
        }
        self.journal = journal;
        self.index = recovered.index;
        self.core = recovered.core;
        // The keys of the dead process mean nothing to the new one.
        self.attempts.clear();
        self.check();
    }

    fn replay_plainly(&mut self, record: &Record) {
        let Entry::Task { id, event, .. } = &record.entry else { return };
        let n = id.as_bytes()[0];
        let state = match event {
            Event::Started { .. } => Some("running"),
            Event::RevokeStarted => Some("revoking"),
            Event::Succeeded { .. } | Event::RevokeFailed { .. } => Some("succeeded"),
            Event::Failed { .. } => Some("failed"),
            _ => None,
        };
        match event {
            Event::Succeeded { .. } => _ = self.successes.insert(n, 1),
            Event::Revoked | Event::Forgotten => _ = self.successes.remove(&n),
            _ => {}
        }
        self.plain.insert(n, Plain { state, by: None });
    }

    fn in_state(&self, state: &str) -> BTreeSet<u8> {
        let is = |plain: &Plain| plain.state == Some(state);
        self.plain.iter().filter_map(|(n, plain)| is(plain).then_some(*n)).collect()
    }

    fn check(&self) {
        for n in 0..4_u8 {
            let expected = self.plain.get(&n).and_then(|plain| plain.state);
            let cell = self.index.cell(&[n]);
            assert_eq!(cell.state.name(), expected.unwrap_or("not found"));
            if cell != Cell::ABSENT {
                let details = self.journal.clone().read(&number(n), cell).unwrap();
                assert_eq!(details.cell, cell);
            }
        }
    }
}

fn number(n: u8) -> EncodedId {
    EncodedId::from_bytes(&[n])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// At most one success per id unless it is taken back, none lost by a crash, none running
    /// after one.
    #[test]
    fn random_groups_and_crashes_keep_the_promise(
        steps in steps(),
        last in any::<prop::sample::Index>(),
    ) {
        let mut simulation = Simulation::new();
        steps.iter().for_each(|step| simulation.take(step));
        simulation.sync();
        simulation.crash(&last);
    }
}
