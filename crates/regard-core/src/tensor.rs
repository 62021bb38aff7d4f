//! Owned row-major arrays of four dimensions.

use crate::view::{elements, zeros};
use crate::{Element, Error, Result, View, ViewMut};

/// An owned row-major array `[batch, heads, length, dim]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<T> {
    data: Vec<T>,
    shape: [usize; 4],
}

impl<T: Element> Tensor<T> {
    /// An array over `data`, row-major.
    ///
    /// # Errors
    /// When `data` has not exactly as many elements as the shape.
    pub fn from_vec(data: Vec<T>, shape: [usize; 4]) -> Result<Self> {
        let needed = elements("tensor", shape)?;
        if data.len() != needed {
            let why = "as its shape says";
            return Err(Error::Size { what: "tensor", dim: "elements", given: data.len(), needed, why });
        }
        Ok(Tensor { data, shape })
    }

    /// An array of zeros.
    ///
    /// # Errors
    /// When the shape has more elements than the machine can address or has memory for.
    pub fn zeros(shape: [usize; 4]) -> Result<Self> {
        Ok(Tensor { data: zeros("tensor", &shape, elements("tensor", shape)?)?, shape })
    }

    /// `[batch, heads, length, dim]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// The elements, row-major.
    pub fn data(&self) -> &[T] {
        &self.data
    }

    /// The elements, row-major.
    pub fn data_mut(&mut self) -> &mut [T] {
        &mut self.data
    }

    /// The elements, row-major, without a copy.
    pub fn into_vec(self) -> Vec<T> {
        self.data
    }

    /// The whole array as a view.
    pub fn view(&self) -> View<'_, T> {
        View::new(&self.data, self.shape).expect("a tensor holds exactly its shape")
    }

    /// The whole array as a view that can be written.
    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut::new(&mut self.data, self.shape).expect("a tensor holds exactly its shape")
    }
}
