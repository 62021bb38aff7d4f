//! The shape of a transformer: what decides all that it costs.

use serde::{Serialize, Serializer};

use crate::Count;

/// A transformer, as far as it costs something. Sizes are below 2³⁰.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Shape {
    /// The preset, else the family as `config.json` names it.
    pub name: String,
    /// Rows of the embedding.
    pub vocab_size: u64,
    /// Width of the residual stream.
    pub hidden_size: u64,
    /// The longest text that it was made for, in tokens.
    pub max_position_embeddings: u64,
    /// Rows of the table of learned positions; 0 where there is none.
    pub learned_positions: u64,
    /// Rows of the table of token types; 0 where there is none.
    pub token_types: u64,
    /// Attention, the same in all layers but for its window.
    pub attention: Attention,
    /// What differs from layer to layer. Serialised, each kind of layer is there once, with a `count`.
    #[serde(serialize_with = "kinds")]
    pub layers: Vec<Layer>,
    /// The normalisations.
    pub norms: Norms,
    /// What comes after the last layer.
    pub output: Output,
    /// Whether a token sees those before it only.
    pub causal: bool,
}

/// The attention of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Attention {
    /// Query heads.
    pub query_heads: u64,
    /// Key and value heads, a divisor of the query heads.
    pub kv_heads: u64,
    /// Elements of a query and of a key.
    pub head_dim: u64,
    /// Elements of a value.
    pub value_dim: u64,
    /// Where keys and values are made of a latent vector.
    pub latent: Option<Latent>,
    /// Whether the heads of queries and keys are normalised.
    pub qk_norm: bool,
    /// Whether every query head has a learned logit that joins its softmax.
    pub sinks: bool,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the output has one.
    pub out_bias: bool,
}

/// Multi-head latent attention: a layer remembers, of a token, one vector for all heads and one rotary key.
///
/// Source: DeepSeek-AI 2024, "DeepSeek-V2", §2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Latent {
    /// Elements of the vector.
    pub kv_rank: u64,
    /// Elements of the rotary key, which are the last of a head's.
    pub rope_dim: u64,
    /// Elements of the vector that queries are made of, where there is one.
    pub query_rank: Option<u64>,
}

/// What differs from layer to layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Layer {
    /// Keys that a query sees, its own among them; all where there is none.
    pub window: Option<u64>,
    /// The feed-forward layer.
    pub feed_forward: FeedForward,
}

/// A feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FeedForward {
    /// Its width, or that of an expert.
    pub intermediate_size: u64,
    /// Whether a second projection is multiplied by the activated one.
    pub gated: bool,
    /// Whether its matrices have biases.
    pub bias: bool,
    /// Several of them, of which a token uses some.
    pub experts: Option<Experts>,
}

/// A router's experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Experts {
    /// How many there are.
    pub count: u64,
    /// How many a token uses.
    pub per_token: u64,
    /// Those that every token uses beside them.
    pub shared: u64,
    /// Whether the router has a bias.
    pub router_bias: bool,
}

/// The normalisations of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Norms {
    /// Vectors of parameters of each: a weight, and perhaps a bias.
    pub vectors: u64,
    /// How many there are in a layer.
    pub per_layer: u64,
}

/// What comes after the last layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Output {
    /// Logits by the embedding.
    Tied,
    /// Logits by a matrix of its own.
    Own,
    /// A square layer with a bias, of the first token: BERT's pooler.
    Pooler,
}

/// Layers, each kind once.
fn kinds<S: Serializer>(layers: &[Layer], to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Kind {
        count: u64,
        #[serde(flatten)]
        layer: Layer,
    }
    let mut kinds: Vec<Kind> = Vec::new();
    for &layer in layers {
        match kinds.iter_mut().find(|kind| kind.layer == layer) {
            Some(kind) => kind.count += 1,
            None => kinds.push(Kind { count: 1, layer }),
        }
    }
    kinds.serialize(to)
}

/// A matrix that activations are multiplied by.
#[derive(Clone, Copy)]
pub(crate) struct Matrix {
    pub(crate) inputs: u64,
    pub(crate) outputs: u64,
    pub(crate) bias: bool,
}

impl Matrix {
    /// The elements of the product's one factor, without the bias.
    pub(crate) fn weights(self) -> Count {
        Count::from(self.inputs) * self.outputs
    }

    pub(crate) fn parameters(self) -> Count {
        self.weights() + if self.bias { Count::from(self.outputs) } else { Count::ZERO }
    }
}

impl Attention {
    /// The matrices around it, in a stream of some width.
    pub(crate) fn matrices(&self, hidden: u64) -> Vec<Matrix> {
        let (heads, kv_heads) = (self.query_heads, self.kv_heads);
        let matrix = |inputs, outputs| Matrix { inputs, outputs, bias: self.qkv_bias };
        let mut all = match self.latent {
            None => vec![
                matrix(hidden, heads * self.head_dim),
                matrix(hidden, kv_heads * self.head_dim),
                matrix(hidden, kv_heads * self.value_dim),
            ],
            Some(latent) => {
                let queries = match latent.query_rank {
                    Some(rank) => vec![matrix(hidden, rank), matrix(rank, heads * self.head_dim)],
                    None => vec![matrix(hidden, heads * self.head_dim)],
                };
                // One product makes the vector and the rotary key, and one the other part of all keys, and the values.
                let made = matrix(latent.kv_rank, heads * (self.head_dim - latent.rope_dim + self.value_dim));
                [queries, vec![matrix(hidden, latent.kv_rank + latent.rope_dim), made]].concat()
            }
        };
        all.push(Matrix { inputs: heads * self.value_dim, outputs: hidden, bias: self.out_bias });
        all
    }

    /// Elements that a layer remembers of a token.
    pub(crate) fn cached(&self) -> u64 {
        match self.latent {
            Some(latent) => latent.kv_rank + latent.rope_dim,
            None => self.kv_heads * (self.head_dim + self.value_dim),
        }
    }

    /// Elements that it would remember, had every query head keys and values of its own.
    pub(crate) fn cached_by_all_heads(&self) -> u64 {
        self.query_heads * (self.head_dim + self.value_dim)
    }
}

impl FeedForward {
    /// The matrices of the layer, or of one expert.
    pub(crate) fn matrices(&self, hidden: u64) -> Vec<Matrix> {
        let (inner, bias) = (self.intermediate_size, self.bias);
        let mut all = vec![Matrix { inputs: hidden, outputs: inner, bias }; 1 + usize::from(self.gated)];
        all.push(Matrix { inputs: inner, outputs: hidden, bias });
        all
    }

    /// What chooses the experts.
    pub(crate) fn router(&self, hidden: u64) -> Option<Matrix> {
        self.experts.map(|experts| Matrix { inputs: hidden, outputs: experts.count, bias: experts.router_bias })
    }

    /// Experts, or the layer itself: how many there are, and how many a token uses.
    pub(crate) fn copies(&self) -> (u64, u64) {
        self.experts.map_or((1, 1), |experts| (experts.count + experts.shared, experts.per_token + experts.shared))
    }
}

impl Layer {
    /// The (query, key) pairs that a head sees in a text of `n` tokens.
    ///
    /// ```text
    ///   n²                       where all see all
    ///   Σ i = n (n + 1) / 2      where a token sees those before it: the "half" of papers, and its diagonal
    ///   Σ min(i, w)              where it sees w of them, itself among them
    /// ```
    pub(crate) fn pairs(&self, n: u64, causal: bool) -> Count {
        if !causal {
            return Count::from(n) * n;
        }
        let seen = self.keys(n);
        // One of two neighbours is even.
        let (half, whole) = if seen.is_multiple_of(2) { (seen / 2, seen + 1) } else { (seen.div_ceil(2), seen) };
        Count::from(half) * whole + Count::from(n - seen) * seen
    }

    /// The keys that the last of `n` tokens sees.
    pub(crate) fn keys(&self, n: u64) -> u64 {
        self.window.map_or(n, |window| window.min(n))
    }
}
