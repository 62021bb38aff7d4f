//! Work shared out over threads, or done by the one that calls.

use rayon::prelude::*;
use regard_core::Shape;

/// Multiply-adds below which the calling thread does all: waking another takes as long as they do.
///
/// With AVX2 2²⁰ take some 60 µs, and a thread that sleeps takes some 35 to begin: docs/performance.md, "Small problems alone".
const ALONE: usize = 1 << 20;

/// Whether the calling thread does a pass alone, of which each pair of query and key takes so many multiply-adds.
fn alone(shape: &Shape, each: usize) -> bool {
    shape.pairs().saturating_mul(each) < ALONE
}

/// Threads that share the work of such a pass.
pub(crate) fn threads(shape: &Shape, each: usize) -> usize {
    if alone(shape, each) { 1 } else { rayon::current_num_threads() }
}

/// Whether the calling thread does the forward pass alone, for it is small.
pub fn forward_alone(shape: &Shape) -> bool {
    alone(shape, shape.head_dim + shape.value_dim)
}

/// Threads that share the work of the forward pass: `S = Q Kᵀ`, `O = P V`.
pub fn forward_threads(shape: &Shape) -> usize {
    threads(shape, shape.head_dim + shape.value_dim)
}

/// Does each item, in any order.
pub(crate) fn share<I: Send>(threads: usize, items: Vec<I>, work: impl Fn(I) + Sync + Send) {
    match threads {
        1 => items.into_iter().for_each(work),
        _ => items.into_par_iter().for_each(work),
    }
}
