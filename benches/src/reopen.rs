//! Opening a ledger, beside reading a flat file of the same.

use crate::bytes::of_checkpoint;
use crate::figure::{Figure, Goal, interleaved};
use crate::load::{fill, id};
use crate::{Options, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;
use taskledger::internals::{Cells, with_cells};
use taskledger::{Attempt, Cell, EncodedId, Ledger, SeqNo, TaskId, TaskState};

const BENCH: &str = "Opening a ledger of succeeded ids";

/// Bytes read at once.
const PIECE: usize = 1024 * 1024;

#[derive(Clone, Copy, Debug)]
enum Variant {
    /// The bound.
    Flat,
    /// Everything is in a checkpoint.
    Checkpoint,
    /// What no checkpoint was made of is in the log.
    Log,
}

impl Variant {
    const ALL: [Self; 3] = [Self::Flat, Self::Checkpoint, Self::Log];

    const fn name(self) -> &'static str {
        match self {
            Self::Flat => "a flat file of them into the same map",
            Self::Checkpoint => "the ledger, after a checkpoint",
            Self::Log => "the ledger, as the process left it",
        }
    }
}

pub(crate) async fn reopen(options: &Options, ids: u64) -> Result<Vec<Figure>> {
    let mut figures = of_type(options, "20-byte", ids, id).await?;
    figures.extend(of_type(options, "u64", ids, |number| number).await?);
    Ok(figures)
}

async fn of_type<K: TaskId>(
    options: &Options,
    kind: &str,
    ids: u64,
    id: impl Fn(u64) -> K + Copy + Send + Sync + 'static,
) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir_in(&options.dir)?;
    let at = |name: &str| dir.path().join(name);
    for (name, compacted) in [("checkpoint", true), ("log", false)] {
        let ledger = Ledger::<K>::open(at(name)).await?;
        fill(&ledger, 1024, 0..ids, id).await?;
        if compacted {
            ledger.checkpoint().await?;
        }
        ledger.close().await?;
    }
    let disk = of_checkpoint(&at("checkpoint"))? as f64 / ids as f64;
    let width = write_flat(&at("flat"), ids, disk, id)?;
    rustix::fs::sync();
    let one = async |variant| {
        let began = Instant::now();
        let path = match variant {
            Variant::Flat => {
                read_flat(&at("flat"), ids, width)?;
                return Ok(began.elapsed().as_secs_f64());
            }
            Variant::Checkpoint => at("checkpoint"),
            Variant::Log => at("log"),
        };
        let ledger = Ledger::<K>::open(path).await?;
        let took = began.elapsed().as_secs_f64();
        ledger.close().await?;
        Ok(took)
    };
    let times = interleaved(options.rounds, &Variant::ALL, one).await?;
    let bound = times.first().cloned().unwrap_or_default();
    let figures = Variant::ALL.into_iter().zip(&times).map(|(variant, times)| {
        let what = format!("{}, {kind} ids", variant.name());
        let figure = Figure::new(BENCH, what, "s", times).at("ids", ids);
        let most = (ids == 10_000_000).then_some(Goal::AtMost(5.0));
        match variant {
            Variant::Flat => figure,
            Variant::Checkpoint => {
                figure.against("the flat file", &bound, Goal::AtMost(1.2)).goal(most)
            }
            Variant::Log => figure.against("the flat file", &bound, None).goal(most),
        }
    });
    Ok(figures.collect())
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
