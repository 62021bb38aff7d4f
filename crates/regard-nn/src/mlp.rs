//! The feed-forward layer of Llama: SwiGLU between three projections.

use candle_core::Tensor;

use crate::tape::{Tape, Value};
use crate::{Error, Linear, Result, ops};

/// y = down(silu(gate(x)) · up(x)).
///
/// Source: Shazeer 2020, "GLU Variants Improve Transformer".
#[derive(Clone, Debug)]
pub struct SwiGlu {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl SwiGlu {
    /// A layer from its three projections.
    ///
    /// # Errors
    /// When their sizes do not fit together.
    pub fn new(gate: Linear, up: Linear, down: Linear) -> Result<Self> {
        let sizes = |layer: &Linear| [layer.in_dim(), layer.out_dim()];
        if sizes(&gate) != sizes(&up) {
            let needed = format!("{:?} as the gate projection", sizes(&gate));
            return Err(Error::Shape { what: "the up projection ([in, out])", given: sizes(&up).to_vec(), needed });
        }
        if down.in_dim() != gate.out_dim() {
            let needed = format!("{} inputs, as the gate has outputs", gate.out_dim());
            return Err(Error::Shape { what: "the down projection ([in, out])", given: sizes(&down).to_vec(), needed });
        }
        Ok(Self { gate, up, down })
    }

    /// `x [.., n]` → `[.., n]`. Differentiable.
    ///
    /// # Errors
    /// When the shapes do not fit, or a tensor is not f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let tape = Tape::new();
        let y = self.on(&tape, &tape.watch(x)?)?;
        let mut shape = x.dims().to_vec();
        shape.pop();
        shape.push(self.down.out_dim());
        tape.finish(y.reshape(&shape)?)
    }

    /// As [`SwiGlu::forward`], on a tape, with rows flattened.
    ///
    /// # Errors
    /// As [`SwiGlu::forward`].
    pub fn on(&self, tape: &Tape, x: &Value) -> Result<Value> {
        let (gate, up) = (self.gate.on(tape, x)?, self.up.on(tape, x)?);
        self.down.on(tape, &ops::gate(tape, &gate, &up)?)
    }
}
