//! RMSNorm: rows scaled to mean square 1, times a learned weight.

use candle_core::Tensor;
use rayon::prelude::*;

use super::simd::{sum, vectorised};
use super::{column_sums, rows_per_task};
use crate::Result;
use crate::array::{expect, rows_and_width, slice, tensor};
use crate::tape::{Tape, Value, lift};

/// RMSNorm of candle tensors: `x [.., n]`, `weight [n]`. Differentiable in both.
///
/// Source: Zhang & Sennrich 2019, "Root Mean Square Layer Normalization".
///
/// # Errors
/// When the shapes do not fit, or a tensor is not f32.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    lift(&[x, weight], |tape, v| normalise(tape, &v[0], &v[1], eps))
}

/// ```text
///   r = 1/√(mean(x²) + ε)      y = x·r·w
///   ∂x = r·(∂y·w − x·r²·mean(∂y·w·x))      ∂w = Σ_rows ∂y·x·r
/// ```
pub(crate) fn normalise(tape: &Tape, x: &Value, weight: &Value, eps: f64) -> Result<Value> {
    let (rows, n) = rows_and_width("input of RMSNorm", x.tensor())?;
    expect("weight of RMSNorm", weight.tensor(), &[n])?;
    let (mut y, mut inverse) = (vec![0.0; rows * n], vec![0.0; rows]);
    {
        let (x, w) = (slice(x.tensor())?, slice(weight.tensor())?);
        let step = rows_per_task(n);
        let parts = y.par_chunks_mut(step * n).zip(x.par_chunks(step * n)).zip(inverse.par_chunks_mut(step));
        parts.for_each(|((y, x), inverse)| vectorised(|| forward(y, x, &w, inverse, eps as f32)));
    }
    let (saved, w) = (x.tensor().clone(), weight.tensor().clone());
    let y = tensor(y, x.tensor().shape())?;
    Ok(tape.push(y, &[x, weight], move |dy| {
        let (dx, dw) = backward(dy, &saved, &w, &inverse)?;
        Ok(vec![Some(dx), Some(dw)])
    }))
}

#[inline(always)]
fn forward(y: &mut [f32], x: &[f32], w: &[f32], inverse: &mut [f32], eps: f32) {
    let n = w.len();
    for ((y, x), inverse) in y.chunks_mut(n).zip(x.chunks(n)).zip(inverse) {
        let r = 1.0 / (sum(n, |i| x[i] * x[i]) / n as f32 + eps).sqrt();
        y.iter_mut().zip(x).zip(w).for_each(|((y, x), w)| *y = x * r * w);
        *inverse = r;
    }
}

fn backward(dy: &Tensor, x: &Tensor, weight: &Tensor, inverse: &[f32]) -> Result<(Tensor, Tensor)> {
    let shape = x.shape();
    let (dy, x, w) = (slice(dy)?, slice(x)?, slice(weight)?);
    let n = w.len();
    let step = rows_per_task(n);
    let mut dx = vec![0.0; x.len()];
    let parts = dx.par_chunks_mut(step * n).zip(x.par_chunks(step * n)).zip(dy.par_chunks(step * n)).zip(inverse.par_chunks(step));
    parts.for_each(|(((dx, x), dy), inverse)| vectorised(|| backward_rows(dx, x, dy, &w, inverse)));
    let dw = column_sums(inverse.len(), n, |rows, sums| {
        vectorised(|| {
            for row in rows {
                let (x, dy, r) = (&x[row * n..][..n], &dy[row * n..][..n], inverse[row]);
                sums.iter_mut().zip(x).zip(dy).for_each(|((sum, x), dy)| *sum += dy * x * r);
            }
        });
    });
    Ok((tensor(dx, shape)?, tensor(dw, n)?))
}

#[inline(always)]
fn backward_rows(dx: &mut [f32], x: &[f32], dy: &[f32], w: &[f32], inverse: &[f32]) {
    let n = w.len();
    for (((dx, x), dy), &r) in dx.chunks_mut(n).zip(x.chunks(n)).zip(dy.chunks(n)).zip(inverse) {
        let pull = r * r * sum(n, |i| dy[i] * w[i] * x[i]) / n as f32;
        for (((dx, x), dy), w) in dx.iter_mut().zip(x).zip(dy).zip(w) {
            *dx = r * (dy * w - x * pull);
        }
    }
}
