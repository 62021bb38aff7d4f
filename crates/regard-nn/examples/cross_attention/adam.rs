//! Adam (Kingma & Ba 2015), the few lines of it that an example needs.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};

const BETAS: [f64; 2] = [0.9, 0.99];

pub(crate) struct Adam {
    /// Each parameter with the moving means of its gradient and of the square of that.
    slots: Vec<(Var, [Tensor; 2])>,
    steps: i32,
}

impl Adam {
    pub(crate) fn new(parameters: Vec<Var>) -> Result<Self> {
        let slot = |var: Var| Ok((var.clone(), [var.zeros_like()?, var.zeros_like()?]));
        Ok(Self { slots: parameters.into_iter().map(slot).collect::<Result<_>>()?, steps: 0 })
    }

    /// `m ← β₁m + (1 − β₁)g`, `v ← β₂v + (1 − β₂)g²`, `w ← w − rate · m̂/(√v̂ + ε)`.
    pub(crate) fn step(&mut self, gradients: &GradStore, rate: f64) -> Result<()> {
        self.steps += 1;
        let correct = BETAS.map(|beta| 1.0 / (1.0 - beta.powi(self.steps)));
        for (var, [mean, square]) in &mut self.slots {
            let gradient = gradients.get(var).ok_or_else(|| candle_core::Error::Msg("a parameter has no gradient".to_owned()))?;
            *mean = (mean.affine(BETAS[0], 0.0)? + gradient.affine(1.0 - BETAS[0], 0.0)?)?;
            *square = (square.affine(BETAS[1], 0.0)? + gradient.sqr()?.affine(1.0 - BETAS[1], 0.0)?)?;
            let direction = (mean.affine(correct[0], 0.0)? / (square.affine(correct[1], 0.0)?.sqrt()? + 1e-8)?)?;
            var.set(&(var.as_tensor() - direction.affine(rate, 0.0)?)?)?;
        }
        Ok(())
    }
}
