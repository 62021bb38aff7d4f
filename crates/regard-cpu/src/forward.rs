//! Attention forward: a row block against its keys, span by span, tile by tile.
//!
//! Source: Dao 2023, "FlashAttention-2", Algorithm 1, with the queries of a block in the lanes of vectors.

use std::ops::Range;

use rayon::prelude::*;
use regard_core::{Element, Shape, ViewMut};

use crate::block::{RowBlock, apply, seen, tiles};
use crate::exp::exp;
use crate::lines::Lines;
use crate::once::per_element;
use crate::packed::Packed;
use crate::products::{Products, Query, Turned, room};
use crate::rule::TileRule;
use crate::scatter::{RowWriter, split};
use crate::share::forward_threads;
use crate::simd::{Task, Transpose, Vector};
use crate::walk::splits_keys;
use crate::{Problem, ROWS, SPAN, TILE, tiled};

per_element! {
    /// Writes `out`, `[batch, q_heads, q_len, value_dim]`, and the log-sum-exp of every row, `[batch, q_heads, q_len, 1]`.
    pub fn forward<T>(p: &'a Problem<'a, T>, rule: &'a dyn TileRule, out: ViewMut<'a, T>, lse: ViewMut<'a, f32>) = all_rows;
}

fn all_rows<T: Element>(p: &Problem<'_, T>, rule: &dyn TileRule, out: ViewMut<'_, T>, lse: ViewMut<'_, f32>) {
    let blocks = RowBlock::all(&p.shape, p.kernel.lanes());
    let written = || blocks.iter().map(|b| b.output_rows(&p.shape));
    let (threads, splits_keys) = (forward_threads(&p.shape), splits_keys(&p.shape));
    let rows: Vec<_> = split(out, written()).into_iter().zip(split(lse, written())).collect();
    let bands = bands(&p.shape, &blocks, rows, threads);
    let band = |scratch: &mut Scratch, (blocks, rows): (&[RowBlock], Vec<_>)| {
        let split_keys = splits_keys(blocks[0].batch);
        let states = attend(p, rule, blocks, split_keys, false, scratch);
        for ((block, state), (mut out, mut lse)) in blocks.iter().zip(states).zip(rows) {
            let mut finish = |mut state: Partial, room: &mut Lines<f32>| {
                let (state, out, lse) = (&mut state, &mut out, &mut lse);
                p.kernel.run(Finish { p, block, state, out, lse, room })
            };
            if !finish(state, &mut scratch.rows) {
                // Something visible is not finite, or a hidden value was: weights of zero must not touch their values.
                let careful = attend(p, rule, std::slice::from_ref(block), split_keys, true, scratch);
                careful.into_iter().for_each(|state| _ = finish(state, &mut scratch.rows));
            }
        }
    };
    if threads == 1 {
        let mut scratch = Scratch::default();
        bands.into_iter().for_each(|of| band(&mut scratch, of));
    } else {
        bands.into_iter().par_bridge().for_each_init(Scratch::default, band);
    }
}

/// Numbers in the queries and outputs of row blocks that take turns with each span of keys, so that keys and values are prepared once
/// for all of them: they stay in the second-level cache.
const BAND: usize = 192 << 10;

/// Blocks of a band.
pub(crate) fn band_size(shape: &Shape, blocks: usize, threads: usize) -> usize {
    let most = BAND / (ROWS * (shape.head_dim + shape.value_dim)).max(1);
    (blocks / (4 * threads)).clamp(1, most.clamp(1, 32))
}

/// The blocks and what they write in bands, those with the most keys first and, among them, the last rows, which see the most where
/// the mask is causal: threads take one after another, and end with small ones.
pub(crate) fn bands<'a, W>(shape: &Shape, blocks: &'a [RowBlock], rows: Vec<W>, threads: usize) -> Vec<(&'a [RowBlock], Vec<W>)> {
    let size = band_size(shape, blocks.len(), threads);
    let mut rows = rows.into_iter();
    let groups = blocks.chunk_by(|a, b| (a.batch, a.kv_head) == (b.batch, b.kv_head));
    let bands = groups.flat_map(|group| group.chunks(size));
    let mut bands: Vec<_> = bands.map(|band| (band, rows.by_ref().take(band.len()).collect::<Vec<_>>())).collect();
    bands.reverse();
    bands.sort_by_key(|(band, _)| std::cmp::Reverse(shape.keys(band[0].batch)));
    bands
}

/// Buffers that the row blocks of a thread use one after another.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Scores of a tile, `[keys, width]`.
    s: Lines<f32>,
    /// What they scale the gathered output by.
    decay: Vec<f32>,
    turned: Turned,
    /// For the tiles of AMX.
    tiled: tiled::Scratch,
    /// Finished rows, `[width, value_dim]`.
    pub(crate) rows: Lines<f32>,
}

/// Looks on as a span is computed: `()` does not.
pub(crate) trait Watch {
    /// Final scores of a tile, `[keys, width]`, before the state absorbs them.
    #[inline(always)]
    fn scores(&mut self, _s: &[f32], _state: &Partial) {}

    /// The same tile as weights relative to the new stabiliser; what was gathered before is scaled by `decay`.
    #[inline(always)]
    fn weights<V: Vector>(&mut self, _v: V, _tile: &Range<usize>, _p: &[f32], _decay: &[f32], _state: &Partial) {}

    /// Whether the output is wanted too.
    #[inline(always)]
    fn wants_output(&self) -> bool {
        true
    }
}

impl Watch for () {}

/// A partial softmax for every lane of a row block: `out` is `[value_dim or more, width]`, not yet divided by `sum`.
pub(crate) struct Partial {
    pub(crate) max: Vec<f32>,
    pub(crate) sum: Vec<f32>,
    pub(crate) out: Lines<f32>,
}

impl Partial {
    pub(crate) fn empty(width: usize, value_dim: usize) -> Self {
        Partial { max: vec![f32::NEG_INFINITY; width], sum: vec![0.0; width], out: Lines::zeros(width * value_dim) }
    }

    /// An empty one that may lie where another one was; its output holds anything.
    pub(crate) fn again(spare: Option<Partial>, width: usize, value_dim: usize) -> Self {
        match spare {
            Some(mut spare) if spare.max.len() == width && spare.out.len() == width * value_dim => {
                spare.max.fill(f32::NEG_INFINITY);
                spare.sum.fill(0.0);
                spare
            }
            _ => Partial::empty(width, value_dim),
        }
    }
}

/// All keys of some row blocks of one KV head.
fn attend<T: Element>(
    p: &Problem<'_, T>,
    rule: &dyn TileRule,
    blocks: &[RowBlock],
    split_keys: bool,
    careful: bool,
    scratch: &mut Scratch,
) -> Vec<Partial> {
    let first = &blocks[0];
    let amx = tiled::amx(p);
    let of_tiles: Vec<_> = blocks.iter().filter(|_| amx.is_some()).map(|block| tiled::queries(p, block)).collect();
    let queries: Vec<Query> = blocks.iter().filter(|_| amx.is_none()).map(|block| Query::of(p, block)).collect();
    let packed = || Packed::new(p, (first.batch, first.kv_head), if blocks.len() == 1 { 1 } else { SPAN / TILE });
    let spans = seen_spans(p, rule, blocks);
    let mut all: Vec<Partial> = blocks.iter().map(|block| Partial::empty(block.width, p.shape.value_dim)).collect();
    let part = |i: usize, keys: Range<usize>, packed: &mut Packed<'_, T>, scratch: &mut Scratch| {
        let block = &blocks[i];
        if block.hides(&p.shape, rule, &keys) {
            return None;
        }
        if let Some(amx) = amx {
            let (q, prepared, scratch) = (&of_tiles[i][..], &mut packed.tiled, &mut scratch.tiled);
            return p.kernel.run(tiled::Span { amx, p, rule, block, q, keys, careful, prepared, scratch });
        }
        p.kernel.run(Span { p, rule, block, query: &queries[i], keys, careful, packed, scratch, watch: &mut () })
    };
    let fold = |all: &mut Partial, part: &Option<Partial>| part.iter().for_each(|part| p.kernel.run(Fold { all, part }));
    if split_keys {
        for (i, all) in all.iter_mut().enumerate() {
            let own = || (packed(), Scratch::default());
            let parts = spans.par_iter().map_init(own, |(packed, scratch), keys| part(i, keys.clone(), packed, scratch));
            let parts: Vec<_> = parts.collect();
            parts.iter().for_each(|part| fold(all, part));
        }
    } else {
        let mut packed = packed();
        for keys in spans {
            for (i, all) in all.iter_mut().enumerate() {
                let part = part(i, keys.clone(), &mut packed, scratch);
                fold(all, &part);
                scratch.tiled.spare = part;
            }
        }
    }
    all
}

/// The spans of keys that some row of a band may see.
pub(crate) fn seen_spans<T: Element>(p: &Problem<'_, T>, rule: &dyn TileRule, band: &[RowBlock]) -> Vec<Range<usize>> {
    let (first, last) = (&band[0], &band[band.len() - 1]);
    let all = RowBlock::new(&p.shape, 1, first.batch, first.kv_head, first.rows.start..last.rows.end);
    seen(0..p.shape.keys(first.batch), SPAN, &|keys| all.hides(&p.shape, rule, keys))
}

/// One span of keys: its own partial softmax, or nothing where the mask hides it all.
pub(crate) struct Span<'a, 'p, T, W> {
    pub(crate) p: &'a Problem<'a, T>,
    pub(crate) rule: &'a dyn TileRule,
    pub(crate) block: &'a RowBlock,
    pub(crate) query: &'a Query,
    pub(crate) keys: Range<usize>,
    pub(crate) careful: bool,
    pub(crate) packed: &'a mut Packed<'p, T>,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) watch: &'a mut W,
}

impl<T: Element, W: Watch> Task for Span<'_, '_, T, W> {
    type Out = Option<Partial>;

    #[inline(always)]
    fn run<V: Vector>(self, v: V) -> Option<Partial> {
        let Span { p, rule, block, query, careful, packed, scratch, watch, .. } = self;
        let width = block.width;
        let (s, decay) = (scratch.s.room(TILE * width), room(&mut scratch.decay, width));
        let mut products = Products::new(p, block, query, careful, &mut scratch.turned);
        let mut state = None;
        for tile in tiles(self.keys) {
            let Some(kinds) = block.tile(&p.shape, rule, &tile) else { continue };
            let n = tile.len();
            products.scores(v, packed, &tile, s); // S = scale · K Qᵀ
            apply(rule, p.kernel, &kinds, s); // score(S), mask
            let state = state.get_or_insert_with(|| Partial { out: products.output(v), ..Partial::empty(width, 0) });
            watch.scores(&s[..n * width], state);
            v.call(Absorb { state, s: &mut s[..n * width], decay }); // m, ℓ, P
            watch.weights(v, &tile, &s[..n * width], decay, state);
            if !watch.wants_output() {
                continue;
            }
            products.rescale(v, decay, &mut state.out);
            drop_out(p, block, &tile, s);
            products.accumulate(v, packed, &tile, s, &mut state.out); // O += Vᵀ P
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
pub(crate) fn finite<V: Vector>(v: V, max: V::F) -> V::F {
    v.select_below(max, v.splat(f32::MIN), v.splat(0.0), max)
}

/// The stabiliser of a row stays where it is until scores exceed it by this much: weights up to e⁸ lose nothing in f32 nor bf16,
/// and what was gathered is scaled again a few times in a row's life, not in every tile.
///
/// It is decided for each row by itself, so the bits of a row still depend on that row alone.
const SLACK: f32 = 8.0;

/// The stabiliser of a row after a tile with that maximum.
#[inline(always)]
pub(crate) fn stabiliser<V: Vector>(v: V, before: V::F, max: V::F) -> V::F {
    v.select_below(max, v.add(before, v.splat(SLACK)), before, v.max(max, before))
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
    fn run<V: Vector>(mut self, v: V) {
        let width = self.decay.len();
        let mut lane = 0;
        while lane < width {
            lane += match (width - lane) / V::LANES {
                4.. => self.columns::<V, 4>(v, lane),
                2.. => self.columns::<V, 2>(v, lane),
                _ => self.columns::<V, 1>(v, lane),
            };
        }
    }
}

impl Absorb<'_> {
    /// The lanes `lane..lane + P·LANES`, side by side: the maximum and the sum of one vector wait for their last step. Returns how many.
    #[inline(always)]
    fn columns<V: Vector, const P: usize>(&mut self, v: V, lane: usize) -> usize {
        let width = self.decay.len();
        let lanes = |p: usize| lane + p * V::LANES..lane + (p + 1) * V::LANES;
        let mut max = [v.splat(f32::NEG_INFINITY); P];
        for row in self.s.chunks_exact(width) {
            for (p, max) in max.iter_mut().enumerate() {
                *max = v.max(v.load(&row[lanes(p)]), *max);
            }
        }
        let (mut m, mut sum) = (max, max);
        for p in 0..P {
            let before = v.load(&self.state.max[lanes(p)]);
            let max = stabiliser(v, before, max[p]);
            m[p] = finite(v, max);
            let decay = exp(v, v.sub(before, m[p]));
            sum[p] = v.mul(v.load(&self.state.sum[lanes(p)]), decay);
            v.store(max, &mut self.state.max[lanes(p)]);
            v.store(decay, &mut self.decay[lanes(p)]);
        }
        for row in self.s.chunks_exact_mut(width) {
            for (p, sum) in sum.iter_mut().enumerate() {
                let weight = exp(v, v.sub(v.load(&row[lanes(p)]), m[p]));
                *sum = v.add(*sum, weight);
                v.store(weight, &mut row[lanes(p)]);
            }
        }
        for (p, sum) in sum.into_iter().enumerate() {
            v.store(sum, &mut self.state.sum[lanes(p)]);
        }
        P * V::LANES
    }
}

/// Joins a span's state to that of the spans before it.
pub(crate) struct Fold<'a> {
    pub(crate) all: &'a mut Partial,
    pub(crate) part: &'a Partial,
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
pub(crate) struct Finish<'a, 'w, T> {
    pub(crate) p: &'a Problem<'a, T>,
    pub(crate) block: &'a RowBlock,
    pub(crate) state: &'a mut Partial,
    pub(crate) out: &'a mut RowWriter<'w, T>,
    pub(crate) lse: &'a mut RowWriter<'w, f32>,
    /// For the rows.
    pub(crate) room: &'a mut Lines<f32>,
}

impl<T: Element> Task for Finish<'_, '_, T> {
    type Out = bool;

    #[inline(always)]
    fn run<V: Vector>(self, v: V) -> bool {
        let Finish { p, block, state, out, lse, room } = self;
        let (width, dim, first) = (block.width, p.shape.value_dim, out.rows().start);
        let mut share = vec![0.0; width];
        let mut finite = true;
        for run in &block.runs {
            let sink = p.sinks.get(run.head).copied().unwrap_or(f32::NEG_INFINITY);
            for lane in run.lanes.clone() {
                let (max, sum) = (state.max[lane], state.sum[lane]);
                let top = max.max(sink);
                let (part, total) = match top == f32::NEG_INFINITY && sum == 0.0 {
                    true => (0.0, 0.0),
                    false if sink == f32::NEG_INFINITY => (1.0, sum), // NaN, where every visible score is
                    false => ((max - top).exp(), sum * (max - top).exp() + (sink - top).exp()),
                };
                finite &= total.is_finite();
                share[lane] = if total == 0.0 { 0.0 } else { part / total };
                lse.write(first + lane, &[if total == 0.0 { f32::NEG_INFINITY } else { top + total.ln() }]);
            }
        }
        for row in state.out.chunks_exact_mut(width).take(dim) {
            for lane in (0..width).step_by(V::LANES) {
                let (x, share) = (v.load(&row[lane..]), v.load(&share[lane..]));
                v.store(v.select_zero(share, share, v.mul(x, share)), &mut row[lane..]); // 0 of a row that sees nothing
            }
        }
        let rows = room.room(width * dim);
        v.call(Transpose { from: &state.out, from_row: width, to: rows, to_row: dim, rows: dim, columns: width });
        for (row, lane) in rows.chunks_exact(dim.max(1)).zip(block.runs.iter().flat_map(|run| run.lanes.clone())) {
            finite &= row.iter().fold(true, |all, x| all & x.is_finite());
            out.write(first + lane, row);
        }
        finite
    }
}
