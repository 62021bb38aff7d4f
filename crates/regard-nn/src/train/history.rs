//! What a run has measured so far.

use serde::Serialize;

/// One measurement on the whole validation text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Validation {
    /// Optimiser steps done before it.
    pub step: usize,
    /// Mean negative log-likelihood per token, in nats.
    pub nats_per_token: f64,
    /// Total negative log-likelihood in bits over the bytes of the validation text; comparable across tokenizers.
    pub bits_per_byte: f64,
}

impl Validation {
    /// From the summed loss of `tokens` tokens that spell `bytes` bytes.
    pub(crate) fn new(step: usize, nats: f64, tokens: usize, bytes: usize) -> Self {
        Self { step, nats_per_token: nats / tokens as f64, bits_per_byte: nats / (bytes as f64 * std::f64::consts::LN_2) }
    }
}

/// The losses of a run, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct History {
    /// Training loss of each step in nats per token, before its update.
    pub losses: Vec<f32>,
    /// The measurements on the validation text.
    pub validations: Vec<Validation>,
}

impl History {
    /// The lowest validation loss so far, the earlier of two equal ones.
    pub fn best(&self) -> Option<Validation> {
        self.validations.iter().copied().reduce(|best, next| if next.nats_per_token < best.nats_per_token { next } else { best })
    }

    /// Exponentially smoothed training loss with its start corrected: what a curve shows.
    pub fn smoothed(&self, keep: f64) -> Vec<f64> {
        let (mut sum, mut weight) = (0.0, 0.0);
        let smooth = |&loss: &f32| {
            sum = keep * sum + (1.0 - keep) * f64::from(loss);
            weight = keep * weight + (1.0 - keep);
            sum / weight
        };
        self.losses.iter().map(smooth).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_is_the_lowest_and_smoothing_keeps_a_constant() {
        let at = |step, nats| Validation::new(step, nats, 2, 10);
        let history = History { losses: vec![3.0; 5], validations: vec![at(1, 8.0), at(2, 6.0), at(3, 7.0)] };
        assert_eq!(history.best(), Some(at(2, 6.0)));
        assert_eq!(history.best().unwrap().nats_per_token, 3.0);
        assert!((history.best().unwrap().bits_per_byte - 0.6 / std::f64::consts::LN_2).abs() < 1e-12);
        assert!(history.smoothed(0.9).iter().all(|&loss| (loss - 3.0).abs() < 1e-12));
    }
}
