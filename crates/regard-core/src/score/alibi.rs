//! ALiBi: a penalty that grows with distance, with one slope for each head.

use crate::{Pair, Result, Score, Shape, Slope};

/// `s → s − slopes[head] · |q_abs − kv|`, where `q_abs = q + (Lkv − Lq)`.
///
/// Source: Press et al. 2022, "Train Short, Test Long", §3.
#[derive(Clone, Debug, PartialEq)]
pub struct Alibi {
    /// One slope for each query head.
    pub slopes: Vec<f32>,
}

impl Alibi {
    /// The slopes of the paper for `heads` heads: `2^(−8·i/heads)`, `i = 1..=heads`; where `heads` is not a power of two, those
    /// of the next lower power followed by every other one of the next higher.
    pub fn new(heads: usize) -> Self {
        let powers = |n: usize| (1..=n).map(move |i| (-8.0 * i as f32 / n as f32).exp2());
        let lower = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
        let slopes = powers(lower).chain(powers(2 * lower).step_by(2)).take(heads).collect();
        Alibi { slopes }
    }

    /// Slopes of your own, one for each query head.
    pub fn with_slopes(slopes: impl Into<Vec<f32>>) -> Self {
        Alibi { slopes: slopes.into() }
    }
}

impl Score for Alibi {
    #[inline(always)]
    fn score(&self, s: f32, p: Pair) -> f32 {
        let slope = self.slopes.get(p.head as usize).copied().unwrap_or(0.0);
        s - slope * p.q_abs().abs_diff(p.kv as i32) as f32
    }

    fn reveals(&self) -> bool {
        false
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        crate::shape::same("ALiBi", "slopes", self.slopes.len(), shape.q_heads, "one for each query head")
    }
}

impl Slope for Alibi {
    #[inline(always)]
    fn slope(&self, _: f32, _: Pair) -> f32 {
        1.0
    }
}
