//! The oracle: attention in f64, one line of mathematics at a time, everything materialised.
//!
//! ```text
//!   s_ij = scale · q_i·k_j                     raw
//!   s_ij ← score(s_ij), or −∞ unless keep(i,j) scores
//!   p_ij = exp(s_ij − lse_i)                   probs       lse_i = ln(Σ_j exp(s_ij) + exp(sink))
//!   w_ij = p_ij · kept_ij / (1 − p_drop)       weights
//!   o_i  = Σ_j w_ij · v_j                      out
//! ```
//!
//! A key whose final score is −∞ is hidden: neither the key nor its value is read, so that NaN there is never observed.

use regard_core::{Dropout, Element, Kv, Lens, Mask, Pair, Score, Shape, View};

use crate::array::Array;

mod backward;
mod bias;
mod bounds;
mod facts;
mod gradient_bounds;
pub mod linear;

pub use backward::Gradients;
pub use bias::BiasTruth;
pub use bounds::Bounds;
pub use facts::{Fact, Looked};
pub use gradient_bounds::GradientBounds;

/// A score as the oracle applies it: from `scale · q·k` to what the mask receives.
pub type ScoreFn<'a> = &'a (dyn Fn(f64, Pair) -> f64 + 'a);

/// A [`Score`] for the oracle. Scores are f32 functions, so the f64 argument is rounded to f32 first; [`Bounds`] counts
/// that rounding among those a kernel may make.
pub fn lift<S: Score + ?Sized>(score: &S) -> impl Fn(f64, Pair) -> f64 {
    move |s, p| f64::from(score.score(s as f32, p))
}

/// One attention problem, in f64.
pub struct Problem<'a> {
    /// Queries `[batch, heads, query_len, head_dim]`.
    pub q: Array,
    /// Keys `[batch, kv_heads, kv_len, head_dim]`.
    pub k: Array,
    /// Values `[batch, kv_heads, kv_len, value_dim]`.
    pub v: Array,
    /// Factor of `q·k`; [`Problem::new`] sets `1/√head_dim`.
    pub scale: f64,
    /// Who is seen.
    pub mask: &'a dyn Mask,
    /// How much.
    pub score: ScoreFn<'a>,
    /// One logit for each query head, which joins the denominator only.
    pub sinks: Option<Vec<f64>>,
    /// Which probabilities are dropped.
    pub dropout: Option<Dropout>,
    /// The relative rounding of a weight before it multiplies its value, and of the gradient of a score before it multiplies its query
    /// and key: 0 for kernels that keep them in f32. It enters the tolerances only.
    pub weight_unit: f64,
}

/// What the oracle says about a [`Problem`].
pub struct Truth {
    /// Output `[batch, heads, query_len, value_dim]`.
    pub out: Array,
    /// Natural log of the softmax denominator, sinks included, `[batch, heads, query_len, 1]`.
    pub lse: Array,
    /// `scale · q·k` of visible keys, `[batch, heads, query_len, kv_len]`; −∞ where hidden.
    pub raw: Array,
    /// Final scores, `[batch, heads, query_len, kv_len]`; −∞ where hidden.
    pub scores: Array,
    /// Softmax probabilities before dropout, `[batch, heads, query_len, kv_len]`; 0 where hidden.
    pub probs: Array,
    /// What multiplies the values: probabilities after dropout, `[batch, heads, query_len, kv_len]`.
    pub weights: Array,
}

impl<'a> Problem<'a> {
    /// Plain attention over dense views: everything visible, no scores, `scale = 1/√head_dim`.
    pub fn new<T: Element>(q: View<'_, T>, k: View<'_, T>, v: View<'_, T>) -> Problem<'a> {
        Shape::of(&q, &Kv::Dense { k, v }).expect("views of one problem");
        Problem {
            scale: 1.0 / (q.shape()[3].max(1) as f64).sqrt(),
            q: Array::from_view(q),
            k: Array::from_view(k),
            v: Array::from_view(v),
            mask: &(),
            score: &|s, _| s,
            sinks: None,
            dropout: None,
            weight_unit: 0.0,
        }
    }

    /// The pair (query `q`, key `kv`) of one head.
    pub fn pair(&self, [batch, head, q, kv]: [usize; 4]) -> Pair {
        let len = Lens { q: self.q.shape()[2] as u32, kv: self.k.shape()[2] as u32 };
        Pair { batch: batch as u32, head: head as u32, q: q as u32, kv: kv as u32, len }
    }

    /// The KV head that query head `head` reads.
    pub fn kv_head(&self, head: usize) -> usize {
        head / (self.q.shape()[1] / self.k.shape()[1])
    }

    /// `[batch, heads, query_len, kv_len]`.
    pub fn scores_shape(&self) -> [usize; 4] {
        let [batch, heads, query_len, _] = self.q.shape();
        [batch, heads, query_len, self.k.shape()[2]]
    }

    /// The answer.
    pub fn forward(&self) -> Truth {
        let [batch, heads, query_len, _] = self.q.shape();
        let (raw, scores) = self.scores();
        let lse = Array::from_fn([batch, heads, query_len, 1], |[b, h, i, _]| log_sum_exp(scores.row([b, h, i]), self.sink(h)));
        let probs = Array::from_fn(self.scores_shape(), |at @ [b, h, i, _]| match scores[at] {
            f64::NEG_INFINITY => 0.0,
            s => (s - lse[[b, h, i, 0]]).exp(),
        });
        let weights = Array::from_fn(self.scores_shape(), |at| probs[at] * self.kept(at));
        let mut out = Array::zeros([batch, heads, query_len, self.v.shape()[3]]);
        for at @ [b, h, i, j] in scores.coordinates() {
            if scores[at] > f64::NEG_INFINITY || scores[at].is_nan() {
                let value = self.v.row([b, self.kv_head(h), j]);
                out.row_mut([b, h, i]).iter_mut().zip(value).for_each(|(o, v)| *o += weights[at] * v);
            }
        }
        Truth { out, lse, raw, scores, probs, weights }
    }

    /// Raw and final scores.
    fn scores(&self) -> (Array, Array) {
        let mut raw = Array::from_fn(self.scores_shape(), |_| f64::NEG_INFINITY);
        let mut scores = raw.clone();
        for at @ [b, h, i, j] in scores.coordinates() {
            let pair = self.pair(at);
            if self.mask.keep(pair) {
                let s = self.scale * dot(self.q.row([b, h, i]), self.k.row([b, self.kv_head(h), j]));
                let score = (self.score)(s, pair);
                if score != f64::NEG_INFINITY {
                    (raw[at], scores[at]) = (s, score);
                }
            }
        }
        (raw, scores)
    }

    /// What dropout multiplies one probability by: 0, or `1 / (1 − p)`.
    fn kept(&self, at: [usize; 4]) -> f64 {
        self.dropout.map_or(1.0, |dropout| f64::from(dropout.factor(self.pair(at))))
    }

    /// The logit of the sink of one head; −∞ without sinks.
    fn sink(&self, head: usize) -> f64 {
        self.sinks.as_ref().map_or(f64::NEG_INFINITY, |sinks| sinks[head])
    }
}

/// `ln(Σ exp(s) + exp(sink))`; −∞ for an empty sum.
fn log_sum_exp(scores: &[f64], sink: f64) -> f64 {
    let all = || scores.iter().copied().chain([sink]);
    let max = all().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY && !scores.iter().any(|s| s.is_nan()) {
        return max;
    }
    max + all().map(|s| (s - max).exp()).sum::<f64>().ln()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `y += a · x`.
fn add(y: &mut [f64], a: f64, x: &[f64]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
}

#[cfg(test)]
mod tests;
