//! Logits of tiny random models against those of Python's transformers, which `transformers/make.py` wrote down.

use std::path::Path;

use candle_core::{Device, Tensor};
use regard_nn::{Llama, LlamaConfig, Params};
use safetensors::SafeTensors;

/// Every ninth position of two texts of 100 tokens, by the forward pass that is trained.
fn agrees(name: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transformers").join(name);
    let config = LlamaConfig::from_json(&std::fs::read_to_string(dir.join("config.json")).unwrap()).unwrap();
    let params = Params::open(&config, &dir).unwrap();
    let llama = Llama::new(&config, &params).unwrap();
    let bytes = std::fs::read(dir.join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let words =
        |name: &str| expected.tensor(name).unwrap().data().as_chunks().0.iter().map(|w| u32::from_le_bytes(*w)).collect::<Vec<_>>();
    let tokens = words("tokens");
    let logits: Vec<f32> = words("logits").into_iter().map(f32::from_bits).collect();
    let all = llama.forward(&Tensor::from_slice(&tokens, (2, 100), &Device::Cpu).unwrap()).unwrap().to_vec3::<f32>().unwrap();
    for text in 0..2 {
        for (position, expected) in (0..100).step_by(9).zip(logits[text * 12 * 64..].chunks(64)) {
            for (i, (given, expected)) in all[text][position].iter().zip(expected).enumerate() {
                assert!((given - expected).abs() < 1e-4, "{name} {text} {position} {i}: {given}, transformers {expected}");
            }
        }
    }
}

#[test]
fn a_tied_model_with_grouped_heads_agrees_with_transformers() {
    agrees("tied");
}

#[test]
fn a_model_whose_rotary_frequencies_are_scaled_agrees_with_transformers() {
    agrees("scaled");
}

#[test]
fn a_biased_model_with_one_kv_head_and_wide_heads_agrees_with_transformers() {
    agrees("biased");
}
