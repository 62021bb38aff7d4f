//! A borrowed mask or score: lets one value, or a `dyn` one, go through calls that take it by value.

use std::ops::Range;

use regard_core::{BiasSink, Mask, Pair, Patch, Result, Score, Shape, Slope, Tile};

/// Passes everything on to what it borrows.
#[derive(Debug)]
pub struct ByRef<'a, T: ?Sized>(
    /// The mask or score.
    pub &'a T,
);

impl<T: ?Sized> Clone for ByRef<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for ByRef<'_, T> {}

impl<M: Mask + ?Sized> Mask for ByRef<'_, M> {
    #[inline(always)]
    fn keep(&self, p: Pair) -> bool {
        self.0.keep(p)
    }

    #[inline(always)]
    fn keep_row(&self, at: Pair, keep: &mut [u32]) {
        self.0.keep_row(at, keep);
    }

    fn in_rows(&self) -> bool {
        self.0.in_rows()
    }

    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        self.0.tile(q, kv, at)
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        self.0.check(shape)
    }
}

impl<S: Score + ?Sized> Score for ByRef<'_, S> {
    #[inline(always)]
    fn score(&self, s: f32, p: Pair) -> f32 {
        self.0.score(s, p)
    }

    #[inline(always)]
    fn score_row(&self, at: Pair, s: &mut [f32]) {
        self.0.score_row(at, s);
    }

    #[inline(always)]
    fn score_patch(&self, patch: &Patch, s: &mut [f32]) {
        self.0.score_patch(patch, s);
    }

    fn hides_tile(&self, q: &Range<u32>, kv: &Range<u32>, at: Pair) -> bool {
        self.0.hides_tile(q, kv, at)
    }

    fn is_identity(&self) -> bool {
        self.0.is_identity()
    }

    fn hides(&self) -> Option<[usize; 4]> {
        self.0.hides()
    }

    fn reveals(&self) -> bool {
        self.0.reveals()
    }

    fn bias_shape(&self) -> Option<[usize; 4]> {
        self.0.bias_shape()
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        self.0.check(shape)
    }
}

impl<S: Slope + ?Sized> Slope for ByRef<'_, S> {
    #[inline(always)]
    fn slope(&self, s: f32, p: Pair) -> f32 {
        self.0.slope(s, p)
    }

    #[inline(always)]
    fn pull(&self, s: f32, p: Pair, ds: f32, bias: &mut dyn BiasSink) -> f32 {
        self.0.pull(s, p, ds, bias)
    }

    #[inline(always)]
    fn pull_row(&self, at: Pair, s: &[f32], ds: &mut [f32], bias: &mut dyn BiasSink) {
        self.0.pull_row(at, s, ds, bias);
    }
}
