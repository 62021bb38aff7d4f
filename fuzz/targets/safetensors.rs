//! Safetensors files, by the checkpoint of a small model.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use regard_nn::{LlamaConfig, Params};

static CONFIG: LazyLock<LlamaConfig> = LazyLock::new(|| {
    let json = r#"{"model_type": "llama", "vocab_size": 8, "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1,
                   "num_attention_heads": 2, "max_position_embeddings": 8, "tie_word_embeddings": true}"#;
    LlamaConfig::from_json(json).unwrap()
});

fuzz_target!(|bytes: &[u8]| {
    let _ = Params::load(&CONFIG, bytes);
});
