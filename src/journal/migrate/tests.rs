//! Three synthetic formats, whose manifest is just a list of numbers of the files that belong to
//! the ledger. From 1 to 2 every file is rewritten in capitals, under a new number; from 2 to 3
//! the files are joined into one.

use super::*;
use crate::journal::files;
use crate::journal::manifest::Framed;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;

const SUPPORTED: u16 = 3;

const TWO_STEPS: &[Step] = &[
    Step { from: 1, shape: |_| None, run: to_capitals },
    Step { from: 2, shape: |_| None, run: to_one },
];

thread_local! {
    /// How many file operations of a step still succeed.
    static FUEL: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Stands before each file operation of a step.
fn burn() -> Result<(), JournalError> {
    FUEL.with(|fuel| match fuel.get().checked_sub(1) {
        Some(left) => {
            fuel.set(left);
            Ok(())
        }
        None => Err(JournalError::Store("killed here".to_owned())),
    })
}

fn file(dir: &Path, number: u8) -> PathBuf {
    dir.join(format!("checkpoint-{number}"))
}

fn read(dir: &Path, number: u8) -> Result<String, JournalError> {
    burn()?;
    std::fs::read_to_string(file(dir, number)).map_err(JournalError::io("read", dir))
}

/// Writes in two halves, so that a kill can fall between them.
fn write(dir: &Path, number: u8, text: &str) -> Result<(), JournalError> {
    burn()?;
    std::fs::write(file(dir, number), &text[..text.len() / 2]).unwrap();
    burn()?;
    std::fs::write(file(dir, number), text).unwrap();
    burn()
}

fn remove(dir: &Path, number: u8) -> Result<(), JournalError> {
    burn()?;
    files::remove(&file(dir, number))
}

fn to_capitals(input: &StepInput<'_>) -> Result<Vec<u8>, JournalError> {
    let next = input.body.iter().max().unwrap() + 1;
    let mut body = Vec::new();
    for (&old, new) in input.body.iter().zip(next..) {
        remove(input.dir, new)?;
        write(input.dir, new, &read(input.dir, old)?.to_uppercase())?;
        body.push(new);
    }
    Ok(body)
}

fn to_one(input: &StepInput<'_>) -> Result<Vec<u8>, JournalError> {
    let next = input.body.iter().max().unwrap() + 1;
    remove(input.dir, next)?;
    let mut joined = String::new();
    for &old in input.body {
        joined += &read(input.dir, old)?;
    }
    write(input.dir, next, &joined)?;
    Ok(vec![next])
}

/// A ledger of version 1 with the files 1 and 2.
fn sample() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(file(dir.path(), 1), "first").unwrap();
    std::fs::write(file(dir.path(), 2), "second").unwrap();
    manifest::replace(dir.path(), 1, &[1, 2]).unwrap();
    dir
}

fn found(dir: &Path) -> (u16, Vec<u8>) {
    match manifest::read_framed(dir).unwrap() {
        Framed::Valid(version, body) => (version, body),
        other @ (Framed::Missing | Framed::Damaged(_)) => panic!("no manifest: {other:?}"),
    }
}

/// What the files say that the manifest names, as a reader of its version reads them.
fn content(dir: &Path) -> (u16, String) {
    let (version, body) = found(dir);
    (
        version,
        body.iter().map(|&number| std::fs::read_to_string(file(dir, number)).unwrap()).collect(),
    )
}

fn everything(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
        .collect()
}

fn run(dir: &Path, steps: &[Step]) -> Result<Migrated, OpenError> {
    let (version, body) = found(dir);
    migrate(dir, version, body, steps, SUPPORTED, &mut |_| ())
}

#[test]
fn the_steps_of_this_version_lead_from_the_first_to_the_last() {
    let from: Vec<u16> = STEPS.iter().map(|step| step.from).collect();
    let first = if cfg!(feature = "internals") { 0 } else { 1 };
    assert_eq!(from, (first..FORMAT_VERSION).collect::<Vec<_>>());
}

#[test]
fn an_old_ledger_goes_through_every_step() {
    let dir = sample();
    let mut told = Vec::new();
    let migrated =
        migrate(dir.path(), 1, vec![1, 2], TWO_STEPS, SUPPORTED, &mut |from| told.push(from));
    assert_eq!(migrated.unwrap(), Migrated { from: 1, to: 3 });
    assert_eq!(told, [1, 2]);
    assert_eq!(content(dir.path()), (3, "FIRSTSECOND".to_owned()));
}

#[test]
fn a_newer_one_is_refused_with_nothing_changed() {
    let dir = sample();
    manifest::replace(dir.path(), 4, b"unknown").unwrap();
    let before = everything(dir.path());
    let refused = run(dir.path(), TWO_STEPS).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 4, supported: 3, .. }));
    assert_eq!(everything(dir.path()), before);
}

#[test]
fn a_missing_step_is_refused_with_nothing_changed() {
    let dir = sample();
    let before = everything(dir.path());
    for steps in [&[][..], &TWO_STEPS[..1], &TWO_STEPS[1..]] {
        let refused = run(dir.path(), steps).unwrap_err();
        assert!(matches!(refused, OpenError::Io { action: "migrate", .. }));
        assert_eq!(everything(dir.path()), before);
    }
}

/// Killed before each file operation of each step, then between the halves of the replacement of
/// the manifest, then run again: always a whole ledger of one version, at the end the same one.
#[test]
fn a_migration_killed_anywhere_is_finished_by_the_next() {
    let mut kills = 0;
    for fuel in 0.. {
        let dir = sample();
        FUEL.set(fuel);
        let first = run(dir.path(), TWO_STEPS);
        FUEL.set(usize::MAX);
        let between = content(dir.path());
        if first.is_ok() {
            assert_eq!(between, (3, "FIRSTSECOND".to_owned()));
            break;
        }
        kills += 1;
        let whole = [(1, "firstsecond".to_owned()), (2, "FIRSTSECOND".to_owned())];
        assert!(whole.contains(&between), "{between:?} after {fuel} operations");
        std::fs::write(dir.path().join("manifest.tmp"), b"half a mani").unwrap();
        assert_eq!(run(dir.path(), TWO_STEPS).unwrap().from, between.0);
        assert_eq!(content(dir.path()), (3, "FIRSTSECOND".to_owned()));
    }
    assert!(kills > 15, "{kills} kills");
}

/// A step that leaves the old files alone can die as late as it likes.
#[test]
fn the_old_files_are_there_until_the_open_removes_them() {
    let dir = sample();
    run(dir.path(), TWO_STEPS).unwrap();
    assert_eq!(std::fs::read(file(dir.path(), 1)).unwrap(), b"first");
    assert_eq!(std::fs::read(file(dir.path(), 3)).unwrap(), b"FIRST");
}
