//! Models that cannot be: each refused with the file and the field, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use regard_nn::{Decoder, DecoderConfig, LayerConfig, RopeScaling};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families").join(name)
}

fn config(name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(fixture(name).join("config.json")).unwrap()).unwrap()
}

fn read(json: &Value) -> Result<DecoderConfig, String> {
    DecoderConfig::from_json(&json.to_string()).map_err(|error| error.to_string())
}

/// A fixture with other fields; `null` takes one away.
fn changed(name: &str, changes: Value) -> Value {
    let mut json = config(name);
    for (field, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(json.as_object_mut().unwrap().remove(field)),
            value => json[field] = value.clone(),
        }
    }
    json
}

#[test]
fn impossible_configurations_are_refused_by_field() {
    for (name, changes, text) in [
        ("llama", json!({"model_type": "mamba", "architectures": null}), "model_type is \"mamba\""),
        (
            "llama",
            json!({"architectures": ["LlamaForSequenceClassification"]}),
            "architecture is \"LlamaForSequenceClassification\"",
        ),
        ("llama", json!({"hidden_size": null}), "no hidden_size"),
        ("llama", json!({"hidden_size": -3}), "\"hidden_size\""),
        ("llama", json!({"hidden_size": 4_000_000_000_000_u64}), "hidden_size is 4000000000000"),
        ("llama", json!({"num_attention_heads": 0}), "num_attention_heads is 0"),
        ("llama", json!({"num_key_value_heads": 3}), "a multiple of num_key_value_heads"),
        ("llama", json!({"num_hidden_layers": 1_000_000_000}), "num_hidden_layers is 1000000000"),
        ("llama", json!({"hidden_act": "mish"}), "activation is \"mish\""),
        ("llama", json!({"rms_norm_eps": -1.0}), "rms_norm_eps is -1"),
        ("llama", json!({"rope_parameters": {"rope_type": "spiral", "rope_theta": 1e4}}), "rope_type is \"spiral\""),
        ("llama", json!({"quantization_config": {"quant_method": "awq"}}), "quantization_config"),
        ("llama", json!({"eos_token_id": 64}), "token 64 is outside the vocabulary of 64"),
        ("llama", json!({"sliding_window": 7}), "sliding_window"),
        ("gemma2", json!({"layer_types": ["full_attention"]}), "layer_types is of 1 blocks"),
        ("gemma2", json!({"layer_types": ["chunked_attention", "full_attention", "full_attention"]}), "chunked_attention"),
        ("smollm3", json!({"no_rope_layers": [1]}), "no_rope_layers is of 1 blocks"),
        ("gpt_oss", json!({"num_experts_per_tok": 9}), "num_experts_per_tok is 9"),
        ("gpt2", json!({"scale_attn_weights": false}), "scale_attn_weights"),
        ("gemma3_text", json!({"use_bidirectional_attention": true}), "use_bidirectional_attention"),
    ] {
        let error = read(&changed(name, changes)).unwrap_err();
        assert!(error.contains(text), "{name}: {error:?} does not say {text:?}");
    }
    assert!(DecoderConfig::from_json("{").unwrap_err().to_string().starts_with("config.json is not valid"));
    assert!(DecoderConfig::from_json("[]").is_err());
}

/// What nearly all files on hubs still say, as transformers reads it.
#[test]
fn older_spellings_mean_the_same() {
    let old = json!({"rope_parameters": null, "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}});
    let llama = read(&changed("llama", old)).unwrap();
    assert_eq!((llama.ropes[0].theta, &llama.ropes[0].scaling), (Some(5e5), &Some(RopeScaling::Linear { factor: 2.0 })));
    let windows = |config: &DecoderConfig| config.layers.iter().map(|layer| layer.window).collect::<Vec<_>>();
    let gemma2 = read(&changed("gemma2", json!({"layer_types": null}))).unwrap();
    assert_eq!(windows(&gemma2), [Some(9), None, Some(9)], "every second block sees everything");
    let gemma3 = json!({"layer_types": null, "sliding_window_pattern": 2, "rope_parameters": null, "rope_theta": 2000.0,
        "rope_local_base_freq": 100.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0}});
    let gemma3 = read(&changed("gemma3_text", gemma3)).unwrap();
    assert_eq!(gemma3.layers[1], LayerConfig { window: None, rope: Some(0) });
    assert_eq!(gemma3.layers[0].rope, Some(1));
    assert_eq!((gemma3.ropes[0].theta, gemma3.ropes[1].theta), (Some(2000.0), Some(100.0)));
    assert_eq!((gemma3.ropes[0].scaling.is_some(), &gemma3.ropes[1].scaling), (true, &None), "the scaling is of the first");
    let qwen2 = read(&changed("qwen2", json!({"use_sliding_window": false}))).unwrap();
    assert_eq!(windows(&qwen2), [None; 3]);
    let mistral = read(&changed("mistral", json!({"sliding_window": null}))).unwrap();
    assert_eq!(mistral.layers[0].window, Some(4096), "where the field is not there");
    let neox = json!({"rope_parameters": null, "rotary_pct": 0.5, "rotary_emb_base": 7000});
    let neox = read(&changed("gpt_neox", neox)).unwrap();
    assert_eq!((neox.ropes[0].theta, neox.ropes[0].partial_rotary_factor), (Some(7000.0), Some(0.5)));
    let qwen3 = read(&changed("qwen3", json!({"head_dim": null}))).unwrap();
    assert_eq!(qwen3.head_dim, 128);
    let smollm3 =
        read(&changed("smollm3", json!({"no_rope_layers": null, "no_rope_layer_interval": null, "tie_word_embeddings": null})))
            .unwrap();
    assert_eq!(smollm3.layers.iter().map(|layer| layer.rope).collect::<Vec<_>>(), [Some(0), Some(0), Some(0), None]);
    assert!(smollm3.tie_word_embeddings);
}

/// A fixture's directory with other weights: what `change` makes of each tensor, or nothing.
fn with_weights(name: &str, change: impl Fn(&str) -> Option<(String, Vec<usize>, Dtype)>) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(fixture(name).join("config.json"), dir.path().join("config.json")).unwrap();
    let bytes = fs::read(fixture(name).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let views = file.tensors().into_iter().filter_map(|(old, view)| {
        let (new, shape, dtype) = change(&old)?;
        let shape = if shape.is_empty() { view.shape().to_vec() } else { shape };
        Some((new, TensorView::new(dtype, shape, view.data()).unwrap()))
    });
    fs::write(dir.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    Decoder::open(dir.path(), None).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn weights_that_do_not_fit_are_refused_by_name() {
    let norm = "model.norm.weight";
    let as_it_is = |name: &str| Some((name.to_owned(), vec![], Dtype::F32));
    let missing = with_weights("llama", |name| as_it_is(name).filter(|_| name != norm));
    assert!(
        missing.contains("no tensor \"model.norm.weight\"") && missing.contains("model.safetensors") || missing.contains("/"),
        "{missing}"
    );
    let shape =
        with_weights("llama", |name| if name == norm { Some((norm.to_owned(), vec![2, 16], Dtype::F32)) } else { as_it_is(name) });
    assert!(shape.contains("\"model.norm.weight\" has shape [2, 16] and the configuration needs [32]"), "{shape}");
    let kind =
        with_weights("llama", |name| if name == norm { Some((norm.to_owned(), vec![], Dtype::I32)) } else { as_it_is(name) });
    assert!(kind.contains("holds I32"), "{kind}");
    let unknown = with_weights("llama", |name| {
        if name == norm { Some(("model.norms.weight".to_owned(), vec![], Dtype::F32)) } else { as_it_is(name) }
    });
    assert!(unknown.contains("model.norm"), "{unknown}");
    // The embedding and its copy differ: here the copy is another table of that shape.
    let mut json = config("llama");
    json["tie_word_embeddings"] = true.into();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), json.to_string()).unwrap();
    fs::copy(fixture("llama").join("model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    let untied = Decoder::open(dir.path(), None).unwrap_err().to_string();
    assert!(untied.contains("\"lm_head.weight\" differs from the embedding"), "{untied}");
}

#[test]
fn damaged_files_are_errors_and_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    fs::copy(fixture("llama").join("config.json"), dir.path().join("config.json")).unwrap();
    let whole = fs::read(fixture("llama").join("model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let open = |bytes: &[u8]| {
        fs::remove_file(&path).ok(); // a file that is mapped must not be shortened
        fs::write(&path, bytes).unwrap();
        Decoder::open(dir.path(), None)
    };
    for cut in [0, 1, 7, 8, 9, header - 1, header, header + 1, whole.len() - 1] {
        let error = open(&whole[..cut]).unwrap_err().to_string();
        assert!(error.contains("model.safetensors"), "{cut}: {error}");
    }
    let mut state = 1_u64;
    for _ in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes[(state >> 33) as usize % header] = (state >> 20) as u8;
        }
        drop(open(&bytes)); // an error, or a model whose header still says the same
    }
    let index = json!({"weight_map": {"a": "../../etc/passwd"}});
    fs::remove_file(&path).unwrap();
    fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let error = Decoder::open(dir.path(), None).unwrap_err().to_string();
    assert!(error.contains("passwd") && error.contains("not a file name"), "{error}");
    fs::write(dir.path().join("model.safetensors.index.json"), r#"{"weight_map": {"a": "part-1.safetensors"}}"#).unwrap();
    let error = Decoder::open(dir.path(), None).unwrap_err().to_string();
    assert!(error.contains("cannot read") && error.contains("part-1.safetensors"), "{error}");
}
