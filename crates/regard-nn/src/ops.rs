//! The fused operations that layers are made of: each a forward and a backward, parallel over rows, in one pass over memory.
//!
//! Every operation is a function on a [`Tape`](crate::Tape); [`attention`], [`rms_norm`], [`swiglu`], [`rope`], [`dropout`],
//! [`embedding`] and [`cross_entropy`] do the same on candle tensors, for use in candle models. Results do not depend on the number
//! of threads: rows are independent, and sums over rows are made of partial sums over fixed numbers of rows, added in order.

mod additive;
mod append;
mod attention;
mod dropout;
mod embedding;
mod entropy;
mod linear;
mod norm;
mod rope;
pub(crate) mod simd;
mod softmax;
mod swiglu;

pub(crate) use additive::additive;
pub(crate) use append::append;
pub use attention::attention;
pub(crate) use attention::{AttentionSpec, Rule, attend, attend_biased, heads_first};
pub use dropout::dropout;
pub(crate) use dropout::{Mask, residual};
pub use embedding::embedding;
pub(crate) use embedding::lookup;
pub use entropy::cross_entropy;
pub(crate) use entropy::head_loss;
pub(crate) use linear::linear;
pub(crate) use norm::normalise;
pub use norm::rms_norm;
pub use rope::rope;
pub(crate) use rope::{Angles, rotate, turn_row, turned};
pub(crate) use softmax::softmax;
pub(crate) use swiglu::gate;
pub use swiglu::swiglu;

use candle_core::Tensor;
use rayon::prelude::*;

use crate::Result;
use crate::array::{slice, tensor};

/// Elements that one task handles: enough to hide the cost of a task, few enough to share out.
pub(crate) const GRAIN: usize = 1 << 14;

/// Rows of this width that one task handles.
pub(crate) fn rows_per_task(width: usize) -> usize {
    (GRAIN / width.max(1)).max(1)
}

/// The sum of two tensors of as many elements, in the shape of the first.
pub(crate) fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (x, y) = (slice(a)?, slice(b)?);
    let mut sum = vec![0.0; x.len()];
    let parts = sum.par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN)).zip(y.par_chunks(GRAIN));
    parts.for_each(|((sum, x), y)| {
        simd::vectorised(|| sum.iter_mut().zip(x).zip(y).for_each(|((sum, x), y)| *sum = x + y));
    });
    tensor(sum, a.shape())
}

/// Sums columns: partial sums over fixed blocks of rows, made in parallel by `block(rows, sums)`, added in order.
fn column_sums(rows: usize, width: usize, block: impl Fn(std::ops::Range<usize>, &mut [f32]) + Sync) -> Vec<f32> {
    let step = 2 * rows_per_task(width);
    let blocks = rows.div_ceil(step);
    let mut partial = vec![0.0; blocks * width];
    partial.par_chunks_mut(width).enumerate().for_each(|(i, sums)| block(i * step..rows.min((i + 1) * step), sums));
    let mut total = vec![0.0; width];
    for sums in partial.chunks(width) {
        total.iter_mut().zip(sums).for_each(|(t, s)| *t += s);
    }
    total
}
