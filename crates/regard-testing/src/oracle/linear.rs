//! Linear attention in f64: the recurrence, one token after another, and the same outputs as a sum over pairs.
//!
//! ```text
//!   S' = diag(e^{g_t}) S_{t−1}      e_t = v_t − S'ᵀ k_t (delta), v_t      u_t = β_t e_t      S_t = S' + k_t u_tᵀ
//!   r_t = S_tᵀ q_t                  o_t = scale · r_t, or r_t without its last element, divided by it (normalised, v_t ends in 1)
//! ```
//! Queries and keys are those after the feature map.

use regard_core::{Element, Feature, LinearInputs, LinearShape, UpdateRule};

use super::{add, dot};
use crate::array::Array;

mod bounds;
mod gradient_bounds;
#[cfg(test)]
mod tests;

pub use bounds::LinearBounds;

/// One linear attention problem, in f64.
#[derive(Clone)]
pub struct Linear {
    /// How the state takes in keys and values.
    pub rule: UpdateRule,
    /// What is done to queries and keys first.
    pub feature: Feature,
    /// Whether outputs are divided by the sum of their weights.
    pub normalised: bool,
    /// Factor of the output; [`Linear::new`] sets `1/√head_dim`.
    pub scale: f64,
    /// Queries `[batch, q_heads, length, head_dim]`.
    pub q: Array,
    /// Keys `[batch, kv_heads, length, head_dim]`.
    pub k: Array,
    /// Values `[batch, kv_heads, length, value_dim]`.
    pub v: Array,
    /// Logarithms of decays, `[batch, kv_heads, length, 1 or head_dim]`.
    pub decay: Option<Array>,
    /// Rates of correction, `[batch, kv_heads, length, 1]`.
    pub beta: Option<Array>,
    /// The state before the first token, `[batch, kv_heads, head_dim, value_dim, or one more where normalised]`.
    pub past: Array,
    /// Tokens whose updates a kernel may sum before it rounds them into a state, 64 by default. It enters the [`LinearBounds`] only.
    pub window: usize,
}

/// What the oracle says about a [`Linear`] problem.
pub struct LinearTruth {
    /// `[batch, q_heads, length, value_dim]`.
    pub out: Array,
    /// The state after the last token, in the shape of the one before the first.
    pub state: Array,
}

/// Gradients of `Σ dO · out + Σ dS · state`, each in the shape of its argument.
pub struct LinearGradients {
    /// By the queries.
    pub dq: Array,
    /// By the keys.
    pub dk: Array,
    /// By the values.
    pub dv: Array,
    /// By the logarithms of decays; zeros `[batch, kv_heads, length, 1]` without them.
    pub ddecay: Array,
    /// By the rates of correction, `[batch, kv_heads, length, 1]`.
    pub dbeta: Array,
    /// By the state before the first token.
    pub dpast: Array,
}

/// The recurrence of one KV head. States are `[d, w]`, row after row.
struct Walk {
    k: Vec<Vec<f64>>,
    v: Vec<Vec<f64>>,
    /// Decays of each element of the key.
    alpha: Vec<Vec<f64>>,
    beta: Vec<f64>,
    e: Vec<Vec<f64>>,
    u: Vec<Vec<f64>>,
    /// `S_{−1}`, the past, to the last.
    states: Vec<Vec<f64>>,
}

/// The recurrence of the gradients of one KV head, and its gradients.
struct Adjoint {
    /// `dS_t`, with what the output of `t` adds.
    states: Vec<Vec<f64>>,
    du: Vec<Vec<f64>>,
    de: Vec<Vec<f64>>,
    /// By queries after the feature map, `[group][length]`.
    dq: Vec<Vec<Vec<f64>>>,
    /// By keys after the feature map.
    dk: Vec<Vec<f64>>,
    dg: Vec<Vec<f64>>,
    past: Vec<f64>,
}

impl Linear {
    /// A problem of the given inputs, without a feature map or a normaliser.
    pub fn new<T: Element>(inputs: &LinearInputs<'_, T>, rule: UpdateRule, normalised: bool) -> Linear {
        let shape = LinearShape::of(inputs, rule, normalised).expect("inputs of one problem");
        let gate = |gate: regard_core::Gate<'_>| {
            let [batch, _, len, dim] = gate.shape();
            let mut row = vec![0.0; dim];
            Array::from_fn([batch, shape.kv_heads, len, dim], |[b, h, l, d]| {
                gate.row_into(b, h, l, &mut row);
                f64::from(row[d])
            })
        };
        Linear {
            rule,
            feature: Feature::Identity,
            normalised,
            scale: 1.0 / (shape.head_dim.max(1) as f64).sqrt(),
            q: Array::from_view(inputs.q),
            k: Array::from_view(inputs.k),
            v: Array::from_view(inputs.v),
            decay: inputs.decay.map(gate),
            beta: inputs.beta.map(gate),
            past: inputs.past.map_or(Array::zeros(shape.state()), Array::from_view),
            window: 64,
        }
    }

    fn group(&self) -> usize {
        self.q.shape()[1] / self.k.shape()[1].max(1)
    }

    /// Sequence and head of every KV head.
    fn heads(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let [batch, heads, ..] = self.k.shape();
        (0..batch).flat_map(move |b| (0..heads).map(move |h| (b, h)))
    }

    /// Elements of a key, of a row of the state, and positions.
    fn sizes(&self) -> (usize, usize, usize) {
        (self.k.shape()[3], self.past.shape()[3], self.k.shape()[2])
    }

    fn features(&self, row: &[f64]) -> Vec<f64> {
        row.iter().map(|&x| if self.feature == Feature::Identity { x } else { x.max(0.0) + x.min(0.0).exp() }).collect()
    }

    /// The derivative of the feature map, element by element.
    fn feature_slope(&self, x: f64) -> f64 {
        if self.feature == Feature::Identity { 1.0 } else { x.min(0.0).exp() }
    }

    fn walk(&self, b: usize, h: usize) -> Walk {
        let (d, w, len) = self.sizes();
        let k: Vec<_> = (0..len).map(|t| self.features(self.k.row([b, h, t]))).collect();
        let one = self.normalised.then_some(1.0);
        let v: Vec<Vec<f64>> = (0..len).map(|t| self.v.row([b, h, t]).iter().copied().chain(one).collect()).collect();
        let alpha: Vec<Vec<f64>> = (0..len).map(|t| self.alpha(b, h, t)).collect();
        let beta: Vec<f64> = (0..len).map(|t| self.beta.as_ref().map_or(1.0, |beta| beta[[b, h, t, 0]])).collect();
        let mut states = vec![(0..d).flat_map(|i| self.past.row([b, h, i]).to_vec()).collect::<Vec<f64>>()];
        let (mut e, mut u) = (Vec::new(), Vec::new());
        for t in 0..len {
            let mut state = decayed(&states[t], &alpha[t], w);
            let mut error = v[t].clone();
            if self.rule.corrects() {
                (0..d).for_each(|i| add(&mut error, -k[t][i], &state[i * w..][..w]));
            }
            let write: Vec<f64> = error.iter().map(|e| beta[t] * e).collect();
            (0..d).for_each(|i| add(&mut state[i * w..][..w], k[t][i], &write));
            states.push(state);
            e.push(error);
            u.push(write);
        }
        Walk { k, v, alpha, beta, e, u, states }
    }

    fn alpha(&self, b: usize, h: usize, t: usize) -> Vec<f64> {
        let d = self.k.shape()[3];
        match &self.decay {
            None => vec![1.0; d],
            Some(decay) if decay.shape()[3] == 1 => vec![decay[[b, h, t, 0]].exp(); d],
            Some(decay) => decay.row([b, h, t]).iter().map(|g| g.exp()).collect(),
        }
    }

    /// `r_t = Sᵀ φ(q)`
    fn raw(&self, state: &[f64], q: &[f64]) -> Vec<f64> {
        let w = self.past.shape()[3];
        let mut raw = vec![0.0; w];
        q.iter().enumerate().for_each(|(i, q)| add(&mut raw, *q, &state[i * w..][..w]));
        raw
    }

    /// `o_t` from `r_t`.
    fn output(&self, mut raw: Vec<f64>) -> Vec<f64> {
        let factor = match self.normalised.then(|| raw.pop().unwrap_or_default()) {
            None => self.scale,
            Some(0.0) => 0.0,
            Some(weight) => 1.0 / weight,
        };
        raw.iter().map(|r| r * factor).collect()
    }

    /// The answer, by the recurrence.
    pub fn forward(&self) -> LinearTruth {
        let [batch, heads, len, _] = self.q.shape();
        let mut out = Array::zeros([batch, heads, len, self.v.shape()[3]]);
        let mut state = self.past.clone();
        for (b, h) in self.heads() {
            let walk = self.walk(b, h);
            let (d, w, _) = self.sizes();
            (0..d).for_each(|i| state.row_mut([b, h, i]).copy_from_slice(&walk.states[len][i * w..][..w]));
            for g in h * self.group()..(h + 1) * self.group() {
                for t in 0..len {
                    let row = self.output(self.raw(&walk.states[t + 1], &self.features(self.q.row([b, g, t]))));
                    out.row_mut([b, g, t]).copy_from_slice(&row);
                }
            }
        }
        LinearTruth { out, state }
    }

    /// One output, as a sum over pairs of positions, without a state: from the query back through every token,
    ///
    /// ```text
    ///   x = q_t;   for i = t, …, 0:   r += (x·k_i) β_i v_i,   x ← diag(e^{g_i}) (x − β_i (x·k_i) k_i)      r += S_{−1}ᵀ x
    /// ```
    /// where only the delta rules take `β_i (x·k_i) k_i` away.
    pub fn quadratic(&self, [b, head, t]: [usize; 3]) -> Vec<f64> {
        let (h, (d, w, _)) = (head / self.group(), self.sizes());
        let mut x = self.features(self.q.row([b, head, t]));
        let mut raw = vec![0.0; w];
        for i in (0..=t).rev() {
            let k = self.features(self.k.row([b, h, i]));
            let weight = dot(&x, &k) * self.beta.as_ref().map_or(1.0, |beta| beta[[b, h, i, 0]]);
            add(&mut raw, weight, self.v.row([b, h, i]));
            if self.normalised {
                raw[w - 1] += weight;
            }
            if self.rule.corrects() {
                add(&mut x, -weight, &k);
            }
            x.iter_mut().zip(self.alpha(b, h, i)).for_each(|(x, alpha)| *x *= alpha);
        }
        (0..d).for_each(|i| add(&mut raw, x[i], self.past.row([b, h, i])));
        self.output(raw)
    }

    /// The gradient of `r_t` from that of the output.
    fn d_raw(&self, raw: &[f64], d_out: &[f64]) -> Vec<f64> {
        if !self.normalised {
            return d_out.iter().map(|x| self.scale * x).collect();
        }
        let (weight, out) = (raw[raw.len() - 1], self.output(raw.to_vec()));
        let share = if weight == 0.0 { 0.0 } else { 1.0 / weight };
        d_out.iter().map(|x| share * x).chain([-share * dot(d_out, &out)]).collect()
    }

    fn adjoint(&self, walk: &Walk, (b, h): (usize, usize), d_out: &Array, d_state: &Array) -> Adjoint {
        let (d, w, len) = self.sizes();
        let zeros = |n: usize| vec![vec![0.0; n]; len];
        let (mut du, mut de, mut dk, mut dg) = (zeros(w), zeros(w), zeros(d), zeros(d));
        let (mut states, mut dq) = (zeros(0), vec![zeros(d); self.group()]);
        let mut ds: Vec<f64> = (0..d).flat_map(|i| d_state.row([b, h, i]).to_vec()).collect();
        for t in (0..len).rev() {
            for (g, dq) in dq.iter_mut().enumerate() {
                let head = h * self.group() + g;
                let q = self.features(self.q.row([b, head, t]));
                let d_raw = self.d_raw(&self.raw(&walk.states[t + 1], &q), d_out.row([b, head, t]));
                for i in 0..d {
                    dq[t][i] = dot(&walk.states[t + 1][i * w..][..w], &d_raw);
                    add(&mut ds[i * w..][..w], q[i], &d_raw);
                }
            }
            states[t] = ds.clone();
            let before = decayed(&walk.states[t], &walk.alpha[t], w);
            for i in 0..d {
                add(&mut du[t], walk.k[t][i], &ds[i * w..][..w]);
                dk[t][i] = dot(&ds[i * w..][..w], &walk.u[t]);
            }
            de[t] = du[t].iter().map(|x| walk.beta[t] * x).collect();
            for i in 0..d {
                if self.rule.corrects() {
                    dk[t][i] -= dot(&before[i * w..][..w], &de[t]);
                    add(&mut ds[i * w..][..w], -walk.k[t][i], &de[t]);
                }
                dg[t][i] = dot(&ds[i * w..][..w], &before[i * w..][..w]);
            }
            ds = decayed(&ds, &walk.alpha[t], w);
        }
        Adjoint { states, du, de, dq, dk, dg, past: ds }
    }

    /// Gradients of `Σ d_out · out + Σ d_state · state`.
    pub fn backward(&self, d_out: &Array, d_state: &Array) -> LinearGradients {
        let [batch, heads, len, d] = self.k.shape();
        let gates = [batch, heads, len, self.decay.as_ref().map_or(1, |decay| decay.shape()[3])];
        let (dq, dk, dv) = (Array::zeros(self.q.shape()), Array::zeros(self.k.shape()), Array::zeros(self.v.shape()));
        let (ddecay, dbeta) = (Array::zeros(gates), Array::zeros([batch, heads, len, 1]));
        let mut all = LinearGradients { dq, dk, dv, ddecay, dbeta, dpast: Array::zeros(self.past.shape()) };
        let w = self.past.shape()[3];
        for (b, h) in self.heads() {
            let walk = self.walk(b, h);
            let adjoint = self.adjoint(&walk, (b, h), d_out, d_state);
            for t in 0..len {
                let dv = if self.rule.corrects() { &adjoint.de[t] } else { &adjoint.du[t] };
                all.dv.row_mut([b, h, t]).copy_from_slice(&dv[..self.v.shape()[3]]);
                all.dbeta[[b, h, t, 0]] = dot(&adjoint.du[t], &walk.e[t]);
                for i in 0..d {
                    all.dk[[b, h, t, i]] = adjoint.dk[t][i] * self.feature_slope(self.k[[b, h, t, i]]);
                    all.ddecay[[b, h, t, i.min(gates[3] - 1)]] += adjoint.dg[t][i];
                    for (g, dq) in (h * self.group()..).zip(&adjoint.dq) {
                        all.dq[[b, g, t, i]] = dq[t][i] * self.feature_slope(self.q[[b, g, t, i]]);
                    }
                }
            }
            (0..d).for_each(|i| all.dpast.row_mut([b, h, i]).copy_from_slice(&adjoint.past[i * w..][..w]));
        }
        all
    }
}

/// `diag(alpha) · state`, rows of `w`.
fn decayed(state: &[f64], alpha: &[f64], w: usize) -> Vec<f64> {
    state.iter().enumerate().map(|(i, s)| s * alpha[i / w.max(1)]).collect()
}
