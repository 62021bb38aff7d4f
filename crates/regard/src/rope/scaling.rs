//! Scaled rotary frequencies: how a model reads texts that are longer than those it was trained on.

use std::f64::consts::TAU;

use regard_core::{Error, Result};

use super::{positive, powers};

/// How the frequencies of a [`Rope`](crate::Rope) are changed. Names are those of `rope_type` in Hugging Face's `config.json`;
/// `original` is `original_max_position_embeddings`, the length that the model was trained for.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// `frequency / factor`: positions are squeezed into the length of training. For models that were tuned so.
    ///
    /// Source: Chen et al. 2023, "Extending Context Window of Large Language Models via Positional Interpolation", §2.3.
    Linear {
        /// How much longer texts may be.
        factor: f64,
    },
    /// `θ ← θ · (1 + factor · (length/original − 1))^(dim/(dim − 2))` where `length > original`: low frequencies are squeezed and
    /// high ones kept, as far as this length needs. For models that were not tuned. With a factor of 1, and a length of
    /// `s · original`, it is the NTK-aware scaling by `s`.
    ///
    /// Source: Peng et al. 2023, "YaRN: Efficient Context Window Extension of Large Language Models", §3.1 and §3.3.
    Dynamic {
        /// How fast the base grows.
        factor: f64,
        /// The length of training.
        original: usize,
    },
    /// Frequencies that turn more than `beta_fast` times in `original` positions are kept, those that turn less than `beta_slow`
    /// times are divided by `factor`, and those between are mixed; scores are sharpened. [`RopeScaling::yarn`] has the paper's
    /// numbers. For models that were tuned so.
    ///
    /// Source: Peng et al. 2023, "YaRN", §3.2 and §3.4.
    Yarn {
        /// How much longer texts may be.
        factor: f64,
        /// The length of training.
        original: usize,
        /// What cosines and sines are multiplied by.
        attention_factor: f64,
        /// Turns above which a frequency is kept.
        beta_fast: f64,
        /// Turns below which it is divided.
        beta_slow: f64,
        /// Whether the range between begins and ends at whole pairs.
        truncate: bool,
    },
    /// Wavelengths below `original/high_freq_factor` are kept, those above `original/low_freq_factor` grow by `factor`, and those
    /// between are mixed.
    ///
    /// Source: the reference code of Llama 3.1; Grattafiori et al. 2024, "The Llama 3 Herd of Models", §3.2 and §3.4.2.
    Llama3 {
        /// How much longer texts may be.
        factor: f64,
        /// The length of training.
        original: usize,
        /// Turns in `original` positions below which a frequency is divided.
        low_freq_factor: f64,
        /// Turns above which it is kept.
        high_freq_factor: f64,
    },
    /// `frequency_i / short_i`, or `/ long_i` where the text is longer than `original`: factors that a search found, pair by pair.
    ///
    /// Source: Ding et al. 2024, "LongRoPE: Extending LLM Context Window Beyond 2 Million Tokens", §3.
    LongRope {
        /// For texts of at most `original` positions, `[dim/2]`.
        short_factor: Vec<f64>,
        /// For longer ones, `[dim/2]`.
        long_factor: Vec<f64>,
        /// The length of training.
        original: usize,
        /// What cosines and sines are multiplied by; see [`RopeScaling::longrope_attention`].
        attention_factor: f64,
    },
}

impl RopeScaling {
    /// YaRN with the numbers of the paper: `beta_fast = 32`, `beta_slow = 1`, an attention factor of `0.1 · ln(factor) + 1`.
    pub fn yarn(factor: f64, original: usize) -> Self {
        let attention_factor = if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
        Self::Yarn { factor, original, attention_factor, beta_fast: 32.0, beta_slow: 1.0, truncate: true }
    }

    /// The attention factor of LongRoPE for texts `factor` times as long: `√(1 + ln(factor) / ln(original))`.
    pub fn longrope_attention(factor: f64, original: usize) -> f64 {
        if factor > 1.0 { (1.0 + factor.ln() / (original as f64).ln()).sqrt() } else { 1.0 }
    }

    /// The frequencies instead of `plain`, and what cosines and sines are multiplied by.
    pub(super) fn apply(&self, plain: &[f64], theta: f64, length: usize) -> Result<(Vec<f64>, f64)> {
        self.check(plain.len())?;
        let dim = 2 * plain.len();
        let frequencies = match *self {
            Self::Linear { factor } => plain.iter().map(|f| f / factor).collect(),
            Self::Dynamic { factor, original } => {
                let growth = 1.0 + factor * (length.max(original) as f64 / original as f64 - 1.0);
                powers(dim, theta * growth.powf(dim as f64 / (dim as f64 - 2.0)))
            }
            Self::Yarn { factor, original, attention_factor, beta_fast, beta_slow, truncate } => {
                // The pair that turns so many times in `original` positions.
                let pair = |turns: f64| dim as f64 * (original as f64 / (turns * TAU)).ln() / (2.0 * theta.ln());
                let (mut low, mut high) = (pair(beta_fast), pair(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, high) = (low.max(0.0), high.min(dim as f64 - 1.0));
                let high = if low == high { high + 0.001 } else { high };
                let divided = |i: usize| ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                let mix = |(i, f): (usize, &f64)| f / factor * divided(i) + f * (1.0 - divided(i));
                return Ok((plain.iter().enumerate().map(mix).collect(), attention_factor));
            }
            Self::Llama3 { factor, original, low_freq_factor: low, high_freq_factor: high } => {
                let kept = |f: f64| ((original as f64 * f / TAU - low) / (high - low)).clamp(0.0, 1.0);
                plain.iter().map(|&f| (1.0 - kept(f)) * f / factor + kept(f) * f).collect()
            }
            Self::LongRope { ref short_factor, ref long_factor, original, attention_factor } => {
                let factors = if length > original { long_factor } else { short_factor };
                return Ok((plain.iter().zip(factors).map(|(f, factor)| f / factor).collect(), attention_factor));
            }
        };
        Ok((frequencies, 1.0))
    }

    /// Checks every number.
    fn check(&self, pairs: usize) -> Result<()> {
        let length = |original: usize| positive("original length of a rotary scaling", original as f64);
        let factor = |factor: f64| positive("factor of a rotary scaling", factor);
        match *self {
            Self::Linear { factor: f } => factor(f),
            Self::Dynamic { factor: f, original } => factor(f).and(length(original)),
            Self::Yarn { factor: f, original, attention_factor, beta_fast, beta_slow, .. } => {
                factor(f).and(length(original)).and(positive("attention factor of YaRN", attention_factor))?;
                positive("beta_slow of YaRN", beta_slow)?;
                let needed = "finite and at least beta_slow";
                let fits = beta_fast.is_finite() && beta_fast >= beta_slow;
                if fits { Ok(()) } else { Err(Error::Value { what: "beta_fast of YaRN", given: beta_fast, needed }) }
            }
            Self::Llama3 { factor: f, original, low_freq_factor, high_freq_factor } => {
                factor(f).and(length(original)).and(positive("low_freq_factor of Llama 3", low_freq_factor))?;
                let (what, needed) = ("high_freq_factor of Llama 3", "finite and more than low_freq_factor");
                let fits = high_freq_factor.is_finite() && high_freq_factor > low_freq_factor;
                if fits { Ok(()) } else { Err(Error::Value { what, given: high_freq_factor, needed }) }
            }
            Self::LongRope { ref short_factor, ref long_factor, original, attention_factor } => {
                length(original).and(positive("attention factor of LongRoPE", attention_factor))?;
                for (what, factors) in [("short_factor of LongRoPE", short_factor), ("long_factor of LongRoPE", long_factor)] {
                    if factors.len() != pairs {
                        let (given, why) = (factors.len(), "one for each pair of the elements that turn");
                        return Err(Error::Size { what, dim: "factors", given, needed: pairs, why });
                    }
                    factors.iter().try_for_each(|&factor| positive(what, factor))?;
                }
                Ok(())
            }
        }
    }
}
