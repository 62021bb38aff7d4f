//! Bias: an array added to the scores, broadcastable, with a gradient of its own where wanted.

use crate::{BiasSink, Pair, Result, Score, Shape, Slope, View};

/// `s → s + bias[batch, head, q, kv]`; any of the four sizes may be 1 to repeat. An element of −∞ hides its pair.
///
/// Source: Raffel et al. 2020 (T5), §2.1 for the relative form; PyTorch's floating-point `attn_mask`.
#[derive(Clone, Copy, Debug)]
pub struct Bias<'a> {
    array: View<'a, f32>,
    gradient: bool,
}

impl<'a> Bias<'a> {
    /// A bias that is a constant.
    pub fn new(array: View<'a, f32>) -> Self {
        Bias { array, gradient: false }
    }

    /// The backward pass also returns the gradient of the bias, summed over the sizes that repeat (one more pass over the tiles).
    pub fn with_gradient(self) -> Self {
        Bias { gradient: true, ..self }
    }
}

impl Score for Bias<'_> {
    #[inline(always)]
    fn score(&self, s: f32, p: Pair) -> f32 {
        s + self.array.broadcast_at(p).unwrap_or(f32::NEG_INFINITY)
    }

    fn hides(&self) -> Option<[usize; 4]> {
        first_hidden(&self.array)
    }

    fn reveals(&self) -> bool {
        false
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        shape.broadcasts("bias", self.array.shape())
    }

    fn bias_shape(&self) -> Option<[usize; 4]> {
        self.gradient.then(|| self.array.shape())
    }
}

/// Index of the first −∞.
pub(super) fn first_hidden(array: &View<'_, f32>) -> Option<[usize; 4]> {
    let [b, h, q, kv] = array.shape();
    let mut index = (0..b * h * q * kv).map(|i| [i / kv / q / h, i / kv / q % h, i / kv % q, i % kv]);
    index.find(|&i| array.at(i) == f32::NEG_INFINITY)
}

impl Slope for Bias<'_> {
    #[inline(always)]
    fn slope(&self, _: f32, _: Pair) -> f32 {
        1.0
    }

    #[inline(always)]
    fn pull(&self, _: f32, p: Pair, ds: f32, bias: &mut dyn BiasSink) -> f32 {
        if self.gradient {
            bias.add(p, ds);
        }
        ds
    }
}
