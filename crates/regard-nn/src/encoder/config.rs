//! The facts of an encoder.

use serde_json::Value;

use crate::config::{divided, unsupported};
use crate::fields::Fields;
use crate::{Activation, Error, Result};

/// The shape of a BERT, as [`EncoderConfig::from_json`] reads it from a Hugging Face `config.json`, with the names that fields have
/// there.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EncoderConfig {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads, a divisor of the width.
    pub num_attention_heads: usize,
    /// The longest text, in tokens.
    pub max_position_embeddings: usize,
    /// Token types.
    pub type_vocab_size: usize,
    /// The nonlinearity of the feed-forward layers.
    pub hidden_act: Activation,
    /// What normalisations add to the variance.
    pub layer_norm_eps: f64,
}

impl EncoderConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// When it is not JSON, is of another kind of model, lacks a size or has an impossible one.
    pub fn from_json(text: &str) -> Result<Self> {
        let json = |source| Error::Json { what: "config.json".into(), source };
        let fields = Fields(serde_json::from_str(text).map_err(json)?);
        match fields.get::<String>("model_type")? {
            Some(name) if name == "bert" => {}
            Some(name) => return Err(unsupported("model_type", &name, "the encoder bert")),
            None => return Err(Error::MissingField { field: "model_type" }),
        }
        refuse(&fields)?;
        let (hidden_size, heads) = (fields.need(&["hidden_size"])?, fields.need(&["num_attention_heads"])?);
        divided("hidden_size", hidden_size, "num_attention_heads", heads)?;
        Ok(Self {
            vocab_size: fields.need(&["vocab_size"])?,
            hidden_size,
            intermediate_size: fields.need(&["intermediate_size"])?,
            num_hidden_layers: fields.need(&["num_hidden_layers"])?,
            num_attention_heads: heads,
            max_position_embeddings: fields.need(&["max_position_embeddings"])?,
            type_vocab_size: fields.size(&["type_vocab_size"])?.unwrap_or(2),
            hidden_act: Activation::named(fields.text(&["hidden_act"])?.as_deref().unwrap_or("gelu"))?,
            layer_norm_eps: fields.positive(&["layer_norm_eps"])?.unwrap_or(1e-12),
        })
    }
}

/// Refuses, by name, what would run but say something else than its authors meant.
fn refuse(fields: &Fields) -> Result<()> {
    match fields.text(&["position_embedding_type"])? {
        Some(kind) if kind != "absolute" => return Err(unsupported("position_embedding_type", &kind, "absolute")),
        _ => {}
    }
    if fields.flag("is_decoder", false)? {
        return Err(unsupported("is_decoder", "true", "encoders"));
    }
    match fields.get::<Value>("quantization_config")? {
        Some(value) => Err(unsupported("quantization_config", &value.to_string(), "models without it")),
        None => Ok(()),
    }
}
