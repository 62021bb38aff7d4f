//! Gaussian: keys count less the further they are from a centre that each query names, with a gradient for the centres.

use crate::mask::check_centres;
use crate::{BiasSink, Error, Pair, Result, Score, Shape, Slope, View};

/// `s → s − (kv − centre)² / (2 · deviation²)`, where `centre` is an element of an array `[batch, q_heads, q_len, 1]`, any of the
/// first three 1 to repeat.
///
/// Use it with the mask [`Around`](crate::Around) where a model predicts which key a query is about, as in translation or speech.
/// The probabilities add to 1. The paper multiplies them by the Gaussian *after* the softmax and leaves it at that: its rows are
/// these times `exp(lse − lse₀)`, where `lse₀` is the log-sum-exp of the same call without this score.
///
/// ```text
///   ∂s/∂centre = (kv − centre) / deviation²
/// ```
///
/// Source: Luong et al. 2015, "Effective Approaches to Attention-based Neural Machine Translation", §3.2 (local-p), equation 10.
#[derive(Clone, Copy, Debug)]
pub struct Gaussian<'a> {
    centres: View<'a, f32>,
    deviation: f32,
    gradient: bool,
}

impl<'a> Gaussian<'a> {
    /// Centres in keys, and the deviation around them; the paper's is half the radius of its window.
    pub fn new(centres: View<'a, f32>, deviation: f32) -> Self {
        Gaussian { centres, deviation, gradient: false }
    }

    /// The backward pass also returns the gradient of the centres, where that of a bias would be, summed over the sizes that repeat
    /// (one more pass over the tiles).
    pub fn with_gradient(self) -> Self {
        Gaussian { gradient: true, ..self }
    }

    /// How far the key is from the centre, in keys.
    #[inline(always)]
    fn offset(&self, p: Pair) -> f32 {
        p.kv as f32 - self.centres.broadcast_at(p).unwrap_or(0.0)
    }
}

impl Score for Gaussian<'_> {
    #[inline(always)]
    fn score(&self, s: f32, p: Pair) -> f32 {
        let z = self.offset(p) / self.deviation;
        s - 0.5 * z * z
    }

    fn reveals(&self) -> bool {
        false
    }

    fn bias_shape(&self) -> Option<[usize; 4]> {
        self.gradient.then(|| self.centres.shape())
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        if !(self.deviation > 0.0 && self.deviation.is_finite()) {
            let (what, given) = ("deviation of a Gaussian", self.deviation.into());
            return Err(Error::Value { what, given, needed: "positive and finite" });
        }
        check_centres(&self.centres, shape)
    }
}

impl Slope for Gaussian<'_> {
    #[inline(always)]
    fn slope(&self, _: f32, _: Pair) -> f32 {
        1.0
    }

    #[inline(always)]
    fn pull(&self, _: f32, p: Pair, ds: f32, centres: &mut dyn BiasSink) -> f32 {
        if self.gradient {
            centres.add(p, ds * (self.offset(p) / (self.deviation * self.deviation)));
        }
        ds
    }
}
