//! Strided attention: the last keys, and every `stride`-th key before.

use std::ops::Range;

use crate::mask::{Dilated, Either, Mask, Pair, Tile, Window};
use crate::{Result, Shape};

/// Visible when `|q_abs − kv| ≤ stride` or `(q_abs − kv) mod stride = 0`, where `q_abs = q + (Lkv − Lq)`.
///
/// With a stride near `√L` every key is reached in two layers at a cost of `L·√L` pairs; for data with a period, such as the rows
/// of an image. The paper's is causal: `(Causal::LowerRight, Strided::new(128)?)`. This is the union that its merged heads see;
/// for heads of their own, the parts are `Window { left: stride, right: 0 }` and `Dilated::new(u32::MAX, 0, stride)`.
/// The columns are one key wide: time is saved where the stride is larger than 127, so that some tiles of 64 keys by 64 queries
/// lie between them.
///
/// Source: Child et al. 2019, "Generating Long Sequences with Sparse Transformers", §4.3 (strided attention), §5.2 (merged heads).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strided(Either<Window, Dilated>);

impl Strided {
    /// # Errors
    /// When the stride is not from 1 to 2³⁰.
    pub fn new(stride: u32) -> Result<Self> {
        super::dilated::distance("stride of strided attention", stride)?;
        Ok(Strided(Either(Window { left: stride, right: stride }, Dilated::new(u32::MAX, u32::MAX, stride)?)))
    }
}

impl Mask for Strided {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        self.0.keep(p)
    }

    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        self.0.tile(q, kv, at)
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        self.0.check(shape)
    }
}
