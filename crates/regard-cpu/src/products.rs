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
use crate::forward::scores;
use crate::simd::{Pair, Pairs, Product, Vector};
use crate::{Problem, TILE};

/// Query rows for which reading keys and values takes longer than multiplying them.
const FEW: usize = 16;

/// The queries of a row block, as the products read them.
pub(crate) enum Query {
    /// `scale · Qᵀ`, `[head_dim, width]`.
    Wide(Vec<f32>),
    /// `Qᵀ`, `[⌈head_dim / 2⌉, width]`, and what is left to multiply scores by.
    Paired { pairs: Pairs, q: Vec<Pair>, scale: f32 },
}

impl Query {
    pub(crate) fn of<T: Element>(p: &Problem<'_, T>, block: &RowBlock) -> Query {
        let Some(pairs) = p.kernel.pairs().filter(|_| T::as_bf16(&[]).is_some()) else {
            let mut q = vec![0.0; p.shape.head_dim * block.width];
            block.pack(&p.q, p.scale, &mut q);
            return Query::Wide(q);
        };
        // A power of two may go into bf16 queries, any other scale would round them.
        let exact = p.scale.is_normal() && p.scale.to_bits().trailing_zeros() >= 23 && (1e-6..1e6).contains(&p.scale.abs());
        let (inside, scale) = if exact { (p.scale, 1.0) } else { (1.0, p.scale) };
        let mut wide = vec![0.0; p.shape.head_dim * block.width];
        block.pack(&p.q, inside, &mut wide);
        let mut q = vec![Pair::default(); p.shape.head_dim.div_ceil(2) * block.width];
        pairs.pair_weights(&wide, block.width, &mut q);
        Query::Paired { pairs, q, scale }
    }
}

/// The products of a row block with one tile after another.
pub(crate) struct Products<'a, T> {
    p: &'a Problem<'a, T>,
    query: &'a Query,
    /// Sequence and KV head.
    head: (usize, usize),
    width: usize,
    careful: bool,
    /// Few queries: keys and values stream past, and are asked for one product ahead.
    streams: bool,
    wide: Vec<f32>,
    paired: Vec<Pair>,
    weights: Vec<Pair>,
}

impl<'a, T: Element> Products<'a, T> {
    pub(crate) fn new(p: &'a Problem<'a, T>, block: &RowBlock, query: &'a Query, careful: bool) -> Self {
        let (head, width, streams) = ((block.batch, block.kv_head), block.width, block.rows.len() <= FEW);
        Products { p, query, head, width, careful, streams, wide: Vec::new(), paired: Vec::new(), weights: Vec::new() }
    }

    /// `S = scale · K Qᵀ` of a tile of keys, `[keys, width]`.
    #[inline(always)]
    pub(crate) fn scores<V: Vector>(&mut self, v: V, tile: &Range<usize>, s: &mut [f32]) {
        let (n, width, dim) = (tile.len(), self.width, self.p.shape.head_dim);
        if self.streams {
            prefetch(v, &self.p.kv, Side::Values, self.head, tile.clone());
        }
        match self.query {
            Query::Wide(q) => {
                let Rows { data, stride } = rows(&self.p.kv, Side::Keys, self.head, tile.clone(), &mut self.wide);
                v.call(scores(data, stride, q, s, (n, width, dim)));
            }
            Query::Paired { pairs, q, scale } => {
                let k = dim.div_ceil(2);
                self.paired.resize(TILE * k, Pair::default());
                let paired = &mut self.paired;
                each_row(&self.p.kv, Side::Keys, self.head, tile.clone(), |i, row| pair_elements(row, &mut paired[i * k..][..k]));
                let (a, a_row, a_column) = (&self.paired[..], k, 1);
                pairs.multiply(Product {
                    a,
                    a_row,
                    a_column,
                    b: q,
                    b_row: width,
                    c: s,
                    c_row: width,
                    m: n,
                    n: width,
                    k,
                    add: false,
                    careful: false,
                });
                if *scale != 1.0 {
                    s[..n * width].iter_mut().for_each(|s| *s *= scale);
                }
            }
        }
    }

    /// `O += Vᵀ P` of a tile: weights `s` are `[keys, width]`, `out` is `[value_dim, width]`.
    #[inline(always)]
    pub(crate) fn accumulate<V: Vector>(&mut self, v: V, tile: Range<usize>, s: &[f32], out: &mut [f32]) {
        let (n, width, m, careful) = (tile.len(), self.width, self.p.shape.value_dim, self.careful);
        if self.streams {
            let next = tile.end..(tile.end + TILE).min(self.p.shape.keys(self.head.0));
            prefetch(v, &self.p.kv, Side::Keys, self.head, next);
        }
        match self.query {
            Query::Wide(_) => {
                let Rows { data, stride } = rows(&self.p.kv, Side::Values, self.head, tile, &mut self.wide);
                v.call(Product {
                    a: data,
                    a_row: 1,
                    a_column: stride,
                    b: s,
                    b_row: width,
                    c: out,
                    c_row: width,
                    m,
                    n: width,
                    k: n,
                    add: true,
                    careful,
                });
            }
            Query::Paired { pairs, .. } => {
                let k = n.div_ceil(2);
                self.paired.resize(TILE * m, Pair::default());
                self.weights.resize(TILE / 2 * width, Pair::default());
                pairs.pair_weights(&s[..n * width], width, &mut self.weights[..k * width]);
                let Rows { data, stride } = rows(&self.p.kv, Side::Values, self.head, tile, &mut self.wide);
                for (j, to) in self.paired.chunks_exact_mut(m.max(1)).enumerate().take(k) {
                    let row = |j: usize| data.get(j * stride..j * stride + m).filter(|_| j < n);
                    pair_rows(row(2 * j).unwrap_or_default(), row(2 * j + 1), to);
                }
                let (a, b) = (&self.paired[..], &self.weights[..]);
                pairs.multiply(Product {
                    a,
                    a_row: 1,
                    a_column: m,
                    b,
                    b_row: width,
                    c: out,
                    c_row: width,
                    m,
                    n: width,
                    k,
                    add: true,
                    careful,
                });
            }
        }
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

/// Two rows of bf16 values, widened, become one row of pairs.
#[inline(always)]
fn pair_rows(first: &[f32], second: Option<&[f32]>, to: &mut [Pair]) {
    match second {
        Some(second) => to.iter_mut().zip(first).zip(second).for_each(|((to, a), b)| *to = Pair::of_exact(*a, *b)),
        None => to.iter_mut().zip(first).for_each(|(to, a)| *to = Pair::of_exact(*a, 0.0)),
    }
}

/// Calls `f` with each row of keys or values of a sequence and KV head, as bf16; `f` gets the index within `range`.
#[inline(always)]
fn each_row<T: Element>(
    kv: &Kv<'_, T>,
    side: Side,
    (batch, head): (usize, usize),
    range: Range<usize>,
    mut f: impl FnMut(usize, &[bf16]),
) {
    let mut copied = Vec::new();
    for (i, l) in range.enumerate() {
        let row = match *kv {
            Kv::Dense { k, v } => {
                let view = if let Side::Keys = side { k } else { v };
                view.row(batch, head, l).unwrap_or_else(|| {
                    copied.clear();
                    copied.extend((0..view.shape()[3]).map(|d| view.at([batch, head, l, d])));
                    &copied
                })
            }
            Kv::Paged { cache, layer, seqs } => match side {
                Side::Keys => &cache.key_rows(layer, seqs[batch], head, l)[..cache.shape().head_dim],
                Side::Values => &cache.value_rows(layer, seqs[batch], head, l)[..cache.shape().value_dim],
            },
        };
        f(i, T::as_bf16(row).unwrap_or_default());
    }
}
