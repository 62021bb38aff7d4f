//! Training: from a text file to a directory that holds a model.
//!
//! [`Trainer`] runs a [`Job`]. The run is deterministic for a seed, and a run that died at any moment goes on from its
//! checkpoint to the same losses, bit for bit, as one that never stopped.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use regard_nn::train::{Event, Job, TrainConfig, Trainer};
//!
//! let job = Job { data: "tales.txt".into(), out: "model".into(), config: TrainConfig::default() };
//! let outcome = Trainer::open(job)?.run(&mut |event| {
//!     if let Event::Step(step) = event {
//!         println!("step {}: {:.3} nats per token", step.step, step.loss);
//!     }
//!     ControlFlow::Continue(())
//! })?;
//! println!("{outcome:?}");
//! # Ok::<(), regard_nn::train::TrainError>(())
//! ```

mod adamw;
mod atomic;
mod checkpoint;
mod config;
mod data;
mod digest;
mod error;
mod export;
mod history;
mod plot;
mod report;
mod row;
mod schedule;
pub mod tokenizer;
mod trainer;

pub use adamw::AdamW;
pub use config::{TrainConfig, WeightType};
pub use data::{Batch, Corpus, Text};
pub use error::TrainError;
pub use history::{History, Validation};
pub use plot::draw;
pub use report::{Event, Progress, Summary};
pub use schedule::learning_rate;
pub use trainer::{CHECKPOINT, Job, Outcome, Trainer};
