//! Strided views of four dimensions, `[batch, heads, length, dim]`, over plain slices.

use std::ops::Range;

use crate::{Element, Error, Result};

/// The addresses of a four-dimensional array: element `i` is at `offset + Σ i_a · strides_a`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Layout {
    offset: usize,
    shape: [usize; 4],
    strides: [isize; 4],
}

impl Layout {
    /// Checks that every index stays inside a slice of `len` elements.
    fn new(what: &'static str, len: usize, offset: usize, shape: [usize; 4], strides: [isize; 4]) -> Result<Layout> {
        let layout = Layout { offset, shape, strides };
        if shape.contains(&0) {
            return Ok(layout);
        }
        let (mut low, mut high) = (offset as i128, offset as i128);
        for (&n, &stride) in shape.iter().zip(&strides) {
            let reach = (n as i128 - 1) * stride as i128;
            *(if reach < 0 { &mut low } else { &mut high }) += reach;
        }
        if low < 0 {
            return Err(Error::BeforeSlice { what, shape, strides, offset });
        }
        if high >= len as i128 {
            let needed = usize::try_from(high + 1).unwrap_or(usize::MAX);
            return Err(Error::SliceTooShort { what, shape, strides, given: len, needed });
        }
        Ok(layout)
    }

    /// The position of an element. Inside the slice when the index is inside the shape, by [`Layout::new`].
    #[inline(always)]
    fn position(&self, index: [usize; 4]) -> usize {
        let mut at = self.offset as isize;
        for (i, stride) in index.into_iter().zip(self.strides) {
            at += i as isize * stride;
        }
        at as usize
    }

    /// Whether two different indices may name one element (exact for nested strides, else conservative).
    fn overlaps(&self) -> bool {
        let mut axes: Vec<usize> = (0..4).filter(|&a| self.shape[a] > 1).collect();
        axes.sort_by_key(|&a| self.strides[a].unsigned_abs());
        let mut reach = 0; // the largest distance that the axes so far can span
        for a in axes {
            let stride = self.strides[a].unsigned_abs();
            if stride <= reach {
                return true;
            }
            reach += (self.shape[a] - 1) * stride;
        }
        false
    }
}

/// The strides of a row-major array.
pub(crate) fn row_major(shape: [usize; 4]) -> [isize; 4] {
    let [_, h, l, d] = shape.map(|n| n as isize);
    [h.wrapping_mul(l).wrapping_mul(d), l.wrapping_mul(d), d, 1]
}

/// The number of elements of a shape.
pub(crate) fn elements(what: &'static str, shape: [usize; 4]) -> Result<usize> {
    let product = shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
    product.filter(|&n| n <= isize::MAX as usize / 8).ok_or_else(|| Error::TooLarge { what, shape: shape.to_vec() })
}

/// An empty vector with room for `n` elements of an array of this shape.
pub(crate) fn room<T>(what: &'static str, shape: &[usize], n: usize) -> Result<Vec<T>> {
    let mut all = Vec::new();
    match all.try_reserve_exact(n) {
        Ok(()) => Ok(all),
        Err(_) => Err(Error::TooLarge { what, shape: shape.to_vec() }),
    }
}

/// Zeros, in pages that the system makes when they are first touched.
pub(crate) fn zeros<T: Clone + Default>(what: &'static str, shape: &[usize], n: usize) -> Result<Vec<T>> {
    // Where there is no memory `vec!` ends the process, and only `vec!` leaves pages untouched: so it is asked for twice.
    const SMALL: usize = 1 << 16;
    if n > SMALL {
        room::<T>(what, shape, n)?;
    }
    Ok(vec![T::default(); n])
}

/// A read-only view `[batch, heads, length, dim]` with any strides, in elements; strides may be 0 or negative.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    data: &'a [T],
    layout: Layout,
}

impl<'a, T: Copy> View<'a, T> {
    /// A row-major view of the whole of `data`.
    ///
    /// # Errors
    /// When `data` has fewer elements than the shape.
    pub fn new(data: &'a [T], shape: [usize; 4]) -> Result<Self> {
        elements("view", shape)?;
        Self::strided(data, 0, shape, row_major(shape))
    }

    /// A view whose element `[b, h, l, d]` is `data[offset + b·s₀ + h·s₁ + l·s₂ + d·s₃]`.
    ///
    /// # Errors
    /// When some index would leave `data`.
    pub fn strided(data: &'a [T], offset: usize, shape: [usize; 4], strides: [isize; 4]) -> Result<Self> {
        elements("view", shape)?;
        Ok(View { data, layout: Layout::new("view", data.len(), offset, shape, strides)? })
    }

    /// `[batch, heads, length, dim]`.
    pub fn shape(&self) -> [usize; 4] {
        self.layout.shape
    }

    /// Elements between neighbours along each axis.
    pub fn strides(&self) -> [isize; 4] {
        self.layout.strides
    }

    /// One element.
    ///
    /// # Panics
    /// When the index leaves the shape.
    #[inline]
    pub fn at(&self, index: [usize; 4]) -> T {
        assert!(index.iter().zip(&self.layout.shape).all(|(i, n)| i < n), "index {index:?} leaves shape {:?}", self.shape());
        self.data[self.layout.position(index)]
    }

    /// Row `[b, h, l, ..]` as a slice, where its elements are neighbours in memory.
    #[inline(always)]
    pub fn row(&self, b: usize, h: usize, l: usize) -> Option<&'a [T]> {
        let dim = self.layout.shape[3];
        if self.layout.strides[3] != 1 && dim > 1 {
            return None;
        }
        let at = self.layout.position([b, h, l, 0]);
        self.data.get(at..at + dim)
    }

    /// The same elements with the axes in another order: `permute([0, 2, 1, 3])` reads `[batch, length, heads, dim]`.
    ///
    /// # Errors
    /// When `axes` is not a permutation of `0..4`.
    pub fn permute(&self, axes: [usize; 4]) -> Result<Self> {
        for a in 0..4 {
            if !axes.contains(&a) {
                let given = axes.iter().copied().max().unwrap_or(0) as f64;
                return Err(Error::Value { what: "permute axes", given, needed: "each of 0, 1, 2, 3 once" });
            }
        }
        let (shape, strides) = (axes.map(|a| self.layout.shape[a]), axes.map(|a| self.layout.strides[a]));
        Ok(View { layout: Layout { shape, strides, ..self.layout }, ..*self })
    }

    /// The part of the view with `range` along `axis`.
    ///
    /// # Errors
    /// When the range leaves the axis, or there is no such axis.
    pub fn slice(&self, axis: usize, range: Range<usize>) -> Result<Self> {
        let size = self.layout.shape.get(axis).copied().unwrap_or(0);
        if axis > 3 || range.start > range.end || range.end > size {
            return Err(Error::Range { axis, start: range.start, end: range.end, size });
        }
        let mut layout = self.layout;
        layout.shape[axis] = range.len();
        if !layout.shape.contains(&0) {
            let mut first = [0; 4];
            first[axis] = range.start;
            layout.offset = self.layout.position(first);
        }
        Ok(View { layout, ..*self })
    }

    /// Element `[batch, head, q, kv]` of a pair, every axis of size 1 repeated; none outside the shape.
    #[inline(always)]
    pub(crate) fn broadcast_at(&self, p: crate::Pair) -> Option<T> {
        let index = [p.batch, p.head, p.q, p.kv];
        let pick = |a: usize| if self.layout.shape[a] == 1 { 0 } else { index[a] as usize };
        self.data.get(self.layout.position([pick(0), pick(1), pick(2), pick(3)])).copied()
    }

    /// [`View::broadcast_at`] for queries that follow each other and the first key, where their elements are neighbours in memory.
    #[inline(always)]
    pub(crate) fn broadcast_queries(&self, q: &Range<u32>, p: crate::Pair) -> Option<&'a [T]> {
        let [batch, heads, queries, _] = self.layout.shape;
        let pick = |size: usize, i: u32| if size == 1 { 0 } else { i as usize };
        let first = self.layout.position([pick(batch, p.batch), pick(heads, p.head), pick(queries, q.start), 0]);
        match (queries, self.layout.strides[2]) {
            (1, _) => self.data.get(first..first + 1),
            (_, 1) => self.data.get(first..first + q.len()),
            _ => None,
        }
    }

    /// [`View::broadcast_at`] for a query and keys that follow each other, where their elements are neighbours in memory.
    #[inline(always)]
    pub(crate) fn broadcast_keys(&self, kv: &Range<u32>, p: crate::Pair) -> Option<&'a [T]> {
        let [batch, heads, queries, keys] = self.layout.shape;
        let pick = |size: usize, i: u32| if size == 1 { 0 } else { i as usize };
        let first = [pick(batch, p.batch), pick(heads, p.head), pick(queries, p.q), pick(keys, kv.start)];
        let first = self.layout.position(first);
        match (keys, self.layout.strides[3]) {
            (1, _) => self.data.get(first..first + 1),
            (_, 1) => self.data.get(first..first + kv.len()),
            _ => None,
        }
    }
}

impl<'a, T: Element> View<'a, T> {
    /// Row `[b, h, l, ..]` widened to f32 into the first `dim` elements of `to`.
    #[inline(always)]
    pub fn row_into(&self, b: usize, h: usize, l: usize, to: &mut [f32]) {
        let to = &mut to[..self.layout.shape[3]];
        match self.row(b, h, l) {
            Some(row) => T::widen(row, to),
            None => {
                for (d, y) in to.iter_mut().enumerate() {
                    *y = self.data[self.layout.position([b, h, l, d])].to_f32();
                }
            }
        }
    }

    /// Rows `first..first + rows` of head `[b, h]` in place, with the distance between rows, where those are dense and ascend.
    #[inline(always)]
    pub fn rows_in_place(&self, b: usize, h: usize, first: usize, rows: usize) -> Option<(&'a [T], usize)> {
        let [_, _, row, one] = self.layout.strides;
        let dim = self.layout.shape[3];
        if (one != 1 && dim > 1) || row < 0 || rows == 0 {
            return None;
        }
        let at = self.layout.position([b, h, first, 0]);
        let end = at + (rows - 1) * row as usize + dim;
        Some((self.data.get(at..end)?, row as usize))
    }
}

/// A view that can be written, `[batch, heads, length, dim]`: no two indices name the same element.
#[derive(Debug)]
pub struct ViewMut<'a, T> {
    data: &'a mut [T],
    layout: Layout,
}

impl<'a, T: Element> ViewMut<'a, T> {
    /// A row-major view of the whole of `data`.
    ///
    /// # Errors
    /// When `data` has fewer elements than the shape.
    pub fn new(data: &'a mut [T], shape: [usize; 4]) -> Result<Self> {
        elements("mutable view", shape)?;
        Self::strided(data, 0, shape, row_major(shape))
    }

    /// A view whose element `[b, h, l, d]` is `data[offset + b·s₀ + h·s₁ + l·s₂ + d·s₃]`.
    ///
    /// # Errors
    /// When some index would leave `data`, or two indices would name one element.
    pub fn strided(data: &'a mut [T], offset: usize, shape: [usize; 4], strides: [isize; 4]) -> Result<Self> {
        elements("mutable view", shape)?;
        let layout = Layout::new("mutable view", data.len(), offset, shape, strides)?;
        if !shape.contains(&0) && layout.overlaps() {
            return Err(Error::Overlap { shape, strides });
        }
        Ok(ViewMut { data, layout })
    }

    /// `[batch, heads, length, dim]`.
    pub fn shape(&self) -> [usize; 4] {
        self.layout.shape
    }

    /// Elements between neighbours along each axis.
    pub fn strides(&self) -> [isize; 4] {
        self.layout.strides
    }

    /// The same elements, read-only.
    pub fn view(&self) -> View<'_, T> {
        View { data: self.data, layout: self.layout }
    }

    /// The same elements for a shorter time, so that the view can be used again.
    pub fn reborrow(&mut self) -> ViewMut<'_, T> {
        ViewMut { data: self.data, layout: self.layout }
    }

    /// The slice, and the position in it of element `[0, 0, 0, 0]`: what a kernel needs to write rows in parallel.
    pub fn into_parts(self) -> (&'a mut [T], usize) {
        (self.data, self.layout.offset)
    }
}
