//! What can be awaited.

use super::left::{Given, Left};
use super::queued::Slot;
use super::{Calling, DEEDS, IDS, Tasks, attempt};
use crate::Rng;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use taskledger::{Retention, Scope, Verdict};

/// Everything that can be awaited, by the name of its method.
pub(super) const CALLS: [&str; 45] = [
    "launch",
    "launch_block",
    "launch_block with a timeout",
    "launch with a timeout",
    "launch_all",
    "run",
    "run that ends with its caller",
    "run with a note",
    "note",
    "mark_succeeded",
    "mark_succeeded_all",
    "forget",
    "forget_all",
    "resolve",
    "pin",
    "unpin",
    "prune",
    "prunable",
    "next",
    "revoke_task",
    "revoke_task_block",
    "wait",
    "record",
    "effect_key",
    "output",
    "query_task_state",
    "checkpoint",
    "set_metadata",
    "backup",
    "open_journal",
    "spawn",
    "scope",
    "spawn_scope, stopping",
    "end",
    "join",
    "queue",
    "enqueue",
    "try_enqueue",
    "requeue",
    "enqueue_future",
    "stop",
    "stop_now",
    "wait_idle",
    "close",
    "close_within",
];

/// The last two end the ledger: none but the one that is to be dropped.
pub(super) const NOT_LAST: u64 = CALLS.len() as u64 - 2;

/// The call of this number, with an id and an attempt at random.
pub(super) fn call(
    ledger: &Tasks,
    what: u64,
    (left, slot): (&mut Vec<Left>, &Slot),
    rng: &mut Rng,
) -> Calling {
    let (id, deed, yields) = ((*rng.pick(&IDS)).to_owned(), *rng.pick(&DEEDS), rng.below(8));
    let ledger = ledger.clone();
    let work = attempt(deed, yields);
    if rng.below(8) == 0 {
        drop(ledger.cancel(&id, "enough"));
    }
    let name = CALLS[usize::try_from(what).unwrap()];
    if let Some(calling) = slot.call(name, &ledger, rng) {
        return calling;
    }
    match name {
        "launch" => Box::pin(async move { drop(ledger.launch(id, work).await) }),
        "launch_block" => Box::pin(async move { drop(ledger.launch_block(id, work).await) }),
        "launch_block with a timeout" => Box::pin(async move {
            let task = ledger.task(id).timeout(Duration::from_millis(1));
            drop(task.launch_block(work).await);
        }),
        "launch with a timeout" => Box::pin(async move {
            let task = ledger.task(id).timeout(Duration::from_millis(1));
            drop(task.launch(work).await);
        }),
        "launch_all" => Box::pin(async move {
            let both = [(id, work), ("d".to_owned(), attempt(deed, 0))];
            drop(ledger.launch_all(both).await);
        }),
        "run" => Box::pin(async move {
            drop(ledger.run(id, move |_| attempt(deed, yields)).await);
        }),
        "run that ends with its caller" => Box::pin(async move {
            let task = ledger.task(id).cancel_with_caller().cancel_grace(Duration::ZERO);
            drop(task.run(move |_| attempt(deed, yields)).await);
        }),
        // The note is dropped after its first poll by the attempt, and after others with its caller.
        "run with a note" => Box::pin(async move {
            let task = ledger.task(id).cancel_with_caller().cancel_grace(Duration::ZERO);
            let noting = move |context: taskledger::Context<String>| async move {
                once(context.note("begun")).await;
                drop(context.note("begun again").await);
                attempt(deed, yields).await
            };
            drop(task.run(noting).await);
        }),
        "note" => Box::pin(async move { drop(ledger.note(&id, "seen").await) }),
        "mark_succeeded" => Box::pin(async move { drop(ledger.mark_succeeded(id).await) }),
        "mark_succeeded_all" => {
            Box::pin(async move { drop(ledger.mark_succeeded_all([id, "a".to_owned()]).await) })
        }
        "forget_all" => Box::pin(async move {
            drop(ledger.forget_all([id.as_str(), "b"]).await);
        }),
        "resolve" => {
            let verdict = *rng.pick(&[Verdict::Succeeded, Verdict::Failed, Verdict::Retry]);
            Box::pin(async move { drop(ledger.resolve(&id, verdict, "seen").await) })
        }
        "pin" => Box::pin(async move { drop(ledger.pin(&id).await) }),
        "unpin" => Box::pin(async move { drop(ledger.unpin(&id).await) }),
        "prune" => Box::pin(async move { drop(ledger.prune(&all_there_is()).await) }),
        "prunable" => Box::pin(async move { drop(ledger.prunable(&all_there_is()).await) }),
        // Of what is watched.
        "next" => {
            let mut transitions = ledger.watch();
            Box::pin(async move { drop(transitions.next().await) })
        }
        "forget" => Box::pin(async move { drop(ledger.forget(&id).await) }),
        "revoke_task" => Box::pin(async move { drop(ledger.revoke_task(id, work).await) }),
        "revoke_task_block" => {
            Box::pin(async move { drop(ledger.revoke_task_block(id, work).await) })
        }
        "wait" => Box::pin(async move { drop(ledger.wait(&id).await) }),
        "record" => Box::pin(async move { drop(ledger.record(&id).await) }),
        "effect_key" => Box::pin(async move { drop(ledger.effect_key(&id).await) }),
        "output" => Box::pin(async move { drop(ledger.output(&id).await) }),
        "query_task_state" => Box::pin(async move {
            ledger.query_task_state(&id).await;
        }),
        "checkpoint" => Box::pin(async move { drop(ledger.checkpoint().await) }),
        "set_metadata" => Box::pin(async move {
            drop(ledger.set_metadata(&id, Some(vec![7])).await);
        }),
        // In memory there is nothing that could be copied: it comes as far as that, here.
        "backup" => Box::pin(async move { drop(ledger.backup("never made").await) }),
        // Of another one: nobody takes it, so it closes itself.
        "open_journal" => {
            let of = Left::default();
            let given = Given(of.clone());
            left.push(of);
            Box::pin(async move { drop(Tasks::builder().open_journal(given).await) })
        }
        "spawn" => Box::pin(async move {
            if let Ok(launched) = ledger.task(id).spawn(work).await {
                drop(launched.await);
            }
        }),
        "scope" => Box::pin(async move {
            let body = move |scope: Scope<String, u32>| async move {
                drop(scope.task("d".to_owned()).launch(attempt(deed, yields)).await);
                drop(scope.spawn(std::future::pending::<()>()));
                work.await
            };
            drop(ledger.task(id).scope(body).await);
        }),
        "spawn_scope, stopping" => Box::pin(async move {
            let body = move |scope: Scope<String, u32>| async move {
                drop(scope.task("d".to_owned()).launch(attempt(deed, yields)).await);
                scope.stopping().await;
                work.await
            };
            let task = ledger.task(id).cancel_grace(Duration::from_millis(1));
            if let Ok(launched) = task.spawn_scope(body).await {
                launched.cancel("that is enough");
                drop(launched.await);
            }
        }),
        "end" | "join" => Box::pin(async move {
            let root = ledger.scope();
            drop(root.task(id).launch(work).await);
            drop(root.spawn(attempt(deed, yields)));
            if name == "end" { root.end().await } else { root.join().await }
        }),
        "close" => Box::pin(async move { drop(ledger.close().await) }),
        "close_within" => {
            Box::pin(async move { drop(ledger.close_within(Duration::from_millis(1)).await) })
        }
        other => unreachable!("{other} is called"),
    }
}

/// Polls it once and drops it.
async fn once(future: impl Future) {
    let mut future = pin!(future);
    poll_fn(|context| {
        drop(future.as_mut().poll(context));
        Poll::Ready(())
    })
    .await;
}

fn all_there_is() -> Retention {
    Retention::new().succeeded(Duration::ZERO).failed(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::CALLS;
    use std::path::Path;

    /// That of a ledger and of its builder is `open_journal` with a journal on disk; that of a queue is `queue`.
    const OTHER_NAME: &str = "open";

    #[test]
    fn everything_that_can_be_awaited_is_dropped() {
        let mut methods = Vec::new();
        methods_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src"), &mut methods);
        assert!(methods.len() > 40, "{methods:?}");
        for method in methods {
            let words = |call: &str| call.split([' ', ',']).any(|word| word == method);
            let is_called = CALLS.iter().any(|call| words(call));
            assert!(is_called || method == OTHER_NAME, "{method} is not dropped");
        }
    }

    fn methods_of(dir: &Path, methods: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !["bin", "tests"].contains(&name) {
                methods_of(&path, methods);
            } else if path.extension().is_some_and(|end| end == "rs") && name != "tests.rs" {
                let text = std::fs::read_to_string(&path).unwrap();
                let public = text.split("pub async fn ").skip(1);
                methods.extend(public.map(|rest| {
                    rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
                }));
            }
        }
    }
}
