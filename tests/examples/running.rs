//! An example that is running, and what it has recorded.

use crate::text;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use taskledger::dump::Inspection;
use taskledger::{Entry, Event, SeqNo, TaskDetails};

/// Far more than anything here takes: what fails instead of hanging.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// A process whose lines are read as they come. Killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    said: Vec<String>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (says, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.split(b'\n') {
                if says.send(text(&line.unwrap())).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, said: Vec::new() }
    }

    /// Waits for a line that begins like this, and returns the rest of it.
    pub(crate) fn says(&mut self, beginning: &str) -> String {
        loop {
            match self.lines.recv_timeout(LONG) {
                Ok(line) => self.said.push(line),
                Err(why) => panic!("it does not say {beginning:?}: {why}\n{:#?}", self.said),
            }
            if let Some(rest) = self.said.last().unwrap().strip_prefix(beginning) {
                return rest.to_owned();
            }
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .unwrap();
    }

    /// As the power would: nothing of it runs any more when this returns.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its status, and all that it has said.
    pub(crate) fn ends(mut self) -> (ExitStatus, Vec<String>) {
        loop {
            match self.lines.recv_timeout(LONG) {
                Ok(line) => self.said.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(why) => panic!("it does not end: {why}\n{:#?}", self.said),
            }
        }
        (self.child.wait().unwrap(), std::mem::take(&mut self.said))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs it to its end.
pub(crate) fn ran(command: &mut Command) -> (Option<i32>, Vec<String>) {
    let (status, said) = Running::start(command).ends();
    (status.code(), said)
}

/// All that a ledger knows, by the text of the ids.
pub(crate) fn recorded(ledger: &Path) -> BTreeMap<String, TaskDetails> {
    let inspection = Inspection::open(ledger).unwrap();
    let tasks = inspection.tasks().map(|task| {
        let (id, details) = task.unwrap();
        (inspection.id_text(&id), details)
    });
    tasks.collect()
}

/// What was recorded, in its order.
pub(crate) fn records(ledger: &Path) -> Vec<(String, Event)> {
    let inspection = Inspection::open(ledger).unwrap();
    let records =
        inspection.records(SeqNo::ZERO).filter_map(|record| match record.unwrap().entry {
            Entry::Task { id, event, .. } => Some((inspection.id_text(&id), event)),
            Entry::Ledger(_) | _ => None,
        });
    records.collect()
}
