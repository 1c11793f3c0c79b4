//! What ties the files of one ledger together.

use std::fmt;

/// The random identity of a ledger. It stands in the manifest and in every frame and file, so that
/// a file of another ledger, put in by mistake, is recognised.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LedgerId(pub(crate) [u8; 16]);

impl fmt::Display for LedgerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LedgerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LedgerId({self})")
    }
}

/// The checksum of the frame that ends at a position of the log. Every frame names the one before
/// it, so one value vouches for all that came before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Chain(pub(crate) u64);

impl Chain {
    /// Before the first frame.
    pub(crate) const START: Self = Self(0);
}
