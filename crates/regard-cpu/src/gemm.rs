//! The matrix product of linear layers: `Y = f(X·Wᵀ + b)`, with the weights packed once.
//!
//! An element of `Y` is one chain of multiply-adds in order of the inputs, whatever the number of rows and threads: the same bits for
//! a token alone and in a batch.

mod panels;
#[cfg(test)]
pub(crate) mod tests;

use std::ops::Range;

use rayon::prelude::*;
use regard_core::{Element, Error, Result};

use crate::Kernel;
use crate::block::ranges;
use crate::lines::Lines;
use crate::simd::{SIDE, Session, Task, Vector};
use panels::{Panels, Rows, Soon};

/// A weight matrix `[outputs, inputs]`, packed for one kernel.
///
/// Weights in bf16 stay so, and are widened as they are used. On kernels that multiply pairs of bf16 rows of `X` are rounded to bf16 too.
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    panels: Panels,
    outputs: usize,
}

/// Below this many multiply-adds, waking a second thread takes longer than it saves (some 10 µs).
const ALONE: usize = 1 << 18;

/// Rows of `X` that are multiplied with all panels together: a panel waits in the first-level cache for as many as the second-level one
/// holds, and is widened once for them.
const ROWS: usize = 256;

/// Rows for each thread below which panels are shared out and not rows: no thread is idle, and each reads its own weights.
const EACH: usize = 32;

/// Parts of a matrix for each thread: a thread that is held up leaves some to the others.
const PARTS: usize = 4;

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
        Ok(PackedMatrix { panels: Panels::new(weight, outputs, inputs, kernel), outputs })
    }

    /// Elements of a row of `X`.
    pub fn inputs(&self) -> usize {
        self.panels.inputs()
    }

    /// Elements of a row of `Y`.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes of the packed weights, which a product reads once for up to some hundred rows.
    pub fn bytes(&self) -> usize {
        self.panels.bytes()
    }

    /// Row `output` of the weights, widened: an embedding is a row of the matrix that it is tied to.
    ///
    /// # Panics
    /// When there is no such row, or `to` has not as many elements as a row.
    pub fn row(&self, output: usize, to: &mut [f32]) {
        assert!(output < self.outputs && to.len() == self.inputs(), "row {output} of {} by {}", self.outputs, self.inputs());
        self.panels.row(output, to);
    }

    /// `Y = X·Wᵀ + b`: `x` is `[rows, inputs]`, `y` is `[rows, outputs]`, `bias` is `[outputs]`, all row-major.
    ///
    /// # Errors
    /// When a size does not fit.
    pub fn apply(&self, x: &[f32], bias: Option<&[f32]>, y: &mut [f32]) -> Result<()> {
        Self::combine([(self, bias)], x, |_| {}, y, Threads::All)
    }

    /// `Y = f(X·Wᵀ + b)`, element by element; otherwise as [`PackedMatrix::apply`].
    ///
    /// # Errors
    /// When a size does not fit.
    pub fn apply_with(&self, x: &[f32], bias: Option<&[f32]>, f: impl Fn(f32) -> f32 + Sync, y: &mut [f32]) -> Result<()> {
        Self::combine([(self, bias)], x, |[y]| y.iter_mut().for_each(|y| *y = f(*y)), y, Threads::All)
    }

    /// `Y = f(X·W₁ᵀ + b₁, X·W₂ᵀ + b₂, …)` of matrices of one size, as a gate and what it lets through: `f` combines some elements of
    /// each into the first. The products never lie in memory as a whole.
    ///
    /// # Errors
    /// When a size does not fit, or the matrices are packed for different kernels.
    pub fn combine<const N: usize>(
        factors: [(&Self, Option<&[f32]>); N],
        x: &[f32],
        f: impl Fn([&mut [f32]; N]) + Sync,
        y: &mut [f32],
        threads: Threads,
    ) -> Result<()> {
        const { assert!(N > 0) };
        let (first, inputs, outputs) = (&factors[0].0.panels, factors[0].0.inputs(), factors[0].0.outputs);
        let rows = x.len().checked_div(inputs).or(y.len().checked_div(outputs)).unwrap_or(0);
        size("input of a matrix product", x.len(), rows * inputs)?;
        size("output of a matrix product", y.len(), rows * outputs)?;
        for (matrix, bias) in factors {
            size("bias of a matrix product", bias.map_or(outputs, <[f32]>::len), outputs)?;
            if matrix.outputs != outputs || !first.is_like(&matrix.panels) {
                let (what, context) = ("a product of several matrices", "where their sizes or kernels differ");
                return Err(Error::Unsupported { what, context, instead: "pack them alike" });
            }
        }
        if y.is_empty() {
            return Ok(());
        }
        let product = Combined { factors, f, inputs, outputs };
        let all = threads == Threads::All && rows * inputs * outputs > ALONE;
        match if all { rayon::current_num_threads() } else { 1 } {
            1 => y.chunks_mut(ROWS * outputs).enumerate().for_each(|(i, y)| product.rows(x, i * ROWS, y)),
            threads if rows < threads * EACH => product.share_panels(x, rows, y),
            threads => {
                // As many parts for each thread, of whole blocks.
                let parts = rows.div_ceil(ROWS).next_multiple_of(threads);
                let part = rows.div_ceil(parts).next_multiple_of(first.rows_in_a_block());
                y.par_chunks_mut(part * outputs).enumerate().for_each(|(i, y)| product.rows(x, i * part, y));
            }
        }
        Ok(())
    }
}

/// Who computes a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// All threads of the pool that it is called in, where it is large enough.
    All,
    /// The thread that calls.
    This,
}

/// Matrices whose products become one.
struct Combined<'a, F, const N: usize> {
    factors: [(&'a PackedMatrix, Option<&'a [f32]>); N],
    f: F,
    inputs: usize,
    outputs: usize,
}

impl<F: Fn([&mut [f32]; N]) + Sync, const N: usize> Combined<'_, F, N> {
    fn panels(&self) -> &Panels {
        &self.factors[0].0.panels
    }

    /// As many rows of `X` as `y` has, from `first` on, with all panels.
    fn rows(&self, x: &[f32], first: usize, y: &mut [f32]) {
        let width = self.panels().width();
        let rows = self.panels().rows(&x[first * self.inputs..], y.len() / self.outputs);
        let mut work = self.work(&rows);
        for panel in 0..self.outputs.div_ceil(width) {
            self.panel(panel, &mut work, &mut y[panel * width..], self.outputs, self.columns(panel));
        }
    }

    /// Few rows of `X`: the panels are shared out.
    fn share_panels(&self, x: &[f32], rows: usize, y: &mut [f32]) {
        let width = self.panels().width();
        let (x, panels) = (self.panels().rows(x, rows), self.outputs.div_ceil(width));
        let mut all = vec![0.0; panels * rows * width];
        let part = panels.div_ceil(PARTS * rayon::current_num_threads());
        all.par_chunks_mut(part * rows * width).enumerate().for_each(|(i, all)| {
            let mut work = self.work(&x);
            for (panel, y) in (i * part..).zip(all.chunks_mut(rows * width)) {
                self.panel(panel, &mut work, y, width, width);
            }
        });
        for (panel, block) in all.chunks(rows * width).enumerate() {
            let (y, columns) = (&mut y[panel * width..], self.columns(panel));
            self.panels().kernel().run(Put { block, width, y, y_row: self.outputs, columns });
        }
    }

    /// How many columns of a panel are outputs.
    fn columns(&self, panel: usize) -> usize {
        let width = self.panels().width();
        width.min(self.outputs - panel * width)
    }

    /// The columns of a panel, as rows of `y`.
    fn panel(&self, panel: usize, work: &mut Work<'_, N>, y: &mut [f32], y_row: usize, columns: usize) {
        let Work { session, x, blocks } = work;
        let (session, width, n) = (session.as_ref(), self.panels().width(), x.n());
        for ((matrix, _), block) in self.factors.iter().zip(&mut *blocks) {
            matrix.panels.begin(session, panel, x, block);
        }
        let mut before = 0..0;
        for rows in ranges(0..n, self.panels().rows_at_end(n)) {
            for ((matrix, _), block) in self.factors.iter().zip(&mut *blocks) {
                let to = Soon { rows: &y[rows.start * y_row..], stride: y_row, columns };
                matrix.panels.end(session, panel, x, rows.clone(), &mut block[rows.start * width..], to);
            }
            // Sums that were stored just now would be waited for.
            self.finish(panel, blocks, std::mem::replace(&mut before, rows), y, y_row, columns);
        }
        self.finish(panel, blocks, before, y, y_row, columns);
    }

    /// Bias and function of some rows, and where they go.
    fn finish(&self, panel: usize, blocks: &mut [Lines<f32>; N], rows: Range<usize>, y: &mut [f32], y_row: usize, columns: usize) {
        let width = self.panels().width();
        let mut parts = blocks.each_mut().map(|block| &mut block[rows.start * width..rows.end * width]);
        for ((_, bias), c) in self.factors.iter().zip(&mut parts) {
            if let Some(bias) = bias {
                c.chunks_exact_mut(width).for_each(|row| row.iter_mut().zip(&bias[panel * width..]).for_each(|(y, b)| *y += b));
            }
        }
        (self.f)(parts.each_mut().map(|part| &mut **part));
        self.panels().kernel().run(Put { block: &*parts[0], width, y: &mut y[rows.start * y_row..], y_row, columns });
    }

    fn work<'b>(&self, x: &'b Rows<'b>) -> Work<'b, N> {
        let blocks = std::array::from_fn(|_| Lines::zeros(x.n().next_multiple_of(SIDE) * self.panels().width()));
        Work { session: self.panels().open(), x, blocks }
    }
}

/// What a thread multiplies with.
struct Work<'a, const N: usize> {
    session: Option<Session>,
    x: &'a Rows<'a>,
    /// For each matrix, the sums of a panel.
    blocks: [Lines<f32>; N],
}

/// Rows of a block to rows of `Y`.
struct Put<'a> {
    block: &'a [f32],
    width: usize,
    y: &'a mut [f32],
    y_row: usize,
    columns: usize,
}

impl Task for Put<'_> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let Put { block, width, y, y_row, columns } = self;
        for (y, block) in y.chunks_mut(y_row).zip(block.chunks_exact(width)) {
            let (mut to, mut from) = (y[..columns].chunks_exact_mut(V::LANES), block[..columns].chunks_exact(V::LANES));
            (&mut to).zip(&mut from).for_each(|(to, from)| v.store(v.load(from), to));
            to.into_remainder().iter_mut().zip(from.remainder()).for_each(|(to, from)| *to = *from);
        }
    }
}

fn size(what: &'static str, given: usize, needed: usize) -> Result<()> {
    if given == needed {
        Ok(())
    } else {
        Err(Error::Size { what, dim: "elements", given, needed, why: "for its rows and columns" })
    }
}
