//! Whether everything is as it was written.
//!
//! A ledger is sound if and only if an open would find it whole (manifest, checkpoint, frames,
//! their chain and density, the witness), every frame decodes, every record is legal where it
//! stands, and the store has put nothing into files that it never syncs. The store's own structure
//! is not looked at: an open rebuilds it from the frames.

use super::Inspection;
use crate::error::{Damage, JournalError};
use crate::state::SeqNo;

/// What [`Inspection::verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// What is wrong, and where.
    pub findings: Vec<Damage>,
    /// What is not wrong, but worth knowing.
    pub notes: Vec<String>,
    /// Tasks that were read.
    pub tasks: u64,
    /// Records after the checkpoint that were read.
    pub records: u64,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, damage: Damage) {
        if !self.findings.contains(&damage) {
            self.findings.push(damage);
        }
    }
}

impl Inspection {
    /// Reads and judges everything.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`] when something cannot be read, so that nobody knows.
    pub fn verify(&self) -> Result<Report, JournalError> {
        self.verify_with(|| ())
    }

    /// As [`verify`](Self::verify), telling of every record and every task as it is read.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    pub fn verify_with(&self, mut step: impl FnMut()) -> Result<Report, JournalError> {
        let mut report = Report { notes: self.notes.clone(), ..Report::default() };
        self.damage.iter().for_each(|damage| report.find(damage.clone()));
        for record in self.records(SeqNo::ZERO) {
            step();
            match record {
                Ok(_) => report.records += 1,
                Err(error) => report.find(self.finding(error)?),
            }
        }
        for task in self.tasks() {
            step();
            match task {
                Ok(_) => report.tasks += 1,
                Err(error) => report.find(self.finding(error)?),
            }
        }
        Ok(report)
    }

    fn finding(&self, error: JournalError) -> Result<Damage, JournalError> {
        match error {
            JournalError::Damaged(damage) => Ok(damage),
            JournalError::Illegal { seq, source } => Ok(Damage {
                place: self.log_of(seq).to_owned(),
                what: format!("record {seq} is illegal: {source}"),
                lost: None,
            }),
            JournalError::Io { .. }
            | JournalError::Store(_)
            | JournalError::Panicked(_)
            | JournalError::UsedUp
            | JournalError::Moved { .. } => Err(error),
        }
    }

    fn log_of(&self, seq: SeqNo) -> &str {
        let holds = |log: &&super::LogFrames| {
            let mut frames = log.frames.iter().filter_map(|number| log.scan.frames().get(*number));
            frames.any(|frame| (frame.first..=frame.last()).contains(&seq.get()))
        };
        self.logs.iter().find(holds).map_or("log", |log| log.name.as_str())
    }
}
