//! Masks: which keys a query sees. Masks commute, and always apply after every score.

mod around;
mod blocks;
mod blockwise;
mod bools;
mod causal;
mod dilated;
mod documents;
mod either;
mod fixed;
mod global;
mod padding;
mod prefix;
mod random;
mod spans;
mod strided;
mod window;

pub use around::Around;
pub(crate) use around::check_centres;
pub use blocks::Blocks;
pub use blockwise::Blockwise;
pub use bools::Bools;
pub use causal::Causal;
pub use dilated::Dilated;
pub use documents::Documents;
pub use either::Either;
pub use fixed::Fixed;
pub use global::Global;
pub use padding::Padding;
pub use prefix::PrefixLm;
pub use random::RandomKeys;
pub use spans::Spans;
pub use strided::Strided;
pub use window::Window;

use std::ops::Range;

use crate::{Result, Shape};

/// Lengths of the sequence that a [`Pair`] belongs to, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lens {
    /// Queries.
    pub q: u32,
    /// Keys.
    pub kv: u32,
}

/// One (query, key) position, absolute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// Index of the sequence in the batch.
    pub batch: u32,
    /// Query head.
    pub head: u32,
    /// Index of the query, `0..len.q`.
    pub q: u32,
    /// Index of the key, `0..len.kv`.
    pub kv: u32,
    /// Lengths of this sequence.
    pub len: Lens,
}

impl Pair {
    /// The position of the query among the keys when the last query is level with the last key: `q + Lkv − Lq`.
    ///
    /// Negative for the first queries when there are more queries than keys.
    #[inline(always)]
    pub fn q_abs(&self) -> i32 {
        self.abs(self.q)
    }

    /// [`Pair::q_abs`] of another query of the same sequence.
    #[inline(always)]
    pub fn abs(&self, q: u32) -> i32 {
        q as i32 + self.len.kv as i32 - self.len.q as i32
    }

    /// The same sequence and head at another position.
    #[inline(always)]
    pub fn with(self, q: u32, kv: u32) -> Pair {
        Pair { q, kv, ..self }
    }
}

/// Pairs of the tiles that kernels compute. They ask a mask about larger areas too, to skip what is hidden as a whole; one that has to read
/// an array pair by pair answers [`Tile::Mixed`] there, for it will be asked about each tile.
pub const TILE_PAIRS: usize = 64 * 64;

/// What a mask does to one tile of scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tile {
    /// No query of the tile sees any key of it: the tile is skipped.
    Hidden,
    /// Every query of the tile sees every key of it: the mask is not asked.
    Clear,
    /// Ask [`Mask::keep`] for every pair.
    Mixed,
}

impl Tile {
    /// The tile of the intersection of two masks.
    #[inline]
    pub fn and(self, other: impl FnOnce() -> Tile) -> Tile {
        match self {
            Tile::Hidden => Tile::Hidden,
            Tile::Clear => other(),
            Tile::Mixed => match other() {
                Tile::Hidden => Tile::Hidden,
                _ => Tile::Mixed,
            },
        }
    }

    /// The tile of the union of two masks.
    #[inline]
    pub fn or(self, other: impl FnOnce() -> Tile) -> Tile {
        match self {
            Tile::Clear => Tile::Clear,
            Tile::Hidden => other(),
            Tile::Mixed => match other() {
                Tile::Clear => Tile::Clear,
                _ => Tile::Mixed,
            },
        }
    }
}

/// Who is seen: a closure `|p: Pair| -> bool`, one of the masks of this crate, a tuple of two masks (both must agree), or a
/// `Box<dyn Mask>` where the choice is made at run time.
///
/// `keep` is the definition, `tile` the speed. A mask is a pure function of the pair.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a mask",
    note = "a mask is `Causal`, `Window`, …, a closure `|p: Pair| p.kv <= p.q`, or a tuple of two masks"
)]
pub trait Mask: Sync {
    /// Whether query `p.q` sees key `p.kv`.
    fn keep(&self, p: Pair) -> bool;

    /// [`Mask::keep`] for a row of a tile, one key and queries that follow each other: `keep[i]` becomes 0 where query `at.q + i` does
    /// not see key `at.kv`, and stays as it is where it does.
    ///
    /// A mask made of other masks passes the row on.
    #[inline(always)]
    fn keep_row(&self, at: Pair, keep: &mut [u32]) {
        for (i, keep) in keep.iter_mut().enumerate() {
            *keep &= u32::from(self.keep(at.with(at.q + i as u32, at.kv))).wrapping_neg();
        }
    }

    /// Whether kernels ask for rows instead of pairs: so of a mask behind a `dyn`, whose call takes longer than its answer, and of one
    /// that looks something up for a key.
    fn in_rows(&self) -> bool {
        false
    }

    /// What the mask does to all pairs of two non-empty ranges; `at` tells batch, head and lengths.
    ///
    /// [`Tile::Mixed`] is always right; `Hidden` and `Clear` are promises about every pair. Kernels ask about tiles, and before that about
    /// areas larger than [`TILE_PAIRS`], where the answer should not take longer than for a tile.
    fn tile(&self, _q: Range<u32>, _kv: Range<u32>, _at: Pair) -> Tile {
        Tile::Mixed
    }

    /// Checks the mask's own sizes against the problem.
    ///
    /// # Errors
    /// When the mask was made for another shape.
    fn check(&self, _shape: &Shape) -> Result<()> {
        Ok(())
    }
}

impl<F: Fn(Pair) -> bool + Sync> Mask for F {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        self(p)
    }
}

/// Everything is visible.
impl Mask for () {
    #[inline(always)]
    fn keep(&self, _: Pair) -> bool {
        true
    }

    fn tile(&self, _: Range<u32>, _: Range<u32>, _: Pair) -> Tile {
        Tile::Clear
    }
}

/// Intersection: visible when both masks agree.
impl<A: Mask, B: Mask> Mask for (A, B) {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        self.0.keep(p) & self.1.keep(p)
    }

    #[inline(always)]
    fn keep_row(&self, at: Pair, keep: &mut [u32]) {
        self.0.keep_row(at, keep);
        self.1.keep_row(at, keep);
    }

    fn in_rows(&self) -> bool {
        self.0.in_rows() || self.1.in_rows()
    }

    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        self.0.tile(q.clone(), kv.clone(), at).and(|| self.1.tile(q, kv, at))
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        self.0.check(shape)?;
        self.1.check(shape)
    }
}

/// `None` shows everything.
impl<M: Mask> Mask for Option<M> {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        self.as_ref().is_none_or(|m| m.keep(p))
    }

    #[inline(always)]
    fn keep_row(&self, at: Pair, keep: &mut [u32]) {
        self.iter().for_each(|m| m.keep_row(at, keep));
    }

    fn in_rows(&self) -> bool {
        self.as_ref().is_some_and(Mask::in_rows)
    }

    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        self.as_ref().map_or(Tile::Clear, |m| m.tile(q, kv, at))
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        self.as_ref().map_or(Ok(()), |m| m.check(shape))
    }
}

/// A mask chosen at run time.
impl Mask for Box<dyn Mask + '_> {
    fn keep(&self, p: Pair) -> bool {
        (**self).keep(p)
    }

    fn keep_row(&self, at: Pair, keep: &mut [u32]) {
        (**self).keep_row(at, keep);
    }

    fn in_rows(&self) -> bool {
        true
    }

    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        (**self).tile(q, kv, at)
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        (**self).check(shape)
    }
}

/// A row of a tile in pieces that fit a buffer of [`PIECE`] elements: the first pair of each, and where it lies in the row.
pub(crate) fn pieces(at: Pair, len: usize) -> impl Iterator<Item = (Pair, Range<usize>)> {
    (0..len).step_by(PIECE).map(move |i| (at.with(at.q + i as u32, at.kv), i..(i + PIECE).min(len)))
}

/// The rows of the kernels' tiles are no longer.
pub(crate) const PIECE: usize = 64;
