//! Several want the same ledger at once.
//!
//! Exactly one has it; the others are told who does. Who waits gets it when it is closed. Whoever
//! has it open while its directory is moved away stops writing.

use crate::lab::{self, builder};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Child;
use std::time::Duration;
use taskledger::{Health, LaunchError, OpenError, Poison, Rejection};

/// The first line that the child says of itself.
fn first_word(child: &mut Child) -> String {
    let lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    lines.map(Result::unwrap).find_map(|line| Some(line.strip_prefix("ack ")?.to_owned())).unwrap()
}

#[test]
fn one_thread_of_many_owns_it() {
    let dir = lab::on_disk();
    let path = dir.path().join("ledger");
    lab::run(async {
        let mut openers = tokio::task::JoinSet::new();
        for _ in 0..24 {
            let path = path.clone();
            openers
                .spawn(async move { lab::open(builder().lock_wait(Duration::ZERO), &path).await });
        }
        let mut owners = Vec::new();
        while let Some(opened) = openers.join_next().await {
            match opened.unwrap() {
                Ok(ledger) => owners.push(ledger),
                Err(OpenError::Locked { holder, .. }) => {
                    // Whoever is just opening may not have signed yet.
                    assert!(holder.pid.is_none() || holder.this_process, "{holder:?}");
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(owners.len(), 1);
        owners[0].mark_succeeded("a".to_owned()).await.unwrap();
        let again = lab::open(builder().lock_wait(Duration::ZERO), &path).await;
        let Err(OpenError::Locked { holder, .. }) = again else { panic!("{again:?}") };
        assert!(holder.this_process);
        assert_eq!(holder.pid, Some(std::process::id()));
    });
}

#[test]
fn the_holder_is_named_and_a_killed_one_holds_nothing() {
    let dir = lab::on_disk();
    let path = dir.path().join("ledger");
    let mut holder = lab::child("holds", &path).spawn().unwrap();
    assert_eq!(first_word(&mut holder), "open");
    lab::run(async {
        let refused = lab::open(builder().lock_wait(Duration::ZERO), &path).await;
        let Err(OpenError::Locked { holder: told, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(told.pid, Some(holder.id()));
        assert!(!told.this_process);
        holder.kill().unwrap();
        holder.wait().unwrap();
        let ledger = lab::open(builder().lock_wait(Duration::ZERO), &path).await.unwrap();
        assert_eq!(ledger.recovery().epoch().get(), 2);
        ledger.close().await.unwrap();
    });
}

#[test]
fn an_open_waits_while_the_holder_closes() {
    let dir = lab::on_disk();
    let path = dir.path().join("ledger");
    lab::run(async {
        let ledger = lab::open(builder(), &path).await.unwrap();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        ledger
            .launch("a".to_owned(), async {
                drop(ended.await);
                Ok::<_, String>(String::new())
            })
            .await
            .unwrap();
        let waiting = tokio::spawn({
            let path = path.clone();
            async move { lab::open(builder().lock_wait(lab::NEVER), &path).await }
        });
        // The last handle goes; the attempt still runs, and keeps the lock.
        drop(ledger);
        end.send(()).unwrap();
        let ledger = waiting.await.unwrap().unwrap();
        assert!(ledger.succeeded_tasks().contains("a"));
        assert_eq!(ledger.recovery().crashed::<String>().len(), 0);
        ledger.close().await.unwrap();
    });
}

#[test]
fn a_directory_is_moved_away_while_it_is_open() {
    let dir = lab::on_disk();
    let (path, elsewhere) = (dir.path().join("ledger"), dir.path().join("elsewhere"));
    lab::run(async {
        let ledger = lab::open(builder(), &path).await.unwrap();
        ledger.mark_succeeded("before".to_owned()).await.unwrap();
        std::fs::rename(&path, &elsewhere).unwrap();
        // Another one takes the old place.
        let newcomer = lab::open(builder(), &path).await.unwrap();
        newcomer.mark_succeeded("newcomer".to_owned()).await.unwrap();
        let refused = ledger.mark_succeeded("after".to_owned()).await;
        assert!(refused.is_err(), "{refused:?}");
        let Health::Poisoned(Poison::Failed(why)) = ledger.health() else {
            panic!("{:?}", ledger.health())
        };
        assert!(why.contains("moved or replaced"), "{why}");
        let rejected =
            ledger.launch("x".to_owned(), async { Ok::<_, String>(String::new()) }).await;
        assert!(matches!(
            rejected,
            Err(LaunchError::Rejected { reason: Rejection::Poisoned(_), .. })
        ));
        ledger.close().await.unwrap_err();
        newcomer.close().await.unwrap();
        assert_eq!(ids(&path).await, ["newcomer"]);
        assert_eq!(ids(&elsewhere).await, ["before"]);
    });
}

async fn ids(path: &Path) -> Vec<String> {
    let ledger = lab::open(builder(), path).await.unwrap();
    let ids = ledger.succeeded_tasks().iter().map(Result::unwrap).collect();
    ledger.close().await.unwrap();
    ids
}
