//! A copy of a ledger that is open.
//!
//! Clients of a child are at work, and checkpoints are made, while its directory is copied file by
//! file: in any order, some in two parts with writes in between. What has vanished is not in the
//! copy; what has appeared is in some. So the copy is a ledger as it never was. It opens, with
//! everything that had been acknowledged before the copying began, each id in the state of then or a
//! later one, and works; or it is refused as damaged and left as it is, and an accepted loss opens it.

use super::damaged::builder;
use crate::Rng;
use crate::ops::Model;
use crate::places::{self, BALLAST, TestLedger, some_ballast};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Lines, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr};
use taskledger::{AcceptLoss, OpenError, TaskState};

/// What a copy came to, if nothing is wrong.
#[derive(Clone, Copy, Debug)]
pub(super) enum Came {
    Opened,
    Repaired,
    Refused,
}

/// Clients at work in a child, which dies with this.
struct Work {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    model: Model,
}

impl Work {
    fn begin(path: &Path, rng: &mut Rng) -> Self {
        let mut child = places::child("clients", path);
        child
            .env(BALLAST, some_ballast(rng).to_string())
            .env("TASKLEDGER_CHILD_SEED", rng.next().to_string())
            .env("TASKLEDGER_CHILD_CLIENTS", (1 + rng.below(6)).to_string())
            .env("TASKLEDGER_CHILD_CHECKPOINTS", rng.pick(&[0, 1, 5, u64::MAX]).to_string())
            .env("TASKLEDGER_CHILD_CHECKPOINT_AFTER", "65536");
        let mut child = child.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines, model: Model::default() }
    }

    /// Waits until they have said so many more lines.
    fn goes_on(&mut self, lines: u64) {
        for _ in 0..lines {
            let line = self.lines.next().expect("they work until they are killed");
            self.model.hear(&line.unwrap());
        }
    }

    /// Kills them, and hears what they have said.
    fn end(mut self) -> Model {
        self.child.kill().unwrap();
        for line in self.lines.by_ref() {
            self.model.hear(&line.unwrap());
        }
        let killed = places::was_killed(self.child.wait().unwrap());
        assert_eq!(killed, Ok(true), "they work until they are killed");
        std::mem::take(&mut self.model)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Makes a copy, tells how, and tries it.
pub(super) fn try_copy(rng: &mut Rng, made: &mut String) -> Result<Came, String> {
    let top = places::scratch();
    let (path, copy) = (top.path().join("ledger"), top.path().join("copy"));
    let mut work = Work::begin(&path, rng);
    work.goes_on(1 + rng.below(300));
    work.model.remember();
    *made = copy_all(&path, &copy, &mut work, rng);
    let mut model = work.end();
    places::run(try_to_open(&copy, &mut model))
}

/// Copies what is there, and perhaps what has appeared by then; tells in which order.
fn copy_all(from: &Path, to: &Path, work: &mut Work, rng: &mut Rng) -> String {
    let (mut done, mut told) = (BTreeSet::new(), Vec::new());
    let lines = *rng.pick(&[1, 5, 50]);
    for _ in 0..1 + rng.below(3) {
        let mut names = Vec::new();
        list(from, Path::new(""), &mut names);
        names.retain(|name| !done.contains(name));
        while !names.is_empty() {
            let name = names.swap_remove(rng.below(names.len() as u64) as usize);
            let file = (from.join(&name), to.join(&name));
            let how = match copy_file(&file.0, &file.1, work, lines, rng) {
                Ok(how) => how,
                Err(error) if error.kind() == ErrorKind::NotFound => ", which has vanished".into(),
                Err(error) => panic!("{}: {error}", name.display()),
            };
            told.push(format!("{}{how}", name.display()));
            done.insert(name);
        }
    }
    told.join("; ")
}

/// The names of all files below a directory, as far as it is still there.
fn list(top: &Path, below: &Path, names: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(top.join(below)) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let name = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            list(top, &name, names);
        } else {
            names.push(name);
        }
    }
}

/// Copies a file, sometimes in two parts, and lets the clients go on.
fn copy_file(
    from: &Path,
    to: &Path,
    work: &mut Work,
    lines: u64,
    rng: &mut Rng,
) -> io::Result<String> {
    let mut file = File::open(from)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut how = String::new();
    if rng.below(3) == 0 {
        // Where there is something: most of a store's file are holes.
        let at = rng.below(places::used(&bytes) + 1);
        bytes.truncate(at as usize);
        work.goes_on(rng.below(lines));
        file.seek(SeekFrom::Start(at))?;
        file.read_to_end(&mut bytes)?;
        how = format!(" in two parts, from {at} on later");
    }
    std::fs::create_dir_all(to.parent().unwrap())?;
    places::write_sparse(to, &bytes);
    work.goes_on(rng.below(lines));
    Ok(how)
}

async fn try_to_open(path: &Path, model: &mut Model) -> Result<Came, String> {
    let before = places::image(path);
    match places::open(builder(), path).await {
        Ok(ledger) => {
            let came =
                if ledger.recovery().repaired().is_empty() { Came::Opened } else { Came::Repaired };
            model
                .check(&ledger)
                .await
                .map_err(|lost| format!("the copy has silently lost: {lost}"))?;
            works(ledger, path, Some(model)).await.map(|()| came)
        }
        Err(OpenError::Damaged(_)) => {
            if let Some(changed) = places::difference(&before, &places::image(path)) {
                return Err(format!("the refused open has changed:\n{changed}"));
            }
            let accepting = builder().accept_loss(AcceptLoss::Yes);
            let ledger = places::open(accepting, path)
                .await
                .map_err(|error| format!("the accepted loss does not open it: {error:?}"))?;
            if ledger.recovery().loss_accepted().is_none() {
                return Err("the loss is not told".to_owned());
            }
            works(ledger, path, None).await.map(|()| Came::Refused)
        }
        Err(other) => Err(format!("it does not open: {other:?}")),
    }
}

/// Takes a mark, closes, and has it when it is opened again, with all that was found before.
async fn works(ledger: TestLedger, path: &Path, model: Option<&mut Model>) -> Result<(), String> {
    let running = ledger.running_tasks().len() + ledger.revoking_tasks().len();
    if running > 0 {
        return Err(format!("{running} still run after an open"));
    }
    let marked = ledger.mark_succeeded("of the copy".to_owned()).await;
    marked.map_err(|error| format!("it does not work: {error:?}"))?;
    ledger.close().await.map_err(|error| format!("it does not close: {error:?}"))?;
    let ledger =
        places::open(builder(), path).await.map_err(|error| format!("again: {error:?}"))?;
    if ledger.query_task_state_quick("of the copy") != TaskState::Succeeded {
        return Err("what was recorded in the copy is gone".to_owned());
    }
    ledger.forget("of the copy").await.map_err(|error| format!("again: {error:?}"))?;
    if let Some(model) = model {
        model.check(&ledger).await.map_err(|lost| format!("the second open: {lost}"))?;
    }
    ledger.close().await.map_err(|error| format!("it does not close: {error:?}"))
}
