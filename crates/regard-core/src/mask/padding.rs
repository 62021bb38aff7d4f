//! Padding mask: sequences of different lengths in one dense batch.

use std::ops::Range;

use super::prefix::per_sequence;
use crate::mask::{Mask, Pair, Tile};
use crate::{Result, Shape};

/// Visible when `kv < lengths[batch]`: the keys from there on are padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Padding {
    /// Keys that are not padding, one number for each sequence, or a single one for all.
    pub lengths: Vec<u32>,
}

impl Padding {
    /// One length for each sequence.
    pub fn new(lengths: impl Into<Vec<u32>>) -> Self {
        Padding { lengths: lengths.into() }
    }

    #[inline(always)]
    fn length(&self, batch: u32) -> u32 {
        let i = if self.lengths.len() == 1 { 0 } else { batch as usize };
        self.lengths.get(i).copied().unwrap_or(0)
    }
}

impl Mask for Padding {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        p.kv < self.length(p.batch)
    }

    fn tile(&self, _: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        let length = self.length(at.batch);
        if kv.start >= length {
            Tile::Hidden
        } else if kv.end <= length {
            Tile::Clear
        } else {
            Tile::Mixed
        }
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        per_sequence("padding mask", self.lengths.len(), shape)
    }
}
