//! Query rows and key tiles: what a kernel works on at a time.

use std::ops::Range;

use regard_core::{Element, Kv, Pair, Patch, Shape, Tile, View};

use crate::rule::TileRule;
use crate::{ROWS, TILE};

/// Up to [`ROWS`] query rows that read the same keys: the rows of all heads of a group, flattened `[head, query]`.
#[derive(Clone, Debug)]
pub(crate) struct RowBlock {
    pub(crate) batch: usize,
    pub(crate) kv_head: usize,
    /// Rows within the group.
    pub(crate) rows: Range<usize>,
    /// Lanes, at least as many as rows; the rest is padding.
    pub(crate) width: usize,
    /// The rows head by head.
    pub(crate) runs: Vec<Run>,
}

/// Rows of a block that belong to one head.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) lanes: Range<usize>,
    /// Query head.
    pub(crate) head: usize,
    /// First query.
    pub(crate) q: usize,
}

impl RowBlock {
    /// The block of the given rows of a group.
    pub(crate) fn new(shape: &Shape, lanes: usize, batch: usize, kv_head: usize, rows: Range<usize>) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        let mut row = rows.start;
        while row < rows.end {
            let (head, q) = (row / shape.q_len, row % shape.q_len);
            let end = ((head + 1) * shape.q_len).min(rows.end);
            let lanes = row - rows.start..end - rows.start;
            runs.push(Run { lanes, head: kv_head * shape.group() + head, q });
            row = end;
        }
        let width = rows.len().next_multiple_of(lanes);
        RowBlock { batch, kv_head, rows, width, runs }
    }

    /// All blocks of a problem, in order of output row.
    pub(crate) fn all(shape: &Shape, lanes: usize) -> Vec<RowBlock> {
        let rows = shape.group() * shape.q_len;
        let groups = (0..shape.batch).flat_map(|b| (0..shape.kv_heads).map(move |h| (b, h)));
        let blocks = |(b, h)| ranges(0..rows, ROWS).map(move |r| RowBlock::new(shape, lanes, b, h, r));
        groups.flat_map(blocks).collect()
    }

    /// These rows in `[batch, head, query]` flattened.
    pub(crate) fn output_rows(&self, shape: &Shape) -> Range<usize> {
        let first = group_row(shape, self.batch, self.kv_head);
        first + self.rows.start..first + self.rows.end
    }

    /// `factor · rows` with the rows as lanes, in panels of so many lanes: `to` is `[panels, dim, panel]`, the last panel as narrow as it is.
    #[inline(always)]
    pub(crate) fn pack<T: Element>(&self, from: &View<'_, T>, factor: f32, panel: usize, to: &mut [f32]) {
        let dim = from.shape()[3];
        let mut row = vec![0.0; dim];
        for run in &self.runs {
            for lane in run.lanes.clone() {
                from.row_into(self.batch, run.head, run.q + lane - run.lanes.start, &mut row);
                let first = lane / panel * panel;
                let (at, step) = (first * dim + lane - first, panel.min(self.width - first));
                row.iter().enumerate().for_each(|(d, x)| to[at + d * step] = factor * x);
            }
        }
    }

    /// What the mask does to the tile of these rows and some keys, run by run; none where it hides everything.
    #[inline(always)]
    pub(crate) fn tile(&self, shape: &Shape, rule: &dyn TileRule, keys: &Range<usize>) -> Option<Vec<(Tile, Patch)>> {
        let kind = |run: &Run| {
            let (tile, at) = self.ask(shape, rule, run, keys);
            (tile, Patch { lanes: run.lanes.clone(), width: self.width, keys: keys.len(), at })
        };
        let tiles: Vec<_> = self.runs.iter().map(kind).collect();
        tiles.iter().any(|(tile, _)| *tile != Tile::Hidden).then_some(tiles)
    }

    /// Whether the mask hides some keys from all of these rows, as far as it tells: of more keys than a tile it may not know.
    #[inline(always)]
    pub(crate) fn hides(&self, shape: &Shape, rule: &dyn TileRule, keys: &Range<usize>) -> bool {
        self.runs.iter().all(|run| self.ask(shape, rule, run, keys).0 == Tile::Hidden)
    }

    /// What the mask does to a run and some keys, and their first pair.
    #[inline(always)]
    fn ask(&self, shape: &Shape, rule: &dyn TileRule, run: &Run, keys: &Range<usize>) -> (Tile, Pair) {
        let at = shape.pair(self.batch, run.head, run.q, keys.start);
        (rule.tile(at.q..at.q + run.lanes.len() as u32, keys.start as u32..keys.end as u32, at), at)
    }

    /// The position of lane `i`'s row and the first key of a patch list, for dropout.
    #[inline(always)]
    pub(crate) fn each_row(&self, shape: &Shape, mut f: impl FnMut(usize, Pair)) {
        for run in &self.runs {
            for lane in run.lanes.clone() {
                f(lane, shape.pair(self.batch, run.head, run.q + lane - run.lanes.start, 0));
            }
        }
    }
}

/// The first row of a group in `[batch, head, query]` flattened.
pub(crate) fn group_row(shape: &Shape, batch: usize, kv_head: usize) -> usize {
    (batch * shape.q_heads + kv_head * shape.group()) * shape.q_len
}

/// A range in pieces of `size`, the last one shorter.
pub(crate) fn ranges(all: Range<usize>, size: usize) -> impl DoubleEndedIterator<Item = Range<usize>> + Clone {
    let end = all.end;
    all.step_by(size).map(move |start| start..(start + size).min(end))
}

/// The pieces of [`ranges`] that are not hidden, found by halving: of what is hidden together no piece is looked at.
pub(crate) fn seen(all: Range<usize>, size: usize, hidden: &impl Fn(&Range<usize>) -> bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut left = vec![all];
    while let Some(range) = left.pop() {
        let pieces = range.len().div_ceil(size);
        if pieces == 0 || hidden(&range) {
            continue;
        }
        if pieces == 1 {
            found.push(range);
        } else {
            let middle = range.start + pieces / 2 * size;
            left.extend([middle..range.end, range.start..middle]); // the first half comes next
        }
    }
    found
}

/// The tiles of some keys. `keys` begins at a multiple of [`TILE`].
pub(crate) fn tiles(keys: Range<usize>) -> impl DoubleEndedIterator<Item = Range<usize>> + Clone {
    debug_assert!(keys.start.is_multiple_of(TILE));
    ranges(keys, TILE)
}

/// Masks and scores of a tile: the rule where it is asked, −∞ where a whole run is hidden.
#[inline(always)]
pub(crate) fn apply(rule: &dyn TileRule, kernel: crate::Kernel, tiles: &[(Tile, Patch)], s: &mut [f32]) {
    for (tile, patch) in tiles {
        match tile {
            Tile::Hidden => {
                for row in s.chunks_mut(patch.width).take(patch.keys) {
                    row[patch.lanes.clone()].fill(f32::NEG_INFINITY);
                }
            }
            Tile::Clear if !rule.has_score() => {}
            tile => rule.apply(kernel, s, patch, *tile == Tile::Mixed),
        }
    }
}

/// Keys or values.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Keys,
    Values,
}

/// Rows of keys or values in f32: in place where they can be, else in a scratch buffer.
pub(crate) struct Rows<'a> {
    pub(crate) data: &'a [f32],
    /// Distance between rows.
    pub(crate) stride: usize,
}

/// The rows `range` of one sequence and KV head.
#[inline(always)]
pub(crate) fn rows<'a, T: Element>(
    kv: &Kv<'a, T>,
    side: Side,
    (batch, head): (usize, usize),
    range: Range<usize>,
    scratch: &'a mut Vec<f32>,
) -> Rows<'a> {
    match *kv {
        Kv::Dense { k, v } => {
            let view = if let Side::Keys = side { k } else { v };
            if let Some((data, stride)) = view.rows_in_place(batch, head, range.start, range.len())
                && let Some(data) = T::as_f32(data)
            {
                return Rows { data, stride };
            }
            let dim = view.shape()[3];
            scratch.resize(range.len() * dim, 0.0);
            if dim > 0 {
                for (row, to) in range.zip(scratch.chunks_exact_mut(dim)) {
                    view.row_into(batch, head, row, to);
                }
            }
            Rows { data: scratch, stride: dim }
        }
        Kv::Paged { cache, layer, seqs } => {
            let page_rows = |position| match side {
                Side::Keys => cache.key_rows(layer, seqs[batch], head, position),
                Side::Values => cache.value_rows(layer, seqs[batch], head, position),
            };
            let dim = if let Side::Keys = side { cache.shape().head_dim } else { cache.shape().value_dim };
            let len = range.len() * dim;
            let first = page_rows(range.start);
            if let (Some(first), true) = (T::as_f32(first), first.len() >= len) {
                return Rows { data: &first[..len], stride: dim };
            }
            scratch.resize(len, 0.0);
            let mut position = range.start;
            let mut to = &mut scratch[..];
            while position < range.end && dim > 0 {
                let from = page_rows(position);
                let n = from.len().min(to.len());
                T::widen(&from[..n], &mut to[..n]);
                to = &mut to[n..];
                position += n / dim;
            }
            Rows { data: scratch, stride: dim }
        }
    }
}
