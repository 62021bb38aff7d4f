//! What every attention head of a model does.
//!
//! ```text
//!   texts ──Decoder::observe──▶ facts of every (layer, head, row) ──▶ means, profiles, maps ──▶ Report ──▶ JSON, CSV, SVG, PNG, HTML
//! ```
//! Facts come from inside the fused kernel ([`regard::Plan::inspect`]), so they are exact and take memory linear in the length; maps are
//! pooled ([`regard::Plan::maps`]). What is sampled or approximate says so, in [`Run::labels`](report::Run::labels). Attention weights show
//! where a head reads, not what the model does with it: Jain & Wallace 2019, "Attention is not Explanation".
//!
//! ```no_run
//! use regard_lens::{Options, Text, inspect};
//!
//! let model = regard_nn::Model::open("tales".as_ref())?;
//! let text = Text::new(&model, "a tale", "Once upon a time there was a king.")?;
//! let report = inspect(&model, "tales", &[text], &Options::default(), &mut |_| {})?;
//! for head in &report.heads {
//!     println!("{}.{}: {:.2} nats", head.layer, head.head, head.means.entropy);
//! }
//! std::fs::write("report.html", report.html()?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`inspect()`]: everything of a model and some texts, as a [`Report`];
//! - [`scores`]: what each head looks for, on sequences made for it;
//! - [`ablate`]: the loss without a head or a layer, and the curve of pruning; [`resample`]: one way to take them away;
//! - [`patch`]: which heads and positions make two prompts answer differently;
//! - [`long_context`]: what a model finds in long texts, and where its heads look;
//! - [`leaks`]: whether a position sees what it must not;
//! - [`clusters`]: heads that attend alike;
//! - [`rollout`]: attention through all layers by rollout and flow, approximations;
//! - [`record`]: a report of attention that was computed elsewhere, all there is without the feature `models`.
#![forbid(unsafe_code)]

#[cfg(feature = "models")]
pub mod ablate;
pub mod clusters;
mod csv;
mod error;
#[cfg(feature = "models")]
mod glyphs;
mod html;
#[cfg(feature = "models")]
mod inspect;
#[cfg(feature = "models")]
pub mod leaks;
mod levels;
#[cfg(feature = "models")]
pub mod long_context;
mod means;
#[cfg(feature = "models")]
pub mod patch;
#[cfg(feature = "models")]
mod picture;
#[cfg(feature = "models")]
mod png;
#[cfg(feature = "models")]
mod progress;
#[cfg(feature = "models")]
mod prune;
#[cfg(feature = "models")]
mod random;
#[cfg(feature = "models")]
mod ranges;
pub mod record;
pub mod report;
#[cfg(feature = "models")]
pub mod resample;
#[cfg(feature = "models")]
pub mod rollout;
#[cfg(feature = "models")]
mod rounding;
#[cfg(feature = "models")]
pub mod scores;
#[cfg(feature = "models")]
mod svg;
#[cfg(feature = "models")]
mod text;
#[cfg(feature = "models")]
mod through;
#[cfg(feature = "models")]
mod watch;
#[cfg(feature = "models")]
mod zoom;

pub use error::{Error, Result};
#[cfg(feature = "models")]
pub use inspect::{Ablate, Options, inspect};
#[cfg(feature = "models")]
pub use progress::Progress;
#[cfg(feature = "models")]
pub use ranges::NamedRange;
pub use report::Report;
#[cfg(feature = "models")]
pub use text::Text;
#[cfg(feature = "models")]
pub use zoom::Zoom;
