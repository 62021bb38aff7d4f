//! The matrix product of linear layers: `Y = f(X·Wᵀ + b)`, with the weights packed once.
//!
//! An element of `Y` is one chain of multiply-adds in order of the inputs, whatever the number of rows and threads: the same bits for
//! a token alone and in a batch.

#[cfg(test)]
pub(crate) mod tests;

use half::bf16;
use rayon::prelude::*;
use regard_core::{Element, Error, Result};

use crate::Kernel;
use crate::lines::Lines;
use crate::simd::{Pair, Pairs, Product, Task, Vector};

/// A weight matrix `[outputs, inputs]`, packed for one kernel.
///
/// Weights in bf16 stay so, and are widened as they are used. On kernels that multiply pairs of bf16 rows of `X` are rounded to bf16 too.
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    panels: Panels,
    inputs: usize,
    outputs: usize,
    width: usize,
    kernel: Kernel,
}

/// Panels of `width` outputs, `[panels, inputs, width]`; the last one is filled up with zeros.
#[derive(Clone, Debug)]
enum Panels {
    F32(Lines<f32>),
    Bf16(Vec<bf16>),
    /// Pairs of inputs, `[panels, depth, width]`.
    Paired(Pairs, Lines<Pair>),
}

/// Rows of `X` as a panel's product reads them.
struct Factor<'a> {
    wide: &'a [f32],
    /// `[rows, depth]`, where the panels are pairs.
    paired: Lines<Pair>,
}

/// Below this many multiply-adds, waking a second thread takes longer than it saves (some 10 µs).
const ALONE: usize = 1 << 18;

/// Rows of `X` that a task multiplies with all panels: they stay in the first-level cache while the weights stream past.
const ROWS: usize = 48;

impl PackedMatrix {
    /// Packs row-major weights `[outputs, inputs]` for the best kernel (see [`Kernel::best`]).
    ///
    /// # Errors
    /// When `weight` has not exactly that many elements, or `REGARD_KERNEL` names a kernel that is not available.
    pub fn new<T: Element>(weight: &[T], outputs: usize, inputs: usize) -> Result<Self> {
        Self::with_kernel(weight, outputs, inputs, Kernel::best()?)
    }

    /// As [`PackedMatrix::new`], for a kernel of your choice.
    ///
    /// # Errors
    /// When `weight` has not exactly that many elements.
    pub fn with_kernel<T: Element>(weight: &[T], outputs: usize, inputs: usize, kernel: Kernel) -> Result<Self> {
        let too_large = || Error::TooLarge { what: "weight matrix", shape: vec![outputs, inputs] };
        size("weight matrix", weight.len(), outputs.checked_mul(inputs).ok_or_else(too_large)?)?;
        let width = kernel.panel();
        let padded = outputs.div_ceil(width) * width;
        let panels = match (T::as_bf16(weight), kernel.pairs()) {
            (Some(weight), Some(pairs)) => {
                let depth = pairs.depth(inputs);
                let mut panels = Lines::zeros(padded * depth);
                pack(weight, inputs, (depth, width), &mut panels, |column, row, to| {
                    let pair = |two: &[bf16]| Pair::new(two[0], two.get(1).copied().unwrap_or_default());
                    row.chunks(2).zip(to[column..].iter_mut().step_by(width)).for_each(|(two, to)| *to = pair(two));
                });
                Panels::Paired(pairs, panels)
            }
            (Some(weight), None) => {
                let mut panels = vec![bf16::ZERO; padded * inputs];
                pack(weight, inputs, (inputs, width), &mut panels, |column, row, to| {
                    row.iter().zip(to[column..].iter_mut().step_by(width)).for_each(|(x, to)| *to = *x);
                });
                Panels::Bf16(panels)
            }
            (None, _) => {
                let mut panels = Lines::zeros(padded * inputs);
                pack(weight, inputs, (inputs, width), &mut panels, |column, row, to| {
                    row.iter().zip(to[column..].iter_mut().step_by(width)).for_each(|(x, to)| *to = x.to_f32());
                });
                Panels::F32(panels)
            }
        };
        Ok(PackedMatrix { panels, inputs, outputs, width, kernel })
    }

    /// Elements of a row of `X`.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Elements of a row of `Y`.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Row `output` of the weights, widened: an embedding is a row of the matrix that it is tied to.
    ///
    /// # Panics
    /// When there is no such row, or `to` has not as many elements as a row.
    pub fn row(&self, output: usize, to: &mut [f32]) {
        assert!(output < self.outputs && to.len() == self.inputs, "row {output} of {} by {}", self.outputs, self.inputs);
        let (panel, column) = (output / self.width, output % self.width);
        let first = |depth: usize| panel * depth * self.width + column;
        match &self.panels {
            Panels::F32(data) => {
                data[first(self.inputs)..].iter().step_by(self.width).zip(to).for_each(|(x, to)| *to = *x);
            }
            Panels::Bf16(data) => {
                data[first(self.inputs)..].iter().step_by(self.width).zip(to).for_each(|(x, to)| *to = x.to_f32());
            }
            Panels::Paired(pairs, data) => {
                let column = data[first(pairs.depth(self.inputs))..].iter().step_by(self.width);
                to.chunks_mut(2)
                    .zip(column)
                    .for_each(|(to, pair)| to.iter_mut().zip(pair.both()).for_each(|(to, x)| *to = x.to_f32()));
            }
        }
    }

    /// `Y = X·Wᵀ + b`: `x` is `[rows, inputs]`, `y` is `[rows, outputs]`, `bias` is `[outputs]`, all row-major.
    ///
    /// # Errors
    /// When a size does not fit.
    pub fn apply(&self, x: &[f32], bias: Option<&[f32]>, y: &mut [f32]) -> Result<()> {
        self.apply_with(x, bias, |y| y, y)
    }

    /// `Y = f(X·Wᵀ + b)`, element by element; otherwise as [`PackedMatrix::apply`].
    ///
    /// # Errors
    /// When a size does not fit.
    pub fn apply_with(&self, x: &[f32], bias: Option<&[f32]>, f: impl Fn(f32) -> f32 + Sync, y: &mut [f32]) -> Result<()> {
        let rows = x.len().checked_div(self.inputs).or(y.len().checked_div(self.outputs)).unwrap_or(0);
        size("input of a matrix product", x.len(), rows * self.inputs)?;
        size("output of a matrix product", y.len(), rows * self.outputs)?;
        if let Some(bias) = bias {
            size("bias of a matrix product", bias.len(), self.outputs)?;
        }
        if y.is_empty() {
            return Ok(());
        }
        let threads = rayon::current_num_threads();
        if rows * self.inputs * self.outputs <= ALONE || threads == 1 {
            self.rows(x, bias, &f, y);
        } else if rows < 6 * threads {
            self.panels(x, bias, &f, y, rows);
        } else {
            let block = rows.div_ceil(threads).min(ROWS);
            let parts = y.par_chunks_mut(block * self.outputs).zip(x.par_chunks((block * self.inputs).max(1)));
            parts.for_each(|(y, x)| self.rows(x, bias, &f, y));
        }
        Ok(())
    }

    /// Some rows of `X` with all panels.
    fn rows(&self, x: &[f32], bias: Option<&[f32]>, f: &impl Fn(f32) -> f32, y: &mut [f32]) {
        let rows = y.len() / self.outputs;
        let factor = self.factor(x, rows);
        let mut block = Lines::zeros(rows * self.width);
        for panel in 0..self.outputs.div_ceil(self.width) {
            self.multiply(panel, &factor, &mut block);
            self.put(panel, &block, bias, f, y);
        }
    }

    /// Few rows of `X`: the panels are shared out.
    fn panels(&self, x: &[f32], bias: Option<&[f32]>, f: &impl Fn(f32) -> f32, y: &mut [f32], rows: usize) {
        let panels = self.outputs.div_ceil(self.width);
        let factor = self.factor(x, rows);
        let mut blocks = Lines::zeros(panels * rows * self.width);
        blocks.par_chunks_mut(rows * self.width).enumerate().for_each(|(panel, block)| self.multiply(panel, &factor, block));
        blocks.chunks(rows * self.width).enumerate().for_each(|(panel, block)| self.put(panel, block, bias, f, y));
    }

    fn factor<'a>(&self, wide: &'a [f32], rows: usize) -> Factor<'a> {
        let Panels::Paired(pairs, _) = self.panels else { return Factor { wide, paired: Lines::default() } };
        let depth = pairs.depth(self.inputs);
        let mut paired = Lines::zeros(rows * depth);
        let mut even = vec![0.0; self.inputs.next_multiple_of(2)]; // the partner of an odd last one is 0
        for (row, to) in wide.chunks_exact(self.inputs.max(1)).zip(paired.chunks_exact_mut(depth.max(1))) {
            even[..self.inputs].copy_from_slice(row);
            pairs.pair_neighbours(&even, to);
        }
        Factor { wide, paired }
    }

    /// `block = X·panel`, `[rows, width]`.
    fn multiply(&self, panel: usize, x: &Factor<'_>, block: &mut [f32]) {
        let n = self.width;
        let of = |depth: usize| panel * depth * n..(panel + 1) * depth * n;
        match &self.panels {
            Panels::F32(data) => self.kernel.run(product(x.wide, &data[of(self.inputs)], block, n)),
            Panels::Bf16(data) => {
                let mut wide = Lines::zeros(self.inputs * n);
                bf16::widen(&data[of(self.inputs)], &mut wide);
                self.kernel.run(product(x.wide, &wide, block, n));
            }
            Panels::Paired(pairs, data) => {
                pairs.open().multiply(product(&x.paired, &data[of(pairs.depth(self.inputs))], block, n));
            }
        }
    }

    /// A panel's block into its columns of `Y`.
    fn put(&self, panel: usize, block: &[f32], bias: Option<&[f32]>, f: &impl Fn(f32) -> f32, y: &mut [f32]) {
        let first = panel * self.width;
        let columns = first..self.outputs.min(first + self.width);
        for (y, block) in y.chunks_exact_mut(self.outputs).zip(block.chunks_exact(self.width)) {
            let y = &mut y[columns.clone()];
            match bias {
                Some(bias) => y.iter_mut().zip(block).zip(&bias[columns.clone()]).for_each(|((y, x), b)| *y = f(x + b)),
                None => y.iter_mut().zip(block).for_each(|(y, x)| *y = f(*x)),
            }
        }
    }
}

/// `[outputs, inputs]` as `data`, `[panels, depth, width]`; `put` writes a row of weights to a column of its panel.
fn pack<T: Element, N: Clone + Default + Send>(
    weight: &[T],
    inputs: usize,
    (depth, width): (usize, usize),
    data: &mut [N],
    put: impl Fn(usize, &[T], &mut [N]) + Sync,
) {
    data.par_chunks_mut((depth * width).max(1)).enumerate().for_each(|(panel, to)| {
        let rows = weight.chunks_exact(inputs.max(1)).skip(panel * width).take(width);
        rows.enumerate().for_each(|(column, row)| put(column, row, to));
    });
}

/// `C = A·B`, `[rows, n]`: `b` is `[k, n]`, and `a` is `[rows, k]`.
fn product<'a, N>(a: &'a [N], b: &'a [N], c: &'a mut [f32], n: usize) -> Product<'a, N> {
    let (m, k) = (c.len() / n, b.len() / n);
    Product { a, a_row: k, a_column: 1, b, b_row: n, c, c_row: n, m, n, k, add: false, careful: false }
}

fn size(what: &'static str, given: usize, needed: usize) -> Result<()> {
    if given == needed {
        Ok(())
    } else {
        Err(Error::Size { what, dim: "elements", given, needed, why: "for its rows and columns" })
    }
}

impl Kernel {
    /// Columns of a block of [`Product`] whose accumulators fill the registers.
    fn panel(self) -> usize {
        struct Panel;
        impl Task for Panel {
            type Out = usize;

            #[inline(always)]
            fn run<V: Vector>(self, _: V) -> usize {
                V::PANEL * V::LANES
            }
        }
        self.run(Panel)
    }
}
