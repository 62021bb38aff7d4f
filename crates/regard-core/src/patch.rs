//! The part of a tile of scores that belongs to one head.

use std::ops::Range;

use crate::Pair;

/// The part of a tile of scores that belongs to one head: element `(key j, lane i)` is `s[j · width + i]`.
#[derive(Clone, Debug)]
pub struct Patch {
    /// Lanes of this head, `lanes.len()` queries that follow each other.
    pub lanes: Range<usize>,
    /// Lanes of the whole tile.
    pub width: usize,
    /// Keys that follow each other.
    pub keys: usize,
    /// The first query and the first key.
    pub at: Pair,
}

impl Patch {
    /// The scores of each key in turn, and its pair with the first query.
    #[inline(always)]
    pub fn rows<'s>(&self, s: &'s mut [f32]) -> impl Iterator<Item = (Pair, &'s mut [f32])> {
        let (lanes, at) = (self.lanes.clone(), self.at);
        let rows = s.chunks_mut(self.width).take(self.keys).enumerate();
        rows.map(move |(j, row)| (at.with(at.q, at.kv + j as u32), &mut row[lanes.clone()]))
    }
}
