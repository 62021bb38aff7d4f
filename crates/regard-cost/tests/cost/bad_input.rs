//! What cannot be is refused, by name.

use std::path::Path;

use regard_cost::{Chip, Cost, Dtype, Error, Question, Shape};
use serde_json::{Map, Value, json};

use super::{ask, train};

fn refused(config: &Value) -> String {
    Shape::from_json(&config.to_string()).unwrap_err().to_string()
}

fn fixture(name: &str) -> Map<String, Value> {
    let path = format!("{}/../regard-nn/tests/families/{name}/config.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn preset_config(name: &str) -> Map<String, Value> {
    let presets: Vec<Value> = serde_json::from_str(include_str!("../../src/presets.json")).unwrap();
    presets.iter().find(|preset| preset["name"] == name).unwrap()["config"].as_object().unwrap().clone()
}

#[test]
fn unknown_names_are_answered_with_the_known_ones() {
    let text = Shape::preset("gpt5").unwrap_err().to_string();
    assert!(text.starts_with("there is no preset \"gpt5\"; the presets are gpt2, gpt3, ") && text.contains("story"), "{text}");
    let text = Chip::named("abacus").unwrap_err().to_string();
    assert!(text.starts_with("there is no chip \"abacus\"; the chips are h100, "), "{text}");
    let text = "int7".parse::<Dtype>().unwrap_err().to_string();
    assert!(text.starts_with("dtype is \"int7\" and must be one of f32, f16, bf16"), "{text}");
    assert_eq!(["float32", "f16", "bfloat16"].map(|name| name.parse::<Dtype>().unwrap()), [Dtype::F32, Dtype::F16, Dtype::Bf16]);
}

#[test]
fn nothing_is_refused() {
    let shape = Shape::preset("gpt2").unwrap();
    for (length, batch, argument) in [(0, 1, "length"), (1, 0, "batch")] {
        let error = Cost::of(&shape, &ask(length, batch, Dtype::F32), None).unwrap_err();
        assert_eq!(error.to_string(), format!("{argument} is 0 and must be at least 1"));
    }
}

#[test]
fn a_missing_field_is_named() {
    let needed = [
        ("gpt2", &["vocab_size", "n_layer", "n_head", "n_embd", "n_positions"][..]),
        ("llama-3-8b", &["vocab_size", "num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size"]),
        ("opt-13b", &["ffn_dim", "max_position_embeddings"]),
        ("mixtral-8x7b", &["num_local_experts", "num_experts_per_tok"]),
        ("deepseek-v2", &["kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "moe_intermediate_size"]),
    ];
    let other = [("n_layer", "num_hidden_layers"), ("n_head", "num_attention_heads"), ("n_embd", "hidden_size")];
    for (name, fields) in needed {
        for &field in fields {
            let mut config = preset_config(name);
            config.remove(field).unwrap();
            let error = refused(&Value::Object(config));
            let told = other.iter().find(|(given, _)| *given == field).map_or(field, |(_, told)| *told);
            let told = if field == "n_positions" { "max_position_embeddings" } else { told };
            assert!(error.starts_with(&format!("config.json has no field {told:?}, which a model of type ")), "{name}: {error}");
        }
    }
    assert!(refused(&json!({})).contains("\"model_type\""));
}

#[test]
fn impossible_fields_are_refused() {
    let with = |name: &str, field: &str, value: Value| {
        let mut config = fixture(name);
        config.insert(field.to_owned(), value);
        refused(&Value::Object(config))
    };
    let cases = [
        ("llama", "hidden_size", json!(0), "hidden_size is 0 and must be from 1 to 2^30 - 1"),
        ("llama", "vocab_size", json!(1u64 << 30), "vocab_size is 1073741824 and must be from 1 to 2^30 - 1"),
        ("llama", "num_hidden_layers", json!(1_000_000), "num_hidden_layers is 1000000 and must be at most 10000"),
        (
            "llama",
            "num_key_value_heads",
            json!(3),
            "num_attention_heads is 4 and must be a multiple of num_key_value_heads, which is 3",
        ),
        ("gpt2", "n_head", json!(5), "hidden_size is 32 and must be a multiple of num_attention_heads, which is 5"),
        ("llama", "vocab_size", json!("many"), "the field \"vocab_size\" is not as it must be"),
        ("llama", "vocab_size", json!(-1), "the field \"vocab_size\" is not as it must be"),
        ("llama", "sliding_window", json!(8), "sliding_window is 8; supported: models of this type without it"),
        ("gemma2", "layer_types", json!(["full_attention"]), "layer_types is of 1 layers and must be of 3, num_hidden_layers"),
        ("gemma2", "layer_types", json!(["full_attention", "mamba", "full_attention"]), "layer_types is mamba; supported: "),
        (
            "gpt_oss",
            "num_experts_per_tok",
            json!(5),
            "num_experts_per_tok is 5 and must be at most the number of experts, which is 4",
        ),
        ("gpt2", "add_cross_attention", json!(true), "add_cross_attention is true; supported: "),
        ("llama", "model_type", json!("rwkv"), "model_type is rwkv; supported: llama, mistral, "),
    ];
    for (name, field, value, expected) in cases {
        let error = with(name, field, value);
        assert!(error.starts_with(expected), "{field}: {error}");
    }
    assert!(refused(&Value::Object(fixture("t5"))).starts_with("model_type is t5; supported: llama, "));
}

#[test]
fn unreadable_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Shape::open(dir.path()).unwrap_err();
    assert!(matches!(&error, Error::Read { path, .. } if path.ends_with("config.json")), "{error}");
    let file = dir.path().join("config.json");
    for text in ["", "[]", "{", "\u{0}", "nul"] {
        std::fs::write(&file, text).unwrap();
        assert!(Shape::open(dir.path()).unwrap_err().to_string().starts_with("config.json is not as it must be: "), "{text}");
    }
    assert!(Shape::open(Path::new("/no/such/model")).unwrap_err().to_string().starts_with("cannot read /no/such/model: "));
    std::fs::write(&file, Value::Object(fixture("llama")).to_string()).unwrap();
    assert_eq!(Shape::open(dir.path()).unwrap(), Shape::open(&file).unwrap());
}

/// Figures that 128 bits cannot hold are refused, never wrapped; what only 64 bits could not is counted.
#[test]
fn absurd_sizes_are_refused() {
    let gpt3 = Shape::preset("gpt3").unwrap();
    let chip = Chip::named("h100").unwrap();
    for (length, batch) in [(u64::MAX, 1 << 20), (u64::MAX, u64::MAX), (1 << 60, 1 << 30)] {
        let error = Cost::of(&gpt3, &train(length, batch, Dtype::F32), Some(&chip)).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
        assert!(error.to_string().contains(&format!("length {length} or batch {batch} is too large")), "{error}");
    }
    let large = Cost::of(&gpt3, &train(10_000_000, 64, Dtype::F16), Some(&chip)).unwrap();
    // 96 layers, 96 heads, n(n + 1)/2 pairs of 4·128 + 2 operations, 64 sequences.
    let flops = 96 * 96 * (10_000_000u128 * 10_000_001 / 2) * (4 * 128 + 2) * 64;
    assert!(flops > u128::from(u64::MAX));
    assert_eq!(large.prefill.attention.flops, flops);
    let json = serde_json::to_string(&large).unwrap();
    assert!(json.contains(&format!("{flops}")), "integers are whole at any size");
}

/// The largest sizes that a configuration can have: an error or a figure, and no panic.
#[test]
fn the_largest_configurations_do_not_wrap() {
    let most = (1u64 << 30) - 1;
    let config = json!({"model_type": "deepseek_v2", "hidden_size": most, "num_hidden_layers": 10_000, "num_attention_heads": most,
        "q_lora_rank": most, "kv_lora_rank": most, "qk_nope_head_dim": most, "qk_rope_head_dim": most, "v_head_dim": most,
        "intermediate_size": most, "moe_intermediate_size": most, "n_routed_experts": most, "n_shared_experts": most,
        "num_experts_per_tok": most, "vocab_size": most});
    let shape = Shape::from_json(&config.to_string()).unwrap();
    for length in [1, 1 << 20, u64::MAX] {
        let ask = Question { length, batch: length, dtype: Dtype::F32, train: true, memory: Some(u64::MAX) };
        match Cost::of(&shape, &ask, Some(&Chip::named("l4").unwrap())) {
            Ok(cost) => assert_eq!((length, cost.parameters.total.get() > 1 << 100), (1, true)),
            Err(error) => assert!(matches!(error, Error::TooLarge { .. }), "{error}"),
        }
    }
}
