//! Callers of `run`, and whoever keeps their ledger: pruned, shortened, backed up, exported and imported.
//!
//! What is said meanwhile is told in `crate::kept`.

use super::{builder, number};
use crate::Rng;
use crate::kept::rules::PRUNES;
use crate::kept::{Answer, Op, State, What, failure_of, found, number_of, value_of};
use crate::ops::say;
use crate::places::{TestLedger, open};
use std::collections::BTreeSet;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use taskledger::dump::{Inspection, import};
use taskledger::{
    AcceptLoss, AttemptError, ChangeError, Claim, ClaimKind, Context, Landed, OnCrash, OnFailure,
    Retention, RunError, Verdict,
};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Ids of each worker.
const IDS: u64 = 5;

/// Workers, and one who keeps the ledger, until they are killed or have done what they were to do.
pub(super) async fn kept(path: PathBuf) {
    let count = number("TASKLEDGER_CHILD_COUNT", u64::MAX);
    let builder = builder().checkpoint_after(number("TASKLEDGER_CHILD_CHECKPOINT_AFTER", 64 << 20));
    let ledger = match open(builder, &path).await {
        Ok(ledger) => ledger,
        Err(error) => return say(&format!("bad it does not open: {error:?}")),
    };
    say("open");
    let mut rng = Rng::new(number("TASKLEDGER_CHILD_SEED", 0));
    let mut all = JoinSet::new();
    for name in 0..number("TASKLEDGER_CHILD_CLIENTS", 4) {
        let (ledger, seed) = (ledger.clone(), rng.next());
        all.spawn(async move { Worker { ledger, name, rng: Rng::new(seed) }.work(count).await });
    }
    let keeping = number("TASKLEDGER_CHILD_KEEPING", u64::MAX);
    let keeper = Keeper { ledger: ledger.clone(), path, rng };
    all.spawn(async move { keeper.keep(keeping).await });
    while let Some(ended) = all.join_next().await {
        if let Err(wrong) = ended.unwrap() {
            say(&format!("bad {wrong}"));
        }
    }
    say("end");
    ledger.close().await.unwrap();
}

/// Does one thing after the other to ids of its own.
struct Worker {
    ledger: TestLedger,
    name: u64,
    rng: Rng,
}

impl Worker {
    async fn work(mut self, count: u64) -> Result<(), String> {
        let mut hanging = BTreeSet::new();
        for _ in 0..count {
            let id = format!("k{}-{}", self.name, self.rng.below(IDS));
            if hanging.contains(&id) {
                continue;
            }
            self.says_try(Op::Look, &id, 0);
            let state = found(&self.ledger, &id).await?;
            say(&format!("seen {} {state}", self.name));
            say(&format!("done {}", self.name));
            let mut op = *self.rng.pick(ops_on(state));
            // What never ends would hold up the end; and some ids are to be left.
            if op == Op::Hang && (count < u64::MAX || hanging.len() > 1) {
                op = Op::Run;
            }
            let number = self.rng.below(1_000_000);
            self.says_try(op, &id, number);
            if op == Op::Hang {
                self.hang(&id, number).await;
                hanging.insert(id);
            } else if op.runs() {
                self.run(op, &id, number).await?;
            } else {
                let answer = self.change(op, &id).await?;
                say(&format!("answer {} {answer}", self.name));
            }
            say(&format!("done {}", self.name));
        }
        Ok(())
    }

    fn says_try(&self, op: Op, id: &str, number: u64) {
        say(&format!("try {} {op} {id} {number}", self.name));
    }

    /// Begins what never ends.
    async fn hang(&self, id: &str, number: u64) {
        let (ledger, own, runs) = (self.ledger.clone(), id.to_owned(), Arc::new(Notify::new()));
        let told = Arc::clone(&runs);
        tokio::spawn(async move {
            let work = move |cx: Context<String>| {
                says_effect(&cx, number);
                told.notify_one();
                std::future::pending::<Result<String, u64>>()
            };
            drop(ledger.run(own, work).await);
        });
        runs.notified().await;
    }

    /// Several at once, who all want the same.
    async fn run(&mut self, op: Op, id: &str, number: u64) -> Result<(), String> {
        let mut callers = JoinSet::new();
        for _ in 0..1 + self.rng.below(4) {
            callers.spawn(answered(self.ledger.clone(), op, id.to_owned(), number));
        }
        while let Some(answer) = callers.join_next().await {
            let answer = answer.unwrap().map_err(|wrong| format!("{op} {id}: {wrong}"))?;
            say(&format!("answer {} {answer}", self.name));
        }
        Ok(())
    }

    async fn change(&self, op: Op, id: &str) -> Result<Answer, String> {
        let ledger = &self.ledger;
        let done = match op {
            Op::Pin => ledger.pin(id).await,
            Op::Unpin => ledger.unpin(id).await,
            Op::ResolveSucceeded => ledger.resolve(id, Verdict::Succeeded, "it was seen").await,
            Op::ResolveFailed => ledger.resolve(id, Verdict::Failed, "it was not seen").await,
            Op::ResolveRetry => ledger.resolve(id, Verdict::Retry, "").await,
            Op::Forget => ledger.forget(id).await,
            Op::Revoke | Op::Unrevoked => {
                let undone = op == Op::Revoke;
                let work = async move { if undone { Ok(()) } else { Err("it stays") } };
                return match ledger.revoke_task_block(id.to_owned(), work).await {
                    Ok(()) if undone => Ok(Answer::Ok),
                    Err(AttemptError::Failed(_)) if !undone => Ok(Answer::Ok),
                    Err(AttemptError::Refused { .. }) => Ok(Answer::Refused),
                    other => Err(format!("{op} {id}: {other:?}")),
                };
            }
            other => return Err(format!("{other} is no change")),
        };
        match done {
            Ok(()) => Ok(Answer::Ok),
            Err(ChangeError::Refused { .. }) => Ok(Answer::Refused),
            Err(other) => Err(format!("{op} {id}: {other:?}")),
        }
    }
}

/// What may be worth doing to an id that was just found like this. By then it may be something else.
fn ops_on(state: State) -> &'static [Op] {
    match state.what {
        What::None => &[Op::Run, Op::Run, Op::Run, Op::Fail, Op::Fail, Op::Once, Op::Hang],
        What::Failed(_) | What::Ruled | What::Released => &[
            Op::Run,
            Op::Run,
            Op::Fail,
            Op::Once,
            Op::Replay,
            Op::Refuse,
            Op::Pin,
            Op::Unpin,
            Op::ResolveSucceeded,
            Op::ResolveFailed,
            Op::ResolveRetry,
            Op::Forget,
        ],
        What::Crashed | What::GaveUp => &[
            Op::Run,
            Op::Hold,
            Op::Hold,
            Op::Landed,
            Op::NotLanded,
            Op::Unknown,
            Op::Pin,
            Op::ResolveSucceeded,
            Op::ResolveFailed,
            Op::ResolveRetry,
        ],
        _ => &[
            Op::Run,
            Op::Run,
            Op::Hold,
            Op::Fail,
            Op::Pin,
            Op::Pin,
            Op::Unpin,
            Op::Forget,
            Op::Revoke,
            Op::Unrevoked,
        ],
    }
}

fn says_effect(cx: &Context<String>, number: u64) {
    say(&format!("effect {} {number} {}", cx.id(), cx.effect_key()));
}

/// What one caller is told.
async fn answered(ledger: TestLedger, op: Op, id: String, number: u64) -> Result<Answer, String> {
    let once = NonZero::<u32>::MIN;
    let mut task = ledger.task(id);
    task = match op {
        Op::Once => task.max_attempts(once),
        Op::Replay => task.on_failure(OnFailure::Replay),
        Op::Refuse => task.on_failure(OnFailure::Refuse),
        Op::Hold => task.on_crash(OnCrash::Hold),
        Op::Landed | Op::NotLanded | Op::Unknown => task.probe(move |cx: Context<String>| {
            say(&format!("probe {}", cx.id()));
            let landed = match op {
                Op::Landed => Landed::Yes(Some(value_of(number))),
                Op::NotLanded => Landed::No,
                _ => Landed::Unknown,
            };
            std::future::ready(landed)
        }),
        _ => task,
    };
    let fails = matches!(op, Op::Fail | Op::Once);
    let work = move |cx: Context<String>| async move {
        says_effect(&cx, number);
        // So that others have time to come.
        for _ in 0..number % 8 {
            tokio::task::yield_now().await;
        }
        if fails { Err(number) } else { Ok(value_of(number)) }
    };
    let number_in = |value: Option<String>| value.map(|value| number_of(&value)).transpose();
    Ok(match task.run(work).await {
        Ok(Claim { kind: ClaimKind::Executed, value, .. }) => match number_in(value)? {
            Some(number) => Answer::Executed(number),
            None => return Err("it was executed, but gives no value".to_owned()),
        },
        Ok(Claim { value, .. }) => Answer::Told(number_in(value)?),
        Err(RunError::Failed(number)) => Answer::Failed(number),
        Err(RunError::Told { failure, .. }) => match failure_of(&failure)? {
            What::Failed(number) => Answer::Failed(number),
            What::GaveUp => Answer::GaveUp,
            what => Answer::ToldOf(what),
        },
        Err(RunError::Held) => Answer::Held,
        Err(RunError::GaveUp { .. }) => Answer::GaveUp,
        Err(RunError::Refused { .. }) => Answer::Refused,
        Err(other) => return Err(format!("{other:?}")),
    })
}

/// Prunes, makes checkpoints and copies.
struct Keeper {
    ledger: TestLedger,
    path: PathBuf,
    rng: Rng,
}

impl Keeper {
    async fn keep(mut self, count: u64) -> Result<(), String> {
        for _ in 0..count {
            match self.rng.below(8) {
                0..=2 => self.prune().await?,
                3 | 4 => {
                    say("try admin checkpoint");
                    self.ledger.checkpoint().await.map_err(|error| format!("{error:?}"))?;
                    say("done admin");
                }
                5 => _ = self.backup().await?,
                _ => self.import().await?,
            }
            // The others are to come to something.
            for _ in 0..self.rng.below(4) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(())
    }

    async fn prune(&mut self) -> Result<(), String> {
        let (word, prunes) = *self.rng.pick(&PRUNES);
        let mut retention = Retention::new();
        if prunes.succeeded {
            retention = retention.succeeded(Duration::ZERO);
        }
        if prunes.failed {
            retention = retention.failed(Duration::ZERO);
        }
        say(&format!("try admin prune {word}"));
        self.ledger.prune(&retention).await.map_err(|error| format!("prune: {error:?}"))?;
        say("done admin");
        Ok(())
    }

    /// The name of the next copy that is still to be made: one that was never finished is begun again.
    fn next(&self, kind: &str) -> (String, PathBuf) {
        let place = |number: u64| {
            let name = format!("{kind}-{number}");
            (name.clone(), self.path.with_file_name(name))
        };
        let free = |(_, path): &(String, PathBuf)| !path.join("manifest").exists();
        (0..).map(place).find(free).expect("there is no end of names")
    }

    async fn backup(&self) -> Result<(String, PathBuf), String> {
        let (name, path) = self.next("copy");
        say(&format!("try admin backup {name}"));
        self.ledger.backup(&path).await.map_err(|error| format!("{name}: {error:?}"))?;
        say("done admin");
        Ok((name, path))
    }

    /// Of a copy: the ledger itself is open.
    async fn import(&self) -> Result<(), String> {
        let (copy, from) = self.backup().await?;
        let (name, to) = self.next("import");
        say(&format!("try admin import {name} of {copy}"));
        let made = tokio::task::spawn_blocking(move || imported(&from, &to)).await.unwrap();
        made.map_err(|wrong| format!("{name} of {copy}: {wrong}"))?;
        say("done admin");
        Ok(())
    }
}

fn imported(from: &Path, to: &Path) -> Result<(), String> {
    let mut export = Vec::new();
    let inspection = Inspection::open(from).map_err(|error| format!("{error:?}"))?;
    inspection.export(&mut export).map_err(|error| format!("{error:?}"))?;
    drop(inspection);
    import(&*export, to, AcceptLoss::No).map(drop).map_err(|error| format!("{error:?}"))
}
