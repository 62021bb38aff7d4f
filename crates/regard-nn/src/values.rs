//! The elements of a tensor, in one of the types that weights are packed in.

use half::bf16;
use regard::{Element, PackedMatrix};

use crate::{Precision, Result};

/// The elements of a tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Values {
    /// In this type, or as they are.
    pub(crate) fn in_precision(self, precision: Option<Precision>) -> Self {
        match (precision, self) {
            (Some(Precision::F32), values) => Values::F32(values.wide()),
            (Some(Precision::Bf16), Values::F32(values)) => Values::Bf16(values.into_iter().map(bf16::from_f32).collect()),
            (_, values) => values,
        }
    }

    /// In f32.
    pub(crate) fn wide(self) -> Vec<f32> {
        match self {
            Values::F32(values) => values,
            Values::Bf16(values) => values.into_iter().map(bf16::to_f32).collect(),
        }
    }

    /// Whether they are bf16.
    pub(crate) fn is_bf16(&self) -> bool {
        matches!(self, Values::Bf16(_))
    }

    /// Some rows of `width` elements, in any order.
    pub(crate) fn rows(self, width: usize, order: impl Iterator<Item = usize>) -> Values {
        fn pick<T: Copy>(from: &[T], width: usize, order: impl Iterator<Item = usize>) -> Vec<T> {
            order.flat_map(|row| &from[row * width..][..width]).copied().collect()
        }
        match self {
            Values::F32(values) => Values::F32(pick(&values, width, order)),
            Values::Bf16(values) => Values::Bf16(pick(&values, width, order)),
        }
    }

    /// One row of `width` elements.
    pub(crate) fn clone_rows(&self, width: usize, row: usize) -> Values {
        match self {
            Values::F32(values) => Values::F32(values[row * width..][..width].to_vec()),
            Values::Bf16(values) => Values::Bf16(values[row * width..][..width].to_vec()),
        }
    }

    /// The transpose of `[rows, columns]`.
    pub(crate) fn transposed(self, columns: usize) -> Values {
        fn turn<T: Copy>(from: &[T], columns: usize) -> Vec<T> {
            (0..columns).flat_map(|column| from[column..].iter().step_by(columns)).copied().collect()
        }
        match self {
            Values::F32(values) => Values::F32(turn(&values, columns)),
            Values::Bf16(values) => Values::Bf16(turn(&values, columns)),
        }
    }

    /// These and the rows of another: in f32 where either is.
    pub(crate) fn and(self, other: Values) -> Values {
        match (self, other) {
            (Values::Bf16(mut a), Values::Bf16(b)) => {
                a.extend(b);
                Values::Bf16(a)
            }
            (a, b) => {
                let mut a = a.wide();
                a.extend(b.wide());
                Values::F32(a)
            }
        }
    }

    /// `[outputs, inputs]`, packed for matrix products.
    pub(crate) fn pack(&self, outputs: usize, inputs: usize) -> Result<PackedMatrix> {
        fn packed<T: Element>(values: &[T], outputs: usize, inputs: usize) -> Result<PackedMatrix> {
            Ok(PackedMatrix::new(values, outputs, inputs)?)
        }
        match self {
            Values::F32(values) => packed(values, outputs, inputs),
            Values::Bf16(values) => packed(values, outputs, inputs),
        }
    }
}
