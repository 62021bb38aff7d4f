//! Layouts: which axis of an array is which.

use pyo3::prelude::*;

use crate::array::{Array, Axes};
use crate::error::value;

/// The order of an array's axes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `[batch, heads, length, dim]`; leading axes may be missing.
    #[default]
    Bhld,
    /// `[batch, length, heads, dim]`; the first axis may be missing.
    Blhd,
    /// `[total length, heads, dim]`: sequences end to end.
    Packed,
}

impl Layout {
    pub(crate) fn named(name: &str) -> PyResult<Self> {
        match name {
            "bhld" => Ok(Layout::Bhld),
            "blhd" => Ok(Layout::Blhd),
            "packed" => Ok(Layout::Packed),
            _ => Err(value(format!("layout is {name:?} and must be \"bhld\", \"blhd\" or \"packed\""))),
        }
    }

    /// The axes `[batch, heads, length, dim]` of an array; those that are missing have size 1.
    pub(crate) fn axes(self, array: &Array<'_>) -> PyResult<Axes> {
        let (ndim, name) = (array.shape().len(), array.name());
        let (least, most, axes) = match self {
            Layout::Bhld => (2, 4, "[batch, heads, length, dim]"),
            Layout::Blhd => (3, 4, "[batch, length, heads, dim]"),
            Layout::Packed => (3, 3, "[total length, heads, dim]"),
        };
        if !(least..=most).contains(&ndim) {
            return Err(value(format!("{name} has {ndim} dimensions and needs {least} to {most}: {axes}")));
        }
        let (mut shape, mut strides) = ([1; 4], [0; 4]);
        shape[4 - ndim..].copy_from_slice(array.shape());
        strides[4 - ndim..].copy_from_slice(array.strides());
        if self != Layout::Bhld {
            shape.swap(1, 2);
            strides.swap(1, 2);
        }
        Ok((shape, strides))
    }

    /// The shape of an array of `ndim` dimensions whose axes have these sizes.
    pub(crate) fn shape(self, ndim: usize, mut sizes: [usize; 4]) -> Vec<usize> {
        if self != Layout::Bhld {
            sizes.swap(1, 2);
        }
        sizes[4 - ndim..].to_vec()
    }

    /// The shape of a number for each row, `[batch, heads, length]` in every layout, beside queries of `ndim` dimensions.
    pub(crate) fn rows(ndim: usize, [batch, heads, length, _]: [usize; 4]) -> Vec<usize> {
        [batch, heads, length][4 - ndim..].to_vec()
    }
}
