//! What a transformer will cost: parameters, operations, bytes, memory and time, in integers.
//!
//! A [`Shape`] is read from a Hugging Face `config.json` or taken from a preset; a [`Question`] says how long and how many the texts are;
//! [`Cost::of`] answers it. Nothing wraps: a figure that cannot be counted is an error.
//!
//! ```
//! use regard_cost::{Chip, Cost, Dtype, Question, Shape};
//!
//! # fn main() -> regard_cost::Result<()> {
//! let ask = Question { length: 2048, batch: 1, dtype: Dtype::F16, train: false, memory: None };
//! let cost = Cost::of(&Shape::preset("opt-13b")?, &ask, Some(&Chip::named("a100")?))?;
//! // Keys and values of 5120 elements each in 40 layers, of two bytes.
//! assert_eq!(cost.kv_cache.unwrap().per_token, 2 * 5120 * 40 * 2);
//! # Ok(())
//! # }
//! ```
//!
//! Each figure with its formula and source: `docs/cost.md` in the repository.
#![forbid(unsafe_code)]

mod chip;
mod cost;
mod count;
mod error;
mod families;
mod fields;
#[cfg(feature = "here")]
mod here;
mod memory;
mod parameters;
mod pass;
mod presets;
mod question;
mod read;
mod shape;

pub use chip::{Cache, Chip, PassTime};
pub use cost::{Cost, Crossover, Fits, StepTime, Time};
pub use count::Count;
pub use error::{Error, Result};
pub use memory::{KvCache, Memory, Scores, Training};
pub use parameters::Parameters;
pub use pass::{Pass, Work};
pub use question::{Dtype, Question, parse_bytes};
pub use shape::{Attention, Experts, FeedForward, Latent, Layer, Norms, Output, Shape};
