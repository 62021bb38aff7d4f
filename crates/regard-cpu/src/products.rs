//! The two products of a tile: in f32, or in pairs of bf16 where the machine multiplies those faster.
//!
//! ```text
//!   S = scale · K Qᵀ      O += Vᵀ P
//! ```
//! In pairs, queries, keys and values enter as they are and weights are rounded to bf16; sums are f32 either way.

use std::ops::Range;

use half::bf16;
use regard_core::{Element, Kv};

use crate::block::{RowBlock, Rows, Side, prefetch, rows};
use crate::simd::{Pair, Pairs, Product, Transpose, Vector};
use crate::{Problem, TILE};

/// The queries of a row block, as the products read them.
pub(crate) enum Query {
    /// `scale · Qᵀ`, `[head_dim, width]`.
    Wide(Vec<f32>),
    /// `Qᵀ`, `[⌈head_dim / 2⌉, width]`, and what is left to multiply scores by.
    Paired { pairs: Pairs, q: Vec<Pair>, scale: f32 },
}

impl Query {
    pub(crate) fn of<T: Element>(p: &Problem<'_, T>, block: &RowBlock) -> Query {
        let pairs = p.kernel.pairs().filter(|_| T::as_bf16(&[]).is_some());
        // A power of two may go into bf16 queries, any other scale would round them.
        let exact = p.scale.is_normal() && p.scale.to_bits().trailing_zeros() >= 23 && (1e-6..1e6).contains(&p.scale.abs());
        let (inside, scale) = if pairs.is_none() || exact { (p.scale, 1.0) } else { (1.0, p.scale) };
        let mut wide = vec![0.0; p.shape.head_dim * block.width];
        block.pack(&p.q, inside, &mut wide);
        let Some(pairs) = pairs else { return Query::Wide(wide) };
        let mut q = vec![Pair::default(); p.shape.head_dim.div_ceil(2) * block.width];
        pairs.pair_weights(&wide, block.width, &mut q);
        Query::Paired { pairs, q, scale }
    }
}

/// Query rows up to which keys and values, not queries, fill the vectors: with fewer rows than lanes, most lanes would idle.
///
/// An element is the same chain of operations either way (over `d` for a score, over keys for an output), so the bits are the same.
const FEW: usize = 8;

/// The products of a row block with one tile after another.
pub(crate) struct Products<'a, T> {
    p: &'a Problem<'a, T>,
    query: &'a Query,
    /// Sequence and KV head.
    head: (usize, usize),
    rows: usize,
    width: usize,
    few: bool,
    careful: bool,
    wide: Vec<f32>,
    wide_t: Vec<f32>,
    paired: Vec<Pair>,
    paired_t: Vec<Pair>,
    weights: Vec<Pair>,
    /// Rows whose elements are not neighbours.
    copies: [Vec<T>; 2],
    /// Scores of few rows, `[rows, TILE]`.
    s_t: Vec<f32>,
}

impl<'a, T: Element> Products<'a, T> {
    pub(crate) fn new(p: &'a Problem<'a, T>, block: &RowBlock, query: &'a Query, careful: bool) -> Self {
        let (head, rows, width) = ((block.batch, block.kv_head), block.rows.len(), block.width);
        let few = rows <= FEW;
        let (wide, wide_t, s_t) = (Vec::new(), Vec::new(), Vec::new());
        let (paired, paired_t, weights, copies) = (Vec::new(), Vec::new(), Vec::new(), Default::default());
        Products { p, query, head, rows, width, few, careful, wide, wide_t, paired, paired_t, weights, copies, s_t }
    }

    /// Zeros for the output while it is gathered: `[value_dim, width]`, or, of few rows, `[rows, value_dim padded]`.
    pub(crate) fn output<V: Vector>(&self, _: V) -> Vec<f32> {
        let dim = self.p.shape.value_dim;
        vec![0.0; if self.few { self.rows * dim.next_multiple_of(V::LANES) } else { dim * self.width }]
    }

    /// A gathered output as `[value_dim, width]`.
    pub(crate) fn finish<V: Vector>(&self, _: V, gathered: Vec<f32>) -> Vec<f32> {
        if !self.few {
            return gathered;
        }
        let dim = self.p.shape.value_dim;
        let mut out = vec![0.0; dim * self.width];
        for (i, row) in gathered.chunks_exact(dim.next_multiple_of(V::LANES).max(1)).enumerate() {
            row[..dim].iter().zip(out[i..].iter_mut().step_by(self.width)).for_each(|(x, to)| *to = *x);
        }
        out
    }

    /// Scales the gathered output of each row, as its maximum moves.
    #[inline(always)]
    pub(crate) fn rescale<V: Vector>(&self, v: V, decay: &[f32], out: &mut [f32]) {
        if self.few {
            for (row, decay) in out.chunks_exact_mut((out.len() / self.rows).max(1)).zip(decay) {
                row.chunks_exact_mut(V::LANES).for_each(|x| v.store(v.mul(v.load(x), v.splat(*decay)), x));
            }
        } else {
            for row in out.chunks_exact_mut(self.width) {
                for (x, decay) in row.chunks_exact_mut(V::LANES).zip(decay.chunks_exact(V::LANES)) {
                    v.store(v.mul(v.load(x), v.load(decay)), x);
                }
            }
        }
    }

    /// `S = scale · K Qᵀ` of a tile of keys, `[keys, width]`.
    #[inline(always)]
    pub(crate) fn scores<V: Vector>(&mut self, v: V, tile: &Range<usize>, s: &mut [f32]) {
        let (n, rows_len, width, dim) = (tile.len(), self.rows, self.width, self.p.shape.head_dim);
        if self.few {
            prefetch(v, &self.p.kv, Side::Values, self.head, tile.clone());
            grow(&mut self.s_t, rows_len * TILE);
        }
        match self.query {
            Query::Wide(q) => {
                let Rows { data, stride } = rows(&self.p.kv, Side::Keys, self.head, tile.clone(), &mut self.wide);
                if self.few {
                    grow(&mut self.wide_t, dim * TILE);
                    v.call(Transpose { from: data, from_row: stride, to: &mut self.wide_t, to_row: TILE, rows: n, columns: dim });
                    v.call(few_scores(q, &self.wide_t, &mut self.s_t, (rows_len, width, dim)));
                } else {
                    v.call(scores(data, stride, q, s, (n, width, dim)));
                }
            }
            Query::Paired { pairs, q, scale } => {
                let k = dim.div_ceil(2);
                grow(&mut self.paired, TILE * k);
                for (to, l) in self.paired.chunks_exact_mut(k.max(1)).zip(tile.clone()) {
                    pair_elements(row(&self.p.kv, Side::Keys, self.head, l, &mut self.copies[0]), to);
                }
                let scaled = if self.few {
                    grow(&mut self.paired_t, k * TILE);
                    let (from, to) = (Pair::bits(&self.paired), Pair::bits_mut(&mut self.paired_t));
                    v.call(Transpose { from, from_row: k, to, to_row: TILE, rows: n, columns: k });
                    pairs.multiply(few_scores(q, &self.paired_t, &mut self.s_t, (rows_len, width, k)));
                    &mut self.s_t[..]
                } else {
                    pairs.multiply(scores(&self.paired, k, q, s, (n, width, k)));
                    &mut s[..n * width]
                };
                if *scale != 1.0 {
                    scaled.iter_mut().for_each(|s| *s *= scale);
                }
            }
        }
        for (i, row) in self.s_t.chunks_exact(TILE).enumerate() {
            row[..n].iter().zip(s[i..].iter_mut().step_by(width)).for_each(|(x, s)| *s = *x);
        }
    }

    /// `O += Vᵀ P` of a tile: weights `s` are `[keys, width]`, `out` is as [`Products::output`] made it.
    #[inline(always)]
    pub(crate) fn accumulate<V: Vector>(&mut self, v: V, tile: Range<usize>, s: &[f32], out: &mut [f32]) {
        let (n, width, dim, careful) = (tile.len(), self.width, self.p.shape.value_dim, self.careful);
        let padded = if self.few { dim.next_multiple_of(V::LANES) } else { dim };
        if self.few {
            let next = tile.end..(tile.end + TILE).min(self.p.shape.keys(self.head.0));
            prefetch(v, &self.p.kv, Side::Keys, self.head, next);
        }
        // Columns from `dim` to `padded` keep what they held: what comes of them is not read.
        match self.query {
            Query::Wide(_) => {
                let Rows { data, stride } = rows(&self.p.kv, Side::Values, self.head, tile, &mut self.wide);
                if !self.few {
                    v.call(outputs(data, stride, s, out, (dim, width, n), careful));
                } else if padded == dim {
                    v.call(few_outputs(s, width, data, stride, out, (self.rows, padded, n), careful));
                } else {
                    grow(&mut self.wide_t, TILE * padded);
                    for (j, to) in self.wide_t.chunks_exact_mut(padded).take(n).enumerate() {
                        to[..dim].copy_from_slice(&data[j * stride..][..dim]);
                    }
                    v.call(few_outputs(s, width, &self.wide_t, padded, out, (self.rows, padded, n), careful));
                }
            }
            Query::Paired { pairs, .. } => {
                let k = n.div_ceil(2);
                grow(&mut self.weights, TILE / 2 * width);
                pairs.pair_weights(&s[..n * width], width, &mut self.weights[..k * width]);
                grow(&mut self.paired, k * padded);
                for (j, to) in self.paired.chunks_exact_mut(padded.max(1)).enumerate().take(k) {
                    let [first, second] = &mut self.copies;
                    let l = tile.start + 2 * j;
                    let first = row(&self.p.kv, Side::Values, self.head, l, first);
                    if l + 1 < tile.end {
                        pair_rows(first, row(&self.p.kv, Side::Values, self.head, l + 1, second), to);
                    } else {
                        pair_last_row(first, to);
                    }
                }
                let (values, weights) = (&self.paired, &self.weights);
                pairs.multiply(match self.few {
                    true => few_outputs(weights, width, values, padded, out, (self.rows, padded, k), careful),
                    false => outputs(values, dim, weights, out, (dim, width, k), careful),
                });
            }
        }
    }
}

/// `S = K·Q`, `[keys, width]`: `k` is `[keys, dim]`, `q` is `[dim, width]`.
#[inline(always)]
pub(crate) fn scores<'a, N>(
    k: &'a [N],
    k_row: usize,
    q: &'a [N],
    s: &'a mut [f32],
    (keys, width, dim): (usize, usize, usize),
) -> Product<'a, N> {
    let (a_column, add, careful) = (1, false, false);
    Product { a: k, a_row: k_row, a_column, b: q, b_row: width, c: s, c_row: width, m: keys, n: width, k: dim, add, careful }
}

/// `Sᵀ = Qᵀ·Kᵀ`, `[rows, TILE]`: `q` is `[dim, width]`, `k_t` is `[dim, TILE]`.
#[inline(always)]
fn few_scores<'a, N>(q: &'a [N], k_t: &'a [N], s_t: &'a mut [f32], (rows, width, dim): (usize, usize, usize)) -> Product<'a, N> {
    let (a_row, add, careful) = (1, false, false);
    Product { a: q, a_row, a_column: width, b: k_t, b_row: TILE, c: s_t, c_row: TILE, m: rows, n: TILE, k: dim, add, careful }
}

/// `O += Vᵀ·P`, `[dim, width]`: `v` is `[keys, dim]`, `p` is `[keys, width]`.
#[inline(always)]
fn outputs<'a, N>(
    v: &'a [N],
    v_row: usize,
    p: &'a [N],
    out: &'a mut [f32],
    (dim, width, keys): (usize, usize, usize),
    careful: bool,
) -> Product<'a, N> {
    let (a_row, add) = (1, true);
    Product { a: v, a_row, a_column: v_row, b: p, b_row: width, c: out, c_row: width, m: dim, n: width, k: keys, add, careful }
}

/// `Oᵀ += Pᵀ·V`, `[rows, dim]`: `p` is `[keys, width]`, `v` is `[keys, dim]`.
#[inline(always)]
fn few_outputs<'a, N>(
    p: &'a [N],
    width: usize,
    v: &'a [N],
    v_row: usize,
    out: &'a mut [f32],
    (rows, dim, keys): (usize, usize, usize),
    careful: bool,
) -> Product<'a, N> {
    let (a_row, add) = (1, true);
    Product { a: p, a_row, a_column: width, b: v, b_row: v_row, c: out, c_row: dim, m: rows, n: dim, k: keys, add, careful }
}

/// Makes room for `n` elements; what is there stays.
#[inline(always)]
fn grow<N: Clone + Default>(scratch: &mut Vec<N>, n: usize) {
    if scratch.len() < n {
        scratch.resize(n, N::default());
    }
}

/// Neighbours of a row become pairs; an odd last one gets 0 for a partner.
#[inline(always)]
fn pair_elements(row: &[bf16], to: &mut [Pair]) {
    let (two, rest) = row.as_chunks::<2>();
    to.iter_mut().zip(two).for_each(|(to, [a, b])| *to = Pair::new(*a, *b));
    if let ([last], Some(to)) = (rest, to.last_mut()) {
        *to = Pair::new(*last, bf16::ZERO);
    }
}

/// A last row gets zeros for a partner.
#[inline(always)]
fn pair_last_row(row: &[bf16], to: &mut [Pair]) {
    for (to, a) in to.iter_mut().zip(row) {
        *to = Pair::new(*a, bf16::ZERO);
    }
}

/// Two rows become one row of pairs.
#[inline(always)]
fn pair_rows(first: &[bf16], second: &[bf16], to: &mut [Pair]) {
    for ((to, a), b) in to.iter_mut().zip(first).zip(second) {
        *to = Pair::new(*a, *b);
    }
}

/// A row of keys or values of a sequence and KV head: in place where its elements are neighbours, else copied.
#[inline(always)]
fn row<'a, T: Element>(kv: &Kv<'a, T>, side: Side, (batch, head): (usize, usize), l: usize, copy: &'a mut Vec<T>) -> &'a [bf16] {
    let row = match *kv {
        Kv::Dense { k, v } => {
            let view = if let Side::Keys = side { k } else { v };
            match view.row(batch, head, l) {
                Some(row) => row,
                None => {
                    copy.clear();
                    copy.extend((0..view.shape()[3]).map(|d| view.at([batch, head, l, d])));
                    copy
                }
            }
        }
        Kv::Paged { cache, layer, seqs } => match side {
            Side::Keys => &cache.key_rows(layer, seqs[batch], head, l)[..cache.shape().head_dim],
            Side::Values => &cache.value_rows(layer, seqs[batch], head, l)[..cache.shape().value_dim],
        },
    };
    T::as_bf16(row).unwrap_or_default()
}
