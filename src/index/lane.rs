//! Some of the parts of the map, for one of several threads that replay a log.

use super::part::{Gathered, Reserved};
use super::{Index, PARTS};
use crate::id::Probe;
use crate::state::Cell;

/// Bytes that are gathered of a part before they are put into it. Ids come in their own order, which is none
/// for a hash: put in one by one, each finds another part, whose pages the processor has forgotten.
const GATHERED: usize = 64 * 1024;

/// Every so manyth part.
#[derive(Debug)]
pub(crate) struct Lane<'a> {
    index: &'a Index,
    number: usize,
    of: usize,
    /// What is still to be put into each of the parts.
    gathered: Vec<Gathered>,
}

impl Index {
    /// The parts of lane `number` of so many. What is published beside the cells is made up by
    /// [`recount`](Self::recount) once, at the end.
    pub(crate) fn lane(&self, number: usize, of: usize) -> Lane<'_> {
        Lane { index: self, number, of, gathered: Vec::new() }
    }
}

impl Index {
    /// Makes room for about so many ids of these lengths, which is kept while the result is.
    pub(crate) fn reserve(&self, expected: &[(usize, usize)]) -> Vec<Reserved<'_>> {
        // Of fewer than a table begins with there is nothing to make room for.
        const FEW: usize = 64;
        // Of more than this many it makes room when they come: a journal may expect what it likes.
        const MANY: usize = 16 << 20;
        let mut reserved = Vec::new();
        for (length, ids) in expected {
            let each = (*ids).min(MANY) / PARTS;
            if each > FEW {
                reserved.extend(self.parts.iter().filter_map(|part| part.reserve(*length, each)));
            }
        }
        reserved
    }
}

impl Lane<'_> {
    /// Sets the cell of an id of which nothing is known yet, if the id stands in the lane.
    pub(crate) fn set(&mut self, id: &[u8], cell: Cell) {
        let part = self.index.key.hashed(&Probe::of(id)).part(PARTS);
        if part % self.of != self.number {
            return;
        }
        let place = part / self.of;
        if self.gathered.len() <= place {
            self.gathered.resize_with(place + 1, Gathered::default);
        }
        let Some(gathered) = self.gathered.get_mut(place) else { return };
        gathered.push(id, cell);
        if let Some(part) = self.index.parts.get(part).filter(|_| gathered.bytes() >= GATHERED) {
            gathered.put_into(part, self.index.key);
        }
    }

    /// Replaces the cell of an id by what `change` makes of it, if the id stands in the lane.
    pub(crate) fn change<E>(
        &mut self,
        id: &[u8],
        change: impl FnOnce(Cell) -> Result<Cell, E>,
    ) -> Result<(), E> {
        let probe = Probe::of(id);
        let id = self.index.key.hashed(&probe);
        let part = id.part(PARTS);
        if part % self.of != self.number {
            return Ok(());
        }
        self.settle();
        self.index.parts.get(part).map_or(Ok(()), |part| part.change(&id, change))
    }

    /// Puts in what is still gathered.
    pub(crate) fn settle(&mut self) {
        let parts = self.index.parts.iter().skip(self.number).step_by(self.of);
        for (mut gathered, part) in self.gathered.drain(..).zip(parts) {
            gathered.put_into(part, self.index.key);
        }
    }
}
