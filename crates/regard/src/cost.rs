//! What a plan will cost, counted tile by tile as the kernel will walk them.

use regard_core::Element;
use regard_cpu::{Problem, TileRule, Tiles};

/// Operations, bytes and tiles of one plan.
///
/// ```text
///   forward     S = Q Kᵀ, O = P V                                   2·(D + Dv) operations for each pair
///   backward    S = Q Kᵀ, dP = dO Vᵀ, dV = Pᵀ dO, dQ = dS K, dK = dSᵀ Q     2·(3D + 2Dv)
/// ```
/// A pair counts when its tile is not hidden: what the kernel computes, not what the mask shows.
///
/// Source: Dao 2023, "FlashAttention-2", §4.1, for the count of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations of the forward pass, a multiply-add counting two.
    pub forward_flops: u64,
    /// Those of the backward pass, where each group of heads has a thread of its own (else scores are computed twice).
    pub backward_flops: u64,
    /// Bytes that the forward pass must move at least: queries, output, log-sum-exp, and each key and value that some tile
    /// reads, once for each KV head.
    pub bytes: u64,
    /// Bytes that the forward pass works in beside its inputs and results, on the threads of the calling pool; see
    /// [`regard_cpu::memory`].
    pub memory: u64,
    /// (query, key) pairs in tiles that are not hidden, over all heads.
    pub pairs: u64,
    /// What the mask, and a bias of −∞, do to the tiles.
    pub tiles: Tiles,
}

impl Cost {
    pub(crate) fn of<T: Element>(p: &Problem<'_, T>, rule: &dyn TileRule) -> Cost {
        let walk = regard_cpu::walk(p, rule);
        let [head_dim, value_dim, element] = [p.shape.head_dim, p.shape.value_dim, size_of::<T>()].map(|n| n as u64);
        let rows = (p.shape.batch * p.shape.q_heads * p.shape.q_len) as u64;
        Cost {
            forward_flops: 2 * (head_dim + value_dim) * walk.pairs,
            backward_flops: 2 * (3 * head_dim + 2 * value_dim) * walk.pairs,
            bytes: element * (head_dim + value_dim) * (rows + walk.keys) + 4 * rows,
            memory: regard_cpu::memory(p),
            pairs: walk.pairs,
            tiles: walk.tiles,
        }
    }
}
