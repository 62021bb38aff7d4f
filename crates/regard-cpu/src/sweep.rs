//! The backward pass over a rectangle of keys by query rows: scores are computed again, never stored.
//!
//! ```text
//!   P = exp(S − lse)     dV = Pᵀ dO     dP = V dOᵀ     dS = P ∘ (dP − δ)     dQ = scale · dS K     dK = scale · dSᵀ Q
//! ```
//! with `δ = Σ dO ∘ O` for each row. Source: Dao 2023, "FlashAttention-2", Algorithm 2.

use std::ops::Range;

use regard_core::{BiasSink, Element, Kv, View};

use crate::block::{RowBlock, Rows, Side, apply, group_row, ranges, rows, tiles};
use crate::exp::exp;
use crate::forward::drop_out;
use crate::products::scores;
use crate::rule::SlopeRule;
use crate::simd::{Product, Task, Vector};
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

/// Rows padded to whole vectors, `[rows, dim padded]`.
struct Padded {
    data: Vec<f32>,
    dim: usize,
}

impl Padded {
    #[inline(always)]
    fn of(rows: usize, dim: usize, lanes: usize, mut read: impl FnMut(usize, &mut [f32])) -> Padded {
        let dim = dim.next_multiple_of(lanes);
        let mut data = vec![0.0; rows * dim];
        for (i, row) in data.chunks_exact_mut(dim.max(1)).enumerate() {
            read(i, row);
        }
        Padded { data, dim }
    }

    /// Keys or values of the whole sweep.
    #[inline(always)]
    fn side<T: Element>(kv: &Kv<'_, T>, side: Side, head: (usize, usize), keys: &Range<usize>, dim: usize, lanes: usize) -> Padded {
        let mut scratch = Vec::new();
        let Rows { data, stride } = rows(kv, side, head, keys.clone(), &mut scratch);
        Padded::of(keys.len(), dim, lanes, |i, row| row[..dim].copy_from_slice(&data[i * stride..][..dim]))
    }

    /// The rows from `i` on.
    #[inline(always)]
    fn from(&self, i: usize) -> &[f32] {
        &self.data[i * self.dim..]
    }
}

impl<T: Element> Task for Sweep<'_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(mut self, v: V) {
        let (shape, head) = (&self.p.shape, (self.batch, self.kv_head));
        let side = |side, dim| Padded::side(&self.p.kv, side, head, &self.keys, dim, V::LANES);
        let (k, values) = (side(Side::Keys, shape.head_dim), side(Side::Values, shape.value_dim));
        for block in ranges(self.rows.clone(), ROWS) {
            let block = RowBlock::new(shape, V::LANES, self.batch, self.kv_head, block);
            self.row_block(v, &block, &k, &values);
        }
    }
}

impl<T: Element> Sweep<'_, '_, T> {
    /// One row block against all keys of the sweep.
    #[inline(always)]
    fn row_block<V: Vector>(&mut self, v: V, block: &RowBlock, k: &Padded, values: &Padded) {
        let Sweep { p, rule, .. } = *self;
        let (shape, width, kernel) = (&p.shape, block.width, p.kernel);
        let visible = |keys: Range<usize>| block.tile(shape, rule, &keys).map(|kinds| (keys, kinds));
        let mut seen = tiles(self.keys.clone()).filter_map(visible).peekable();
        if seen.peek().is_none() {
            return;
        }
        let rows = Operands::of(self, block, V::LANES);
        let (mut s, mut ds, mut raw) = (vec![0.0; TILE * width], vec![0.0; TILE * width], Vec::new());
        let first = block.rows.start - self.rows.start;
        for (keys, kinds) in seen {
            let (n, at) = (keys.len(), keys.start - self.keys.start);
            v.call(scores(k.from(at), k.dim, &rows.q_lanes, &mut s, (n, width, shape.head_dim))); // S = scale · K Qᵀ
            if rule.has_score() {
                raw.clone_from(&s);
            }
            apply(rule, kernel, &kinds, &mut s);
            v.call(scores(values.from(at), values.dim, &rows.d_out_lanes, &mut ds, (n, width, shape.value_dim))); // dP = V dOᵀ
            let probabilities = Probabilities { s: &mut s[..n * width], lse: &rows.lse, careful: self.careful };
            v.call(probabilities); // P
            let mut dropped = Vec::new();
            if p.dropout.is_some() {
                dropped.extend(s.iter().map(|p| if *p == 0.0 { 0.0 } else { 1.0 }));
                drop_out(p, block, &keys, &mut dropped); // the factors alone
            }
            v.call(ScoreGradients { s: &mut s[..n * width], ds: &mut ds[..n * width], delta: &rows.delta, factors: &dropped });
            if rule.has_score() {
                let mut nowhere = Nowhere;
                let bias = self.wanted.bias.as_deref_mut().unwrap_or(&mut nowhere);
                kinds.iter().for_each(|(_, patch)| rule.pull(kernel, &raw, &mut ds, patch, bias));
            }
            let careful = self.careful;
            let product = |(a, a_row, a_column): (_, _, _), b, c, (m, n, k): (_, _, _)| Product {
                a,
                a_row,
                a_column,
                b,
                b_row: n,
                c,
                c_row: n,
                m,
                n,
                k,
                add: true,
                careful,
            };
            if let Some((dk, dv)) = &mut self.wanted.dkv {
                let rows_len = block.rows.len();
                let (dk, dv) = (&mut dk[at * k.dim..], &mut dv[at * values.dim..]);
                v.call(product((&s, width, 1), &rows.d_out.data, dv, (n, values.dim, rows_len))); // dV += Pᵀ dO
                v.call(product((&ds, width, 1), &rows.q.data, dk, (n, k.dim, rows_len))); // dK += dSᵀ Q
            }
            if let Some(dq) = &mut self.wanted.dq {
                v.call(product((&ds, 1, width), k.from(at), &mut dq[first * k.dim..], (block.rows.len(), k.dim, n))); // dQ += dS K
            }
        }
    }
}

/// What a row block brings to every tile.
struct Operands {
    /// `scale · Qᵀ` and `dOᵀ`, rows in lanes.
    q_lanes: Vec<f32>,
    d_out_lanes: Vec<f32>,
    /// `Q` and `dO`, row by row.
    q: Padded,
    d_out: Padded,
    /// `+∞` where a row saw nothing, so that its probabilities are 0.
    lse: Vec<f32>,
    delta: Vec<f32>,
}

impl Operands {
    #[inline(always)]
    fn of<T: Element>(sweep: &Sweep<'_, '_, T>, block: &RowBlock, lanes: usize) -> Operands {
        let (p, width) = (sweep.p, block.width);
        let shape = &p.shape;
        let mut q_lanes = vec![0.0; shape.head_dim * width];
        let mut d_out_lanes = vec![0.0; shape.value_dim * width];
        block.pack(&p.q, p.scale, &mut q_lanes);
        block.pack(&sweep.d_out, 1.0, &mut d_out_lanes);
        let padded = |from: &View<'_, T>, dim| {
            Padded::of(block.rows.len(), dim, lanes, |i, row| {
                let r = block.rows.start + i;
                let head = block.kv_head * shape.group() + r / shape.q_len;
                from.row_into(block.batch, head, r % shape.q_len, row);
            })
        };
        let first = group_row(shape, block.batch, block.kv_head);
        let rows = first + block.rows.start..first + block.rows.end;
        let mut lse: Vec<f32> = sweep.lse[rows.clone()].to_vec();
        lse.iter_mut().filter(|x| **x == f32::NEG_INFINITY).for_each(|x| *x = f32::INFINITY);
        lse.resize(width, f32::INFINITY);
        let mut delta = sweep.delta[rows].to_vec();
        delta.resize(width, 0.0);
        Operands { q: padded(&p.q, shape.head_dim), d_out: padded(&sweep.d_out, shape.value_dim), q_lanes, d_out_lanes, lse, delta }
    }
}

/// `P = exp(S − lse)`, in place.
struct Probabilities<'a> {
    s: &'a mut [f32],
    lse: &'a [f32],
    /// Whether some `lse` may be NaN: what a row does not see has a probability of 0 even then.
    careful: bool,
}

impl Task for Probabilities<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let width = self.lse.len();
        for row in self.s.chunks_exact_mut(width) {
            for lane in (0..width).step_by(V::LANES) {
                let s = v.load(&row[lane..]);
                let mut p = exp(v, v.sub(s, v.load(&self.lse[lane..])));
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
