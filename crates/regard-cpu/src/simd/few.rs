//! Scores of a few queries: keys in the lanes.
#![allow(unsafe_code)]

use super::{Task, Vector};
use crate::packed::Soon;

/// `Sᵀ = Qᵀ·Kᵀ`, keys turned a block at a time on their way through the registers.
///
/// Every score is one chain of multiply-adds over `d`, as that of a [`Product`](super::Product): the same bits.
pub(crate) struct FewScores<'a, T> {
    /// `[keys, dim]`, rows `k_row` apart.
    pub(crate) k: &'a [f32],
    pub(crate) k_row: usize,
    pub(crate) keys: usize,
    pub(crate) dim: usize,
    /// `[dim, width]`, of which `rows` lanes are queries.
    pub(crate) q: &'a [f32],
    pub(crate) width: usize,
    pub(crate) rows: usize,
    /// `[rows, keys]`, rows `s_row` apart.
    pub(crate) s: &'a mut [f32],
    pub(crate) s_row: usize,
    /// The keys after these.
    pub(crate) soon: Soon<'a, T>,
}

/// A block of keys, turned.
#[repr(align(64))]
struct Turned([f32; 16 * 16]);

impl<T: regard_core::Element> FewScores<'_, T> {
    /// Scores of `R` queries from `row` on, or of as many as there are.
    #[inline(always)]
    fn scores<V: Vector, const R: usize>(&mut self, v: V, row: usize) {
        let mut turned = Turned([0.0; 256]);
        for j in (0..self.keys).step_by(V::LANES) {
            let n = V::LANES.min(self.keys - j);
            let mut sum = [v.splat(0.0); R];
            for d in (0..self.dim).step_by(V::LANES) {
                let columns = V::LANES.min(self.dim - d);
                if row == 0 {
                    self.soon.ask(v, j..j + n, d..d + columns);
                }
                let k = &self.k[j * self.k_row + d..][..(n - 1) * self.k_row + columns];
                if (n, columns) == (V::LANES, V::LANES) {
                    // SAFETY: the slice holds that many rows, `turned` as many columns: `LANES` is at most 16.
                    unsafe { v.transpose_raw(k.as_ptr(), self.k_row, turned.0.as_mut_ptr(), V::LANES) };
                } else {
                    for lane in 0..n {
                        let k = &k[lane * self.k_row..][..columns];
                        k.iter().zip(turned.0[lane..].iter_mut().step_by(V::LANES)).for_each(|(k, to)| *to = *k);
                    }
                }
                for (q, k) in self.q[d * self.width..].chunks_exact(self.width).zip(turned.0.chunks_exact(V::LANES)).take(columns) {
                    let k = v.load(k);
                    for (r, sum) in sum.iter_mut().enumerate() {
                        *sum = v.mul_add(v.splat(q[(row + r).min(self.rows - 1)]), k, *sum); // S += q k
                    }
                }
            }
            for (r, sum) in sum.into_iter().enumerate().take(self.rows - row) {
                v.store(sum, &mut turned.0);
                self.s[(row + r) * self.s_row + j..][..n].copy_from_slice(&turned.0[..n]);
            }
        }
    }
}

impl<T: regard_core::Element> Task for FewScores<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<V: Vector>(mut self, v: V) {
        const { assert!(V::LANES <= 16) };
        let mut row = 0;
        while row < self.rows {
            row += match self.rows - row {
                1 => (self.scores::<V, 1>(v, row), 1).1,
                2 => (self.scores::<V, 2>(v, row), 2).1,
                3..=4 => (self.scores::<V, 4>(v, row), 4).1,
                _ => (self.scores::<V, 8>(v, row), 8).1,
            };
        }
    }
}
