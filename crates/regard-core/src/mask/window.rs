//! Sliding-window mask: a query sees the keys at most `left` before and `right` after it.

use std::ops::Range;

use crate::mask::{Mask, Pair, Tile};

/// Visible when `q_abs − left ≤ kv ≤ q_abs + right`, where `q_abs = q + (Lkv − Lq)`.
///
/// Both bounds are inclusive and count keys; `u32::MAX` is no bound. Mistral's `sliding_window = w` is
/// `Window { left: w - 1, right: 0 }`. Use it where what matters is near: time and cache then grow with the window, not the text.
///
/// Source: Beltagy et al. 2020, "Longformer", §3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Keys seen before the query's own position.
    pub left: u32,
    /// Keys seen after it.
    pub right: u32,
}

impl Window {
    /// First and last key that a query at absolute position `q` sees.
    #[inline(always)]
    fn bounds(&self, q: i32) -> (i32, i32) {
        (q.saturating_sub_unsigned(self.left), q.saturating_add_unsigned(self.right))
    }
}

impl Mask for Window {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        let (first, last) = self.bounds(p.q_abs());
        (p.kv as i32 >= first) & (p.kv as i32 <= last)
    }

    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        let (low, high) = (self.bounds(at.abs(q.start)), self.bounds(at.abs(q.end - 1)));
        let (first, last) = (kv.start as i32, (kv.end - 1) as i32);
        if last < low.0 || first > high.1 {
            Tile::Hidden
        } else if first >= high.0 && last <= low.1 {
            Tile::Clear
        } else {
            Tile::Mixed
        }
    }
}
