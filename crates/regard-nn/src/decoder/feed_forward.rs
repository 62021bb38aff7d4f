//! The feed-forward layer: one, or experts of which a router chooses some for each token.

use regard::{Lines, Threads};

use super::config::{Activation, Experts};
use crate::Result;
use crate::ops::simd::vectorised;
use crate::parts::Matrix;

/// `down(f(up x))`, or `down(f(gate x) · up x)`.
#[derive(Debug)]
pub(crate) struct Dense {
    pub(crate) gate: Option<Matrix>,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
    pub(crate) activation: Activation,
}

/// A feed-forward layer.
#[derive(Debug)]
pub(super) enum FeedForward {
    Dense(Dense),
    Mixture { router: Matrix, experts: Vec<Dense>, shape: Experts },
}

impl Dense {
    fn bytes(&self) -> usize {
        self.gate.iter().chain([&self.up, &self.down]).map(Matrix::bytes).sum()
    }

    /// Rows `[n, hidden]` to `[n, hidden]`.
    pub(crate) fn apply(&self, x: &[f32], threads: Threads) -> Result<Lines<f32>> {
        let mut y = Lines::zeros(self.up.count(x) * self.down.outputs());
        self.write(x, &mut Lines::default(), &mut y, threads)?;
        Ok(y)
    }

    /// As [`Dense::apply`], through a buffer.
    pub(crate) fn write(&self, x: &[f32], inner: &mut Lines<f32>, y: &mut [f32], threads: Threads) -> Result<()> {
        let (inner, f) = (inner.room(self.up.count(x) * self.up.outputs()), self.activation);
        match &self.gate {
            Some(gate) => Matrix::combine([gate, &self.up], x, |[gate, up]| vectorised(|| f.gate(gate, up)), inner, threads)?,
            None => Matrix::combine([&self.up], x, |[x]| vectorised(|| f.apply(x)), inner, threads)?,
        }
        self.down.write(inner, y, threads)
    }
}

impl FeedForward {
    /// Bytes of the weights that a token reads.
    pub(super) fn bytes(&self) -> usize {
        match self {
            FeedForward::Dense(dense) => dense.bytes(),
            FeedForward::Mixture { router, experts, shape } => {
                router.bytes() + experts.iter().take(shape.per_token).map(Dense::bytes).sum::<usize>()
            }
        }
    }

    /// Rows `[n, hidden]` to `[n, hidden]`, through a buffer.
    pub(super) fn write(&self, x: &[f32], inner: &mut Lines<f32>, y: &mut [f32], threads: Threads) -> Result<()> {
        match self {
            FeedForward::Dense(dense) => dense.write(x, inner, y, threads),
            FeedForward::Mixture { router, experts, shape } => mixture(router, experts, *shape, x, y, threads),
        }
    }
}

/// Every token's experts, weighted: `y = Σ softmax(chosen logits) · expert(x)`, in order of the experts.
///
/// Source: Shazeer et al. 2017, "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer", §2.1.
fn mixture(router: &Matrix, experts: &[Dense], shape: Experts, x: &[f32], y: &mut [f32], threads: Threads) -> Result<()> {
    let rows = router.count(x);
    let (hidden, mut logits) = (x.len() / rows, vec![0.0; rows * shape.count]);
    router.write(x, &mut logits, threads)?;
    y.fill(0.0);
    let mut users: Vec<Vec<(usize, f32)>> = vec![Vec::new(); shape.count];
    for (row, logits) in logits.chunks(shape.count).enumerate() {
        let mut order: Vec<usize> = (0..shape.count).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        order.truncate(shape.per_token);
        let top = logits[order[0]];
        let total: f32 = order.iter().map(|&expert| (logits[expert] - top).exp()).sum();
        order.iter().for_each(|&expert| users[expert].push((row, (logits[expert] - top).exp() / total)));
    }
    for (expert, users) in experts.iter().zip(&users).filter(|(_, users)| !users.is_empty()) {
        let rows: Vec<f32> = users.iter().flat_map(|(row, _)| &x[row * hidden..][..hidden]).copied().collect();
        for (from, (row, weight)) in expert.apply(&rows, threads)?.chunks(hidden).zip(users) {
            y[row * hidden..][..hidden].iter_mut().zip(from).for_each(|(y, from)| *y += weight * from);
        }
    }
    Ok(())
}
