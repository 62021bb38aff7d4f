//! What a run tells whoever watches it.

use std::time::Duration;

use super::TrainConfig;
use super::history::Validation;

/// Something that happened in a run.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Text, tokenizer and weights are ready.
    Begin(Summary),
    /// A step is done.
    Step(Progress),
    /// The validation text was measured.
    Validation(Validation),
    /// A checkpoint is on the disk.
    Checkpoint {
        /// Steps done.
        step: usize,
    },
}

/// The size of a run, and where it begins.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Trained numbers.
    pub parameters: usize,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Tokens to learn from.
    pub train_tokens: usize,
    /// Tokens to measure on.
    pub validation_tokens: usize,
    /// Steps already done, when the run resumes.
    pub step: usize,
    /// Steps of the whole run.
    pub steps: usize,
}

/// One step, as a progress bar shows it.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Steps done, this one included.
    pub step: usize,
    /// Training loss of the step in nats per token.
    pub loss: f32,
    /// Learning rate of the step.
    pub rate: f64,
    /// Training speed, measurements and checkpoints left out.
    pub tokens_per_second: f64,
    /// Estimated time to the end, measurements included.
    pub remaining: Duration,
}

/// Smoothed times of steps and of measurements.
pub(crate) struct Clock {
    tokens: f64,
    steps: usize,
    eval_every: usize,
    step_seconds: Option<f64>,
    eval_seconds: f64,
}

impl Clock {
    pub(crate) fn start(config: &TrainConfig) -> Self {
        let tokens = config.tokens_per_step() as f64;
        Self { tokens, steps: config.steps, eval_every: config.eval_every, step_seconds: None, eval_seconds: 0.0 }
    }

    /// Notes a step that took `took`.
    pub(crate) fn tick(&mut self, step: usize, loss: f32, rate: f64, took: Duration) -> Progress {
        let took = took.as_secs_f64();
        let seconds = self.step_seconds.map_or(took, |before| 0.9 * before + 0.1 * took);
        self.step_seconds = Some(seconds);
        let left = self.steps.saturating_sub(step);
        let remaining = left as f64 * seconds + left.div_ceil(self.eval_every) as f64 * self.eval_seconds;
        Progress {
            step,
            loss,
            rate,
            tokens_per_second: self.tokens / seconds.max(1e-9),
            remaining: Duration::try_from_secs_f64(remaining).unwrap_or(Duration::MAX),
        }
    }

    /// Notes how long a measurement took.
    pub(crate) fn measured(&mut self, took: Duration) {
        self.eval_seconds = took.as_secs_f64();
    }
}
