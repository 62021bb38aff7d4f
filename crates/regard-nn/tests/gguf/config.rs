//! Configurations of files that are nothing but metadata.

use regard_nn::Gguf;
use serde_json::{Value, json};

use super::lies::{entry, header, text};

/// The configuration of a small model of this architecture with some more metadata.
fn config(arch: &str, more: &[(&str, u32, Vec<u8>)]) -> Value {
    let word = |n: u32| n.to_le_bytes().to_vec();
    let sizes = [
        ("embedding_length", 64),
        ("attention.head_count", 4),
        ("feed_forward_length", 96),
        ("block_count", 2),
        ("context_length", 512),
    ];
    let sizes = sizes.map(|(name, size)| (name, 4, word(size)));
    let rest = [("vocab_size", 4, word(100)), ("attention.layer_norm_rms_epsilon", 6, 1e-6f32.to_le_bytes().to_vec())];
    let entries = sizes.iter().chain(&rest).chain(more).map(|(name, kind, value)| entry(&format!("{arch}.{name}"), *kind, value));
    let entries: Vec<Vec<u8>> = entries.chain([entry("general.architecture", 8, &text(arch))]).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), header(b"GGUF", 3, 0, entries.len() as u64, &[&entries.concat()])).unwrap();
    Gguf::open(file.path()).unwrap().config_json().unwrap()
}

#[test]
fn a_model_of_another_type_carries_its_names_and_the_defaults_of_ggml() {
    let expected = json!({
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_act": "silu", "hidden_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 96, "num_hidden_layers": 2, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6, "vocab_size": 100, "tie_word_embeddings": true, "rope_theta": 10000.0
    });
    assert_eq!(config("qwen3", &[("attention.key_length", 4, vec![128, 0, 0, 0])]), expected);
    let windowed = |arch| config(arch, &[("attention.sliding_window", 4, vec![32, 0, 0, 0])])["sliding_window"].clone();
    assert_eq!(windowed("phi3"), 32);
}

#[test]
fn rotary_scalings_are_written_as_hugging_face_does() {
    let kind = |name| ("rope.scaling.type", 8, text(name));
    let factor = |x: f32| ("rope.scaling.factor", 6, x.to_le_bytes().to_vec());
    let scaling = |more: &[_]| config("llama", more).get("rope_scaling").cloned();
    assert_eq!(scaling(&[]), None);
    assert_eq!(scaling(&[kind("none"), factor(4.0)]), None);
    assert_eq!(scaling(&[kind("linear"), factor(4.0)]), Some(json!({ "rope_type": "linear", "factor": 4.0 })));
    let original = ("rope.scaling.original_context_length", 4, vec![128, 0, 0, 0]);
    let yarn = json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128 });
    assert_eq!(scaling(&[kind("yarn"), factor(4.0), original.clone()]), Some(yarn.clone()));
    // ggml multiplies: llama.cpp's `rope_yarn` has mscale *= 1 + 0.1 ln(factor).
    let sharp = ("rope.scaling.attn_factor", 6, 0.5f32.to_le_bytes().to_vec());
    let given = scaling(&[kind("yarn"), factor(4.0), original, sharp]).unwrap();
    assert_eq!(given["attention_factor"], json!(0.5 * (1.0 + 0.1 * 4.0f64.ln())));
}
