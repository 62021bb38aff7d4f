//! Maps of attention weights, pooled: the second pass, from queries, keys and the log-sum-exp of every row.
//!
//! ```text
//!   P = exp(S − lse)      cell(r, c) = Σ of P over the rows of block r and the keys of block c, by the number of rows
//! ```
//! A sum over rows needs final weights, and a row's is final when its last key was seen. To carry sums with the stabiliser of each row would
//! take the scores of a whole row block; to compute them again takes less time than to store and read those.

use std::ops::Range;

use rayon::prelude::*;
use regard_core::{Element, View};

use crate::block::{RowBlock, apply, ranges};
use crate::once::per_element;
use crate::packed::Packed;
use crate::products::{Products, Query, Turned};
use crate::rule::TileRule;
use crate::simd::{Task, Vector};
use crate::sweep::Probabilities;
use crate::{Problem, ROWS, TILE};

/// A part of attention: some sequences, query heads, queries and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Sequences.
    pub batch: Range<usize>,
    /// Query heads.
    pub heads: Range<usize>,
    /// Queries.
    pub rows: Range<usize>,
    /// Keys.
    pub keys: Range<usize>,
}

/// How many rows and keys are one cell of a map, each at least 1; the last ones of a region may be fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Rows of a cell.
    pub rows: usize,
    /// Keys of a cell.
    pub keys: usize,
}

impl Region {
    /// Cells of a map, `[batch, heads, rows, keys]`.
    pub fn cells(&self, grid: Grid) -> [usize; 4] {
        [self.batch.len(), self.heads.len(), self.rows.len().div_ceil(grid.rows), self.keys.len().div_ceil(grid.keys)]
    }
}

/// Keys of a task. Sums of tasks are added in order of key, however many threads there are.
const CHUNK: usize = 1024;

per_element! {
    /// The maps of a region by each grid, [`Region::cells`] row-major: the mean over the rows of a cell of the mass of its keys. `lse` is that of
    /// [`forward`](fn@crate::forward), `[batch, q_heads, q_len, 1]`.
    pub fn pool<T>(
        p: &'a Problem<'a, T>, rule: &'a dyn TileRule, lse: View<'a, f32>, region: &'a Region, grids: &'a [Grid],
    ) -> Vec<Vec<f32>> = all_chunks;
}

fn all_chunks<T: Element>(
    p: &Problem<'_, T>,
    rule: &dyn TileRule,
    lse: View<'_, f32>,
    region: &Region,
    grids: &[Grid],
) -> Vec<Vec<f32>> {
    let chunks: Vec<Range<usize>> = ranges(region.keys.start / TILE * TILE..region.keys.end, CHUNK).collect();
    let heads = region.batch.clone().flat_map(|b| region.heads.clone().map(move |h| (b, h)));
    let tasks: Vec<_> = heads.flat_map(|head| chunks.iter().map(move |keys| (head, keys.clone()))).collect();
    let chunk = |(head, keys): &((usize, usize), Range<usize>)| {
        let mut sums: Vec<Sums> = grids.iter().map(|grid| Sums::new(*grid, region, keys)).collect();
        p.kernel.run(Chunk { p, rule, lse, region, head: *head, keys: keys.clone(), sums: &mut sums });
        sums
    };
    let parts: Vec<Vec<Sums>> = tasks.par_iter().map(chunk).collect();
    let of_head = chunks.len().max(1);
    grids
        .iter()
        .enumerate()
        .map(|(g, grid)| joined(region, *grid, parts.chunks(of_head).map(|parts| parts.iter().map(|part| &part[g]))))
        .collect()
}

/// The sums of all chunks of each head as one map.
fn joined<'a>(region: &Region, grid: Grid, heads: impl Iterator<Item = impl Iterator<Item = &'a Sums>>) -> Vec<f32> {
    let [_, _, rows, columns] = region.cells(grid);
    let mut map = Vec::new();
    for parts in heads {
        let mut cells = vec![0.0; rows * columns];
        for part in parts {
            for (row, from) in part.cells.chunks_exact(part.columns.len().max(1)).enumerate() {
                let to = &mut cells[row * columns..][part.columns.clone()];
                to.iter_mut().zip(from).for_each(|(to, x)| *to += x);
            }
        }
        for (row, cells) in cells.chunks(columns.max(1)).enumerate() {
            let n = grid.rows.min(region.rows.len() - row * grid.rows) as f64;
            map.extend(cells.iter().map(|x| (x / n) as f32));
        }
    }
    map
}

/// Sums of cells over the keys of one chunk.
struct Sums {
    grid: Grid,
    /// The columns of the map that the chunk reaches.
    columns: Range<usize>,
    /// `[rows, columns]`
    cells: Vec<f64>,
}

impl Sums {
    fn new(grid: Grid, region: &Region, keys: &Range<usize>) -> Self {
        let (from, upto) = (keys.start.max(region.keys.start), keys.end.max(region.keys.start));
        let columns = (from - region.keys.start) / grid.keys..(upto - region.keys.start).div_ceil(grid.keys);
        Sums { grid, cells: vec![0.0; region.cells(grid)[2] * columns.len()], columns }
    }

    /// Weights of a tile `[keys, width]`: rows of the region from `row` on, as many as `rows`, and keys of the region.
    #[inline(always)]
    fn add(&mut self, p: &[f32], width: usize, (row, rows): (usize, usize), keys: Range<usize>, mass: &mut [f32]) {
        let (grid, mut key) = (self.grid, keys.start);
        while key < keys.end {
            let end = ((key / grid.keys + 1) * grid.keys).min(keys.end);
            let n = end - key;
            mass[..rows].copy_from_slice(&p[(key - keys.start) * width..][..rows]);
            for p in p[(key - keys.start) * width..].chunks(width).take(n).skip(1) {
                mass[..rows].iter_mut().zip(p).for_each(|(sum, p)| *sum += p);
            }
            let column = key / grid.keys - self.columns.start;
            let mut at = 0;
            while at < rows {
                let block = (row + at) / grid.rows;
                let upto = ((block + 1) * grid.rows - row).min(rows);
                self.cells[block * self.columns.len() + column] += f64::from(total(&mass[at..upto]));
                at = upto;
            }
            key = end;
        }
    }
}

/// A sum in sixteen chains.
#[inline(always)]
fn total(x: &[f32]) -> f32 {
    let mut sums = [0.0; 16];
    let (parts, rest) = x.as_chunks::<16>();
    parts.iter().for_each(|part| sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += x));
    sums.iter_mut().zip(rest).for_each(|(sum, x)| *sum += x);
    sums.iter().sum()
}

/// All rows of a region, of one head, against some keys.
struct Chunk<'a, T> {
    p: &'a Problem<'a, T>,
    rule: &'a dyn TileRule,
    lse: View<'a, f32>,
    region: &'a Region,
    head: (usize, usize),
    keys: Range<usize>,
    sums: &'a mut [Sums],
}

impl<T: Element> Task for Chunk<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Chunk { p, rule, lse, region, head: (batch, head), keys, sums } = self;
        let (shape, end) = (&p.shape, keys.end.min(p.shape.keys(batch)));
        let (kv_head, of_group) = (head / shape.group(), head % shape.group() * shape.q_len);
        let mut packed = Packed::new(p, (batch, kv_head), CHUNK / TILE);
        let (mut turned, mut mass) = (Turned::default(), [0.0; ROWS]);
        for rows in ranges(region.rows.clone(), ROWS) {
            let block = RowBlock::new(shape, V::LANES, batch, kv_head, of_group + rows.start..of_group + rows.end);
            let width = block.width;
            let tiles = ranges(keys.start..end, TILE).filter_map(|tile| block.tile(shape, rule, &tile).map(|kinds| (tile, kinds)));
            let mut tiles = tiles.peekable();
            if tiles.peek().is_none() {
                continue;
            }
            let mut of_rows = vec![f32::INFINITY; width]; // of a row that sees nothing, and of padding: weights of 0
            for (to, q) in of_rows.iter_mut().zip(rows.clone()) {
                let lse = lse.at([batch, head, q, 0]);
                *to = if lse == f32::NEG_INFINITY { f32::INFINITY } else { lse };
            }
            let (query, mut s) = (Query::of(p, &block), vec![0.0; TILE * width]);
            let mut products = Products::new(p, &block, &query, false, &mut turned);
            for (tile, kinds) in tiles {
                let s = &mut s[..tile.len() * width];
                products.scores(v, &mut packed, &tile, s); // S = scale · K Qᵀ
                apply(rule, p.kernel, &kinds, s);
                v.call(Probabilities { s, lse: &of_rows, scale: 1.0, careful: true }); // P
                let (from, first) = (tile.start.max(region.keys.start), region.keys.start);
                let (s, seen) = (&s[(from - tile.start) * width..], from - first..tile.end - first);
                let at = (rows.start - region.rows.start, rows.len());
                sums.iter_mut().for_each(|sums| sums.add(s, width, at, seen.clone(), &mut mass));
            }
        }
    }
}
