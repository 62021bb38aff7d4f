//! Sinusoidal positions: a row for each position, without parameters.

use std::ops::Range;

use regard_core::{Result, Tensor};

use crate::{Rope, RopeStyle};

/// Sinusoidal positions, `[1, 1, positions, dim]`, to be added to embeddings of `dim` elements: no parameters, any length.
///
/// ```text
///   y[position, 2i] = sin(position / 10000^(2i/dim))        y[position, 2i + 1] = cos(position / 10000^(2i/dim))
/// ```
/// That is [`RopeStyle::Interleaved`]; with [`RopeStyle::HalfSplit`] the sines come first, then the cosines, as in Marian.
///
/// Source: Vaswani et al. 2017, "Attention Is All You Need", §3.5.
///
/// # Errors
/// When `dim` is zero or odd, or a position is 2⁵³ or more.
pub fn sinusoidal(positions: Range<usize>, dim: usize, style: RopeStyle) -> Result<Tensor<f32>> {
    let angles = Rope::new(dim, 10_000.0, style)?.angles(positions.clone())?;
    let mut table = Tensor::zeros([1, 1, positions.len(), dim])?;
    // The pair (0, 1) turned by an angle is (−sin, cos).
    let pair: Vec<f32> =
        (0..dim).map(|i| f32::from(if style == RopeStyle::HalfSplit { i >= dim / 2 } else { i % 2 == 1 })).collect();
    table.data_mut().chunks_exact_mut(dim).enumerate().for_each(|(l, row)| angles.turn_back(l, &pair, row));
    Ok(table)
}
