//! Rows of one array, written by many threads. Unsafe room 3.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

use regard_core::{Element, ViewMut};

/// The right to write some rows of a mutable view, held by one task. Row `r` is `[batch, head, position]` flattened.
pub(crate) struct RowWriter<'a, T> {
    first: *mut T,
    shape: [usize; 4],
    strides: [isize; 4],
    rows: Range<usize>,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: a writer reaches only its own rows, no two writers of one view share a row (`split`), and no two rows of a
// `ViewMut` share an element; so a writer may move to another thread as a `&mut [T]` may.
unsafe impl<T: Send> Send for RowWriter<'_, T> {}

/// One writer for each of the given ranges of flattened rows.
///
/// # Panics
/// When ranges overlap, descend or leave the view: they are made by the kernels, not by users.
pub(crate) fn split<'a, T: Element>(out: ViewMut<'a, T>, ranges: impl IntoIterator<Item = Range<usize>>) -> Vec<RowWriter<'a, T>> {
    let (shape, strides) = (out.shape(), out.strides());
    let (data, offset) = out.into_parts();
    // A view without elements may have any offset; nothing is written through it then.
    let first = data.as_mut_ptr().wrapping_add(offset);
    let mut end = 0;
    let writer = |rows: Range<usize>| {
        assert!(end <= rows.start && rows.start <= rows.end && rows.end <= shape[0] * shape[1] * shape[2]);
        end = rows.end;
        RowWriter { first, shape, strides, rows, lifetime: PhantomData }
    };
    ranges.into_iter().map(writer).collect()
}

impl<T: Element> RowWriter<'_, T> {
    /// The rows that may be written.
    pub(crate) fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Elements of a row.
    pub(crate) fn dim(&self) -> usize {
        self.shape[3]
    }

    /// Writes the first `dim` numbers of `from` to a row, narrowed.
    ///
    /// # Panics
    /// When the row is not one of this writer's, or `from` is shorter than a row.
    #[inline(always)]
    pub(crate) fn write(&mut self, row: usize, from: &[f32]) {
        let [_, heads, length, dim] = self.shape;
        assert!(self.rows.contains(&row) && from.len() >= dim);
        let index = [row / length / heads, row / length % heads, row % length];
        let at: isize = index.iter().zip(self.strides).map(|(&i, s)| i as isize * s).sum();
        let to = self.first.wrapping_offset(at);
        if self.strides[3] == 1 {
            // SAFETY: the row is inside the view, whose construction checked every index against its slice, and is ours alone.
            let to = unsafe { std::slice::from_raw_parts_mut(to, dim) };
            T::narrow(&from[..dim], to);
        } else {
            for (d, x) in from[..dim].iter().enumerate() {
                // SAFETY: as above, element by element.
                unsafe { to.wrapping_offset(d as isize * self.strides[3]).write(T::from_f32(*x)) };
            }
        }
    }
}
