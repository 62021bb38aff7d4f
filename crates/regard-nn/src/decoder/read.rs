//! A `config.json` as the facts of a decoder: its family's, filled in by its fields.

use serde_json::{Map, Value};

use super::config::{Activation, Biases, DecoderConfig, Experts, FeedForward, LayerConfig};
use super::families::{FAMILIES, Family, Has, SUPPORTED, Windows, family};
use crate::config::{divided, impossible, unsupported};
use crate::fields::Fields;
use crate::{Error, Result, RopeParameters};

/// What a gpt-oss turns by where nothing is said.
const GPT_OSS_ROPE: &str = r#"{"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
    "original_max_position_embeddings": 4096}"#;

/// Blocks that a configuration may ask for: each takes memory before any weight is seen.
const MOST_LAYERS: usize = 10_000;

impl DecoderConfig {
    /// Reads and checks the text of a `config.json`.
    ///
    /// # Errors
    /// When the text is not JSON, is of a family that is not supported, or has impossible sizes.
    pub fn from_json(text: &str) -> Result<Self> {
        let json = |source| Error::Json { what: "config.json".into(), source };
        let fields = Fields(serde_json::from_str(text).map_err(json)?);
        let given = fields.get::<Vec<String>>("architectures")?.unwrap_or_default().into_iter().next();
        let by_architecture = |given: &String| FAMILIES.iter().find(|family| family.architecture == given);
        let model_type = fields.get::<String>("model_type")?;
        let family = match (&model_type, &given) {
            (Some(name), _) => family(name)?,
            (None, Some(name)) => by_architecture(name).ok_or_else(|| unsupported("architecture", name, SUPPORTED))?,
            (None, None) => return Err(Error::MissingField { field: "model_type" }),
        };
        if let Some(given) = given.filter(|given| given != family.architecture) {
            return Err(unsupported("architecture", &given, family.architecture));
        }
        if let Some(value) = fields.get::<Value>("quantization_config")? {
            return Err(unsupported("quantization_config", &value.to_string(), "models without it"));
        }
        family.read(&fields)
    }
}

impl Family {
    fn read(&self, fields: &Fields) -> Result<DecoderConfig> {
        let hidden_size = fields.need(&["hidden_size", "n_embd"])?;
        let heads = fields.need(&["num_attention_heads", "n_head"])?;
        let head_dim = match fields.size(&["head_dim"])?.or(self.head_dim) {
            Some(dim) => dim,
            None => divided("hidden_size", hidden_size, "num_attention_heads", heads)?,
        };
        // Where the field is there and null, there are as many as query heads.
        let default = self.kv_heads.filter(|_| !fields.has("num_key_value_heads")).unwrap_or(heads);
        let kv_heads = fields.size(&["num_key_value_heads"])?.unwrap_or(default);
        divided("num_attention_heads", heads, "num_key_value_heads", kv_heads)?;
        let max_position_embeddings = fields.size(&["max_position_embeddings", "n_positions"])?.unwrap_or(2048);
        let ropes = self.ropes(fields, max_position_embeddings)?;
        let config = DecoderConfig {
            model_type: self.model_type.to_owned(),
            vocab_size: fields.need(&["vocab_size"])?,
            hidden_size,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            max_position_embeddings,
            layers: self.layers(fields, ropes.len())?,
            ropes,
            learned_positions: self.learned_positions,
            norm: self.norm,
            norm_eps: fields.positive(&["rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps"])?.unwrap_or(self.eps),
            norms_after: self.norms_after,
            parallel_residual: self.model_type == "gpt_neox" && fields.flag("use_parallel_residual", true)?,
            qk_norm: self.qk_norm,
            attention_scale: match fields.positive(&["query_pre_attn_scalar"])? {
                Some(scalar) if self.norms_after => scalar.sqrt().recip() as f32,
                None if self.norms_after => 1.0 / 16.0,
                _ => (head_dim as f64).sqrt().recip() as f32,
            },
            // Gemma 3's configuration has the field, and its attention does not read it.
            attention_softcap: fields.positive(&["attn_logit_softcapping"])?.filter(|_| !self.qk_norm).map(|cap| cap as f32),
            sinks: self.sinks,
            feed_forward: self.feed_forward(fields, hidden_size)?,
            embedding_scale: if self.scaled_embedding { (hidden_size as f32).sqrt() } else { 1.0 },
            logit_softcap: fields.positive(&["final_logit_softcapping"])?.map(|cap| cap as f32),
            tie_word_embeddings: fields.flag("tie_word_embeddings", self.tied)?,
            biases: self.biases(fields)?,
            bos_token_id: fields.tokens("bos_token_id")?.first().copied(),
            eos_token_id: fields.tokens("eos_token_id")?,
        };
        self.refuse(fields)?;
        config.rotary(max_position_embeddings)?;
        match config.bos_token_id.iter().chain(&config.eos_token_id).find(|id| **id as usize >= config.vocab_size) {
            Some(&token) => Err(Error::Token { token, vocab_size: config.vocab_size }),
            None => Ok(config),
        }
    }

    /// Refuses, by name, what would run but say something else than its authors meant.
    fn refuse(&self, fields: &Fields) -> Result<()> {
        let usual =
            [("scale_attn_weights", true), ("scale_attn_by_inverse_layer_idx", false), ("use_bidirectional_attention", false)];
        for (field, usual) in usual {
            if fields.flag(field, usual)? != usual {
                return Err(unsupported(field, if usual { "false" } else { "true" }, "models with the other value"));
            }
        }
        if matches!(self.windows, Windows::Never) && fields.get::<Value>("sliding_window")?.is_some() {
            return Err(unsupported("sliding_window", self.model_type, "models without it"));
        }
        Ok(())
    }

    fn biases(&self, fields: &Fields) -> Result<Biases> {
        let default = self.model_type == "gpt_neox"; // whose attention has biases where nothing is said
        let [qkv, out, feed_forward] = self.biases.map(|has| match has {
            Has::No => Ok(false),
            Has::Yes => Ok(true),
            Has::Field(name) => fields.flag(name, default),
        });
        Ok(Biases { qkv: qkv?, out: out?, feed_forward: feed_forward? })
    }

    fn feed_forward(&self, fields: &Fields, hidden_size: usize) -> Result<FeedForward> {
        let intermediate_size = match fields.size(&["intermediate_size", "n_inner"])? {
            Some(size) => size,
            None if self.learned_positions => 4 * hidden_size,
            None => return Err(Error::MissingField { field: "intermediate_size" }),
        };
        let name = fields.text(&["hidden_activation", "hidden_act", "activation_function"])?;
        // The first Gemma's files say "gelu" and mean the approximation.
        let name = name.filter(|name| !(self.model_type == "gemma" && name == "gelu"));
        let (mut activation, mut experts) = (Activation::named(name.as_deref().unwrap_or(self.activation))?, None);
        if self.model_type == "gpt_oss" {
            activation = Activation::Clamped { limit: fields.positive(&["swiglu_limit"])?.unwrap_or(7.0) as f32 };
            let (count, per_token) =
                (fields.need(&["num_local_experts"])?, fields.need(&["num_experts_per_tok", "experts_per_token"])?);
            if per_token > count {
                return impossible("num_experts_per_tok", per_token, format!("at most num_local_experts, which is {count}"));
            }
            experts = Some(Experts { count, per_token });
        }
        Ok(FeedForward { intermediate_size, activation, gated: self.gated, experts })
    }

    /// The rotary embeddings: one, or one for blocks that see everything and one for those that see a window.
    fn ropes(&self, fields: &Fields, max: usize) -> Result<Vec<RopeParameters>> {
        if self.learned_positions {
            return Ok(Vec::new());
        }
        let base = RopeParameters {
            theta: Some(fields.positive(&["rope_theta", "rotary_emb_base"])?.unwrap_or(self.theta)),
            partial_rotary_factor: fields.positive(&["partial_rotary_factor", "rotary_pct"])?,
            scaling: None,
        };
        let original = fields.size(&["original_max_position_embeddings"])?;
        let read = |mut json: Value, base: &RopeParameters| {
            if let Some(object) = json.as_object_mut() {
                self.amend(object, original);
            }
            let given = RopeParameters::from_json(&json, max)?;
            Ok::<_, Error>(RopeParameters {
                theta: given.theta.or(base.theta),
                partial_rotary_factor: given.partial_rotary_factor.or(base.partial_rotary_factor),
                scaling: given.scaling.or_else(|| base.scaling.clone()),
            })
        };
        let json = |name: &str| fields.get::<Value>(name);
        if let Some(Value::Object(by_kind)) = json("rope_parameters")?
            && let [Some(full), Some(window)] = ["full_attention", "sliding_attention"].map(|kind| by_kind.get(kind))
        {
            return Ok(vec![read(full.clone(), &base)?, read(window.clone(), &base)?]);
        }
        let full = match json("rope_scaling")?.or(json("rope_parameters")?) {
            Some(given) => read(given, &base)?,
            None if self.model_type == "gpt_oss" => read(serde_json::from_str(GPT_OSS_ROPE).unwrap_or_default(), &base)?,
            None => base.clone(),
        };
        let local = fields.positive(&["rope_local_base_freq"])?.or((self.model_type == "gemma3_text").then_some(10_000.0));
        let local = local.map(|theta| RopeParameters { theta: Some(theta), ..base });
        Ok([Some(full), local].into_iter().flatten().collect())
    }

    /// Rope parameters as [`RopeParameters`] reads them: the length that a model was first trained for may stand beside them, and Phi-3's
    /// LongRoPE had other names.
    fn amend(&self, rope: &mut Map<String, Value>, original: Option<usize>) {
        let kind = rope.get("rope_type").or(rope.get("type")).and_then(Value::as_str).unwrap_or("default").to_owned();
        let phi = self.model_type == "phi3";
        if phi && matches!(&kind[..], "su" | "yarn") {
            rope.remove("type");
            rope.insert("rope_type".to_owned(), "longrope".into());
        }
        let original = original.or(phi.then_some(4096));
        if let (Some(original), "longrope" | "su" | "yarn" | "llama3") = (original, &kind[..]) {
            rope.insert("original_max_position_embeddings".to_owned(), original.into());
        }
        if kind == "default" && !phi && self.model_type != "gpt_neox" {
            rope.remove("partial_rotary_factor"); // other families turn whole heads
        }
    }

    fn layers(&self, fields: &Fields, ropes: usize) -> Result<Vec<LayerConfig>> {
        let count = fields.need(&["num_hidden_layers", "n_layer"])?;
        if count > MOST_LAYERS {
            return impossible("num_hidden_layers", count, format!("at most {MOST_LAYERS}"));
        }
        let window = fields.size(&["sliding_window"])?.or(self.window.filter(|_| !fields.has("sliding_window")));
        let window =
            window.filter(|_| !matches!(self.windows, Windows::FromLayer | Windows::Unturned) || fields.is("use_sliding_window"));
        let types = fields.get::<Vec<String>>("layer_types")?;
        let no_rope = fields.get::<Vec<u8>>("no_rope_layers")?;
        for (field, given) in [("layer_types", types.as_ref().map(Vec::len)), ("no_rope_layers", no_rope.as_ref().map(Vec::len))] {
            if let Some(given) = given.filter(|given| *given != count) {
                return impossible(field, format!("of {given} blocks"), format!("of {count}, num_hidden_layers"));
            }
        }
        let every = fields.size(&["no_rope_layer_interval"])?.unwrap_or(4);
        let every = (self.model_type == "smollm3").then_some(every);
        (0..count)
            .map(|layer| {
                let turns = match (&no_rope, every) {
                    (Some(turns), _) => turns[layer] != 0,
                    (None, Some(every)) => !(layer + 1).is_multiple_of(every),
                    (None, None) => true,
                };
                let windowed = window.is_some() && self.is_windowed(fields, layer, turns, types.as_deref())?;
                let rope = (turns && ropes > 0).then_some(if windowed { ropes - 1 } else { 0 });
                Ok(LayerConfig { window: window.filter(|_| windowed), rope })
            })
            .collect()
    }

    fn is_windowed(&self, fields: &Fields, layer: usize, turns: bool, types: Option<&[String]>) -> Result<bool> {
        match types.map(|types| &types[layer][..]) {
            Some("sliding_attention") => return Ok(true),
            Some("full_attention") => return Ok(false),
            Some(given) => return Err(unsupported("layer_types", given, "full_attention and sliding_attention")),
            None => {}
        }
        Ok(match self.windows {
            Windows::Never => false,
            Windows::All => true,
            Windows::FromLayer => layer >= fields.get("max_window_layers")?.unwrap_or(28),
            Windows::Unturned => !turns,
            Windows::Pattern(every) => {
                let every = fields.size(&["sliding_window_pattern"])?.unwrap_or(every);
                !(layer + 1).is_multiple_of(every)
            }
        })
    }
}
