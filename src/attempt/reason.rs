//! Why an attempt was cancelled, in the words that are recorded.

/// Why an attempt is cancelled that wanted to end with its caller.
pub(crate) const LEFT: &str = "its caller was dropped";

/// The same of one that was launched with a handle.
pub(crate) const HANDLE_DROPPED: &str = "its handle was dropped";

/// The same of one that was begun within a scope.
pub(crate) const SCOPE_ENDED: &str = "its scope has ended";

/// Why an attempt is cancelled of which nothing is left here.
pub(crate) const GONE: &str = "its runtime shut down or its task was dropped";

/// Whether an attempt that was cancelled for this reason has ended with who began it: that is no answer to
/// whoever else waits for it.
pub(crate) fn ended_with_its_caller(reason: &str) -> bool {
    [LEFT, HANDLE_DROPPED, SCOPE_ENDED, GONE].contains(&reason)
}

/// The reason that somebody gives, which is never taken for one of those.
pub(crate) fn asked(reason: String) -> String {
    if ended_with_its_caller(&reason) { format!("cancelled: {reason}") } else { reason }
}
