//! Bias: an array added to the scores, broadcastable, with a gradient of its own where wanted.

use crate::{BiasSink, Element, Pair, Result, Score, Shape, Slope, View};

/// `s → s + bias[batch, head, q, kv]`; any of the four sizes may be 1 to repeat. An element of −∞ hides its pair. Elements may
/// be f32, f16 or bf16, whatever the queries are, and are read as f32; the gradient is f32.
///
/// Source: Raffel et al. 2020 (T5), §2.1 for the relative form; PyTorch's floating-point `attn_mask`.
#[derive(Clone, Copy, Debug)]
pub struct Bias<'a, T = f32> {
    array: View<'a, T>,
    gradient: bool,
}

impl<'a, T: Element> Bias<'a, T> {
    /// A bias that is a constant.
    pub fn new(array: View<'a, T>) -> Self {
        Bias { array, gradient: false }
    }

    /// The backward pass also returns the gradient of the bias, summed over the sizes that repeat (one more pass over the tiles).
    pub fn with_gradient(self) -> Self {
        Bias { gradient: true, ..self }
    }
}

impl<T: Element> Score for Bias<'_, T> {
    #[inline(always)]
    fn score(&self, s: f32, p: Pair) -> f32 {
        s + self.array.broadcast_at(p).map_or(f32::NEG_INFINITY, T::to_f32)
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
pub(super) fn first_hidden<T: Element>(array: &View<'_, T>) -> Option<[usize; 4]> {
    let [b, h, q, kv] = array.shape();
    let mut index = (0..b * h * q * kv).map(|i| [i / kv / q / h, i / kv / q % h, i / kv % q, i % kv]);
    index.find(|&i| array.at(i).to_f32() == f32::NEG_INFINITY)
}

impl<T: Element> Slope for Bias<'_, T> {
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
