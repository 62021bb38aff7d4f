//! The learning rate over a run: a linear rise, then half a cosine down to a floor.

use std::f64::consts::PI;

use super::TrainConfig;

/// The learning rate of `step` (counted from 0).
///
/// ```text
/// step < warmup:  peak · (step + 1) / warmup
/// then:           floor + (peak − floor) · (1 + cos(π·t)) / 2,   t = (step − warmup) / (steps − warmup)
/// ```
///
/// Source: Loshchilov & Hutter 2017, "SGDR", eq. 5, without restarts.
pub fn learning_rate(config: &TrainConfig, step: usize) -> f64 {
    let peak = config.learning_rate;
    if step < config.warmup {
        return peak * (step + 1) as f64 / config.warmup as f64;
    }
    let floor = peak * config.min_lr_ratio;
    let t = (step - config.warmup) as f64 / config.steps.saturating_sub(config.warmup).max(1) as f64;
    floor + (peak - floor) * 0.5 * (1.0 + (PI * t.min(1.0)).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_to_the_peak_and_falls_to_the_floor() {
        let config = TrainConfig { steps: 100, warmup: 10, learning_rate: 2.0, min_lr_ratio: 0.25, ..Default::default() };
        let rates: Vec<f64> = (0..=100).map(|step| learning_rate(&config, step)).collect();
        assert!((rates[0] - 0.2).abs() < 1e-12);
        assert_eq!(rates[9], 2.0);
        assert_eq!(rates[10], 2.0);
        assert!((rates[55] - 1.25).abs() < 1e-12, "halfway: {}", rates[55]);
        assert!((rates[100] - 0.5).abs() < 1e-12);
        assert!(rates[10..].windows(2).all(|pair| pair[0] >= pair[1]));
    }
}
