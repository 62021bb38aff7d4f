//! Spans: each query names the keys that it sees, from a first one to an end.

use std::ops::Range;

use crate::mask::{Mask, Pair, Tile};
use crate::{Result, Shape, View};

/// Visible when `first ≤ kv < end`, where both are elements of arrays `[batch, q_heads, q_len, 1]`, any of the first three 1 to repeat.
///
/// Use it where the keys of a query are one run that no formula gives: packed prompts of a server, trees, or windows of many sizes. A
/// span whose end is not after its first key is empty, and one that ends after the last key ends there.
///
/// The intervals of Wang et al. 2024, "FlashMask: Efficient and Rich Mask Extension of FlashAttention", for queries instead of keys.
#[derive(Clone, Copy, Debug)]
pub struct Spans<'a> {
    first: View<'a, u32>,
    end: View<'a, u32>,
}

impl<'a> Spans<'a> {
    /// The first key that each query sees, and the one after the last.
    pub fn new(first: View<'a, u32>, end: View<'a, u32>) -> Self {
        Spans { first, end }
    }
}

impl Mask for Spans<'_> {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        let [first, end] = [self.first, self.end].map(|of| of.broadcast_at(p).unwrap_or(0));
        (first <= p.kv) & (p.kv < end)
    }

    /// Hidden or Clear where the extremes of the spans say so.
    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        let (first, end) = (extremes(&self.first, &q, at), extremes(&self.end, &q, at));
        if kv.end <= first.0 || kv.start >= end.1 {
            Tile::Hidden
        } else if kv.start >= first.1 && kv.end <= end.0 {
            Tile::Clear
        } else {
            Tile::Mixed
        }
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        for (what, view) in [("first keys of spans", self.first), ("ends of spans", self.end)] {
            crate::shape::same(what, "elements for each query", view.shape()[3], 1, "a position among the keys")?;
            shape.broadcasts(what, view.shape())?;
        }
        Ok(())
    }
}

/// The least and the greatest element of some queries.
fn extremes(of: &View<'_, u32>, q: &Range<u32>, at: Pair) -> (u32, u32) {
    let all = |(low, high): (u32, u32), x: u32| (low.min(x), high.max(x));
    let none = (u32::MAX, 0);
    match of.broadcast_queries(q, at) {
        Some(row) => row.iter().copied().fold(none, all),
        None => q.clone().filter_map(|q| of.broadcast_at(at.with(q, 0))).fold(none, all),
    }
}
