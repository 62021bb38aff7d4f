//! How far an f32 kernel's forward pass may be from the oracle: every rounding, followed through the formulas.
//!
//! Notation: `u` and `γ(n)` as in [`tolerance`](crate::tolerance); `δ(x)` is the largest error of `x`, to first order.
//!
//! ```text
//!   δ(raw_ij) = scale·γ(D+2)·Σ_d |q||k| + 2u|raw|               the product, its scale
//!   δ(s_ij)   = |score(raw ± δ) − score(raw)| + 4u(|s|+|raw|)   the score, as steep as it is here
//!   ε_ij      = δ(s_ij) + 2u(|s_ij| + |m_i|) + 4u               exp(s − m): its argument, its own 4 units
//!   ε̄_i       = Σ_j p_ij ε_ij + p_sink (4u|m_i| + 4u)           the denominator
//!   δ(p)/p    = exp(ε_ij + ε̄_i) − 1 + γ(n) + f/p               f = e^−87.3: a smaller weight may become 0
//!   δ(lse_i)  = ε̄_i + γ(n) + 2u(|lse_i| + |m_i|)
//!   δ(o_i)    = Σ_j w_ij|v_j| (δ(p)/p + γ(n) + rounding of weights) + rounding of the output type
//! ```

use regard_core::Element;

use crate::array::Array;
use crate::oracle::{Problem, Truth, add, dot};
use crate::tolerance::{Rounding, U, gamma};

/// The least weight that a kernel must tell from 0: its `exp` may end where f32 loses digits, 1.03 · 2⁻¹²⁶.
const FLUSH: f64 = 1.22e-38;

/// Tolerances of the forward pass, element by element.
pub struct Bounds {
    /// Of the output.
    pub out: Array,
    /// Of the log-sum-exp.
    pub lse: Array,
    /// `δ(raw)` of visible pairs.
    pub(super) raw: Array,
    /// `δ(p)/p` of visible pairs.
    pub(super) prob: Array,
}

impl Problem<'_> {
    /// Tolerances of a kernel whose inputs and output are of type `T`.
    pub fn bounds<T: Element>(&self, truth: &Truth) -> Bounds {
        let n = gamma(self.k.shape()[2] + 1);
        let raw = self.raw_error(truth);
        let top = self.top(truth);
        let exponent = self.exponent_error(truth, &raw, &top);
        let denominator = Array::from_fn(truth.lse.shape(), |at @ [b, h, i, _]| {
            let sink = self.sink_prob(truth, at) * (4.0 * U * top[at] + 4.0 * U);
            dot(truth.probs.row([b, h, i]), exponent.row([b, h, i])) + sink
        });
        let prob = self.of_visible(truth, |at @ [b, h, i, _]| match truth.probs[at] {
            0.0 => 0.0,
            p => (exponent[at] + denominator[[b, h, i, 0]]).exp_m1() + n + FLUSH / p,
        });
        let lse = Array::from_fn(truth.lse.shape(), |at| match truth.lse[at] {
            f64::NEG_INFINITY => 0.0,
            lse => denominator[at] + n + 2.0 * U * (lse.abs() + top[at]),
        });
        let v = self.v.abs();
        let mut out = Array::from_fn(truth.out.shape(), |at| Rounding::of::<T>().at(truth.out[at]));
        for at @ [b, h, i, j] in prob.coordinates() {
            if truth.weights[at] > 0.0 {
                add(out.row_mut([b, h, i]), truth.weights[at] * (prob[at] + n + self.weight_unit), v.row([b, self.kv_head(h), j]));
            }
        }
        Bounds { out, lse, raw, prob }
    }

    /// `δ(raw)`.
    fn raw_error(&self, truth: &Truth) -> Array {
        let (q, k) = (self.q.abs(), self.k.abs());
        let dim = self.scale.abs() * gamma(self.q.shape()[3] + 2);
        self.of_visible(truth, |at @ [b, h, i, j]| {
            dim * dot(q.row([b, h, i]), k.row([b, self.kv_head(h), j])) + 2.0 * U * truth.raw[at].abs()
        })
    }

    /// `ε`, through the score at both ends of what its argument may be.
    fn exponent_error(&self, truth: &Truth, raw: &Array, top: &Array) -> Array {
        self.of_visible(truth, |at @ [b, h, i, _]| {
            let pair = self.pair(at);
            let (s, spread) = spread(&|s| (self.score)(s, pair), truth.raw[at], raw[at]);
            let score = spread + 4.0 * U * (s.abs() + truth.raw[at].abs());
            score + 2.0 * U * (s.abs() + top[[b, h, i, 0]]) + 4.0 * U
        })
    }

    /// `|m_i|`: the larger magnitude of the largest score and the sink; 0 where there is none.
    fn top(&self, truth: &Truth) -> Array {
        let magnitude = |x: f64| if x.is_finite() { x.abs() } else { 0.0 };
        Array::from_fn(truth.lse.shape(), |[b, h, i, _]| {
            let max = truth.scores.row([b, h, i]).iter().copied().fold(f64::NEG_INFINITY, f64::max);
            magnitude(max).max(magnitude(self.sink(h)))
        })
    }

    /// `f` of each visible pair, 0 for hidden ones.
    pub(super) fn of_visible(&self, truth: &Truth, f: impl Fn([usize; 4]) -> f64) -> Array {
        Array::from_fn(self.scores_shape(), |at| match truth.scores[at] {
            f64::NEG_INFINITY => 0.0,
            _ => f(at),
        })
    }
}

/// `f(x)`, and how far `f` is from it at `x ± delta`.
pub(super) fn spread(f: &dyn Fn(f64) -> f64, x: f64, delta: f64) -> (f64, f64) {
    let here = f(x);
    (here, (f(x + delta) - here).abs().max((f(x - delta) - here).abs()))
}
