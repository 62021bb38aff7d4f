//! Four-dimensional f64 arrays: what the oracle computes with.

use std::ops::{Index, IndexMut};

use regard_core::{Element, Tensor, View};

/// A contiguous f64 array `[batch, heads, length, dim]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    shape: [usize; 4],
    data: Vec<f64>,
}

impl Array {
    /// All zeros.
    pub fn zeros(shape: [usize; 4]) -> Self {
        Self { shape, data: vec![0.0; shape.iter().product()] }
    }

    /// Every element from its coordinates.
    pub fn from_fn(shape: [usize; 4], mut f: impl FnMut([usize; 4]) -> f64) -> Self {
        let mut array = Self::zeros(shape);
        for at in array.coordinates() {
            array[at] = f(at);
        }
        array
    }

    /// Every element widened; exact for every [`Element`] type.
    pub fn from_view<T: Element>(view: View<'_, T>) -> Self {
        Self::from_fn(view.shape(), |at| f64::from(view.at(at).to_f32()))
    }

    /// A tensor, widened.
    pub fn from_tensor<T: Element>(tensor: &Tensor<T>) -> Self {
        Self::from_view(tensor.view())
    }

    /// `[batch, heads, length, dim]`.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// All coordinates, last axis fastest.
    pub fn coordinates(&self) -> impl Iterator<Item = [usize; 4]> + use<> {
        let [b, h, l, d] = self.shape;
        (0..b * h * l * d).map(move |i| [i / (h * l * d), i / (l * d) % h, i / d % l, i % d])
    }

    /// The `dim` elements at one `[batch, head, position]`.
    pub fn row(&self, [b, h, l]: [usize; 3]) -> &[f64] {
        let start = self.flat([b, h, l, 0]);
        &self.data[start..start + self.shape[3]]
    }

    /// The `dim` elements at one `[batch, head, position]`, to change.
    pub fn row_mut(&mut self, [b, h, l]: [usize; 3]) -> &mut [f64] {
        let start = self.flat([b, h, l, 0]);
        &mut self.data[start..start + self.shape[3]]
    }

    /// The sum over every axis where `shape` is 1: the adjoint of broadcasting `shape` to this array's shape.
    pub fn reduce(&self, shape: [usize; 4]) -> Self {
        let mut sum = Self::zeros(shape);
        for at in self.coordinates() {
            sum[std::array::from_fn(|axis| at[axis].min(shape[axis] - 1))] += self[at];
        }
        sum
    }

    /// Every element without its sign.
    pub fn abs(&self) -> Self {
        Self { shape: self.shape, data: self.data.iter().map(|x| x.abs()).collect() }
    }

    /// Σ self · other over all elements; the arrays have the same shape.
    pub fn dot(&self, other: &Self) -> f64 {
        assert_eq!(self.shape, other.shape);
        self.data.iter().zip(&other.data).map(|(a, b)| a * b).sum()
    }

    fn flat(&self, [b, h, l, d]: [usize; 4]) -> usize {
        ((b * self.shape[1] + h) * self.shape[2] + l) * self.shape[3] + d
    }
}

impl Index<[usize; 4]> for Array {
    type Output = f64;

    fn index(&self, at: [usize; 4]) -> &f64 {
        &self.data[self.flat(at)]
    }
}

impl IndexMut<[usize; 4]> for Array {
    fn index_mut(&mut self, at: [usize; 4]) -> &mut f64 {
        let i = self.flat(at);
        &mut self.data[i]
    }
}

#[cfg(test)]
mod tests {
    use super::Array;

    #[test]
    fn coordinates_visit_every_element_once_in_memory_order() {
        let array = Array::zeros([2, 3, 4, 5]);
        let flat: Vec<usize> = array.coordinates().map(|at| array.flat(at)).collect();
        assert_eq!(flat, (0..120).collect::<Vec<_>>());
        assert_eq!(Array::zeros([2, 0, 4, 5]).coordinates().count(), 0);
    }

    #[test]
    fn reduce_is_the_adjoint_of_broadcast() {
        let full = Array::from_fn([2, 3, 4, 5], |[b, h, l, d]| (b + 7 * h + 11 * l * d) as f64);
        let small = Array::from_fn([1, 3, 1, 5], |[_, h, _, d]| (1 + h * d) as f64);
        let broadcast = Array::from_fn(full.shape(), |[_, h, _, d]| small[[0, h, 0, d]]);
        assert_eq!(full.dot(&broadcast), full.reduce(small.shape()).dot(&small));
    }
}
