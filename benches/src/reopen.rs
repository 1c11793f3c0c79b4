//! What reopening costs: against a flat file of the same entries, in memory, and on the disk.

use crate::answers::{checkpoint_bytes, resident};
use crate::{Options, Result, id, spread};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use taskledger::internals::{Cells, with_cells};
use taskledger::{Attempt, Cell, EncodedId, Ledger, Lookup, SeqNo, TaskId, TaskState};
use tokio::task::JoinSet;

/// The variable that tells a child which ledger to open, to say what that takes.
const OPENED: &str = "TASKLEDGER_BENCH_REOPENED";

/// Bytes read at once.
const PIECE: usize = 1024 * 1024;

/// In a child: opens the ledger and prints how many bytes of memory it takes from then on.
pub(crate) async fn open_and_weigh() -> Option<Result<()>> {
    let told = std::env::var(OPENED).ok()?;
    let (kind, path) = told.split_once(' ')?;
    let path = Path::new(path);
    Some(if kind == "number" { weigh::<u64>(path).await } else { weigh::<String>(path).await })
}

async fn weigh<K: TaskId>(path: &Path) -> Result<()> {
    let before = resident()?;
    let ledger = Ledger::<K>::open(path).await?;
    println!("{}", resident()?.saturating_sub(before));
    ledger.close().await?;
    Ok(())
}

/// Texts of 20 bytes, and numbers.
pub(crate) async fn ids(options: &Options, ids: u64) -> Result<Vec<Value>> {
    let text = |number| id(usize::try_from(number).unwrap_or(usize::MAX));
    let texts = one(options, "text", "20-byte text", ids, text).await?;
    let numbers = one(options, "number", "u64", ids, |number| number).await?;
    Ok(vec![texts, numbers])
}

async fn one<K: TaskId + Lookup<K>>(
    options: &Options,
    kind: &str,
    name: &str,
    ids: u64,
    id: impl Fn(u64) -> K + Copy + Send + 'static,
) -> Result<Value> {
    let dir = tempfile::tempdir_in(&options.dir)?;
    let path = dir.path().join("ledger");
    let ledger = Ledger::<K>::open(&path).await?;
    fill(&ledger, ids, id).await?;
    ledger.checkpoint().await?;
    ledger.close().await?;
    drop(ledger);
    let disk = checkpoint_bytes(&path)? as f64 / ids as f64;
    let flat = dir.path().join("flat");
    let width = write_flat(&flat, ids, disk, id)?;
    rustix::fs::sync();
    let (mut opens, mut flats, mut ratios, mut memory) = (vec![], vec![], vec![], vec![]);
    for _ in 0..options.rounds {
        let began = Instant::now();
        read_flat(&flat, ids, width)?;
        let read = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let ledger = Ledger::<K>::open(&path).await?;
        let opened = began.elapsed().as_secs_f64();
        ledger.close().await?;
        drop(ledger);
        let told = format!("{kind} {}", path.display());
        let done = Command::new(std::env::current_exe()?).env(OPENED, told).output()?;
        memory.push(String::from_utf8(done.stdout)?.trim().parse::<f64>()? / ids as f64);
        opens.push(opened);
        flats.push(read);
        ratios.push(opened / read);
    }
    let (low, open, high) = spread(&opens);
    let (low_flat, flat, high_flat) = spread(&flats);
    let (low_ratio, ratio, high_ratio) = spread(&ratios);
    let (low_memory, memory, high_memory) = spread(&memory);
    println!(
        "\nreopening {ids} succeeded ids, {name}, checkpoint made: {open:.3} s ({low:.3}-{high:.3}); \
         a flat file of them into the same map {flat:.3} s ({low_flat:.3}-{high_flat:.3}): \
         {ratio:.2} ({low_ratio:.2}-{high_ratio:.2}) of it\n\
         {memory:.1} bytes of memory each ({low_memory:.1}-{high_memory:.1}), {disk:.1} on disk"
    );
    Ok(json!({
        "figure": "reopen against a flat file", "ids": ids, "kind": name,
        "median": open, "low": low, "high": high, "flat": flat,
        "ratio": ratio, "ratio low": low_ratio, "ratio high": high_ratio,
        "memory": memory, "memory low": low_memory, "memory high": high_memory, "disk": disk,
    }))
}

async fn fill<K: TaskId + Lookup<K>>(
    ledger: &Ledger<K>,
    ids: u64,
    id: impl Fn(u64) -> K + Copy + Send + 'static,
) -> Result<()> {
    const LAUNCHERS: u64 = 1024;
    let mut set = JoinSet::new();
    for launcher in 0..LAUNCHERS {
        let ledger = ledger.clone();
        set.spawn(async move {
            let mut number = launcher;
            while number < ids {
                let done = ledger.launch_block(id(number), async { Ok::<_, ()>(()) });
                done.await.map_err(|error| error.to_string())?;
                number += LAUNCHERS;
            }
            Ok::<_, String>(())
        });
    }
    while let Some(done) = set.join_next().await {
        done??;
    }
    Ok(())
}

/// Length, id, state, attempt, position; as wide as an entry of the checkpoint is on average, so that
/// no more and no less is read. Returns that width.
fn write_flat<K: TaskId>(path: &Path, ids: u64, disk: f64, id: impl Fn(u64) -> K) -> Result<usize> {
    const LEAST: usize = 1 + 21 + 1 + 4 + 8;
    let width = (disk as usize).max(LEAST);
    let mut out = BufWriter::with_capacity(PIECE, File::create(path)?);
    for number in 0..ids {
        let id = EncodedId::of(&id(number))?;
        let mut entry = vec![u8::try_from(id.as_bytes().len())?];
        entry.extend_from_slice(id.as_bytes());
        entry.push(3);
        entry.extend_from_slice(&1_u32.to_le_bytes());
        entry.extend_from_slice(&(2 * number + 2).to_le_bytes());
        entry.resize(width, 0);
        out.write_all(&entry)?;
    }
    out.flush()?;
    Ok(width)
}

/// As many threads as an open has, each with its share of the file, and a map that has room for all.
fn read_flat(path: &Path, ids: u64, width: usize) -> Result<()> {
    let file = File::open(path)?;
    let threads = std::thread::available_parallelism()?.get().min(4) as u64;
    let mut first = [0];
    file.read_exact_at(&mut first, 0)?;
    let [length] = first.map(usize::from);
    let ok = with_cells(&[(length, usize::try_from(ids)?)], |cells| {
        std::thread::scope(|scope| {
            let share = |number| {
                let (from, to) = (ids * number / threads, ids * (number + 1) / threads);
                let file = &file;
                scope.spawn(move || read_share(file, from, to, width, cells))
            };
            let shares: Vec<_> = (0..threads).map(share).collect();
            shares.into_iter().all(|share| matches!(share.join(), Ok(Some(()))))
        })
    });
    if ok { Ok(()) } else { Err("the flat file is not read back".into()) }
}

fn read_share(file: &File, from: u64, to: u64, width: usize, cells: &Cells) -> Option<()> {
    let at_once = (PIECE / width) as u64;
    let mut piece = Vec::new();
    let mut next = from;
    while next < to {
        let entries = at_once.min(to - next);
        piece.resize(entries as usize * width, 0);
        file.read_exact_at(&mut piece, next * width as u64).ok()?;
        for entry in piece.chunks_exact(width) {
            let (length, rest) = entry.split_first()?;
            let (id, rest) = rest.split_at_checked(usize::from(*length))?;
            let (state, rest) = rest.split_first()?;
            let (attempt, rest) = rest.split_first_chunk()?;
            let (seq, _) = rest.split_first_chunk()?;
            let state = *TaskState::ALL.get(usize::from(*state))?;
            let attempt = Attempt::new(u32::from_le_bytes(*attempt));
            cells.set(id, Cell { state, attempt, seq: SeqNo::new(u64::from_le_bytes(*seq)) });
        }
        next += entries;
    }
    Some(())
}
