//! Keys and values of some tiles as the products read them: prepared once for all row blocks of a band.

use std::ops::Range;

use half::bf16;
use regard_core::{Element, Kv, View};

use crate::block::{Rows, Side, rows};
use crate::simd::{Pair, Pairs, Transpose, Vector};
use crate::tiled::Prepared;
use crate::{Problem, TILE};

/// The keys and values of one sequence and KV head, tile by tile.
pub(crate) struct Packed<'a, T> {
    p: &'a Problem<'a, T>,
    /// Sequence and KV head.
    head: (usize, usize),
    keys: Shelf<f32>,
    values: Shelf<f32>,
    key_pairs: Shelf<Pair>,
    value_pairs: Shelf<Pair>,
    /// Pairs of rows of values before they are transposed, `[TILE / 2, value_dim]`.
    paired: Vec<Pair>,
    /// Keys or values of few query rows, or values before they are transposed, in f32.
    copy: Vec<f32>,
    /// For the tiles of AMX.
    pub(crate) tiled: Prepared,
    /// Rows whose elements are not neighbours.
    copies: [Vec<T>; 2],
}

/// Places for some tiles; a tile has one place, and stays there until another one needs it.
struct Shelf<N> {
    /// How many there can be.
    size: usize,
    /// The first key of a tile, and what is there of it.
    places: Vec<(usize, Vec<N>)>,
}

impl<N> Shelf<N> {
    /// A shelf that takes memory when a tile comes.
    fn new(size: usize) -> Self {
        Shelf { size, places: Vec::new() }
    }

    /// The place of a tile, and whether the tile is there already.
    #[inline(always)]
    fn place(&mut self, tile: &Range<usize>) -> (bool, &mut Vec<N>) {
        if self.places.is_empty() {
            self.places.resize_with(self.size, || (usize::MAX, Vec::new()));
        }
        let (held, place) = &mut self.places[tile.start / TILE % self.size];
        let there = *held == tile.start;
        *held = tile.start;
        (there, place)
    }
}

impl<'a, T: Element> Packed<'a, T> {
    /// Room for `tiles` tiles that follow each other.
    pub(crate) fn new(p: &'a Problem<'a, T>, head: (usize, usize), tiles: usize) -> Self {
        let (wide, pairs) = (|| Shelf::new(tiles), || Shelf::new(tiles));
        let (paired, copy, copies) = (Vec::new(), Vec::new(), Default::default());
        let tiled = Prepared::new(tiles);
        Packed { p, head, keys: wide(), values: wide(), key_pairs: pairs(), value_pairs: pairs(), paired, copy, tiled, copies }
    }

    /// Keys or values of a tile in f32, as few query rows read them: in runs that lie together, each with its keys counted from the
    /// first of the tile and what follows it. Other numbers are copied run by run, so that what follows each is asked for; runs shorter
    /// than `least` are copied together.
    #[inline(always)]
    pub(crate) fn each_run(
        &mut self,
        side: Side,
        tile: &Range<usize>,
        least: usize,
        mut f: impl FnMut(Range<usize>, Rows<'_>, Soon<'a, T>),
    ) {
        let mut left = tile.clone();
        while !left.is_empty() {
            let together = rows_together(&self.p.kv, side, self.head, left.clone()).filter(|(.., n)| *n >= least.min(left.len()));
            let n = together.map_or(left.len(), |(.., n)| n);
            let run = match together.and_then(|(rows, stride, _)| Some(Rows { data: T::as_f32(rows)?, stride })) {
                Some(in_place) => in_place,
                None => rows(&self.p.kv, side, self.head, left.start..left.start + n, &mut self.copy),
            };
            let keys = left.start..left.start + n;
            f(keys.start - tile.start..keys.end - tile.start, run, Soon::after(self.p, side, self.head, &keys));
            left.start += n;
        }
    }

    /// Keys in f32: in place where they can be.
    #[inline(always)]
    pub(crate) fn keys(&mut self, tile: &Range<usize>) -> Rows<'_> {
        let (there, place) = self.keys.place(tile);
        if there && !place.is_empty() {
            return Rows { stride: place.len() / tile.len(), data: place };
        }
        place.clear(); // and empty it stays where the rows can be read in place
        rows(&self.p.kv, Side::Keys, self.head, tile.clone(), place)
    }

    /// The transpose of the values in f32, `[value_dim, TILE]`: as they lie, those of one number are a row's length apart, where the
    /// first-level cache has few places for them.
    #[inline(always)]
    pub(crate) fn values_t<V: Vector>(&mut self, v: V, tile: &Range<usize>) -> &[f32] {
        let dim = self.p.shape.value_dim;
        let (there, place) = self.values.place(tile);
        if !there {
            place.resize(dim * TILE, 0.0);
            let Rows { data: from, stride: from_row } = rows(&self.p.kv, Side::Values, self.head, tile.clone(), &mut self.copy);
            v.call(Transpose { from, from_row, to: place, to_row: TILE, rows: tile.len(), columns: dim });
        }
        place
    }

    /// Keys as pairs of neighbours, `[keys, depth]`, where `depth` is that of [`Pairs::depth`]; what is beyond the head is zero.
    #[inline(always)]
    pub(crate) fn key_pairs<V: Vector>(&mut self, v: V, pairs: Pairs, tile: &Range<usize>) -> &[Pair] {
        let depth = pairs.depth(self.p.shape.head_dim);
        let once = self.key_pairs.size == 1;
        let (there, place) = self.key_pairs.place(tile);
        if !there {
            place.resize(TILE * depth, Pair::default());
            let (place, copy) = (&mut place[..], &mut self.copies[0]);
            each_key(v, self.p, self.head, (tile, once), copy, |l, row| pair_elements(row, &mut place[l * depth..][..depth]));
        }
        place
    }

    /// Values as pairs of rows, `[keys / 2, stride]`.
    #[inline(always)]
    pub(crate) fn value_pairs<V: Vector>(&mut self, v: V, tile: &Range<usize>, stride: usize) -> &[Pair] {
        self.paired.resize(TILE / 2 * stride, Pair::default());
        pair_values(v, self.p, self.head, (tile, true), (&mut self.paired, stride), &mut self.copies);
        &self.paired
    }

    /// The transpose of [`Packed::value_pairs`], `[value_dim, TILE / 2]`.
    #[inline(always)]
    pub(crate) fn value_pairs_t<V: Vector>(&mut self, v: V, tile: &Range<usize>) -> &[Pair] {
        let (dim, k) = (self.p.shape.value_dim, TILE / 2);
        let (there, place) = self.value_pairs.place(tile);
        if !there {
            self.paired.resize(k * dim, Pair::default());
            pair_values(v, self.p, self.head, (tile, false), (&mut self.paired, dim), &mut self.copies);
            place.resize(dim * k, Pair::default());
            let (from, to) = (Pair::bits(&self.paired), Pair::bits_mut(place));
            v.call(Transpose { from, from_row: dim, to, to_row: k, rows: tile.len().div_ceil(2), columns: dim });
        }
        place
    }
}

/// How many keys further than those that are read now memory is asked for: far enough for it, and near enough that the first-level
/// cache still holds them when they are read.
const AHEAD: usize = 32;

/// Rows of keys or values that will be read soon, as many as lie together: few query rows read each once. Asked for one by one between
/// the rows that are read now; a burst would keep these waiting.
pub(crate) struct Soon<'a, T> {
    rows: &'a [T],
    stride: usize,
    n: usize,
}

impl<'a, T: Element> Soon<'a, T> {
    /// What follows `range` in that distance, if anything does.
    #[inline(always)]
    pub(crate) fn after(p: &Problem<'a, T>, side: Side, head: (usize, usize), range: &Range<usize>) -> Self {
        let range = range.start + AHEAD..(range.end + AHEAD).min(p.shape.keys(head.0));
        let there = if range.is_empty() { None } else { rows_together(&p.kv, side, head, range) };
        let (rows, stride, n) = there.unwrap_or_default();
        Soon { rows, stride, n }
    }

    /// Asks for some elements of some rows, as far as there are any.
    #[inline(always)]
    pub(crate) fn ask<V: Vector>(&self, v: V, rows: Range<usize>, columns: Range<usize>) {
        for row in rows.start..rows.end.min(self.n) {
            v.prefetch(&self.rows[row * self.stride..][columns.clone()]);
        }
    }

    /// How far it is from `rows`, where as many lie there in the same distance of each other: else 0.
    #[inline(always)]
    pub(crate) fn distance(&self, rows: &[T], stride: usize, n: usize) -> usize {
        let bytes = self.rows.as_ptr().addr().wrapping_sub(rows.as_ptr().addr());
        if (self.stride, self.n) == (stride, n) { bytes / size_of::<T>() } else { 0 }
    }
}

/// The first rows of some keys or values, as many as follow each other at one distance: the slice of them, their distance and number.
/// None where the elements of a row are no neighbours.
#[inline(always)]
pub(crate) fn rows_together<'a, T: Element>(
    kv: &Kv<'a, T>,
    side: Side,
    (batch, head): (usize, usize),
    range: Range<usize>,
) -> Option<(&'a [T], usize, usize)> {
    match *kv {
        Kv::Dense { k, v } => {
            let view = if let Side::Keys = side { k } else { v };
            let (rows, stride) = view.rows_in_place(batch, head, range.start, range.len())?;
            Some((rows, stride, range.len()))
        }
        Kv::Paged { cache, layer, seqs } => {
            let (rows, dim) = match side {
                Side::Keys => (cache.key_rows(layer, seqs[batch], head, range.start), cache.shape().head_dim),
                Side::Values => (cache.value_rows(layer, seqs[batch], head, range.start), cache.shape().value_dim),
            };
            Some((rows, dim, rows.len().checked_div(dim).unwrap_or(range.len()).min(range.len())))
        }
    }
}

/// Does something with each key of a tile, counted from its first one; where all are read once, the next ones are asked for meanwhile.
#[inline(always)]
pub(crate) fn each_key<T: Element, V: Vector>(
    v: V,
    p: &Problem<'_, T>,
    head: (usize, usize),
    (tile, once): (&Range<usize>, bool),
    copy: &mut Vec<T>,
    mut f: impl FnMut(usize, &[bf16]),
) {
    let (dim, mut left) = (p.shape.head_dim, tile.clone());
    while !left.is_empty() {
        let (rows, stride, n) = bf16_rows(&p.kv, Side::Keys, head, left.clone(), copy);
        let soon = once.then(|| Soon::after(p, Side::Keys, head, &(left.start..left.start + n)));
        for i in 0..n {
            soon.iter().for_each(|soon| soon.ask(v, i..i + 1, 0..dim));
            f(left.start - tile.start + i, &rows[i * stride..][..dim]);
        }
        left.start += n;
    }
}

/// Values of a tile as pairs of rows, `[TILE / 2, stride]`; what is beyond the keys is zero.
#[inline(always)]
pub(crate) fn pair_values<T: Element, V: Vector>(
    v: V,
    p: &Problem<'_, T>,
    head: (usize, usize),
    (tile, once): (&Range<usize>, bool),
    (to, stride): (&mut [Pair], usize),
    [one, two]: &mut [Vec<T>; 2],
) {
    let (dim, mut l) = (p.shape.value_dim, tile.start);
    let mut to = to.chunks_exact_mut(stride.max(1));
    while l < tile.end && dim > 0 {
        let (rows, distance, n) = bf16_rows(&p.kv, Side::Values, head, l..tile.end, one);
        let soon = once.then(|| Soon::after(p, Side::Values, head, &(l..l + n)));
        for (i, to) in (0..n - n % 2).step_by(2).zip(&mut to) {
            soon.iter().for_each(|soon| soon.ask(v, i..i + 2, 0..dim));
            pair_rows(&rows[i * distance..][..dim], &rows[(i + 1) * distance..][..dim], to);
        }
        l += n;
        if n % 2 == 1
            && let Some(to) = to.next()
        {
            let first = &rows[(n - 1) * distance..][..dim];
            match l < tile.end {
                true => pair_rows(first, &bf16_rows(&p.kv, Side::Values, head, l..l + 1, two).0[..dim], to),
                false => pair_last_row(first, to),
            }
            l += 1;
        }
    }
    to.for_each(|to| to.fill(Pair::default()));
}

/// Neighbours of a row become pairs; an odd last one gets 0 for a partner.
#[inline(always)]
pub(crate) fn pair_elements(row: &[bf16], to: &mut [Pair]) {
    let (two, rest) = row.as_chunks::<2>();
    to.iter_mut().zip(two).for_each(|(to, [a, b])| *to = Pair::new(*a, *b));
    if let ([last], Some(to)) = (rest, to.get_mut(two.len())) {
        *to = Pair::new(*last, bf16::ZERO);
    }
}

/// A last row gets zeros for a partner.
#[inline(always)]
pub(crate) fn pair_last_row(row: &[bf16], to: &mut [Pair]) {
    for (to, a) in to.iter_mut().zip(row) {
        *to = Pair::new(*a, bf16::ZERO);
    }
}

/// Two rows become one row of pairs.
#[inline(always)]
pub(crate) fn pair_rows(first: &[bf16], second: &[bf16], to: &mut [Pair]) {
    for ((to, a), b) in to.iter_mut().zip(first).zip(second) {
        *to = Pair::new(*a, *b);
    }
}

/// The first rows of some keys or values in bf16, as [`rows_together`] finds them: one, copied, where it finds none.
#[inline(always)]
pub(crate) fn bf16_rows<'a, T: Element>(
    kv: &Kv<'a, T>,
    side: Side,
    head: (usize, usize),
    range: Range<usize>,
    copy: &'a mut Vec<T>,
) -> (&'a [bf16], usize, usize) {
    let (rows, stride, n) = match rows_together(kv, side, head, range.clone()) {
        Some(together) => together,
        None => {
            let view = match (kv, side) {
                (Kv::Dense { k, .. }, Side::Keys) => k,
                (Kv::Dense { v, .. }, Side::Values) => v,
                (Kv::Paged { .. }, _) => return (&[], 0, 1), // pages hold dense rows: they are found together
            };
            let dim = view.shape()[3];
            copy.clear();
            copy.extend((0..dim).map(|d| view.at([head.0, head.1, range.start, d])));
            (&copy[..], dim, 1)
        }
    };
    (T::as_bf16(rows).unwrap_or_default(), stride, n)
}

/// A row of keys or values of a sequence and KV head: in place where its elements are neighbours, else copied.
#[inline(always)]
pub(crate) fn row<'a, T: Element>(
    kv: &Kv<'a, T>,
    side: Side,
    (batch, head): (usize, usize),
    l: usize,
    copy: &'a mut Vec<T>,
) -> &'a [bf16] {
    match *kv {
        Kv::Dense { k, v } => view_row(if let Side::Keys = side { &k } else { &v }, [batch, head, l], copy),
        Kv::Paged { cache, layer, seqs } => {
            let row = match side {
                Side::Keys => &cache.key_rows(layer, seqs[batch], head, l)[..cache.shape().head_dim],
                Side::Values => &cache.value_rows(layer, seqs[batch], head, l)[..cache.shape().value_dim],
            };
            T::as_bf16(row).unwrap_or_default()
        }
    }
}

/// A row of an array of bf16: in place where its elements are neighbours, else copied.
#[inline(always)]
pub(crate) fn view_row<'a, T: Element>(view: &View<'a, T>, [batch, head, l]: [usize; 3], copy: &'a mut Vec<T>) -> &'a [bf16] {
    let row = match view.row(batch, head, l) {
        Some(row) => row,
        None => {
            copy.clear();
            copy.extend((0..view.shape()[3]).map(|d| view.at([batch, head, l, d])));
            copy
        }
    };
    T::as_bf16(row).unwrap_or_default()
}
