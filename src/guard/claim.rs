//! An answer, and how it came about.

/// How an answer came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClaimKind {
    /// This call ran it.
    Executed,
    /// Somebody else ran it meanwhile, and this call waited for that.
    Joined,
    /// It had succeeded before, and this is what was stored.
    Replayed,
}

/// The answer of [`run`](crate::Ledger::run): it has succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claim<V> {
    /// How the answer came about.
    pub kind: ClaimKind,
    /// What the success returned. `None` only for an answer that is not of this call's own execution,
    /// and only if it was not kept: it was over the cap, could not be serialized, was pruned, or the id
    /// was marked from outside.
    pub value: Option<V>,
}
