//! The shape of a Llama-type model, from a Hugging Face `config.json`.

use regard::{Rope, RopeScaling, RopeStyle};
use serde::Deserialize;
use serde_json::Value;

use crate::{Error, Result, RopeParameters};

/// The shape of a decoder of type `LlamaForCausalLM`. Fields carry the names of Hugging Face's `config.json`.
///
/// ```
/// let config = regard_nn::LlamaConfig::from_json(r#"{
///     "model_type": "llama", "vocab_size": 4096, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6,
///     "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 512
/// }"#)?;
/// assert_eq!((config.head_dim, config.rope_theta), (32, 10_000.0));
/// # Ok::<(), regard_nn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "File")]
#[non_exhaustive]
pub struct LlamaConfig {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Decoder blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads, a divisor of the query heads.
    pub num_key_value_heads: usize,
    /// Elements of one head; even, for the rotary embedding.
    pub head_dim: usize,
    /// The longest context, in tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are changed for long texts.
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the output projection is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether the four attention projections have biases.
    pub attention_bias: bool,
    /// Whether the three feed-forward projections have biases.
    pub mlp_bias: bool,
    /// The token a text begins with.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a text.
    pub eos_token_id: Vec<u32>,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
}

/// One token id, or several, or null.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(untagged)]
pub(crate) enum Ids {
    One(u32),
    Many(Vec<u32>),
    #[default]
    None,
}

impl Ids {
    pub(crate) fn into_vec(self) -> Vec<u32> {
        match self {
            Ids::One(id) => vec![id],
            Ids::Many(ids) => ids,
            Ids::None => Vec::new(),
        }
    }
}

/// `config.json` as it is written, before any check.
#[derive(Deserialize)]
struct File {
    architectures: Option<Vec<String>>,
    model_type: Option<String>,
    hidden_act: Option<String>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
    quantization_config: Option<Value>,
    sliding_window: Option<Value>,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    #[serde(default)]
    bos_token_id: Ids,
    #[serde(default)]
    eos_token_id: Ids,
    initializer_range: Option<f64>,
}

impl TryFrom<File> for LlamaConfig {
    type Error = Error;

    fn try_from(file: File) -> Result<Self> {
        file.refuse_others()?;
        let max_position_embeddings = file.max_position_embeddings.unwrap_or(2048);
        let rope = file.rope(max_position_embeddings)?;
        let need = |field: &'static str, value: Option<usize>| value.ok_or(Error::MissingField { field });
        let heads = need("num_attention_heads", file.num_attention_heads)?;
        let hidden_size = need("hidden_size", file.hidden_size)?;
        positive("num_attention_heads", heads)?;
        let head_dim = match file.head_dim {
            Some(dim) => dim,
            None => divided("hidden_size", hidden_size, "num_attention_heads", heads)?,
        };
        let config = LlamaConfig {
            vocab_size: need("vocab_size", file.vocab_size)?,
            hidden_size,
            intermediate_size: need("intermediate_size", file.intermediate_size)?,
            num_hidden_layers: need("num_hidden_layers", file.num_hidden_layers)?,
            num_attention_heads: heads,
            num_key_value_heads: file.num_key_value_heads.unwrap_or(heads),
            head_dim,
            max_position_embeddings,
            rms_norm_eps: file.rms_norm_eps.unwrap_or(1e-6),
            rope_theta: rope.theta.unwrap_or(10_000.0),
            rope_scaling: rope.scaling,
            tie_word_embeddings: file.tie_word_embeddings.unwrap_or(false),
            attention_bias: file.attention_bias.unwrap_or(false),
            mlp_bias: file.mlp_bias.unwrap_or(false),
            bos_token_id: file.bos_token_id.into_vec().first().copied(),
            eos_token_id: file.eos_token_id.into_vec(),
            initializer_range: file.initializer_range.unwrap_or(0.02),
        };
        config.validate()?;
        Ok(config)
    }
}

impl File {
    /// Refuses, by name, every model that would run but say something else than its authors meant.
    fn refuse_others(&self) -> Result<()> {
        const LLAMA: &str = "LlamaForCausalLM";
        let unsupported = |what, given: &str, supported| Err(Error::Unsupported { what, given: given.to_owned(), supported });
        if let Some(given) = self.architectures.iter().flatten().find(|name| *name != LLAMA) {
            return unsupported("architecture", given, LLAMA);
        }
        match (&self.model_type, &self.architectures) {
            (Some(kind), _) if kind != "llama" => return unsupported("model_type", kind, "\"llama\""),
            (None, None) => return Err(Error::MissingField { field: "model_type" }),
            _ => {}
        }
        if let Some(act) = self.hidden_act.as_deref().filter(|act| !matches!(*act, "silu" | "swish")) {
            return unsupported("hidden_act", act, "\"silu\"");
        }
        for (what, value) in [("quantization_config", &self.quantization_config), ("sliding_window", &self.sliding_window)] {
            if let Some(value) = value.as_ref().filter(|v| !v.is_null()) {
                return unsupported(what, &value.to_string(), "models without it");
            }
        }
        Ok(())
    }

    /// The rotary frequencies, wherever they are written; refuses those that change with the text, or turn a part of each head.
    fn rope(&self, max_position_embeddings: usize) -> Result<RopeParameters> {
        let mut all = RopeParameters { theta: self.rope_theta, ..RopeParameters::default() };
        for json in [&self.rope_scaling, &self.rope_parameters].into_iter().flatten() {
            let rope = RopeParameters::from_json(json, max_position_embeddings)?;
            all = RopeParameters {
                theta: rope.theta.or(all.theta),
                partial_rotary_factor: rope.partial_rotary_factor.or(all.partial_rotary_factor),
                scaling: rope.scaling.or(all.scaling),
            };
        }
        let unsupported = |what, given: String, supported| Err(Error::Unsupported { what, given, supported });
        if let Some(RopeScaling::LongRope { .. }) = all.scaling {
            let supported = "frequencies that do not change with the length of the text, in a Llama,";
            return unsupported("rope_type", "longrope".to_owned(), supported);
        }
        match all.partial_rotary_factor.filter(|&part| part != 1.0) {
            Some(part) => unsupported("partial_rotary_factor", part.to_string(), "heads that turn as a whole, in a Llama,"),
            None => Ok(all),
        }
    }
}

impl LlamaConfig {
    /// Reads and checks the text of a `config.json`.
    ///
    /// # Errors
    /// When the text is not JSON, is of another kind of model, or has impossible sizes.
    pub fn from_json(text: &str) -> Result<Self> {
        let file: File = serde_json::from_str(text).map_err(|source| Error::Json { what: "config.json".into(), source })?;
        file.try_into()
    }

    /// The rotary embedding of every layer.
    ///
    /// # Errors
    /// When its numbers are outside their domains.
    pub fn rope(&self) -> Result<Rope> {
        let (theta, scaling) = (Some(self.rope_theta), self.rope_scaling.clone());
        let parameters = RopeParameters { theta, scaling, partial_rotary_factor: None };
        parameters.rope(self.head_dim, RopeStyle::HalfSplit, self.max_position_embeddings)
    }

    /// Checks that all sizes are possible together.
    ///
    /// # Errors
    /// The first field that is not, and what it must be.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            positive(field, value)?;
        }
        divided("num_attention_heads", self.num_attention_heads, "num_key_value_heads", self.num_key_value_heads)?;
        if !self.head_dim.is_multiple_of(2) {
            return impossible("head_dim", self.head_dim, "even, for the rotary embedding");
        }
        for (field, value) in [("rms_norm_eps", self.rms_norm_eps), ("rope_theta", self.rope_theta)] {
            if !(value.is_finite() && value > 0.0) {
                return impossible(field, value, "a positive number");
            }
        }
        if !(self.initializer_range.is_finite() && self.initializer_range >= 0.0) {
            return impossible("initializer_range", self.initializer_range, "zero or a positive number");
        }
        self.rope()?;
        match self.bos_token_id.iter().chain(&self.eos_token_id).find(|id| **id as usize >= self.vocab_size) {
            Some(&token) => Err(Error::Token { token, vocab_size: self.vocab_size }),
            None => Ok(()),
        }
    }
}

/// Sizes are positions and indices of 31 bits at most, so that no product of two overflows.
fn positive(field: &'static str, value: usize) -> Result<()> {
    if (1..1 << 30).contains(&value) { Ok(()) } else { impossible(field, value, "from 1 to 2^30 - 1") }
}

pub(crate) fn divided(field: &'static str, value: usize, by: &'static str, divisor: usize) -> Result<usize> {
    if value.is_multiple_of(divisor) {
        return Ok(value / divisor);
    }
    impossible(field, value, format!("a multiple of {by}, which is {divisor}"))
}

pub(crate) fn impossible<T>(field: &'static str, given: impl ToString, needed: impl Into<String>) -> Result<T> {
    Err(Error::Config { field, given: given.to_string(), needed: needed.into() })
}

pub(crate) fn unsupported(what: &'static str, given: &str, supported: &'static str) -> Error {
    Error::Unsupported { what, given: given.to_owned(), supported }
}
