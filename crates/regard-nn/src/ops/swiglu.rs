//! SwiGLU: silu(gate)·up, in one pass.

use candle_core::Tensor;
use rayon::prelude::*;

use super::GRAIN;
use super::simd::{sigmoid, vectorised};
use crate::Result;
use crate::array::{expect, slice, tensor};
use crate::tape::{Tape, Value, lift};

/// silu(gate)·up of candle tensors of one shape. Differentiable in both.
///
/// Source: Shazeer 2020, "GLU Variants Improve Transformer".
///
/// # Errors
/// When the shapes differ, or a tensor is not f32.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    lift(&[gate, up], |tape, v| self::gate(tape, &v[0], &v[1]))
}

/// ```text
///   σ = 1/(1 + e⁻ᵍ)      y = g·σ·u
///   ∂g = ∂y·u·σ·(1 + g·(1 − σ))      ∂u = ∂y·g·σ
/// ```
pub(crate) fn gate(tape: &Tape, gate: &Value, up: &Value) -> Result<Value> {
    expect("the second input of SwiGLU", up.tensor(), gate.tensor().dims())?;
    let mut y = vec![0.0; gate.tensor().elem_count()];
    {
        let (g, u) = (slice(gate.tensor())?, slice(up.tensor())?);
        let parts = y.par_chunks_mut(GRAIN).zip(g.par_chunks(GRAIN)).zip(u.par_chunks(GRAIN));
        parts.for_each(|((y, g), u)| {
            vectorised(|| y.iter_mut().zip(g).zip(u).for_each(|((y, &g), &u)| *y = g * sigmoid(g) * u));
        });
    }
    let (g, u) = (gate.tensor().clone(), up.tensor().clone());
    let y = tensor(y, g.shape())?;
    Ok(tape.push(y, &[gate, up], move |dy| backward(dy, &g, &u)))
}

fn backward(dy: &Tensor, gate: &Tensor, up: &Tensor) -> Result<Vec<Option<Tensor>>> {
    let shape = gate.shape();
    let (dy, g, u) = (slice(dy)?, slice(gate)?, slice(up)?);
    let (mut dg, mut du) = (vec![0.0; g.len()], vec![0.0; g.len()]);
    let inputs = dy.par_chunks(GRAIN).zip(g.par_chunks(GRAIN)).zip(u.par_chunks(GRAIN));
    let parts = dg.par_chunks_mut(GRAIN).zip(du.par_chunks_mut(GRAIN)).zip(inputs);
    parts.for_each(|((dg, du), ((dy, g), u))| vectorised(|| backward_part(dg, du, dy, g, u)));
    Ok(vec![Some(tensor(dg, shape)?), Some(tensor(du, shape)?)])
}

#[inline(always)]
fn backward_part(dg: &mut [f32], du: &mut [f32], dy: &[f32], g: &[f32], u: &[f32]) {
    for ((((dg, du), dy), g), u) in dg.iter_mut().zip(du).zip(dy).zip(g).zip(u) {
        let s = sigmoid(*g);
        *dg = dy * u * s * (1.0 + g * (1.0 - s));
        *du = dy * g * s;
    }
}
