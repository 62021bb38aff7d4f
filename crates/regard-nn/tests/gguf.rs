//! GGUF files against Python's gguf, which wrote them (`gguf/make.py`), and against what no writer would write.

#[path = "gguf/config.rs"]
mod config;
#[path = "gguf/lies.rs"]
mod lies;
#[path = "gguf/models.rs"]
mod models;
#[path = "gguf/tokenizers.rs"]
mod tokenizers;

use std::path::PathBuf;

use half::f16;
use regard_nn::{Gguf, GgufKind, GgufValue, GgufValues, LlamaConfig};
use safetensors::SafeTensors;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/gguf").join(name)
}

fn open(name: &str) -> Gguf {
    Gguf::open(&fixture(name)).unwrap()
}

/// Name, shape and numbers of every f32 tensor in a safetensors file.
fn tensors(bytes: &[u8]) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let numbers = |data: &[u8]| data.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
    file.tensors().into_iter().map(|(name, view)| (name, view.shape().to_vec(), numbers(view.data()))).collect()
}

#[test]
fn blocks_of_every_type_widen_to_the_same_bits_as_in_python() {
    let gguf = open("blocks.gguf");
    let expected = tensors(&std::fs::read(fixture("blocks.safetensors")).unwrap());
    assert_eq!(expected.len(), 11);
    for (name, shape, numbers) in expected {
        let tensor = gguf.tensor(&name).unwrap();
        assert!(name.ends_with(&tensor.kind().to_string()), "{name}");
        assert_eq!(tensor.shape(), shape, "{name}");
        assert_eq!(tensor.to_f32(), numbers, "{name}");
        let stored = match tensor.values() {
            GgufValues::F32(values) => values,
            GgufValues::F16(values) => values.into_iter().map(f32::from).collect(),
            GgufValues::Bf16(values) => values.into_iter().map(f32::from).collect(),
        };
        assert_eq!(stored, numbers, "{name}");
    }
}

#[test]
fn metadata_of_every_type_is_read() {
    let gguf = open("blocks.gguf");
    for (name, expected) in [
        ("uint8", GgufValue::Unsigned(200)),
        ("int8", GgufValue::Signed(-100)),
        ("uint16", GgufValue::Unsigned(60_000)),
        ("int16", GgufValue::Signed(-30_000)),
        ("uint32", GgufValue::Unsigned(4_000_000_000)),
        ("int32", GgufValue::Signed(-2_000_000_000)),
        ("uint64", GgufValue::Unsigned(1 << 63)),
        ("int64", GgufValue::Signed(-(1 << 62))),
        ("float32", GgufValue::Float(0.1f32.into())),
        ("float64", GgufValue::Float(0.1)),
        ("string", GgufValue::Text("naïve 🙂")),
    ] {
        assert_eq!(gguf.value(&format!("test.{name}")), Some(expected));
        let many: Vec<_> = gguf.array(&format!("test.many.{name}")).unwrap().iter().collect();
        assert_eq!(many, [expected; 2]);
    }
    assert!(gguf.bool("test.bool").unwrap());
    let many: Vec<_> = gguf.array("test.many.bool").unwrap().iter().collect();
    assert_eq!(many, [GgufValue::Bool(true), GgufValue::Bool(false)]);
    assert_eq!(gguf.u32("test.uint16").unwrap(), 60_000);
    assert_eq!(gguf.text("general.architecture").unwrap(), "qwen2");
}

#[test]
fn metadata_of_another_type_is_refused_with_the_file_the_field_and_what_it_holds() {
    let gguf = open("blocks.gguf");
    let file = fixture("blocks.gguf");
    let text = |error: regard_nn::Error| error.to_string().replace(&file.display().to_string(), "FILE");
    let needed = "an integer from 0 to 4294967295";
    assert_eq!(
        text(gguf.u32("test.uint64").unwrap_err()),
        format!("FILE: GGUF test.uint64 is 9223372036854775808 and must be {needed}")
    );
    assert_eq!(text(gguf.u32("test.string").unwrap_err()), format!("FILE: GGUF test.string is \"naïve 🙂\" and must be {needed}"));
    assert_eq!(text(gguf.f64("missing").unwrap_err()), "FILE: the GGUF file has no missing: a finite number");
    assert_eq!(
        text(gguf.tensor("lm_head.weight").unwrap_err()),
        "FILE: the GGUF file has no tensor \"output.weight\": it holds lm_head.weight"
    );
}

/// The configuration and the tensors of a model that transformers saved and a converter's rules wrote as GGUF.
fn agrees(name: &str) {
    let gguf = open(&format!("{name}.gguf"));
    let dir = fixture("../transformers").join(name);
    let mut expected = LlamaConfig::from_json(&std::fs::read_to_string(dir.join("config.json")).unwrap()).unwrap();
    expected.initializer_range = 0.02; // for training, which no GGUF file knows
    let config = LlamaConfig::from_json(&gguf.config_json().unwrap().to_string()).unwrap();
    assert_eq!(config, expected);
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    let expected = tensors(&bytes);
    for (name, shape, numbers) in &expected {
        let tensor = gguf.tensor(name).unwrap();
        assert_eq!(tensor.shape(), shape, "{name}");
        let halved: Vec<f32> = numbers.iter().map(|&x| f16::from_f32(x).to_f32()).collect();
        if shape.len() == 1 {
            assert_eq!((tensor.kind(), tensor.to_f32()), (GgufKind::F32, numbers.clone()), "{name}");
        } else {
            assert_eq!(tensor.kind(), GgufKind::F16, "{name}");
            assert_eq!(tensor.to_f32(), halved, "{name}");
            assert_eq!(tensor.values(), GgufValues::F16(halved.into_iter().map(f16::from_f32).collect()), "{name}");
        }
    }
    let mut names: Vec<String> = gguf.tensor_names().filter(|name| name != "rope_freqs.weight").collect();
    names.sort();
    let mut needed: Vec<&String> = expected.iter().map(|(name, ..)| name).collect();
    needed.sort();
    assert_eq!(names.iter().collect::<Vec<_>>(), needed);
}

#[test]
fn a_tied_model_with_grouped_heads_is_the_one_that_was_converted() {
    agrees("tied");
}

#[test]
fn a_model_whose_rotary_frequencies_are_scaled_is_the_one_that_was_converted() {
    agrees("scaled");
}

#[test]
fn a_biased_model_with_one_kv_head_and_wide_heads_is_the_one_that_was_converted() {
    agrees("biased");
}
