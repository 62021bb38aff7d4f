//! Rotary positions: pairs of elements of each head turned by an angle that grows with the position.

use std::sync::Arc;

use candle_core::Tensor;
use rayon::prelude::*;
use regard::RopeStyle;

use super::rows_per_task;
use super::simd::vectorised;
use crate::array::{expect, rows_and_width, slice, tensor};
use crate::tape::lift;
use crate::{Error, Result};

/// Cosines and sines of the angles of consecutive positions, shared by the passes of a layer.
pub(crate) type Angles = Arc<regard::Angles>;

/// Rotates candle tensors: `x [batch, heads, length, dim]` of any strides, `cos` and `sin` `[length, pairs]`, where `pairs` is at most
/// `dim/2`; what is not of a pair stays as it is. Differentiable in `x`.
///
/// ```text
///   (a, b) ↦ (a·cos − b·sin, b·cos + a·sin)      backward is the rotation by the opposite angle
/// ```
///
/// Source: Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", §3.4.
///
/// # Errors
/// When the shapes do not fit, or a tensor is not f32.
pub fn rope(x: &Tensor, cos: &Tensor, sin: &Tensor, style: RopeStyle) -> Result<Tensor> {
    let (_, _, length, dim) = x.dims4()?;
    let pairs = cos.dims2()?.1;
    if 2 * pairs > dim {
        let needed = format!("a last size of at least {}, for {pairs} pairs", 2 * pairs);
        return Err(Error::Shape { what: "input of rope", given: x.dims().to_vec(), needed });
    }
    expect("cosines of rope", cos, &[length, pairs])?;
    expect("sines of rope", sin, &[length, pairs])?;
    let values = |t: &Tensor| Ok::<_, Error>(slice(&t.contiguous()?)?.to_vec());
    turned(x, Arc::new(regard::Angles::new(values(cos)?, values(sin)?, pairs, style)?))
}

/// Rotates a candle tensor `[batch, heads, length, dim]`, in which no fewer elements than turn are in a head.
pub(crate) fn turned(x: &Tensor, angles: Angles) -> Result<Tensor> {
    let (batch, heads, length, dim) = x.dims4()?;
    // The heads of one position share an angle; here each head has rows of its own, `length` of them in a cycle.
    lift(&[x], |tape, v| {
        let y = rotate(&v[0].tensor().reshape((batch * heads * length, dim))?, &angles, dim, false)?;
        let y = tape.push(y, &[&v[0]], move |dy| Ok(vec![Some(rotate(dy, &angles, dim, true)?)]));
        y.reshape(&[batch, heads, length, dim])
    })
}

/// Rotates rows `[batches·positions, heads·dim]` by the angle of their position, or back.
pub(crate) fn rotate(x: &Tensor, angles: &Angles, dim: usize, back: bool) -> Result<Tensor> {
    let (_, width) = rows_and_width("input of rope", x)?;
    let from = slice(x)?;
    let mut y = vec![0.0; from.len()];
    let step = rows_per_task(width);
    y.par_chunks_mut(step * width).zip(from.par_chunks(step * width)).enumerate().for_each(|(i, (y, x))| {
        vectorised(|| {
            for (row, (y, x)) in y.chunks_mut(width).zip(x.chunks(width)).enumerate() {
                turn_row(angles, i * step + row, x, y, dim, back);
            }
        });
    });
    tensor(y, x.shape())
}

/// Turns the heads of one row, or back; `row` counts positions, in a cycle.
#[inline(always)]
pub(crate) fn turn_row(angles: &regard::Angles, row: usize, x: &[f32], y: &mut [f32], dim: usize, back: bool) {
    let position = row % angles.positions().max(1);
    for (y, x) in y.chunks_mut(dim).zip(x.chunks(dim)) {
        if back {
            angles.turn_back(position, x, y);
        } else {
            angles.turn(position, x, y);
        }
    }
}
