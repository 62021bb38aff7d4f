//! The two products of a tile: in f32, or in pairs of bf16 where the machine multiplies those faster.
//!
//! ```text
//!   S = scale · K Qᵀ      O += Vᵀ P
//! ```
//! In pairs, queries, keys and values enter as they are and weights are rounded to bf16; sums are f32 either way.

use std::ops::Range;

use regard_core::{Element, View};

use crate::block::{RowBlock, Rows, Side, ranges};
use crate::lines::Lines;
use crate::packed::{Packed, pair_elements, view_row};
use crate::simd::{FewScores, InPanels, Pair, Pairs, Product, Session, Transpose, Vector};
use crate::{Kernel, Problem, TILE};

/// The queries of a row block, as the products read them.
pub(crate) enum Query {
    /// `scale · Qᵀ`, in panels as [`InPanels`] has them.
    Wide(Lines<f32>),
    /// `Qᵀ`, `[depth, width]` (see [`Pairs::depth`]), and what is left to multiply scores by.
    Paired { pairs: Pairs, q: Vec<Pair>, scale: f32 },
}

impl Query {
    pub(crate) fn of<T: Element>(p: &Problem<'_, T>, block: &RowBlock) -> Query {
        if let Some(pairs) = p.kernel.pairs().filter(|_| T::as_bf16(&[]).is_some()) {
            let (q, scale) = Query::paired(pairs, block, &p.q, p.scale);
            return Query::Paired { pairs, q, scale };
        }
        let mut q = Lines::zeros(p.shape.head_dim * block.width);
        block.pack(&p.q, p.scale, p.kernel.panel(), &mut q);
        Query::Wide(q)
    }

    /// The rows of a block as pairs, `[depth, width]`, and what is left of `scale`: a power of two may go into bf16, any other scale
    /// would round it.
    pub(crate) fn paired<T: Element>(pairs: Pairs, block: &RowBlock, from: &View<'_, T>, scale: f32) -> (Vec<Pair>, f32) {
        let (dim, width) = (from.shape()[3], block.width);
        let exact = scale.is_normal() && scale.to_bits().trailing_zeros() >= 23 && (1e-6..1e6).contains(&scale.abs());
        let (inside, left) = if exact { (scale, 1.0) } else { (1.0, scale) };
        let mut wide = vec![0.0; dim * width];
        block.pack(from, inside, width, &mut wide);
        let mut q = vec![Pair::default(); pairs.depth(dim) * width];
        pairs.pair_weights(&wide, width, &mut q);
        (q, left)
    }
}

/// The rows of a block in bf16, as they are, in pairs and turned: `[depth, width]`.
pub(crate) fn paired_rows<T: Element>(pairs: Pairs, kernel: Kernel, block: &RowBlock, from: &View<'_, T>) -> Lines<Pair> {
    let (depth, width) = (pairs.depth(from.shape()[3]), block.width);
    let (mut rows, mut turned, mut copy) = (Lines::zeros(width * depth), Lines::zeros(depth * width), Vec::new());
    for run in &block.runs {
        for (lane, q) in run.lanes.clone().zip(run.q..) {
            pair_elements(view_row(from, [block.batch, run.head, q], &mut copy), &mut rows[lane * depth..][..depth]);
        }
    }
    let (from, to) = (Pair::bits(&rows), Pair::bits_mut(&mut turned));
    kernel.run(Transpose { from, from_row: depth, to, to_row: width, rows: width, columns: depth });
    turned
}

/// A [`Query`] in use by one thread.
enum Factors<'a> {
    Wide(&'a [f32]),
    Paired { session: Session, pairs: Pairs, q: &'a [Pair], scale: f32 },
}

impl Query {
    fn open(&self) -> Factors<'_> {
        match self {
            Query::Wide(q) => Factors::Wide(q),
            Query::Paired { pairs, q, scale } => Factors::Paired { session: pairs.open(), pairs: *pairs, q, scale: *scale },
        }
    }
}

/// Query rows up to which keys and values, not queries, fill the vectors: with fewer rows than lanes, most lanes would idle.
///
/// An element is the same chain of operations either way (over `d` for a score, over keys for an output), so the bits are the same.
pub(crate) const FEW: usize = 8;

/// Values that few rows take at once, between two looks ahead.
const AT_ONCE: usize = 8;

/// Buffers of few rows, which the row blocks of a thread use one after another: they grow, and hold what the last one left.
#[derive(Default)]
pub(crate) struct Turned {
    /// Some values with their rows padded.
    wide: Vec<f32>,
    paired: Vec<Pair>,
    weights: Vec<Pair>,
    /// Scores, `[rows, TILE]`.
    s_t: Vec<f32>,
}

/// The products of a row block with one tile after another.
pub(crate) struct Products<'a, T> {
    p: &'a Problem<'a, T>,
    factors: Factors<'a>,
    rows: usize,
    width: usize,
    few: bool,
    careful: bool,
    turned: &'a mut Turned,
}

impl<'a, T: Element> Products<'a, T> {
    pub(crate) fn new(p: &'a Problem<'a, T>, block: &RowBlock, query: &'a Query, careful: bool, turned: &'a mut Turned) -> Self {
        let (rows, width) = (block.rows.len(), block.width);
        let factors = query.open();
        let few = rows <= FEW;
        Products { p, factors, rows, width, few, careful, turned }
    }

    /// Zeros for the output while it is gathered: `[value_dim, width]`, or, of few rows, `[rows, value_dim padded]`.
    pub(crate) fn output<V: Vector>(&self, _: V) -> Lines<f32> {
        let dim = self.p.shape.value_dim;
        Lines::zeros(if self.few { self.rows * dim.next_multiple_of(V::LANES) } else { dim * self.width })
    }

    /// A gathered output as `[value_dim, width]`.
    pub(crate) fn finish<V: Vector>(&self, _: V, gathered: Lines<f32>) -> Lines<f32> {
        if !self.few {
            return gathered;
        }
        let dim = self.p.shape.value_dim;
        let mut out = Lines::zeros(dim * self.width);
        for (i, row) in gathered.chunks_exact(dim.next_multiple_of(V::LANES).max(1)).enumerate() {
            row[..dim].iter().zip(out[i..].iter_mut().step_by(self.width)).for_each(|(x, to)| *to = *x);
        }
        out
    }

    /// Scales the gathered output of each row, as its maximum moves.
    #[inline(always)]
    pub(crate) fn rescale<V: Vector>(&self, v: V, decay: &[f32], out: &mut [f32]) {
        if decay.iter().fold(true, |still, decay| still & (*decay == 1.0)) {
            return;
        }
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
    pub(crate) fn scores<V: Vector>(&mut self, v: V, packed: &mut Packed<'_, T>, tile: &Range<usize>, s: &mut [f32]) {
        let (n, rows_len, width, dim) = (tile.len(), self.rows, self.width, self.p.shape.head_dim);
        let Turned { paired, s_t, .. } = &mut *self.turned;
        let s_t = if self.few { room(s_t, rows_len * TILE) } else { &mut [] };
        match &self.factors {
            Factors::Paired { session, pairs, q, scale } => {
                let k = pairs.depth(dim);
                let keys = packed.key_pairs(v, *pairs, tile);
                let scaled = if self.few {
                    let keys_t = room(paired, k * TILE);
                    let (from, to) = (Pair::bits(keys), Pair::bits_mut(keys_t));
                    v.call(Transpose { from, from_row: k, to, to_row: TILE, rows: n, columns: k });
                    session.multiply(few_scores(q, keys_t, s_t, (rows_len, width, k)));
                    &mut *s_t
                } else {
                    session.multiply(scores(keys, k, q, s, (n, width, k)));
                    &mut s[..n * width]
                };
                if *scale != 1.0 {
                    scaled.iter_mut().for_each(|s| *s *= scale);
                }
            }
            Factors::Wide(q) => {
                if self.few {
                    packed.each_run(Side::Keys, tile, V::LANES, |keys, Rows { data: k, stride: k_row }, soon| {
                        let (s, keys) = (&mut s_t[keys.start..], keys.len());
                        v.call(FewScores { k, k_row, keys, dim, q, width, rows: rows_len, s, s_row: TILE, soon });
                    });
                } else {
                    let Rows { data, stride } = packed.keys(tile);
                    v.call(InPanels(scores(data, stride, q, s, (n, width, dim))));
                }
            }
        }
        for (i, row) in s_t.chunks_exact(TILE).enumerate() {
            row[..n].iter().zip(s[i..].iter_mut().step_by(width)).for_each(|(x, s)| *s = *x);
        }
    }

    /// `O += Vᵀ P` of a tile: weights `s` are `[keys, width]`, `out` is as [`Products::output`] made it.
    #[inline(always)]
    pub(crate) fn accumulate<V: Vector>(
        &mut self,
        v: V,
        packed: &mut Packed<'_, T>,
        tile: &Range<usize>,
        s: &[f32],
        out: &mut [f32],
    ) {
        let (n, width, dim, careful) = (tile.len(), self.width, self.p.shape.value_dim, self.careful);
        let padded = dim.next_multiple_of(V::LANES);
        // Columns from `dim` to `padded` keep what they held: what comes of them is not read.
        match &self.factors {
            Factors::Wide(_) => {
                if !self.few {
                    let values = packed.values_t(v, tile);
                    return v.call(outputs(values, (TILE, 1), s, out, (dim, width, n), careful));
                }
                let (rows, wide) = (self.rows, &mut self.turned.wide);
                packed.each_run(Side::Values, tile, V::LANES, |keys, Rows { data, stride }, soon| {
                    for few in ranges(0..keys.len(), AT_ONCE) {
                        soon.ask(v, few.clone(), 0..dim);
                        let (mut data, mut stride, n) = (&data[few.start * stride..], stride, few.len());
                        if padded != dim {
                            let values = room(wide, AT_ONCE * padded);
                            for (i, to) in values.chunks_exact_mut(padded).enumerate().take(n) {
                                to[..dim].copy_from_slice(&data[i * stride..][..dim]);
                            }
                            (data, stride) = (values, padded);
                        }
                        v.call(few_outputs(
                            &s[(keys.start + few.start) * width..],
                            width,
                            data,
                            stride,
                            out,
                            (rows, padded, n),
                            careful,
                        ));
                    }
                });
            }
            Factors::Paired { session, pairs, .. } => {
                let k = n.div_ceil(2);
                let weights = room(&mut self.turned.weights, TILE / 2 * width);
                pairs.pair_weights(&s[..n * width], width, &mut weights[..k * width]);
                let weights = &*weights;
                session.multiply(match self.few {
                    true => few_outputs(
                        weights,
                        width,
                        packed.value_pairs(v, tile, padded),
                        padded,
                        out,
                        (self.rows, padded, k),
                        careful,
                    ),
                    false => outputs(packed.value_pairs_t(v, tile), (TILE / 2, 1), weights, out, (dim, width, k), careful),
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

/// `O += Vᵀ·P`, `[dim, width]`: element `(d, j)` of `Vᵀ` is `v[d · a_row + j · a_column]`, `p` is `[keys, width]`.
#[inline(always)]
fn outputs<'a, N>(
    v: &'a [N],
    (a_row, a_column): (usize, usize),
    p: &'a [N],
    out: &'a mut [f32],
    (dim, width, keys): (usize, usize, usize),
    careful: bool,
) -> Product<'a, N> {
    let add = true;
    Product { a: v, a_row, a_column, b: p, b_row: width, c: out, c_row: width, m: dim, n: width, k: keys, add, careful }
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

/// The first `n` elements of a buffer, which grows where it has fewer; what is there stays.
#[inline(always)]
pub(crate) fn room<N: Clone + Default>(buffer: &mut Vec<N>, n: usize) -> &mut [N] {
    if buffer.len() < n {
        buffer.resize(n, N::default());
    }
    &mut buffer[..n]
}
