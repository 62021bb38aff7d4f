//! The directory a finished run leaves behind, which Python's `transformers` loads as it is.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::config::WeightType;
use super::history::History;
use super::row::Row;
use super::tokenizer::{BEGIN, END};
use super::{TrainConfig, TrainError, atomic, plot, tokenizer};

/// Name, shape and values of one parameter.
pub(crate) struct Weight<'a> {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: &'a [f32],
}

/// Writes `config.json`, `generation_config.json`, `tokenizer_config.json`, `history.json`, `loss.svg`, and last
/// `model.safetensors`, so that a directory with weights is complete (`tokenizer.json` is there since the run began).
///
/// # Errors
/// [`TrainError::Write`] with the file that could not be written.
pub(crate) fn write(
    dir: &Path,
    config: &TrainConfig,
    tokenizer: &Tokenizer,
    history: &History,
    weights: &[Weight],
) -> Result<(), TrainError> {
    let files = [
        ("config.json", model_config(config, tokenizer)),
        ("generation_config.json", generation_config(tokenizer)),
        ("tokenizer_config.json", tokenizer::companion(config.context)),
        ("history.json", json!({ "config": config, "best": history.best(), "history": history })),
    ];
    for (name, value) in files {
        atomic::replace_with(&dir.join(name), format!("{value:#}\n").as_bytes())?;
    }
    plot::draw(history, &dir.join("loss.svg"))?;
    let path = dir.join(WEIGHTS);
    let bytes =
        serialize(config.dtype, weights).map_err(|error| TrainError::Export { path: path.clone(), message: error.to_string() })?;
    atomic::replace_with(&path, &bytes)
}

/// The file whose presence says that a run has finished.
pub(crate) const WEIGHTS: &str = "model.safetensors";

fn serialize(dtype: WeightType, weights: &[Weight]) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let row = |values: &[f32]| match dtype {
        WeightType::F32 => Row::f32(values),
        WeightType::Bf16 => Row::bf16(values),
    };
    let rows = weights.iter().map(|weight| (&weight.name, row(weight.values).with_shape(&weight.shape)));
    safetensors::serialize(rows, Some(HashMap::from([("format".to_owned(), "pt".to_owned())])))
}

/// `config.json`: the model of a run with this tokenizer, in the words of Hugging Face.
pub(crate) fn model_config(config: &TrainConfig, tokenizer: &Tokenizer) -> Value {
    let dtype = match config.dtype {
        WeightType::Bf16 => "bfloat16",
        WeightType::F32 => "float32",
    };
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": tokenizer.get_vocab_size(true),
        "hidden_size": config.hidden,
        "intermediate_size": config.intermediate,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim(),
        "hidden_act": "silu",
        "max_position_embeddings": config.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": config.rope_theta,
        "attention_bias": false,
        "mlp_bias": false,
        "attention_dropout": 0.0,
        "tie_word_embeddings": true,
        "initializer_range": 0.02,
        "bos_token_id": tokenizer.token_to_id(BEGIN),
        "eos_token_id": tokenizer.token_to_id(END),
        "torch_dtype": dtype,
        "dtype": dtype,
        "use_cache": true,
    })
}

fn generation_config(tokenizer: &Tokenizer) -> Value {
    json!({
        "bos_token_id": tokenizer.token_to_id(BEGIN),
        "eos_token_id": tokenizer.token_to_id(END),
        "do_sample": true,
        "temperature": 0.6,
        "min_p": 0.05,
    })
}
