//! Rotary positions: pairs of elements of each head turned by an angle that grows with the position.

use std::sync::Arc;

use candle_core::Tensor;
use rayon::prelude::*;

use super::rows_per_task;
use super::simd::vectorised;
use crate::array::{expect, rows_and_width, slice, tensor};
use crate::tape::lift;
use crate::{Error, Result};

/// Which elements of a head form a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// Element `i` with element `i + dim/2`: Llama as Hugging Face stores it, GPT-NeoX.
    HalfSplit,
    /// Element `2i` with element `2i + 1`: the original formulation, GPT-J.
    Interleaved,
}

/// Cosines and sines of the angles of consecutive positions.
#[derive(Clone, Debug)]
pub(crate) struct Angles {
    /// `[positions, dim/2]`
    pub(crate) cos: Arc<Vec<f32>>,
    /// `[positions, dim/2]`
    pub(crate) sin: Arc<Vec<f32>>,
    pub(crate) style: RopeStyle,
}

/// Rotates candle tensors: `x [batch, heads, length, dim]` of any strides, `cos` and `sin` `[length, dim/2]`. Differentiable in `x`.
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
    let (batch, heads, length, dim) = x.dims4()?;
    if dim == 0 || dim % 2 == 1 {
        return Err(Error::Shape { what: "input of rope", given: x.dims().to_vec(), needed: "an even last size".to_owned() });
    }
    expect("cosines of rope", cos, &[length, dim / 2])?;
    expect("sines of rope", sin, &[length, dim / 2])?;
    let values = |t: &Tensor| Ok::<_, Error>(Arc::new(slice(&t.contiguous()?)?.to_vec()));
    let angles = Angles { cos: values(cos)?, sin: values(sin)?, style };
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
                angles.turn_row(i * step + row, x, y, dim, back);
            }
        });
    });
    tensor(y, x.shape())
}

impl Angles {
    /// Turns the heads of one row; `row` counts positions, in a cycle.
    #[inline(always)]
    pub(crate) fn turn_row(&self, row: usize, x: &[f32], y: &mut [f32], dim: usize, back: bool) {
        let half = dim / 2;
        let position = row % (self.cos.len() / half).max(1);
        let (cos, sin) = (&self.cos[position * half..][..half], &self.sin[position * half..][..half]);
        let sign = if back { -1.0 } else { 1.0 };
        for (y, x) in y.chunks_mut(dim).zip(x.chunks(dim)) {
            match self.style {
                RopeStyle::HalfSplit => {
                    let ((a, b), (ya, yb)) = (x.split_at(half), y.split_at_mut(half));
                    for i in 0..half {
                        let s = sign * sin[i];
                        (ya[i], yb[i]) = (a[i] * cos[i] - b[i] * s, b[i] * cos[i] + a[i] * s);
                    }
                }
                RopeStyle::Interleaved => {
                    for i in 0..half {
                        let (a, b, s) = (x[2 * i], x[2 * i + 1], sign * sin[i]);
                        (y[2 * i], y[2 * i + 1]) = (a * cos[i] - b * s, b * cos[i] + a * s);
                    }
                }
            }
        }
    }
}
