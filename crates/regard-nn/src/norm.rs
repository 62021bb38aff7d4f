//! The RMSNorm layer.

use candle_core::Tensor;

use crate::Result;
use crate::ops;
use crate::tape::{Tape, Value};

/// Rows scaled to mean square 1, times a learned weight.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    /// A layer with weight `[n]`; `eps` is added to the mean square.
    pub fn new(weight: Tensor, eps: f64) -> Self {
        Self { weight, eps }
    }

    /// `x [.., n]` → `[.., n]`. Differentiable.
    ///
    /// # Errors
    /// When the shapes do not fit, or a tensor is not f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::rms_norm(x, &self.weight, self.eps)
    }

    /// As [`RmsNorm::forward`], on a tape.
    ///
    /// # Errors
    /// As [`RmsNorm::forward`].
    pub fn on(&self, tape: &Tape, x: &Value) -> Result<Value> {
        ops::normalise(tape, x, &tape.watch(&self.weight)?, self.eps)
    }
}
