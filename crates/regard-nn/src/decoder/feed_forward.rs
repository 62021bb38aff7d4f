//! The feed-forward layer: one, or experts of which a router chooses some for each token.

use super::config::{Activation, Experts};
use crate::Result;
use crate::parts::Matrix;

/// `down(f(up x))`, or `down(f(gate x) · up x)`.
#[derive(Debug)]
pub(crate) struct Dense {
    /// Gate first, where there is one.
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
    pub(crate) activation: Activation,
    pub(crate) gated: bool,
}

/// A feed-forward layer.
#[derive(Debug)]
pub(super) enum FeedForward {
    Dense(Dense),
    Mixture { router: Matrix, experts: Vec<Dense>, shape: Experts },
}

impl Dense {
    /// Rows `[n, hidden]` to `[n, hidden]`.
    pub(crate) fn apply(&self, x: &[f32]) -> Result<Vec<f32>> {
        let mut inner = self.up.apply(x)?;
        if self.gated {
            return self.down.apply(&self.activation.gate(&inner, self.up.outputs() / 2));
        }
        self.activation.apply(&mut inner);
        self.down.apply(&inner)
    }
}

impl FeedForward {
    /// Rows `[n, hidden]` to `[n, hidden]`.
    pub(super) fn apply(&self, x: &[f32], hidden: usize) -> Result<Vec<f32>> {
        match self {
            FeedForward::Dense(dense) => dense.apply(x),
            FeedForward::Mixture { router, experts, shape } => mixture(router, experts, *shape, x, hidden),
        }
    }
}

/// Every token's experts, weighted: `y = Σ softmax(chosen logits) · expert(x)`, in order of the experts.
///
/// Source: Shazeer et al. 2017, "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer", §2.1.
fn mixture(router: &Matrix, experts: &[Dense], shape: Experts, x: &[f32], hidden: usize) -> Result<Vec<f32>> {
    let logits = router.apply(x)?;
    let mut y = vec![0.0; x.len()];
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
        for (from, (row, weight)) in expert.apply(&rows)?.chunks(hidden).zip(users) {
            y[row * hidden..][..hidden].iter_mut().zip(from).for_each(|(y, from)| *y += weight * from);
        }
    }
    Ok(y)
}
