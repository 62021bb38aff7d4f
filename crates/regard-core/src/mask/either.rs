//! Union of two masks: what the sparse patterns of the literature are made of.

use std::ops::Range;

use crate::mask::{Mask, PIECE, Pair, Tile, pieces};
use crate::{Result, Shape};

/// Visible when one of the two masks shows it, or both.
///
/// | pattern | mask | source |
/// |---|---|---|
/// | Longformer | `Either(Window { left: w, right: w }, Global::new([0, 17]))` | Beltagy et al. 2020, §3.1 |
/// | dilated Longformer | `Either(Dilated::new(w, w, 2)?, Global::new([0, 17]))` | §3.1 |
/// | sinks and window (StreamingLLM) | `(Causal::LowerRight, Either(Window { left: w, right: 0 }, Global::first(4)))` | Xiao et al. 2023, §3.2 |
/// | BigBird | `Blockwise::new(64, Either(Either(Window { left: 1, right: 1 }, Global::first(1)), RandomKeys::new(3, [heads, blocks], seed)?))?` | Zaheer et al. 2020, §2 and appendix D |
///
/// ```
/// use regard_core::{Either, Global, Mask, Pair, Window};
/// let longformer = Either(Window { left: 1, right: 1 }, Global::new([0]));
/// let at = Pair { len: regard_core::Lens { q: 9, kv: 9 }, ..Pair::default() };
/// assert!(longformer.keep(at.with(5, 6)) && longformer.keep(at.with(5, 0)) && longformer.keep(at.with(0, 5)));
/// assert!(!longformer.keep(at.with(5, 7)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Either<A, B>(
    /// One mask.
    pub A,
    /// The other.
    pub B,
);

impl<A: Mask, B: Mask> Mask for Either<A, B> {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        self.0.keep(p) | self.1.keep(p)
    }

    #[inline(always)]
    fn keep_row(&self, at: Pair, keep: &mut [u32]) {
        for (at, piece) in pieces(at, keep.len()) {
            let one = &mut keep[piece];
            let other = &mut [0; PIECE][..one.len()];
            other.copy_from_slice(one);
            self.0.keep_row(at, one);
            self.1.keep_row(at, other);
            one.iter_mut().zip(other).for_each(|(one, other)| *one |= *other);
        }
    }

    fn in_rows(&self) -> bool {
        self.0.in_rows() || self.1.in_rows()
    }

    /// Hidden where both are, so exact where theirs are; a tile that each shows in part is Mixed.
    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        self.0.tile(q.clone(), kv.clone(), at).or(|| self.1.tile(q, kv, at))
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        self.0.check(shape)?;
        self.1.check(shape)
    }
}
