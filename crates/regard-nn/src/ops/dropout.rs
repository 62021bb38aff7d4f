//! Dropout, alone or fused with the addition to the residual stream. Which elements fall is a function of seed and position.

use candle_core::Tensor;
use rayon::prelude::*;

use super::GRAIN;
use super::simd::vectorised;
use crate::array::{expect, slice, tensor};
use crate::rng::mix;
use crate::tape::{Tape, Value, lift};
use crate::{Error, Result};

/// Zeroes each element of a candle tensor with chance `p` and scales the others by 1/(1 − p). Differentiable; the same seed
/// drops the same positions, whatever the number of threads.
///
/// Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".
///
/// # Errors
/// When `p` is not in [0, 1), or the tensor is not f32.
pub fn dropout(x: &Tensor, p: f32, seed: u64) -> Result<Tensor> {
    let mask = Mask::new(p, seed)?;
    lift(&[x], |tape, v| {
        let y = mask.apply(v[0].tensor())?;
        Ok(tape.push(y, &[&v[0]], move |dy| Ok(vec![Some(mask.apply(dy)?)])))
    })
}

/// The elements that fall. One hash decides over four neighbours, 16 bits each, so `p` is rounded to a multiple of 2⁻¹⁶.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask {
    /// Elements whose 16 bits are below this fall.
    threshold: u64,
    scale: f32,
    seed: u64,
}

impl Mask {
    /// # Errors
    /// When `p` is not in [0, 1).
    pub(crate) fn new(p: f32, seed: u64) -> Result<Self> {
        if !(0.0..1.0).contains(&p) {
            return Err(Error::Value { what: "dropout", given: p.into(), needed: "at least 0 and below 1" });
        }
        let threshold = (f64::from(p) * 65536.0).round().min(65535.0);
        Ok(Self { threshold: threshold as u64, scale: (65536.0 / (65536.0 - threshold)) as f32, seed: mix(seed) })
    }

    /// What elements `4·group..4·group + 4` are multiplied by.
    #[inline(always)]
    fn factors(&self, group: u64) -> [f32; 4] {
        let bits = mix(self.seed.wrapping_add(group.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        [0, 16, 32, 48].map(|shift| if (bits >> shift) & 0xFFFF < self.threshold { 0.0 } else { self.scale })
    }

    /// x times the factors.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = slice(x)?.to_vec();
        if self.threshold > 0 {
            y.par_chunks_mut(GRAIN).enumerate().for_each(|(i, y)| {
                vectorised(|| self.each_group(i, y.len(), |j, factor| y[j] *= factor));
            });
        }
        tensor(y, x.shape())
    }

    /// Calls `f(j, factor)` for each element `j` of the `part`-th stretch of [`GRAIN`] elements.
    #[inline(always)]
    fn each_group(&self, part: usize, len: usize, mut f: impl FnMut(usize, f32)) {
        for start in (0..len).step_by(4) {
            let factors = self.factors(((part * GRAIN + start) / 4) as u64);
            for (j, factor) in (start..len.min(start + 4)).zip(factors) {
                f(j, factor);
            }
        }
    }
}

/// x + dropout(branch): what every block does to the residual stream.
pub(crate) fn residual(tape: &Tape, x: &Value, branch: &Value, mask: Option<Mask>) -> Result<Value> {
    expect("the residual branch", branch.tensor(), x.tensor().dims())?;
    let mask = mask.filter(|mask| mask.threshold > 0);
    let Some(mask) = mask else {
        let y = super::add(x.tensor(), branch.tensor())?;
        return Ok(tape.push(y, &[x, branch], |dy| Ok(vec![Some(dy.clone()), Some(dy.clone())])));
    };
    let mut y = slice(x.tensor())?.to_vec();
    {
        let branch = slice(branch.tensor())?;
        y.par_chunks_mut(GRAIN).zip(branch.par_chunks(GRAIN)).enumerate().for_each(|(i, (y, branch))| {
            vectorised(|| mask.each_group(i, y.len(), |j, factor| y[j] += branch[j] * factor));
        });
    }
    let y = tensor(y, x.tensor().shape())?;
    Ok(tape.push(y, &[x, branch], move |dy| Ok(vec![Some(dy.clone()), Some(mask.apply(dy)?)])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_that_falls_is_p_and_the_mean_stays() {
        let n = 1 << 18;
        let ones = tensor(vec![1.0; n], n).unwrap();
        let y = slice(&Mask::new(0.3, 5).unwrap().apply(&ones).unwrap()).unwrap().to_vec();
        let fallen = y.iter().filter(|y| **y == 0.0).count() as f64 / n as f64;
        // A share of n draws deviates by √(p(1 − p)/n) = 0.0009: five deviations.
        assert!((fallen - 0.3).abs() < 0.0045, "{fallen}");
        assert!((y.iter().map(|y| f64::from(*y)).sum::<f64>() / n as f64 - 1.0).abs() < 0.0065);
    }

    #[test]
    fn positions_fall_alike_whatever_the_length() {
        let mask = Mask::new(0.5, 9).unwrap();
        let of = |n: usize| slice(&mask.apply(&tensor(vec![1.0; n], n).unwrap()).unwrap()).unwrap().to_vec();
        assert_eq!(of(3 * GRAIN + 7)[..1001], of(1001)[..]);
    }
}
