//! Facts about every row of attention, from inside the forward pass: no weight is stored.
//!
//! ```text
//!   H = (lse − m)·P − Σ p·(s − m)      mass of some keys = Σ p      mean distance = Σ p·|q − k| / Σ p
//! ```
//! All but the largest weights are sums over keys with the weight as a factor, so they are gathered, scaled and folded as the output is:
//! tile by tile, span by span. Those of some keys add the sum of a whole tile wherever the tile lies inside.

mod sums;
mod top;

use std::ops::Range;

use rayon::prelude::*;
use regard_core::{Element, ViewMut};

use self::sums::{FoldSums, Sums};
use self::top::Top;
use crate::block::RowBlock;
use crate::forward::{Finish, Fold, Partial, Scratch, Span, Watch, bands, forward, seen_spans};
use crate::once::per_element;
use crate::packed::Packed;
use crate::products::Query;
use crate::rule::TileRule;
use crate::scatter::{RowWriter, split};
use crate::share::forward_threads;
use crate::simd::Vector;
use crate::{Problem, SPAN, TILE, tiled};

/// What an inspection looks for. Positions are those of keys; the query's own is `q + kv_len − q_len`.
///
/// ```
/// let what = regard_cpu::Inspect { top: 3, ranges: vec![10..20], ..Default::default() };
/// assert_eq!((what.first, what.recent), (4, 32));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspect {
    /// So many keys are the first, where weight gathers that has nowhere else to go. Source: Xiao et al. 2023, "Efficient Streaming
    /// Language Models with Attention Sinks", §3.1.
    pub first: usize,
    /// So many keys are the recent ones, the query's own the last of them.
    pub recent: usize,
    /// How many of the largest weights are kept, at least 1.
    pub top: usize,
    /// Keys whose mass is wanted.
    pub ranges: Vec<Range<usize>>,
}

impl Default for Inspect {
    /// 4 first keys, 32 recent ones, the largest weight, and no ranges.
    fn default() -> Self {
        Inspect { first: 4, recent: 32, top: 1, ranges: Vec::new() }
    }
}

/// Facts about all rows, `[batch, q_heads, q_len]` flattened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowFacts {
    /// Of each row: entropy, largest logit, mean distance; the masses of the first and the recent keys, of each range and of each class
    /// of distances; the largest weights.
    pub numbers: Vec<f32>,
    /// The keys of the largest weights, `u32::MAX` where a row sees fewer.
    pub keys: Vec<u32>,
}

impl Inspect {
    /// Classes of distance: 0, 1, 2–3, 4–7, …
    pub fn distances(kv_len: usize, q_len: usize) -> usize {
        1 + sums::class(kv_len.max(q_len).saturating_sub(1) as i64)
    }

    /// Numbers of a row of [`RowFacts`].
    pub fn columns(&self, kv_len: usize, q_len: usize) -> usize {
        5 + self.ranges.len() + Self::distances(kv_len, q_len) + self.top
    }
}

per_element! {
    /// As [`forward`], with facts about every row. The output has the bits of that of [`forward`].
    ///
    /// Where tiles of AMX compute the output, facts are a pass of their own, without values.
    pub fn inspect<T>(
        p: &'a Problem<'a, T>, rule: &'a dyn TileRule, what: &'a Inspect, out: ViewMut<'a, T>, lse: ViewMut<'a, f32>,
    ) -> RowFacts = all_rows;
}

fn all_rows<T: Element>(
    p: &Problem<'_, T>,
    rule: &dyn TileRule,
    what: &Inspect,
    mut out: ViewMut<'_, T>,
    mut lse: ViewMut<'_, f32>,
) -> RowFacts {
    let in_tiles = tiled::amx(p).is_some();
    if in_tiles {
        forward(p, rule, out.reborrow(), lse.reborrow());
    }
    let blocks = RowBlock::all(&p.shape, p.kernel.lanes());
    let written = || blocks.iter().map(|b| b.output_rows(&p.shape));
    let threads = forward_threads(&p.shape);
    let rows = split(out, written()).into_iter().zip(split(lse, written())).enumerate().collect();
    let band = |scratch: &mut Scratch, (blocks, rows): (&[RowBlock], Vec<(usize, Rows<'_, T>)>)| {
        let looked = look(p, rule, (what, !in_tiles), blocks, false, scratch);
        let parts = blocks.iter().zip(looked).zip(rows);
        parts
            .map(|((block, looked), (i, rows))| (i, finish(p, rule, what, (block, looked), (!in_tiles).then_some(rows), scratch)))
            .collect()
    };
    let bands = bands(&p.shape, &blocks, rows, threads);
    let mut all: Vec<Vec<(usize, RowFacts)>> = match threads {
        1 => {
            let mut scratch = Scratch::default();
            bands.into_iter().map(|of| band(&mut scratch, of)).collect()
        }
        _ => bands.into_par_iter().with_max_len(1).map_init(Scratch::default, band).collect(),
    };
    let mut all: Vec<_> = all.drain(..).flatten().collect();
    all.sort_unstable_by_key(|(i, _)| *i);
    let mut facts = RowFacts::default();
    for (_, part) in all {
        facts.numbers.extend(part.numbers);
        facts.keys.extend(part.keys);
    }
    facts
}

/// Where a block writes its output and its log-sum-exp.
type Rows<'w, T> = (RowWriter<'w, T>, RowWriter<'w, f32>);

/// Writes the output of a block, where it is wanted, and tells the facts.
fn finish<T: Element>(
    p: &Problem<'_, T>,
    rule: &dyn TileRule,
    what: &Inspect,
    (block, mut looked): (&RowBlock, Looked),
    rows: Option<Rows<'_, T>>,
    scratch: &mut Scratch,
) -> RowFacts {
    let facts = looked.facts(p, block);
    let Some((mut out, mut lse)) = rows else { return facts };
    let mut write = |state: &mut Partial, scratch: &mut Scratch| {
        let (out, lse) = (&mut out, &mut lse);
        p.kernel.run(Finish { p, block, state, out, lse, room: &mut scratch.rows })
    };
    if !write(&mut looked.state, scratch) {
        // As in `forward`: hidden values must not be touched. The facts, which read no values, stand.
        let careful = look(p, rule, (what, true), std::slice::from_ref(block), true, scratch);
        careful.into_iter().for_each(|mut looked| _ = write(&mut looked.state, scratch));
    }
    facts
}

/// What is known of a row block: its state, and what was seen on the way to it.
pub(crate) struct Looked {
    pub(crate) state: Partial,
    pub(crate) sums: Sums,
    pub(crate) top: Top,
}

/// All keys of some row blocks of one KV head.
fn look<T: Element>(
    p: &Problem<'_, T>,
    rule: &dyn TileRule,
    (what, output): (&Inspect, bool),
    blocks: &[RowBlock],
    careful: bool,
    scratch: &mut Scratch,
) -> Vec<Looked> {
    let first = &blocks[0];
    let queries: Vec<Query> = blocks.iter().map(|block| Query::of(p, block)).collect();
    let mut packed = Packed::new(p, (first.batch, first.kv_head), if blocks.len() == 1 { 1 } else { SPAN / TILE });
    let empty = |block: &RowBlock| Looked {
        state: Partial::empty(block.width, if output { p.shape.value_dim } else { 0 }),
        sums: Sums::new(p, what, block),
        top: Top::new(what.top, block.rows.len()),
    };
    let mut all: Vec<Looked> = blocks.iter().map(empty).collect();
    let mut parts: Vec<Sums> = blocks.iter().map(|block| Sums::new(p, what, block)).collect();
    let mut watch = Watching { output, ..Watching::default() };
    for keys in seen_spans(p, rule, blocks) {
        let of_blocks = blocks.iter().zip(&queries).zip(all.iter_mut().zip(&mut parts));
        for ((block, query), (all, sums)) in of_blocks.filter(|((block, _), _)| !block.hides(&p.shape, rule, &keys)) {
            sums.clear();
            (watch.sums, watch.top) = (std::mem::take(sums), std::mem::take(&mut all.top));
            let keys = keys.clone();
            let part = p.kernel.run(Span { p, rule, block, query, keys, careful, packed: &mut packed, scratch, watch: &mut watch });
            (*sums, all.top) = (std::mem::take(&mut watch.sums), std::mem::take(&mut watch.top));
            if let Some(part) = part {
                p.kernel.run(FoldSums { all: &mut all.sums, part: sums, states: [&all.state, &part] });
                p.kernel.run(Fold { all: &mut all.state, part: &part });
            }
        }
    }
    all
}

/// Takes part in a span.
#[derive(Default)]
struct Watching {
    sums: Sums,
    top: Top,
    output: bool,
    /// Scores of the tile, which become weights in place.
    s: Vec<f32>,
    /// The stabiliser and the sum before the tile.
    before: [Vec<f32>; 2],
}

impl Watch for Watching {
    #[inline(always)]
    fn scores(&mut self, s: &[f32], state: &Partial) {
        copy(s, &mut self.s);
        copy(&state.max, &mut self.before[0]);
        copy(&state.sum, &mut self.before[1]);
    }

    #[inline(always)]
    fn weights<V: Vector>(&mut self, v: V, tile: &Range<usize>, p: &[f32], decay: &[f32], state: &Partial) {
        let [max, sum] = &self.before;
        self.sums.rescale(v, decay, [max, &state.max], sum);
        self.sums.gather(v, tile, p, &self.s, &state.max);
        self.top.take(tile.start, &self.s, self.sums.largest());
    }

    #[inline(always)]
    fn wants_output(&self) -> bool {
        self.output
    }
}

#[inline(always)]
fn copy(from: &[f32], to: &mut Vec<f32>) {
    to.clear();
    to.extend_from_slice(from);
}
