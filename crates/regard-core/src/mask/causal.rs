//! Causal masks: a query sees the keys up to its own position, which must be named when lengths differ.

use std::ops::Range;

use crate::mask::{Mask, Pair, Tile};

/// No query sees the future. The two variants agree when there are as many queries as keys.
///
/// Source: Vaswani et al. 2017, "Attention Is All You Need", §3.2.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Causal {
    /// `kv ≤ q`: the first query is level with the first key. PyTorch's `is_causal`.
    UpperLeft,
    /// `kv ≤ q + Lkv − Lq`: the last query is level with the last key. Decoding with a cache.
    LowerRight,
}

impl Causal {
    /// The last key that query `q` sees; negative when it sees none.
    #[inline(always)]
    fn last(self, q: u32, at: Pair) -> i32 {
        match self {
            Causal::UpperLeft => q as i32,
            Causal::LowerRight => at.abs(q),
        }
    }
}

impl Mask for Causal {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        p.kv as i32 <= self.last(p.q, p)
    }

    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        if kv.start as i32 > self.last(q.end - 1, at) {
            Tile::Hidden
        } else if (kv.end - 1) as i32 <= self.last(q.start, at) {
            Tile::Clear
        } else {
            Tile::Mixed
        }
    }
}
