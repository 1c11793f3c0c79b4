//! stub, replaced by the suite
use super::Journal;
use crate::error::JournalError;
pub(crate) type Opener = Box<dyn Fn() -> Result<Box<dyn Journal>, JournalError>>;
pub(crate) fn run(make: &dyn Fn() -> Opener) {
    drop(make());
}
