//! Arrays that can be written down.

use crate::View;
use crate::teach::{Error, Result};

/// A row-major array of f32 with two to four dimensions, from nested arrays or from numbers and a shape.
///
/// ```
/// use regard::teach::Array;
/// let x = Array::from([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
/// assert_eq!(x, Array::new([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?);
/// assert_eq!(x.transpose(), Array::from([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]));
/// # Ok::<(), regard::teach::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    data: Vec<f32>,
    shape: Vec<usize>,
}

impl Array {
    /// An array of these numbers, row by row.
    ///
    /// # Errors
    /// When there are not as many as the shape says, or the shape has not two to four dimensions.
    pub fn new(data: impl Into<Vec<f32>>, shape: &[usize]) -> Result<Self> {
        let data = data.into();
        if !(2..=4).contains(&shape.len()) {
            let needed = "[length, dim], [heads, length, dim] or [batch, heads, length, dim]";
            return Err(Error::Rank { what: "array", given: shape.to_vec(), needed });
        }
        match shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)) {
            Some(needed) if needed == data.len() => Ok(Array { data, shape: shape.to_vec() }),
            _ => Err(Error::Elements { given: data.len(), shape: shape.to_vec() }),
        }
    }

    /// The size of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The numbers, row by row.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The same numbers in another shape.
    ///
    /// # Errors
    /// As [`Array::new`].
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        Array::new(self.data.clone(), shape)
    }

    /// The last two dimensions exchanged.
    pub fn transpose(&self) -> Self {
        let [.., rows, columns] = self.four();
        let from = |i: usize| (i / rows / columns * rows + i % rows) * columns + i / rows % columns;
        let mut shape = self.shape.clone();
        let last = shape.len() - 1;
        shape.swap(last - 1, last);
        Array { data: (0..self.data.len()).map(|i| self.data[from(i)]).collect(), shape }
    }

    /// The shape with ones before it.
    pub(super) fn four(&self) -> [usize; 4] {
        let missing = 4 - self.shape.len();
        std::array::from_fn(|axis| if axis < missing { 1 } else { self.shape[axis - missing] })
    }

    pub(super) fn view(&self) -> Result<View<'_, f32>> {
        Ok(View::new(&self.data, self.four())?)
    }
}

impl<const N: usize, const D: usize> From<[[f32; D]; N]> for Array {
    fn from(rows: [[f32; D]; N]) -> Self {
        Array { data: rows.concat(), shape: vec![N, D] }
    }
}

impl<const H: usize, const N: usize, const D: usize> From<[[[f32; D]; N]; H]> for Array {
    fn from(heads: [[[f32; D]; N]; H]) -> Self {
        Array { data: heads.concat().concat(), shape: vec![H, N, D] }
    }
}

impl<const B: usize, const H: usize, const N: usize, const D: usize> From<[[[[f32; D]; N]; H]; B]> for Array {
    fn from(batch: [[[[f32; D]; N]; H]; B]) -> Self {
        Array { data: batch.concat().concat().concat(), shape: vec![B, H, N, D] }
    }
}
