//! Softmax of scores under a mask: the weights of attention themselves, where someone wants to see them or to draw from them.

use rayon::prelude::*;
use regard::{Mask, Shape};

use super::rows_per_task;
use super::simd::{exp, largest, sum, vectorised};
use crate::Result;
use crate::array::{slice, tensor};
use crate::tape::{Tape, Value};

/// `scores [batch, heads, q_len, kv_len]` → weights of that shape. Hidden scores are not read, and a row that sees nothing is 0.
///
/// ```text
///   p_j = exp(s_j − m) / Σ exp(s − m) over the keys seen, m = max s        ∂s_j = p_j·(∂p_j − Σ p·∂p)
/// ```
pub(crate) fn softmax<M: Mask>(tape: &Tape, scores: &Value, mask: &M) -> Result<Value> {
    let (batch, heads, q_len, kv_len) = scores.tensor().dims4()?;
    let shape = Shape { batch, q_heads: heads, kv_heads: heads, q_len, kv_len, kv_lens: Vec::new(), head_dim: 0, value_dim: 0 };
    mask.check(&shape)?;
    let mut p = slice(scores.tensor())?.to_vec();
    if kv_len > 0 {
        p.par_chunks_mut(kv_len).enumerate().for_each(|(row, p)| {
            let (b, h, i) = (row / q_len / heads, row / q_len % heads, row % q_len);
            let at = shape.pair(b, h, i, 0);
            p.iter_mut().zip(0..).filter(|(_, kv)| !mask.keep(at.with(at.q, *kv))).for_each(|(s, _)| *s = f32::NEG_INFINITY);
            vectorised(|| normalise(p));
        });
    }
    let p = tensor(p, scores.tensor().shape())?;
    let saved = p.clone();
    Ok(tape.push(p, &[scores], move |dp| {
        let (p, dp) = (slice(&saved)?, slice(dp)?);
        let mut ds = vec![0.0; p.len()];
        let step = rows_per_task(kv_len) * kv_len.max(1);
        ds.par_chunks_mut(step).zip(p.par_chunks(step)).zip(dp.par_chunks(step)).for_each(|((ds, p), dp)| {
            vectorised(|| {
                ds.chunks_mut(kv_len).zip(p.chunks(kv_len)).zip(dp.chunks(kv_len)).for_each(|((ds, p), dp)| pull(ds, p, dp))
            });
        });
        Ok(vec![Some(tensor(ds, saved.shape())?)])
    }))
}

#[inline(always)]
fn normalise(row: &mut [f32]) {
    let max = largest(row);
    if max == f32::NEG_INFINITY {
        return row.fill(0.0);
    }
    row.iter_mut().for_each(|s| *s = if *s == f32::NEG_INFINITY { 0.0 } else { exp(*s - max) });
    let total = sum(row.len(), |j| row[j]);
    row.iter_mut().for_each(|p| *p /= total);
}

#[inline(always)]
fn pull(ds: &mut [f32], p: &[f32], dp: &[f32]) {
    let mean = sum(p.len(), |j| p[j] * dp[j]);
    ds.iter_mut().zip(p).zip(dp).for_each(|((ds, p), dp)| *ds = p * (dp - mean));
}
