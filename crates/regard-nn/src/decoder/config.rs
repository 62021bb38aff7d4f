//! The facts of a decoder, in one vocabulary for all families.

use regard::{Rope, RopeStyle};

use crate::cache::Heads;
use crate::{Result, RopeParameters};

/// The shape of a decoder-only transformer, as [`DecoderConfig::from_json`] reads it from a Hugging Face `config.json`. Fields that
/// have a name there carry it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DecoderConfig {
    /// The family, as `config.json` names it.
    pub model_type: String,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads, a divisor of the query heads.
    pub num_key_value_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
    /// The longest context, in tokens.
    pub max_position_embeddings: usize,
    /// What differs from block to block.
    pub layers: Vec<LayerConfig>,
    /// The rotary embeddings that blocks choose from.
    pub ropes: Vec<RopeParameters>,
    /// Whether every position has a learned vector that is added to its token's.
    pub learned_positions: bool,
    /// What the normalisations compute, and what they add to the mean square or the variance.
    pub norm: NormKind,
    /// See [`DecoderConfig::norm`].
    pub norm_eps: f64,
    /// Whether the outputs of both halves of a block are normalised too, before they are added.
    pub norms_after: bool,
    /// Whether attention and feed-forward layer read the same input, and are added together.
    pub parallel_residual: bool,
    /// Whether the heads of queries and keys are normalised before they turn.
    pub qk_norm: bool,
    /// What `q·k` is multiplied by.
    pub attention_scale: f32,
    /// `cap · tanh(score / cap)` of attention scores.
    pub attention_softcap: Option<f32>,
    /// Whether every query head has a learned logit that joins its softmax.
    pub sinks: bool,
    /// The feed-forward layer.
    pub feed_forward: FeedForward,
    /// What the embedding is multiplied by.
    pub embedding_scale: f32,
    /// `cap · tanh(logit / cap)` of the logits.
    pub logit_softcap: Option<f32>,
    /// Whether the output projection is the embedding.
    pub tie_word_embeddings: bool,
    /// Which projections have biases.
    pub biases: Biases,
    /// The token a text begins with.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a text.
    pub eos_token_id: Vec<u32>,
}

/// What differs from block to block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerConfig {
    /// Keys that a query sees, its own among them; all before it where there is none.
    pub window: Option<usize>,
    /// The rotary embedding, of [`DecoderConfig::ropes`].
    pub rope: Option<usize>,
}

/// What a normalisation computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `x / √(mean(x²) + ε) · w`
    Rms,
    /// `x / √(mean(x²) + ε) · (1 + w)`
    RmsPlusOne,
    /// `(x − mean(x)) / √(var(x) + ε) · w + b`
    Layer,
}

/// A feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeedForward {
    /// Its width.
    pub intermediate_size: usize,
    /// Its nonlinearity.
    pub activation: Activation,
    /// Whether a second projection is multiplied by the activated one.
    pub gated: bool,
    /// Several of them, of which a token uses some.
    pub experts: Option<Experts>,
}

/// A router's experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// How many there are.
    pub count: usize,
    /// How many a token uses.
    pub per_token: usize,
}

/// A nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `x · σ(x)`
    Silu,
    /// `x · Φ(x)`
    Gelu,
    /// [`Activation::Gelu`] by a hyperbolic tangent
    GeluTanh,
    /// `max(x, 0)`
    Relu,
    /// `min(g, limit) · σ(1.702 · g) · (clamp(u, ±limit) + 1)` of a gate `g` and its partner `u`.
    ///
    /// Source: OpenAI 2025, "gpt-oss-120b & gpt-oss-20b Model Card", §2.1.
    Clamped {
        /// The largest value on either side.
        limit: f32,
    },
}

/// Which projections have biases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Biases {
    /// Of queries, keys and values.
    pub qkv: bool,
    /// Of the output of attention.
    pub out: bool,
    /// Of the feed-forward layer.
    pub feed_forward: bool,
}

impl DecoderConfig {
    pub(crate) fn heads(&self) -> Heads {
        Heads { query: self.num_attention_heads, kv: self.num_key_value_heads, dim: self.head_dim }
    }

    /// The rotary embeddings of a text of at most `length` tokens.
    pub(crate) fn rotary(&self, length: usize) -> Result<Vec<Rope>> {
        self.ropes.iter().map(|rope| rope.rope(self.head_dim, RopeStyle::HalfSplit, length)).collect()
    }
}
