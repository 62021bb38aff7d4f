//! A `config.json` as a shape: its family's facts, filled in by its fields.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::families::{Family, Has, Kind, Windows, family};
use crate::fields::{Fields, impossible};
use crate::shape::{Attention, Experts, FeedForward, Latent, Layer, Norms, Output, Shape};
use crate::{Error, Result};

/// More than any model has; each takes memory here.
const MOST_LAYERS: u64 = 10_000;

impl Shape {
    /// Reads the text of a Hugging Face `config.json`.
    ///
    /// # Errors
    /// When it is not JSON, is of a family that is not supported, lacks a field or has an impossible size.
    pub fn from_json(text: &str) -> Result<Shape> {
        let json = |source| Error::Json { what: "config.json".into(), source };
        Shape::from_object(&serde_json::from_str(text).map_err(json)?)
    }

    /// Reads a directory's `config.json`, or such a file itself. Weights are not looked at.
    ///
    /// # Errors
    /// As [`Shape::from_json`], and when there is no file that can be read.
    pub fn open(path: &Path) -> Result<Shape> {
        let file = if path.is_dir() { path.join("config.json") } else { path.to_owned() };
        let text = fs::read_to_string(&file).map_err(|source| Error::Read { path: file, source })?;
        Shape::from_json(&text)
    }

    pub(crate) fn from_object(object: &Map<String, Value>) -> Result<Shape> {
        let nameless = Fields { object, model_type: "" };
        let Some(model_type) = nameless.get::<String>("model_type")? else {
            return Err(Error::MissingField { field: "model_type", model_type: "any".into() });
        };
        family(&model_type)?.read(&Fields { object, model_type: &model_type })
    }
}

impl Family {
    fn read(&self, fields: &Fields<'_>) -> Result<Shape> {
        self.refuse(fields)?;
        let hidden_size = fields.need(&["hidden_size", "n_embd"])?;
        let max_position_embeddings = fields.size(&["max_position_embeddings", "n_positions"])?;
        let encoder = self.kind == Kind::Encoder;
        let tied = fields.flag("tie_word_embeddings", self.tied)?;
        Ok(Shape {
            name: self.model_type.to_owned(),
            vocab_size: fields.need(&["vocab_size"])?,
            hidden_size,
            max_position_embeddings: max_position_embeddings.unwrap_or(2048),
            learned_positions: match self.learned_positions {
                Some(beyond) => fields.need(&["max_position_embeddings", "n_positions"])? + beyond,
                None => 0,
            },
            token_types: if encoder { fields.size(&["type_vocab_size"])?.unwrap_or(2) } else { 0 },
            attention: self.attention(fields, hidden_size)?,
            layers: self.layers(fields, hidden_size)?,
            norms: Norms { vectors: 1 + u64::from(self.layer_norm), per_layer: if self.norms_after { 4 } else { 2 } },
            output: match (encoder, tied) {
                (true, _) => Output::Pooler,
                (_, true) => Output::Tied,
                _ => Output::Own,
            },
            causal: !encoder,
        })
    }

    /// Refuses, by name, what would be counted as something else.
    fn refuse(&self, fields: &Fields<'_>) -> Result<()> {
        let no = Value::Bool(false);
        if matches!(self.windows, Windows::Never) {
            fields.only("sliding_window", &Value::Null, "models of this type without it")?;
        }
        fields.only("is_decoder", &no, "models that do not attend to another")?;
        fields.only("add_cross_attention", &no, "models that do not attend to another")?;
        match self.model_type {
            "opt" => {
                let hidden = fields.get::<Value>("hidden_size")?.unwrap_or_default();
                fields.only("word_embed_proj_dim", &hidden, "that of hidden_size")?;
                fields.only("do_layer_norm_before", &Value::Bool(true), "true")?;
                fields.only("enable_bias", &Value::Bool(true), "true")?;
                fields.only("layer_norm_elementwise_affine", &Value::Bool(true), "true")
            }
            "deepseek_v2" | "deepseek_v3" => {
                fields.only("attention_bias", &no, "false")?;
                fields.only("moe_layer_freq", &Value::from(1), "1")
            }
            _ => Ok(()),
        }
    }

    fn has(&self, fields: &Fields<'_>, part: usize) -> Result<bool> {
        match self.biases[part] {
            Has::No => Ok(false),
            Has::Yes => Ok(true),
            Has::Field(name, default) => fields.flag(name, default),
        }
    }

    fn attention(&self, fields: &Fields<'_>, hidden_size: u64) -> Result<Attention> {
        let query_heads = fields.need(&["num_attention_heads", "n_head"])?;
        let rest = Attention {
            query_heads,
            kv_heads: query_heads,
            head_dim: 0,
            value_dim: 0,
            latent: None,
            qk_norm: self.qk_norm,
            sinks: self.sinks,
            qkv_bias: self.has(fields, 0)?,
            out_bias: self.has(fields, 1)?,
        };
        if let Kind::Latent { .. } = self.kind {
            let rope_dim = fields.need(&["qk_rope_head_dim"])?;
            return Ok(Attention {
                head_dim: fields.need(&["qk_nope_head_dim"])? + rope_dim,
                value_dim: fields.need(&["v_head_dim"])?,
                latent: Some(Latent {
                    kv_rank: fields.need(&["kv_lora_rank"])?,
                    rope_dim,
                    query_rank: fields.size(&["q_lora_rank"])?,
                }),
                ..rest
            });
        }
        // Where the field is there and null, there are as many as query heads.
        let default = self.kv_heads.filter(|_| !fields.has("num_key_value_heads")).unwrap_or(query_heads);
        let kv_heads = fields.size(&["num_key_value_heads"])?.unwrap_or(default);
        divided("num_attention_heads", query_heads, "num_key_value_heads", kv_heads)?;
        let head_dim = match fields.size(&["head_dim"])?.or(self.head_dim) {
            Some(dim) => dim,
            None => divided("hidden_size", hidden_size, "num_attention_heads", query_heads)?,
        };
        Ok(Attention { kv_heads, head_dim, value_dim: head_dim, ..rest })
    }

    fn layers(&self, fields: &Fields<'_>, hidden_size: u64) -> Result<Vec<Layer>> {
        let count = fields.need(&["num_hidden_layers", "n_layer"])?;
        if count > MOST_LAYERS {
            return impossible("num_hidden_layers", count, format!("at most {MOST_LAYERS}"));
        }
        let windows = self.windows(fields, count)?;
        let dense = match self.kind {
            Kind::Experts { .. } => 0,
            Kind::Latent { .. } => fields.few("first_k_dense_replace")?,
            _ => count,
        };
        let first = (dense > 0).then(|| self.dense(fields, hidden_size)).transpose()?;
        let then = (dense < count).then(|| self.mixture(fields)).transpose()?;
        let feed_forward = |layer| if layer < dense { first } else { then };
        let layer = |(layer, window)| feed_forward(layer).map(|feed_forward| Layer { window, feed_forward });
        Ok((0..count).zip(windows).filter_map(layer).collect())
    }

    fn dense(&self, fields: &Fields<'_>, hidden_size: u64) -> Result<FeedForward> {
        let intermediate_size = match fields.size(&["intermediate_size", "n_inner", "ffn_dim"])? {
            Some(size) => size,
            None if self.model_type == "gpt2" => 4 * hidden_size,
            None => fields.need(&[if self.model_type == "opt" { "ffn_dim" } else { "intermediate_size" }])?,
        };
        Ok(FeedForward { intermediate_size, gated: self.gated, bias: self.has(fields, 2)?, experts: None })
    }

    fn mixture(&self, fields: &Fields<'_>) -> Result<FeedForward> {
        let (size, count, biased) = match self.kind {
            Kind::Latent { biased } => ("moe_intermediate_size", "n_routed_experts", biased),
            Kind::Experts { biased } => ("intermediate_size", "num_local_experts", biased),
            _ => ("intermediate_size", "num_local_experts", false),
        };
        let (count, per_token) = (fields.need(&[count])?, fields.need(&["num_experts_per_tok", "experts_per_token"])?);
        if per_token > count {
            return impossible("num_experts_per_tok", per_token, format!("at most the number of experts, which is {count}"));
        }
        let shared = if let Kind::Latent { .. } = self.kind { fields.few("n_shared_experts")? } else { 0 };
        let experts = Some(Experts { count, per_token, shared, router_bias: biased });
        Ok(FeedForward { intermediate_size: fields.need(&[size])?, gated: self.gated, bias: self.has(fields, 2)?, experts })
    }

    /// The window of each layer.
    fn windows(&self, fields: &Fields<'_>, count: u64) -> Result<Vec<Option<u64>>> {
        let window = fields.size(&["sliding_window"])?.or(self.window.filter(|_| !fields.has("sliding_window")));
        let optional = matches!(self.windows, Windows::FromLayer | Windows::Unturned);
        let asked = !optional || fields.flag("use_sliding_window", false)?;
        let window = window.filter(|_| asked);
        let types = fields.get::<Vec<String>>("layer_types")?;
        let unturned = fields.get::<Vec<u8>>("no_rope_layers")?;
        for (field, given) in [("layer_types", types.as_ref().map(Vec::len)), ("no_rope_layers", unturned.as_ref().map(Vec::len))] {
            if let Some(given) = given.filter(|given| *given as u64 != count) {
                return impossible(field, format!("of {given} layers"), format!("of {count}, num_hidden_layers"));
            }
        }
        let of_family = |layer: u64| {
            Ok(match self.windows {
                Windows::Never => false,
                Windows::All => true,
                Windows::FromLayer => layer >= fields.get("max_window_layers")?.unwrap_or(28),
                Windows::Unturned => match &unturned {
                    Some(turns) => turns[layer as usize] == 0,
                    None => (layer + 1).is_multiple_of(fields.size(&["no_rope_layer_interval"])?.unwrap_or(4)),
                },
                Windows::Pattern(every) => !(layer + 1).is_multiple_of(fields.size(&["sliding_window_pattern"])?.unwrap_or(every)),
            })
        };
        let is_windowed = |layer: u64| match types.as_ref().map(|types| &types[layer as usize][..]) {
            Some("sliding_attention") => Ok(true),
            Some("full_attention") => Ok(false),
            Some(given) => {
                let supported = "full_attention and sliding_attention";
                Err(Error::Unsupported { field: "layer_types", given: given.to_owned(), supported })
            }
            None => of_family(layer),
        };
        let Some(window) = window else { return Ok(vec![None; count as usize]) };
        (0..count).map(|layer| Ok(is_windowed(layer)?.then_some(window))).collect()
    }
}

/// `whole / parts`.
fn divided(field: &'static str, whole: u64, by: &'static str, parts: u64) -> Result<u64> {
    if !whole.is_multiple_of(parts) {
        return impossible(field, whole, format!("a multiple of {by}, which is {parts}"));
    }
    Ok(whole / parts)
}
