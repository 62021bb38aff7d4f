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

    #[inline(always)]
    fn keep_row(&self, at: Pair, keep: &mut [u32]) {
        each(&self.first, at, keep, |first| first <= at.kv);
        each(&self.end, at, keep, |end| at.kv < end);
    }

    /// The elements of a row of queries are neighbours.
    fn in_rows(&self) -> bool {
        true
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

/// Keeps the queries of a row whose element says so.
#[inline(always)]
fn each(of: &View<'_, u32>, at: Pair, keep: &mut [u32], sees: impl Fn(u32) -> bool) {
    let bits = |sees: bool| u32::from(sees).wrapping_neg();
    let q = at.q..at.q + keep.len() as u32;
    match of.broadcast_queries(&q, at) {
        Some(&[one]) => keep.iter_mut().for_each(|keep| *keep &= bits(sees(one))),
        Some(row) => keep.iter_mut().zip(row).for_each(|(keep, &x)| *keep &= bits(sees(x))),
        None => {
            let all = q.map(|q| of.broadcast_at(at.with(q, 0)).unwrap_or(0));
            keep.iter_mut().zip(all).for_each(|(keep, x)| *keep &= bits(sees(x)));
        }
    }
}

/// The least and the greatest element of some queries.
fn extremes(of: &View<'_, u32>, q: &Range<u32>, at: Pair) -> (u32, u32) {
    match of.broadcast_queries(q, at) {
        // One fold after the other: each is a loop over vectors.
        Some(row) => (row.iter().copied().fold(u32::MAX, u32::min), row.iter().copied().fold(0, u32::max)),
        None => {
            let all = q.clone().filter_map(|q| of.broadcast_at(at.with(q, 0)));
            all.fold((u32::MAX, 0), |(low, high), x| (low.min(x), high.max(x)))
        }
    }
}
