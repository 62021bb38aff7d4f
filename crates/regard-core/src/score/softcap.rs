//! Softcap: scores bent smoothly into `(−cap, cap)`.

use crate::{Error, Pair, Result, Score, Shape, Slope};

/// `s → cap · tanh(s / cap)`.
///
/// Source: Gemma Team 2024, "Gemma 2", §2 (logit soft-capping).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Softcap(
    /// The cap, positive and finite.
    pub f32,
);

impl Score for Softcap {
    #[inline(always)]
    fn score(&self, s: f32, _: Pair) -> f32 {
        self.0 * (s / self.0).tanh()
    }

    fn check(&self, _: &Shape) -> Result<()> {
        if self.0 > 0.0 && self.0.is_finite() {
            return Ok(());
        }
        Err(Error::Value { what: "softcap", given: self.0.into(), needed: "positive and finite" })
    }
}

impl Slope for Softcap {
    /// `1 − tanh²(s / cap)`.
    #[inline(always)]
    fn slope(&self, s: f32, _: Pair) -> f32 {
        let t = (s / self.0).tanh();
        (1.0 - t) * (1.0 + t)
    }
}
