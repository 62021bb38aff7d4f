//! What a training run is told: the shape of the model, the batch, the optimiser and the schedule.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::TrainError;

/// The number type of the exported weights. Training itself is always in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    /// 16 bits: half the size, 8 bits of precision.
    Bf16,
    /// 32 bits: the weights exactly as trained.
    F32,
}

/// Everything that decides the outcome of a run, besides the text. Every field has a default; a JSON file names
/// only what it changes, and an unknown name is an error.
///
/// ```
/// let config: regard_nn::train::TrainConfig = serde_json::from_str(r#"{"layers": 2, "steps": 10}"#)?;
/// assert_eq!((config.layers, config.context), (2, 512));
/// config.validate()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Largest number of tokens in the vocabulary, at least 258 (256 bytes and two marks).
    pub vocab_size: usize,
    /// Width of the residual stream, a multiple of `heads`.
    pub hidden: usize,
    /// Number of decoder blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`.
    pub kv_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate: usize,
    /// Tokens a window holds, which is also the longest context of the model.
    pub context: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Windows in one step.
    pub batch: usize,
    /// Optimiser steps of the whole run.
    pub steps: usize,
    /// Steps over which the learning rate rises from zero; a shorter run only rises.
    pub warmup: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Last learning rate as a fraction of the highest.
    pub min_lr_ratio: f64,
    /// Decay of the first moment, in [0, 1).
    pub beta1: f64,
    /// Decay of the second moment, in [0, 1).
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay of matrices; norms never decay.
    pub weight_decay: f64,
    /// Largest global gradient norm.
    pub clip: f64,
    /// Dropout after the embedding and on every residual branch, in [0, 1).
    pub dropout: f32,
    /// Dropout on the attention probabilities, in [0, 1).
    pub attention_dropout: f32,
    /// Decay of the moving average of the weights that is evaluated and exported; 0 turns it off.
    pub ema: f64,
    /// Seed of the initial weights, the order of the windows and the dropout.
    pub seed: u64,
    /// Steps between two measurements on the validation text.
    pub eval_every: usize,
    /// Steps between two checkpoints.
    pub checkpoint_every: usize,
    /// Fraction of the text, at its end, that is kept for validation.
    pub validation: f64,
    /// Number type of the exported weights.
    pub dtype: WeightType,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            vocab_size: 4096,
            hidden: 256,
            layers: 6,
            heads: 8,
            kv_heads: 4,
            intermediate: 704,
            context: 512,
            rope_theta: 10_000.0,
            batch: 8,
            steps: 2000,
            warmup: 100,
            learning_rate: 1e-3,
            min_lr_ratio: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            clip: 1.0,
            dropout: 0.0,
            attention_dropout: 0.0,
            ema: 0.998,
            seed: 1,
            eval_every: 100,
            checkpoint_every: 100,
            validation: 0.05,
            dtype: WeightType::Bf16,
        }
    }
}

impl TrainConfig {
    /// Reads and validates a JSON file.
    ///
    /// # Errors
    /// The file cannot be read, is not JSON, names an unknown field, or holds an impossible value.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let text = std::fs::read_to_string(path).map_err(|source| TrainError::Read { path: path.into(), source })?;
        let config: Self = serde_json::from_str(&text).map_err(|source| TrainError::ConfigSyntax { path: path.into(), source })?;
        config.validate()?;
        Ok(config)
    }

    /// Elements of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads.max(1)
    }

    /// Tokens of one optimiser step.
    pub fn tokens_per_step(&self) -> usize {
        self.batch * self.context
    }

    /// Checks every field and every relation between fields.
    ///
    /// # Errors
    /// [`TrainError::Config`] with the field, its value and what it must be.
    pub fn validate(&self) -> Result<(), TrainError> {
        self.validate_sizes()?;
        self.validate_rates()
    }

    fn validate_sizes(&self) -> Result<(), TrainError> {
        let sizes = [
            ("hidden", self.hidden, 1 << 16),
            ("layers", self.layers, 1 << 10),
            ("heads", self.heads, 1 << 10),
            ("kv_heads", self.kv_heads, 1 << 10),
            ("intermediate", self.intermediate, 1 << 20),
            ("context", self.context, 1 << 20),
            ("batch", self.batch, 1 << 16),
            ("steps", self.steps, 1 << 30),
            ("eval_every", self.eval_every, usize::MAX),
            ("checkpoint_every", self.checkpoint_every, usize::MAX),
        ];
        for (field, value, most) in sizes {
            require(field, value, (1..=most).contains(&value), &format!("between 1 and {most}"))?;
        }
        let vocab = self.vocab_size;
        require("vocab_size", vocab, (258..=1 << 20).contains(&vocab), "between 258 (256 bytes and two marks) and 1048576")?;
        require("hidden", self.hidden, self.hidden.is_multiple_of(self.heads), &format!("a multiple of heads = {}", self.heads))?;
        require("hidden / heads", self.head_dim(), self.head_dim().is_multiple_of(2), "even, for the rotary embedding")?;
        require(
            "heads",
            self.heads,
            self.heads.is_multiple_of(self.kv_heads),
            &format!("a multiple of kv_heads = {}", self.kv_heads),
        )
    }

    fn validate_rates(&self) -> Result<(), TrainError> {
        let unit = |x: f64| (0.0..1.0).contains(&x);
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let rates = [
            ("rope_theta", self.rope_theta, positive(self.rope_theta), "positive"),
            ("learning_rate", self.learning_rate, positive(self.learning_rate), "positive"),
            ("min_lr_ratio", self.min_lr_ratio, (0.0..=1.0).contains(&self.min_lr_ratio), "between 0 and 1"),
            ("beta1", self.beta1, unit(self.beta1), "at least 0 and less than 1"),
            ("beta2", self.beta2, unit(self.beta2), "at least 0 and less than 1"),
            ("eps", self.eps, positive(self.eps), "positive"),
            ("weight_decay", self.weight_decay, (0.0..=1e3).contains(&self.weight_decay), "between 0 and 1000"),
            ("clip", self.clip, positive(self.clip), "positive"),
            ("dropout", f64::from(self.dropout), unit(f64::from(self.dropout)), "at least 0 and less than 1"),
            (
                "attention_dropout",
                f64::from(self.attention_dropout),
                unit(f64::from(self.attention_dropout)),
                "at least 0 and less than 1",
            ),
            ("ema", self.ema, unit(self.ema), "at least 0 and less than 1"),
            ("validation", self.validation, self.validation > 0.0 && self.validation <= 0.5, "above 0 and at most 0.5"),
        ];
        rates.into_iter().try_for_each(|(field, value, holds, needed)| require(field, value, holds, needed))
    }
}

fn require(field: &'static str, value: impl ToString, holds: bool, needed: &str) -> Result<(), TrainError> {
    if holds { Ok(()) } else { Err(TrainError::Config { field, value: value.to_string(), needed: needed.into() }) }
}
