//! The same ledger on a flat file: append + `fdatasync`, same frames, same batches. The limit that
//! the durable journal is measured against.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use taskledger::{
    Base, Cell, EncodedId, Journal, JournalError, Record, TaskDetails, Visit, internals,
};

/// Appends frames to one file. Recovers nothing: it exists to be measured.
#[derive(Debug)]
pub(crate) struct FlatJournal {
    file: File,
    chain: u64,
}

impl FlatJournal {
    pub(crate) fn create(path: &Path) -> Result<Self, Box<dyn Error>> {
        Ok(Self { file: File::create(path)?, chain: 0 })
    }
}

impl Journal for FlatJournal {
    fn replay(&mut self, _visit: &mut Visit<'_>) -> Result<Base, JournalError> {
        Ok(Base::default())
    }

    fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let (frames, chain) =
            internals::encode_frames([7; 16], self.chain, records).map_err(JournalError::Store)?;
        let written = frames.iter().try_for_each(|frame| self.file.write_all(frame));
        written
            .and_then(|()| self.file.sync_data())
            .map_err(|error| JournalError::Store(error.to_string()))?;
        self.chain = chain;
        Ok(())
    }

    fn read(&mut self, _id: &EncodedId, _cell: Cell) -> Result<TaskDetails, JournalError> {
        Err(JournalError::Store("a flat journal is only written".into()))
    }
}
