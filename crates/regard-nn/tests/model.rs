//! Models as files: read, refused, continued.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Device, Tensor};
use regard_nn::train::tokenizer;
use regard_nn::{
    Error, FinishReason, Generate, Generation, Llama, LlamaConfig, Message, Model, Params, Precision, Prompt, Result, Sampling,
    Tokenizer,
};

const VOCAB: usize = 300;

fn config_json(more: &str) -> String {
    format!(
        r#"{{"model_type": "llama", "vocab_size": {VOCAB}, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 96, "initializer_range": 0.3,
            "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 1 {more}}}"#
    )
}

fn config() -> LlamaConfig {
    LlamaConfig::from_json(&config_json("")).unwrap()
}

fn tokenizer_json() -> String {
    let text = "Once upon a time there was a king, and the king had a café.\n".repeat(40);
    tokenizer::learn(&text, VOCAB).unwrap().to_string(false).unwrap()
}

fn weights(precision: Precision) -> Vec<u8> {
    Params::init(&config(), 7).unwrap().save(precision).unwrap()
}

fn model() -> Model {
    Model::from_bytes(config_json("").as_bytes(), &weights(Precision::F32), tokenizer_json().as_bytes(), None).unwrap()
}

/// A directory as Hugging Face lays it out.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config_json("")).unwrap();
    fs::write(dir.path().join("tokenizer.json"), tokenizer_json()).unwrap();
    fs::write(dir.path().join("model.safetensors"), weights(Precision::F32)).unwrap();
    dir
}

fn refusal(dir: &Path) -> String {
    Model::open(dir).map(|_| ()).unwrap_err().to_string()
}

fn generate(model: &Model, prompt: &str, options: &Generate) -> Result<(Generation, Vec<String>)> {
    let mut pieces = Vec::new();
    let generation = model.generate(prompt, options, &AtomicBool::new(false), &mut |piece| {
        pieces.push(piece.to_owned());
        ControlFlow::Continue(())
    })?;
    Ok((generation, pieces))
}

#[test]
fn greedy_text_is_the_same_with_the_cache_and_without_it() {
    let model = model();
    for prompt in ["Once upon a time", "the king", "é", "", "x\n\n y"] {
        let options = Generate { max_tokens: 60, ..Generate::default() };
        let (cached, pieces) = generate(&model, prompt, &options).unwrap();
        let (read_again, _) = generate(&model, prompt, &Generate { cached: false, ..options }).unwrap();
        assert_eq!((&cached.text, &cached.tokens), (&read_again.text, &read_again.tokens), "{prompt:?}");
        assert_eq!(pieces.concat(), cached.text, "{prompt:?}");
        assert!(cached.kv_bytes > 0 && regard::kernels().contains(&cached.kernel.as_str()));
    }
}

/// Logits are the same bits however the text is cut into steps, and agree with the forward pass that training uses.
#[test]
fn a_text_may_be_read_in_any_cuts() {
    let (model, params) = (model(), Params::init(&config(), 7).unwrap());
    let decoder = model.decoder().unwrap();
    let tokens: Vec<u32> = (0..90).map(|i| i * 37 % VOCAB as u32).collect();
    let read = |cuts: &[usize]| {
        let mut cache = decoder.cache(96).unwrap();
        let mut logits = Vec::new();
        let mut first = 0;
        for &cut in cuts {
            logits = decoder.step(&tokens[first..cut], &mut cache).unwrap();
            first = cut;
        }
        logits
    };
    let whole = read(&[90]);
    assert_eq!(whole, read(&[1, 2, 3, 50, 89, 90]));
    assert_eq!(whole, read(&(1..=90).collect::<Vec<_>>()));
    let llama = Llama::new(&config(), &params).unwrap();
    let trained = llama.forward(&Tensor::from_slice(&tokens, (1, 90), &Device::Cpu).unwrap()).unwrap();
    let last: Vec<f32> = trained.squeeze(0).unwrap().get(89).unwrap().to_vec1().unwrap();
    let furthest = whole.iter().zip(&last).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(furthest < 1e-4, "{furthest}");
}

/// A tokenizer that begins every text with a mark does not begin a rendered one with it again.
#[test]
fn a_rendered_prompt_gets_no_marks() {
    let mut json: serde_json::Value = serde_json::from_str(&tokenizer_json()).unwrap();
    json["post_processor"] = serde_json::json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|begin|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|begin|>": {"id": "<|begin|>", "ids": [0], "tokens": ["<|begin|>"]}},
    });
    let (config, tokenizer) = (config_json(""), json.to_string());
    let model = Model::from_bytes(config.as_bytes(), &weights(Precision::F32), tokenizer.as_bytes(), None).unwrap();
    let options = Generate { max_tokens: 9, ..Generate::default() };
    let go_on = |prompt: Prompt| model.generate(prompt, &options, &AtomicBool::new(false), &mut |_| ControlFlow::Continue(()));
    let (text, rendered) = (go_on("the king".into()).unwrap(), go_on(Prompt::Rendered("<|begin|>the king")).unwrap());
    assert_eq!((text.prompt_tokens, text.tokens), (rendered.prompt_tokens, rendered.tokens));
    assert_eq!(model.tokenizer().encode_rendered("the king").unwrap(), model.tokenizer().encode("the king").unwrap()[1..]);
}

#[test]
fn a_directory_may_have_a_chat_template() {
    let dir = directory();
    let template = || Model::open(dir.path()).unwrap().chat_template();
    assert!(template().unwrap().is_none() && model().chat_template().unwrap().is_none());
    fs::write(dir.path().join("chat_template.jinja"), "{{ messages[0].content }}!").unwrap();
    assert_eq!(template().unwrap().unwrap().render(&[Message::new("user", "Hi")], true).unwrap(), "Hi!");
    fs::write(dir.path().join("chat_template.jinja"), "{% if %}").unwrap();
    assert!(template().unwrap_err().to_string().contains("chat_template.jinja: the chat template fails in line 1"));
}

#[test]
fn generation_ends_where_it_is_told_to() {
    let model = model();
    let options = Generate { max_tokens: 7, ..Generate::default() };
    let (seven, _) = generate(&model, "the king", &options).unwrap();
    assert_eq!((seven.tokens.len(), seven.finish_reason), (7, FinishReason::Length));
    let (none, pieces) = generate(&model, "the king", &Generate { max_tokens: 0, ..options.clone() }).unwrap();
    assert_eq!((none.text.as_str(), none.tokens.len(), pieces.len()), ("", 0, 0));
    let (long, _) = generate(&model, "the king", &Generate { max_tokens: usize::MAX, ..options.clone() }).unwrap();
    assert_eq!(long.prompt_tokens + long.tokens.len(), 96, "the context ends it");
    let middle: String = long.text.chars().skip(10).take(3).collect();
    let (stopped, pieces) =
        generate(&model, "the king", &Generate { max_tokens: 90, stop: vec![middle.clone()], ..options.clone() }).unwrap();
    assert_eq!(stopped.finish_reason, FinishReason::Stop);
    assert_eq!(stopped.text, long.text.split(&middle).next().unwrap());
    assert_eq!(pieces.concat(), stopped.text);
}

#[test]
fn interruption_keeps_the_text_so_far() {
    let (model, flag) = (model(), AtomicBool::new(false));
    let options = Generate { max_tokens: 80, ..Generate::default() };
    let generation = model.generate("the king", &options, &flag, &mut |_| {
        flag.store(true, Ordering::Relaxed);
        ControlFlow::Continue(())
    });
    let generation = generation.unwrap();
    assert_eq!(generation.finish_reason, FinishReason::Interrupted);
    assert!(!generation.text.is_empty() && generation.tokens.len() < 80);
    let enough = model.generate("the king", &options, &AtomicBool::new(false), &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!(enough.finish_reason, FinishReason::Interrupted);
    let at_once = model.generate("the king", &options, &AtomicBool::new(true), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((at_once.text.as_str(), at_once.finish_reason), ("", FinishReason::Interrupted));
}

#[test]
fn sampling_is_a_function_of_the_seed() {
    let model = model();
    let text = |seed, temperature| {
        let sampling = Sampling { seed, temperature, top_p: 0.9, ..Sampling::default() };
        generate(&model, "Once", &Generate { max_tokens: 40, sampling, ..Generate::default() }).unwrap().0.text
    };
    assert_eq!(text(3, 1.0), text(3, 1.0));
    assert_ne!(text(3, 1.0), text(4, 1.0));
    assert_eq!(text(3, 0.0), text(4, 0.0));
}

#[test]
fn requests_that_cannot_be_are_refused_by_name() {
    let model = model();
    let refuse = |prompt: &str, options: Generate| generate(&model, prompt, &options).unwrap_err().to_string();
    let long = refuse(&"king ".repeat(200), Generate::default());
    assert!(long.starts_with("the prompt has ") && long.contains("the model's context is 96 tokens: shorten the prompt"), "{long}");
    assert!(refuse("a", Generate { stop: vec![String::new()], ..Generate::default() }).contains("a stop string is empty"));
    let sampling = |sampling| Generate { sampling, ..Generate::default() };
    let base = Sampling::default();
    for (wrong, name) in [
        (Sampling { temperature: -1.0, ..base }, "temperature is -1"),
        (Sampling { temperature: f32::NAN, ..base }, "temperature is NaN"),
        (Sampling { top_p: 0.0, ..base }, "top_p is 0"),
        (Sampling { min_p: 2.0, ..base }, "min_p is 2"),
        (Sampling { repetition_penalty: 0.0, ..base }, "repetition_penalty is 0"),
    ] {
        let text = refuse("a", sampling(wrong));
        assert!(text.starts_with(name), "{text}");
    }
    let mut cache = model.decoder().unwrap().cache(4).unwrap();
    assert!(matches!(model.decoder().unwrap().step(&[], &mut cache), Err(Error::Shape { .. })));
    assert!(matches!(model.decoder().unwrap().step(&[1; 5], &mut cache), Err(Error::Context { tokens: 5, context: 4 })));
    assert!(matches!(model.decoder().unwrap().step(&[VOCAB as u32], &mut cache), Err(Error::Token { .. })));
    assert!(cache.is_empty(), "what failed left nothing behind");
}

#[test]
fn a_directory_opens_and_says_the_same_as_its_bytes() {
    let dir = directory();
    let options = Generate { max_tokens: 20, ..Generate::default() };
    let from_disk = generate(&Model::open(dir.path()).unwrap(), "the king", &options).unwrap().0;
    assert_eq!(from_disk.text, generate(&model(), "the king", &options).unwrap().0.text);
    // Rounded to bf16 it still opens; split over two files with an index, it is the same model.
    fs::write(dir.path().join("model.safetensors"), weights(Precision::Bf16)).unwrap();
    Model::open(dir.path()).unwrap();
    shard(dir.path());
    let sharded = generate(&Model::open(dir.path()).unwrap(), "the king", &options).unwrap().0;
    assert_eq!(sharded.text, from_disk.text);
}

/// Replaces the weights by two files and an index.
fn shard(dir: &Path) {
    fs::remove_file(dir.join("model.safetensors")).unwrap();
    let bytes = weights(Precision::F32);
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (first, second): (Vec<_>, Vec<_>) = file.iter().partition(|(name, _)| name.len() % 2 == 0);
    let mut map = serde_json::Map::new();
    for (name, part) in [("a.safetensors", first), ("b.safetensors", second)] {
        part.iter().for_each(|(tensor, _)| drop(map.insert((*tensor).to_owned(), name.into())));
        fs::write(dir.join(name), safetensors::serialize(part, None).unwrap()).unwrap();
    }
    let index = serde_json::json!({ "weight_map": map });
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

#[test]
fn missing_and_foreign_files_are_named() {
    let dir = directory();
    let without = |name: &str| {
        let path = dir.path().join(name);
        let kept = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let text = refusal(dir.path());
        fs::write(&path, kept).unwrap();
        text
    };
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let text = without(name);
        assert!(text.starts_with("cannot read ") && text.contains(name), "{text}");
    }
    let with = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        let kept = fs::read(&path).ok();
        fs::write(&path, content).unwrap();
        let text = refusal(dir.path());
        match kept {
            Some(kept) => fs::write(&path, kept).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        text
    };
    assert!(with("config.json", b"{").contains("config.json is not valid"));
    assert!(with("config.json", &[0xFF, 0xFE]).contains("config.json is not valid"));
    assert!(with("tokenizer.json", b"{}").contains("the tokenizer failed"));
    assert!(with("generation_config.json", b"[").contains("generation_config.json is not valid"));
    assert!(with("generation_config.json", br#"{"do_sample": true, "top_p": 7.0}"#).contains("top_p is 7"));
    shard(dir.path());
    let index = dir.path().join("model.safetensors.index.json");
    fs::write(&index, r#"{"weight_map": {"model.norm.weight": "../../etc/passwd"}}"#).unwrap();
    assert!(refusal(dir.path()).contains("which is not a file name in the model's directory"));
    fs::write(&index, r#"{"weight_map": {"model.norm.weight": "gone.safetensors"}}"#).unwrap();
    assert!(refusal(dir.path()).contains("gone.safetensors"));
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let json = config_json("").replace("300", "280");
    let dir = directory();
    fs::write(dir.path().join("config.json"), json).unwrap();
    let text = refusal(dir.path());
    assert!(text.contains("the embedding has 280 rows: tokenizer and weights belong to different models"), "{text}");
}

#[test]
fn marks_are_what_the_tokenizer_declares_special() {
    let added = |id: u32, special: bool| {
        serde_json::json!({ "id": id, "content": format!("<{id}>"), "special": special, "single_word": false, "lstrip": false,
                            "rstrip": false, "normalized": false })
    };
    let model = serde_json::json!({ "type": "WordLevel", "vocab": { "a": 0, "<1>": 1 }, "unk_token": "a" });
    let json =
        serde_json::json!({ "version": "1.0", "added_tokens": [added(1, true), added(2, false), added(3, true)], "model": model });
    let tokenizer = Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap();
    assert_eq!([0, 1, 2, 3, 4].map(|id| tokenizer.is_special(id)), [false, true, false, true, false]);
}

/// The library would panic at the first three.
#[test]
fn merges_that_are_not_of_tokens_are_refused() {
    let read = |merges: serde_json::Value, prefix: Option<&str>| {
        let model = serde_json::json!({ "type": "BPE", "vocab": { "a": 0, "b": 1, "ab": 2, "##b": 3, "é": 4 }, "merges": merges,
                                        "continuing_subword_prefix": prefix });
        let json = serde_json::json!({ "version": "1.0", "added_tokens": [], "model": model });
        Tokenizer::from_bytes(json.to_string().as_bytes()).map(|_| ()).map_err(|error| error.to_string())
    };
    let said =
        |merge, part| Err(format!("model.merges[0] of the tokenizer is {merge:?} and must be of tokens, and {part:?} is none"));
    assert_eq!(read(serde_json::json!([["ab", "##b"]]), None), said("ab ##b", "ab##b"));
    assert_eq!(read(serde_json::json!(["ab ##b"]), None), said("ab ##b", "ab##b"));
    assert_eq!(read(serde_json::json!([["a", "b"]]), Some("##")), said("a b", "b"));
    assert_eq!(read(serde_json::json!([["a", "é"]]), Some("#")), said("a é", "é"));
    assert_eq!(read(serde_json::json!([["a", "c"]]), None), said("a c", "c"));
    assert_eq!(read(serde_json::json!([["a", "##b"]]), Some("##")), Ok(()));
    assert_eq!(read(serde_json::json!(["#version: 0.2", "a b"]), None), Ok(()));
    let json = br#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "decoder": {"type": "Fuse", "x": ""#;
    let bad = |end: &[u8]| Tokenizer::from_bytes(&[json, end].concat()).unwrap_err().to_string();
    assert!(bad(b"\xff\"}}").contains("the file is not UTF-8") && bad(b"\", \"y\": 1e999}}").contains("number out of range"));
    // A mark that is not there, where the library does not look for it.
    let marks = br#"{"type": "None of these", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                     "pair": [], "special_tokens": {}}"#;
    let model = br#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "post_processor": "#;
    let unmarked = Tokenizer::from_bytes(&[&model[..], marks, b"}"].concat()).unwrap_err().to_string();
    assert!(unmarked.contains("the library gave up on a file"), "{unmarked}");
    let twice = br#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "merges": [["a", "a"]]}}"#;
    assert!(Tokenizer::from_bytes(twice).unwrap_err().to_string().contains("duplicate field `merges`"));
    assert!(read(serde_json::json!(["ab"]), None).is_err() && read(serde_json::json!([7]), None).is_err());
}

#[test]
fn impossible_configurations_are_refused_with_field_and_need() {
    let text = |json: &str| LlamaConfig::from_json(json).unwrap_err().to_string();
    let with = |from: &str, to: &str| {
        let json = config_json("");
        assert!(json.contains(from));
        text(&json.replace(from, to))
    };
    assert_eq!(
        with("\"hidden_size\": 16", "\"hidden_size\": 18"),
        "hidden_size is 18 and must be a multiple of num_attention_heads, which is 4"
    );
    assert_eq!(
        with("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3"),
        "num_attention_heads is 4 and must be a multiple of num_key_value_heads, which is 3"
    );
    assert!(with("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 0").contains("num_key_value_heads is 0"));
    assert!(with("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 0").contains("num_hidden_layers is 0 and must be from 1"));
    assert!(with("\"hidden_size\": 16", "\"hidden_size\": 12").contains("head_dim is 3 and must be even"));
    assert!(with("\"vocab_size\": 300", "\"vocab_size\": 1152921504606846976").contains("vocab_size is 1152921504606846976"));
    assert!(with("\"eos_token_id\": 1", "\"eos_token_id\": 300").contains("token 300 is outside the vocabulary of 300 tokens"));
    assert!(with("\"intermediate_size\": 24,", "").contains("the configuration has no intermediate_size"));
    assert!(with("\"llama\"", "\"mamba\"").contains("model_type is \"mamba\", and this version runs \"llama\" only"));
    assert!(text(&config_json(r#", "hidden_act": "gelu""#)).contains("hidden_act is \"gelu\""));
    assert!(text(&config_json(r#", "rms_norm_eps": 0"#)).contains("rms_norm_eps is 0 and must be a positive number"));
    assert!(text(&config_json(r#", "rope_scaling": {"rope_type": "su", "factor": 4.0}"#)).contains("rope_type is \"su\""));
    let long = r#", "rope_scaling": {"rope_type": "longrope", "short_factor": [1, 1], "long_factor": [1, 1]}"#;
    assert!(text(&config_json(long)).contains("rope_type is \"longrope\""), "frequencies would change with the text");
    assert!(
        text(&config_json(r#", "rope_parameters": {"partial_rotary_factor": 0.5}"#)).contains("partial_rotary_factor is \"0.5\"")
    );
    assert!(
        text(&config_json(r#", "rope_scaling": {"rope_type": "linear", "factor": -4}"#)).contains("factor of a rotary scaling")
    );
    assert!(text(&config_json(r#", "quantization_config": {"bits": 4}"#)).contains("quantization_config"));
    assert!(text("[]").contains("config.json is not valid"));
    let huge = r#"{"model_type": "llama", "vocab_size": 1000000000, "hidden_size": 1000000, "intermediate_size": 1000000,
        "num_hidden_layers": 1000000, "num_attention_heads": 100}"#;
    let config = LlamaConfig::from_json(huge).unwrap();
    assert!(Params::init(&config, 0).unwrap_err().to_string().contains("the number of parameters is 2^44 or more"));
}

#[test]
fn damaged_weights_are_refused_and_never_panic() {
    let whole = weights(Precision::F32);
    let text = |bytes: &[u8]| Params::load(&config(), bytes).map(|_| ()).unwrap_err().to_string();
    for keep in [0, 3, 8, 100, whole.len() / 2, whole.len() - 1] {
        assert!(text(&whole[..keep]).contains("are not a whole safetensors file"), "{keep}");
    }
    // A header that lies about its own length, about offsets, about types.
    let mut lying = whole.clone();
    lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(text(&lying).contains("are not a whole safetensors file"));
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let edit = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let head = String::from_utf8(whole[8..header].to_vec()).unwrap();
        assert!(head.contains(from), "{head}");
        [&whole[..8], head.replacen(from, to, 1).as_bytes(), &whole[header..]].concat()
    };
    assert!(text(&edit("\"data_offsets\":[0,", "\"data_offsets\":[9,")).contains("are not a whole safetensors file"));
    assert!(text(&edit("\"dtype\":\"F32\"", "\"dtype\":\"I32\"")).contains("holds I32 and must hold F32, F16 or BF16"));
    assert!(
        text(&edit("\"shape\":[300,16]", "\"shape\":[16,300]"))
            .contains("has shape [16, 300] and the configuration needs [300, 16]")
    );
    assert!(text(&edit("model.norm.weight", "model.worm.weight")).contains("weights have no tensor \"model.norm.weight\""));
    for i in 0..2000 {
        let mut noisy = whole.clone();
        let at = (i * 7919 + 13) % (header + 40);
        noisy[at] ^= 1 << (i % 8);
        let _ = Params::load(&config(), &noisy); // either way, without a panic
    }
}

#[test]
fn tensors_that_no_model_has_are_named() {
    let params = weights(Precision::F32);
    let wider = LlamaConfig::from_json(&config_json(r#", "attention_bias": true"#)).unwrap();
    assert!(Params::load(&wider, &params).unwrap_err().to_string().contains("q_proj.bias"));
    let biased = Params::init(&wider, 1).unwrap().save(Precision::F32).unwrap();
    let text = Params::load(&config(), &biased).unwrap_err().to_string();
    assert!(text.starts_with("weights hold a tensor \"model.layers.0.self_attn.k_proj.bias\""), "{text}");
    let twice = Params::load_shards(&config(), &[&params, &params]).unwrap_err().to_string();
    assert!(twice.contains("is in more than one file"), "{twice}");
}

#[test]
fn weights_that_are_not_numbers_end_in_an_error() {
    let params = Params::init(&config(), 7).unwrap();
    let norm = params.get("model.norm.weight").unwrap();
    norm.set(&Tensor::full(f32::NAN, 16, &Device::Cpu).unwrap()).unwrap();
    let bytes = params.save(Precision::F32).unwrap();
    let model = Model::from_bytes(config_json("").as_bytes(), &bytes, tokenizer_json().as_bytes(), None).unwrap();
    let error = generate(&model, "king", &Generate::default()).unwrap_err();
    assert!(error.to_string().contains("not finite"), "{error}");
}
