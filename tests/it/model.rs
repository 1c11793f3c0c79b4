//! Random lives of a few ids, over reopens and crashes, compared with a plain map.

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;
use taskledger::{
    AttemptError, CancelError, ChangeError, Failure, LaunchError, Ledger, MemoryJournal, TaskState,
};
use tokio::sync::oneshot;

/// Where the ledger under test lives. A journal on disk implements this too.
pub(crate) trait Store: Sized {
    fn fresh() -> Self;
    async fn open(&self) -> Ledger<u8, u32>;
    /// What a crash at this instant would leave.
    fn crashed(&self) -> Self;
}

struct InMemory(MemoryJournal);

impl Store for InMemory {
    fn fresh() -> Self {
        Self(MemoryJournal::new())
    }

    async fn open(&self) -> Ledger<u8, u32> {
        Ledger::builder().open_journal(self.0.clone()).await.unwrap()
    }

    fn crashed(&self) -> Self {
        Self(self.0.fork())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn in_memory(ops in prop::collection::vec(op(), 1..60)) {
        run::<InMemory>(ops);
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Launch(u8),
    Revoke(u8),
    /// Ends what runs for the id, an attempt or a revoke.
    End(u8, How),
    Mark(u8),
    Forget(u8),
    Checkpoint,
    Reopen,
    Crash,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    Succeed(u32),
    Fail,
    Panic,
    Cancel,
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let id = || 0..5_u8;
    let how = prop_oneof![
        4 => any::<u32>().prop_map(How::Succeed),
        2 => Just(How::Fail),
        1 => Just(How::Panic),
        1 => Just(How::Cancel),
    ];
    prop_oneof![
        6 => id().prop_map(Op::Launch),
        2 => id().prop_map(Op::Revoke),
        6 => (id(), how).prop_map(|(id, how)| Op::End(id, how)),
        1 => id().prop_map(Op::Mark),
        1 => id().prop_map(Op::Forget),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Reopen),
        1 => Just(Op::Crash),
    ]
}

pub(crate) fn run<S: Store>(ops: Vec<Op>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let store = S::fresh();
        let ledger = store.open().await;
        let mut model = Model { store, ledger, plain: BTreeMap::new(), running: BTreeMap::new() };
        for op in ops {
            model.perform(op).await;
            model.check().await;
        }
        model.perform(Op::Crash).await;
        model.check().await;
        model.perform(Op::Reopen).await;
        model.check().await;
    });
}

/// What is known of one id.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    state: TaskState,
    attempt: u32,
    value: Option<u32>,
    failure: Option<&'static str>,
}

const ABSENT: Known = Known { state: TaskState::NotFound, attempt: 0, value: None, failure: None };

struct Model<S> {
    store: S,
    ledger: Ledger<u8, u32>,
    plain: BTreeMap<u8, Known>,
    running: BTreeMap<u8, oneshot::Sender<How>>,
}

/// A future that ends as it is told to.
async fn told(how: oneshot::Receiver<How>) -> Result<u32, &'static str> {
    match how.await {
        Ok(How::Succeed(value)) => Ok(value),
        Ok(How::Panic) => panic!("as told"),
        Ok(How::Fail | How::Cancel) | Err(_) => Err("as told"),
    }
}

impl<S: Store> Model<S> {
    fn known(&self, id: u8) -> Known {
        self.plain.get(&id).cloned().unwrap_or(ABSENT)
    }

    fn set(&mut self, id: u8, known: Known) {
        if known.state == TaskState::NotFound {
            self.plain.remove(&id);
        } else {
            self.plain.insert(id, known);
        }
    }

    async fn perform(&mut self, op: Op) {
        use TaskState::{Failed, NotFound, Queued, Revoking, Running, Succeeded};
        match op {
            Op::Launch(id) => self.launch(id).await,
            Op::Revoke(id) => {
                let known = self.known(id);
                let (end, how) = oneshot::channel();
                match (self.ledger.revoke_task(id, told(how)).await, known.state) {
                    (Ok(()), Succeeded) => {
                        self.set(id, Known { state: Revoking, ..known });
                        self.running.insert(id, end);
                    }
                    (Err(LaunchError::Refused { state, .. }), was) => {
                        assert!(state == was && was != Succeeded);
                    }
                    (other, was) => panic!("revoke of {was}: {other:?}"),
                }
            }
            Op::End(id, how) => self.end(id, how).await,
            Op::Mark(id) => {
                let known = self.known(id);
                match (self.ledger.mark_succeeded(id).await, known.state) {
                    (Ok(()), NotFound | Failed) => {
                        self.set(
                            id,
                            Known { state: Succeeded, value: None, failure: None, ..known },
                        );
                    }
                    (Err(ChangeError::Refused { state }), Running | Succeeded | Revoking) => {
                        assert_eq!(state, known.state);
                    }
                    (other, was) => panic!("mark of {was}: {other:?}"),
                }
            }
            Op::Forget(id) => {
                let known = self.known(id);
                match (self.ledger.forget(&id).await, known.state) {
                    (Ok(()), Succeeded | Failed | Queued) => self.set(id, ABSENT),
                    (Err(ChangeError::Refused { state }), NotFound | Running | Revoking) => {
                        assert_eq!(state, known.state);
                    }
                    (other, was) => panic!("forget of {was}: {other:?}"),
                }
            }
            Op::Checkpoint => self.ledger.checkpoint().await.unwrap(),
            Op::Reopen => {
                self.ledger.close_within(Duration::ZERO).await.unwrap();
                self.reset("cancelled");
                self.ledger = self.store.open().await;
                assert_eq!(self.ledger.recovery().crashed::<u8>().len(), 0);
            }
            Op::Crash => {
                let store = self.store.crashed();
                let ledger = store.open().await;
                let running = self.plain.values().filter(|known| known.state == Running).count();
                assert_eq!(ledger.recovery().crashed::<u8>().len(), running);
                self.reset("crashed");
                (self.store, self.ledger) = (store, ledger);
            }
        }
    }

    async fn launch(&mut self, id: u8) {
        let known = self.known(id);
        let (end, how) = oneshot::channel();
        match (self.ledger.launch(id, told(how)).await, known.state) {
            (Ok(()), TaskState::NotFound | TaskState::Failed) => {
                let attempt = known.attempt + 1;
                self.set(id, Known { state: TaskState::Running, attempt, ..ABSENT });
                self.running.insert(id, end);
            }
            (Err(LaunchError::Refused { state, future }), was) => {
                assert!(state == was);
                assert!(!matches!(was, TaskState::NotFound | TaskState::Failed));
                drop(future);
                // And in the other form.
                let again = self.ledger.launch_block(id, async { Ok::<_, ()>(0) }).await;
                assert!(matches!(again, Err(AttemptError::Refused { state, .. }) if state == was));
            }
            (other, was) => panic!("launch of {was}: {other:?}"),
        }
    }

    async fn end(&mut self, id: u8, how: How) {
        let known = self.known(id);
        let Some(end) = self.running.remove(&id) else {
            let nothing = CancelError::NotRunning { state: known.state };
            assert_eq!(self.ledger.cancel(&id, "nothing"), Err(nothing));
            return;
        };
        if matches!(how, How::Cancel) {
            self.ledger.cancel(&id, "as told").unwrap();
        } else {
            end.send(how).unwrap();
        }
        let state = self.ledger.wait(&id).await.unwrap();
        let after = match (known.state, how) {
            (TaskState::Running, How::Succeed(value)) => {
                Known { state: TaskState::Succeeded, value: Some(value), ..known }
            }
            (TaskState::Running, how) => {
                Known { state: TaskState::Failed, failure: Some(cause(how)), ..known }
            }
            (_, How::Succeed(_)) => ABSENT,
            (_, _) => Known { state: TaskState::Succeeded, ..known },
        };
        assert_eq!(state, after.state);
        self.set(id, after);
    }

    /// Nothing runs any more.
    fn reset(&mut self, failure: &'static str) {
        self.running.clear();
        for known in self.plain.values_mut() {
            match known.state {
                TaskState::Running => {
                    known.state = TaskState::Failed;
                    known.failure = Some(failure);
                }
                TaskState::Revoking => known.state = TaskState::Succeeded,
                _ => {}
            }
        }
    }

    async fn check(&self) {
        for id in 0..5 {
            let known = self.known(id);
            assert_eq!(self.ledger.query_task_state(&id).await, known.state);
            assert_eq!(self.ledger.query_task_state_quick(&id), known.state);
            assert_eq!(self.ledger.all_tasks().contains(&id), known != ABSENT);
            let record = self.ledger.record(&id).await.unwrap();
            let told = record.map_or(ABSENT, |record| Known {
                state: record.state(),
                attempt: record.attempt().get(),
                value: known.value,
                failure: record.failure.as_ref().map(Failure::name),
            });
            assert_eq!(told, known);
            assert_eq!(self.ledger.output(&id).await.unwrap(), known.value);
        }
        let views = [
            (TaskState::Queued, self.ledger.queued_tasks()),
            (TaskState::Running, self.ledger.running_tasks()),
            (TaskState::Succeeded, self.ledger.succeeded_tasks()),
            (TaskState::Failed, self.ledger.failed_tasks()),
            (TaskState::Revoking, self.ledger.revoking_tasks()),
        ];
        for (state, view) in views {
            let ids = self.plain.iter().filter(|(_, known)| known.state == state);
            let ids: Vec<u8> = ids.map(|(id, _)| *id).collect();
            let mut listed: Vec<u8> = view.iter().map(Result::unwrap).collect();
            listed.sort_unstable();
            assert_eq!((view.len(), listed), (ids.len(), ids));
        }
        assert_eq!(self.ledger.all_tasks().len(), self.plain.len());
        assert_eq!(self.ledger.superseded(), 0);
    }
}

fn cause(how: How) -> &'static str {
    match how {
        How::Succeed(_) => "none",
        How::Fail => "error",
        How::Panic => "panicked",
        How::Cancel => "cancelled",
    }
}
