//! Gradients of the oracle, in f64.
//!
//! With `dO` the gradient of the output and `c = kept/(1 − p_drop)`:
//!
//! ```text
//!   dV_j  = Σ_i w_ij dO_i                 dP_ij = c_ij · dO_i·v_j
//!   Δ_i   = Σ_j p_ij dP_ij                dS_ij = p_ij (dP_ij − Δ_i)
//!   dR_ij = dS_ij · slope(raw_ij)         dsink = −Σ_i p_sink,i Δ_i
//!   dQ_i  = scale · Σ_j dR_ij k_j         dK_j  = scale · Σ_i dR_ij q_i
//! ```

use crate::array::Array;
use crate::oracle::{Problem, ScoreFn, Truth, add, dot};

/// Gradients of `Σ dO · out`.
pub struct Gradients {
    /// By the queries `[batch, heads, query_len, head_dim]`.
    pub dq: Array,
    /// By the keys `[batch, kv_heads, kv_len, head_dim]`.
    pub dk: Array,
    /// By the values `[batch, kv_heads, kv_len, value_dim]`.
    pub dv: Array,
    /// By the final scores `[batch, heads, query_len, kv_len]`; a bias that is added last has
    /// [`Array::reduce`] of it as its gradient.
    pub dscores: Array,
    /// By `scale · q·k`, `[batch, heads, query_len, kv_len]`: `dscores · slope`.
    pub draw: Array,
    /// By the sinks, one for each query head; empty without sinks.
    pub dsinks: Vec<f64>,
}

impl Problem<'_> {
    /// Gradients of `Σ d_out · out`, where `slope` is the derivative of the score.
    pub fn backward(&self, truth: &Truth, d_out: &Array, slope: ScoreFn<'_>) -> Gradients {
        let [batch, heads, query_len, _] = self.q.shape();
        let dprobs = self.dprobs(truth, d_out);
        let delta =
            Array::from_fn([batch, heads, query_len, 1], |[b, h, i, _]| dot(truth.probs.row([b, h, i]), dprobs.row([b, h, i])));
        let dscores = Array::from_fn(self.scores_shape(), |at @ [b, h, i, _]| truth.probs[at] * (dprobs[at] - delta[[b, h, i, 0]]));
        let draw = Array::from_fn(self.scores_shape(), |at| match truth.probs[at] {
            0.0 => 0.0, // hidden, or too far below the maximum to matter
            _ => dscores[at] * slope(truth.raw[at], self.pair(at)),
        });
        let (dq, dk, dv) = self.dinputs(truth, d_out, &draw);
        Gradients { dq, dk, dv, dsinks: self.dsinks(truth, &delta), dscores, draw }
    }

    /// `dP_ij = c_ij · dO_i·v_j` of visible keys.
    pub(crate) fn dprobs(&self, truth: &Truth, d_out: &Array) -> Array {
        Array::from_fn(self.scores_shape(), |at @ [b, h, i, j]| match truth.scores[at] {
            f64::NEG_INFINITY => 0.0,
            _ => self.kept(at) * dot(d_out.row([b, h, i]), self.v.row([b, self.kv_head(h), j])),
        })
    }

    /// dQ, dK and dV, each a sum over visible pairs.
    fn dinputs(&self, truth: &Truth, d_out: &Array, draw: &Array) -> (Array, Array, Array) {
        let mut dq = Array::zeros(self.q.shape());
        let mut dk = Array::zeros(self.k.shape());
        let mut dv = Array::zeros(self.v.shape());
        for at @ [b, h, i, j] in draw.coordinates() {
            if truth.scores[at] == f64::NEG_INFINITY {
                continue;
            }
            let (query, key) = ([b, h, i], [b, self.kv_head(h), j]);
            add(dq.row_mut(query), self.scale * draw[at], self.k.row(key));
            add(dk.row_mut(key), self.scale * draw[at], self.q.row(query));
            add(dv.row_mut(key), truth.weights[at], d_out.row(query));
        }
        (dq, dk, dv)
    }

    fn dsinks(&self, truth: &Truth, delta: &Array) -> Vec<f64> {
        let mut dsinks = vec![0.0; self.sinks.as_ref().map_or(0, Vec::len)];
        for at @ [_, h, _, _] in delta.coordinates() {
            if let Some(dsink) = dsinks.get_mut(h) {
                *dsink -= self.sink_prob(truth, at) * delta[at];
            }
        }
        dsinks
    }

    /// The probability that the sink takes from one row.
    pub(crate) fn sink_prob(&self, truth: &Truth, [b, h, i, _]: [usize; 4]) -> f64 {
        match self.sink(h) {
            f64::NEG_INFINITY => 0.0,
            sink => (sink - truth.lse[[b, h, i, 0]]).exp(),
        }
    }
}
