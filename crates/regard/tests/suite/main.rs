//! The library against the oracle of `regard-testing`.
//!
//! `kernels` is the generic runner: every kernel, type, mask, score and layout. The others each test one promise.

mod adversarial;
mod bad_cache;
mod bad_input;
mod cache_model;
mod conv;
mod cost;
mod definitions;
mod exact;
mod inspect;
mod kernels;
mod linear;
mod masks;
mod onnx_linear;
mod poison;
mod rope;
mod run;
mod same_bits;
mod skip;
mod state;
mod teach;
