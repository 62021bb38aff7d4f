//! The part of [`LinearBounds`](super::LinearBounds) that bounds gradients.

use super::LinearGradients;
use super::bounds::{Bound, Columns, columns, length, over};
use crate::array::Array;
use crate::tolerance::{U, gamma};

/// What the output of one query head adds to the gradient of the state: `|dr|`, its error, and `|q|`.
type Added = (Vec<f64>, Vec<f64>, f64);

impl Bound<'_> {
    /// `|dr|` and its error.
    fn d_raw(&self, head: usize, t: usize, d_out: &Array) -> (Vec<f64>, Vec<f64>) {
        let (r, dr, d_output) = self.output(head, t);
        let above = d_out.row([self.head.0, head, t]);
        let d_raw: Vec<f64> = self.p.d_raw(&r, above).iter().map(|x| x.abs()).collect();
        if !self.p.normalised {
            return (d_raw.clone(), d_raw.iter().map(|x| 2.0 * U * x).collect());
        }
        let last = r.len() - 1;
        let relative = dr[last] / r[last].abs() + 3.0 * U;
        let out = self.p.output(r);
        let mut error: Vec<f64> = d_raw.iter().map(|x| x * relative).collect();
        error[last] = (0..last).map(|j| d_raw[j] * (d_output[j] + out[j].abs() * (2.0 * relative + self.g))).sum();
        (d_raw, error)
    }

    /// `y` and `δdS`, from the end.
    fn gradient_states(&mut self, d_out: &Array, d_state: &Array) {
        let (d, w, len) = self.p.sizes();
        let (b, h) = self.head;
        let last: Vec<f64> = (0..d).flat_map(|i| d_state.row([b, h, i]).to_vec()).collect();
        let added = |head, t| {
            let (d_raw, error) = self.d_raw(head, t, d_out);
            (d_raw, error, length(&self.query(head, t)))
        };
        let adds: Vec<Vec<Added>> = (0..len).map(|t| self.queries().map(|head| added(head, t)).collect()).collect();
        let lengths: Columns = (0..=len).map(|t| columns(self.adjoint.states.get(t).unwrap_or(&last), w)).collect();
        let (mut y, mut dd): (Columns, Columns) = (vec![Vec::new(); len], vec![Vec::new(); len]);
        for t in (0..len).rev() {
            y[t] = self.gradient_sums(t, &lengths, &adds);
            dd[t] = (0..w)
                .map(|j| {
                    let outputs = adds[t].iter().map(|(_, error, q)| (q * error[j]).powi(2)).sum::<f64>();
                    let kept = if t + 1 < len { self.stretch(t + 1) * dd[t + 1][j] } else { 0.0 };
                    let corrected = if t + 1 < len { self.corrected(t + 1) * self.g * y[t + 1][j] } else { 0.0 };
                    ((gamma(4) * y[t][j]).powi(2) + outputs + kept.powi(2) + corrected.powi(2)).sqrt()
                })
                .collect();
        }
        (self.y, self.dd) = (y, dd);
    }

    /// `|k|² β` of a delta rule.
    fn corrected(&self, t: usize) -> f64 {
        if self.p.rule.corrects() { length(&self.walk.k[t]).powi(2) * self.walk.beta[t] } else { 0.0 }
    }

    /// `y_t`, column by column.
    fn gradient_sums(&self, t: usize, lengths: &Columns, adds: &[Vec<Added>]) -> Vec<f64> {
        let end = (t + self.p.window).min(adds.len());
        let (mut most, mut squares) = (lengths[end].clone(), vec![0.0; lengths[end].len()]);
        for s in (t..end).rev() {
            let later = (s + 1 < adds.len()).then_some(s + 1);
            let (a, k) = later.map_or((1.0, 0.0), |s| (self.decay(s), length(&self.walk.k[s])));
            for j in 0..most.len() {
                let corrected = later.filter(|_| self.p.rule.corrects()).map_or(0.0, |s| k * self.adjoint.de[s][j]);
                let added = adds[s].iter().map(|(d_raw, _, q)| (q * d_raw[j]).powi(2)).sum::<f64>();
                most[j] = lengths[s][j].max(a * most[j]);
                squares[j] = a * a * (squares[j] + corrected.powi(2)) + added;
            }
        }
        most.iter().zip(squares).map(|(most, squares)| (4.0 * most * most + squares).sqrt()).collect()
    }

    /// `δdu` and `δde` of one column.
    fn write_errors(&self, t: usize, j: usize) -> (f64, f64) {
        let du = length(&self.walk.k[t]) * (self.dd[t][j] + self.g * self.y[t][j]);
        (du, self.walk.beta[t] * du)
    }

    /// Adds what every gradient may be off by.
    pub(super) fn backward(&mut self, d_out: &Array, d_state: &Array, to: &mut LinearGradients) {
        self.gradient_states(d_out, d_state);
        let (_, w, len) = self.p.sizes();
        let (b, h) = self.head;
        // The square of what each token may add to the gradient of the decays before it.
        let decays: Vec<f64> = (0..len).map(|t| self.queries_of(t, d_out, to) + self.keys_of(t, to)).collect();
        for t in 0..len {
            let last = (t + self.p.window).min(len) - 1;
            let at_end = over(w, |j| {
                let (x, y) = (self.x[last][j], self.y[last][j]);
                self.dd[last][j] * x + y * (self.ds[last][j] + self.g * x)
            });
            let error = decays[t..=last].iter().sum::<f64>().sqrt() + at_end;
            to.ddecay.row_mut([b, h, t]).iter_mut().for_each(|to| *to += error);
            let (du, e) = (|j| self.write_errors(t, j).0, &self.walk.e[t]);
            let y = |j: usize| length(&self.walk.k[t]) * self.y[t][j];
            to.dbeta[[b, h, t, 0]] += over(w, |j| du(j) * e[j].abs() + y(j) * (self.error(t, j) + self.g * e[j].abs()));
        }
        for at @ [_, _, _, j] in to.dpast.coordinates().filter(|at| (at[0], at[1]) == (b, h) && len > 0) {
            let corrected = length(&self.walk.k[0]) * self.adjoint.de[0][j].abs();
            to.dpast[at] += self.stretch(0) * self.dd[0][j] + self.g * (self.y[0][j] + corrected);
        }
    }

    /// The queries of one token; returns the square of `δ(q ∘ dq)`, summed over elements.
    fn queries_of(&self, t: usize, d_out: &Array, to: &mut LinearGradients) -> f64 {
        let w = self.p.sizes().1;
        let mut decays = 0.0;
        for (g, head) in self.queries().enumerate() {
            let (d_raw, error) = self.d_raw(head, t, d_out);
            let states = over(w, |j| (self.ds[t][j] + self.g * self.x[t][j]) * d_raw[j]);
            let dq = states.hypot(over(w, |j| self.x[t][j] * error[j]));
            let (plain, q) = (&self.adjoint.dq[g][t], self.p.q.row([self.head.0, head, t]));
            let rows = to.dq.row_mut([self.head.0, head, t]).iter_mut().zip(plain).zip(q);
            rows.for_each(|((to, plain), q)| *to += dq * self.p.feature_slope(*q) + 8.0 * U * plain.abs());
            decays += (length(&self.query(head, t)) * (dq + self.g * length(plain))).powi(2);
        }
        decays
    }

    /// The key and the value of one token; returns the square of `δ(k ∘ dk)`, summed over elements.
    fn keys_of(&self, t: usize, to: &mut LinearGradients) -> f64 {
        let ((b, h), w, corrects) = (self.head, self.p.sizes().1, self.p.rule.corrects());
        let (u, de, beta) = (&self.walk.u[t], &self.adjoint.de[t], self.walk.beta[t]);
        let writes = over(w, |j| (self.dd[t][j] + self.g * self.y[t][j]) * u[j].abs() + self.y[t][j] * beta * self.error(t, j));
        let finds = |j: usize| (self.ds[t][j] + self.g * self.x[t][j]) * de[j].abs() + self.x[t][j] * self.write_errors(t, j).1;
        let dk = writes + if corrects { over(w, finds) } else { 0.0 };
        let size = over(w, |j| self.y[t][j] * u[j]) + if corrects { over(w, |j| self.x[t][j] * de[j]) } else { 0.0 };
        let rows = to.dk.row_mut([b, h, t]).iter_mut().zip(&self.adjoint.dk[t]).zip(self.p.k.row([b, h, t]));
        rows.for_each(|((to, plain), k)| *to += dk * self.p.feature_slope(*k) + 8.0 * U * plain.abs());
        for (j, to) in to.dv.row_mut([b, h, t]).iter_mut().enumerate() {
            let (du, de) = self.write_errors(t, j);
            *to += if corrects { de } else { du };
        }
        (length(&self.walk.k[t]) * (dk + self.g * size)).powi(2)
    }
}
