//! One more row at the end of each sequence: a key or a value that belongs to the layer, not to the text.

use candle_core::Tensor;

use crate::Result;
use crate::array::expect;
use crate::tape::{Tape, Value};

/// Rows `[batch·length, n]` → `[batch·(length + 1), n]`; the new rows are `row [n]`, or zeros.
///
/// ```text
///   ∂x = ∂y without the new rows        ∂row = Σ_batch ∂y of the new rows
/// ```
pub(crate) fn append(tape: &Tape, x: &Value, batch: usize, row: Option<&Value>) -> Result<Value> {
    let (rows, n) = x.tensor().dims2()?;
    let length = rows / batch.max(1);
    let last = match row {
        Some(row) => {
            expect("bias of keys or values", row.tensor(), &[n])?;
            row.tensor().broadcast_as((batch, 1, n))?
        }
        None => Tensor::zeros((batch, 1, n), x.tensor().dtype(), x.tensor().device())?,
    };
    let y = Tensor::cat(&[x.tensor().reshape((batch, length, n))?, last], 1)?.reshape((batch * (length + 1), n))?;
    let inputs: Vec<&Value> = std::iter::once(x).chain(row).collect();
    Ok(tape.push(y, &inputs, move |dy| {
        let dy = dy.reshape((batch, length + 1, n))?;
        let dx = dy.narrow(1, 0, length)?.contiguous()?.reshape((rows, n))?;
        Ok(vec![Some(dx), Some(dy.narrow(1, length, 1)?.sum(0)?.reshape(n)?)])
    }))
}
