//! Why nothing is recorded any more.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Why a ledger has stopped recording. Every clone of the handle says the same.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Poison {
    /// A write or a sync failed.
    Failed(Arc<str>),
    /// The store panicked.
    Panicked(Arc<str>),
    /// A write or a sync has not come back within its deadline.
    Stuck {
        /// The deadline.
        after: Duration,
    },
}

impl fmt::Display for Poison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(what) => write!(
                f,
                "the ledger stopped recording after a failed write ({what}); close it, mend the cause and open it again"
            ),
            Self::Panicked(what) => write!(
                f,
                "the ledger stopped recording because its store panicked ({what}); restart the process"
            ),
            Self::Stuck { after } => write!(
                f,
                "the ledger stopped recording because a write has not come back for {after:?}; restart the process"
            ),
        }
    }
}

impl Error for Poison {}
