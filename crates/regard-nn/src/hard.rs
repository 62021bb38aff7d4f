//! Hard attention: one value instead of the mean over all of them, and how to learn through the choice.
//!
//! ```text
//!   soft      c = Σ_j α_j·v_j                      differentiable as it is: the mean under the weights
//!   hard      c = v_s, s = argmax α, or s ~ α      reads one value; the choice itself has no gradient
//! ```
//!
//! [`Reinforce`] estimates the gradient of the expected reward without bias; [`straight_through`] pretends that the choice was the
//! weights: biased, and quieter. Soft attention ([`align`](crate::align)) needs neither: prefer it unless reading all values costs
//! too much, or one of them is the answer.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use regard_nn::hard::{Reinforce, argmax, sample};
//!
//! let weights = Tensor::new(&[[[0.1f32, 0.7, 0.2]]], &Device::Cpu)?; // [batch, q_len, kv_len]
//! let values = Tensor::new(&[[[1f32], [2.0], [3.0]]], &Device::Cpu)?; // [batch, kv_len, value_dim]
//! assert_eq!(argmax(&weights, &values)?.context.to_vec3::<f32>()?, [[[2.0]]]);
//!
//! let drawn = sample(&weights, &values, 7)?; // the same seed draws the same keys
//! let reward = Tensor::new(&[[1f32]], &Device::Cpu)?; // what the rest of the model made of it
//! let loss = Reinforce::default().loss(&drawn, &weights, &reward)?; // add it to the loss of the rest
//! # assert!(loss.to_scalar::<f32>()?.is_finite());
//! # Ok::<(), regard_nn::Error>(())
//! ```

use candle_core::{Device, Tensor};

use crate::array::{expect, slice};
use crate::ops::embedding;
use crate::rng::Rng;
use crate::{Error, Result};

/// One key for each query, and what follows.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The key of each query, row by row of `[batch, q_len]`; none where all weights are 0.
    pub keys: Vec<Option<usize>>,
    /// The value of that key, `[batch, q_len, value_dim]`; zeros where there is none. Differentiable in the values.
    pub context: Tensor,
    /// The logarithm of its weight, `[batch, q_len]`; 0 where there is none. Differentiable in the weights.
    pub log_weight: Tensor,
}

/// The key of the largest weight, the first of equals: `weights [batch, q_len, kv_len]`, `values [batch, kv_len, value_dim]`.
///
/// # Errors
/// When the shapes do not fit, or a weight is negative or not a number.
pub fn argmax(weights: &Tensor, values: &Tensor) -> Result<Choice> {
    choose(weights, values, |_, row| {
        let best = (0..row.len()).rev().max_by(|&i, &j| row[i].total_cmp(&row[j]));
        best.filter(|&best| row[best] > 0.0)
    })
}

/// A key drawn with the weights as probabilities. Query `i` of the batch, counted through, draws the `i`-th number of the seed.
///
/// Source: Xu et al. 2015, "Show, Attend and Tell", §4.1.
///
/// # Errors
/// As [`argmax`].
pub fn sample(weights: &Tensor, values: &Tensor, seed: u64) -> Result<Choice> {
    choose(weights, values, |i, row| {
        let total: f64 = row.iter().map(|w| f64::from(*w)).sum();
        let mut left = Rng::new(seed, i as u64).uniform() * total;
        let drawn = row.iter().position(|w| {
            left -= f64::from(*w);
            left < 0.0
        });
        // Rounding may leave a little when all weights are spent.
        drawn.or_else(|| row.iter().rposition(|w| *w > 0.0))
    })
}

/// The context of a drawn key, whose gradient is that of soft attention in the weights: `[batch, q_len, value_dim]`.
///
/// ```text
///   c = Σ_j z_j·v_j, z the choice as 0 and 1        ∂z/∂α taken for the identity
/// ```
///
/// Source: Bengio, Léonard & Courville 2013, "Estimating or Propagating Gradients Through Stochastic Neurons for Conditional
/// Computation", the straight-through estimator.
///
/// # Errors
/// As [`argmax`].
pub fn straight_through(weights: &Tensor, values: &Tensor, seed: u64) -> Result<Tensor> {
    let drawn = sample(&weights.detach(), values, seed)?;
    let kv_len = weights.dims3()?.2;
    let mut chosen = vec![0f32; weights.elem_count()];
    drawn.keys.iter().enumerate().for_each(|(row, key)| key.iter().for_each(|key| chosen[row * kv_len + key] = 1.0));
    let chosen = Tensor::from_vec(chosen, weights.shape(), &Device::Cpu)?;
    // α − α has the value 0 and the gradient of α.
    Ok((chosen + (weights - weights.detach())?)?.matmul(values)?)
}

fn choose(weights: &Tensor, values: &Tensor, mut pick: impl FnMut(usize, &[f32]) -> Option<usize>) -> Result<Choice> {
    let ((batch, q_len, kv_len), (_, _, dim)) = (weights.dims3()?, values.dims3()?);
    expect("values of hard attention", values, &[batch, kv_len, dim])?;
    let dense = weights.detach().contiguous()?;
    let keys: Vec<Option<usize>> = {
        let all = slice(&dense)?;
        if let Some(&bad) = all.iter().find(|w| !(w.is_finite() && **w >= 0.0)) {
            return Err(Error::Value { what: "a weight of hard attention", given: bad.into(), needed: "at least 0 and finite" });
        }
        (0..batch * q_len).map(|i| pick(i, &all[i * kv_len..][..kv_len])).collect()
    };
    // Looked up, not multiplied by 0 and 1: a value that was not chosen is not read. The row after the last is for no choice.
    let row = |of: &dyn Fn(usize, usize) -> usize, none: usize| {
        let rows: Vec<u32> = keys.iter().enumerate().map(|(i, key)| key.map_or(none, |key| of(i, key)) as u32).collect();
        Tensor::from_vec(rows, (batch, q_len), &Device::Cpu)
    };
    let with = |rows: Tensor, last: f32| Tensor::cat(&[&rows, &Tensor::full(last, (1, rows.dim(1)?), &Device::Cpu)?], 0);
    let table = with(values.reshape((batch * kv_len, dim))?, 0.0)?;
    let context = embedding(&table, &row(&|i, key| i / q_len * kv_len + key, batch * kv_len)?)?;
    let table = with(weights.reshape((weights.elem_count(), 1))?, 1.0)?;
    let log_weight = embedding(&table, &row(&|i, key| i * kv_len + key, weights.elem_count())?)?.squeeze(2)?.log()?;
    Ok(Choice { keys, context, log_weight })
}

/// The estimator of the gradient of the expected reward `E[R]` under drawn keys: REINFORCE with a moving baseline and an entropy term.
///
/// ```text
///   ∂E[R] ≈ λ_r·(R − b)·∂log α_s + λ_e·∂H(α)      b ← decay·b + (1 − decay)·R̄      H(α) = −Σ_j α_j·log α_j
/// ```
///
/// With λ_e = 0 its mean is the gradient, whatever the baseline; a baseline near the mean reward makes it quieter.
///
/// Source: Xu et al. 2015, "Show, Attend and Tell", §4.1 (there R is log p(y | s, a), and decay 0.9); Williams 1992.
#[derive(Clone, Debug, PartialEq)]
pub struct Reinforce {
    /// b, before the next update.
    pub baseline: f64,
    /// How much of b stays at each update.
    pub decay: f64,
    /// λ_r.
    pub reward: f64,
    /// λ_e.
    pub entropy: f64,
}

impl Default for Reinforce {
    fn default() -> Self {
        Self { baseline: 0.0, decay: 0.9, reward: 1.0, entropy: 0.0 }
    }
}

impl Reinforce {
    /// A number to **minimise** beside the rest of the loss: its gradient in the weights is minus the estimate, summed over queries
    /// and averaged over the batch. `reward` is `[batch, q_len]`, or sizes of 1 that repeat; no gradient flows through it. Then the
    /// baseline moves.
    ///
    /// # Errors
    /// When the shapes do not fit, or a reward is not finite.
    pub fn loss(&mut self, drawn: &Choice, weights: &Tensor, reward: &Tensor) -> Result<Tensor> {
        let (batch, q_len, _) = weights.dims3()?;
        expect("logarithms of the chosen weights", &drawn.log_weight, &[batch, q_len])?;
        let reward = reward.detach().broadcast_as((batch, q_len))?.contiguous()?;
        let mean = reward.mean_all()?.to_scalar::<f32>()?;
        if !mean.is_finite() {
            return Err(Error::Value { what: "the mean reward", given: mean.into(), needed: "finite" });
        }
        let mut gain = ((reward - self.baseline)? * &drawn.log_weight)?.sum_all()?.affine(self.reward, 0.0)?;
        if self.entropy != 0.0 {
            // The least number keeps 0·log 0 at 0.
            let entropy = (weights * (weights + 1e-30)?.log()?)?.sum_all()?;
            gain = (gain - entropy.affine(self.entropy, 0.0)?)?;
        }
        self.baseline = self.decay * self.baseline + (1.0 - self.decay) * f64::from(mean);
        Ok(gain.affine(-1.0 / batch.max(1) as f64, 0.0)?)
    }
}
