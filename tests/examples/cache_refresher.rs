//! `cache_refresher`: refreshes go on whatever happens to one, and readers wait for the first.

use crate::example;
use crate::running::{Running, ran, recorded};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use taskledger::Failure;

fn refresher(ledger: &Path, options: &[&str]) -> Command {
    let mut command = example("cache_refresher");
    command.arg("--ledger").arg(ledger).args(["--period", "50"]).args(options);
    command
}

/// At which tick each refresh began.
fn ticks(said: &[String]) -> BTreeMap<u64, u64> {
    let begun = said.iter().filter_map(|line| line.strip_suffix(": begins"));
    let ticks = begun.map(|begun| {
        let (refresh, tick) = begun["refresh ".len()..].split_once(", tick ").unwrap();
        (refresh.parse().unwrap(), tick.parse().unwrap())
    });
    ticks.collect()
}

/// What the readers say.
fn read(said: &[String]) -> Vec<&str> {
    let read = said.iter().filter_map(|line| line.strip_prefix("reader ")?.split_once(": "));
    read.map(|(_, what)| what).collect()
}

fn says(said: &[String], line: &str) -> bool {
    said.iter().any(|said| said == line)
}

#[test]
fn neither_errors_nor_panics_nor_missed_ticks_end_it() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    let (status, said) = ran(&mut refresher(&ledger, &[]));
    assert_eq!(status, Some(0), "{said:#?}");
    let ticks = ticks(&said);
    assert!(ticks.keys().copied().eq(1..=8), "{said:#?}");
    assert!(ticks.values().is_sorted_by(|one, next| one < next), "{said:#?}");
    // The third one has taken three periods and a half. The tick that came meanwhile comes late, and no
    // other one is made up for: in a burst the fifth would come one tick after the fourth.
    assert!(ticks[&5] - ticks[&4] >= 3, "{said:#?}");
    for refresh in [2, 3, 5, 6, 7, 8] {
        assert!(says(&said, &format!("refresh {refresh}: {}", 100 + refresh)), "{said:#?}");
    }
    // Nobody reads what the first one has not brought.
    assert_eq!(read(&said).len(), 3);
    assert!(!read(&said).iter().any(|what| what.ends_with("of refresh 1")), "{said:#?}");
    let of = recorded(&ledger);
    let failure = |refresh| of[refresh].failure.clone();
    assert_eq!(failure("1"), Some(Failure::Error("\"the origin is down\"".into())));
    assert_eq!(failure("4"), Some(Failure::Panicked("the answer makes no sense".into())));

    // Of the next process the origin is down all the time: it has what this one had.
    let (status, said) = ran(&mut refresher(&ledger, &["--down", "8"]));
    assert_eq!(status, Some(0), "{said:#?}");
    assert_eq!(said[0], "primed from the ledger: 108 of refresh 8");
    assert_eq!(read(&said), ["108 of refresh 8"; 3]);

    // And old ones are forgotten.
    let (status, _) = ran(&mut refresher(&ledger, &["--down", "0"]));
    assert_eq!(status, Some(0));
    let left = recorded(&ledger).into_keys().map(|refresh| refresh.parse::<u64>().unwrap());
    assert!(BTreeSet::from_iter(left).into_iter().eq(15..=24));
}

#[test]
fn readers_hear_that_nobody_refreshes_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let options = ["--down", "9", "--refreshes", "2"];
    let (status, said) = ran(&mut refresher(&dir.path().join("ledger"), &options));
    assert_eq!(status, Some(1), "{said:#?}");
    assert_eq!(read(&said), ["nobody refreshes the cache any more"; 3]);
}

#[test]
fn what_a_kill_or_a_shutdown_cuts_off_is_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    let mut killed = Running::start(&mut refresher(&ledger, &["--slow", "3600000"]));
    killed.says("refresh 3, tick ");
    killed.kill();

    let mut stopped =
        Running::start(&mut refresher(&ledger, &["--down", "0", "--slow", "3600000"]));
    assert_eq!(stopped.says("refresh 3 "), "was cut off when the last process died");
    assert_eq!(stopped.says("primed from the ledger: "), "102 of refresh 2");
    stopped.says("refresh 5, tick ");
    stopped.signal(Signal::INT);
    let (status, said) = stopped.ends();
    assert!(status.success(), "{said:#?}");
    assert_eq!(read(&said).len(), 3);
    let of = recorded(&ledger);
    assert_eq!(of["3"].failure, Some(Failure::Crashed));
    assert!(matches!(of["5"].failure, Some(Failure::Cancelled(_))), "{:?}", of["5"].failure);
    assert_eq!(of.len(), 5);
}
