//! The five products of the backward pass on a tile: in f32, or in pairs of bf16 where the machine multiplies those faster.
//!
//! ```text
//!   S = scale · K Qᵀ      dP = V dOᵀ      dV += Pᵀ dO      dK += dSᵀ Q      dQ += dS K
//! ```
//! In pairs, Q, K, V and dO enter as they are, P and dS are rounded to bf16; sums are f32 either way.

use std::ops::Range;

use regard_core::{Element, Kv, View};

use crate::block::{RowBlock, Rows, Side, rows, tiles};
use crate::lines::Lines;
use crate::packed::{pair_elements, pair_last_row, pair_rows, row};
use crate::products::{paired_rows, scores};
use crate::simd::{InPanels, Pair, Pairs, Product, Session, Transpose, Vector};
use crate::sweep::Sweep;

/// The keys and values of a sweep, and what they are multiplied with. `keys` are positions in the sweep; `s`, `p` and `ds` are
/// `[keys, width]`, what is added to has rows padded to whole vectors.
pub(crate) trait Factors {
    /// The queries and output gradients of a row block.
    type Block;

    /// Reads a row block.
    fn block<T: Element, V: Vector>(&self, v: V, sweep: &Sweep<'_, '_, T>, block: &RowBlock) -> Self::Block;

    /// What [`Factors::scores`] leaves to be multiplied by.
    fn left(&self) -> f32;

    /// `S = scale · K Qᵀ`, but for [`Factors::left`].
    fn scores<V: Vector>(&self, v: V, block: &Self::Block, keys: &Range<usize>, s: &mut [f32]);

    /// `dP = V dOᵀ`
    fn weight_gradients<V: Vector>(&self, v: V, block: &Self::Block, keys: &Range<usize>, dp: &mut [f32]);

    /// `dV += Pᵀ dO`
    fn value_gradients<V: Vector>(&mut self, v: V, block: &Self::Block, keys: &Range<usize>, p: &[f32], dv: &mut [f32]);

    /// `dK += dSᵀ Q`
    fn key_gradients<V: Vector>(&mut self, v: V, block: &Self::Block, keys: &Range<usize>, ds: &[f32], dk: &mut [f32]);

    /// `dQ += dS K`
    fn query_gradients<V: Vector>(&mut self, v: V, block: &Self::Block, keys: &Range<usize>, ds: &[f32], dq: &mut [f32]);
}

/// A matrix, row by row.
struct Matrix<N> {
    data: Lines<N>,
    /// Elements of a row.
    stride: usize,
}

impl<N: Copy + Default> Matrix<N> {
    /// `rows` rows of `stride` elements, zero where `fill` leaves them.
    #[inline(always)]
    fn of(rows: usize, stride: usize, mut fill: impl FnMut(usize, &mut [N])) -> Self {
        let mut data = Lines::zeros(rows * stride);
        data.chunks_exact_mut(stride.max(1)).enumerate().for_each(|(i, row)| fill(i, row));
        Matrix { data, stride }
    }

    /// The rows from `i` on.
    #[inline(always)]
    fn from(&self, i: usize) -> &[N] {
        &self.data[i * self.stride..]
    }
}

/// `C += A·B`, where `B` is `[k, n]` and `C` is `[m, n]`, both dense.
#[inline(always)]
fn add<'a, N>(
    (a, a_row, a_column): (&'a [N], usize, usize),
    b: &'a [N],
    c: &'a mut [f32],
    (m, n, k): (usize, usize, usize),
    careful: bool,
) -> Product<'a, N> {
    Product { a, a_row, a_column, b, b_row: n, c, c_row: n, m, n, k, add: true, careful }
}

/// The head and query of a row of a block's group.
fn head_and_query<T>(sweep: &Sweep<'_, '_, T>, block: &RowBlock, i: usize) -> (usize, usize) {
    let (shape, row) = (&sweep.p.shape, block.rows.start + i);
    (block.kv_head * shape.group() + row / shape.q_len, row % shape.q_len)
}

/// In f32, rows padded to whole vectors.
pub(crate) struct Wide {
    k: Matrix<f32>,
    v: Matrix<f32>,
    /// The keys once more, tile by tile, in panels as [`InPanels`] has them.
    k_panels: Lines<f32>,
    head_dim: usize,
    value_dim: usize,
    careful: bool,
}

/// A row block in f32.
pub(crate) struct WideBlock {
    rows: usize,
    width: usize,
    /// `scale · Qᵀ` and `dOᵀ`, rows in lanes, and `Q` and `dO`: in panels as [`InPanels`] has them.
    q_lanes: Lines<f32>,
    d_out_lanes: Lines<f32>,
    q: Lines<f32>,
    d_out: Lines<f32>,
}

/// `rows` rows of a matrix, in panels as [`InPanels`] has them.
#[inline(always)]
fn in_panels<V: Vector>(v: V, from: &[f32], stride: usize, to: &mut [f32]) {
    let (rows, panel) = (from.len() / stride.max(1), V::PANEL * V::LANES);
    for first in (0..stride).step_by(panel) {
        let width = panel.min(stride - first);
        for (row, to) in from.chunks_exact(stride).zip(to[first * rows..].chunks_exact_mut(width)) {
            for lane in (0..width).step_by(V::LANES) {
                v.store(v.load(&row[first + lane..]), &mut to[lane..]);
            }
        }
    }
}

/// `factor ·` the transpose of some rows of a matrix, `[dim, width]`, in panels as [`InPanels`] has them.
#[inline(always)]
fn lanes<V: Vector>(v: V, from: &Matrix<f32>, (dim, width): (usize, usize), factor: f32) -> Lines<f32> {
    let (mut lanes, panel, rows) = (Lines::zeros(dim * width), V::PANEL * V::LANES, from.data.len() / from.stride.max(1));
    for first in (0..rows).step_by(panel) {
        let (to_row, rows) = (panel.min(width - first), panel.min(rows - first));
        let to = &mut lanes[first * dim..];
        v.call(Transpose { from: from.from(first), from_row: from.stride, to, to_row, rows, columns: dim });
    }
    if factor != 1.0 {
        lanes.chunks_exact_mut(V::LANES).for_each(|x| v.store(v.mul(v.load(x), v.splat(factor)), x));
    }
    lanes
}

impl Wide {
    #[inline(always)]
    pub(crate) fn of<T: Element, V: Vector>(v: V, sweep: &Sweep<'_, '_, T>) -> Wide {
        let shape = &sweep.p.shape;
        let side = |side, dim: usize| {
            let mut scratch = Vec::new();
            let Rows { data, stride } = rows(&sweep.p.kv, side, (sweep.batch, sweep.kv_head), sweep.keys.clone(), &mut scratch);
            let copy = |i: usize, row: &mut [f32]| row[..dim].copy_from_slice(&data[i * stride..][..dim]);
            Matrix::of(sweep.keys.len(), dim.next_multiple_of(V::LANES), copy)
        };
        let (head_dim, value_dim) = (shape.head_dim, shape.value_dim);
        let (k, values) = (side(Side::Keys, head_dim), side(Side::Values, value_dim));
        let mut k_panels = Lines::zeros(k.data.len());
        for tile in tiles(0..sweep.keys.len()) {
            let part = tile.start * k.stride..tile.end * k.stride;
            in_panels(v, &k.data[part.clone()], k.stride, &mut k_panels[part]);
        }
        Wide { k, v: values, k_panels, head_dim, value_dim, careful: sweep.careful }
    }
}

impl Factors for Wide {
    type Block = WideBlock;

    #[inline(always)]
    fn left(&self) -> f32 {
        1.0
    }

    #[inline(always)]
    fn block<T: Element, V: Vector>(&self, v: V, sweep: &Sweep<'_, '_, T>, block: &RowBlock) -> WideBlock {
        let (rows, width) = (block.rows.len(), block.width);
        let by_row = |from: &View<'_, T>| {
            let read = |i: usize, row: &mut [f32]| {
                let (head, q) = head_and_query(sweep, block, i);
                from.row_into(block.batch, head, q, &mut row[..from.shape()[3]]);
            };
            Matrix::of(rows, from.shape()[3].next_multiple_of(V::LANES), read)
        };
        let (by_row_q, by_row_d) = (by_row(&sweep.p.q), by_row(&sweep.d_out));
        let q_lanes = lanes(v, &by_row_q, (self.head_dim, width), sweep.p.scale);
        let d_out_lanes = lanes(v, &by_row_d, (self.value_dim, width), 1.0);
        let (mut q, mut d_out) = (Lines::zeros(by_row_q.data.len()), Lines::zeros(by_row_d.data.len()));
        in_panels(v, &by_row_q.data, by_row_q.stride, &mut q);
        in_panels(v, &by_row_d.data, by_row_d.stride, &mut d_out);
        WideBlock { rows, width, q_lanes, d_out_lanes, q, d_out }
    }

    #[inline(always)]
    fn scores<V: Vector>(&self, v: V, block: &WideBlock, keys: &Range<usize>, s: &mut [f32]) {
        let sizes = (keys.len(), block.width, self.head_dim);
        v.call(InPanels(scores(self.k.from(keys.start), self.k.stride, &block.q_lanes, s, sizes)));
    }

    #[inline(always)]
    fn weight_gradients<V: Vector>(&self, v: V, block: &WideBlock, keys: &Range<usize>, dp: &mut [f32]) {
        let sizes = (keys.len(), block.width, self.value_dim);
        v.call(InPanels(scores(self.v.from(keys.start), self.v.stride, &block.d_out_lanes, dp, sizes)));
    }

    #[inline(always)]
    fn value_gradients<V: Vector>(&mut self, v: V, block: &WideBlock, keys: &Range<usize>, p: &[f32], dv: &mut [f32]) {
        v.call(InPanels(add((p, block.width, 1), &block.d_out, dv, (keys.len(), self.v.stride, block.rows), self.careful)));
    }

    #[inline(always)]
    fn key_gradients<V: Vector>(&mut self, v: V, block: &WideBlock, keys: &Range<usize>, ds: &[f32], dk: &mut [f32]) {
        v.call(InPanels(add((ds, block.width, 1), &block.q, dk, (keys.len(), self.k.stride, block.rows), self.careful)));
    }

    #[inline(always)]
    fn query_gradients<V: Vector>(&mut self, v: V, block: &WideBlock, keys: &Range<usize>, ds: &[f32], dq: &mut [f32]) {
        let sizes = (block.rows, self.k.stride, keys.len());
        let k = &self.k_panels[keys.start * self.k.stride..];
        v.call(InPanels(add((ds, 1, block.width), k, dq, sizes, self.careful)));
    }
}

/// In pairs of bf16.
pub(crate) struct Paired {
    session: Session,
    pairs: Pairs,
    /// Pairs of neighbours, `[keys, depth]`.
    k: Matrix<Pair>,
    v: Matrix<Pair>,
    /// Pairs of rows, `[keys / 2, head_dim padded]`.
    k_rows: Matrix<Pair>,
    /// P or dS of a tile in pairs.
    weights: Lines<Pair>,
    scale: f32,
    careful: bool,
}

/// A row block in pairs.
pub(crate) struct PairedBlock {
    rows: usize,
    width: usize,
    /// `Qᵀ` and `dOᵀ`, `[depth, width]`.
    q_lanes: Lines<Pair>,
    d_out_lanes: Lines<Pair>,
    /// `Q` and `dO` as pairs of rows, `[rows / 2, dim padded]`.
    q: Matrix<Pair>,
    d_out: Matrix<Pair>,
}

/// Keys as pairs of rows, `[rows / 2, stride]`; row `i` is that of the head and position `at(i)`.
#[inline(always)]
fn rows_in_pairs<T: Element>(
    kv: &Kv<'_, T>,
    rows: usize,
    stride: usize,
    at: impl Fn(usize) -> ((usize, usize), usize),
) -> Matrix<Pair> {
    let (mut one, mut two) = (Vec::new(), Vec::new());
    Matrix::of(rows.div_ceil(2), stride, |j, to| {
        let (head, l) = at(2 * j);
        let first = row(kv, Side::Keys, head, l, &mut one);
        if 2 * j + 1 < rows {
            let (head, l) = at(2 * j + 1);
            pair_rows(first, row(kv, Side::Keys, head, l, &mut two), to);
        } else {
            pair_last_row(first, to);
        }
    })
}

impl Paired {
    #[inline(always)]
    pub(crate) fn of<T: Element, V: Vector>(_: V, sweep: &Sweep<'_, '_, T>, pairs: Pairs) -> Paired {
        let (shape, head) = (&sweep.p.shape, (sweep.batch, sweep.kv_head));
        let mut copy = Vec::new();
        let mut neighbours = |side, dim| {
            let read = |i: usize, to: &mut [Pair]| {
                pair_elements(row(&sweep.p.kv, side, head, sweep.keys.start + i, &mut copy), to);
            };
            Matrix::of(sweep.keys.len(), pairs.depth(dim), read)
        };
        let (k, v) = (neighbours(Side::Keys, shape.head_dim), neighbours(Side::Values, shape.value_dim));
        let (keys, stride) = (sweep.keys.clone(), shape.head_dim.next_multiple_of(V::LANES));
        let k_rows = rows_in_pairs(&sweep.p.kv, keys.len(), stride, |i| (head, keys.start + i));
        let (session, weights, scale, careful) = (pairs.open(), Lines::default(), sweep.p.scale, sweep.careful);
        Paired { session, pairs, k, v, k_rows, weights, scale, careful }
    }
}

impl Factors for Paired {
    type Block = PairedBlock;

    #[inline(always)]
    fn left(&self) -> f32 {
        self.scale
    }

    #[inline(always)]
    fn block<T: Element, V: Vector>(&self, _: V, sweep: &Sweep<'_, '_, T>, block: &RowBlock) -> PairedBlock {
        let (rows, width) = (block.rows.len(), block.width);
        let by_row = |from: View<'_, T>| {
            let dim = from.shape()[3];
            let from = Kv::from((from, from)); // read as keys are
            rows_in_pairs(&from, rows, dim.next_multiple_of(V::LANES), |i| {
                let (head, q) = head_and_query(sweep, block, i);
                ((block.batch, head), q)
            })
        };
        let lanes = |from| paired_rows(self.pairs, sweep.p.kernel, block, from);
        let (q_lanes, d_out_lanes) = (lanes(&sweep.p.q), lanes(&sweep.d_out));
        PairedBlock { rows, width, q_lanes, d_out_lanes, q: by_row(sweep.p.q), d_out: by_row(sweep.d_out) }
    }

    #[inline(always)]
    fn scores<V: Vector>(&self, _: V, block: &PairedBlock, keys: &Range<usize>, s: &mut [f32]) {
        let sizes = (keys.len(), block.width, self.k.stride);
        self.session.multiply(scores(self.k.from(keys.start), self.k.stride, &block.q_lanes, s, sizes));
    }

    #[inline(always)]
    fn weight_gradients<V: Vector>(&self, _: V, block: &PairedBlock, keys: &Range<usize>, dp: &mut [f32]) {
        let sizes = (keys.len(), block.width, self.v.stride);
        self.session.multiply(scores(self.v.from(keys.start), self.v.stride, &block.d_out_lanes, dp, sizes));
    }

    #[inline(always)]
    fn value_gradients<V: Vector>(&mut self, _: V, block: &PairedBlock, keys: &Range<usize>, p: &[f32], dv: &mut [f32]) {
        let (half, sizes) = (block.width / 2, (keys.len(), block.d_out.stride, block.rows.div_ceil(2)));
        let weights = self.weights.room(keys.len() * half);
        self.pairs.pair_neighbours(&p[..keys.len() * block.width], weights);
        self.session.multiply(add((weights, half, 1), &block.d_out.data, dv, sizes, self.careful));
    }

    #[inline(always)]
    fn key_gradients<V: Vector>(&mut self, _: V, block: &PairedBlock, keys: &Range<usize>, ds: &[f32], dk: &mut [f32]) {
        let (half, sizes) = (block.width / 2, (keys.len(), block.q.stride, block.rows.div_ceil(2)));
        let weights = self.weights.room(keys.len() * half);
        self.pairs.pair_neighbours(&ds[..keys.len() * block.width], weights);
        self.session.multiply(add((weights, half, 1), &block.q.data, dk, sizes, self.careful));
    }

    #[inline(always)]
    fn query_gradients<V: Vector>(&mut self, _: V, block: &PairedBlock, keys: &Range<usize>, ds: &[f32], dq: &mut [f32]) {
        let (width, k) = (block.width, keys.len().div_ceil(2));
        let weights = self.weights.room(k * width);
        self.pairs.pair_weights(&ds[..keys.len() * width], width, weights);
        let sizes = (block.rows, self.k_rows.stride, k);
        self.session.multiply(add((weights, 1, width), self.k_rows.from(keys.start / 2), dq, sizes, self.careful));
    }
}
