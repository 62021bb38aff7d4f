//! The transpose of a matrix, block by block.
#![allow(unsafe_code)]

use super::{Task, Vector};

/// `to = fromᵀ`: `from` is `[rows, columns]`, rows `from_row` apart; `to` is `[columns, rows]`, rows `to_row` apart.
pub(crate) struct Transpose<'a> {
    pub(crate) from: &'a [f32],
    pub(crate) from_row: usize,
    pub(crate) to: &'a mut [f32],
    pub(crate) to_row: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl Task for Transpose<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Transpose { from, from_row, to, to_row, rows, columns } = self;
        if rows == 0 || columns == 0 {
            return;
        }
        assert!(from.len() >= (rows - 1) * from_row + columns && to.len() >= (columns - 1) * to_row + rows);
        let (whole_rows, whole_columns) = (rows / V::LANES * V::LANES, columns / V::LANES * V::LANES);
        for i in (0..whole_rows).step_by(V::LANES) {
            for j in (0..whole_columns).step_by(V::LANES) {
                // SAFETY: the block is inside `rows` and `columns`, whose last elements are inside the slices.
                unsafe {
                    v.transpose_raw(from.as_ptr().add(i * from_row + j), from_row, to.as_mut_ptr().add(j * to_row + i), to_row)
                };
            }
        }
        for i in 0..rows {
            for j in if i < whole_rows { whole_columns } else { 0 }..columns {
                to[j * to_row + i] = from[i * from_row + j];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kernel;

    #[test]
    fn every_element_changes_its_row_for_its_column() {
        for kernel in Kernel::available() {
            for (rows, columns, from_row, to_row) in
                [(16, 16, 16, 16), (64, 128, 131, 64), (33, 50, 50, 40), (5, 7, 9, 6), (0, 3, 3, 0), (3, 0, 0, 3)]
            {
                let from: Vec<f32> = (0..rows * from_row).map(|i| i as f32).collect();
                let mut to = vec![-1.0; columns * to_row];
                kernel.run(Transpose { from: &from, from_row, to: &mut to, to_row, rows, columns });
                for (at, &x) in to.iter().enumerate() {
                    let (j, i) = (at / to_row, at % to_row);
                    let expected = if i < rows { from[i * from_row + j] } else { -1.0 };
                    assert_eq!(x, expected, "{kernel:?} {rows}x{columns} at {j}, {i}");
                }
            }
        }
    }
}
