//! Operations and bytes of one pass through a model, by part.

use std::ops::Add;

use serde::Serialize;

use crate::shape::{Attention, Layer, Matrix, Shape};
use crate::{Count, Question};

/// Work of some part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Work {
    /// Floating-point operations, a multiply-add counting two.
    pub flops: Count,
    /// Exponentials among them.
    pub exps: Count,
    /// Bytes that must be moved at least: every weight once, and every factor and result of a product once.
    pub bytes: Count,
}

impl Add for Work {
    type Output = Work;

    fn add(self, other: Work) -> Work {
        Work { flops: self.flops + other.flops, exps: self.exps + other.exps, bytes: self.bytes + other.bytes }
    }
}

impl Work {
    fn times(self, n: u64) -> Work {
        Work { flops: self.flops * n, exps: self.exps * n, bytes: self.bytes * n }
    }
}

/// One pass through all layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pass {
    /// The projections of queries, keys, values and their output.
    pub projections: Work,
    /// Attention itself, fused: scores, softmax and the sum of values.
    pub attention: Work,
    /// Feed-forward layers and what chooses their experts.
    pub feed_forward: Work,
    /// The embedding, and what comes after the last layer.
    pub output: Work,
    /// All of these.
    pub total: Work,
}

impl Pass {
    pub(crate) fn new(projections: Work, attention: Work, feed_forward: Work, output: Work) -> Pass {
        Pass { projections, attention, feed_forward, output, total: projections + attention + feed_forward + output }
    }

    pub(crate) fn parts(&self) -> [Work; 4] {
        [self.projections, self.attention, self.feed_forward, self.output]
    }
}

/// Attention to some pairs, of one head.
///
/// ```text
///   forward     S = Q Kᵀ, O = P V:  2·(D + Dv)       softmax: 2            n² pairs, D = Dv:  4n²D + 2n²
///   backward    S = Q Kᵀ again, dP = dO Vᵀ, dV = Pᵀ dO, dQ = dS K, dK = dSᵀ Q:  2·(3D + 2Dv)
///               softmax: 5, for P = exp(S − lse) and dS = P·(dP − δ)·scale                     10n²D + 5n²
/// ```
/// The softmax forward is a subtraction and an exponential; sums and maxima hide in them.
///
/// Source: Dao 2023, "FlashAttention-2", §2.3.1 and §4.1: two products forward, five backward, 2.5 times as many operations.
pub(crate) fn attention_flops(head_dim: u64, value_dim: u64, backward: bool) -> u64 {
    if backward { 2 * (3 * head_dim + 2 * value_dim) + 5 } else { 2 * (head_dim + value_dim) + 2 }
}

impl Shape {
    /// A text read from its beginning: `n` tokens of each sequence, and what comes after the last layer for `written` of them.
    pub(crate) fn forward(&self, ask: &Question, written: u64) -> Pass {
        let (hidden, element) = (self.hidden_size, ask.dtype.bytes());
        let tokens = Count::from(ask.batch) * ask.length;
        let a = &self.attention;
        let layers = self.layers.len() as u64;
        let projections = products(&a.matrices(hidden), tokens, element).times(layers);
        let feed_forward =
            self.layers.iter().map(|layer| self.feed_forward(layer, tokens, element)).fold(Work::default(), Add::add);
        let pairs: Count = self.layers.iter().map(|layer| layer.pairs(ask.length, self.causal)).sum();
        // Prefill makes keys and values of all heads from a latent vector.
        let kv_heads = if a.latent.is_some() { a.query_heads } else { a.kv_heads };
        let moved = Count::from(a.query_heads + kv_heads) * (a.head_dim + a.value_dim) * element;
        let attention = Work {
            flops: pairs * ask.batch * a.query_heads * attention_flops(a.head_dim, a.value_dim, false),
            exps: pairs * ask.batch * a.query_heads,
            bytes: (moved + Count::from(4) * a.query_heads) * tokens * layers, // and the log-sum-exp
        };
        Pass::new(projections, attention, feed_forward, self.ends(tokens, Count::from(ask.batch) * written, element))
    }

    /// One more token of each sequence, which sees `n`, itself among them.
    pub(crate) fn decode(&self, ask: &Question) -> Pass {
        let (hidden, element, batch) = (self.hidden_size, ask.dtype.bytes(), Count::from(ask.batch));
        let (a, layers) = (&self.attention, self.layers.len() as u64);
        let projections = products(&a.matrices(hidden), batch, element).times(layers);
        let feed_forward = self.layers.iter().map(|layer| self.feed_forward(layer, batch, element)).fold(Work::default(), Add::add);
        let keys: Count = self.layers.iter().map(|layer| Count::from(layer.keys(ask.length))).sum();
        let (head_dim, value_dim) = a.decoded();
        let moved = Count::from(a.query_heads) * (head_dim + value_dim) * layers; // queries and outputs
        let attention = Work {
            flops: keys * batch * a.query_heads * attention_flops(head_dim, value_dim, false),
            exps: keys * batch * a.query_heads,
            bytes: (keys * a.cached() + moved) * element * batch,
        };
        Pass::new(projections, attention, feed_forward, self.ends(batch, batch, element))
    }

    /// The backward pass after a forward pass whose logits were all wanted.
    ///
    /// ```text
    ///   products     dX = dY W, dW = dYᵀ X: twice the operations, and W, X and dY in, dX and dW out
    ///   attention    see [`attention_flops`]; Q, K, V, O, dO and the log-sum-exp in, dQ, dK, dV out
    /// ```
    pub(crate) fn backward(&self, ask: &Question) -> Pass {
        let forward = self.forward(ask, ask.length);
        let twice = |work: Work| work.times(2);
        let a = &self.attention;
        let pairs: Count = self.layers.iter().map(|layer| layer.pairs(ask.length, self.causal)).sum();
        let attention = Work {
            flops: pairs * ask.batch * a.query_heads * attention_flops(a.head_dim, a.value_dim, true),
            exps: forward.attention.exps,
            bytes: forward.attention.bytes * 2,
        };
        Pass::new(twice(forward.projections), attention, twice(forward.feed_forward), twice(forward.output))
    }

    /// A feed-forward layer: its weights are those of all experts that some token may use, at most all.
    fn feed_forward(&self, layer: &Layer, tokens: Count, element: u64) -> Work {
        let (hidden, ff) = (self.hidden_size, &layer.feed_forward);
        let read = match ff.experts {
            Some(experts) => (tokens * experts.per_token).min(Count::from(experts.count)) + Count::from(experts.shared),
            None => Count::from(1),
        };
        let all = copies(&ff.matrices(hidden), ff.copies().1, read, tokens, element);
        ff.router(hidden).map_or(all, |router| all + products(&[router], tokens, element))
    }

    /// The rows of the embedding of all tokens, and the last product of those that are `written`.
    fn ends(&self, tokens: Count, written: Count, element: u64) -> Work {
        let rows = tokens * self.hidden_size * 2 * element;
        products(&[self.head()], written, element) + Work { bytes: rows, ..Work::default() }
    }
}

impl Attention {
    /// Elements of a key and of a value as decoding sees them. From a latent vector they are that vector itself: the matrix that would
    /// make keys and values of it is absorbed into queries and outputs, at the same number of operations for a token.
    ///
    /// Source: DeepSeek-AI 2024, "DeepSeek-V2", §2.1.2 and appendix B.
    fn decoded(&self) -> (u64, u64) {
        self.latent.map_or((self.head_dim, self.value_dim), |latent| (latent.kv_rank + latent.rope_dim, latent.kv_rank))
    }
}

/// Rows times matrices: `2·inputs·outputs` operations a row; weights, rows and results moved once. Biases cost nothing beside them.
fn products(matrices: &[Matrix], rows: Count, element: u64) -> Work {
    copies(matrices, 1, Count::from(1), rows, element)
}

/// [`products`] where a row uses several such matrices, and several are read.
fn copies(matrices: &[Matrix], used: u64, read: Count, rows: Count, element: u64) -> Work {
    let one = |matrix: &Matrix| Work {
        flops: matrix.weights() * 2 * used * rows,
        exps: Count::ZERO,
        bytes: (matrix.parameters() * read + Count::from(matrix.inputs + matrix.outputs) * used * rows) * element,
    };
    matrices.iter().map(one).fold(Work::default(), Add::add)
}
