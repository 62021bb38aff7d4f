//! BERT's hidden states and embeddings against those of Python's transformers, which `families/make.py` wrote down; and bad files.

use std::path::{Path, PathBuf};

use regard_nn::{Embedder, Encoder, EncoderConfig, Pooling, Precision};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/bert")
}

fn encoder() -> Encoder {
    Encoder::open(&folder(), None).unwrap()
}

/// Two texts of so many tokens, of which every ninth position is written down; of the second the beginning alone too.
const LENGTH: usize = 100;
const POSITIONS: usize = 12;
const SHORT: usize = 37;
const HIDDEN: usize = 32;

/// What transformers computed.
struct Expected {
    tokens: Vec<u32>,
    types: Vec<u32>,
    last: Vec<f32>,
    mean: Vec<f32>,
    short_mean: Vec<f32>,
}

impl Expected {
    fn read() -> Self {
        let bytes = std::fs::read(folder().join("expected.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let words = |name: &str| -> Vec<u32> {
            file.tensor(name).unwrap().data().as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
        };
        let numbers = |name: &str| words(name).into_iter().map(f32::from_bits).collect();
        Expected {
            tokens: words("tokens"),
            types: words("token_types"),
            last: numbers("last"),
            mean: numbers("mean"),
            short_mean: numbers("short_mean"),
        }
    }

    fn text(&self, text: usize, tokens: usize) -> (&[u32], &[u32]) {
        (&self.tokens[text * LENGTH..][..tokens], &self.types[text * LENGTH..][..tokens])
    }
}

#[track_caller]
fn close(given: &[f32], expected: &[f32], bound: f32, what: &str) {
    assert_eq!(given.len(), expected.len(), "{what}");
    for (i, (given, expected)) in given.iter().zip(expected).enumerate() {
        assert!((given - expected).abs() < bound, "{what}, element {i}: {given}, transformers {expected}");
    }
}

/// The mean of the rows, of length 1.
fn direction(rows: &[f32]) -> Vec<f32> {
    let sums: Vec<f32> = (0..HIDDEN).map(|i| rows[i..].iter().step_by(HIDDEN).sum()).collect();
    let length = sums.iter().map(|x| x * x).sum::<f32>().sqrt();
    sums.iter().map(|x| x / length).collect()
}

#[test]
fn hidden_states_are_those_of_transformers() {
    let (encoder, expected) = (encoder(), Expected::read());
    for text in 0..2 {
        let (tokens, types) = expected.text(text, LENGTH);
        let hidden = encoder.hidden(tokens, types).unwrap();
        for position in (0..LENGTH).step_by(9) {
            let expected = &expected.last[(text * POSITIONS + position / 9) * HIDDEN..][..HIDDEN];
            close(&hidden[position * HIDDEN..][..HIDDEN], expected, 1e-4, &format!("text {text}, position {position}"));
        }
        close(&direction(&hidden), &direction(&expected.mean[text * HIDDEN..][..HIDDEN]), 1e-5, "mean");
    }
    let (tokens, types) = expected.text(1, SHORT);
    close(&direction(&encoder.hidden(tokens, types).unwrap()), &direction(&expected.short_mean), 1e-5, "37 tokens alone");
}

#[test]
fn token_types_are_zeros_where_none_are_given() {
    let (encoder, tokens) = (encoder(), [5, 6, 7]);
    assert_eq!(encoder.hidden(&tokens, &[]).unwrap(), encoder.hidden(&tokens, &[0; 3]).unwrap());
    assert_ne!(encoder.hidden(&tokens, &[]).unwrap(), encoder.hidden(&tokens, &[1; 3]).unwrap());
}

#[test]
fn weights_in_bf16_say_nearly_the_same() {
    let (narrow, expected) = (Encoder::open(&folder(), Some(Precision::Bf16)).unwrap(), Expected::read());
    let (tokens, types) = expected.text(0, LENGTH);
    close(&direction(&narrow.hidden(tokens, types).unwrap()), &direction(&expected.mean[..HIDDEN]), 0.02, "bf16");
}

/// A tensor of a file that is to be written.
type Entry = (String, Vec<usize>, Vec<u8>);

/// The fixture with its tensors and its configuration changed.
fn changed(tensors: impl Fn(&mut Vec<Entry>), config: impl Fn(&mut Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(folder().join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut entries: Vec<Entry> =
        file.tensors().into_iter().map(|(name, view)| (name, view.shape().to_vec(), view.data().to_vec())).collect();
    tensors(&mut entries);
    let views = entries.iter().map(|(name, shape, data)| (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    std::fs::write(dir.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    let mut json = serde_json::from_slice(&std::fs::read(folder().join("config.json")).unwrap()).unwrap();
    config(&mut json);
    std::fs::write(dir.path().join("config.json"), json.to_string()).unwrap();
    dir
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: regard_nn::Result<T>, parts: &[&str]) {
    let error = result.unwrap_err().to_string();
    parts.iter().for_each(|part| assert!(error.contains(part), "{part:?} is not in: {error}"));
}

#[test]
fn files_of_models_with_heads_and_old_files_are_read() {
    let renamed = |change: &dyn Fn(&str) -> String| {
        changed(
            |entries| {
                entries.retain(|(name, ..)| !name.starts_with("pooler."));
                entries.iter_mut().for_each(|(name, ..)| *name = change(name));
                entries.push((change("embeddings.position_ids"), vec![1], vec![0; 4]));
                entries.push(("cls.predictions.bias".to_owned(), vec![1], vec![0; 4]));
            },
            |_| {},
        )
    };
    let old = |name: &str| name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
    let hidden = encoder().hidden(&[1, 2, 3], &[]).unwrap();
    for dir in [renamed(&|name| format!("bert.{name}")), renamed(&old), renamed(&|name| format!("bert.{}", old(name)))] {
        assert_eq!(Encoder::open(dir.path(), None).unwrap().hidden(&[1, 2, 3], &[]).unwrap(), hidden);
    }
}

#[test]
fn tensors_that_are_not_there_misshapen_or_too_many_are_refused_by_name() {
    let name = "encoder.layer.1.attention.self.key.weight";
    let missing = changed(|all| all.retain(|(given, ..)| given != name), |_| {});
    refused(Encoder::open(missing.path(), None), &[name, "[32, 32]", "no tensor"]);
    let flat = |all: &mut Vec<Entry>| all.iter_mut().filter(|(given, ..)| given == name).for_each(|entry| entry.1 = vec![16, 64]);
    refused(Encoder::open(changed(flat, |_| {}).path(), None), &[name, "[16, 64]", "[32, 32]"]);
    let fewer = changed(|_| {}, |config| config["num_hidden_layers"] = json!(1));
    refused(Encoder::open(fewer.path(), None), &["encoder.layer.1.", "does not have"]);
    let longer = changed(|_| {}, |config| config["max_position_embeddings"] = json!(129));
    refused(Encoder::open(longer.path(), None), &["embeddings.position_embeddings.weight", "[128, 32]", "[129, 32]"]);
}

#[test]
fn configurations_that_would_compute_something_else_are_refused_by_name() {
    let whole: Value = serde_json::from_slice(&std::fs::read(folder().join("config.json")).unwrap()).unwrap();
    let with = |field: &str, value: Value| {
        let mut config = whole.clone();
        config[field] = value;
        EncoderConfig::from_json(&config.to_string())
    };
    refused(with("position_embedding_type", json!("relative_key")), &["position_embedding_type", "relative_key", "absolute"]);
    refused(with("model_type", json!("deberta")), &["model_type", "deberta", "bert"]);
    refused(with("model_type", Value::Null), &["model_type"]);
    refused(with("hidden_act", json!("mish")), &["mish", "gelu"]);
    refused(with("is_decoder", json!(true)), &["is_decoder"]);
    refused(with("num_attention_heads", json!(5)), &["hidden_size is 32", "multiple of num_attention_heads, which is 5"]);
    refused(with("hidden_size", json!(0)), &["hidden_size is 0"]);
    refused(with("num_hidden_layers", Value::Null), &["num_hidden_layers"]);
    refused(with("layer_norm_eps", json!(-1.0)), &["layer_norm_eps is -1"]);
    refused(EncoderConfig::from_json("{"), &["config.json is not valid"]);
    let defaults = with("layer_norm_eps", Value::Null).unwrap();
    assert_eq!((defaults.layer_norm_eps, defaults.type_vocab_size), (1e-12, 2));
}

#[test]
fn texts_that_do_not_fit_are_refused() {
    let encoder = encoder();
    refused(encoder.hidden(&[1; 129], &[]), &["129 tokens", "128 tokens"]);
    refused(encoder.hidden(&[], &[]), &["at least one token"]);
    refused(encoder.hidden(&[64], &[]), &["token 64", "64 tokens"]);
    refused(encoder.hidden(&[1, 2], &[0]), &["token types", "[1]", "2 tokens"]);
    refused(encoder.hidden(&[1], &[2]), &["token type 2", "2 types"]);
}

/// A tokenizer of the words w3 … w63, with [CLS] and [SEP] around a text.
fn tokenizer() -> Value {
    let words = (3..64).map(|i| (format!("w{i}"), json!(i)));
    let marks = [("[UNK]", 0), ("[CLS]", 1), ("[SEP]", 2)].map(|(name, id)| (name.to_owned(), json!(id)));
    let vocabulary: serde_json::Map<String, Value> = marks.into_iter().chain(words).collect();
    json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "decoder": null,
        "truncation": { "max_length": 4, "strategy": "LongestFirst", "stride": 0 }, "padding": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1] },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]" },
    })
}

/// The fixture with a tokenizer and these files beside it.
fn with_files(files: &[(&str, Value)]) -> tempfile::TempDir {
    let dir = changed(|_| {}, |_| {});
    for (name, json) in [("tokenizer.json", tokenizer())].iter().chain(files) {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, json.to_string()).unwrap();
    }
    dir
}

fn module(class: &str, path: &str) -> Value {
    json!({ "type": format!("sentence_transformers.models.{class}"), "path": path })
}

fn modules(more: &[Value]) -> (&'static str, Value) {
    ("modules.json", Value::Array([&[module("Transformer", ""), module("Pooling", "1_Pooling")], more].concat()))
}

#[test]
fn an_embedding_is_the_normalised_mean_where_no_file_says_otherwise() {
    let embedder = Embedder::open(with_files(&[]).path()).unwrap();
    assert_eq!((embedder.pooling(), embedder.is_normalized()), (Pooling::Mean, true));
    assert_eq!(embedder.tokens("w7 w9 w63 w11").unwrap(), [1, 7, 9, 63, 11, 2]);
    let states = encoder().hidden(&[1, 7, 9, 63, 11, 2], &[]).unwrap();
    close(&embedder.embed("w7 w9 w63 w11", Pooling::Mean).unwrap(), &direction(&states), 1e-6, "mean");
    close(&embedder.embed("w7 w9 w63 w11", Pooling::Cls).unwrap(), &direction(&states[..HIDDEN]), 1e-6, "first token");
    assert_eq!(embedder.normalized(false).embed("w7 w9 w63 w11", Pooling::Cls).unwrap(), states[..HIDDEN]);
}

#[test]
fn the_files_of_sentence_transformers_are_followed() {
    let cls = ("1_Pooling/config.json", json!({ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false }));
    let limits = ("sentence_bert_config.json", json!({ "max_seq_length": 5, "do_lower_case": true }));
    let embedder = Embedder::open(with_files(&[modules(&[]), cls.clone(), limits]).path()).unwrap();
    assert_eq!((embedder.pooling(), embedder.is_normalized()), (Pooling::Cls, false));
    assert_eq!(embedder.tokens("W7 w8 w9 w10 w11 w12").unwrap(), [1, 7, 8, 9, 2]);
    let whole = Embedder::open(with_files(&[modules(&[module("Normalize", "2_Normalize")]), cls]).path()).unwrap();
    assert!(whole.is_normalized());
    assert_eq!(whole.tokens(&"w5 ".repeat(300)).unwrap().len(), 128);
    assert_eq!(whole.embed(&"w5 ".repeat(300), Pooling::Mean).unwrap().len(), HIDDEN);
    assert_eq!(whole.tokens("").unwrap(), [1, 2]);
}

#[test]
fn files_of_sentence_transformers_that_say_something_else_are_refused_by_name() {
    let open = |files: &[(&str, Value)]| Embedder::open(with_files(files).path());
    let pooling = |config: Value| open(&[("1_Pooling/config.json", config)]);
    refused(pooling(json!({ "pooling_mode_max_tokens": true })), &["1_Pooling", "pooling_mode_max_tokens"]);
    let both = json!({ "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true });
    refused(pooling(both), &["pooling_mode_cls_token with pooling_mode_mean_tokens"]);
    refused(pooling(json!({ "pooling_mode": "lasttoken" })), &["lasttoken"]);
    refused(pooling(json!({ "pooling_mode_cls_token": 3 })), &["pooling_mode_cls_token", "boolean"]);
    refused(open(&[modules(&[module("Dense", "2_Dense")])]), &["modules.json", "sentence_transformers.models.Dense"]);
    refused(open(&[modules(&[module("Pooling", "../1_Pooling")])]), &["modules.json", "../1_Pooling", "folder"]);
    refused(open(&[("modules.json", json!({}))]), &["modules.json", "not valid"]);
    refused(open(&[("sentence_bert_config.json", json!({ "max_seq_length": 2 }))]), &["max_seq_length is 2", "more than 2"]);
    refused(open(&[("sentence_bert_config.json", json!({ "max_seq_length": 0 }))]), &["max_seq_length is 0"]);
    refused(Embedder::open(&folder()), &["tokenizer.json"]);
}

#[test]
fn an_embedding_of_damaged_weights_is_refused() {
    let damaged = |all: &mut Vec<Entry>| all.iter_mut().for_each(|(_, _, data)| data[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    let dir = changed(damaged, |_| {});
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer().to_string()).unwrap();
    refused(Embedder::open(dir.path()).unwrap().embed("w7", Pooling::Mean), &["NaN", "damaged"]);
}
