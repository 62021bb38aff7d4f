//! The decays of a chunk, and the products of two tokens that they weigh.
//!
//! ```text
//!   G_t = g_1 + … + g_t                             in f64: a difference of two is as exact as its terms
//!   since_t = e^{G_t}      until_t = e^{G_n − G_t}      whole = e^{G_n}
//!   between(x, y)_ti = Σ_d x_td y_id e^{G_td − G_id}, i ≤ t
//! ```
//!
//! One decay for all elements: `between` is `X Yᵀ` times a triangle of weights. One for each: `e^{G_t − G_i}` must be split into a factor
//! of `x_t` and one of `y_i`, and neither may overflow. So a chunk is halved again and again: where `t` is in a second half and `i` in
//! the first one, `e^{G_t − G_mid}` and `e^{G_mid − G_i}` are both at most 1, and the pairs of the two halves are one product.
//!
//! Source: Yang et al. 2023, "Gated Linear Attention Transformers", §4.3, has two levels of chunks; halving has no level that needs
//! an exponential for each pair.

use std::ops::Range;

use super::{Left, Sizes, add_times, dot, product, room, times, triangular};
use crate::exp::exp;
use crate::simd::{Transpose, Vector};

/// A logarithm below this counts as this: its exponential is 0 either way, and −∞ − (−∞) does not occur.
const FORGET: f64 = -1e4;

#[derive(Default)]
pub(super) struct Decays {
    /// Tokens.
    pub(super) n: usize,
    /// From before the first token to each, `[n, dp]`.
    pub(super) since: Vec<f32>,
    /// From each token to the last, `[n, dp]`.
    pub(super) until: Vec<f32>,
    /// Of the whole chunk, `[dp]`.
    pub(super) whole: Vec<f32>,
    /// Distance between rows of an array `[n, n]`, with room for a vector that begins in any column.
    pub(super) stride: usize,
    /// One decay for all elements: `e^{G_t − G_i}`, `[n, stride]`.
    triangle: Vec<f32>,
    /// One for each: for blocks of 2, 4, 8, … tokens, the factor of each token towards the middle of its block, `[n, dp]`.
    levels: Vec<Vec<f32>>,
    per_key: bool,
    filled: bool,
}

/// Arrays that [`Decays::between`] works in.
#[derive(Default)]
pub(super) struct Scratch {
    z: Vec<f32>,
    z_t: Vec<f32>,
    dz: Vec<f32>,
}

/// Pairs of a first and a second half, of blocks of `2·half` tokens.
fn halves(n: usize, half: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    (0..n.saturating_sub(half)).step_by(2 * half).map(move |s| (s..s + half, s + half..(s + 2 * half).min(n)))
}

/// Half the length of the blocks of a level.
fn half(level: usize) -> usize {
    1 << level
}

/// Whether a token is in the first half of its block.
fn in_first_half(t: usize, level: usize) -> bool {
    (t >> level).is_multiple_of(2)
}

impl Decays {
    /// Sets the decays of `n` tokens from the logarithms `g`, `[n, width]`, where `width` is 0 for none, 1, or `d`.
    #[inline(always)]
    pub(super) fn set<V: Vector>(&mut self, v: V, n: usize, size: Sizes, g: &mut [f64], width: usize) {
        let Sizes { d, dp, .. } = size;
        if width == 0 && self.filled && self.n == n {
            return;
        }
        (self.n, self.filled, self.per_key) = (n, width == 0, width > 1);
        self.stride = n.next_multiple_of(V::LANES) + V::LANES;
        for x in &mut *g {
            *x = x.max(FORGET);
        }
        for t in width..g.len() {
            g[t] += g[t - width]; // G
        }
        for (array, len) in [(&mut self.since, n * dp), (&mut self.until, n * dp), (&mut self.whole, dp)] {
            room(array, len);
        }
        if self.per_key {
            self.set_keys(v, d, dp, g);
        } else {
            self.set_heads(v, dp, g);
        }
    }

    #[inline(always)]
    fn set_heads<V: Vector>(&mut self, v: V, dp: usize, g: &[f64]) {
        let (n, stride) = (self.n, self.stride);
        let at = |t: usize| g.get(t).copied().unwrap_or(0.0);
        let weights = room(&mut self.triangle, n.max(1) * stride);
        for (t, row) in weights.chunks_exact_mut(stride).enumerate() {
            for (i, x) in row[..=t].iter_mut().enumerate() {
                *x = (at(t) - at(i)) as f32;
            }
            exps(v, &mut row[..(t + 1).next_multiple_of(V::LANES)]);
        }
        let mut ends = vec![0.0; (2 * n).next_multiple_of(V::LANES)];
        for t in 0..n {
            (ends[t], ends[n + t]) = (at(t) as f32, (at(n - 1) - at(t)) as f32);
        }
        exps(v, &mut ends);
        for t in 0..n {
            self.since[t * dp..][..dp].fill(ends[t]);
            self.until[t * dp..][..dp].fill(ends[n + t]);
        }
        self.whole.fill(ends[n - 1]);
    }

    #[inline(always)]
    fn set_keys<V: Vector>(&mut self, v: V, d: usize, dp: usize, g: &[f64]) {
        let n = self.n;
        let row = |t: usize| &g[t * d..][..d];
        let levels = n.next_power_of_two().trailing_zeros() as usize;
        self.levels.resize_with(levels.max(self.levels.len()), Vec::new);
        for t in 0..n {
            minus(&[], row(t), &mut self.since[t * dp..][..dp]);
            minus(row(t), row(n - 1), &mut self.until[t * dp..][..dp]);
            for (level, to) in self.levels.iter_mut().enumerate().take(levels) {
                let first = in_first_half(t, level);
                let middle = (t / half(level) * half(level) + if first { half(level) } else { 0 }).min(n) - 1;
                let (early, late) = if first { (t, middle) } else { (middle, t) };
                minus(row(early), row(late), &mut room(to, n * dp)[t * dp..][..dp]);
            }
        }
        exps(v, &mut self.since[..n * dp]);
        exps(v, &mut self.until[..n * dp]);
        self.levels.iter_mut().take(levels).for_each(|to| exps(v, &mut to[..n * dp]));
        self.whole[..dp].copy_from_slice(&self.since[(n - 1) * dp..][..dp]);
    }

    /// `a_ti = Σ_d x_td y_id e^{G_td − G_id}` for `i ≤ t`, `[n, stride]`, and 0 for `i > t`. `y_t` is `yᵀ`, `[d, stride]`.
    #[inline(always)]
    pub(super) fn between<V: Vector>(
        &self,
        v: V,
        size: Sizes,
        x: &[f32],
        (y, y_t): (&[f32], &[f32]),
        scratch: &mut Scratch,
        a: &mut [f32],
    ) {
        let (n, stride, Sizes { d, dp, .. }) = (self.n, self.stride, size);
        if self.per_key {
            for level in (0..n.next_power_of_two().trailing_zeros() as usize).rev() {
                self.towards_middle(level, dp, x, y, room(&mut scratch.z, n * dp));
                let z = &scratch.z[..n * dp];
                let z_t = room(&mut scratch.z_t, d * stride);
                v.call(Transpose { from: z, from_row: dp, to: z_t, to_row: stride, rows: n, columns: d });
                for (first, second) in halves(n, half(level)) {
                    // Columns beyond the first half belong to later, smaller blocks, or are above the diagonal.
                    let to = &mut a[second.start * stride + first.start..];
                    let sizes = [second.len(), first.len().next_multiple_of(V::LANES), d];
                    product(v, Left(&z[second.start * dp..], dp, 1), (&z_t[first.start..], stride), (to, stride), sizes, false);
                }
            }
            for t in 0..n {
                a[t * stride + t] = dot(&x[t * dp..][..d], &y[t * dp..][..d]);
                a[t * stride + t + 1..][..stride - t - 1].fill(0.0);
            }
            return;
        }
        for first in (0..n).step_by(super::BLOCK) {
            let last = (first + super::BLOCK).min(n);
            let sizes = [last - first, last.next_multiple_of(V::LANES), d];
            product(v, Left(&x[first * dp..], dp, 1), (y_t, stride), (&mut a[first * stride..], stride), sizes, false);
        }
        self.weigh(a);
    }

    /// Times the weights of one decay for all elements; zeros above the diagonal, whatever was there.
    #[inline(always)]
    fn weigh(&self, a: &mut [f32]) {
        let rows = a.chunks_exact_mut(self.stride).zip(self.triangle.chunks_exact(self.stride)).take(self.n);
        for (t, (a, weights)) in rows.enumerate() {
            let (past, future) = a.split_at_mut(t + 1);
            past.iter_mut().zip(weights).for_each(|(a, w)| *a *= w);
            future.fill(0.0);
        }
    }

    /// The derivatives of [`Decays::between`]: `dx_td += Σ_i da_ti y_id e^{…}` and `dy_id += Σ_t da_ti x_td e^{…}`. Changes `da`, of
    /// which only `i ≤ t` is read.
    #[inline(always)]
    pub(super) fn between_backward<V: Vector>(
        &self,
        v: V,
        size: Sizes,
        da: &mut [f32],
        (x, y): (&[f32], &[f32]),
        (dx, dy): (&mut [f32], &mut [f32]),
        scratch: &mut Scratch,
    ) {
        let (n, stride, Sizes { dp, .. }) = (self.n, self.stride, size);
        if !self.per_key {
            self.weigh(da);
            triangular(v, (da, stride), false, (y, dp), (dx, dp), [n, dp], true);
            triangular(v, (da, stride), true, (x, dp), (dy, dp), [n, dp], true);
            return;
        }
        for level in 0..n.next_power_of_two().trailing_zeros() as usize {
            self.towards_middle(level, dp, x, y, room(&mut scratch.z, n * dp));
            let (z, dz, factor) = (&scratch.z[..n * dp], room(&mut scratch.dz, n * dp), &self.levels[level]);
            for (first, second) in halves(n, half(level)) {
                let (one, two) = (first.start * dp..first.end * dp, second.start * dp..second.end * dp);
                let da = &da[second.start * stride + first.start..];
                let [m, k] = [second.len(), first.len()];
                product(v, Left(da, stride, 1), (&z[one.clone()], dp), (&mut dz[two.clone()], dp), [m, dp, k], false);
                product(v, Left(da, 1, stride), (&z[two.clone()], dp), (&mut dz[one.clone()], dp), [k, dp, m], false);
                add_times(&dz[one.clone()], &factor[one.clone()], &mut dy[one]);
                add_times(&dz[two.clone()], &factor[two.clone()], &mut dx[two]);
            }
        }
        for t in 0..n {
            let (row, da) = (t * dp..(t + 1) * dp, da[t * stride + t]);
            dx[row.clone()].iter_mut().zip(&y[row.clone()]).for_each(|(dx, y)| *dx += da * y);
            dy[row.clone()].iter_mut().zip(&x[row]).for_each(|(dy, x)| *dy += da * x);
        }
    }

    /// `y` in first halves and `x` in second ones, decayed to the middle of their blocks.
    #[inline(always)]
    fn towards_middle(&self, level: usize, dp: usize, x: &[f32], y: &[f32], z: &mut [f32]) {
        for t in 0..self.n {
            let row = t * dp..(t + 1) * dp;
            let from = if in_first_half(t, level) { y } else { x };
            times(&from[row.clone()], &self.levels[level][row.clone()], &mut z[row]);
        }
    }
}

/// `to = late − early`, rounded once; nothing is earlier than the chunk.
#[inline(always)]
fn minus(early: &[f64], late: &[f64], to: &mut [f32]) {
    to[late.len()..].fill(0.0);
    if early.is_empty() {
        to.iter_mut().zip(late).for_each(|(to, late)| *to = *late as f32);
    } else {
        to.iter_mut().zip(late).zip(early).for_each(|((to, late), early)| *to = (late - early) as f32);
    }
}

/// `x ← eˣ`, whole vectors.
#[inline(always)]
pub(super) fn exps<V: Vector>(v: V, x: &mut [f32]) {
    for x in x.chunks_exact_mut(V::LANES) {
        v.store(exp(v, v.load(x)), x);
    }
}
