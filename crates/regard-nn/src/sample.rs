//! Choosing the next token from logits.

use std::collections::HashSet;

use crate::rng::Rng;
use crate::{Error, Result};

/// How the next token is chosen. The default is greedy: the most likely token, always.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the most likely token.
    pub temperature: f32,
    /// Only the `top_k` most likely tokens; 0 for all.
    pub top_k: usize,
    /// Only the most likely tokens that together reach this probability; 1 for all.
    pub top_p: f32,
    /// Only tokens at least this many times as likely as the most likely one; 0 for all.
    pub min_p: f32,
    /// Logits of tokens that the text holds are divided by it when positive and multiplied when negative; 1 for no change.
    pub repetition_penalty: f32,
    /// The same seed and the same logits give the same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

impl Sampling {
    /// Checks that every number is in its domain.
    ///
    /// # Errors
    /// The first that is not, and what it must be.
    pub fn validate(&self) -> Result<()> {
        let check = |what, given: f32, fits: bool, needed| match fits {
            true => Ok(()),
            false => Err(Error::Value { what, given: given.into(), needed }),
        };
        let (t, r) = (self.temperature, self.repetition_penalty);
        check("temperature", t, t.is_finite() && t >= 0.0, "0 or a positive number")?;
        check("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1")?;
        check("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "between 0 and 1")?;
        check("repetition_penalty", r, r.is_finite() && r > 0.0, "a positive number")
    }
}

/// Draws tokens one after another.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    rng: Rng,
    /// Tokens of the text so far.
    seen: HashSet<u32>,
}

impl Sampler {
    /// A sampler at the end of a text of `tokens`.
    ///
    /// # Errors
    /// When a number of `sampling` is outside its domain.
    pub fn new(sampling: Sampling, tokens: &[u32]) -> Result<Self> {
        sampling.validate()?;
        Ok(Self { sampling, rng: Rng::new(sampling.seed, 0), seen: tokens.iter().copied().collect() })
    }

    /// The next token by its logits, which then belongs to the text. Filters apply in the order penalty, temperature, `top_k`,
    /// `top_p`, `min_p`; equal logits rank by id.
    ///
    /// Source: Keskar et al. 2019 (penalty), Fan et al. 2018 (top-k), Holtzman et al. 2020 (top-p), Nguyen et al. 2024 (min-p).
    ///
    /// # Errors
    /// When a logit is NaN or +∞, or none is finite.
    pub fn next(&mut self, logits: &[f32]) -> Result<u32> {
        let mut logits = logits.to_vec();
        self.penalise(&mut logits);
        let bad = logits.iter().any(|x| x.is_nan() || *x == f32::INFINITY);
        let best = (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        let Some(best) = best.filter(|&best| !bad && logits[best].is_finite()) else { return Err(Error::NotFinite) };
        let token = if self.sampling.temperature == 0.0 { best as u32 } else { self.draw(&logits) };
        self.seen.insert(token);
        Ok(token)
    }

    fn penalise(&self, logits: &mut [f32]) {
        let penalty = self.sampling.repetition_penalty;
        for &token in self.seen.iter().filter(|_| penalty != 1.0) {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }

    fn draw(&mut self, logits: &[f32]) -> u32 {
        let candidates = self.candidates(logits);
        let total: f64 = candidates.iter().map(|(_, p)| p).sum();
        let mut left = self.rng.uniform() * total;
        for &(token, p) in &candidates {
            left -= p;
            if left < 0.0 {
                return token;
            }
        }
        candidates.last().map_or(0, |(token, _)| *token) // rounding left a crumb
    }

    /// The tokens that every filter keeps, most likely first, with probabilities relative to the most likely. Never empty.
    fn candidates(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        let mut order: Vec<u32> = (0..logits.len() as u32).filter(|&i| logits[i as usize] > f32::NEG_INFINITY).collect();
        order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
        if top_k > 0 {
            order.truncate(top_k);
        }
        let max = f64::from(logits[order[0] as usize]);
        let relative = |i: u32| (i, ((f64::from(logits[i as usize]) - max) / f64::from(temperature)).exp());
        let mut kept: Vec<(u32, f64)> = order.into_iter().map(relative).collect();
        let total: f64 = kept.iter().map(|(_, p)| p).sum();
        let mut before = 0.0; // probability of the more likely tokens
        let reach = kept.iter().take_while(|(_, p)| {
            let keep = before < f64::from(top_p) * total;
            before += p;
            keep
        });
        let reach = reach.count().max(1);
        kept.truncate(reach);
        kept.retain(|(_, p)| *p >= f64::from(min_p));
        kept
    }
}
