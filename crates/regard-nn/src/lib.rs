//! Layers, Llama-type models, generation and training, on regard attention and [candle](candle_core) tensors.
//!
//! ```text
//!   text ──Tokenizer──▶ tokens ──Llama──▶ logits ──Sampler──▶ token ──▶ text          Model::generate
//!                                  │
//!                               Params ◀── train::Trainer ◀── text                    train
//! ```
//!
//! Read in this order:
//!
//! 1. Layers: [`Linear`], [`RmsNorm`], [`Rotary`], [`LearnedPositions`], [`SwiGlu`], [`MultiHeadAttention`]. Each takes and gives candle tensors and is
//!    differentiable in its input and its weights; the fused operations they are made of are here too ([`attention`],
//!    [`rms_norm`], [`swiglu`], [`rope`], [`dropout`], [`embedding`], [`cross_entropy`]). [`align`] has the alignment functions from
//!    before and beside the dot product, [`hard`] attention that chooses one key.
//! 2. [`LlamaConfig`], [`Params`], [`Llama`]: the shape, the parameters and the computation of a decoder-only transformer.
//! 3. [`Tokenizer`], [`Sampling`], [`Model`]: text to text. [`Model::open`] reads a Hugging Face directory, and
//!    [`Model::generate`] streams the continuation of a prompt through a paged key/value cache ([`Decoder`], [`DecoderCache`]).
//!    [`ChatTemplate`] writes a conversation as such a prompt.
//!    [`Gguf`] reads a file of that format: its numbers, tensors and tokenizer.
//! 4. [`Encoder`], [`Embedder`]: BERT, the states of a text's tokens, and one vector of them.
//! 5. [`train`]: from a text file to such a directory.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use std::sync::atomic::AtomicBool;
//! use regard_nn::{Generate, Model};
//!
//! let model = Model::open("tales".as_ref())?;
//! let options = Generate { max_tokens: 200, sampling: model.sampling(), ..Generate::default() };
//! let story = model.generate("Once upon a time", &options, &AtomicBool::new(false), &mut |piece| {
//!     print!("{piece}");
//!     ControlFlow::Continue(())
//! })?;
//! println!("\n{} tokens, {:.0} per second", story.tokens.len(), story.generation_tokens_per_second);
//! # Ok::<(), regard_nn::Error>(())
//! ```
//!
//! Gradients: a layer records its operations on a [`Tape`], and the whole tape becomes one node of candle's graph, so candle's
//! `backward` and optimisers work as usual. Layers compose on one tape through their `on` methods, as [`Llama`] does.
#![deny(unsafe_code)]

pub mod align;
mod array;
mod cache;
mod chat;
mod checkpoint;
mod config;
mod decoder;
mod embedder;
mod encoder;
mod error;
mod fields;
mod files;
mod generate;
mod gguf;
pub mod hard;
#[cfg(feature = "hub")]
mod hub;
mod join;
mod linear;
mod llama;
mod mapped;
mod merges;
mod mha;
mod mlp;
mod model;
mod network;
mod norm;
mod ops;
mod params;
mod parts;
mod positions;
mod prompt;
mod rng;
mod rope;
mod rotary;
mod sample;
mod stop;
mod t5;
mod tape;
mod tokenizer;
pub mod train;
mod values;
mod weights;

pub use cache::TextCache;
pub use chat::{ChatTemplate, Message};
pub use config::LlamaConfig;
pub use decoder::{
    Activation, Attending, Biases, Decoder, DecoderCache, DecoderConfig, DecoderMask, DecoderPages, Experts, FeedForward,
    LayerConfig, NormKind, Observer, Reading,
};
pub use embedder::{Embedder, Pooling};
pub use encoder::{Encoder, EncoderConfig};
pub use error::{Error, Result};
pub use files::is_hub_id;
pub use generate::{FinishReason, Generate, Generation};
pub use gguf::{Gguf, GgufArray, GgufKind, GgufTensor, GgufValue, GgufValues};
#[cfg(feature = "hub")]
pub use hub::Hub;
pub use linear::Linear;
pub use llama::{Llama, Noise};
pub use mha::{AttendOptions, MultiHeadAttention, NeedWeights, TorchOptions};
pub use mlp::SwiGlu;
pub use model::Model;
pub use norm::RmsNorm;
pub use ops::{attention, cross_entropy, dropout, embedding, rms_norm, rope, swiglu};
pub use params::Params;
pub use positions::{LearnedPositions, SinusoidalPositions};
pub use prompt::Prompt;
pub use regard::{Rope, RopeScaling, RopeStyle};
pub use rope::RopeParameters;
pub use rotary::Rotary;
pub use sample::{Adjustments, Sampler, Sampling};
pub use stop::Stop;
pub use t5::{Encoded, T5, T5Cache, T5Config};
pub use tape::{Tape, Value};
pub use tokenizer::{TextStream, Tokenizer};
pub use weights::Precision;

/// The examples of the page on cross-attention compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/cross-attention.md")]
struct CrossAttention;
