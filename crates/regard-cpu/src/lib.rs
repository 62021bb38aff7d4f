//! Fused, exact attention kernels for CPUs.
//!
//! ```text
//!   S = scale · K Qᵀ      P = exp(S − m)      ℓ += Σ P      O += Vᵀ P      at the end  O /= ℓ
//! ```
//!
//! The scores of one tile, [`TILE`] keys by at most [`ROWS`] query rows, live in the first-level cache and are never written out.
//! Tiles keep their queries side by side in the lanes of a vector, so a row's arithmetic is one chain of operations, in order of
//! key position, that no other row, thread, batch or page layout can touch: the same bits, always.
//!
//! Read in this order: [`tile`](self) constants, `simd` (what a vector can do), `simd/product.rs` (the one matrix product
//! everything is made of), `rule.rs` (masks and scores on a tile), `block.rs` (query rows and key tiles), `packed.rs`, `products.rs`, `forward.rs`,
//! `tiled.rs` (the same in the tiles of AMX), `inspect.rs` (facts about rows, from inside), `pool.rs` (maps of weights), `gradient_products.rs`, `sweep.rs`, `backward.rs`, `gemm.rs`. `unsafe` lives in `simd`, `dispatch.rs` and `scatter.rs`.

mod backward;
mod block;
mod dispatch;
mod exp;
mod forward;
mod gemm;
mod gradient_products;
mod inspect;
pub mod linear;
mod lines;
mod memory;
mod once;
mod packed;
mod pool;
mod products;
mod roofline;
mod rule;
mod scatter;
mod share;
mod simd;
mod sweep;
mod tiled;
mod walk;

pub use backward::{Gradients, Upstream, backward};
pub use dispatch::Kernel;
pub use forward::forward;
pub use gemm::{PackedMatrix, Threads};
pub use inspect::{Inspect, RowFacts, inspect};
pub use lines::Lines;
pub use memory::memory;
pub use pool::{Grid, Region, pool};
pub use roofline::{Level, Roofline, Stream};
pub use rule::{Rule, SlopeRule, TileRule};
pub use share::{forward_alone, forward_threads};
#[cfg(target_arch = "x86_64")]
#[doc(hidden)]
pub use simd::amx::assume_amx;
pub use walk::{Tiles, Walk, row_blocks, splits_keys, walk};

/// Keys in a tile. Tiles begin at multiples of this, in absolute key position.
pub const TILE: usize = 64;

/// Query rows in a block: the rows of all heads that share a KV head, flattened.
pub const ROWS: usize = 64;

const _: () = assert!(TILE * ROWS == regard_core::TILE_PAIRS);

/// Keys in a span. Partial softmax states are folded span by span, so any split of the keys over threads gives the same bits.
pub const SPAN: usize = 512;

/// One attention problem, checked: what kernels read.
#[derive(Debug)]
pub struct Problem<'a, T> {
    /// Sizes; agrees with `q` and `kv`.
    pub shape: regard_core::Shape,
    /// Queries `[batch, q_heads, q_len, head_dim]`.
    pub q: regard_core::View<'a, T>,
    /// Keys and values.
    pub kv: regard_core::Kv<'a, T>,
    /// What scaled dot products are multiplied by.
    pub scale: f32,
    /// One logit for each query head that joins the softmax denominator only; empty for none.
    pub sinks: &'a [f32],
    /// Dropout of probabilities.
    pub dropout: Option<regard_core::Dropout>,
    /// The instruction set to use.
    pub kernel: Kernel,
}
