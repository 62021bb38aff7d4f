//! Masks and scores on a tile: generic at the door, dyn at the tile.

use std::ops::Range;

use regard_core::{BiasSink, Mask, Pair, Patch, Score, Slope, Tile};

use crate::simd::{Task, Vector};
use crate::{Kernel, ROWS};

/// What a kernel asks of the mask and the scores: called for [`Tile::Mixed`] tiles, and for all where scores are not the identity.
pub trait TileRule: Sync {
    /// What the mask does to a tile, and whether scores hide it.
    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile;

    /// Whether scores change.
    fn has_score(&self) -> bool;

    /// `s ← score(s)`, then `s ← −∞` where hidden, if `mask`.
    fn apply(&self, kernel: Kernel, s: &mut [f32], patch: &Patch, mask: bool);
}

/// A rule whose scores have derivatives.
pub trait SlopeRule: TileRule {
    /// `ds ← ds · d score/ds` at the raw scores `s`; a bias that wants its gradient adds to `bias`. Where `ds` is 0 it stays 0.
    fn pull(&self, kernel: Kernel, s: &[f32], ds: &mut [f32], patch: &Patch, bias: &mut dyn BiasSink);

    /// The shape of the bias whose gradient is wanted, if any.
    fn bias_shape(&self) -> Option<[usize; 4]>;
}

/// The rule of a mask and a score, compiled for each instruction set.
#[derive(Debug)]
pub struct Rule<'a, M, S> {
    /// Who is seen.
    pub mask: &'a M,
    /// How much.
    pub score: &'a S,
}

impl<M, S> Clone for Rule<'_, M, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, S> Copy for Rule<'_, M, S> {}

impl<M: Mask, S: Score> TileRule for Rule<'_, M, S> {
    fn tile(&self, q: Range<u32>, kv: Range<u32>, at: Pair) -> Tile {
        match self.mask.tile(q.clone(), kv.clone(), at) {
            tile if tile != Tile::Hidden && self.score.hides_tile(&q, &kv, at) => Tile::Hidden,
            tile => tile,
        }
    }

    fn has_score(&self) -> bool {
        !self.score.is_identity()
    }

    fn apply(&self, kernel: Kernel, s: &mut [f32], patch: &Patch, mask: bool) {
        kernel.run(Apply { rule: *self, s, patch, mask });
    }
}

impl<M: Mask, S: Slope> SlopeRule for Rule<'_, M, S> {
    fn pull(&self, kernel: Kernel, s: &[f32], ds: &mut [f32], patch: &Patch, bias: &mut dyn BiasSink) {
        kernel.run(Pull { score: self.score, s, ds, patch, bias });
    }

    fn bias_shape(&self) -> Option<[usize; 4]> {
        self.score.bias_shape()
    }
}

struct Apply<'a, M, S> {
    rule: Rule<'a, M, S>,
    s: &'a mut [f32],
    patch: &'a Patch,
    mask: bool,
}

impl<M: Mask, S: Score> Task for Apply<'_, M, S> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, _: V) {
        let Apply { rule: Rule { mask, score }, s, patch, mask: masked } = self;
        if !score.is_identity() {
            score.score_patch(patch, s);
        }
        if !masked {
            return;
        }
        let in_rows = mask.in_rows();
        let keep = &mut [0; ROWS][..patch.lanes.len()];
        for (at, row) in patch.rows(s) {
            if in_rows {
                keep.fill(u32::MAX);
                mask.keep_row(at, keep);
                row.iter_mut().zip(&*keep).for_each(|(s, keep)| hide(s, *keep));
            } else {
                for (i, s) in row.iter_mut().enumerate() {
                    hide(s, u32::from(mask.keep(at.with(at.q + i as u32, at.kv))).wrapping_neg());
                }
            }
        }
    }
}

/// `s` where the bits of `keep` are ones, −∞ where they are zeros.
///
/// A select on bits, not an added −∞: a hidden score may be NaN or +∞.
#[inline(always)]
fn hide(s: &mut f32, keep: u32) {
    *s = f32::from_bits((s.to_bits() & keep) | (f32::NEG_INFINITY.to_bits() & !keep));
}

struct Pull<'a, S> {
    score: &'a S,
    s: &'a [f32],
    ds: &'a mut [f32],
    patch: &'a Patch,
    bias: &'a mut dyn BiasSink,
}

impl<S: Slope> Task for Pull<'_, S> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, _: V) {
        let Pull { score, s, ds, patch, bias } = self;
        let rows = s.chunks(patch.width).zip(ds.chunks_mut(patch.width));
        for (j, (s, ds)) in rows.take(patch.keys).enumerate() {
            let at = patch.at.with(patch.at.q, patch.at.kv + j as u32);
            score.pull_row(at, &s[patch.lanes.clone()], &mut ds[patch.lanes.clone()], bias);
        }
    }
}
