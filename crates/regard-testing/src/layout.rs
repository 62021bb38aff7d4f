//! Ways to lay one array out in memory: a kernel must read all of them alike, and nothing between the elements.

use regard_core::{Element, View, ViewMut};

use crate::array::Array;

/// How an array `[batch, heads, length, dim]` lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Row-major.
    Contiguous,
    /// Row-major, three elements into its slice: no row is aligned to a vector.
    Offset,
    /// Stored `[batch, length, heads, dim]`, as linear layers produce it.
    HeadsInside,
    /// Stored `[batch, heads, dim, length]`: the elements of a row are `length` apart.
    Transposed,
    /// Unused elements after each row, each head and each sequence.
    Gaps,
    /// Every other element, in each row too.
    EverySecond,
    /// Backwards along every axis: all strides are negative.
    Reversed,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Layout; 7] = [
        Layout::Contiguous,
        Layout::Offset,
        Layout::HeadsInside,
        Layout::Transposed,
        Layout::Gaps,
        Layout::EverySecond,
        Layout::Reversed,
    ];

    /// Offset, strides and slice length for `shape`: the slice ends with the last element in memory.
    fn place(self, shape: [usize; 4]) -> (usize, [isize; 4], usize) {
        let [_, h, l, d] = shape.map(|n| n as isize);
        let row_major = [h * l * d, l * d, d, 1];
        let (offset, strides) = match self {
            Layout::Contiguous => (0, row_major),
            Layout::Offset => (3, row_major),
            Layout::HeadsInside => (0, [l * h * d, d, h * d, 1]),
            Layout::Transposed => (0, [h * l * d, l * d, 1, l]),
            Layout::Gaps => {
                let (row, rows) = (d + 3, l + 1);
                (0, [(h + 1) * rows * row, rows * row, row, 1])
            }
            Layout::EverySecond => (0, row_major.map(|s| 2 * s)),
            Layout::Reversed => (shape.iter().product::<usize>().saturating_sub(1), row_major.map(|s| -s)),
        };
        let reach = shape.iter().zip(strides).map(|(&n, stride)| n.saturating_sub(1) * stride.max(0) as usize).sum::<usize>();
        (offset, strides, if shape.contains(&0) { offset } else { offset + reach + 1 })
    }
}

/// An array of `T` in memory of its own; the elements between those of the array are NaN.
#[derive(Clone, Debug)]
pub struct Stored<T> {
    data: Vec<T>,
    shape: [usize; 4],
    offset: usize,
    strides: [isize; 4],
}

impl<T: Element> Stored<T> {
    /// `values`, rounded to `T` and laid out.
    pub fn new(values: &Array, layout: Layout) -> Self {
        let shape = values.shape();
        let (offset, strides, len) = layout.place(shape);
        let mut stored = Self { data: vec![T::from_f32(f32::NAN); len], shape, offset, strides };
        for at in values.coordinates() {
            stored.set(at, values[at] as f32);
        }
        stored
    }

    /// The array, in its layout.
    pub fn view(&self) -> View<'_, T> {
        View::strided(&self.data, self.offset, self.shape, self.strides).expect("a layout places every element")
    }

    /// The array, in its layout, to be written.
    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut::strided(&mut self.data, self.offset, self.shape, self.strides).expect("a layout places every element")
    }

    /// How many numbers there are in the whole memory, between the elements of the array too.
    pub fn numbers(&self) -> usize {
        self.data.iter().filter(|x| !x.to_f32().is_nan()).count()
    }

    /// Writes one element, rounded to `T`.
    pub fn set(&mut self, at: [usize; 4], x: f32) {
        let steps = at.iter().zip(self.strides).map(|(&i, stride)| i as isize * stride).sum::<isize>();
        self.data[self.offset.strict_add_signed(steps)] = T::from_f32(x);
    }

    /// Writes one whole row `[batch, head, position]`.
    pub fn fill_row(&mut self, [b, h, l]: [usize; 3], x: f32) {
        (0..self.shape[3]).for_each(|d| self.set([b, h, l, d], x));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_holds_the_same_elements() {
        let values = Array::from_fn([2, 3, 5, 4], |[b, h, l, d]| (1000 * b + 100 * h + 10 * l + d) as f64);
        for layout in Layout::ALL {
            let stored = Stored::<f32>::new(&values, layout);
            assert_eq!(Array::from_view(stored.view()), values, "{layout:?}");
        }
    }

    #[test]
    fn layouts_differ_in_memory_and_poison_their_gaps() {
        let values = Array::from_fn([2, 3, 5, 4], |_| 1.0);
        let strides: Vec<_> = Layout::ALL.iter().map(|&l| (l.place(values.shape()).0, l.place(values.shape()).1)).collect();
        for (i, a) in strides.iter().enumerate() {
            assert!(!strides[..i].contains(a), "{:?} is another layout's double", Layout::ALL[i]);
        }
        let gaps = Stored::<f32>::new(&values, Layout::Gaps);
        assert_eq!(gaps.numbers(), 120);
        assert!(gaps.data.len() > 120);
    }
}
