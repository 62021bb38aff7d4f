//! Fixed attention: a query's own block, and the last keys of every block.

use std::ops::Range;

use crate::mask::{Mask, Pair, Tile};
use crate::{Error, Result};

/// Visible when `⌊kv / block⌋ = ⌊q_abs / block⌋` or `kv mod block ≥ block − summary`, where `q_abs = q + (Lkv − Lq)`.
///
/// The last `summary` keys of a block stand for the whole of it; for text, which has no period that [`Strided`](crate::Strided)
/// attention could follow. The paper's is causal: `(Causal::LowerRight, Fixed::new(128, 8)?)`.
///
/// Source: Child et al. 2019, "Generating Long Sequences with Sparse Transformers", §4.3 (fixed attention).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    block: i32,
    summary: i32,
}

impl Fixed {
    /// Blocks of `block` keys, of which the last `summary` are seen by all. The paper takes blocks of 128 or 256 and 8, 16 or 32
    /// of their keys.
    ///
    /// # Errors
    /// When the block is not from 1 to 2³⁰, or `summary` is not from 1 to `block`.
    pub fn new(block: u32, summary: u32) -> Result<Self> {
        let block = super::dilated::distance("block of fixed attention", block)?;
        if summary == 0 || summary > block as u32 {
            let what = "number of summary keys of fixed attention";
            return Err(Error::Value { what, given: summary.into(), needed: "at least 1 and at most the block" });
        }
        Ok(Fixed { block, summary: summary as i32 })
    }

    /// Whether every block sees the key.
    #[inline(always)]
    fn summarises(&self, kv: i32) -> bool {
        kv % self.block >= self.block - self.summary
    }

    /// Whether some key of a range is a summary: the last of it is, or it reaches over the end of a block.
    fn some(&self, kv: &Range<i32>) -> bool {
        !kv.is_empty() && (self.summarises(kv.end - 1) || kv.start / self.block != (kv.end - 1) / self.block)
    }

    /// Whether every key of a range is a summary.
    fn all(&self, kv: &Range<i32>) -> bool {
        let one_block = || kv.start / self.block == (kv.end - 1) / self.block;
        kv.is_empty() || self.summary == self.block || (self.summarises(kv.start) && one_block())
    }
}

impl Mask for Fixed {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        (p.kv as i32 / self.block == p.q_abs().div_euclid(self.block)) | self.summarises(p.kv as i32)
    }

    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        let (first, last) = (at.abs(q.start).div_euclid(self.block), at.abs(q.end - 1).div_euclid(self.block));
        let (start, end) = (kv.start as i32, kv.end as i32);
        let own = |block: i32| (block.saturating_mul(self.block)).clamp(start, end);
        let (from, to) = (own(first), own(last + 1)); // the keys of the queries' own blocks
        if from >= to && !self.some(&(start..end)) {
            Tile::Hidden
        } else if self.all(&(start..end)) || (first == last && self.all(&(start..from)) && self.all(&(to..end))) {
            Tile::Clear
        } else {
            Tile::Mixed
        }
    }
}
