//! y = x·Wᵀ + b.

use candle_core::Tensor;
use rayon::prelude::*;

use super::{column_sums, rows_per_task};
use crate::Result;
use crate::array::{expect, rows_and_width, slice, tensor};
use crate::tape::{Tape, Value};

/// `x [.., in]`, `weight [out, in]`, `bias [out]` → `[.., out]`.
///
/// ```text
///   y = x·Wᵀ + b        ∂x = ∂y·W        ∂W = ∂yᵀ·x        ∂b = Σ_rows ∂y
/// ```
pub(crate) fn linear(tape: &Tape, x: &Value, weight: &Value, bias: Option<&Value>) -> Result<Value> {
    let (rows, inner) = rows_and_width("input of a linear layer", x.tensor())?;
    let flat = x.tensor().reshape((rows, inner))?;
    let y = product(&flat, weight.tensor())?;
    let (w, needs_x) = (weight.tensor().clone(), x.is_tracked());
    match bias {
        None => Ok(tape
            .push(y, &[x, weight], move |dy| Ok(vec![needs_x.then(|| dy.matmul(&w)).transpose()?, Some(dy.t()?.matmul(&flat)?)]))),
        Some(bias) => Ok(tape.push(add_rows(&y, bias.tensor())?, &[x, weight, bias], move |dy| {
            let dx = needs_x.then(|| dy.matmul(&w)).transpose()?;
            Ok(vec![dx, Some(dy.t()?.matmul(&flat)?), Some(sum_rows(dy)?)])
        })),
    }
}

fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let given = weight.dims().to_vec();
    let inner = x.dims2()?.1;
    match given[..] {
        [_, needed] if needed == inner => Ok(x.matmul(&weight.t()?)?),
        _ => Err(crate::Error::Shape { what: "weight of a linear layer", given, needed: format!("[out, {inner}], for its input") }),
    }
}

/// y + b, row by row.
fn add_rows(y: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (rows, width) = rows_and_width("output of a linear layer", y)?;
    expect("bias of a linear layer", bias, &[width])?;
    let (mut sums, bias) = (slice(y)?.to_vec(), slice(bias)?);
    sums.par_chunks_mut(rows_per_task(width) * width).for_each(|part| {
        part.chunks_mut(width).for_each(|row| row.iter_mut().zip(&*bias).for_each(|(y, b)| *y += b));
    });
    tensor(sums, (rows, width))
}

/// Σ over rows.
fn sum_rows(dy: &Tensor) -> Result<Tensor> {
    let (rows, width) = dy.dims2()?;
    let dy = slice(dy)?;
    let sums = column_sums(rows, width, |rows, sums| {
        for row in dy[rows.start * width..rows.end * width].chunks(width) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
    });
    tensor(sums, width)
}
