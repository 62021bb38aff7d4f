//! The story model: a small language model that has read a shelf of fairy tales, as bytes.
//!
//! Llama-shaped, trained by `regard train`; `README.md` beside this crate is its model card. The files in `model/` are
//! also a Hugging Face directory, which Python's `transformers` loads as it is.
#![forbid(unsafe_code)]

/// `config.json`: the shape of the model, as Hugging Face writes it.
pub const CONFIG: &str = include_str!("../model/config.json");

/// `model.safetensors`: the weights in bf16.
pub const WEIGHTS: &[u8] = include_bytes!("../model/model.safetensors");

/// `tokenizer.json`: a byte-level BPE of 4096 tokens.
pub const TOKENIZER: &str = include_str!("../model/tokenizer.json");

/// `generation_config.json`: the sampling that suits the model.
pub const GENERATION_CONFIG: &str = include_str!("../model/generation_config.json");
