//! The backward pass over a rectangle of keys by query rows: scores are computed again, never stored.
//!
//! ```text
//!   P = exp(S − lse)     dV = Pᵀ dO     dP = V dOᵀ     dS = P ∘ (dP − δ)     dQ = scale · dS K     dK = scale · dSᵀ Q
//! ```
//! with `δ = Σ dO ∘ O` for each row. Source: Dao 2023, "FlashAttention-2", Algorithm 2.

use std::ops::Range;

use regard_core::{BiasSink, Element, View};

use crate::block::{RowBlock, apply, group_row, seen, tiles};
use crate::exp::exp;
use crate::forward::drop_out;
use crate::gradient_products::{Factors, Paired, Wide};
use crate::lines::Lines;
use crate::rule::SlopeRule;
use crate::simd::{Task, Vector};
use crate::{Problem, ROWS, TILE};

/// A rectangle of one group: some keys by some query rows.
pub(crate) struct Sweep<'a, 'w, T> {
    pub(crate) p: &'a Problem<'a, T>,
    pub(crate) rule: &'a dyn SlopeRule,
    /// Gradient of the output.
    pub(crate) d_out: View<'a, T>,
    /// Log-sum-exp of every row, `[batch, q_heads, q_len]` flattened.
    pub(crate) lse: &'a [f32],
    /// `Σ dO ∘ O` of every row.
    pub(crate) delta: &'a [f32],
    pub(crate) batch: usize,
    pub(crate) kv_head: usize,
    /// Begins at a multiple of [`TILE`].
    pub(crate) keys: Range<usize>,
    /// Rows of the group, flattened `[head, query]`.
    pub(crate) rows: Range<usize>,
    pub(crate) careful: bool,
    pub(crate) wanted: Wanted<'w>,
}

/// What a sweep adds to. Rows are padded to whole vectors; `dq` and `dk` still lack the factor `scale`.
#[derive(Default)]
pub(crate) struct Wanted<'a> {
    /// `[rows, head_dim padded]`
    pub(crate) dq: Option<&'a mut [f32]>,
    /// `[keys, head_dim padded]` and `[keys, value_dim padded]`
    pub(crate) dkv: Option<(&'a mut [f32], &'a mut [f32])>,
    pub(crate) bias: Option<&'a mut dyn BiasSink>,
}

/// A bias whose gradient nobody wants.
struct Nowhere;

impl BiasSink for Nowhere {
    fn add(&mut self, _: regard_core::Pair, _: f32) {}
}

impl<T: Element> Task for Sweep<'_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(mut self, v: V) {
        match self.p.kernel.pairs().filter(|_| T::as_bf16(&[]).is_some()) {
            Some(pairs) => {
                let mut factors = Paired::of(v, &self, pairs);
                self.blocks(v, &mut factors);
            }
            None => {
                let mut factors = Wide::of(v, &self);
                self.blocks(v, &mut factors);
            }
        }
    }
}

impl<T: Element> Sweep<'_, '_, T> {
    #[inline(always)]
    fn blocks<V: Vector>(&mut self, v: V, factors: &mut impl Factors) {
        let mut tile = Scratch::default();
        let Sweep { p, rule, batch, kv_head, .. } = *self;
        let block = |rows: &Range<usize>| RowBlock::new(&p.shape, V::LANES, batch, kv_head, rows.clone());
        for rows in seen(self.rows.clone(), ROWS, &|rows| block(rows).hides(&p.shape, rule, &self.keys)) {
            self.row_block(v, factors, &block(&rows), &mut tile);
        }
    }

    /// One row block against all keys of the sweep.
    #[inline(always)]
    fn row_block<V: Vector>(&mut self, v: V, factors: &mut impl Factors, block: &RowBlock, tile: &mut Scratch) {
        let Sweep { p, rule, careful, .. } = *self;
        let (shape, width, kernel) = (&p.shape, block.width, p.kernel);
        let (head_dim, value_dim) = (shape.head_dim.next_multiple_of(V::LANES), shape.value_dim.next_multiple_of(V::LANES));
        let visible = |keys: Range<usize>| block.tile(shape, rule, &keys).map(|kinds| (keys, kinds));
        let mut seen = tiles(self.keys.clone()).filter_map(visible).peekable();
        if seen.peek().is_none() {
            return;
        }
        let operands = factors.block(v, self, block);
        let [lse, delta] = self.statistics(block);
        let Scratch { s, ds, raw } = tile;
        let (s, ds) = (s.room(TILE * width), ds.room(TILE * width));
        // A positive scale is left to the exponentials, where no score asks for it before.
        let left = if !rule.has_score() && factors.left() > 0.0 { factors.left() } else { 1.0 };
        let first = block.rows.start - self.rows.start;
        for (keys, kinds) in seen {
            let at = keys.start - self.keys.start..keys.end - self.keys.start;
            let n = keys.len() * width;
            factors.scores(v, &operands, &at, s); // S = scale · K Qᵀ
            if left != factors.left() {
                s[..n].iter_mut().for_each(|s| *s *= factors.left());
            }
            if rule.has_score() {
                raw.room(n).copy_from_slice(&s[..n]);
            }
            apply(rule, kernel, &kinds, s);
            factors.weight_gradients(v, &operands, &at, ds); // dP = V dOᵀ
            v.call(Probabilities { s: &mut s[..n], lse: &lse, scale: left, careful }); // P
            let mut dropped = Vec::new();
            if p.dropout.is_some() {
                dropped.extend(s.iter().map(|p| if *p == 0.0 { 0.0 } else { 1.0 }));
                drop_out(p, block, &keys, &mut dropped); // the factors alone
            }
            v.call(ScoreGradients { s: &mut s[..n], ds: &mut ds[..n], delta: &delta, factors: &dropped });
            if rule.has_score() {
                let mut nowhere = Nowhere;
                let bias = self.wanted.bias.as_deref_mut().unwrap_or(&mut nowhere);
                kinds.iter().for_each(|(_, patch)| rule.pull(kernel, raw, ds, patch, bias));
            }
            if let Some((dk, dv)) = &mut self.wanted.dkv {
                factors.value_gradients(v, &operands, &at, s, &mut dv[at.start * value_dim..]); // dV += Pᵀ dO
                factors.key_gradients(v, &operands, &at, ds, &mut dk[at.start * head_dim..]); // dK += dSᵀ Q
            }
            if let Some(dq) = &mut self.wanted.dq {
                factors.query_gradients(v, &operands, &at, ds, &mut dq[first * head_dim..]); // dQ += dS K
            }
        }
    }

    /// Log-sum-exp and `δ` of a row block: `+∞` and 0 where a row saw nothing, so that its probabilities are 0.
    fn statistics(&self, block: &RowBlock) -> [Vec<f32>; 2] {
        let first = group_row(&self.p.shape, block.batch, block.kv_head);
        let rows = first + block.rows.start..first + block.rows.end;
        let mut lse: Vec<f32> = self.lse[rows.clone()].to_vec();
        lse.iter_mut().filter(|x| **x == f32::NEG_INFINITY).for_each(|x| *x = f32::INFINITY);
        lse.resize(block.width, f32::INFINITY);
        let mut delta = self.delta[rows].to_vec();
        delta.resize(block.width, 0.0);
        [lse, delta]
    }
}

/// Buffers that the row blocks of a sweep use one after another, `[TILE, width]`.
#[derive(Default)]
struct Scratch {
    s: Lines<f32>,
    ds: Lines<f32>,
    /// Scores before the rule.
    raw: Lines<f32>,
}

/// `P = exp(scale · S − lse)`, in place.
pub(crate) struct Probabilities<'a> {
    pub(crate) s: &'a mut [f32],
    pub(crate) lse: &'a [f32],
    pub(crate) scale: f32,
    /// Whether some `lse` may be NaN: what a row does not see has a probability of 0 even then.
    pub(crate) careful: bool,
}

impl Task for Probabilities<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let width = self.lse.len();
        for row in self.s.chunks_exact_mut(width) {
            for lane in (0..width).step_by(V::LANES) {
                let s = v.load(&row[lane..]);
                let mut p = exp(v, v.mul_add(s, v.splat(self.scale), v.sub(v.splat(0.0), v.load(&self.lse[lane..]))));
                if self.careful {
                    p = v.select_below(s, v.splat(f32::MIN), v.splat(0.0), p);
                }
                v.store(p, &mut row[lane..]);
            }
        }
    }
}

/// From `dP` in `ds`: `dS = P ∘ (f·dP − δ)`, and `s = f·P`, where `f` are the dropout factors. Where `P` is 0, `dS` is 0.
struct ScoreGradients<'a> {
    s: &'a mut [f32],
    ds: &'a mut [f32],
    delta: &'a [f32],
    /// Empty without dropout.
    factors: &'a [f32],
}

impl Task for ScoreGradients<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let width = self.delta.len();
        for (j, (s, ds)) in self.s.chunks_exact_mut(width).zip(self.ds.chunks_exact_mut(width)).enumerate() {
            for lane in (0..width).step_by(V::LANES) {
                let (p, mut dp) = (v.load(&s[lane..]), v.load(&ds[lane..]));
                if !self.factors.is_empty() {
                    let f = v.load(&self.factors[j * width + lane..]);
                    dp = v.mul(f, dp);
                    v.store(v.mul(f, p), &mut s[lane..]);
                }
                let gradient = v.mul(p, v.sub(dp, v.load(&self.delta[lane..])));
                v.store(v.select_zero(p, v.splat(0.0), gradient), &mut ds[lane..]);
            }
        }
    }
}
