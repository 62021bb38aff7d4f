//! Linear attention: a state of fixed size in place of keys and values that grow.
//!
//! ```text
//!   S' = diag(e^{g_t}) S_{t−1}                     decay: none, one for each head, or one for each element of the key
//!   u_t = v_t, or β_t (v_t − S'ᵀ k_t)              what is written: the value, or its difference from what the key finds
//!   S_t = S' + k_t u_tᵀ      o_t = scale · S_tᵀ q_t
//! ```
//!
//! A chunk of up to [`Linear::chunk`] tokens is a few matrix products; with `G` the running sum of `g` in the chunk and `S` the state
//! before it,
//!
//! ```text
//!   A_ti = Σ_d q_td k_id e^{G_td − G_id}, i ≤ t    M_ti = Σ_d k_td k_id e^{G_td − G_id}, i < t
//!   U = V, or the solution of U = β (V − (e^G ∘ K) S − M U)
//!   O = scale · ((e^G ∘ Q) S + A U)                S ← e^{G_n} ∘ S + (e^{G_n − G} ∘ K)ᵀ U
//! ```
//!
//! Every exponent is a sum of logarithms of decays over an interval of tokens, so it is at most 0 and nothing overflows, however
//! strong the decay. Fewer than 8 tokens are taken one by one. A chunk's arithmetic depends on its tokens and the state
//! before it only: the same bits whatever the threads and the batch, and for a prompt that is cut at multiples of the chunk.
//!
//! Source: Yang et al. 2024, "Parallelizing Linear Transformers with the Delta Rule over Sequence Length", §3, whose triangular
//! system is solved here by substitution, without the inverse; Yang et al. 2023, "Gated Linear Attention Transformers", §4;
//! Yang et al. 2024, "Gated Delta Networks", §3.3.
//!
//! Read in this order: `decays.rs`, `chunk.rs`, `solve.rs`, `output.rs`, `recurrent.rs`, `forward.rs`, `backward.rs`.

use regard_core::{Feature, Gate, LinearInputs, LinearShape, UpdateRule};

use crate::Kernel;
use crate::simd::{Product, Vector};

mod backward;
mod chunk;
mod conv;
mod decays;
mod forward;
mod output;
mod recurrent;
mod solve;

pub use backward::{Gradients, Upstream, backward};
pub use conv::{Conv, ConvGradients, conv_backward, conv_forward};
pub use forward::forward;

/// Tokens in a chunk, unless a problem says otherwise; the backward pass keeps one state for each so many tokens.
pub const CHUNK: usize = 64;

/// Below this many tokens in a chunk, one by one is faster.
const RECURRENT: usize = 8;

/// One linear attention problem, checked: what kernels read.
#[derive(Debug)]
pub struct Linear<'a, T> {
    /// Sizes; agrees with `inputs`.
    pub shape: LinearShape,
    /// Queries, keys, values, gates, and the state before them.
    pub inputs: LinearInputs<'a, T>,
    /// How the state takes in keys and values.
    pub rule: UpdateRule,
    /// What is done to queries and keys first.
    pub feature: Feature,
    /// Whether the output is divided by the sum of its weights; the last column of the state is then the sum of keys.
    pub normalised: bool,
    /// What the output is multiplied by; nothing where it is normalised.
    pub scale: f32,
    /// Tokens in a chunk, at least 1.
    pub chunk: usize,
    /// The instruction set to use.
    pub kernel: Kernel,
}

/// Sizes of the arrays of a chunk: rows are filled up to whole vectors.
#[derive(Clone, Copy)]
struct Sizes {
    /// Elements of a key.
    d: usize,
    /// Those of its row.
    dp: usize,
    /// Elements of a row of the state.
    w: usize,
    /// Those with its padding.
    wp: usize,
}

impl<T> Linear<'_, T> {
    fn sizes(&self, lanes: usize) -> Sizes {
        let (d, w) = (self.shape.head_dim, self.shape.state_dim);
        Sizes { d, dp: d.next_multiple_of(lanes), w, wp: w.next_multiple_of(lanes) }
    }

    /// The gate of one token of a KV head, or `none`.
    fn gate(gate: &Option<Gate<'_>>, (b, h): (usize, usize), l: usize, to: &mut [f32], none: f32) {
        match gate {
            Some(gate) => gate.row_into(b, h, l, to),
            None => to.fill(none),
        }
    }
}

/// The left factor of a product, read one number at a time: element `(i, j)` is `.0[i · .1 + j · .2]`.
struct Left<'a>(&'a [f32], usize, usize);

/// `C = A·B`, or `C += A·B`: `b` and `c` with the distances of their rows, sizes `[m, n, k]`.
#[inline(always)]
fn product<V: Vector>(v: V, a: Left<'_>, b: (&[f32], usize), c: (&mut [f32], usize), [m, n, k]: [usize; 3], add: bool) {
    let (Left(a, a_row, a_column), (b, b_row), (c, c_row)) = (a, b, c);
    v.call(Product { a, a_row, a_column, b, b_row, c, c_row, m, n, k, add, careful: false });
}

/// Rows in a block of a triangular product: what is above the diagonal of blocks is not computed.
const BLOCK: usize = 32;

/// `C (+)= A·B` where `A`, `[n, n]`, is lower triangular with zeros above, or its transpose.
#[inline(always)]
fn triangular<V: Vector>(
    v: V,
    (a, stride): (&[f32], usize),
    transposed: bool,
    b: (&[f32], usize),
    c: (&mut [f32], usize),
    size: [usize; 2],
    add: bool,
) {
    let [n, width] = size;
    for first in (0..n).step_by(BLOCK) {
        let last = (first + BLOCK).min(n);
        let (from, k) = if transposed { (first, n - first) } else { (0, last) };
        let left = if transposed { Left(&a[first * stride + first..], 1, stride) } else { Left(&a[first * stride..], stride, 1) };
        product(v, left, (&b.0[from * b.1..], b.1), (&mut c.0[first * c.1..], c.1), [last - first, width, k], add);
    }
}

/// `Σ a·b`, in sixteen sums.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    for ((sum, a), b) in sums.iter_mut().zip(a_rest).zip(b_rest) {
        *sum += a * b;
    }
    sums.iter().sum()
}

/// `y = x ∘ f`, element by element.
#[inline(always)]
fn times(x: &[f32], f: &[f32], y: &mut [f32]) {
    for ((y, x), f) in y.iter_mut().zip(x).zip(f) {
        *y = x * f;
    }
}

/// `y += x ∘ f`.
#[inline(always)]
fn add_times(x: &[f32], f: &[f32], y: &mut [f32]) {
    for ((y, x), f) in y.iter_mut().zip(x).zip(f) {
        *y += x * f;
    }
}

/// At least `n` elements; what they hold is whatever was there.
#[inline(always)]
fn room(buffer: &mut Vec<f32>, n: usize) -> &mut [f32] {
    if buffer.len() < n {
        buffer.resize(n, 0.0);
    }
    &mut buffer[..n]
}
