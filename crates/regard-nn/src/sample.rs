//! Choosing the next token from logits.

use std::borrow::Cow;
use std::collections::HashMap;

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

/// What is added to the logits of single tokens. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adjustments {
    /// Taken from the logits of tokens that were generated.
    pub presence_penalty: f32,
    /// Taken from the logits of tokens as often as they were generated.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Adjustments {
    /// Checks that every number is in its domain.
    ///
    /// # Errors
    /// The first that is not finite.
    pub fn validate(&self) -> Result<()> {
        let penalties = [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)];
        let biases = self.logit_bias.iter().map(|(_, bias)| ("logit_bias", *bias));
        match penalties.into_iter().chain(biases).find(|(_, x)| !x.is_finite()) {
            Some((what, given)) => Err(Error::Value { what, given: given.into(), needed: "a finite number" }),
            None => Ok(()),
        }
    }
}

/// Draws tokens one after another.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    adjustments: Adjustments,
    rng: Rng,
    /// Tokens of the text so far, and how often each was generated.
    seen: HashMap<u32, u32>,
}

impl Sampler {
    /// A sampler at the end of a text of `tokens`.
    ///
    /// # Errors
    /// When a number of `sampling` is outside its domain.
    pub fn new(sampling: Sampling, tokens: &[u32]) -> Result<Self> {
        Self::with(sampling, Adjustments::default(), tokens, 0)
    }

    /// A sampler that adjusts logits, and draws sequence number `stream` of the random numbers of its seed: number 0 is that of
    /// [`Sampler::new`].
    ///
    /// # Errors
    /// When a number of `sampling` or `adjustments` is outside its domain.
    pub fn with(sampling: Sampling, adjustments: Adjustments, tokens: &[u32], stream: u64) -> Result<Self> {
        sampling.validate()?;
        adjustments.validate()?;
        let seen = tokens.iter().map(|token| (*token, 0)).collect();
        Ok(Self { sampling, adjustments, rng: Rng::new(sampling.seed, stream), seen })
    }

    /// The next token by its logits, which then belongs to the text. Steps apply in the order bias, repetition penalty, presence and
    /// frequency penalties, temperature, `top_k`, `top_p`, `min_p`; equal logits rank by id.
    ///
    /// Source: Keskar et al. 2019 (penalty), Fan et al. 2018 (top-k), Holtzman et al. 2020 (top-p), Nguyen et al. 2024 (min-p).
    ///
    /// # Errors
    /// When a logit is NaN or +∞, or none is finite.
    pub fn next(&mut self, logits: &[f32]) -> Result<u32> {
        let logits = self.adjusted(logits);
        let best = most(&logits).ok_or(Error::NotFinite)?;
        let token = if self.sampling.temperature == 0.0 { best as u32 } else { self.draw(&logits) };
        *self.seen.entry(token).or_default() += 1;
        Ok(token)
    }

    /// Copied where something changes them.
    fn adjusted<'l>(&self, logits: &'l [f32]) -> Cow<'l, [f32]> {
        let mut logits = Cow::Borrowed(logits);
        if self.sampling.repetition_penalty != 1.0 || self.adjustments != Adjustments::default() {
            self.adjust(logits.to_mut());
        }
        logits
    }

    fn adjust(&self, logits: &mut [f32]) {
        let Adjustments { presence_penalty, frequency_penalty, logit_bias } = &self.adjustments;
        for &(token, bias) in logit_bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
        let penalty = self.sampling.repetition_penalty;
        for (&token, &times) in &self.seen {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            if penalty != 1.0 {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
            if times > 0 {
                *logit -= presence_penalty + frequency_penalty * times as f32;
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

    /// The tokens that every filter keeps, with probabilities relative to the most likely. Never empty. Most likely first where tokens are
    /// cut off, else by id: to sort a vocabulary takes longer than the rest of a draw.
    fn candidates(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        let mut keys = by_likelihood(logits);
        if (1..keys.len()).contains(&top_k) {
            keys.select_nth_unstable(top_k - 1);
            keys.truncate(top_k);
            keys.sort_unstable();
        }
        let max = keys.iter().min().map_or(0.0, |key| f64::from(logits[token(*key) as usize]));
        let relative = |i: u32| (i, ((f64::from(logits[i as usize]) - max) / f64::from(temperature)).exp());
        let mut kept: Vec<(u32, f64)> = keys.iter().map(|key| relative(token(*key))).collect();
        if top_p < 1.0 {
            let total: f64 = kept.iter().map(|(_, p)| p).sum();
            let reach = f64::from(top_p) * total * (1.0 - 1e-12); // sums in another order may round otherwise
            kept = most_likely(&mut keys, reach, relative);
        }
        kept.retain(|(_, p)| *p >= f64::from(min_p));
        kept
    }
}

/// The most likely tokens, most likely first, up to the one with which they reach the sum `reach`; at least one.
fn most_likely(keys: &mut [u64], reach: f64, relative: impl Fn(u32) -> (u32, f64)) -> Vec<(u32, f64)> {
    let mut len = 64;
    loop {
        len = len.min(keys.len());
        if len < keys.len() {
            keys.select_nth_unstable(len - 1);
        }
        keys[..len].sort_unstable();
        let (mut kept, mut sum) = (Vec::new(), 0.0);
        for key in &keys[..len] {
            let (token, p) = relative(token(*key));
            kept.push((token, p));
            sum += p;
            if sum >= reach {
                return kept;
            }
        }
        if len == keys.len() {
            return kept;
        }
        len *= 8;
    }
}

/// The first of the largest logits; none where one is NaN or +∞, or none is finite.
fn most(logits: &[f32]) -> Option<usize> {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (lanes, rest) = logits.as_chunks::<16>(); // side by side: a single maximum waits for the one before
    let max = lanes.iter().fold([f32::NEG_INFINITY; 16], |max, chunk| std::array::from_fn(|i| larger(max[i], chunk[i])));
    let max = max.iter().chain(rest).fold(f32::NEG_INFINITY, |max, x| larger(max, *x));
    let good = logits.iter().fold(max > f32::NEG_INFINITY, |good, x| good & (*x < f32::INFINITY));
    if good { logits.iter().position(|x| *x == max) } else { None }
}

/// A word for each token that is possible, smaller where it is more likely; equal ones rank by id. Words sort faster than logits are
/// compared.
fn by_likelihood(logits: &[f32]) -> Vec<u64> {
    let possible = logits.iter().enumerate().filter(|(_, x)| **x > f32::NEG_INFINITY);
    possible.map(|(i, x)| u64::from(descending(*x)) << 32 | i as u64).collect()
}

/// The token of a word of [`by_likelihood`].
fn token(key: u64) -> u32 {
    key as u32
}

/// Numbers in the opposite order of [`f32::total_cmp`].
fn descending(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 0 { !bits ^ (1 << 31) } else { bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likelihood_ranks_as_comparison_does() {
        let mut rng = Rng::new(5, 0);
        let special = [0.0, -0.0, f32::NEG_INFINITY, 1.0, -1.0, f32::MIN_POSITIVE, -1e-45, f32::MAX, f32::MIN];
        let draw = |_| match rng.bits() % 3 {
            0 => special[(rng.bits() % 9) as usize],
            _ => rng.normal() as f32,
        };
        let logits: Vec<f32> = (0..2000).map(draw).collect();
        let mut order: Vec<u32> = (0..2000).filter(|&i| logits[i as usize] > f32::NEG_INFINITY).collect();
        order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
        let mut keys = by_likelihood(&logits);
        keys.sort_unstable();
        assert_eq!(keys.into_iter().map(token).collect::<Vec<_>>(), order);
    }

    /// The filters by their definitions, over a vocabulary that is sorted whole.
    fn filtered(sampling: Sampling, logits: &[f32]) -> Vec<(u32, f64)> {
        let Sampling { temperature, top_k, top_p, min_p, .. } = sampling;
        let mut order: Vec<u32> = (0..logits.len() as u32).filter(|&i| logits[i as usize] > f32::NEG_INFINITY).collect();
        order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
        order.truncate(if top_k == 0 { order.len() } else { top_k });
        let weight = |i: u32| (f64::from(logits[i as usize] - logits[order[0] as usize]) / f64::from(temperature)).exp();
        let total: f64 = order.iter().map(|&i| weight(i)).sum();
        let mut before = 0.0;
        let reached = order.iter().take_while(|&&i| {
            let kept = top_p == 1.0 || before < f64::from(top_p) * total * (1.0 - 1e-12);
            before += weight(i);
            kept
        });
        reached.map(|&i| (i, weight(i))).filter(|(_, p)| *p >= f64::from(min_p)).collect()
    }

    #[test]
    fn filters_keep_what_their_definitions_keep() {
        let mut rng = Rng::new(8, 0);
        for case in 0..300 {
            let pick = |rng: &mut Rng, of: &[f32]| of[(rng.bits() % of.len() as u64) as usize];
            let sampling = Sampling {
                temperature: pick(&mut rng, &[0.1, 1.0, 3.0, 50.0]),
                top_k: pick(&mut rng, &[0.0, 0.0, 1.0, 7.0, 100.0, 5000.0]) as usize,
                top_p: pick(&mut rng, &[1.0, 0.999, 0.9, 0.3, 1e-6]),
                min_p: pick(&mut rng, &[0.0, 0.0, 0.02, 1.0]),
                ..Sampling::default()
            };
            // Whole numbers: many are equal, and their differences exact.
            let mut logits: Vec<f32> = (0..1 + rng.bits() % 3000).map(|_| (4.0 * rng.normal()).round() as f32).collect();
            if case % 3 == 0 && logits.len() > 1 {
                logits[1] = f32::NEG_INFINITY;
            }
            let mut found = Sampler::new(sampling, &[]).unwrap().candidates(&logits);
            let mut needed = filtered(sampling, &logits);
            for all in [&mut found, &mut needed] {
                all.sort_by_key(|(token, _)| *token);
            }
            assert_eq!(found, needed, "{sampling:?}, {} logits", logits.len());
        }
    }

    #[test]
    fn the_most_likely_is_the_first_of_the_largest() {
        let mut rng = Rng::new(9, 0);
        for n in 0..200 {
            let mut logits: Vec<f32> = (0..n).map(|_| (4.0 * rng.normal()).round() as f32 + 0.0).collect(); // no −0
            let sorted = filtered(Sampling { temperature: 1.0, ..Sampling::default() }, &logits);
            assert_eq!(most(&logits), sorted.first().map(|(token, _)| *token as usize), "{logits:?}");
            for bad in [f32::NAN, f32::INFINITY] {
                if n > 0 {
                    logits[(rng.bits() % n) as usize] = bad;
                    assert_eq!(most(&logits), None);
                }
            }
        }
        assert_eq!(most(&[f32::NEG_INFINITY; 20]), None);
    }

    fn greedy(adjustments: Adjustments, logits: &[f32], tokens: usize) -> Vec<u32> {
        let mut sampler = Sampler::with(Sampling::default(), adjustments, &[1], 0).unwrap();
        (0..tokens).map(|_| sampler.next(logits).unwrap()).collect()
    }

    #[test]
    fn penalties_count_what_was_generated_and_not_the_prompt() {
        let logits = [1.0, 2.0, 1.7];
        let frequency = Adjustments { frequency_penalty: 0.4, ..Adjustments::default() };
        assert_eq!(greedy(frequency, &logits, 5), [1, 2, 1, 2, 1]); // 2.0; 1.6 < 1.7; 1.6 > 1.3; 1.2 < 1.3; 1.2 > 0.9
        let presence = Adjustments { presence_penalty: 0.4, ..Adjustments::default() };
        assert_eq!(greedy(presence, &logits, 5), [1, 2, 1, 1, 1]);
    }

    #[test]
    fn a_bias_is_added_and_tokens_outside_the_vocabulary_have_none() {
        let bias = Adjustments { logit_bias: vec![(0, 1.5), (9, 100.0)], ..Adjustments::default() };
        assert_eq!(greedy(bias, &[1.0, 2.0, 1.7], 1), [0]);
    }

    #[test]
    fn streams_of_one_seed_differ_and_the_first_is_the_plain_one() {
        let sampling = Sampling { temperature: 1.0, seed: 3, ..Sampling::default() };
        let draw = |mut sampler: Sampler| (0..20).map(|_| sampler.next(&[0.0; 50]).unwrap()).collect::<Vec<_>>();
        let stream = |n| draw(Sampler::with(sampling, Adjustments::default(), &[], n).unwrap());
        assert_eq!(stream(0), draw(Sampler::new(sampling, &[]).unwrap()));
        assert_ne!(stream(0), stream(1));
    }

    #[test]
    fn what_is_not_finite_is_refused_by_name() {
        let bias = Adjustments { logit_bias: vec![(0, f32::INFINITY)], ..Adjustments::default() };
        let error = Sampler::with(Sampling::default(), bias, &[], 0).unwrap_err().to_string();
        assert_eq!(error, "logit_bias is inf and must be a finite number");
    }
}
