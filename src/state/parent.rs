//! Within what an attempt ran.

use std::fmt;

/// The id, encoded, of the scope within which an attempt ran.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Parent(Box<[u8]>);

impl Parent {
    /// With these bytes, which are an encoded id.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes of the id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parent({})", self.0.escape_ascii())
    }
}
