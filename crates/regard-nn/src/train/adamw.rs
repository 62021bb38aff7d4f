//! AdamW: one fused pass over each parameter, its gradient and its state.

use std::cell::RefCell;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result as TensorResult, Tensor, Var};
use rayon::prelude::*;

use super::{TrainConfig, TrainError};
use crate::Params;

/// Elements that one task handles; also the grain of the norm's partial sums, so that its bits do not depend on the
/// number of threads.
const GRAIN: usize = 1 << 14;

/// The state of one parameter, element by element.
struct Slot {
    name: String,
    /// First moment: a moving average of the gradient.
    mean: Vec<f32>,
    /// Second moment: a moving average of the squared gradient.
    square: Vec<f32>,
    /// A moving average of the weights, when the run keeps one.
    average: Vec<f32>,
    /// Only matrices decay.
    decays: bool,
}

/// The optimiser: the moments of every parameter, and the moving average of the weights.
///
/// ```text
/// m ← β₁·m + (1 − β₁)·g          v ← β₂·v + (1 − β₂)·g²
/// w ← w − lr·(λ·w + m̂ / (√v̂ + ε)),   m̂ = m / (1 − β₁ᵗ),   v̂ = v / (1 − β₂ᵗ)
/// a ← a + (1 − d)·(w − a),        d = min(ema, (1 + t) / (10 + t))
/// ```
///
/// Source: Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2.
pub struct AdamW {
    slots: Vec<Slot>,
    config: TrainConfig,
    /// Updates done so far.
    step: usize,
}

impl AdamW {
    /// The state before the first update of `params`.
    ///
    /// # Errors
    /// The weights cannot be read.
    pub fn new(params: &Params, config: &TrainConfig) -> Result<Self, TrainError> {
        let slot = |(name, var): (&str, &Var)| {
            let weights = if config.ema > 0.0 { values(var)? } else { Vec::new() };
            let zeros = vec![0.0; var.elem_count()];
            Ok(Slot { name: name.into(), mean: zeros.clone(), square: zeros, average: weights, decays: var.rank() >= 2 })
        };
        Ok(Self { slots: params.iter().map(slot).collect::<Result<_, TrainError>>()?, config: config.clone(), step: 0 })
    }

    /// Updates every parameter once with learning rate `rate`; returns the gradient norm before clipping.
    ///
    /// # Errors
    /// [`TrainError::NoGradient`] when the loss did not depend on a parameter.
    pub fn step(&mut self, params: &Params, gradients: &GradStore, rate: f64) -> Result<f64, TrainError> {
        let gradients = collect(params, gradients)?;
        let norm = global_norm(&gradients)?;
        self.step += 1;
        let rates = Rates::new(&self.config, self.step, rate, norm);
        for ((slot, (_, var)), gradient) in self.slots.iter_mut().zip(params.iter()).zip(&gradients) {
            var.inplace_op2(gradient, &Update { slot: RefCell::new(slot), rates })?;
        }
        Ok(norm)
    }

    /// Exchanges the weights and their moving average; does nothing when the run keeps none.
    ///
    /// # Errors
    /// The weights cannot be written.
    pub fn exchange(&mut self, params: &Params) -> Result<(), TrainError> {
        for (slot, (_, var)) in self.slots.iter_mut().zip(params.iter()) {
            if !slot.average.is_empty() {
                var.inplace_op1(&Exchange(RefCell::new(&mut slot.average)))?;
            }
        }
        Ok(())
    }

    /// The state to keep, as `(section, parameter, values)`.
    pub(crate) fn state(&self) -> impl Iterator<Item = (&'static str, &str, &[f32])> {
        self.slots.iter().flat_map(|slot| {
            [("mean", &slot.mean), ("square", &slot.square), ("average", &slot.average)]
                .map(|(section, values)| (section, slot.name.as_str(), values.as_slice()))
        })
    }

    /// Puts a kept state back: `find(section, parameter)` gives the values.
    pub(crate) fn restore(
        &mut self,
        step: usize,
        mut find: impl FnMut(&str, &str, &mut Vec<f32>) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        self.step = step;
        self.slots.iter_mut().try_for_each(|slot| {
            find("mean", &slot.name, &mut slot.mean)?;
            find("square", &slot.name, &mut slot.square)?;
            find("average", &slot.name, &mut slot.average)
        })
    }
}

/// The numbers of one update, the same for all elements.
#[derive(Clone, Copy)]
struct Rates {
    scale: f32,
    rate: f32,
    decay: f32,
    beta1: f32,
    beta2: f32,
    correct1: f32,
    correct2: f32,
    eps: f32,
    follow: f32,
}

impl Rates {
    fn new(config: &TrainConfig, step: usize, rate: f64, norm: f64) -> Self {
        let t = step as f64;
        let scale = if norm > config.clip { config.clip / norm } else { 1.0 };
        Self {
            scale: scale as f32,
            rate: rate as f32,
            decay: config.weight_decay as f32,
            beta1: config.beta1 as f32,
            beta2: config.beta2 as f32,
            correct1: (1.0 / (1.0 - config.beta1.powf(t))) as f32,
            correct2: (1.0 / (1.0 - config.beta2.powf(t))) as f32,
            eps: config.eps as f32,
            follow: (1.0 - config.ema.min((1.0 + t) / (10.0 + t))) as f32,
        }
    }
}

struct Update<'a> {
    slot: RefCell<&'a mut Slot>,
    rates: Rates,
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, weights: &mut CpuStorage, at: &Layout, gradient: &CpuStorage, from: &Layout) -> TensorResult<()> {
        let weights = contiguous_mut(weights, at)?;
        let gradient = contiguous(gradient, from)?;
        let slot = &mut **self.slot.borrow_mut();
        let rates = Rates { decay: if slot.decays { self.rates.decay } else { 0.0 }, ..self.rates };
        let Slot { mean, square, average, .. } = slot;
        let parts = weights.par_chunks_mut(GRAIN).zip(gradient.par_chunks(GRAIN));
        let parts = parts.zip(mean.par_chunks_mut(GRAIN)).zip(square.par_chunks_mut(GRAIN));
        if average.is_empty() {
            parts.for_each(|(((w, g), m), v)| update(w, g, m, v, rates));
        } else {
            parts.zip(average.par_chunks_mut(GRAIN)).for_each(|((((w, g), m), v), a)| {
                update(w, g, m, v, rates);
                a.iter_mut().zip(&*w).for_each(|(a, w)| *a += rates.follow * (w - *a));
            });
        }
        Ok(())
    }
}

fn update(weights: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32], r: Rates) {
    for (((w, g), m), v) in weights.iter_mut().zip(gradient).zip(mean).zip(square) {
        let g = g * r.scale;
        *m = r.beta1 * *m + (1.0 - r.beta1) * g;
        *v = r.beta2 * *v + (1.0 - r.beta2) * g * g;
        let direction = *m * r.correct1 / ((*v * r.correct2).sqrt() + r.eps);
        *w -= r.rate * (r.decay * *w + direction);
    }
}

struct Exchange<'a>(RefCell<&'a mut Vec<f32>>);

impl InplaceOp1 for Exchange<'_> {
    fn name(&self) -> &'static str {
        "exchange"
    }

    fn cpu_fwd(&self, weights: &mut CpuStorage, at: &Layout) -> TensorResult<()> {
        contiguous_mut(weights, at)?.swap_with_slice(&mut self.0.borrow_mut());
        Ok(())
    }
}

fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> TensorResult<&'a [f32]> {
    let range = layout.contiguous_offsets();
    let (start, end) = range.ok_or_else(|| candle_core::Error::Msg("a gradient must be contiguous".into()))?;
    Ok(&storage.as_slice::<f32>()?[start..end])
}

fn contiguous_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> TensorResult<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        _ => Err(candle_core::Error::Msg("a trained parameter must be contiguous f32".into())),
    }
}

/// The gradient of each parameter, in the parameters' order.
fn collect(params: &Params, gradients: &GradStore) -> Result<Vec<Tensor>, TrainError> {
    let find = |(name, var): (&str, &Var)| match gradients.get(var) {
        Some(gradient) => Ok(gradient.contiguous()?),
        None => Err(TrainError::NoGradient { name: name.into() }),
    };
    params.iter().map(find).collect()
}

/// √Σg² over all parameters: f64 partial sums over fixed grains, added in order.
fn global_norm(gradients: &[Tensor]) -> Result<f64, TrainError> {
    let mut total = 0.0;
    for gradient in gradients {
        let (storage, layout) = gradient.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*storage else { continue };
        let grain = |part: &[f32]| part.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>();
        let partial: Vec<f64> = contiguous(storage, layout)?.par_chunks(GRAIN).map(grain).collect();
        total += partial.iter().sum::<f64>();
    }
    Ok(total.sqrt())
}

/// The elements of a parameter, row by row.
pub(crate) fn values(var: &Var) -> Result<Vec<f32>, TrainError> {
    Ok(var.flatten_all()?.to_vec1()?)
}
