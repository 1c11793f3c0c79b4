use super::*;
use crate::details::TaskDetails;
use crate::dump::Inspection;
use crate::dump::lines::Hex;
use crate::error::ExportError;
use crate::journal::durable::SledJournal;
use crate::journal::open::{self, StoreOptions};
use crate::journal::{Journal, Replayed, arbitrary};
use crate::state::{
    Attempt, Cell, Event, Failure, Fingerprint, NotKept, Output, SuccessBy, TaskState,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

fn opened(path: &Path) -> SledJournal {
    let (journal, _) = open::open(&StoreOptions {
        shape: IdShape::of_type::<String>().to_bytes(),
        ..StoreOptions::plain(path)
    })
    .unwrap();
    journal
}

/// A ledger with these records, the first `folded` of them in its checkpoint.
fn made(path: &Path, records: &[Record], folded: usize) {
    let mut journal = opened(path);
    journal.replay(&mut |_| Ok(())).unwrap();
    let (old, new) = records.split_at(folded);
    journal.append(old).unwrap();
    let last = old.last().map_or(SeqNo::ZERO, |record| record.seq);
    while journal.upkeep(Some(last)).unwrap().checkpointed < last {
        std::thread::yield_now();
    }
    journal.append(new).unwrap();
    journal.close().unwrap();
}

/// What an open finds: of each id all that is known, tombstones, and the whole.
fn found(path: &Path) -> (BTreeMap<EncodedId, TaskDetails>, Vec<Tombstone>, [u8; 16], Epoch) {
    let mut journal = opened(path);
    let mut cells: BTreeMap<EncodedId, Cell> = BTreeMap::new();
    let mut tombstones = std::collections::BTreeSet::new();
    let mut told = Vec::new();
    let mut base = journal
        .replay(&mut |replayed| {
            match replayed {
                Replayed::Expected(_) => {}
                Replayed::Base(all) => cells.extend(all),
                Replayed::Tombstones(all) => tombstones.extend(all),
                Replayed::Records(records) => {
                    for Record { seq, entry, .. } in records {
                        match entry {
                            Entry::Task { id, prev, event } => {
                                let cell = cells.entry(id).or_insert(Cell::ABSENT);
                                *cell = cell.apply(seq, prev, &event).unwrap();
                                match event.grave() {
                                    Some(crate::state::Grave::Dug(grave)) => {
                                        tombstones.insert(grave);
                                    }
                                    Some(crate::state::Grave::Opened(grave)) => {
                                        tombstones.remove(&grave);
                                    }
                                    None => {}
                                }
                            }
                            Entry::Ledger(event) => told.push(event),
                        }
                    }
                }
            }
            Ok(())
        })
        .unwrap();
    told.iter().for_each(|event| base.told(event));
    cells.retain(|_, cell| cell.state != TaskState::NotFound);
    let details = cells.into_iter().map(|(id, cell)| {
        let details = journal.read(&id, cell).unwrap();
        (id, details)
    });
    (details.collect(), tombstones.into_iter().collect(), base.ledger, base.epoch)
}

fn export(path: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    Inspection::open(path).unwrap().export(&mut out).unwrap();
    out
}

fn lines(export: &[u8]) -> Vec<String> {
    std::str::from_utf8(export).unwrap().lines().map(str::to_owned).collect()
}

/// These lines with a closing line that fits them.
fn closed(lines: &[String]) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        lines.iter().flat_map(|line| [line, "\n"].concat().into_bytes()).collect();
    let count = |kind: &str| lines.iter().filter(|line| line.starts_with(kind)).count();
    let end = json!({ "end": {
        "tasks": count("{\"task\""),
        "tombstones": count("{\"tombstone\""),
        "checksum": Hex::of_number(xxhash_rust::xxh3::xxh3_64(&bytes)),
    }});
    bytes.extend_from_slice(format!("{end}\n").as_bytes());
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Of any ledger.
    #[test]
    fn an_import_of_an_export_is_the_same_ledger(
        records in arbitrary::history(0..150),
        folded in any::<prop::sample::Index>(),
    ) {
        let scratch = tempfile::tempdir().unwrap();
        let (one, two) = (scratch.path().join("one"), scratch.path().join("two"));
        made(&one, &records, folded.index(records.len() + 1));
        let first = export(&one);
        let imported = import(&*first, &two, AcceptLoss::No).unwrap();
        prop_assert_eq!(imported.lost, None);
        let (original, copy) = (Inspection::open(&one).unwrap(), Inspection::open(&two).unwrap());
        prop_assert!(copy.verify().unwrap().is_sound());
        prop_assert_eq!(original.metadata(), copy.metadata());
        prop_assert_eq!(original.created_at(), copy.created_at());
        prop_assert_eq!(original.id_shape(), copy.id_shape());
        let (stats, copied) = (original.stats(), copy.stats());
        prop_assert_eq!((stats.counts, stats.tombstones), (copied.counts, copied.tombstones));
        prop_assert_eq!((imported.tasks, imported.tombstones),
            (stats.counts.iter().sum::<u64>(), stats.tombstones));
        prop_assert_eq!(String::from_utf8(export(&two)), String::from_utf8(first));
        prop_assert_eq!(found(&one), found(&two));
    }
}

/// A ledger of everything, and its export.
fn sample() -> (TempDir, Vec<u8>) {
    let started = |since: u64| Event::Started {
        attempt: Attempt::new(if since == 0 { 1 } else { 2 }),
        epoch: Epoch::new(1),
        since: SeqNo::new(since),
        fingerprint: Some(Fingerprint::from_bytes([7; 16])),
        parent: None,
        crashed_before: false,
    };
    let done = |by, output| Event::Succeeded { by, output };
    let mark = || done(SuccessBy::Mark, Output::Absent);
    let failed = |failure| Event::Failed { failure };
    let note = |note: &str| Event::Noted { note: note.to_owned() };
    let grave = |byte| Tombstone::from_bytes([byte; 16]);
    let lives: Vec<Vec<Event>> = vec![
        vec![started(0), done(SuccessBy::Attempt, Output::Kept(vec![0x92, 1, 0xa1, 0x61]))],
        vec![started(0), note("half"), note("\u{202e}\n"), failed(Failure::Error("no".into()))],
        vec![started(0), failed(Failure::Crashed), Event::Pinned],
        vec![started(0), failed(Failure::GaveUp { attempts: 3, last: String::new() })],
        vec![started(0), done(SuccessBy::Attempt, Output::NotKept(NotKept::TooLarge { size: 9 }))],
        vec![mark(), Event::RevokeStarted, Event::RevokeFailed { failure: Failure::TimedOut }],
        vec![mark(), Event::RevokeStarted],
        vec![Event::Queued { payload: None, since: SeqNo::ZERO }],
        vec![started(0)],
        vec![mark(), Event::Buried { tombstone: grave(3) }],
        vec![mark(), Event::Buried { tombstone: grave(1) }],
        vec![mark(), Event::Buried { tombstone: grave(2) }],
        vec![started(0), failed(Failure::TimedOut), done(SuccessBy::Resolve, Output::Absent)],
    ];
    let set = |name: &str| LedgerEvent::MetadataSet { name: name.to_owned(), value: Some(vec![1]) };
    let mut entries = vec![
        Entry::Ledger(LedgerEvent::EpochOpened { epoch: Epoch::new(1) }),
        Entry::Ledger(set("tenant")),
        Entry::Ledger(set("zone")),
    ];
    for (number, events) in lives.into_iter().enumerate() {
        let id = EncodedId::from_bytes(&[5, b't', b'a', b's', b'k', b'a' + number as u8]);
        let mut prev = SeqNo::ZERO;
        for event in events {
            entries.push(Entry::Task { id: id.clone(), prev, event });
            prev = SeqNo::new(entries.len() as u64);
        }
    }
    let at = |seq: u64| Timestamp::from_micros(1_700_000_000_000_000 + seq);
    let records = entries.into_iter().zip(1..);
    let records: Vec<Record> =
        records.map(|(entry, seq)| Record { seq: SeqNo::new(seq), at: at(seq), entry }).collect();
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("sample");
    made(&path, &records, records.len() / 2);
    let export = export(&path);
    assert_eq!(lines(&export).len(), 1 + 10 + 3 + 1);
    (scratch, export)
}

fn path(scratch: &TempDir) -> std::path::PathBuf {
    scratch.path().join("imported")
}

/// Whatever it is, it is imported and sound, or refused and not there.
#[track_caller]
fn imports_or_not(
    scratch: &TempDir,
    bytes: &[u8],
    accept: AcceptLoss,
) -> Result<Imported, ImportError> {
    let path = path(scratch);
    let imported = import(bytes, &path, accept);
    match &imported {
        Ok(_) => {
            assert!(Inspection::open(&path).unwrap().verify().unwrap().is_sound());
            drop(found(&path));
            std::fs::remove_dir_all(&path).unwrap();
        }
        Err(ImportError::Create(error)) => panic!("that is no failure of the disk: {error}"),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(!path.exists(), "{error}");
        }
    }
    imported
}

#[test]
fn whatever_bytes_are_changed_it_is_refused_and_nothing_panics() {
    let (scratch, export) = sample();
    let end = export.len() - lines(&export).last().unwrap().len() - 1;
    for at in (0..export.len()).step_by(export.len() / 150) {
        for change in [1_u8, 0x80, 0x04] {
            let mut bytes = export.clone();
            bytes[at] ^= change;
            let imported = imports_or_not(&scratch, &bytes, AcceptLoss::No);
            assert!(at >= end || imported.is_err(), "byte {at} ^ {change}");
        }
    }
    // Wherever it is cut off.
    for at in (0..export.len() - 1).step_by(export.len() / 100) {
        let imported = imports_or_not(&scratch, &export[..at], AcceptLoss::No);
        let refused = matches!(
            imported,
            Err(ImportError::Incomplete(_)
                | ImportError::NotAnExport(_)
                | ImportError::Line { .. })
        );
        assert!(refused, "cut at {at}: {imported:?}");
    }
}

/// Values that a field may not have, with a closing line that fits.
fn hostile() -> Vec<Value> {
    vec![
        Value::Null,
        json!(-1),
        json!(0),
        json!(1),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("zz"),
        json!("succeeded"),
        json!("00".repeat(5000)),
        json!([]),
        json!([[]]),
        json!({}),
        json!({ "kept": "AAAA" }),
        json!({ "kind": "error", "text": "x".repeat(200_000) }),
        json!(true),
    ]
}

#[test]
fn whatever_a_line_says_it_is_imported_or_refused() {
    let (scratch, export) = sample();
    let mut all = lines(&export);
    all.pop();
    let (mut taken, mut refused) = (0, 0);
    let mut line = 0;
    for (step, value) in hostile().iter().cycle().take(400).enumerate() {
        line = (line + 7) % all.len();
        let mut changed: Value = serde_json::from_str(&all[line]).unwrap();
        let (_, inner) = changed.as_object_mut().unwrap().iter_mut().next().unwrap();
        match inner.as_object_mut() {
            Some(fields) => {
                let names: Vec<String> = fields.keys().cloned().collect();
                let name = names[step % names.len()].clone();
                match step % 5 {
                    0 => _ = fields.remove(&name),
                    1 => _ = fields.insert(format!("{name}_"), value.clone()),
                    _ => _ = fields.insert(name, value.clone()),
                }
            }
            None => *inner = value.clone(),
        }
        let mut lines = all.clone();
        lines[line] = changed.to_string();
        match imports_or_not(&scratch, &closed(&lines), AcceptLoss::No) {
            Ok(_) => taken += 1,
            Err(ImportError::Line { line: number, .. }) => {
                // What is too long for its own line shows there; what is out of order in the next.
                assert!(number == line as u64 + 1 || number > line as u64, "{number} for {line}");
                refused += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(taken > 20 && refused > 100, "{taken} taken, {refused} refused");
}

#[track_caller]
fn refused(scratch: &TempDir, lines: &[String], at: u64, why: &str) {
    match imports_or_not(scratch, &closed(lines), AcceptLoss::Yes) {
        Err(ImportError::Line { line, what }) => {
            assert_eq!(line, at, "{what}");
            assert!(what.contains(why), "{what}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn lines_out_of_order_and_lines_too_many_are_refused_whatever_is_accepted() {
    let (scratch, export) = sample();
    let mut all = lines(&export);
    let end = all.pop().unwrap();
    let last = all.len();
    let tombstone = all.iter().position(|line| line.starts_with("{\"tombstone")).unwrap();
    let changed = |change: &dyn Fn(&mut Vec<String>)| {
        let mut all = all.clone();
        change(&mut all);
        all
    };
    let order = "lines stay in the order in which they were exported";
    refused(&scratch, &changed(&|all| all.swap(1, 2)), 3, order);
    refused(&scratch, &changed(&|all| all.insert(2, all[1].clone())), 3, order);
    refused(
        &scratch,
        &changed(&|all| all.swap(tombstone, tombstone + 1)),
        tombstone as u64 + 2,
        order,
    );
    refused(&scratch, &changed(&|all| all.push(all[1].clone())), last as u64 + 1, order);
    refused(&scratch, &changed(&|all| all.insert(1, all[0].clone())), 2, "one import makes one");
    refused(&scratch, &changed(&|all| all.insert(1, "{\"thing\":1}".into())), 2, "unknown variant");
    refused(&scratch, &changed(&|all| all.insert(1, String::new())), 2, "EOF");
    refused(
        &scratch,
        &changed(&|all| all.push(end.clone())),
        last as u64 + 2,
        "follows the closing",
    );
    let long = format!("{{\"tombstone\":\"{}\"}}", "0".repeat(MAX_LINE));
    refused(&scratch, &changed(&|all| all.insert(1, long.clone())), 2, "longer than 4194304 bytes");
    let deep = ["{\"task\":{\"info\":", &"[".repeat(100_000)].concat();
    refused(&scratch, &changed(&|all| all.insert(1, deep.clone())), 2, "");
}

/// Each line was imported once, and the first of them made a run of it go round for ever.
#[test]
fn what_no_ledger_can_hold_is_refused_whatever_is_accepted() {
    let (scratch, export) = sample();
    let mut all = lines(&export);
    all.pop();
    let failure = json!({ "kind": "crashed" });
    let mut tried = 0;
    for (state, field, value, why) in [
        ("failed", "failure", Value::Null, "no `failure`"),
        ("succeeded", "failure", failure.clone(), "a `failure`"),
        ("running", "failure", failure.clone(), "a `failure`"),
        ("revoking", "failure", failure.clone(), "a `failure`"),
        ("failed", "succeeded_by", json!("mark"), "a `succeeded_by`"),
        ("running", "output", json!({ "kept": "AA==" }), "an `output`"),
        ("failed", "revoke_started_at", json!(1), "something of a revoke"),
        ("running", "revoke_failure", failure.clone(), "something of a revoke"),
        ("succeeded", "since", json!(1), "a `since`"),
        ("revoking", "revoke_started_at", Value::Null, "no `revoke_started_at`"),
        ("running", "ended_at", json!(1), "an `ended_at`"),
        ("running", "pinned", json!(true), "a pin"),
        ("running", "started_at", Value::Null, "only one of"),
        ("failed", "epoch", Value::Null, "only one of"),
        ("failed", "attempt", json!(0), "no attempt"),
        ("failed", "epoch", json!(u64::MAX), "more opens than records"),
        ("failed", "attempt", json!(u32::MAX), "more attempts than records"),
        ("failed", "state", json!("running"), "a `failure`"),
        ("failed", "state", json!("succeeded"), "a `failure`"),
        ("running", "state", json!("failed"), "no `failure`"),
        ("queued", "parent", json!("00"), "what is queued"),
        ("succeeded", "crashed_before", json!(true), "a `crashed_before`"),
        ("queued", "started_at", json!(1), "what is queued"),
    ] {
        for line in 1..all.len() {
            let mut changed: Value = serde_json::from_str(&all[line]).unwrap();
            let Some(task) = changed.get_mut("task") else { continue };
            let fields = task.as_object_mut().unwrap();
            // A mark has no attempt to take something away of.
            if fields["state"] != state || (value.is_null() && !fields.contains_key(field)) {
                continue;
            }
            if value.is_null() {
                fields.remove(field);
            } else {
                fields.insert(field.to_owned(), value.clone());
            }
            let mut lines = all.clone();
            lines[line] = changed.to_string();
            refused(&scratch, &lines, line as u64 + 1, why);
            tried += 1;
        }
    }
    assert!(tried >= 22, "{tried}");
}

/// It was imported: failed, and, as soon as it was forgotten, succeeded.
#[test]
fn a_task_beside_its_own_tombstone_is_refused() {
    let (scratch, export) = sample();
    let mut all = lines(&export);
    all.pop();
    let field = |line: &str, of: &str, name: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        data_encoding::HEXLOWER.decode(line[of][name].as_str().unwrap().as_bytes()).unwrap()
    };
    let seal = Seal::new(field(&all[0], "ledger", "ledger").try_into().unwrap());
    let tasks: Vec<String> =
        all.iter().filter(|line| line.starts_with("{\"task\"")).cloned().collect();
    for task in &tasks {
        let tombstone = seal.tombstone(&field(task, "task", "id"));
        let mut lines = all.clone();
        lines.push(json!({ "tombstone": tombstone.to_string() }).to_string());
        lines[1 + tasks.len()..].sort();
        let at = lines.iter().position(|line| line.contains(&tombstone.to_string())).unwrap();
        refused(&scratch, &lines, at as u64 + 1, "of a task that is there as well");
    }
}

/// What a checkpoint of an import may hold: marked ids at these positions, and tombstones.
fn checkpoint(path: &Path, tasks: &[(u8, u64)], tombstones: &[Tombstone]) -> Checkpoint {
    let end = SeqNo::new(9);
    let mut writer = CheckpointWriter::create(path, LedgerId([1; 16]), end, Chain(1)).unwrap();
    for (number, seq) in tasks {
        let seq = SeqNo::new(*seq);
        let details = TaskDetails {
            cell: Cell { state: TaskState::Succeeded, attempt: Attempt::NONE, seq },
            succeeded_by: Some(SuccessBy::Mark),
            ended_at: Some(Timestamp::from_micros(1)),
            ..TaskDetails::ABSENT
        };
        writer.push(&EncodedId::from_bytes(&[*number]), &details).unwrap();
    }
    let mut summed_up = writer.sum_up(Epoch::new(1), &BTreeMap::new()).unwrap();
    tombstones.iter().for_each(|tombstone| summed_up.bury(*tombstone).unwrap());
    summed_up.end().unwrap()
}

/// However few of many tombstones are held against the tasks at once.
#[test]
fn every_tombstone_is_held_against_every_task() {
    let scratch = tempfile::tempdir().unwrap();
    let seal = Seal::new([1; 16]);
    let mut tombstones: Vec<_> = (100..110).map(|n| seal.tombstone(&[n])).collect();
    tombstones.sort();
    let with = |name: &str, last: u8| {
        checkpoint(&scratch.path().join(name), &[(1, 1), (2, 2), (last, 3)], &tombstones)
    };
    let (good, bad) = (with("good", 3), with("bad", 107));
    let place = tombstones.iter().position(|grave| *grave == seal.tombstone(&[107])).unwrap();
    for at_once in [1, 3, 10, 11] {
        assert_eq!(buried_alive(&good, &seal, at_once).unwrap(), None);
        assert_eq!(buried_alive(&bad, &seal, at_once).unwrap(), Some(place as u64));
    }
}

/// However few of many positions are sorted at once.
#[test]
fn two_tasks_of_one_position_are_found_wherever_they_are() {
    let scratch = tempfile::tempdir().unwrap();
    let positions = [5, 1, 9, 3, 7, 2, 8];
    let with = |name: &str, changed: Option<(usize, u64)>| {
        let mut positions = positions;
        if let Some((place, seq)) = changed {
            positions[place] = seq;
        }
        let tasks: Vec<_> = (0..).zip(positions).collect();
        checkpoint(&scratch.path().join(name), &tasks, &[])
    };
    let good = with("good", None);
    for at_once in 2..9 {
        assert_eq!(share_a_position(&good, at_once).unwrap(), None);
    }
    for (one, seq) in positions.into_iter().enumerate() {
        for other in (0..positions.len()).filter(|other| *other != one) {
            let bad = with(&format!("{one}-{other}"), Some((other, seq)));
            for at_once in 2..9 {
                let found = share_a_position(&bad, at_once).unwrap();
                assert_eq!(found, Some(one.max(other) as u64), "{one} {other}, {at_once} at once");
            }
        }
    }
}

/// Two operations at one place of the queue: one of them was never performed, and nobody said so.
#[test]
fn two_tasks_of_one_position_are_refused() {
    let (scratch, export) = sample();
    let mut all = lines(&export);
    all.pop();
    let seq = |line: &str| -> Value {
        serde_json::from_str::<Value>(line).unwrap()["task"]["seq"].take()
    };
    let mut first: Value = serde_json::from_str(&all[1]).unwrap();
    first["task"]["seq"] = seq(&all[2]);
    all[1] = first.to_string();
    refused(&scratch, &all, 3, "that of another task");
}

#[test]
fn the_first_line_decides() {
    let (scratch, export) = sample();
    let all = lines(&export);
    let with = |field: &str, value: Value| {
        let mut first: Value = serde_json::from_str(&all[0]).unwrap();
        first["ledger"][field] = value;
        let mut all = all.clone();
        all[0] = first.to_string();
        all.pop();
        imports_or_not(&scratch, &closed(&all), AcceptLoss::Yes).unwrap_err()
    };
    let newer = with("version", json!(3));
    assert!(matches!(newer, ImportError::Newer { found: 3, supported: 2 }), "{newer}");
    let other = with("format", json!("shopping list"));
    assert!(matches!(other, ImportError::NotAnExport(_)), "{other}");
    let pair = |name: &str, size: usize| json!({ "name": name, "value": data_encoding::BASE64.encode(&vec![0; size]) });
    for (field, value, why) in [
        ("version", json!(0), "version 0"),
        ("ledger", json!("00"), "1 bytes where 16"),
        ("id_type", json!("////"), "the description of the id type"),
        ("id_type", json!(data_encoding::BASE64.encode(&vec![0; 300_000])), "has 300000 bytes"),
        ("last_seq", json!(u64::MAX), "beyond all"),
        ("last_seq", json!(SeqNo::LAST - 1), "no room"),
        ("last_seq", json!(SeqNo::LAST - ROOM + 1), "no room"),
        ("epoch", json!(u64::MAX), "more opens than records"),
        ("metadata", json!([pair("a", 5000)]), "with its value"),
        ("metadata", json!([pair("b", 1), pair("a", 1)]), "out of order"),
        ("metadata", json!([pair("a", 1), pair("a", 1)]), "out of order"),
        ("metadata", (10..40).map(|n| pair(&n.to_string(), 4000)).collect(), "more than 65536"),
        ("colour", json!(1), "unknown field"),
    ] {
        let error = with(field, value);
        let right = matches!(&error, ImportError::Line { line: 1, what } if what.contains(why));
        assert!(right, "{field}: {error}");
    }
    let mut headless = all.clone();
    headless.remove(0);
    headless.pop();
    for bytes in
        [closed(&headless), Vec::new(), b"\n".to_vec(), b"id,state\n".to_vec(), vec![0xff; 99]]
    {
        let error = imports_or_not(&scratch, &bytes, AcceptLoss::Yes).unwrap_err();
        assert!(matches!(error, ImportError::NotAnExport(_)), "{error}");
    }
}

#[test]
fn what_is_not_whole_is_imported_only_on_request_and_that_is_recorded() {
    let (scratch, export) = sample();
    let all = lines(&export);
    let tasks = all.iter().filter(|line| line.starts_with("{\"task")).count() as u64;
    let text = |lines: &[String]| {
        let bytes = |line: &String| [line, "\n"].concat().into_bytes();
        lines.iter().flat_map(bytes).collect::<Vec<u8>>()
    };
    let without_end = text(&all[..all.len() - 1]);
    let torn = [&text(&all[..3]), &all[3].as_bytes()[..20]].concat();
    let mut other_count = all.clone();
    other_count.remove(2);
    let other_count = text(&other_count);
    let swapped =
        String::from_utf8(export.clone()).unwrap().replacen("\"info\":{", "\"info\":{ ", 1);
    let damaged = String::from_utf8(export)
        .unwrap()
        .replace(",\"checksum\"", ",\"missing\":[\"witness: it is missing\"],\"checksum\"");
    for (bytes, why, kept) in [
        (without_end, "it has no closing line", tasks),
        (torn, "it is cut off in line 4", 2),
        (other_count, "its closing line counts", tasks - 1),
        (swapped.into_bytes(), "its checksum is wrong", tasks),
        (damaged.into_bytes(), "made of a damaged ledger (witness: it is missing)", tasks),
    ] {
        let error = imports_or_not(&scratch, &bytes, AcceptLoss::No).unwrap_err();
        assert!(matches!(&error, ImportError::Incomplete(what) if what.contains(why)), "{error}");
        let imported = import(&*bytes, path(&scratch), AcceptLoss::Yes).unwrap();
        assert_eq!(imported.tasks, kept);
        let lost = imported.lost.unwrap();
        assert!(lost.contains(why), "{lost}");
        let inspection = Inspection::open(path(&scratch)).unwrap();
        assert!(inspection.verify().unwrap().is_sound());
        let records: Vec<Record> = inspection.records(SeqNo::ZERO).map(Result::unwrap).collect();
        let told = [Entry::Ledger(LedgerEvent::LossAccepted { what: lost })];
        assert_eq!(records.into_iter().map(|record| record.entry).collect::<Vec<_>>(), told);
        drop(inspection);
        drop(found(&path(&scratch)));
        std::fs::remove_dir_all(path(&scratch)).unwrap();
    }
}

/// A ledger that was created, and nothing more, and one of which only the first records are there.
#[test]
fn an_empty_ledger_comes_through() {
    let scratch = tempfile::tempdir().unwrap();
    let (one, two) = (scratch.path().join("one"), scratch.path().join("two"));
    made(&one, &[], 0);
    let first = export(&one);
    assert_eq!(lines(&first).len(), 2);
    let imported = import(&*first, &two, AcceptLoss::No).unwrap();
    assert_eq!(imported, Imported::default());
    assert_eq!(export(&two), first);
    assert_eq!(found(&one), found(&two));
}

/// What a damaged ledger has is exported on request, and no position is used again.
#[test]
fn a_damaged_ledger_is_exported_only_on_request() {
    let (scratch, _) = sample();
    let source = scratch.path().join("sample");
    let log = std::fs::read_dir(&source).unwrap().map(|entry| entry.unwrap().path());
    let log = log.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("log-"));
    let file = log.map(|dir| dir.join("db")).next().unwrap();
    let sound = Inspection::open(&source).unwrap();
    let last = sound.last_seq();
    drop(sound);
    // The last batch is gone: the log is shorter than the witness says.
    let bytes = std::fs::read(&file).unwrap();
    let frame = memchr::memmem::rfind(&bytes, b"TLframe\x01").unwrap();
    let id = bytes[frame + 25..frame + 33].to_vec();
    let mut wiped = bytes.clone();
    for at in memchr::memmem::find_iter(&bytes, b"TLframe\x01") {
        if bytes[at + 25..at + 33] == id {
            wiped[at] = 0;
        }
    }
    std::fs::write(&file, wiped).unwrap();

    let inspection = Inspection::open(&source).unwrap();
    assert!(!inspection.damage().is_empty());
    let mut out = Vec::new();
    let refused = inspection.export(&mut out).unwrap_err();
    assert!(matches!(refused, ExportError::Damaged(_)), "{refused}");
    assert!(out.is_empty());
    let exported = inspection.export_with(&mut out, AcceptLoss::Yes, || ()).unwrap();
    assert!(!exported.missing.is_empty());
    assert!(inspection.last_seq() < last);
    let error = imports_or_not(&scratch, &out, AcceptLoss::No).unwrap_err();
    assert!(matches!(error, ImportError::Incomplete(_)), "{error}");
    let imported = import(&*out, path(&scratch), AcceptLoss::Yes).unwrap();
    assert_eq!(imported.tasks, exported.tasks);
    // The record of the loss has the first position that nobody has seen.
    assert_eq!(Inspection::open(path(&scratch)).unwrap().last_seq(), last.next());
}

/// What a failing disk leaves of an import is as little as of a backup.
#[test]
fn a_reader_that_fails_leaves_nothing() {
    struct Failing<'a>(&'a [u8]);
    impl std::io::Read for Failing<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(std::io::Error::other("unplugged")),
                read => Ok(read),
            }
        }
    }
    let (scratch, export) = sample();
    let half = std::io::BufReader::new(Failing(&export[..export.len() / 2]));
    let error = import(half, path(&scratch), AcceptLoss::Yes).unwrap_err();
    assert!(matches!(error, ImportError::Read(_)), "{error}");
    assert!(!path(&scratch).exists());
    let occupied = scratch.path().join("sample");
    let error = import(&*export, occupied, AcceptLoss::Yes).unwrap_err();
    assert!(matches!(error, ImportError::Create(CreateError::Exists { .. })), "{error}");
}

/// 40 KiB of keys that are maps whose keys are maps take megabytes as JSON.
#[test]
fn an_output_that_would_be_too_long_is_exported_and_not_shown() {
    let nested = (0..9).fold(vec![0xc0], |value, _| [vec![0x81], value, vec![0xc0]].concat());
    let count = u16::try_from(40_000 / nested.len()).unwrap();
    let output = [&[0xdc][..], &count.to_be_bytes(), &nested.repeat(count.into())].concat();
    assert!(crate::dump::output_json(&output).unwrap().to_string().len() > 2 << 20);
    let id = EncodedId::from_bytes(b"\x01a");
    let event = Event::Succeeded { by: SuccessBy::Mark, output: Output::Kept(output) };
    let entry = Entry::Task { id, prev: SeqNo::ZERO, event };
    let record = Record { seq: SeqNo::new(1), at: Timestamp::from_micros(1), entry };
    let scratch = tempfile::tempdir().unwrap();
    let (one, two) = (scratch.path().join("one"), scratch.path().join("two"));
    made(&one, &[record], 0);
    let first = export(&one);
    assert!(first.len() < 100_000 && !lines(&first)[1].contains("info"));
    import(&*first, &two, AcceptLoss::No).unwrap();
    assert_eq!(export(&two), first);
    assert_eq!(found(&one), found(&two));
}
