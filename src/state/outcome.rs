//! What comes of an attempt.

use std::fmt;

/// Why an attempt, or a revoke, did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// The future ended in `Err`; the text is the error's `Debug`, cut at 4 KiB.
    Error(String),
    /// The future panicked; the text is the panic's message.
    Panicked(String),
    /// The attempt was cancelled: by [`cancel`](crate::Ledger::cancel), by being dropped, or by
    /// the end of its runtime. The text says which.
    Cancelled(String),
    /// The attempt passed its timeout and was dropped.
    TimedOut,
    /// The process ended while it was running; found by the next open. Its effect may or may not
    /// have happened.
    Crashed,
    /// It was tried as often as it may be, and no [run](crate::Ledger::run) tries it again until it is
    /// [resolved](crate::Ledger::resolve). What asks for no policy does not ask for this either: a launch
    /// starts it, and a mark makes it a success.
    GaveUp {
        /// How many attempts there were, those that crashed included.
        attempts: u32,
        /// Why the last of them failed.
        last: String,
    },
    /// Somebody found out that it did not happen, and [said so](crate::Ledger::resolve). The text is
    /// theirs.
    Resolved(String),
    /// Somebody [said](crate::Ledger::resolve) that it may be tried again. The text is theirs.
    Released(String),
}

impl Failure {
    /// The lower-case name used by the dump tool.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Error(_) => "error",
            Self::Panicked(_) => "panicked",
            Self::Cancelled(_) => "cancelled",
            Self::TimedOut => "timed out",
            Self::Crashed => "crashed",
            Self::GaveUp { .. } => "gave up",
            Self::Resolved(_) => "resolved",
            Self::Released(_) => "released",
        }
    }

    /// The recorded text, where there is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Error(text)
            | Self::Panicked(text)
            | Self::Cancelled(text)
            | Self::GaveUp { last: text, .. }
            | Self::Resolved(text)
            | Self::Released(text) => Some(text),
            Self::TimedOut | Self::Crashed => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.text()) {
            (Self::GaveUp { attempts, last }, _) => {
                write!(f, "gave up after {attempts} attempts: {last}")
            }
            (_, Some(text)) if !text.is_empty() => write!(f, "{}: {text}", self.name()),
            _ => f.write_str(self.name()),
        }
    }
}

/// What became of the value of a success.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Output {
    /// There was none: the id was marked as succeeded from outside.
    #[default]
    Absent,
    /// The value, self-describing (MessagePack with field names).
    Kept(Vec<u8>),
    /// The success is recorded, its value is not.
    NotKept(NotKept),
}

/// Why the value of a success was not recorded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NotKept {
    /// It was larger than the cap.
    TooLarge {
        /// Its size in bytes, serialized.
        size: u64,
    },
    /// Its `Serialize` failed or panicked; the text is the error.
    NotSerializable(String),
}

impl fmt::Display for NotKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { size } => write!(f, "{size} bytes, over the cap"),
            Self::NotSerializable(text) => write!(f, "not serializable: {text}"),
        }
    }
}

/// Who says that a task succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SuccessBy {
    /// The attempt that was running.
    Attempt,
    /// Somebody outside, by [`mark_succeeded`](crate::Ledger::mark_succeeded).
    Mark,
    /// Somebody who found out that a failed attempt had its effect after all, by
    /// [`resolve`](crate::Ledger::resolve).
    Resolve,
}
