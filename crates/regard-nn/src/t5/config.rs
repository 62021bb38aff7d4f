//! The facts of a T5, as its `config.json` gives them.

use serde_json::Value;

use crate::Activation;
use crate::cache::Heads;
use crate::config::{impossible, unsupported};
use crate::fields::Fields;
use crate::{Error, FeedForward, Result};

/// The shape of a T5, as [`T5Config::from_json`] reads it from a Hugging Face `config.json`. Fields that have a name there carry it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct T5Config {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual streams.
    pub d_model: usize,
    /// Elements of one head.
    pub d_kv: usize,
    /// Heads of every attention.
    pub num_heads: usize,
    /// Blocks of the encoder.
    pub num_layers: usize,
    /// Blocks of the decoder.
    pub num_decoder_layers: usize,
    /// Rows of the table of relative positions.
    pub relative_attention_num_buckets: usize,
    /// The distance from which on all keys are in the last bucket.
    pub relative_attention_max_distance: usize,
    /// What the normalisations add to the mean square.
    pub layer_norm_epsilon: f64,
    /// The feed-forward layer: `d_ff` and `feed_forward_proj`.
    pub feed_forward: FeedForward,
    /// Whether the decoder's output is divided by √d_model before it becomes logits.
    pub scale_decoder_outputs: bool,
    /// Whether the output projection is the embedding, where the weights have no other.
    pub tie_word_embeddings: bool,
    /// The token a reply begins with.
    pub decoder_start_token_id: u32,
    /// The tokens that end a text.
    pub eos_token_id: Vec<u32>,
}

/// The second is the name in files of 2019.
const ARCHITECTURES: [&str; 2] = ["T5ForConditionalGeneration", "T5WithLMHeadModel"];

impl T5Config {
    /// Reads and checks the text of a `config.json`.
    ///
    /// # Errors
    /// When the text is not JSON, is of another kind of model, or has impossible sizes.
    pub fn from_json(text: &str) -> Result<Self> {
        let json = |source| Error::Json { what: "config.json".into(), source };
        let fields = Fields(serde_json::from_str(text).map_err(json)?);
        let model_type = fields.get::<String>("model_type")?.ok_or(Error::MissingField { field: "model_type" })?;
        if model_type != "t5" {
            return Err(unsupported("model_type", &model_type, "t5"));
        }
        let given = fields.get::<Vec<String>>("architectures")?.unwrap_or_default().into_iter().next();
        if let Some(given) = given.filter(|given| !ARCHITECTURES.contains(&given.as_str())) {
            return Err(unsupported("architecture", &given, ARCHITECTURES[0]));
        }
        if let Some(value) = fields.get::<Value>("quantization_config")? {
            return Err(unsupported("quantization_config", &value.to_string(), "models without it"));
        }
        let config = Self::read(&fields)?;
        config.check()?;
        Ok(config)
    }

    pub(super) fn heads(&self) -> Heads {
        Heads { query: self.num_heads, kv: self.num_heads, dim: self.d_kv }
    }

    fn read(fields: &Fields) -> Result<Self> {
        let num_layers = fields.need(&["num_layers"])?;
        let tie_word_embeddings = fields.flag("tie_word_embeddings", true)?;
        let start = fields.tokens("decoder_start_token_id")?.first().copied();
        Ok(T5Config {
            vocab_size: fields.need(&["vocab_size"])?,
            d_model: fields.need(&["d_model"])?,
            d_kv: fields.need(&["d_kv"])?,
            num_heads: fields.need(&["num_heads"])?,
            num_layers,
            num_decoder_layers: fields.size(&["num_decoder_layers"])?.unwrap_or(num_layers),
            relative_attention_num_buckets: fields.size(&["relative_attention_num_buckets"])?.unwrap_or(32),
            relative_attention_max_distance: fields.size(&["relative_attention_max_distance"])?.unwrap_or(128),
            layer_norm_epsilon: fields.positive(&["layer_norm_epsilon"])?.unwrap_or(1e-6),
            feed_forward: feed_forward(fields)?,
            // A file that says nothing of it is older than the field, and scaled what was tied.
            scale_decoder_outputs: fields.flag("scale_decoder_outputs", tie_word_embeddings)?,
            tie_word_embeddings,
            decoder_start_token_id: start.or(fields.tokens("pad_token_id")?.first().copied()).unwrap_or(0),
            eos_token_id: if fields.has("eos_token_id") { fields.tokens("eos_token_id")? } else { vec![1] },
        })
    }

    fn check(&self) -> Result<()> {
        let (buckets, max) = (self.relative_attention_num_buckets, self.relative_attention_max_distance);
        if !buckets.is_multiple_of(4) {
            return impossible("relative_attention_num_buckets", buckets, "a multiple of 4");
        }
        if max <= buckets / 2 || max > 1 << 20 {
            let needed = format!("more than half of relative_attention_num_buckets, which is {buckets}, and at most 2^20");
            return impossible("relative_attention_max_distance", max, needed);
        }
        let mut special = self.eos_token_id.iter().copied().chain([self.decoder_start_token_id]);
        match special.find(|id| *id as usize >= self.vocab_size) {
            Some(token) => Err(Error::Token { token, vocab_size: self.vocab_size }),
            None => Ok(()),
        }
    }
}

/// `feed_forward_proj` is an activation, or `gated-` and one; `gated-gelu` means the approximation by a hyperbolic tangent.
fn feed_forward(fields: &Fields) -> Result<FeedForward> {
    let given = fields.text(&["feed_forward_proj"])?.unwrap_or_else(|| "relu".to_owned());
    let gated = given.strip_prefix("gated-");
    let name = match gated {
        Some("gelu") => "gelu_new",
        Some(name) => name,
        None => &given,
    };
    let of_field = |_| unsupported("feed_forward_proj", &given, "relu, gelu, gelu_new and silu, and each with gated- before it");
    let activation = Activation::named(name).map_err(of_field)?;
    Ok(FeedForward { intermediate_size: fields.need(&["d_ff"])?, activation, gated: gated.is_some(), experts: None })
}
