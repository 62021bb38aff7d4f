//! The linear layer.

use candle_core::Tensor;
use regard::PackedMatrix;

use crate::array::{expect, rows_and_width, slice, tensor};
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

    /// [`Linear::forward`] without gradients, rows flattened: a row's bits do not depend on the number of rows, which is what makes a
    /// prompt cut into chunks, or decoded token by token, give the same text.
    pub(crate) fn infer(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, _) = rows_and_width("input of a linear layer", x)?;
        let mut y = vec![0.0; rows * self.out_dim()];
        let bias = self.bias.as_ref().map(slice).transpose()?;
        let weight = PackedMatrix::new(&slice(&self.weight.contiguous()?)?, self.out_dim(), self.in_dim())?;
        weight.apply(&slice(x)?, bias.as_deref(), &mut y)?;
        tensor(y, (rows, self.out_dim()))
    }

    /// The weight, `[out, in]`.
    pub(crate) fn weight(&self) -> &Tensor {
        &self.weight
    }
}
