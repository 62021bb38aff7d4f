//! The rotary scaling of Llama 3 from the factors that it divides each frequency by.

use std::f64::consts::TAU;

use serde_json::{Value, json};

use super::wrong;
use crate::Result;

/// What every Llama 3 has; a file keeps only the factors that follow.
const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;
const ORIGINAL: u32 = 8192;

/// The scaling with these factors, none if all are 1.
///
///   xᵢ = θ^(−i/n) / 2π      sᵢ = (original · xᵢ − low) / (high − low)  within 0 and 1      1/fᵢ = (1 − sᵢ) / factor + sᵢ
///
/// The largest f is the factor. A frequency between the bounds tells the original context. Then all must agree to the precision of f32.
pub(super) fn llama3(factors: &[f32], theta: f64, original: Option<u32>) -> Result<Option<Value>> {
    let factor = factors.iter().copied().fold(1.0, f32::max);
    let wrong = |given: String| {
        let needed = "the factors of Llama 3's scaling, with low_freq_factor 1 and high_freq_factor 4";
        wrong("tensor \"rope_freqs.weight\"", given, needed)
    };
    if !(factors.iter().all(|f| *f >= 1.0) && factor.is_finite()) {
        return wrong("with a number that is less than 1 or not finite".to_owned());
    }
    if factor == 1.0 {
        return Ok(None);
    }
    let factor = f64::from(factor);
    let turns = |i: usize| theta.powf(-(i as f64) / factors.len() as f64) / TAU;
    let share = |f: f32| (1.0 / f64::from(f) - 1.0 / factor) / (1.0 - 1.0 / factor);
    let between = factors.iter().enumerate().map(|(i, &f)| (i, share(f))).find(|(_, s)| *s > 1e-3 && *s < 1.0 - 1e-3);
    let told = between.map(|(i, s)| ((LOW + s * (HIGH - LOW)) / turns(i)).round() as u32);
    let original = told.or(original).unwrap_or(ORIGINAL);
    let expected = |i: usize| {
        let s = ((f64::from(original) * turns(i) - LOW) / (HIGH - LOW)).clamp(0.0, 1.0);
        1.0 / ((1.0 - s) / factor + s)
    };
    // A power and some six operations in f32: 2⁻²⁴ each, and a subtraction that may lose four bits.
    let tolerance = 1e-5;
    match factors.iter().enumerate().find(|&(i, &f)| (f64::from(f) / expected(i) - 1.0).abs() > tolerance) {
        Some((i, f)) => wrong(format!("{f} at {i}")),
        None => Ok(Some(json!({ "rope_type": "llama3", "factor": factor, "low_freq_factor": LOW, "high_freq_factor": HIGH,
                                "original_max_position_embeddings": original }))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hugging Face's `_compute_llama3_parameters`, as a converter writes its result.
    fn written(dim: usize, theta: f32, factor: f32, low: f32, high: f32, original: f32) -> Vec<f32> {
        let of = |i: usize| {
            let wave = std::f32::consts::TAU * theta.powf(2.0 * i as f32 / dim as f32);
            if wave < original / high {
                return 1.0;
            }
            if wave > original / low {
                return factor;
            }
            let smooth = (original / wave - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        };
        (0..dim / 2).map(of).collect()
    }

    #[test]
    fn the_scaling_of_llama_3_is_found_in_its_factors() {
        for (dim, theta, factor, original) in [(128, 5e5, 8.0, 8192), (64, 5e5, 32.0, 8192), (8, 500.0, 4.0, 32)] {
            let found = llama3(&written(dim, theta, factor, 1.0, 4.0, original as f32), theta.into(), None).unwrap().unwrap();
            let expected = json!({ "rope_type": "llama3", "factor": f64::from(factor), "low_freq_factor": 1.0,
                                   "high_freq_factor": 4.0, "original_max_position_embeddings": original });
            assert_eq!(found, expected);
        }
        assert_eq!(llama3(&[1.0; 8], 1e4, None).unwrap(), None);
    }

    #[test]
    fn other_factors_are_refused() {
        for factors in [written(128, 5e5, 8.0, 2.0, 3.0, 8192.0), vec![1.0, 2.0, 1.0, 4.0], vec![f32::NAN, 2.0], vec![0.5, 2.0]] {
            let error = llama3(&factors, 5e5, None).unwrap_err().to_string();
            assert!(error.starts_with("GGUF tensor \"rope_freqs.weight\" is "), "{error}");
        }
    }
}
