//! Whole models against Python's transformers, which computed with the numbers that gguf reads from the same files (`gguf/models.py`).

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use regard_nn::{Decoder, Generate, Generation, Message, Model, Precision, Prompt, Sampling};
use safetensors::SafeTensors;

use super::fixture;
use super::lies::{Numbers, damage};

fn path(name: &str) -> PathBuf {
    fixture("models").join(format!("{name}.gguf"))
}

fn words(name: &str) -> Vec<u32> {
    let bytes = std::fs::read(fixture("models/expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensor(name).unwrap().data().as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

/// The text that the fixtures continue, and the question.
const TEXT: &str = "the king and the queen were there then";
const QUESTION: &str = "who is there";

fn greedy<'a>(model: &Model, prompt: impl Into<Prompt<'a>>) -> Generation {
    let options = Generate { max_tokens: 8, ..Generate::default() };
    model.generate(prompt, &options, &AtomicBool::new(false), &mut |_| ControlFlow::Continue(())).unwrap()
}

/// The logits after every token of the text.
fn logits(name: &str, precision: Option<Precision>) -> Vec<f32> {
    let (decoder, tokens) = (Decoder::open(&path(name), precision).unwrap(), words("tokens"));
    decoder.trace(&tokens, &mut decoder.cache(tokens.len()).unwrap(), &mut |_, _| {}).unwrap()
}

fn agrees(name: &str) {
    let expected = words(&format!("{name}.logits")).into_iter().map(f32::from_bits);
    for (i, (given, expected)) in logits(name, Some(Precision::F32)).into_iter().zip(expected).enumerate() {
        assert!((given - expected).abs() < 1e-4, "{name}, logit {i}: {given}, transformers {expected}");
    }
    let model = Model::open_in(&path(name), Some(Precision::F32)).unwrap();
    let generation = greedy(&model, TEXT);
    assert_eq!(generation.prompt_tokens, words("tokens").len());
    assert_eq!(generation.tokens, words(&format!("{name}.greedy")), "{name}");
}

macro_rules! models {
    ($($name:ident),*) => { $(#[test] fn $name() { agrees(stringify!($name)); })* };
}

models!(llama, k, qwen2, qwen3, phi3, gemma);

#[test]
fn quantised_weights_become_bf16_and_halves_stay_exact() {
    assert_eq!(logits("qwen2", None), logits("qwen2", Some(Precision::Bf16)));
    assert_ne!(logits("qwen2", None), logits("qwen2", Some(Precision::F32)));
    assert_eq!(logits("qwen3", None), logits("qwen3", Some(Precision::F32)));
    assert_ne!(logits("qwen3", None), logits("qwen3", Some(Precision::Bf16)));
    assert_eq!(logits("phi3", None), logits("phi3", Some(Precision::Bf16)));
}

#[test]
fn a_chat_template_is_filled_as_transformers_fills_it() {
    let model = Model::open(&path("llama")).unwrap();
    let template = model.chat_template().unwrap().unwrap();
    let text = template.render(&[Message::new("user", QUESTION)], true).unwrap();
    assert_eq!(model.tokenizer().encode_rendered(&text).unwrap(), words("chat"));
}

#[test]
fn the_choice_of_tokens_is_the_one_that_the_file_recommends() {
    let sampling = |name| Model::open(&path(name)).unwrap().sampling();
    assert_eq!(sampling("llama"), Sampling::default());
    assert_eq!(sampling("gemma"), Sampling { temperature: 0.5, top_k: 7, ..Sampling::default() });
}

#[test]
fn no_damage_panics_when_a_model_is_opened_and_run() {
    let dir = tempfile::tempdir().unwrap();
    let (mut numbers, mut errors) = (Numbers(7), 0);
    for name in ["llama", "phi3", "gemma"] {
        let whole = std::fs::read(path(name)).unwrap();
        for turn in 0..300 {
            let file = dir.path().join(format!("{name}-{turn}.gguf"));
            std::fs::write(&file, damage(&whole, &mut numbers)).unwrap();
            let options = Generate { max_tokens: 2, ..Generate::default() };
            match Model::open(&file) {
                // Damaged numbers may still be finite, and the rest is refused by the sampler.
                Ok(model) => drop(model.generate(TEXT, &options, &AtomicBool::new(false), &mut |_| ControlFlow::Continue(()))),
                Err(error) => {
                    errors += 1;
                    assert!(error.to_string().starts_with(&format!("{}: ", file.display())), "{error}");
                }
            }
            std::fs::remove_file(&file).unwrap();
        }
    }
    assert!(errors > 300, "{errors} of 900");
}
