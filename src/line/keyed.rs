//! Lines by key, made on demand and gone with their last user.

use super::{Line, Shared};
use crate::sync::{Arc, Mutex, lock};
use std::collections::HashMap;

type ByKey = HashMap<Vec<u8>, (u64, Weak<Shared>)>;

#[cfg(shuttle)]
use shuttle::sync::Weak;
#[cfg(not(shuttle))]
use std::sync::Weak;

/// The lines of a ledger that somebody has.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Registry>>);

#[derive(Default)]
struct Registry {
    lines: ByKey,
    made: u64,
}

/// A line's place in the registry, which goes with it.
pub(super) struct Entry {
    registry: Lines,
    key: Vec<u8>,
    /// Which of the lines that this key has had: its place may be another one's by now.
    number: u64,
}

impl Lines {
    /// The line of this key.
    pub(crate) fn of(&self, key: &[u8]) -> Line {
        let mut registry = lock(&self.0);
        if let Some(shared) = registry.lines.get(key).and_then(|(_, line)| line.upgrade()) {
            // Before a drop of the line, which takes the lock.
            drop(registry);
            return Line { shared };
        }
        registry.made += 1;
        let number = registry.made;
        let entry = Entry { registry: self.clone(), key: key.to_vec(), number };
        let line = Line::keyed(entry);
        registry.lines.insert(key.to_vec(), (number, Arc::downgrade(&line.shared)));
        line
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.0).lines.len()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut registry = lock(&self.registry.0);
        if registry.lines.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            registry.lines.remove(&self.key);
        }
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lines").field(&lock(&self.0).lines.len()).finish()
    }
}
