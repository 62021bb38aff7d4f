//! `ndarray` arrays as views, without a copy.

use ndarray::{ArrayView, ArrayViewMut, Dimension, IxDyn};

use crate::{Element, Error, Result, View, ViewMut};

/// Shape and strides of an array of four dimensions.
fn layout(what: &'static str, shape: &[usize], strides: &[isize]) -> Result<([usize; 4], [isize; 4])> {
    let rank = Error::Rank { what, given: shape.len(), needed: 4 };
    Ok((shape.try_into().map_err(|_| rank.clone())?, strides.try_into().map_err(|_| rank)?))
}

/// The offset of element `[0, 0, 0, 0]` in the array's memory: behind it lie the axes that are reversed.
fn offset(shape: [usize; 4], strides: [isize; 4]) -> usize {
    let back = |(&n, &stride): (&usize, &isize)| if stride < 0 { (n - 1) * stride.unsigned_abs() } else { 0 };
    if shape.contains(&0) { 0 } else { shape.iter().zip(&strides).map(back).sum() }
}

impl<'a, T: Element, D: Dimension> TryFrom<ArrayView<'a, T, D>> for View<'a, T> {
    type Error = Error;

    /// A view of the array's own memory, its axes in any order and any direction.
    ///
    /// The array must be one dense block; of a part of an array, take the view of the whole and [`View::slice`] it.
    fn try_from(array: ArrayView<'a, T, D>) -> Result<Self> {
        let array = array.into_dimensionality::<IxDyn>().map_err(|_| Error::NotDense { what: "array" })?;
        let (shape, strides) = layout("array", array.shape(), array.strides())?;
        let data = array.to_slice_memory_order().ok_or(Error::NotDense { what: "array" })?;
        View::strided(data, offset(shape, strides), shape, strides)
    }
}

impl<'a, T: Element, D: Dimension> TryFrom<ArrayViewMut<'a, T, D>> for ViewMut<'a, T> {
    type Error = Error;

    /// A view of the array's own memory that can be written, its axes in any order and any direction.
    fn try_from(array: ArrayViewMut<'a, T, D>) -> Result<Self> {
        let array = array.into_dimensionality::<IxDyn>().map_err(|_| Error::NotDense { what: "array" })?;
        let (shape, strides) = layout("array", array.shape(), array.strides())?;
        let data = array.into_slice_memory_order().ok_or(Error::NotDense { what: "array" })?;
        ViewMut::strided(data, offset(shape, strides), shape, strides)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array4, Axis, Slice};

    #[test]
    fn an_array_is_read_in_place_in_any_axis_order_and_direction() {
        let array = Array4::from_shape_fn((2, 3, 4, 5), |(b, h, l, d)| (b * 1000 + h * 100 + l * 10 + d) as f32);
        let mut turned = array.view().permuted_axes([0, 2, 1, 3]);
        turned.invert_axis(Axis(3));
        let view = View::try_from(turned).unwrap();
        assert_eq!(view.shape(), [2, 4, 3, 5]);
        assert_eq!(view.at([1, 3, 2, 0]), 1234.0);
        assert_eq!(view.at([0, 1, 0, 4]), 10.0);
    }

    #[test]
    fn parts_and_wrong_ranks_are_refused_by_name() {
        let array = Array4::<f32>::zeros((2, 3, 4, 5));
        let part = View::try_from(array.slice_axis(Axis(2), Slice::from(..2)));
        assert_eq!(part.unwrap_err(), Error::NotDense { what: "array" });
        let flat = ndarray::Array2::<f32>::zeros((2, 3));
        assert_eq!(View::try_from(flat.view()).unwrap_err(), Error::Rank { what: "array", given: 2, needed: 4 });
    }
}
