//! A mask or score of one problem, asked in a part of it: some of its sequences, or some of its queries.

use std::ops::Range;

use regard_core::{BiasSink, Mask, Pair, Patch, Score, Slope, Tile};

/// Asks `of` about the pair of the whole that a pair of the part is.
///
/// It fits any shape, and gathers no gradient of a bias: that is a sum over the whole.
#[derive(Clone, Copy)]
pub struct Part<'a, T: ?Sized> {
    /// The mask or score of the whole.
    pub of: &'a T,
    /// From a pair of the part to that of the whole. Keys keep their positions, queries that follow each other still do.
    pub whole: &'a (dyn Fn(Pair) -> Pair + Sync),
}

impl<M: Mask + ?Sized> Mask for Part<'_, M> {
    fn keep(&self, p: Pair) -> bool {
        self.of.keep((self.whole)(p))
    }

    fn keep_row(&self, at: Pair, keep: &mut [u32]) {
        self.of.keep_row((self.whole)(at), keep);
    }

    fn in_rows(&self) -> bool {
        self.of.in_rows()
    }

    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        let first = (self.whole)(at.with(q.start, kv.start));
        self.of.tile(first.q..first.q + q.len() as u32, kv, first)
    }
}

impl<S: Score + ?Sized> Score for Part<'_, S> {
    fn score(&self, s: f32, p: Pair) -> f32 {
        self.of.score(s, (self.whole)(p))
    }

    fn score_row(&self, at: Pair, s: &mut [f32]) {
        self.of.score_row((self.whole)(at), s);
    }

    fn score_patch(&self, patch: &Patch, s: &mut [f32]) {
        self.of.score_patch(&Patch { at: (self.whole)(patch.at), ..patch.clone() }, s);
    }

    fn hides_tile(&self, q: &Range<u32>, kv: &Range<u32>, at: Pair) -> bool {
        let first = (self.whole)(at.with(q.start, kv.start));
        self.of.hides_tile(&(first.q..first.q + q.len() as u32), kv, first)
    }

    fn is_identity(&self) -> bool {
        self.of.is_identity()
    }
}

impl<S: Slope + ?Sized> Slope for Part<'_, S> {
    fn slope(&self, s: f32, p: Pair) -> f32 {
        self.of.slope(s, (self.whole)(p))
    }

    fn pull_row(&self, at: Pair, s: &[f32], ds: &mut [f32], bias: &mut dyn BiasSink) {
        self.of.pull_row((self.whole)(at), s, ds, bias);
    }
}
