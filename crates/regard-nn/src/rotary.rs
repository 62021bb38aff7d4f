//! Rotary position embedding: the angles of positions.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use crate::ops::{Angles, RopeStyle, rope};
use crate::{Error, Result};

/// A rotary position embedding: pair `i` of a head turns by `position · θ^(−2i/dim)`.
///
/// Source: Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", §3.2.
#[derive(Clone, Debug)]
pub struct Rotary {
    /// `[dim/2]`, radians per position.
    frequencies: Vec<f64>,
    style: RopeStyle,
}

impl Rotary {
    /// An embedding for heads of `dim` elements with base `theta`.
    ///
    /// # Errors
    /// When `dim` is zero or odd, or `theta` is not a positive number.
    pub fn new(dim: usize, theta: f64, style: RopeStyle) -> Result<Self> {
        if dim == 0 || !dim.is_multiple_of(2) {
            return Err(Error::Value {
                what: "head dimension of a rotary embedding",
                given: dim as f64,
                needed: "even and positive",
            });
        }
        if !(theta.is_finite() && theta > 0.0) {
            return Err(Error::Value { what: "base of a rotary embedding", given: theta, needed: "a positive number" });
        }
        let frequencies = (0..dim / 2).map(|i| theta.powf(-2.0 * i as f64 / dim as f64)).collect();
        Ok(Self { frequencies, style })
    }

    /// Elements of a head.
    pub fn dim(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// The angles of positions `first..first + length`, reduced in f64: exact to an ulp of f32 at any position.
    pub(crate) fn angles(&self, first: usize, length: usize) -> Angles {
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in first..first + length {
            for frequency in &self.frequencies {
                let (s, c) = (position as f64 * frequency).sin_cos();
                cos.push(c as f32);
                sin.push(s as f32);
            }
        }
        Angles { cos: Arc::new(cos), sin: Arc::new(sin), style: self.style }
    }

    /// Rotates `x [batch, heads, length, dim]`, whose first position is `first`. Differentiable.
    ///
    /// # Errors
    /// When the last size is not the head's, or the tensor is not f32.
    pub fn forward(&self, x: &Tensor, first: usize) -> Result<Tensor> {
        let length = x.dims4()?.2;
        let angles = self.angles(first, length);
        let table = |values: &[f32]| Tensor::from_slice(values, (length, self.frequencies.len()), &Device::Cpu);
        rope(x, &table(&angles.cos)?, &table(&angles.sin)?, self.style)
    }
}
