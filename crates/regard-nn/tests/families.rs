//! Every family's hidden states, logits and greedy tokens against those of Python's transformers, which `families/make.py` wrote down.

use std::path::{Path, PathBuf};

use regard_nn::{Decoder, DecoderCache};
use safetensors::SafeTensors;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families").join(name)
}

/// What transformers computed.
struct Expected {
    tokens: Vec<u32>,
    logits: Vec<f32>,
    hidden: Vec<f32>,
    short_logits: Vec<f32>,
    greedy: Vec<u32>,
}

impl Expected {
    fn read(name: &str) -> Self {
        let bytes = std::fs::read(folder(name).join("expected.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let words = |name: &str| -> Vec<u32> {
            file.tensor(name).unwrap().data().as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
        };
        let numbers = |name: &str| words(name).into_iter().map(f32::from_bits).collect();
        Expected {
            tokens: words("tokens"),
            logits: numbers("logits"),
            hidden: numbers("hidden"),
            short_logits: numbers("short_logits"),
            greedy: words("greedy"),
        }
    }
}

/// Two texts of so many tokens, of which every ninth position is written down.
const LENGTH: usize = 100;
const POSITIONS: usize = 12;

#[track_caller]
fn close(given: &[f32], expected: &[f32], bound: f32, what: &str) {
    assert_eq!(given.len(), expected.len(), "{what}");
    for (i, (given, expected)) in given.iter().zip(expected).enumerate() {
        assert!((given - expected).abs() < bound, "{what}, element {i}: {given}, transformers {expected}");
    }
}

fn largest(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32
}

fn agrees(name: &str) {
    let (decoder, expected) = (Decoder::open(&folder(name), None).unwrap(), Expected::read(name));
    let (vocab, hidden) = (decoder.config().vocab_size, decoder.config().hidden_size);
    for (text, tokens) in expected.tokens.chunks(LENGTH).enumerate() {
        let at = |logits: &[f32], position: usize, what: &str| {
            let expected = &expected.logits[(text * POSITIONS + position / 9) * vocab..][..vocab];
            close(&logits[..vocab], expected, 1e-4, &format!("{name}, {what}, text {text}, position {position}"));
        };
        let mut states = Vec::new();
        let all = decoder.trace(tokens, &mut decoder.cache(LENGTH).unwrap(), &mut |_, x| states.push(x.to_vec())).unwrap();
        (0..LENGTH).step_by(9).for_each(|position| at(&all[position * vocab..], position, "at once"));
        if text == 0 {
            for (layer, state) in states.iter().enumerate() {
                for (i, expected) in expected.hidden[layer * POSITIONS * hidden..].chunks(hidden).take(POSITIONS).enumerate() {
                    // Roundings of a row are in proportion to its largest elements.
                    let bound = 1e-4 * expected.iter().fold(1.0, |max: f32, x| max.max(x.abs()));
                    let what = format!("{name}, before block {layer}, position {}", 9 * i);
                    close(&state[9 * i * hidden..][..hidden], expected, bound, &what);
                }
            }
        }
        let mut cache = decoder.cache(LENGTH).unwrap();
        for position in (0..LENGTH).step_by(9) {
            let logits = decoder.step(&tokens[cache.len()..=position], &mut cache).unwrap();
            at(&logits, position, "in pieces");
            assert_eq!(logits, all[position * vocab..][..vocab], "{name}: other bits in pieces, position {position}");
        }
    }
    let short = decoder.step(&expected.tokens[LENGTH..][..37], &mut decoder.cache(37).unwrap()).unwrap();
    close(&short, &expected.short_logits, 1e-4, &format!("{name}, 37 tokens alone"));
    assert_eq!(continued(&decoder, &expected.tokens[..40], expected.greedy.len()), expected.greedy, "{name}");
}

/// The likeliest tokens after a text.
fn continued(decoder: &Decoder, tokens: &[u32], count: usize) -> Vec<u32> {
    let mut cache: DecoderCache = decoder.cache(tokens.len() + count).unwrap();
    let mut logits = decoder.step(tokens, &mut cache).unwrap();
    let mut found = vec![largest(&logits)];
    while found.len() < count {
        logits = decoder.step(&found[found.len() - 1..], &mut cache).unwrap();
        found.push(largest(&logits));
    }
    found
}

macro_rules! families {
    ($($name:ident),*) => { $(#[test] fn $name() { agrees(stringify!($name)); })* };
}

families!(
    llama,
    llama_tied,
    mistral,
    qwen2,
    qwen3,
    gemma2,
    gemma3_text,
    phi3,
    phi3_longrope,
    phi4_mini,
    smollm3,
    gpt2,
    gpt_neox,
    gpt_neox_sequential,
    gpt_oss
);
