//! The short causal convolution that many models run before linear attention.

use regard_core::{Element, Error, Result, Tensor, View};
use regard_cpu::linear::{Conv, ConvGradients, conv_backward, conv_forward};

use crate::plan::expect;

/// A causal convolution of each channel by itself, with a state from call to call.
///
/// ```text
///   y_t = b + Σ_{j<K} w_j ∘ x_{t−K+1+j}      out_t = y_t, or silu(y_t) = y_t / (1 + e^{−y_t})
/// ```
///
/// **When to use it**: on queries, keys and values of Gated DeltaNet or Mamba models, which run it with 4 taps before linear
/// attention.
///
/// Shapes are regard's: x and out `[batch, heads, length, dim]`, weight `[1, heads, taps, dim]`, bias `[1, heads, 1, dim]`, state
/// `[batch, heads, taps − 1, dim]`: the last inputs, oldest first. ONNX's operator `CausalConvWithState` (opset 27) has the same
/// semantics with `[batch, channels, length]`: read it as `[batch, channels, length, 1]`, and its weight, `[channels, 1, taps]`, as
/// `[1, channels, taps, 1]`. Sums are f32; an output depends on its own `taps` inputs only, so no cut, batch or thread changes a bit.
///
/// ```
/// use regard::{CausalConv, View};
///
/// let x = View::new(&[1f32, 2.0, 3.0, 4.0], [1, 1, 4, 1])?;
/// let weight = View::new(&[0.5f32, 1.0], [1, 1, 2, 1])?; // half of the position before, all of this one
/// let conv = CausalConv::new(weight);
/// let output = conv.forward(x, None)?;
/// assert_eq!(output.out.data(), [1.0, 2.5, 4.0, 5.5]);
/// let next = conv.forward(View::new(&[5f32], [1, 1, 1, 1])?, Some(output.state.view()))?;
/// assert_eq!(next.out.data(), [7.0]);
/// # Ok::<(), regard::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CausalConv<'a, T> {
    weight: View<'a, T>,
    bias: Option<View<'a, T>>,
    silu: bool,
}

/// The result of a causal convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvOutput<T> {
    /// `[batch, heads, length, dim]`.
    pub out: Tensor<T>,
    /// The last inputs, `[batch, heads, taps − 1, dim]`: the `past` of the next call.
    pub state: Tensor<T>,
}

/// The gradients of a causal convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvGrads<T> {
    /// Gradient of the input, in its shape.
    pub dx: Tensor<T>,
    /// Gradient of the state before, `[batch, heads, taps − 1, dim]`.
    pub dpast: Tensor<T>,
    /// Gradient of the weights, `[1, heads, taps, dim]`.
    pub dweight: Tensor<f32>,
    /// Gradient of the bias, `[1, heads, 1, dim]`, whether there is one or not.
    pub dbias: Tensor<f32>,
}

impl<'a, T: Element> CausalConv<'a, T> {
    /// A convolution of `weight`, `[1, heads, taps, dim]`, the last tap that of the present position.
    pub fn new(weight: View<'a, T>) -> Self {
        CausalConv { weight, bias: None, silu: false }
    }

    /// What is added, `[1, heads, 1, dim]`.
    pub fn bias(self, bias: View<'a, T>) -> Self {
        CausalConv { bias: Some(bias), ..self }
    }

    /// `silu` after the sum.
    pub fn silu(self) -> Self {
        CausalConv { silu: true, ..self }
    }

    fn checked<'b>(&self, x: View<'b, T>, past: Option<View<'b, T>>) -> Result<(Conv<'b, T>, [usize; 4])>
    where
        'a: 'b,
    {
        let CausalConv { weight, bias, silu } = *self;
        let ([batch, heads, _, dim], taps) = (x.shape(), weight.shape()[2]);
        if taps == 0 {
            return Err(Error::Value { what: "the number of taps", given: 0.0, needed: "at least 1" });
        }
        expect("weight of the convolution", weight.shape(), [1, heads, taps, dim])?;
        if let Some(bias) = &bias {
            expect("bias of the convolution", bias.shape(), [1, heads, 1, dim])?;
        }
        let state = [batch, heads, taps - 1, dim];
        if let Some(past) = &past {
            expect("past state", past.shape(), state)?;
        }
        Ok((Conv { x, weight, bias, past, silu }, state))
    }

    /// The output for `x`, `[batch, heads, length, dim]`, after the state `past`, or after zeros.
    ///
    /// # Errors
    /// When a shape does not fit.
    pub fn forward(&self, x: View<'_, T>, past: Option<View<'_, T>>) -> Result<ConvOutput<T>> {
        let (conv, state) = self.checked(x, past)?;
        let mut output = ConvOutput { out: Tensor::zeros(x.shape())?, state: Tensor::zeros(state)? };
        conv_forward(&conv, output.out.view_mut(), output.state.view_mut());
        Ok(output)
    }

    /// Every gradient of `Σ d_out · out + Σ d_state · state`.
    ///
    /// # Errors
    /// When a shape does not fit.
    pub fn backward(
        &self,
        x: View<'_, T>,
        past: Option<View<'_, T>>,
        d_out: View<'_, T>,
        d_state: Option<View<'_, T>>,
    ) -> Result<ConvGrads<T>> {
        let (conv, state) = self.checked(x, past)?;
        expect("gradient of the output", d_out.shape(), x.shape())?;
        if let Some(d_state) = &d_state {
            expect("gradient of the state", d_state.shape(), state)?;
        }
        let [_, heads, taps, dim] = self.weight.shape();
        let (dx, dpast) = (Tensor::zeros(x.shape())?, Tensor::zeros(state)?);
        let (dweight, dbias) = (Tensor::zeros([1, heads, taps, dim])?, Tensor::zeros([1, heads, 1, dim])?);
        let mut grads = ConvGrads { dx, dpast, dweight, dbias };
        let to = ConvGradients {
            dx: grads.dx.view_mut(),
            dpast: grads.dpast.view_mut(),
            dweight: grads.dweight.data_mut(),
            dbias: grads.dbias.data_mut(),
        };
        conv_backward(&conv, d_out, d_state, to);
        Ok(grads)
    }
}
