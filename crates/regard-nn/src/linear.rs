//! The linear layer.

use candle_core::Tensor;

use crate::array::expect;
use crate::ops;
use crate::tape::{Tape, Value};
use crate::{Error, Result};

/// y = x·Wᵀ + b.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// A layer with weight `[out, in]` and bias `[out]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        let [out, _] = weight.dims()[..] else {
            let given = weight.dims().to_vec();
            return Err(Error::Shape { what: "weight of a linear layer", given, needed: "[out, in]".to_owned() });
        };
        if let Some(bias) = &bias {
            expect("bias of a linear layer", bias, &[out])?;
        }
        Ok(Self { weight, bias })
    }

    /// Elements of an output row.
    pub fn out_dim(&self) -> usize {
        self.weight.dims()[0]
    }

    /// Elements of an input row.
    pub fn in_dim(&self) -> usize {
        self.weight.dims()[1]
    }

    /// `x [.., in]` → `[.., out]`. Differentiable.
    ///
    /// # Errors
    /// When the shapes do not fit, or a tensor is not f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let tape = Tape::new();
        let y = self.on(&tape, &tape.watch(x)?)?;
        let mut shape = x.dims().to_vec();
        shape.pop();
        shape.push(self.out_dim());
        tape.finish(y.reshape(&shape)?)
    }

    /// As [`Linear::forward`], on a tape, with rows flattened: `[.., in]` → `[rows, out]`.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn on(&self, tape: &Tape, x: &Value) -> Result<Value> {
        let weight = tape.watch(&self.weight)?;
        let bias = self.bias.as_ref().map(|bias| tape.watch(bias)).transpose()?;
        ops::linear(tape, x, &weight, bias.as_ref())
    }

    /// For inference: a row's bits do not depend on the number of rows.
    pub(crate) fn infer(&self, x: &Tensor) -> Result<Tensor> {
        ops::linear_rows(x, &self.weight.detach(), self.bias.as_ref().map(Tensor::detach).as_ref())
    }
}
