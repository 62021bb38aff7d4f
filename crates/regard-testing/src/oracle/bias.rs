//! The gradient of a bias, or of another array that a score reads, from that of the final scores.
//!
//! ```text
//!   db = Σ dS_ij · ∂s_ij/∂b      over all pairs that read the element
//! ```

use regard_core::Pair;

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
    /// The element that a pair reads, where it is not that of the pair's own coordinates.
    pub element: Option<&'a dyn Fn(Pair) -> [usize; 4]>,
}

impl BiasTruth<'_> {
    /// A bias that is added last, of this shape.
    pub fn added(shape: [usize; 4]) -> Self {
        BiasTruth { shape, through: &|_, _| 1.0, element: None }
    }
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
        let gather = |each: &Array| match bias.element {
            None => each.reduce(bias.shape),
            Some(element) => {
                let mut sum = Array::zeros(bias.shape);
                each.coordinates().for_each(|at| sum[element(self.pair(at))] += each[at]);
                sum
            }
        };
        let gradient = gather(&each);
        let sum = gamma(each.coordinates().count() / gradient.coordinates().count().max(1));
        let error = self.of_visible(truth, |at| {
            let (here, spread) = of(at);
            let through = tolerances.dscores[at] * here.abs() + gradients.dscores[at].abs() * spread;
            // A slope near 0 is a difference of numbers near 1 (1 − tanh²): off by units of 1, not of itself.
            through + (sum + 4.0 * U) * each[at].abs() + 4.0 * U * gradients.dscores[at].abs()
        });
        let error = gather(&error);
        let tolerance = Array::from_fn(bias.shape, |at| error[at] + Rounding::of::<f32>().at(gradient[at]));
        (gradient, tolerance)
    }
}
