//! Cross-entropy in nats: of given logits, and fused with the output projection so that the logits of a batch never exist at once.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::simd::{exp, largest, sum, vectorised};
use crate::array::{rows_and_width, slice, tensor};
use crate::tape::{Tape, Value, lift};
use crate::{Error, Result};

/// Mean of `−ln softmax(logits)[target]` over rows, in nats: `logits [.., classes]` f32, `targets [..]` u32 → scalar. Differentiable
/// in the logits.
///
/// # Errors
/// When there are not as many targets as rows, none at all, or one that is no class.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let targets: Vec<u32> = targets.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?;
    lift(&[logits], |tape, v| {
        let (rows, classes) = rows_and_width("logits", v[0].tensor())?;
        check(&targets, rows, classes)?;
        let mut slopes = slice(v[0].tensor())?.to_vec();
        let mean = 1.0 / rows as f64;
        let loss = nats(&mut slopes, classes, &targets, mean as f32) * mean;
        let slopes = tensor(slopes, v[0].tensor().shape())?;
        Ok(tape.push(scalar(loss)?, &[&v[0]], move |d| Ok(vec![Some(scaled(&slopes, d)?)])))
    })
}

/// Rows whose logits are computed at a time: few enough that a block of logits is read back from cache.
const ROWS: usize = 512;

/// Mean cross-entropy of `x·weightᵀ`: `x [rows, n]`, `weight [classes, n]` → scalar.
///
/// Gradients are made block by block in the forward pass, where the logits are at hand; without recording, only the loss is.
///
/// ```text
///   s = x·Wᵀ      p = softmax(s)      loss = −mean ln p[target]
///   ∂s = (p − onehot(target)) / rows      ∂x = ∂s·W      ∂W = Σ_blocks ∂sᵀ·x
/// ```
pub(crate) fn head_loss(tape: &Tape, x: &Value, weight: &Value, targets: &[u32]) -> Result<Value> {
    let (rows, n) = x.tensor().dims2()?;
    let classes = weight.tensor().dims2()?.0;
    check(targets, rows, classes)?;
    let (w, w_t) = (weight.tensor(), weight.tensor().t()?);
    let records = tape.records(&[x, weight]);
    let mean = 1.0 / rows as f64;
    let (mut total, mut dx, mut dw) = (0.0, Vec::new(), None);
    for (block, targets) in targets.chunks(ROWS).enumerate() {
        let x = x.tensor().narrow(0, block * ROWS, targets.len())?;
        let logits = x.matmul(&w_t)?;
        let mut slopes = slice(&logits)?.to_vec();
        drop(logits);
        total += nats(&mut slopes, classes, targets, mean as f32);
        if records {
            let slopes = tensor(slopes, (targets.len(), classes))?;
            dx.extend_from_slice(&slice(&slopes.matmul(w)?)?);
            let part = slopes.t()?.matmul(&x)?;
            dw = Some(dw.map_or_else(|| Ok(part.clone()), |sum| super::add(&sum, &part))?);
        }
    }
    let loss = scalar(total * mean)?;
    let Some(dw) = dw else { return Ok(Value::constant(loss)) };
    let dx = tensor(dx, (rows, n))?;
    Ok(tape.push(loss, &[x, weight], move |d| Ok(vec![Some(scaled(&dx, d)?), Some(scaled(&dw, d)?)])))
}

/// Turns rows of logits into `(softmax − onehot)·mean`; the sum of −ln softmax[target].
fn nats(logits: &mut [f32], classes: usize, targets: &[u32], mean: f32) -> f64 {
    let rows = logits.par_chunks_mut(classes).zip(targets);
    let each: Vec<f64> = rows.map(|(row, &target)| vectorised(|| row_nats(row, target as usize, mean))).collect();
    each.iter().sum()
}

#[inline(always)]
fn row_nats(row: &mut [f32], target: usize, mean: f32) -> f64 {
    let max = largest(row);
    let of_target = row[target] - max;
    row.iter_mut().for_each(|s| *s = exp(*s - max));
    let total = sum(row.len(), |i| row[i]);
    let scale = mean / total;
    row.iter_mut().for_each(|p| *p *= scale);
    row[target] -= mean;
    f64::from(total).ln() - f64::from(of_target)
}

fn check(targets: &[u32], rows: usize, classes: usize) -> Result<()> {
    if targets.len() != rows || rows == 0 {
        let needed = format!("one target for each of the {rows} rows, and at least one");
        return Err(Error::Shape { what: "targets", given: vec![targets.len()], needed });
    }
    match targets.iter().find(|target| **target as usize >= classes) {
        Some(&token) => Err(Error::Token { token, vocab_size: classes }),
        None => Ok(()),
    }
}

fn scalar(value: f64) -> Result<Tensor> {
    tensor(vec![value as f32], ())
}

/// x·d for a scalar d, which is 1 when the loss is what is differentiated.
fn scaled(x: &Tensor, d: &Tensor) -> Result<Tensor> {
    let d = slice(d)?.first().copied().unwrap_or(0.0);
    if d == 1.0 { Ok(x.clone()) } else { Ok(x.affine(f64::from(d), 0.0)?) }
}
