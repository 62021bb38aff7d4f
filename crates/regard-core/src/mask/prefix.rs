//! Prefix-LM mask: a prefix that everyone sees, causal after it.

use std::ops::Range;

use crate::mask::{Mask, Pair, Tile};
use crate::{Error, Result, Shape};

/// Visible when `kv < prefix` or `kv ≤ q + Lkv − Lq`. Use it where a model continues a text that it may read as a whole first.
///
/// Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning" (T5), §3.2.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixLm {
    /// Length of the prefix in keys, one for each sequence, or a single one for all.
    pub prefix: Vec<u32>,
}

impl PrefixLm {
    /// The same prefix length for every sequence.
    pub fn new(prefix: u32) -> Self {
        PrefixLm { prefix: vec![prefix] }
    }

    #[inline(always)]
    fn prefix(&self, batch: u32) -> u32 {
        let i = if self.prefix.len() == 1 { 0 } else { batch as usize };
        self.prefix.get(i).copied().unwrap_or(0)
    }
}

impl Mask for PrefixLm {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        (p.kv < self.prefix(p.batch)) | (p.kv as i32 <= p.q_abs())
    }

    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        let prefix = self.prefix(at.batch);
        let last = (kv.end - 1) as i32;
        if kv.end <= prefix || last <= at.abs(q.start) {
            Tile::Clear
        } else if kv.start >= prefix && kv.start as i32 > at.abs(q.end - 1) {
            Tile::Hidden
        } else {
            Tile::Mixed
        }
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        per_sequence("prefix-LM mask", self.prefix.len(), shape)
    }
}

/// Checks a list that holds one entry for each sequence, or a single one for all.
pub(super) fn per_sequence(what: &'static str, given: usize, shape: &Shape) -> Result<()> {
    if given == 1 || given == shape.batch {
        return Ok(());
    }
    Err(Error::Size { what, dim: "lengths", given, needed: shape.batch, why: "one for each sequence (or a single one for all)" })
}
