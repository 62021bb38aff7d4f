//! Block-sparse mask: a boolean for each block of queries and keys.

use std::ops::Range;

use crate::mask::{Mask, Pair, Tile};
use crate::{Error, Result, Shape};

/// Visible where the block that holds the pair is true. Use it for a pattern that was measured or learned, head by head; one that is
/// a formula of the position reads better as [`Blockwise`](crate::Blockwise), and needs no map.
///
/// Source: Child et al. 2019, "Generating Long Sequences with Sparse Transformers", §5.5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    q_block: u32,
    kv_block: u32,
    map: Vec<bool>,
    shape: [usize; 4],
}

impl Blocks {
    /// Blocks of `q_block` queries by `kv_block` keys; `map` is row-major `[batch, q_heads, q_blocks, kv_blocks]`,
    /// where batch and heads may be 1 to repeat, and block counts round up.
    ///
    /// # Errors
    /// When a block is empty or `map` has not as many elements as `shape`.
    pub fn new(q_block: u32, kv_block: u32, map: Vec<bool>, shape: [usize; 4]) -> Result<Self> {
        for (what, block) in [("query block of the block mask", q_block), ("key block of the block mask", kv_block)] {
            if block == 0 {
                return Err(Error::Value { what, given: 0.0, needed: "at least 1" });
            }
        }
        let needed = crate::view::elements("block map", shape)?;
        if map.len() != needed {
            return Err(Error::Size { what: "block map", dim: "elements", given: map.len(), needed, why: "as its shape says" });
        }
        Ok(Blocks { q_block, kv_block, map, shape })
    }

    #[inline(always)]
    fn block(&self, batch: u32, head: u32, q: u32, kv: u32) -> bool {
        let [b, h, rows, columns] = self.shape;
        let (batch, head) = (if b == 1 { 0 } else { batch as usize }, if h == 1 { 0 } else { head as usize });
        let at = ((batch * h + head) * rows + q as usize) * columns + kv as usize;
        self.map.get(at).copied().unwrap_or(false)
    }
}

impl Mask for Blocks {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        self.block(p.batch, p.head, p.q / self.q_block, p.kv / self.kv_block)
    }

    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        let (mut seen, mut hidden) = (false, false);
        for row in q.start / self.q_block..=(q.end - 1) / self.q_block {
            for column in kv.start / self.kv_block..=(kv.end - 1) / self.kv_block {
                *(if self.block(at.batch, at.head, row, column) { &mut seen } else { &mut hidden }) = true;
            }
        }
        match (seen, hidden) {
            (true, false) => Tile::Clear,
            (false, _) => Tile::Hidden,
            (true, true) => Tile::Mixed,
        }
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        let [b, h, rows, columns] = self.shape;
        let scores = shape.scores();
        let needed = [scores[2].div_ceil(self.q_block as usize), scores[3].div_ceil(self.kv_block as usize)];
        if [rows, columns] == needed && (b == 1 || b == scores[0]) && (h == 1 || h == scores[1]) {
            return Ok(());
        }
        Err(Error::Broadcast { what: "block map", given: self.shape, scores: [scores[0], scores[1], needed[0], needed[1]] })
    }
}
