//! A chunk of one KV head in f32: read, turned into what it writes, and its part in the state.

use std::ops::Range;

use regard_core::{Element, Feature, View};

use super::decays::{Decays, Scratch, exps};
use super::solve::solve;
use super::{Left, Linear, Sizes, product, room, times};
use crate::simd::{Task, Transpose, Vector};

/// Arrays of a chunk of `n` tokens, used again for the next one.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) tokens: Range<usize>,
    /// Whether the tokens are taken one by one.
    pub(super) recurrent: bool,
    pub(super) decays: Decays,
    pub(super) beta: Vec<f32>,
    /// `φ(K)`, `[n, dp]`, and its transpose, `[d, stride]`.
    pub(super) k: Vec<f32>,
    pub(super) k_t: Vec<f32>,
    /// `V`, then, of a delta rule, its difference from what the keys find, `[n, wp]`.
    pub(super) e: Vec<f32>,
    /// What is written, `[n, wp]`.
    pub(super) u: Vec<f32>,
    /// `−M` of a delta rule below the diagonal, `[n, stride]`; the rest is not read.
    pub(super) m: Vec<f32>,
    /// What is added to the state, unless by a delta rule, `[d, wp]`.
    sum: Vec<f32>,
    /// The state before the chunk, `[d, wp]`.
    pub(super) state: Vec<f32>,
    /// Outputs of the query heads, `[group · n, wp]`, of tokens that are taken one by one.
    pub(super) out: Vec<f32>,
    pub(super) scratch: Scratch,
    pub(super) weighed: Vec<f32>,
    logs: Vec<f64>,
}

impl Chunk {
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }
}

/// Reads rows `tokens` of a head, `[n, padded]`, with the feature map.
#[inline(always)]
pub(super) fn read<T: Element, V: Vector>(
    v: V,
    view: &View<'_, T>,
    (b, h): (usize, usize),
    tokens: Range<usize>,
    feature: Feature,
    to: &mut Vec<f32>,
) {
    let dim = view.shape()[3];
    let padded = dim.next_multiple_of(V::LANES);
    let rows = room(to, tokens.len() * padded);
    for (row, l) in rows.chunks_exact_mut(padded.max(1)).zip(tokens) {
        view.row_into(b, h, l, row);
        row[dim..].fill(0.0);
        if feature == Feature::EluPlusOne {
            elu_plus_one(v, row);
        }
    }
}

/// `x ← max(x, 0) + e^{min(x, 0)}`
#[inline(always)]
fn elu_plus_one<V: Vector>(v: V, row: &mut [f32]) {
    for x in row.chunks_exact_mut(V::LANES) {
        let above = v.max(v.load(x), v.splat(0.0));
        v.store(v.add(above, crate::exp::exp(v, v.sub(v.load(x), above))), x);
    }
}

/// Step 1, of each chunk by itself: what needs no state.
pub(super) struct Load<'a, 'c, T> {
    pub(super) p: &'a Linear<'a, T>,
    pub(super) chunk: &'c mut Chunk,
    /// Sequence and KV head.
    pub(super) head: (usize, usize),
    pub(super) tokens: Range<usize>,
    pub(super) recurrent: bool,
}

impl<T: Element> Task for Load<'_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Load { p, chunk: c, head, tokens, recurrent } = self;
        let (n, size) = (tokens.len(), p.sizes(V::LANES));
        let Sizes { d, dp, wp, .. } = size;
        (c.tokens, c.recurrent) = (tokens.clone(), recurrent);
        read(v, &p.inputs.k, head, tokens.clone(), p.feature, &mut c.k);
        c.read_values(p, head, size);
        c.read_gates(v, p, head, size);
        if recurrent {
            return;
        }
        let stride = c.decays.stride;
        let k_t = room(&mut c.k_t, d * stride);
        v.call(Transpose { from: &c.k, from_row: dp, to: k_t, to_row: stride, rows: n, columns: d });
        if p.rule.corrects() {
            let m = room(&mut c.m, n * stride);
            c.decays.between(v, size, &c.k, (&c.k, &c.k_t), &mut c.scratch, m);
            for (t, row) in m.chunks_exact_mut(stride).enumerate() {
                row[..t].iter_mut().for_each(|x| *x = -*x);
            }
            room(&mut c.u, n * wp);
        } else {
            std::mem::swap(&mut c.e, &mut c.u);
            let weighed = room(&mut c.weighed, n * dp);
            times(&c.k[..n * dp], &c.decays.until, weighed);
            product(v, Left(weighed, 1, dp), (&c.u, wp), (room(&mut c.sum, d * wp), wp), [d, wp, n], false);
        }
    }
}

impl Chunk {
    /// `V`, with ones beside it where the output is normalised, so that the state also sums keys.
    #[inline(always)]
    fn read_values<T: Element>(&mut self, p: &Linear<'_, T>, (b, h): (usize, usize), size: Sizes) {
        let rows = room(&mut self.e, self.tokens.len() * size.wp);
        for (row, l) in rows.chunks_exact_mut(size.wp.max(1)).zip(self.tokens.clone()) {
            row[p.shape.value_dim..].fill(0.0);
            p.inputs.v.row_into(b, h, l, row);
            if p.normalised {
                row[p.shape.value_dim] = 1.0;
            }
        }
    }

    #[inline(always)]
    fn read_gates<T: Element, V: Vector>(&mut self, v: V, p: &Linear<'_, T>, head: (usize, usize), size: Sizes) {
        let n = self.tokens.len();
        let width = p.inputs.decay.map_or(0, |decay| decay.shape()[3]);
        let mut row = vec![0.0; width.max(1)];
        self.logs.clear();
        self.beta.resize(n, 1.0);
        for (l, beta) in self.tokens.clone().zip(&mut self.beta) {
            Linear::<T>::gate(&p.inputs.decay, head, l, &mut row[..width], 0.0);
            self.logs.extend(row[..width].iter().map(|g| f64::from(*g)));
            Linear::<T>::gate(&p.inputs.beta, head, l, std::slice::from_mut(beta), 1.0);
        }
        if !self.recurrent {
            self.decays.set(v, n, size, &mut self.logs, width);
        }
    }

    /// The decays of token `t` of a chunk that is taken one by one, `[dp]`; says whether there are any.
    #[inline(always)]
    pub(super) fn decay<V: Vector>(&self, v: V, t: usize, to: &mut [f32]) -> bool {
        let width = self.logs.len() / self.len();
        match &self.logs[t * width..][..width] {
            [] => return false,
            [one] => to.fill(*one as f32),
            each => to.iter_mut().zip(each).for_each(|(to, g)| *to = *g as f32),
        }
        exps(v, to);
        true
    }
}

/// Step 2, chunk after chunk: what is written, and the state after it.
pub(super) struct Advance<'c> {
    pub(super) chunk: &'c mut Chunk,
    pub(super) state: &'c mut [f32],
    pub(super) size: Sizes,
    pub(super) corrects: bool,
}

impl Task for Advance<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Advance { chunk: c, state, size, corrects } = self;
        c.state.clear();
        c.state.extend_from_slice(state);
        if corrects {
            c.correct(v, size);
        }
        let (n, Sizes { d, dp, wp, .. }) = (c.len(), size);
        for (row, decay) in state.chunks_exact_mut(wp.max(1)).zip(&c.decays.whole) {
            row.iter_mut().for_each(|s| *s *= decay); // e^{G_n} ∘ S
        }
        if corrects {
            let weighed = room(&mut c.weighed, n * dp);
            times(&c.k[..n * dp], &c.decays.until, weighed);
            product(v, Left(weighed, 1, dp), (&c.u, wp), (state, wp), [d, wp, n], true);
        } else {
            state.iter_mut().zip(&c.sum).for_each(|(s, x)| *s += x);
        }
    }
}

impl Chunk {
    /// `E = V − (e^G ∘ K) S − M U`, `U = β E`.
    #[inline(always)]
    pub(super) fn correct<V: Vector>(&mut self, v: V, size: Sizes) {
        let (n, Sizes { d, dp, wp, .. }) = (self.len(), size);
        let weighed = room(&mut self.weighed, n * dp);
        times(&self.k[..n * dp], &self.decays.since, weighed);
        weighed.iter_mut().for_each(|x| *x = -*x);
        product(v, Left(weighed, dp, 1), (&self.state, wp), (&mut self.e, wp), [n, wp, d], true);
        solve(v, (&self.m, self.decays.stride), &self.beta, size, &mut self.e, &mut self.u);
    }
}
