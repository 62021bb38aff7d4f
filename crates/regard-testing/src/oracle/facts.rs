//! Facts about attention from materialised weights, and how far a kernel's may be from them.
//!
//! Notation as in [`bounds`](super::bounds), with `e_j = δ(p_j)/p_j`:
//!
//! ```text
//!   δ(Σ p) = Σ p e + γ(n) Σ p        δ(max) = max δ(s)       δ(mean d) = (Σ p e d + d̄ Σ p e) / Σ p + γ(n) d̄
//!   δ(H)   = Σ p (e + γ(n)) (1 + |ln p| + 2 (|lse − max| + 8))      the stabiliser is up to 8 below the maximum
//! ```

use std::ops::Range;

use crate::array::Array;
use crate::oracle::bounds::spread;
use crate::oracle::{Bounds, Problem, Truth};
use crate::tolerance::{U, gamma};

/// Values and their tolerances.
pub struct Fact {
    /// What is true.
    pub value: Array,
    /// How far a kernel may be from it.
    pub tolerance: Array,
}

/// A problem with its answer, to be asked about its weights.
pub struct Looked<'a> {
    /// The problem.
    pub problem: &'a Problem<'a>,
    /// Its answer.
    pub truth: &'a Truth,
    /// The tolerances of the answer.
    pub bounds: &'a Bounds,
}

impl Looked<'_> {
    fn n(&self) -> f64 {
        gamma(self.problem.k.shape()[2] + 4)
    }

    /// A number of each row.
    fn rows(&self, width: usize, f: impl Fn([usize; 4]) -> (f64, f64)) -> Fact {
        let [batch, heads, rows, _] = self.truth.lse.shape();
        let shape = [batch, heads, rows, width];
        Fact { value: Array::from_fn(shape, |at| f(at).0), tolerance: Array::from_fn(shape, |at| f(at).1 + 1e-37) }
    }

    /// Pairs `(p, e)` of a row.
    fn pairs(&self, [b, h, i]: [usize; 3]) -> impl Iterator<Item = (usize, f64, f64)> {
        let (p, e) = (self.truth.probs.row([b, h, i]), self.bounds.prob.row([b, h, i]));
        p.iter().zip(e).enumerate().map(|(j, (p, e))| (j, *p, *e)).filter(|(_, p, _)| *p > 0.0)
    }

    /// Where query `i` stands among the keys.
    fn position(&self, i: usize) -> i64 {
        (i + self.problem.k.shape()[2]) as i64 - self.problem.q.shape()[2] as i64
    }

    /// The summed weight, in each column, of the keys that `member(distance, key, column)` tells.
    pub fn masses(&self, columns: usize, member: impl Fn(i64, usize, usize) -> bool) -> Fact {
        self.rows(columns, |[b, h, i, c]| {
            let of = self.pairs([b, h, i]).filter(|(j, ..)| member(self.position(i) - *j as i64, *j, c));
            let (mass, error) = of.fold((0.0, 0.0), |(mass, error), (_, p, e)| (mass + p, error + p * e));
            (mass, error + (self.n() + 4.0 * U) * mass)
        })
    }

    /// `−Σ p ln p`, the sink among the `p`.
    pub fn entropy(&self) -> Fact {
        self.rows(1, |[b, h, i, _]| {
            let (lse, top) = (self.truth.lse[[b, h, i, 0]], self.top([b, h, i]));
            let sink = (self.problem.sink(h) - lse).exp();
            let of_sink = if sink > 0.0 { -sink * sink.ln() } else { 0.0 };
            let far = 2.0 * ((lse - top).abs() + 8.0);
            let (mut entropy, mut error) = (of_sink, 0.0);
            for (_, p, e) in self.pairs([b, h, i]) {
                entropy -= p * p.ln();
                error += p * (e + self.n()) * (1.0 + p.ln().abs() + far);
            }
            if self.pairs([b, h, i]).next().is_none() {
                return (0.0, 0.0);
            }
            let error_sink = if sink > 0.0 {
                sink * (1.0 + sink.ln().abs()) * (self.bounds.lse[[b, h, i, 0]] + 8.0 * U * (1.0 + far))
            } else {
                0.0
            };
            (entropy, error + error_sink + 8.0 * U * (far + entropy))
        })
    }

    fn top(&self, [b, h, i]: [usize; 3]) -> f64 {
        self.truth.scores.row([b, h, i]).iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// The largest score.
    pub fn max_logit(&self) -> Fact {
        let error = |at: [usize; 4]| {
            let pair = self.problem.pair(at);
            let (s, spread) = spread(&|s| (self.problem.score)(s, pair), self.truth.raw[at], self.bounds.raw[at]);
            spread + 4.0 * U * (s.abs() + self.truth.raw[at].abs())
        };
        self.rows(1, |[b, h, i, _]| {
            let errors = self.pairs([b, h, i]).map(|(j, ..)| error([b, h, i, j]));
            (self.top([b, h, i]), errors.fold(0.0, f64::max))
        })
    }

    /// `Σ p·|distance| / Σ p`
    pub fn distance(&self) -> Fact {
        self.rows(1, |[b, h, i, _]| {
            let (mut mass, mut far, mut error, mut far_error) = (0.0, 0.0, 0.0, 0.0);
            for (j, p, e) in self.pairs([b, h, i]) {
                let d = (self.position(i) - j as i64).abs() as f64;
                (mass, far, error, far_error) = (mass + p, far + p * d, error + p * e, far_error + p * e * d);
            }
            if mass == 0.0 {
                return (0.0, 0.0);
            }
            let mean = far / mass;
            (mean, (far_error + mean * error) / mass + 2.0 * (self.n() + 4.0 * U) * mean)
        })
    }

    /// The weights of a row in descending order with their keys, and the largest tolerance of a weight.
    pub fn ranked(&self, row: [usize; 3]) -> (Vec<(f64, usize)>, f64) {
        let mut all: Vec<_> = self.pairs(row).map(|(j, p, _)| (p, j)).collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        (all, self.pairs(row).map(|(_, p, e)| p * (e + 8.0 * U)).fold(1e-37, f64::max))
    }

    /// Cells of some rows by some keys, `[batch, heads, rows of cells, columns of cells]`: the mean over rows of the mass of the keys, by weights
    /// that are computed again from the log-sum-exp.
    pub fn map(&self, rows: Range<usize>, keys: Range<usize>, [cell_rows, cell_keys]: [usize; 2]) -> Fact {
        let [batch, heads, ..] = self.truth.lse.shape();
        let shape = [batch, heads, rows.len().div_ceil(cell_rows), keys.len().div_ceil(cell_keys)];
        let cell = |[b, h, r, c]: [usize; 4]| {
            let of_rows = rows.start + r * cell_rows..(rows.start + (r + 1) * cell_rows).min(rows.end);
            let of_keys = keys.start + c * cell_keys..(keys.start + (c + 1) * cell_keys).min(keys.end);
            let (mut mass, mut error) = (0.0, 0.0);
            for i in of_rows.clone() {
                let lse = self.truth.lse[[b, h, i, 0]];
                let again = self.bounds.lse[[b, h, i, 0]] + 8.0 * U * (1.0 + lse.abs());
                for (_, p, e) in self.pairs([b, h, i]).filter(|(j, ..)| of_keys.contains(j)) {
                    (mass, error) = (mass + p, error + p * (e + (again + 4.0 * U * p.ln().abs()).exp_m1()));
                }
            }
            let n = of_rows.len() as f64;
            (mass / n, error / n + gamma(cell_keys + 64) * mass / n)
        };
        Fact { value: Array::from_fn(shape, |at| cell(at).0), tolerance: Array::from_fn(shape, |at| cell(at).1 + 1e-37) }
    }
}
