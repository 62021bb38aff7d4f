//! Memory: of scores, of keys and values, of running a model and of training it.

use serde::Serialize;

use crate::pass::{Pass, Work};
use crate::shape::{FeedForward, Shape};
use crate::{Count, Dtype, Question};

/// Bytes of the matrices of scores that a fused kernel never writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Scores {
    /// One matrix: `n²` numbers.
    pub matrix: Count,
    /// One for each layer, as if it had one head and there were one sequence.
    pub matrix_of_each_layer: Count,
    /// Those of a layer: of all its query heads, for all sequences. What is there at once when a model runs without a fused kernel.
    pub layer: Count,
    /// Those of all layers: what is kept when it is trained without one.
    pub all_layers: Count,
    /// What all layers write and read of them then: scores, and probabilities, each once.
    pub traffic: Count,
    /// What a fused kernel writes instead, of a layer: the log-sum-exp of each row, in f32.
    pub fused: Count,
}

/// Bytes of the keys and values that decoding goes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KvCache {
    /// Those of one token, in all layers.
    pub per_token: Count,
    /// The same, had every query head keys and values of its own.
    pub per_token_of_all_heads: Count,
    /// Those of all sequences; a layer with a window keeps no more tokens than that.
    pub total: Count,
    /// The same, if all tokens are kept in all layers.
    pub without_windows: Count,
}

/// Bytes that a model needs to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Memory {
    /// All weights, every expert among them.
    pub weights: Count,
    /// See [`KvCache::total`].
    pub kv_cache: Count,
    /// What is alive at the widest place of a prefill of all tokens at once, and the logits in f32.
    pub activations: Count,
    /// All of these, with a fused kernel.
    pub total: Count,
    /// And with the scores of a layer.
    pub materialised: Count,
}

/// Bytes and work of a training step with AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Training {
    /// The weights.
    pub weights: Count,
    /// A gradient for each.
    pub gradients: Count,
    /// An f32 copy of each, where they have 16 bits.
    pub master_weights: Count,
    /// Adam's two moments of each, in f32.
    pub moments: Count,
    /// What the backward pass goes back to, with a fused kernel and nothing computed twice but attention.
    pub activations: Count,
    /// What it goes back to beside them without one: the probabilities of all layers. They are activations: they have no moments.
    pub attention_matrices: Count,
    /// All of these but the last.
    pub total: Count,
    /// All of these.
    pub materialised: Count,
    /// The forward pass, with the logits of all tokens.
    pub forward: Pass,
    /// The backward pass.
    pub backward: Pass,
    /// What is moved to update the weights.
    pub update: Work,
}

impl Shape {
    pub(crate) fn scores(&self, ask: &Question) -> Scores {
        let matrix = Count::from(ask.length) * ask.length * ask.dtype.bytes();
        let heads = Count::from(ask.batch) * self.attention.query_heads;
        let layers = self.layers.len() as u64;
        let all_layers = matrix * heads * layers;
        Scores {
            matrix,
            matrix_of_each_layer: matrix * layers,
            layer: matrix * heads,
            all_layers,
            traffic: all_layers * 4,
            fused: heads * ask.length * 4,
        }
    }

    /// `2·heads·dim` elements for each layer and token where keys and values are of one size, or the latent vector with its rotary key.
    pub(crate) fn kv_cache(&self, ask: &Question) -> Option<KvCache> {
        let (layers, element) = (self.layers.len() as u64, ask.dtype.bytes());
        let of = |elements: u64| Count::from(elements) * element;
        let (one, per_token) = (of(self.attention.cached()), of(self.attention.cached()) * layers);
        let kept: Count = self.layers.iter().map(|layer| Count::from(layer.keys(ask.length))).sum();
        self.causal.then(|| KvCache {
            per_token,
            per_token_of_all_heads: of(self.attention.cached_by_all_heads()) * layers,
            total: one * kept * ask.batch,
            without_windows: per_token * ask.length * ask.batch,
        })
    }

    pub(crate) fn memory(&self, ask: &Question) -> Memory {
        let weights = self.parameters().total * ask.dtype.bytes();
        let kv_cache = self.kv_cache(ask).map_or(Count::ZERO, |cache| cache.total);
        let activations = self.running(ask) * ask.batch;
        let total = weights + kv_cache + activations;
        Memory { weights, kv_cache, activations, total, materialised: total + self.scores(ask).layer }
    }

    /// The activations of one sequence that are alive together: the stream, its normalised copy, and the inner values of a half of a
    /// layer, the larger.
    fn running(&self, ask: &Question) -> Count {
        let a = &self.attention;
        let kv_heads = if a.latent.is_some() { a.query_heads } else { a.kv_heads };
        let attention = Count::from(a.query_heads + kv_heads) * (a.head_dim + a.value_dim);
        let inner = |ff: &FeedForward| Count::from(ff.intermediate_size) * (1 + u64::from(ff.gated)) * ff.copies().1;
        let widest = self.layers.iter().map(|layer| inner(&layer.feed_forward)).fold(attention, Count::max);
        let head = self.head().outputs;
        (Count::from(2 * self.hidden_size) + widest) * ask.length * ask.dtype.bytes() + Count::from(head) * 4
    }

    pub(crate) fn training(&self, ask: &Question) -> Training {
        let parameters = self.parameters().total;
        let weights = parameters * ask.dtype.bytes();
        let master_weights = if ask.dtype == Dtype::F32 { Count::ZERO } else { parameters * 4 };
        let moments = parameters * 8;
        let activations = self.kept(ask) * ask.batch;
        let attention_matrices = self.scores(ask).all_layers;
        let total = weights + weights + master_weights + moments + activations;
        // Gradients in; moments and, where there are, master weights in and out; else weights in; weights out.
        let read = if ask.dtype == Dtype::F32 { weights } else { master_weights * 2 };
        let bytes = weights + moments * 2 + read + weights;
        Training {
            weights,
            gradients: weights,
            master_weights,
            moments,
            activations,
            attention_matrices,
            total,
            materialised: total + attention_matrices,
            forward: self.forward(ask, ask.length),
            backward: self.backward(ask),
            update: Work { bytes, ..Work::default() },
        }
    }

    /// The activations of one sequence that its backward pass reads, without dropout.
    ///
    /// ```text
    ///   of a layer and a token   inputs of its normalisations, of its matrices and of its activation function; Q, K, V, O and the
    ///                            log-sum-exp
    ///   GPT in 16 bits           32·s·b·h, and 2·a·s²·b of probabilities without a fused kernel
    /// ```
    /// Source: Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", §4.1: 34·s·b·h + 5·a·s²·b, of
    /// which 2·s·b·h + 3·a·s²·b are for dropout.
    fn kept(&self, ask: &Question) -> Count {
        let (hidden, a, layers) = (self.hidden_size, &self.attention, self.layers.len() as u64);
        let kv_heads = if a.latent.is_some() { a.query_heads } else { a.kv_heads };
        let normalised = if a.qk_norm { (a.query_heads + a.kv_heads) * a.head_dim } else { 0 };
        // Before and behind their normalisations; the rotary key has none.
        let vectors = a.latent.map_or(0, |latent| 2 * (latent.kv_rank + latent.query_rank.unwrap_or(0)) + latent.rope_dim);
        let attention = Count::from(a.query_heads + kv_heads) * (a.head_dim + a.value_dim) + Count::from(normalised + vectors);
        let stream = Count::from(self.norms.per_layer + 2) * hidden;
        let inner: Count = self.layers.iter().map(|layer| layer.feed_forward.kept()).sum();
        let ends = Count::from(2 * hidden); // into and out of the normalisation outside the layers
        let elements = (attention + stream) * layers + inner + ends;
        let logits = if self.causal { Count::from(self.vocab_size) * 4 } else { Count::ZERO };
        let lse = Count::from(a.query_heads) * 4 * layers;
        (elements * ask.dtype.bytes() + lse + logits) * ask.length
    }
}

impl FeedForward {
    /// Elements of a token inside the layer: those before the activation function, and their product behind it; the router's logits.
    fn kept(&self) -> Count {
        let router = self.experts.map_or(0, |experts| experts.count);
        Count::from(self.intermediate_size) * (2 + u64::from(self.gated)) * self.copies().1 + Count::from(router)
    }
}
