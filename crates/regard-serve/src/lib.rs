//! Many requests on one model: a paged key/value cache that they share, the engine that decides who reads what when, and a server.
//!
//! ```text
//!   events ──▶ Engine::step = schedule → run → sample → finish ──▶ outputs
//!                  │             │
//!                Pages         Runner: a model, its pages and its swap space
//! ```
//!
//! - [`Engine`] is a function of events, clock and what it holds: no threads, no I/O, no randomness of its own.
//! - [`Runner`] is what it drives. The engine owns the books (who holds which page), the runner the bytes.
//! - [`Request`] says what is asked; [`Output`] what came of it.
//! - [`Server`] is a shell around it: HTTP with the API of OpenAI.
//!
//! What a request gets does not depend on the others: alone or among many, from the prefix cache or computed, in one piece or in chunks,
//! preempted or not, its tokens and log-probabilities are the same to the last bit, if the runner's rows are.
//!
//! Source: Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving with PagedAttention"; Yu et al. 2022, "Orca"
//! (continuous batching); Agrawal et al. 2024, "Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve" (chunked
//! prefill beside decoding).
#![forbid(unsafe_code)]

mod beam;
mod bug;
mod config;
mod engine;
mod error;
mod job;
mod model;
mod output;
mod pages;
mod request;
mod runner;
mod sequence;
mod server;
#[cfg(test)]
mod simulation;
mod stats;

pub use config::{Config, Preemption};
pub use engine::Engine;
pub use error::{Error, Refusal, Result};
pub use model::{ModelRunner, Room};
pub use output::{Choice, Event, Finished, Logprobs, Outcome, Output, RequestId};
pub use pages::Table;
pub use regard_nn::{Adjustments, FinishReason, Sampling};
pub use request::{Decoding, Request};
pub use runner::{Detokenizer, Group, Keep, Runner, RunnerError, Work};
pub use server::{Limits, ServeError, Served, Server, Settings, Stop};
pub use stats::Stats;
