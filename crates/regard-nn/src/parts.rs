//! The parts of a block, as inference computes them: rows of f32, weights packed.

use rayon::prelude::*;
use regard::{Element, Lines, PackedMatrix, Threads};

use crate::config::unsupported;
use crate::decoder::{Activation, NormKind};
use crate::ops::simd::{sigmoid, sum, vectorised};
use crate::ops::{GRAIN, rows_per_task};
use crate::values::Values;
use crate::{Error, Result};

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

    /// Bytes of the weights.
    pub(crate) fn bytes(&self) -> usize {
        self.packed.bytes()
    }

    /// Weights and biases.
    pub(crate) fn parameters(&self) -> usize {
        self.packed.inputs() * self.packed.outputs() + self.bias.as_ref().map_or(0, Vec::len)
    }

    /// How many rows these are.
    pub(crate) fn count(&self, x: &[f32]) -> usize {
        x.len() / self.packed.inputs()
    }

    /// Rows `[n, inputs]` to `[n, outputs]`: a row's bits do not depend on the number of rows.
    pub(crate) fn apply(&self, x: &[f32]) -> Result<Lines<f32>> {
        let mut y = Lines::zeros(self.count(x) * self.outputs());
        self.write(x, &mut y, Threads::All)?;
        Ok(y)
    }

    /// As [`Matrix::apply`], for what outlives the step.
    pub(crate) fn vector(&self, x: &[f32]) -> Result<Vec<f32>> {
        let mut y = vec![0.0; self.count(x) * self.outputs()];
        self.write(x, &mut y, Threads::All)?;
        Ok(y)
    }

    /// As [`Matrix::apply`], into `y`.
    pub(crate) fn write(&self, x: &[f32], y: &mut [f32], threads: Threads) -> Result<()> {
        Self::combine([self], x, |_| {}, y, threads)
    }

    /// As [`PackedMatrix::combine`].
    pub(crate) fn combine<const N: usize>(
        all: [&Self; N],
        x: &[f32],
        f: impl Fn([&mut [f32]; N]) + Sync,
        y: &mut [f32],
        threads: Threads,
    ) -> Result<()> {
        Ok(PackedMatrix::combine(all.map(|matrix| (&matrix.packed, matrix.bias.as_deref())), x, f, y, threads)?)
    }

    /// The rows of tokens, of which this is the embedding: `[tokens, inputs]`.
    ///
    /// # Errors
    /// When there are no tokens, or one has no row.
    pub(crate) fn rows(&self, tokens: &[u32]) -> Result<Lines<f32>> {
        let (vocab_size, width) = (self.packed.outputs(), self.packed.inputs());
        if tokens.is_empty() {
            return Err(Error::Shape { what: "tokens of a text", given: vec![0], needed: "at least one token".to_owned() });
        }
        if let Some(&token) = tokens.iter().find(|token| **token as usize >= vocab_size) {
            return Err(Error::Token { token, vocab_size });
        }
        let mut rows = Lines::zeros(tokens.len() * width);
        rows.chunks_mut(width).zip(tokens).for_each(|(row, token)| self.packed.row(*token as usize, row));
        Ok(rows)
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
    /// Weights and biases.
    pub(crate) fn parameters(&self) -> usize {
        self.weight.len() + self.bias.len()
    }

    /// Rows of as many elements as there are weights.
    pub(crate) fn apply(&self, x: &[f32]) -> Lines<f32> {
        let mut y = Lines::default();
        self.of(x, &mut y);
        y
    }

    /// As [`Norm::apply`], into a buffer.
    pub(crate) fn of<'a>(&self, x: &[f32], y: &'a mut Lines<f32>) -> &'a [f32] {
        let y = y.room(x.len());
        y.copy_from_slice(x);
        self.rows(y);
        y
    }

    /// As [`Norm::apply`], where they are, shared out.
    pub(crate) fn in_place(&self, x: &mut [f32]) {
        let n = self.weight.len();
        x.par_chunks_mut(rows_per_task(n) * n).for_each(|x| self.rows(x));
    }

    /// As [`Norm::apply`], where they are.
    pub(crate) fn rows(&self, x: &mut [f32]) {
        vectorised(|| x.chunks_mut(self.weight.len()).for_each(|row| self.row(row)));
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
    /// By its name in a `config.json`.
    pub(crate) fn named(name: &str) -> Result<Self> {
        match name {
            "silu" | "swish" => Ok(Activation::Silu),
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            given => Err(unsupported("activation", given, "silu, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast and relu")),
        }
    }

    /// `f(x)`, in place.
    #[inline(always)]
    pub(crate) fn apply(self, x: &mut [f32]) {
        match self {
            Activation::Silu => x.iter_mut().for_each(|x| *x *= sigmoid(*x)),
            Activation::GeluTanh => x.iter_mut().for_each(|x| *x *= sigmoid(2.0 * tanh_argument(*x))),
            Activation::Gelu => x.iter_mut().for_each(|x| *x *= normal_distribution(*x)),
            Activation::Relu => x.iter_mut().for_each(|x| *x = x.max(0.0)),
            Activation::Clamped { limit } => x.iter_mut().for_each(|x| *x = x.min(limit) * sigmoid(1.702 * x.min(limit))),
        }
    }

    /// `f(gate) · up`, in place of the gates.
    #[inline(always)]
    pub(crate) fn gate(self, gate: &mut [f32], up: &[f32]) {
        self.apply(gate);
        match self {
            Activation::Clamped { limit } => gate.iter_mut().zip(up).for_each(|(y, up)| *y *= up.clamp(-limit, limit) + 1.0),
            _ => gate.iter_mut().zip(up).for_each(|(y, up)| *y *= up),
        }
    }
}

/// `x + y`, in place of `x`.
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    vectorised(|| x.iter_mut().zip(y).for_each(|(x, y)| *x += y));
}

/// Rows in the type of attention.
pub(crate) fn narrowed<T: Element>(rows: &[f32]) -> Vec<T> {
    let mut narrow = vec![T::default(); rows.len()];
    narrow.par_chunks_mut(GRAIN).zip(rows.par_chunks(GRAIN)).for_each(|(to, from)| T::narrow(from, to));
    narrow
}

/// Heads `[heads, n, dim]` to rows `[n, heads·dim]`.
pub(crate) fn joined<T: Element>(from: &[T], [heads, n, dim]: [usize; 3]) -> Vec<f32> {
    let mut rows = vec![0.0; heads * n * dim];
    rows.par_chunks_mut((heads * dim).max(1)).enumerate().for_each(|(l, to)| {
        for (h, to) in to.chunks_mut(dim).enumerate() {
            T::widen(&from[(h * n + l) * dim..][..dim], to);
        }
    });
    rows
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
