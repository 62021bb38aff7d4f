//! T5 against Python's transformers, whose encoder outputs, logits and greedy tokens `families/make.py` wrote down.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use regard::{RelativeBias, View};
use regard_nn::{Activation, Generate, Model, Precision, T5, T5Config};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families").join(name)
}

/// Two texts and two replies of so many tokens, of which every ninth position is written down.
const TEXT: usize = 100;
const REPLY: usize = 60;
const EVERY: usize = 9;

/// What transformers computed, as words.
fn expected(name: &str) -> HashMap<String, Vec<u32>> {
    let bytes = std::fs::read(folder(name).join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let words = |view: &TensorView<'_>| view.data().as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    file.tensors().iter().map(|(name, view)| (name.clone(), words(view))).collect()
}

#[track_caller]
fn close(given: &[f32], expected: &[u32], bound: f32, what: &str) {
    assert_eq!(given.len(), expected.len(), "{what}");
    for (i, (given, expected)) in given.iter().zip(expected).enumerate() {
        let expected = f32::from_bits(*expected);
        assert!((given - expected).abs() < bound, "{what}, element {i}: {given}, transformers {expected}");
    }
}

/// Every ninth row.
fn thinned(rows: &[f32], width: usize) -> Vec<f32> {
    rows.chunks(width).step_by(EVERY).flatten().copied().collect()
}

fn largest(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32
}

/// The likeliest reply to a text.
fn reply(t5: &T5, text: &[u32], count: usize) -> Vec<u32> {
    let mut cache = t5.cache(&t5.encode(text).unwrap(), count).unwrap();
    let mut tokens = vec![t5.config().decoder_start_token_id];
    while tokens.len() <= count {
        tokens.push(largest(&t5.step(&tokens[tokens.len() - 1..], &mut cache).unwrap()));
    }
    tokens.split_off(1)
}

fn agrees(name: &str) {
    let (t5, expected) = (T5::open(&folder(name), None).unwrap(), expected(name));
    let (vocab, width) = (t5.config().vocab_size, t5.config().d_model);
    let texts = || expected["tokens"].chunks(TEXT).zip(expected["decoder_tokens"].chunks(REPLY)).enumerate();
    for (i, (text, reply)) in texts() {
        let encoded = t5.encode(text).unwrap();
        let part = |name: &str| expected[name].chunks(expected[name].len() / 2).nth(i).unwrap();
        close(&thinned(encoded.output(), width), part("encoder"), 1e-4, &format!("{name}, text {i}, encoder"));
        let all = t5.trace(reply, &mut t5.cache(&encoded, REPLY).unwrap()).unwrap();
        close(&thinned(&all, vocab), part("logits"), 1e-4, &format!("{name}, text {i}, logits"));
    }
    let replies: Vec<&[u32]> = expected["decoder_tokens"].chunks(REPLY).collect();
    let short = t5.encode(&expected["tokens"][TEXT..][..37]).unwrap();
    let short = t5.step(replies[1], &mut t5.cache(&short, REPLY).unwrap()).unwrap();
    close(&short, &expected["short_logits"], 1e-4, &format!("{name}, a short text"));
    let greedy = &expected["greedy"];
    assert_eq!(&reply(&t5, &expected["tokens"][..40], greedy.len()), greedy, "{name}");
}

#[test]
fn tied_and_plain_agrees_with_transformers() {
    agrees("t5");
}

#[test]
fn untied_and_gated_agrees_with_transformers() {
    agrees("t5_gated");
}

/// A directory as transformers saves it, whose tokenizer has the words w0 … w63.
fn directory(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(folder(name).join(file), dir.path().join(file)).unwrap();
    }
    let words: serde_json::Map<String, serde_json::Value> = (0..64).map(|i| (format!("w{i}"), i.into())).collect();
    let start = serde_json::json!({ "id": 0, "content": "w0", "special": true, "normalized": false, "single_word": false, "lstrip": false,
                                    "rstrip": false });
    let tokenizer = serde_json::json!({
        "version": "1.0", "added_tokens": [start], "pre_tokenizer": { "type": "WhitespaceSplit" },
        "model": { "type": "WordLevel", "vocab": words, "unk_token": "w2" },
    });
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    dir
}

fn text(tokens: &[u32]) -> String {
    tokens.iter().map(|token| format!("w{token}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_model_replies_as_transformers_generates() {
    for name in ["t5", "t5_gated"] {
        let (dir, expected) = (directory(name), expected(name));
        let (prompt, greedy) = (text(&expected["tokens"][..40]), &expected["greedy"]);
        let generate = |cached| {
            let options = Generate { max_tokens: greedy.len(), cached, ..Generate::default() };
            let model = Model::open(dir.path()).unwrap();
            model.generate(&prompt, &options, &AtomicBool::new(false), &mut |_| ControlFlow::Continue(())).unwrap()
        };
        let generation = generate(true);
        assert_eq!((&generation.tokens, generation.prompt_tokens), (greedy, 40), "{name}");
        assert_eq!(generation.text, text(greedy), "{name}");
        assert_eq!(generate(false).tokens, *greedy, "{name}, without a cache");
        assert!(generation.kv_bytes > 40 * 2 * 4 * 6 * 4, "the text's keys and values are in use too");
    }
}

#[test]
fn a_generation_config_may_begin_replies_with_another_token() {
    let dir = directory("t5");
    let replied = |start: u32| {
        std::fs::write(dir.path().join("generation_config.json"), format!("{{\"decoder_start_token_id\": {start}}}")).unwrap();
        let model = Model::open(dir.path()).map_err(|error| error.to_string())?;
        Ok::<_, String>(model.t5().unwrap().config().decoder_start_token_id)
    };
    assert_eq!(replied(7), Ok(7));
    assert!(replied(64).unwrap_err().contains("token 64 is outside the vocabulary of 64 tokens"));
}

#[test]
fn step_by_step_has_the_bits_of_all_at_once() {
    for (name, precision) in [("t5", None), ("t5_gated", None), ("t5_gated", Some(Precision::Bf16))] {
        let (t5, expected) = (T5::open(&folder(name), precision).unwrap(), expected(name));
        let (encoded, reply) = (t5.encode(&expected["tokens"][..TEXT]).unwrap(), &expected["decoder_tokens"][..REPLY]);
        let all = t5.trace(reply, &mut t5.cache(&encoded, REPLY).unwrap()).unwrap();
        for pieces in [1, 7, 59] {
            let mut cache = t5.cache(&encoded, REPLY).unwrap();
            for piece in reply.chunks(pieces) {
                let logits = t5.step(piece, &mut cache).unwrap();
                assert_eq!(logits, all[(cache.len() - 1) * t5.config().vocab_size..][..logits.len()], "{name}, {}", cache.len());
            }
        }
    }
}

/// The first distance of a bucket, and the bucket.
type Firsts = &'static [(i32, u32)];

/// Those of 32 buckets up to 128 in a decoder.
#[rustfmt::skip]
const DECODER: Firsts = &[
    (16, 16), (19, 17), (21, 18), (24, 19), (27, 20), (31, 21), (35, 22), (40, 23),
    (46, 24), (52, 25), (59, 26), (67, 27), (77, 28), (87, 29), (99, 30), (113, 31),
];

/// Where torch has the first distance of a bucket, for keys before the query.
#[test]
fn buckets_begin_where_those_of_torch_do() {
    let cases: [(usize, u32, bool, Firsts); 4] = [
        (32, 128, true, &[(12, 9), (16, 10), (23, 11), (32, 12), (46, 13), (64, 14), (91, 15)]),
        (16, 48, true, &[(4, 4), (8, 5), (14, 6), (26, 7)]),
        (32, 128, false, DECODER),
        (16, 48, false, &[(8, 8), (11, 9), (13, 10), (16, 11), (20, 12), (25, 13), (31, 14), (39, 15)]),
    ];
    for (buckets, max, bidirectional, firsts) in cases {
        let zeros = vec![0.0; buckets];
        let table = View::new(&zeros, [1, 1, 1, buckets]).unwrap();
        let bias = if bidirectional { RelativeBias::bidirectional(table, max) } else { RelativeBias::causal(table, max) }.unwrap();
        for distance in 0..300 {
            let far = firsts.iter().rev().find(|(first, _)| distance >= *first).map(|(_, bucket)| *bucket);
            let bucket = far.unwrap_or(if bidirectional { distance.min(buckets as i32 / 4) } else { distance } as u32);
            assert_eq!(bias.bucket(-distance), bucket, "{distance} of {buckets} buckets, {bidirectional}");
            let after = if bidirectional && distance > 0 { bucket + buckets as u32 / 2 } else { 0 };
            assert_eq!(bias.bucket(distance), after, "{distance} after, of {buckets} buckets, {bidirectional}");
        }
    }
}

/// The `config.json` of a fixture, with some fields set, or removed where null.
fn config(name: &str, changes: &[(&str, serde_json::Value)]) -> String {
    let text = std::fs::read_to_string(folder(name).join("config.json")).unwrap();
    let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    for (field, value) in changes {
        fields.insert((*field).to_owned(), value.clone());
        fields.retain(|_, value| !value.is_null());
    }
    serde_json::Value::Object(fields).to_string()
}

#[test]
fn configurations_of_all_ages_are_read() {
    let read = |changes: &[_]| T5Config::from_json(&config("t5", changes)).unwrap();
    let null = serde_json::Value::Null;
    assert_eq!(read(&[("num_decoder_layers", null.clone())]).num_decoder_layers, 3);
    let scales = |scale: serde_json::Value, tied: serde_json::Value| {
        read(&[("scale_decoder_outputs", scale), ("tie_word_embeddings", tied)]).scale_decoder_outputs
    };
    assert!(scales(null.clone(), null.clone()) && scales(null.clone(), true.into()) && scales(true.into(), false.into()));
    assert!(!scales(null, false.into()) && !scales(false.into(), true.into()));
    for (given, activation, gated) in [
        ("relu", Activation::Relu, false),
        ("gelu", Activation::Gelu, false),
        ("gated-gelu", Activation::GeluTanh, true),
        ("gated-silu", Activation::Silu, true),
    ] {
        let layer = read(&[("feed_forward_proj", given.into())]).feed_forward;
        assert_eq!((layer.activation, layer.gated), (activation, gated), "{given}");
    }
}

#[test]
fn impossible_configurations_are_refused() {
    let refused = |field, value: serde_json::Value| T5Config::from_json(&config("t5", &[(field, value)])).unwrap_err().to_string();
    let cases = [
        ("feed_forward_proj", "gated-tanh".into(), "feed_forward_proj is \"gated-tanh\", and this version runs relu, gelu"),
        ("model_type", serde_json::Value::Null, "the configuration has no model_type"),
        ("model_type", "mt5".into(), "model_type is \"mt5\", and this version runs t5 only"),
        ("d_kv", serde_json::Value::Null, "the configuration has no d_kv"),
        ("num_heads", 0.into(), "num_heads is 0 and must be from 1 to 2^30 - 1"),
        ("relative_attention_num_buckets", 6.into(), "relative_attention_num_buckets is 6 and must be a multiple of 4"),
        ("relative_attention_max_distance", 8.into(), "relative_attention_max_distance is 8 and must be more than half"),
        ("decoder_start_token_id", 64.into(), "token 64 is outside the vocabulary of 64 tokens"),
    ];
    for (field, value, text) in cases {
        let error = refused(field, value);
        assert!(error.starts_with(text), "{field}: {error}");
    }
}

/// Tensors by name, each a shape and bytes.
type Tensors = HashMap<String, (Vec<usize>, Vec<u8>)>;

/// A fixture with other tensors and another `config.json`.
fn opened(name: &str, json: &str, change: impl Fn(&mut Tensors)) -> Result<T5, String> {
    let bytes = std::fs::read(folder(name).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let owned = |view: &TensorView<'_>| (view.shape().to_vec(), view.data().to_vec());
    let mut tensors: Tensors = file.tensors().iter().map(|(name, view)| (name.clone(), owned(view))).collect();
    change(&mut tensors);
    let dir = tempfile::tempdir().unwrap();
    let views = tensors.iter().map(|(name, (shape, data))| (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    let weights = serialize(views, None).unwrap();
    std::fs::write(dir.path().join("model.safetensors"), weights).unwrap();
    std::fs::write(dir.path().join("config.json"), json).unwrap();
    T5::open(dir.path(), None).map_err(|error| error.to_string())
}

#[test]
fn weights_that_do_not_fit_are_refused_by_name() {
    let without = |name: &'static str, json: &str| opened("t5", json, |tensors| drop(tensors.remove(name))).unwrap_err();
    for name in [
        "shared.weight",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "decoder.block.1.layer.1.EncDecAttention.v.weight",
        "decoder.block.1.layer.2.DenseReluDense.wo.weight",
        "decoder.final_layer_norm.weight",
    ] {
        let error = without(name, &config("t5", &[]));
        assert!(error.contains(&format!("weights have no tensor {name:?}")), "{error}");
    }
    let untied = without("", &config("t5", &[("tie_word_embeddings", false.into())]));
    assert!(untied.contains("weights have no tensor \"lm_head.weight\""), "{untied}");
    let deeper = without("", &config("t5", &[("num_layers", 2.into())]));
    assert!(deeper.contains("weights hold a tensor \"encoder.block.2."), "{deeper}");
    let wider = without("", &config("t5", &[("d_ff", 41.into())]));
    assert!(wider.contains("has shape [40, 32] and the configuration needs [41, 32]"), "{wider}");
}

#[test]
fn what_older_files_hold_besides_changes_nothing() {
    let expected = expected("t5");
    let older = opened("t5", &config("t5", &[]), |tensors| {
        let shared = tensors["shared.weight"].clone();
        for name in ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"] {
            tensors.insert(name.to_owned(), shared.clone());
        }
        let table = tensors["decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"].clone();
        tensors.insert("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight".to_owned(), table);
    });
    assert_eq!(reply(&older.unwrap(), &expected["tokens"][..40], expected["greedy"].len()), expected["greedy"]);
}

#[test]
fn bad_requests_are_refused_and_leave_the_cache_as_it_was() {
    let t5 = T5::open(&folder("t5"), None).unwrap();
    assert_eq!(t5.encode(&[]).unwrap_err().to_string(), "tokens of a text has shape [0] and needs at least one token");
    assert_eq!(t5.encode(&[3, 64]).unwrap_err().to_string(), "token 64 is outside the vocabulary of 64 tokens");
    let encoded = t5.encode(&[3, 9, 1]).unwrap();
    let mut cache = t5.cache(&encoded, 4).unwrap();
    let first = t5.step(&[0, 5], &mut cache).unwrap();
    for (tokens, text) in [
        (vec![1, 2, 3], "5 tokens do not fit"),
        (vec![1, 64], "token 64 is outside the vocabulary of 64 tokens"),
        (vec![], "tokens of a text has shape [0] and needs at least one token"),
    ] {
        let error = t5.step(&tokens, &mut cache).unwrap_err().to_string();
        assert!(error.starts_with(text), "{error}");
        assert_eq!(cache.len(), 2);
    }
    cache.rewind(0).unwrap();
    assert_eq!(t5.step(&[0, 5], &mut cache).unwrap(), first);
    assert!(t5.step(&[1, 2], &mut cache).is_ok());
    assert!(t5.cache(&encoded, usize::MAX).is_err());
}
