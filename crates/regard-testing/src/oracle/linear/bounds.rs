//! How far an f32 computation of linear attention may be from the oracle, in columns of the state.
//!
//! A column of the state is a vector, and `|·|` its length. As in [`tolerance`](crate::tolerance), roundings are independent, so
//! the errors of several add up as squares, and `G = γ(D + C + 8)` is six times the likely error of a sum over the elements of a key
//! and the tokens of a chunk of up to `C`, with its feature map and decays; `R = γ(4)` that of one step of the recurrence. `a_t` is the
//! largest decay of a token and `ρ_t = a_t · max(1, |1 − β_t |k_t|²|)` how much its update can stretch an error that is there already.
//!
//! ```text
//!   x_t²   = (2 max |S|)² + Σ |k|² u², decayed, over the last C tokens: what sums of a chunk are made of;    y_t likewise, of dS
//!   δS_t²  = (ρ_t δS_{t−1})² + (R x_t)² + (|k_t| β_t G (|v_t| + |k_t| x_t))²       the last of a delta rule
//!   δe_t   = |k_t| δS_t + G (|v_t| + |k_t| x_t)                                   of a delta rule
//!   δr_t   = |q_t| (δS_t + G x_t)
//!   δdS_t² = (ρ δdS_{t+1})² + (R y_t)² + (|k|² β G y)² + (|q_t| δdr_t)²
//! ```
//! Prefixes of a sum over tokens are products with states in between, which is why the largest of those bounds them. Gradients are
//! products of the two recurrences. That of a decay is a difference of sums over the tokens of its chunk after it: what each of them
//! may be off by counts.

use regard_core::Element;

use super::{Adjoint, Linear, LinearGradients, LinearTruth, Walk};
use crate::array::Array;
use crate::oracle::dot;
use crate::tolerance::{Rounding, U, gamma};

/// Tolerances, element by element.
pub struct LinearBounds {
    /// Of the output.
    pub out: Array,
    /// Of the state after the last token.
    pub state: Array,
    /// Of the gradients.
    pub grads: LinearGradients,
}

/// Columns of one KV head: `[position][column]`.
pub(super) type Columns = Vec<Vec<f64>>;

pub(super) fn length(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

/// The lengths of the columns of a state.
pub(super) fn columns(state: &[f64], w: usize) -> Vec<f64> {
    (0..w).map(|j| state.iter().skip(j).step_by(w).map(|s| s * s).sum::<f64>().sqrt()).collect()
}

/// Of independent errors.
pub(super) fn over(n: usize, f: impl Fn(usize) -> f64) -> f64 {
    (0..n).map(|i| f(i).powi(2)).sum::<f64>().sqrt()
}

/// One KV head: its recurrences, and the bounds of what they hold.
pub(super) struct Bound<'a> {
    pub(super) p: &'a Linear,
    pub(super) walk: &'a Walk,
    pub(super) adjoint: &'a Adjoint,
    pub(super) head: (usize, usize),
    pub(super) g: f64,
    pub(super) x: Columns,
    pub(super) ds: Columns,
    /// `y` and `δdS`, once [`Bound::gradient_states`] has run.
    pub(super) y: Columns,
    pub(super) dd: Columns,
}

impl Linear {
    /// Tolerances of a kernel whose inputs and output are of type `T`, against `truth` and `gradients`.
    pub fn bounds<T: Element>(
        &self,
        truth: &LinearTruth,
        gradients: &LinearGradients,
        d_out: &Array,
        d_state: &Array,
    ) -> LinearBounds {
        let of = Rounding::of::<T>();
        let narrow = |x: &Array| Array::from_fn(x.shape(), |at| of.at(x[at]));
        let wide = |x: &Array| Array::from_fn(x.shape(), |at| Rounding::of::<f32>().at(x[at]));
        let (dq, dk, dv) = (narrow(&gradients.dq), narrow(&gradients.dk), narrow(&gradients.dv));
        let (ddecay, dbeta, dpast) = (wide(&gradients.ddecay), wide(&gradients.dbeta), wide(&gradients.dpast));
        let grads = LinearGradients { dq, dk, dv, ddecay, dbeta, dpast };
        let mut bounds = LinearBounds { out: narrow(&truth.out), state: wide(&truth.state), grads };
        for head in self.heads() {
            let walk = self.walk(head.0, head.1);
            let adjoint = self.adjoint(&walk, head, d_out, d_state);
            let mut bound = Bound::new(self, &walk, &adjoint, head);
            bound.forward(&mut bounds);
            bound.backward(d_out, d_state, &mut bounds.grads);
        }
        bounds
    }
}

impl<'a> Bound<'a> {
    fn new(p: &'a Linear, walk: &'a Walk, adjoint: &'a Adjoint, head: (usize, usize)) -> Self {
        let (d, ..) = p.sizes();
        let g = gamma(d + p.window + 8);
        Bound { p, walk, adjoint, head, g, x: Vec::new(), ds: Vec::new(), y: Vec::new(), dd: Vec::new() }
    }

    pub(super) fn decay(&self, t: usize) -> f64 {
        self.walk.alpha[t].iter().copied().fold(0.0, f64::max)
    }

    pub(super) fn stretch(&self, t: usize) -> f64 {
        let k = length(&self.walk.k[t]);
        self.decay(t) * if self.p.rule.corrects() { (1.0 - self.walk.beta[t] * k * k).abs().max(1.0) } else { 1.0 }
    }

    /// A correction's own rounding, column by column; none where there are no corrections.
    fn rounding(&self, t: usize, j: usize) -> f64 {
        let (k, v) = (length(&self.walk.k[t]), self.walk.v[t][j].abs());
        if self.p.rule.corrects() { self.g * (v + k * self.x[t][j]) } else { 0.0 }
    }

    /// `δe`.
    pub(super) fn error(&self, t: usize, j: usize) -> f64 {
        if self.p.rule.corrects() { length(&self.walk.k[t]) * self.ds[t][j] + self.rounding(t, j) } else { 0.0 }
    }

    /// Query heads that read this KV head.
    pub(super) fn queries(&self) -> std::ops::Range<usize> {
        self.head.1 * self.p.group()..(self.head.1 + 1) * self.p.group()
    }

    pub(super) fn query(&self, head: usize, t: usize) -> Vec<f64> {
        self.p.features(self.p.q.row([self.head.0, head, t]))
    }

    /// `δr` of an output, column by column.
    fn raw(&self, q: &[f64], t: usize) -> Vec<f64> {
        self.x[t].iter().zip(&self.ds[t]).map(|(x, ds)| length(q) * (ds + self.g * x)).collect()
    }

    /// `r` and `δr`, so `o` and `δo`.
    pub(super) fn output(&self, head: usize, t: usize) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let q = self.query(head, t);
        let (r, mut dr) = (self.p.raw(&self.walk.states[t + 1], &q), self.raw(&q, t));
        let error = dr.clone();
        if self.p.normalised {
            let (weight, d_weight) = (r[r.len() - 1].abs(), dr.pop().unwrap_or_default());
            dr.iter_mut().zip(&r).for_each(|(dr, r)| *dr = (*dr + (r / weight).abs() * (d_weight + 2.0 * U * weight)) / weight);
        } else {
            dr.iter_mut().for_each(|x| *x *= self.p.scale.abs() * (1.0 + 2.0 * U));
        }
        (r, error, dr)
    }

    fn forward(&mut self, to: &mut LinearBounds) {
        let (d, w, len) = self.p.sizes();
        for t in 0..len {
            let first = (t + 1).saturating_sub(self.p.window);
            let (mut most, mut squares) = (columns(&self.walk.states[first], w), vec![0.0; w]);
            for i in first..=t {
                let (a, k, states) = (self.decay(i), length(&self.walk.k[i]), columns(&self.walk.states[i + 1], w));
                for j in 0..w {
                    most[j] = states[j].max(a * most[j]);
                    squares[j] = a * a * squares[j] + (k * self.walk.u[i][j]).powi(2);
                }
            }
            let x = most.iter().zip(squares).map(|(most, squares)| (4.0 * most * most + squares).sqrt()).collect();
            self.x.push(x);
            let (before, k) = (t.checked_sub(1).map(|t| self.ds[t].clone()), length(&self.walk.k[t]));
            let ds = (0..w).map(|j| {
                let kept = self.stretch(t) * before.as_ref().map_or(0.0, |before| before[j]);
                let written = k * self.walk.beta[t] * self.rounding(t, j);
                (kept.powi(2) + (gamma(4) * self.x[t][j]).powi(2) + written.powi(2)).sqrt()
            });
            let ds = ds.collect();
            self.ds.push(ds);
            for head in self.queries() {
                let (_, _, error) = self.output(head, t);
                let row = to.out.row_mut([self.head.0, head, t]);
                row.iter_mut().zip(error).for_each(|(to, error)| *to += error);
            }
        }
        for i in 0..if len == 0 { 0 } else { d } {
            let row = to.state.row_mut([self.head.0, self.head.1, i]);
            row.iter_mut().zip(&self.ds[len - 1]).for_each(|(to, error)| *to += error);
        }
    }
}
