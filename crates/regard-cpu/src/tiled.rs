//! Attention forward in the tiles of AMX: a span of keys against a row block of bf16 queries.
//!
//! ```text
//!   S = K Qᵀ      P = 2^(log₂e · (scale · S − m))      ℓ += Σ P      O += Vᵀ P
//! ```
//! Every factor lies in tiles of 1 KiB, one after another: sixteen rows of sixteen pairs. The scores of the next tile of keys are
//! computed while the weights of this one are: products and exponentials have units of their own. Source: as `forward.rs`.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use regard_core::{Element, Patch, Tile};

use crate::block::{RowBlock, Side, apply, tiles};
use crate::exp::{exp, exp2_of_weight};
use crate::forward::{Partial, drop_out, finite, stabiliser};
use crate::lines::Lines;
use crate::packed::{Soon, each_key, pair_elements, pair_values, rows_together, view_row};
use crate::rule::TileRule;
use crate::simd::{Amx, Factor, Meanwhile, Pair, SIDE, Task, TileProduct, Tiles, Transpose, Vector, Weigh};
use crate::{Problem, SPAN, TILE};

/// Pairs of a tile.
const PAIRS: usize = SIDE * SIDE;

/// Tiles that a row of so many numbers takes.
fn steps(dim: usize) -> usize {
    dim.div_ceil(2 * SIDE)
}

/// The instructions, where the kernel has them and the numbers are bf16.
pub(crate) fn amx<T: Element>(p: &Problem<'_, T>) -> Option<Amx> {
    p.kernel.pairs().filter(|_| T::as_bf16(&[]).is_some()).and_then(|pairs| pairs.amx())
}

/// `Qᵀ` of a row block, as it is: a scale would round it.
pub(crate) fn queries<T: Element>(p: &Problem<'_, T>, block: &RowBlock) -> Lines<Pair> {
    let (depth, width) = (steps(p.shape.head_dim) * SIDE, block.width);
    let (mut rows, mut tiles, mut copy) = (vec![Pair::default(); width * depth], Lines::zeros(width * depth), Vec::new());
    for run in &block.runs {
        for (lane, q) in run.lanes.clone().zip(run.q..) {
            pair_elements(view_row(&p.q, [block.batch, run.head, q], &mut copy), &mut rows[lane * depth..][..depth]);
        }
    }
    let blocks = rows.chunks_exact((SIDE * depth).max(1)).zip(tiles.chunks_exact_mut((SIDE * depth).max(1)));
    for (rows, tiles) in blocks {
        let (from, to) = (Pair::bits(rows), Pair::bits_mut(tiles));
        p.kernel.run(Transpose { from, from_row: depth, to, to_row: SIDE, rows: SIDE, columns: depth });
    }
    tiles
}

/// Keys and values of some tiles that follow each other, prepared once for all row blocks of a band.
pub(crate) struct Prepared {
    /// Places for so many tiles of keys, and the first key of each that is there.
    keys: Vec<(usize, Lines<Pair>)>,
    /// `Vᵀ` of a span, and the first key of each tile that is there.
    values: Lines<Pair>,
    held: [usize; SPAN / TILE],
    /// Pairs of rows of values before they are turned, `[TILE / 2, value_dim]`.
    rows: Lines<Pair>,
}

impl Prepared {
    /// Places for `places` tiles of keys.
    pub(crate) fn new(places: usize) -> Self {
        let keys = (0..places).map(|_| (usize::MAX, Lines::default())).collect();
        Prepared { keys, values: Lines::default(), held: [usize::MAX; _], rows: Lines::default() }
    }

    /// `K` of a tile of keys, `A` of a product.
    #[inline(always)]
    fn keys<'a, T: Element, V: Vector>(
        &'a mut self,
        v: V,
        p: &Problem<'a, T>,
        head: (usize, usize),
        tile: &Range<usize>,
    ) -> Factor<'a> {
        let steps = steps(p.shape.head_dim);
        let places = self.keys.len();
        if places == 1
            && let Some(in_place) = keys_in_place(p, head, tile)
        {
            return in_place;
        }
        let (held, place) = &mut self.keys[tile.start / TILE % places];
        if *held != tile.start && steps > 0 {
            *held = tile.start;
            let to = place.room(TILE * steps * SIDE);
            each_key(v, p, head, (tile, places == 1), &mut Vec::new(), |l, row| {
                let to = to[l / SIDE * steps * PAIRS + l % SIDE * SIDE..].chunks_mut(PAIRS);
                row.chunks(2 * SIDE).zip(to).for_each(|(part, to)| pair_elements(part, &mut to[..SIDE]));
            });
        }
        Factor { data: place, row: SIDE, block: steps * PAIRS, step: PAIRS, ahead: 0 }
    }

    /// Pairs of rows of `V` of some keys of a span, `B` of a product; what is beyond the keys is zero.
    #[inline(always)]
    fn value_rows<T: Element, V: Vector>(
        &mut self,
        v: V,
        p: &Problem<'_, T>,
        head: (usize, usize),
        keys: &Range<usize>,
    ) -> Factor<'_> {
        let row = p.shape.value_dim.next_multiple_of(SIDE);
        let all = self.values.room(SPAN / 2 * row);
        for tile in tiles(keys.clone()) {
            let to = &mut all[tile.start % SPAN / 2 * row..][..TILE / 2 * row];
            pair_values(v, p, head, (&tile, true), (to, row), &mut Default::default());
        }
        Factor { data: &all[keys.start % SPAN / 2 * row..], row, block: SIDE, step: SIDE * row, ahead: 0 }
    }

    /// `Vᵀ` of some keys of a span, `A` of a product; what is beyond the keys is zero.
    #[inline(always)]
    fn values<T: Element, V: Vector>(&mut self, v: V, p: &Problem<'_, T>, head: (usize, usize), keys: &Range<usize>) -> Factor<'_> {
        let dim = p.shape.value_dim;
        let step = dim.div_ceil(SIDE) * PAIRS;
        let all = self.values.room(SPAN / (2 * SIDE) * step);
        for tile in tiles(keys.clone()) {
            let held = &mut self.held[tile.start % SPAN / TILE];
            if *held == tile.start {
                continue;
            }
            *held = tile.start;
            let rows = self.rows.room(TILE / 2 * dim);
            pair_values(v, p, head, (&tile, false), (rows, dim), &mut Default::default());
            let turned = all[tile.start % SPAN / (2 * SIDE) * step..].chunks_exact_mut(step.max(1));
            for (rows, to) in rows.chunks_exact((SIDE * dim).max(1)).zip(turned) {
                let (from, to) = (Pair::bits(rows), Pair::bits_mut(to));
                v.call(Transpose { from, from_row: dim, to, to_row: SIDE, rows: SIDE, columns: dim });
            }
        }
        Factor { data: &all[keys.start % SPAN / (2 * SIDE) * step..], row: SIDE, block: PAIRS, step, ahead: 0 }
    }
}

/// Whole rows of pairs, a whole tile of them, where they lie: each is read once.
fn keys_in_place<'a, T: Element>(p: &Problem<'a, T>, head: (usize, usize), tile: &Range<usize>) -> Option<Factor<'a>> {
    let dim = p.shape.head_dim;
    let (rows, stride, n) = rows_together(&p.kv, Side::Keys, head, tile.clone())?;
    if n < TILE || stride % 2 != 0 || dim == 0 || !dim.is_multiple_of(2 * SIDE) {
        return None;
    }
    let (data, row) = (Pair::of(T::as_bf16(rows)?)?, stride / 2);
    let ahead = Soon::after(p, Side::Keys, head, tile).distance(rows, stride, n) / 2;
    Some(Factor { data, row, block: SIDE * row, step: SIDE, ahead })
}

/// Buffers which the row blocks of a thread use one after another.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Scores of two tiles, `[2, TILE, width]`.
    s: Lines<f32>,
    /// What the sums of a tile's weights are; before that, what maxima that moved scale the gathered output by.
    sums: Lines<f32>,
    /// Weights of a span in tiles, lanes before keys.
    weights: Lines<Pair>,
    /// A gathered output of few rows.
    turned: Lines<f32>,
    /// A state that nobody needs any more.
    pub(crate) spare: Option<Partial>,
}

/// One span of keys: its own partial softmax, or nothing where the mask hides it all.
pub(crate) struct Span<'a, T> {
    pub(crate) amx: Amx,
    pub(crate) p: &'a Problem<'a, T>,
    pub(crate) rule: &'a dyn TileRule,
    pub(crate) block: &'a RowBlock,
    pub(crate) q: &'a [Pair],
    pub(crate) keys: Range<usize>,
    pub(crate) careful: bool,
    pub(crate) prepared: &'a mut Prepared,
    pub(crate) scratch: &'a mut Scratch,
}

impl<T: Element> Task for Span<'_, T> {
    type Out = Option<Partial>;

    #[inline(always)]
    fn run<V: Vector>(self, v: V) -> Option<Partial> {
        let Span { amx, p, rule, block, q, keys, careful, prepared, scratch } = self;
        let width = block.width;
        let (mut s, mut next_s) = scratch.s.room(2 * TILE * width).split_at_mut(TILE * width);
        let (sums, weights) = (scratch.sums.room(width), scratch.weights.room(SPAN / 2 * width));
        // A positive scale is left to the exponentials, where no score asks for it before.
        let left = if !rule.has_score() && p.scale > 0.0 { p.scale } else { 1.0 };
        let head = (block.batch, block.kv_head);
        let products = Products { p, head, q, width, left, tiles: amx.open(), careful };
        let finish_scores = |tile: &Range<usize>, kinds: &[(Tile, Patch)], s: &mut [f32]| {
            let (seen, beyond) = s.split_at_mut(tile.len() * width);
            if left != p.scale {
                seen.iter_mut().for_each(|s| *s *= p.scale);
            }
            apply(rule, p.kernel, kinds, seen); // score(S), mask
            beyond.fill(f32::NEG_INFINITY);
        };
        let mut seen = tiles(keys).filter_map(|tile| block.tile(&p.shape, rule, &tile).map(|kinds| (tile, kinds)));
        let (first, kinds) = seen.next()?;
        for lane in (0..width).step_by(2 * SIDE) {
            products.scores(v, prepared, &first, lane, s, &mut ()); // S = K Qᵀ
        }
        finish_scores(&first, &kinds, s);
        let mut state = Partial::again(scratch.spare.take(), width, p.shape.value_dim.next_multiple_of(SIDE));
        let mut waiting = Waiting { keys: first.start..first.start, gathered: false };
        let mut tile = first;
        loop {
            let next = seen.next();
            let mut ahead = next.as_ref().map(|(tile, _)| tile);
            // The stabiliser moves only where a weight exceeds e^SLACK: the sums of the weights will tell.
            let mut known = p.dropout.is_none() && !state.max.contains(&f32::NEG_INFINITY);
            loop {
                if !known && v.call(Stabilise { state: &mut state, s, scale: left, decay: sums }) {
                    products.settle(v, prepared, &mut waiting, weights, &mut state.out);
                    if waiting.gathered {
                        v.call(Rescale { out: &mut state.out, decay: sums, few: products.few() }); // m
                    }
                }
                if p.dropout.is_some() {
                    v.call(Weights { max: &state.max, s, scale: left, sums });
                    drop_out(p, block, &tile, s);
                }
                let to = &mut weights[waiting.keys.len() / 2 * SIDE..];
                for lane in (0..width).step_by(2 * SIDE) {
                    let ahead = ahead.map(|tile| (&mut *prepared, tile, &mut *next_s));
                    let lanes = Lanes { lane, max: &state.max, s, sums, to };
                    match width - lane > SIDE {
                        true => products.weigh::<V, 2>(v, lanes, ahead), // P, ℓ and, meanwhile, S of the next tile
                        false => products.weigh::<V, 1>(v, lanes, ahead),
                    }
                }
                ahead = None;
                if !known || sums.iter().fold(true, |all, sum| all & (*sum < E_SLACK)) {
                    break;
                }
                known = false;
            }
            state.sum.iter_mut().zip(&*sums).for_each(|(to, sum)| *to += sum);
            waiting.keys.end = tile.end;
            let Some((next, kinds)) = next else { break };
            finish_scores(&next, &kinds, next_s);
            std::mem::swap(&mut s, &mut next_s);
            if waiting.keys.end != next.start || products.few() {
                products.settle(v, prepared, &mut waiting, weights, &mut state.out);
                waiting.keys = next.start..next.start;
            }
            tile = next;
        }
        products.settle(v, prepared, &mut waiting, weights, &mut state.out);
        if products.few() {
            let (dim, from) = (state.out.len() / SIDE, scratch.turned.room(state.out.len()));
            from.copy_from_slice(&state.out);
            v.call(Transpose { from, from_row: dim, to: &mut state.out, to_row: SIDE, rows: SIDE, columns: dim });
        }
        Some(state)
    }
}

/// Weights below `e^SLACK` leave the stabiliser where it is, and so do all of a tile whose sum is below it.
const E_SLACK: f32 = 2980.0;

/// Keys whose weights wait for their product with the values: the output is read and written once for all of them. Products add to it in
/// the same order, however many wait.
struct Waiting {
    keys: Range<usize>,
    /// Whether there is an output to add to.
    gathered: bool,
}

/// What the weights of a tile are made of, and where they go.
struct Lanes<'a> {
    /// The first lane.
    lane: usize,
    /// Maxima of all lanes.
    max: &'a [f32],
    /// Scores, `[TILE, width]`: −∞ beyond the keys.
    s: &'a [f32],
    /// Sums of all lanes.
    sums: &'a mut [f32],
    /// From the first key on: lanes are `SPAN / 2` rows of sixteen apart.
    to: &'a mut [Pair],
}

/// The two products of a row block.
struct Products<'a, T> {
    p: &'a Problem<'a, T>,
    /// Sequence and KV head.
    head: (usize, usize),
    q: &'a [Pair],
    width: usize,
    /// What scores are still to be multiplied by.
    left: f32,
    tiles: Tiles,
    careful: bool,
}

impl<T: Element> Products<'_, T> {
    /// `S = K Qᵀ`, `[keys, width]`, in the lanes from `lane` on, up to two tiles of them.
    #[inline(always)]
    fn scores<V: Vector>(
        &self,
        v: V,
        prepared: &mut Prepared,
        tile: &Range<usize>,
        lane: usize,
        s: &mut [f32],
        meanwhile: &mut impl Meanwhile,
    ) {
        let (steps, c_row) = (steps(self.p.shape.head_dim), self.width);
        let a = prepared.keys(v, self.p, self.head, tile);
        let b = Factor { data: &self.q[lane * steps * SIDE..], row: SIDE, block: steps * PAIRS, step: PAIRS, ahead: 0 };
        let (rows, columns) = (tile.len().div_ceil(SIDE), ((self.width - lane) / SIDE).min(2));
        let product = TileProduct { a, b, c: &mut s[lane..], c_row, rows, columns, steps, add: false, careful: false };
        self.tiles.product(product, meanwhile);
    }

    /// Weights of `W` vectors of lanes and, meanwhile, their scores of another tile.
    #[inline(always)]
    fn weigh<V: Vector, const W: usize>(&self, v: V, of: Lanes<'_>, ahead: Option<(&mut Prepared, &Range<usize>, &mut [f32])>) {
        let Lanes { lane, max, s, sums, to } = of;
        let (s, to, block) = ((&s[lane..], self.width), &mut to[lane * SPAN / 2..], SPAN / 2 * SIDE);
        if self.p.dropout.is_some() {
            if let Some((prepared, tile, s)) = ahead {
                self.scores(v, prepared, tile, lane, s, &mut ());
            }
            return pack(v, s, (to, block), W);
        }
        let mut m = [v.splat(0.0); W];
        for (w, m) in m.iter_mut().enumerate() {
            *m = exponent(v, &max[lane + w * SIDE..]);
        }
        let products = TILE / SIDE * W * steps(self.p.shape.head_dim);
        let mut weigh = Weigh::new(v, s, (to, block), (self.left * LOG2_E, m), (TILE / 2).div_ceil(products.max(1)));
        if let Some((prepared, tile, s)) = ahead {
            self.scores(v, prepared, tile, lane, s, &mut weigh);
        }
        for (w, sum) in weigh.finish().into_iter().enumerate() {
            v.store(sum, &mut sums[lane + w * SIDE..]);
        }
    }

    /// `O += Vᵀ P` of the keys whose weights wait; of few rows `Oᵀ += Pᵀ V`, which turns the weights and not the values.
    ///
    /// An element is the same chain of operations either way, so the bits are the same.
    #[inline(always)]
    fn settle<V: Vector>(&self, v: V, prepared: &mut Prepared, waiting: &mut Waiting, weights: &mut [Pair], out: &mut [f32]) {
        let Waiting { keys, gathered } = waiting;
        if Range::is_empty(keys) {
            return;
        }
        let (dim, steps) = (self.p.shape.value_dim.div_ceil(SIDE), keys.len().div_ceil(2 * SIDE));
        let (a, b, rows, columns);
        if self.few() {
            for tile in weights.as_chunks_mut::<PAIRS>().0.iter_mut().take(steps) {
                let from = *tile;
                let (from, to) = (Pair::bits(&from), Pair::bits_mut(tile));
                v.call(Transpose { from, from_row: SIDE, to, to_row: SIDE, rows: SIDE, columns: SIDE });
            }
            (a, b) = (
                Factor { data: weights, row: SIDE, block: 0, step: PAIRS, ahead: 0 },
                prepared.value_rows(v, self.p, self.head, keys),
            );
            (rows, columns) = (1, dim);
        } else {
            (a, b) = (
                prepared.values(v, self.p, self.head, keys),
                Factor { data: weights, row: SIDE, block: SPAN / 2 * SIDE, step: PAIRS, ahead: 0 },
            );
            (rows, columns) = (dim, self.width / SIDE);
        }
        let (c_row, add, careful) = (columns * SIDE, *gathered, self.careful);
        self.tiles.product(TileProduct { a, b, c: out, c_row, rows, columns, steps, add, careful }, &mut ());
        (*keys, *gathered) = (keys.end..keys.end, true);
    }

    /// Whether one tile of lanes holds all rows. Then the output is gathered as `[SIDE, value_dim padded]`.
    #[inline(always)]
    fn few(&self) -> bool {
        self.width == SIDE
    }
}

/// Scales the gathered output of each row, as its maximum moves.
struct Rescale<'a> {
    out: &'a mut [f32],
    decay: &'a [f32],
    few: bool,
}

impl Task for Rescale<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        if self.few {
            let rows = self.out.chunks_exact_mut((self.out.len() / self.decay.len()).max(1));
            for (row, decay) in rows.zip(self.decay) {
                row.chunks_exact_mut(V::LANES).for_each(|x| v.store(v.mul(v.load(x), v.splat(*decay)), x));
            }
            return;
        }
        for row in self.out.chunks_exact_mut(self.decay.len()) {
            for (x, decay) in row.chunks_exact_mut(V::LANES).zip(self.decay.chunks_exact(V::LANES)) {
                v.store(v.mul(v.load(x), v.load(decay)), x);
            }
        }
    }
}

/// The stabiliser of a tile: maxima move where they must, and what was gathered must then be scaled by `decay`. Says whether any moved.
struct Stabilise<'a> {
    state: &'a mut Partial,
    s: &'a [f32],
    /// What scores are still to be multiplied by.
    scale: f32,
    decay: &'a mut [f32],
}

impl Task for Stabilise<'_> {
    type Out = bool;

    #[inline(always)]
    fn run<V: Vector>(self, v: V) -> bool {
        let Stabilise { state, s, scale, decay } = self;
        let width = decay.len();
        for lane in (0..width).step_by(V::LANES) {
            let mut max = [v.splat(f32::NEG_INFINITY); 4]; // four chains: one would wait for its last step
            for rows in s.chunks(4 * width) {
                for (max, row) in max.iter_mut().zip(rows.chunks_exact(width)) {
                    *max = v.max(v.load(&row[lane..]), *max);
                }
            }
            let max = v.max(v.max(max[0], max[1]), v.max(max[2], max[3]));
            let (max, before) = (v.mul(max, v.splat(scale)), v.load(&state.max[lane..]));
            let max = stabiliser(v, before, max);
            let moved = exp(v, v.sub(before, finite(v, max)));
            v.store(v.mul(v.load(&state.sum[lane..]), moved), &mut state.sum[lane..]);
            v.store(max, &mut state.max[lane..]);
            v.store(moved, &mut decay[lane..]);
        }
        !decay.iter().fold(true, |still, decay| still & (*decay == 1.0))
    }
}

/// `−log₂e · m`
#[inline(always)]
fn exponent<V: Vector>(v: V, max: &[f32]) -> V::F {
    v.mul(finite(v, v.load(max)), v.splat(-LOG2_E))
}

/// Weights in f32, in place, and their sums: dropout comes next.
struct Weights<'a> {
    max: &'a [f32],
    s: &'a mut [f32],
    scale: f32,
    sums: &'a mut [f32],
}

impl Task for Weights<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Weights { max, s, scale, sums } = self;
        sums.fill(0.0);
        for row in s.chunks_exact_mut(max.len()) {
            for lane in (0..max.len()).step_by(V::LANES) {
                let p = exp2_of_weight(v, v.mul_add(v.load(&row[lane..]), v.splat(scale * LOG2_E), exponent(v, &max[lane..])));
                v.store(v.add(v.load(&sums[lane..]), p), &mut sums[lane..]);
                v.store(p, &mut row[lane..]);
            }
        }
    }
}

/// Weights of some vectors of lanes as pairs, rounded to nearest: `s` is `[TILE, width]` from the first lane on, vectors of `to` are
/// `block` apart.
#[inline(always)]
fn pack<V: Vector>(v: V, (s, width): (&[f32], usize), (to, block): (&mut [Pair], usize), vectors: usize) {
    for w in 0..vectors {
        let to = Pair::bits_mut(&mut to[w * block..]).chunks_exact_mut(SIDE);
        for (to, rows) in to.zip(s[w * SIDE..].chunks(2 * width)).take(TILE / 2) {
            v.store(v.pair(v.load(rows), v.load(&rows[width..])), to);
        }
    }
}
