//! The nouns of attention, and no compute.
//!
//! Attention maps every query `q_i` to a weighted mean of values:
//!
//! ```text
//!   s_ij = scale · q_i·k_j          how much query i likes key j
//!   s_ij ← score(s_ij)              scores, in the order given: softcap, bias, slopes
//!   s_ij ← −∞ unless keep(i, j)     masks, always last
//!   p_ij = exp(s_ij − lse_i)        lse_i = ln Σ_j exp(s_ij)  (+ a sink, if any)
//!   o_i  = Σ_j p_ij · v_j
//! ```
//!
//! Each line has its noun here. Read the modules in this order:
//!
//! 1. [`Element`], [`View`], [`ViewMut`], [`Tensor`]: strided `[batch, heads, length, dim]` arrays over plain slices;
//! 2. [`Shape`]: the sizes of one attention problem and the checks that they fit;
//! 3. [`Mask`]: who is seen, position by position ([`Pair`]) and tile by tile ([`Tile`]);
//! 4. [`Score`] and [`Slope`]: how much, with derivatives;
//! 5. [`Kv`], [`KvCache`], [`Sequence`]: keys and values, dense or in pages;
//! 6. [`State`]: a partial softmax, whose `merge` is associative;
//! 7. [`Dropout`]: which probabilities are dropped, as a pure function of position;
//! 8. [`LinearInputs`], [`UpdateRule`]: attention whose state does not grow.
//!
//! The kernels are in `regard-cpu`, the calls in `regard`.
#![forbid(unsafe_code)]

mod cache;
mod dropout;
mod element;
mod error;
mod kv;
mod linear;
pub mod mask;
#[cfg(feature = "ndarray")]
mod nd;
mod patch;
pub mod score;
mod shape;
mod state;
mod tensor;
mod view;

pub use cache::{CacheShape, KvCache, Sequence};
pub use dropout::Dropout;
pub use element::{Element, PerElement};
pub use error::{Error, Result};
pub use kv::Kv;
pub use linear::{Feature, Gate, LinearInputs, LinearShape, UpdateRule};
pub use mask::{
    Around, Blocks, Blockwise, Bools, Causal, Dilated, Documents, Either, Fixed, Global, Lens, Mask, Padding, Pair, PrefixLm,
    RandomKeys, Spans, Strided, TILE_PAIRS, Tile, Window,
};
pub use patch::Patch;
pub use score::{Alibi, Bias, BiasSink, Gaussian, RelativeBias, Score, Slope, Softcap, WithSlope, with_slope};
pub use shape::Shape;
pub use state::State;
pub use tensor::Tensor;
pub use view::{View, ViewMut};
