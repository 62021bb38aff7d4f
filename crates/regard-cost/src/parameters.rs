//! Parameters by part.

use serde::Serialize;

use crate::Count;
use crate::shape::{FeedForward, Matrix, Output, Shape};

/// How many numbers a model has learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Parameters {
    /// The table of tokens, and that of token types.
    pub embedding: Count,
    /// The table of learned positions.
    pub positions: Count,
    /// Projections of queries, keys, values and their output, with biases, and sinks.
    pub attention: Count,
    /// Feed-forward layers: all experts.
    pub feed_forward: Count,
    /// What chooses experts.
    pub router: Count,
    /// All normalisations.
    pub norms: Count,
    /// The output projection where it is not the embedding, or the pooler.
    pub head: Count,
    /// All of these.
    pub total: Count,
    /// Those that a token uses: all, but for the experts that it is not sent to.
    pub active: Count,
}

impl Shape {
    /// Parameters by part: the elements of the tensors in a checkpoint, a tied one counted once.
    pub fn parameters(&self) -> Parameters {
        let hidden = self.hidden_size;
        let each = |of: &dyn Fn(&FeedForward) -> Count| self.layers.iter().map(|layer| of(&layer.feed_forward)).sum::<Count>();
        let layers = self.layers.len() as u64;
        let embedding = Count::from(self.vocab_size + self.token_types) * hidden;
        let positions = Count::from(self.learned_positions) * hidden;
        let sinks = if self.attention.sinks { self.attention.query_heads } else { 0 };
        let attention = (all(&self.attention.matrices(hidden)) + Count::from(sinks)) * layers;
        let feed_forward = each(&|ff| all(&ff.matrices(hidden)) * ff.copies().0);
        let used = each(&|ff| all(&ff.matrices(hidden)) * ff.copies().1);
        let router = each(&|ff| ff.router(hidden).map_or(Count::ZERO, Matrix::parameters));
        let norms = self.norms(layers);
        let head = if self.output == Output::Tied { Count::ZERO } else { self.head().parameters() };
        let others = embedding + positions + attention + router + norms + head;
        let [total, active] = [feed_forward, used].map(|feed_forward| others + feed_forward);
        Parameters { embedding, positions, attention, feed_forward, router, norms, head, total, active }
    }

    /// Those of the layers and the one before or after them; the heads of queries and keys, or the vectors that they are made of, have
    /// some without a bias.
    fn norms(&self, layers: u64) -> Count {
        let heads = if self.attention.qk_norm { 2 * self.attention.head_dim } else { 0 };
        let vectors = self.attention.latent.map_or(0, |latent| latent.kv_rank + latent.query_rank.unwrap_or(0));
        let stream = Count::from(self.norms.per_layer) * layers + Count::from(1);
        stream * self.norms.vectors * self.hidden_size + Count::from(heads + vectors) * layers
    }

    /// The product after the last layer.
    pub(crate) fn head(&self) -> Matrix {
        let (inputs, outputs) = (self.hidden_size, self.vocab_size);
        match self.output {
            Output::Tied | Output::Own => Matrix { inputs, outputs, bias: false },
            Output::Pooler => Matrix { inputs, outputs: inputs, bias: true },
        }
    }
}

fn all(matrices: &[Matrix]) -> Count {
    matrices.iter().map(|matrix| matrix.parameters()).sum()
}
