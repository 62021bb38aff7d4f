//! A Hugging Face `config.json` from a file's metadata.

use serde_json::{Map, Value, json};

use super::{Gguf, GgufValue, factors, wrong};
use crate::Result;

/// An architecture's name in ggml, its `model_type` and class at Hugging Face, and its activation.
const ARCHITECTURES: [(&str, &str, &str, &str); 5] = [
    ("llama", "llama", "LlamaForCausalLM", "silu"),
    ("qwen2", "qwen2", "Qwen2ForCausalLM", "silu"),
    ("qwen3", "qwen3", "Qwen3ForCausalLM", "silu"),
    ("phi3", "phi3", "Phi3ForCausalLM", "silu"),
    ("gemma", "gemma", "GemmaForCausalLM", "gelu_pytorch_tanh"),
];

/// What is read of `llama.…`; anything else there may change the computation, so it is refused.
const KNOWN: [&str; 26] = [
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "tensor_data_layout",
    "expert_count",
    "expert_used_count",
    "use_parallel_residual",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.causal",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
];

impl Gguf {
    /// The fields of a Hugging Face `config.json` that the metadata and the tensors say.
    ///
    /// # Errors
    /// When the architecture is none of llama, qwen2, qwen3, phi3 and gemma, a field is missing or of another type, or the metadata asks
    /// for something that these models do not have, such as experts.
    pub fn config_json(&self) -> Result<Value> {
        let arch = self.architecture()?;
        self.refuse_unknown(arch)?;
        let window = self.window(arch)?;
        let mut config = self.names(arch);
        let number = |name: &str| self.u32(&format!("{arch}.{name}"));
        let (hidden, heads) = (number("embedding_length")?, number("attention.head_count")?);
        let head_dim = self.head_dim(arch, hidden, heads)?;
        let fields = [
            ("hidden_size", json!(hidden)),
            ("num_attention_heads", json!(heads)),
            ("num_key_value_heads", json!(self.kv_heads(arch)?)),
            ("head_dim", json!(head_dim)),
            ("intermediate_size", json!(number("feed_forward_length")?)),
            ("num_hidden_layers", json!(number("block_count")?)),
            ("max_position_embeddings", json!(number("context_length")?)),
            ("rms_norm_eps", json!(decimal(self.f64(&format!("{arch}.attention.layer_norm_rms_epsilon"))?))),
            ("vocab_size", json!(self.vocab_size(arch)?)),
            ("tie_word_embeddings", json!(!self.has_tensor("output.weight"))),
        ];
        config.extend(fields.map(|(name, value)| (name.to_owned(), value)));
        self.biases(arch, &mut config);
        self.rope(arch, head_dim, &mut config)?;
        self.ends(&mut config)?;
        config.extend(window.map(|window| ("sliding_window".to_owned(), json!(window))));
        Ok(Value::Object(config))
    }

    /// The architecture, one of those that are read here.
    pub(super) fn architecture(&self) -> Result<&'static str> {
        let given = self.text("general.architecture")?;
        match ARCHITECTURES.iter().find(|row| row.0 == given) {
            Some(row) => Ok(row.0),
            None => {
                wrong("general.architecture", format!("{given:?}"), "llama, qwen2, qwen3, phi3 or gemma").map_err(|e| self.here(e))
            }
        }
    }

    fn names(&self, arch: &str) -> Map<String, Value> {
        let row = ARCHITECTURES.iter().find(|row| row.0 == arch);
        let fields = row.map(|(_, kind, class, act)| {
            [("model_type", json!(kind)), ("architectures", json!([class])), ("hidden_act", json!(act))]
        });
        fields.into_iter().flatten().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn refuse_unknown(&self, arch: &str) -> Result<()> {
        let prefix = format!("{arch}.");
        let unknown = |key: &&str| key.strip_prefix(&prefix).is_some_and(|name| !KNOWN.contains(&name));
        let refuse = |key: &str, needed: &str| match self.value(key) {
            Some(given) => wrong(key, given, needed).map_err(|e| self.here(e)),
            None => Ok(()),
        };
        if let Some(key) = self.keys().filter(unknown).min() {
            refuse(key, "left out: this version does not know it")?;
        }
        let unless = |name: &str, harmless: GgufValue<'_>, needed| {
            let key = format!("{arch}.{name}");
            if self.value(&key) == Some(harmless) { Ok(()) } else { refuse(&key, needed) }
        };
        unless("expert_count", GgufValue::Unsigned(0), "0: mixtures of experts are not supported")?;
        unless("expert_used_count", GgufValue::Unsigned(0), "0: mixtures of experts are not supported")?;
        unless("use_parallel_residual", GgufValue::Bool(false), "false: layers here are serial")?;
        unless("attention.causal", GgufValue::Bool(true), "true: this is for decoders")
    }

    fn head_dim(&self, arch: &str, hidden: u32, heads: u32) -> Result<u32> {
        let [key, value] = ["key", "value"].map(|part| format!("{arch}.attention.{part}_length"));
        let dim = match self.find::<u32>(&key)? {
            Some(dim) => dim,
            None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                let needed = format!("a divisor of {arch}.embedding_length, which is {hidden}");
                return wrong(format!("{arch}.attention.head_count"), heads, needed).map_err(|e| self.here(e));
            }
        };
        match self.find::<u32>(&value)? {
            Some(given) if given != dim => wrong(value, given, format!("{dim}, as keys have")).map_err(|e| self.here(e)),
            _ => Ok(dim),
        }
    }

    pub(super) fn kv_heads(&self, arch: &str) -> Result<u32> {
        match self.find(&format!("{arch}.attention.head_count_kv"))? {
            Some(heads) => Ok(heads),
            None => self.u32(&format!("{arch}.attention.head_count")),
        }
    }

    /// Rows of the embedding, which the other two places may miscount.
    fn vocab_size(&self, arch: &str) -> Result<usize> {
        if self.has_tensor("token_embd.weight") {
            return Ok(self.tensor("token_embd.weight")?.shape()[0]);
        }
        match self.find::<u32>(&format!("{arch}.vocab_size"))? {
            Some(size) => Ok(size as usize),
            None => Ok(self.array("tokenizer.ggml.tokens")?.len()),
        }
    }

    /// Llama models say whether they have biases; for the other types the type says it.
    fn biases(&self, arch: &str, config: &mut Map<String, Value>) {
        if arch == "llama" {
            for (name, tensor) in [("attention_bias", "blk.0.attn_q.bias"), ("mlp_bias", "blk.0.ffn_gate.bias")] {
                config.insert(name.to_owned(), json!(self.has_tensor(tensor)));
            }
        }
    }

    /// Which blocks of a Qwen see a window, a file does not say; ggml gives none to any.
    fn window(&self, arch: &str) -> Result<Option<u32>> {
        let key = format!("{arch}.attention.sliding_window");
        let window = self.find::<u32>(&key)?.filter(|&window| window > 0);
        match window {
            Some(window) if arch.starts_with("qwen") => {
                wrong(key, window, "left out: which blocks see a window, the file does not say").map_err(|e| self.here(e))
            }
            window => Ok(window),
        }
    }

    fn rope(&self, arch: &str, head_dim: u32, config: &mut Map<String, Value>) -> Result<()> {
        let theta = self.find(&format!("{arch}.rope.freq_base"))?.map_or(10_000.0, decimal);
        config.insert("rope_theta".to_owned(), json!(theta));
        let turning = self.find::<u32>(&format!("{arch}.rope.dimension_count"))?.unwrap_or(head_dim);
        if turning != head_dim {
            config.insert("partial_rotary_factor".to_owned(), json!(f64::from(turning) / f64::from(head_dim)));
        }
        if let Some(scaling) = self.rope_scaling(arch, theta)? {
            config.insert("rope_scaling".to_owned(), scaling);
        }
        Ok(())
    }

    fn rope_scaling(&self, arch: &str, theta: f64) -> Result<Option<Value>> {
        let number = |name: &str| self.find::<f64>(&format!("{arch}.rope.{name}")).map(|given| given.map(decimal));
        let original = self.find::<u32>(&format!("{arch}.rope.scaling.original_context_length"))?;
        let factor = number("scaling.factor")?.or(number("scale_linear")?).filter(|&factor| factor != 0.0);
        let attention = number("scaling.attn_factor")?;
        let key = format!("{arch}.rope.scaling.type");
        // Converters of Phi-3 give the factors and no type.
        let default = if self.has_tensor("rope_factors_long.weight") { "longrope" } else { "linear" };
        let kind = self.find::<&str>(&key)?.unwrap_or(default);
        let mut scaling = match kind {
            _ if self.has_tensor("rope_freqs.weight") => {
                return factors::llama3(&self.tensor("rope_freqs.weight")?.to_f32(), theta, original).map_err(|e| self.here(e));
            }
            "linear" => return Ok(factor.filter(|&f| f != 1.0).map(|f| json!({ "rope_type": "linear", "factor": f }))),
            "none" => return Ok(None),
            "yarn" => {
                let factor = factor.unwrap_or(1.0);
                // ggml's factor multiplies the paper's 0.1 ln(s) + 1, Hugging Face's takes its place.
                let sharpened = |part: f64| part * (0.1 * factor.max(1.0).ln() + 1.0);
                let (fast, slow) = (number("scaling.yarn_beta_fast")?, number("scaling.yarn_beta_slow")?);
                json!({ "rope_type": "yarn", "factor": factor, "beta_fast": fast, "beta_slow": slow,
                        "attention_factor": attention.map(sharpened) })
            }
            "longrope" => {
                let list =
                    |which| self.tensor(which).map(|tensor| tensor.to_f32().into_iter().map(|x| decimal(x.into())).collect());
                let (short, long): (Vec<f64>, Vec<f64>) = (list("rope_factors_short.weight")?, list("rope_factors_long.weight")?);
                json!({ "rope_type": "longrope", "short_factor": short, "long_factor": long, "attention_factor": attention })
            }
            given => return wrong(key, format!("{given:?}"), "none, linear, yarn or longrope").map_err(|e| self.here(e)),
        };
        if let Some(fields) = scaling.as_object_mut() {
            fields.insert("original_max_position_embeddings".to_owned(), json!(original));
            fields.retain(|_, value| !value.is_null());
        }
        Ok(Some(scaling))
    }

    /// The tokens that begin and end a text.
    fn ends(&self, config: &mut Map<String, Value>) -> Result<()> {
        let id = |name| self.find::<u32>(&format!("tokenizer.ggml.{name}_token_id"));
        if let Some(bos) = id("bos")? {
            config.insert("bos_token_id".to_owned(), json!(bos));
        }
        let mut ends: Vec<u32> = [id("eos")?, id("eot")?, id("eom")?].into_iter().flatten().collect();
        ends.dedup();
        match ends[..] {
            [] => None,
            [end] => config.insert("eos_token_id".to_owned(), json!(end)),
            _ => config.insert("eos_token_id".to_owned(), json!(ends)),
        };
        Ok(())
    }
}

/// The shortest decimal of a number that was written in 32 bits: 0.00001 rather than 0.000009999999747.
fn decimal(value: f64) -> f64 {
    let narrow = value as f32;
    if f64::from(narrow) == value { narrow.to_string().parse().unwrap_or(value) } else { value }
}
