//! Scores: how much a query likes a key, after the dot product and before every mask. Scores compose in order.

mod alibi;
mod bias;
mod gaussian;
mod relative;
mod softcap;

pub use alibi::Alibi;
pub use bias::Bias;
pub use gaussian::Gaussian;
pub use relative::RelativeBias;
pub use softcap::Softcap;

use std::ops::Range;

use crate::mask::{PIECE, pieces};
use crate::{Error, Pair, Patch, Result, Shape};

/// How much: a closure `|s: f32, p: Pair| -> f32`, one of the scores of this crate, a tuple of two scores (first, then second), or a
/// `Box<dyn Slope>` where the choice is made at run time.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a score",
    note = "a score is `Softcap`, `Alibi`, `Bias`, a closure `|s: f32, p: Pair| s`, or a tuple of two scores"
)]
pub trait Score: Sync {
    /// The new score of the pair whose scaled dot product (or earlier score) is `s`.
    fn score(&self, s: f32, p: Pair) -> f32;

    /// [`Score::score`] for a row of a tile, one key and queries that follow each other: `s[i]` is that of query `at.q + i`.
    ///
    /// A score made of other scores passes the row on, so that one behind a `dyn` is called once for all of it.
    #[inline(always)]
    fn score_row(&self, at: Pair, s: &mut [f32]) {
        for (i, s) in s.iter_mut().enumerate() {
            *s = self.score(*s, at.with(at.q + i as u32, at.kv));
        }
    }

    /// [`Score::score`] for the part of a tile that belongs to one head.
    #[inline(always)]
    fn score_patch(&self, patch: &Patch, s: &mut [f32]) {
        for (at, row) in patch.rows(s) {
            self.score_row(at, row);
        }
    }

    /// Whether this score makes −∞ of every score of these queries and keys, whatever it is. Such tiles are skipped, so asking must cost
    /// a fraction of computing them, and of more than [`TILE_PAIRS`](crate::TILE_PAIRS) next to nothing; `false` is always right.
    fn hides_tile(&self, _q: &Range<u32>, _kv: &Range<u32>, _at: Pair) -> bool {
        false
    }

    /// Whether every score stays as it is, so that kernels need not ask.
    fn is_identity(&self) -> bool {
        false
    }

    /// Where this score makes −∞ of a finite score, if anywhere: `[batch, head, query, key]`.
    fn hides(&self) -> Option<[usize; 4]> {
        None
    }

    /// Whether this score makes a finite number of −∞, and would show a hidden key again.
    fn reveals(&self) -> bool {
        self.score(f32::NEG_INFINITY, Pair::default()) > f32::NEG_INFINITY
    }

    /// The shape of the array whose gradient is wanted, if any: a bias, the centres of a Gaussian, a table of relative positions.
    fn bias_shape(&self) -> Option<[usize; 4]> {
        None
    }

    /// Checks the score's own sizes against the problem.
    ///
    /// # Errors
    /// When the score was made for another shape, would show hidden keys again, or wants two gradients.
    fn check(&self, _shape: &Shape) -> Result<()> {
        Ok(())
    }
}

/// Where the gradient of a bias, or of another array that a score reads, is gathered.
pub trait BiasSink {
    /// Adds `ds` to the element `[batch, head, q, kv]` of the array, sizes of 1 repeated.
    fn add(&mut self, p: Pair, ds: f32);
}

/// A score with a derivative, as the backward pass needs it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no derivative, which the backward pass needs",
    note = "give a closure its derivative with `with_slope(f, df)`"
)]
pub trait Slope: Score {
    /// The derivative of [`Score::score`] in `s`, at the `s` that went in.
    fn slope(&self, s: f32, p: Pair) -> f32;

    /// The gradient of `s` from the gradient `ds` of `score(s)`; a bias also adds `ds` to `bias`.
    #[inline(always)]
    fn pull(&self, s: f32, p: Pair, ds: f32, _bias: &mut dyn BiasSink) -> f32 {
        ds * self.slope(s, p)
    }

    /// [`Slope::pull`] for a row of a tile, as [`Score::score_row`] has it, where `ds` is not 0; where it is, it stays 0.
    #[inline(always)]
    fn pull_row(&self, at: Pair, s: &[f32], ds: &mut [f32], bias: &mut dyn BiasSink) {
        let gathers = self.bias_shape().is_some();
        for (i, (s, ds)) in s.iter().zip(ds).enumerate() {
            let p = at.with(at.q + i as u32, at.kv);
            *ds = match (gathers, *ds == 0.0) {
                (_, true) => 0.0,
                (true, _) => self.pull(*s, p, *ds, bias),
                (false, _) => *ds * self.slope(*s, p),
            };
        }
    }
}

/// The score stays as it is.
impl Score for () {
    #[inline(always)]
    fn score(&self, s: f32, _: Pair) -> f32 {
        s
    }

    fn is_identity(&self) -> bool {
        true
    }
}

impl Slope for () {
    #[inline(always)]
    fn slope(&self, _: f32, _: Pair) -> f32 {
        1.0
    }
}

impl<F: Fn(f32, Pair) -> f32 + Sync> Score for F {
    #[inline(always)]
    fn score(&self, s: f32, p: Pair) -> f32 {
        self(s, p)
    }
}

/// `A`, then `B`.
impl<A: Score, B: Score> Score for (A, B) {
    #[inline(always)]
    fn score(&self, s: f32, p: Pair) -> f32 {
        self.1.score(self.0.score(s, p), p)
    }

    #[inline(always)]
    fn score_row(&self, at: Pair, s: &mut [f32]) {
        self.0.score_row(at, s);
        self.1.score_row(at, s);
    }

    #[inline(always)]
    fn score_patch(&self, patch: &Patch, s: &mut [f32]) {
        self.0.score_patch(patch, s);
        self.1.score_patch(patch, s);
    }

    fn hides_tile(&self, q: &Range<u32>, kv: &Range<u32>, at: Pair) -> bool {
        self.0.hides_tile(q, kv, at) || self.1.hides_tile(q, kv, at)
    }

    fn is_identity(&self) -> bool {
        self.0.is_identity() && self.1.is_identity()
    }

    fn hides(&self) -> Option<[usize; 4]> {
        self.0.hides().or_else(|| self.1.hides())
    }

    fn reveals(&self) -> bool {
        self.0.reveals() || self.1.reveals()
    }

    fn bias_shape(&self) -> Option<[usize; 4]> {
        self.0.bias_shape().or_else(|| self.1.bias_shape())
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        self.0.check(shape)?;
        self.1.check(shape)?;
        if self.0.bias_shape().is_some() && self.1.bias_shape().is_some() {
            let (what, context) = ("a second gradient besides queries, keys and values", "in one call");
            return Err(Error::Unsupported {
                what,
                context,
                instead: "leave out one `with_gradient`, or ask for it in another call",
            });
        }
        match self.1.reveals().then(|| self.0.hides()).flatten() {
            Some(at) => Err(Error::HiddenBeforeSoftcap { at }),
            None => Ok(()),
        }
    }
}

impl<A: Slope, B: Slope> Slope for (A, B) {
    #[inline(always)]
    fn slope(&self, s: f32, p: Pair) -> f32 {
        self.0.slope(s, p) * self.1.slope(self.0.score(s, p), p)
    }

    #[inline(always)]
    fn pull(&self, s: f32, p: Pair, ds: f32, bias: &mut dyn BiasSink) -> f32 {
        let ds = self.1.pull(self.0.score(s, p), p, ds, bias);
        self.0.pull(s, p, ds, bias)
    }

    #[inline(always)]
    fn pull_row(&self, at: Pair, s: &[f32], ds: &mut [f32], bias: &mut dyn BiasSink) {
        for (at, piece) in pieces(at, s.len()) {
            let (s, ds) = (&s[piece.clone()], &mut ds[piece]);
            let between = &mut [0.0; PIECE][..s.len()];
            between.copy_from_slice(s);
            self.0.score_row(at, between);
            self.1.pull_row(at, between, ds, bias);
            self.0.pull_row(at, s, ds, bias);
        }
    }
}

/// `None` changes nothing.
impl<S: Score> Score for Option<S> {
    #[inline(always)]
    fn score(&self, s: f32, p: Pair) -> f32 {
        self.as_ref().map_or(s, |score| score.score(s, p))
    }

    #[inline(always)]
    fn score_row(&self, at: Pair, s: &mut [f32]) {
        self.iter().for_each(|score| score.score_row(at, s));
    }

    #[inline(always)]
    fn score_patch(&self, patch: &Patch, s: &mut [f32]) {
        self.iter().for_each(|score| score.score_patch(patch, s));
    }

    fn hides_tile(&self, q: &Range<u32>, kv: &Range<u32>, at: Pair) -> bool {
        self.as_ref().is_some_and(|score| score.hides_tile(q, kv, at))
    }

    fn is_identity(&self) -> bool {
        self.as_ref().is_none_or(Score::is_identity)
    }

    fn hides(&self) -> Option<[usize; 4]> {
        self.as_ref().and_then(Score::hides)
    }

    fn bias_shape(&self) -> Option<[usize; 4]> {
        self.as_ref().and_then(Score::bias_shape)
    }

    fn reveals(&self) -> bool {
        self.as_ref().is_some_and(Score::reveals)
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        self.as_ref().map_or(Ok(()), |score| score.check(shape))
    }
}

impl<S: Slope> Slope for Option<S> {
    #[inline(always)]
    fn slope(&self, s: f32, p: Pair) -> f32 {
        self.as_ref().map_or(1.0, |score| score.slope(s, p))
    }

    #[inline(always)]
    fn pull(&self, s: f32, p: Pair, ds: f32, bias: &mut dyn BiasSink) -> f32 {
        self.as_ref().map_or(ds, |score| score.pull(s, p, ds, bias))
    }

    #[inline(always)]
    fn pull_row(&self, at: Pair, s: &[f32], ds: &mut [f32], bias: &mut dyn BiasSink) {
        self.iter().for_each(|score| score.pull_row(at, s, ds, bias));
    }
}

/// A score chosen at run time.
impl Score for Box<dyn Slope + '_> {
    fn score(&self, s: f32, p: Pair) -> f32 {
        (**self).score(s, p)
    }

    fn score_row(&self, at: Pair, s: &mut [f32]) {
        (**self).score_row(at, s);
    }

    fn score_patch(&self, patch: &Patch, s: &mut [f32]) {
        (**self).score_patch(patch, s);
    }

    fn hides_tile(&self, q: &Range<u32>, kv: &Range<u32>, at: Pair) -> bool {
        (**self).hides_tile(q, kv, at)
    }

    fn is_identity(&self) -> bool {
        (**self).is_identity()
    }

    fn hides(&self) -> Option<[usize; 4]> {
        (**self).hides()
    }

    fn reveals(&self) -> bool {
        (**self).reveals()
    }

    fn bias_shape(&self) -> Option<[usize; 4]> {
        (**self).bias_shape()
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        (**self).check(shape)
    }
}

impl Slope for Box<dyn Slope + '_> {
    fn slope(&self, s: f32, p: Pair) -> f32 {
        (**self).slope(s, p)
    }

    fn pull(&self, s: f32, p: Pair, ds: f32, bias: &mut dyn BiasSink) -> f32 {
        (**self).pull(s, p, ds, bias)
    }

    fn pull_row(&self, at: Pair, s: &[f32], ds: &mut [f32], bias: &mut dyn BiasSink) {
        (**self).pull_row(at, s, ds, bias);
    }
}

/// A closure and its derivative in `s`; see [`with_slope`].
#[derive(Clone, Copy, Debug)]
pub struct WithSlope<F, D> {
    score: F,
    slope: D,
}

/// A score from a closure and its derivative, so that it can go through the backward pass.
///
/// ```
/// use regard_core::{Pair, Score, Slope, with_slope};
/// let square = with_slope(|s: f32, _: Pair| s * s, |s: f32, _: Pair| 2.0 * s);
/// assert_eq!(square.score(3.0, Pair::default()), 9.0);
/// assert_eq!(square.slope(3.0, Pair::default()), 6.0);
/// ```
pub fn with_slope<F, D>(score: F, slope: D) -> WithSlope<F, D>
where
    F: Fn(f32, Pair) -> f32 + Sync,
    D: Fn(f32, Pair) -> f32 + Sync,
{
    WithSlope { score, slope }
}

impl<F, D> Score for WithSlope<F, D>
where
    F: Fn(f32, Pair) -> f32 + Sync,
    D: Fn(f32, Pair) -> f32 + Sync,
{
    #[inline(always)]
    fn score(&self, s: f32, p: Pair) -> f32 {
        (self.score)(s, p)
    }
}

impl<F, D> Slope for WithSlope<F, D>
where
    F: Fn(f32, Pair) -> f32 + Sync,
    D: Fn(f32, Pair) -> f32 + Sync,
{
    #[inline(always)]
    fn slope(&self, s: f32, p: Pair) -> f32 {
        (self.slope)(s, p)
    }
}
