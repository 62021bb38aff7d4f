//! A mask at the scale of blocks: whole blocks of queries see whole blocks of keys.

use std::ops::Range;

use crate::mask::{Lens, Mask, Pair, Tile};
use crate::{Result, Shape};

/// Visible when `mask` shows block `⌊kv / size⌋` to block `⌊q_abs / size⌋`, where `q_abs = q + (Lkv − Lq)`.
///
/// `mask` sees blocks as positions, of which there are `⌈Lkv / size⌉`. Blocks of 64 are the tiles of the kernels: where lengths
/// differ by a multiple of 64, no tile is shown in part, and time is exactly that of the visible blocks. BigBird in blocks is
/// `Blockwise::new(64, Either(Either(Window { left: 1, right: 1 }, Global::first(1)), RandomKeys::new(3, [heads, blocks], seed)?))`:
/// for encoders of long texts.
///
/// Source: Zaheer et al. 2020, "Big Bird", appendix D (blockified attention).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blockwise<M> {
    size: i32,
    mask: M,
}

impl<M: Mask> Blockwise<M> {
    /// `mask` over blocks of `size` positions.
    ///
    /// # Errors
    /// When the size is not from 1 to 2³⁰.
    pub fn new(size: u32, mask: M) -> Result<Self> {
        Ok(Blockwise { size: super::dilated::distance("size of the blocks of a mask", size)?, mask })
    }

    /// The blocks of a pair. Queries before the first key, `q_abs < 0`, are in blocks before the first block of keys.
    #[inline(always)]
    fn blocks(&self, p: Pair) -> Pair {
        let blocks = |n: u32| n.div_ceil(self.size as u32);
        let before = blocks(p.len.q.saturating_sub(p.len.kv));
        let len = Lens { q: blocks(p.len.kv) + before, kv: blocks(p.len.kv) };
        let q = p.q_abs().div_euclid(self.size) + before as i32;
        Pair { q: q as u32, kv: p.kv / self.size as u32, len, ..p }
    }
}

impl<M: Mask> Mask for Blockwise<M> {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        self.mask.keep(self.blocks(p))
    }

    /// One question for each block of queries.
    fn keep_row(&self, at: Pair, keep: &mut [u32]) {
        let mut rest = keep;
        let mut p = at;
        while !rest.is_empty() {
            let left = (self.size - p.q_abs().rem_euclid(self.size)) as usize;
            let (block, others) = rest.split_at_mut(left.min(rest.len()));
            if !self.keep(p) {
                block.fill(0);
            }
            (p.q, rest) = (p.q + block.len() as u32, others);
        }
    }

    fn in_rows(&self) -> bool {
        self.mask.in_rows()
    }

    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        let (first, last) = (self.blocks(at.with(q.start, kv.start)), self.blocks(at.with(q.end - 1, kv.end - 1)));
        self.mask.tile(first.q..last.q + 1, first.kv..last.kv + 1, first)
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        let blocks = |n: usize| n.div_ceil(self.size as usize);
        let (kv_len, kv_lens) = (blocks(shape.kv_len), shape.kv_lens.iter().map(|&n| blocks(n)).collect());
        let q_len = kv_len + blocks(shape.q_len.saturating_sub(shape.kv_len));
        self.mask.check(&Shape { q_len, kv_len, kv_lens, ..*shape })
    }
}
