//! Global tokens: some positions that see everyone and that everyone sees.

use std::ops::Range;

use crate::mask::{Mask, Pair, Tile};
use crate::{Error, Result, Shape};

/// Visible when `kv` or `q_abs = q + (Lkv − Lq)` is a global position.
///
/// Use it in a union with a local mask ([`Either`](crate::Either)): for a token that stands for the whole text, such as `[CLS]`
/// or a question, or for the first keys, which a language model needs as attention sinks when its window moves on.
///
/// Source: Beltagy et al. 2020, "Longformer", §3.1 (global attention); Xiao et al. 2023, "Efficient Streaming Language Models with
/// Attention Sinks", §3.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Global {
    /// Every position below is global.
    first: u32,
    /// Others, in increasing order.
    positions: Vec<u32>,
}

impl Global {
    /// These positions, in any order.
    pub fn new(positions: impl Into<Vec<u32>>) -> Self {
        let mut positions = positions.into();
        positions.sort_unstable();
        Global { first: 0, positions }
    }

    /// The first `n` positions, or as many as there are.
    pub fn first(n: u32) -> Self {
        Global { first: n, positions: Vec::new() }
    }

    #[inline(always)]
    fn has(&self, position: u32) -> bool {
        (position < self.first) || self.positions.binary_search(&position).is_ok()
    }

    /// Whether some and whether all of a non-empty range are global.
    fn within(&self, range: &Range<i32>) -> (bool, bool) {
        let (start, end) = (range.start.max(0) as u32, range.end.max(0) as u32);
        let from = self.positions.partition_point(|&p| p < start);
        let some = start < end.min(self.first) || self.positions.get(from).is_some_and(|&p| p < end);
        (some, range.start >= 0 && some && (start..end).all(|position| self.has(position)))
    }
}

impl Mask for Global {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        self.has(p.kv) | u32::try_from(p.q_abs()).is_ok_and(|q| self.has(q))
    }

    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        let (some_keys, all_keys) = self.within(&(kv.start as i32..kv.end as i32));
        let (some_queries, all_queries) = self.within(&(at.abs(q.start)..at.abs(q.end - 1) + 1));
        match (some_keys | some_queries, all_keys | all_queries) {
            (false, _) => Tile::Hidden,
            (true, true) => Tile::Clear,
            (true, false) => Tile::Mixed,
        }
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        match self.positions.last() {
            Some(&position) if position as usize >= shape.kv_len => {
                Err(Error::Position { what: "a global position", given: position, length: shape.kv_len })
            }
            _ => Ok(()),
        }
    }
}
