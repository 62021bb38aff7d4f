//! Dense boolean mask, broadcastable.

use std::ops::Range;

use crate::mask::{Mask, Pair, TILE_PAIRS, Tile};
use crate::{Result, Shape, View};

/// Visible where the array is true: `[batch, q_heads, q_len, kv_len]`, any of them 1 to repeat.
///
/// True means "takes part", as in PyTorch's `scaled_dot_product_attention`.
#[derive(Clone, Copy, Debug)]
pub struct Bools<'a>(
    /// The array.
    pub View<'a, bool>,
);

impl Mask for Bools<'_> {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        self.0.broadcast_at(p).unwrap_or(false)
    }

    /// Reads the whole tile: a fraction of what computing it would cost.
    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        if q.len() * kv.len() > TILE_PAIRS {
            return Tile::Mixed;
        }
        let first = self.keep(at.with(q.start, kv.start));
        for row in q {
            let same = match self.0.broadcast_keys(&kv, at.with(row, kv.start)) {
                Some(seen) => seen.iter().fold(true, |same, x| same & (*x == first)), // all of them: a vector at a time
                None => kv.clone().all(|key| self.keep(at.with(row, key)) == first),
            };
            if !same {
                return Tile::Mixed;
            }
        }
        if first { Tile::Clear } else { Tile::Hidden }
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        shape.broadcasts("boolean mask", self.0.shape())
    }
}
