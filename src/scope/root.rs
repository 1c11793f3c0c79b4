//! The root of a tree.

use super::Scope;
use std::fmt;
use std::ops::Deref;

/// A scope without a parent, made by [`Ledger::scope`](crate::Ledger::scope).
///
/// Dropped, it asks all that runs within it to stop, and waits for nothing; [`end`](Self::end) waits
/// for that, and [`join`](Self::join) for what runs to end by itself.
#[must_use = "dropping it ends it"]
pub struct Root<K, V = ()> {
    scope: Scope<K, V>,
}

impl<K, V> Root<K, V> {
    pub(super) const fn new(scope: Scope<K, V>) -> Self {
        Self { scope }
    }

    /// Asks all that runs within it to stop, and waits until it is gone with all that it held.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has asked, and does not wait.
    ///
    /// # Panics
    ///
    /// None.
    pub async fn end(self) {
        self.scope.node().end(|| ());
        self.scope.node().ended().await;
    }

    /// Waits until nothing runs within it any more, and ends it: what is spawned meanwhile is waited for
    /// as well.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it ends the scope, as dropping the root does.
    ///
    /// # Panics
    ///
    /// None.
    pub async fn join(self) {
        while !self.scope.node().ends_empty() {
            self.scope.node().emptied().await;
        }
        self.end().await;
    }
}

impl<K, V> Deref for Root<K, V> {
    type Target = Scope<K, V>;

    fn deref(&self) -> &Scope<K, V> {
        &self.scope
    }
}

impl<K, V> Drop for Root<K, V> {
    fn drop(&mut self) {
        self.scope.node().end(|| ());
        self.scope.node().is_watched();
    }
}

impl<K, V> fmt::Debug for Root<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").field("scope", &self.scope).finish()
    }
}
