//! Those who fill a queue, its runners, and scopes with what runs within them.
//!
//! ```text
//! ack try enqueue p0-1-7 4711        p0-1-7 is about to be enqueued, with this number
//! ack done enqueue p0-1-7            that was acknowledged
//! ack effect p0-1-7 4711 1 0a1b...   it is being performed: its number, its attempt, its effect key
//! ack ended p0-1-7 succeeded         its end was told to somebody who waited for it, or for a scope
//! ack bad ...                        an answer that cannot be
//! ```

use super::{builder, number};
use crate::Rng;
use crate::ops::say;
use crate::places::{TestLedger, open};
use std::future::pending;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;
use taskledger::{AttemptError, Context, Enqueued, Queue, Scope, TaskState};
use tokio::task::JoinSet;

/// What an operation that has this number comes to.
pub(crate) async fn perform(number: u64, yields: u64) -> Result<String, String> {
    for _ in 0..yields {
        tokio::task::yield_now().await;
    }
    match number % 7 {
        0 => Err(number.to_string()),
        1 => panic!("{number}"),
        2 => {
            tokio::time::sleep(Duration::from_millis(2)).await;
            Ok(number.to_string())
        }
        _ => Ok(number.to_string()),
    }
}

/// Until they are killed or have done what they were to do.
pub(super) async fn queued(path: PathBuf) {
    let count = number("TASKLEDGER_CHILD_COUNT", u64::MAX);
    let builder = builder().checkpoint_after(number("TASKLEDGER_CHILD_CHECKPOINT_AFTER", 64 << 20));
    let ledger = match open(builder, &path).await {
        Ok(ledger) => ledger,
        Err(error) => return say(&format!("bad it does not open: {error:?}")),
    };
    say("open");
    let performs = |number: u64, context: Context<String>| async move {
        say_effect(&context, number);
        perform(number, number % 5).await
    };
    let queue = ledger.queue_builder().capacity(NonZero::new(6).unwrap()).open(performs).await;
    let queue = match queue {
        Ok(queue) => queue,
        Err(error) => return say(&format!("bad there is no queue: {error:?}")),
    };
    say("queue");
    let mut rng = Rng::new(number("TASKLEDGER_CHILD_SEED", 0));
    queue.start(usize::try_from(1 + rng.below(3)).unwrap()).unwrap();
    let process = number("TASKLEDGER_CHILD_FIRST_CLIENT", 0);
    let mut all = JoinSet::new();
    for client in 0..number("TASKLEDGER_CHILD_CLIENTS", 3) {
        let name = format!("p{process}-{client}");
        all.spawn(enqueues(ledger.clone(), queue.clone(), name, count, Rng::new(rng.next())));
        let name = format!("s{process}-{client}");
        all.spawn(opens_scopes(ledger.clone(), name, count, Rng::new(rng.next())));
    }
    for _ in 0..number("TASKLEDGER_CHILD_CHECKPOINTS", 1) {
        if let Err(error) = ledger.checkpoint().await {
            say(&format!("bad no checkpoint: {error:?}"));
        }
    }
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
    let left = queue.stop().await;
    if left.operations > 0 {
        say(&format!("bad stopped, it leaves {left:?}"));
    }
    ledger.close().await.unwrap();
}

pub(crate) fn key_of(context: &Context<String>) -> String {
    context.effect_key().to_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn say_effect(context: &Context<String>, number: u64) {
    let (id, attempt) = (context.id(), context.attempt().get());
    say(&format!("effect {id} {number} {attempt} {}", key_of(context)));
}

async fn enqueues(
    ledger: TestLedger,
    queue: Queue<String, String, u64>,
    name: String,
    count: u64,
    mut rng: Rng,
) {
    let mut waiting = JoinSet::new();
    for turn in 0..count {
        let (id, number) = (format!("{name}-{turn}"), rng.below(1_000_000));
        say(&format!("try enqueue {id} {number}"));
        match queue.enqueue(id.clone(), number).await {
            Ok(Enqueued::Queued) => say(&format!("done enqueue {id}")),
            other => say(&format!("bad {id} is not enqueued: {other:?}")),
        }
        let ledger = ledger.clone();
        waiting.spawn(async move {
            match ledger.wait(&id).await {
                Ok(state) => say(&format!("ended {id} {state}")),
                Err(error) => say(&format!("bad {id} is waited for: {error:?}")),
            }
        });
        while waiting.try_join_next().is_some() {}
    }
    while waiting.join_next().await.is_some() {}
}

/// Scopes with children that end, fail, or never end, and with another scope below.
async fn opens_scopes(ledger: TestLedger, name: String, count: u64, mut rng: Rng) {
    for turn in 0..count {
        let id = format!("{name}-{turn}");
        let (seed, own) = (rng.next(), id.clone());
        let body = move |scope: Scope<String, String>| async move {
            let mut rng = Rng::new(seed);
            children(&scope, &own, &mut rng).await;
            if rng.coin() {
                let (seed, below) = (rng.next(), format!("{own}-below"));
                let task = scope.task(below.clone());
                let body = move |scope: Scope<String, String>| async move {
                    children(&scope, &below, &mut Rng::new(seed)).await;
                    pending::<Result<String, String>>().await
                };
                match task.spawn_scope(body).await {
                    Ok(launched) => launched.forget(),
                    Err(error) => say(&format!("bad {own} has none below: {error:?}")),
                }
            }
            for _ in 0..rng.below(20) {
                tokio::task::yield_now().await;
            }
            if rng.coin() { Ok(own) } else { Err(own) }
        };
        let ended = match ledger.task(id.clone()).scope(body).await {
            Ok(_) => TaskState::Succeeded,
            Err(AttemptError::Failed(_)) => TaskState::Failed,
            Err(error) => return say(&format!("bad {id} ends: {error:?}")),
        };
        say(&format!("ended {id} {ended}"));
    }
}

async fn children(scope: &Scope<String, String>, name: &str, rng: &mut Rng) {
    for child in 0..rng.below(4) {
        let (yields, what) = (rng.below(6), rng.below(3));
        let work = async move {
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
            match what {
                0 => Ok(String::new()),
                1 => Err(String::new()),
                _ => pending().await,
            }
        };
        if let Err(error) = scope.task(format!("{name}-{child}")).launch(work).await {
            say(&format!("bad {name} has no child: {error:?}"));
        }
    }
}
