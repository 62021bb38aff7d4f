//! Rotary position embedding as a layer.

use std::sync::Arc;

use candle_core::Tensor;
use regard::{Rope, RopeStyle};

use crate::ops::{Angles, turned};
use crate::{Error, Result};

/// A rotary position embedding ([`Rope`]) for candle tensors: made from one, scaled or partial, or by [`Rotary::new`].
///
/// Source: Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", §3.2.
#[derive(Clone, Debug)]
pub struct Rotary(Rope);

impl From<Rope> for Rotary {
    fn from(rope: Rope) -> Self {
        Self(rope)
    }
}

impl Rotary {
    /// An embedding for heads of `dim` elements with base `theta`.
    ///
    /// # Errors
    /// When `dim` is zero or odd, or `theta` is not a positive number.
    pub fn new(dim: usize, theta: f64, style: RopeStyle) -> Result<Self> {
        Ok(Self(Rope::new(dim, theta, style)?))
    }

    /// Elements of a head that turn.
    pub fn dim(&self) -> usize {
        self.0.dim()
    }

    /// The angles of positions `first..first + length`.
    pub(crate) fn angles(&self, first: usize, length: usize) -> Result<Angles> {
        Ok(Arc::new(self.0.angles((0..length).map(|i| first.saturating_add(i)))?))
    }

    /// Rotates `x [batch, heads, length, dim]`, whose first position is `first`. Differentiable.
    ///
    /// # Errors
    /// When a head has fewer elements than turn, or the tensor is not f32.
    pub fn forward(&self, x: &Tensor, first: usize) -> Result<Tensor> {
        let (_, _, length, dim) = x.dims4()?;
        if self.dim() > dim {
            let needed = format!("a last size of at least {}, the elements that turn", self.dim());
            return Err(Error::Shape { what: "input of a rotary embedding", given: x.dims().to_vec(), needed });
        }
        turned(x, self.angles(first, length)?)
    }
}
