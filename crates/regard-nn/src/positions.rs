//! Absolute positions: a row for each position, added to the embeddings of tokens.

use candle_core::Tensor;
use regard::{RopeStyle, sinusoidal};

use crate::array::tensor;
use crate::ops::{lookup, residual};
use crate::tape::{Tape, Value};
use crate::{Error, Result};

/// Learned positions: `x_i + table[i]`.
///
/// Use them for models of GPT-2's and BERT's kind; a text cannot be longer than the table.
///
/// Source: Gehring et al. 2017, "Convolutional Sequence to Sequence Learning", §3.1; Devlin et al. 2019, "BERT", §3.
#[derive(Clone, Debug)]
pub struct LearnedPositions {
    table: Tensor,
}

impl LearnedPositions {
    /// A layer over `table [positions, n]`.
    ///
    /// # Errors
    /// When the table has not two dimensions.
    pub fn new(table: Tensor) -> Result<Self> {
        table.dims2()?;
        Ok(Self { table })
    }

    /// `x [batch, length, n]`, whose first position is `first`, with its positions added. Differentiable in `x` and the table.
    ///
    /// # Errors
    /// When a position is beyond the table, the widths differ, or a tensor is not f32.
    pub fn forward(&self, x: &Tensor, first: usize) -> Result<Tensor> {
        let (positions, width) = self.table.dims2()?;
        let end = first.saturating_add(x.dims3()?.1);
        if end > positions {
            return Err(Error::Context { tokens: end, context: positions });
        }
        let ids: Vec<u32> = (first as u32..end as u32).collect();
        added(x, width, |tape, batch| lookup(tape, &tape.watch(&self.table)?, &ids.repeat(batch)))
    }
}

/// Sinusoidal positions: `x_i + sinusoidal(i)`, without parameters; see [`sinusoidal`].
///
/// Source: Vaswani et al. 2017, "Attention Is All You Need", §3.5.
#[derive(Clone, Copy, Debug)]
pub struct SinusoidalPositions {
    dim: usize,
    style: RopeStyle,
}

impl SinusoidalPositions {
    /// Positions for embeddings of `dim` elements.
    ///
    /// # Errors
    /// When `dim` is zero or odd.
    pub fn new(dim: usize, style: RopeStyle) -> Result<Self> {
        sinusoidal(0..0, dim, style)?;
        Ok(Self { dim, style })
    }

    /// `x [batch, length, dim]`, whose first position is `first`, with its positions added. Differentiable.
    ///
    /// # Errors
    /// When the width is another, or the tensor is not f32.
    pub fn forward(&self, x: &Tensor, first: usize) -> Result<Tensor> {
        let length = x.dims3()?.1;
        let rows = sinusoidal(first..first.saturating_add(length), self.dim, self.style)?.into_vec();
        added(x, self.dim, |_, batch| Ok(Value::constant(tensor(rows.repeat(batch), (batch * length, self.dim))?)))
    }
}

/// `x [batch, length, width]` plus `rows(batch)`, `[batch·length, width]`.
fn added(x: &Tensor, width: usize, rows: impl FnOnce(&Tape, usize) -> Result<Value>) -> Result<Tensor> {
    let (batch, length, given) = x.dims3()?;
    if given != width {
        let needed = format!("{width} elements at each position, as the positions have");
        return Err(Error::Shape { what: "input of a position embedding", given: x.dims().to_vec(), needed });
    }
    let tape = Tape::new();
    let rows = rows(&tape, batch)?;
    let x = tape.watch(x)?.reshape(&[batch * length, width])?;
    let y = residual(&tape, &x, &rows, None)?;
    tape.finish(y.reshape(&[batch, length, width])?)
}
