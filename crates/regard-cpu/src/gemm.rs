//! The matrix product of linear layers: `Y = X·Wᵀ + b`, with the weights packed once.
//!
//! An element of `Y` is one chain of multiply-adds in order of the inputs, whatever the number of rows and threads: the same bits for
//! a token alone and in a batch.

use rayon::prelude::*;
use regard_core::{Error, Result};

use crate::Kernel;
use crate::simd::{Product, Task, Vector};

/// A weight matrix `[outputs, inputs]`, packed for one kernel.
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    /// Panels of `width` outputs, `[panels, inputs, width]`; the last one is filled up with zeros.
    data: Vec<f32>,
    inputs: usize,
    outputs: usize,
    width: usize,
    kernel: Kernel,
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
    pub fn new(weight: &[f32], outputs: usize, inputs: usize) -> Result<Self> {
        Self::with_kernel(weight, outputs, inputs, Kernel::best()?)
    }

    /// As [`PackedMatrix::new`], for a kernel of your choice.
    ///
    /// # Errors
    /// When `weight` has not exactly that many elements.
    pub fn with_kernel(weight: &[f32], outputs: usize, inputs: usize, kernel: Kernel) -> Result<Self> {
        let too_large = || Error::TooLarge { what: "weight matrix", shape: vec![outputs, inputs] };
        size("weight matrix", weight.len(), outputs.checked_mul(inputs).ok_or_else(too_large)?)?;
        let width = kernel.panel();
        let mut data = vec![0.0; outputs.div_ceil(width) * width * inputs];
        data.par_chunks_mut((inputs * width).max(1)).enumerate().for_each(|(panel, to)| {
            for (column, row) in weight.chunks_exact(inputs).skip(panel * width).take(width).enumerate() {
                row.iter().zip(to[column..].iter_mut().step_by(width)).for_each(|(x, to)| *to = *x);
            }
        });
        Ok(PackedMatrix { data, inputs, outputs, width, kernel })
    }

    /// Elements of a row of `X`.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Elements of a row of `Y`.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `Y = X·Wᵀ + b`: `x` is `[rows, inputs]`, `y` is `[rows, outputs]`, `bias` is `[outputs]`, all row-major.
    ///
    /// # Errors
    /// When a size does not fit.
    pub fn apply(&self, x: &[f32], bias: Option<&[f32]>, y: &mut [f32]) -> Result<()> {
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
            self.rows(x, bias, y);
        } else if rows < 6 * threads {
            self.panels(x, bias, y, rows);
        } else {
            let block = rows.div_ceil(threads).min(ROWS);
            let parts = y.par_chunks_mut(block * self.outputs).zip(x.par_chunks((block * self.inputs).max(1)));
            parts.for_each(|(y, x)| self.rows(x, bias, y));
        }
        Ok(())
    }

    /// Some rows of `X` with all panels.
    fn rows(&self, x: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
        let rows = y.len() / self.outputs;
        let mut block = vec![0.0; rows * self.width];
        for panel in 0..self.outputs.div_ceil(self.width) {
            self.multiply(panel, x, &mut block);
            self.put(panel, &block, bias, y);
        }
    }

    /// Few rows of `X`: the panels are shared out.
    fn panels(&self, x: &[f32], bias: Option<&[f32]>, y: &mut [f32], rows: usize) {
        let panels = self.outputs.div_ceil(self.width);
        let mut blocks = vec![0.0; panels * rows * self.width];
        blocks.par_chunks_mut(rows * self.width).enumerate().for_each(|(panel, block)| self.multiply(panel, x, block));
        blocks.chunks(rows * self.width).enumerate().for_each(|(panel, block)| self.put(panel, block, bias, y));
    }

    /// `block = X·panel`, `[rows, width]`.
    fn multiply(&self, panel: usize, x: &[f32], block: &mut [f32]) {
        let (k, n) = (self.inputs, self.width);
        let b = &self.data[panel * k * n..][..k * n];
        let m = block.len() / n;
        self.kernel.run(Product {
            a: x,
            a_row: k,
            a_column: 1,
            b,
            b_row: n,
            c: block,
            c_row: n,
            m,
            n,
            k,
            add: false,
            careful: false,
        });
    }

    /// A panel's block into its columns of `Y`.
    fn put(&self, panel: usize, block: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
        let first = panel * self.width;
        let columns = first..self.outputs.min(first + self.width);
        for (y, block) in y.chunks_exact_mut(self.outputs).zip(block.chunks_exact(self.width)) {
            let y = &mut y[columns.clone()];
            match bias {
                Some(bias) => y.iter_mut().zip(block).zip(&bias[columns.clone()]).for_each(|((y, x), b)| *y = x + b),
                None => y.copy_from_slice(&block[..y.len()]),
            }
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

#[cfg(test)]
mod tests {
    use regard_testing::rng::Rng;
    use regard_testing::tolerance::gamma;

    use super::*;

    fn random(n: usize, rng: &mut Rng) -> Vec<f32> {
        (0..n).map(|_| rng.normal() as f32).collect()
    }

    #[test]
    fn it_is_the_product_of_f64_whatever_the_sizes() {
        let mut rng = Rng::new(1);
        for kernel in Kernel::available() {
            for (rows, outputs, inputs) in
                [(1, 1, 1), (1, 64, 3), (5, 65, 7), (13, 130, 64), (100, 7, 33), (3, 2000, 300), (70, 257, 129)]
            {
                let (w, x, b) = (random(outputs * inputs, &mut rng), random(rows * inputs, &mut rng), random(outputs, &mut rng));
                let packed = PackedMatrix::with_kernel(&w, outputs, inputs, kernel).unwrap();
                let (mut plain, mut biased) = (vec![f32::NAN; rows * outputs], vec![f32::NAN; rows * outputs]);
                packed.apply(&x, None, &mut plain).unwrap();
                packed.apply(&x, Some(&b), &mut biased).unwrap();
                for (i, (&y, &z)) in plain.iter().zip(&biased).enumerate() {
                    let (x, w) = (&x[i / outputs * inputs..][..inputs], &w[i % outputs * inputs..][..inputs]);
                    let products = || x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                    let (exact, size) = (products().sum::<f64>(), products().map(f64::abs).sum::<f64>());
                    let off = (f64::from(y) - exact).abs();
                    assert!(off <= gamma(inputs) * size, "{kernel:?} {rows}x{outputs}x{inputs} at {i}: {y}, not {exact}");
                    assert_eq!(z, y + b[i % outputs]);
                }
            }
        }
    }

    #[test]
    fn a_row_is_the_same_alone_and_in_any_batch_on_any_number_of_threads() {
        let mut rng = Rng::new(2);
        let (rows, outputs, inputs) = (130, 700, 90);
        let (w, x) = (random(outputs * inputs, &mut rng), random(rows * inputs, &mut rng));
        for kernel in Kernel::available() {
            let packed = PackedMatrix::with_kernel(&w, outputs, inputs, kernel).unwrap();
            let apply = |x: &[f32], threads| {
                let mut y = vec![0.0; x.len() / inputs * outputs];
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| packed.apply(x, None, &mut y)).unwrap();
                y
            };
            let all = apply(&x, 1);
            for threads in [2, 3, 8] {
                assert_eq!(all, apply(&x, threads), "{kernel:?}");
                for n in [1, 2, 11, 37] {
                    assert_eq!(
                        all[5 * outputs..(5 + n) * outputs],
                        apply(&x[5 * inputs..(5 + n) * inputs], threads),
                        "{kernel:?} {n}"
                    );
                }
            }
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused_and_nothing_of_nothing_is_nothing() {
        let short = PackedMatrix::new(&[0.0; 5], 2, 3).unwrap_err().to_string();
        assert_eq!(short, "weight matrix has 5 elements and needs 6, for its rows and columns");
        assert!(PackedMatrix::new(&[], usize::MAX, 3).unwrap_err().to_string().contains("more elements than the machine"));
        let packed = PackedMatrix::new(&[1.0; 6], 2, 3).unwrap();
        assert_eq!((packed.outputs(), packed.inputs()), (2, 3));
        assert!(
            packed.apply(&[0.0; 4], None, &mut [0.0; 2]).unwrap_err().to_string().starts_with("input of a matrix product has 4")
        );
        assert!(
            packed.apply(&[0.0; 3], None, &mut [0.0; 3]).unwrap_err().to_string().starts_with("output of a matrix product has 3")
        );
        assert!(
            packed.apply(&[0.0; 3], Some(&[0.0]), &mut [0.0; 2]).unwrap_err().to_string().starts_with("bias of a matrix product")
        );
        packed.apply(&[], None, &mut []).unwrap();
        let mut y = [7.0; 4];
        PackedMatrix::new(&[], 2, 0).unwrap().apply(&[], Some(&[1.0, 2.0]), &mut y).unwrap();
        assert_eq!(y, [1.0, 2.0, 1.0, 2.0]);
    }
}
