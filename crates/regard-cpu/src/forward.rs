//! Attention forward: a row block against its keys, span by span, tile by tile.
//!
//! Source: Dao 2023, "FlashAttention-2", Algorithm 1, with the queries of a block in the lanes of vectors.

use std::ops::Range;

use rayon::prelude::*;
use regard_core::{Element, ViewMut};

use crate::block::{RowBlock, apply, ranges, tiles};
use crate::exp::exp;
use crate::products::{Products, Query};
use crate::rule::TileRule;
use crate::scatter::{RowWriter, split};
use crate::simd::{Task, Vector};
use crate::walk::splits_keys;
use crate::{Problem, SPAN, TILE};

/// Writes `out`, `[batch, q_heads, q_len, value_dim]`, and the log-sum-exp of every row, `[batch, q_heads, q_len, 1]`.
pub fn forward<T: Element>(p: &Problem<'_, T>, rule: &dyn TileRule, out: ViewMut<'_, T>, lse: ViewMut<'_, f32>) {
    let blocks = RowBlock::all(&p.shape, p.kernel.lanes());
    let written = || blocks.iter().map(|b| b.output_rows(&p.shape));
    let split_keys = splits_keys(&p.shape);
    let writers = split(out, written()).into_par_iter().zip(split(lse, written()));
    blocks.par_iter().zip(writers).for_each(|(block, (mut out, mut lse))| {
        let fast = attend(p, rule, block, split_keys, false);
        if !finish(p, block, &fast, &mut out, &mut lse) {
            // Something visible is not finite, or a hidden value was: weights of zero must not touch their values.
            finish(p, block, &attend(p, rule, block, split_keys, true), &mut out, &mut lse);
        }
    });
}

/// A partial softmax for every lane of a row block: `out` is `[value_dim, width]`, not yet divided by `sum`.
struct Partial {
    max: Vec<f32>,
    sum: Vec<f32>,
    out: Vec<f32>,
}

impl Partial {
    fn empty(width: usize, value_dim: usize) -> Self {
        Partial { max: vec![f32::NEG_INFINITY; width], sum: vec![0.0; width], out: vec![0.0; width * value_dim] }
    }
}

/// All keys of a row block.
fn attend<T: Element>(p: &Problem<'_, T>, rule: &dyn TileRule, block: &RowBlock, split_keys: bool, careful: bool) -> Partial {
    let query = Query::of(p, block);
    let span = |keys: Range<usize>| p.kernel.run(Span { p, rule, block, query: &query, keys, careful });
    let spans = ranges(0..p.shape.keys(block.batch), SPAN);
    let mut all = Partial::empty(block.width, p.shape.value_dim);
    let mut fold = |part: Option<Partial>| part.into_iter().for_each(|part| p.kernel.run(Fold { all: &mut all, part }));
    if split_keys {
        let parts: Vec<_> = spans.collect::<Vec<_>>().into_par_iter().map(span).collect();
        parts.into_iter().for_each(fold);
    } else {
        spans.for_each(|keys| fold(span(keys)));
    }
    all
}

/// One span of keys: its own partial softmax, or nothing where the mask hides it all.
struct Span<'a, T> {
    p: &'a Problem<'a, T>,
    rule: &'a dyn TileRule,
    block: &'a RowBlock,
    query: &'a Query,
    keys: Range<usize>,
    careful: bool,
}

impl<T: Element> Task for Span<'_, T> {
    type Out = Option<Partial>;

    #[inline(always)]
    fn run<V: Vector>(self, v: V) -> Option<Partial> {
        let Span { p, rule, block, query, careful, .. } = self;
        let width = block.width;
        let mut products = Products::new(p, block, query, careful);
        let mut state = None;
        let (mut s, mut decay) = (vec![0.0; TILE * width], vec![0.0; width]);
        for tile in tiles(self.keys) {
            let Some(kinds) = block.tile(&p.shape, rule, &tile) else { continue };
            let n = tile.len();
            products.scores(v, &tile, &mut s); // S = scale · K Qᵀ
            apply(rule, p.kernel, &kinds, &mut s); // score(S), mask
            let state = state.get_or_insert_with(|| Partial { out: products.output(v), ..Partial::empty(width, 0) });
            v.call(Absorb { state, s: &mut s[..n * width], decay: &mut decay }); // m, ℓ, P
            products.rescale(v, &decay, &mut state.out);
            drop_out(p, block, &tile, &mut s);
            products.accumulate(v, tile, &s, &mut state.out); // O += Vᵀ P
        }
        state.map(|state| Partial { out: products.finish(v, state.out), ..state })
    }
}

/// Multiplies the probabilities of a tile by their dropout factors.
#[inline(always)]
pub(crate) fn drop_out<T: Element>(p: &Problem<'_, T>, block: &RowBlock, keys: &Range<usize>, s: &mut [f32]) {
    let Some(dropout) = p.dropout else { return };
    block.each_row(&p.shape, |lane, at| {
        for (four, first) in keys.clone().step_by(4).enumerate() {
            let factors = dropout.factors(at, first as u32 / 4);
            for (j, factor) in factors.iter().enumerate().take(keys.end - first) {
                s[(four * 4 + j) * block.width + lane] *= factor;
            }
        }
    });
}

/// A maximum that can be subtracted: −∞, of a row that saw nothing, becomes 0.
#[inline(always)]
fn finite<V: Vector>(v: V, max: V::F) -> V::F {
    v.select_below(max, v.splat(f32::MIN), v.splat(0.0), max)
}

/// One tile into a partial softmax: `s` becomes `P = exp(S − m)`, and what was gathered must be scaled by `decay` to the new maximum.
struct Absorb<'a> {
    state: &'a mut Partial,
    s: &'a mut [f32],
    decay: &'a mut [f32],
}

impl Task for Absorb<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Absorb { state, s, decay: decays } = self;
        let width = decays.len();
        for lane in (0..width).step_by(V::LANES) {
            let before = v.load(&state.max[lane..]);
            let mut max = before;
            for row in s.chunks_exact(width) {
                max = v.max(v.load(&row[lane..]), max);
            }
            let m = finite(v, max);
            let decay = exp(v, v.sub(before, m));
            let mut sum = v.mul(v.load(&state.sum[lane..]), decay);
            for row in s.chunks_exact_mut(width) {
                let weight = exp(v, v.sub(v.load(&row[lane..]), m));
                sum = v.add(sum, weight);
                v.store(weight, &mut row[lane..]);
            }
            v.store(max, &mut state.max[lane..]);
            v.store(sum, &mut state.sum[lane..]);
            v.store(decay, &mut decays[lane..]);
        }
    }
}

/// Joins a span's state to that of the spans before it.
struct Fold<'a> {
    all: &'a mut Partial,
    part: Partial,
}

impl Task for Fold<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Fold { all, part } = self;
        let width = all.max.len();
        for lane in (0..width).step_by(V::LANES) {
            let (a, b) = (v.load(&all.max[lane..]), v.load(&part.max[lane..]));
            let max = v.max(a, b);
            let m = finite(v, max);
            let (a, b) = (exp(v, v.sub(a, m)), exp(v, v.sub(b, m)));
            let sum = v.mul_add(v.load(&part.sum[lane..]), b, v.mul(v.load(&all.sum[lane..]), a));
            v.store(max, &mut all.max[lane..]);
            v.store(sum, &mut all.sum[lane..]);
            for (to, from) in all.out.chunks_exact_mut(width).zip(part.out.chunks_exact(width)) {
                let joined = v.mul_add(v.load(&from[lane..]), b, v.mul(v.load(&to[lane..]), a));
                v.store(joined, &mut to[lane..]);
            }
        }
    }
}

/// `O /= ℓ` and `lse = m + ln ℓ`, with the sink in both. Says whether everything is finite.
fn finish<T: Element>(
    p: &Problem<'_, T>,
    block: &RowBlock,
    state: &Partial,
    out: &mut RowWriter<'_, T>,
    lse: &mut RowWriter<'_, f32>,
) -> bool {
    let first = out.rows().start;
    let mut row = vec![0.0; p.shape.value_dim];
    let mut finite = true;
    for run in &block.runs {
        let sink = p.sinks.get(run.head).copied().unwrap_or(f32::NEG_INFINITY);
        for lane in run.lanes.clone() {
            let (max, sum) = (state.max[lane], state.sum[lane]);
            let top = max.max(sink);
            let (share, total) = match top == f32::NEG_INFINITY && sum == 0.0 {
                true => (0.0, 0.0),
                false if sink == f32::NEG_INFINITY => (1.0, sum), // NaN, where every visible score is
                false => ((max - top).exp(), sum * (max - top).exp() + (sink - top).exp()),
            };
            for (o, from) in row.iter_mut().zip(state.out.chunks_exact(block.width)) {
                *o = if total == 0.0 { 0.0 } else { from[lane] * share / total };
            }
            finite &= total.is_finite() && row.iter().all(|x| x.is_finite());
            out.write(first + lane, &row);
            lse.write(first + lane, &[if total == 0.0 { f32::NEG_INFINITY } else { top + total.ln() }]);
        }
    }
    finite
}
