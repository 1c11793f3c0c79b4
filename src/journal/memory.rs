//! stub
/// A journal in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryJournal {}
