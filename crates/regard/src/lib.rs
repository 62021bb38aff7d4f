//! Exact, fast attention on CPUs: every mask, score, layout and length from one call on slices.
//!
//! # One call
//!
//! Data are plain slices; a [`View`] gives them a shape `[batch, heads, length, dim]` and, if wanted, strides.
//!
//! ```
//! use regard::{Causal, View, sdpa};
//!
//! let data: Vec<f32> = (0..3 * 2 * 5 * 4).map(|i| (i as f32).sin()).collect();
//! let part = |i: usize| View::new(&data[i * 40..][..40], [1, 2, 5, 4]); // two heads, five positions, four elements
//! let (q, k, v) = (part(0)?, part(1)?, part(2)?);
//! let out = sdpa(q, k, v, Causal::UpperLeft)?;
//! assert_eq!(out.shape(), [1, 2, 5, 4]);
//! assert_eq!(out.data()[..4], v.row(0, 0, 0).unwrap()[..4]); // the first query sees one key, whose weight is 1
//! # Ok::<(), regard::Error>(())
//! ```
//!
//! # Masks: who is seen
//!
//! A mask is [`Causal`], [`Window`], [`PrefixLm`], [`Documents`], [`Blocks`], [`Bools`], [`Padding`], [`Spans`], a closure, or a tuple of
//! two masks, which must agree; [`Either`] is their union. [`Dilated`], [`Strided`], [`Fixed`], [`Global`], [`RandomKeys`] and
//! [`Blockwise`] are the parts of the sparse patterns, such as Longformer's and BigBird's, which [`Either`] lists. Tiles of keys that
//! a mask hides cost nothing, and what is hidden is never observed: not even
//! NaN in a hidden key or value reaches a query that does not see it.
//!
//! ```
//! # use regard::{Attention, Causal, Documents, Pair, View, Window};
//! # let x = vec![0.5f32; 12 * 4];
//! # let x = View::new(&x, [1, 1, 12, 4])?;
//! let documents = Documents::new(&[0, 5, 12], Causal::UpperLeft)?; // two texts packed end to end
//! let stripes = |p: Pair| p.kv % 3 != 1;
//! let output = Attention::new().mask((documents, stripes)).forward(x, (x, x))?;
//! # assert_eq!(output.out.shape(), [1, 1, 12, 4]);
//! # Ok::<(), regard::Error>(())
//! ```
//!
//! # Scores: how much
//!
//! A score changes `scale · q·k` before every mask: [`Softcap`], [`Alibi`], [`Bias`], [`RelativeBias`], [`Gaussian`], a closure, or a tuple, applied in order.
//! With a derivative ([`with_slope`]) it goes through the backward pass.
//!
//! # Positions
//!
//! Attention itself does not know the order of its keys. [`Rope`] turns queries and keys by their positions, scaled for long texts
//! by [`RopeScaling`]; [`Alibi`] and [`RelativeBias`] are scores; [`sinusoidal`] is added to embeddings.
//!
//! # Keys and values in pages
//!
//! A [`KvCache`] is a pool of pages; a [`Sequence`] is a block table into it. Sequences share pages by [`KvCache::fork`] until one
//! of them writes.
//!
//! ```
//! use regard::{Attention, CacheShape, Causal, Kv, KvCache, View};
//!
//! let mut cache = KvCache::<f32>::new(CacheShape { layers: 1, pages: 8, page_size: 16, kv_heads: 2, head_dim: 4, value_dim: 4 })?;
//! let mut story = cache.sequence();
//! let rows: Vec<f32> = (0..2 * 20 * 4).map(|i| (i as f32).cos()).collect();
//! let rows = View::new(&rows, [1, 2, 20, 4])?; // twenty tokens
//! cache.append(&mut story, rows, rows)?;
//! let other_ending = cache.fork(&story)?; // no copy
//!
//! let q = View::new(&[0.1f32; 2 * 8][..], [2, 2, 1, 4])?; // one query for each of two sequences
//! let seqs = [&story, &other_ending];
//! let output = Attention::new().mask(Causal::LowerRight).forward(q, Kv::Paged { cache: &cache, layer: 0, seqs: &seqs })?;
//! assert_eq!(output.out.shape(), [2, 2, 1, 4]);
//! # Ok::<(), regard::Error>(())
//! ```
//!
//! # Plans
//!
//! [`Attention::plan`] checks the arguments and chooses a kernel; the [`Plan`] then computes ([`Plan::forward`],
//! [`Plan::backward`]) and answers questions ([`Plan::kernel`], [`Plan::why`], [`Plan::cost`]). A row's log-sum-exp makes it a
//! [`State`], which merges with what the same query saw elsewhere.
//!
//! # To see what it does
//!
//! [`Plan::inspect`] gives the output and, for every row, the entropy, the largest weights, the masses of some keys and the distances, from
//! inside the same pass; [`Plan::maps`] gives heat maps at any zoom, and [`Plan::weights`] any row. No matrix of weights is stored, so it
//! works at any length.
//!
//! # Linear attention
//!
//! [`LinearAttention`] keeps a state of fixed size in place of keys and values: plain, decayed, and with the delta rule, from a whole
//! prompt to a single token. [`CausalConv`] is the short convolution that goes before it.
//!
//! # Exactly
//!
//! | question | answer |
//! |---|---|
//! | order | `s = scale·q·k` → scores in the order given → masks → softmax, sinks in its denominator → dropout → `·V` |
//! | grouped heads | query head `h` reads KV head `h / (q_heads / kv_heads)` |
//! | a query that sees nothing | output 0, log-sum-exp −∞, gradients 0 |
//! | precision | f32 accumulation and statistics for f32, f16 and bf16; the output in the type of the input |
//! | same bits | a row depends on its query and the keys and values it sees, never on batch, threads, pages or the run |
//!
//! Kernels never hold a `q_len × kv_len` matrix: working memory is linear in the length, forward and backward.
//!
//! # To learn from
//!
//! [`teach`] has attention on arrays you can write down, with its weights, and errors that say how to repair a call.
//!
//! # Features
//!
//! `ndarray`: array views of `ndarray` become [`View`]s and [`ViewMut`]s by `try_from`, without a copy.
#![forbid(unsafe_code)]

/// The example of the project's README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

mod attention;
mod conv;
mod cost;
mod exact;
mod inspect;
mod linear;
mod plan;
mod rope;
mod sinusoidal;
pub mod teach;

pub use attention::{Attention, sdpa};
pub use conv::{CausalConv, ConvGrads, ConvOutput};
pub use cost::Cost;
pub use exact::Errors;
pub use inspect::{Facts, Inspection};
pub use linear::{LinearAttention, LinearGrads, LinearOutput, LinearPlan};
pub use plan::{Grads, GradsMut, Output, Plan};
pub use regard_core::{
    Alibi, Around, Bias, BiasSink, Blocks, Blockwise, Bools, CacheShape, Causal, Dilated, Documents, Dropout, Either, Element,
    Error, Feature, Fixed, Gate, Gaussian, Global, Kv, KvCache, Lens, LinearInputs, LinearShape, Mask, Padding, Pair, Patch,
    PrefixLm, RandomKeys, RelativeBias, Result, Score, Sequence, Shape, Slope, Softcap, Spans, State, Strided, TILE_PAIRS, Tensor,
    Tile, UpdateRule, View, ViewMut, Window, WithSlope, with_slope,
};
pub use regard_cpu::{Grid, Inspect, Lines, PackedMatrix, Region, Threads, Tiles};
pub use rope::{Angles, Rope, RopeScaling, RopeStyle};
pub use sinusoidal::sinusoidal;

/// The kernels that this machine can run, best first: some of `"amx"`, `"avx512bf16"`, `"avx512"`, `"avx2"`, `"scalar"`.
///
/// The environment variable `REGARD_KERNEL` forces one for the whole process, [`Attention::kernel`] for one call.
pub fn kernels() -> Vec<&'static str> {
    regard_cpu::Kernel::available().into_iter().map(regard_cpu::Kernel::name).collect()
}
