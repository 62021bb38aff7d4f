//! The parts of a block, as inference computes them: rows of f32, weights packed.

use rayon::prelude::*;
use regard::PackedMatrix;

use super::config::{Activation, NormKind};
use crate::Result;
use crate::checkpoint::Values;
use crate::ops::simd::{sigmoid, sum, vectorised};
use crate::ops::{GRAIN, rows_per_task};

/// `y = x·Wᵀ + b`
#[derive(Debug)]
pub(crate) struct Matrix {
    packed: PackedMatrix,
    bias: Option<Vec<f32>>,
}

impl Matrix {
    /// A matrix `[outputs, inputs]`.
    pub(crate) fn new(weight: &Values, bias: Option<Vec<f32>>, outputs: usize, inputs: usize) -> Result<Self> {
        Ok(Self { packed: weight.pack(outputs, inputs)?, bias })
    }

    /// Elements of a row of the result.
    pub(crate) fn outputs(&self) -> usize {
        self.packed.outputs()
    }

    /// Rows `[n, inputs]` to `[n, outputs]`: a row's bits do not depend on the number of rows.
    pub(crate) fn apply(&self, x: &[f32]) -> Result<Vec<f32>> {
        let rows = x.len() / self.packed.inputs();
        let mut y = vec![0.0; rows * self.packed.outputs()];
        self.packed.apply(x, self.bias.as_deref(), &mut y)?;
        Ok(y)
    }

    /// A row of the matrix itself: an embedding.
    pub(crate) fn row(&self, row: usize, to: &mut [f32]) {
        self.packed.row(row, to);
    }
}

/// A normalisation.
#[derive(Debug)]
pub(crate) struct Norm {
    pub(crate) kind: NormKind,
    pub(crate) eps: f32,
    /// With the 1 of [`NormKind::RmsPlusOne`].
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

impl Norm {
    /// Rows of as many elements as there are weights.
    pub(crate) fn apply(&self, x: &[f32]) -> Vec<f32> {
        let mut y = x.to_vec();
        self.in_place(&mut y);
        y
    }

    /// As [`Norm::apply`], where they are.
    pub(crate) fn in_place(&self, x: &mut [f32]) {
        let n = self.weight.len();
        x.par_chunks_mut(rows_per_task(n) * n).for_each(|rows| vectorised(|| rows.chunks_mut(n).for_each(|row| self.row(row))));
    }

    #[inline(always)]
    pub(crate) fn row(&self, x: &mut [f32]) {
        let n = x.len() as f32;
        if self.kind == NormKind::Layer {
            let mean = sum(x.len(), |i| x[i]) / n;
            x.iter_mut().for_each(|x| *x -= mean);
        }
        let r = 1.0 / (sum(x.len(), |i| x[i] * x[i]) / n + self.eps).sqrt();
        x.iter_mut().zip(&self.weight).for_each(|(x, w)| *x = *x * r * w);
        x.iter_mut().zip(&self.bias).for_each(|(x, b)| *x += b);
    }
}

impl Activation {
    /// `f(x)`, in place.
    pub(crate) fn apply(self, x: &mut [f32]) {
        x.par_chunks_mut(GRAIN).for_each(|x| vectorised(|| self.each(x)));
    }

    #[inline(always)]
    fn each(self, x: &mut [f32]) {
        match self {
            Activation::Silu => x.iter_mut().for_each(|x| *x *= sigmoid(*x)),
            Activation::GeluTanh => x.iter_mut().for_each(|x| *x *= sigmoid(2.0 * tanh_argument(*x))),
            Activation::Gelu => x.iter_mut().for_each(|x| *x *= normal_distribution(*x)),
            Activation::Relu => x.iter_mut().for_each(|x| *x = x.max(0.0)),
            Activation::Clamped { limit } => x.iter_mut().for_each(|x| *x = x.min(limit) * sigmoid(1.702 * x.min(limit))),
        }
    }

    /// `f(gate) · up` of rows that hold the gates first, `[n, 2·width]` → `[n, width]`.
    pub(crate) fn gate(self, both: &[f32], width: usize) -> Vec<f32> {
        let mut y = vec![0.0; both.len() / 2];
        let step = rows_per_task(width);
        y.par_chunks_mut(step * width).zip(both.par_chunks(2 * step * width)).for_each(|(y, both)| {
            vectorised(|| {
                for (y, both) in y.chunks_mut(width).zip(both.chunks(2 * width)) {
                    let (gate, up) = both.split_at(width);
                    y.copy_from_slice(gate);
                    self.each(y);
                    match self {
                        Activation::Clamped { limit } => {
                            y.iter_mut().zip(up).for_each(|(y, up)| *y *= up.clamp(-limit, limit) + 1.0);
                        }
                        _ => y.iter_mut().zip(up).for_each(|(y, up)| *y *= up),
                    }
                }
            });
        });
        y
    }
}

/// `√(2/π) · (x + 0.044715·x³)`
///
/// Source: Hendrycks & Gimpel 2016, "Gaussian Error Linear Units".
#[inline(always)]
fn tanh_argument(x: f32) -> f32 {
    0.797_884_6 * (x + 0.044_715 * x * x * x)
}

/// Φ(x), the distribution function of the standard normal distribution.
fn normal_distribution(x: f32) -> f32 {
    (0.5 * (1.0 + candle_core::cpu::erf::erf_f64(f64::from(x) * std::f64::consts::FRAC_1_SQRT_2))) as f32
}

/// `cap · tanh(x / cap)`, in place.
pub(crate) fn softcap(cap: f32, x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
}
