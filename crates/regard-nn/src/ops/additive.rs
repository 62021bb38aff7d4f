//! Additive scores: a small network of one hidden layer on every pair, which no product of matrices computes.

use rayon::prelude::*;

use super::simd::{sigmoid, sum, vectorised};
use crate::Result;
use crate::array::{expect, slice, tensor};
use crate::tape::{Tape, Value};

/// Sizes of a problem: `batch`, queries, keys, and the hidden layer.
#[derive(Clone, Copy)]
struct Sizes {
    q_len: usize,
    kv_len: usize,
    n: usize,
}

/// a `[batch, q_len, n]`, b `[batch, kv_len, n]`, v `[n]` → `[batch, q_len, kv_len]`; the hidden layer is never in memory.
///
/// ```text
///   t_ij = tanh(a_i + b_j)      e_ij = v·t_ij
///   ∂v = Σ_ij ∂e_ij·t_ij        g_ij = ∂e_ij·v·(1 − t_ij²)      ∂a_i = Σ_j g_ij      ∂b_j = Σ_i g_ij
/// ```
pub(crate) fn additive(tape: &Tape, a: &Value, b: &Value, v: &Value) -> Result<Value> {
    let ((batch, q_len, n), (_, kv_len, _)) = (a.tensor().dims3()?, b.tensor().dims3()?);
    expect("keys of additive attention", b.tensor(), &[batch, kv_len, n])?;
    expect("weight of additive scores", v.tensor(), &[n])?;
    let sizes = Sizes { q_len, kv_len, n };
    let mut e = vec![0.0; batch * q_len * kv_len];
    {
        let (a, b, v) = (slice(a.tensor())?, slice(b.tensor())?, slice(v.tensor())?);
        e.par_chunks_mut(kv_len.max(1)).enumerate().for_each(|(row, e)| {
            let (a, b) = (&a[row * n..][..n], &b[row / q_len * kv_len * n..][..kv_len * n]);
            vectorised(|| e.iter_mut().zip(b.chunks(n)).for_each(|(e, b)| *e = sum(n, |d| v[d] * tanh(a[d] + b[d]))));
        });
    }
    let saved = [a, b, v].map(|x| x.tensor().clone());
    Ok(tape.push(tensor(e, (batch, q_len, kv_len))?, &[a, b, v], move |de| {
        let [a, b, v] = &saved;
        let (mut da, mut db) = (vec![0.0; a.elem_count()], vec![0.0; b.elem_count()]);
        let mut dv = vec![0.0; batch * n];
        {
            let (a, b, v, de) = (slice(a)?, slice(b)?, slice(v)?, slice(de)?);
            let (rows, keys) = ((q_len * n).max(1), (kv_len * n).max(1));
            let inputs = a.par_chunks(rows).zip(b.par_chunks(keys)).zip(de.par_chunks((q_len * kv_len).max(1)));
            let outputs = da.par_chunks_mut(rows).zip(db.par_chunks_mut(keys)).zip(dv.par_chunks_mut(n.max(1)));
            outputs.zip(inputs).for_each(|(((da, db), dv), ((a, b), de))| {
                vectorised(|| backward(sizes, [a, b, &v, de], [da, db, dv]));
            });
        }
        let mut total = vec![0.0; n];
        dv.chunks(n.max(1)).for_each(|dv| total.iter_mut().zip(dv).for_each(|(total, dv)| *total += dv));
        Ok(vec![Some(tensor(da, a.shape())?), Some(tensor(db, b.shape())?), Some(tensor(total, n)?)])
    }))
}

/// One sequence. A pair without a gradient is not read: it may be hidden.
#[inline(always)]
fn backward(Sizes { q_len, kv_len, n }: Sizes, [a, b, v, de]: [&[f32]; 4], [da, db, dv]: [&mut [f32]; 3]) {
    for (i, j) in (0..q_len).flat_map(|i| (0..kv_len).map(move |j| (i, j))) {
        let de = de[i * kv_len + j];
        if de != 0.0 {
            let (a, b, da, db) = (&a[i * n..][..n], &b[j * n..][..n], &mut da[i * n..][..n], &mut db[j * n..][..n]);
            for d in 0..n {
                let t = tanh(a[d] + b[d]);
                let g = de * v[d] * (1.0 - t * t);
                dv[d] += de * t;
                da[d] += g;
                db[d] += g;
            }
        }
    }
}

/// (eˣ − e⁻ˣ)/(eˣ + e⁻ˣ) = 2σ(2x) − 1.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    2.0 * sigmoid(2.0 * x) - 1.0
}
