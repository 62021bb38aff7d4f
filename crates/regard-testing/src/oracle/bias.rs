//! The gradient of a bias, from that of the final scores.
//!
//! ```text
//!   db = Σ dS_ij · ∂s_ij/∂b      over all pairs that read the element
//! ```

use crate::array::Array;
use crate::oracle::bounds::spread;
use crate::oracle::{Bounds, GradientBounds, Gradients, Problem, ScoreFn, Truth};
use crate::tolerance::{Rounding, U, gamma};

/// What the oracle must know about a bias inside a score.
pub struct BiasTruth<'a> {
    /// Shape of the bias; its gradient is a sum over the axes where this is 1.
    pub shape: [usize; 4],
    /// Derivative of the final score by the bias, from `scale · q·k`; 1 where the bias is added last.
    pub through: ScoreFn<'a>,
}

impl Problem<'_> {
    /// The gradient of the bias, and how far an f32 kernel may be from it: `δ(dS)` through the same sum, the roundings of
    /// that sum, and one of the result.
    pub fn bias_gradient(
        &self,
        truth: &Truth,
        bounds: &Bounds,
        gradients: &Gradients,
        tolerances: &GradientBounds,
        bias: &BiasTruth<'_>,
    ) -> (Array, Array) {
        let of = |at| spread(&|s| (bias.through)(s, self.pair(at)), truth.raw[at], bounds.raw[at]);
        let each = self.of_visible(truth, |at| gradients.dscores[at] * of(at).0);
        let gradient = each.reduce(bias.shape);
        let sum = gamma(each.coordinates().count() / gradient.coordinates().count().max(1));
        let error = self.of_visible(truth, |at| {
            let (here, spread) = of(at);
            let through = tolerances.dscores[at] * here.abs() + gradients.dscores[at].abs() * spread;
            // A slope near 0 is a difference of numbers near 1 (1 − tanh²): off by units of 1, not of itself.
            through + (sum + 4.0 * U) * each[at].abs() + 4.0 * U * gradients.dscores[at].abs()
        });
        let error = error.reduce(bias.shape);
        let tolerance = Array::from_fn(bias.shape, |at| error[at] + Rounding::of::<f32>().at(gradient[at]));
        (gradient, tolerance)
    }
}
