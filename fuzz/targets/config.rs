//! `config.json`, as every kind of model reads it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use regard_nn::{DecoderConfig, EncoderConfig, LlamaConfig, T5Config};

fuzz_target!(|text: &str| {
    let _ = DecoderConfig::from_json(text);
    let _ = EncoderConfig::from_json(text);
    let _ = LlamaConfig::from_json(text);
    let _ = T5Config::from_json(text);
});
