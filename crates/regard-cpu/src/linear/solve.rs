//! The triangular system of the delta rules, by substitution.
//!
//! ```text
//!   e_t = r_t − Σ_{i<t} M_ti u_i       u_t = β_t e_t          forward: what is written depends on what was written before
//!   du_t −= Σ_{s>t} M_st de_s          de_t = β_t du_t        backward: the same, from the end
//! ```

use super::{Left, Sizes, product};
use crate::simd::Vector;

/// Tokens that are solved one by one; what came before them is one product.
const STEP: usize = 16;

/// `m` is `−M` below the diagonal, `[n, stride]`; `e` holds `r` and receives `e`, `[n, wp]`; `u` receives `u`.
#[inline(always)]
pub(super) fn solve<V: Vector>(v: V, (m, stride): (&[f32], usize), beta: &[f32], size: Sizes, e: &mut [f32], u: &mut [f32]) {
    let (n, wp) = (beta.len(), size.wp);
    for first in (0..n).step_by(STEP) {
        let last = (first + STEP).min(n);
        product(v, Left(&m[first * stride..], stride, 1), (u, wp), (&mut e[first * wp..], wp), [last - first, wp, first], true);
        for t in first..last {
            let m = Left(&m[t * stride + first..], stride, 1);
            product(v, m, (&u[first * wp..], wp), (&mut e[t * wp..], wp), [1, wp, t - first], true);
            let row = t * wp..(t + 1) * wp;
            u[row.clone()].iter_mut().zip(&e[row]).for_each(|(u, e)| *u = beta[t] * e);
        }
    }
}

/// `du` is changed to the whole derivative of `u`; `de` receives that of `e`.
#[inline(always)]
pub(super) fn solve_backward<V: Vector>(
    v: V,
    (m, stride): (&[f32], usize),
    beta: &[f32],
    size: Sizes,
    du: &mut [f32],
    de: &mut [f32],
) {
    let (n, wp) = (beta.len(), size.wp);
    for first in (0..n).step_by(STEP).rev() {
        let last = (first + STEP).min(n);
        // Column t of M below row `last`, then the rows up to it.
        let later = Left(m.get(last * stride + first..).unwrap_or_default(), 1, stride);
        product(v, later, (&de[last * wp..], wp), (&mut du[first * wp..], wp), [last - first, wp, n - last], true);
        for t in (first..last).rev() {
            let m = Left(m.get((t + 1) * stride + t..).unwrap_or_default(), 1, stride);
            product(v, m, (&de[(t + 1) * wp..], wp), (&mut du[t * wp..], wp), [1, wp, last - t - 1], true);
            let row = t * wp..(t + 1) * wp;
            de[row.clone()].iter_mut().zip(&du[row]).for_each(|(de, du)| *de = beta[t] * du);
        }
    }
}
