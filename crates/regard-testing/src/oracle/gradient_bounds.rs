//! How far an f32 kernel's backward pass may be from the oracle.
//!
//! The kernel computes `p = exp(s − lse)` again, from an `lse` stored in f32, and `Δ = dO·O` from an output that was
//! rounded to its type. With the notation of the forward bounds and `A_ij = c_ij · Σ_d |dO_i||v_j|`:
//!
//! ```text
//!   η_ij     = δ(p)/p + δ(lse_i) + 2u|lse_i|                       relative error of p, again
//!   δ(Δ_i)   = Σ_d |dO_i| δ(o_i) + γ(Dv) · Σ_d |dO_i||o_i|
//!   δ(dS_ij) = p_ij [(η_ij + 4u)(|dP_ij| + Σ_j p_ij|dP_ij|) + γ(Dv)·A_ij + δ(Δ_i)]
//!   δ(dR_ij) = δ(dS)|slope| + |dS| (|slope(raw ± δ) − slope(raw)| + 4u|slope|)
//!   δ(dQ_i)  = scale · Σ_j (δ(dR_ij) + (γ(n) + w)|dR_ij|) |k_j|  + rounding of the output type;  dK alike, over queries
//!   δ(dV_j)  = Σ_i w_ij (η_ij + γ(n) + w) |dO_i|                 + rounding of the output type;  w = rounding of weights
//!   δ(dsink) = Σ_i p_sink,i [δ(Δ_i) + (δ(lse_i) + 8u(1 + |lse_i|) + γ(n)) Σ_j p_ij|dP_ij|] + rounding to f32
//! ```

use regard_core::Element;

use crate::array::Array;
use crate::oracle::bounds::{Bounds, spread};
use crate::oracle::{Gradients, Problem, ScoreFn, Truth, add, dot};
use crate::tolerance::{Rounding, U, gamma};

/// Tolerances of the backward pass, element by element.
pub struct GradientBounds {
    /// Of the gradient by the queries.
    pub dq: Array,
    /// Of the gradient by the keys.
    pub dk: Array,
    /// Of the gradient by the values.
    pub dv: Array,
    /// Of the gradient by each final score, `[batch, heads, query_len, kv_len]`; the tolerance of the gradient of a
    /// bias that is added last is [`Array::reduce`] of it.
    pub dscores: Array,
    /// Of the gradient by each sink.
    pub dsinks: Vec<f64>,
}

/// What the gradients and their tolerances are made of.
struct Parts<'a> {
    truth: &'a Truth,
    bounds: &'a Bounds,
    gradients: &'a Gradients,
    /// `|dO|`.
    d_out: Array,
    /// `Σ_j p_ij |dP_ij|`, `[batch, heads, query_len, 1]`.
    size: Array,
    /// `δ(Δ)`, `[batch, heads, query_len, 1]`.
    delta: Array,
    /// `η`, `[batch, heads, query_len, kv_len]`.
    again: Array,
}

impl Problem<'_> {
    /// Tolerances of the gradients of a kernel whose inputs and output are of type `T`.
    pub fn gradient_bounds<T: Element>(
        &self,
        truth: &Truth,
        bounds: &Bounds,
        gradients: &Gradients,
        d_out: &Array,
        slope: ScoreFn<'_>,
    ) -> GradientBounds {
        let dprobs = self.dprobs(truth, d_out).abs();
        let parts = self.parts(truth, bounds, gradients, d_out.abs(), &dprobs);
        let dscores = self.dscores_error(&parts, &dprobs);
        let draw = self.of_visible(truth, |at| {
            let pair = self.pair(at);
            let (here, spread) = spread(&|s| slope(s, pair), truth.raw[at], bounds.raw[at]);
            dscores[at] * here.abs() + gradients.dscores[at].abs() * (spread + 4.0 * U * here.abs())
        });
        let (dq, dk, dv) = self.input_errors::<T>(&parts, &draw);
        GradientBounds { dq, dk, dv, dscores, dsinks: self.dsinks_error(&parts) }
    }

    fn parts<'a>(&self, truth: &'a Truth, bounds: &'a Bounds, gradients: &'a Gradients, d_out: Array, dprobs: &Array) -> Parts<'a> {
        let out = truth.out.abs();
        let rows = truth.lse.shape();
        let size = Array::from_fn(rows, |[b, h, i, _]| dot(truth.probs.row([b, h, i]), dprobs.row([b, h, i])));
        let delta = Array::from_fn(rows, |[b, h, i, _]| {
            let d_out = d_out.row([b, h, i]);
            dot(d_out, bounds.out.row([b, h, i])) + gamma(d_out.len()) * dot(d_out, out.row([b, h, i]))
        });
        let again = self.of_visible(truth, |at @ [b, h, i, _]| {
            let row = [b, h, i, 0];
            bounds.prob[at] + bounds.lse[row] + 2.0 * U * truth.lse[row].abs()
        });
        Parts { truth, bounds, gradients, d_out, size, delta, again }
    }

    /// `δ(dS)`.
    fn dscores_error(&self, parts: &Parts<'_>, dprobs: &Array) -> Array {
        let v = self.v.abs();
        let dim = gamma(self.v.shape()[3]);
        self.of_visible(parts.truth, |at @ [b, h, i, j]| {
            let product = self.kept(at) * dot(parts.d_out.row([b, h, i]), v.row([b, self.kv_head(h), j]));
            let size = dprobs[at] + parts.size[[b, h, i, 0]];
            parts.truth.probs[at] * ((parts.again[at] + 4.0 * U) * size + dim * product + parts.delta[[b, h, i, 0]])
        })
    }

    /// `δ(dQ)`, `δ(dK)` and `δ(dV)`.
    fn input_errors<T: Element>(&self, parts: &Parts<'_>, draw: &Array) -> (Array, Array, Array) {
        let Parts { truth, gradients, d_out, again, .. } = parts;
        let (q, k, scale) = (self.q.abs(), self.k.abs(), self.scale.abs());
        let group = self.q.shape()[1] / self.k.shape()[1].max(1);
        let (keys, queries) = (self.k.shape()[2], group * self.q.shape()[2]);
        // Instructions that multiply bf16 take subnormal factors, products and sums for 0.
        let flush = if self.weight_unit > 0.0 { 2f64.powi(-126) } else { 0.0 };
        let rounded = |x: &Array, n: usize| Array::from_fn(x.shape(), |at| Rounding::of::<T>().at(x[at]) + 2.0 * flush * n as f64);
        let (mut dq, mut dk) = (rounded(&gradients.dq, keys), rounded(&gradients.dk, queries));
        let mut dv = rounded(&gradients.dv, queries);
        let (keys, queries) = (gamma(keys + 2), gamma(queries + 2));
        for at @ [b, h, i, j] in draw.coordinates() {
            if truth.probs[at] > 0.0 {
                let (query, key) = ([b, h, i], [b, self.kv_head(h), j]);
                let size = gradients.draw[at].abs();
                add(dq.row_mut(query), scale * (draw[at] + (keys + self.weight_unit) * size + flush), k.row(key));
                add(dk.row_mut(key), scale * (draw[at] + (queries + self.weight_unit) * size + flush), q.row(query));
                add(dv.row_mut(key), truth.weights[at] * (again[at] + queries + self.weight_unit) + flush, d_out.row(query));
            }
        }
        (dq, dk, dv)
    }

    /// `δ(dsink)`.
    fn dsinks_error(&self, parts: &Parts<'_>) -> Vec<f64> {
        let mut dsinks: Vec<f64> = parts.gradients.dsinks.iter().map(|&d| Rounding::of::<f32>().at(d)).collect();
        let [batch, _, query_len, _] = parts.truth.lse.shape();
        for at @ [_, h, _, _] in parts.delta.coordinates() {
            let lse = parts.bounds.lse[at] + 8.0 * U * (1.0 + parts.truth.lse[at].abs());
            let relative = lse + gamma(batch * query_len);
            if let Some(dsink) = dsinks.get_mut(h) {
                *dsink += self.sink_prob(parts.truth, at) * (parts.delta[at] + relative * parts.size[at]);
            }
        }
        dsinks
    }
}
